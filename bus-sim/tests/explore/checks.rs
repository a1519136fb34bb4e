//! Checks inside of applications: what they count, what they report, and what they are outside.

use std::panic::catch_unwind;
use std::time::Duration;

use bus_sim::explore::{Checked, Exploration, Explored, Replay, Violation};
use bus_sim::{SimConfig, SimHandle, always, reachable, sometimes};

const HERE: &str = module_path!();

fn explore(seeds: u64, jobs: usize, app: fn(u64)) -> Explored {
    let jobs = jobs.try_into().expect("more than none");
    let exploration = Exploration::new("checks", SimConfig::default()).seeds(0..seeds).jobs(jobs);
    exploration.audit_every(1).checks_in(HERE).run(move |sim| run(sim, app))
}

/// The checks of `app`, which is told the seed, run at the end, in the simulation still.
async fn run(sim: SimHandle, app: fn(u64)) -> Result<(), Vec<Violation>> {
    sim.judge_afterwards(move |report| {
        app(report.seed);
        Vec::new()
    });
    tokio::time::sleep(Duration::from_secs(1)).await;
    Ok(())
}

fn checked(explored: &Explored, name: &str) -> Checked {
    let find = explored.checks.iter().find(|checked| checked.check.name == name);
    *find.unwrap_or_else(|| panic!("{name} is not known: {explored:#?}"))
}

#[test]
fn what_is_not_always_true_is_a_violation_that_can_be_replayed() {
    let app = |seed| always!(seed < 7, "seeds are small", "it is {seed}");
    let explored = explore(20, 2, app);
    let [found] = explored.violations.as_slice() else { panic!("{explored:#?}") };
    assert_eq!((found.seed, explored.seeds_run), (7, 8));
    let violation = &found.violations[0];
    assert_eq!(violation.guarantee, "seeds are small");
    assert!(violation.sentence.starts_with("it was not: it is 7, at "), "{violation:?}");
    assert!(explored.divergences.is_empty(), "{explored:#?}");
    let replay = Replay::from_text(&found.replay.to_text()).expect("it was written by us");
    let replayed = replay.run(&SimConfig::default(), |sim| run(sim, app));
    assert!(replayed.is_reproduced && replayed.is_identical, "{replayed:#?}");
}

#[test]
fn checks_count_each_run_once_whatever_the_number_of_jobs() {
    let app = |seed| {
        always!(seed != 30, "no seed is 30");
        for number in 0..3 {
            sometimes!(seed % 5 == 0 && number == 1, "a seed is divisible by 5");
        }
        if seed >= 30 {
            reachable!("a seed is 30 or more");
        }
    };
    let all = [1, 2, 4].map(|jobs| explore(60, jobs, app).checks);
    assert!(all.iter().all(|checks| *checks == all[0]), "{all:#?}");
    // Neither repeated runs count, nor those beyond the end, nor those of the shrinking.
    let explored = explore(60, 2, app);
    let counts = |name| {
        let checked = checked(&explored, name);
        (checked.runs, checked.runs_true)
    };
    assert_eq!(explored.seeds_run, 31);
    assert_eq!(counts("no seed is 30"), (31, 30));
    assert_eq!(counts("a seed is divisible by 5"), (31, 7));
    assert_eq!(counts("a seed is 30 or more"), (1, 1));
}

/// Nobody calls it: its checks are known nevertheless.
#[expect(dead_code, reason = "that is what is tested")]
fn nobody_calls_it<T: PartialEq>(one: &T, other: &T) {
    always!(one == other, "nobody asks");
    reachable!("nobody comes here");
}

/// A module with checks of its own.
mod apart {
    /// All of them are shown but one.
    pub(super) fn app(seed: u64) {
        super::always!(true, "true is true");
        super::sometimes!(seed > 100, "a seed is above 100");
        super::sometimes!(seed > 1, "a seed is above 1");
    }

    /// The part of which all checks are shown.
    pub(super) mod covered {
        pub(in super::super) fn app(_: u64) {
            super::super::reachable!("it is reached");
        }
    }
}

#[test]
fn checks_that_never_ran_are_known() {
    let explored = explore(3, 1, |_| {});
    let names: Vec<_> = explored.never().map(|checked| checked.check.name).collect();
    assert!(names.contains(&"nobody asks") && names.contains(&"nobody comes here"), "{names:?}");
    assert_eq!(checked(&explored, "nobody asks").runs, 0);
}

#[test]
fn what_is_not_covered_is_told_by_name_and_place() {
    let module = format!("{HERE}::apart");
    let exploration = Exploration::new("apart", SimConfig::default()).seeds(0..3);
    let explored = exploration.checks_in(&module).run(|sim| run(sim, apart::app));
    assert_eq!(explored.checks.len(), 4, "{:#?}", explored.checks);
    let message = catch_unwind(|| explored.assert_covered()).expect_err("a check is not covered");
    let message = message.downcast_ref::<String>().expect("it has a message");
    assert!(message.starts_with("apart: 2 of 4 checks are not covered by 3 seeds:"), "{message}");
    let line = "sometimes \"a seed is above 100\", at ";
    assert!(message.contains(line) && message.contains("in 3 runs, true in 0"), "{message}");
    assert!(message.contains("reachable \"it is reached\""), "{message}");

    let exploration = Exploration::new("covered", SimConfig::default()).seeds(0..3);
    let exploration = exploration.checks_in(format!("{module}::covered"));
    exploration.run(|sim| run(sim, apart::covered::app)).assert_covered();
}

#[test]
fn outside_of_an_exploration_only_what_is_always_true_matters() {
    sometimes!(false, "nobody counts");
    reachable!("nobody counts this either");
    always!(true, "it is true");
    let message = catch_unwind(|| always!(1 > 2, "one is more", "by {}", 2 - 1));
    let message = message.expect_err("it is false");
    let message = message.downcast_ref::<String>().expect("it has a message");
    let begin = "always \"one is more\": it was not: by 1, at ";
    assert!(message.starts_with(begin), "{message}");
}

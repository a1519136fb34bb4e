//! Storms: three brokers with three copies of everything, producers, a group, and the faults that a
//! seed draws, as long as three copies promise to survive them.
//!
//! However bad the day: what was acknowledged is in the log at the offset that was named, once and
//! in order; what certainly failed is not there; all readers saw the same; and once everything is
//! healed, all work ends in time.
//!
//! `BUS_STORM_SEEDS=1000..2000` runs other seeds, `BUS_STORM_SEEDS=17..18` one of them, with the
//! faults told.

#![expect(clippy::print_stdout, reason = "the faults of a single seed are told")]

mod ledger;
mod sometimes;
mod story;

use std::collections::BTreeSet;
use std::ops::Range;
use std::time::Duration;

use bus_sim::fault::{Envelope, FaultKind, FaultReport, Plan, Surroundings, draw};
use bus_sim::{Mutation, Sim, SimConfig};

use story::{PARTITIONS, TOPIC, Verdict};

/// How many seeds, unless the environment says otherwise.
const SEEDS: Range<u64> = 0..60;

/// Within how many seeds a planted bug must be found.
const FOUND_WITHIN: u64 = 300;

/// When everything heals.
const HORIZON: Duration = Duration::from_secs(12);

/// Longer than any timeout of clients and brokers, one after the other.
const TIME_LIMIT: Duration = Duration::from_mins(30);

#[test]
#[expect(clippy::disallowed_methods, reason = "the seeds to run")]
fn nothing_acknowledged_is_lost_and_all_work_ends() {
    let seeds = std::env::var("BUS_STORM_SEEDS").map_or(SEEDS, |seeds| parse(&seeds));
    let is_told = seeds.end - seeds.start == 1;
    let failed = |seed| {
        // Every other seed: any number of brokers at once, as long as none loses what it has.
        let weather = if seed % 2 == 0 { Weather::Tolerated } else { Weather::NoPowerLost };
        let config = drawn(seed, weather);
        let config = SimConfig { record_trace: is_told, ..config };
        let Storm { verdict, faults, .. } = storm(config.clone());
        if is_told {
            tell(&config.plan, &faults);
        }
        let wrong = verdict.wrong;
        (!wrong.is_empty()).then(|| format!("seed {seed}: {}", wrong.join("\n  ")))
    };
    let failures: Vec<_> = seeds.filter_map(failed).collect();
    assert!(failures.is_empty(), "{} seeds failed:\n{}", failures.len(), failures.join("\n"));
}

/// A storm that finds nothing may be a storm that cannot find anything.
#[test]
fn planted_bugs_are_found() {
    for mutation in [
        Mutation::SequenceIgnored,
        Mutation::AckedBeforeReplicated,
        Mutation::ElectedOutOfSync,
        Mutation::WatermarkAheadOfInSync,
    ] {
        let is_found = |seed: &u64| {
            let config = drawn(*seed, Weather::NoPowerLost);
            let config = SimConfig { mutation: Some(mutation), ..config };
            !storm(config).verdict.wrong.is_empty()
        };
        let found = (0..FOUND_WITHIN).find(is_found);
        assert!(found.is_some(), "{} is not found in {FOUND_WITHIN} seeds", mutation.name());
        println!("{} is found by seed {}", mutation.name(), found.unwrap_or(0));
    }
}

/// What came of a storm.
struct Storm {
    verdict: Verdict,
    faults: Vec<FaultReport>,
}

/// How bad a storm may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Weather {
    /// One broker at a time is away.
    Tolerated,
    /// Any number of brokers is away, and every log survives: nothing may be lost either.
    NoPowerLost,
    /// Anything.
    Worst,
}

/// The storm of a seed.
fn drawn(seed: u64, weather: Weather) -> SimConfig {
    let mut kinds: BTreeSet<_> = FaultKind::ALL.iter().copied().collect();
    if weather == Weather::NoPowerLost {
        kinds.remove(&FaultKind::LosePower);
    }
    let envelope = match weather {
        Weather::Tolerated => Envelope::Tolerated,
        Weather::NoPowerLost | Weather::Worst => Envelope::Beyond,
    };
    let surroundings = Surroundings {
        processes: (0..3).map(|n| format!("member-{n}")).collect(),
        topics: vec![(TOPIC.into(), PARTITIONS)],
        groups: vec!["g".to_owned()],
        commits: if weather == Weather::Worst { commits() } else { Vec::new() },
        envelope,
        kinds,
        ..Surroundings::new(3, HORIZON)
    };
    let config = SimConfig { seed, brokers: 3, time_limit: TIME_LIMIT, ..Default::default() };
    draw(seed, &surroundings).apply(config)
}

/// The members note in a database what they have seen.
fn commits() -> Vec<(String, String)> {
    (0..3).map(|n| (format!("member-{n}"), story::DATABASE.to_owned())).collect()
}

fn storm(config: SimConfig) -> Storm {
    let sim = Sim::new(config).expect("a valid configuration");
    let outcome = sim.run(story::storm);
    let verdict = match outcome.result {
        Ok(Ok(verdict)) => verdict,
        Ok(Err(error)) => Verdict::wrong(format!("{error:?}")),
        Err(stalled) => Verdict::wrong(stalled.to_string()),
    };
    Storm { verdict, faults: outcome.report.faults }
}

fn tell(plan: &Plan, faults: &[FaultReport]) {
    for (planned, report) in plan.faults.iter().zip(faults) {
        println!("{}", ron::to_string(planned).expect("a plan can be written"));
        match &report.struck {
            Some(struck) => println!("  {:?} {} {}", struck.at, struck.on, struck.has_changed),
            None => println!("  never"),
        }
    }
}

fn parse(seeds: &str) -> Range<u64> {
    let range = seeds.split_once("..").and_then(|(a, b)| Some(a.parse().ok()?..b.parse().ok()?));
    range.unwrap_or_else(|| panic!("BUS_STORM_SEEDS={seeds:?} is not like 0..100"))
}

//! The environment variables of an exploration: this test runs itself with them.

use std::process::Command;

use bus_sim::SimConfig;
use bus_sim::explore::{Exploration, Violation};

/// Set in the process that this test starts: what a user's own test would be.
const INNER: &str = "BUS_TEST_IS_INNER";

/// Breaks with seeds of 20 and above.
fn small_seeds_hold() {
    let exploration = Exploration::new("small-seeds", SimConfig::default()).seeds(0..3);
    let explored = exploration.run(|sim| async move {
        sim.judge_afterwards(|report| {
            let is_broken = report.seed >= 20;
            is_broken.then(|| Violation::new("small", "it is not")).into_iter().collect()
        });
        Ok(())
    });
    println!("ran {} seeds", explored.seeds_run);
    explored.assert_held();
}

/// What this test prints in a process with a variable, and whether it passes there.
fn with(variable: &str, value: &str) -> (bool, String) {
    let program = std::env::current_exe().expect("this program is a file");
    let test = "environment::the_environment_says_which_seeds_are_run";
    let folder = std::env::temp_dir().join(format!("bus-sim-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("it can be created");
    let output = Command::new(program)
        .args(["--exact", test, "--nocapture"])
        .current_dir(&folder)
        .envs([(INNER, "1"), ("CARGO_PKG_NAME", "shop"), (variable, value)])
        .output()
        .expect("it can be started");
    std::fs::remove_dir_all(&folder).expect("it is there");
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    (output.status.success(), text)
}

#[test]
fn the_environment_says_which_seeds_are_run() {
    if std::env::var_os(INNER).is_some() {
        return small_seeds_hold();
    }
    let (passed, text) = with("BUS_SEED", "");
    assert!(passed && text.contains("ran 3 seeds"), "{text}");
    let (passed, text) = with("BUS_SEEDS", "5..20");
    assert!(passed && text.contains("ran 15 seeds"), "{text}");
    let (passed, text) = with("BUS_SEEDS", "100");
    assert!(!passed && text.contains("ran 21 seeds"), "{text}");
    let (passed, text) = with("BUS_SEED", "29");
    assert!(!passed && text.contains("ran 1 seeds") && text.contains("violated: small"), "{text}");
    let again = "again: BUS_SEED=29 cargo test -p shop environment::the_environment_says";
    assert!(text.contains(again) && text.contains("small-seeds-29.busplay\n"), "{text}");
    let (passed, text) = with("BUS_SEED", "a");
    assert!(!passed && text.contains("BUS_SEED=a means nothing: write the number"), "{text}");
}

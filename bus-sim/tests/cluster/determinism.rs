//! The law: equal seed, configuration, and code give an equal trace, also in another process.

use std::path::{Path, PathBuf};
use std::process::Command;

use bus_sim::{Sim, SimConfig, TraceHash};

use crate::common::{bad_day, story};

/// Names the seed to the copy of this test that runs in another process.
const SEED_VARIABLE: &str = "BUS_SIM_TEST_SEED";

#[test]
fn a_rerun_gives_the_same_trace() {
    for seed in 0..20 {
        let (first, second) = (story(seed, bad_day), story(seed, bad_day));
        assert_same(&first.report.trace, &second.report.trace, &format!("seed {seed}"));
        assert_eq!(first.report.trace_hash, second.report.trace_hash, "seed {seed}");
    }
}

#[test]
fn another_seed_gives_another_trace() {
    assert_ne!(trace_hash(1), trace_hash(2));
}

#[test]
fn keeping_the_lines_does_not_change_the_hash() {
    assert_eq!(trace_hash(3), story(3, bad_day).report.trace_hash);
}

#[test]
fn another_process_gives_the_same_trace() {
    for seed in 0..5 {
        let executable = std::env::current_exe().expect("the path of this test");
        let output = Command::new(executable)
            .args(["--exact", "determinism::prints_the_hash_of_a_seed", "--nocapture"])
            .env(SEED_VARIABLE, seed.to_string())
            .output()
            .expect("this test runs again");
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        let expected = format!("trace {}", trace_hash(seed));
        assert!(printed.contains(&expected), "seed {seed}: no {expected:?} in {printed}");
    }
}

/// The other half of `another_process_gives_the_same_trace`; by itself it checks that a run with a
/// given seed ends.
#[test]
#[expect(clippy::disallowed_methods, reason = "the seed of the copy in another process")]
fn prints_the_hash_of_a_seed() {
    let seed = std::env::var(SEED_VARIABLE).ok().and_then(|seed| seed.parse().ok()).unwrap_or(0);
    println!("trace {}", trace_hash(seed));
}

/// Three traces that are kept in the repository. If one changes on purpose, run the test with
/// `BUS_UPDATE_GOLDEN=1` and look at the difference.
#[test]
fn golden_traces_do_not_change() {
    for seed in [1, 2, 3] {
        let trace = story(seed, bad_day).report.trace;
        let file = golden_file(seed);
        if std::env::var_os("BUS_UPDATE_GOLDEN").is_some() {
            std::fs::write(&file, trace.join("\n") + "\n").expect("the golden file is written");
            continue;
        }
        let golden = std::fs::read_to_string(&file).expect("the golden file is there");
        let golden = golden.lines().map(str::to_owned).collect::<Vec<_>>();
        assert_same(&golden, &trace, &file.display().to_string());
    }
}

fn golden_file(seed: u64) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/bad-day-{seed}.trace"))
}

fn trace_hash(seed: u64) -> TraceHash {
    let config = SimConfig { seed, ..Default::default() };
    Sim::new(config).expect("a valid configuration").run(bad_day).report.trace_hash
}

/// Names the first line that differs.
fn assert_same(expected: &[String], found: &[String], what: &str) {
    let differs = expected.iter().zip(found).position(|(expected, found)| expected != found);
    if let Some(line) = differs {
        let (expected, found) = (&expected[line], &found[line]);
        panic!("{what}: line {} differs\n  expected {expected}\n  found    {found}", line + 1);
    }
    assert_eq!(expected.len(), found.len(), "{what}: one trace goes on");
}

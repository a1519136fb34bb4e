//! Every case on the simulator, on a few seeds.
//!
//! `BUS_TEST_SEEDS=100` runs more seeds, `BUS_TEST_SEED=7` one of them.

#![expect(clippy::print_stderr, reason = "a runner of its own talks as libtest does")]

use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use conformance::case::{Case, Outcome};
use conformance::on_sim;
use conformance::results::Results;
use conformance::suite::CASES;
use libtest_mimic::{Arguments, Failed, Trial};
use parking_lot::Mutex;

/// How many seeds, unless the environment says otherwise.
const SEEDS: u64 = 3;

fn main() {
    let arguments = Arguments::from_args();
    let results = Arc::new(Mutex::new(Results::default()));
    let trials = CASES.iter().map(|case| {
        let results = Arc::clone(&results);
        let trial = move || {
            let outcome = run(case);
            let kept = match &outcome {
                Ok(()) => Outcome::Passed,
                Err(message) => Outcome::Failed(message.clone()),
            };
            results.lock().cases.insert(case.name.to_owned(), kept);
            outcome.map_err(Failed::from)
        };
        Trial::test(case.name, trial).with_kind("sim")
    });
    let begin = Instant::now();
    let conclusion = libtest_mimic::run(&arguments, trials.collect());
    let mut results = results.lock();
    results.seconds = begin.elapsed().as_secs_f64();
    if let Err(error) = results.write("sim") {
        eprintln!("the results are not kept: {error}");
    }
    conclusion.exit();
}

fn run(case: &Case) -> Result<(), String> {
    for seed in seeds() {
        on_sim::run(case, seed, None).map_err(|failure| {
            let name = case.name;
            format!(
                "{name}: {}\n{failure}\nhint: BUS_TEST_SEED={seed} cargo test --test sim {name}",
                case.guarantee()
            )
        })?;
    }
    Ok(())
}

fn seeds() -> Range<u64> {
    let number = |name: &str| std::env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
    match number("BUS_TEST_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("BUS_TEST_SEEDS").unwrap_or(SEEDS),
    }
}

//! Random programs on the simulator and on the real Kafka that `BUS_TEST_KAFKA=host:port` names.
//!
//! Without it they are skipped, and that is said; with `BUS_TEST_REQUIRE_KAFKA=1` it is a failure.
//! `BUS_TEST_PROGRAMS=2000` runs more, `BUS_TEST_SEED=7` others.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a runner of its own says what it ran and what it skipped"
)]

use std::process::ExitCode;
use std::time::Duration;

use differential::backend::{OnKafka, OnSim};
use differential::campaign::{Campaign, Pair};
use differential::generate::Features;

/// How many programs, unless the environment says otherwise: less than a minute.
const PROGRAMS: u64 = 40;
/// What they are drawn from: the seed of the recorded programs. `docs/differential.md` says which
/// divergences of other seeds are open.
const SEED: u64 = 5;

fn main() -> ExitCode {
    if std::env::args().any(|argument| argument == "--list") {
        // Whoever lists tests by machine reads names, and nothing else.
        return ExitCode::SUCCESS;
    }
    let programs = number("BUS_TEST_PROGRAMS").unwrap_or(PROGRAMS);
    let Ok(hosts) = std::env::var("BUS_TEST_KAFKA") else {
        let is_required = std::env::var("BUS_TEST_REQUIRE_KAFKA").is_ok_and(|value| value == "1");
        println!(
            "skipped: {programs} random programs on a real Kafka, because BUS_TEST_KAFKA names no \
             broker (hint: `bus kafka up` starts one)"
        );
        return if is_required { ExitCode::FAILURE } else { ExitCode::SUCCESS };
    };
    let runtime = differential::runtime().expect("the system has threads");
    let campaign = Campaign {
        seed: number("BUS_TEST_SEED").unwrap_or(SEED),
        first: 0,
        programs,
        side_by_side: 24,
        features: Features::default(),
        divergences_max: 1,
        shrink_for: Duration::from_secs(30),
    };
    let findings = runtime.block_on(async {
        let kafka = OnKafka::connect(&hosts).await?;
        Ok::<_, bus_core::Error>(campaign.run(&Pair::new(kafka, OnSim::default()), |_| {}).await)
    });
    match findings {
        Ok(findings) => {
            for found in &findings.divergences {
                eprintln!("program {} of seed {}:\n{}", found.number, campaign.seed, found.shrunk);
            }
            let (failed, rate) = (findings.divergences.len(), findings.rate());
            let programs = findings.programs;
            println!("{programs} programs, {rate:.1} per second, seed {}", campaign.seed);
            println!("{} passed, {failed} failed", findings.programs - failed as u64);
            if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

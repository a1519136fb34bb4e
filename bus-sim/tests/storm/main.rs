//! Storms: three brokers with three copies of everything, producers, a group, and faults at random.
//!
//! However bad the day: what was acknowledged is in the log at the offset that was named, once and
//! in order; what certainly failed is not there; all readers saw the same; and once everything is
//! healed, all work ends in time.
//!
//! `BUS_STORM_SEEDS=1000..2000` runs other seeds, `BUS_STORM_SEEDS=17..18` one of them, with the
//! faults told.

#![expect(clippy::print_stdout, reason = "the faults of a single seed are told")]

mod faults;
mod ledger;
mod story;

use std::ops::Range;
use std::time::Duration;

use bus_sim::{Mutation, Sim, SimConfig};

/// How many seeds, unless the environment says otherwise.
const SEEDS: Range<u64> = 0..60;

/// Within how many seeds a planted bug must be found.
const FOUND_WITHIN: u64 = 300;

/// Longer than any timeout of clients and brokers, one after the other.
const TIME_LIMIT: Duration = Duration::from_mins(30);

#[test]
#[expect(clippy::disallowed_methods, reason = "the seeds to run")]
fn nothing_acknowledged_is_lost_and_all_work_ends() {
    let seeds = std::env::var("BUS_STORM_SEEDS").map_or(SEEDS, |seeds| parse(&seeds));
    let is_told = seeds.end - seeds.start == 1;
    let failed = |seed| {
        let wrong = storm(seed, None, is_told);
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
        let found = (0..FOUND_WITHIN).find(|seed| !storm(*seed, Some(mutation), false).is_empty());
        assert!(found.is_some(), "{} is not found in {FOUND_WITHIN} seeds", mutation.name());
    }
}

/// Returns what is wrong with a seed.
fn storm(seed: u64, mutation: Option<Mutation>, is_told: bool) -> Vec<String> {
    let config =
        SimConfig { seed, brokers: 3, time_limit: TIME_LIMIT, mutation, ..Default::default() };
    let sim = Sim::new(config).expect("a valid configuration");
    match sim.run(|sim| story::storm(sim, seed, is_told)).result {
        Ok(Ok(wrong)) => wrong,
        Ok(Err(error)) => vec![format!("{error:?}")],
        Err(stalled) => vec![stalled.to_string()],
    }
}

fn parse(seeds: &str) -> Range<u64> {
    let range = seeds.split_once("..").and_then(|(a, b)| Some(a.parse().ok()?..b.parse().ok()?));
    range.unwrap_or_else(|| panic!("BUS_STORM_SEEDS={seeds:?} is not like 0..100"))
}

//! The traces of worst days, to compare processes, builds, and machines by.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::sync::Arc;

use bus_sim::{SimHandle, SimReport, TraceHash};
use parking_lot::Mutex;

use super::WorstDays;

/// The hash of the trace of each seed; none of a run that ended in a panic of the simulator.
pub fn hashes(
    days: &WorstDays,
    seeds: Range<u64>,
    jobs: Option<NonZeroUsize>,
) -> BTreeMap<u64, TraceHash> {
    each(days, seeds, jobs, |report| report.trace_hash)
}

/// The trace of a seed, a line for each event.
pub fn trace(days: &WorstDays, seed: u64) -> Vec<String> {
    let mut days = days.clone();
    days.world.record_trace = true;
    let traces = each(&days, seed..seed + 1, None, |report| report.trace.clone());
    traces.into_values().next().unwrap_or_default()
}

/// What is taken from the report of each seed.
fn each<T: Send + 'static>(
    days: &WorstDays,
    seeds: Range<u64>,
    jobs: Option<NonZeroUsize>,
    take: fn(&SimReport) -> T,
) -> BTreeMap<u64, T> {
    let taken: Arc<Mutex<BTreeMap<u64, T>>> = Arc::default();
    let judged = days.judged();
    let mut exploration =
        days.exploration().seeds(seeds).violations(usize::MAX).shrink_runs(0).audit_every(0);
    if let Some(jobs) = jobs {
        exploration = exploration.jobs(jobs);
    }
    exploration.run(|sim: SimHandle| {
        let taken = Arc::clone(&taken);
        sim.judge_afterwards(move |report| {
            // The run of a violation is run again: the first is that of the seed.
            taken.lock().entry(report.seed).or_insert_with(|| take(report));
            Vec::new()
        });
        judged(sim)
    });
    std::mem::take(&mut *taken.lock())
}

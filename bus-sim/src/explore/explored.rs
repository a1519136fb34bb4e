//! What came of an exploration, and what a test demands of it.

use std::path::PathBuf;
use std::time::Duration;

use super::audit::Divergence;
use super::case::Violation;
use super::checks::Checked;
use super::environment::Environment;
use super::replay::Replay;

/// What came of an exploration.
#[derive(Debug)]
pub struct Explored {
    /// The name of what was explored.
    pub name: String,
    /// How many seeds were run: all, or up to that of the last violation that was asked for.
    pub seeds_run: u64,
    /// The violations, in the order of their seeds.
    pub violations: Vec<Found>,
    /// Runs that were not the same when they were repeated.
    pub divergences: Vec<Divergence>,
    /// How many of the runs were repeated.
    pub audited: u64,
    /// How many of them were repeated in another process, by whoever can start one; the command
    /// `bus explore --audit-process` does.
    pub audited_elsewhere: u64,
    /// What came of the [`Check`](super::Check)s of the program, in the order of their places.
    pub checks: Vec<Checked>,
    /// How much time passed in the worlds.
    pub virtual_time: Duration,
    /// How many events they handled.
    pub events: u64,
    /// How much time passed here, without shrinking.
    pub wall_time: Duration,
    pub(super) environment: Environment,
}

/// A violation that was found.
#[derive(Clone, Debug)]
pub struct Found {
    /// The seed.
    pub seed: u64,
    /// All guarantees that the run of the seed broke; the first one was shrunk.
    pub violations: Vec<Violation>,
    /// The shrunk run.
    pub replay: Replay,
}

impl Explored {
    /// Whether every guarantee held, and every run that was repeated was the same.
    pub fn held(&self) -> bool {
        self.violations.is_empty() && self.divergences.is_empty()
    }

    /// How many runs there were per second.
    pub fn runs_per_second(&self) -> f64 {
        let seconds = self.wall_time.as_secs_f64();
        if seconds > 0.0 { (self.seeds_run + self.audited) as f64 / seconds } else { 0.0 }
    }

    /// The checks that no run showed: a `sometimes!` that was never true, and others that never
    /// ran.
    pub fn never(&self) -> impl Iterator<Item = &Checked> {
        self.checks.iter().filter(|checked| checked.is_never())
    }

    /// For tests: passes if no check is [never](Self::never) shown; and always if `BUS_SEED` asked
    /// for one seed, or if a violation ended the exploration early.
    ///
    /// # Panics
    /// If not, with these checks.
    #[track_caller]
    pub fn assert_covered(&self) {
        if self.environment.is_one_seed || !self.violations.is_empty() {
            return;
        }
        let never: Vec<_> = self.never().map(|checked| format!("\n  {checked}")).collect();
        assert!(
            never.is_empty(),
            "{}: {} of {} checks are not covered by {} seeds:{}\nhint: more seeds, other faults, \
             or more work per run; `checks_in` leaves out those of other tests",
            self.name,
            never.len(),
            self.checks.len(),
            self.seeds_run,
            never.concat()
        );
    }

    /// For tests: passes if it [held](Self::held).
    ///
    /// # Panics
    /// If not, with the first violation, after its replay file was written to
    /// `target/bus-sim/<name>-<seed>.busplay`, and with the command line that runs its seed again.
    #[track_caller]
    pub fn assert_held(&self) {
        if let Some(divergence) = self.divergences.first() {
            let again = self.environment.again(divergence.seed);
            panic!("{}: {divergence}\nagain: {again}", self.name);
        }
        let Some(found) = self.violations.first() else { return };
        let folder = PathBuf::from(TARGET);
        let path = folder.join(format!("{}-{}.busplay", self.name, found.seed));
        let written = std::fs::create_dir_all(&folder)
            .and_then(|()| std::fs::write(&path, found.replay.to_bytes()))
            .and_then(|()| path.canonicalize())
            .map_or_else(
                |error| format!("not written: {error}"),
                |path| path.display().to_string(),
            );
        panic!(
            "{} after {} seeds: {}\nreplay: {written}\nagain: {}",
            self.name,
            self.seeds_run,
            found.replay,
            self.environment.again(found.seed)
        );
    }
}

/// Where the replay files of tests are written.
const TARGET: &str = "target/bus-sim";

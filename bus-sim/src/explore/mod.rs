//! Exploration: an application on many worst days, until one breaks a guarantee.
//!
//! Each seed draws a plan of faults and all small decisions of a run. A run that breaks a guarantee
//! is shrunk until nothing can be taken away, and becomes a [`Replay`]: a text that a
//! person can read and change, and that gives the same run for ever.
//!
//! ```
//! use std::time::Duration;
//!
//! use bus_core::{ConsumerConfig, ConsumerExt, NewTopic, ProducerConfig, ProducerRecord};
//! use bus_core::{Result, Subscription};
//! use bus_sim::explore::{Exploration, Violation};
//! use bus_sim::{SimConfig, SimHandle};
//!
//! /// One order is sent, and must be received.
//! async fn order_arrives(sim: SimHandle) -> Result<(), Vec<Violation>> {
//!     let received = send_and_receive(sim).await.map_err(|error| {
//!         vec![Violation::new("order arrives", format!("it failed: {error}"))]
//!     })?;
//!     if received == 1 {
//!         return Ok(());
//!     }
//!     Err(vec![Violation::new("order arrives", format!("it was received {received} times"))])
//! }
//!
//! async fn send_and_receive(sim: SimHandle) -> Result<usize> {
//!     let bus = sim.bus();
//!     bus.admin()?.create_topic(NewTopic::new("orders")).await?;
//!     let producer = bus.producer(ProducerConfig::default())?;
//!     producer.send(ProducerRecord::to("orders").value("1")).await?;
//!     let consumer = bus.consumer(ConsumerConfig::in_group("shop"))?;
//!     consumer.subscribe(Subscription::topics(["orders"]))?;
//!     Ok(consumer.poll_records(Duration::from_mins(1)).await?.len())
//! }
//!
//! let explored = Exploration::new("orders", SimConfig::default()).seeds(0..20).run(order_arrives);
//! explored.assert_held();
//! assert_eq!(explored.seeds_run, 20);
//! ```
//!
//! `BUS_SEED=29 cargo test` runs that seed only, and `BUS_SEEDS=0..5000 cargo test` those.
//!
//! What must be seen on some day is said in the code, with [`always!`](crate::always),
//! [`sometimes!`](crate::sometimes), and [`reachable!`](crate::reachable): see [`Check`].

mod audit;
mod case;
mod checks;
mod environment;
mod explored;
mod panics;
mod replay;
mod shrink;

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use parking_lot::Mutex;

use crate::config::SimConfig;
use crate::driver::SimHandle;
use crate::fault::Drawn;

pub use audit::Divergence;
pub use case::{Case, NO_PANIC, PROGRESS, Violation};
use case::{Ran, Subject};
use checks::Seen;
pub use checks::{Check, CheckKind, Checked};
#[doc(hidden)]
pub use checks::{Registered, demand, note};
use environment::Environment;
pub use explored::{Explored, Found};
#[doc(hidden)]
pub use inventory;
pub use replay::{Expected, Replay, ReplayError, Replayed, Shrunk};

/// How an application is explored. See the [module](self) for an example.
pub struct Exploration<'a> {
    name: String,
    config: SimConfig,
    seeds: Range<u64>,
    jobs: NonZeroUsize,
    draw: Box<dyn Fn(u64) -> Option<Drawn> + Sync + 'a>,
    violations: usize,
    shrink_runs: u32,
    audit_every: u64,
    modules: Vec<String>,
    reads_environment: bool,
    progress: Box<dyn Fn(&Progress) + Sync + 'a>,
}

/// How far an exploration is.
#[derive(Clone, Copy, Debug, Default)]
pub struct Progress {
    /// How many runs are over.
    pub runs: u64,
    /// How many seeds there are.
    pub seeds: u64,
    /// How many of the runs broke a guarantee.
    pub violations: u64,
    /// How many runs the shrinking of the violation in hand has taken; none while none is.
    pub shrinking: Option<u32>,
}

impl<'a> Exploration<'a> {
    /// Explores seeds 0 to 199 of a world without faults, on all cores, up to the first violation.
    pub fn new(name: impl Into<String>, config: SimConfig) -> Self {
        Self {
            name: name.into(),
            config,
            seeds: 0..200,
            jobs: thread::available_parallelism().unwrap_or(NonZeroUsize::MIN),
            draw: Box::new(|_| None),
            violations: 1,
            shrink_runs: 2_000,
            audit_every: 50,
            modules: Vec::new(),
            reads_environment: true,
            progress: Box::new(|_| {}),
        }
    }

    /// The seeds.
    #[must_use]
    pub fn seeds(mut self, seeds: Range<u64>) -> Self {
        self.seeds = seeds;
        self
    }

    /// How many runs at a time. As many as there are cores.
    #[must_use]
    pub fn jobs(mut self, jobs: NonZeroUsize) -> Self {
        self.jobs = jobs;
        self
    }

    /// What goes wrong in the run of a seed, as [`draw`](crate::fault::draw) says. Nothing.
    #[must_use]
    pub fn faults(mut self, draw: impl Fn(u64) -> Drawn + Sync + 'a) -> Self {
        self.draw = Box::new(move |seed| Some(draw(seed)));
        self
    }

    /// After how many violations it ends. One.
    #[must_use]
    pub const fn violations(mut self, violations: usize) -> Self {
        self.violations = violations;
        self
    }

    /// How many runs the shrinking of a violation may take. 2,000; with 0 it is kept as it is.
    #[must_use]
    pub const fn shrink_runs(mut self, runs: u32) -> Self {
        self.shrink_runs = runs;
        self
    }

    /// Every how many seeds a run is repeated, to see whether it is the same. 50; 0 for never.
    #[must_use]
    pub const fn audit_every(mut self, seeds: u64) -> Self {
        self.audit_every = seeds;
        self
    }

    /// Counts only the [`Check`]s in this module and those inside of it, such as `shop::orders`,
    /// and in others that are named so. All of the program.
    #[must_use]
    pub fn checks_in(mut self, module: impl Into<String>) -> Self {
        self.modules.push(module.into());
        self
    }

    /// Leaves `BUS_SEED` and `BUS_SEEDS` alone: for a program with arguments of its own.
    #[must_use]
    pub const fn without_environment(mut self) -> Self {
        self.reads_environment = false;
        self
    }

    /// Whom to tell how far it is, after each run, from any thread.
    #[must_use]
    pub fn on_progress(mut self, tell: impl Fn(&Progress) + Sync + 'a) -> Self {
        self.progress = Box::new(tell);
        self
    }

    /// Explores an application together with its judge: it returns the guarantees that were broken.
    ///
    /// The result does not depend on the number of jobs.
    ///
    /// `BUS_SEED=29` in the environment runs that seed only, and `BUS_SEEDS=0..5000` (or `5000`)
    /// those, whatever [`seeds`](Self::seeds) says.
    ///
    /// # Panics
    /// If one of these variables has another value.
    pub fn run<F, Fut>(&self, app: F) -> Explored
    where
        F: Fn(SimHandle) -> Fut + Sync,
        Fut: Future<Output = Result<(), Vec<Violation>>>,
    {
        let environment =
            if self.reads_environment { Environment::read() } else { Environment::default() };
        let seeds = environment.seeds.clone().unwrap_or_else(|| self.seeds.clone());
        let search = Search {
            exploration: self,
            app: &app,
            next: AtomicU64::new(seeds.start),
            end: AtomicU64::new(seeds.end.max(seeds.start)),
            seeds: seeds.end.saturating_sub(seeds.start),
            environment,
            tally: Mutex::new(Tally::default()),
        };
        let clock = wall_clock();
        thread::scope(|scope| {
            for _ in 0..self.jobs.get() {
                scope.spawn(|| search.work());
            }
        });
        search.finish(clock())
    }

    /// Runs one case, as often as it is asked to.
    fn run_case(&self, app: &dyn Subject, case: &Case, config: impl Fn(&mut SimConfig)) -> Ran {
        let mut base = case.config(&self.config);
        config(&mut base);
        app.run(base)
    }
}

impl std::fmt::Debug for Exploration<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Exploration")
            .field("name", &self.name)
            .field("seeds", &self.seeds)
            .finish_non_exhaustive()
    }
}

/// The search for violations, shared by the threads.
struct Search<'a, 'b> {
    exploration: &'a Exploration<'b>,
    app: &'a dyn Subject,
    next: AtomicU64,
    /// No seed from here on: a lower one completed the violations that were asked for.
    end: AtomicU64,
    /// How many there are.
    seeds: u64,
    environment: Environment,
    tally: Mutex<Tally>,
}

#[derive(Default)]
struct Tally {
    /// What each seed came to; runs beyond the end are dropped at the end.
    runs: Vec<RunOfSeed>,
    violations: u64,
}

struct RunOfSeed {
    seed: u64,
    virtual_time: Duration,
    events: u64,
    violations: Vec<Violation>,
    divergence: Option<Divergence>,
    is_audited: bool,
    checks: BTreeMap<Check, Seen>,
}

impl Search<'_, '_> {
    fn work(&self) {
        loop {
            let seed = self.next.fetch_add(1, Ordering::Relaxed);
            if seed >= self.end.load(Ordering::Relaxed) {
                return;
            }
            let run = self.run_seed(seed);
            self.add(run);
        }
    }

    fn run_seed(&self, seed: u64) -> RunOfSeed {
        let exploration = self.exploration;
        let case = self.case(seed);
        let ran = exploration.run_case(self.app, &case, |_| {});
        let every = exploration.audit_every;
        let is_audited = every > 0 && seed.is_multiple_of(every);
        let divergence = if is_audited {
            audit::repeat(&ran, &|config| exploration.run_case(self.app, &case, config), seed)
        } else {
            None
        };
        let report = ran.report.as_ref();
        RunOfSeed {
            seed,
            virtual_time: report.map_or(Duration::ZERO, |report| report.virtual_time),
            events: report.map_or(0, |report| report.events),
            violations: ran.violations,
            divergence,
            is_audited,
            checks: ran.checks,
        }
    }

    fn case(&self, seed: u64) -> Case {
        match (self.exploration.draw)(seed) {
            Some(Drawn { plan, latency_max, kinds: _ }) => {
                Case { seed, plan, latency_max: Some(latency_max), ..Case::default() }
            }
            None => Case { seed, ..Case::default() },
        }
    }

    fn add(&self, run: RunOfSeed) {
        let progress = {
            let mut tally = self.tally.lock();
            let is_violation = !run.violations.is_empty();
            tally.runs.push(run);
            if is_violation {
                tally.violations += 1;
                self.end.fetch_min(tally.end(self.exploration.violations), Ordering::Relaxed);
            }
            Progress {
                runs: tally.runs.len() as u64,
                seeds: self.seeds,
                violations: tally.violations,
                shrinking: None,
            }
        };
        (self.exploration.progress)(&progress);
    }

    fn finish(self, wall_time: Duration) -> Explored {
        let end = self.end.load(Ordering::Relaxed);
        let mut runs = std::mem::take(&mut self.tally.lock().runs);
        runs.retain(|run| run.seed < end);
        runs.sort_by_key(|run| run.seed);
        let mut progress =
            Progress { runs: runs.len() as u64, seeds: self.seeds, ..Progress::default() };
        let mut explored = Explored {
            name: self.exploration.name.clone(),
            seeds_run: progress.runs,
            violations: Vec::new(),
            divergences: Vec::new(),
            audited: 0,
            audited_elsewhere: 0,
            checks: checks::count(&self.exploration.modules, runs.iter().map(|run| &run.checks)),
            virtual_time: Duration::ZERO,
            events: 0,
            wall_time,
            environment: self.environment.clone(),
        };
        for run in runs {
            explored.virtual_time += run.virtual_time;
            explored.events += run.events;
            explored.audited += u64::from(run.is_audited);
            explored.divergences.extend(run.divergence);
            if !run.violations.is_empty() {
                progress.violations += 1;
                let found = self.shrink(run.seed, run.violations, progress);
                explored.violations.push(found);
            }
        }
        explored
    }

    fn shrink(&self, seed: u64, violations: Vec<Violation>, mut progress: Progress) -> Found {
        let exploration = self.exploration;
        let run = |case: &Case, is_recorded: bool| {
            exploration.run_case(self.app, case, |config| config.record_choices = is_recorded)
        };
        let told = |runs| {
            progress.shrinking = Some(runs);
            (exploration.progress)(&progress);
        };
        let case = self.case(seed);
        let (brokers, budget) = (exploration.config.brokers, exploration.shrink_runs);
        let shrunk = shrink::shrink(&run, &case, brokers, &violations[0], budget, told);
        Found { seed, violations, replay: Replay::of(&exploration.name, shrunk) }
    }
}

impl Tally {
    /// One behind the seed of the last violation that was asked for.
    fn end(&self, wanted: usize) -> u64 {
        let mut seeds: Vec<_> =
            self.runs.iter().filter(|run| !run.violations.is_empty()).map(|run| run.seed).collect();
        seeds.sort_unstable();
        seeds.get(wanted.max(1) - 1).map_or(u64::MAX, |seed| seed + 1)
    }
}

/// How much time has passed here since now: told to people, and decides nothing.
#[expect(clippy::disallowed_types, reason = "how fast runs are is a matter of real time")]
fn wall_clock() -> impl Fn() -> Duration {
    let begun = std::time::Instant::now();
    move || begun.elapsed()
}

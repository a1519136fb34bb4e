//! Runs of all cases on one column, as libtest runs tests.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "runners of their own talk as libtest does"
)]

use std::ops::Range;
use std::process::exit;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use libtest_mimic::{Arguments, Completion, Failed, Trial};
use parking_lot::Mutex;

use crate::case::{Case, Outcome};
use crate::column::Column;
use crate::fixture::Need;
use crate::on_kafka::{self, Kafka};
use crate::on_sim;
use crate::results::Results;
use crate::suite::CASES;

/// How many seeds on the simulator, unless the environment says otherwise.
const SEEDS: u64 = 3;

/// How many cases run at once on Kafka. They wait most of the time: for sessions that time out, and
/// for brokers.
const THREADS: usize = 6;

/// Runs every case on the simulator, on a few seeds, and ends the process.
///
/// `BUS_TEST_SEEDS=100` runs more seeds, `BUS_TEST_SEED=7` one of them.
pub fn on_simulator(column: &'static Column) -> ! {
    let mut run = Run::new(column);
    let trials = CASES.iter().map(|case| {
        run.trial(case, |need| on_sim::lacks(column, need), move || simulate(case, column))
    });
    let trials = trials.collect();
    run.perform(trials, None);
    run.end()
}

fn simulate(case: &Case, column: &Column) -> Result<(), String> {
    for seed in seeds() {
        on_sim::run(case, column, seed, None).map_err(|failure| {
            let (name, target) = (case.name, column.id);
            format!("{failure}\nhint: BUS_TEST_SEED={seed} cargo test --test {target} {name}")
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

/// Runs every case on the real Kafka that the environment names, and ends the process. Cases that
/// stop brokers come last, one by one.
///
/// Without a Kafka the suite is skipped, and says so; with `BUS_TEST_REQUIRE_KAFKA=1` that is a
/// failure.
pub fn on_kafka(column: &'static Column) -> ! {
    on_kafka::play_if_child();
    let mut run = Run::new(column);
    let kafka = match Kafka::named(column) {
        Ok(Some(kafka)) => kafka,
        Ok(None) => without_kafka(column, &run.arguments),
        Err(error) => fail(&error),
    };
    let runtime = match on_kafka::runtime() {
        Ok(runtime) => Arc::new(runtime),
        Err(error) => fail(&error.to_string()),
    };
    let run_id = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    let (mut calm, mut disturbing) = (Vec::new(), Vec::new());
    for (n, case) in CASES.iter().enumerate() {
        let (runtime, own) = (Arc::clone(&runtime), kafka.clone());
        let work = move || {
            let unique = format!("c{n}-{run_id}");
            runtime.block_on(own.run(case, unique)).map_err(|failure| failure.to_string())
        };
        let trial = run.trial(case, |need| kafka.lacks(need), work);
        if kafka.is_disturbed_by(case) { disturbing.push(trial) } else { calm.push(trial) }
    }
    let threads = run.arguments.test_threads.unwrap_or(THREADS);
    run.perform(calm, Some(threads));
    run.perform(disturbing, Some(1));
    run.end()
}

fn without_kafka(column: &Column, arguments: &Arguments) -> ! {
    let (cases, variable) = (CASES.len(), Kafka::variable(column));
    if arguments.list {
        // Whoever lists tests by machine reads names, and nothing else.
        libtest_mimic::run(arguments, Vec::new()).exit();
    }
    if std::env::var("BUS_TEST_REQUIRE_KAFKA").is_ok_and(|value| value == "1") {
        fail(&format!("BUS_TEST_REQUIRE_KAFKA=1, but {variable} does not name a broker"));
    }
    let brokers = column.brokers;
    println!(
        "skipped: {cases} cases on a real Kafka, because {variable} names no broker (hint: `bus \
         kafka up --brokers {brokers}` starts one)"
    );
    exit(0);
}

fn fail(why: &str) -> ! {
    eprintln!("error: {why}");
    exit(1);
}

/// A run of all cases, and what has come of it so far.
struct Run {
    column: &'static Column,
    arguments: Arguments,
    results: Arc<Mutex<Results>>,
    begin: Instant,
    has_failed: bool,
}

impl Run {
    fn new(column: &'static Column) -> Self {
        let (arguments, results) = (Arguments::from_args(), Arc::default());
        Self { column, arguments, results, begin: Instant::now(), has_failed: false }
    }

    /// A case as a test, which is ignored if the column lacks what it needs.
    fn trial(
        &self,
        case: &'static Case,
        lacks: impl Fn(Need) -> Option<&'static str>,
        work: impl FnOnce() -> Result<(), String> + Send + 'static,
    ) -> Trial {
        let reason = case.needs.iter().find_map(|need| lacks(*need));
        let results = Arc::clone(&self.results);
        let trial = move || {
            let outcome = match reason {
                Some(reason) => Outcome::Skipped(reason.to_owned()),
                None => work().map_or_else(
                    |why| Outcome::Failed(format!("{}: {}\n{why}", case.name, case.guarantee())),
                    |()| Outcome::Passed,
                ),
            };
            results.lock().cases.insert(case.name.to_owned(), outcome.clone());
            match outcome {
                Outcome::Passed => Ok(Completion::Completed),
                Outcome::Skipped(reason) => Ok(Completion::ignored_with(reason)),
                Outcome::Failed(message) => Err(Failed::from(message)),
            }
        };
        Trial::ignorable_test(case.name, trial).with_kind(self.column.id)
    }

    fn perform(&mut self, trials: Vec<Trial>, threads: Option<usize>) {
        if trials.is_empty() {
            return;
        }
        let mut arguments = self.arguments.clone();
        arguments.test_threads = threads.or(arguments.test_threads);
        let conclusion = libtest_mimic::run(&arguments, trials);
        self.has_failed |= conclusion.has_failed();
    }

    /// Keeps the results, and ends the process.
    fn end(self) -> ! {
        let mut results = self.results.lock();
        results.seconds = self.begin.elapsed().as_secs_f64();
        if let Err(error) = results.write(self.column.id) {
            eprintln!("the results are not kept: {error}");
        }
        exit(if self.has_failed { 101 } else { 0 });
    }
}

//! Every case on a real Kafka, which `BUS_TEST_KAFKA=host:port[,host:port]` names.
//!
//! Without it the suite is skipped, and says so; with `BUS_TEST_REQUIRE_KAFKA=1` that is a failure.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a runner of its own talks as libtest does"
)]

use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use conformance::case::{Case, Outcome};
use conformance::on_kafka;
use conformance::results::Results;
use conformance::suite::CASES;
use libtest_mimic::{Arguments, Completion, Failed, Trial};
use parking_lot::Mutex;

/// Cases wait most of the time: for sessions that time out, and for brokers.
const THREADS: usize = 6;

fn main() {
    on_kafka::play_if_child();
    let mut arguments = Arguments::from_args();
    arguments.test_threads = arguments.test_threads.or(Some(THREADS));
    let Ok(hosts) = std::env::var("BUS_TEST_KAFKA") else { without_kafka(&arguments) };
    let runtime = match on_kafka::runtime() {
        Ok(runtime) => Arc::new(runtime),
        Err(error) => fail(&error.to_string()),
    };
    let run_id = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    let results = Arc::new(Mutex::new(Results::default()));
    let trials = CASES.iter().enumerate().map(|(n, case)| {
        let (runtime, results) = (Arc::clone(&runtime), Arc::clone(&results));
        let url = format!("kafka://{hosts}");
        let unique = format!("c{n}-{run_id}");
        let trial = move || {
            let outcome = outcome(case, || {
                runtime.block_on(on_kafka::run(case, &url, unique)).map_err(|f| f.to_string())
            });
            results.lock().cases.insert(case.name.to_owned(), outcome.clone());
            match outcome {
                Outcome::Passed => Ok(Completion::Completed),
                Outcome::Skipped(reason) => Ok(Completion::ignored_with(reason)),
                Outcome::Failed(message) => Err(Failed::from(message)),
            }
        };
        Trial::ignorable_test(case.name, trial).with_kind("kafka")
    });
    let begin = Instant::now();
    let conclusion = libtest_mimic::run(&arguments, trials.collect());
    let mut results = results.lock();
    results.seconds = begin.elapsed().as_secs_f64();
    if let Err(error) = results.write("kafka") {
        eprintln!("the results are not kept: {error}");
    }
    conclusion.exit();
}

fn outcome(case: &Case, run: impl FnOnce() -> Result<(), String>) -> Outcome {
    if let Some(reason) = case.needs.iter().find_map(|need| on_kafka::lacks(*need)) {
        return Outcome::Skipped(reason.to_owned());
    }
    match run() {
        Ok(()) => Outcome::Passed,
        Err(failure) => Outcome::Failed(format!("{}: {}\n{failure}", case.name, case.guarantee())),
    }
}

fn without_kafka(arguments: &Arguments) -> ! {
    let cases = CASES.len();
    if arguments.list {
        // Whoever lists tests by machine reads names, and nothing else.
        libtest_mimic::run(arguments, Vec::new()).exit();
    }
    if std::env::var("BUS_TEST_REQUIRE_KAFKA").is_ok_and(|value| value == "1") {
        fail("BUS_TEST_REQUIRE_KAFKA=1, but BUS_TEST_KAFKA does not name a broker");
    }
    println!(
        "skipped: {cases} cases on a real Kafka, because BUS_TEST_KAFKA names no broker \
         (hint: `bus kafka up` starts one)"
    );
    std::process::exit(0);
}

fn fail(why: &str) -> ! {
    eprintln!("error: {why}");
    std::process::exit(1);
}

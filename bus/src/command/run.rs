//! `bus run`: an application, once.

use std::process::ExitCode;
use std::time::Duration;

use bus::{Bus, Error, ErrorKind, Run};
use bus_check::{Environment, NoTruth, Recorder};
use clap::Args;
use scenarios::{Application, Form, Report, Setting, Verdict};

use super::days::find;
use super::report::{Printed, to_json, to_text};
use super::spinner::Spinner;
use super::{Failure, print};

/// The arguments of `bus run`.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// The name of the application; `bus list` lists them
    #[arg(value_name = "APPLICATION")]
    application: String,
    /// The way it is written: `as-written`, with its delivery bug, or `sound`; of a story `buggy`
    /// or `fixed`. The last of these
    #[arg(long, value_name = "FORM")]
    form: Option<String>,
    /// What it runs on: `sim://` or `kafka://`, see below
    #[arg(long, value_name = "URL", default_value = DEFAULT_BUS)]
    bus: String,
    /// Record what every client does, and judge it by the guarantees of docs/semantics.md. The
    /// cluster is taken to keep what it acknowledges with acks=all
    #[arg(long)]
    check: bool,
    /// Run it again and again until so much time has passed, with one history for --check; such as
    /// 90, to kill a broker meanwhile
    #[arg(long = "for", value_name = "SECONDS", default_value_t = 0)]
    seconds: u32,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Runs an application and prints what came of it.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let printed = execute(arguments)?;
    print(&if arguments.json { to_json(&printed)? } else { to_text(&printed) })?;
    let is_broken = printed.checked.as_ref().is_some_and(|checked| !checked.holds());
    Ok(if is_broken { exit_code(Verdict::Violated) } else { exit_code(printed.verdict()) })
}

fn execute(arguments: &Arguments) -> Result<Printed, Failure> {
    let (application, form) = find(&arguments.application, arguments.form.as_deref())?;
    let url = &arguments.bus;
    let recorder = arguments.check.then(Recorder::default);
    let spinner = Spinner::start(&format!("{} ({form}) runs on {url}", application.name));
    let ran = bus::try_run(url, |bus| {
        let bus = recorder.as_ref().map_or_else(|| bus.clone(), |recorder| recorder.record(&bus));
        repeat(application, form, bus, Duration::from_secs(arguments.seconds.into()), &recorder)
    });
    drop(spinner);
    let Run { output, report } = ran?;
    let outcome = match output {
        Ok(outcome) => Ok(outcome?),
        Err(stalled) => Err(stalled),
    };
    let checked = recorder
        .map(|recorder| bus_check::judge(&recorder.into_history(), &Environment::safe(), &NoTruth));
    Ok(Printed { application, form, outcome, report, checked })
}

/// Runs it once, and again until that time has passed or it does not hold; then has fresh readers
/// read everything.
async fn repeat(
    application: &Application,
    form: Form,
    bus: Bus,
    time: Duration,
    recorder: &Option<Recorder>,
) -> Result<Report, Error> {
    if recorder.is_some() {
        expect_fresh(&bus).await?;
    }
    let begun = bus.elapsed();
    let report = loop {
        let report = (application.run)(bus.clone(), form, Setting::default()).await?;
        let is_over = bus.elapsed().saturating_sub(begun) >= time;
        if is_over || report.verdict != Verdict::Held {
            break report;
        }
    };
    if let Some(recorder) = recorder {
        recorder.quiesced();
        recorder.audit().await?;
    }
    Ok(report)
}

/// What was there before the run is in no history, and could not be told from what is wrong.
async fn expect_fresh(bus: &Bus) -> Result<(), Error> {
    let topics = bus.admin()?.list_topics().await?;
    let Some(topic) = topics.first() else { return Ok(()) };
    let message = format!(
        "--check needs a cluster without topics, and {topic} is there; `bus kafka up --name check` \
         starts a fresh one"
    );
    Err(Error::new(ErrorKind::InvalidState, message))
}

impl Printed {
    fn verdict(&self) -> Verdict {
        verdict(&self.outcome)
    }
}

/// The verdict; a simulation that stalled has none of its own.
pub(super) fn verdict(outcome: &Result<Report, Error>) -> Verdict {
    match outcome {
        Ok(report) => report.verdict,
        Err(error) => {
            debug_assert_eq!(error.kind(), ErrorKind::Stalled, "other errors end the command");
            Verdict::Stalled
        }
    }
}

fn exit_code(verdict: Verdict) -> ExitCode {
    match verdict {
        Verdict::Held => ExitCode::SUCCESS,
        Verdict::Violated => ExitCode::from(2),
        Verdict::Stalled => ExitCode::from(3),
    }
}

const DEFAULT_BUS: &str = "sim://?seed=1";

const EXAMPLES: &str = "\
URLs:
  sim://?seed=7                    a simulated Kafka in this process; the seed decides all of it
  sim://?seed=7&brokers=3          with more brokers
  kafka://host:9092,host:9093      a real Kafka; `bus kafka up` starts one here
Behind ? also stand properties of Kafka's clients, such as linger.ms=0, and for kafka:// the time
until it gives up on brokers that do not answer: connect.timeout.ms=10000.

Examples:
  bus run order-export
  bus run order-export --form as-written --bus 'sim://?seed=42'
  bus run order-export --bus kafka://127.0.0.1:9092 --json
  bus run order-export --bus kafka://127.0.0.1:9092 --check --for 60

Exit codes: 0 held, 1 usage or configuration, 2 violated, 3 stalled.";

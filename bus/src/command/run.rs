//! `bus run`: an application, once.

use std::process::ExitCode;

use bus::{Error, ErrorKind, Run};
use clap::Args;
use scenarios::{Application, CrashPoints, Form, Report, Verdict};

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
    /// The way it is written: `as-written`, with its delivery bug, or `sound`
    #[arg(long, value_name = "FORM", default_value = "sound")]
    form: String,
    /// What it runs on: `sim://` or `kafka://`, see below
    #[arg(long, value_name = "URL", default_value = DEFAULT_BUS)]
    bus: String,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Runs an application and prints what came of it.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let application = scenarios::find(&arguments.application).ok_or_else(|| {
        let message = format!("there is no application {:?}", arguments.application);
        Failure::new(message, "`bus list` lists the applications")
    })?;
    let form = arguments
        .form
        .parse::<Form>()
        .map_err(|error| Failure::new(error, "write --form as-written or --form sound"))?;
    let printed = execute(application, form, &arguments.bus)?;
    print(&if arguments.json { to_json(&printed)? } else { to_text(&printed) })?;
    Ok(exit_code(printed.verdict()))
}

/// What a newcomer sees first: the sound order export on the simulator, and what to try next.
pub(crate) fn demonstrate() -> Result<ExitCode, Failure> {
    let Some(application) = scenarios::find("order-export") else {
        return Err(Failure::new("there is no order export", "this is a bug: please report it"));
    };
    let printed = execute(application, Form::Sound, DEFAULT_BUS)?;
    print(&format!("{}\n\n{NEXT}", to_text(&printed)))?;
    Ok(exit_code(printed.verdict()))
}

fn execute(application: &'static Application, form: Form, url: &str) -> Result<Printed, Failure> {
    let spinner = Spinner::start(&format!("{} ({form}) runs on {url}", application.name));
    let ran = bus::try_run(url, |bus| (application.run)(bus, form, CrashPoints::default()));
    drop(spinner);
    let Run { output, report } = ran?;
    let outcome = match output {
        Ok(outcome) => Ok(outcome?),
        Err(stalled) => Err(stalled),
    };
    Ok(Printed { application, form, outcome, report })
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

Exit codes: 0 held, 1 usage or configuration, 2 violated, 3 stalled.";

const NEXT: &str = "\
What to try next:
  bus run order-export --bus 'sim://?seed=2' --json      another seed, another trace
  bus run order-export --form as-written                 with its delivery bug; it takes a crash to
                                                         show: scenarios/tests/order_export.rs
  bus kafka up                                           a real Kafka (needs a JDK and Maven)
  bus run order-export --bus kafka://127.0.0.1:9092      the same code on it
From a clone, `bus` is `cargo run --release --`.";

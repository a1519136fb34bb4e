//! `bus run`: an application, once.

use std::process::ExitCode;

use bus::{Error, ErrorKind, Run};
use clap::Args;
use scenarios::{Application, CrashPoints, Form, Report, Verdict};

use super::explore::find;
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
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Runs an application and prints what came of it.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let (application, form) = find(&arguments.application, arguments.form.as_deref())?;
    let printed = execute(application, form, &arguments.bus)?;
    print(&if arguments.json { to_json(&printed)? } else { to_text(&printed) })?;
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

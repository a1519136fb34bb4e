//! `bus explain`: what happened in the run of a replay file, and what would have prevented it.

use std::path::PathBuf;
use std::process::ExitCode;

use bus::explore::{self, FORM, SIM, WorstDays, overridden};
use bus_sim::explore::{Replay, Replayed};
use bus_sim::fault::FaultReport;
use clap::Args;
use scenarios::{Application, Form};

use super::days::find;
use super::replay::read;
use super::{Failure, print};

/// The arguments of `bus explain`.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// The replay file
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

/// Settings that prevent the failures that Kafka's own configuration prevents, one at a time.
const REMEDIES: &[&str] = &[
    "acks=all",
    "enable.idempotence=true",
    "max.in.flight.requests.per.connection=1",
    "enable.auto.commit=false",
    "auto.offset.reset=earliest",
    "isolation.level=read_committed",
    "partition.assignment.strategy=cooperative-sticky",
];

/// Explains a file.
pub(crate) fn explain(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let replay = read(&arguments.file)?;
    let with = |key: &str| replay.with.get(key).map_or("", String::as_str);
    let (application, form) = find(&replay.name, Some(with(FORM)))?;
    let replayed = again(&replay, application, form, with(SIM))?;
    let mut lines = vec![format!("{}, {}", application.name, application.form_name(form))];
    if !replayed.is_reproduced {
        lines.push("held: what the file expects does not happen any more".to_owned());
        print(&lines.join("\n"))?;
        return Ok(ExitCode::SUCCESS);
    }
    lines.push(format!("violated: {}", replay.expect.guarantee));
    lines.extend(replayed.violations.iter().map(|violation| format!("  {}", violation.sentence)));
    lines.push(String::new());
    lines.push("What went wrong:".to_owned());
    lines.extend(what_went_wrong(&replay, &replayed));
    lines.extend(with_how_much(&replay, &replayed));
    lines.push(String::new());
    lines.push("What would have prevented it, in this run:".to_owned());
    lines.extend(remedies(&replay, application, form, with(SIM))?);
    print(&lines.join("\n"))?;
    Ok(ExitCode::from(2))
}

fn again(
    replay: &Replay,
    application: &'static Application,
    form: Form,
    options: &str,
) -> Result<Replayed, Failure> {
    let days = WorstDays::new(application, form, options)?;
    Ok(replay.run(days.world(), explore::judged(application, form)))
}

/// Each fault with when and whom it struck; without any of them, nothing would be broken.
fn what_went_wrong(replay: &Replay, replayed: &Replayed) -> Vec<String> {
    let reports = replayed.report.as_ref().map_or(&[][..], |report| &report.faults);
    let report = |id| reports.iter().find(|report: &&FaultReport| report.id == id);
    let mut lines: Vec<_> = replay
        .case
        .plan
        .faults
        .iter()
        .map(|planned| match report(planned.id).and_then(|report| report.struck.as_ref()) {
            Some(struck) => {
                format!("  {} {} on {}", struck.at, planned.fault.kind().name(), struck.on)
            }
            None => format!("  never: {}", planned.fault.kind().name()),
        })
        .collect();
    let choices = replay.case.overrides.values.len();
    if choices > 0 {
        lines.push(format!(
            "  and {choices} choices that are listed in the file, such as latencies"
        ));
    }
    if lines.is_empty() {
        lines.push("  nothing: it happens on every day".to_owned());
    }
    lines
}

/// How small the world is in which it happens.
fn with_how_much(replay: &Replay, replayed: &Replayed) -> Option<String> {
    let sizes = replayed.report.iter().flat_map(|report| &report.sizes);
    let mut smaller: Vec<_> = sizes
        .filter(|size| size.was < size.most)
        .map(|size| format!("{} of {} {}", size.was, size.most, size.name))
        .collect();
    let brokers = replay.shrunk.brokers;
    smaller.extend(brokers.map(|(before, after)| format!("{after} of {before} brokers")));
    (!smaller.is_empty()).then(|| format!("  with {} it happens, too", smaller.join(", ")))
}

/// What keeps the guarantee when only that is changed.
fn remedies(
    replay: &Replay,
    application: &'static Application,
    form: Form,
    options: &str,
) -> Result<Vec<String>, Failure> {
    let mut lines = Vec::new();
    for other in application.forms.iter().filter(|other| **other != form) {
        if again(replay, application, *other, options)?.violations.is_empty() {
            lines.push(format!("  the form {}", application.form_name(*other)));
        }
    }
    for remedy in REMEDIES {
        let options = overridden(options, remedy);
        // A property that does not go together with the others prevents nothing.
        let Ok(replayed) = again(replay, application, form, &options) else { continue };
        if replayed.violations.is_empty() {
            lines.push(format!("  {remedy}"));
        }
    }
    if lines.is_empty() {
        lines.push("  no other form, and none of the usual properties".to_owned());
    }
    Ok(lines)
}

const EXAMPLES: &str = "\
Examples:
  bus explore order-export --form as-written             finds a violation and writes the file
  bus explain order-export-3.busplay                     what happened, and what prevents it

Exit codes: 0 held, 1 usage or a broken file, 2 violated.";

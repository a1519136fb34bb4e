//! `bus replay`: the run of a replay file, again.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use bus::explore::{FORM, SIM, WorstDays};
use bus::picture::{of_replay, to_html};
use bus_sim::SimConfig;
use bus_sim::explore::{Replay, Replayed, Violation};
use clap::Args;
use serde::Serialize;

use super::days::find;
use super::{Failure, print};

/// The arguments of `bus replay`.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// The replay file
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Print the trace up to this virtual time, in seconds
    #[arg(long, value_name = "SECONDS")]
    until: Option<f64>,
    /// Write the picture of the run to this file
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Write the replay file as text to this file, for one that is packed because it is large
    #[arg(long, value_name = "FILE")]
    text: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Replays a file and prints what came of it.
pub(crate) fn replay(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let replay = read(&arguments.file)?;
    if let Some(path) = &arguments.text {
        write(path, replay.to_text())?;
    }
    let with = |key: &str| replay.with.get(key).map_or("", String::as_str);
    let (application, form) = find(&replay.name, Some(with(FORM)))?;
    let days = WorstDays::new(application, form, with(SIM))?;
    let config = SimConfig {
        record_trace: arguments.until.is_some(),
        record_events: arguments.html.is_some(),
        ..days.world().clone()
    };
    let (judged, evidence) = days.judged_with_evidence();
    let replayed = replay.run(&config, judged);
    if let Some(until) = arguments.until {
        for line in trace_until(&replayed, until) {
            print(line)?;
        }
    }
    if let Some(path) = &arguments.html {
        write(path, to_html(&of_replay(&replay, &replayed, &evidence)))?;
    }
    print(&if arguments.json {
        to_json(&replay, &replayed)?
    } else {
        format!("{}, {}\n{}", application.name, application.form_name(form), {
            to_text(&replay, &replayed)
        })
    })?;
    Ok(if replayed.violations.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(2) })
}

/// Reads a replay file.
pub(super) fn read(path: &Path) -> Result<Replay, Failure> {
    let bytes = std::fs::read(path).map_err(|error| {
        let message = format!("{} cannot be read: {error}", path.display());
        Failure::new(message, "`bus explore` writes replay files")
    })?;
    Replay::from_bytes(&bytes).map_err(|error| {
        let message = format!("{}: {error}", path.display());
        Failure::new(message, "docs/exploring.md shows a replay file and explains it")
    })
}

/// Writes a file.
pub(super) fn write(path: &Path, content: impl AsRef<[u8]>) -> Result<(), Failure> {
    std::fs::write(path, content).map_err(|error| {
        let message = format!("{} cannot be written: {error}", path.display());
        Failure::new(message, "name a file in a folder that exists")
    })
}

/// The lines of the trace up to a time in seconds.
fn trace_until(replayed: &Replayed, until: f64) -> impl Iterator<Item = &str> {
    let lines = replayed.report.iter().flat_map(|report| &report.trace).map(String::as_str);
    lines.take_while(move |line| {
        let time = line.split(' ').next().unwrap_or_default().parse::<f64>();
        // The first line is the version of the format.
        time.map_or(true, |time| time <= until)
    })
}

fn to_text(replay: &Replay, replayed: &Replayed) -> String {
    let mut lines = Vec::new();
    for violation in &replayed.violations {
        lines.push(format!("violated: {}\n  {}", violation.guarantee, violation.sentence));
    }
    if replayed.violations.is_empty() {
        lines.push("held: nothing was broken".to_owned());
    }
    let Replay { expect, .. } = replay;
    lines.push(match (replayed.is_reproduced, replayed.is_identical) {
        (_, true) => format!(
            "the same run, event by event: trace {} with {} events",
            expect.trace, expect.events
        ),
        (true, false) => "the guarantee of the file was broken again, by another run: the file, \
                          the code, or a dependency has changed"
            .to_owned(),
        (false, false) => format!(
            "the guarantee of the file, {:?}, was not broken, and the run was another: the file, \
             the code, or a dependency has changed",
            expect.guarantee
        ),
    });
    let never = replayed.report.as_ref().map_or(0, |report| report.choices.never_came_up.len());
    if never > 0 {
        lines.push(format!("{never} choices of the file never came up"));
    }
    lines.join("\n")
}

fn to_json(replay: &Replay, replayed: &Replayed) -> Result<String, Failure> {
    let report = replayed.report.as_ref();
    let object = Object {
        name: &replay.name,
        seed: replay.case.seed,
        guarantee: &replay.expect.guarantee,
        is_reproduced: replayed.is_reproduced,
        is_identical: replayed.is_identical,
        violations: &replayed.violations,
        trace_hash: report.map(|report| report.trace_hash.to_string()),
        events: report.map(|report| report.events),
        virtual_ms: report.map(|report| report.virtual_time.as_millis()),
        verdict: if replayed.violations.is_empty() { "held" } else { "violated" },
    };
    serde_json::to_string(&object).map_err(|error| Failure::output(error.into()))
}

#[derive(Serialize)]
struct Object<'a> {
    name: &'a str,
    seed: u64,
    guarantee: &'a str,
    is_reproduced: bool,
    is_identical: bool,
    violations: &'a [Violation],
    trace_hash: Option<String>,
    events: Option<u64>,
    virtual_ms: Option<u128>,
    verdict: &'a str,
}

const EXAMPLES: &str = "\
Examples:
  bus explore order-export --form as-written             finds a violation and writes the file
  bus replay order-export-3.busplay                      the same run, event by event
  bus replay order-export-3.busplay --until 2.5          with its trace up to 2.5 s
  bus replay order-export-3.busplay --html day.html      with a picture of it
  bus replay order-export-3.busplay --text day.busplay   a large file as text

Exit codes: 0 held, 1 usage or a broken file, 2 violated.";

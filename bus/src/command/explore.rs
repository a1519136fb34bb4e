//! `bus explore`: an application on many worst days.

use std::ops::Range;
use std::path::PathBuf;
use std::process::ExitCode;

use bus::explore::WorstDays;
use bus::picture::{of_replay, to_html};
use bus_sim::SimConfig;
use bus_sim::explore::{Explored, Found, Progress};
use clap::Args;
use indicatif::{HumanCount, ProgressBar, ProgressStyle};
use scenarios::{Application, Form};
use serde::Serialize;

use super::days::Days;
use super::replay::write;
use super::{Failure, print, traces};

/// The arguments of `bus explore`.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    #[command(flatten)]
    days: Days,
    /// After how many violations it ends
    #[arg(long, value_name = "N", default_value_t = 1)]
    violations: usize,
    /// How many runs the shrinking of a violation may take
    #[arg(long, value_name = "N", default_value_t = 2_000)]
    shrink: u32,
    /// Every how many seeds a run is repeated, to see whether it is the same; 0 for never
    #[arg(long, value_name = "N", default_value_t = 50)]
    audit: u64,
    /// How many of the seeds are run again in another process, to see whether they are the same
    #[arg(long, value_name = "N", default_value_t = 0)]
    audit_process: u64,
    /// Where replay files are written
    #[arg(long, value_name = "DIRECTORY", default_value = ".")]
    out: PathBuf,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Explores and prints what came of it.
pub(crate) fn explore(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let held = explore_and_print(arguments)?;
    Ok(if held { ExitCode::SUCCESS } else { ExitCode::from(2) })
}

/// What a newcomer sees first: the order export as it is often written, with the seed that breaks
/// it, and the sound one, which holds; and what to try next.
pub(crate) fn demonstrate() -> Result<ExitCode, Failure> {
    let as_written = explore_and_print(&Arguments::demonstration("as-written", 0..500))?;
    print("")?;
    let sound = explore_and_print(&Arguments::demonstration("sound", 0..500))?;
    print(&format!("\n{NEXT}"))?;
    // The demonstration is that one breaks and the other does not.
    Ok(if !as_written && sound { ExitCode::SUCCESS } else { ExitCode::from(2) })
}

/// Returns whether everything held.
fn explore_and_print(arguments: &Arguments) -> Result<bool, Failure> {
    let (application, form) = arguments.days.find()?;
    let days = arguments.days.worst_days()?;
    let mut explored = explore_days(&days, arguments);
    audit_in_another_process(&mut explored, &days, arguments)?;
    let files = write_all(&days, &explored, arguments)?;
    print(&if arguments.json {
        to_json(application, form, &explored, &files)?
    } else {
        to_text(application, form, &explored, &files)
    })?;
    Ok(explored.held())
}

impl Arguments {
    fn demonstration(form: &str, seeds: Range<u64>) -> Self {
        Self {
            days: Days {
                name: "order-export".to_owned(),
                form: Some(form.to_owned()),
                seeds,
                jobs: None,
                faults: None,
                beyond: false,
                sim: String::new(),
            },
            violations: 1,
            shrink: 2_000,
            audit: 50,
            audit_process: 0,
            out: PathBuf::from("target/demonstration"),
            json: false,
        }
    }
}

fn explore_days(days: &WorstDays, arguments: &Arguments) -> Explored {
    let bar = progress_bar(arguments.days.seeds.end.saturating_sub(arguments.days.seeds.start));
    let mut exploration = days
        .exploration()
        .seeds(arguments.days.seeds.clone())
        .violations(arguments.violations)
        .shrink_runs(arguments.shrink)
        .audit_every(arguments.audit)
        .on_progress(|progress| tell(&bar, progress));
    if let Some(jobs) = arguments.days.jobs {
        exploration = exploration.jobs(jobs);
    }
    let mut explored = exploration.run(days.judged());
    bar.finish_and_clear();
    for found in &mut explored.violations {
        found.replay.with = days.with();
    }
    explored
}

/// Runs the first of the seeds again here and elsewhere, as many as are asked for.
fn audit_in_another_process(
    explored: &mut Explored,
    days: &WorstDays,
    arguments: &Arguments,
) -> Result<(), Failure> {
    let count = arguments.audit_process.min(explored.seeds_run);
    if count == 0 {
        return Ok(());
    }
    let seeds = arguments.days.seeds.start..arguments.days.seeds.start + count;
    let divergences = traces::compare(&arguments.days, days, seeds)?;
    explored.audited_elsewhere = count;
    explored.divergences.extend(divergences);
    Ok(())
}

/// A bar on the terminal; nothing is drawn if stderr is none.
fn progress_bar(seeds: u64) -> ProgressBar {
    let style = "{bar:30} {pos} of {len} seeds, {per_sec}, {eta} left {msg}";
    ProgressBar::new(seeds).with_style(
        ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar()),
    )
}

fn tell(bar: &ProgressBar, progress: &Progress) {
    bar.set_position(progress.runs);
    match progress.shrinking {
        Some(runs) => bar.set_message(format!("violated: shrinking, run {runs}")),
        None if progress.violations > 0 => bar.set_message("violated"),
        None => {}
    }
}

/// The files of a violation.
struct Files {
    replay: PathBuf,
    html: PathBuf,
}

/// Writes the replay file and the picture of each violation.
fn write_all(
    days: &WorstDays,
    explored: &Explored,
    arguments: &Arguments,
) -> Result<Vec<Files>, Failure> {
    if !explored.violations.is_empty() {
        std::fs::create_dir_all(&arguments.out).map_err(|error| {
            let message = format!("{} cannot be made: {error}", arguments.out.display());
            Failure::new(message, "--out DIRECTORY names another place")
        })?;
    }
    let world = SimConfig { record_events: true, ..days.world().clone() };
    let write_one = |found: &Found| {
        let file = |ending: &str| {
            arguments.out.join(format!("{}-{}.{ending}", found.replay.name, found.seed))
        };
        let files = Files { replay: file("busplay"), html: file("html") };
        write(&files.replay, found.replay.to_bytes())?;
        let (judged, evidence) = days.judged_with_evidence();
        let replayed = found.replay.run(&world, judged);
        write(&files.html, to_html(&of_replay(&found.replay, &replayed, &evidence)))?;
        Ok(files)
    };
    explored.violations.iter().map(write_one).collect()
}

fn to_text(application: &Application, form: Form, explored: &Explored, files: &[Files]) -> String {
    let form = application.form_name(form);
    let mut lines = vec![format!("{}, {form}: {}", application.name, application.title)];
    for (found, file) in explored.violations.iter().zip(files) {
        lines.push(format!("\n{}", found.replay));
        let others = found.violations.iter().map(|violation| violation.guarantee.as_str());
        let mut others: Vec<_> =
            others.filter(|other| *other != found.replay.expect.guarantee).collect();
        others.dedup();
        if !others.is_empty() {
            lines.push(format!("the same seed also broke: {}", others.join(", ")));
        }
        lines.push(format!("replay it:  bus replay {}", file.replay.display()));
        lines.push(format!("explain it: bus explain {}", file.replay.display()));
        lines.push(format!("look at it: {}", file.html.display()));
    }
    for divergence in &explored.divergences {
        lines.push(format!("\n{divergence}"));
    }
    let verdict = if explored.held() { "held" } else { "violated" };
    lines.push(format!(
        "\n{verdict}: {} seeds, {:.0} runs per second, {:.0} s of virtual time in {:.1} s, {} \
         events; {} repeated, and {} in another process: {} not the same",
        HumanCount(explored.seeds_run),
        explored.runs_per_second(),
        explored.virtual_time.as_secs_f64(),
        explored.wall_time.as_secs_f64(),
        HumanCount(explored.events),
        runs_were(explored.audited),
        HumanCount(explored.audited_elsewhere),
        was(explored.divergences.len()),
    ));
    lines.join("\n")
}

fn runs_were(count: u64) -> String {
    let runs = if count == 1 { "run was" } else { "runs were" };
    format!("{} {runs}", HumanCount(count))
}

fn was(count: usize) -> String {
    format!("{count} {}", if count == 1 { "was" } else { "were" })
}

fn to_json(
    application: &Application,
    form: Form,
    explored: &Explored,
    files: &[Files],
) -> Result<String, Failure> {
    let violations = explored.violations.iter().zip(files).map(|(found, file)| {
        let (steps_before, steps_after) = found.replay.shrunk.steps();
        Line {
            seed: found.seed,
            guarantee: &found.replay.expect.guarantee,
            steps_before,
            steps_after,
            replay: file.replay.display().to_string(),
            html: file.html.display().to_string(),
        }
    });
    let object = Object {
        name: application.name,
        form: application.form_name(form),
        seeds_run: explored.seeds_run,
        violations: violations.collect(),
        divergences: explored.divergences.iter().map(ToString::to_string).collect(),
        audited: explored.audited,
        audited_elsewhere: explored.audited_elsewhere,
        runs_per_second: explored.runs_per_second(),
        virtual_ms: explored.virtual_time.as_millis(),
        wall_ms: explored.wall_time.as_millis(),
        verdict: if explored.held() { "held" } else { "violated" },
    };
    serde_json::to_string(&object).map_err(|error| Failure::output(error.into()))
}

#[derive(Serialize)]
struct Object<'a> {
    name: &'a str,
    form: &'a str,
    seeds_run: u64,
    violations: Vec<Line<'a>>,
    divergences: Vec<String>,
    audited: u64,
    audited_elsewhere: u64,
    runs_per_second: f64,
    virtual_ms: u128,
    wall_ms: u128,
    verdict: &'a str,
}

#[derive(Serialize)]
struct Line<'a> {
    seed: u64,
    guarantee: &'a str,
    steps_before: usize,
    steps_after: usize,
    replay: String,
    html: String,
}

const NEXT: &str = "\
What to try next:
  bus explore order-export --faults CrashBroker,LosePower     other worst days
  bus run order-export --bus 'sim://?seed=7' --json           one quiet day
  bus kafka up                                                a real Kafka (JDK and Maven)
  bus run order-export --bus kafka://127.0.0.1:9092           the same code on it
From a clone, `bus` is `cargo run --release --`.";

const EXAMPLES: &str = "\
Examples:
  bus explore order-export                               1,000 worst days of the sound form
  bus explore order-export --form as-written             a violation: shrunk, and written to a file
  bus explore order-export --seeds 17..18                one seed again
  bus explore order-export --faults CrashProcess         crashes only
  bus explore order-export --audit 1 --audit-process 500 is every run the same again?
  bus replay order-export-as-written-17.busplay          the same run, from its file

Exit codes: 0 held, 1 usage or configuration, 2 violated.";

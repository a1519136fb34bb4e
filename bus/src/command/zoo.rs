//! `bus zoo`: the failure stories, measured.

use std::num::NonZeroUsize;
use std::process::ExitCode;

use bus::explore::zoo::{Effort, HEADER, Measured, measure};
use bus_sim::explore::Progress;
use clap::Args;
use clap::builder::RangedU64ValueParser;
use indicatif::{ProgressBar, ProgressStyle};
use scenarios::stories::{ENTRIES, Entry};
use serde::Serialize;

use super::{Failure, print};

/// The arguments of `bus zoo`.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// The stories; all of them
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// In how many disjoint ranges of seeds each is searched for
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = at_least_one())]
    ranges: u64,
    /// How many seeds a range has, and so many the fixed form has to survive
    #[arg(long, value_name = "N", default_value_t = 2_000, value_parser = at_least_one())]
    seeds: u64,
    /// How many runs the shrinking of the first violation may take
    #[arg(long, value_name = "N", default_value_t = 2_000)]
    shrink: u32,
    /// How many runs at a time; as many as there are cores
    #[arg(long, value_name = "N")]
    jobs: Option<NonZeroUsize>,
    /// Print one JSON array
    #[arg(long)]
    json: bool,
}

/// Some seeds, and few enough that no range of them is out of range.
fn at_least_one() -> RangedU64ValueParser {
    RangedU64ValueParser::new().range(1..1_000_000_000)
}

/// Measures the stories and prints the table of them.
pub(crate) fn zoo(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let entries = named(&arguments.names)?;
    let Arguments { ranges, seeds, shrink, jobs, .. } = *arguments;
    let effort = Effort { ranges, seeds, shrink_runs: shrink, jobs };
    let bar = progress_bar(entries.len() as u64);
    if !arguments.json {
        print(HEADER)?;
    }
    let mut all = Vec::new();
    for entry in entries {
        let measured = measure(entry, &effort, |progress| tell(&bar, entry, progress))?;
        bar.inc(1);
        if !arguments.json {
            bar.suspend(|| print(&measured.row()))?;
        }
        all.push(measured);
    }
    bar.finish_and_clear();
    if arguments.json {
        let lines: Vec<_> = all.iter().map(Line::of).collect();
        let text = serde_json::to_string(&lines);
        print(&text.map_err(|error| Failure::output(error.into()))?)?;
    }
    let is_fine = all.iter().all(Measured::is_as_it_should_be);
    Ok(if is_fine { ExitCode::SUCCESS } else { ExitCode::from(2) })
}

/// The entries of these stories; all if none is named.
fn named(names: &[String]) -> Result<Vec<&'static Entry>, Failure> {
    if names.is_empty() {
        return Ok(ENTRIES.iter().collect());
    }
    let find = |name: &String| {
        ENTRIES.iter().find(|entry| entry.story == name).ok_or_else(|| {
            let message = format!("there is no failure story {name:?}");
            Failure::new(message, "`bus list` lists them")
        })
    };
    names.iter().map(find).collect()
}

/// A bar on the terminal; nothing is drawn if stderr is none.
fn progress_bar(stories: u64) -> ProgressBar {
    let style = "{bar:30} {pos} of {len} stories, {elapsed} {msg}";
    ProgressBar::new(stories).with_style(
        ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar()),
    )
}

fn tell(bar: &ProgressBar, entry: &Entry, progress: &Progress) {
    let Progress { runs, seeds, shrinking, .. } = progress;
    bar.set_message(match shrinking {
        Some(run) => format!("{}: shrinking, run {run}", entry.story),
        None => format!("{}: {runs} of {seeds} seeds", entry.story),
    });
}

#[derive(Serialize)]
struct Line<'a> {
    entry: &'a str,
    name: &'a str,
    guarantees: &'a [String],
    seeds_to_find: &'a [Option<u64>],
    median: Option<u64>,
    steps_before: usize,
    steps_after: usize,
    trigger_steps: usize,
    shrunk: Option<&'a bus_sim::explore::Shrunk>,
    fixed_seeds: u64,
    fixed_broken: Option<&'a str>,
    verdict: &'a str,
}

impl<'a> Line<'a> {
    fn of(measured: &'a Measured) -> Self {
        let shrunk = measured.shrunk.as_ref();
        let (steps_before, steps_after) = shrunk.map_or((0, 0), |shrunk| shrunk.steps());
        Self {
            entry: measured.entry.id,
            name: measured.entry.story,
            guarantees: &measured.guarantees,
            seeds_to_find: &measured.seeds_to_find,
            median: measured.median(),
            steps_before,
            steps_after,
            trigger_steps: measured.entry.trigger_steps,
            shrunk,
            fixed_seeds: measured.fixed_seeds,
            fixed_broken: measured.fixed_broken.as_deref(),
            verdict: if measured.is_as_it_should_be() { "fine" } else { "wrong" },
        }
    }
}

const EXAMPLES: &str = "\
Examples:
  bus zoo                                          the table of docs/zoo.md, which takes minutes
  bus zoo hw-truncation-loss delayed-endtxn        two rows of it
  bus zoo --seeds 200 --ranges 1 --json            a quick look, for programs

Exit codes: 0 each was found in each range, shrunk to at most three steps more than its entry names,
and held in its fixed form; 1 usage; 2 not so.";

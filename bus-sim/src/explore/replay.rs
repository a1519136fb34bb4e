//! Replay files: a run as a text that gives the same run for ever.
//!
//! The text is [RON](https://docs.rs/ron) and has a version. It names what was run, and holds the
//! plan of faults and the choices that were not harmless, so it survives a change of what a seed
//! means; and it is written to be read and edited by hand. One that would be large is packed.

mod packed;

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use ron::ser::PrettyConfig;
use serde::{Deserialize, Serialize};

use super::case::{Case, Ran, Subject, Violation};
use super::shrink::{Before, ShrunkRun};
use crate::choice::{ChoiceKey, Chosen, Label};
use crate::config::SimConfig;
use crate::driver::{SimHandle, SimReport, Size};
use crate::fault::{Planned, text};

/// From which length on a text is packed.
const LARGE: usize = 1 << 20;

/// The version of replay files that is written and read.
const VERSION: u32 = 1;

/// A run that broke a guarantee, and all that it takes to have it again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Replay {
    /// The version of the format.
    pub busplay: u32,
    /// What was run.
    pub name: String,
    /// How it was run, for whoever runs it again: the form of an application, the URL of its bus.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub with: BTreeMap<String, String>,
    /// What must come of it.
    pub expect: Expected,
    /// How it was shrunk.
    #[serde(default)]
    pub shrunk: Shrunk,
    /// What decides the run.
    pub case: Case,
    /// What asked for the choices that are listed, for people: comments of the text.
    #[serde(skip)]
    pub causes: BTreeMap<ChoiceKey, String>,
}

/// What must come of a run that is replayed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expected {
    /// The guarantee that is broken.
    pub guarantee: String,
    /// How.
    pub sentence: String,
    /// The hash of the trace, 16 hexadecimal digits. It changes when the code does, or the plan.
    pub trace: String,
    /// How many events it has.
    pub events: u64,
}

/// How a run was shrunk: each from so many to so many.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shrunk {
    /// Faults that struck.
    pub faults: (usize, usize),
    /// Sizes that the application asked for.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub sizes: BTreeMap<String, (usize, usize)>,
    /// Brokers, if there are fewer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub brokers: Option<(i32, i32)>,
    /// Choices that were not harmless.
    pub choices: (usize, usize),
    /// In so many runs.
    pub runs: u32,
}

impl Shrunk {
    fn from(before: &Before, case: &Case, choices: usize, runs: u32) -> Self {
        let size = |size: &Size| {
            let after = case.sizes.get(&size.name).copied().unwrap_or(size.was);
            (size.name.clone(), (size.was, after))
        };
        Self {
            faults: (before.faults, case.plan.faults.len()),
            sizes: before.sizes.iter().map(size).collect(),
            brokers: case.brokers.map(|after| (before.brokers, after)),
            choices: (before.choices, choices),
            runs,
        }
    }

    /// Faults and choices before and after.
    pub const fn steps(&self) -> (usize, usize) {
        (self.faults.0 + self.choices.0, self.faults.1 + self.choices.1)
    }
}

/// What came of a run that was replayed.
#[derive(Debug)]
pub struct Replayed {
    /// The guarantees that were broken.
    pub violations: Vec<Violation>,
    /// Whether the guarantee of the file is among them.
    pub is_reproduced: bool,
    /// Whether the trace is the one of the file, event by event.
    pub is_identical: bool,
    /// What the simulation did; none if it panicked before it could tell.
    pub report: Option<SimReport>,
}

/// Why a text is no replay file.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// It is something else.
    #[error("this is no replay file: it does not say `busplay: {VERSION}`")]
    Foreign,
    /// It has another version.
    #[error("the replay file has version {found}, and this program reads version {VERSION}")]
    Version {
        /// Its version.
        found: u32,
    },
    /// It is packed, and damaged or not complete.
    #[error("the replay file is damaged: {message}")]
    Damaged {
        /// How one can tell.
        message: String,
    },
    /// It is broken or not complete.
    #[error("the replay file is broken in line {line}, column {column}: {message}")]
    Broken {
        /// The line, from 1.
        line: usize,
        /// The column, from 1.
        column: usize,
        /// What is wrong there.
        message: String,
    },
}

impl Replay {
    /// The replay of a run that was shrunk.
    pub(super) fn of(name: &str, shrunk: ShrunkRun) -> Self {
        let ShrunkRun { case, ran, violation, before, runs } = shrunk;
        let report = ran.report.as_ref();
        let chosen = report.map_or(&[][..], |report| &report.choices.chosen);
        let causes = chosen.iter().map(|chosen| (chosen.key, cause(chosen)));
        let causes = causes.filter(|(key, _)| case.overrides.values.contains_key(key)).collect();
        Self {
            busplay: VERSION,
            name: name.to_owned(),
            with: BTreeMap::new(),
            expect: Expected {
                guarantee: violation.guarantee,
                sentence: violation.sentence,
                trace: report.map_or_else(String::new, |report| report.trace_hash.to_string()),
                events: report.map_or(0, |report| report.events),
            },
            shrunk: Shrunk::from(&before, &case, chosen.len(), runs),
            case,
            causes,
        }
    }

    /// Reads a replay file.
    ///
    /// # Errors
    /// If it is none, of another version, or broken, saying where.
    pub fn from_text(text: &str) -> Result<Self, ReplayError> {
        let version = ron::from_str::<Version>(text);
        match version {
            Ok(Version { busplay: VERSION }) => ron::from_str(text).map_err(broken),
            Ok(Version { busplay: found }) => Err(ReplayError::Version { found }),
            Err(_) if !text.contains("busplay") => Err(ReplayError::Foreign),
            Err(error) => Err(broken(error)),
        }
    }

    /// Writes it as a text.
    pub fn to_text(&self) -> String {
        let pretty = PrettyConfig::new().depth_limit(5).new_line("\n");
        let text = match ron::ser::to_string_pretty(self, pretty) {
            Ok(text) => text,
            // Strings, numbers, and lists are all that it holds, and writing to memory cannot fail.
            Err(error) => unreachable!("a replay cannot be written: {error}"),
        };
        let mut commented = format!("// {}\n", one_line(&self.expect.guarantee));
        for line in text.lines() {
            commented.push_str(line);
            let key = line.trim_start().strip_prefix('"').and_then(|rest| rest.get(..16));
            let key = key.and_then(|key| u64::from_str_radix(key, 16).ok()).map(ChoiceKey);
            if let Some(cause) = key.and_then(|key| self.causes.get(&key)) {
                commented.push_str(" // ");
                commented.push_str(&one_line(cause));
            }
            commented.push('\n');
        }
        commented
    }

    /// Reads a replay file of either kind.
    ///
    /// # Errors
    /// As [`from_text`](Self::from_text), and if it is packed and damaged.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, ReplayError> {
        if packed::is_packed(bytes) {
            return packed::unpack(bytes);
        }
        Self::from_text(str::from_utf8(bytes).map_err(|_| ReplayError::Foreign)?)
    }

    /// Writes it as a file: as a text, or packed if the text is longer than 1 MiB, which takes
    /// thousands of choices.
    pub fn to_bytes(&self) -> Vec<u8> {
        let text = self.to_text();
        if text.len() > LARGE { packed::pack(self) } else { text.into_bytes() }
    }

    /// Runs it again: the same application with the same configuration.
    pub fn run<F, Fut>(&self, config: &SimConfig, app: F) -> Replayed
    where
        F: Fn(SimHandle) -> Fut + Sync,
        Fut: Future<Output = Result<(), Vec<Violation>>>,
    {
        let Ran { violations, report, .. } = Subject::run(&app, self.case.config(config));
        let expect = &self.expect;
        let hash = report.as_ref().map(|report| report.trace_hash.to_string());
        Replayed {
            is_reproduced: violations.iter().any(|v| v.guarantee == expect.guarantee),
            is_identical: hash.as_ref() == Some(&expect.trace),
            violations,
            report,
        }
    }
}

impl fmt::Display for Replay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { expect, shrunk, case, .. } = self;
        writeln!(f, "violated: {}", expect.guarantee)?;
        writeln!(f, "  {}", expect.sentence)?;
        writeln!(f, "seed {}, {shrunk}", case.seed)?;
        for fault in &case.plan.faults {
            writeln!(f, "  {}", line(fault))?;
        }
        write!(f, "trace {} with {} events", expect.trace, expect.events)
    }
}

impl fmt::Display for Shrunk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { faults, sizes, brokers, choices, runs } = self;
        write!(f, "shrunk in {runs} runs: {} to {} faults, ", faults.0, faults.1)?;
        for (name, (before, after)) in sizes {
            write!(f, "{before} to {after} {name}, ")?;
        }
        if let Some((before, after)) = brokers {
            write!(f, "{before} to {after} brokers, ")?;
        }
        write!(f, "{} to {} choices", choices.0, choices.1)
    }
}

/// What every version has.
#[derive(Deserialize)]
struct Version {
    busplay: u32,
}

fn broken(error: ron::error::SpannedError) -> ReplayError {
    ReplayError::Broken {
        line: error.span.start.line,
        column: error.span.start.col,
        message: error.code.to_string(),
    }
}

/// What asked for a choice, and what was chosen if that is a time.
fn cause(chosen: &Chosen) -> String {
    let Chosen { label, cause, value, .. } = chosen;
    let time = text::format(Duration::from_nanos(*value));
    match label {
        Label::Latency | Label::ControllerElection => {
            format!("{label:?}, {time} above the least: {cause}")
        }
        _ => format!("{label:?}: {cause}"),
    }
}

fn one_line(text: &str) -> String {
    text.replace(['\n', '\r'], " ")
}

/// A fault in one line, as a plan is written.
fn line(fault: &Planned) -> String {
    ron::to_string(fault).unwrap_or_else(|error| error.to_string())
}

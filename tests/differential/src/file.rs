//! Program files: a program in RON, with what a real Kafka made of it.
//!
//! They are written by the test and edited by hand, so what is wrong with one is said with its line
//! and with what would be right there.

use std::fmt;
use std::fs;
use std::io;
use std::path::Path;

use ron::extensions::Extensions;
use ron::ser::PrettyConfig;
use serde::{Deserialize, Serialize};

use crate::outcome::Outcome;
use crate::program::Program;

/// The version of the format that this version writes, and the only one that it reads.
pub const VERSION: u32 = 1;

/// What a program file holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProgramFile {
    /// The version of the format.
    pub version: u32,
    /// What the program is about, or what it taught.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub note: String,
    /// The program.
    pub program: Program,
    /// What a real Kafka made of it, a step an outcome; empty if it was not recorded.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub kafka: Vec<Outcome>,
}

/// Why a program file cannot be used.
#[derive(Debug)]
pub enum FileError {
    /// It cannot be read.
    Read(String, io::Error),
    /// It cannot be written.
    Write(String, io::Error),
    /// It is no program: the file, the line, and what is wrong there.
    Format {
        /// The file.
        path: String,
        /// The line, from 1.
        line: usize,
        /// The column, from 1.
        column: usize,
        /// What is wrong, and what would be right.
        message: String,
    },
    /// It was written for another version: the file, the line, the version.
    Version(String, usize, u32),
    /// Outcomes and steps do not belong together: the file, the line, outcomes, steps.
    Outcomes(String, usize, usize, usize),
}

impl ProgramFile {
    /// A file of a program that was not run yet.
    pub fn new(program: Program, note: impl Into<String>) -> Self {
        Self { version: VERSION, note: note.into(), program, kafka: Vec::new() }
    }

    /// Reads a file.
    ///
    /// # Errors
    /// What is wrong, where, and what would be right.
    pub fn read(path: &Path) -> Result<Self, FileError> {
        let name = path.display().to_string();
        let text =
            fs::read_to_string(path).map_err(|error| FileError::Read(name.clone(), error))?;
        Self::parse(&text, &name)
    }

    /// Reads the text of the file `name`.
    ///
    /// # Errors
    /// What is wrong, where, and what would be right.
    pub fn parse(text: &str, name: &str) -> Result<Self, FileError> {
        // The version first: of another version nothing else need be right.
        if let Ok(Version { version }) = options().from_str::<Version>(text)
            && version != VERSION
        {
            return Err(FileError::Version(name.to_owned(), line_of(text, "version:"), version));
        }
        let file: Self = options().from_str(text).map_err(|error| {
            let (line, column) = (error.span.end.line, error.span.end.col);
            let rest = text.lines().skip(line.saturating_sub(1)).collect::<Vec<_>>();
            let is_end = rest.len() <= 1
                && rest.first().is_none_or(|last| column > last.trim_end().chars().count());
            let cut_off = if is_end { "; the file ends here: is it cut off?" } else { "" };
            let message = format!("{}{cut_off}", error.code);
            let (line, column) = (error.span.start.line, error.span.start.col);
            FileError::Format { path: name.to_owned(), line, column, message }
        })?;
        let (outcomes, steps) = (file.kafka.len(), file.program.steps.len());
        if outcomes != 0 && outcomes != steps {
            let line = line_of(text, "kafka:");
            return Err(FileError::Outcomes(name.to_owned(), line, outcomes, steps));
        }
        Ok(file)
    }

    /// The text of the file: a line for each step and each outcome.
    pub fn to_text(&self) -> String {
        let pretty = PrettyConfig::new()
            .depth_limit(3)
            .indentor("  ")
            .separate_tuple_members(false)
            .extensions(Extensions::IMPLICIT_SOME);
        // Nothing in a program is what RON cannot write.
        options().to_string_pretty(self, pretty).unwrap_or_else(|error| format!("// {error}"))
            + "\n"
    }

    /// Writes the file.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), FileError> {
        let failed = |error| FileError::Write(path.display().to_string(), error);
        fs::write(path, self.to_text()).map_err(failed)
    }
}

/// The first line that begins with this, from 1; 1 if none does.
fn line_of(text: &str, begin: &str) -> usize {
    text.lines().position(|line| line.trim_start().starts_with(begin)).map_or(1, |n| n + 1)
}

fn options() -> ron::Options {
    ron::Options::default().with_default_extension(Extensions::IMPLICIT_SOME)
}

/// The one field that every version has.
#[derive(Deserialize)]
struct Version {
    version: u32,
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read(path, _) => write!(f, "program file {path} cannot be read"),
            Self::Write(path, _) => write!(f, "program file {path} cannot be written"),
            Self::Format { path, line, column, message } => {
                write!(f, "program file {path}, line {line}, column {column}: {message}")
            }
            Self::Version(path, line, version) => write!(
                f,
                "program file {path}, line {line}: version {version} is not known, expected \
                 `version: {VERSION}`"
            ),
            Self::Outcomes(path, line, outcomes, steps) => write!(
                f,
                "program file {path}, line {line}: {outcomes} outcomes of Kafka for {steps} steps, \
                 expected one for each; after a change to the steps, delete `kafka` or record it \
                 again"
            ),
        }
    }
}

impl std::error::Error for FileError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Read(_, error) | Self::Write(_, error) => Some(error),
            Self::Format { .. } | Self::Version(..) | Self::Outcomes(..) => None,
        }
    }
}

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
    /// It cannot be read or written.
    Io(String, io::Error),
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
    /// It was written for another version.
    Version(String, u32),
    /// Outcomes and steps do not belong together: the file, outcomes, steps.
    Outcomes(String, usize, usize),
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
        let text = fs::read_to_string(path).map_err(|error| FileError::Io(name.clone(), error))?;
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
            return Err(FileError::Version(name.to_owned(), version));
        }
        let file: Self = options().from_str(text).map_err(|error| FileError::Format {
            path: name.to_owned(),
            line: error.span.start.line,
            column: error.span.start.col,
            message: error.code.to_string(),
        })?;
        let (outcomes, steps) = (file.kafka.len(), file.program.steps.len());
        if outcomes != 0 && outcomes != steps {
            return Err(FileError::Outcomes(name.to_owned(), outcomes, steps));
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
        let failed = |error| FileError::Io(path.display().to_string(), error);
        fs::write(path, self.to_text()).map_err(failed)
    }
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
            Self::Io(path, _) => write!(f, "program file {path} cannot be read or written"),
            Self::Format { path, line, column, message } => {
                write!(f, "program file {path}, line {line}, column {column}: {message}")
            }
            Self::Version(path, version) => {
                write!(f, "program file {path} has version {version}; this is version {VERSION}")
            }
            Self::Outcomes(path, outcomes, steps) => write!(
                f,
                "program file {path} has {outcomes} outcomes of Kafka for {steps} steps; after a \
                 change to the steps, delete `kafka` or record it again"
            ),
        }
    }
}

impl std::error::Error for FileError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io(_, error) => Some(error),
            Self::Format { .. } | Self::Version(..) | Self::Outcomes(..) => None,
        }
    }
}

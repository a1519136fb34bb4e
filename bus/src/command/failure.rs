//! Failure: why the command could not do what it was asked, and what to do about it.

use std::error::Error as StdError;
use std::fmt;
use std::io;

use bus::{ErrorKind, kafka};

/// An error for a person: what happened, each cause once, and a hint.
#[derive(Debug)]
pub(crate) struct Failure {
    error: Box<dyn StdError>,
    hint: String,
}

impl Failure {
    /// A failure with a hint of its own.
    pub(crate) fn new(error: impl Into<Box<dyn StdError>>, hint: impl Into<String>) -> Self {
        Self { error: error.into(), hint: hint.into() }
    }

    /// Stdout cannot be written to.
    pub(crate) fn output(error: io::Error) -> Self {
        Self::new(error, "stdout was closed, or its disk is full")
    }
}

impl From<kafka::Error> for Failure {
    fn from(error: kafka::Error) -> Self {
        let hint = error.hint();
        Self::new(error, hint)
    }
}

impl From<bus::Error> for Failure {
    fn from(error: bus::Error) -> Self {
        let hint = match error.kind() {
            ErrorKind::InvalidConfig | ErrorKind::Unsupported => {
                "`bus run --help` shows the URLs and their options"
            }
            ErrorKind::AllBrokersDown
            | ErrorKind::TimedOut
            | ErrorKind::MessageTimedOut
            | ErrorKind::NetworkException => {
                "`bus kafka status` shows what runs here, and `bus kafka up` starts a Kafka"
            }
            _ => "BUS_LOG=debug shows what led to it",
        };
        Self::new(error, hint)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}", self.error)?;
        let mut source = self.error.source();
        while let Some(cause) = source {
            write!(f, ": {cause}")?;
            source = cause.source();
        }
        write!(f, "\nhint: {}", self.hint)
    }
}

#[cfg(test)]
mod tests {
    use bus::Error;

    use super::*;

    #[test]
    fn each_cause_is_told_once_and_the_hint_last() {
        let cause = io::Error::other("connection refused");
        let error = Error::new(ErrorKind::AllBrokersDown, "no broker answers").with_source(cause);
        let text = Failure::from(error).to_string();
        assert_eq!(text.matches("connection refused").count(), 1, "{text}");
        assert!(text.starts_with("error: "), "{text}");
        assert!(text.lines().last().is_some_and(|line| line.starts_with("hint: ")), "{text}");
    }
}

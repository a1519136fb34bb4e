//! Why a case failed: by an assertion of its own, by a law of the oracle, by an error of the bus,
//! by a deadline, or by a crash of what runs it.
//!
//! Cases return failures instead of panicking, so that a caught planted bug can be told from a bug
//! in the simulator.

use std::fmt;
use std::panic::Location;

use bus_core::{Error, ErrorKind};

/// What a case returns.
pub type Verdict<T = ()> = Result<T, Failure>;

/// What kind of failure it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureKind {
    /// An assertion of the case does not hold.
    Assertion,
    /// A law of the oracle does not hold for the history.
    Law,
    /// The bus failed where the case expects success.
    Unexpected,
    /// A condition did not become true in time.
    Deadline,
    /// The simulation has no event left, but the case still waits.
    Stalled,
    /// What runs the case panicked.
    Crash,
}

/// A failed case.
#[derive(Clone, Debug)]
pub struct Failure {
    /// What kind of failure it is.
    pub kind: FailureKind,
    /// What happened and what was expected, with the evidence.
    pub message: String,
    place: Option<&'static Location<'static>>,
}

impl Failure {
    /// A failure at the place of the caller.
    #[track_caller]
    pub fn new(kind: FailureKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), place: Some(Location::caller()) }
    }

    /// A failed assertion at the place of the caller.
    #[track_caller]
    pub fn assertion(message: impl Into<String>) -> Self {
        Self::new(FailureKind::Assertion, message)
    }
}

impl From<Error> for Failure {
    #[track_caller]
    fn from(error: Error) -> Self {
        let kind = match error.kind() {
            ErrorKind::Stalled => FailureKind::Stalled,
            _ => FailureKind::Unexpected,
        };
        let mut message = error.to_string();
        let mut source = std::error::Error::source(&error);
        while let Some(cause) = source {
            message = format!("{message}: {cause}");
            source = cause.source();
        }
        Self::new(kind, message)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            FailureKind::Assertion => "assertion",
            FailureKind::Law => "law",
            FailureKind::Unexpected => "unexpected error",
            FailureKind::Deadline => "deadline",
            FailureKind::Stalled => "stalled",
            FailureKind::Crash => "crash",
        };
        write!(f, "{kind}: {}", self.message)?;
        match self.place {
            Some(place) => write!(f, "\n  at {}:{}", place.file(), place.line()),
            None => Ok(()),
        }
    }
}

/// Checks that `outcome` is an error of this kind, and returns it.
#[track_caller]
pub fn refused<T: fmt::Debug>(outcome: Result<T, Error>, kind: ErrorKind) -> Verdict<Error> {
    match outcome {
        Err(error) if error.kind() == kind => Ok(error),
        Err(error) => Err(Failure::assertion(format!("expected {kind}; the error is {error}"))),
        Ok(value) => Err(Failure::assertion(format!("expected {kind}; the outcome is {value:?}"))),
    }
}

/// Fails the case unless the condition holds; the rest is the message, as for `format!`.
#[macro_export]
macro_rules! ensure {
    ($condition:expr, $($message:tt)+) => {
        if !$condition {
            return Err($crate::failure::Failure::assertion(format!($($message)+)));
        }
    };
}

/// Fails the case unless both sides are equal; the rest is the message, as for `format!`.
#[macro_export]
macro_rules! ensure_eq {
    ($left:expr, $right:expr, $($message:tt)+) => {
        // A match keeps temporaries alive.
        match (&$left, &$right) {
            (left, right) if left == right => {}
            (left, right) => {
                let message = format!($($message)+);
                return Err($crate::failure::Failure::assertion(format!(
                    "{message}\n  found:    {left:?}\n  expected: {right:?}"
                )));
            }
        }
    };
}

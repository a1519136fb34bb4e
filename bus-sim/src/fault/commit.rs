//! What comes of a commit at a database outside of the bus.

use std::fmt;
use std::time::Duration;

/// What comes of a commit at a database outside of the bus, as
/// [`SimHandle::commits`](crate::SimHandle::commits) tells whoever stands for the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CommitFate {
    /// What the database says of it.
    Ordinary,
    /// The database refuses it, and says so: nothing happened. A deadlock, a failure to serialize.
    Refused,
    /// The connection broke before it came to the database: nothing happens, and its client does
    /// not learn that.
    Lost,
    /// The connection broke behind it: what the database says of it happens, and its client does
    /// not learn that.
    AnswerLost,
    /// It comes to the database so much later. If its client gives up before, it happens all the
    /// same.
    Late(Duration),
    /// The process has crashed at it: nothing happens, and the process must not go on.
    Crashed,
}

impl fmt::Display for CommitFate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ordinary => f.write_str("ordinary"),
            Self::Refused => f.write_str("refused"),
            Self::Lost => f.write_str("lost, without an answer"),
            Self::AnswerLost => f.write_str("done, but the answer is lost"),
            Self::Late(by) => write!(f, "late by {}", super::text::format(*by)),
            Self::Crashed => f.write_str("the process has crashed"),
        }
    }
}

//! Commits: what comes of the commits of an application's processes at its databases.
//!
//! A database says that a process commits; a test, or a plan of faults, decides. By default the
//! database itself does, at no cost.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// Decides what comes of commits. Cheap to clone.
///
/// ```
/// use scenarios::{CommitFate, Commits};
///
/// // What the order service commits happens, and it does not learn that.
/// let commits = Commits::new(|process, database| match (process, database) {
///     ("order-service", "shop") => CommitFate::AnswerLost,
///     _ => CommitFate::Ordinary,
/// });
/// assert_eq!(commits.decide("order-service", "shop"), CommitFate::AnswerLost);
/// ```
#[derive(Clone, Default)]
pub struct Commits {
    decide: Option<Arc<Decide>>,
}

type Decide = dyn Fn(&str, &str) -> CommitFate + Send + Sync;

/// What comes of a commit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum CommitFate {
    /// What the database says of it.
    #[default]
    Ordinary,
    /// The database refuses it, as after a deadlock: nothing happened, and the process is told so.
    Refused,
    /// It is lost with its connection: nothing happens, and the process does not learn that.
    Lost,
    /// Its answer is lost with its connection: what the database says of it happens, and the
    /// process does not learn that.
    AnswerLost,
    /// It comes to the database so much later, even if the process has given up by then.
    Late(Duration),
    /// The process has crashed at it: nothing happens, and it never gets beyond this point.
    Crashed,
}

impl Commits {
    /// Asks `decide` at each commit, with the name of the process and that of the database.
    pub fn new(decide: impl Fn(&str, &str) -> CommitFate + Send + Sync + 'static) -> Self {
        Self { decide: Some(Arc::new(decide)) }
    }

    /// What comes of a commit that a process begins at a database now.
    pub fn decide(&self, process: &str, database: &str) -> CommitFate {
        self.decide.as_ref().map_or(CommitFate::Ordinary, |decide| decide(process, database))
    }
}

impl fmt::Debug for Commits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let decides = self.decide.is_some();
        f.debug_struct("Commits").field("decides", &decides).finish()
    }
}

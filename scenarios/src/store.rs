//! Store: a transactional database, in memory.
//!
//! - It lives outside of every process: what is committed survives their crashes, what is not is
//!   gone with them.
//! - A transaction sees what was committed when it looked, and its own writes. It commits whole or
//!   not at all: if a row that it read has changed, or a key that it inserts is taken, nothing of
//!   it happens.
//! - A [sequence](Transaction::next_of) gives each transaction another number, at once and for
//!   good: numbers are in the order in which they were taken, not in that of the commits, and those
//!   of a transaction that does not commit are missing for ever. So it is in every database.
//! - A process that [uses](Store::used_by) it may not learn what came of a commit, or late:
//!   [`Commits`] decides. A commit that is late happens even if the process has given up, or
//!   crashed.
//!
//! Simplified: any other commit of a process that crashes at it has not happened.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::time::Instant;

use crate::commits::{CommitFate, Commits};

/// A row of a table.
pub trait Row: Serialize + DeserializeOwned {
    /// The table.
    const TABLE: &'static str;

    /// The unique key in the table; rows are sorted by it.
    fn key(&self) -> String;
}

/// A transactional database. Cheap to clone; its clones are one database.
#[derive(Clone, Debug)]
pub struct Store {
    name: &'static str,
    database: Arc<Mutex<Database>>,
    /// Who uses it; none for what is outside of every process, for which nothing goes wrong.
    user: Option<User>,
}

#[derive(Clone, Debug)]
struct User {
    process: Arc<str>,
    commits: Commits,
}

#[derive(Debug, Default)]
struct Database {
    rows: BTreeMap<Key, Stored>,
    /// How many transactions were committed; the version of the rows that the last one wrote.
    commits: u64,
    sequences: BTreeMap<&'static str, Sequence>,
    /// Commits that are still under way.
    late: Vec<Late>,
}

/// A commit that is late.
#[derive(Debug)]
struct Late {
    due: Instant,
    changes: Changes,
    numbers: Vec<(&'static str, u64)>,
    /// What came of it, for whoever still waits.
    answer: Arc<Mutex<Option<Result<(), StoreError>>>>,
}

#[derive(Debug, Default)]
struct Sequence {
    /// The number that was given last.
    last: u64,
    /// Those that open transactions have.
    open: BTreeSet<u64>,
}

/// Table and key.
type Key = (&'static str, String);

#[derive(Debug)]
struct Stored {
    version: u64,
    value: Value,
}

impl Default for Store {
    fn default() -> Self {
        Self::named("database")
    }
}

impl Store {
    /// An empty database of this name.
    pub fn named(name: &'static str) -> Self {
        Self { name, database: Arc::default(), user: None }
    }

    /// The same database as a process uses it: `commits` decides what comes of its commits.
    #[must_use]
    pub fn used_by(&self, process: &str, commits: &Commits) -> Self {
        let user = User { process: process.into(), commits: commits.clone() };
        Self { user: Some(user), ..self.clone() }
    }

    /// Begins a transaction. Dropping it aborts it.
    pub fn begin(&self) -> Transaction {
        Transaction {
            changes: Changes::default(),
            numbers: Numbers { store: self.clone(), taken: Vec::new() },
        }
    }

    /// The number of a sequence before which all is decided: every transaction that took a smaller
    /// one has committed or is gone. What other databases tell by the oldest transaction that is
    /// open (`pg_snapshot_xmin`).
    pub fn decided_before(&self, sequence: &'static str) -> u64 {
        let database = self.look();
        let Some(sequence) = database.sequences.get(sequence) else { return 1 };
        sequence.open.first().copied().unwrap_or(sequence.last + 1)
    }

    /// The committed rows of a table, sorted by key.
    ///
    /// # Errors
    /// [`StoreError::Malformed`].
    pub fn all<R: Row>(&self) -> Result<Vec<R>, StoreError> {
        let database = self.look();
        let table = database.rows.iter().filter(|((table, _), _)| *table == R::TABLE);
        table.map(|(key, stored)| decode(key, &stored.value)).collect()
    }

    /// The database as it is now: what was late and has come by now has happened.
    fn look(&self) -> MutexGuard<'_, Database> {
        let mut database = self.database.lock();
        while let Some(place) = database.first_due() {
            let Late { changes, numbers, answer, .. } = database.late.remove(place);
            *answer.lock() = Some(database.commit(changes));
            database.decide(&numbers);
        }
        database
    }

    /// What comes of a commit that begins now.
    fn fate(&self) -> CommitFate {
        let fate = |user: &User| user.commits.decide(&user.process, self.name);
        self.user.as_ref().map_or(CommitFate::Ordinary, fate)
    }
}

impl Database {
    /// Of the commits that were late and have come by now, the first.
    fn first_due(&self) -> Option<usize> {
        let (place, first) = self.late.iter().enumerate().min_by_key(|(_, late)| late.due)?;
        (first.due <= Instant::now()).then_some(place)
    }

    fn commit(&mut self, Changes { reads, writes }: Changes) -> Result<(), StoreError> {
        for (key, version) in &reads {
            let found = self.rows.get(key).map_or(0, |stored| stored.version);
            match (found == *version, version) {
                (true, _) => {}
                (false, 0) if writes.contains_key(key) => {
                    return Err(StoreError::DuplicateKey { table: key.0, key: key.1.clone() });
                }
                (false, _) => {
                    return Err(StoreError::Conflict { table: key.0, key: key.1.clone() });
                }
            }
        }
        self.commits += 1;
        for (key, value) in writes {
            match value {
                Some(value) => self.rows.insert(key, Stored { version: self.commits, value }),
                None => self.rows.remove(&key),
            };
        }
        Ok(())
    }

    /// The transaction that took these numbers has committed, or is gone.
    fn decide(&mut self, numbers: &[(&'static str, u64)]) {
        for (name, number) in numbers {
            if let Some(sequence) = self.sequences.get_mut(name) {
                sequence.open.remove(number);
            }
        }
    }
}

/// A transaction that is open.
#[derive(Debug)]
pub struct Transaction {
    changes: Changes,
    /// Let go last: what it took is decided then.
    numbers: Numbers,
}

/// What a transaction read and wrote.
#[derive(Debug, Default)]
struct Changes {
    /// The version of each row that was looked at; 0 for none.
    reads: BTreeMap<Key, u64>,
    writes: BTreeMap<Key, Option<Value>>,
}

/// The numbers that a transaction took from sequences; open until this is dropped.
#[derive(Debug)]
struct Numbers {
    store: Store,
    taken: Vec<(&'static str, u64)>,
}

impl Drop for Numbers {
    fn drop(&mut self) {
        self.store.database.lock().decide(&self.taken);
    }
}

impl Transaction {
    /// Takes the next number of a sequence, from 1 on. It is taken even if this transaction never
    /// commits, and others may commit greater ones before.
    pub fn next_of(&mut self, sequence: &'static str) -> u64 {
        let number = {
            let mut database = self.numbers.store.look();
            let sequence = database.sequences.entry(sequence).or_default();
            sequence.last += 1;
            sequence.open.insert(sequence.last);
            sequence.last
        };
        self.numbers.taken.push((sequence, number));
        number
    }

    /// Reads a row.
    ///
    /// # Errors
    /// [`StoreError::Malformed`].
    pub fn find<R: Row>(&mut self, key: &str) -> Result<Option<R>, StoreError> {
        let key = (R::TABLE, key.to_owned());
        if let Some(written) = self.changes.writes.get(&key) {
            return written.as_ref().map(|value| decode(&key, value)).transpose();
        }
        let database = self.numbers.store.look();
        let stored = database.rows.get(&key);
        let version = stored.map_or(0, |stored| stored.version);
        let row = stored.map(|stored| decode(&key, &stored.value)).transpose()?;
        self.changes.reads.entry(key).or_insert(version);
        Ok(row)
    }

    /// Inserts a row whose key must be new.
    ///
    /// # Errors
    /// [`StoreError::Malformed`]. That the key is taken shows at the commit.
    pub fn insert<R: Row>(&mut self, row: &R) -> Result<(), StoreError> {
        let key = (R::TABLE, row.key());
        self.changes.reads.insert(key.clone(), 0);
        self.put(key, row)
    }

    /// Writes a row over the one that [`find`](Self::find) gave.
    ///
    /// # Errors
    /// [`StoreError::Malformed`].
    pub fn update<R: Row>(&mut self, row: &R) -> Result<(), StoreError> {
        self.put((R::TABLE, row.key()), row)
    }

    /// Deletes a row; nothing happens if there is none.
    pub fn delete<R: Row>(&mut self, key: &str) {
        self.changes.writes.insert((R::TABLE, key.to_owned()), None);
    }

    /// Commits. Takes a moment, as a database on another machine does.
    ///
    /// # Errors
    /// [`StoreError::Conflict`], [`StoreError::DuplicateKey`], or [`StoreError::Refused`]: nothing
    /// has happened then. [`StoreError::OutcomeUnknown`]: it may have happened, or may yet happen.
    pub async fn commit(self) -> Result<(), StoreError> {
        let fate = self.numbers.store.fate();
        match fate {
            CommitFate::Crashed => std::future::pending().await,
            CommitFate::Late(by) => return self.commit_late(by).await,
            _ => tokio::time::sleep(COMMIT_TIME).await,
        }
        let Self { changes, numbers } = self;
        match fate {
            CommitFate::Refused => Err(StoreError::Refused),
            CommitFate::Lost => Err(StoreError::OutcomeUnknown),
            CommitFate::AnswerLost => {
                // Nobody hears whether it happened.
                drop(numbers.store.look().commit(changes));
                Err(StoreError::OutcomeUnknown)
            }
            _ => numbers.store.look().commit(changes),
        }
    }

    async fn commit_late(self, by: Duration) -> Result<(), StoreError> {
        let Self { changes, mut numbers } = self;
        let (takes, answer) = (COMMIT_TIME + by, Arc::default());
        let late = Late {
            due: Instant::now() + takes,
            changes,
            numbers: std::mem::take(&mut numbers.taken),
            answer: Arc::clone(&answer),
        };
        numbers.store.look().late.push(late);
        tokio::time::sleep(takes.min(PATIENCE)).await;
        drop(numbers.store.look());
        answer.lock().take().unwrap_or(Err(StoreError::OutcomeUnknown))
    }

    fn put<R: Row>(&mut self, key: Key, row: &R) -> Result<(), StoreError> {
        let value = serde_json::to_value(row)
            .map_err(|error| StoreError::Malformed { table: key.0, reason: error.to_string() })?;
        self.changes.writes.insert(key, Some(value));
        Ok(())
    }
}

/// Why the database did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreError {
    /// A row that the transaction read was changed by another one. Trying again may help.
    Conflict {
        /// The table.
        table: &'static str,
        /// The key of the row.
        key: String,
    },
    /// A row of that key is there already.
    DuplicateKey {
        /// The table.
        table: &'static str,
        /// The key.
        key: String,
    },
    /// The database rolled the transaction back, as it does after a deadlock. Trying again may
    /// help.
    Refused,
    /// The connection broke while the transaction was to commit, or no answer came in time: whether
    /// it has committed, or will, is not known.
    OutcomeUnknown,
    /// A row is not what its type says.
    Malformed {
        /// The table.
        table: &'static str,
        /// What is wrong.
        reason: String,
    },
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Conflict { table, key } => {
                write!(f, "another transaction changed row {key:?} of table {table}")
            }
            Self::DuplicateKey { table, key } => {
                write!(f, "table {table} has a row with key {key:?} already")
            }
            Self::Refused => f.write_str("the transaction was rolled back: a deadlock"),
            Self::OutcomeUnknown => f.write_str("whether the transaction commits is not known"),
            Self::Malformed { table, reason } => {
                write!(f, "a row of table {table} is malformed: {reason}")
            }
        }
    }
}

impl std::error::Error for StoreError {}

impl StoreError {
    /// Whether the transaction may have happened all the same, or may yet happen. Who tries again
    /// must look first.
    pub const fn is_indeterminate(&self) -> bool {
        matches!(self, Self::OutcomeUnknown)
    }
}

impl From<StoreError> for bus_core::Error {
    /// Applications have one error; that of the database is its source.
    fn from(error: StoreError) -> Self {
        use bus_core::Recovery;
        let (recovery, message) = match &error {
            StoreError::Conflict { .. } | StoreError::Refused => (Recovery::Retry, REFUSED),
            StoreError::DuplicateKey { .. } | StoreError::Malformed { .. } => {
                (Recovery::Fix, REFUSED)
            }
            StoreError::OutcomeUnknown => {
                (Recovery::Retry, "the database did not say whether it committed the transaction")
            }
        };
        let is_indeterminate = error.is_indeterminate();
        let told = Self::new(bus_core::ErrorKind::Backend, message).with_recovery(recovery);
        let told = if is_indeterminate { told.indeterminate() } else { told.definite() };
        told.with_source(error)
    }
}

const REFUSED: &str = "the database refused the transaction";

fn decode<R: Row>(key: &Key, value: &Value) -> Result<R, StoreError> {
    R::deserialize(value)
        .map_err(|error| StoreError::Malformed { table: key.0, reason: error.to_string() })
}

/// How long a commit takes.
const COMMIT_TIME: Duration = Duration::from_millis(1);
/// How long a client waits for the answer to a commit.
const PATIENCE: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests;

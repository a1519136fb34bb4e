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
//!
//! Absent: a commit whose outcome the client does not learn.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// A row of a table.
pub trait Row: Serialize + DeserializeOwned {
    /// The table.
    const TABLE: &'static str;

    /// The unique key in the table; rows are sorted by it.
    fn key(&self) -> String;
}

/// A transactional database. Cheap to clone; its clones are one database.
#[derive(Clone, Debug, Default)]
pub struct Store {
    database: Arc<Mutex<Database>>,
}

#[derive(Debug, Default)]
struct Database {
    rows: BTreeMap<Key, Stored>,
    /// How many transactions were committed; the version of the rows that the last one wrote.
    commits: u64,
    sequences: BTreeMap<&'static str, Sequence>,
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

impl Store {
    /// Begins a transaction. Dropping it aborts it.
    pub fn begin(&self) -> Transaction {
        Transaction {
            reads: BTreeMap::new(),
            writes: BTreeMap::new(),
            numbers: Numbers { store: self.clone(), taken: Vec::new() },
        }
    }

    /// The number of a sequence before which all is decided: every transaction that took a smaller
    /// one has committed or is gone. What other databases tell by the oldest transaction that is
    /// open (`pg_snapshot_xmin`).
    pub fn decided_before(&self, sequence: &'static str) -> u64 {
        let database = self.database.lock();
        let Some(sequence) = database.sequences.get(sequence) else { return 1 };
        sequence.open.first().copied().unwrap_or(sequence.last + 1)
    }

    /// The committed rows of a table, sorted by key.
    ///
    /// # Errors
    /// [`StoreError::Malformed`].
    pub fn all<R: Row>(&self) -> Result<Vec<R>, StoreError> {
        let database = self.database.lock();
        let table = database.rows.iter().filter(|((table, _), _)| *table == R::TABLE);
        table.map(|(key, stored)| decode(key, &stored.value)).collect()
    }
}

/// A transaction that is open.
#[derive(Debug)]
pub struct Transaction {
    /// The version of each row that was looked at; 0 for none.
    reads: BTreeMap<Key, u64>,
    writes: BTreeMap<Key, Option<Value>>,
    /// Let go last: what it took is decided then.
    numbers: Numbers,
}

/// The numbers that a transaction took from sequences; open until this is dropped.
#[derive(Debug)]
struct Numbers {
    store: Store,
    taken: Vec<(&'static str, u64)>,
}

impl Drop for Numbers {
    fn drop(&mut self) {
        let mut database = self.store.database.lock();
        for (name, number) in &self.taken {
            if let Some(sequence) = database.sequences.get_mut(name) {
                sequence.open.remove(number);
            }
        }
    }
}

impl Transaction {
    /// Takes the next number of a sequence, from 1 on. It is taken even if this transaction never
    /// commits, and others may commit greater ones before.
    pub fn next_of(&mut self, sequence: &'static str) -> u64 {
        let number = {
            let mut database = self.numbers.store.database.lock();
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
        if let Some(written) = self.writes.get(&key) {
            return written.as_ref().map(|value| decode(&key, value)).transpose();
        }
        let database = self.numbers.store.database.lock();
        let stored = database.rows.get(&key);
        let version = stored.map_or(0, |stored| stored.version);
        let row = stored.map(|stored| decode(&key, &stored.value)).transpose()?;
        self.reads.entry(key).or_insert(version);
        Ok(row)
    }

    /// Inserts a row whose key must be new.
    ///
    /// # Errors
    /// [`StoreError::Malformed`]. That the key is taken shows at the commit.
    pub fn insert<R: Row>(&mut self, row: &R) -> Result<(), StoreError> {
        let key = (R::TABLE, row.key());
        self.reads.insert(key.clone(), 0);
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
        self.writes.insert((R::TABLE, key.to_owned()), None);
    }

    /// Commits. Takes a moment, as a database on another machine does.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] or [`StoreError::DuplicateKey`]; nothing has happened then.
    pub async fn commit(self) -> Result<(), StoreError> {
        tokio::time::sleep(COMMIT_TIME).await;
        let Self { reads, writes, numbers } = self;
        let mut database = numbers.store.database.lock();
        let Database { rows, commits, .. } = &mut *database;
        for (key, version) in &reads {
            let found = rows.get(key).map_or(0, |stored| stored.version);
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
        *commits += 1;
        for (key, value) in writes {
            match value {
                Some(value) => rows.insert(key, Stored { version: *commits, value }),
                None => rows.remove(&key),
            };
        }
        Ok(())
    }

    fn put<R: Row>(&mut self, key: Key, row: &R) -> Result<(), StoreError> {
        let value = serde_json::to_value(row)
            .map_err(|error| StoreError::Malformed { table: key.0, reason: error.to_string() })?;
        self.writes.insert(key, Some(value));
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
            Self::Malformed { table, reason } => {
                write!(f, "a row of table {table} is malformed: {reason}")
            }
        }
    }
}

impl std::error::Error for StoreError {}

impl From<StoreError> for bus_core::Error {
    /// Applications have one error; that of the database is its source.
    fn from(error: StoreError) -> Self {
        let recovery = match &error {
            StoreError::Conflict { .. } => bus_core::Recovery::Retry,
            StoreError::DuplicateKey { .. } | StoreError::Malformed { .. } => {
                bus_core::Recovery::Fix
            }
        };
        Self::new(bus_core::ErrorKind::Backend, "the database refused the transaction")
            .with_recovery(recovery)
            .definite()
            .with_source(error)
    }
}

fn decode<R: Row>(key: &Key, value: &Value) -> Result<R, StoreError> {
    R::deserialize(value)
        .map_err(|error| StoreError::Malformed { table: key.0, reason: error.to_string() })
}

/// How long a commit takes.
const COMMIT_TIME: Duration = Duration::from_millis(1);

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Account {
        id: String,
        amount: u32,
    }

    impl Row for Account {
        const TABLE: &'static str = "accounts";

        fn key(&self) -> String {
            self.id.clone()
        }
    }

    fn account(id: &str, amount: u32) -> Account {
        Account { id: id.to_owned(), amount }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_not_committed_has_not_happened() {
        let store = Store::default();
        let mut transaction = store.begin();
        transaction.insert(&account("a", 1)).unwrap();
        assert_eq!(transaction.find("a").unwrap(), Some(account("a", 1)));
        drop(transaction);
        assert_eq!(store.all::<Account>().unwrap(), []);
    }

    #[tokio::test(start_paused = true)]
    async fn keys_are_unique() {
        let store = Store::default();
        for expected in [Ok(()), Err(())] {
            let mut transaction = store.begin();
            transaction.insert(&account("a", 1)).unwrap();
            transaction.insert(&account("b", 1)).unwrap();
            let outcome = transaction.commit().await;
            assert_eq!(outcome.clone().map_err(|_| ()), expected, "{outcome:?}");
        }
        let mut transaction = store.begin();
        transaction.delete::<Account>("a");
        transaction.commit().await.unwrap();
        assert_eq!(store.all::<Account>().unwrap(), [account("b", 1)]);
    }

    #[tokio::test(start_paused = true)]
    async fn of_two_that_change_one_row_one_commits() {
        let store = Store::default();
        let mut transaction = store.begin();
        transaction.insert(&account("a", 1)).unwrap();
        transaction.commit().await.unwrap();
        let add = || {
            let mut transaction = store.begin();
            let found = transaction.find::<Account>("a").unwrap().unwrap();
            transaction.update(&account("a", found.amount + 1)).unwrap();
            transaction
        };
        let (first, second) = (add(), add());
        first.commit().await.unwrap();
        let error = second.commit().await.unwrap_err();
        assert!(matches!(error, StoreError::Conflict { .. }), "{error}");
        assert_eq!(store.all::<Account>().unwrap(), [account("a", 2)]);
        assert_eq!(bus_core::Error::from(error).recovery(), bus_core::Recovery::Retry);
    }

    #[tokio::test(start_paused = true)]
    async fn numbers_are_taken_before_the_commit() {
        let store = Store::default();
        let (mut first, mut second) = (store.begin(), store.begin());
        assert_eq!(store.decided_before("ids"), 1);
        assert_eq!((first.next_of("ids"), second.next_of("ids")), (1, 2));
        second.insert(&account("b", 2)).unwrap();
        second.commit().await.unwrap();
        assert_eq!(store.decided_before("ids"), 1, "the first is open");
        drop(first);
        assert_eq!(store.decided_before("ids"), 3, "the first is gone, and its number with it");
        let mut third = store.begin();
        assert_eq!(third.next_of("ids"), 3);
        assert_eq!(third.next_of("others"), 1);
    }
}

//! The oracle: the laws that every history must keep, whatever its case is about.
//!
//! - [`records`]: what was sent, against the logs: L1, L3, L4, L7, L8, no garbage, right offsets;
//! - [`delivery`]: what consumers were given, against the logs and the commits: L2, L3, L7, L8;
//! - [`groups`]: who owned which partition, and what is committed in the end: L5, L6;
//! - [`transactions`]: that a transaction is visible as a whole or not at all.
//!
//! It is a function of the history and of the [`Evidence`] that is read at the end. Each law has
//! bad histories that it must reject, in the tests beside it.

pub mod delivery;
pub mod groups;
pub mod records;
#[cfg(test)]
mod story;
pub mod transactions;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use bus_core::{
    IsolationLevel, Offset, OffsetAndMetadata, Partition, Record, Topic, TopicPartition,
};

use crate::history::{Entry, Event};

/// A law of the oracle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Law {
    /// L1: no acknowledged record is lost.
    Lost,
    /// L2: a record is delivered at least once until it is committed: none is skipped.
    Skipped,
    /// L3: records of one producer, and deliveries of one consumer, keep the order of the
    /// partition.
    Order,
    /// L4: records of one key keep their order, because they go to the partition of the key.
    Place,
    /// L5: a partition has one owner in a group at a time, and only its owner is given its records.
    Ownership,
    /// L6: what is committed is what was committed last, and never passes what was delivered.
    Commit,
    /// L7: a record is in the log once, and is delivered again only if it was not committed.
    Duplicate,
    /// L8: key, value, headers, and timestamp are those that were sent.
    Bytes,
    /// Nothing is in a log that was not sent there, or was refused.
    Garbage,
    /// Offsets are consistent: one record each, without holes but for the markers of transactions,
    /// and as acknowledged.
    Offset,
    /// All of a transaction is visible to readers of committed records, or nothing.
    Transaction,
}

impl Law {
    /// The law in short.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Lost => "L1 lost record",
            Self::Skipped => "L2 skipped record",
            Self::Order => "L3 order",
            Self::Place => "L4 partition of a key",
            Self::Ownership => "L5 ownership",
            Self::Commit => "L6 commit",
            Self::Duplicate => "L7 duplicate",
            Self::Bytes => "L8 bytes",
            Self::Garbage => "no garbage",
            Self::Offset => "consistent offsets",
            Self::Transaction => "transactions as a whole",
        }
    }
}

/// A law that was broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which law.
    pub law: Law,
    /// By what, with the evidence.
    pub message: String,
}

impl Violation {
    fn new(law: Law, message: impl Into<String>) -> Self {
        Self { law, message: message.into() }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.law.name(), self.message)
    }
}

/// What the cluster holds when the case is over.
#[derive(Clone, Debug, Default)]
pub struct Evidence {
    /// Each partition of the case's topics that still exist, read from its start to its end by a
    /// reader of committed records.
    pub logs: BTreeMap<TopicPartition, Log>,
    /// The same by a reader of uncommitted records, where there were transactions.
    pub uncommitted: BTreeMap<TopicPartition, Log>,
    /// What the groups of the case have committed; `None` where that cannot be known.
    pub committed: BTreeMap<String, Option<BTreeMap<TopicPartition, OffsetAndMetadata>>>,
}

impl Evidence {
    /// All records of a partition, those of aborted transactions included.
    fn written(&self, place: &TopicPartition) -> Option<&Log> {
        self.uncommitted.get(place).or_else(|| self.logs.get(place))
    }

    /// The records of a partition that a consumer of this isolation level is to be given.
    fn given(&self, place: &TopicPartition, isolation: IsolationLevel) -> Option<&Log> {
        match isolation {
            IsolationLevel::ReadCommitted => self.logs.get(place),
            IsolationLevel::ReadUncommitted => self.written(place),
        }
    }
}

/// A partition as a fresh consumer read it.
#[derive(Clone, Debug, Default)]
pub struct Log {
    /// The log start.
    pub start: Offset,
    /// The high watermark.
    pub end: Offset,
    /// The records, as they came.
    pub records: Vec<Record>,
}

impl Log {
    /// The record at this offset.
    pub fn at(&self, offset: Offset) -> Option<&Record> {
        let found = self.records.binary_search_by_key(&offset, |record| record.offset);
        found.ok().map(|index| &self.records[index])
    }

    /// The offset of the first record at this offset or behind it.
    pub fn next_visible(&self, offset: Offset) -> Option<Offset> {
        let next = self.records.partition_point(|record| record.offset < offset);
        self.records.get(next).map(|record| record.offset)
    }
}

/// Judges a history: every law that it breaks, but for those that the case has excused.
pub fn judge(entries: &[Entry], evidence: &Evidence) -> Vec<Violation> {
    let mut violations = records::check(entries, evidence);
    violations.extend(delivery::check(entries, evidence));
    violations.extend(groups::check(entries, evidence));
    violations.extend(transactions::check(entries, evidence));
    let excused: BTreeSet<Law> = entries
        .iter()
        .filter_map(|entry| match entry.event {
            Event::Excused { law, .. } => Some(law),
            _ => None,
        })
        .collect();
    violations.retain(|violation| !excused.contains(&violation.law));
    violations
}

/// The numbers of partitions that each topic has had.
fn partition_counts(entries: &[Entry]) -> BTreeMap<&Topic, BTreeSet<Partition>> {
    let mut counts: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
    for entry in entries {
        if let Event::Partitions { topic, partitions } = &entry.event {
            counts.entry(topic).or_default().insert(*partitions);
        }
    }
    counts
}

//! The model: what a history proves, worked out once for all checkers.
//!
//! - [`mod@operations`]: invoked when, ended when, and how;
//! - [`mod@log`]: what was seen at each offset of a partition, and which send it is;
//! - [`mod@sessions`]: which reads follow each other in one consumer;
//! - [`mod@commits`]: what a group may have committed at some time;
//! - [`mod@transactions`], [`mod@groups`]: who belongs to what.
//!
//! All of it is dense and indexed by the ids of the history; building it is one pass, and a sort of
//! what was seen per partition.

pub mod commits;
pub mod groups;
pub mod log;
pub mod operations;
pub mod sessions;
pub mod transactions;

use std::collections::{BTreeMap, BTreeSet};

use bus_core::{IsolationLevel, Offset, Partition};

use crate::environment::Environment;
use crate::history::{
    Answer, Call, ClientId, EntryId, History, Note, OperationId, PartitionId, TopicId, What,
};
use commits::Commits;
use groups::Groups;
use log::{Cell, Log};
use operations::{End, Operation, Send};
use sessions::{Read, Session};
use transactions::Transaction;

/// What a history proves.
#[derive(Debug)]
pub struct Model<'a> {
    /// The history.
    pub history: &'a History,
    /// The conditions.
    pub environment: &'a Environment,
    /// All operations, by id.
    pub operations: Vec<Operation<'a>>,
    /// All sends, in the order of their calls.
    pub sends: Vec<Send<'a>>,
    /// The sends that succeeded, in this order: the entry that says so, and the place of the send.
    pub acknowledged: Vec<(EntryId, usize)>,
    /// All records that polls returned, in order, but those of topics that were deleted.
    pub reads: Vec<Read<'a>>,
    /// All position sessions, in the order in which they began.
    pub sessions: Vec<Session>,
    /// The partitions, by id.
    pub logs: Vec<Log>,
    /// What groups have committed.
    pub commits: Commits,
    /// All transactions, in the order in which they began.
    pub transactions: Vec<Transaction>,
    /// Who owned what.
    pub groups: Groups,
    /// What is known of topics, by id.
    pub topics: Vec<TopicFacts>,
    /// When all faults were healed.
    pub quiesced: Option<EntryId>,
}

/// What is known of a topic.
#[derive(Clone, Debug, Default)]
pub struct TopicFacts {
    /// It was deleted: an offset no longer names one record, so it is left out.
    pub is_deleted: bool,
    /// Others write to it, too.
    pub is_foreign: bool,
    /// A transactional producer writes to it.
    pub is_transactional: bool,
    /// The numbers of partitions that it has had, with the entry that first told of each.
    pub counts: BTreeMap<Partition, EntryId>,
}

impl<'a> Model<'a> {
    /// Works out what a history proves.
    pub fn new(history: &'a History, environment: &'a Environment) -> Self {
        let operations = operations::pair(history);
        let sends = operations::sends(&operations, history);
        let mut model = Self {
            history,
            environment,
            topics: topics(history),
            acknowledged: operations::acknowledged(&sends),
            sends,
            operations,
            reads: Vec::new(),
            sessions: Vec::new(),
            logs: Vec::new(),
            commits: Commits::default(),
            transactions: Vec::new(),
            groups: Groups::default(),
            quiesced: None,
        };
        model.quiesced = history
            .iter()
            .find(|(_, entry)| matches!(entry.what, What::Note(Note::Quiesced)))
            .map(|(id, _)| id);
        (model.sessions, model.reads) = sessions::build(&model);
        log::build(&mut model);
        model.transactions = transactions::build(&mut model);
        model.commits = Commits::new(&model);
        model.groups = Groups::new(&model);
        model
    }

    /// An operation.
    pub fn operation(&self, id: OperationId) -> &Operation<'a> {
        &self.operations[id.index()]
    }

    /// Whether everything had time to settle after the last fault.
    pub fn is_settled(&self, entry: EntryId) -> bool {
        let settling = u64::try_from(self.environment.settling.as_nanos()).unwrap_or(u64::MAX);
        let settled = self.quiesced.map(|quiesced| self.at(quiesced).saturating_add(settling));
        settled.is_some_and(|settled| self.at(entry) >= settled)
    }

    /// When an entry was written.
    pub fn at(&self, id: EntryId) -> u64 {
        self.history.entry(id).at
    }

    /// The cell of a read.
    pub fn cell_of(&self, read: &Read<'_>) -> &Cell {
        &self.logs[read.partition().index()].cells[read.cell]
    }

    /// The send whose record is in a cell, if it is known beyond doubt.
    pub fn send_in(&self, cell: &Cell) -> Option<&Send<'a>> {
        cell.send.filter(|_| cell.is_exact).map(|send| &self.sends[send])
    }

    /// The isolation of a consumer.
    pub fn isolation(&self, client: ClientId) -> IsolationLevel {
        self.history.consumer(client).map(|facts| facts.isolation).unwrap_or_default()
    }

    /// What is known of the topic of a partition.
    pub fn topic_of(&self, partition: PartitionId) -> &TopicFacts {
        &self.topics[self.history.topic_of(partition).index()]
    }

    /// Whether the record in a cell can be read by consumers of this isolation: one has, or the
    /// record is part of no transaction, or of one that committed.
    pub fn is_visible(&self, cell: &Cell, isolation: IsolationLevel) -> bool {
        if cell.seen.is_none() {
            return false;
        }
        match isolation {
            IsolationLevel::ReadUncommitted => true,
            IsolationLevel::ReadCommitted => {
                cell.seen_committed
                    || self.send_in(cell).is_some_and(|send| self.is_committed(send))
            }
        }
    }

    /// Whether a record is part of no transaction, or of one that committed.
    pub fn is_committed(&self, send: &Send<'_>) -> bool {
        send.transaction.is_none_or(|index| self.transactions[index].committed.is_some())
    }

    /// The least that the log end can have been at this entry.
    pub fn end_at(&self, partition: PartitionId, at: EntryId) -> Offset {
        let ends = &self.logs[partition.index()].ends;
        let known = ends.partition_point(|(entry, _)| *entry < at);
        known.checked_sub(1).map_or(0, |last| ends[last].1)
    }

    /// Whether this record may have been deleted, as far as the history shows.
    pub fn is_deleted(&self, partition: PartitionId, offset: Offset) -> bool {
        offset < self.logs[partition.index()].deleted_below
    }
}

fn topics(history: &History) -> Vec<TopicFacts> {
    let mut topics = vec![TopicFacts::default(); history.topics().len()];
    let mut asked: BTreeMap<OperationId, TopicId> = BTreeMap::new();
    let mut refused: BTreeSet<OperationId> = BTreeSet::new();
    for entry in history.entries() {
        if let What::Fail(id, _) = &entry.what {
            refused.insert(*id);
        }
    }
    for (at, entry) in history.iter() {
        match &entry.what {
            What::Invoke(id, call) => match call {
                Call::Send(sent) => {
                    let facts = history.producer(entry.client);
                    if facts.is_some_and(|facts| facts.transaction.is_some()) {
                        topics[sent.topic.index()].is_transactional = true;
                    }
                }
                Call::PartitionsFor(topic) | Call::DescribeTopic(topic) => {
                    asked.insert(*id, *topic);
                }
                Call::CreateTopic { topic, partitions }
                | Call::CreatePartitions { topic, partitions }
                    if !refused.contains(id) =>
                {
                    topics[topic.index()].counts.entry(*partitions).or_insert(at);
                }
                Call::DeleteTopic(topic) => topics[topic.index()].is_deleted = true,
                _ => {}
            },
            What::Ok(id, Answer::Partitions(partitions)) => {
                if let Some(topic) = asked.get(id) {
                    topics[topic.index()].counts.entry(*partitions).or_insert(at);
                }
            }
            What::Note(Note::Foreign(topic)) => topics[topic.index()].is_foreign = true,
            _ => {}
        }
    }
    topics
}

/// The result of an operation that may have taken effect at once or at any later time.
pub(crate) const fn may_have_effect(end: End) -> bool {
    !matches!(end, End::Fail(_))
}

//! The history of a run: what its clients asked for and what they were told, in order.
//!
//! - [`entry`]: an operation is *invoked* and then ends once as *ok*, *fail* (definitely no
//!   effect), or *info* (nobody knows), which is what [`Error::is_indeterminate`] tells apart;
//! - [`ids`]: names are interned, so that an entry is small and cheap to write;
//! - [`writer`]: how entries get in; [`mod@format`]: JSON lines and bincode;
//!   [`mod@text`]: for people.
//!
//! Keys and values are not kept. A record is known by its digest, which is as good as its contents
//! for all that a checker asks, and by the operation that sent it.
//!
//! [`Error::is_indeterminate`]: bus_core::Error::is_indeterminate

pub mod entry;
pub mod format;
pub mod ids;
pub mod text;
pub mod writer;

use bus_core::{Partition, Topic, TopicPartition};
use serde::{Deserialize, Serialize};

pub use entry::{
    Answer, Call, Client, ConsumerFacts, Entry, Failure, Handled, Note, ProducerFacts, Role,
    SeenRecord, SentRecord, What,
};
pub use ids::{ClientId, EntryId, NameId, OperationId, PartitionId, ProcessId, TopicId};
pub use writer::Writer;

/// The history of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    /// The scheme of the backend: `sim` or `kafka`.
    scheme: String,
    topics: Vec<Topic>,
    partitions: Vec<(TopicId, Partition)>,
    names: Vec<String>,
    processes: Vec<String>,
    clients: Vec<Client>,
    entries: Vec<Entry>,
    operations: u32,
}

impl History {
    /// The scheme of the backend: `sim` or `kafka`; empty if the history was written by hand.
    pub fn scheme(&self) -> &str {
        &self.scheme
    }

    /// Whether times are exact: those of the simulator, or of a history by hand. On a real Kafka an
    /// entry may be written a moment after its event.
    pub fn is_exact(&self) -> bool {
        self.scheme != "kafka"
    }

    /// All entries, in order.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// An entry.
    pub fn entry(&self, id: EntryId) -> &Entry {
        &self.entries[id.index()]
    }

    /// All entries with their ids, in order.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (EntryId, &Entry)> {
        self.entries.iter().enumerate().map(|(index, entry)| (EntryId::from_index(index), entry))
    }

    /// All clients, by id.
    pub fn clients(&self) -> &[Client] {
        &self.clients
    }

    /// A client.
    pub fn client(&self, id: ClientId) -> &Client {
        &self.clients[id.index()]
    }

    /// The configuration of a producer.
    pub fn producer(&self, id: ClientId) -> Option<&ProducerFacts> {
        match &self.client(id).role {
            Role::Producer(facts) => Some(facts),
            Role::Consumer(_) | Role::Admin => None,
        }
    }

    /// The configuration of a consumer.
    pub fn consumer(&self, id: ClientId) -> Option<&ConsumerFacts> {
        match &self.client(id).role {
            Role::Consumer(facts) => Some(facts),
            Role::Producer(_) | Role::Admin => None,
        }
    }

    /// All topics, by id.
    pub fn topics(&self) -> &[Topic] {
        &self.topics
    }

    /// All partitions, by id.
    pub fn partitions(&self) -> &[(TopicId, Partition)] {
        &self.partitions
    }

    /// The topic of a partition.
    pub fn topic_of(&self, id: PartitionId) -> TopicId {
        self.partitions[id.index()].0
    }

    /// The name of a partition.
    pub fn partition(&self, id: PartitionId) -> TopicPartition {
        let (topic, partition) = self.partitions[id.index()];
        TopicPartition { topic: self.topics[topic.index()].clone(), partition }
    }

    /// All groups and transactional ids, by id.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// The name of a group or transactional id.
    pub fn name(&self, id: NameId) -> &str {
        &self.names[id.index()]
    }

    /// The name of a process.
    pub fn process(&self, id: ProcessId) -> &str {
        &self.processes[id.index()]
    }

    /// How many operations there are.
    pub const fn operations(&self) -> usize {
        self.operations as usize
    }

    /// The same history with other entries: for those who plant anomalies, or cut one short.
    #[must_use]
    pub fn with_entries(&self, entries: Vec<Entry>) -> Self {
        Self { entries, ..self.clone() }
    }

    /// The same history with what the end of the run gave up in the order of clients and
    /// operations. All of it happens at one time, in the order in which tasks are dropped, which is
    /// not that of the run.
    #[must_use]
    pub(crate) fn settled(mut self) -> Self {
        let key = |entry: &Entry| match &entry.what {
            What::Info(id, None) => Some((entry.client, 0, id.0)),
            What::Note(Note::Dropped) => Some((entry.client, 1, 0)),
            _ => None,
        };
        let Some(end) = self.entries.last().map(|last| last.at) else { return self };
        let is_of_end = |entry: &Entry| entry.at == end && key(entry).is_some();
        let tail = self.entries.iter().rev().take_while(|entry| is_of_end(entry)).count();
        let begin = self.entries.len() - tail;
        self.entries[begin..].sort_by_key(key);
        self
    }
}

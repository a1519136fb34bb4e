//! How a history is written: names are interned, operations are numbered.

use std::collections::BTreeMap;

use bus_core::{Error, Partition, Topic};

use super::{
    Answer, Call, Client, ClientId, Entry, Failure, History, NameId, Note, OperationId,
    PartitionId, ProcessId, Role, TopicId, What,
};

/// Writes a history.
#[derive(Clone, Debug, Default)]
pub struct Writer {
    history: History,
    topics: BTreeMap<Topic, TopicId>,
    /// By topic, then by partition; partitions are few and dense.
    partitions: Vec<BTreeMap<Partition, PartitionId>>,
    /// Most records are of the same partition as the one before.
    last_partition: Option<(Topic, Partition, PartitionId)>,
    names: BTreeMap<String, NameId>,
    processes: BTreeMap<String, ProcessId>,
}

impl Writer {
    /// An empty history of a backend.
    pub fn new(scheme: &str) -> Self {
        let mut writer = Self::default();
        writer.history.scheme = scheme.to_owned();
        writer
    }

    /// Names the backend, unless it is named already.
    pub fn set_scheme(&mut self, scheme: &str) {
        if self.history.scheme.is_empty() {
            scheme.clone_into(&mut self.history.scheme);
        }
    }

    /// The history so far.
    pub const fn history(&self) -> &History {
        &self.history
    }

    /// The history.
    pub fn into_history(self) -> History {
        self.history
    }

    /// The id of a topic.
    pub fn topic(&mut self, topic: &Topic) -> TopicId {
        if let Some(id) = self.topics.get(topic) {
            return *id;
        }
        let id = TopicId::from_index(self.history.topics.len());
        self.history.topics.push(topic.clone());
        self.partitions.push(BTreeMap::new());
        self.topics.insert(topic.clone(), id);
        id
    }

    /// The id of a partition.
    pub fn partition(&mut self, topic: &Topic, partition: Partition) -> PartitionId {
        if let Some((last, number, id)) = &self.last_partition
            && *number == partition
            && last == topic
        {
            return *id;
        }
        let topic_id = self.topic(topic);
        let next = PartitionId::from_index(self.history.partitions.len());
        let id = *self.partitions[topic_id.index()].entry(partition).or_insert(next);
        if id == next {
            self.history.partitions.push((topic_id, partition));
        }
        self.last_partition = Some((topic.clone(), partition, id));
        id
    }

    /// The id of a group or transactional id.
    pub fn name(&mut self, name: &str) -> NameId {
        if let Some(id) = self.names.get(name) {
            return *id;
        }
        let id = NameId::from_index(self.history.names.len());
        self.history.names.push(name.to_owned());
        self.names.insert(name.to_owned(), id);
        id
    }

    /// The id of a process.
    pub fn process(&mut self, name: &str) -> ProcessId {
        if let Some(id) = self.processes.get(name) {
            return *id;
        }
        let id = ProcessId::from_index(self.history.processes.len());
        self.history.processes.push(name.to_owned());
        self.processes.insert(name.to_owned(), id);
        id
    }

    /// Adds a client, and the note that it was made.
    pub fn client(
        &mut self,
        at: u64,
        (process, incarnation): (ProcessId, u32),
        role: Role,
    ) -> ClientId {
        let id = ClientId::from_index(self.history.clients.len());
        self.history.clients.push(Client { process, incarnation, role });
        self.note(at, id, Note::Made);
        id
    }

    /// An operation is invoked.
    pub fn invoke(&mut self, at: u64, client: ClientId, call: Call) -> OperationId {
        let operation = OperationId(self.history.operations);
        self.history.operations += 1;
        self.push(at, client, What::Invoke(operation, call));
        operation
    }

    /// An operation succeeds.
    pub fn ok(&mut self, at: u64, client: ClientId, operation: OperationId, answer: Answer) {
        self.push(at, client, What::Ok(operation, answer));
    }

    /// An operation fails: the error says whether it has definitely no effect.
    pub fn failed(&mut self, at: u64, client: ClientId, operation: OperationId, error: &Error) {
        let failure = Failure::from(error);
        let what = if error.is_indeterminate() {
            What::Info(operation, Some(failure))
        } else {
            What::Fail(operation, failure)
        };
        self.push(at, client, what);
    }

    /// An operation is given up: its future was dropped.
    pub fn given_up(&mut self, at: u64, client: ClientId, operation: OperationId) {
        self.push(at, client, What::Info(operation, None));
    }

    /// Something happens that is no operation.
    pub fn note(&mut self, at: u64, client: ClientId, note: Note) {
        self.push(at, client, What::Note(note));
    }

    fn push(&mut self, at: u64, client: ClientId, what: What) {
        self.history.entries.push(Entry { at, client, what });
    }
}

//! The formats of a history: JSON lines for people and other tools, bincode for large ones.
//!
//! JSON lines: the first line holds the version and all names, each further line one entry. A
//! version that this crate does not know is refused, and so is a file with an id out of nowhere.

use bincode::config;
use bus_core::{Error, ErrorKind, Result};
use serde::{Deserialize, Serialize};

use super::{
    Answer, Call, Client, History, NameId, Note, OperationId, PartitionId, Role, TopicId, What,
};

/// The version of both formats.
pub const VERSION: u32 = 1;

/// What a file of this kind opens with.
const FORMAT: &str = "bus-history";

#[derive(Serialize, Deserialize)]
struct Header {
    format: String,
    version: u32,
    #[serde(flatten)]
    names: History,
}

impl History {
    /// The history as JSON lines.
    ///
    /// # Errors
    /// [`ErrorKind::Serialization`].
    pub fn to_json_lines(&self) -> Result<String> {
        let names = self.with_entries(Vec::new());
        let header = Header { format: FORMAT.to_owned(), version: VERSION, names };
        let mut text = serde_json::to_string(&header).map_err(unwritable)?;
        text.push('\n');
        for entry in &self.entries {
            text.push_str(&serde_json::to_string(entry).map_err(unwritable)?);
            text.push('\n');
        }
        Ok(text)
    }

    /// Reads JSON lines.
    ///
    /// # Errors
    /// [`ErrorKind::Serialization`], naming the line and what is wrong with it.
    pub fn from_json_lines(text: &str) -> Result<Self> {
        #[derive(Deserialize)]
        struct Version {
            format: String,
            version: u32,
        }
        let mut lines = text.lines().enumerate();
        let Some((_, first)) = lines.next() else {
            return Err(unreadable("the file is empty"));
        };
        let Version { format, version } = serde_json::from_str(first)
            .map_err(|error| unreadable("line 1 is no header of a history").with_source(error))?;
        check_version(&format, version)?;
        let Header { names: mut history, .. } = serde_json::from_str(first)
            .map_err(|error| unreadable("line 1 is no header of a history").with_source(error))?;
        for (index, line) in lines {
            let entry = serde_json::from_str(line).map_err(|error| {
                unreadable(format!("line {} is no entry", index + 1)).with_source(error)
            })?;
            history.entries.push(entry);
        }
        history.checked()
    }

    /// The history in bincode, a tenth as large.
    ///
    /// # Errors
    /// [`ErrorKind::Serialization`].
    pub fn to_bincode(&self) -> Result<Vec<u8>> {
        let file = (FORMAT, VERSION, self);
        bincode::serde::encode_to_vec(file, config::standard()).map_err(unwritable)
    }

    /// Reads bincode.
    ///
    /// # Errors
    /// [`ErrorKind::Serialization`].
    pub fn from_bincode(bytes: &[u8]) -> Result<Self> {
        let broken = |error| unreadable("the file is no history").with_source(error);
        let ((format, version), read): ((String, u32), usize) =
            bincode::serde::decode_from_slice(bytes, config::standard()).map_err(broken)?;
        check_version(&format, version)?;
        let (history, _): (Self, usize) =
            bincode::serde::decode_from_slice(&bytes[read..], config::standard())
                .map_err(broken)?;
        history.checked()
    }

    /// Checks that every id leads somewhere, so that nothing that reads a history need ask.
    fn checked(self) -> Result<Self> {
        let topics = |id: &TopicId| id.index() < self.topics.len();
        let known = self.partitions.iter().all(|(topic, _)| topics(topic))
            && self.clients.iter().all(|client| self.knows_client(client));
        if !known {
            return Err(unreadable("a partition or client names what the header does not"));
        }
        for (index, entry) in self.entries.iter().enumerate() {
            if entry.client.index() >= self.clients.len() || !self.knows(&entry.what) {
                let message = format!("entry {index} names what the header does not");
                return Err(unreadable(message));
            }
        }
        Ok(self)
    }

    fn knows_client(&self, client: &Client) -> bool {
        let name = match &client.role {
            Role::Producer(facts) => facts.transaction.map(|(id, _)| id),
            Role::Consumer(facts) => facts.group,
            Role::Admin => None,
        };
        client.process.index() < self.processes.len() && name.is_none_or(|id| self.has_name(id))
    }

    fn has_name(&self, id: NameId) -> bool {
        id.index() < self.names.len()
    }

    fn has_topic(&self, id: TopicId) -> bool {
        id.index() < self.topics.len()
    }

    fn has(&self, id: PartitionId) -> bool {
        id.index() < self.partitions.len()
    }

    fn has_all<T>(&self, list: &[T], id: impl Fn(&T) -> PartitionId) -> bool {
        list.iter().all(|item| self.has(id(item)))
    }

    fn knows(&self, what: &What) -> bool {
        let operation = |id: &OperationId| id.index() < self.operations();
        match what {
            What::Invoke(id, call) => operation(id) && self.knows_call(call),
            What::Ok(id, answer) => operation(id) && self.knows_answer(answer),
            What::Fail(id, _) | What::Info(id, _) => operation(id),
            What::Note(note) => match note {
                Note::HandleStart(partition, _)
                | Note::HandleEnd(partition, ..)
                | Note::Audited { partition, .. } => self.has(*partition),
                Note::Foreign(topic) => self.has_topic(*topic),
                Note::Made | Note::Dropped | Note::Quiesced => true,
            },
        }
    }

    fn knows_call(&self, call: &Call) -> bool {
        match call {
            Call::Send(sent) => {
                self.has_topic(sent.topic) && sent.cause.is_none_or(|(id, _)| self.has(id))
            }
            Call::PartitionsFor(topic)
            | Call::CreateTopic { topic, .. }
            | Call::CreatePartitions { topic, .. }
            | Call::DescribeTopic(topic)
            | Call::DeleteTopic(topic) => self.has_topic(*topic),
            Call::Subscribe(topics) => topics.iter().all(|topic| self.has_topic(*topic)),
            Call::SendOffsets { group, offsets, .. }
            | Call::AlterGroupOffsets { group, offsets } => {
                self.has_name(*group) && self.has_all(offsets, |(id, _)| *id)
            }
            Call::Assign(partitions) => self.has_all(partitions, |(id, _)| *id),
            Call::Complete { partitions, .. }
            | Call::Pause(partitions)
            | Call::Resume(partitions)
            | Call::Committed(partitions) => self.has_all(partitions, |id| *id),
            Call::Seek(id, _) | Call::Watermarks(id) | Call::DeleteRecords(id, _) => self.has(*id),
            Call::Commit(offsets) | Call::StoreOffsets(offsets) => {
                self.has_all(offsets, |(id, _)| *id)
            }
            Call::GroupOffsets(name) | Call::DeleteGroup(name) => self.has_name(*name),
            Call::Flush
            | Call::CloseProducer { .. }
            | Call::InitTransactions
            | Call::Begin
            | Call::CommitTransaction
            | Call::AbortTransaction
            | Call::Unsubscribe
            | Call::Poll
            | Call::CloseConsumer => true,
        }
    }

    fn knows_answer(&self, answer: &Answer) -> bool {
        match answer {
            Answer::Delivered { partition, .. } => self.has(*partition),
            Answer::Records(records) => self.has_all(records, |seen| seen.partition),
            Answer::Rebalance { partitions, .. } => self.has_all(partitions, |id| *id),
            Answer::GroupOffsets(offsets) => self.has_all(offsets, |(id, ..)| *id),
            Answer::Done
            | Answer::Committed(_)
            | Answer::Watermarks { .. }
            | Answer::Partitions(_)
            | Answer::LogStart(_) => true,
        }
    }
}

fn check_version(format: &str, version: u32) -> Result<()> {
    if format != FORMAT {
        return Err(unreadable(format!("the file is a {format:?}, not a {FORMAT:?}")));
    }
    if version != VERSION {
        let message = format!("the history has version {version}; this is made for {VERSION}");
        return Err(unreadable(message));
    }
    Ok(())
}

fn unreadable(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Serialization, message)
}

fn unwritable(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::new(ErrorKind::Serialization, "the history can't be written").with_source(error)
}

#[cfg(test)]
mod tests {
    use crate::story::Story;

    use super::*;

    fn example() -> History {
        let mut story = Story::new();
        let producer = story.producer();
        story.sent(producer, "a");
        let member = story.owner();
        story.poll(member, &[0]);
        story.commit(member, 1);
        story.history()
    }

    #[test]
    fn both_formats_give_back_the_history() {
        let history = example();
        let text = history.to_json_lines().unwrap();
        assert_eq!(History::from_json_lines(&text).unwrap(), history);
        let bytes = history.to_bincode().unwrap();
        assert_eq!(History::from_bincode(&bytes).unwrap(), history);
        assert!(bytes.len() * 4 < text.len(), "{} of {}", bytes.len(), text.len());
    }

    #[test]
    fn another_version_or_format_is_refused() {
        let text = example().to_json_lines().unwrap();
        for (from, to, says) in [
            ("\"version\":1", "\"version\":2", "version 2"),
            ("bus-history", "bus-trace", "bus-trace"),
            ("\"c", "c", "line 1"),
        ] {
            let error = History::from_json_lines(&text.replacen(from, to, 1)).unwrap_err();
            assert!(error.to_string().contains(says), "{error}");
        }
        assert!(History::from_json_lines("").is_err());
        assert!(History::from_bincode(b"bus").is_err());
    }

    #[test]
    fn broken_entries_are_refused_with_their_line() {
        let mut text = example().to_json_lines().unwrap();
        text.truncate(text.len() - 5);
        let lines = text.lines().count();
        let error = History::from_json_lines(&text).unwrap_err();
        assert!(error.to_string().contains(&format!("line {lines}")), "{error}");
    }

    #[test]
    fn ids_out_of_nowhere_are_refused() {
        let history = example();
        let mut entries = history.entries().to_vec();
        entries[3].client.0 = 99;
        let text = history.with_entries(entries).to_json_lines().unwrap();
        let error = History::from_json_lines(&text).unwrap_err();
        assert!(error.to_string().contains("entry 3"), "{error}");
    }
}

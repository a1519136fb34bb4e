//! Recorded events: what the simulator did and why, as data. [`SimConfig::record_events`] asks for
//! them; the picture of a run is made of them.
//!
//! Every event names the one that caused it: what arrived was sent, what was sent or set or found
//! out was so because something had arrived, a timer had come, or the application had called. So
//! causes lead back to a start, to a call of the application, or to what was done from outside.
//!
//! Simplified: what a node remembers is no cause. That a request is refused because of an earlier
//! one shows only in the order of the events of that node.
//!
//! [`SimConfig::record_events`]: crate::SimConfig::record_events

use std::fmt;

use bus_core::{ErrorKind, Offset, Operation, Rebalance, TopicPartition};

use crate::fact::Fact;
use crate::fault::CommitFate;
use crate::node::{BrokerId, ClientId, ConnectionId, Name, Timer};
use crate::protocol::Api;
use crate::protocol::batch::ProducerId;
use crate::time::SimTime;

/// The number of a recorded event, from 1, in the order in which they happened.
pub type EventSeq = u64;

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SimEvent {
    /// Its number.
    pub seq: EventSeq,
    /// How many events the trace had then; that of a fact is the last of them.
    pub number: u64,
    /// When it happened.
    pub at: SimTime,
    /// What caused it; less than `seq`. `None` for starts, calls of the application, and what was
    /// done to the world from outside.
    pub cause: Option<EventSeq>,
    /// Where it happened.
    pub place: Place,
    /// What happened.
    pub kind: SimEventKind,
}

/// Records that a message carries to a leader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CarriedBatch {
    /// The partition.
    pub topic_partition: TopicPartition,
    /// The beginning of each value, as text, as [`value_text`] writes it.
    pub values: Vec<String>,
    /// Whose transaction it belongs to, if to one.
    pub transaction_of: Option<ProducerId>,
    /// The digest of its records, by which it is found in a log again.
    pub digest: u64,
}

/// What stands for a value that is null: a tombstone.
pub const NULL: &str = "∅";

/// A value as people read it. What could be taken for null, or for nothing at all, is in quotes.
pub fn value_text(value: Option<String>) -> String {
    match value {
        None => NULL.to_owned(),
        Some(text) if text.is_empty() || text == NULL || text == "null" => format!("{text:?}"),
        Some(text) => text,
    }
}

/// Where something happened.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// Nowhere in particular: links, rules.
    World,
    /// The controller.
    Controller,
    /// A broker.
    Broker(BrokerId),
    /// A process of the application.
    Process(Name),
    /// A client of a process.
    Client {
        /// The process; `main` for what is outside of every named one.
        process: Name,
        /// How often the process had been started when it made the client, from 1.
        incarnation: u32,
        /// The client.
        client: ClientId,
    },
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SimEventKind {
    /// A node or process starts or stops, or something was done to it.
    Changed(Change, String),
    /// Links were cut, each from one place to another.
    Cut(Vec<(Place, Place)>),
    /// Links were mended, each from one place to another.
    Mended(Vec<(Place, Place)>),
    /// All links were healed.
    Healed,
    /// Something else was done to the world; a line for people.
    Note(String),
    /// A process came to this crash point.
    Reached(String),
    /// A process commits at a database outside of the bus.
    Commits {
        /// The name of the database.
        database: String,
        /// What comes of it.
        fate: CommitFate,
    },
    /// The application called.
    Called {
        /// What.
        operation: Operation,
        /// What of it, for people.
        detail: String,
    },
    /// Records were delivered, and the application told so.
    Delivered {
        /// The partition.
        topic_partition: TopicPartition,
        /// The offset of the first, if a broker said it.
        base_offset: Option<Offset>,
        /// How many.
        count: usize,
    },
    /// A poll returned records: the first and last offset by partition.
    Polled(Vec<(TopicPartition, Offset, Offset)>),
    /// The application got another outcome.
    Returned {
        /// Of what, for people.
        detail: String,
        /// The error, if it is one.
        error: Option<ErrorKind>,
    },
    /// A consumer was told of partitions that it got, gives back, or lost.
    Rebalance(Rebalance),
    /// A message was sent.
    Sent {
        /// What message.
        message: MessageKind,
        /// The connection that carries it.
        connection: ConnectionId,
        /// Where to.
        to: Place,
        /// What it says, for people.
        detail: String,
        /// What it carries to a leader.
        batches: Vec<CarriedBatch>,
        /// Its link is cut: it waits until that heals, or its connection is gone.
        is_held: bool,
        /// What became of it.
        fate: Fate,
    },
    /// A message arrived, and is handled. The cause is that it was sent.
    Arrived,
    /// A message found nobody: its connection is closed, or its node is down. The cause is that it
    /// was sent.
    Discarded,
    /// A node learned that a connection is gone.
    Disconnected(ConnectionId),
    /// A timer came. The cause is that it was set.
    Timer(Timer),
    /// Something is true since now.
    Fact(Fact),
}

/// What a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageKind {
    /// It opens a connection.
    Connect,
    /// It accepts a connection.
    Accept,
    /// A request.
    Request(Api),
    /// A response.
    Response(Api),
}

impl MessageKind {
    /// The API of a request or response.
    pub const fn api(self) -> Option<Api> {
        match self {
            Self::Request(api) | Self::Response(api) => Some(api),
            Self::Connect | Self::Accept => None,
        }
    }
}

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It was under way, or held, at the end.
    UnderWay,
    /// It arrived: the event.
    Arrived(EventSeq),
    /// It found nobody: the event.
    Discarded(EventSeq),
    /// It was lost, or had no connection to go on.
    Lost,
}

/// What a node or process does from now on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It starts, or starts again.
    Started,
    /// It crashed.
    Crashed,
    /// Its machine lost power.
    PowerLost,
    /// It began to shut down.
    ShuttingDown,
    /// It shut down.
    Stopped,
    /// It stands still.
    Paused,
    /// Its tasks stand still; its clients go on.
    Stalled,
    /// It goes on.
    Resumed,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::World => f.write_str("world"),
            Self::Controller => f.write_str("controller"),
            Self::Broker(id) => write!(f, "broker-{id}"),
            Self::Process(process) => write!(f, "{process}"),
            Self::Client { process, client, .. } => write!(f, "{process}/client-{client}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn null_is_no_text() {
        let shown = ["null", "", NULL, "paid"].map(|text| value_text(Some(text.to_owned())));
        assert_eq!(shown, ["\"null\"", "\"\"", "\"∅\"", "paid"]);
        assert_eq!(value_text(None), NULL);
    }
}

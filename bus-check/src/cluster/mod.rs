//! What happened inside of a cluster: the white box, which only a simulator can tell.
//!
//! - [`Cluster`]: the events, in order, with places and names interned;
//! - [`replicas`]: what each replica held at each moment that matters, worked out in one pass;
//! - `why` (private): answers to the questions of the [seam](crate::truth).
//!
//! A client's history is never read here. Checkers of both meet in
//! [`check::white`](crate::check::white).

pub mod replicas;
mod why;

use std::collections::BTreeMap;
use std::fmt;

use bus_core::{ErrorKind, Offset, TopicPartition};

/// The id of a broker.
pub type BrokerId = i32;

/// A partition, by its place in [`Cluster::places`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PlaceId(pub u32);

impl PlaceId {
    /// The place in a list that is indexed by it.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// What happened inside of a cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cluster {
    places: Vec<TopicPartition>,
    ids: BTreeMap<TopicPartition, PlaceId>,
    last: Option<PlaceId>,
    events: Vec<ClusterEvent>,
}

/// One event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterEvent {
    /// Its number in the trace; rising.
    pub number: u64,
    /// Nanoseconds since the start, as in a history.
    pub at: u64,
    /// What happened.
    pub what: Happened,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Happened {
    /// A leader appended a batch.
    Appended {
        /// The leader.
        broker: BrokerId,
        /// The partition.
        place: PlaceId,
        /// The offset of its first record.
        base: Offset,
        /// How many offsets it takes.
        count: u32,
        /// The digest of its records.
        digest: u64,
    },
    /// A follower appended a batch.
    Replicated {
        /// The follower.
        broker: BrokerId,
        /// The partition.
        place: PlaceId,
        /// The offset of its first record.
        base: Offset,
        /// How many offsets it takes.
        count: u32,
        /// The epoch of the leader that appended it.
        leader_epoch: i32,
    },
    /// The end of a log is gone.
    Cut {
        /// Whose log.
        broker: BrokerId,
        /// The partition.
        place: PlaceId,
        /// Where it ended.
        from: Offset,
        /// Where it ends now.
        to: Offset,
        /// Why.
        why: CutBy,
    },
    /// A broker knows that it leads.
    EpochStart {
        /// The leader.
        broker: BrokerId,
        /// The partition.
        place: PlaceId,
        /// The epoch.
        leader_epoch: i32,
        /// The end of its log.
        end: Offset,
    },
    /// The high watermark rose at a leader.
    HighWatermark {
        /// The leader.
        broker: BrokerId,
        /// The partition.
        place: PlaceId,
        /// The high watermark.
        offset: Offset,
    },
    /// The controller changed who is in sync.
    InSync {
        /// The partition.
        place: PlaceId,
        /// Those in sync.
        replicas: Vec<BrokerId>,
    },
    /// The controller changed who may lead when nobody is in sync (ELR, KIP-966).
    Eligible {
        /// The partition.
        place: PlaceId,
        /// Those eligible.
        replicas: Vec<BrokerId>,
    },
    /// The controller elected a leader, or found none.
    Leader {
        /// The partition.
        place: PlaceId,
        /// The leader.
        leader: Option<BrokerId>,
        /// Its epoch.
        leader_epoch: i32,
    },
    /// A produce request was refused.
    Refused {
        /// The partition.
        place: PlaceId,
        /// Why.
        error: ErrorKind,
    },
    /// A topic was deleted: what was said of its partitions says nothing of new ones.
    TopicDeleted {
        /// The topic.
        topic: String,
    },
    /// Something about a group: its state, a member that left, a commit that was refused.
    Group {
        /// The group.
        group_id: String,
        /// What, in a few words.
        what: String,
    },
    /// A transactional id changed its state.
    Transaction {
        /// The transactional id.
        transactional_id: String,
        /// Kafka's name of the state.
        state: &'static str,
        /// Its producer id.
        producer_id: i64,
        /// Its epoch.
        producer_epoch: i16,
    },
    /// A transaction was fenced.
    Fenced {
        /// The transactional id.
        transactional_id: String,
        /// `timeout` or `another producer`.
        reason: &'static str,
    },
}

/// Why the end of a log is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CutBy {
    /// Its leader does not have it.
    Truncation,
    /// A loss of power: it was in the page cache only.
    PowerLoss,
}

impl Cluster {
    /// One in which nothing has happened.
    pub fn new() -> Self {
        Self::default()
    }

    /// The id of a partition.
    ///
    /// # Panics
    /// Above 2^32 partitions.
    pub fn place(&mut self, partition: &TopicPartition) -> PlaceId {
        if let Some(last) = self.last
            && self.places[last.index()] == *partition
        {
            return last;
        }
        let id = if let Some(id) = self.ids.get(partition) {
            *id
        } else {
            let next = u32::try_from(self.places.len()).expect("a cluster has fewer partitions");
            self.places.push(partition.clone());
            self.ids.insert(partition.clone(), PlaceId(next));
            PlaceId(next)
        };
        self.last = Some(id);
        id
    }

    /// The id of a partition, if anything happened to it.
    pub fn find(&self, partition: &TopicPartition) -> Option<PlaceId> {
        self.ids.get(partition).copied()
    }

    /// Something happened. Numbers and times must not go back.
    pub fn push(&mut self, number: u64, at: u64, what: Happened) {
        self.events.push(ClusterEvent { number, at, what });
    }

    /// All partitions, by id.
    pub fn places(&self) -> &[TopicPartition] {
        &self.places
    }

    /// The name of a partition.
    pub fn name(&self, place: PlaceId) -> &TopicPartition {
        &self.places[place.index()]
    }

    /// All events, in order.
    pub fn events(&self) -> &[ClusterEvent] {
        &self.events
    }

    /// The event of that number.
    pub fn event(&self, number: u64) -> Option<&ClusterEvent> {
        let index = self.events.binary_search_by_key(&number, |event| event.number).ok()?;
        Some(&self.events[index])
    }

    /// An event as a sentence.
    pub fn sentence(&self, event: &ClusterEvent) -> String {
        Shown(self, &event.what).to_string()
    }
}

struct Shown<'a>(&'a Cluster, &'a Happened);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(cluster, what) = self;
        let name = |place: &PlaceId| cluster.name(*place);
        match what {
            Happened::Appended { broker, place, base, count, .. } => {
                let (last, name) = (base + i64::from(*count) - 1, name(place));
                write!(f, "broker-{broker} appended {name}@{base} to {last}")
            }
            Happened::Replicated { broker, place, base, count, leader_epoch } => {
                let (last, name) = (base + i64::from(*count) - 1, name(place));
                write!(f, "broker-{broker} replicated {name}@{base} to {last} of epoch ")?;
                write!(f, "{leader_epoch}")
            }
            Happened::Cut { broker, place, from, to, why } => {
                let why = match why {
                    CutBy::Truncation => "truncated",
                    CutBy::PowerLoss => "lost power, and with it",
                };
                write!(f, "broker-{broker} {why} {} from {to} up to {from}", name(place))
            }
            Happened::EpochStart { broker, place, leader_epoch, end } => {
                let name = name(place);
                write!(f, "broker-{broker} leads {name} in epoch {leader_epoch} from {end} on")
            }
            Happened::HighWatermark { broker, place, offset } => {
                write!(f, "the high watermark of {} on broker-{broker} is {offset}", name(place))
            }
            Happened::InSync { place, replicas } => {
                write!(f, "in sync of {} are {}", name(place), brokers(replicas))
            }
            Happened::Eligible { place, replicas } => {
                write!(f, "eligible to lead {} are {}", name(place), brokers(replicas))
            }
            Happened::Leader { place, leader: Some(leader), leader_epoch } => {
                write!(f, "broker-{leader} was elected for {} in epoch ", name(place))?;
                write!(f, "{leader_epoch}")
            }
            Happened::Leader { place, leader: None, leader_epoch } => {
                write!(f, "{} has no leader in epoch {leader_epoch}", name(place))
            }
            Happened::Refused { place, error } => {
                write!(f, "a produce request for {} was refused: {error}", name(place))
            }
            Happened::TopicDeleted { topic } => write!(f, "topic {topic} was deleted"),
            Happened::Group { group_id, what } => write!(f, "group {group_id}: {what}"),
            Happened::Transaction { transactional_id, state, producer_id, producer_epoch } => {
                write!(f, "transactional id {transactional_id} is {state} with producer ")?;
                write!(f, "{producer_id}/{producer_epoch}")
            }
            Happened::Fenced { transactional_id, reason } => {
                write!(f, "transactional id {transactional_id} was fenced by {reason}")
            }
        }
    }
}

/// Brokers in a row.
pub(crate) fn brokers(ids: &[BrokerId]) -> String {
    let ids: Vec<_> = ids.iter().map(ToString::to_string).collect();
    if ids.is_empty() { "none".to_owned() } else { ids.join(" ") }
}

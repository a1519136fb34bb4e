//! Outcomes: what came of each step, in a form that is equal where the backends agree.
//!
//! What is normalised, and why, is listed in the [crate's documentation](crate#normalisation).

use std::collections::BTreeMap;

use bus_core::{
    Error, ErrorKind, Offset, Partition, RebalanceKind, Record, Recovery, Timestamp, TimestampType,
};
use serde::{Deserialize, Serialize};

use crate::data::Seen;
use crate::rules::Exclusion;
use crate::slot::{ConsumerSlot, GroupSlot, Names, Place, TopicSlot};

/// What came of one step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// It was done, and there is no more to say.
    Done,
    /// It failed.
    Failed(Fault),
    /// It was not run, on either backend.
    Excluded(Exclusion),
    /// It was not over within a time that is long for all that a program does.
    Overdue,
    /// One outcome per record, in the order of the records.
    Sent(Vec<Sent>),
    /// How many partitions.
    Partitions(Partition),
    /// What was read.
    Read(Reading),
    /// What the members of a group went through.
    Rebalanced(Rebalanced),
    /// An offset per partition, in the order of the question.
    Offsets(Vec<(Place, Option<Offset>)>),
    /// A committed offset and its metadata per partition, in the order of the question.
    Committed(Vec<(Place, Option<(Offset, String)>)>),
    /// The position of a partition.
    Position(Option<Offset>),
    /// Assignment, pauses, and positions.
    Positions(Vec<Held>),
    /// The two ends of a partition.
    Watermarks(Offset, Offset),
    /// Who a consumer is in its group.
    Membership(Option<Membership>),
    /// The partitions of a topic, with their replicas and those in sync counted.
    Topic(Vec<PartitionShape>),
    /// Topics of the program.
    Topics(Vec<TopicSlot>),
    /// How many brokers.
    Cluster(usize),
    /// Groups of the program and their states.
    Groups(Vec<(GroupSlot, String)>),
    /// A group.
    Group(GroupShape),
    /// Committed offset, metadata, and end of the log.
    GroupOffsets(Vec<(Place, Offset, String, Offset)>),
    /// Properties.
    Config(BTreeMap<String, String>),
    /// An offset.
    Offset(Offset),
}

/// The three answers of an error; the message is the backend's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "(ErrorKind, Action, bool)", from = "(ErrorKind, Action, bool)")]
pub struct Fault {
    /// What happened.
    pub kind: ErrorKind,
    /// What the caller may do.
    pub recovery: Action,
    /// Whether it may have happened anyway.
    pub is_indeterminate: bool,
}

/// [`Recovery`], with an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[expect(missing_docs, reason = "each is the recovery of that name")]
pub enum Action {
    Retry,
    Abort,
    Rejoin,
    Close,
    Fix,
}

impl From<&Error> for Fault {
    fn from(error: &Error) -> Self {
        let recovery = match error.recovery() {
            Recovery::Retry => Action::Retry,
            Recovery::Abort => Action::Abort,
            Recovery::Rejoin => Action::Rejoin,
            Recovery::Close => Action::Close,
            Recovery::Fix => Action::Fix,
        };
        Self { kind: error.kind(), recovery, is_indeterminate: error.is_indeterminate() }
    }
}

impl From<(ErrorKind, Action, bool)> for Fault {
    fn from((kind, recovery, is_indeterminate): (ErrorKind, Action, bool)) -> Self {
        Self { kind, recovery, is_indeterminate }
    }
}

impl From<Fault> for (ErrorKind, Action, bool) {
    fn from(fault: Fault) -> Self {
        (fault.kind, fault.recovery, fault.is_indeterminate)
    }
}

impl Outcome {
    /// The outcome of something that gives nothing.
    pub fn done(result: bus_core::Result<()>) -> Self {
        Self::of(result, |()| Self::Done)
    }

    /// The outcome of something that gives a value.
    pub fn of<T>(result: bus_core::Result<T>, tell: impl FnOnce(T) -> Self) -> Self {
        match result {
            Ok(value) => tell(value),
            Err(error) => Self::Failed(Fault::from(&error)),
        }
    }
}

/// What came of one record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Sent {
    /// It was delivered; the offset is absent where no broker tells it.
    At(Place, Option<Offset>, Option<Time>),
    /// It failed.
    Failed(Fault),
    /// It was not sent, on either backend.
    Excluded(Exclusion),
}

/// A timestamp.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Time {
    /// The time of the run.
    Now,
    /// A time that the program gave.
    At(i64),
}

impl From<Timestamp> for Time {
    /// Programs give times before the year 2017 or after 2065: what is between is the time of the
    /// run, on a real clock as on the simulator's.
    fn from(time: Timestamp) -> Self {
        const NOW: std::ops::Range<i64> = 1_500_000_000_000..3_000_000_000_000;

        let millis = time.as_millis();
        if NOW.contains(&millis) { Self::Now } else { Self::At(millis) }
    }
}

/// What was read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Reading {
    /// The records, in order per partition: how partitions take turns is a matter of timing.
    pub records: BTreeMap<Place, Vec<Read>>,
    /// Errors of the polls, sorted.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<Fault>,
    /// Rebalances that came in between.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rebalances: Vec<Guard>,
    /// What was known to be readable did not all come in time.
    pub is_incomplete: bool,
    /// Assignment, pauses, and positions in the end.
    pub held: Vec<Held>,
}

/// A record as it was read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Read {
    /// Its offset.
    pub offset: Offset,
    /// Its key.
    pub key: Seen,
    /// Its value.
    pub value: Seen,
    /// Its headers, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<(String, Seen)>,
    /// Its timestamp.
    pub time: Time,
    /// Who set the timestamp.
    pub time_type: TimestampType,
}

impl From<&Record> for Read {
    fn from(record: &Record) -> Self {
        let headers = record.headers.iter();
        Self {
            offset: record.offset,
            key: Seen::of(record.key.as_ref()),
            value: Seen::of(record.value.as_ref()),
            headers: headers.map(|h| (h.name.to_string(), Seen::of(h.value.as_ref()))).collect(),
            time: record.timestamp.into(),
            time_type: record.timestamp_type,
        }
    }
}

/// A partition that a consumer has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held(
    /// The partition.
    pub Place,
    /// Its position.
    pub Option<Offset>,
    /// Whether it is paused.
    pub bool,
);

/// What the members of a group went through until it was at rest.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Rebalanced {
    /// What each member saw, in order.
    pub members: BTreeMap<ConsumerSlot, Vec<Guard>>,
    /// The group did not come to rest.
    pub is_restless: bool,
}

/// A rebalance as a member saw it, or an error of its poll.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Guard {
    /// Partitions came.
    Assigned(Vec<Place>),
    /// Partitions had to be given up.
    Revoked(Vec<Place>),
    /// Partitions were lost.
    Lost(Vec<Place>),
    /// The commit of the positions, before partitions were given up.
    Commit(Result<(), Fault>),
    /// An error of a poll.
    Error(Fault),
    /// Records came although all was paused.
    Unasked(Vec<Place>),
    /// The completion failed.
    Incomplete(Fault),
}

impl Guard {
    /// Whether it is about no partitions.
    pub const fn is_empty(&self) -> bool {
        match self {
            Self::Assigned(places) | Self::Revoked(places) | Self::Lost(places) => {
                places.is_empty()
            }
            Self::Commit(_) | Self::Error(_) | Self::Unasked(_) | Self::Incomplete(_) => false,
        }
    }

    /// Tells of a rebalance.
    pub fn of(rebalance: &bus_core::Rebalance, names: &Names) -> Self {
        let places = rebalance.partitions.iter().filter_map(|place| names.place_of(place));
        let places = places.collect();
        match rebalance.kind {
            RebalanceKind::Assigned => Self::Assigned(places),
            RebalanceKind::Revoked => Self::Revoked(places),
            RebalanceKind::Lost => Self::Lost(places),
        }
    }
}

/// Who a consumer is in its group. Ids and generations are the coordinator's own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Membership {
    /// The group.
    pub group: Option<GroupSlot>,
    /// Whether it has a member id.
    pub is_named: bool,
    /// Whether it has a generation.
    pub is_member: bool,
    /// Its static id.
    pub instance: Option<String>,
}

/// A partition without the ids of brokers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionShape {
    /// The partition.
    pub partition: Partition,
    /// Whether it has a leader.
    pub is_led: bool,
    /// How many replicas.
    pub replicas: usize,
    /// How many of them are in sync.
    pub in_sync: usize,
}

/// A group without the ids of its members.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupShape {
    /// Its state.
    pub state: String,
    /// The assignor that it agreed on.
    pub assignor: String,
    /// Its members: client and assignment.
    pub members: Vec<(String, Vec<Place>)>,
}

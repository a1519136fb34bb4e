//! The seam to the ground truth: why did it happen?
//!
//! Where the configuration permits an anomaly, a simulator that knows what really happened must
//! name its cause; an anomaly without one is a bug of the simulator or of a client. A real Kafka
//! does not tell.

use bus_core::{Offset, TopicPartition};

use crate::cluster::Cluster;

/// What a checker asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    /// Why is this record not in the log, or another one in its place?
    Lost {
        /// The partition.
        topic_partition: TopicPartition,
        /// The offset that was told.
        offset: Offset,
    },
    /// Why is this record in the log more than once?
    Duplicated {
        /// The partition.
        topic_partition: TopicPartition,
        /// Where it is.
        offsets: Vec<Offset>,
    },
    /// Why is this record before one that was sent earlier?
    Reordered {
        /// The partition.
        topic_partition: TopicPartition,
        /// The one that was sent earlier, and is behind.
        earlier: Offset,
        /// The one that was sent later.
        later: Offset,
    },
    /// Why did the log end or the position of a reader go back, or forward?
    Moved {
        /// The partition.
        topic_partition: TopicPartition,
        /// From where.
        from: Offset,
        /// To where.
        to: Offset,
    },
    /// Why was this record given to a group again?
    Redelivered {
        /// The group.
        group_id: String,
        /// The partition.
        topic_partition: TopicPartition,
        /// The offset.
        offset: Offset,
    },
    /// Why was a group told an older commit than its last?
    OldCommit {
        /// The group.
        group_id: String,
        /// When it was asked for, in nanoseconds.
        since: u64,
    },
    /// Why was somebody told an older end of a log than one that is committed?
    OldEnd {
        /// The partition.
        topic_partition: TopicPartition,
        /// An offset that was acknowledged, and lies behind that end.
        offset: Offset,
        /// When it was asked for, in nanoseconds.
        since: u64,
    },
    /// Why was a commit accepted of a member that the group had given up?
    ZombieCommit {
        /// The group.
        group_id: String,
        /// When it was called for, in nanoseconds.
        since: u64,
    },
    /// Why was this member or producer given up or fenced?
    Fenced {
        /// Its group or transactional id.
        name: String,
        /// Since when it was the newest, in nanoseconds.
        since: u64,
    },
}

/// What the truth is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Truth {
    /// Nobody knows: the backend does not tell.
    Unknown,
    /// It is known what happened, and nothing of it explains this.
    Unexplained,
    /// This explains it.
    Because(Cause),
}

/// An event that explains an anomaly.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cause {
    /// The event, by its number in the trace.
    pub event: u64,
    /// What happened, as a sentence.
    pub sentence: String,
}

/// Who knows what really happened: a [`Cluster`], as a simulation leaves it, or nobody.
pub trait GroundTruth {
    /// Answers a question, by what happened up to a time in nanoseconds: what comes later is no
    /// cause.
    fn why(&self, question: &Question, until: u64) -> Truth;

    /// What happened inside of the cluster, for the guarantees that are judged by it.
    fn cluster(&self) -> Option<&Cluster> {
        None
    }
}

/// A backend that does not tell, such as a real Kafka.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoTruth;

impl GroundTruth for NoTruth {
    fn why(&self, _question: &Question, _until: u64) -> Truth {
        Truth::Unknown
    }
}

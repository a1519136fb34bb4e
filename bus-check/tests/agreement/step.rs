//! The steps that a history of the tiny Kafka is made of.

use bus_core::Offset;

/// A step of a history.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// A producer sends to a partition, or by key; contents may repeat.
    Send { producer: usize, partition: i32, keyed: bool, contents: u8, fate: Fate },
    /// The oldest open send of a producer is acknowledged.
    Acknowledge { producer: usize },
    /// A producer flushes: what is open is acknowledged before.
    Flush { producer: usize },
    /// A transactional producer is initialized, and fences the other one of its id.
    Init { producer: usize },
    /// A transaction begins.
    Begin { producer: usize },
    /// The position of a member is sent to the transaction.
    SendOffsets { producer: usize, member: usize },
    /// A transaction ends.
    End { producer: usize, how: HowEnded },
    /// A whole transaction, with the position of a member or without.
    Transaction { producer: usize, sends: u8, member: Option<usize>, how: HowEnded },
    /// A producer is closed; what is open is acknowledged before.
    Close { producer: usize },
    /// The partitions are divided anew.
    Rebalance { owners: [usize; 2] },
    /// A consumer polls so many records.
    Poll { consumer: usize, most: usize },
    /// A member commits what it was given, or a bit less.
    Commit { member: usize, less: Offset, is_lost: bool },
    /// A consumer asks what is committed.
    Committed { member: usize },
    /// A consumer asks for the ends.
    Watermarks { consumer: usize, partition: i32 },
    /// A consumer seeks.
    Seek { consumer: usize, partition: i32, to: Offset },
    /// A consumer pauses a partition, or resumes it.
    Pause { consumer: usize, partition: i32, resumes: bool },
    /// Time passes.
    Wait { millis: u64 },
}

/// What becomes of a send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Delivered,
    /// It is acknowledged later.
    Open,
    /// It is in the log, and its outcome unknown.
    Appended,
    /// It is not in the log, and its outcome unknown.
    Lost,
    Refused,
}

/// What becomes of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HowEnded {
    Committed,
    Aborted,
    /// It commits, and nobody is told.
    CommittedUnknown,
    /// It does not commit, and nobody is told; the producer aborts it later.
    NotCommittedUnknown,
}

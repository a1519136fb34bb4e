//! When a fault strikes: a time, or an event that is counted.

use std::time::Duration;

use bus_core::{Partition, Topic};
use serde::{Deserialize, Serialize};

use super::{FaultId, Party, text};
use crate::node::BrokerId;
use crate::protocol::Api;
use crate::time::SimTime;

/// When a fault strikes, or ends. Events are counted from the start of the world; those that end a
/// fault, from when it struck.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum Trigger {
    /// At a time.
    At(SimTime),
    /// At the `nth` request of an API that comes to a stage.
    Request {
        /// The API.
        api: Api,
        /// How far it has come.
        is: Stage,
        /// Who sent it; none for anybody.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        from: Option<Party>,
        /// Who handles it; none for anybody.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        to: Option<Party>,
        /// The how-manieth, from 1. 1.
        #[serde(default = "first", skip_serializing_if = "is_first")]
        nth: u32,
    },
    /// When something becomes true inside of the brokers for the `nth` time.
    Fact {
        /// What.
        is: FactPattern,
        /// The how-manieth, from 1. 1.
        #[serde(default = "first", skip_serializing_if = "is_first")]
        nth: u32,
    },
    /// Some time after another fault struck.
    After {
        /// The other fault.
        fault: FaultId,
        /// How long after it.
        #[serde(with = "text::duration")]
        by: Duration,
    },
    /// When a process comes to a crash point for the `nth` time; see
    /// [`SimHandle::reached`](crate::SimHandle::reached).
    Reached {
        /// The process.
        process: String,
        /// The name of the point.
        point: String,
        /// The how-manieth, from 1. 1.
        #[serde(default = "first", skip_serializing_if = "is_first")]
        nth: u32,
    },
    /// When a process commits at a database for the `nth` time, before the commit is there: a fault
    /// of commits is in time for this one. See [`SimHandle::commits`](crate::SimHandle::commits).
    Commit {
        /// The process.
        process: String,
        /// The name of the database.
        database: String,
        /// The how-manieth, from 1. 1.
        #[serde(default = "first", skip_serializing_if = "is_first")]
        nth: u32,
    },
}

/// How far a request has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Stage {
    /// It was sent. A rule for such requests (to lose it) is in time for this one.
    Sent,
    /// It was handled once: an append is in the log of the leader. Its response has not left, even
    /// if it is ready.
    Handled,
    /// Its response is ready (of an append that waits for replicas: those have it), and has not
    /// left.
    Answered,
    /// Its response was received and handled.
    Received,
}

/// Something that becomes true inside of the brokers.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum FactPattern {
    /// A partition has a new leader.
    LeaderElected(Topic, Partition),
    /// A partition has no leader any more.
    LeaderLost(Topic, Partition),
    /// A new leader has begun to lead.
    LeaderStarted(Topic, Partition),
    /// A replica fell out of sync.
    InSyncShrank(Topic, Partition),
    /// A replica is in sync again.
    InSyncGrew(Topic, Partition),
    /// Exactly these replicas are in sync.
    InSync(Topic, Partition, Vec<BrokerId>),
    /// A leader appended a batch.
    Appended(Topic, Partition),
    /// A follower appended a batch.
    Replicated(Topic, Partition),
    /// The high watermark rose.
    HighWatermark(Topic, Partition),
    /// A follower took back the end of its log.
    Truncated(Topic, Partition),
    /// A batch was recognized as one that is in the log already.
    DuplicateBatch(Topic, Partition),
    /// A group came to a state: `Empty`, `PreparingRebalance`, `CompletingRebalance`, `Stable`.
    GroupState(String, String),
    /// A member left a group, or was removed from it.
    MemberLeft(String),
    /// A group committed an offset.
    OffsetCommitted(String),
    /// A transactional id came to a state: `Empty`, `Ongoing`, `PrepareCommit`, `PrepareAbort`,
    /// `CompleteCommit`, `CompleteAbort`, `Dead`, `PrepareEpochFence`.
    TransactionState(String, String),
    /// The end of a transaction was written to a partition.
    Marker(Topic, Partition),
}

impl Trigger {
    /// The first request of an API that comes to a stage.
    pub const fn request(api: Api, is: Stage) -> Self {
        Self::Request { api, is, from: None, to: None, nth: 1 }
    }

    /// The first time that something becomes true.
    pub const fn fact(is: FactPattern) -> Self {
        Self::Fact { is, nth: 1 }
    }

    /// The same for the `nth` time. A time or the strike of another fault comes once only.
    #[must_use]
    pub fn nth(mut self, count: u32) -> Self {
        if let Some(nth) = self.count_mut() {
            *nth = count;
        }
        self
    }

    /// The how-manieth event it is; none if it comes once only.
    pub(crate) const fn count_mut(&mut self) -> Option<&mut u32> {
        match self {
            Self::Request { nth, .. }
            | Self::Fact { nth, .. }
            | Self::Reached { nth, .. }
            | Self::Commit { nth, .. } => Some(nth),
            Self::At(_) | Self::After { .. } => None,
        }
    }
}

const fn first() -> u32 {
    1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
const fn is_first(nth: &u32) -> bool {
    *nth == 1
}

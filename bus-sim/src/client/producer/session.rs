//! The producer id of an idempotent producer, and how it gets another one.

use crate::protocol::batch::{ProducerEpoch, ProducerId};
use crate::time::SimTime;

/// The state of the producer session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Session {
    /// Idempotence is off.
    Off,
    /// There is no producer id; it is asked for when it is time.
    Unassigned { retry_at: SimTime, attempt: u32 },
    /// It is asked for.
    Requested { attempt: u32 },
    /// There is one.
    Assigned { id: ProducerId, epoch: ProducerEpoch },
    /// Another one is needed, once nothing is in flight: until then nothing is sent, because what
    /// is in flight might be appended and could not be recognized under a new id.
    Draining,
    /// Without a request: the same producer id with the next epoch, once nothing is in flight.
    Bumping { id: ProducerId, epoch: ProducerEpoch },
    /// Of a transactional producer before `init_transactions`.
    Uninitialized,
    /// Of a transactional producer: another epoch is needed, once the transaction is aborted. Until
    /// then nothing is sent.
    AwaitingAbort,
    /// There will be no producer id any more: the producer has failed for good.
    Failed,
}

impl Session {
    /// No producer id yet.
    pub(super) const fn unassigned() -> Self {
        Self::Unassigned { retry_at: SimTime::ZERO, attempt: 0 }
    }
}

//! InitProducerId: gives out a producer id for idempotence.
//!
//! Absent: transactional ids, which come with the transaction coordinator.

use bus_core::ErrorKind;

use super::batch::{ProducerEpoch, ProducerId};

/// Asks for a producer id, or for the next epoch of one (KIP-360).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Request {
    /// The id and epoch so far, to get the next epoch.
    pub current: Option<(ProducerId, ProducerEpoch)>,
}

/// The producer id.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Response {
    /// Id and epoch, or why there is none.
    pub result: Result<(ProducerId, ProducerEpoch), ErrorKind>,
}

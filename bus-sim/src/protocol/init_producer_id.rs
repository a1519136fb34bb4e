//! InitProducerId: gives out a producer id for idempotence, or that of a transactional id with a
//! new epoch, which fences the producers before it.

use std::time::Duration;

use bus_core::ErrorKind;

use super::batch::{ProducerEpoch, ProducerId};
use crate::node::Name;

/// Asks for a producer id, or for the next epoch of one (KIP-360).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Request {
    /// Who the producer is across restarts, and how long its transactions may be open.
    pub transactional: Option<Transactional>,
    /// The id and epoch so far, to get the next epoch.
    pub current: Option<(ProducerId, ProducerEpoch)>,
}

/// What a transactional producer says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Transactional {
    /// The transactional id.
    pub transactional_id: Name,
    /// How long a transaction may be open before the coordinator aborts it.
    pub timeout: Duration,
}

/// The producer id.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Response {
    /// Id and epoch, or why there is none.
    pub result: Result<(ProducerId, ProducerEpoch), ErrorKind>,
}

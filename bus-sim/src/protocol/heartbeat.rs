//! Heartbeat: keeps a member alive, and tells it of a rebalance (`RebalanceInProgress`).

use bus_core::ErrorKind;

use crate::node::Name;

/// A sign of life.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Request {
    /// The group.
    pub group_id: Name,
    /// The generation of the member.
    pub generation: i32,
    /// The member.
    pub member_id: Name,
    /// Its static id, if there is one.
    pub group_instance_id: Option<Name>,
}

/// Whether the membership goes on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Response {
    /// Why it does not.
    pub error: Option<ErrorKind>,
}

//! SyncGroup: the second half of a rebalance. The response waits for the leader's assignment.

use bus_core::{Bytes, ErrorKind};

use crate::node::Name;

/// Asks for the assignment, or, from the leader, brings it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Request {
    /// The group.
    pub group_id: Name,
    /// The generation that the member joined.
    pub generation: i32,
    /// The member.
    pub member_id: Name,
    /// Its static id, if there is one.
    pub group_instance_id: Option<Name>,
    /// From the leader: the assignment of each member (opaque here).
    pub assignments: Vec<(Name, Bytes)>,
}

/// The assignment of the member.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Response {
    /// The assignment (opaque here), or why there is none.
    pub result: Result<Bytes, ErrorKind>,
}

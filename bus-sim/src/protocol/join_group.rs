//! JoinGroup: the first half of a rebalance. The response waits until the members have joined.

use std::time::Duration;

use bus_core::{Bytes, ErrorKind};

use crate::node::Name;

/// Joins a group.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Request {
    /// The group.
    pub group_id: Name,
    /// The member id, empty at first.
    pub member_id: Name,
    /// The static id, if there is one.
    pub group_instance_id: Option<Name>,
    /// The client id, for descriptions and for making member ids.
    pub client_id: Name,
    /// The member is evicted after this long without a heartbeat.
    pub session_timeout: Duration,
    /// A rebalance waits this long for the member.
    pub rebalance_timeout: Duration,
    /// `consumer`, for consumers.
    pub protocol_type: Name,
    /// Assignors in order of preference, each with the member's metadata for it (opaque here).
    pub protocols: Vec<(Name, Bytes)>,
}

/// A place in a generation.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Response {
    /// The generation, or why there is none. With `MemberIdRequired`, `member_id` is the one to
    /// use.
    pub result: Result<Joined, ErrorKind>,
    /// The member id.
    pub member_id: Name,
}

/// A place in a generation.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Joined {
    /// The generation.
    pub generation: i32,
    /// The assignor that all members have in common.
    pub protocol: Name,
    /// The member that makes the assignment.
    pub leader: Name,
    /// For the leader only: all members.
    pub members: Vec<JoinedMember>,
    /// KIP-814: a static leader that came back shall not make the assignment again.
    pub skip_assignment: bool,
}

/// A member, for the leader.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct JoinedMember {
    /// The member id.
    pub member_id: Name,
    /// The static id, if there is one.
    pub group_instance_id: Option<Name>,
    /// The metadata for the assignor.
    pub metadata: Bytes,
}

//! ListGroups, DescribeGroups, DeleteGroups: administration of groups, at their coordinators.

use bus_core::{Bytes, ErrorKind, GroupState};

use crate::node::Name;

/// Lists the groups of this coordinator.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ListGroupsRequest;

/// The groups of this coordinator.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ListGroupsResponse {
    /// Sorted by id. Or why there are none.
    pub result: Result<Vec<(Name, GroupState)>, ErrorKind>,
}

/// Describes groups.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct DescribeGroupsRequest {
    /// Which ones.
    pub groups: Vec<Name>,
}

/// The groups.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct DescribeGroupsResponse {
    /// Per group of the request, in its order.
    pub groups: Vec<DescribedGroup>,
}

/// A group.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct DescribedGroup {
    /// The id.
    pub group_id: Name,
    /// Its state and members, or why there are none. A group that does not exist is `Dead`.
    pub result: Result<GroupDetails, ErrorKind>,
}

/// A group that this coordinator answers for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct GroupDetails {
    /// The state.
    pub state: GroupState,
    /// The assignor that the members agreed on; empty if none.
    pub protocol: Name,
    /// The members.
    pub members: Vec<DescribedMember>,
}

/// A member.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct DescribedMember {
    /// The member id.
    pub member_id: Name,
    /// The static id, if there is one.
    pub group_instance_id: Option<Name>,
    /// The client id.
    pub client_id: Name,
    /// The assignment (opaque here).
    pub assignment: Bytes,
}

/// Deletes groups.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct DeleteGroupsRequest {
    /// Which ones.
    pub groups: Vec<Name>,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct DeleteGroupsResponse {
    /// Per group of the request, in its order: why it was refused, if it was.
    pub groups: Vec<(Name, Option<ErrorKind>)>,
}

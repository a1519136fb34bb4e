//! LeaveGroup: ends a membership at once. Static members do not send it.

use bus_core::ErrorKind;

use crate::node::Name;

/// Leaves a group.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Request {
    /// The group.
    pub group_id: Name,
    /// The member.
    pub member_id: Name,
    /// Its static id, if there is one.
    pub group_instance_id: Option<Name>,
}

/// Whether it did.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Response {
    /// Why it did not.
    pub error: Option<ErrorKind>,
}

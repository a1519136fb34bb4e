//! What a history names by number: small, dense, in the order of their first appearance.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! ids {
    ($($(#[doc = $doc:literal])+ $name:ident = $prefix:literal;)+) => {$(
        $(#[doc = $doc])+
        #[derive(
            Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
        )]
        #[serde(transparent)]
        pub struct $name(pub u32);

        impl $name {
            /// The id at this place of a list that is indexed by it.
            ///
            /// # Panics
            /// Above 2^32: a history of this size does not fit into memory.
            pub fn from_index(index: usize) -> Self {
                Self(u32::try_from(index).expect("a history has less than 2^32 of everything"))
            }

            /// The place in a list that is indexed by it.
            pub const fn index(self) -> usize {
                self.0 as usize
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{}"), self.0)
            }
        }
    )+};
}

ids! {
    /// An entry of the history, by its place.
    EntryId = "e";
    /// An operation: a call with its outcome. That of a send is the unique id (uid) of its record.
    OperationId = "#";
    /// A client: a producer, a consumer, or an administration client of one incarnation.
    ClientId = "c";
    /// A topic.
    TopicId = "topic ";
    /// A partition of a topic.
    PartitionId = "partition ";
    /// A process: a part of the application that fails as one.
    ProcessId = "process ";
    /// A consumer group, or a transactional id.
    NameId = "name ";
}

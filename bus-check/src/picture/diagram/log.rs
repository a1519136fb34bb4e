//! What became of logs.

use serde::{Deserialize, Serialize};

use super::{EventId, LaneIndex};

/// The value of a record that has none: a tombstone. A text that reads so is in quotes.
pub const NULL: &str = "∅";

/// The value of a record that is not known.
pub const UNKNOWN: &str = "·";

/// What became of the logs of a partition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogStrip {
    /// The partition.
    pub partition: String,
    /// What changed, in the order of time.
    pub changes: Vec<LogChange>,
}

/// A change of the log of a replica, or of what is known of all.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogChange {
    /// Its id.
    pub id: EventId,
    /// When.
    pub at: u64,
    /// Of which replica.
    pub lane: LaneIndex,
    /// What.
    pub kind: LogChangeKind,
}

/// A change of a log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LogChangeKind {
    /// Records were added, by the leader or by following it.
    Added {
        /// The first offset.
        from: i64,
        /// The offset behind the last.
        to: i64,
        /// The values, as far as they are known: one for each offset. [`NULL`] is a tombstone, and
        /// [`UNKNOWN`] what nobody saw.
        values: Vec<String>,
        /// Whether they came from the leader.
        is_copy: bool,
    },
    /// The end of the log was taken back.
    Truncated {
        /// Where it ends now.
        to: i64,
        /// Where it ended.
        from: i64,
    },
    /// The end of the log was lost with the page cache.
    PowerLost {
        /// Where it ends now.
        to: i64,
        /// Where it ended.
        from: i64,
    },
    /// The high watermark rose to this offset.
    HighWatermark(i64),
    /// The last stable offset rose to this offset.
    LastStable(i64),
    /// Records belong to a transaction that was aborted.
    Aborted {
        /// The first offset.
        from: i64,
        /// The offset behind the last.
        to: i64,
    },
    /// The end of a transaction takes this offset.
    Marker {
        /// The offset.
        offset: i64,
        /// Whether it commits.
        is_commit: bool,
    },
}

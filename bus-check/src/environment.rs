//! What is known of the world of a run, beside its history: under which conditions it is judged.
//!
//! The configuration of clients is in the history. What a cluster promises, what an application
//! claims, and how long progress may take, is not.

use std::time::Duration;

/// The conditions under which a history is judged. The default knows nothing, and so leaves open
/// what a cluster may lose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Environment {
    /// Whether an acknowledged record (acks all) survives all that happens in the run.
    pub durability: Durability,
    /// Whether retention, compaction, or an administrator outside of the history remove records.
    pub removal: Removal,
    /// What the application claims of its commits.
    pub commits: CommitMode,
    /// How long after [`Recorder::quiesced`](crate::Recorder::quiesced) everything must be done. 1
    /// minute: above a session timeout and a few rebalances. It should be computed from the
    /// configured timeouts.
    pub settling: Duration,
}

impl Default for Environment {
    fn default() -> Self {
        Self {
            durability: Durability::Unknown,
            removal: Removal::None,
            commits: CommitMode::Unknown,
            settling: Duration::from_mins(1),
        }
    }
}

impl Environment {
    /// A cluster that keeps what it has acknowledged: all that Kafka can promise must hold.
    pub fn safe() -> Self {
        Self { durability: Durability::Safe, ..Default::default() }
    }
}

/// SAFE: what a cluster keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// `min.insync.replicas` of 2 or more and at most that many less one lossy crashes, or no lossy
    /// crash at all; and no unclean election.
    Safe,
    /// An acknowledged record may be lost.
    Unsafe,
    /// Nobody says.
    Unknown,
}

/// Whether records leave a log other than by what the history shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removal {
    /// They stay.
    None,
    /// They may go.
    Possible,
}

/// When an application commits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommitMode {
    /// Nobody says.
    Unknown,
    /// ALO: after a record was handled, so at least once.
    AfterHandling,
    /// AMO: before a record is handled, so at most once.
    BeforeHandling,
    /// EOS: in the transaction of the output, so exactly once.
    Transactional,
}

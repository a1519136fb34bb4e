//! What came of the faults of a plan.

use serde::{Deserialize, Serialize};

use super::{FaultId, Trigger};
use crate::time::SimTime;

/// What came of a fault of a plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FaultReport {
    /// The fault.
    pub id: FaultId,
    /// When and whom it struck; none if its trigger never came.
    pub struck: Option<Struck>,
    /// When it ended; none if it never did, or is over at once.
    pub ended: Option<SimTime>,
    /// Of a fault that struck at a time: the events that came before, each the last of its kind, as
    /// triggers; the last one first. Only if choices are
    /// [recorded](crate::SimConfig::record_choices).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub before: Vec<Trigger>,
}

/// The strike of a fault.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Struck {
    /// When.
    pub at: SimTime,
    /// After how many events of the world.
    pub event: u64,
    /// Whom, for people: `broker-2`, or why nobody.
    pub on: String,
    /// Whether it changed anything: what crashed was running, a message was lost or held back.
    pub has_changed: bool,
}

impl FaultReport {
    /// Whether it struck and changed anything.
    pub fn has_changed(&self) -> bool {
        self.struck.as_ref().is_some_and(|struck| struck.has_changed)
    }
}

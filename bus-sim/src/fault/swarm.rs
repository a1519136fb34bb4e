//! Swarm testing: which kinds of faults may be on, and the dice that draw which are.

use std::collections::BTreeSet;
use std::time::Duration;

use super::{Envelope, FaultId, FaultKind, Surroundings};
use crate::choice::{Choices, Label};

/// Kinds that came after plans were first drawn. Where they are off, plans are what they were.
pub(super) const LATER: &[FaultKind] = &[
    FaultKind::RefuseCommit,
    FaultKind::LoseCommit,
    FaultKind::LoseCommitAnswer,
    FaultKind::DelayCommit,
    FaultKind::StallProcess,
];

/// The kinds that have something to strike, within the envelope.
pub(super) fn possible(surroundings: &Surroundings) -> Vec<FaultKind> {
    let is_cluster = surroundings.brokers > 1;
    let has_process = !surroundings.processes.is_empty();
    let is_possible = |kind: &FaultKind| match kind {
        FaultKind::CutBrokers
        | FaultKind::CutOneWay
        | FaultKind::IsolateBroker
        | FaultKind::ElectPreferred => is_cluster,
        // What only one broker has is lost with its page cache.
        FaultKind::LosePower => is_cluster || surroundings.envelope == Envelope::Beyond,
        FaultKind::CrashProcess | FaultKind::PauseProcess | FaultKind::StallProcess => has_process,
        FaultKind::RefuseCommit
        | FaultKind::LoseCommit
        | FaultKind::LoseCommitAnswer
        | FaultKind::DelayCommit => !surroundings.commits.is_empty(),
        FaultKind::CrashBroker
        | FaultKind::ShutDownBroker
        | FaultKind::FreezeBroker
        | FaultKind::CutFromController
        | FaultKind::CutProcess
        | FaultKind::ResetConnections
        | FaultKind::CrashController
        | FaultKind::LoseRequest
        | FaultKind::LoseResponse
        | FaultKind::DelayRequest
        | FaultKind::DelayResponse => true,
    };
    let may_be_on =
        |kind: &FaultKind| surroundings.kinds.is_empty() || surroundings.kinds.contains(kind);
    FaultKind::ALL.iter().copied().filter(is_possible).filter(may_be_on).collect()
}

/// Draws about one fault; or, as fault 0, about the whole plan.
#[derive(Clone, Copy, Debug)]
pub(super) struct Dice<'a> {
    choices: &'a Choices,
    fault: FaultId,
}

impl<'c> Dice<'c> {
    pub(super) const fn new(choices: &'c Choices, fault: FaultId) -> Self {
        Self { choices, fault }
    }

    /// Draws one of the kinds that are on; none if none is. Those that came later take their share
    /// from all others alike: what a plan has of those stays as it was.
    pub(super) fn kind(&self, on: &BTreeSet<FaultKind>) -> Option<FaultKind> {
        let is_later = |kind: &FaultKind| LATER.contains(kind);
        let (later, first): (Vec<_>, Vec<_>) = on.iter().copied().partition(is_later);
        let mut drawn = (!first.is_empty()).then(|| *self.pick("kind", &first));
        for (count, kind) in (first.len() + 1..).zip(later) {
            let bound = u64::try_from(count).unwrap_or(1);
            if self.below(("kind", kind), bound) == 0 {
                drawn = Some(kind);
            }
        }
        drawn
    }

    pub(super) fn below(&self, what: impl std::hash::Hash, bound: u64) -> u64 {
        self.choices.below(Label::Plan, (self.fault, what), bound, String::new)
    }

    pub(super) fn pick<'a, T>(&self, what: impl std::hash::Hash, of: &'a [T]) -> &'a T {
        let bound = u64::try_from(of.len()).unwrap_or(1);
        &of[usize::try_from(self.below(what, bound)).unwrap_or(0)]
    }

    /// A duration up to `most`, in whole milliseconds.
    pub(super) fn duration(&self, what: impl std::hash::Hash, most: Duration) -> Duration {
        let most = u64::try_from(most.as_millis()).unwrap_or(u64::MAX - 1);
        Duration::from_millis(self.below(what, most + 1))
    }
}

//! What a leader remembers of a transaction between asking its coordinator and the first append
//! (KIP-890; Kafka's `VerificationStateEntry` and `VerificationGuard`).
//!
//! The first batch of a transaction is appended only with the guard that was made before the
//! coordinator was asked. Whatever is written in between for that producer, such as the marker of
//! an abort, takes the guard away: then the answer is too old.
//!
//! Simplified: an entry that is never used stays until the broker stops.

use std::collections::BTreeMap;

use crate::protocol::batch::{ProducerEpoch, ProducerId, Sequence};

/// The transactions of a partition that are being verified, by producer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::broker) struct Verifications {
    made: u64,
    states: BTreeMap<ProducerId, Verification>,
}

/// A transaction that is being verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::broker) struct Verification {
    guard: Guard,
    /// The lowest first sequence that was seen: no batch behind it goes first.
    lowest_sequence: Sequence,
    epoch: ProducerEpoch,
    is_version_2: bool,
}

/// Stands for one verification. No two are equal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::broker) struct Guard(u64);

impl Verifications {
    /// Begins to verify, or goes on with it.
    pub(in crate::broker) fn start(
        &mut self,
        producer_id: ProducerId,
        epoch: ProducerEpoch,
        sequence: Sequence,
        is_version_2: bool,
    ) -> Guard {
        let Self { made, states } = self;
        let state = states.entry(producer_id).or_insert_with(|| {
            *made += 1;
            let guard = Guard(*made);
            Verification { guard, lowest_sequence: sequence, epoch, is_version_2 }
        });
        if epoch > state.epoch {
            (state.epoch, state.lowest_sequence) = (epoch, sequence);
        } else if epoch == state.epoch {
            state.lowest_sequence = state.lowest_sequence.min(sequence);
        }
        state.guard
    }

    /// Ends it: a batch or a marker of the producer was written.
    pub(in crate::broker) fn clear(&mut self, producer_id: ProducerId) {
        self.states.remove(&producer_id);
    }

    /// What is being verified of a producer.
    pub(in crate::broker) fn get(&self, producer_id: ProducerId) -> Option<Verification> {
        self.states.get(&producer_id).copied()
    }
}

impl Verification {
    /// Whether this is the verification that `guard` stands for.
    pub(in crate::broker) fn is_of(self, guard: Option<Guard>) -> bool {
        guard == Some(self.guard)
    }

    /// Whether a batch with this first sequence may be the first of the transaction.
    pub(in crate::broker) fn admits(self, sequence: Sequence, is_known: bool) -> bool {
        let starts_anew = self.is_version_2 && !is_known;
        sequence <= self.lowest_sequence && !(starts_anew && sequence != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guard_is_good_for_one_verification() {
        let mut verifications = Verifications::default();
        let first = verifications.start(7, 0, 0, false);
        assert_eq!(verifications.start(7, 0, 3, false), first, "a retry goes on with it");
        assert!(verifications.get(7).unwrap().is_of(Some(first)));
        verifications.clear(7);
        let second = verifications.start(7, 0, 0, false);
        assert!(!verifications.get(7).unwrap().is_of(Some(first)));
        assert!(verifications.get(7).unwrap().is_of(Some(second)));
        assert!(!verifications.get(7).unwrap().is_of(None));
    }

    #[test]
    fn the_lowest_sequence_goes_first() {
        let mut verifications = Verifications::default();
        verifications.start(7, 0, 5, false);
        verifications.start(7, 0, 3, false);
        assert!(!verifications.get(7).unwrap().admits(5, true));
        assert!(verifications.get(7).unwrap().admits(3, true));
        verifications.start(7, 1, 4, false);
        assert!(verifications.get(7).unwrap().admits(4, true), "a new epoch begins anew");
    }

    #[test]
    fn with_version_2_an_unknown_producer_begins_at_zero() {
        let mut verifications = Verifications::default();
        verifications.start(7, 0, 5, true);
        assert!(!verifications.get(7).unwrap().admits(5, false));
        assert!(verifications.get(7).unwrap().admits(5, true));
    }
}

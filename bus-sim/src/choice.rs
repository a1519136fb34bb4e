//! Choice points: every random decision of the simulator, drawn by its cause.
//!
//! `choice(seed, label, cause)` is a hash, not a stream: the cause is what asked (the request, its
//! sender, how often it asked the same before), so taking one operation away re-rolls nothing else.
//! Each choice has a harmless value to shrink towards, which is the lowest.

use std::hash::Hash;

use crate::digest::Digest;

/// What is decided. Part of the hash, so two decisions of one cause are independent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Label {
    /// How long a message is under way. Harmless: the least latency.
    Latency,
    /// Which coordinator-given id a member gets.
    MemberId,
    /// The random part of a UUID of the application.
    ApplicationId,
    /// How long a client waits before it connects again. Harmless: the least.
    ReconnectBackoff,
    /// Which partition records without key go to. Harmless: the first.
    StickyPartition,
    /// Which broker a client asks for metadata. Harmless: the first.
    MetadataBroker,
    /// The id of a topic.
    TopicId,
    /// How long controllers need to elect the next. Harmless: the least.
    ControllerElection,
    /// The seed of tokio's own randomness.
    Scheduler,
}

/// Draws 64 random bits for `label` and `cause`.
pub fn choice(seed: u64, label: Label, cause: impl Hash) -> u64 {
    Digest::of(&(seed, label, Digest::of(&cause)))
}

/// Draws a number from `0..bound`.
///
/// # Panics
/// If `bound` is zero: there is nothing to choose from.
pub fn choice_below(seed: u64, label: Label, cause: impl Hash, bound: u64) -> u64 {
    assert!(bound > 0, "a choice has at least one value");
    // The high half of the product is unbiased enough for bounds far below 2^64.
    let wide = u128::from(choice(seed, label, cause)) * u128::from(bound);
    (wide >> 64) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_choice_depends_on_each_of_its_parts() {
        let base = choice(1, Label::Latency, "a");
        assert_eq!(base, choice(1, Label::Latency, "a"));
        assert_ne!(base, choice(2, Label::Latency, "a"));
        assert_ne!(base, choice(1, Label::MemberId, "a"));
        assert_ne!(base, choice(1, Label::Latency, "b"));
    }

    #[test]
    fn bounded_choices_are_spread_evenly() {
        let mut counts = [0_u32; 10];
        for cause in 0..100_000_u32 {
            let drawn = choice_below(7, Label::Latency, cause, 10);
            counts[usize::try_from(drawn).unwrap()] += 1;
        }
        assert!(counts.iter().all(|count| (9_500..10_500).contains(count)), "{counts:?}");
    }
}

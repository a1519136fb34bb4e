//! Failure stories: real delivery bugs of Kafka's applications, clients, and brokers, each as the
//! least code that has it.
//!
//! A story is buggy or fixed, and all else is equal: one decision of the application, one property,
//! or one policy of the simulated cluster. It judges itself by the guarantee that the bug breaks,
//! whose name begins with its id in docs/semantics.md.
//!
//! To write one, copy a short one, and add it to the [catalogue](mod@crate::catalogue).

pub mod async_commit_reorder;
pub mod cancel_then_dedupe_swallow;
pub mod claim_before_effect;
pub mod commit_after_revoke;
pub mod commit_max_with_concurrency;
pub mod common;
pub mod coop_stale_owned_partitions;
pub mod delayed_endtxn;
pub mod delivery_timeout_late_success;
pub mod dlq_publish_not_awaited;
pub mod epoch_bump_collateral_dup;
pub mod epoch_bump_splits_transaction;
pub mod hanging_transaction;
pub mod hw_truncation_loss;
pub mod inflight_retry_reorder;
pub mod latest_on_new_partition;
pub mod ledger;
pub mod member;
pub mod outbox_sequence_gap;
pub mod prefetch_autocommit;
pub mod read_back;
pub mod stale_stored_offset;
pub mod unclean_rewrite_under_reader;
pub mod unstable_offset_read;

use crate::catalogue::{self, Application};

/// An entry of the bug zoo, and the story that tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its number: A applications, B brokers, C consumers, P producers, T transactions.
    pub id: &'static str,
    /// The name of the story.
    pub story: &'static str,
    /// How many things have to happen for the bug to do harm.
    pub trigger_steps: usize,
}

impl Entry {
    /// The story in the catalogue.
    pub fn application(&self) -> &'static Application {
        match catalogue::find(self.story) {
            Some(story) => story,
            // A test looks for each.
            None => unreachable!("there is no story {:?}", self.story),
        }
    }
}

const fn entry(id: &'static str, story: &'static str, trigger_steps: usize) -> Entry {
    Entry { id, story, trigger_steps }
}

/// The zoo, as docs/zoo.md lists it.
pub const ENTRIES: &[Entry] = &[
    entry("A03", "dlq-publish-not-awaited", 4),
    entry("A12", "outbox-sequence-gap", 5),
    entry("A16", "claim-before-effect", 3),
    entry("B01", "hw-truncation-loss", 4),
    entry("B03", "unclean-rewrite-under-reader", 4),
    entry("C04", "prefetch-autocommit", 4),
    entry("C05", "commit-after-revoke", 5),
    entry("C06", "stale-stored-offset-rewind", 5),
    entry("C09", "async-commit-reorder", 4),
    entry("C11", "latest-on-new-partition", 4),
    entry("C16", "commit-max-with-concurrency", 4),
    entry("C17", "coop-stale-owned-partitions", 4),
    entry("P01", "inflight-retry-reorder", 4),
    entry("P08", "epoch-bump-collateral-dup", 5),
    entry("P10", "cancel-then-dedupe-swallow", 5),
    entry("P14", "delivery-timeout-late-success", 5),
    entry("T01", "delayed-endtxn", 5),
    entry("T02", "hanging-transaction", 5),
    entry("T06", "epoch-bump-splits-transaction", 5),
    entry("T16", "unstable-offset-read", 5),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::{Kind, catalogue};

    #[test]
    fn each_story_has_an_entry() {
        let is_story = |application: &&Application| application.kind == Kind::Story;
        let mut stories: Vec<_> = catalogue().iter().filter(is_story).map(|app| app.name).collect();
        let mut entries: Vec<_> = ENTRIES.iter().map(|entry| entry.application().name).collect();
        stories.sort_unstable();
        entries.sort_unstable();
        assert_eq!(stories, entries);
        assert!(ENTRIES.is_sorted_by_key(|entry| entry.id));
    }
}

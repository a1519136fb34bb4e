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

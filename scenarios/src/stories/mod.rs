//! Failure stories: real delivery bugs of Kafka's applications, clients, and brokers, each as the
//! least code that has it.
//!
//! A story is buggy or fixed, and all else is equal: one decision of the application, one property,
//! or one policy of the simulated cluster. It judges itself by the guarantee that the bug breaks,
//! whose name begins with its id in docs/semantics.md.
//!
//! To write one, copy a short one, and add it to the [catalogue](mod@crate::catalogue).

pub mod claim_before_effect;
pub mod common;
pub mod coop_stale_owned_partitions;
pub mod delivery_timeout_late_success;
pub mod epoch_bump_collateral_dup;
pub mod hanging_transaction;
pub mod hw_truncation_loss;
pub mod inflight_retry_reorder;
pub mod read_back;
pub mod unclean_rewrite_under_reader;

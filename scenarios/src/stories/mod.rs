//! Failure stories: real delivery bugs of Kafka's applications, clients, and brokers, each as the
//! least code that has it.
//!
//! A story is buggy or fixed, and all else is equal: one decision of the application, one property,
//! or one policy of the simulated cluster. It judges itself by the guarantee that the bug breaks,
//! whose name begins with its id in docs/semantics.md.
//!
//! To write one, copy a short one, and add it to the [catalogue](mod@crate::catalogue).

pub mod cancel_then_dedupe_swallow;
pub mod claim_before_effect;
pub mod common;
pub mod delayed_endtxn;
pub mod delivery_timeout_late_success;
pub mod epoch_bump_splits_transaction;
pub mod hanging_transaction;
pub mod read_back;
pub mod unstable_offset_read;

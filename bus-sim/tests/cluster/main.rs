//! Tests of a whole simulated cluster, through the front door.

mod common;
mod determinism;
mod leaders;
mod recorded;
mod stories;
mod storm;
mod transaction_storms;
mod transactions;

//! The cases, by group. Each function states the guarantee that it checks.

pub mod admin;
pub mod commit;
pub mod consume;
pub mod errors;
pub mod exactly_once;
pub mod failover;
pub mod fencing;
pub mod groups;
pub mod isolation;
pub mod lifecycle;
pub mod misuse;
pub mod payload;
pub mod positions;
pub mod produce;
pub mod rebalances;
pub mod replication;
pub mod retries;
pub mod transaction_errors;
pub mod transaction_faults;
pub mod transaction_fencing;
pub mod transactions;

use std::collections::BTreeSet;

use bus_core::{Record, TopicPartition};

use crate::reader::Reader;

/// Whether the readers share so many partitions, each with one owner and as evenly as can be.
fn are_divided(readers: &[&Reader], partitions: usize) -> bool {
    let assignments: Vec<_> = readers.iter().map(|reader| reader.assignment()).collect();
    let sizes: Vec<_> = assignments.iter().map(Vec::len).collect();
    let owned: BTreeSet<_> = assignments.into_iter().flatten().collect();
    let (most, least) = (sizes.iter().max().copied(), sizes.iter().min().copied());
    sizes.iter().sum::<usize>() == partitions
        && owned.len() == partitions
        && most.unwrap_or(0) - least.unwrap_or(0) <= 1
}

/// Where the records are, without repetitions.
fn places(records: &[Record]) -> BTreeSet<(TopicPartition, i64)> {
    records.iter().map(|record| (record.topic_partition(), record.offset)).collect()
}

//! The differential test: the same random programs on the simulator and on a real Kafka.
//!
//! A [program] is a list of steps of producers, consumers, groups, transactions, and
//! administration, one after the other. One `interpreter` runs it over the contract, on either
//! backend, and gives an [outcome] per step: offsets, records, errors, positions, rebalances, and
//! what the cluster says of itself. Whatever differs is a bug of the simulator, of `bus-kafka`, or
//! of our knowledge of Kafka, and Kafka decides which.
//!
//! # The map, in reading order
//! - [`program`], [`slot`], [`data`]: what programs are made of;
//! - [`generate`]: random ones; [`rules`]: what of them is not run, and why;
//! - `interpreter`: runs them; `ledger`: how far its reads will come;
//! - [`outcome`]: what came of each step; [`compare`]: where two runs differ;
//! - [`backend`]: the simulator and a real Kafka;
//! - [`campaign`]: many programs side by side; [`shrink`]: makes a divergence small;
//! - [`file`](mod@file): program files; [`replay`]: runs them.
//!
//! # Normalisation
//! Two runs of one program on a real Kafka must give equal outcomes. What would differ is left out
//! of the outcomes, or awaited:
//!
//! | What | Why it differs | What is compared |
//! |---|---|---|
//! | names of topics, groups, transactional ids | each run has a prefix of its own | the slot |
//! | timestamps of the run | clocks | `Now`; times that a program gives are compared as they are |
//! | ids of members, generations, ids of brokers, the cluster's id | drawn, or counted over all runs | that there is one, and how many |
//! | messages of errors | each backend's own words | kind, recovery, and whether it may have happened |
//! | how many records a poll brings, and how partitions take turns | timing | a read polls to the last readable record, per partition; `Take` stops after so many where there is one partition and one record per poll |
//! | when a member learns of a rebalance | heartbeats | after each change its group polls until it is at rest, paused, and what each member saw is compared in order |
//! | guards about no partitions | they may come after the group is at rest | not compared |
//! | when an error about a partition comes | look-ups in the background | it counts for the read that follows; once per partition |
//! | when an assignment, a fall-back to `auto.offset.reset`, or a seek has found its place | look-ups in the background | it is awaited before the next step |
//! | when an offset that is not in the log is found out | a real fetcher begins within a second, and not while a partition is paused | it is awaited before the next step, after a resume too |
//! | when a partition starts whose committed offset an open transaction holds back | it is asked for again and again | it counts as started when the transaction has ended |
//! | how far an auto commit passes aborted records and markers | the fetcher must have come by | a read by a consumer that commits by itself waits for it |
//! | an error that ends a client | every poll repeats it | it counts once |
//! | when unacknowledged records, and markers of transactions, are in the log | nobody says | they are awaited before the next step |
//! | topics of bus users in general | `retention.ms`: old timestamps make a broker delete records within minutes | topics are made with `retention.ms=-1`, and are not compacted (`min.compaction.lag.ms`) |
//!
//! What cannot be awaited is excluded by name: [`rules::Exclusion`].

pub mod backend;
pub mod campaign;
pub mod compare;
pub mod data;
pub mod file;
pub mod generate;
mod interpreter;
mod ledger;
pub mod outcome;
pub mod program;
pub mod replay;
pub mod rules;
pub mod shrink;
pub mod slot;

/// The runtime that campaigns run in.
///
/// # Errors
/// If the system has no threads left.
pub fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()
}

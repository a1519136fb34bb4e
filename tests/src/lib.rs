//! The conformance suite: one list of cases that every backend must pass.
//!
//! A case is an async function over a [`Bus`](bus_core::Bus) that states the guarantee it checks.
//! It is handed a [`Cx`](cx::Cx): a bus whose clients write a [history], names of its own, waiting
//! without sleeping, and the powers of the backend. Behind every case stands the [audit], which
//! reads what the cluster holds, and the [oracle], which judges the history by laws that hold
//! whatever a case is about.
//!
//! # The map, in reading order
//! - [`suite`]: the table of contents;
//! - [`cases`]: the cases, by group;
//! - [`case`]: what a case is; [`failure`]: how it fails;
//! - [`cx`], [`reader`], [`process`], [`script`]: what cases are written with;
//! - [`history`], [`recorded`]: who writes the history; [`oracle`], [`audit`]: who judges it;
//! - [`fixture`]: what a backend provides; [`on_sim`], [`on_kafka`]: the two;
//! - [`mod@column`]: on what the suite runs; [`runner`]: one run of a case; [`trials`]: of all;
//!   [`results`]: the table of all columns.
//!
//! The runners are in `tests/`: `sim.rs` and `sim3.rs`, the simulator with one and three brokers;
//! `kafka.rs` and `kafka3.rs`, the same on a real Kafka, which `BUS_TEST_KAFKA` and
//! `BUS_TEST_KAFKA3` name; and `mutants.rs`, which plants bugs in the simulator that named cases
//! must catch.

pub mod audit;
pub mod case;
pub mod cases;
pub mod column;
pub mod cx;
pub mod failure;
pub mod fixture;
pub mod history;
pub mod on_kafka;
pub mod on_sim;
pub mod oracle;
pub mod process;
pub mod reader;
pub mod recorded;
pub mod results;
pub mod runner;
pub mod script;
pub mod suite;
pub mod trials;

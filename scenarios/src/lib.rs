//! Applications on the bus: what teams build on Kafka, as plain async code against `bus-core`.
//!
//! Each comes in two [forms](Form) that share everything but the decision at fault: *as written*,
//! with the delivery bug that many such systems have, and *sound*.
//!
//! # The map, in reading order
//! - [`mod@catalogue`]: the applications by name, for the command and for tests;
//! - [`order_export`]: the first application;
//! - [`stories`]: real delivery bugs, each as the least code that has it;
//! - [`store`]: the transactional database that applications share, in memory;
//! - [`mod@commits`]: what a test makes of the commits of a process at such a database;
//! - [`crash_points`]: the places between two effects where a test may crash a process;
//! - [`setting`]: what an application leaves to whoever runs it;
//! - [`lifecycle`]: starts the processes of an application, and ends them;
//! - [`patience`]: tries again what a cluster in trouble does not answer;
//! - [`report`]: what came of a run.
//!
//! # What it is not
//! No application here knows its backend, and none injects a fault: it names the places and the
//! commits where one hurts, and whoever runs it decides.

pub mod catalogue;
pub mod commits;
pub mod crash_points;
pub mod lifecycle;
pub mod order_export;
pub mod patience;
pub mod report;
pub mod setting;
pub mod store;
pub mod stories;

pub use catalogue::{Application, BEYOND, Form, Kind, WorstDay, catalogue, find};
pub use commits::{CommitFate, Commits};
pub use crash_points::{CrashPoints, Reached};
pub use report::{Broken, GroupReport, MemberReport, PartitionReport, Report, Verdict};
pub use setting::Setting;

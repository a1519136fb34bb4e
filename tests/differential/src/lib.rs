//! The differential test: the same random programs on the simulator and on a real Kafka.
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
pub mod rules;
pub mod shrink;
pub mod slot;

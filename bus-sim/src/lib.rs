//! A deterministic simulation of Kafka, in the process.
pub mod broker;
pub mod choice;
pub mod client;
pub mod config;
pub mod digest;
pub mod fact;
pub mod mutation;
pub mod node;
pub mod protocol;
pub mod time;

pub use config::{BrokerConfig, SimConfig};
pub use mutation::Mutation;

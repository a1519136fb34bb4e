//! A broker-agnostic event bus: one API over a real Kafka and over a deterministic simulation.
//!
//! An application is plain async code against [`Bus`]; a URL chooses what is behind it:
//!
//! | URL | What is behind it |
//! |---|---|
//! | `sim://?seed=42` | a simulated cluster in this process, with virtual time: only by [`run()`] |
//! | `kafka://host:9092,host:9093` | a real Kafka through librdkafka: by [`run()`] or [`connect`] |
//!
//! Options behind `?` are properties of Kafka's clients (`linger.ms=0`), and for `sim://` those of
//! the world ([`sim::SimConfig::OPTIONS`]).
//!
//! ```
//! use bus::{NewTopic, ProducerConfig, ProducerRecord};
//!
//! let run = bus::run("sim://?seed=42", |bus| async move {
//!     bus.admin()?.create_topic(NewTopic::new("orders").partitions(3)).await?;
//!     let producer = bus.producer(ProducerConfig::default())?;
//!     producer.send(ProducerRecord::to("orders").key("order-1").value("{}")).await
//! })?;
//! assert_eq!(run.output?.offset, Some(0));
//! assert_eq!(run.report.seed, Some(42));
//! # Ok::<_, bus::Error>(())
//! ```
//!
//! # The map
//! - everything of `bus-core`: the contract, and where to read on;
//! - [`run()`], [`connect`]: from a URL to a [`Bus`];
//! - [`sim`]: the simulator, for tests that crash processes and brokers;
//! - [`explore`]: the applications of the catalogue on their worst days;
//! - [`kafka`]: a real Kafka on this machine, in one call;
//! - [`picture`]: what a simulation did, as a page or as text.

mod connect;
pub mod explore;
pub mod kafka;
pub mod picture;
mod run;

pub use bus_core::*;
/// The simulator: [`sim::Sim`] runs an application and hands out what can be done to its world.
pub use bus_sim as sim;
pub use connect::connect;
pub use run::{Run, RunReport, run, try_run};

/// Keeps the example of the README true.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;

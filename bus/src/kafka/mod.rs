//! A real Apache Kafka on this machine, in one call, for tests and for trying things out.
//!
//! [`Cluster::up`] fetches Kafka's jars from Maven Central (once), formats the data of one broker
//! or several, starts each as a process of its own on 127.0.0.1, and returns when all of them
//! answer. The brokers outlive the program that started them; a later one finds them by the
//! cluster's name and its `cluster.json`. It needs a JDK and Maven, and runs on Unix.
//!
//! It is not a way to run Kafka in production: nothing is encrypted, every broker is also a
//! controller, and the settings are those that make tests quick (`properties.rs` says each).
//!
//! ```no_run
//! use bus::kafka::{Cluster, Options};
//!
//! let mut cluster = Cluster::up(&Options { brokers: Some(3), ..Options::default() })?;
//! println!("{}", cluster.url()); // kafka://127.0.0.1:9092,127.0.0.1:9093,127.0.0.1:9094
//! cluster.kill(2)?; // like a machine that lost its power
//! cluster.start(2)?;
//! cluster.down()?;
//! # Ok::<(), bus::kafka::Error>(())
//! ```
//!
//! # Layout
//! - `command`: the command line `bus kafka …`; prints, and decides nothing.
//! - `options`: what is asked for. `cluster`: its life: up, down, and what happens to one broker.
//! - `properties`: the settings of a broker. `distribution`: Java and the jars.
//! - `manifest`: files and what they remember. `process`, `probe`, `log`, `ports`: how the
//!   cluster looks at a process, a socket, a log, and the ports of this machine.

pub mod command;

mod cluster;
mod distribution;
mod error;
mod log;
mod manifest;
mod options;
mod ports;
mod probe;
mod process;
mod properties;

pub use cluster::{BrokerState, BrokerStatus, Cluster, Data};
pub use error::Error;
pub use options::{Options, Step};
pub use properties::KAFKA_VERSION;

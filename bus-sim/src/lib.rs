//! A deterministic simulation of Kafka, in the process: brokers, groups, clients, network, and
//! virtual time.
//!
//! It does not roll dice for outcomes. It runs Kafka's mechanisms over a network that has latency
//! and can break, so duplicates, reorderings, losses, and rebalances follow as they do in reality.
//!
//! # The law
//! Equal seed, configuration, and code give an equal trace, byte for byte, in another process too.
//!
//! # The map, in reading order
//! ```text
//!  application ─▶ driver ─▶ client ─▶ world: queue, network ─▶ broker, controller
//!                   ▲                                              │
//!                   └───────────────── completions ◀───────────────┘
//! ```
//! - [`node`]: what every node is: `handle(now, input, &mut effects)`;
//! - [`protocol`]: requests and responses, one file per API;
//! - [`broker`]: brokers and the controller; [`client`]: producer, consumer, admin;
//! - `world` (private): the loop, the queue, the network, processes, the trace, and the `director`
//!   with its `strike`s, which carry a plan of faults out;
//! - `driver` (private): [`Sim`] runs an application on a world, with tokio;
//! - [`explore`]: many runs, the shrinking of a failure, and its replay;
//! - [`event`]: the record of events with their causes, for pictures;
//! - [`fault`]: what goes wrong, as data; [`choice`]: what is random;
//! - [`config`], [`policy`], [`time`], [`digest`], [`fact`], [`mutation`]: what they say.
//!
//! # What it is not
//! It does not measure performance of Kafka, and it does no real I/O: what is not modeled answers
//! [`Unsupported`](bus_core::ErrorKind::Unsupported) and stands in `docs/fidelity.md`.

pub mod broker;
pub mod choice;
pub mod client;
pub mod config;
pub mod digest;
mod driver;
pub mod event;
pub mod explore;
pub mod fact;
pub mod fault;
pub mod mutation;
pub mod node;
pub mod policy;
pub mod protocol;
pub mod time;
mod world;

pub use config::{BrokerConfig, SimConfig, Truncation};
pub use driver::{Outcome, Sim, SimHandle, SimReport, Size, Stalled};
pub use event::{SimEvent, SimEventKind};
pub use mutation::Mutation;
pub use policy::{AutoCommit, ClientPolicy, OutOfOrder};
pub use protocol::Api;
pub use time::SimTime;
pub use world::TraceHash;

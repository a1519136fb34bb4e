//! The history of a run, the checkers that judge it, and the report.
//!
//! A program on a bus does what it does; this crate says whether what came of it is what Kafka and
//! the configuration promise. A [`Recorder`] stands at the traits of `bus-core` and writes the
//! [`History`]: what each client called for, and what it was told. [`judge`] puts every
//! [`Guarantee`] to the test and gives a [`Report`]. That works on every backend; on the simulator
//! the [`Cluster`], what really happened inside, explains what is permitted, and is judged too.
//!
//! # An example
//! A record is sent with acks 1 to a topic with three replicas, and its leader loses power before
//! anybody has replicated it:
//!
//! ```
//! use std::time::Duration;
//!
//! use bus_check::{Durability, Environment, Guarantee, Recorder, Verdict, judge, sim};
//! use bus_core::{Acks, NewTopic, ProducerConfig, ProducerRecord};
//! use bus_sim::{Sim, SimConfig};
//!
//! // 1. Record a run. The recorder stays outside: it is there even if the run never ends.
//! let recorder = Recorder::default();
//! let written = recorder.clone();
//! let config = SimConfig { brokers: 3, record_facts: true, ..SimConfig::default() };
//! let outcome = Sim::new(config)?.run(|sim| async move {
//!     let bus = written.record(&sim.bus());
//!     let orders = NewTopic::new("orders").replication_factor(3);
//!     bus.admin()?.create_topic(orders).await?;
//!     let producer = bus.producer(ProducerConfig {
//!         acks: Acks::Leader,
//!         enable_idempotence: false,
//!         ..ProducerConfig::default()
//!     })?;
//!     // Whoever leads, its followers do not hear of it any more.
//!     for broker in 1..=3 {
//!         sim.isolate_broker(broker)?;
//!     }
//!     producer.send(ProducerRecord::to("orders").value("lost")).await?;
//!     for broker in 1..=3 {
//!         sim.lose_power(broker)?;
//!         sim.restart_broker(broker)?;
//!     }
//!     // 2. Heal, wait, and let fresh readers read everything.
//!     sim.heal();
//!     written.quiesced();
//!     tokio::time::sleep(Duration::from_secs(60)).await;
//!     written.audit().await
//! });
//! outcome.result.expect("it ends")?;
//!
//! // 3. Judge it.
//! let cluster = sim::cluster(&outcome.report);
//! let unsafe_cluster = Environment { durability: Durability::Unsafe, ..Environment::default() };
//! let report = judge(&recorder.history(), &unsafe_cluster, &cluster);
//! assert!(report.holds(), "acks 1 does not promise that it stays:\n{report}");
//! let lost = report.of(Guarantee::B2).next().expect("it is lost");
//! assert_eq!(lost.verdict, Verdict::Explained);
//! println!("{report}");
//! # Ok::<_, bus_core::Error>(())
//! ```
//!
//! # What a verdict means
//! An anomaly is found first and judged afterwards; [`Verdict`]:
//!
//! - *forbidden*: the condition of the guarantee holds here, so it is broken;
//! - *permitted and explained*: the condition does not hold, and what broke it is known: an entry
//!   of the history, or an event of the cluster;
//! - *permitted but unexplained*: the condition does not hold, but nothing happened that would
//!   break it: a bug of the simulator or of a client, and so a violation too;
//! - *undecided*: nobody knows whether the condition holds, or what happened. Only without a
//!   simulator.
//!
//! Each finding has a minimal witness, two to six entries of the history or events of the cluster,
//! and says in a sentence what happened. A guarantee that was never put to the test is told apart
//! from one that held.
//!
//! # Who decides what
//! - [`History`] and [`Model`]: what clients saw, and what that proves;
//! - [`check`]: one checker per guarantee: of A to F and H they see only the history;
//! - [`Cluster`] and [`check::white`]: G, and what of B, D, F, and H needs to look inside;
//! - [`Environment`]: what the run's configuration promises; [`GroundTruth`]: the seam to what
//!   really happened;
//! - [`Guarantee::table`]: all guarantees with their conditions, and what is not decided.
//!
//! Features: `sim` makes a [`Cluster`] of a finished simulation.

pub mod check;
pub mod cluster;
pub mod digest;
pub mod environment;
pub mod guarantee;
pub mod history;
pub mod model;
pub mod picture;
pub mod record;
pub mod report;
#[cfg(feature = "sim")]
pub mod sim;
pub mod story;
pub mod truth;
pub mod verdict;

pub use cluster::Cluster;
pub use environment::{CommitMode, Durability, Environment, Removal};
pub use guarantee::{Guarantee, UnknownGuarantee};
pub use history::History;
pub use model::Model;
pub use record::{Handling, Recorder};
pub use report::Report;
pub use truth::{Cause, GroundTruth, NoTruth, Question, Truth};
pub use verdict::{Explanation, Finding, Outcome, Verdict, judge};

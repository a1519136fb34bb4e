//! The contract of the bus: what an application may ask of Kafka, or of a simulated one.
//!
//! An application is plain async code against [`Bus`]; it does not know its backend.
//!
//! # The map, in reading order
//! - [`record`]: records, topics, partitions, offsets, headers;
//! - [`error`]: the one error of all backends and its three answers;
//! - [`producer`]: [`Producer::send`] gives a [`Delivery`];
//! - [`consumer`]: [`Consumer::poll`] gives records or a rebalance guard;
//! - [`admin`]: topics, groups, the cluster;
//! - [`bus`]: [`Bus`] makes the three above and gives time, identity, tasks, and processes;
//! - [`config`]: configuration structs and the table of Kafka's property names;
//! - [`event`]: typed events in CloudEvents envelopes;
//! - [`partitioner`]: Kafka's murmur2; [`address`]: the bus URL.
//!
//! # What it is not
//! No backend lives here, and none is named: `bus-kafka` and `bus-sim` implement the traits, and
//! the crate `bus` chooses between them by URL.
//!
//! ```
//! use std::time::Duration;
//!
//! use bus_core::{Bus, ConsumerConfig, ConsumerExt, ProducerConfig, ProducerRecord, Result};
//! use bus_core::Subscription;
//!
//! /// Copies `from` to `to`, each record at least once.
//! async fn copy(bus: Bus, from: &str, to: &str) -> Result<()> {
//!     let producer = bus.producer(ProducerConfig::default())?;
//!     let consumer = bus.consumer(ConsumerConfig::in_group("copy"))?;
//!     consumer.subscribe(Subscription::topics([from]))?;
//!     loop {
//!         for record in consumer.poll_records(Duration::from_secs(1)).await? {
//!             let mut copy = ProducerRecord::to(to);
//!             copy.key = record.key.clone();
//!             copy.value = record.value.clone();
//!             producer.send(copy).await?;
//!             consumer.commit_record(&record).await?;
//!         }
//!     }
//! }
//! ```

pub mod address;
pub mod admin;
pub mod bus;
pub mod config;
pub mod consumer;
pub mod error;
pub mod event;
mod outcome;
pub mod partitioner;
pub mod producer;
pub mod record;

pub use address::BusUrl;
pub use admin::{
    Admin, BrokerDescription, ClusterDescription, GroupDescription, GroupListing, GroupOffset,
    GroupState, MemberDescription, NewTopic, PartitionDescription, TopicDescription,
};
pub use bus::{Backend, Bus, ProcessStart, Task};
pub use bytes::Bytes;
pub use config::{
    Acks, Assignor, CompressionType, ConsumerConfig, IsolationLevel, OffsetReset, ProducerConfig,
    TransactionConfig,
};
pub use consumer::{
    Commit, CommitSender, Consumer, ConsumerExt, GroupMetadata, NativeGroupMetadata,
    OffsetAndMetadata, Polled, Rebalance, RebalanceCompleter, RebalanceGuard, RebalanceKind,
    StartAt, Subscription, Watermarks,
};
pub use error::{Effect, Error, ErrorKind, Operation, Recovery, Result};
pub use event::{Bincode, Codec, Envelope, Event, Json};
pub use futures_util::future::BoxFuture;
pub use producer::{
    Delivery, DeliverySender, Producer, ProducerExt, RecordMetadata, TransactionalProducer,
};
pub use record::{
    Header, Headers, Offset, Partition, ProducerRecord, Record, Timestamp, TimestampType, Topic,
    TopicPartition,
};
pub use uuid::Uuid;

//! The bus on a real Kafka: the traits of bus-core on librdkafka, through rdkafka.
//!
//! # The map, in reading order
//! - [`connect`] and [`KafkaBus`] (`bus.rs`): options, the first broker, the clients;
//! - `config.rs`: the options of the URL, and the bus's configuration in librdkafka's properties;
//! - `producer.rs`: `send` and its outcome; `producer/buffer.rs`: room and flushes;
//!   `producer/thread.rs`: the thread that serves librdkafka; `producer/transaction.rs`:
//!   transactions;
//! - `consumer.rs` and its modules: the queue of events, and what `poll` makes of it;
//! - `admin.rs`, `metadata.rs`: topics, groups, the cluster;
//! - `error.rs`: librdkafka's codes as kinds; `context.rs`: its log, statistics, and errors as
//!   `tracing` events; `offload.rs`: what must not be dropped on a thread of the runtime;
//! - `ffi.rs`: the only `unsafe`, for what rdkafka leaves out.
//!
//! # Trait method ↔ librdkafka
//! | Method | librdkafka (without `rd_kafka_`) |
//! |---|---|
//! | `Producer::send` | `producev`, with the delivery as the opaque |
//! | `Producer::ready` | none: the bus counts (`producer/buffer.rs`) |
//! | `Producer::flush` | `flush`, which turns lingering off; the bus counts what is left |
//! | `Producer::partitions_for` | `metadata` |
//! | `Producer::close` | `flush`, `purge`, `destroy` |
//! | `TransactionalProducer::init_transactions` | `init_transactions` |
//! | `TransactionalProducer::begin` | `begin_transaction` |
//! | `TransactionalProducer::send_offsets` | `send_offsets_to_transaction` |
//! | `TransactionalProducer::commit`, `abort` | `commit_transaction`, `abort_transaction` |
//! | `Consumer::subscribe` | `subscribe` |
//! | `Consumer::unsubscribe` | `unsubscribe`, and the answer to its revocation |
//! | `Consumer::assign` | `assign`; times by `offsets_for_times` first |
//! | `Consumer::poll` | `queue_poll` without waiting, woken by the queue's event callback |
//! | `RebalanceGuard::complete` | `assign`, `incremental_assign`, `incremental_unassign` |
//! | `Consumer::seek` | `seek_partitions`; before the fetcher started, assigning anew |
//! | `Consumer::pause`, `resume` | `pause_partitions`, `resume_partitions` |
//! | `Consumer::commit` | `commit_queue`, with a queue of its own for the replies |
//! | `Consumer::store_offsets` | `offsets_store` |
//! | `Consumer::committed` | `committed` |
//! | `Consumer::position`, `assignment`, `paused` | none: the bus keeps them |
//! | `Consumer::watermarks` | `query_watermark_offsets`, by the isolation level |
//! | `Consumer::offsets_for_times` | `offsets_for_times` |
//! | `Consumer::group_metadata` | `consumer_group_metadata` |
//! | `Consumer::close` | `consumer_close_queue`, `destroy` |
//! | `Admin::create_topic` | `CreateTopics`, then `metadata` until its leaders answer |
//! | `Admin::create_partitions` | `CreatePartitions`, then the same |
//! | `Admin::delete_topic` | `DeleteTopics`, then `metadata` until it is gone |
//! | `Admin::describe_topic`, `list_topics` | `metadata` |
//! | `Admin::describe_cluster` | `metadata`, `clusterid` |
//! | `Admin::list_groups`, `describe_group` | `ListConsumerGroups`, `DescribeConsumerGroups` |
//! | `Admin::group_offsets` | `ListConsumerGroupOffsets`, `ListOffsets` |
//! | `Admin::delete_group` | `DeleteGroups` |
//!
//! # Threads
//! librdkafka has threads of its own. The bus adds one per producer, which takes the outcomes, and
//! short ones to close clients; calls that wait for a broker run on the runtime's blocking threads.
//! Nothing of the application runs on any of them. A runtime with time enabled must be there for as
//! long as the bus is used.
//!
//! # What differs from the contract
//! In `docs/fidelity.md`; in short:
//! - [`Unsupported`](ErrorKind::Unsupported) for now: changing offsets of a group, topic
//!   configuration, deleting records;
//! - [`Unsupported`](ErrorKind::Unsupported) for good: the timestamp 0, which librdkafka takes for
//!   none;
//! - a NUL in the name of a header ends the name when it is read;
//! - a seek takes effect when the fetch that is under way returns (`fetch.wait.max.ms`);
//! - a delivery timeout is noticed up to a second late, and a heartbeat may be sent as late;
//! - closing a member while it waits to join takes up to 5 s, unless the others rejoin;
//! - an `OAUTHBEARER` token comes only from what librdkafka does itself.
//!
//! # Features
//! `ssl`, `ssl-vendored`, `gssapi`, and `zstd` add to the librdkafka that is built along; without
//! them it needs a C compiler and make only. The properties of a feature that is not built in are
//! [`InvalidConfig`](ErrorKind::InvalidConfig).

mod admin;
mod bus;
mod config;
mod consumer;
mod context;
mod error;
mod ffi;
mod metadata;
mod offload;
mod producer;

use std::time::{Duration, Instant};

use bus_core::{Error, ErrorKind, Result};
use tokio::runtime::Handle;
use tokio::task::JoinError;

pub use bus::{KafkaBus, connect};
pub use consumer::NativeConsumer;
pub use context::Context;
pub use producer::{NativeProducer, ProducerContext, Ticket};

/// How long an operation waits for brokers where the contract gives it no time.
const OPERATION_TIMEOUT: Duration = Duration::from_secs(30);

/// Runs a call that blocks on a thread that may.
async fn blocking<T: Send + 'static>(
    runtime: &Handle,
    call: impl FnOnce() -> T + Send + 'static,
) -> Result<T> {
    runtime.spawn_blocking(call).await.map_err(blocking_failed)
}

/// The attempts of a call on a blocking thread, with a pause before each next one.
struct Attempts {
    end: Instant,
    pause: Duration,
}

impl Attempts {
    fn within(limit: Duration) -> Self {
        Self { end: Instant::now() + limit, pause: Duration::from_millis(1) }
    }

    /// Pauses, twice as long as before. `false` if the time is up.
    fn pause(&mut self) -> bool {
        const PAUSE_MAX: Duration = Duration::from_millis(100);

        if Instant::now() >= self.end {
            return false;
        }
        std::thread::sleep(self.pause);
        self.pause = (self.pause * 2).min(PAUSE_MAX);
        true
    }
}

fn blocking_failed(error: JoinError) -> Error {
    Error::new(ErrorKind::Backend, "the runtime shut down before the call was done")
        .with_source(error)
}

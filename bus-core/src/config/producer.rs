//! Configuration of producers.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::known::Client;
use super::value::named_values;
use super::{conflict, property_table};
use crate::error::Result;

/// How many replicas must have a record before it counts as delivered (`acks`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Acks {
    /// 0: none; the broker does not even answer. At most once.
    None,
    /// 1: the leader, which may lose it when it fails before a follower has it.
    Leader,
    /// all (-1): every in-sync replica.
    #[default]
    All,
}

named_values!(Acks, All = "all" | "-1", None = "0", Leader = "1");

/// How batches are compressed on the wire (`compression.type`). Consumers do not see it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[expect(missing_docs, reason = "each is the algorithm of that name")]
pub enum CompressionType {
    #[default]
    None,
    Gzip,
    Snappy,
    Lz4,
    Zstd,
}

named_values!(
    CompressionType,
    None = "none",
    Gzip = "gzip",
    Snappy = "snappy",
    Lz4 = "lz4",
    Zstd = "zstd",
);

/// Configuration of a producer.
///
/// ```
/// use std::time::Duration;
///
/// use bus_core::{Acks, ProducerConfig};
///
/// let mut config = ProducerConfig { linger: Duration::from_millis(100), ..Default::default() };
/// config.set("max.in.flight.requests.per.connection", "1")?;
/// assert_eq!((config.acks, config.max_in_flight), (Acks::All, 1));
/// let error = config.set("linger.mss", "1").unwrap_err();
/// assert!(error.to_string().contains("linger.ms"));
/// # Ok::<_, bus_core::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProducerConfig {
    /// `client.id`: names the client in the logs of the brokers. `None`: the backend chooses.
    pub client_id: Option<String>,
    /// `acks`. All: anything less loses acknowledged records.
    pub acks: Acks,
    /// `enable.idempotence`. On: a retry is neither a duplicate nor a reordering (KIP-98). Needs
    /// `acks=all` and at most 5 in flight; a conflict is an error, never silently off.
    pub enable_idempotence: bool,
    /// `max.in.flight.requests.per.connection`. 5: the most that idempotence can keep in order.
    pub max_in_flight: u32,
    /// `retries`. As good as unlimited: `delivery_timeout` is the bound that people think in.
    pub retries: u32,
    /// `retry.backoff.ms`, the first pause before a retry; it doubles up to `retry_backoff_max`.
    /// 100 ms, as in Kafka.
    pub retry_backoff: Duration,
    /// `retry.backoff.max.ms`. 1 s, as in Kafka.
    pub retry_backoff_max: Duration,
    /// `delivery.timeout.ms`: from `send` to success or failure. 2 minutes, as in Kafka.
    pub delivery_timeout: Duration,
    /// `request.timeout.ms`: how long the leader waits for the in-sync replicas. 30 s, as in Kafka.
    pub request_timeout: Duration,
    /// `linger.ms`: how long a batch waits to fill up. 5 ms, as in Kafka 4.
    pub linger: Duration,
    /// `batch.size`, in bytes. 1 MB, librdkafka's; Java's 16 KiB costs throughput.
    pub batch_size: u32,
    /// `batch.num.messages`, in records. 10,000, as in librdkafka.
    pub batch_records: u32,
    /// `queue.buffering.max.messages`: records in the buffer, in flight included. 100,000, as in
    /// librdkafka.
    pub buffer_records: u32,
    /// `queue.buffering.max.kbytes`: KiB in the buffer, in flight included. 1 GiB, as in
    /// librdkafka.
    pub buffer_kbytes: u32,
    /// `message.max.bytes` (Java: `max.request.size`): the largest record, in bytes with its key,
    /// value, and headers. 1 MB, as in librdkafka.
    pub max_request_size: u32,
    /// `compression.type`. None: the cheapest to understand.
    pub compression: CompressionType,
    /// `sticky.partitioning.linger.ms`: how long records without key stay with one partition.
    /// 10 ms, as in librdkafka.
    pub sticky_linger: Duration,
    /// All other properties of librdkafka, for the backend.
    pub properties: BTreeMap<String, String>,
}

impl Default for ProducerConfig {
    fn default() -> Self {
        Self {
            client_id: None,
            acks: Acks::All,
            enable_idempotence: true,
            max_in_flight: 5,
            retries: i32::MAX as u32,
            retry_backoff: Duration::from_millis(100),
            retry_backoff_max: Duration::from_secs(1),
            delivery_timeout: Duration::from_mins(2),
            request_timeout: Duration::from_secs(30),
            linger: Duration::from_millis(5),
            batch_size: 1_000_000,
            batch_records: 10_000,
            buffer_records: 100_000,
            buffer_kbytes: 1 << 20,
            max_request_size: 1_000_000,
            compression: CompressionType::None,
            sticky_linger: Duration::from_millis(10),
            properties: BTreeMap::new(),
        }
    }
}

property_table! {
    ProducerConfig, Client::Producer,
    "client.id" => client_id,
    "acks" | "request.required.acks" => acks,
    "enable.idempotence" => enable_idempotence,
    "max.in.flight.requests.per.connection" | "max.in.flight" => max_in_flight,
    "retries" | "message.send.max.retries" => retries,
    "retry.backoff.ms" => retry_backoff,
    "retry.backoff.max.ms" => retry_backoff_max,
    "delivery.timeout.ms" | "message.timeout.ms" => delivery_timeout,
    "request.timeout.ms" => request_timeout,
    "linger.ms" | "queue.buffering.max.ms" => linger,
    "batch.size" => batch_size,
    "batch.num.messages" => batch_records,
    "queue.buffering.max.messages" => buffer_records,
    "queue.buffering.max.kbytes" => buffer_kbytes,
    "message.max.bytes" | "max.request.size" => max_request_size,
    "compression.type" | "compression.codec" => compression,
    "sticky.partitioning.linger.ms" => sticky_linger,
}

impl ProducerConfig {
    /// Checks each value and how they go together.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`](crate::ErrorKind), naming the property and what would be right.
    pub fn validate(&self) -> Result<()> {
        let positive = [
            ("max.in.flight.requests.per.connection", self.max_in_flight),
            ("batch.size", self.batch_size),
            ("batch.num.messages", self.batch_records),
            ("queue.buffering.max.messages", self.buffer_records),
            ("queue.buffering.max.kbytes", self.buffer_kbytes),
        ];
        if let Some((name, _)) = positive.iter().find(|(_, value)| *value == 0) {
            return Err(conflict(format!("property {name} must be at least 1")));
        }
        if !(1_000..=1_000_000_000).contains(&self.max_request_size) {
            return Err(conflict("property message.max.bytes must be from 1000 to 1000000000"));
        }
        if self.enable_idempotence {
            self.validate_idempotence()?;
        }
        if self.delivery_timeout <= self.linger {
            return Err(conflict("property delivery.timeout.ms must be greater than linger.ms"));
        }
        Ok(())
    }

    fn validate_idempotence(&self) -> Result<()> {
        let wrong = if self.acks != Acks::All {
            "acks must be all"
        } else if self.max_in_flight > 5 {
            "max.in.flight.requests.per.connection must be at most 5"
        } else if self.retries == 0 {
            "retries must be at least 1"
        } else {
            return Ok(());
        };
        Err(conflict(format!(
            "with enable.idempotence=true {wrong}; or set enable.idempotence=false"
        )))
    }
}

/// Configuration of transactions, on top of [`ProducerConfig`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransactionConfig {
    /// `transactional.id`: who the producer is across restarts; the newest fences the older.
    pub transactional_id: String,
    /// `transaction.timeout.ms`: the coordinator aborts an open transaction after this. 1 minute,
    /// as in Kafka. It also bounds the producer's `delivery_timeout`: what is delivered later can
    /// be no part of the transaction.
    pub transaction_timeout: Duration,
}

impl TransactionConfig {
    /// The configuration of a transactional id, with defaults.
    pub fn new(transactional_id: impl Into<String>) -> Self {
        Self {
            transactional_id: transactional_id.into(),
            transaction_timeout: Duration::from_mins(1),
        }
    }

    /// The configuration of a producer within the bounds of its transactions.
    #[must_use]
    pub fn bound(&self, producer: ProducerConfig) -> ProducerConfig {
        let delivery_timeout = producer.delivery_timeout.min(self.transaction_timeout);
        ProducerConfig { delivery_timeout, ..producer }
    }

    /// Checks the values, and that `producer` fits.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`](crate::ErrorKind).
    pub fn validate(&self, producer: &ProducerConfig) -> Result<()> {
        if self.transactional_id.is_empty() {
            return Err(conflict("property transactional.id must not be empty"));
        }
        if !producer.enable_idempotence {
            return Err(conflict("transactions need enable.idempotence=true"));
        }
        if !(1_000..=i32::MAX as u128).contains(&self.transaction_timeout.as_millis()) {
            return Err(conflict(
                "property transaction.timeout.ms must be from 1000 to 2147483647",
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn properties_round_trip() {
        let mut config = ProducerConfig { acks: Acks::Leader, ..Default::default() };
        config.set("enable.idempotence", "false").unwrap();
        config.set("socket.keepalive.enable", "true").unwrap();
        let mut read = ProducerConfig::default();
        for (name, value) in config.to_properties() {
            read.set(&name, &value).unwrap();
        }
        assert_eq!(read, config);
    }

    #[test]
    fn idempotence_is_never_silently_off() {
        for (name, value) in
            [("acks", "1"), ("max.in.flight.requests.per.connection", "6"), ("retries", "0")]
        {
            let mut config = ProducerConfig::default();
            config.set(name, value).unwrap();
            let error = config.validate().unwrap_err();
            assert!(error.to_string().contains("enable.idempotence"), "{error}");
        }
    }

    #[test]
    fn no_delivery_takes_longer_than_its_transaction() {
        let transaction_timeout = Duration::from_secs(7);
        let transaction = TransactionConfig { transaction_timeout, ..TransactionConfig::new("t") };
        let bounded = transaction.bound(ProducerConfig::default());
        assert_eq!(bounded.delivery_timeout, transaction_timeout);
        let brief = ProducerConfig { delivery_timeout: Duration::from_secs(1), ..bounded };
        assert_eq!(transaction.bound(brief.clone()), brief);
    }

    #[test]
    fn transactions_have_a_name_a_time_and_idempotence() {
        let producer = ProducerConfig::default();
        let plain = ProducerConfig { enable_idempotence: false, ..producer.clone() };
        let timed = |millis| TransactionConfig {
            transaction_timeout: Duration::from_millis(millis),
            ..TransactionConfig::new("t")
        };
        for (transaction, producer, part) in [
            (TransactionConfig::new(""), &producer, "transactional.id"),
            (TransactionConfig::new("t"), &plain, "enable.idempotence"),
            (timed(999), &producer, "transaction.timeout.ms"),
            (timed(1 << 31), &producer, "transaction.timeout.ms"),
        ] {
            let error = transaction.validate(producer).unwrap_err();
            assert!(error.to_string().contains(part), "{error}");
        }
        assert!(timed(1_000).validate(&producer).is_ok());
    }

    #[test]
    fn wrong_values_say_what_would_be_right() {
        let mut config = ProducerConfig::default();
        for (name, value, part) in [
            ("acks", "2", "all, 0, 1"),
            ("linger.ms", "-1", "milliseconds"),
            ("batch.size", "big", "whole number"),
            ("enable.idempotence", "yes", "true or false"),
            ("group.id", "g", "of consumers"),
            ("partitioner", "random", "murmur2"),
            ("no.such.thing", "1", "unknown property"),
        ] {
            let error = config.set(name, value).unwrap_err();
            assert!(error.to_string().contains(part), "{error}");
        }
    }
}

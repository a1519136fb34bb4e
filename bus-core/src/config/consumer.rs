//! Configuration of consumers.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::known::Client;
use super::value::{Value, named_values};
use super::{conflict, property_table};
use crate::error::Result;

/// Where to start without a committed offset (`auto.offset.reset`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum OffsetReset {
    /// At the log start.
    #[default]
    Earliest,
    /// At the end. Records that came before the first commit are skipped.
    Latest,
    /// Nowhere: `poll` fails with [`NoOffset`](crate::ErrorKind::NoOffset).
    None,
}

named_values!(
    OffsetReset,
    Earliest = "earliest" | "smallest" | "beginning",
    Latest = "latest" | "largest" | "end",
    None = "none" | "error",
);

/// Which records a consumer sees (`isolation.level`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum IsolationLevel {
    /// All up to the high watermark, those of open and aborted transactions included.
    ReadUncommitted,
    /// Up to the last stable offset, without those of aborted transactions.
    #[default]
    ReadCommitted,
}

named_values!(
    IsolationLevel,
    ReadCommitted = "read_committed",
    ReadUncommitted = "read_uncommitted",
);

/// How the leader of a group divides partitions (`partition.assignment.strategy`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Assignor {
    /// Per topic, consecutive partitions per member. Eager.
    Range,
    /// All partitions in turn. Eager.
    RoundRobin,
    /// Balanced, moving as few partitions as can be, and only those stop. Cooperative (KIP-429).
    CooperativeSticky,
}

impl Assignor {
    /// The name in the protocol.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Range => "range",
            Self::RoundRobin => "roundrobin",
            Self::CooperativeSticky => "cooperative-sticky",
        }
    }

    /// Whether a rebalance stops only the partitions that move.
    pub const fn is_cooperative(self) -> bool {
        matches!(self, Self::CooperativeSticky)
    }
}

impl Value for Vec<Assignor> {
    fn parse(text: &str) -> Result<Self, String> {
        let assignors = [Assignor::Range, Assignor::RoundRobin, Assignor::CooperativeSticky];
        text.split(',')
            .map(|name| {
                assignors.into_iter().find(|assignor| assignor.name() == name.trim()).ok_or_else(
                    || format!("must be a list of {}", assignors.map(Assignor::name).join(", ")),
                )
            })
            .collect()
    }

    fn format(&self) -> Option<String> {
        Some(self.iter().map(|assignor| assignor.name()).collect::<Vec<_>>().join(","))
    }
}

/// Configuration of a consumer.
///
/// ```
/// use std::time::Duration;
///
/// use bus_core::{Assignor, ConsumerConfig};
///
/// let config = ConsumerConfig {
///     assignors: vec![Assignor::CooperativeSticky],
///     session_timeout: Duration::from_secs(30),
///     ..ConsumerConfig::in_group("inventory-service-group")
/// };
/// assert!(config.validate().is_ok());
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsumerConfig {
    /// `client.id`: names the client in the logs of the brokers. `None`: the backend chooses.
    pub client_id: Option<String>,
    /// `group.id`: needed to subscribe and to commit.
    pub group_id: Option<String>,
    /// `group.instance.id`: static membership (KIP-345): a restart within the session timeout moves
    /// no partition.
    pub group_instance_id: Option<String>,
    /// `partition.assignment.strategy`: in order of preference; all eager or all cooperative.
    /// Range, then round robin: librdkafka's, and what most groups run.
    pub assignors: Vec<Assignor>,
    /// `auto.offset.reset`. Earliest, unlike Kafka: `latest` skips records silently, and that
    /// should be asked for.
    pub auto_offset_reset: OffsetReset,
    /// `enable.auto.commit`. Off, unlike Kafka: it commits records whose handler still runs.
    pub enable_auto_commit: bool,
    /// `auto.commit.interval.ms`. 5 s, as in Kafka.
    pub auto_commit_interval: Duration,
    /// `enable.auto.offset.store`: whether delivery stores the offset for auto commit; if not,
    /// [`store_offsets`](crate::Consumer::store_offsets) does. On, as in librdkafka.
    pub enable_auto_offset_store: bool,
    /// `isolation.level`. Read committed, as in librdkafka; without transactions it costs nothing.
    pub isolation_level: IsolationLevel,
    /// `session.timeout.ms`: a member without a heartbeat for this long is evicted. 45 s, as in
    /// Kafka.
    pub session_timeout: Duration,
    /// `heartbeat.interval.ms`. 3 s, as in Kafka. A member learns of a rebalance by a heartbeat, so
    /// this bounds how fast a group changes.
    pub heartbeat_interval: Duration,
    /// `max.poll.interval.ms`: the most between two polls; also how long a rebalance waits for the
    /// member. 5 min, as in Kafka.
    pub max_poll_interval: Duration,
    /// `max.poll.records`: the most records that one poll returns; on every backend by the bus
    /// itself. 500, as in Java.
    pub max_poll_records: u32,
    /// `fetch.min.bytes`: a fetch waits for this much. 1, as in Kafka.
    pub fetch_min_bytes: u32,
    /// `fetch.max.bytes`: the most a fetch returns, first batch excepted. 50 MiB, as in Kafka.
    pub fetch_max_bytes: u32,
    /// `max.partition.fetch.bytes`: the same per partition. 1 MiB, as in Kafka.
    pub max_partition_fetch_bytes: u32,
    /// `fetch.wait.max.ms`: how long a fetch waits for `fetch_min_bytes`. 500 ms, as in Kafka.
    pub fetch_max_wait: Duration,
    /// `queued.min.messages`: records to prefetch per partition. 100,000, as in librdkafka.
    pub prefetch_records: u32,
    /// `queued.max.messages.kbytes`: KiB to prefetch; bounds the buffer. 64 MiB, as in librdkafka.
    pub prefetch_kbytes: u32,
    /// `topic.metadata.refresh.interval.ms`: how often topics are looked up, which is when new
    /// partitions and newly matching topics are found. 5 min, as in Kafka.
    pub metadata_refresh_interval: Duration,
    /// All other properties of librdkafka, for the backend.
    pub properties: BTreeMap<String, String>,
}

impl Default for ConsumerConfig {
    fn default() -> Self {
        Self {
            client_id: None,
            group_id: None,
            group_instance_id: None,
            assignors: vec![Assignor::Range, Assignor::RoundRobin],
            auto_offset_reset: OffsetReset::Earliest,
            enable_auto_commit: false,
            auto_commit_interval: Duration::from_secs(5),
            enable_auto_offset_store: true,
            isolation_level: IsolationLevel::ReadCommitted,
            session_timeout: Duration::from_secs(45),
            heartbeat_interval: Duration::from_secs(3),
            max_poll_interval: Duration::from_mins(5),
            max_poll_records: 500,
            fetch_min_bytes: 1,
            fetch_max_bytes: 50 << 20,
            max_partition_fetch_bytes: 1 << 20,
            fetch_max_wait: Duration::from_millis(500),
            prefetch_records: 100_000,
            prefetch_kbytes: 64 << 10,
            metadata_refresh_interval: Duration::from_mins(5),
            properties: BTreeMap::new(),
        }
    }
}

property_table! {
    ConsumerConfig, Client::Consumer,
    "client.id" => client_id,
    "group.id" => group_id,
    "group.instance.id" => group_instance_id,
    "partition.assignment.strategy" => assignors,
    "auto.offset.reset" => auto_offset_reset,
    "enable.auto.commit" | "auto.commit.enable" => enable_auto_commit,
    "auto.commit.interval.ms" => auto_commit_interval,
    "enable.auto.offset.store" => enable_auto_offset_store,
    "isolation.level" => isolation_level,
    "session.timeout.ms" => session_timeout,
    "heartbeat.interval.ms" => heartbeat_interval,
    "max.poll.interval.ms" => max_poll_interval,
    "max.poll.records" => max_poll_records,
    "fetch.min.bytes" => fetch_min_bytes,
    "fetch.max.bytes" => fetch_max_bytes,
    "max.partition.fetch.bytes" | "fetch.message.max.bytes" => max_partition_fetch_bytes,
    "fetch.wait.max.ms" | "fetch.max.wait.ms" => fetch_max_wait,
    "queued.min.messages" => prefetch_records,
    "queued.max.messages.kbytes" => prefetch_kbytes,
    "topic.metadata.refresh.interval.ms" => metadata_refresh_interval,
}

impl ConsumerConfig {
    /// The configuration of a member of a group, with defaults.
    pub fn in_group(group_id: impl Into<String>) -> Self {
        Self { group_id: Some(group_id.into()), ..Self::default() }
    }

    /// Checks each value and how they go together.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`](crate::ErrorKind), naming the property and what would be right.
    pub fn validate(&self) -> Result<()> {
        if self.group_id.as_deref() == Some("") {
            return Err(conflict("property group.id must not be empty"));
        }
        let positive = [
            ("max.poll.records", self.max_poll_records),
            ("fetch.min.bytes", self.fetch_min_bytes),
            ("max.partition.fetch.bytes", self.max_partition_fetch_bytes),
            ("queued.min.messages", self.prefetch_records),
            ("queued.max.messages.kbytes", self.prefetch_kbytes),
        ];
        if let Some((name, _)) = positive.iter().find(|(_, value)| *value == 0) {
            return Err(conflict(format!("property {name} must be at least 1")));
        }
        if self.fetch_max_bytes < self.max_partition_fetch_bytes {
            return Err(conflict(
                "property fetch.max.bytes must be at least max.partition.fetch.bytes",
            ));
        }
        self.validate_group()
    }

    fn validate_group(&self) -> Result<()> {
        let Some(first) = self.assignors.first() else {
            return Err(conflict("property partition.assignment.strategy must name an assignor"));
        };
        if self.assignors.iter().any(|other| other.is_cooperative() != first.is_cooperative()) {
            return Err(conflict(
                "property partition.assignment.strategy must not mix eager and cooperative",
            ));
        }
        if self.heartbeat_interval.is_zero() || self.session_timeout.is_zero() {
            return Err(conflict(
                "properties heartbeat.interval.ms and session.timeout.ms must be at least 1",
            ));
        }
        if self.heartbeat_interval >= self.session_timeout {
            return Err(conflict(
                "property heartbeat.interval.ms must be lower than session.timeout.ms",
            ));
        }
        if self.max_poll_interval < self.session_timeout {
            return Err(conflict(
                "property max.poll.interval.ms must be at least session.timeout.ms",
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
        let mut config = ConsumerConfig::in_group("g");
        config.set("partition.assignment.strategy", "roundrobin,range").unwrap();
        config.set("isolation.level", "read_uncommitted").unwrap();
        config.set("security.protocol", "ssl").unwrap();
        let mut read = ConsumerConfig::default();
        for (name, value) in config.to_properties() {
            read.set(&name, &value).unwrap();
        }
        assert_eq!(read, config);
    }

    #[test]
    fn conflicts_name_both_sides() {
        for (name, value, part) in [
            ("partition.assignment.strategy", "range,cooperative-sticky", "mix"),
            ("heartbeat.interval.ms", "45000", "lower than session.timeout.ms"),
            ("max.poll.interval.ms", "1000", "at least session.timeout.ms"),
            ("max.poll.records", "0", "at least 1"),
        ] {
            let mut config = ConsumerConfig::in_group("g");
            config.set(name, value).unwrap();
            let error = config.validate().unwrap_err();
            assert!(error.to_string().contains(part), "{error}");
        }
    }
}

//! Configuration of the world: the seed, the brokers, the network. All inputs come from here.

use std::time::Duration;

use bus_core::{Error, ErrorKind, Result};

use crate::mutation::Mutation;

/// Configuration of a simulated world. Equal seed, configuration, and code give an equal trace.
///
/// ```
/// use bus_sim::SimConfig;
///
/// let config = SimConfig { seed: 42, brokers: 3, ..Default::default() };
/// assert!(config.validate().is_ok());
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SimConfig {
    /// Decides every choice of the world. 0.
    pub seed: u64,
    /// How many brokers, 1 to 9. One: the smallest world that has all mechanisms of a client.
    pub brokers: i32,
    /// The least time that a message is under way. 200 µs: a data center.
    pub latency_min: Duration,
    /// The most time that a message is under way. 1 ms.
    pub latency_max: Duration,
    /// What every broker is configured with.
    pub broker: BrokerConfig,
    /// A planted bug, for testing the tests. None.
    pub mutation: Option<Mutation>,
    /// The world ends as stalled at this virtual time. 30 days: longer than any timeout of Kafka
    /// but retention.
    pub time_limit: Duration,
    /// The world ends as stalled after this many events. 200 million.
    pub event_limit: u64,
    /// Keep every line of the trace, not only its hash. Off: it costs time and memory.
    pub record_trace: bool,
}

impl Default for SimConfig {
    fn default() -> Self {
        Self {
            seed: 0,
            brokers: 1,
            latency_min: Duration::from_micros(200),
            latency_max: Duration::from_millis(1),
            broker: BrokerConfig::default(),
            mutation: None,
            time_limit: Duration::from_hours(24 * 30),
            event_limit: 200_000_000,
            record_trace: false,
        }
    }
}

impl SimConfig {
    /// Checks the values.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`], naming the field and what would be right.
    pub fn validate(&self) -> Result<()> {
        let wrong = if !(1..=9).contains(&self.brokers) {
            format!("brokers={} must be from 1 to 9", self.brokers)
        } else if self.latency_min > self.latency_max {
            "latency.min.us must not be above latency.max.us".to_owned()
        } else {
            return Ok(());
        };
        Err(Error::new(ErrorKind::InvalidConfig, wrong))
    }
}

/// Configuration of a broker, by Kafka's names; the defaults are Kafka's, except where `bus kafka
/// up` sets others too (named below), so that both backends of the suite are configured alike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerConfig {
    /// `message.max.bytes`: the largest batch, 1,048,588 bytes.
    pub message_max_bytes: u32,
    /// `offsets.topic.num.partitions`: 5 (Kafka: 50).
    pub offsets_topic_partitions: i32,
    /// `group.initial.rebalance.delay.ms`: 0 (Kafka: 3 s).
    pub group_initial_rebalance_delay: Duration,
    /// `group.min.session.timeout.ms`: 100 ms (Kafka: 6 s).
    pub group_min_session_timeout: Duration,
    /// `group.max.session.timeout.ms`: 30 min.
    pub group_max_session_timeout: Duration,
    /// `group.max.size`: unlimited.
    pub group_max_size: usize,
    /// `offsets.retention.minutes`: 7 days.
    pub offsets_retention: Duration,
    /// `offsets.retention.check.interval.ms`: 10 min.
    pub offsets_retention_check_interval: Duration,
    /// `offset.metadata.max.bytes`: 4096.
    pub offset_metadata_max_bytes: usize,
    /// `num.partitions`: 1.
    pub num_partitions: i32,
    /// `default.replication.factor`: 1.
    pub default_replication_factor: i16,
    /// `broker.heartbeat.interval.ms`: 2 s.
    pub broker_heartbeat_interval: Duration,
    /// `broker.session.timeout.ms`: 9 s.
    pub broker_session_timeout: Duration,
    /// `producer.id.expiration.ms`: 1 day.
    pub producer_id_expiration: Duration,
}

impl Default for BrokerConfig {
    fn default() -> Self {
        Self {
            message_max_bytes: 1_048_588,
            offsets_topic_partitions: 5,
            group_initial_rebalance_delay: Duration::ZERO,
            group_min_session_timeout: Duration::from_millis(100),
            group_max_session_timeout: Duration::from_mins(30),
            group_max_size: usize::MAX,
            offsets_retention: Duration::from_hours(7 * 24),
            offsets_retention_check_interval: Duration::from_mins(10),
            offset_metadata_max_bytes: 4096,
            num_partitions: 1,
            default_replication_factor: 1,
            broker_heartbeat_interval: Duration::from_secs(2),
            broker_session_timeout: Duration::from_secs(9),
            producer_id_expiration: Duration::from_hours(24),
        }
    }
}

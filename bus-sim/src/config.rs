//! Configuration of the world: the seed, the brokers, the network. All inputs come from here.

use std::collections::BTreeMap;
use std::time::Duration;

use bus_core::config::{Client, is_known_property};
use bus_core::{BusUrl, ConsumerConfig, Error, ErrorKind, ProducerConfig, Result};

use crate::choice::Overrides;
use crate::fault::Plan;
use crate::mutation::Mutation;
use crate::policy::ClientPolicy;

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
    /// Keep the facts, for those who judge a run or explain what came of it. Off: they take memory.
    pub record_facts: bool,
    /// The world ends as stalled at this virtual time. 30 days: longer than any timeout of Kafka
    /// but retention.
    pub time_limit: Duration,
    /// The world ends as stalled after this many events. 200 million.
    pub event_limit: u64,
    /// Which version of transactions the producers speak. 1: that of librdkafka 2.12. With 2
    /// (KIP-890) partitions are not told to the coordinator, and each end raises the epoch.
    pub transaction_version: u8,
    /// Whether a producer that aborts gives out again the sequences of records that it dropped
    /// although a leader may have them. True: librdkafka 2.12 does. The first batch of the next
    /// transaction may then be taken for a repetition: it is acknowledged, committed, and lost.
    pub abort_reuses_sequences: bool,
    /// What clients do in one way or another, as of today.
    pub client: ClientPolicy,
    /// Properties of Kafka that every client is configured with; they win over what the code says.
    /// None.
    pub client_properties: Vec<(String, String)>,
    /// Sizes of the application that are smaller than on an ordinary day; see
    /// [`SimHandle::size`](crate::SimHandle::size). None.
    pub sizes: BTreeMap<String, usize>,
    /// Whether a topic that asks for more replicas than there are brokers gets one on each, in a
    /// cluster that was made smaller. False: Kafka refuses it.
    pub fewer_replicas: bool,
    /// What goes wrong, and when. Nothing.
    pub plan: Plan,
    /// What is chosen otherwise than the seed says. Nothing.
    pub overrides: Overrides,
    /// Keep every choice that is not harmless, for the report. Off: it costs time and memory.
    pub record_choices: bool,
    /// Keep every line of the trace, not only its hash. Off: it costs time and memory.
    pub record_trace: bool,
    /// Keep every event with its cause, for a picture of the run. Off: it costs time and memory.
    pub record_events: bool,
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
            record_facts: false,
            time_limit: Duration::from_hours(24 * 30),
            event_limit: 200_000_000,
            transaction_version: 1,
            abort_reuses_sequences: true,
            client: ClientPolicy::default(),
            client_properties: Vec::new(),
            sizes: BTreeMap::new(),
            fewer_replicas: false,
            plan: Plan::default(),
            overrides: Overrides::default(),
            record_choices: false,
            record_trace: false,
            record_events: false,
        }
    }
}

impl SimConfig {
    /// Reads a bus URL such as `sim://?seed=42&brokers=3&linger.ms=0`.
    ///
    /// Options are those of [`OPTIONS`](Self::OPTIONS), and properties of Kafka's clients.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`], naming the option and what would be right.
    pub fn from_url(url: &BusUrl) -> Result<Self> {
        if !url.hosts.is_empty() {
            return Err(invalid(format!(
                "a simulation has no address, but the URL names {}; write sim://?seed=42",
                url.hosts.join(",")
            )));
        }
        let mut config = Self::default();
        for (name, value) in &url.options {
            config.set_option(name, value)?;
        }
        config.validate()?;
        Ok(config)
    }

    /// The options of a `sim://` URL beside the properties of Kafka's clients.
    pub const OPTIONS: &'static [&'static str] = &[
        "seed",
        "brokers",
        "latency.min.us",
        "latency.max.us",
        "time.limit.s",
        "event.limit",
        "transaction.version",
        "abort.reuses.sequences",
        "truncation",
        "out.of.order.sequence",
        "validate.leader.epochs",
        "owned.partitions.generation",
        "transaction.partition.verification.enable",
        "offset.fetch.require.stable",
        "auto.commit.policy",
        "offset.store.outlives.assignment",
        "commit.max.in.flight",
        "delivery.timeout.reuses.sequences",
        "epoch.bump.keeps.transaction",
        "mutation",
    ];

    fn set_option(&mut self, name: &str, value: &str) -> Result<()> {
        let number = || {
            value.parse::<u64>().map_err(|_| {
                invalid(format!("option {name}={value:?} must be a whole number from 0 on"))
            })
        };
        let switch = || {
            let wrong = || invalid(format!("option {name}={value:?} must be true or false"));
            value.parse::<bool>().map_err(|_| wrong())
        };
        match name {
            "seed" => self.seed = number()?,
            "brokers" => self.brokers = i32::try_from(number()?).unwrap_or(i32::MAX),
            "latency.min.us" => self.latency_min = Duration::from_micros(number()?),
            "latency.max.us" => self.latency_max = Duration::from_micros(number()?),
            "time.limit.s" => self.time_limit = Duration::from_secs(number()?),
            "event.limit" => self.event_limit = number()?,
            "transaction.version" => {
                self.transaction_version = u8::try_from(number()?).unwrap_or(u8::MAX);
            }
            "abort.reuses.sequences" => self.abort_reuses_sequences = switch()?,
            "transaction.partition.verification.enable" => {
                self.broker.transaction_partition_verification = switch()?;
            }
            "offset.fetch.require.stable" => self.client.offset_fetch_requires_stable = switch()?,
            "delivery.timeout.reuses.sequences" => {
                self.client.timeout_reuses_sequences = switch()?;
            }
            "truncation" => {
                self.broker.truncation = match value {
                    "leader-epoch" => Truncation::ByLeaderEpoch,
                    "high-watermark" => Truncation::ToHighWatermark,
                    _ => return Err(one_of(name, value, "leader-epoch or high-watermark")),
                };
            }
            "epoch.bump.keeps.transaction" => self.client.epoch_bump_keeps_transaction = switch()?,
            "mutation" => {
                let known = || Mutation::ALL.iter().map(|m| m.name()).collect::<Vec<_>>();
                self.mutation = Some(Mutation::from_name(value).ok_or_else(|| {
                    let known = known().join(", ");
                    invalid(format!("no mutation {value:?}; there are {known}"))
                })?);
            }
            _ if self.client.set_option(name, value)? => {}
            _ => self.set_client_property(name, value)?,
        }
        Ok(())
    }

    fn set_client_property(&mut self, name: &str, value: &str) -> Result<()> {
        let of_producers = is_known_property(name, Client::Producer);
        let of_consumers = is_known_property(name, Client::Consumer);
        if !of_producers && !of_consumers {
            // The error of the table names the nearest property, or why this one cannot be set.
            let error = match ConsumerConfig::default().set(name, value) {
                Err(error) => error.message().to_owned(),
                Ok(()) => format!("unknown option {name:?}"),
            };
            let options = Self::OPTIONS.join(", ");
            return Err(invalid(format!("{error}; options of sim:// are {options}")));
        }
        let mut passed_through = BTreeMap::new();
        if of_producers {
            let mut config = ProducerConfig::default();
            config.set(name, value)?;
            passed_through.append(&mut config.properties);
        }
        if of_consumers {
            let mut config = ConsumerConfig::default();
            config.set(name, value)?;
            passed_through.append(&mut config.properties);
        }
        check_passed_through(&passed_through)?;
        self.client_properties.push((name.to_owned(), value.to_owned()));
        Ok(())
    }

    /// `broker.session.timeout.ms`: a single broker has nobody to hand over to.
    pub(crate) fn broker_session_timeout(&self) -> Duration {
        let default = Duration::from_secs(if self.brokers > 1 { 4 } else { 9 });
        self.broker.broker_session_timeout.unwrap_or(default)
    }

    /// `broker.heartbeat.interval.ms`.
    pub(crate) fn broker_heartbeat_interval(&self) -> Duration {
        let default = Duration::from_millis(if self.brokers > 1 { 500 } else { 2_000 });
        self.broker.broker_heartbeat_interval.unwrap_or(default)
    }

    /// A replication factor, or as many as there are brokers.
    pub(crate) fn replication_factor(&self, factor: i16) -> i16 {
        factor.min(i16::try_from(self.brokers).unwrap_or(i16::MAX))
    }

    /// Checks the values.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`], naming the field and what would be right.
    pub fn validate(&self) -> Result<()> {
        let wrong = if !(1..=9).contains(&self.brokers) {
            format!("brokers={} must be from 1 to 9", self.brokers)
        } else if self.latency_min > self.latency_max {
            "latency.min.us must not be above latency.max.us".to_owned()
        } else if !(1..=2).contains(&self.transaction_version) {
            format!("transaction.version={} must be 1 or 2", self.transaction_version)
        } else {
            return self.plan.validate(self.brokers);
        };
        Err(invalid(wrong))
    }
}

/// Beginnings of properties without a field that change nothing that the simulator models, so that
/// a production configuration can be used as it is.
const INERT: &[&str] = &[
    "security.",
    "ssl.",
    "sasl.",
    "https.",
    "enable.ssl.",
    "enable.sasl.",
    "socket.",
    "log",
    "debug",
    "statistics.",
    "api.version.",
    "broker.address.",
    "broker.version.",
    "connections.max.idle.",
    "client.dns.",
    "client.rack",
    "enable.metrics.",
    "receive.message.",
    "message.copy.",
    "check.crcs",
    "compression.level",
    "enable.random.seed",
    "internal.",
    "plugin.",
    "metadata.recovery.",
    "offset.store.method",
];

/// Checks properties that have no field: those that change nothing here are accepted, the others
/// are behavior that is not simulated.
pub(crate) fn check_passed_through(properties: &BTreeMap<String, String>) -> Result<()> {
    match properties.keys().find(|name| !INERT.iter().any(|inert| name.starts_with(inert))) {
        None => Ok(()),
        Some(name) => Err(Error::new(
            ErrorKind::Unsupported,
            format!("property {name} is not simulated; see docs/fidelity.md"),
        )),
    }
}

fn one_of(name: &str, value: &str, values: &str) -> Error {
    invalid(format!("option {name}={value:?} must be {values}"))
}

fn invalid(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidConfig, message)
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
    /// `offsets.commit.timeout.ms`: how long a coordinator waits for replicas, 5 s.
    pub offsets_commit_timeout: Duration,
    /// `offset.metadata.max.bytes`: 4096.
    pub offset_metadata_max_bytes: usize,
    /// `num.partitions`: 1.
    pub num_partitions: i32,
    /// `default.replication.factor`: 3, or as many as there are brokers (Kafka: 1).
    pub default_replication_factor: i16,
    /// `offsets.topic.replication.factor`: 3, or as many as there are brokers.
    pub offsets_topic_replication_factor: i16,
    /// `min.insync.replicas` of topics that say nothing else: 1.
    pub min_insync_replicas: usize,
    /// `unclean.leader.election.enable` of topics that say nothing else: off.
    pub unclean_leader_election: bool,
    /// `auto.leader.rebalance.enable`: on.
    pub auto_leader_rebalance: bool,
    /// `leader.imbalance.check.interval.seconds`: 5 min.
    pub leader_imbalance_check_interval: Duration,
    /// `broker.heartbeat.interval.ms`; `None` for 2 s with one broker, and 500 ms with more
    /// (Kafka: 2 s).
    pub broker_heartbeat_interval: Option<Duration>,
    /// `broker.session.timeout.ms`; `None` for 9 s with one broker, and 4 s with more (Kafka: 9 s).
    pub broker_session_timeout: Option<Duration>,
    /// `controller.quorum.fetch.timeout.ms`: how long the other controllers wait for a crashed one
    /// before they elect the next, 2 s.
    pub controller_quorum_fetch_timeout: Duration,
    /// `controller.quorum.election.backoff.max.ms`: how long an election may take on top, 1 s.
    pub controller_quorum_election_backoff_max: Duration,
    /// `producer.id.expiration.ms`: 1 day.
    pub producer_id_expiration: Duration,
    /// `transaction.state.log.num.partitions`: 5 (Kafka: 50).
    pub transaction_state_partitions: i32,
    /// `transaction.state.log.replication.factor`: 3, or as many as there are brokers.
    pub transaction_state_replication_factor: i16,
    /// `transaction.state.log.min.isr` where there are three replicas: 2. With fewer it is 1
    /// (Kafka: 2).
    pub transaction_state_min_insync_replicas: usize,
    /// `transaction.max.timeout.ms`: 15 min.
    pub transaction_max_timeout: Duration,
    /// `transactional.id.expiration.ms`: 7 days.
    pub transactional_id_expiration: Duration,
    /// `transaction.remove.expired.transaction.cleanup.interval.ms`: 1 h.
    pub transactional_id_expiration_interval: Duration,
    /// `transaction.abort.timed.out.transaction.cleanup.interval.ms`: 500 ms (Kafka: 10 s).
    pub transaction_abort_interval: Duration,
    /// `transaction.partition.verification.enable`: on. Off, as before KIP-890: a late record may
    /// open a transaction that nobody will end.
    pub transaction_partition_verification: bool,
    /// The feature `transaction.version`: 2, as of a new cluster. A client of version 1 goes on as
    /// before; with 2 the coordinator's own aborts raise the epoch as KIP-890 says.
    pub transaction_version: i16,
    /// `replica.lag.time.max.ms`: 30 s. A follower that was not caught up for so long is out of
    /// sync.
    pub replica_lag_time_max: Duration,
    /// `replica.fetch.wait.max.ms`: 500 ms.
    pub replica_fetch_wait_max: Duration,
    /// `replica.fetch.backoff.ms`: 1 s.
    pub replica_fetch_backoff: Duration,
    /// `replica.fetch.max.bytes`: 1 MiB of a partition.
    pub replica_fetch_max_bytes: u32,
    /// `replica.fetch.response.max.bytes`: 10 MiB of all partitions.
    pub replica_fetch_response_max_bytes: u32,
    /// `replica.high.watermark.checkpoint.interval.ms`: 5 s.
    pub high_watermark_flush_interval: Duration,
    /// How long an append is in the page cache only, where a loss of power takes it: 30 s, as Linux
    /// has it (`vm.dirty_expire_centisecs`). Kafka itself leaves flushing to the system.
    pub page_cache_expiry: Duration,
    /// How a replica that begins to follow finds out what to take back: by leader epochs.
    pub truncation: Truncation,
}

/// How a replica that begins to follow a leader finds out which records to take back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Truncation {
    /// Those that the leader does not have, by the epochs of both logs (KIP-101, KIP-279).
    #[default]
    ByLeaderEpoch,
    /// All above its own high watermark, as Kafka did before 0.11: it can lose records that were
    /// acknowledged by all replicas, or keep some that the leader does not have.
    ToHighWatermark,
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
            offsets_commit_timeout: Duration::from_secs(5),
            offset_metadata_max_bytes: 4096,
            num_partitions: 1,
            default_replication_factor: 3,
            offsets_topic_replication_factor: 3,
            min_insync_replicas: 1,
            unclean_leader_election: false,
            auto_leader_rebalance: true,
            leader_imbalance_check_interval: Duration::from_mins(5),
            broker_heartbeat_interval: None,
            broker_session_timeout: None,
            controller_quorum_fetch_timeout: Duration::from_secs(2),
            controller_quorum_election_backoff_max: Duration::from_secs(1),
            producer_id_expiration: Duration::from_hours(24),
            transaction_state_partitions: 5,
            transaction_state_replication_factor: 3,
            transaction_state_min_insync_replicas: 2,
            transaction_max_timeout: Duration::from_mins(15),
            transactional_id_expiration: Duration::from_hours(7 * 24),
            transactional_id_expiration_interval: Duration::from_hours(1),
            transaction_abort_interval: Duration::from_millis(500),
            transaction_partition_verification: true,
            transaction_version: 2,
            replica_lag_time_max: Duration::from_secs(30),
            replica_fetch_wait_max: Duration::from_millis(500),
            replica_fetch_backoff: Duration::from_secs(1),
            replica_fetch_max_bytes: 1 << 20,
            replica_fetch_response_max_bytes: 10 << 20,
            high_watermark_flush_interval: Duration::from_secs(5),
            page_cache_expiry: Duration::from_secs(30),
            truncation: Truncation::ByLeaderEpoch,
        }
    }
}

#[cfg(test)]
mod tests;

//! The options of a bus URL, and the bus's configuration in librdkafka's properties.

use std::time::Duration;

use bus_core::config::{Client, is_known_property};
use bus_core::{
    BusUrl, ConsumerConfig, Error, ErrorKind, OffsetReset, Operation, ProducerConfig, Result,
    TransactionConfig,
};
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};

use crate::error::from_rdkafka;

/// The one option that is the bus's own.
pub(crate) const CONNECT_TIMEOUT: &str = "connect.timeout.ms";

/// The group id of a consumer that has none: librdkafka assigns partitions only within a group. It
/// never joins and never commits, so no broker keeps anything under this name.
pub(crate) const NO_GROUP: &str = "bus-without-group";

/// Room for what the wire adds to the key, value, and headers of a record: librdkafka counts it
/// against `message.max.bytes`, the contract does not.
const WIRE_OVERHEAD: u32 = 64 << 10;

/// The topics that a pattern never matches and that `list_topics` leaves out. Source:
/// `org.apache.kafka.common.internals.Topic`.
pub(crate) const INTERNAL_TOPICS: [&str; 3] =
    ["__consumer_offsets", "__transaction_state", "__share_group_state"];

/// What a bus URL says, checked.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// The addresses, as librdkafka wants them.
    pub(crate) bootstrap: String,
    /// How long `connect` waits for a broker.
    pub(crate) connect_timeout: Duration,
    /// The properties of librdkafka, in the order in which they were written.
    properties: Vec<(String, String)>,
}

impl Options {
    /// Checks a URL: every option is one of producers or of consumers and has a value that it can
    /// have.
    pub(crate) fn parse(url: &BusUrl) -> Result<Self> {
        if url.scheme != "kafka" {
            let message = format!("scheme {:?} is not kafka", url.scheme);
            return Err(Error::new(ErrorKind::InvalidConfig, message));
        }
        if url.hosts.is_empty() {
            let message = "the bus URL names no broker; write kafka://host:9092";
            return Err(Error::new(ErrorKind::InvalidConfig, message));
        }
        let mut options = Self {
            bootstrap: url.hosts.join(","),
            connect_timeout: Duration::from_secs(10),
            properties: Vec::new(),
        };
        for (name, value) in &url.options {
            if name == CONNECT_TIMEOUT {
                options.connect_timeout = parse_timeout(value)?;
            } else {
                check(name, value)?;
                options.properties.push((name.clone(), value.clone()));
            }
        }
        // librdkafka knows more about the values than their names say.
        options.admin_config().create_native_config().map_err(|e| from_rdkafka(&e, CONNECT))?;
        Ok(options)
    }

    /// The configuration of a producer with the options applied, and librdkafka's form of it.
    pub(crate) fn producer(&self, mut config: ProducerConfig) -> Result<Producer> {
        self.apply(&mut config)?;
        self.native_producer(config, None)
    }

    /// The same for a producer of transactions.
    pub(crate) fn transactional_producer(
        &self,
        mut config: ProducerConfig,
        transaction: &TransactionConfig,
    ) -> Result<Producer> {
        self.apply(&mut config)?;
        let config = transaction.bound(config);
        transaction.validate(&config)?;
        self.native_producer(config, Some(transaction))
    }

    fn apply(&self, config: &mut ProducerConfig) -> Result<()> {
        self.of(Client::Producer).try_for_each(|(name, value)| config.set(name, value))
    }

    fn native_producer(
        &self,
        config: ProducerConfig,
        transaction: Option<&TransactionConfig>,
    ) -> Result<Producer> {
        config.validate()?;
        let mut native = self.base(config.to_properties());
        let largest = config.max_request_size.saturating_add(WIRE_OVERHEAD).min(1_000_000_000);
        native.set("message.max.bytes", largest.to_string());
        // The bus counts what is in the buffer itself (`buffer.rs`).
        native.set("queue.buffering.max.messages", "0");
        native.set("queue.buffering.max.kbytes", i32::MAX.to_string());
        native.set("partitioner", "murmur2_random");
        if let Some(TransactionConfig { transactional_id, transaction_timeout }) = transaction {
            native.set("transactional.id", transactional_id);
            native.set("transaction.timeout.ms", transaction_timeout.as_millis().to_string());
        }
        check_native(&native)?;
        Ok(Producer { config, native, is_transactional: transaction.is_some() })
    }

    /// The configuration of a consumer with the options applied, and librdkafka's form of it.
    pub(crate) fn consumer(&self, mut config: ConsumerConfig) -> Result<Consumer> {
        for (name, value) in self.of(Client::Consumer) {
            config.set(name, value)?;
        }
        config.validate()?;
        let properties = config.to_properties();
        let mut native =
            self.base(properties.into_iter().filter(|(name, _)| name != "max.poll.records"));
        if config.auto_offset_reset == OffsetReset::None {
            // librdkafka's name for it.
            native.set("auto.offset.reset", "error");
        }
        if config.group_id.is_none() {
            native.set("group.id", NO_GROUP);
            native.set("enable.auto.commit", "false");
        }
        if native.get("topic.blacklist").is_none() {
            let internal = INTERNAL_TOPICS.map(|topic| format!("^{topic}$"));
            native.set("topic.blacklist", internal.join(","));
        }
        check_native(&native)?;
        Ok(Consumer { config, native })
    }

    /// librdkafka's configuration of the client that administers: what all clients have.
    pub(crate) fn admin_config(&self) -> ClientConfig {
        let both = self.properties.iter().filter(|(name, _)| {
            is_known_property(name, Client::Producer) && is_known_property(name, Client::Consumer)
        });
        self.base(both.cloned())
    }

    /// librdkafka's configuration of the client that asks what groups have committed: a consumer
    /// that joins no group.
    pub(crate) fn group_admin_config(&self) -> ClientConfig {
        let mut config = self.admin_config();
        config.set("group.id", NO_GROUP);
        config.set("enable.auto.commit", "false");
        config
    }

    /// The options that a client of this kind has.
    fn of(&self, client: Client) -> impl Iterator<Item = (&str, &str)> {
        let known = move |name: &str| is_known_property(name, client);
        self.properties
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .filter(move |(name, _)| known(name))
    }

    fn base(&self, properties: impl IntoIterator<Item = (String, String)>) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("client.id", "bus");
        // How long a topic may be unknown before that is an error; librdkafka's 30 s are long for a
        // typing error, and a new topic is everywhere within a second.
        config.set("topic.metadata.propagation.max.ms", "5000");
        for (name, value) in properties {
            config.set(name, value);
        }
        config.set("bootstrap.servers", &self.bootstrap);
        config.set_log_level(log_level(&config));
        config
    }
}

/// A producer's configuration, as the bus and as librdkafka have it.
#[derive(Debug)]
pub(crate) struct Producer {
    pub(crate) config: ProducerConfig,
    pub(crate) native: ClientConfig,
    pub(crate) is_transactional: bool,
}

/// A consumer's configuration, as the bus and as librdkafka have it.
#[derive(Debug)]
pub(crate) struct Consumer {
    pub(crate) config: ConsumerConfig,
    pub(crate) native: ClientConfig,
}

const CONNECT: Operation = Operation::Connect;

fn check_native(native: &ClientConfig) -> Result<()> {
    native.create_native_config().map(drop).map_err(|error| from_rdkafka(&error, CONNECT))
}

fn parse_timeout(value: &str) -> Result<Duration> {
    value.parse::<u32>().ok().filter(|millis| *millis > 0).map_or_else(
        || {
            let message = format!("option {CONNECT_TIMEOUT}={value:?} must be milliseconds from 1");
            Err(Error::new(ErrorKind::InvalidConfig, message))
        },
        |millis| Ok(Duration::from_millis(millis.into())),
    )
}

/// Checks that producers or consumers have the property, and can have the value.
fn check(name: &str, value: &str) -> Result<()> {
    if is_known_property(name, Client::Producer) {
        ProducerConfig::default().set(name, value)?;
    }
    if is_known_property(name, Client::Consumer) || !is_known_property(name, Client::Producer) {
        ConsumerConfig::default().set(name, value)?;
    }
    Ok(())
}

/// How much librdkafka logs: what the property says, all if it debugs, else what is listened to.
fn log_level(config: &ClientConfig) -> RDKafkaLogLevel {
    match config.get("log_level") {
        Some("0") => RDKafkaLogLevel::Emerg,
        Some("1") => RDKafkaLogLevel::Alert,
        Some("2") => RDKafkaLogLevel::Critical,
        Some("3") => RDKafkaLogLevel::Error,
        Some("4") => RDKafkaLogLevel::Warning,
        Some("5") => RDKafkaLogLevel::Notice,
        Some("6") => RDKafkaLogLevel::Info,
        Some(_) => RDKafkaLogLevel::Debug,
        None if config.get("debug").is_some() => RDKafkaLogLevel::Debug,
        None if tracing::enabled!(target: "librdkafka", tracing::Level::DEBUG) => {
            RDKafkaLogLevel::Debug
        }
        None => RDKafkaLogLevel::Info,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(url: &str) -> Result<Options> {
        Options::parse(&url.parse().unwrap())
    }

    #[test]
    fn options_reach_the_clients_that_have_them_and_win() {
        let options =
            parse("kafka://a:1,b:2?linger.ms=7&session.timeout.ms=9000&socket.timeout.ms=1234")
                .unwrap();
        let linger = Duration::from_millis(100);
        let producer = options.producer(ProducerConfig { linger, ..Default::default() }).unwrap();
        assert_eq!(producer.config.linger, Duration::from_millis(7));
        assert_eq!(producer.native.get("linger.ms"), Some("7"));
        assert_eq!(producer.native.get("socket.timeout.ms"), Some("1234"));
        assert_eq!(producer.native.get("session.timeout.ms"), None);
        assert_eq!(producer.native.get("bootstrap.servers"), Some("a:1,b:2"));
        let consumer = options.consumer(ConsumerConfig::in_group("g")).unwrap();
        assert_eq!(consumer.config.session_timeout, Duration::from_secs(9));
        assert_eq!(consumer.native.get("linger.ms"), None);
        assert_eq!(consumer.native.get("max.poll.records"), None);
        assert_eq!(options.admin_config().get("socket.timeout.ms"), Some("1234"));
        assert_eq!(options.admin_config().get("linger.ms"), None);
    }

    #[test]
    fn connect_timeout_is_the_buses_own_option() {
        let options = parse("kafka://a?connect.timeout.ms=1500").unwrap();
        assert_eq!(options.connect_timeout, Duration::from_millis(1500));
        assert_eq!(parse("kafka://a").unwrap().connect_timeout, Duration::from_secs(10));
    }

    #[test]
    fn wrong_options_name_what_is_wrong() {
        for (url, part) in [
            ("kafka://", "names no broker"),
            ("sim://", "not kafka"),
            ("kafka://a?linger.mss=1", "linger.ms"),
            ("kafka://a?linger.ms=soon", "milliseconds"),
            ("kafka://a?isolation.level=none", "read_committed"),
            ("kafka://a?partitioner=random", "murmur2"),
            ("kafka://a?bootstrap.servers=b", "hosts of the bus URL"),
            ("kafka://a?connect.timeout.ms=0", "milliseconds"),
            ("kafka://a?security.protocol=smoke", "security.protocol"),
        ] {
            let error = parse(url).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{url}");
            assert!(error.to_string().contains(part), "{url}: {error}");
        }
    }

    #[test]
    fn values_that_only_librdkafka_knows_are_checked_when_a_client_is_made() {
        let options = parse("kafka://a").unwrap();
        let mut config = ProducerConfig::default();
        config.set("compression.level", "99").unwrap();
        let error = options.producer(config).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig);
        assert!(error.to_string().contains("compression.level"), "{error}");
    }

    #[test]
    fn a_transaction_bounds_the_producer() {
        let options = parse("kafka://a?delivery.timeout.ms=100000").unwrap();
        let transaction_timeout = Duration::from_secs(9);
        let transaction = TransactionConfig { transaction_timeout, ..TransactionConfig::new("t") };
        let make = |config| options.transactional_producer(config, &transaction);
        let producer = make(ProducerConfig::default()).unwrap();
        assert_eq!(producer.config.delivery_timeout, transaction_timeout);
        assert_eq!(producer.native.get("transactional.id"), Some("t"));
        assert_eq!(producer.native.get("transaction.timeout.ms"), Some("9000"));
        let linger = transaction_timeout;
        let error = make(ProducerConfig { linger, ..Default::default() }).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig);
    }

    #[test]
    fn a_record_of_the_largest_size_fits_with_what_the_wire_adds() {
        let options = parse("kafka://a?message.max.bytes=2000").unwrap();
        let producer = options.producer(ProducerConfig::default()).unwrap();
        assert_eq!(producer.config.max_request_size, 2000);
        assert_eq!(producer.native.get("message.max.bytes"), Some("67536"));
    }
}

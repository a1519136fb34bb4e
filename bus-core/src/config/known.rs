//! The properties of librdkafka 2.12 that a client may set, by the client that uses them.
//!
//! Source: librdkafka's `CONFIGURATION.md`. Left out are the callbacks, and the properties that the
//! bus sets itself.

use Client::{Both, Consumer, Producer};

use crate::error::{Error, ErrorKind, Result};

/// Which client uses a property.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Client {
    /// Producers only.
    Producer,
    /// Consumers only.
    Consumer,
    /// All clients.
    Both,
}

/// Whether `client` has a property of that name, in the contract or in librdkafka.
///
/// ```
/// use bus_core::config::{Client, is_known_property};
///
/// assert!(is_known_property("linger.ms", Client::Producer));
/// assert!(!is_known_property("linger.ms", Client::Consumer));
/// assert!(is_known_property("max.poll.records", Client::Consumer));
/// ```
pub fn is_known_property(name: &str, client: Client) -> bool {
    check(name, client).is_ok()
}

/// Checks that `client` has a property of that name.
pub(super) fn check(name: &str, client: Client) -> Result<()> {
    let wrong = if let Some((_, why)) = RESERVED.iter().find(|(reserved, _)| *reserved == name) {
        format!("property {name} cannot be set: {why}")
    } else {
        match KNOWN.iter().find(|(known, _)| *known == name) {
            Some((_, of)) if *of == Both || *of == client || client == Both => return Ok(()),
            Some((_, Producer)) => format!("property {name} is one of producers"),
            Some((_, Consumer | Both)) => format!("property {name} is one of consumers"),
            None => unknown(name),
        }
    };
    Err(Error::new(ErrorKind::InvalidConfig, wrong))
}

fn unknown(name: &str) -> String {
    let nearest = KNOWN
        .iter()
        .map(|(known, _)| (strsim::damerau_levenshtein(known, name), known))
        .min()
        .filter(|(distance, _)| *distance <= name.len() / 3);
    match nearest {
        Some((_, known)) => format!("unknown property {name:?}; did you mean {known}?"),
        None => format!(
            "unknown property {name:?}; known are the properties of librdkafka's CONFIGURATION.md"
        ),
    }
}

/// What the bus decides itself, and why.
const RESERVED: &[(&str, &str)] = &[
    ("bootstrap.servers", "the hosts of the bus URL say it"),
    ("metadata.broker.list", "the hosts of the bus URL say it"),
    ("partitioner", "the bus uses murmur2 on every backend, so that a key has one partition"),
    ("transactional.id", "it belongs to TransactionConfig"),
    ("transaction.timeout.ms", "it belongs to TransactionConfig"),
    ("enable.partition.eof", "poll returns no end-of-partition events"),
    ("group.protocol", "the bus uses the classic protocol"),
    ("group.remote.assignor", "the bus uses the classic protocol"),
    ("delivery.report.only.error", "every send has a delivery"),
    ("log.queue", "the log goes to tracing"),
    ("enabled_events", "the bus handles the events itself"),
];

/// Sorted by name. A name with a field in both configurations is listed once.
const KNOWN: &[(&str, Client)] = &[
    ("acks", Producer),
    ("allow.auto.create.topics", Both),
    ("api.version.fallback.ms", Both),
    ("api.version.request", Both),
    ("api.version.request.timeout.ms", Both),
    ("auto.commit.enable", Consumer),
    ("auto.commit.interval.ms", Consumer),
    ("auto.offset.reset", Consumer),
    ("batch.num.messages", Producer),
    ("batch.size", Producer),
    ("broker.address.family", Both),
    ("broker.address.ttl", Both),
    ("broker.version.fallback", Both),
    ("check.crcs", Consumer),
    ("client.dns.lookup", Both),
    ("client.id", Both),
    ("client.rack", Both),
    ("compression.codec", Producer),
    ("compression.level", Producer),
    ("compression.type", Producer),
    ("connections.max.idle.ms", Both),
    ("consume.callback.max.messages", Consumer),
    ("coordinator.query.interval.ms", Consumer),
    ("debug", Both),
    ("delivery.timeout.ms", Producer),
    ("enable.auto.commit", Consumer),
    ("enable.auto.offset.store", Consumer),
    ("enable.gapless.guarantee", Producer),
    ("enable.idempotence", Producer),
    ("enable.metrics.push", Both),
    ("enable.random.seed", Both),
    ("enable.sasl.oauthbearer.unsecure.jwt", Both),
    ("enable.ssl.certificate.verification", Both),
    ("fetch.error.backoff.ms", Consumer),
    ("fetch.max.bytes", Consumer),
    ("fetch.message.max.bytes", Consumer),
    ("fetch.min.bytes", Consumer),
    ("fetch.queue.backoff.ms", Consumer),
    ("fetch.wait.max.ms", Consumer),
    ("group.id", Consumer),
    ("group.instance.id", Consumer),
    ("group.protocol.type", Consumer),
    ("heartbeat.interval.ms", Consumer),
    ("https.ca.location", Both),
    ("https.ca.pem", Both),
    ("internal.termination.signal", Both),
    ("isolation.level", Consumer),
    ("linger.ms", Producer),
    ("log.connection.close", Both),
    ("log.thread.name", Both),
    ("log_level", Both),
    ("max.in.flight", Both),
    ("max.in.flight.requests.per.connection", Both),
    ("max.partition.fetch.bytes", Consumer),
    ("max.poll.interval.ms", Consumer),
    ("message.copy.max.bytes", Both),
    ("message.max.bytes", Both),
    ("message.send.max.retries", Producer),
    ("message.timeout.ms", Producer),
    ("metadata.max.age.ms", Both),
    ("metadata.recovery.rebootstrap.trigger.ms", Both),
    ("metadata.recovery.strategy", Both),
    ("offset.store.method", Consumer),
    ("offset.store.path", Consumer),
    ("offset.store.sync.interval.ms", Consumer),
    ("partition.assignment.strategy", Consumer),
    ("plugin.library.paths", Both),
    ("produce.offset.report", Producer),
    ("queue.buffering.backpressure.threshold", Producer),
    ("queue.buffering.max.kbytes", Producer),
    ("queue.buffering.max.messages", Producer),
    ("queue.buffering.max.ms", Producer),
    ("queued.max.messages.kbytes", Consumer),
    ("queued.min.messages", Consumer),
    ("queuing.strategy", Producer),
    ("receive.message.max.bytes", Both),
    ("reconnect.backoff.jitter.ms", Both),
    ("reconnect.backoff.max.ms", Both),
    ("reconnect.backoff.ms", Both),
    ("request.required.acks", Producer),
    ("request.timeout.ms", Producer),
    ("retries", Producer),
    ("retry.backoff.max.ms", Both),
    ("retry.backoff.ms", Both),
    ("sasl.kerberos.keytab", Both),
    ("sasl.kerberos.kinit.cmd", Both),
    ("sasl.kerberos.min.time.before.relogin", Both),
    ("sasl.kerberos.principal", Both),
    ("sasl.kerberos.service.name", Both),
    ("sasl.mechanism", Both),
    ("sasl.mechanisms", Both),
    ("sasl.oauthbearer.assertion.algorithm", Both),
    ("sasl.oauthbearer.assertion.claim.aud", Both),
    ("sasl.oauthbearer.assertion.claim.exp.seconds", Both),
    ("sasl.oauthbearer.assertion.claim.iss", Both),
    ("sasl.oauthbearer.assertion.claim.jti.include", Both),
    ("sasl.oauthbearer.assertion.claim.nbf.seconds", Both),
    ("sasl.oauthbearer.assertion.claim.sub", Both),
    ("sasl.oauthbearer.assertion.file", Both),
    ("sasl.oauthbearer.assertion.jwt.template.file", Both),
    ("sasl.oauthbearer.assertion.private.key.file", Both),
    ("sasl.oauthbearer.assertion.private.key.passphrase", Both),
    ("sasl.oauthbearer.assertion.private.key.pem", Both),
    ("sasl.oauthbearer.client.credentials.client.id", Both),
    ("sasl.oauthbearer.client.credentials.client.secret", Both),
    ("sasl.oauthbearer.client.id", Both),
    ("sasl.oauthbearer.client.secret", Both),
    ("sasl.oauthbearer.config", Both),
    ("sasl.oauthbearer.extensions", Both),
    ("sasl.oauthbearer.grant.type", Both),
    ("sasl.oauthbearer.metadata.authentication.type", Both),
    ("sasl.oauthbearer.method", Both),
    ("sasl.oauthbearer.scope", Both),
    ("sasl.oauthbearer.token.endpoint.url", Both),
    ("sasl.password", Both),
    ("sasl.username", Both),
    ("security.protocol", Both),
    ("session.timeout.ms", Consumer),
    ("socket.blocking.max.ms", Both),
    ("socket.connection.setup.timeout.ms", Both),
    ("socket.keepalive.enable", Both),
    ("socket.max.fails", Both),
    ("socket.nagle.disable", Both),
    ("socket.receive.buffer.bytes", Both),
    ("socket.send.buffer.bytes", Both),
    ("socket.timeout.ms", Both),
    ("ssl.ca.certificate.stores", Both),
    ("ssl.ca.location", Both),
    ("ssl.ca.pem", Both),
    ("ssl.certificate.location", Both),
    ("ssl.certificate.pem", Both),
    ("ssl.cipher.suites", Both),
    ("ssl.crl.location", Both),
    ("ssl.curves.list", Both),
    ("ssl.endpoint.identification.algorithm", Both),
    ("ssl.engine.id", Both),
    ("ssl.engine.location", Both),
    ("ssl.key.location", Both),
    ("ssl.key.password", Both),
    ("ssl.key.pem", Both),
    ("ssl.keystore.location", Both),
    ("ssl.keystore.password", Both),
    ("ssl.providers", Both),
    ("ssl.sigalgs.list", Both),
    ("statistics.interval.ms", Both),
    ("sticky.partitioning.linger.ms", Producer),
    ("topic.blacklist", Both),
    ("topic.metadata.propagation.max.ms", Both),
    ("topic.metadata.refresh.fast.cnt", Both),
    ("topic.metadata.refresh.fast.interval.ms", Both),
    ("topic.metadata.refresh.interval.ms", Both),
    ("topic.metadata.refresh.sparse", Both),
    ("max.poll.records", Consumer),
    ("max.request.size", Producer),
    ("fetch.max.wait.ms", Consumer),
];

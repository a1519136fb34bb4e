//! Properties: the `server.properties` of one broker of a local cluster.
//!
//! Every setting states why it is not Kafka's default.

use std::{collections::BTreeMap, path::Path};

use super::{Error, manifest::Manifest};

/// The version of Apache Kafka that runs.
pub const KAFKA_VERSION: &str = "4.3.0";

/// Properties that say who the brokers are and where they live; the launcher would lose them if
/// they were set from outside.
const OWN: [&str; 10] = [
    "advertised.listeners",
    "controller.listener.names",
    "controller.quorum.voters",
    "inter.broker.listener.name",
    "listener.security.protocol.map",
    "listeners",
    "log.dir",
    "log.dirs",
    "node.id",
    "process.roles",
];

/// Returns the text of the `server.properties` of the `index`th broker, with its data in `data`.
pub(super) fn server_properties(manifest: &Manifest, index: usize, data: &Path) -> String {
    let broker = &manifest.brokers[index];
    let voters: Vec<String> = manifest
        .brokers
        .iter()
        .map(|b| format!("{}@127.0.0.1:{}", b.id, b.controller_port))
        .collect();
    let mut lines = BTreeMap::from([
        ("process.roles", "broker,controller".to_owned()),
        ("node.id", broker.id.to_string()),
        ("controller.quorum.voters", voters.join(",")),
        (
            "listeners",
            format!(
                "PLAINTEXT://127.0.0.1:{},CONTROLLER://127.0.0.1:{}",
                broker.port, broker.controller_port
            ),
        ),
        ("advertised.listeners", format!("PLAINTEXT://127.0.0.1:{}", broker.port)),
        ("controller.listener.names", "CONTROLLER".to_owned()),
        ("inter.broker.listener.name", "PLAINTEXT".to_owned()),
        ("listener.security.protocol.map", "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT".to_owned()),
        ("log.dirs", data.display().to_string()),
    ]);
    let settings = settings(manifest.brokers.len());
    lines.extend(settings.iter().map(|(name, value)| (*name, value.clone())));
    lines.extend(manifest.properties.iter().map(|(name, value)| (name.as_str(), value.clone())));

    let mut text = String::from("# Written by `bus kafka`; changes are lost.\n");
    for (name, value) in lines {
        text.extend([name, "=", &value, "\n"]);
    }
    text
}

/// Reads `name=value`.
pub(super) fn parse_property(text: &str) -> Result<(String, String), Error> {
    let invalid = |reason| Error::InvalidProperty { property: text.to_owned(), reason };
    let (name, value) = text.split_once('=').ok_or_else(|| invalid("it has no '='"))?;
    let (name, value) = (name.trim(), value.trim());
    let is_name_char = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if name.is_empty() || !name.chars().all(is_name_char) {
        return Err(invalid("the part before '=' is no name of a property"));
    }
    if value.contains(['\n', '\r', '\\']) {
        return Err(invalid("the value has a line break or a backslash"));
    }
    if OWN.contains(&name) {
        return Err(invalid("`bus kafka` sets it itself"));
    }
    Ok((name.to_owned(), value.to_owned()))
}

fn settings(brokers: usize) -> [(&'static str, String); 20] {
    // As many copies as Kafka's own default of 3, where there are as many brokers; with three
    // copies one broker may be down and `acks=all` still goes on.
    let replicas = brokers.min(3);
    let in_sync = if replicas == 3 { 2 } else { 1 };
    // How soon a dead broker is missed, and how long one that was killed waits until it may come
    // back. Kafka's 9 s are long for a test; a single broker has nobody to hand over to.
    let (session, heartbeat) = if brokers > 1 { (4_000, 500) } else { (9_000, 2_000) };
    [
        // A topic that a test forgot to create shall be an error, not a topic with one partition.
        ("auto.create.topics.enable", "false".into()),
        ("delete.topic.enable", "true".into()),
        ("default.replication.factor", replicas.to_string()),
        ("offsets.topic.replication.factor", replicas.to_string()),
        ("transaction.state.log.replication.factor", replicas.to_string()),
        ("transaction.state.log.min.isr", in_sync.to_string()),
        ("share.coordinator.state.topic.replication.factor", replicas.to_string()),
        ("share.coordinator.state.topic.min.isr", in_sync.to_string()),
        // 50 partitions each are for thousands of groups; creating them costs seconds here.
        ("offsets.topic.num.partitions", "5".into()),
        ("transaction.state.log.num.partitions", "5".into()),
        ("share.coordinator.state.topic.num.partitions", "5".into()),
        // The first member need not wait 3 s for others.
        ("group.initial.rebalance.delay.ms", "0".into()),
        // Tests of a dead member shall not wait 6 s.
        ("group.min.session.timeout.ms", "100".into()),
        // How often the coordinator looks for transactions that are over their time; Kafka's 10 s
        // are long for a test of one that timed out.
        ("transaction.abort.timed.out.transaction.cleanup.interval.ms", "500".into()),
        ("broker.session.timeout.ms", session.to_string()),
        ("broker.heartbeat.interval.ms", heartbeat.to_string()),
        // The heap is small: the cleaner's default buffer alone would take 128 MiB of it.
        ("log.cleaner.dedupe.buffer.size", "8388608".into()),
        // How soon a broker that came back leads its partitions again; Kafka's 5 minutes are longer
        // than anybody watches.
        ("leader.imbalance.check.interval.seconds", "2".into()),
        // A handful of clients, on a machine with other work to do.
        ("num.network.threads", "2".into()),
        ("num.io.threads", "4".into()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::manifest::Broker;

    fn manifest(brokers: u16) -> Manifest {
        Manifest {
            version: 1,
            name: "test".into(),
            kafka: KAFKA_VERSION.into(),
            cluster_id: "id".into(),
            properties: BTreeMap::new(),
            brokers: (1..=brokers)
                .map(|id| Broker { id, port: 9091 + id, controller_port: 20_000 + id, pid: None })
                .collect(),
        }
    }

    fn value<'a>(text: &'a str, name: &str) -> Vec<&'a str> {
        text.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix('=')).collect()
    }

    #[test]
    fn one_broker_keeps_one_copy() {
        let text = server_properties(&manifest(1), 0, Path::new("/data"));
        assert_eq!(value(&text, "node.id"), ["1"]);
        assert_eq!(value(&text, "log.dirs"), ["/data"]);
        assert_eq!(value(&text, "controller.quorum.voters"), ["1@127.0.0.1:20001"]);
        assert_eq!(value(&text, "offsets.topic.replication.factor"), ["1"]);
        assert_eq!(value(&text, "transaction.state.log.min.isr"), ["1"]);
    }

    #[test]
    fn three_brokers_keep_three_copies_of_which_two_are_needed() {
        let text = server_properties(&manifest(3), 2, Path::new("/data"));
        assert_eq!(value(&text, "node.id"), ["3"]);
        assert_eq!(
            value(&text, "listeners"),
            ["PLAINTEXT://127.0.0.1:9094,CONTROLLER://127.0.0.1:20003"]
        );
        assert_eq!(value(&text, "transaction.state.log.replication.factor"), ["3"]);
        assert_eq!(value(&text, "transaction.state.log.min.isr"), ["2"]);
    }

    #[test]
    fn a_property_from_outside_replaces_the_setting() {
        let mut manifest = manifest(1);
        manifest.properties.insert("num.io.threads".into(), "1".into());
        let text = server_properties(&manifest, 0, Path::new("/data"));
        assert_eq!(value(&text, "num.io.threads"), ["1"]);
    }

    #[test]
    fn properties_are_read_as_name_and_value() {
        let (name, value) = parse_property("message.max.bytes = 5000").unwrap();
        assert_eq!((name.as_str(), value.as_str()), ("message.max.bytes", "5000"));
        for bad in ["message.max.bytes", "=1", "a b=1", "x=1\ny=2", "node.id=7", "log.dirs=/"] {
            assert!(parse_property(bad).is_err(), "{bad}");
        }
    }
}

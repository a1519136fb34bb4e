//! CreateTopics, DeleteTopics, CreatePartitions, Metadata, FindCoordinator.

use bus_core::{ErrorKind, Topic};

use super::{Cluster, batch, response_of};
use crate::config::SimConfig;
use crate::node::ConnectionId;
use crate::protocol::find_coordinator::{self, CoordinatorType};
use crate::protocol::metadata::{self, TopicMetadata};
use crate::protocol::topics::{
    CreatableTopic, CreatePartitionsRequest, CreateTopicsRequest, DeleteTopicsRequest,
};
use crate::protocol::{Request, topics};

fn describe(cluster: &mut Cluster, connection: ConnectionId, topic: &str) -> TopicMetadata {
    let request = metadata::Request { topics: Some(vec![topic.into()]) };
    let response = response_of!(Metadata, cluster.call(connection, Request::Metadata(request)));
    response.topics.into_iter().next().unwrap()
}

fn delete(cluster: &mut Cluster, connection: ConnectionId, topic: &str) -> Option<ErrorKind> {
    let request = Request::DeleteTopics(DeleteTopicsRequest { topics: vec![topic.into()] });
    let response = response_of!(DeleteTopics, cluster.call(connection, request));
    response.topics[0].error.as_ref().map(|error| error.0)
}

#[test]
fn a_topic_is_there_once_it_was_created() {
    let (mut cluster, connection) = Cluster::with_topic();
    let details = describe(&mut cluster, connection, "orders").result.unwrap();
    assert_eq!(details.partitions.len(), 1);
    assert_eq!(details.partitions[0].leader, Some(1));
    assert!(cluster.produce(connection, batch(&[1])).is_ok());
    let all = Request::Metadata(metadata::Request { topics: None });
    let response = response_of!(Metadata, cluster.call(connection, all));
    let names: Vec<_> = response.topics.iter().map(|topic| topic.topic.as_str()).collect();
    assert_eq!(names, ["__consumer_offsets", "__transaction_state", "orders"]);
    assert_eq!(response.brokers, [1]);
}

#[test]
fn topics_are_refused_with_kafkas_sentences() {
    let (mut cluster, connection) = Cluster::with_topic();
    let mut create = |topic: &str, partitions, config: &[(&str, &str)]| {
        cluster.create_topic(connection, topic, partitions, config).error.unwrap()
    };
    let (kind, sentence) = create("orders", 1, &[]);
    assert_eq!(kind, ErrorKind::TopicAlreadyExists);
    assert_eq!(sentence, "Topic 'orders' already exists.");
    assert_eq!(create("a b", 1, &[]).0, ErrorKind::InvalidTopic);
    assert_eq!(create("__consumer_offsets", 1, &[]).0, ErrorKind::TopicAlreadyExists);
    assert_eq!(create("__consumer.offsets", 1, &[]).0, ErrorKind::InvalidTopic);
    assert_eq!(create("more", 0, &[]).0, ErrorKind::InvalidPartitions);
    let (kind, sentence) = create("more", 1, &[("foo", "1")]);
    assert_eq!(kind, ErrorKind::InvalidConfig);
    assert_eq!(sentence, "Unknown topic config name: foo");
    let (_, sentence) = create("more", 1, &[("retention.ms", "-5")]);
    assert_eq!(
        sentence,
        "Invalid value -5 for configuration retention.ms: Value must be at least -1"
    );
}

#[test]
fn the_replication_factor_is_checked() {
    let mut cluster = Cluster::new(SimConfig { brokers: 2, ..Default::default() });
    let connection = cluster.connect(1);
    for (factor, error) in [
        (0, Some(ErrorKind::InvalidReplicationFactor)),
        (3, Some(ErrorKind::InvalidReplicationFactor)),
        (2, None),
    ] {
        let topic = CreatableTopic {
            topic: "orders".into(),
            partitions: 1,
            replication_factor: Some(factor),
            config: Default::default(),
        };
        let request = Request::CreateTopics(CreateTopicsRequest { topics: vec![topic] });
        let response = response_of!(CreateTopics, cluster.call(connection, request));
        assert_eq!(response.topics[0].error.as_ref().map(|error| error.0), error);
    }
}

#[test]
fn partitions_are_spread_over_the_brokers() {
    let mut cluster = Cluster::new(SimConfig { brokers: 3, ..Default::default() });
    let connection = cluster.connect(2);
    assert_eq!(cluster.create_topic(connection, "orders", 6, &[]).error, None);
    let details = describe(&mut cluster, connection, "orders").result.unwrap();
    let mut leaders: Vec<_> = details.partitions.iter().map(|p| p.leader.unwrap()).collect();
    leaders.sort_unstable();
    assert_eq!(leaders, [1, 1, 2, 2, 3, 3]);
}

#[test]
fn a_topic_grows_but_does_not_shrink() {
    let (mut cluster, connection) = Cluster::with_topic();
    let mut grow = |topic: &str, count| {
        let topics = vec![(Topic::from(topic), count)];
        let request = Request::CreatePartitions(CreatePartitionsRequest { topics });
        let topics::TopicResponse { topics } =
            response_of!(CreatePartitions, cluster.call(connection, request));
        topics[0].error.clone()
    };
    assert_eq!(grow("orders", 3), None);
    let (kind, sentence) = grow("orders", 3).unwrap();
    assert_eq!(kind, ErrorKind::InvalidPartitions);
    assert_eq!(sentence, "Topic already has 3 partition(s).");
    assert_eq!(grow("orders", 2).unwrap().0, ErrorKind::InvalidPartitions);
    assert_eq!(grow("nowhere", 2).unwrap().0, ErrorKind::UnknownTopicOrPartition);
    let details = describe(&mut cluster, connection, "orders").result.unwrap();
    assert_eq!(details.partitions.len(), 3);
}

#[test]
fn a_topic_that_is_made_again_is_another_one() {
    let (mut cluster, connection) = Cluster::with_topic();
    cluster.produce(connection, batch(&[1])).unwrap();
    let before = describe(&mut cluster, connection, "orders").result.unwrap().topic_id;
    assert_eq!(delete(&mut cluster, connection, "orders"), None);
    let gone = describe(&mut cluster, connection, "orders").result;
    assert_eq!(gone.unwrap_err(), ErrorKind::UnknownTopicOrPartition);
    let error = delete(&mut cluster, connection, "orders");
    assert_eq!(error, Some(ErrorKind::UnknownTopicOrPartition));
    assert_eq!(cluster.create_topic(connection, "orders", 1, &[]).error, None);
    let after = describe(&mut cluster, connection, "orders").result.unwrap().topic_id;
    assert_ne!(before, after);
    assert_eq!(cluster.fetch(connection, 0).unwrap().high_watermark, 0);
}

#[test]
fn a_group_has_one_coordinator() {
    let mut cluster = Cluster::new(SimConfig { brokers: 3, ..Default::default() });
    let mut find = |broker, key: &str| {
        let connection = cluster.connect(broker);
        let coordinator_type = CoordinatorType::Group;
        let request = find_coordinator::Request { coordinator_type, key: key.into() };
        let request = Request::FindCoordinator(request);
        response_of!(FindCoordinator, cluster.call(connection, request)).result.unwrap()
    };
    for key in ["billing", "shipping", "a", "b", "c"] {
        assert_eq!(find(1, key), find(3, key));
    }
}

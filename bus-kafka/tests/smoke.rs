//! A few runs against a real Kafka, named by `BUS_TEST_KAFKA=host:port`. Without it each test says
//! that it was skipped. What every backend must do is in the conformance suite; here is what is
//! special to this one.

#![expect(clippy::unwrap_used, reason = "a test fails like this")]

use std::collections::BTreeSet;
use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use bus_core::{
    Assignor, Bus, BusUrl, Consumer, ConsumerConfig, ConsumerExt as _, ErrorKind, NewTopic, Polled,
    ProducerConfig, ProducerExt as _, ProducerRecord, RebalanceGuard, RebalanceKind, Record,
    StartAt, Subscription, TopicPartition,
};
use futures_util::FutureExt as _;

/// The most that anything here may take.
const LONG: Duration = Duration::from_secs(30);

/// Connects, or says that the test is skipped.
async fn connect() -> Option<Bus> {
    let Ok(address) = std::env::var("BUS_TEST_KAFKA") else {
        // Not by a macro: the test harness keeps what those print of a test that passes.
        let message = b"skipped: BUS_TEST_KAFKA=host:port names no Kafka\n";
        std::io::stderr().write_all(message).unwrap();
        return None;
    };
    let url: BusUrl = format!("kafka://{address}").parse().unwrap();
    Some(bus_kafka::connect(&url).await.unwrap())
}

/// Makes a topic of its own.
async fn topic(bus: &Bus, partitions: i32) -> String {
    let name = format!("smoke-{}", bus.new_id());
    let topic = NewTopic::new(name.as_str()).partitions(partitions);
    bus.admin().unwrap().create_topic(topic).await.unwrap();
    name
}

/// The configuration of a member of a group that notices a rebalance quickly.
fn member(group_id: &str, assignor: Assignor) -> ConsumerConfig {
    ConsumerConfig {
        assignors: vec![assignor],
        heartbeat_interval: Duration::from_millis(100),
        session_timeout: Duration::from_secs(6),
        ..ConsumerConfig::in_group(group_id)
    }
}

async fn send(bus: &Bus, topic: &str, partition: i32, values: std::ops::Range<i32>) {
    let producer = bus.producer(ProducerConfig::default()).unwrap();
    let records =
        values.map(|n| ProducerRecord::to(topic).partition(partition).value(n.to_string()));
    for outcome in producer.send_all(records).await {
        outcome.unwrap();
    }
    producer.close(LONG).await.unwrap();
}

/// Polls until a guard comes.
async fn guard(consumer: &Arc<dyn Consumer>) -> RebalanceGuard {
    let wait = async {
        loop {
            if let Polled::Rebalance(guard) = consumer.poll(LONG).await.unwrap() {
                return guard;
            }
        }
    };
    tokio::time::timeout(LONG, wait).await.expect("a rebalance comes")
}

/// Polls, completing every rebalance, until `count` records have come.
async fn records(consumer: &Arc<dyn Consumer>, count: usize) -> Vec<Record> {
    let wait = async {
        let mut all = Vec::new();
        while all.len() < count {
            all.extend(consumer.poll_records(LONG).await.unwrap());
        }
        all
    };
    tokio::time::timeout(LONG, wait).await.expect("the records come")
}

fn values(records: &[Record]) -> Vec<String> {
    let value = |record: &Record| String::from_utf8(record.value.clone().unwrap().into()).unwrap();
    records.iter().map(value).collect()
}

#[tokio::test]
async fn records_come_back_as_they_were_sent() {
    let Some(bus) = connect().await else { return };
    let topic = topic(&bus, 1).await;
    let producer = bus.producer(ProducerConfig::default()).unwrap();
    let sent = [
        ProducerRecord::to(topic.as_str()).key("k").value(vec![0xff, 0]).header("h", vec![0xfe]),
        ProducerRecord::to(topic.as_str()).key("").value(""),
        ProducerRecord::to(topic.as_str()),
    ];
    let mut headers = sent[2].clone();
    headers.headers.push("h", None);
    headers.headers.push("h", Some("".into()));
    headers.headers.push("héader", Some("2".into()));
    let sent = [sent[0].clone(), sent[1].clone(), headers];
    for (n, outcome) in producer.send_all(sent.clone()).await.into_iter().enumerate() {
        let metadata = outcome.unwrap();
        assert_eq!(metadata.offset, Some(i64::try_from(n).unwrap()));
        assert!(metadata.timestamp.is_some());
    }
    assert_eq!(producer.partitions_for(topic.as_str().into()).await.unwrap(), 1);
    producer.close(LONG).await.unwrap();

    let consumer = bus.consumer(ConsumerConfig::default()).unwrap();
    let partition = TopicPartition::new(topic.as_str(), 0);
    consumer.assign(&[(partition.clone(), StartAt::Beginning)]).unwrap();
    let read = records(&consumer, sent.len()).await;
    for (sent, read) in sent.iter().zip(&read) {
        assert_eq!(
            (&sent.key, &sent.value, &sent.headers),
            (&read.key, &read.value, &read.headers)
        );
    }
    assert_eq!(consumer.position(&partition).unwrap(), Some(3));
    let ends = consumer.watermarks(&partition).await.unwrap();
    assert_eq!((ends.low, ends.high), (0, 3));
    consumer.close().await.unwrap();
    assert_eq!(consumer.poll(LONG).await.unwrap_err().kind(), ErrorKind::Closed);
}

#[tokio::test]
async fn cancelled_polls_and_dropped_guards_lose_nothing() {
    let Some(bus) = connect().await else { return };
    let topic = topic(&bus, 1).await;
    let consumer = bus.consumer(member(&topic, Assignor::Range)).unwrap();
    consumer.subscribe(Subscription::topics([topic.as_str()])).unwrap();
    let dropped = guard(&consumer).await;
    let again = guard(&consumer).await;
    assert_eq!(dropped.rebalance(), again.rebalance());
    again.complete().await.unwrap();
    dropped.complete().await.unwrap();
    send(&bus, &topic, 0, 0..2000).await;
    let mut read = Vec::new();
    while read.len() < 2000 {
        let wait = Duration::from_micros(u64::try_from(read.len() % 7).unwrap() * 300);
        if let Ok(polled) = tokio::time::timeout(wait, consumer.poll_records(LONG)).await {
            read.extend(polled.unwrap());
        }
    }
    assert_eq!(values(&read), (0..2000).map(|n| n.to_string()).collect::<Vec<_>>());
    consumer.close().await.unwrap();
}

/// Two members share four partitions, one leaves, and the other takes over from its commits.
async fn two_members(assignor: Assignor) {
    let Some(bus) = connect().await else { return };
    let topic = topic(&bus, 4).await;
    for partition in 0..4 {
        send(&bus, &topic, partition, partition * 10..partition * 10 + 10).await;
    }
    let first = bus.consumer(member(&topic, assignor)).unwrap();
    first.subscribe(Subscription::topics([topic.as_str()])).unwrap();
    let mut read: BTreeSet<String> = values(&records(&first, 40).await).into_iter().collect();
    first.commit_positions().await.unwrap();

    let second = bus.consumer(member(&topic, assignor)).unwrap();
    second.subscribe(Subscription::topics([topic.as_str()])).unwrap();
    let rebalance = async {
        while first.assignment().len() != 2 || second.assignment().len() != 2 {
            let wait = Duration::from_millis(50);
            let (a, b) = tokio::join!(first.poll_records(wait), second.poll_records(wait));
            assert!(a.unwrap().is_empty() && b.unwrap().is_empty(), "all was committed");
        }
    };
    tokio::time::timeout(LONG, rebalance).await.expect("the group rebalances");
    for partition in 0..4 {
        send(&bus, &topic, partition, 100 + partition..101 + partition).await;
    }
    read.extend(values(&records(&first, 2).await));
    read.extend(values(&records(&second, 2).await));
    assert_eq!(read.len(), 44);
    second.commit_positions().await.unwrap();
    second.close().await.unwrap();
    let takeover = async {
        while first.assignment().len() != 4 {
            let wait = Duration::from_millis(50);
            assert!(first.poll_records(wait).await.unwrap().is_empty());
        }
    };
    tokio::time::timeout(LONG, takeover).await.expect("the first takes over");
    first.close().await.unwrap();
}

#[tokio::test]
async fn eager_members_share_and_take_over() {
    two_members(Assignor::RoundRobin).await;
}

#[tokio::test]
async fn cooperative_members_share_and_take_over() {
    two_members(Assignor::CooperativeSticky).await;
}

#[tokio::test]
async fn commits_go_out_in_the_order_of_the_calls() {
    let Some(bus) = connect().await else { return };
    let topic = topic(&bus, 1).await;
    send(&bus, &topic, 0, 0..100).await;
    let consumer = bus.consumer(member(&topic, Assignor::Range)).unwrap();
    consumer.subscribe(Subscription::topics([topic.as_str()])).unwrap();
    records(&consumer, 100).await;
    let partition = TopicPartition::new(topic.as_str(), 0);
    let commits: Vec<_> =
        (1..=100).map(|offset| consumer.commit(&[(partition.clone(), offset.into())])).collect();
    for commit in commits {
        commit.await.unwrap();
    }
    let committed = consumer.committed(&[partition]).await.unwrap();
    assert_eq!(committed, [Some(100.into())]);
    consumer.close().await.unwrap();
}

#[tokio::test]
async fn a_consumer_closes_with_a_pending_guard() {
    let Some(bus) = connect().await else { return };
    let topic = topic(&bus, 2).await;
    for assignor in [Assignor::Range, Assignor::CooperativeSticky] {
        let group = format!("{topic}-{}", assignor.name());
        let first = bus.consumer(member(&group, assignor)).unwrap();
        first.subscribe(Subscription::topics([topic.as_str()])).unwrap();
        let assigned = guard(&first).await;
        assert_eq!(assigned.kind(), RebalanceKind::Assigned);
        assigned.complete().await.unwrap();
        let second = bus.consumer(member(&group, assignor)).unwrap();
        second.subscribe(Subscription::topics([topic.as_str()])).unwrap();
        let joining = async {
            loop {
                drop(second.poll_records(LONG).await.unwrap());
            }
        };
        let revoked = tokio::select! {
            guard = guard(&first) => guard,
            () = joining => unreachable!("it goes on"),
        };
        assert_eq!(revoked.kind(), RebalanceKind::Revoked);
        tokio::time::timeout(LONG, first.close()).await.expect("no deadlock").unwrap();
        assert_eq!(revoked.complete().await.unwrap_err().kind(), ErrorKind::Closed);
        let takeover = async {
            while second.assignment().len() != 2 {
                drop(second.poll_records(Duration::from_millis(100)).await.unwrap());
            }
        };
        tokio::time::timeout(LONG, takeover).await.expect("the second takes over");
        second.close().await.unwrap();
    }
}

#[tokio::test]
async fn a_seek_right_after_the_assignment_is_heard() {
    let Some(bus) = connect().await else { return };
    let topic = topic(&bus, 2).await;
    send(&bus, &topic, 0, 0..10).await;
    let partition = TopicPartition::new(topic.as_str(), 0);
    for assignor in [Assignor::Range, Assignor::CooperativeSticky] {
        let group = format!("{topic}-{}", assignor.name());
        let consumer = bus.consumer(member(&group, assignor)).unwrap();
        // With everything committed, nothing but the seek brings a record.
        consumer.commit(&[(partition.clone(), 10.into())]).await.unwrap();
        consumer.subscribe(Subscription::topics([topic.as_str()])).unwrap();
        guard(&consumer).await.complete().await.unwrap();
        consumer.seek(&partition, StartAt::Offset(7)).await.unwrap();
        assert_eq!(consumer.position(&partition).unwrap(), Some(7));
        assert_eq!(values(&records(&consumer, 3).await), ["7", "8", "9"]);
        consumer.close().await.unwrap();
    }
}

#[tokio::test]
async fn a_pause_ends_with_the_assignment() {
    let Some(bus) = connect().await else { return };
    let topic = topic(&bus, 1).await;
    send(&bus, &topic, 0, 0..10).await;
    let partition = TopicPartition::new(topic.as_str(), 0);
    let consumer = bus.consumer(member(&topic, Assignor::Range)).unwrap();
    consumer.subscribe(Subscription::topics([topic.as_str()])).unwrap();
    guard(&consumer).await.complete().await.unwrap();
    consumer.pause(std::slice::from_ref(&partition)).unwrap();
    assert!(consumer.poll_records(Duration::from_millis(200)).await.unwrap().is_empty());
    consumer.unsubscribe().await.unwrap();
    consumer.subscribe(Subscription::topics([topic.as_str()])).unwrap();
    assert_eq!(records(&consumer, 10).await.len(), 10);
    consumer.pause(std::slice::from_ref(&partition)).unwrap();
    consumer.assign(&[(partition, StartAt::Offset(4))]).unwrap();
    assert_eq!(consumer.paused(), []);
    assert_eq!(records(&consumer, 6).await.len(), 6);
    consumer.close().await.unwrap();
}

#[tokio::test]
async fn a_new_subscription_overtakes_leaving() {
    let Some(bus) = connect().await else { return };
    let topic = topic(&bus, 1).await;
    send(&bus, &topic, 0, 0..10).await;
    let consumer = bus.consumer(member(&topic, Assignor::Range)).unwrap();
    for _ in 0..3 {
        consumer.subscribe(Subscription::topics([topic.as_str()])).unwrap();
        assert_eq!(records(&consumer, 10).await.len(), 10);
        // Polled once, and dropped before the group is left.
        drop(consumer.unsubscribe().now_or_never());
    }
    consumer.close().await.unwrap();
}

#[tokio::test]
async fn closing_commits_what_is_stored_and_dropping_does_not() {
    let Some(bus) = connect().await else { return };
    let topic = topic(&bus, 1).await;
    send(&bus, &topic, 0, 0..10).await;
    let partition = TopicPartition::new(topic.as_str(), 0);
    for (is_closed, committed) in [(true, Some(10.into())), (false, None)] {
        let group = format!("{topic}-{is_closed}");
        let config = ConsumerConfig { enable_auto_commit: true, ..member(&group, Assignor::Range) };
        let consumer = bus.consumer(config).unwrap();
        consumer.subscribe(Subscription::topics([topic.as_str()])).unwrap();
        records(&consumer, 10).await;
        if is_closed {
            consumer.close().await.unwrap();
        }
        drop(consumer);
        let admin = bus.admin().unwrap();
        let left = async {
            while !admin.describe_group(&group).await.unwrap().members.is_empty() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(LONG, left).await.expect("the group is left");
        let reader = bus.consumer(ConsumerConfig::in_group(group.as_str())).unwrap();
        let read = reader.committed(std::slice::from_ref(&partition)).await.unwrap();
        assert_eq!(read, [committed], "closed: {is_closed}");
    }
}

#[tokio::test]
async fn a_member_that_does_not_poll_loses_its_partitions_and_comes_back() {
    let Some(bus) = connect().await else { return };
    let topic = topic(&bus, 1).await;
    let patience = Duration::from_secs(1);
    for assignor in [Assignor::Range, Assignor::CooperativeSticky] {
        let group = format!("{topic}-{}", assignor.name());
        let config = ConsumerConfig {
            session_timeout: patience,
            max_poll_interval: patience,
            ..member(&group, assignor)
        };
        let consumer = bus.consumer(config).unwrap();
        consumer.subscribe(Subscription::topics([topic.as_str()])).unwrap();
        guard(&consumer).await.complete().await.unwrap();
        // A poll that waits for longer than that is a sign of life all the same.
        assert!(consumer.poll_records(patience * 2).await.unwrap().is_empty());
        tokio::time::sleep(patience * 2).await;
        let error = consumer.poll(LONG).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::MaxPollExceeded);
        for kind in [RebalanceKind::Lost, RebalanceKind::Assigned] {
            let guard = guard(&consumer).await;
            assert_eq!((guard.kind(), guard.partitions().len()), (kind, 1));
            guard.complete().await.unwrap();
        }
        consumer.close().await.unwrap();
    }
}

#[tokio::test]
async fn a_fenced_member_says_so_and_closes() {
    let Some(bus) = connect().await else { return };
    let topic = topic(&bus, 1).await;
    let config = ConsumerConfig {
        group_instance_id: Some("one".to_owned()),
        ..member(&topic, Assignor::Range)
    };
    let older = bus.consumer(config.clone()).unwrap();
    older.subscribe(Subscription::topics([topic.as_str()])).unwrap();
    guard(&older).await.complete().await.unwrap();
    let newer = bus.consumer(config).unwrap();
    newer.subscribe(Subscription::topics([topic.as_str()])).unwrap();
    guard(&newer).await.complete().await.unwrap();
    for _ in 0..2 {
        let error = older.poll(LONG).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::FencedInstanceId);
    }
    tokio::time::timeout(LONG, older.close()).await.expect("it closes").unwrap();
    newer.close().await.unwrap();
}

#[tokio::test]
async fn an_unreachable_broker_is_an_error_within_the_time() {
    let url: BusUrl = "kafka://127.0.0.1:1?connect.timeout.ms=300".parse().unwrap();
    let error = bus_kafka::connect(&url).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AllBrokersDown);
    assert!(error.to_string().contains("127.0.0.1:1"), "{error}");
}

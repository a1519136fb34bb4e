//! Transactions against a real Kafka, named by `BUS_TEST_KAFKA=host:port`: what is special to this
//! backend, whose calls block on other threads. Without a Kafka each test says that it was skipped.

#![expect(clippy::unwrap_used, reason = "a test fails like this")]

use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use bus_core::{
    Bus, BusUrl, ConsumerConfig, ConsumerExt as _, ErrorKind, GroupMetadata, NewTopic,
    ProducerConfig, ProducerRecord, Recovery, StartAt, TopicPartition, TransactionConfig,
    TransactionalProducer,
};
use futures_util::FutureExt as _;

/// The most that anything here may take.
const LONG: Duration = Duration::from_secs(30);

/// A bus and a topic of its own; or says that the test is skipped.
async fn topic() -> Option<(Bus, String)> {
    let Ok(address) = std::env::var("BUS_TEST_KAFKA") else {
        // Not by a macro: the test harness keeps what those print of a test that passes.
        let message = b"skipped: BUS_TEST_KAFKA=host:port names no Kafka\n";
        std::io::stderr().write_all(message).unwrap();
        return None;
    };
    let url: BusUrl = format!("kafka://{address}").parse().unwrap();
    let bus = bus_kafka::connect(&url).await.unwrap();
    let name = format!("transactions-{}", bus.new_id());
    let topic = NewTopic::new(name.as_str()).partitions(1);
    bus.admin().unwrap().create_topic(topic).await.unwrap();
    Some((bus, name))
}

/// A producer whose transactional id is the topic's name, and ready to begin.
async fn producer(bus: &Bus, topic: &str, linger: Duration) -> Arc<dyn TransactionalProducer> {
    let config = ProducerConfig { linger, ..Default::default() };
    let producer = bus.transactional_producer(config, TransactionConfig::new(topic)).unwrap();
    producer.init_transactions().await.unwrap();
    producer
}

fn record(topic: &str, value: &'static str) -> ProducerRecord {
    ProducerRecord::to(topic).partition(0).value(value)
}

/// The values of so many committed records.
async fn committed(bus: &Bus, topic: &str, count: usize) -> Vec<String> {
    let consumer = bus.consumer(ConsumerConfig::default()).unwrap();
    consumer.assign(&[(TopicPartition::new(topic, 0), StartAt::Beginning)]).unwrap();
    let read =
        async {
            let mut values = Vec::new();
            while values.len() < count {
                let records = consumer.poll_records(LONG).await.unwrap();
                values.extend(records.into_iter().map(|record| {
                    String::from_utf8(record.value.unwrap_or_default().into()).unwrap()
                }));
            }
            values
        };
    tokio::time::timeout(LONG, read).await.expect("the records come")
}

/// Runs a test whose runtime has one thread for calls that block.
fn run(test: impl Future<Output = ()>) {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_all().max_blocking_threads(1).build().unwrap().block_on(test);
}

/// Keeps that thread busy until what this returns is dropped: the next call starts only then.
async fn hold_calls() -> std::sync::mpsc::Sender<()> {
    let (held, wait) = std::sync::mpsc::channel();
    let (holds, started) = tokio::sync::oneshot::channel();
    drop(tokio::task::spawn_blocking(move || {
        holds.send(()).unwrap();
        wait.recv().expect_err("the sender is dropped");
    }));
    started.await.unwrap();
    held
}

#[test]
fn a_dropped_commit_goes_on_and_is_taken_up_again() {
    run(async {
        let Some((bus, topic)) = topic().await else { return };
        let producer = producer(&bus, &topic, Duration::from_millis(5)).await;
        for value in ["a", "b"] {
            producer.begin().unwrap();
            let delivery = producer.send(record(&topic, value));
            let held = hold_calls().await;
            assert!(producer.commit().now_or_never().is_none(), "it waits for its thread");
            // The call is under way without its future.
            for error in [producer.begin().unwrap_err(), producer.abort().await.unwrap_err()] {
                assert_eq!(error.kind(), ErrorKind::InvalidState, "{error}");
                assert_eq!(error.recovery(), Recovery::Retry, "{error}");
            }
            drop(held);
            producer.commit().await.unwrap();
            delivery.await.unwrap();
            let error = producer.commit().await.unwrap_err();
            assert_eq!(error.recovery(), Recovery::Fix, "the outcome was seen: {error}");
        }
        assert_eq!(committed(&bus, &topic, 2).await, ["a", "b"]);
        producer.close(LONG).await.unwrap();
    });
}

#[test]
fn an_outcome_that_nobody_saw_does_not_stand_in_the_way() {
    run(async {
        let Some((bus, topic)) = topic().await else { return };
        let producer = producer(&bus, &topic, Duration::ZERO).await;
        producer.begin().unwrap();
        drop(producer.send(record(&topic, "a")));
        let held = hold_calls().await;
        assert!(producer.commit().now_or_never().is_none(), "it waits for its thread");
        assert_eq!(producer.begin().unwrap_err().recovery(), Recovery::Retry);
        drop(held);
        let begun = async {
            while let Err(error) = producer.begin() {
                assert_eq!(error.recovery(), Recovery::Retry, "{error}");
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(LONG, begun).await.expect("the commit ends");
        // Not aborted before the coordinator has heard of it: so close behind a commit that may end
        // the producer (docs/fidelity.md).
        producer.send(record(&topic, "b")).await.unwrap();
        let held = hold_calls().await;
        assert!(producer.abort().now_or_never().is_none(), "it waits for its thread");
        drop(held);
        producer.abort().await.unwrap();
        producer.begin().unwrap();
        producer.send(record(&topic, "c")).await.unwrap();
        producer.commit().await.unwrap();
        assert_eq!(committed(&bus, &topic, 2).await, ["a", "c"]);
        producer.close(LONG).await.unwrap();
    });
}

#[test]
fn closing_or_dropping_amid_a_call_blocks_nothing() {
    run(async {
        let Some((bus, topic)) = topic().await else { return };
        for closes in [true, false] {
            let producer = producer(&bus, &topic, Duration::ZERO).await;
            producer.begin().unwrap();
            drop(producer.send(record(&topic, "a")));
            let held = hold_calls().await;
            assert!(producer.commit().now_or_never().is_none(), "it waits for its thread");
            drop(held);
            if closes {
                producer.close(LONG).await.unwrap();
                assert_eq!(producer.commit().await.unwrap_err().kind(), ErrorKind::Closed);
                assert_eq!(producer.begin().unwrap_err().kind(), ErrorKind::Closed);
            }
            drop(producer);
        }
        // Whatever became of those, the next producer of the id goes on.
        let producer = producer(&bus, &topic, Duration::ZERO).await;
        producer.begin().unwrap();
        producer.send(record(&topic, "b")).await.unwrap();
        producer.commit().await.unwrap();
        producer.close(LONG).await.unwrap();
    });
}

#[tokio::test]
async fn a_fenced_producer_says_so_whatever_it_does() {
    let Some((bus, topic)) = topic().await else { return };
    let older = producer(&bus, &topic, Duration::ZERO).await;
    let newer = producer(&bus, &topic, Duration::ZERO).await;
    older.begin().unwrap();
    // librdkafka purges the record and tells elsewhere why.
    let mut errors = vec![older.send(record(&topic, "zombie")).await.unwrap_err()];
    errors.push(older.send(record(&topic, "zombie")).await.unwrap_err());
    errors.push(older.commit().await.unwrap_err());
    errors.push(older.abort().await.unwrap_err());
    errors.push(older.begin().unwrap_err());
    errors.push(older.init_transactions().await.unwrap_err());
    let group = GroupMetadata {
        group_id: topic.clone(),
        generation: -1,
        member_id: String::new(),
        group_instance_id: None,
        native: None,
    };
    errors.push(older.send_offsets(&[], &group).await.unwrap_err());
    for error in errors {
        assert_eq!(error.kind(), ErrorKind::ProducerFenced, "{error}");
        assert_eq!(error.recovery(), Recovery::Close, "{error}");
    }
    newer.begin().unwrap();
    newer.send(record(&topic, "a")).await.unwrap();
    newer.commit().await.unwrap();
    assert_eq!(committed(&bus, &topic, 1).await, ["a"]);
    older.close(LONG).await.unwrap();
    newer.close(LONG).await.unwrap();
}

//! Stories of transactions: what readers see of them when something goes wrong.

use std::time::Duration;

use bus_core::{
    Bus, ConsumerConfig, ConsumerExt, Error, ErrorKind, GroupMetadata, IsolationLevel,
    OffsetAndMetadata, ProducerConfig, ProducerRecord, Record, Recovery, Result, StartAt,
    TopicPartition, TransactionConfig, TransactionalProducer,
};
use bus_sim::{Api, Sim, SimConfig, SimHandle};

use crate::common::{create_topic, output, story};

/// A producer that can begin.
async fn transactional(bus: &Bus, id: &str) -> Result<std::sync::Arc<dyn TransactionalProducer>> {
    let producer =
        bus.transactional_producer(ProducerConfig::default(), TransactionConfig::new(id))?;
    producer.init_transactions().await?;
    Ok(producer)
}

/// What a new reader of a partition is given in 5 s.
async fn read(bus: &Bus, topic: &str, isolation_level: IsolationLevel) -> Result<Vec<Record>> {
    let consumer = bus.consumer(ConsumerConfig { isolation_level, ..Default::default() })?;
    consumer.assign(&[(TopicPartition::new(topic, 0), StartAt::Beginning)])?;
    let mut records = Vec::new();
    let end = bus.elapsed() + Duration::from_secs(5);
    while bus.elapsed() < end {
        records.extend(consumer.poll_records(Duration::from_secs(1)).await?);
    }
    Ok(records)
}

async fn values(bus: &Bus, isolation_level: IsolationLevel) -> Result<Vec<String>> {
    let records = read(bus, "a", isolation_level).await?;
    let value =
        |record: &Record| String::from_utf8_lossy(record.value.as_deref().unwrap_or(b"")).into();
    Ok(records.iter().map(value).collect())
}

fn record(value: &str) -> ProducerRecord {
    ProducerRecord::to("a").partition(0).value(value.to_owned())
}

fn is_fenced(error: &Error) {
    assert_eq!((error.kind(), error.recovery()), (ErrorKind::ProducerFenced, Recovery::Close));
}

#[test]
fn only_committed_records_are_read_as_committed() {
    let outcome = story(1, |sim| async move {
        let bus = sim.bus();
        create_topic(&bus, "a", 1).await?;
        let producer = transactional(&bus, "t").await?;
        for (value, commits) in [("1", true), ("2", false), ("3", true)] {
            producer.begin()?;
            producer.send(record(value)).await?;
            if commits { producer.commit().await? } else { producer.abort().await? }
        }
        let committed = values(&bus, IsolationLevel::ReadCommitted).await?;
        Ok((committed, values(&bus, IsolationLevel::ReadUncommitted).await?))
    });
    let (committed, all) = output(outcome);
    assert_eq!(committed, ["1", "3"]);
    assert_eq!(all, ["1", "2", "3"]);
}

#[test]
fn a_lost_answer_of_any_request_is_no_failure() {
    for api in [
        Api::FindCoordinator,
        Api::InitProducerId,
        Api::AddPartitionsToTxn,
        Api::Produce,
        Api::AddOffsetsToTxn,
        Api::TxnOffsetCommit,
        Api::EndTxn,
    ] {
        for is_response in [false, true] {
            let outcome = story(2, |sim| async move {
                let bus = sim.bus();
                create_topic(&bus, "a", 1).await?;
                if is_response {
                    sim.lose_next_response(api);
                } else {
                    sim.lose_next_request(api);
                }
                let producer = transactional(&bus, "t").await?;
                for value in ["1", "2"] {
                    producer.begin()?;
                    producer.send(record(value)).await?;
                    producer.send_offsets(&[offset(7)], &outside()).await?;
                    producer.commit().await?;
                }
                values(&bus, IsolationLevel::ReadCommitted).await
            });
            assert_eq!(output(outcome), ["1", "2"], "{api:?} {is_response}");
        }
    }
}

fn offset(offset: i64) -> (TopicPartition, OffsetAndMetadata) {
    (TopicPartition::new("a", 0), OffsetAndMetadata::from(offset))
}

/// A group that is used without members.
fn outside() -> GroupMetadata {
    GroupMetadata {
        group_id: "g".to_owned(),
        generation: -1,
        member_id: String::new(),
        group_instance_id: None,
        native: None,
    }
}

#[test]
fn the_newer_producer_fences_the_older() {
    let outcome = story(3, |sim| async move {
        let bus = sim.bus();
        create_topic(&bus, "a", 1).await?;
        let older = transactional(&bus, "t").await?;
        older.begin()?;
        older.send(record("1")).await?;
        let newer = transactional(&bus, "t").await?;
        is_fenced(&older.send(record("2")).await.unwrap_err());
        is_fenced(&older.commit().await.unwrap_err());
        is_fenced(&older.abort().await.unwrap_err());
        is_fenced(&older.begin().unwrap_err());
        newer.begin()?;
        newer.send(record("3")).await?;
        newer.commit().await?;
        values(&bus, IsolationLevel::ReadCommitted).await
    });
    assert_eq!(output(outcome), ["3"]);
}

#[test]
fn a_transaction_that_takes_too_long_is_aborted_and_fenced() {
    let outcome = story(4, |sim| async move {
        let bus = sim.bus();
        create_topic(&bus, "a", 1).await?;
        let timeout = Duration::from_secs(10);
        let config =
            TransactionConfig { transaction_timeout: timeout, ..TransactionConfig::new("t") };
        let producer = bus.transactional_producer(ProducerConfig::default(), config)?;
        producer.init_transactions().await?;
        producer.begin()?;
        producer.send(record("1")).await?;
        tokio::time::sleep(Duration::from_secs(60)).await;
        is_fenced(&producer.commit().await.unwrap_err());
        let producer = transactional(&bus, "t").await?;
        producer.begin()?;
        producer.send(record("2")).await?;
        producer.commit().await?;
        values(&bus, IsolationLevel::ReadCommitted).await
    });
    assert_eq!(output(outcome), ["2"]);
}

#[test]
fn a_transaction_goes_on_when_its_coordinator_restarts() {
    for down in [10, 500, 3_000] {
        let outcome = story(5, |sim| async move {
            let bus = sim.bus();
            create_topic(&bus, "a", 1).await?;
            let producer = transactional(&bus, "t").await?;
            producer.begin()?;
            producer.send(record("1")).await?;
            sim.crash_broker(1)?;
            tokio::time::sleep(Duration::from_millis(down)).await;
            sim.restart_broker(1)?;
            producer.send(record("2")).await?;
            producer.commit().await?;
            values(&bus, IsolationLevel::ReadCommitted).await
        });
        assert_eq!(output(outcome), ["1", "2"], "down for {down} ms");
    }
}

#[test]
fn a_commit_under_way_survives_its_coordinator() {
    for down in [10, 500, 3_000] {
        let outcome = story(6, |sim| async move {
            let bus = sim.bus();
            create_topic(&bus, "a", 1).await?;
            let producer = transactional(&bus, "t").await?;
            producer.begin()?;
            producer.send(record("1")).await?;
            let crash = async {
                tokio::time::sleep(Duration::from_millis(1)).await;
                sim.crash_broker(1)?;
                tokio::time::sleep(Duration::from_millis(down)).await;
                sim.restart_broker(1)
            };
            let (commit, crash) = tokio::join!(producer.commit(), crash);
            crash?;
            commit?;
            values(&bus, IsolationLevel::ReadCommitted).await
        });
        assert_eq!(output(outcome), ["1"], "down for {down} ms");
    }
}

#[test]
fn offsets_of_a_transaction_count_with_its_commit_only() {
    let outcome = story(7, |sim| async move {
        let bus = sim.bus();
        create_topic(&bus, "a", 1).await?;
        let producer = transactional(&bus, "t").await?;
        let consumer = bus.consumer(ConsumerConfig::in_group("g"))?;
        let place = [TopicPartition::new("a", 0)];
        let mut seen = Vec::new();
        for (at, commits) in [(5, false), (6, true)] {
            producer.begin()?;
            producer.send_offsets(&[offset(at)], &outside()).await?;
            if commits {
                producer.commit().await?;
            } else {
                producer.abort().await?;
            }
            let committed = consumer.committed(&place).await?;
            seen.push(committed[0].as_ref().map(|committed| committed.offset));
        }
        Ok(seen)
    });
    assert_eq!(output(outcome), [None, Some(6)]);
}

#[test]
fn a_reader_of_committed_offsets_waits_for_the_end_of_the_transaction() {
    let outcome = story(8, |sim| async move {
        let bus = sim.bus();
        create_topic(&bus, "a", 1).await?;
        let producer = transactional(&bus, "t").await?;
        let consumer = bus.consumer(ConsumerConfig::in_group("g"))?;
        let place = [TopicPartition::new("a", 0)];
        producer.begin()?;
        producer.send_offsets(&[offset(5)], &outside()).await?;
        let begun = bus.elapsed();
        let commit = async {
            tokio::time::sleep(Duration::from_secs(10)).await;
            producer.commit().await
        };
        let (committed, commit) = tokio::join!(consumer.committed(&place), commit);
        commit?;
        let offset = committed?[0].as_ref().map(|committed| committed.offset);
        Ok((offset, bus.elapsed() - begun))
    });
    let (offset, waited) = output(outcome);
    assert_eq!(offset, Some(5));
    assert!(waited >= Duration::from_secs(10), "{waited:?}");
}

#[test]
fn both_versions_of_transactions_write_the_same() {
    for transaction_version in [1, 2] {
        let config = SimConfig { transaction_version, record_trace: true, ..Default::default() };
        let story = |sim: SimHandle| async move {
            let bus = sim.bus();
            create_topic(&bus, "a", 1).await?;
            let producer = transactional(&bus, "t").await?;
            for (value, commits) in [("1", true), ("2", false), ("3", true), ("4", true)] {
                producer.begin()?;
                producer.send(record(value)).await?;
                producer.send_offsets(&[offset(7)], &outside()).await?;
                if commits { producer.commit().await? } else { producer.abort().await? }
            }
            let records = read(&bus, "a", IsolationLevel::ReadCommitted).await?;
            Ok(records.iter().map(|record| record.offset).collect::<Vec<_>>())
        };
        let outcome = Sim::new(config).expect("a valid configuration").run(story);
        assert_eq!(output(outcome), [0, 4, 6], "version {transaction_version}");
    }
}

/// What librdkafka 2.12 does against a real Kafka 4, too: the response to a batch is lost, the
/// transaction is aborted before the batch is sent again, and the next transaction begins with the
/// same sequence. Its first record is taken for a repetition of the aborted one.
#[test]
fn a_record_is_lost_when_an_abort_gives_its_sequence_out_again() {
    for abort_reuses_sequences in [true, false] {
        let config = SimConfig { abort_reuses_sequences, ..Default::default() };
        let story = |sim: SimHandle| async move {
            let bus = sim.bus();
            create_topic(&bus, "a", 1).await?;
            let producer = transactional(&bus, "t").await?;
            producer.begin()?;
            sim.lose_next_response(Api::Produce);
            let delivery = producer.send(record("aborted"));
            tokio::time::sleep(Duration::from_millis(50)).await;
            producer.abort().await?;
            let error = delivery.await.unwrap_err();
            assert!(error.kind() == ErrorKind::Purged && error.is_indeterminate(), "{error:?}");
            producer.begin()?;
            producer.send(record("committed")).await?;
            producer.commit().await?;
            values(&bus, IsolationLevel::ReadCommitted).await
        };
        let outcome = Sim::new(config).expect("a valid configuration").run(story);
        let expected: &[&str] = if abort_reuses_sequences { &[] } else { &["committed"] };
        assert_eq!(output(outcome), expected);
    }
}

/// The coordinator refuses partitions until the markers of the transaction before are written, and
/// the end of a transaction that has none is the wrong one. librdkafka gives up then (its #4849).
#[test]
fn an_abort_while_the_markers_of_a_commit_are_missing_ends_the_producer() {
    let outcome = story(7, |sim| async move {
        let bus = sim.bus();
        create_topic(&bus, "a", 1).await?;
        let producer = transactional(&bus, "t").await?;
        producer.begin()?;
        producer.send(record("1")).await?;
        sim.delay_next_request(Api::WriteTxnMarkers, Duration::from_secs(1));
        producer.commit().await?;
        producer.begin()?;
        let purged = producer.send(record("2"));
        tokio::time::sleep(Duration::from_millis(50)).await;
        let error = producer.abort().await.unwrap_err();
        assert_eq!((error.kind(), error.recovery()), (ErrorKind::InvalidTxnState, Recovery::Close));
        assert_eq!(producer.begin().unwrap_err().recovery(), Recovery::Close);
        assert!(!purged.await.unwrap_err().is_indeterminate(), "it never left");
        let next = transactional(&bus, "t").await?;
        next.begin()?;
        next.send(record("3")).await?;
        next.commit().await?;
        values(&bus, IsolationLevel::ReadCommitted).await
    });
    assert_eq!(output(outcome), ["1", "3"]);
}

//! What members of a group in stories share: their configuration, a poll that gets over trouble,
//! and a reader of all that a topic holds.

use std::time::Duration;

use bus_core::{
    Bus, Consumer, ConsumerConfig, ConsumerExt as _, Error, Partition, ProducerConfig,
    ProducerExt as _, ProducerRecord, Record, Recovery, Result, StartAt, Topic, TopicPartition,
};

use crate::lifecycle::Lifecycle;
use crate::patience::patiently;
use crate::store::{Row, Store, StoreError, Transaction};

/// The configuration of a member that is missed soon when it is gone.
pub fn config(name: &str, group: &str) -> ConsumerConfig {
    ConsumerConfig {
        client_id: Some(name.to_owned()),
        session_timeout: Duration::from_secs(6),
        heartbeat_interval: Duration::from_millis(500),
        ..ConsumerConfig::in_group(group)
    }
}

/// Waits for records, and gets over what passes by itself: then there are none. `None` once the
/// processes are to end.
///
/// # Errors
/// Those that end the member.
pub async fn polled(consumer: &dyn Consumer, life: &Lifecycle) -> Result<Option<Vec<Record>>> {
    match life.unless_stopping(consumer.poll_records(POLL)).await {
        Some(Err(error)) if matches!(error.recovery(), Recovery::Rejoin | Recovery::Retry) => {
            life.unless_stopping(tokio::time::sleep(PAUSE)).await;
            Ok(Some(Vec::new()))
        }
        polled => polled.transpose(),
    }
}

/// Whether a commit is certain. One that is not comes to pass when the record comes again, here or
/// at the member that has the partition now.
///
/// # Errors
/// Those that a person must fix.
pub fn is_certain(commit: Result<()>) -> Result<bool> {
    match commit {
        Ok(()) => Ok(true),
        Err(error) if error.recovery() == Recovery::Fix => Err(error),
        Err(_) => Ok(false),
    }
}

/// Inserts a row, unless it is there. Members that got the same record may do so at one time.
///
/// # Errors
/// Those of the database but for a key that is taken.
pub async fn insert_once<R: Row>(store: &Store, row: &R) -> Result<()> {
    let mut transaction = store.begin();
    if transaction.find::<R>(&row.key())?.is_some() {
        return Ok(());
    }
    transaction.insert(row)?;
    match transaction.commit().await {
        Err(StoreError::DuplicateKey { .. }) => Ok(()),
        outcome => Ok(outcome?),
    }
}

/// Commits rows that were not there when they were looked for. If one is there now, somebody was
/// faster, or an earlier commit came after all: the error says to look again.
///
/// # Errors
/// Those of the database. If the outcome is not known, whoever starts over looks first.
pub async fn commit_new(transaction: Transaction) -> Result<()> {
    transaction.commit().await.map_err(|error| {
        let is_taken = matches!(error, StoreError::DuplicateKey { .. });
        let error = Error::from(error);
        if is_taken { error.with_recovery(Recovery::Retry) } else { error }
    })
}

/// Sends values to a topic, each as its own key, in turn to each partition.
///
/// # Errors
/// The first error of a delivery.
pub async fn send(bus: &Bus, topic: &str, partitions: Partition, values: &[String]) -> Result<()> {
    let producer = bus.producer(ProducerConfig::default())?;
    let records = (0..partitions).cycle().zip(values).map(|(partition, value)| {
        let record = ProducerRecord::to(topic).key(value.clone()).value(value.clone());
        record.partition(partition)
    });
    for sent in producer.send_all(records.collect::<Vec<_>>()).await {
        sent?;
    }
    producer.close(CLOSE).await
}

/// Sends values to a topic as [`send`] does, one after the other, with a pause behind each: traffic
/// that goes on while things go wrong.
///
/// # Errors
/// The first error of a delivery.
pub async fn trickle(
    bus: &Bus,
    topic: &str,
    partitions: Partition,
    values: &[String],
    pause: Duration,
) -> Result<()> {
    let producer = bus.producer(ProducerConfig::default())?;
    for (partition, value) in (0..partitions).cycle().zip(values) {
        let record = ProducerRecord::to(topic).key(value.clone()).value(value.clone());
        producer.send(record.partition(partition)).await?;
        tokio::time::sleep(pause).await;
    }
    producer.close(CLOSE).await
}

/// Waits until something is done, up to two minutes. Returns whether it was.
///
/// # Errors
/// What ended a process for good, and those of the question.
pub async fn until(
    bus: &Bus,
    life: &Lifecycle,
    is_done: impl Fn() -> Result<bool>,
) -> Result<bool> {
    let begun = bus.elapsed();
    loop {
        life.check()?;
        let done = is_done()?;
        if done || bus.elapsed().saturating_sub(begun) > DEADLINE {
            return Ok(done);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Reads all that a topic holds now.
///
/// # Errors
/// Those that no patience gets over.
pub async fn read_back(bus: &Bus, topic: &str) -> Result<Vec<Record>> {
    let (admin, consumer) = (bus.admin()?, bus.consumer(ConsumerConfig::default())?);
    let described = patiently(|| admin.describe_topic(Topic::from(topic))).await?;
    let mut left = 0;
    let mut from = Vec::new();
    for partition in &described.partitions {
        let partition = TopicPartition::new(topic, partition.partition);
        let ends = patiently(|| consumer.watermarks(&partition)).await?;
        left += ends.high - ends.low;
        from.push((partition, StartAt::Beginning));
    }
    consumer.assign(&from)?;
    let mut records = Vec::new();
    while i64::try_from(records.len()).unwrap_or(i64::MAX) < left {
        records.extend(patiently(|| consumer.poll_records(POLL)).await?);
    }
    consumer.close().await?;
    Ok(records)
}

const POLL: Duration = Duration::from_secs(1);
/// Long enough for a group to come to its senses, and short for a person.
const PAUSE: Duration = Duration::from_millis(100);
const CLOSE: Duration = Duration::from_secs(10);
const DEADLINE: Duration = Duration::from_mins(2);

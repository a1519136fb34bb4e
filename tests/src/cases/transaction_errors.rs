//! Transactions: calls that do not fit, and records that do not get through.

use std::sync::Arc;
use std::time::Duration;

use bus_core::{
    ErrorKind, GroupMetadata, IsolationLevel, NewTopic, Partition, ProducerConfig, ProducerRecord,
    Recovery, TopicPartition, TransactionConfig, TransactionalProducer,
};

use crate::cx::{Cx, quick_producer};
use crate::failure::{Verdict, refused};
use crate::{ensure, ensure_eq};

/// Enough for their markers to take a while.
const PARTITIONS: Partition = 40;
/// How often an abort follows a commit, each time a millisecond later.
const ROUNDS: usize = 8;

/// A partition, and a producer that is not initialized.
async fn uninitialized(cx: &Cx) -> Verdict<(TopicPartition, Arc<dyn TransactionalProducer>)> {
    let place = TopicPartition::new(cx.topic(1).await?, 0);
    let transaction = TransactionConfig::new(cx.name("id"));
    Ok((place, cx.bus().transactional_producer(quick_producer(), transaction)?))
}

/// A partition, and a producer with an open transaction.
async fn begun(cx: &Cx) -> Verdict<(TopicPartition, Arc<dyn TransactionalProducer>)> {
    let (place, producer) = uninitialized(cx).await?;
    producer.init_transactions().await?;
    producer.begin()?;
    Ok((place, producer))
}

fn nobody(cx: &Cx) -> GroupMetadata {
    GroupMetadata {
        group_id: cx.name("group"),
        generation: -1,
        member_id: String::new(),
        group_instance_id: None,
        native: None,
    }
}

/// Checks that every call that needs a transaction is refused for certain, and is the caller's
/// mistake.
async fn refuses_without_a_transaction(
    cx: &Cx,
    place: &TopicPartition,
    producer: &Arc<dyn TransactionalProducer>,
) -> Verdict {
    let (group, kind) = (nobody(cx), ErrorKind::InvalidState);
    let offsets = [(place.clone(), 1.into())];
    for error in [
        refused(producer.send(cx.record(place)).await, kind)?,
        refused(producer.send_offsets(&offsets, &group).await, kind)?,
        refused(producer.send_offsets(&[], &group).await, kind)?,
        refused(producer.commit().await, kind)?,
        refused(producer.abort().await, kind)?,
    ] {
        ensure_eq!(error.recovery(), Recovery::Fix, "what may be done: {error}");
        ensure!(!error.is_indeterminate(), "nothing has happened: {error}");
    }
    Ok(())
}

/// Checks that the producer can commit a transaction, and that this is all that is visible.
async fn works(
    cx: &Cx,
    place: &TopicPartition,
    producer: &Arc<dyn TransactionalProducer>,
) -> Verdict {
    producer.begin()?;
    let sent = cx.send_to(&**producer, place, 1).await?;
    producer.commit().await?;
    let read = cx.read(place, 1).await?;
    ensure_eq!(Some(read[0].offset), sent[0].offset, "the only record that is visible");
    Ok(())
}

/// Before its initialization a producer of transactions refuses every call, and then works.
pub async fn everything_needs_the_initialization(cx: Cx) -> Verdict {
    let (place, producer) = uninitialized(&cx).await?;
    refused(producer.begin(), ErrorKind::InvalidState)?;
    refuses_without_a_transaction(&cx, &place, &producer).await?;
    producer.init_transactions().await?;
    works(&cx, &place, &producer).await
}

/// A second initialization is refused, outside of a transaction and in one, and changes nothing.
pub async fn second_initialization_is_refused(cx: Cx) -> Verdict {
    let (place, producer) = uninitialized(&cx).await?;
    producer.init_transactions().await?;
    refused(producer.init_transactions().await, ErrorKind::InvalidState)?;
    producer.begin()?;
    cx.send_to(&*producer, &place, 1).await?;
    refused(producer.init_transactions().await, ErrorKind::InvalidState)?;
    producer.abort().await?;
    works(&cx, &place, &producer).await
}

/// A second `begin` is refused, and the transaction goes on.
pub async fn second_begin_is_refused(cx: Cx) -> Verdict {
    let (place, producer) = begun(&cx).await?;
    cx.send_to(&*producer, &place, 1).await?;
    let error = refused(producer.begin(), ErrorKind::InvalidState)?;
    ensure_eq!(error.recovery(), Recovery::Fix, "what may be done: {error}");
    cx.send_to(&*producer, &place, 1).await?;
    producer.commit().await?;
    ensure_eq!(cx.read(&place, 2).await?.len(), 2, "both records are in it");
    Ok(())
}

/// Outside of a transaction there is nothing to send, to commit, or to abort; neither before the
/// first nor behind one that has ended.
pub async fn calls_without_a_transaction_are_refused(cx: Cx) -> Verdict {
    let (place, producer) = uninitialized(&cx).await?;
    producer.init_transactions().await?;
    refuses_without_a_transaction(&cx, &place, &producer).await?;
    producer.begin()?;
    cx.send_to(&*producer, &place, 1).await?;
    producer.abort().await?;
    refuses_without_a_transaction(&cx, &place, &producer).await?;
    works(&cx, &place, &producer).await?;
    refuses_without_a_transaction(&cx, &place, &producer).await
}

/// Every call on a closed producer of transactions is refused.
pub async fn closed_producer_of_transactions_refuses_every_call(cx: Cx) -> Verdict {
    let (place, producer) = begun(&cx).await?;
    cx.send_to(&*producer, &place, 1).await?;
    producer.close(Duration::from_secs(20)).await?;
    let offsets = [(place.clone(), 1.into())];
    refused(producer.init_transactions().await, ErrorKind::Closed)?;
    refused(producer.begin(), ErrorKind::Closed)?;
    refused(producer.send(cx.record(&place)).await, ErrorKind::Closed)?;
    refused(producer.send_offsets(&offsets, &nobody(&cx)).await, ErrorKind::Closed)?;
    refused(producer.send_offsets(&[], &nobody(&cx)).await, ErrorKind::Closed)?;
    refused(producer.commit().await, ErrorKind::Closed)?;
    refused(producer.abort().await, ErrorKind::Closed)?;
    refused(producer.flush().await, ErrorKind::Closed)?;
    producer.close(Duration::from_secs(20)).await?;
    // The transaction stays open; the audit ends it, and finds nothing visible.
    Ok(())
}

/// A record that is refused for its size or its partition is no part of the transaction and does
/// not harm it.
pub async fn refused_records_do_not_harm(cx: Cx) -> Verdict {
    let (place, producer) = begun(&cx).await?;
    cx.send_to(&*producer, &place, 1).await?;
    let large = cx.record(&place).value(vec![0; 1_500_000]);
    let error = refused(producer.send(large).await, ErrorKind::MessageTooLarge)?;
    ensure_eq!(error.recovery(), Recovery::Fix, "what may be done: {error}");
    let nowhere = TopicPartition::new(&place.topic, 7);
    refused(producer.send(cx.record(&nowhere)).await, ErrorKind::UnknownTopicOrPartition)?;
    let negative = [(place.clone(), (-1).into())];
    refused(producer.send_offsets(&negative, &nobody(&cx)).await, ErrorKind::InvalidArgument)?;
    cx.send_to(&*producer, &place, 1).await?;
    producer.commit().await?;
    ensure_eq!(cx.read(&place, 2).await?.len(), 2, "the other records are committed");
    Ok(())
}

/// Checks that the transaction has failed: until it is aborted it takes nothing, and its commit
/// says why.
async fn has_failed(
    cx: &Cx,
    place: &TopicPartition,
    producer: &Arc<dyn TransactionalProducer>,
    kind: ErrorKind,
) -> Verdict {
    for outcome in [producer.commit().await, producer.begin(), producer.commit().await] {
        let error = refused(outcome, kind)?;
        ensure_eq!(error.recovery(), Recovery::Abort, "what may be done: {error}");
        ensure!(!error.is_indeterminate(), "nothing is committed: {error}");
    }
    let error = refused(producer.send(cx.record(place)).await, ErrorKind::InvalidState)?;
    ensure_eq!(error.recovery(), Recovery::Abort, "what may be done: {error}");
    producer.abort().await?;
    Ok(())
}

/// A record that the broker refuses makes its transaction fail: none of its records is visible, and
/// the producer works again after the abort, or after one more: the sequence number of the refused
/// record is missing.
pub async fn record_too_large_for_the_topic_fails_the_transaction(cx: Cx) -> Verdict {
    let new = NewTopic::new(cx.name("topic")).config("max.message.bytes", "1000");
    let place = TopicPartition::new(cx.create(new).await?, 0);
    let producer = cx.transactional(&cx.name("id")).await?;
    producer.begin()?;
    cx.send_to(&*producer, &place, 1).await?;
    let large = cx.record(&place).value(vec![0; 5_000]);
    let error = refused(producer.send(large).await, ErrorKind::MessageTooLarge)?;
    ensure_eq!(error.recovery(), Recovery::Abort, "what may be done: {error}");
    has_failed(&cx, &place, &producer, ErrorKind::MessageTooLarge).await?;
    producer.begin()?;
    let sent = producer.send(cx.record(&place)).await;
    match producer.commit().await {
        Ok(()) => ensure!(sent.is_ok(), "what is committed was delivered, not {sent:?}"),
        Err(error) => {
            ensure_eq!(error.kind(), ErrorKind::OutOfOrderSequenceNumber, "{error}");
            ensure_eq!(error.recovery(), Recovery::Abort, "what may be done: {error}");
            producer.abort().await?;
            works(&cx, &place, &producer).await?;
        }
    }
    Ok(())
}

/// A record for a topic that does not exist makes its transaction fail.
pub async fn record_for_a_missing_topic_fails_the_transaction(cx: Cx) -> Verdict {
    let (place, producer) = begun(&cx).await?;
    cx.send_to(&*producer, &place, 1).await?;
    let missing = ProducerRecord::to(cx.name("missing")).partition(0).value("v");
    let outcome = producer.send(missing).await;
    let error = refused(outcome, ErrorKind::UnknownTopicOrPartition)?;
    ensure_eq!(error.recovery(), Recovery::Abort, "what may be done: {error}");
    let error = refused(producer.commit().await, ErrorKind::TransactionAbortable)?;
    ensure_eq!(error.recovery(), Recovery::Abort, "what may be done: {error}");
    has_failed(&cx, &place, &producer, ErrorKind::TransactionAbortable).await?;
    works(&cx, &place, &producer).await
}

/// An abort close behind a commit may meet the commit's markers, which are still being written. It
/// succeeds, or is the end of the producer, and the next one of the id goes on; committed records
/// stay, and there are no others.
pub async fn abort_close_behind_a_commit_ends_at_most_the_producer(cx: Cx) -> Verdict {
    let places: Vec<_> = {
        let topic = cx.topic(PARTITIONS).await?;
        (0..PARTITIONS).map(|partition| TopicPartition::new(&topic, partition)).collect()
    };
    let id = cx.name("id");
    let producer = async || {
        // The records of what is aborted stay in the buffer.
        let config = ProducerConfig { linger: Duration::from_secs(30), ..Default::default() };
        cx.transactional_with(config, TransactionConfig::new(&id)).await
    };
    let mut current = producer().await?;
    for (wait, _) in (0..).zip(0..ROUNDS) {
        current.begin()?;
        let sent: Vec<_> = places.iter().map(|place| current.send(cx.record(place))).collect();
        current.commit().await?;
        for delivery in sent {
            delivery.await?;
        }
        current.begin()?;
        let purged = current.send(cx.record(&places[0]));
        tokio::time::sleep(Duration::from_millis(wait)).await;
        if let Err(error) = current.abort().await {
            ensure_eq!(error.kind(), ErrorKind::InvalidTxnState, "{error}");
            ensure_eq!(error.recovery(), Recovery::Close, "what may be done: {error}");
            current = producer().await?;
        }
        ensure!(purged.await.is_err(), "what is aborted is not delivered");
    }
    let reader = cx.isolated(IsolationLevel::ReadCommitted, &places)?;
    let all = ROUNDS * places.len();
    cx.drive(&[&reader], "all is read", || reader.count() >= all).await
}

/// A note beside an offset that is too long makes the transaction fail.
pub async fn metadata_too_long_fails_the_transaction(cx: Cx) -> Verdict {
    let (place, producer) = begun(&cx).await?;
    cx.send_to(&*producer, &place, 1).await?;
    let noted = bus_core::OffsetAndMetadata { offset: 1, metadata: "m".repeat(5_000) };
    let outcome = producer.send_offsets(&[(place.clone(), noted)], &nobody(&cx)).await;
    let error = refused(outcome, ErrorKind::OffsetMetadataTooLarge)?;
    ensure_eq!(error.recovery(), Recovery::Abort, "what may be done: {error}");
    has_failed(&cx, &place, &producer, ErrorKind::OffsetMetadataTooLarge).await?;
    works(&cx, &place, &producer).await
}

/// A transaction timeout above the broker's limit is refused by the initialization, and the
/// producer cannot go on.
pub async fn transaction_timeout_above_the_limit_is_refused(cx: Cx) -> Verdict {
    let place = TopicPartition::new(cx.topic(1).await?, 0);
    let transaction_timeout = Duration::from_mins(16);
    let transaction =
        TransactionConfig { transaction_timeout, ..TransactionConfig::new(cx.name("id")) };
    let producer = cx.bus().transactional_producer(quick_producer(), transaction)?;
    let kind = ErrorKind::InvalidTransactionTimeout;
    for error in [
        refused(producer.init_transactions().await, kind)?,
        refused(producer.init_transactions().await, kind)?,
        refused(producer.begin(), kind)?,
        refused(producer.send(cx.record(&place)).await, kind)?,
        refused(producer.commit().await, kind)?,
    ] {
        ensure_eq!(error.recovery(), Recovery::Close, "what may be done: {error}");
    }
    Ok(())
}

/// Configurations that transactions cannot have are refused when the producer is made.
pub async fn impossible_transactions_are_refused(cx: Cx) -> Verdict {
    let id = cx.name("id");
    let timed = |transaction_timeout| TransactionConfig {
        transaction_timeout,
        ..TransactionConfig::new(id.as_str())
    };
    let linger = Duration::from_secs(5);
    for (config, transaction) in [
        (quick_producer(), TransactionConfig::new("")),
        (quick_producer(), timed(Duration::from_millis(999))),
        (quick_producer(), timed(Duration::from_secs(1 << 32))),
        (
            ProducerConfig { enable_idempotence: false, ..quick_producer() },
            timed(Duration::from_secs(10)),
        ),
        // The transaction bounds the time of a delivery, which must be longer than it lingers.
        (ProducerConfig { linger, ..quick_producer() }, timed(linger)),
    ] {
        refused(cx.bus().transactional_producer(config, transaction), ErrorKind::InvalidConfig)?;
    }
    Ok(())
}

//! Transactions: who sees what of them, and when.

use std::collections::BTreeSet;
use std::task::Poll;
use std::time::Duration;

use bus_core::IsolationLevel::{ReadCommitted, ReadUncommitted};
use bus_core::{
    ConsumerConfig, IsolationLevel, Offset, OffsetReset, ProducerConfig, ProducerExt,
    ProducerRecord, RecordMetadata, StartAt, TopicPartition, TransactionConfig,
};

use crate::cx::{Cx, STEP, quick_consumer, quick_producer};
use crate::failure::Verdict;
use crate::reader::Reader;
use crate::{ensure, ensure_eq};

/// For how long a reader is polled that is to be given nothing.
const MOMENT: Duration = Duration::from_millis(300);

/// A topic of one partition.
async fn place(cx: &Cx) -> Verdict<TopicPartition> {
    Ok(TopicPartition::new(cx.topic(1).await?, 0))
}

/// A reader of each isolation level.
fn both(cx: &Cx, places: &[TopicPartition]) -> Verdict<(Reader, Reader)> {
    Ok((cx.isolated(ReadCommitted, places)?, cx.isolated(ReadUncommitted, places)?))
}

/// The end of a partition as readers of this isolation level see it.
async fn end(cx: &Cx, place: &TopicPartition, isolation: IsolationLevel) -> Verdict<Offset> {
    let config =
        quick_consumer(ConsumerConfig { isolation_level: isolation, ..Default::default() });
    Ok(cx.bus().consumer(config)?.watermarks(place).await?.high)
}

/// Waits until the partition ends there for readers of committed records.
async fn stable_end(cx: &Cx, place: &TopicPartition, offset: Offset) -> Verdict {
    let config = quick_consumer(ConsumerConfig::default());
    let reader = cx.bus().consumer(config)?;
    let found = cx.until("the marker is written", async || {
        let high = reader.watermarks(place).await?.high;
        Ok((high >= offset).then_some(high))
    });
    ensure_eq!(found.await?, offset, "where the partition ends");
    Ok(())
}

fn offsets(sent: &[RecordMetadata]) -> Vec<Offset> {
    sent.iter().filter_map(|metadata| metadata.offset).collect()
}

/// Records of an aborted transaction are never delivered to readers of committed records; readers
/// of uncommitted records are given them.
pub async fn aborted_records_are_invisible(cx: Cx) -> Verdict {
    let place = place(&cx).await?;
    let (committed, uncommitted) = both(&cx, std::slice::from_ref(&place))?;
    let producer = cx.transactional(&cx.name("id")).await?;
    producer.begin()?;
    cx.send_to(&*producer, &place, 3).await?;
    producer.abort().await?;
    stable_end(&cx, &place, 4).await?;
    let after = cx.publish_to(&place, 1).await?;
    cx.drive(&[&committed, &uncommitted], "both have read on", || {
        committed.count() >= 1 && uncommitted.count() >= 4
    })
    .await?;
    ensure_eq!(committed.offsets(&place), offsets(&after), "what readers of committed records got");
    ensure_eq!(uncommitted.offsets(&place), [0, 1, 2, 4], "what readers of all records got");
    Ok(())
}

/// A commit makes the records of all partitions visible, and before it none is.
pub async fn commit_makes_all_partitions_visible(cx: Cx) -> Verdict {
    let topic = cx.topic(3).await?;
    let places = [0, 1, 2].map(|partition| TopicPartition::new(&topic, partition));
    let (committed, uncommitted) = both(&cx, &places)?;
    let producer = cx.transactional(&cx.name("id")).await?;
    producer.begin()?;
    for place in &places {
        cx.send_to(&*producer, place, 2).await?;
    }
    cx.drive(&[&uncommitted], "the records are there", || uncommitted.count() == 6).await?;
    cx.drive_for(&[&committed], MOMENT).await?;
    ensure_eq!(committed.count(), 0, "nothing is committed yet");
    producer.commit().await?;
    cx.drive(&[&committed], "the records are visible", || committed.count() == 6).await?;
    ensure_eq!(committed.seen(), BTreeSet::from(places), "of each partition");
    Ok(())
}

/// An open transaction holds back what others send behind it, for readers of committed records
/// only; when it ends they are given everything in the order of the offsets.
pub async fn open_transaction_holds_back_committed_readers(cx: Cx) -> Verdict {
    let place = place(&cx).await?;
    let (committed, uncommitted) = both(&cx, std::slice::from_ref(&place))?;
    cx.publish_to(&place, 2).await?;
    let producer = cx.transactional(&cx.name("id")).await?;
    producer.begin()?;
    cx.send_to(&*producer, &place, 1).await?;
    cx.publish_to(&place, 2).await?;
    cx.drive(&[&uncommitted], "all records are there", || uncommitted.count() == 5).await?;
    cx.drive(&[&committed], "those before it are visible", || committed.count() == 2).await?;
    cx.drive_for(&[&committed], MOMENT).await?;
    ensure_eq!(committed.offsets(&place), [0, 1], "those behind it wait");
    producer.commit().await?;
    cx.drive(&[&committed], "it ends", || committed.count() == 5).await?;
    ensure_eq!(committed.offsets(&place), [0, 1, 2, 3, 4], "in the order of the offsets");
    Ok(())
}

/// Where a transaction has sent nothing it holds back nothing.
pub async fn other_partitions_do_not_wait(cx: Cx) -> Verdict {
    let topic = cx.topic(2).await?;
    let [open, other] = [0, 1].map(|partition| TopicPartition::new(&topic, partition));
    let producer = cx.transactional(&cx.name("id")).await?;
    producer.begin()?;
    cx.send_to(&*producer, &open, 1).await?;
    cx.publish_to(&other, 3).await?;
    ensure_eq!(cx.read(&other, 3).await?.len(), 3, "the other partition is read");
    ensure_eq!(end(&cx, &open, ReadCommitted).await?, 0, "the open one has nothing yet");
    producer.abort().await?;
    Ok(())
}

/// The end of a transaction takes an offset in each of its partitions, which no record has.
pub async fn markers_take_offsets(cx: Cx) -> Verdict {
    let place = place(&cx).await?;
    let producer = cx.transactional(&cx.name("id")).await?;
    producer.begin()?;
    ensure_eq!(offsets(&cx.send_to(&*producer, &place, 3).await?), [0, 1, 2], "the first three");
    producer.commit().await?;
    stable_end(&cx, &place, 4).await?;
    producer.begin()?;
    ensure_eq!(offsets(&cx.send_to(&*producer, &place, 2).await?), [4, 5], "behind the marker");
    producer.abort().await?;
    stable_end(&cx, &place, 7).await?;
    ensure_eq!(offsets(&cx.publish_to(&place, 1).await?), [7], "behind the second marker");
    let records = cx.read(&place, 4).await?;
    let read: Vec<_> = records.iter().map(|record| record.offset).collect();
    ensure_eq!(read, [0, 1, 2, 7], "the offsets of records");
    Ok(())
}

/// The position is behind the last record that was delivered: it does not see markers until a
/// record behind them comes.
pub async fn position_follows_records_not_markers(cx: Cx) -> Verdict {
    let place = place(&cx).await?;
    let reader = cx.isolated(ReadCommitted, std::slice::from_ref(&place))?;
    let producer = cx.transactional(&cx.name("id")).await?;
    for expected in [1, 3] {
        producer.begin()?;
        cx.send_to(&*producer, &place, 1).await?;
        producer.commit().await?;
        let count = reader.count() + 1;
        cx.drive(&[&reader], "the record is read", || reader.count() == count).await?;
        cx.drive_for(&[&reader], MOMENT).await?;
        ensure_eq!(reader.position(&place)?, Some(expected), "the position");
    }
    Ok(())
}

/// The end of a partition is the last stable offset for readers of committed records, and the high
/// watermark for the others.
pub async fn watermarks_follow_the_isolation_level(cx: Cx) -> Verdict {
    let place = place(&cx).await?;
    cx.publish_to(&place, 2).await?;
    let producer = cx.transactional(&cx.name("id")).await?;
    producer.begin()?;
    cx.send_to(&*producer, &place, 3).await?;
    cx.publish_to(&place, 1).await?;
    ensure_eq!(end(&cx, &place, ReadCommitted).await?, 2, "before the open transaction");
    ensure_eq!(end(&cx, &place, ReadUncommitted).await?, 6, "behind everything");
    producer.commit().await?;
    stable_end(&cx, &place, 7).await?;
    ensure_eq!(end(&cx, &place, ReadUncommitted).await?, 7, "with the marker");
    Ok(())
}

/// A transaction without records ends without a trace, whether by commit or abort.
pub async fn empty_transaction_leaves_no_trace(cx: Cx) -> Verdict {
    let place = place(&cx).await?;
    let producer = cx.transactional(&cx.name("id")).await?;
    for _ in 0..3 {
        producer.begin()?;
        producer.commit().await?;
        producer.begin()?;
        producer.abort().await?;
    }
    ensure_eq!(end(&cx, &place, ReadUncommitted).await?, 0, "nothing is written");
    producer.begin()?;
    cx.send_to(&*producer, &place, 1).await?;
    producer.commit().await?;
    ensure_eq!(cx.read(&place, 1).await?.len(), 1, "the producer works");
    Ok(())
}

/// Of many transactions in a row each is visible or not by itself, and their order stays.
pub async fn many_transactions_in_a_row(cx: Cx) -> Verdict {
    let place = place(&cx).await?;
    let producer = cx.transactional(&cx.name("id")).await?;
    let mut expected = Vec::new();
    for n in 0..20 {
        producer.begin()?;
        let sent = cx.send_to(&*producer, &place, 1 + n % 3).await?;
        if n % 4 == 1 {
            producer.abort().await?;
        } else {
            producer.commit().await?;
            expected.extend(offsets(&sent));
        }
    }
    let records = cx.read(&place, expected.len()).await?;
    let read: Vec<_> = records.iter().map(|record| record.offset).collect();
    ensure_eq!(read, expected, "the committed ones in their order");
    Ok(())
}

/// What follows an aborted transaction of the same producer has nothing of it.
pub async fn transaction_after_an_abort_starts_anew(cx: Cx) -> Verdict {
    let place = place(&cx).await?;
    // Nothing leaves the producer by itself.
    let config = ProducerConfig { linger: Duration::from_secs(30), ..Default::default() };
    let transaction = TransactionConfig::new(cx.name("id"));
    let producer = cx.transactional_with(config, transaction).await?;
    producer.begin()?;
    let purged = [producer.send(cx.record(&place)), producer.send(cx.record(&place))];
    producer.abort().await?;
    for delivery in purged {
        let error = delivery.await.err();
        let kind = error.as_ref().map(bus_core::Error::kind);
        ensure_eq!(kind, Some(bus_core::ErrorKind::Purged), "a delivery of the aborted one");
        ensure!(!error.is_some_and(|error| error.is_indeterminate()), "it never left");
    }
    producer.begin()?;
    let delivery = producer.send(cx.record(&place));
    producer.commit().await?;
    ensure_eq!(delivery.await?.offset, Some(0), "the first record of the partition");
    stable_end(&cx, &place, 2).await
}

/// Two producers write to the same partitions at the same time, and one of them aborts: readers are
/// given the records of the other.
pub async fn interleaved_transactions_are_told_apart(cx: Cx) -> Verdict {
    let topic = cx.topic(2).await?;
    let places = [0, 1].map(|partition| TopicPartition::new(&topic, partition));
    let (committed, uncommitted) = both(&cx, &places)?;
    let (good, bad) =
        (cx.transactional(&cx.name("good")).await?, cx.transactional(&cx.name("bad")).await?);
    good.begin()?;
    bad.begin()?;
    let mut expected = BTreeSet::new();
    for _ in 0..3 {
        for place in &places {
            cx.send_to(&*bad, place, 1).await?;
            for metadata in cx.send_to(&*good, place, 2).await? {
                expected.insert((metadata.topic_partition, metadata.offset.unwrap_or_default()));
            }
        }
    }
    good.commit().await?;
    cx.drive_for(&[&committed], MOMENT).await?;
    ensure_eq!(committed.count(), 0, "the one that is open holds back the one that is committed");
    bad.abort().await?;
    cx.drive(&[&committed, &uncommitted], "both are read", || {
        committed.count() >= 12 && uncommitted.count() >= 18
    })
    .await?;
    ensure_eq!(super::places(&committed.records()), expected, "the records of the good one");
    Ok(())
}

/// A committed transaction behind an aborted one of the same producer is visible, and the other way
/// around.
pub async fn abort_and_commit_of_one_producer_are_told_apart(cx: Cx) -> Verdict {
    let place = place(&cx).await?;
    let (committed, uncommitted) = both(&cx, std::slice::from_ref(&place))?;
    let producer = cx.transactional(&cx.name("id")).await?;
    for commits in [false, true, true, false, true] {
        producer.begin()?;
        cx.send_to(&*producer, &place, 2).await?;
        if commits { producer.commit().await? } else { producer.abort().await? }
    }
    cx.drive(&[&committed, &uncommitted], "both have read", || {
        committed.count() >= 6 && uncommitted.count() >= 10
    })
    .await?;
    ensure_eq!(committed.offsets(&place), [3, 4, 6, 7, 12, 13], "the committed ones");
    Ok(())
}

/// A new reader of committed records that starts at the latest offset starts before an open
/// transaction, one of uncommitted records behind it.
pub async fn latest_is_the_last_stable_offset(cx: Cx) -> Verdict {
    let place = place(&cx).await?;
    cx.publish_to(&place, 2).await?;
    let producer = cx.transactional(&cx.name("id")).await?;
    producer.begin()?;
    cx.send_to(&*producer, &place, 2).await?;
    let latest = |isolation_level| {
        let config = quick_consumer(ConsumerConfig {
            isolation_level,
            auto_offset_reset: OffsetReset::Latest,
            ..ConsumerConfig::in_group(cx.name("group"))
        });
        let consumer = cx.bus().consumer(config)?;
        consumer.assign(&[(place.clone(), StartAt::Committed)])?;
        Verdict::Ok(Reader::new(consumer))
    };
    let (committed, uncommitted) = (latest(ReadCommitted)?, latest(ReadUncommitted)?);
    // Both have found where to start when they have been fetching for a while.
    cx.drive_for(&[&committed, &uncommitted], Duration::from_secs(1)).await?;
    producer.commit().await?;
    stable_end(&cx, &place, 5).await?;
    cx.publish_to(&place, 1).await?;
    cx.drive(&[&committed, &uncommitted], "both read on", || {
        committed.count() >= 3 && uncommitted.count() >= 1
    })
    .await?;
    ensure_eq!(committed.offsets(&place), [2, 3, 5], "the transaction and what followed");
    ensure_eq!(uncommitted.offsets(&place), [5], "what followed only");
    Ok(())
}

/// Transactions keep the order of the calls, within each and from one to the next, with batches on
/// their way at the same time.
pub async fn transactions_keep_the_order(cx: Cx) -> Verdict {
    let place = place(&cx).await?;
    let config = ProducerConfig { batch_records: 3, ..quick_producer() };
    let producer = cx.transactional_with(config, TransactionConfig::new(cx.name("id"))).await?;
    let mut sent = Vec::new();
    for _ in 0..5 {
        producer.begin()?;
        let records: Vec<_> = (0..40).map(|_| cx.record(&place)).collect();
        sent.extend(records.iter().map(|record| record.value.clone()));
        drop(producer.send_all(records).await);
        producer.commit().await?;
    }
    let records = cx.read(&place, sent.len()).await?;
    let read: Vec<_> = records.into_iter().map(|record| record.value).collect();
    ensure!(read == sent, "the records in the order of the calls");
    Ok(())
}

/// A flush sends what is in the buffer, and commits nothing.
pub async fn flush_commits_nothing(cx: Cx) -> Verdict {
    let place = place(&cx).await?;
    let (committed, uncommitted) = both(&cx, std::slice::from_ref(&place))?;
    let config = ProducerConfig { linger: Duration::from_secs(30), ..Default::default() };
    let transaction = TransactionConfig::new(cx.name("id"));
    let producer = cx.transactional_with(config, transaction).await?;
    producer.begin()?;
    let deliveries = [producer.send(cx.record(&place)), producer.send(cx.record(&place))];
    producer.flush().await?;
    for delivery in deliveries {
        delivery.await?;
    }
    cx.drive(&[&uncommitted], "the records are there", || uncommitted.count() == 2).await?;
    cx.drive_for(&[&committed], MOMENT).await?;
    ensure_eq!(committed.count(), 0, "nothing is committed");
    producer.commit().await?;
    cx.drive(&[&committed], "the records are visible", || committed.count() == 2).await
}

/// A commit sends what is in the buffer, without lingering; when it is done so is every delivery.
pub async fn commit_flushes(cx: Cx) -> Verdict {
    let place = place(&cx).await?;
    let config = ProducerConfig { linger: Duration::from_secs(50), ..Default::default() };
    let transaction = TransactionConfig::new(cx.name("id"));
    let producer = cx.transactional_with(config, transaction).await?;
    producer.begin()?;
    let deliveries: Vec<_> = (0..10).map(|_| producer.send(cx.record(&place))).collect();
    let begin = cx.bus().elapsed();
    producer.commit().await?;
    let took = cx.bus().elapsed() - begin;
    ensure!(took < Duration::from_secs(10), "the commit took {took:?}");
    for delivery in deliveries {
        let delivered = tokio::time::timeout(STEP, delivery).await;
        ensure!(delivered.is_ok_and(|outcome| outcome.is_ok()), "each delivery is done");
    }
    ensure_eq!(cx.read(&place, 10).await?.len(), 10, "all records");
    Ok(())
}

/// A transaction of thousands of records in hundreds of batches is visible as a whole, or not at
/// all.
pub async fn large_transaction_is_one(cx: Cx) -> Verdict {
    let topic = cx.topic(2).await?;
    let places = [0, 1].map(|partition| TopicPartition::new(&topic, partition));
    let config = ProducerConfig { batch_records: 20, ..quick_producer() };
    let producer = cx.transactional_with(config, TransactionConfig::new(cx.name("id"))).await?;
    for commits in [false, true] {
        producer.begin()?;
        let records: Vec<_> = (0..3_000).map(|n| cx.record(&places[n % 2])).collect();
        for outcome in producer.send_all(records).await {
            outcome?;
        }
        if commits { producer.commit().await? } else { producer.abort().await? }
    }
    let reader = cx.isolated(ReadCommitted, &places)?;
    cx.drive(&[&reader], "the committed one is read", || reader.count() >= 3_000).await?;
    ensure_eq!(reader.count(), 3_000, "the aborted one is not");
    ensure_eq!(reader.offsets(&places[0])[0], 1_501, "behind the aborted one and its marker");
    Ok(())
}

/// A topic may grow while a transaction is open, and the transaction may go on in the new
/// partition.
pub async fn topic_grows_amid_a_transaction(cx: Cx) -> Verdict {
    let topic = cx.topic(1).await?;
    let [old, new] = [0, 1].map(|partition| TopicPartition::new(&topic, partition));
    let producer = cx.transactional(&cx.name("id")).await?;
    producer.begin()?;
    cx.send_to(&*producer, &old, 1).await?;
    cx.admin().create_partitions(topic.clone(), 2).await?;
    cx.until("the producer knows the new partition", async || {
        tokio::time::sleep(STEP).await;
        Ok((producer.partitions_for(topic.clone()).await? == 2).then_some(()))
    })
    .await?;
    cx.send_to(&*producer, &new, 1).await?;
    producer.commit().await?;
    for place in [old, new] {
        ensure_eq!(cx.read(&place, 1).await?.len(), 1, "the record of {place}");
    }
    Ok(())
}

/// A transaction may span topics, and keys, headers, and nulls come out as they went in.
pub async fn transaction_spans_topics_and_payloads(cx: Cx) -> Verdict {
    let topics = [cx.topic(3).await?, cx.topic(2).await?];
    let producer = cx.transactional(&cx.name("id")).await?;
    producer.begin()?;
    for (last, topic) in [2, 1].into_iter().zip(&topics) {
        let records = [
            ProducerRecord::to(topic).key("a").value("").header("h", "1").header("h", "2"),
            ProducerRecord::to(topic).key("b").value(vec![0xff, 0, 0xfe]),
            ProducerRecord::to(topic).partition(last),
        ];
        for outcome in producer.send_all(records).await {
            outcome?;
        }
    }
    producer.commit().await?;
    let places: Vec<_> = [(0, 3), (1, 2)]
        .into_iter()
        .flat_map(|(n, count)| (0..count).map(move |partition| (n, partition)))
        .map(|(n, partition): (usize, i32)| TopicPartition::new(&topics[n], partition))
        .collect();
    let reader = cx.isolated(ReadCommitted, &places)?;
    // The laws of the oracle compare every byte.
    cx.drive(&[&reader], "all records are read", || reader.count() == 6).await
}

/// Plain producers and transactions share a partition; what is sent before a transaction or behind
/// its end is visible at once.
pub async fn plain_records_and_transactions_mix(cx: Cx) -> Verdict {
    let place = place(&cx).await?;
    let producer = cx.transactional(&cx.name("id")).await?;
    let mut expected = Vec::new();
    for round in 0..4 {
        expected.extend(offsets(&cx.publish_to(&place, 2).await?));
        producer.begin()?;
        let sent = cx.send_to(&*producer, &place, 2).await?;
        if round % 2 == 0 {
            producer.commit().await?;
            expected.extend(offsets(&sent));
        } else {
            producer.abort().await?;
        }
    }
    let records = cx.read(&place, expected.len()).await?;
    let read: Vec<_> = records.iter().map(|record| record.offset).collect();
    ensure_eq!(read, expected, "what readers of committed records got");
    Ok(())
}

/// A member of a group that commits before a marker, or before an aborted transaction, resumes
/// behind it.
pub async fn members_resume_over_markers(cx: Cx) -> Verdict {
    let place = place(&cx).await?;
    let group = cx.name("group");
    let producer = cx.transactional(&cx.name("id")).await?;
    let first = cx.member(&group, &place.topic)?;
    for commits in [true, false] {
        producer.begin()?;
        cx.send_to(&*producer, &place, 2).await?;
        if commits { producer.commit().await? } else { producer.abort().await? }
    }
    cx.drive(&[&first], "the committed ones are read", || first.count() == 2).await?;
    first.commit_positions().await?;
    first.close().await?;
    let second = cx.member(&group, &place.topic)?;
    let sent = cx.publish_to(&place, 2).await?;
    cx.drive(&[&second], "the next ones are read", || second.count() >= 2).await?;
    ensure_eq!(second.offsets(&place), offsets(&sent), "neither a marker nor an aborted record");
    Ok(())
}

/// The future of a commit may be dropped: the commit goes on, and may be asked for again.
pub async fn dropped_commit_goes_on(cx: Cx) -> Verdict {
    let place = place(&cx).await?;
    let producer = cx.transactional(&cx.name("id")).await?;
    for _ in 0..3 {
        producer.begin()?;
        drop(producer.send(cx.record(&place)));
        {
            let mut commit = producer.commit();
            // Real calls may be done before this thread goes on.
            if let Poll::Ready(outcome) = futures_util::poll!(&mut commit) {
                outcome?;
                continue;
            }
        }
        producer.commit().await?;
    }
    ensure_eq!(cx.read(&place, 3).await?.len(), 3, "each was committed, once");
    Ok(())
}

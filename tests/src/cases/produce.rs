//! Produce: order, acknowledgement, partitions, batches, back-pressure, and the end of a producer.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bus_core::{
    Acks, ErrorKind, ProducerConfig, ProducerExt, ProducerRecord, TopicPartition, partitioner,
};
use futures_util::future::join_all;

use crate::cx::{Cx, quick_producer};
use crate::failure::{Verdict, refused};
use crate::{ensure, ensure_eq};

/// A record that was acknowledged is in the log at the offset that the acknowledgement names.
pub async fn one_record_arrives(cx: Cx) -> Verdict {
    let place = TopicPartition::new(cx.topic(1).await?, 0);
    let sent = cx.publish_to(&place, 3).await?;
    let offsets: Vec<_> = sent.iter().map(|metadata| metadata.offset).collect();
    ensure_eq!(offsets, [Some(0), Some(1), Some(2)], "offsets count from 0");
    let read = cx.read(&place, 3).await?;
    ensure_eq!(read[2].value.as_deref(), Some(&b"value 2"[..]), "the last value is read back");
    Ok(())
}

/// Records of one producer keep the order of the calls to `send`, over many batches.
pub async fn batch_keeps_order(cx: Cx) -> Verdict {
    let place = TopicPartition::new(cx.topic(1).await?, 0);
    let producer = cx.bus().producer(ProducerConfig { batch_records: 7, ..quick_producer() })?;
    let records =
        (0..500).map(|n| ProducerRecord::to(&place.topic).partition(0).value(format!("{n}")));
    for outcome in producer.send_all(records).await {
        outcome?;
    }
    let read = cx.read(&place, 500).await?;
    for (n, record) in read.iter().enumerate() {
        let value = record.value.as_deref().unwrap_or_default();
        ensure_eq!(value, n.to_string().as_bytes(), "the order is that of the calls");
    }
    Ok(())
}

/// Two producers on one partition interleave, and each keeps its own order.
pub async fn two_producers_keep_their_order(cx: Cx) -> Verdict {
    let place = TopicPartition::new(cx.topic(1).await?, 0);
    let producers = [cx.producer()?, cx.producer()?];
    let sending = producers
        .iter()
        .map(|producer| producer.send_all((0..100).map(|_| cx.record(&place)).collect::<Vec<_>>()));
    for outcome in join_all(sending).await.into_iter().flatten() {
        outcome?;
    }
    // The oracle compares the order of each producer's calls with the offsets.
    ensure_eq!(cx.read(&place, 200).await?.len(), 200, "all records are there");
    Ok(())
}

/// Each record of a batch has its own outcome: one bad record fails alone, the others arrive.
pub async fn bad_record_fails_alone(cx: Cx) -> Verdict {
    let place = TopicPartition::new(cx.topic(1).await?, 0);
    let config = ProducerConfig { max_request_size: 10_000, ..quick_producer() };
    let producer = cx.bus().producer(config)?;
    let outcomes = producer
        .send_all([
            cx.record(&place),
            cx.record(&place).value(vec![0; 20_000]),
            cx.record(&place),
            cx.record(&TopicPartition::new(&place.topic, 7)),
            cx.record(&place),
        ])
        .await;
    let kinds: Vec<_> =
        outcomes.iter().map(|outcome| outcome.as_ref().err().map(bus_core::Error::kind)).collect();
    let (large, unknown) = (ErrorKind::MessageTooLarge, ErrorKind::UnknownTopicOrPartition);
    ensure_eq!(kinds, [None, Some(large), None, Some(unknown), None], "one outcome per record");
    ensure_eq!(cx.read(&place, 3).await?.len(), 3, "the good records are there");
    Ok(())
}

/// A key goes to the partition that Kafka's murmur2 gives it, an empty key included.
pub async fn key_goes_to_kafkas_partition(cx: Cx) -> Verdict {
    const PARTITIONS: i32 = 7;
    let topic = cx.topic(PARTITIONS).await?;
    let keys = ["", "21", "foobar", "a-little-bit-long-string", "lkjh234lh9fiuh90y23oiuhsafuj"];
    for key in keys {
        let sent = cx.publish_records([ProducerRecord::to(&topic).key(key).value("v")]).await?;
        let expected = partitioner::partition_for_key(key.as_bytes(), PARTITIONS);
        ensure_eq!(sent[0].topic_partition.partition, expected, "the partition of key {key:?}");
    }
    Ok(())
}

/// All records of a key go to one partition, whichever producer sends them.
pub async fn key_keeps_its_partition(cx: Cx) -> Verdict {
    let topic = cx.topic(5).await?;
    for n in 0..20 {
        let mut places = BTreeSet::new();
        for producer in [cx.producer()?, cx.producer()?] {
            let record = ProducerRecord::to(&topic).key(format!("order-{n}")).value("v");
            places.insert(producer.send(record).await?.topic_partition);
        }
        ensure_eq!(places.len(), 1, "key order-{n} went to {places:?}");
    }
    Ok(())
}

/// An explicit partition is taken, whatever the key is.
pub async fn explicit_partition_wins_over_the_key(cx: Cx) -> Verdict {
    let topic = cx.topic(4).await?;
    for partition in 0..4 {
        let record = ProducerRecord::to(&topic).partition(partition).key("the same").value("v");
        let sent = cx.publish_records([record]).await?;
        ensure_eq!(
            sent[0].topic_partition.partition,
            partition,
            "the partition that was asked for"
        );
    }
    Ok(())
}

/// Records without a key spread over all partitions.
pub async fn null_keys_spread(cx: Cx) -> Verdict {
    let topic = cx.topic(3).await?;
    let config = ProducerConfig { sticky_linger: Duration::ZERO, ..quick_producer() };
    let producer = cx.bus().producer(config)?;
    let mut places = BTreeSet::new();
    for n in 0..90 {
        let record = ProducerRecord::to(&topic).value(format!("{n}"));
        places.insert(producer.send(record).await?.topic_partition.partition);
    }
    ensure_eq!(places, BTreeSet::from([0, 1, 2]), "every partition is used");
    Ok(())
}

/// Records without a key that are sent at once stick to one partition, for larger batches.
pub async fn null_keys_stick_for_a_while(cx: Cx) -> Verdict {
    let topic = cx.topic(8).await?;
    let config = ProducerConfig { sticky_linger: Duration::from_mins(1), ..quick_producer() };
    let producer = cx.bus().producer(config)?;
    // A partition can be stuck to as soon as the producer has met its leader.
    for partition in 0..8 {
        producer.send(cx.record(&TopicPartition::new(&topic, partition))).await?;
    }
    let records = (0..50).map(|n| ProducerRecord::to(&topic).value(format!("{n}")));
    let mut places = BTreeSet::new();
    for outcome in producer.send_all(records).await {
        places.insert(outcome?.topic_partition.partition);
    }
    ensure_eq!(places.len(), 1, "one partition is used; used were {places:?}");
    Ok(())
}

/// With acks=0 no broker says the offset, and the record arrives nevertheless.
pub async fn acks_0_knows_no_offset(cx: Cx) -> Verdict {
    let place = TopicPartition::new(cx.topic(1).await?, 0);
    let config = ProducerConfig { acks: Acks::None, enable_idempotence: false, ..quick_producer() };
    let producer = cx.bus().producer(config)?;
    let sent = producer.send(cx.record(&place)).await?;
    ensure_eq!(sent.offset, None, "no offset is known");
    cx.read(&place, 1).await?;
    Ok(())
}

/// With acks=1 the leader alone acknowledges, and names the offset.
pub async fn acks_1_names_the_offset(cx: Cx) -> Verdict {
    let place = TopicPartition::new(cx.topic(1).await?, 0);
    let config =
        ProducerConfig { acks: Acks::Leader, enable_idempotence: false, ..quick_producer() };
    let producer = cx.bus().producer(config)?;
    for expected in 0..3 {
        let sent = producer.send(cx.record(&place)).await?;
        ensure_eq!(sent.offset, Some(expected), "the offset is named");
    }
    Ok(())
}

/// `flush` sends what lingers at once, and returns when it is delivered.
pub async fn flush_does_not_linger(cx: Cx) -> Verdict {
    let place = TopicPartition::new(cx.topic(1).await?, 0);
    let config = ProducerConfig { linger: Duration::from_mins(1), ..Default::default() };
    let producer = cx.bus().producer(config)?;
    let begin = cx.bus().elapsed();
    let deliveries: Vec<_> = (0..20).map(|_| producer.send(cx.record(&place))).collect();
    producer.flush().await?;
    let took = cx.bus().elapsed() - begin;
    ensure!(took < Duration::from_secs(20), "flush lingered: it took {took:?}");
    for delivery in deliveries {
        delivery.await?;
    }
    Ok(())
}

/// `close` delivers what is still in the buffer before it returns.
pub async fn close_flushes(cx: Cx) -> Verdict {
    let place = TopicPartition::new(cx.topic(1).await?, 0);
    let config = ProducerConfig { linger: Duration::from_mins(1), ..Default::default() };
    let producer = cx.bus().producer(config)?;
    // One delivery, so that the topic is known and the others wait for nothing but the linger.
    let first = producer.send(cx.record(&place));
    producer.flush().await?;
    first.await?;
    let deliveries: Vec<_> = (0..200).map(|_| producer.send(cx.record(&place))).collect();
    producer.close(Duration::from_secs(20)).await?;
    for delivery in deliveries {
        delivery.await?;
    }
    // The oracle looks for each of them in the log.
    Ok(())
}

/// Closing while 20 publishers send loses nothing that was acknowledged, and answers every send.
pub async fn close_amid_publishers_loses_nothing_acknowledged(cx: Cx) -> Verdict {
    let place = TopicPartition::new(cx.topic(1).await?, 0);
    let producer = cx.producer()?;
    let publishers: Vec<_> = (0..20)
        .map(|n| {
            let (producer, cx, place) = (Arc::clone(&producer), cx.clone(), place.clone());
            cx.bus().clone().spawn(&format!("publisher {n}"), async move {
                // Bounded, lest a producer that is closed and says nothing keeps it forever.
                for _ in 0..5_000 {
                    if let Err(error) = producer.send(cx.record(&place)).await {
                        return Some(error.kind());
                    }
                }
                None
            })
        })
        .collect();
    // The publishers run while one record after the other is read.
    cx.read(&place, 60).await?;
    producer.close(Duration::from_secs(20)).await?;
    for publisher in publishers {
        ensure_eq!(publisher.await?, Some(ErrorKind::Closed), "the end of a publisher");
    }
    Ok(())
}

/// A send after `close` is refused, not silently dropped.
pub async fn send_after_close_is_refused(cx: Cx) -> Verdict {
    let place = TopicPartition::new(cx.topic(1).await?, 0);
    let producer = cx.producer()?;
    producer.send(cx.record(&place)).await?;
    producer.close(Duration::from_secs(20)).await?;
    let error = refused(producer.send(cx.record(&place)).await, ErrorKind::Closed)?;
    ensure!(!error.is_indeterminate(), "it is certain that the record was not sent");
    Ok(())
}

/// Dropping a producer answers every delivery: delivered or purged, none is forgotten.
pub async fn dropped_producer_answers_every_delivery(cx: Cx) -> Verdict {
    let place = TopicPartition::new(cx.topic(1).await?, 0);
    let config = ProducerConfig { linger: Duration::from_mins(1), ..Default::default() };
    let producer = cx.bus().producer(config)?;
    let deliveries: Vec<_> = (0..20).map(|_| producer.send(cx.record(&place))).collect();
    drop(producer);
    for delivery in deliveries {
        if let Err(error) = delivery.await {
            ensure_eq!(error.kind(), ErrorKind::Purged, "{error}");
        }
    }
    Ok(())
}

/// A full buffer refuses a record and says so; `ready` waits for room, and then it is taken.
pub async fn full_buffer_gives_back_pressure(cx: Cx) -> Verdict {
    let place = TopicPartition::new(cx.topic(1).await?, 0);
    let linger = Duration::from_millis(500);
    let config = ProducerConfig { buffer_records: 10, linger, ..Default::default() };
    let producer = cx.bus().producer(config)?;
    let mut deliveries: Vec<_> = (0..10).map(|_| producer.send(cx.record(&place))).collect();
    let error = refused(producer.send(cx.record(&place)).await, ErrorKind::QueueFull)?;
    ensure!(!error.is_indeterminate(), "it is certain that the record was not sent");
    producer.ready().await?;
    deliveries.push(producer.send(cx.record(&place)));
    for delivery in deliveries {
        delivery.await?;
    }
    ensure_eq!(cx.read(&place, 11).await?.len(), 11, "the refused record is not there");
    Ok(())
}

/// A producer knows how many partitions a topic has.
pub async fn partitions_are_known(cx: Cx) -> Verdict {
    let topic = cx.topic(5).await?;
    ensure_eq!(cx.producer()?.partitions_for(topic).await?, 5, "the partitions of the topic");
    Ok(())
}

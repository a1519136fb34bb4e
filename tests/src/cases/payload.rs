//! Produce: keys, values, headers, and timestamps arrive as they were sent.
//!
//! The comparison itself is the oracle's (L8); these cases send what is easily damaged.

use std::sync::Arc;

use bus_core::{
    CompressionType, Headers, NewTopic, ProducerConfig, ProducerRecord, Record, Timestamp,
    TimestampType, TopicPartition,
};

use crate::cx::{Cx, quick_producer};
use crate::failure::Verdict;
use crate::{ensure, ensure_eq};

/// A null value (a tombstone) and an empty value stay different things, and so do keys.
pub async fn null_is_not_empty(cx: Cx) -> Verdict {
    let place = TopicPartition::new(cx.topic(1).await?, 0);
    let record = || ProducerRecord::to(&place.topic).partition(0);
    let records = [record(), record().key(""), record().value(""), record().key("").value("")];
    cx.publish_records(records).await?;
    let read: Vec<_> = cx.read(&place, 4).await?.iter().map(lengths).collect();
    let expected = [(None, None), (Some(0), None), (None, Some(0)), (Some(0), Some(0))];
    ensure_eq!(read, expected, "the lengths of key and value");
    Ok(())
}

fn lengths(record: &Record) -> (Option<usize>, Option<usize>) {
    (record.key.as_ref().map(|key| key.len()), record.value.as_ref().map(|value| value.len()))
}

/// Values from no byte to 1 MiB arrive whole.
pub async fn values_of_all_sizes_arrive_whole(cx: Cx) -> Verdict {
    const LIMIT: u32 = 2 << 20;
    let new = NewTopic::new(cx.name("topic")).config("max.message.bytes", LIMIT.to_string());
    let place = TopicPartition::new(cx.create(new).await?, 0);
    let producer =
        cx.bus().producer(ProducerConfig { max_request_size: LIMIT, ..quick_producer() })?;
    let sizes = [0, 1, 1 << 10, (64 << 10) - 1, (64 << 10) + 1, 1 << 20];
    for size in sizes {
        let bytes: Vec<u8> = (0..=u8::MAX).cycle().take(size).collect();
        producer.send(cx.record(&place).value(bytes)).await?;
    }
    let read: Vec<_> = cx.read(&place, 6).await?.iter().map(|record| lengths(record).1).collect();
    ensure_eq!(read, sizes.map(Some), "the lengths of the values");
    Ok(())
}

/// Keys, values, and header values are bytes: those that are no UTF-8 arrive unchanged.
pub async fn bytes_that_are_no_text_arrive_unchanged(cx: Cx) -> Verdict {
    let place = TopicPartition::new(cx.topic(1).await?, 0);
    let all: Vec<u8> = (0..=u8::MAX).collect();
    let record = ProducerRecord::to(&place.topic)
        .partition(0)
        .key(&b"\xff\xfe\x00key"[..])
        .value(all.clone())
        .header("h", &b"\xc3\x28\x00"[..]);
    cx.publish_records([record]).await?;
    let read = cx.read(&place, 1).await?.remove(0);
    ensure_eq!(read.key.as_deref(), Some(&b"\xff\xfe\x00key"[..]), "the key");
    ensure_eq!(read.value.as_deref(), Some(&*all), "the value");
    ensure_eq!(read.headers.last("h"), Some(&b"\xc3\x28\x00"[..]), "the header");
    Ok(())
}

/// Headers keep their order; names may repeat and be in any script, values may be empty or null.
pub async fn headers_keep_order_and_repetitions(cx: Cx) -> Verdict {
    let place = TopicPartition::new(cx.topic(1).await?, 0);
    let headers = Headers::new()
        .with("b", "1")
        .with("a", "2")
        .with("b", "1")
        .with("empty", "")
        .with_null("null")
        .with("ключ-鍵", "значение")
        .with("b", "3");
    let record = ProducerRecord { headers: headers.clone(), ..cx.record(&place) };
    cx.publish_records([record]).await?;
    ensure_eq!(cx.read(&place, 1).await?[0].headers, headers, "the headers, in order");
    Ok(())
}

/// A record may have hundreds of headers.
pub async fn many_headers_arrive(cx: Cx) -> Verdict {
    let place = TopicPartition::new(cx.topic(1).await?, 0);
    let mut headers = Headers::new();
    for n in 0..300 {
        let name: Arc<str> = format!("name-{}", n % 7).into();
        headers.push(name, Some(vec![b'x'; n].into()));
    }
    let record = ProducerRecord { headers: headers.clone(), ..cx.record(&place) };
    cx.publish_records([record]).await?;
    ensure_eq!(cx.read(&place, 1).await?[0].headers.len(), 300, "the number of headers");
    Ok(())
}

/// A record's own timestamp is kept, and may be older than that of the record before it.
pub async fn timestamps_are_kept(cx: Cx) -> Verdict {
    let place = TopicPartition::new(cx.topic(1).await?, 0);
    let now = cx.bus().now().as_millis();
    let times = [now - 3_000, now - 5_000, 1, now].map(Timestamp::from_millis);
    cx.publish_records(times.map(|time| cx.record(&place).timestamp(time))).await?;
    let read = cx.read(&place, 4).await?;
    for (record, time) in read.iter().zip(times) {
        ensure_eq!(record.timestamp, time, "the timestamp that was sent");
        ensure_eq!(record.timestamp_type, TimestampType::CreateTime, "whose timestamp it is");
    }
    Ok(())
}

/// A record without a timestamp gets the time of its `send`.
pub async fn timestamp_defaults_to_the_time_of_the_send(cx: Cx) -> Verdict {
    let place = TopicPartition::new(cx.topic(1).await?, 0);
    let before = cx.bus().now();
    cx.publish_to(&place, 1).await?;
    let after = cx.bus().now();
    let read = cx.read(&place, 1).await?[0].timestamp;
    ensure!((before..=after).contains(&read), "{read} is not from {before} to {after}");
    Ok(())
}

/// A topic with `LogAppendTime` stamps its records itself.
pub async fn log_append_time_replaces_the_timestamp(cx: Cx) -> Verdict {
    let new = NewTopic::new(cx.name("topic")).config("message.timestamp.type", "LogAppendTime");
    let place = TopicPartition::new(cx.create(new).await?, 0);
    let before = cx.bus().now();
    let old = Timestamp::from_millis(before.as_millis() - 60_000);
    cx.publish_records([cx.record(&place).timestamp(old)]).await?;
    let read = cx.read(&place, 1).await?.remove(0);
    ensure_eq!(read.timestamp_type, TimestampType::LogAppendTime, "whose timestamp it is");
    ensure!(read.timestamp >= before, "{} is before {before}", read.timestamp);
    Ok(())
}

/// Compression is between producer and broker: consumers see the same records.
pub async fn compression_is_invisible(cx: Cx) -> Verdict {
    let place = TopicPartition::new(cx.topic(1).await?, 0);
    let codecs = [
        CompressionType::None,
        CompressionType::Gzip,
        CompressionType::Snappy,
        CompressionType::Lz4,
    ];
    for compression in codecs {
        let producer = cx.bus().producer(ProducerConfig { compression, ..quick_producer() })?;
        for _ in 0..3 {
            let value = vec![b'z'; 10_000];
            producer.send(cx.record(&place).key("k").value(value).header("h", "v")).await?;
        }
    }
    ensure_eq!(cx.read(&place, 12).await?.len(), 12, "all records are there");
    Ok(())
}

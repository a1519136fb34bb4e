//! Consume: where reading begins, what a poll gives, and what is subscribed or assigned.

use std::collections::BTreeSet;
use std::time::Duration;

use bus_core::{
    ConsumerConfig, ErrorKind, OffsetReset, Polled, RebalanceKind, StartAt, Subscription,
    Timestamp, TopicPartition,
};
use futures_util::FutureExt as _;
use futures_util::future::join;

use crate::cx::{Cx, STEP, quick_consumer};
use crate::failure::{Verdict, refused};
use crate::reader::Reader;
use crate::{ensure, ensure_eq};

/// Without a committed offset, `earliest` reads from the log start.
pub async fn earliest_reads_from_the_start(cx: Cx) -> Verdict {
    let topic = cx.topic(1).await?;
    cx.publish(&topic, 5).await?;
    let member = cx.member(&cx.name("group"), &topic)?;
    cx.drive(&[&member], "all records are read", || member.count() >= 5).await?;
    ensure_eq!(member.offsets(&TopicPartition::new(&topic, 0)), [0, 1, 2, 3, 4], "each once");
    Ok(())
}

/// Without a committed offset, `latest` reads only what comes after it has its partitions.
pub async fn latest_skips_what_was_there(cx: Cx) -> Verdict {
    let topic = cx.topic(1).await?;
    cx.publish(&topic, 5).await?;
    let group = cx.name("group");
    let config =
        ConsumerConfig { auto_offset_reset: OffsetReset::Latest, ..cx.member_config(&group) };
    let member = cx.subscribed(config, Subscription::topics([&topic]))?;
    let assigned = || member.rebalanced(RebalanceKind::Assigned) > 0;
    cx.drive(&[&member], "the member has its partition", assigned).await?;
    // The end is looked up some time after the assignment: records are sent until one arrives.
    cx.until("a new record is read", async || {
        cx.publish(&topic, 1).await?;
        member.step(STEP).await?;
        Ok((member.count() > 0).then_some(()))
    })
    .await?;
    ensure!(member.records()[0].offset >= 5, "the first record is {:?}", member.records()[0]);
    Ok(())
}

/// Without a committed offset, `none` is an error that says so.
pub async fn reset_none_is_an_error(cx: Cx) -> Verdict {
    let topic = cx.topic(1).await?;
    cx.publish(&topic, 5).await?;
    let group = cx.name("group");
    let config =
        ConsumerConfig { auto_offset_reset: OffsetReset::None, ..cx.member_config(&group) };
    let member = cx.subscribed(config, Subscription::topics([&topic]))?;
    let error = cx.until("the poll fails", async || Ok(member.step(STEP).await.err())).await?;
    ensure_eq!(error.kind(), ErrorKind::NoOffset, "{error}");
    ensure_eq!(member.count(), 0, "no record is delivered");
    Ok(())
}

/// Reading from a time begins with the first record that is not older.
pub async fn reading_from_a_time(cx: Cx) -> Verdict {
    let place = TopicPartition::new(cx.topic(1).await?, 0);
    let times = publish_seconds(&cx, &place, 10).await?;
    let reader = cx.assigned(&[(place.clone(), StartAt::Timestamp(times[6]))])?;
    cx.drive(&[&reader], "the records are read", || reader.count() == 4).await?;
    ensure_eq!(reader.offsets(&place), [6, 7, 8, 9], "the records that are not older");
    Ok(())
}

/// The offset of a time is that of the first record that is not older; none, if all are older.
pub async fn offsets_of_times(cx: Cx) -> Verdict {
    let place = TopicPartition::new(cx.topic(1).await?, 0);
    let times = publish_seconds(&cx, &place, 5).await?;
    let reader = cx.assigned(&[(place.clone(), StartAt::Beginning)])?;
    let between = Timestamp::from_millis(times[2].as_millis() + 1);
    let late = Timestamp::from_millis(times[4].as_millis() + 1);
    let asked = [Timestamp::EPOCH, times[2], between, times[4], late];
    let asked = asked.map(|time| (place.clone(), time));
    for (asked, expected) in asked.iter().zip([Some(0), Some(2), Some(3), Some(4), None]) {
        let found = reader.offsets_for_times(std::slice::from_ref(asked)).await?;
        ensure_eq!(found, [expected], "the offset of {}", asked.1);
    }
    Ok(())
}

/// Sends records with timestamps that are a second apart, the last of which is now.
async fn publish_seconds(
    cx: &Cx,
    place: &TopicPartition,
    records: usize,
) -> Verdict<Vec<Timestamp>> {
    let now = cx.bus().now().as_millis();
    let times: Vec<_> =
        (0..records).rev().map(|n| Timestamp::from_millis(now - 1_000 * n as i64)).collect();
    cx.publish_records(times.iter().map(|time| cx.record(place).timestamp(*time))).await?;
    Ok(times)
}

/// Reading from the end gives only what comes later.
pub async fn reading_from_the_end(cx: Cx) -> Verdict {
    let topic = cx.topic(1).await?;
    cx.publish(&topic, 5).await?;
    let reader = cx.assigned(&[(TopicPartition::new(&topic, 0), StartAt::End)])?;
    cx.until("a new record is read", async || {
        cx.publish(&topic, 1).await?;
        reader.step(STEP).await?;
        Ok((reader.count() > 0).then_some(()))
    })
    .await?;
    ensure!(reader.records()[0].offset >= 5, "the first record is {:?}", reader.records()[0]);
    Ok(())
}

/// Reading from an offset gives exactly that record first.
pub async fn reading_from_an_offset(cx: Cx) -> Verdict {
    let place = TopicPartition::new(cx.topic(1).await?, 0);
    cx.publish_to(&place, 10).await?;
    let reader = cx.assigned(&[(place.clone(), StartAt::Offset(7))])?;
    cx.drive(&[&reader], "the records are read", || reader.count() == 3).await?;
    ensure_eq!(reader.offsets(&place), [7, 8, 9], "the records from there on");
    Ok(())
}

/// A new member of the group goes on where the last commit says.
pub async fn reading_resumes_from_the_commit(cx: Cx) -> Verdict {
    let place = TopicPartition::new(cx.topic(1).await?, 0);
    let group = cx.name("group");
    cx.publish_to(&place, 10).await?;
    let first = cx.member(&group, &place.topic)?;
    cx.drive(&[&first], "all records are read", || first.count() == 10).await?;
    first.commit(&[(place.clone(), 6.into())]).await?;
    first.close().await?;
    let second = cx.member(&group, &place.topic)?;
    cx.drive(&[&second], "the rest is read again", || second.count() == 4).await?;
    ensure_eq!(second.offsets(&place), [6, 7, 8, 9], "what was not committed");
    Ok(())
}

/// An assigned consumer of a group starts at the group's committed offset too.
pub async fn assigned_reading_resumes_from_the_commit(cx: Cx) -> Verdict {
    let place = TopicPartition::new(cx.topic(1).await?, 0);
    cx.publish_to(&place, 5).await?;
    let config = quick_consumer(ConsumerConfig::in_group(cx.name("group")));
    let consumer = cx.bus().consumer(config)?;
    consumer.commit(&[(place.clone(), 3.into())]).await?;
    consumer.assign(&[(place.clone(), StartAt::Committed)])?;
    let reader = Reader::new(consumer);
    cx.drive(&[&reader], "the rest is read", || reader.count() == 2).await?;
    ensure_eq!(reader.offsets(&place), [3, 4], "what was not committed");
    Ok(())
}

/// A poll gives at most `max.poll.records`, and the next one goes on behind them.
pub async fn polls_are_limited_in_records(cx: Cx) -> Verdict {
    let place = TopicPartition::new(cx.topic(1).await?, 0);
    cx.publish_to(&place, 50).await?;
    let config = quick_consumer(ConsumerConfig { max_poll_records: 7, ..Default::default() });
    let consumer = cx.bus().consumer(config)?;
    consumer.assign(&[(place, StartAt::Beginning)])?;
    let mut sizes = Vec::new();
    cx.until("all records are read", async || {
        if let Polled::Records(records) = consumer.poll(STEP).await? {
            sizes.push(records.len());
        }
        Ok((sizes.iter().sum::<usize>() == 50).then_some(()))
    })
    .await?;
    ensure!(sizes.iter().all(|size| *size <= 7), "the polls gave {sizes:?} records");
    ensure!(sizes.contains(&7), "no poll was full: the polls gave {sizes:?} records");
    Ok(())
}

/// A poll that finds nothing returns when its time is up, neither before nor much later.
pub async fn polls_end_in_time(cx: Cx) -> Verdict {
    let reader =
        cx.assigned(&[(TopicPartition::new(cx.topic(1).await?, 0), StartAt::Beginning)])?;
    let timeout = Duration::from_millis(700);
    for _ in 0..3 {
        let begin = cx.bus().elapsed();
        reader.step(timeout).await?;
        let took = cx.bus().elapsed() - begin;
        ensure!(took >= timeout - Duration::from_millis(1), "the poll ended after {took:?}");
        ensure!(took < timeout * 4, "the poll ended after {took:?} only");
    }
    Ok(())
}

/// A waiting poll returns as soon as a record is there.
pub async fn waiting_poll_wakes_for_a_record(cx: Cx) -> Verdict {
    let topic = cx.topic(1).await?;
    let reader = cx.assigned(&[(TopicPartition::new(&topic, 0), StartAt::Beginning)])?;
    cx.drive_for(&[&reader], Duration::from_secs(1)).await?;
    let begin = cx.bus().elapsed();
    let (polled, sent) = join(reader.step(Duration::from_secs(20)), cx.publish(&topic, 1)).await;
    polled?;
    sent?;
    let took = cx.bus().elapsed() - begin;
    ensure_eq!(reader.count(), 1, "the poll gave the record");
    ensure!(took < Duration::from_secs(10), "the poll woke after {took:?}");
    Ok(())
}

/// A poll that is dropped at any point loses no record.
pub async fn poll_is_cancel_safe(cx: Cx) -> Verdict {
    let topic = cx.topic(2).await?;
    let config = quick_consumer(ConsumerConfig { max_poll_records: 3, ..Default::default() });
    let consumer = cx.bus().consumer(config)?;
    let partitions = [0, 1].map(|n| (TopicPartition::new(&topic, n), StartAt::Beginning));
    consumer.assign(&partitions)?;
    let reader = Reader::new(consumer);
    let mut sent = 0;
    cx.until("all records are read", async || {
        if sent < 100 {
            cx.publish(&topic, 2).await?;
            sent += 2;
        }
        // Polled once and dropped; then dropped in the middle of a longer wait.
        reader.step(STEP).now_or_never().transpose()?;
        tokio::time::timeout(STEP / 10, reader.step(STEP * 10)).await.ok().transpose()?;
        Ok((reader.count() == 100).then_some(()))
    })
    .await
    // The oracle has seen that each partition came whole, once, and in order.
}

/// After `unsubscribe` nothing is delivered any more.
pub async fn unsubscribe_ends_delivery(cx: Cx) -> Verdict {
    let topic = cx.topic(2).await?;
    cx.publish(&topic, 4).await?;
    let member = cx.member(&cx.name("group"), &topic)?;
    cx.drive(&[&member], "the records are read", || member.count() == 4).await?;
    member.unsubscribe().await?;
    ensure_eq!(member.assignment(), [], "no partition is left");
    cx.publish(&topic, 4).await?;
    cx.drive_for(&[&member], Duration::from_secs(2)).await?;
    ensure_eq!(member.count(), 4, "nothing came behind the first records");
    Ok(())
}

/// Subscribing anew replaces the topics, not adds to them.
pub async fn subscribing_replaces_the_subscription(cx: Cx) -> Verdict {
    let (first, second) = (cx.topic(1).await?, cx.topic(1).await?);
    let member = cx.member(&cx.name("group"), &first)?;
    cx.publish(&first, 1).await?;
    cx.drive(&[&member], "the first topic is read", || member.count() == 1).await?;
    member.subscribe(Subscription::topics([&second]))?;
    cx.publish(&first, 1).await?;
    cx.publish(&second, 1).await?;
    cx.drive(&[&member], "the second topic is read", || {
        member.seen().contains(&TopicPartition::new(&second, 0))
    })
    .await?;
    ensure_eq!(member.assignment(), [TopicPartition::new(&second, 0)], "the second topic only");
    ensure_eq!(member.count(), 2, "nothing more of the first topic");
    Ok(())
}

/// A consumer reads exactly the partitions that it is assigned; a new assignment replaces them.
pub async fn assigning_replaces_the_assignment(cx: Cx) -> Verdict {
    let topic = cx.topic(3).await?;
    let places = [0, 1, 2].map(|partition| TopicPartition::new(&topic, partition));
    cx.publish(&topic, 9).await?;
    let reader = cx.assigned(&[
        (places[0].clone(), StartAt::Beginning),
        (places[2].clone(), StartAt::Offset(1)),
    ])?;
    ensure_eq!(reader.assignment(), [places[0].clone(), places[2].clone()], "sorted");
    cx.drive(&[&reader], "both are read", || reader.count() == 5).await?;
    reader.assign(&[(places[1].clone(), StartAt::Beginning)])?;
    cx.publish(&topic, 3).await?;
    cx.drive(&[&reader], "the third is read", || reader.offsets(&places[1]).len() == 4).await?;
    ensure_eq!(reader.count(), 9, "nothing more of the others");
    ensure_eq!(reader.assignment(), [places[1].clone()], "the third only");
    Ok(())
}

/// Consumers that are assigned a partition by hand do not take it from each other.
pub async fn assigned_consumers_are_independent(cx: Cx) -> Verdict {
    let place = TopicPartition::new(cx.topic(1).await?, 0);
    cx.publish_to(&place, 10).await?;
    let one = cx.assigned(&[(place.clone(), StartAt::Beginning)])?;
    let other = cx.assigned(&[(place.clone(), StartAt::Beginning)])?;
    cx.drive(&[&one, &other], "both read all", || one.count() == 10 && other.count() == 10).await
}

/// A record that is larger than the fetch limits is delivered all the same.
pub async fn large_record_passes_small_fetch_limits(cx: Cx) -> Verdict {
    let place = TopicPartition::new(cx.topic(1).await?, 0);
    let sizes = [10, 100_000, 10, 200_000];
    cx.publish_records(sizes.map(|size| cx.record(&place).value(vec![b'v'; size]))).await?;
    let config = ConsumerConfig {
        max_partition_fetch_bytes: 1_000,
        fetch_max_bytes: 1_000_000,
        ..Default::default()
    };
    let consumer = cx.bus().consumer(quick_consumer(config))?;
    consumer.assign(&[(place, StartAt::Beginning)])?;
    let reader = Reader::new(consumer);
    cx.drive(&[&reader], "all records are read", || reader.count() == 4).await
}

/// A pattern takes the topics that match it, those that are made later included, and no other.
pub async fn pattern_follows_new_topics(cx: Cx) -> Verdict {
    let prefix = cx.name("pattern");
    let make = |name: String| cx.create(bus_core::NewTopic::new(name));
    let first = make(format!("{prefix}-a")).await?;
    let other = make(format!("other-{prefix}-a")).await?;
    let group = cx.name("group");
    let config = ConsumerConfig {
        metadata_refresh_interval: Duration::from_millis(300),
        ..cx.member_config(&group)
    };
    let member = cx.subscribed(config, Subscription::pattern(format!("^{prefix}-.*")))?;
    cx.publish(&first, 1).await?;
    cx.publish(&other, 1).await?;
    cx.drive(&[&member], "the first topic is read", || member.count() == 1).await?;
    let second = make(format!("{prefix}-b")).await?;
    cx.publish(&second, 1).await?;
    let new = TopicPartition::new(&second, 0);
    cx.drive(&[&member], "the new topic is read", || member.seen().contains(&new)).await?;
    let expected = BTreeSet::from([&first, &second].map(|topic| TopicPartition::new(topic, 0)));
    ensure_eq!(member.seen(), expected, "the topics that match");
    Ok(())
}

/// After an hour without a record a consumer delivers the next one.
pub async fn record_after_an_idle_hour(cx: Cx) -> Verdict {
    let topic = cx.topic(1).await?;
    let group = cx.name("group");
    let member = cx.member(&group, &topic)?;
    cx.publish(&topic, 1).await?;
    cx.drive(&[&member], "the first record is read", || member.count() == 1).await?;
    let until = cx.bus().elapsed() + Duration::from_hours(1);
    while cx.bus().elapsed() < until {
        member.step(Duration::from_secs(10)).await?;
    }
    cx.publish(&topic, 1).await?;
    cx.drive(&[&member], "the record after the hour is read", || member.count() == 2).await?;
    ensure_eq!(member.rebalanced(RebalanceKind::Assigned), 1, "it was a member all the time");
    Ok(())
}

/// While one poll waits, another one is refused.
pub async fn second_poll_at_once_is_refused(cx: Cx) -> Verdict {
    let reader =
        cx.assigned(&[(TopicPartition::new(cx.topic(1).await?, 0), StartAt::Beginning)])?;
    let (first, second) = join(reader.poll(STEP * 4), reader.poll(STEP)).await;
    first?;
    refused(second, ErrorKind::InvalidState)?;
    reader.step(STEP).await?;
    Ok(())
}

//! Consume: seek, pause, position, and the ends of a log.

use std::time::Duration;

use bus_core::{
    ConsumerConfig, ErrorKind, OffsetReset, Polled, RebalanceKind, StartAt, Timestamp,
    TopicPartition, Watermarks,
};

use crate::cx::{Cx, STEP, quick_consumer};
use crate::failure::{Verdict, refused};
use crate::reader::Reader;
use crate::{ensure, ensure_eq};

/// One partition with ten records, and a reader that was given them.
async fn ten_records(cx: &Cx) -> Verdict<(TopicPartition, Reader)> {
    let place = TopicPartition::new(cx.topic(1).await?, 0);
    cx.publish_to(&place, 10).await?;
    let reader = cx.assigned(&[(place.clone(), StartAt::Beginning)])?;
    cx.drive(&[&reader], "all records are read", || reader.count() == 10).await?;
    reader.forget();
    Ok((place, reader))
}

/// Seeking back delivers the records again from there, seeking forward skips to there.
pub async fn seek_goes_back_and_forth(cx: Cx) -> Verdict {
    let (place, reader) = ten_records(&cx).await?;
    reader.seek(&place, StartAt::Offset(3)).await?;
    cx.drive(&[&reader], "the records come again", || reader.count() == 7).await?;
    ensure_eq!(reader.offsets(&place), [3, 4, 5, 6, 7, 8, 9], "from offset 3 on");
    reader.forget();
    reader.seek(&place, StartAt::Offset(8)).await?;
    cx.drive(&[&reader], "the rest comes again", || reader.count() == 2).await?;
    ensure_eq!(reader.offsets(&place), [8, 9], "from offset 8 on");
    Ok(())
}

/// Seeking to the beginning or the end means the log's.
pub async fn seek_to_the_ends(cx: Cx) -> Verdict {
    let (place, reader) = ten_records(&cx).await?;
    reader.seek(&place, StartAt::Beginning).await?;
    cx.drive(&[&reader], "all records come again", || reader.count() == 10).await?;
    reader.forget();
    reader.seek(&place, StartAt::End).await?;
    cx.until("a new record is read", async || {
        cx.publish_to(&place, 1).await?;
        reader.step(STEP).await?;
        Ok((reader.count() > 0).then_some(()))
    })
    .await?;
    ensure!(reader.offsets(&place)[0] >= 10, "the old records are skipped");
    Ok(())
}

/// Seeking to a time goes to the first record that is not older.
pub async fn seek_to_a_time(cx: Cx) -> Verdict {
    let place = TopicPartition::new(cx.topic(1).await?, 0);
    let now = cx.bus().now().as_millis();
    let times = (0..10).map(|n| Timestamp::from_millis(now - 10_000 + 1_000 * n));
    cx.publish_records(times.map(|time| cx.record(&place).timestamp(time))).await?;
    let reader = cx.assigned(&[(place.clone(), StartAt::End)])?;
    reader.step(STEP).await?;
    reader.seek(&place, StartAt::Timestamp(Timestamp::from_millis(now - 5_500))).await?;
    cx.drive(&[&reader], "the newer records are read", || reader.count() >= 5).await?;
    ensure_eq!(reader.offsets(&place), [5, 6, 7, 8, 9], "those that are not older");
    Ok(())
}

/// What was fetched before a seek is not delivered after it.
pub async fn seek_discards_what_was_fetched(cx: Cx) -> Verdict {
    let place = TopicPartition::new(cx.topic(1).await?, 0);
    cx.publish_to(&place, 300).await?;
    let config = quick_consumer(ConsumerConfig { max_poll_records: 5, ..Default::default() });
    let consumer = cx.bus().consumer(config)?;
    consumer.assign(&[(place.clone(), StartAt::Beginning)])?;
    let reader = Reader::new(consumer);
    for target in [200, 100, 250, 0] {
        cx.drive(&[&reader], "some records are read", || reader.count() > 0).await?;
        reader.seek(&place, StartAt::Offset(target)).await?;
        reader.forget();
        cx.drive(&[&reader], "records behind the seek are read", || reader.count() > 0).await?;
        ensure_eq!(reader.offsets(&place)[0], target, "the first record after the seek");
    }
    Ok(())
}

/// A seek past the end is for the reset policy to decide: `earliest` starts over.
pub async fn seek_past_the_end_follows_the_reset_policy(cx: Cx) -> Verdict {
    let (place, reader) = ten_records(&cx).await?;
    reader.seek(&place, StartAt::Offset(1_000)).await?;
    cx.drive(&[&reader], "the log is read again", || reader.count() == 10).await?;
    ensure_eq!(reader.offsets(&place)[0], 0, "from its start");
    Ok(())
}

/// With reset `none`, a seek past the end is an error of the poll, and the consumer lives on.
pub async fn seek_past_the_end_without_a_policy_is_an_error(cx: Cx) -> Verdict {
    let place = TopicPartition::new(cx.topic(1).await?, 0);
    cx.publish_to(&place, 3).await?;
    let reset = OffsetReset::None;
    let config = quick_consumer(ConsumerConfig { auto_offset_reset: reset, ..Default::default() });
    let consumer = cx.bus().consumer(config)?;
    consumer.assign(&[(place.clone(), StartAt::Beginning)])?;
    let reader = Reader::new(consumer);
    cx.drive(&[&reader], "all records are read", || reader.count() == 3).await?;
    reader.seek(&place, StartAt::Offset(1_000)).await?;
    let error = cx.until("the poll fails", async || Ok(reader.step(STEP).await.err())).await?;
    ensure_eq!(error.kind(), ErrorKind::OffsetOutOfRange, "{error}");
    reader.seek(&place, StartAt::Offset(1)).await?;
    cx.drive(&[&reader], "the rest is read again", || reader.count() == 5).await
}

/// A seek to a place without a number is over when the place is known: it is the position then.
pub async fn sought_place_is_the_position(cx: Cx) -> Verdict {
    let place = TopicPartition::new(cx.topic(1).await?, 0);
    cx.publish_to(&place, 10).await?;
    let config = quick_consumer(ConsumerConfig::in_group(cx.name("group")));
    let consumer = cx.bus().consumer(config)?;
    consumer.assign(&[(place.clone(), StartAt::Beginning)])?;
    let reader = Reader::new(consumer);
    cx.drive(&[&reader], "all records are read", || reader.count() == 10).await?;
    reader.commit(&[(place.clone(), 4.into())]).await?;
    for (to, position) in [
        (StartAt::Beginning, 0),
        (StartAt::End, 10),
        (StartAt::Committed, 4),
        (StartAt::Timestamp(Timestamp::EPOCH), 0),
    ] {
        reader.seek(&place, to).await?;
        ensure_eq!(reader.position(&place)?, Some(position), "the position after {to:?}");
    }
    Ok(())
}

/// With reset `none`, a seek to the committed offset fails if there is none, and the consumer reads
/// on where it was.
pub async fn seek_to_no_commit_without_a_policy_changes_nothing(cx: Cx) -> Verdict {
    let place = TopicPartition::new(cx.topic(1).await?, 0);
    cx.publish_to(&place, 3).await?;
    let auto_offset_reset = OffsetReset::None;
    let config = ConsumerConfig { auto_offset_reset, ..ConsumerConfig::in_group(cx.name("group")) };
    let consumer = cx.bus().consumer(quick_consumer(config))?;
    consumer.assign(&[(place.clone(), StartAt::Beginning)])?;
    let reader = Reader::new(consumer);
    cx.drive(&[&reader], "all records are read", || reader.count() == 3).await?;
    refused(reader.seek(&place, StartAt::Committed).await, ErrorKind::NoOffset)?;
    ensure_eq!(reader.position(&place)?, Some(3), "the position");
    cx.publish_to(&place, 1).await?;
    cx.drive(&[&reader], "it reads on", || reader.count() == 4).await
}

/// A paused partition delivers nothing, the others go on; resuming goes on where it was.
pub async fn pause_stops_one_partition(cx: Cx) -> Verdict {
    let topic = cx.topic(2).await?;
    let places = [0, 1].map(|partition| TopicPartition::new(&topic, partition));
    cx.publish(&topic, 10).await?;
    let reader = cx.assigned(&places.clone().map(|place| (place, StartAt::Beginning)))?;
    cx.drive(&[&reader], "all records are read", || reader.count() == 10).await?;
    reader.pause(&places[..1])?;
    ensure_eq!(reader.paused(), places[..1], "the paused partitions");
    cx.publish(&topic, 10).await?;
    cx.drive(&[&reader], "the other goes on", || reader.offsets(&places[1]).len() == 10).await?;
    cx.drive_for(&[&reader], Duration::from_secs(1)).await?;
    ensure_eq!(reader.offsets(&places[0]).len(), 5, "the paused one stands still");
    ensure_eq!(reader.assignment().len(), 2, "both are still owned");
    reader.resume(&places[..1])?;
    cx.drive(&[&reader], "the rest is read", || reader.count() == 20).await?;
    ensure_eq!(reader.offsets(&places[0]), (0..10).collect::<Vec<_>>(), "nothing is skipped");
    Ok(())
}

/// What was fetched before a pause is not delivered while it lasts, and not lost.
pub async fn pause_holds_back_what_was_fetched(cx: Cx) -> Verdict {
    let place = TopicPartition::new(cx.topic(1).await?, 0);
    cx.publish_to(&place, 200).await?;
    let config = quick_consumer(ConsumerConfig { max_poll_records: 5, ..Default::default() });
    let consumer = cx.bus().consumer(config)?;
    consumer.assign(&[(place.clone(), StartAt::Beginning)])?;
    let reader = Reader::new(consumer);
    cx.drive(&[&reader], "some records are read", || reader.count() > 0).await?;
    reader.pause(std::slice::from_ref(&place))?;
    let before = reader.count();
    cx.drive_for(&[&reader], Duration::from_secs(1)).await?;
    ensure_eq!(reader.count(), before, "nothing is delivered");
    reader.resume(std::slice::from_ref(&place))?;
    cx.drive(&[&reader], "the rest is read", || reader.count() == 200).await
}

/// A seek while the partition is paused counts when it is resumed.
pub async fn seek_while_paused_counts_later(cx: Cx) -> Verdict {
    let (place, reader) = ten_records(&cx).await?;
    reader.pause(std::slice::from_ref(&place))?;
    reader.seek(&place, StartAt::Offset(4)).await?;
    cx.drive_for(&[&reader], Duration::from_millis(500)).await?;
    ensure_eq!(reader.count(), 0, "nothing is delivered while it is paused");
    reader.resume(std::slice::from_ref(&place))?;
    cx.drive(&[&reader], "the records come again", || reader.count() == 6).await?;
    ensure_eq!(reader.offsets(&place)[0], 4, "the first record after the seek");
    Ok(())
}

/// The position is that of the next record: none at first, and one past what was delivered.
pub async fn position_follows_delivery(cx: Cx) -> Verdict {
    let place = TopicPartition::new(cx.topic(1).await?, 0);
    cx.publish_to(&place, 20).await?;
    let config = quick_consumer(ConsumerConfig { max_poll_records: 3, ..Default::default() });
    let consumer = cx.bus().consumer(config)?;
    consumer.assign(&[(place.clone(), StartAt::Beginning)])?;
    ensure_eq!(consumer.position(&place)?, None, "nothing was delivered yet");
    let mut read = 0;
    cx.until("all records are read", async || {
        if let Polled::Records(records) = consumer.poll(STEP).await?
            && let Some(last) = records.last()
        {
            ensure_eq!(consumer.position(&place)?, Some(last.next_offset()), "one past the last");
            read += records.len();
        }
        Ok((read == 20).then_some(()))
    })
    .await?;
    consumer.seek(&place, StartAt::Offset(4)).await?;
    ensure_eq!(consumer.position(&place)?, Some(4), "where it was sought");
    Ok(())
}

/// The watermarks of a partition are its log start and its end.
pub async fn watermarks_are_the_ends(cx: Cx) -> Verdict {
    let topic = cx.topic(2).await?;
    let places = [0, 1].map(|partition| TopicPartition::new(&topic, partition));
    cx.publish_to(&places[1], 4).await?;
    let reader = cx.assigned(&[(places[0].clone(), StartAt::Beginning)])?;
    ensure_eq!(reader.watermarks(&places[0]).await?, Watermarks { low: 0, high: 0 }, "empty");
    ensure_eq!(
        reader.watermarks(&places[1]).await?,
        Watermarks { low: 0, high: 4 },
        "four records"
    );
    Ok(())
}

/// A pause ends when the partition is revoked: whoever gets it next reads.
pub async fn pause_ends_with_the_revocation(cx: Cx) -> Verdict {
    let topic = cx.topic(2).await?;
    let group = cx.name("group");
    let first = cx.member(&group, &topic)?;
    cx.publish(&topic, 4).await?;
    cx.drive(&[&first], "all records are read", || first.count() == 4).await?;
    first
        .commit(&first.assignment().into_iter().map(|p| (p, 2.into())).collect::<Vec<_>>())
        .await?;
    first.pause(&first.assignment())?;
    // With an eager assignor, the join of a second member revokes all partitions.
    let second = cx.member(&group, &topic)?;
    cx.drive(&[&first, &second], "both have a partition", || {
        first.rebalanced(RebalanceKind::Assigned) == 2 && second.assignment().len() == 1
    })
    .await?;
    ensure_eq!(first.paused(), [], "the pause has ended");
    cx.publish(&topic, 4).await?;
    cx.drive(&[&first, &second], "both are read", || first.count() + second.count() == 8).await
}

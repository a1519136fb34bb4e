//! Commit: what is committed, by whom, in which order, and what is kept beside it.

use std::time::Duration;

use bus_core::{
    ConsumerConfig, ConsumerExt, ErrorKind, OffsetAndMetadata, StartAt, Subscription, Topic,
    TopicPartition,
};

use crate::cx::{Cx, quick_consumer};
use crate::failure::{Verdict, refused};
use crate::fixture::{Api, Fault};
use crate::oracle::Law;
use crate::reader::Reader;
use crate::script::Role;
use crate::{ensure, ensure_eq};

/// One partition with ten records, and a member that has read them.
async fn ten_records(cx: &Cx, config: ConsumerConfig) -> Verdict<(TopicPartition, Reader)> {
    let place = TopicPartition::new(cx.topic(1).await?, 0);
    cx.publish_to(&place, 10).await?;
    let member = cx.subscribed(config, Subscription::topics([&place.topic]))?;
    cx.drive(&[&member], "the records are read", || member.count() == 10).await?;
    Ok((place, member))
}

/// What the group has committed for a partition, as a new client of the group is told.
async fn committed(
    cx: &Cx,
    group: &str,
    place: &TopicPartition,
) -> Verdict<Option<OffsetAndMetadata>> {
    let consumer = cx.bus().consumer(quick_consumer(ConsumerConfig::in_group(group)))?;
    Ok(consumer.committed(std::slice::from_ref(place)).await?.remove(0))
}

/// A commit after the handler is what every client of the group is told from then on.
pub async fn commit_is_what_the_group_is_told(cx: Cx) -> Verdict {
    let group = cx.name("group");
    let (place, member) = ten_records(&cx, cx.member_config(&group)).await?;
    let records = member.records();
    for record in &records[..4] {
        member.commit_record(record).await?;
        let told = member.committed(std::slice::from_ref(&place)).await?;
        ensure_eq!(told, [Some(record.next_offset().into())], "the next record's offset");
    }
    ensure_eq!(committed(&cx, &group, &place).await?, Some(4.into()), "another client is told");
    Ok(())
}

/// Where nothing was committed there is nothing, which is not offset 0.
pub async fn nothing_committed_is_none(cx: Cx) -> Verdict {
    let group = cx.name("group");
    let topic = cx.topic(2).await?;
    let places = [0, 1].map(|partition| TopicPartition::new(&topic, partition));
    let consumer = cx.bus().consumer(quick_consumer(ConsumerConfig::in_group(&group)))?;
    ensure_eq!(consumer.committed(&places).await?, [None, None], "nothing yet");
    consumer.commit(&[(places[1].clone(), 0.into())]).await?;
    ensure_eq!(consumer.committed(&places).await?, [None, Some(0.into())], "one, at offset 0");
    Ok(())
}

/// One commit may hold several partitions, each with its own offset.
pub async fn commit_holds_several_partitions(cx: Cx) -> Verdict {
    let topic = cx.topic(3).await?;
    let places = [2, 0, 1].map(|partition| TopicPartition::new(&topic, partition));
    cx.publish(&topic, 9).await?;
    let member = cx.member(&cx.name("group"), &topic)?;
    cx.drive(&[&member], "the records are read", || member.count() == 9).await?;
    let offsets: Vec<_> =
        places.iter().cloned().zip([3, 1, 2].map(OffsetAndMetadata::from)).collect();
    member.commit(&offsets).await?;
    let told = member.committed(&places).await?;
    ensure_eq!(told, [3, 1, 2].map(|n| Some(n.into())), "in the order of the question");
    Ok(())
}

/// The note beside a committed offset is kept byte for byte.
pub async fn metadata_is_kept(cx: Cx) -> Verdict {
    let group = cx.name("group");
    let (place, member) = ten_records(&cx, cx.member_config(&group)).await?;
    let metadata = "по offset 5; état: \"done\"\n".to_owned();
    let noted = OffsetAndMetadata { offset: 5, metadata };
    member.commit(&[(place.clone(), noted.clone())]).await?;
    ensure_eq!(committed(&cx, &group, &place).await?, Some(noted), "offset and note");
    Ok(())
}

/// A note that is too long is refused, and the commit before it stays.
pub async fn metadata_that_is_too_long_is_refused(cx: Cx) -> Verdict {
    let group = cx.name("group");
    let (place, member) = ten_records(&cx, cx.member_config(&group)).await?;
    member.commit(&[(place.clone(), 3.into())]).await?;
    let noted = OffsetAndMetadata { offset: 5, metadata: "m".repeat(5_000) };
    let outcome = member.commit(&[(place.clone(), noted)]).await;
    refused(outcome, ErrorKind::OffsetMetadataTooLarge)?;
    ensure_eq!(committed(&cx, &group, &place).await?, Some(3.into()), "the commit before");
    Ok(())
}

/// Commits that are not awaited apply in the order of the calls.
pub async fn commits_apply_in_the_order_of_the_calls(cx: Cx) -> Verdict {
    let group = cx.name("group");
    let (place, member) = ten_records(&cx, cx.member_config(&group)).await?;
    let commits: Vec<_> =
        (1..=10).map(|offset| member.commit(&[(place.clone(), offset.into())])).collect();
    for commit in commits {
        commit.await?;
    }
    ensure_eq!(committed(&cx, &group, &place).await?, Some(10.into()), "the last call");
    Ok(())
}

/// The owner of a partition may commit a lower offset than before.
pub async fn owner_may_commit_backwards(cx: Cx) -> Verdict {
    let group = cx.name("group");
    let (place, member) = ten_records(&cx, cx.member_config(&group)).await?;
    for offset in [8, 2] {
        member.commit(&[(place.clone(), offset.into())]).await?;
    }
    member.close().await?;
    let next = cx.member(&group, &place.topic)?;
    cx.drive(&[&next], "the rest is read again", || next.count() == 8).await?;
    ensure_eq!(next.offsets(&place)[0], 2, "the first record");
    Ok(())
}

/// An offset past the end may be committed; the next member then follows the reset policy.
pub async fn commit_past_the_end_is_reset(cx: Cx) -> Verdict {
    let group = cx.name("group");
    let (place, member) = ten_records(&cx, cx.member_config(&group)).await?;
    member.commit(&[(place.clone(), 1_000.into())]).await?;
    member.close().await?;
    let next = cx.member(&group, &place.topic)?;
    cx.drive(&[&next], "the log is read again", || next.count() == 10).await?;
    ensure_eq!(next.offsets(&place)[0], 0, "the first record");
    Ok(())
}

/// Commits stay when the last member has left.
pub async fn commits_outlive_the_members(cx: Cx) -> Verdict {
    let group = cx.name("group");
    let (place, member) = ten_records(&cx, cx.member_config(&group)).await?;
    member.commit_positions().await?;
    member.close().await?;
    drop(member);
    ensure_eq!(committed(&cx, &group, &place).await?, Some(10.into()), "what was committed");
    Ok(())
}

/// Without auto commit nothing is committed by itself, not even by `close`.
pub async fn nothing_is_committed_unasked(cx: Cx) -> Verdict {
    let group = cx.name("group");
    let (place, member) = ten_records(&cx, cx.member_config(&group)).await?;
    member.close().await?;
    ensure_eq!(committed(&cx, &group, &place).await?, None, "nothing was committed");
    Ok(())
}

/// The configuration of a member that commits by itself every so often.
fn auto(cx: &Cx, group: &str, interval: Duration) -> ConsumerConfig {
    ConsumerConfig {
        enable_auto_commit: true,
        auto_commit_interval: interval,
        ..cx.member_config(group)
    }
}

/// Auto commit commits what was delivered when its interval has passed.
pub async fn auto_commit_follows_its_interval(cx: Cx) -> Verdict {
    let group = cx.name("group");
    let config = auto(&cx, &group, Duration::from_millis(300));
    let (place, member) = ten_records(&cx, config).await?;
    cx.until("the records are committed", async || {
        cx.drive_for(&[&member], Duration::from_millis(100)).await?;
        Ok((committed(&cx, &group, &place).await? == Some(10.into())).then_some(()))
    })
    .await
}

/// Auto commit commits what was delivered when the consumer closes.
pub async fn auto_commit_happens_on_close(cx: Cx) -> Verdict {
    let group = cx.name("group");
    let (place, member) = ten_records(&cx, auto(&cx, &group, Duration::from_mins(1))).await?;
    member.close().await?;
    ensure_eq!(committed(&cx, &group, &place).await?, Some(10.into()), "what was delivered");
    Ok(())
}

/// Auto commit commits what was delivered before the partition goes to another member.
pub async fn auto_commit_happens_on_revoke(cx: Cx) -> Verdict {
    let group = cx.name("group");
    let config = auto(&cx, &group, Duration::from_mins(1));
    let (place, first) = ten_records(&cx, config.clone()).await?;
    let second = cx.subscribed(config, Subscription::topics([&place.topic]))?;
    let members = [&first, &second];
    cx.drive(&members, "the group has rebalanced", || {
        first.rebalances().len() >= 3 && !second.rebalances().is_empty()
    })
    .await?;
    cx.publish_to(&place, 1).await?;
    let count = || first.count() + second.count();
    cx.drive(&members, "the new record is read", || count() >= 11).await?;
    ensure_eq!(count(), 11, "the others are not read again");
    Ok(())
}

/// Auto commit passes what is never delivered: the records of aborted transactions, and markers.
pub async fn auto_commit_passes_aborted_records(cx: Cx) -> Verdict {
    let group = cx.name("group");
    let (place, member) = ten_records(&cx, auto(&cx, &group, Duration::from_mins(1))).await?;
    let producer = cx.transactional(&cx.name("id")).await?;
    producer.begin()?;
    cx.send_to(&*producer, &place, 3).await?;
    producer.abort().await?;
    cx.drive_for(&[&member], Duration::from_secs(3)).await?;
    ensure_eq!(member.count(), 10, "nothing is delivered");
    cx.excuse(Law::Commit, "the law does not know what lies behind the last record");
    member.close().await?;
    ensure_eq!(committed(&cx, &group, &place).await?, Some(14.into()), "behind the marker");
    Ok(())
}

/// Auto commit never passes what a poll has returned, however much was fetched.
pub async fn auto_commit_never_passes_delivery(cx: Cx) -> Verdict {
    let topic = cx.topic(1).await?;
    let place = TopicPartition::new(&topic, 0);
    let group = cx.name("group");
    cx.publish(&topic, 50).await?;
    let config =
        ConsumerConfig { max_poll_records: 3, ..auto(&cx, &group, Duration::from_millis(100)) };
    let first = cx.subscribed(config, Subscription::topics([&topic]))?;
    cx.drive(&[&first], "some records are read", || first.count() >= 3).await?;
    first.close().await?;
    let delivered = first.offsets(&place).len();
    ensure!(delivered < 50, "the first member was to be stopped in the middle");
    let next = i64::try_from(delivered).unwrap_or(i64::MAX);
    let told = committed(&cx, &group, &place).await?;
    ensure_eq!(told, Some(next.into()), "what was delivered");
    let second = cx.member(&group, &topic)?;
    cx.drive(&[&second], "the rest is read", || second.count() == 50 - delivered).await
}

/// The last auto commit, when a consumer closes, leaves, or is assigned anew, covers what a poll
/// has returned, and not what was fetched: not even if the end of a transaction was fetched behind
/// it.
pub async fn last_auto_commit_never_passes_delivery(cx: Cx) -> Verdict {
    let topic = cx.topic(1).await?;
    let place = TopicPartition::new(&topic, 0);
    let producer = cx.transactional(&cx.name("id")).await?;
    producer.begin()?;
    cx.send_to(&*producer, &place, 8).await?;
    producer.commit().await?;
    for way in 0..4 {
        let group = cx.name("group");
        let config =
            ConsumerConfig { max_poll_records: 1, ..auto(&cx, &group, Duration::from_mins(1)) };
        let reader = Reader::new(cx.bus().consumer(config)?);
        if way < 2 {
            reader.subscribe(Subscription::topics([&topic]))?;
        } else {
            reader.assign(&[(place.clone(), StartAt::Beginning)])?;
        }
        cx.drive(&[&reader], "some records are read", || reader.count() >= 2).await?;
        match way {
            0 | 2 => reader.close().await?,
            1 => reader.unsubscribe().await?,
            _ => reader.assign(&[(place.clone(), StartAt::Committed)])?,
        }
        let next = i64::try_from(reader.count()).unwrap_or(i64::MAX);
        ensure!(next < 8, "the reader was to be stopped in the middle");
        let told =
            cx.until("it is committed", async || committed(&cx, &group, &place).await).await?;
        ensure_eq!(told.offset, next, "what was delivered, way {way}");
    }
    Ok(())
}

/// Where offsets are stored by hand, auto commit covers those alone.
pub async fn auto_commit_covers_only_stored_offsets(cx: Cx) -> Verdict {
    let group = cx.name("group");
    let config = ConsumerConfig {
        enable_auto_offset_store: false,
        ..auto(&cx, &group, Duration::from_millis(100))
    };
    let (place, member) = ten_records(&cx, config).await?;
    cx.drive_for(&[&member], Duration::from_secs(1)).await?;
    ensure_eq!(committed(&cx, &group, &place).await?, None, "nothing is stored yet");
    member.store_offsets(&[(place.clone(), 4)])?;
    member.close().await?;
    ensure_eq!(committed(&cx, &group, &place).await?, Some(4.into()), "what was stored");
    Ok(())
}

/// A consumer outside of group management may commit for a group without members.
pub async fn assigned_consumer_may_commit(cx: Cx) -> Verdict {
    let topic: Topic = cx.topic(1).await?;
    let place = TopicPartition::new(&topic, 0);
    let group = cx.name("group");
    cx.publish(&topic, 5).await?;
    let consumer = cx.bus().consumer(quick_consumer(ConsumerConfig::in_group(&group)))?;
    consumer.assign(&[(place.clone(), StartAt::Committed)])?;
    let reader = Reader::new(consumer);
    cx.drive(&[&reader], "the records are read", || reader.count() == 5).await?;
    reader.commit_positions().await?;
    ensure_eq!(committed(&cx, &group, &place).await?, Some(5.into()), "what was delivered");
    Ok(())
}

/// A crash between the effect of a record and its commit delivers that record again, once, and
/// nothing before it.
pub async fn crash_before_the_commit_redelivers_once(cx: Cx) -> Verdict {
    let topic = cx.topic(1).await?;
    let place = TopicPartition::new(&topic, 0);
    let group = cx.name("group");
    let config = ConsumerConfig {
        session_timeout: Duration::from_secs(2),
        max_poll_interval: Duration::from_secs(5),
        max_poll_records: 1,
        ..cx.member_config(&group)
    };
    cx.publish(&topic, 3).await?;
    let process = cx.process(&topic, Role::member(&config, 2)).await?;
    process.until(&cx, "it has done three", || process.delivered() == 3).await?;
    process.crash(&cx)?;
    process.note_commits(&cx, &group);
    cx.publish(&topic, 1).await?;
    let heir = cx.subscribed(config, Subscription::topics([&topic]))?;
    cx.drive(&[&heir], "the rest is read", || heir.count() == 2).await?;
    ensure_eq!(heir.offsets(&place), [2, 3], "what was done and not committed comes again");
    Ok(())
}

/// A commit whose request or response is lost is tried again, or fails so that it can be.
pub async fn lost_commit_can_be_retried(cx: Cx) -> Verdict {
    let group = cx.name("group");
    let (place, member) = ten_records(&cx, cx.member_config(&group)).await?;
    for (offset, fault) in
        [(3, Fault::LoseRequest(Api::OffsetCommit)), (5, Fault::LoseResponse(Api::OffsetCommit))]
    {
        cx.inflict(&fault)?;
        cx.until("the commit succeeds", async || {
            Ok(member.commit(&[(place.clone(), offset.into())]).await.ok())
        })
        .await?;
        let told = committed(&cx, &group, &place).await?;
        ensure_eq!(told, Some(offset.into()), "what was committed");
    }
    Ok(())
}

//! Replication: what counts as replicated, and what becomes of the rest when its leader dies.

use std::time::Duration;

use bus_core::{Acks, NewTopic, ProducerConfig, StartAt, TopicPartition};

use super::failover::{described, in_sync, leader, place, until};
use crate::cx::{Cx, STEP, quick_producer};
use crate::failure::{Failure, Verdict};
use crate::fixture::Fault;
use crate::oracle::Law;
use crate::reader::Reader;
use crate::{ensure, ensure_eq};

/// For how long followers are stalled: the controller must not miss them.
const MOMENT: Duration = Duration::from_secs(1);

/// The configuration of a producer that is content with the leader.
fn hasty() -> ProducerConfig {
    ProducerConfig {
        acks: Acks::Leader,
        enable_idempotence: false,
        max_in_flight: 1,
        ..quick_producer()
    }
}

/// The values of a partition in order, up to the last of so many records.
async fn read_values(cx: &Cx, place: &TopicPartition, records: usize) -> Verdict<Vec<String>> {
    let reader = cx.assigned(&[(place.clone(), StartAt::Beginning)])?;
    cx.drive(&[&reader], "the records are read", || reader.count() >= records).await?;
    Ok(reader.values())
}

/// While the followers stand still, acks=1 is answered and acks=all is not; and no reader is given
/// what only the leader has.
pub async fn unreplicated_records_are_not_visible(cx: Cx) -> Verdict {
    let place = place(&cx, &[("min.insync.replicas", "2")]).await?;
    in_sync(&cx, &place).await?;
    let (careful, hasty) = (cx.producer()?, cx.bus().producer(hasty())?);
    let reader = cx.assigned(&[(place.clone(), StartAt::Beginning)])?;
    // Everybody knows the leader by now.
    careful.send(cx.record(&place)).await?;
    hasty.send(cx.record(&place)).await?;
    cx.drive(&[&reader], "the first are read", || reader.count() == 2).await?;
    let leader = leader(&cx, &place).await?;
    cx.inflict(&Fault::StallFollowers(leader))?;
    let told = hasty.send(cx.record(&place)).await;
    let mut waiting = careful.send(cx.record(&place));
    let driven = cx.drive_for(&[&reader], MOMENT).await;
    let waits = futures_util::poll!(&mut waiting).is_pending();
    let (seen, high) = (reader.count(), reader.watermarks(&place).await);
    cx.inflict(&Fault::ResumeFollowers(leader))?;
    ensure_eq!(told?.offset, Some(2), "acks=1 is answered by the leader alone");
    driven?;
    ensure!(waits, "acks=all waits for the replicas");
    ensure_eq!(seen, 2, "what only the leader has is not visible");
    ensure_eq!(high?.high, 2, "the high watermark");
    ensure_eq!(waiting.await?.offset, Some(3), "acks=all is answered when the replicas have it");
    cx.drive(&[&reader], "all are read", || reader.count() == 4).await
}

/// Records that no follower has fetched are lost with their leader, although acks=1 had
/// acknowledged them. The old leader comes back without them: whoever leads, the log is the same.
pub async fn old_leader_gives_up_what_others_do_not_have(cx: Cx) -> Verdict {
    for law in [Law::Lost, Law::Offset, Law::Bytes, Law::Order, Law::Garbage, Law::Duplicate] {
        cx.excuse(law, "acks=1 promises nothing when the leader dies");
    }
    let place = place(&cx, &[]).await?;
    in_sync(&cx, &place).await?;
    let producer = cx.bus().producer(hasty())?;
    producer.send(cx.record(&place)).await?;
    let old = leader(&cx, &place).await?;
    cx.inflict(&Fault::StallFollowers(old))?;
    let lost = cx.send_to(&*producer, &place, 20).await;
    cx.inflict(&Fault::CrashBroker(old))?;
    cx.inflict(&Fault::ResumeFollowers(old))?;
    lost?;
    let others = cx.send_to(&*producer, &place, 10).await?;
    let last = others.last().and_then(|metadata| metadata.offset).unwrap_or_default();
    ensure!(last < 30, "some of the records of the old leader are lost; the last is at {last}");
    let count = usize::try_from(last).unwrap_or_default() + 1;
    let before = read_values(&cx, &place, count).await?;
    cx.inflict(&Fault::RestartBroker(old))?;
    in_sync(&cx, &place).await?;
    until(&cx, &place, "the old leader leads again", |found| found.leader == Some(old)).await?;
    let after = read_values(&cx, &place, count).await?;
    ensure_eq!(after, before, "the log by the other leader");
    cx.send_to(&*producer, &place, 1).await?;
    Ok(())
}

/// A replica that is not in sync is not elected: with no other alive the partition has no leader,
/// and when one is back nothing that was acknowledged is missing.
pub async fn only_replicas_in_sync_are_elected(cx: Cx) -> Verdict {
    let new = NewTopic { replication_factor: Some(2), ..NewTopic::new(cx.name("topic")) };
    let place = TopicPartition::new(cx.create(new).await?, 0);
    in_sync(&cx, &place).await?;
    let found = described(&cx, &place).await?;
    let old = leader(&cx, &place).await?;
    let follower = found.replicas.into_iter().find(|replica| *replica != old);
    let follower = follower.ok_or_else(|| Failure::assertion("there is no follower"))?;
    let reader = cx.assigned(&[(place.clone(), StartAt::Beginning)])?;
    cx.publish_to(&place, 5).await?;
    cx.inflict(&Fault::CrashBroker(follower))?;
    until(&cx, &place, "the follower is out", |found| found.in_sync_replicas == [old]).await?;
    cx.publish_to(&place, 5).await?;
    cx.inflict(&Fault::CrashBroker(old))?;
    cx.inflict(&Fault::RestartBroker(follower))?;
    let found =
        until(&cx, &place, "the leader is missed", |found| found.leader != Some(old)).await?;
    ensure_eq!(found.leader, None, "nobody may lead: {found:?}");
    cx.inflict(&Fault::RestartBroker(old))?;
    in_sync(&cx, &place).await?;
    cx.drive(&[&reader], "all records are read", || reader.count() >= 10).await?;
    ensure_eq!(reader.count(), 10, "each record once");
    cx.publish_to(&place, 1).await?;
    Ok(())
}

/// Where an unclean election is allowed, it may take back what was read. A reader then goes on
/// where the log of the new leader ends: it misses nothing of the new, and nothing comes again.
pub async fn readers_go_back_to_what_a_new_leader_has(cx: Cx) -> Verdict {
    for law in [Law::Lost, Law::Offset, Law::Bytes, Law::Order, Law::Garbage, Law::Duplicate] {
        cx.excuse(law, "an unclean election takes back what was acknowledged and read");
    }
    // Two replicas: of three brokers, which are the controllers too, one is down at a time.
    let new = NewTopic { replication_factor: Some(2), ..NewTopic::new(cx.name("topic")) };
    let new = new.config("unclean.leader.election.enable", "true");
    let place = TopicPartition::new(cx.create(new).await?, 0);
    in_sync(&cx, &place).await?;
    cx.publish_to(&place, 5).await?;
    let reader = cx.assigned(&[(place.clone(), StartAt::Beginning)])?;
    let old = leader(&cx, &place).await?;
    let found = described(&cx, &place).await?;
    let follower = found.replicas.into_iter().find(|replica| *replica != old);
    let follower = follower.ok_or_else(|| Failure::assertion("there is no follower"))?;
    cx.inflict(&Fault::CrashBroker(follower))?;
    until(&cx, &place, "the leader is alone", |found| found.in_sync_replicas == [old]).await?;
    cx.send_to(&*cx.bus().producer(hasty())?, &place, 10).await?;
    cx.drive(&[&reader], "all are read", || reader.count() == 15).await?;
    cx.inflict(&Fault::CrashBroker(old))?;
    cx.inflict(&Fault::RestartBroker(follower))?;
    until(&cx, &place, "another leads", |found| found.leader.is_some_and(|leader| leader != old))
        .await?;
    let sent = cx.send_to(&*cx.producer()?, &place, 3).await?;
    let sent: Vec<_> = sent.iter().filter_map(|metadata| metadata.offset).collect();
    ensure_eq!(sent, [5, 6, 7], "where the new leader goes on");
    cx.drive(&[&reader], "the new ones are read", || reader.count() >= 18).await?;
    let expected: Vec<_> = (0..15).chain(sent).collect();
    ensure_eq!(reader.offsets(&place), expected, "what was read");
    cx.inflict(&Fault::RestartBroker(old))?;
    in_sync(&cx, &place).await
}

/// A follower learns the high watermark late. That it has more than that, all of it acknowledged,
/// counts: it leads without a loss when two leaders die one after the other, and it could not ask
/// the second.
pub async fn followers_keep_what_is_above_their_high_watermark(cx: Cx) -> Verdict {
    let place = place(&cx, &[]).await?;
    in_sync(&cx, &place).await?;
    let producer = cx.producer()?;
    for _ in 0..5 {
        cx.send_to(&*producer, &place, 4).await?;
    }
    let first = leader(&cx, &place).await?;
    let others: Vec<_> = (1..=cx.fixture().brokers()).filter(|broker| *broker != first).collect();
    // The second leader is not heard by the third replica, which follows it.
    cx.inflict(&Fault::CrashBroker(first))?;
    cx.inflict(&Fault::StallFollowers(others[0]))?;
    let second = until(&cx, &place, "another leads", |found| {
        found.leader.is_some_and(|leader| leader != first)
    })
    .await?;
    let second = second.leader.unwrap_or_default();
    tokio::time::sleep(Duration::from_secs(2)).await;
    cx.inflict(&Fault::CrashBroker(second))?;
    cx.inflict(&Fault::ResumeFollowers(others[0]))?;
    until(&cx, &place, "the third leads", |found| {
        found.leader.is_some_and(|leader| leader != first && leader != second)
    })
    .await?;
    let reader: Reader = cx.assigned(&[(place.clone(), StartAt::Beginning)])?;
    cx.drive(&[&reader], "all records are read", || reader.count() >= 20).await?;
    cx.inflict(&Fault::Heal)?;
    in_sync(&cx, &place).await?;
    cx.drive_for(&[&reader], STEP).await
}

//! Replication: brokers that die, shut down, and come back, and what clients notice of it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bus_core::{
    Acks, ConsumerConfig, Delivery, ErrorKind, GroupOffset, GroupState, NewTopic,
    PartitionDescription, Producer, ProducerConfig, ProducerExt, Record, Recovery, StartAt,
    Subscription, Topic, TopicPartition, TransactionalProducer,
};
use futures_util::future::join;

use crate::cx::{Cx, STEP, quick_producer};
use crate::failure::{Failure, Verdict, refused};
use crate::fixture::Fault;
use crate::oracle::Law;
use crate::{ensure, ensure_eq};

/// For how long a case waits until a broker is missed, or is in sync again.
const PATIENCE: Duration = Duration::from_mins(2);

/// A topic of one partition with these properties.
pub(super) async fn place(cx: &Cx, properties: &[(&str, &str)]) -> Verdict<TopicPartition> {
    let mut new = NewTopic::new(cx.name("topic"));
    for (name, value) in properties {
        new = new.config(*name, *value);
    }
    Ok(TopicPartition::new(cx.create(new).await?, 0))
}

/// What the cluster says about a partition.
pub(super) async fn described(cx: &Cx, place: &TopicPartition) -> Verdict<PartitionDescription> {
    let topic = cx.admin().describe_topic(place.topic.clone()).await?;
    let found = topic.partitions.into_iter().find(|found| found.partition == place.partition);
    found.ok_or_else(|| Failure::assertion(format!("{place} is not described")))
}

/// Who leads a partition.
pub(super) async fn leader(cx: &Cx, place: &TopicPartition) -> Verdict<i32> {
    cx.until("the partition has a leader", async || Ok(described(cx, place).await?.leader)).await
}

/// Waits until the description of a partition is like this.
pub(super) async fn until(
    cx: &Cx,
    place: &TopicPartition,
    what: &str,
    is_like: impl Fn(&PartitionDescription) -> bool,
) -> Verdict<PartitionDescription> {
    let begin = cx.bus().elapsed();
    loop {
        // A broker that is gone does not answer.
        let found = described(cx, place).await;
        match found {
            Ok(found) if is_like(&found) => return Ok(found),
            found => ensure!(
                cx.bus().elapsed() - begin < PATIENCE,
                "{what}: not within {PATIENCE:?}, but {found:?}"
            ),
        }
        tokio::time::sleep(STEP).await;
    }
}

/// Waits until all replicas of a partition are in sync.
pub(super) async fn in_sync(cx: &Cx, place: &TopicPartition) -> Verdict {
    let is_whole =
        |found: &PartitionDescription| found.in_sync_replicas.len() == found.replicas.len();
    until(cx, place, "all replicas are in sync", is_whole).await.map(drop)
}

/// Shuts a broker down, and waits until it is gone.
async fn shut_down(cx: &Cx, broker: i32) -> Verdict {
    cx.inflict(&Fault::ShutdownBroker(broker))?;
    cx.until("the broker is gone", async || {
        if cx.fixture().is_broker_up(broker) {
            tokio::time::sleep(STEP).await;
            return Ok(None);
        }
        Ok(Some(()))
    })
    .await
}

fn values(records: &[Record]) -> Vec<Option<bus_core::Bytes>> {
    records.iter().map(|record| record.value.clone()).collect()
}

/// Sends so many records, a few at a time, while something happens after the first half.
async fn send_amid(
    cx: &Cx,
    producer: &Arc<dyn Producer>,
    place: &TopicPartition,
    records: usize,
    happens: impl AsyncFnOnce() -> Verdict,
) -> Verdict<Vec<Delivery>> {
    let mut deliveries: Vec<_> =
        (0..records / 2).map(|_| producer.send(cx.record(place))).collect();
    let others = async {
        let mut others = Vec::new();
        for _ in 0..records - records / 2 {
            others.push(producer.send(cx.record(place)));
            tokio::task::yield_now().await;
        }
        others
    };
    let (happened, others) = join(happens(), others).await;
    happened?;
    deliveries.extend(others);
    Ok(deliveries)
}

/// Each partition has a replica on every broker, all in sync, and the first of them leads; the
/// brokers share the leadership.
pub async fn replicas_are_spread(cx: Cx) -> Verdict {
    let topic = cx.topic(6).await?;
    let mut leaders = BTreeSet::new();
    for partition in 0..6 {
        let place = TopicPartition::new(&topic, partition);
        in_sync(&cx, &place).await?;
        let found = described(&cx, &place).await?;
        let replicas: BTreeSet<_> = found.replicas.iter().copied().collect();
        ensure_eq!(replicas.len(), 3, "the replicas of {place}");
        ensure_eq!(found.leader, found.replicas.first().copied(), "the leader of {place}");
        leaders.extend(found.leader);
    }
    ensure_eq!(leaders.len(), 3, "brokers that lead a partition");
    Ok(())
}

/// More replicas than brokers are refused, and so is a topic without any.
pub async fn impossible_replication_factors_are_refused(cx: Cx) -> Verdict {
    for factor in [0, 4] {
        let new = NewTopic { replication_factor: Some(factor), ..NewTopic::new(cx.name("topic")) };
        refused(cx.create(new).await, ErrorKind::InvalidReplicationFactor)?;
    }
    Ok(())
}

/// A topic that wants more replicas in sync than it has is content with all that it has.
pub async fn more_in_sync_replicas_than_replicas_means_all(cx: Cx) -> Verdict {
    let place = place(&cx, &[("min.insync.replicas", "4")]).await?;
    in_sync(&cx, &place).await?;
    once(&cx, &place, Acks::All).await?;
    cx.publish_to(&place, 1).await?;
    ensure_eq!(cx.read(&place, 2).await?.len(), 2, "both records");
    Ok(())
}

/// Sends one record, and does not try again.
async fn once(
    cx: &Cx,
    place: &TopicPartition,
    acks: Acks,
) -> bus_core::Result<bus_core::RecordMetadata> {
    let config = ProducerConfig { acks, enable_idempotence: false, retries: 0, ..quick_producer() };
    cx.bus().producer(config)?.send(cx.record(place)).await
}

/// When the leader dies another replica leads, and with acks=all nothing that was acknowledged is
/// lost, doubled, or out of order, however many batches were on their way.
pub async fn leader_failover_loses_nothing_acknowledged(cx: Cx) -> Verdict {
    let place = place(&cx, &[("min.insync.replicas", "2")]).await?;
    in_sync(&cx, &place).await?;
    let old = leader(&cx, &place).await?;
    let config = ProducerConfig { batch_records: 5, ..quick_producer() };
    let producer = cx.bus().producer(config)?;
    let crash = async || cx.inflict(&Fault::CrashBroker(old));
    let deliveries = send_amid(&cx, &producer, &place, 400, crash).await?;
    for delivery in deliveries {
        delivery.await?;
    }
    let new = leader(&cx, &place).await?;
    ensure!(new != old, "broker {old} is dead and leads");
    // The laws of the oracle compare the log with what was sent.
    ensure_eq!(cx.read(&place, 400).await?.len(), 400, "all records");
    cx.inflict(&Fault::RestartBroker(old))?;
    in_sync(&cx, &place).await?;
    cx.publish_to(&place, 1).await?;
    Ok(())
}

/// With acks=1 a leader that dies may take acknowledged records with it; what is there is what was
/// sent, in order and once, and the producer goes on.
pub async fn acks_1_may_lose_records_with_their_leader(cx: Cx) -> Verdict {
    for law in [Law::Lost, Law::Offset, Law::Bytes, Law::Order, Law::Garbage, Law::Duplicate] {
        cx.excuse(law, "acks=1 promises nothing when the leader dies");
    }
    let place = place(&cx, &[]).await?;
    in_sync(&cx, &place).await?;
    let old = leader(&cx, &place).await?;
    let config = ProducerConfig {
        acks: Acks::Leader,
        enable_idempotence: false,
        max_in_flight: 1,
        ..quick_producer()
    };
    let producer = cx.bus().producer(config)?;
    let crash = async || cx.inflict(&Fault::CrashBroker(old));
    let deliveries = send_amid(&cx, &producer, &place, 200, crash).await?;
    for delivery in deliveries {
        delivery.await?;
    }
    let last = producer.send(cx.record(&place)).await?;
    cx.inflict(&Fault::RestartBroker(old))?;
    in_sync(&cx, &place).await?;
    let end = last.offset.unwrap_or_default();
    let reader = cx.assigned(&[(place.clone(), StartAt::Beginning)])?;
    cx.drive(&[&reader], "the last record is read", || {
        reader.offsets(&place).last().is_some_and(|offset| *offset >= end)
    })
    .await?;
    let numbers: Vec<usize> = reader
        .values()
        .iter()
        .filter_map(|value| value.strip_prefix("value ")?.parse().ok())
        .collect();
    ensure_eq!(numbers.len(), reader.count(), "records that were sent");
    // One that was sent again because its acknowledgement was lost may be there twice.
    ensure!(numbers.is_sorted(), "the order of the records: {numbers:?}");
    Ok(())
}

/// A reader goes on from its position when the leader that it fetched from dies: it misses nothing,
/// and nothing comes again.
pub async fn readers_continue_over_a_failover(cx: Cx) -> Verdict {
    let place = place(&cx, &[]).await?;
    in_sync(&cx, &place).await?;
    let reader = cx.assigned(&[(place.clone(), StartAt::Beginning)])?;
    cx.publish_to(&place, 20).await?;
    cx.drive(&[&reader], "the first are read", || reader.count() == 20).await?;
    let old = leader(&cx, &place).await?;
    cx.inflict(&Fault::CrashBroker(old))?;
    cx.publish_to(&place, 20).await?;
    cx.drive(&[&reader], "the others are read", || reader.count() >= 40).await?;
    let expected: Vec<_> = (0..40).collect();
    ensure_eq!(reader.offsets(&place), expected, "each once");
    let epochs: Vec<_> = reader.records().iter().filter_map(|record| record.leader_epoch).collect();
    ensure!(epochs.is_sorted(), "leader epochs rise: {epochs:?}");
    if let (Some(first), Some(last)) = (epochs.first(), epochs.last()) {
        ensure!(first < last, "the new leader has an epoch of its own: {epochs:?}");
    }
    cx.inflict(&Fault::RestartBroker(old))?;
    in_sync(&cx, &place).await
}

/// The broker that coordinates a group or a transactional id: the leader of the partition of the
/// internal topic in which its state is.
async fn coordinator(cx: &Cx, internal: &str, id: &str) -> Verdict<i32> {
    let topic = cx.admin().describe_topic(internal.into()).await?;
    // Java's hash of a string, as Kafka takes it for this.
    let hash = id
        .encode_utf16()
        .fold(0_i32, |hash, unit| hash.wrapping_mul(31).wrapping_add(i32::from(unit)));
    let count = i32::try_from(topic.partitions.len()).unwrap_or(i32::MAX).max(1);
    let partition = (hash & i32::MAX) % count;
    let found = topic.partitions.iter().find(|found| found.partition == partition);
    found
        .and_then(|found| found.leader)
        .ok_or_else(|| Failure::assertion(format!("{internal}-{partition} has no leader")))
}

/// The coordinator of a group dies: its members go on with another, and nothing that they have
/// committed comes again.
pub async fn group_survives_its_coordinator(cx: Cx) -> Verdict {
    let topic = cx.topic(3).await?;
    let group = cx.name("group");
    // It is not polled while a broker starts.
    let max_poll_interval = Duration::from_mins(5);
    let config = ConsumerConfig { max_poll_interval, ..cx.member_config(&group) };
    let member = cx.subscribed(config, Subscription::topics([&topic]))?;
    cx.publish(&topic, 6).await?;
    cx.drive(&[&member], "the records are read", || member.count() == 6).await?;
    member.commit_positions().await?;
    let old = coordinator(&cx, "__consumer_offsets", &group).await?;
    cx.inflict(&Fault::CrashBroker(old))?;
    cx.publish(&topic, 6).await?;
    // What is committed does not come again, by the laws of the oracle; the rest may.
    let read = || super::places(&member.records()).len();
    cx.drive(&[&member], "the others are read", || read() == 12).await?;
    cx.until("the commit succeeds", async || {
        member.step(STEP).await?;
        Ok(member.commit_positions().await.ok())
    })
    .await?;
    let new = coordinator(&cx, "__consumer_offsets", &group).await?;
    ensure!(new != old, "broker {old} is dead and coordinates");
    cx.inflict(&Fault::RestartBroker(old))?;
    whole(&cx, &topic, 3).await
}

/// Whoever asks what a group has committed is answered while its coordinator moves away and comes
/// back, and is never told less than was committed.
pub async fn questions_about_a_group_follow_its_coordinator(cx: Cx) -> Verdict {
    let topic = cx.topic(1).await?;
    whole(&cx, &topic, 1).await?;
    let group = cx.name("group");
    let member = cx.member(&group, &topic)?;
    cx.publish(&topic, 6).await?;
    cx.drive(&[&member], "the records are read", || member.count() == 6).await?;
    member.commit_positions().await?;
    member.close().await?;
    let expected = committed(&cx, &group).await?;
    ensure_eq!(expected.len(), 1, "partitions with a committed offset");
    let old = coordinator(&cx, "__consumer_offsets", &group).await?;
    cx.inflict(&Fault::CrashBroker(old))?;
    if cx.fixture().brokers() > 1 {
        // It is asked all the time: while the broker is missed, and while another one loads.
        ensure_eq!(committed(&cx, &group).await?, expected, "told by another broker");
        cx.until("no broker takes the dead one for the coordinator", async || {
            let new = coordinator(&cx, "__consumer_offsets", &group).await.ok();
            Ok(new.filter(|new| *new != old))
        })
        .await?;
    }
    cx.inflict(&Fault::RestartBroker(old))?;
    // The preferred leader returns, and the broker that was asked coordinates no more.
    cx.until("the coordinator is back", async || {
        ensure_eq!(committed(&cx, &group).await?, expected, "told while the coordinator moves");
        tokio::time::sleep(STEP).await;
        Ok(coordinator(&cx, "__consumer_offsets", &group).await.ok().filter(|new| *new == old))
    })
    .await?;
    ensure_eq!(committed(&cx, &group).await?, expected, "told by the first one again");
    let described = cx.admin().describe_group(&group).await?;
    ensure_eq!(described.state, GroupState::Empty, "the group without members");
    whole(&cx, &topic, 1).await
}

/// What a group has committed. It is asked again as long as that may help.
async fn committed(cx: &Cx, group: &str) -> Verdict<Vec<GroupOffset>> {
    cx.until("the committed offsets are told", async || {
        match cx.admin().group_offsets(group).await {
            Err(error) if error.recovery() == Recovery::Retry => {
                tokio::time::sleep(STEP).await;
                Ok(None)
            }
            outcome => Ok(Some(outcome?)),
        }
    })
    .await
}

async fn whole(cx: &Cx, topic: &Topic, partitions: i32) -> Verdict {
    for partition in 0..partitions {
        in_sync(cx, &TopicPartition::new(topic, partition)).await?;
    }
    Ok(())
}

/// The coordinator of a transaction dies amid it, and so do leaders of its partitions: the
/// transaction commits, and its records are visible once.
pub async fn transaction_survives_its_coordinator(cx: Cx) -> Verdict {
    let topic = cx.topic(3).await?;
    let places = [0, 1, 2].map(|partition| TopicPartition::new(&topic, partition));
    let id = cx.name("id");
    let producer = cx.transactional(&id).await?;
    producer.begin()?;
    for place in &places {
        cx.send_to(&*producer, place, 1).await?;
    }
    let old = coordinator(&cx, "__transaction_state", &id).await?;
    cx.inflict(&Fault::CrashBroker(old))?;
    for place in &places {
        cx.send_to(&*producer, place, 1).await?;
    }
    commit(&cx, &*producer).await?;
    let new = coordinator(&cx, "__transaction_state", &id).await?;
    ensure!(new != old, "broker {old} is dead and coordinates");
    producer.begin()?;
    cx.send_to(&*producer, &places[0], 1).await?;
    producer.abort().await?;
    cx.inflict(&Fault::RestartBroker(old))?;
    whole(&cx, &topic, 3).await?;
    for place in &places {
        ensure_eq!(cx.read(place, 2).await?.len(), 2, "the records of the committed one");
    }
    Ok(())
}

/// Commits, and tries again as long as that may help.
async fn commit(cx: &Cx, producer: &dyn TransactionalProducer) -> Verdict {
    cx.until("the commit succeeds", async || match producer.commit().await {
        Err(error) if error.recovery() == Recovery::Retry => Ok(None),
        outcome => Ok(Some(outcome?)),
    })
    .await
}

/// With fewer replicas in sync than the topic wants, acks=all is refused for certain and acks=1 is
/// taken; when they are back all is taken.
pub async fn too_few_in_sync_replicas_refuse_acks_all(cx: Cx) -> Verdict {
    let place = place(&cx, &[("min.insync.replicas", "3")]).await?;
    in_sync(&cx, &place).await?;
    cx.publish_to(&place, 1).await?;
    let found = described(&cx, &place).await?;
    let follower = found.replicas.into_iter().find(|replica| Some(*replica) != found.leader);
    let follower = follower.ok_or_else(|| Failure::assertion("there is no follower"))?;
    cx.inflict(&Fault::CrashBroker(follower))?;
    until(&cx, &place, "the follower is out", |found| found.in_sync_replicas.len() == 2).await?;
    let error = refused(once(&cx, &place, Acks::All).await, ErrorKind::NotEnoughReplicas)?;
    ensure!(!error.is_indeterminate(), "nothing was appended: {error}");
    once(&cx, &place, Acks::Leader).await?;
    // One that tries again succeeds when the follower is back.
    let producer = cx.producer()?;
    let waiting = producer.send(cx.record(&place));
    cx.inflict(&Fault::RestartBroker(follower))?;
    waiting.await?;
    in_sync(&cx, &place).await?;
    ensure_eq!(cx.read(&place, 3).await?.len(), 3, "what was acknowledged");
    Ok(())
}

/// A follower that dies leaves the replicas in sync, and is back among them when it has caught up;
/// the leader stays, and who sends notices nothing.
pub async fn in_sync_replicas_shrink_and_grow(cx: Cx) -> Verdict {
    let place = place(&cx, &[("min.insync.replicas", "2")]).await?;
    in_sync(&cx, &place).await?;
    let before = described(&cx, &place).await?;
    let follower = before.replicas.iter().copied().find(|replica| Some(*replica) != before.leader);
    let follower = follower.ok_or_else(|| Failure::assertion("there is no follower"))?;
    cx.inflict(&Fault::CrashBroker(follower))?;
    let shrunk = until(&cx, &place, "it is out", |found| found.in_sync_replicas.len() == 2).await?;
    ensure!(!shrunk.in_sync_replicas.contains(&follower), "it is who died: {shrunk:?}");
    ensure_eq!(shrunk.replicas, before.replicas, "it is a replica all the same");
    ensure_eq!(shrunk.leader, before.leader, "the leader stays");
    cx.publish_to(&place, 50).await?;
    cx.inflict(&Fault::RestartBroker(follower))?;
    in_sync(&cx, &place).await?;
    ensure_eq!(cx.read(&place, 50).await?.len(), 50, "all records");
    Ok(())
}

/// A leader that shuts down hands over first: no send fails or waits long. When it is back it leads
/// again, as the preferred leader.
pub async fn shutdown_hands_over_and_the_preferred_leader_returns(cx: Cx) -> Verdict {
    let place = place(&cx, &[("min.insync.replicas", "2")]).await?;
    in_sync(&cx, &place).await?;
    let old = leader(&cx, &place).await?;
    let producer = cx.producer()?;
    let shutdown = async || shut_down(&cx, old).await;
    let deliveries = send_amid(&cx, &producer, &place, 100, shutdown).await?;
    for delivery in deliveries {
        delivery.await?;
    }
    let handed = until(&cx, &place, "another leads", |found| {
        found.leader.is_some_and(|leader| leader != old)
    })
    .await?;
    ensure!(!handed.in_sync_replicas.contains(&old), "it is not in sync any more: {handed:?}");
    cx.inflict(&Fault::RestartBroker(old))?;
    let back = until(&cx, &place, "it leads again", |found| found.leader == Some(old)).await?;
    ensure_eq!(back.replicas.first(), Some(&old), "the preferred leader");
    cx.publish_to(&place, 1).await?;
    ensure_eq!(cx.read(&place, 101).await?.len(), 101, "all records");
    Ok(())
}

/// Every broker is restarted in turn while records are sent and read: nothing is lost or doubled,
/// and no send fails.
pub async fn rolling_restart_loses_nothing(cx: Cx) -> Verdict {
    let topic = cx.topic(3).await?;
    whole(&cx, &topic, 3).await?;
    let places = [0, 1, 2].map(|partition| TopicPartition::new(&topic, partition));
    let from: Vec<_> = places.iter().map(|place| (place.clone(), StartAt::Beginning)).collect();
    let reader = cx.assigned(&from)?;
    let producer = cx.producer()?;
    let mut sent = 0;
    for broker in 1..=cx.fixture().brokers() {
        let deliveries: Vec<_> =
            (0..60).map(|n| producer.send(cx.record(&places[n % 3]))).collect();
        shut_down(&cx, broker).await?;
        let others: Vec<_> = (0..60).map(|n| cx.record(&places[n % 3])).collect();
        for outcome in producer.send_all(others).await {
            outcome?;
        }
        for delivery in deliveries {
            delivery.await?;
        }
        sent += 120;
        cx.drive(&[&reader], "all is read", || reader.count() >= sent).await?;
        cx.inflict(&Fault::RestartBroker(broker))?;
        whole(&cx, &topic, 3).await?;
    }
    ensure_eq!(reader.count(), sent, "each record once");
    let distinct: BTreeSet<_> = values(&reader.records()).into_iter().collect();
    ensure_eq!(distinct.len(), sent, "each value once");
    Ok(())
}

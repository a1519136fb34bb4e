//! Exactly once: offsets as a part of transactions.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bus_core::{
    Consumer, ConsumerConfig, ErrorKind, GroupMetadata, IsolationLevel, OffsetAndMetadata,
    ProducerExt, ProducerRecord, Recovery, StartAt, Subscription, Topic, TopicPartition,
    TransactionalProducer,
};

use crate::cx::{Cx, STEP, quick_consumer};
use crate::failure::{Verdict, refused};
use crate::history::Event;
use crate::reader::Reader;
use crate::script::{Report, Role, Step};
use crate::{ensure, ensure_eq};

/// A topic of one partition with ten records, a group, and a producer of transactions.
struct World {
    place: TopicPartition,
    group: String,
    producer: Arc<dyn TransactionalProducer>,
}

impl World {
    async fn new(cx: &Cx) -> Verdict<Self> {
        let place = TopicPartition::new(cx.topic(1).await?, 0);
        cx.publish_to(&place, 10).await?;
        let producer = cx.transactional(&cx.name("id")).await?;
        Ok(Self { place, group: cx.name("group"), producer })
    }

    /// A client of the group that is no member.
    fn client(&self, cx: &Cx, isolation_level: IsolationLevel) -> Verdict<Arc<dyn Consumer>> {
        let config = ConsumerConfig { isolation_level, ..ConsumerConfig::in_group(&self.group) };
        Ok(cx.bus().consumer(quick_consumer(config))?)
    }

    /// What the group has committed when no transaction has a say in it any more.
    async fn committed(&self, cx: &Cx) -> Verdict<Option<OffsetAndMetadata>> {
        let client = self.client(cx, IsolationLevel::ReadCommitted)?;
        Ok(client.committed(std::slice::from_ref(&self.place)).await?.remove(0))
    }

    /// Adds an offset of the group to the transaction, as one who is no member.
    async fn send_offset(&self, offset: i64) -> bus_core::Result<()> {
        let offsets = [(self.place.clone(), offset.into())];
        self.producer.send_offsets(&offsets, &nobody(&self.group)).await
    }
}

/// A client of the group that is no member.
fn nobody(group_id: &str) -> GroupMetadata {
    GroupMetadata {
        group_id: group_id.to_owned(),
        generation: -1,
        member_id: String::new(),
        group_instance_id: None,
        native: None,
    }
}

fn metadata(reader: &Reader) -> GroupMetadata {
    reader.group_metadata().unwrap_or_else(|| nobody(""))
}

/// Offsets are committed when their transaction is.
pub async fn offsets_commit_with_the_transaction(cx: Cx) -> Verdict {
    let world = World::new(&cx).await?;
    for offset in [4, 7] {
        world.producer.begin()?;
        cx.send_to(&*world.producer, &world.place, 1).await?;
        world.send_offset(offset).await?;
        world.producer.commit().await?;
        ensure_eq!(world.committed(&cx).await?, Some(offset.into()), "what is committed");
    }
    Ok(())
}

/// An abort leaves the offset that was committed before.
pub async fn abort_rolls_offsets_back(cx: Cx) -> Verdict {
    let world = World::new(&cx).await?;
    world.producer.begin()?;
    world.send_offset(7).await?;
    world.producer.abort().await?;
    ensure_eq!(world.committed(&cx).await?, None, "nothing was committed before");
    let client = world.client(&cx, IsolationLevel::ReadCommitted)?;
    client.commit(&[(world.place.clone(), 3.into())]).await?;
    world.producer.begin()?;
    world.send_offset(8).await?;
    world.producer.abort().await?;
    ensure_eq!(world.committed(&cx).await?, Some(3.into()), "what was committed before");
    Ok(())
}

/// While a transaction has offsets and is open, clients that read committed records wait for its
/// end to be told what is committed; those that read uncommitted ones are told what was before.
pub async fn pending_offsets_are_waited_for(cx: Cx) -> Verdict {
    let world = World::new(&cx).await?;
    let places = std::slice::from_ref(&world.place);
    let committed = world.client(&cx, IsolationLevel::ReadCommitted)?;
    let uncommitted = world.client(&cx, IsolationLevel::ReadUncommitted)?;
    committed.commit(&[(world.place.clone(), 2.into())]).await?;
    world.producer.begin()?;
    world.send_offset(6).await?;
    ensure_eq!(uncommitted.committed(places).await?, [Some(2.into())], "what was before");
    let mut told = committed.committed(places);
    let waited = tokio::time::timeout(Duration::from_secs(1), &mut told).await;
    ensure!(waited.is_err(), "it waits for the end of the transaction, not {waited:?}");
    world.producer.commit().await?;
    ensure_eq!(told.await?, [Some(6.into())], "what the transaction committed");
    Ok(())
}

/// A member that is assigned a partition with a pending offset waits for the end of the
/// transaction, and starts where that says.
pub async fn members_start_behind_pending_offsets(cx: Cx) -> Verdict {
    let world = World::new(&cx).await?;
    world.producer.begin()?;
    world.send_offset(6).await?;
    let member = cx.member(&world.group, &world.place.topic)?;
    cx.drive(&[&member], "it has the partition", || member.assignment().len() == 1).await?;
    cx.drive_for(&[&member], Duration::from_secs(1)).await?;
    ensure_eq!(member.count(), 0, "it does not start before the end of the transaction");
    world.producer.commit().await?;
    cx.drive(&[&member], "it reads the rest", || member.count() == 4).await?;
    ensure_eq!(member.offsets(&world.place), [6, 7, 8, 9], "from the offset on");
    Ok(())
}

/// A seek to the committed offset waits for the end of a transaction that is about to change it.
pub async fn seek_waits_for_pending_offsets(cx: Cx) -> Verdict {
    let world = World::new(&cx).await?;
    let consumer = world.client(&cx, IsolationLevel::ReadCommitted)?;
    consumer.assign(&[(world.place.clone(), StartAt::Beginning)])?;
    let reader = Reader::new(consumer);
    cx.drive(&[&reader], "all records are read", || reader.count() == 10).await?;
    world.producer.begin()?;
    world.send_offset(6).await?;
    let mut sought = reader.seek(&world.place, StartAt::Committed);
    let waited = tokio::time::timeout(Duration::from_secs(1), &mut sought).await;
    ensure!(waited.is_err(), "it waits for the end of the transaction, not {waited:?}");
    ensure_eq!(reader.position(&world.place)?, Some(10), "the position stays");
    world.producer.commit().await?;
    sought.await?;
    ensure_eq!(reader.position(&world.place)?, Some(6), "what the transaction committed");
    Ok(())
}

/// The starts of partitions that are assigned together are looked up together: one pending offset
/// holds back all of them.
pub async fn one_pending_offset_holds_back_all_starts(cx: Cx) -> Verdict {
    let topic = cx.topic(2).await?;
    let places = [0, 1].map(|partition| TopicPartition::new(&topic, partition));
    cx.publish(&topic, 10).await?;
    let group = cx.name("group");
    let producer = cx.transactional(&cx.name("id")).await?;
    producer.begin()?;
    producer.send_offsets(&[(places[1].clone(), 2.into())], &nobody(&group)).await?;
    let consumer = cx.bus().consumer(quick_consumer(ConsumerConfig::in_group(&group)))?;
    consumer.assign(&places.clone().map(|place| (place, StartAt::Committed)))?;
    let reader = Reader::new(consumer);
    cx.drive_for(&[&reader], Duration::from_secs(1)).await?;
    ensure_eq!(reader.count(), 0, "neither partition starts");
    producer.commit().await?;
    cx.drive(&[&reader], "both are read", || reader.count() == 8).await?;
    ensure_eq!(reader.offsets(&places[1]), [2, 3, 4], "from the offset on");
    Ok(())
}

/// A transaction may hold several partitions, groups, and notes, in as many calls; the last call
/// counts.
pub async fn offsets_of_a_transaction_add_up(cx: Cx) -> Verdict {
    let topic = cx.topic(2).await?;
    let places = [0, 1].map(|partition| TopicPartition::new(&topic, partition));
    let groups = [cx.name("group"), cx.name("group")];
    let producer = cx.transactional(&cx.name("id")).await?;
    let noted = OffsetAndMetadata { offset: 5, metadata: "état".to_owned() };
    producer.begin()?;
    let first = [(places[0].clone(), 3.into()), (places[1].clone(), 4.into())];
    producer.send_offsets(&first, &nobody(&groups[0])).await?;
    producer.send_offsets(&first[1..], &nobody(&groups[1])).await?;
    producer.send_offsets(&[(places[0].clone(), noted.clone())], &nobody(&groups[0])).await?;
    producer.send_offsets(&[], &nobody(&groups[0])).await?;
    producer.commit().await?;
    for (group, expected) in
        groups.iter().zip([[Some(noted), Some(4.into())], [None, Some(4.into())]])
    {
        let client = cx.bus().consumer(quick_consumer(ConsumerConfig::in_group(group)))?;
        ensure_eq!(client.committed(&places).await?, expected, "what {group} has committed");
    }
    Ok(())
}

/// A plain commit that comes while a transaction has an offset for the same partition is the later
/// one: it stays when the transaction commits.
pub async fn later_plain_commit_stays(cx: Cx) -> Verdict {
    let world = World::new(&cx).await?;
    let client = world.client(&cx, IsolationLevel::ReadCommitted)?;
    world.producer.begin()?;
    world.send_offset(6).await?;
    client.commit(&[(world.place.clone(), 2.into())]).await?;
    world.producer.commit().await?;
    ensure_eq!(world.committed(&cx).await?, Some(2.into()), "the later commit");
    Ok(())
}

/// A member copies records in transactions with its offsets: each is copied once, also where a
/// transaction was aborted and done again.
pub async fn aborted_work_is_done_again(cx: Cx) -> Verdict {
    let world = World::new(&cx).await?;
    let output = TopicPartition::new(cx.topic(1).await?, 0);
    let config = ConsumerConfig { max_poll_records: 3, ..cx.member_config(&world.group) };
    let member = cx.subscribed(config, Subscription::topics([&world.place.topic]))?;
    let (producer, mut copied) = (&world.producer, 0);
    for attempt in 0.. {
        member.forget();
        cx.drive(&[&member], "it has records", || member.count() > 0).await?;
        let records = member.records();
        producer.begin()?;
        for outcome in producer.send_all(copies(&records, &output)).await {
            outcome?;
        }
        let next = records[records.len() - 1].next_offset();
        let offsets = [(world.place.clone(), next.into())];
        producer.send_offsets(&offsets, &metadata(&member)).await?;
        if attempt % 2 == 0 {
            producer.abort().await?;
            member.seek(&world.place, StartAt::Offset(records[0].offset)).await?;
            continue;
        }
        producer.commit().await?;
        copied += records.len();
        if copied >= 10 {
            break;
        }
    }
    ensure_eq!(world.committed(&cx).await?, Some(10.into()), "all is done");
    is_copied_once(&cx, &world.place, &output).await
}

fn copies(records: &[bus_core::Record], output: &TopicPartition) -> Vec<ProducerRecord> {
    let copy = |record: &bus_core::Record| ProducerRecord {
        value: record.value.clone(),
        ..ProducerRecord::to(&output.topic).partition(output.partition)
    };
    records.iter().map(copy).collect()
}

/// Checks that readers of committed records find each of the ten records once.
async fn is_copied_once(cx: &Cx, input: &TopicPartition, output: &TopicPartition) -> Verdict {
    let source: Vec<_> = cx.read(input, 10).await?.into_iter().map(|r| r.value).collect();
    // Nothing follows them.
    cx.publish_to(output, 1).await?;
    let copies: Vec<_> = cx.read(output, 11).await?.into_iter().map(|r| r.value).collect();
    ensure_eq!(copies.len(), 11, "ten copies and what follows them");
    ensure!(copies[..10] == source, "the copies are {copies:?}");
    Ok(())
}

/// A process that copies records in transactions crashes amid one, and another goes on in its
/// place: each record is copied once.
async fn crash_at(cx: Cx, step: Step) -> Verdict {
    let input = TopicPartition::new(cx.topic(1).await?, 0);
    let output = TopicPartition::new(cx.topic(1).await?, 0);
    let (group, transactional_id) = (cx.name("group"), cx.name("id"));
    cx.publish_to(&input, 10).await?;
    let config = ConsumerConfig {
        session_timeout: Duration::from_secs(2),
        max_poll_interval: Duration::from_secs(5),
        max_poll_records: 3,
        ..cx.member_config(&group)
    };
    let copier = |stop| Role::Copier {
        properties: config.to_properties(),
        transactional_id: transactional_id.clone(),
        output: output.topic.to_string(),
        stop,
    };
    let first = cx.process(&input.topic, copier(Some((1, step)))).await?;
    let reached = Report::Reached(1, step);
    first.until(&cx, "it stands still", || first.count(|r| *r == reached) == 1).await?;
    first.crash(&cx)?;
    let second = cx.process(&input.topic, copier(None)).await?;
    let client = cx.bus().consumer(quick_consumer(ConsumerConfig::in_group(&group)))?;
    cx.until("the other has done the rest", async || {
        second.listen().await?;
        let committed = client.committed(std::slice::from_ref(&input)).await?.remove(0);
        Ok((committed == Some(10.into())).then_some(()))
    })
    .await?;
    second.crash(&cx)?;
    // The processes are no part of the history.
    let (commit, offsets) = (cx.history().next_commit(), vec![(input.clone(), 10.into())]);
    cx.note(Event::Commit { commit, group_id: group, offsets });
    is_copied_once(&cx, &input, &output).await
}

/// A crash after the records of a transaction were sent copies none of them twice.
pub async fn crash_after_the_records_copies_nothing_twice(cx: Cx) -> Verdict {
    crash_at(cx, Step::Sent).await
}

/// A crash after the offsets of a transaction were sent neither loses nor repeats what it copied.
pub async fn crash_after_the_offsets_copies_nothing_twice(cx: Cx) -> Verdict {
    crash_at(cx, Step::OffsetsSent).await
}

/// A crash after the commit of a transaction repeats nothing.
pub async fn crash_after_the_commit_copies_nothing_twice(cx: Cx) -> Verdict {
    crash_at(cx, Step::Committed).await
}

/// Offsets with the metadata of an older generation are refused, the transaction must be aborted,
/// and nothing of it is visible.
pub async fn offsets_of_an_old_generation_are_refused(cx: Cx) -> Verdict {
    let world = World::new(&cx).await?;
    let first = cx.member(&world.group, &world.place.topic)?;
    cx.drive(&[&first], "the records are read", || first.count() == 10).await?;
    let old = metadata(&first);
    let second = cx.member(&world.group, &world.place.topic)?;
    cx.drive(&[&first, &second], "the group has rebalanced", || {
        metadata(&first).generation > old.generation && metadata(&second).generation >= 0
    })
    .await?;
    let new = metadata(&first);
    ensure_eq!(new.member_id, old.member_id, "it is the same member");
    refused_transaction(&cx, &world, &old, ErrorKind::IllegalGeneration).await?;
    world.producer.begin()?;
    world.producer.send_offsets(&[(world.place.clone(), 10.into())], &new).await?;
    world.producer.commit().await?;
    ensure_eq!(world.committed(&cx).await?, Some(10.into()), "those of now are taken");
    Ok(())
}

/// Checks that a transaction with offsets of this member fails with this kind, and must be aborted.
async fn refused_transaction(
    cx: &Cx,
    world: &World,
    group: &GroupMetadata,
    kind: ErrorKind,
) -> Verdict {
    let offsets = [(world.place.clone(), 5.into())];
    let output = TopicPartition::new(cx.topic(1).await?, 0);
    let producer = &world.producer;
    producer.begin()?;
    cx.send_to(&**producer, &output, 1).await?;
    let error = refused(producer.send_offsets(&offsets, group).await, kind)?;
    ensure_eq!(error.recovery(), Recovery::Abort, "what may be done: {error}");
    ensure!(!error.is_indeterminate(), "nothing has happened");
    let error = refused(producer.commit().await, kind)?;
    ensure_eq!(error.recovery(), Recovery::Abort, "what may be done: {error}");
    producer.abort().await?;
    cx.publish_to(&output, 1).await?;
    let read = cx.read(&output, 1).await?;
    ensure!(read[0].offset > 0, "the aborted record is not visible");
    Ok(())
}

/// Offsets of a member that the group does not know are refused: one of another group, or one that
/// has left.
pub async fn offsets_of_an_unknown_member_are_refused(cx: Cx) -> Verdict {
    let world = World::new(&cx).await?;
    let elsewhere = cx.member(&cx.name("other"), &world.place.topic)?;
    let member = cx.member(&world.group, &world.place.topic)?;
    cx.drive(&[&member, &elsewhere], "both are members", || {
        member.count() == 10 && elsewhere.count() == 10
    })
    .await?;
    let foreign = GroupMetadata { group_id: world.group.clone(), ..metadata(&elsewhere) };
    refused_transaction(&cx, &world, &foreign, ErrorKind::UnknownMemberId).await?;
    let gone = metadata(&member);
    member.close().await?;
    refused_transaction(&cx, &world, &gone, ErrorKind::UnknownMemberId).await?;
    ensure_eq!(world.committed(&cx).await?, None, "nothing was committed");
    Ok(())
}

/// Offsets of a static member whose instance id another one has taken are refused.
pub async fn offsets_of_a_fenced_instance_are_refused(cx: Cx) -> Verdict {
    let world = World::new(&cx).await?;
    let member = || {
        let group_instance_id = Some("the one".to_owned());
        let config = ConsumerConfig { group_instance_id, ..cx.member_config(&world.group) };
        cx.subscribed(config, Subscription::topics([&world.place.topic]))
    };
    let first = member()?;
    cx.drive(&[&first], "the first is a member", || first.count() == 10).await?;
    let old = metadata(&first);
    let second = member()?;
    cx.drive(&[&second], "the second is a member", || second.assignment().len() == 1).await?;
    refused_transaction(&cx, &world, &old, ErrorKind::FencedInstanceId).await?;
    let told = cx.until("the first is told", async || Ok(first.step(STEP).await.err())).await?;
    ensure_eq!(told.kind(), ErrorKind::FencedInstanceId, "{told}");
    Ok(())
}

/// A transaction of one who is no member is taken, even if the group has members: nobody is
/// fenced.
pub async fn offsets_of_nobody_are_taken(cx: Cx) -> Verdict {
    let world = World::new(&cx).await?;
    let member = cx.member(&world.group, &world.place.topic)?;
    cx.drive(&[&member], "the group has a member", || member.count() == 10).await?;
    world.producer.begin()?;
    world.send_offset(5).await?;
    world.producer.commit().await?;
    ensure_eq!(world.committed(&cx).await?, Some(5.into()), "what is committed");
    Ok(())
}

/// Offsets for no group are refused, and the transaction must be aborted.
pub async fn offsets_of_no_group_are_refused(cx: Cx) -> Verdict {
    let world = World::new(&cx).await?;
    refused_transaction(&cx, &world, &nobody(""), ErrorKind::InvalidGroupId).await
}

/// Two members take turns in a rebalance while they copy in transactions: each record is copied
/// once.
pub async fn rebalance_copies_nothing_twice(cx: Cx) -> Verdict {
    let input: Topic = cx.topic(2).await?;
    let output: Topic = cx.topic(2).await?;
    let group = cx.name("group");
    cx.publish(&input, 40).await?;
    let config = ConsumerConfig { max_poll_records: 4, ..cx.member_config(&group) };
    let mut copiers = Vec::new();
    for name in ["first", "second"] {
        let member = cx.subscribed(config.clone(), Subscription::topics([&input]))?;
        copiers.push((member, cx.transactional(&cx.name(name)).await?));
        // The second joins amid the work of the first.
        if copiers.len() == 1 {
            for _ in 0..3 {
                copy(&copiers[0], &output).await?;
            }
        }
    }
    let output_places = [0, 1].map(|partition| TopicPartition::new(&output, partition));
    let reader = cx.isolated(IsolationLevel::ReadCommitted, &output_places)?;
    cx.until("all is copied", async || {
        for copier in &copiers {
            copy(copier, &output).await?;
        }
        reader.step(STEP).await?;
        Ok((reader.count() >= 40).then_some(()))
    })
    .await?;
    cx.drive_for(&[&reader], Duration::from_millis(300)).await?;
    let values: BTreeSet<_> = reader.values().into_iter().collect();
    ensure_eq!((reader.count(), values.len()), (40, 40), "each record once");
    Ok(())
}

/// Copies what one poll gives, in a transaction; starts over from the commit if that fails.
async fn copy(
    (member, producer): &(Reader, Arc<dyn TransactionalProducer>),
    output: &Topic,
) -> Verdict {
    member.forget();
    member.step(STEP).await?;
    let records = member.records();
    if records.is_empty() {
        return Ok(());
    }
    let group = metadata(member);
    producer.begin()?;
    let mut offsets: BTreeMap<TopicPartition, OffsetAndMetadata> = BTreeMap::new();
    for record in &records {
        let output = TopicPartition::new(output, record.partition);
        // The commit fails if one of them does.
        drop(producer.send_all(copies(std::slice::from_ref(record), &output)).await);
        offsets.insert(record.topic_partition(), record.next_offset().into());
    }
    let offsets: Vec<_> = offsets.into_iter().collect();
    let sent = producer.send_offsets(&offsets, &group).await;
    let Err(error) = (if sent.is_ok() { producer.commit().await } else { sent }) else {
        return Ok(());
    };
    if error.recovery() != Recovery::Abort {
        return Err(error.into());
    }
    producer.abort().await?;
    // Where it still owns the partition it must read these records again.
    let owned = member.assignment();
    for (place, _) in offsets.into_iter().filter(|(place, _)| owned.contains(place)) {
        let committed = member.committed(std::slice::from_ref(&place)).await?.remove(0);
        let from = committed.map_or(0, |committed| committed.offset);
        member.seek(&place, StartAt::Offset(from)).await?;
    }
    Ok(())
}

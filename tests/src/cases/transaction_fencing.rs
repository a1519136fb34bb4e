//! Transactions: producers that were replaced, or took too long.

use std::sync::Arc;
use std::time::Duration;

use bus_core::IsolationLevel::{ReadCommitted, ReadUncommitted};
use bus_core::{
    Error, ErrorKind, GroupMetadata, ProducerConfig, Recovery, TopicPartition, TransactionConfig,
    TransactionalProducer,
};

use crate::cx::{Cx, STEP, quick_producer};
use crate::failure::{Verdict, refused};
use crate::script::{Report, Role, Step};
use crate::{ensure, ensure_eq};

/// The shortest time that a transaction may have.
const BRIEF: Duration = Duration::from_secs(1);

/// A partition, and an older and a newer producer of the same transactional id; the older one has
/// sent a record in a transaction before the newer one came.
struct Rivals {
    place: TopicPartition,
    older: Arc<dyn TransactionalProducer>,
    newer: Arc<dyn TransactionalProducer>,
}

impl Rivals {
    async fn new(cx: &Cx) -> Verdict<Self> {
        let place = TopicPartition::new(cx.topic(1).await?, 0);
        let id = cx.name("id");
        let older = cx.transactional(&id).await?;
        older.begin()?;
        cx.send_to(&*older, &place, 1).await?;
        let newer = cx.transactional(&id).await?;
        Ok(Self { place, older, newer })
    }

    /// The older one is fenced by now: it says so again and again, and the newer one works.
    async fn check(&self, cx: &Cx) -> Verdict {
        let Self { place, older, newer } = self;
        is_fenced(older.send(cx.record(place)).await)?;
        is_fenced(older.commit().await)?;
        is_fenced(older.abort().await)?;
        is_fenced(older.begin())?;
        is_fenced(send_offset(cx, older, place).await)?;
        is_fenced(older.init_transactions().await)?;
        newer.begin()?;
        let sent = cx.send_to(&**newer, place, 1).await?;
        newer.commit().await?;
        let read = cx.read(place, 1).await?;
        ensure_eq!(Some(read[0].offset), sent[0].offset, "only the newer one's record is visible");
        Ok(())
    }
}

fn is_fenced<T: std::fmt::Debug>(outcome: Result<T, Error>) -> Verdict {
    let error = refused(outcome, ErrorKind::ProducerFenced)?;
    ensure_eq!(error.recovery(), Recovery::Close, "what may be done: {error}");
    Ok(())
}

/// Adds an offset of a group without members to the transaction.
async fn send_offset(
    cx: &Cx,
    producer: &Arc<dyn TransactionalProducer>,
    place: &TopicPartition,
) -> bus_core::Result<()> {
    let group = GroupMetadata {
        group_id: cx.name("group"),
        generation: -1,
        member_id: String::new(),
        group_instance_id: None,
        native: None,
    };
    producer.send_offsets(&[(place.clone(), 1.into())], &group).await
}

/// A newer producer of the same transactional id fences the older one: it notices when it sends.
pub async fn newer_producer_fences_the_send(cx: Cx) -> Verdict {
    let rivals = Rivals::new(&cx).await?;
    is_fenced(rivals.older.send(cx.record(&rivals.place)).await)?;
    rivals.check(&cx).await
}

/// A newer producer of the same transactional id fences the older one: it notices when it commits.
pub async fn newer_producer_fences_the_commit(cx: Cx) -> Verdict {
    let rivals = Rivals::new(&cx).await?;
    is_fenced(rivals.older.commit().await)?;
    rivals.check(&cx).await
}

/// A newer producer of the same transactional id fences the older one: it notices when it aborts.
pub async fn newer_producer_fences_the_abort(cx: Cx) -> Verdict {
    let rivals = Rivals::new(&cx).await?;
    is_fenced(rivals.older.abort().await)?;
    rivals.check(&cx).await
}

/// A newer producer of the same transactional id fences the older one: it notices when it sends
/// offsets.
pub async fn newer_producer_fences_the_offsets(cx: Cx) -> Verdict {
    let rivals = Rivals::new(&cx).await?;
    is_fenced(send_offset(&cx, &rivals.older, &rivals.place).await)?;
    rivals.check(&cx).await
}

/// A fenced producer that has no transaction may begin one, since no broker hears of that; then its
/// first record is refused.
pub async fn newer_producer_fences_the_next_transaction(cx: Cx) -> Verdict {
    let place = TopicPartition::new(cx.topic(1).await?, 0);
    let id = cx.name("id");
    let older = cx.transactional(&id).await?;
    older.begin()?;
    older.commit().await?;
    let newer = cx.transactional(&id).await?;
    older.begin()?;
    is_fenced(older.send(cx.record(&place)).await)?;
    Rivals { place, older, newer }.check(&cx).await
}

/// The initialization of a producer aborts what an older one left open: when it is done, readers of
/// committed records are held back no more.
pub async fn init_aborts_what_was_left_open(cx: Cx) -> Verdict {
    let topic = cx.topic(2).await?;
    let places = [0, 1].map(|partition| TopicPartition::new(&topic, partition));
    let id = cx.name("id");
    let older = cx.transactional(&id).await?;
    older.begin()?;
    for place in &places {
        cx.send_to(&*older, place, 1).await?;
        cx.publish_to(place, 1).await?;
    }
    let reader = cx.isolated(ReadCommitted, &places)?;
    cx.drive_for(&[&reader], Duration::from_millis(300)).await?;
    ensure_eq!(reader.count(), 0, "the open transaction holds everything back");
    drop(older);
    let newer = cx.transactional(&id).await?;
    for place in &places {
        let end = reader.watermarks(place).await?.high;
        ensure_eq!(end, 3, "the transaction has ended in {place}");
    }
    cx.drive(&[&reader], "what followed is read", || reader.count() == 2).await?;
    newer.begin()?;
    newer.commit().await?;
    Ok(())
}

/// What a zombie has in its buffer when it is fenced never gets into the log.
pub async fn zombie_records_never_show(cx: Cx) -> Verdict {
    let place = TopicPartition::new(cx.topic(1).await?, 0);
    let id = cx.name("id");
    let config = ProducerConfig { linger: Duration::from_secs(30), ..Default::default() };
    let older = cx.transactional_with(config, TransactionConfig::new(id.as_str())).await?;
    older.begin()?;
    let deliveries = [older.send(cx.record(&place)), older.send(cx.record(&place))];
    let newer = cx.transactional(&id).await?;
    newer.begin()?;
    cx.send_to(&*newer, &place, 1).await?;
    newer.commit().await?;
    refused(older.commit().await, ErrorKind::ProducerFenced)?;
    for delivery in deliveries {
        is_fenced(delivery.await)?;
    }
    newer.begin()?;
    cx.send_to(&*newer, &place, 1).await?;
    newer.commit().await?;
    let reader = cx.isolated(ReadUncommitted, std::slice::from_ref(&place))?;
    cx.drive(&[&reader], "the newer one's records are read", || reader.count() >= 2).await?;
    cx.drive_for(&[&reader], Duration::from_millis(300)).await?;
    ensure_eq!(reader.count(), 2, "there is nothing else");
    Ok(())
}

/// Producers of other transactional ids do not disturb each other.
pub async fn other_ids_are_not_fenced(cx: Cx) -> Verdict {
    let place = TopicPartition::new(cx.topic(1).await?, 0);
    let id = cx.name("id");
    let one = cx.transactional(&id).await?;
    one.begin()?;
    cx.send_to(&*one, &place, 1).await?;
    let other = cx.transactional(&format!("{id}-1")).await?;
    other.begin()?;
    cx.send_to(&*other, &place, 1).await?;
    one.commit().await?;
    other.commit().await?;
    ensure_eq!(cx.read(&place, 2).await?.len(), 2, "both have committed");
    Ok(())
}

/// Of several producers of a transactional id the newest one works, and each before it is fenced.
pub async fn newest_producer_wins(cx: Cx) -> Verdict {
    let place = TopicPartition::new(cx.topic(1).await?, 0);
    let id = cx.name("id");
    let mut producers = Vec::new();
    for _ in 0..4 {
        let producer = cx.transactional(&id).await?;
        producer.begin()?;
        cx.send_to(&*producer, &place, 1).await?;
        producers.push(producer);
    }
    let newest = producers.pop();
    for producer in producers {
        is_fenced(producer.commit().await)?;
    }
    if let Some(newest) = newest {
        newest.commit().await?;
    }
    let read = cx.read(&place, 1).await?;
    // Each of the three before it has a record and a marker.
    ensure_eq!(read[0].offset, 6, "the record of the newest");
    Ok(())
}

/// A producer that closed in peace is followed by another of its transactional id, with nothing to
/// abort.
pub async fn producer_takes_over_after_a_close(cx: Cx) -> Verdict {
    let place = TopicPartition::new(cx.topic(1).await?, 0);
    let id = cx.name("id");
    for _ in 0..3 {
        let producer = cx.transactional(&id).await?;
        producer.begin()?;
        cx.send_to(&*producer, &place, 1).await?;
        producer.commit().await?;
        producer.close(Duration::from_secs(10)).await?;
    }
    let read: Vec<_> = cx.read(&place, 3).await?.iter().map(|record| record.offset).collect();
    ensure_eq!(read, [0, 2, 4], "a record and a marker each");
    Ok(())
}

/// A brief transaction, with a record in it, that is over its time.
async fn overdue(cx: &Cx) -> Verdict<(TopicPartition, Arc<dyn TransactionalProducer>)> {
    let place = TopicPartition::new(cx.topic(1).await?, 0);
    let transaction_timeout = BRIEF;
    let transaction =
        TransactionConfig { transaction_timeout, ..TransactionConfig::new(cx.name("id")) };
    let producer = cx.transactional_with(quick_producer(), transaction).await?;
    let reader = cx.isolated(ReadCommitted, std::slice::from_ref(&place))?;
    let begin = cx.bus().elapsed();
    producer.begin()?;
    cx.send_to(&*producer, &place, 1).await?;
    // The coordinator looks for such transactions every now and then.
    cx.until("the coordinator aborts it", async || {
        reader.step(STEP).await?;
        Ok((reader.watermarks(&place).await?.high == 2).then_some(()))
    })
    .await?;
    let took = cx.bus().elapsed() - begin;
    ensure!(took >= BRIEF, "it took {took:?}; the transaction had {BRIEF:?}");
    ensure_eq!(reader.count(), 0, "its record is not visible");
    Ok((place, producer))
}

/// A transaction that is open for longer than its timeout is aborted by the coordinator, and its
/// producer is fenced when it sends.
pub async fn overdue_transaction_is_aborted(cx: Cx) -> Verdict {
    let (place, producer) = overdue(&cx).await?;
    is_fenced(producer.send(cx.record(&place)).await)?;
    is_fenced(producer.abort().await)
}

/// The commit of a transaction that took too long is refused.
pub async fn overdue_commit_is_refused(cx: Cx) -> Verdict {
    let (place, producer) = overdue(&cx).await?;
    is_fenced(producer.commit().await)?;
    is_fenced(producer.begin())?;
    is_fenced(send_offset(&cx, &producer, &place).await)
}

/// Offsets for a transaction that took too long are refused, and so is its abort.
pub async fn overdue_offsets_are_refused(cx: Cx) -> Verdict {
    let (place, producer) = overdue(&cx).await?;
    is_fenced(send_offset(&cx, &producer, &place).await)?;
    is_fenced(producer.abort().await)
}

/// The timeout is that of transactions: a producer without one may idle, and so may one that has
/// begun and sent nothing.
pub async fn idle_producer_outlives_the_timeout(cx: Cx) -> Verdict {
    let place = TopicPartition::new(cx.topic(1).await?, 0);
    let transaction_timeout = BRIEF;
    let transaction =
        TransactionConfig { transaction_timeout, ..TransactionConfig::new(cx.name("id")) };
    let producer = cx.transactional_with(quick_producer(), transaction).await?;
    tokio::time::sleep(BRIEF * 3).await;
    producer.begin()?;
    tokio::time::sleep(BRIEF * 3).await;
    cx.send_to(&*producer, &place, 1).await?;
    producer.commit().await?;
    ensure_eq!(cx.read(&place, 1).await?.len(), 1, "the record is committed");
    Ok(())
}

/// A process that crashes amid a transaction leaves it open; the next producer of its transactional
/// id ends it.
pub async fn crashed_transaction_is_ended_by_the_next(cx: Cx) -> Verdict {
    let place = TopicPartition::new(cx.topic(1).await?, 0);
    let id = cx.name("id");
    let role = Role::Transactor { transactional_id: id.clone() };
    let process = cx.process(&place.topic, role).await?;
    process.until(&cx, "it works", || process.reports().len() > 4).await?;
    process.crash(&cx)?;
    let producer = cx.transactional(&id).await?;
    producer.begin()?;
    let sent = cx.send_to(&*producer, &place, 1).await?;
    producer.commit().await?;
    let reader = cx.isolated(ReadCommitted, std::slice::from_ref(&place))?;
    cx.drive(&[&reader], "readers get there", || {
        reader.offsets(&place).last().copied() == sent[0].offset
    })
    .await?;
    process.listen().await?;
    let committed = process.count(|report| matches!(report, Report::Reached(_, Step::Committed)));
    // The last commit may be done and not reported.
    let visible = reader.count() - 1;
    ensure!((committed..=committed + 1).contains(&visible), "{visible} of {committed} are visible");
    Ok(())
}

/// A process that stands still while another takes its transactional id wakes up as a zombie: it is
/// fenced, and nothing of its open transaction is visible.
pub async fn paused_producer_wakes_up_fenced(cx: Cx) -> Verdict {
    let place = TopicPartition::new(cx.topic(1).await?, 0);
    let id = cx.name("id");
    let role = Role::Transactor { transactional_id: id.clone() };
    let process = cx.process(&place.topic, role).await?;
    process.until(&cx, "it works", || process.reports().len() > 4).await?;
    process.pause(&cx)?;
    let producer = cx.transactional(&id).await?;
    producer.begin()?;
    let sent = cx.send_to(&*producer, &place, 1).await?;
    producer.commit().await?;
    process.resume(&cx)?;
    let fenced = Report::TransactionFailed(ErrorKind::ProducerFenced);
    process.until(&cx, "it is fenced", || process.count(|r| *r == fenced) == 1).await?;
    let after = cx.publish_to(&place, 1).await?;
    let reader = cx.isolated(ReadCommitted, std::slice::from_ref(&place))?;
    cx.drive(&[&reader], "readers get to the end", || {
        reader.offsets(&place).last().copied() == after[0].offset
    })
    .await?;
    let offsets = reader.offsets(&place);
    let own: Vec<_> = [&sent, &after].iter().filter_map(|sent| sent[0].offset).collect();
    ensure_eq!(offsets[offsets.len() - 2..], own[..], "nothing of the zombie in between");
    process.crash(&cx)?;
    Ok(())
}

//! Transactions: messages that are lost, and brokers that restart.

use std::time::Duration;

use bus_core::{
    ConsumerConfig, GroupMetadata, IsolationLevel, Recovery, TopicPartition, TransactionalProducer,
};
use futures_util::future::join;

use crate::cx::{Cx, quick_consumer};
use crate::ensure_eq;
use crate::failure::Verdict;
use crate::fixture::{Api, Fault};

/// The two ways in which a message of this API is lost.
const fn losses(api: Api) -> [Fault; 2] {
    [Fault::LoseRequest(api), Fault::LoseResponse(api)]
}

fn nobody(group_id: &str) -> GroupMetadata {
    GroupMetadata {
        group_id: group_id.to_owned(),
        generation: -1,
        member_id: String::new(),
        group_instance_id: None,
        native: None,
    }
}

/// Commits, and tries again as long as that may help.
async fn commit(cx: &Cx, producer: &dyn TransactionalProducer) -> Verdict {
    cx.until("the commit succeeds", async || match producer.commit().await {
        Err(error) if error.recovery() == Recovery::Retry => Ok(None),
        outcome => Ok(Some(outcome?)),
    })
    .await
}

/// Checks that readers of committed records are given so many, and nothing more.
async fn shows(cx: &Cx, place: &TopicPartition, records: usize) -> Verdict {
    let reader = cx.isolated(IsolationLevel::ReadCommitted, std::slice::from_ref(place))?;
    cx.drive(&[&reader], "the records are read", || reader.count() >= records).await?;
    cx.drive_for(&[&reader], Duration::from_millis(300)).await?;
    ensure_eq!(reader.count(), records, "each record once");
    Ok(())
}

/// Any message of a transaction may be lost, on its way or on the way back: it is sent again, and
/// the transaction commits once, with its records and offsets.
pub async fn lost_messages_of_a_transaction_are_repeated(cx: Cx) -> Verdict {
    let place = TopicPartition::new(cx.topic(1).await?, 0);
    let group = cx.name("group");
    let client = cx.bus().consumer(quick_consumer(ConsumerConfig::in_group(&group)))?;
    let producer = cx.transactional(&cx.name("id")).await?;
    let apis = [
        Api::AddPartitionsToTxn,
        Api::Produce,
        Api::AddOffsetsToTxn,
        Api::TxnOffsetCommit,
        Api::EndTxn,
    ];
    for (n, fault) in (1..).zip(apis.into_iter().flat_map(losses)) {
        producer.begin()?;
        cx.inflict(&fault)?;
        cx.send_to(&*producer, &place, 2).await?;
        producer.send_offsets(&[(place.clone(), n.into())], &nobody(&group)).await?;
        commit(&cx, &*producer).await?;
        let committed = client.committed(std::slice::from_ref(&place)).await?;
        ensure_eq!(committed, [Some(n.into())], "the offset of the transaction with {fault}");
    }
    shows(&cx, &place, 20).await
}

/// The end of an aborted transaction may be lost, on its way or on the way back: it is sent again.
pub async fn lost_abort_is_repeated(cx: Cx) -> Verdict {
    let place = TopicPartition::new(cx.topic(1).await?, 0);
    let producer = cx.transactional(&cx.name("id")).await?;
    for fault in losses(Api::EndTxn) {
        producer.begin()?;
        cx.send_to(&*producer, &place, 1).await?;
        cx.inflict(&fault)?;
        cx.until("the abort succeeds", async || match producer.abort().await {
            Err(error) if error.recovery() == Recovery::Retry => Ok(None),
            outcome => Ok(Some(outcome?)),
        })
        .await?;
        producer.begin()?;
        cx.send_to(&*producer, &place, 1).await?;
        commit(&cx, &*producer).await?;
    }
    shows(&cx, &place, 2).await
}

/// The initialization of a producer may be lost, on its way or on the way back: it is sent again,
/// and the producer works.
pub async fn lost_initialization_is_repeated(cx: Cx) -> Verdict {
    let place = TopicPartition::new(cx.topic(1).await?, 0);
    let id = cx.name("id");
    for fault in losses(Api::InitProducerId) {
        cx.inflict(&fault)?;
        let producer = cx.transactional(&id).await?;
        producer.begin()?;
        cx.send_to(&*producer, &place, 1).await?;
        commit(&cx, &*producer).await?;
    }
    shows(&cx, &place, 2).await
}

/// Brokers that crash and restart while a transaction is open do not harm it.
pub async fn open_transaction_survives_a_broker_restart(cx: Cx) -> Verdict {
    let topic = cx.topic(2).await?;
    let places = [0, 1].map(|partition| TopicPartition::new(&topic, partition));
    let producer = cx.transactional(&cx.name("id")).await?;
    producer.begin()?;
    for place in &places {
        cx.send_to(&*producer, place, 1).await?;
    }
    cx.inflict(&Fault::CrashBrokers)?;
    cx.inflict(&Fault::RestartBrokers)?;
    for place in &places {
        cx.send_to(&*producer, place, 1).await?;
    }
    commit(&cx, &*producer).await?;
    for place in &places {
        shows(&cx, place, 2).await?;
    }
    Ok(())
}

/// Brokers that crash while a transaction commits: the commit is repeated when they are back, and
/// the transaction is visible as a whole, once.
pub async fn commit_survives_a_broker_restart(cx: Cx) -> Verdict {
    let topic = cx.topic(2).await?;
    let places = [0, 1].map(|partition| TopicPartition::new(&topic, partition));
    let producer = cx.transactional(&cx.name("id")).await?;
    producer.begin()?;
    for place in &places {
        cx.send_to(&*producer, place, 1).await?;
    }
    let restart = async {
        cx.inflict(&Fault::CrashBrokers)?;
        tokio::time::sleep(Duration::from_millis(300)).await;
        cx.inflict(&Fault::RestartBrokers)
    };
    let (restarted, committed) = join(restart, commit(&cx, &*producer)).await;
    restarted?;
    committed?;
    producer.begin()?;
    cx.send_to(&*producer, &places[0], 1).await?;
    commit(&cx, &*producer).await?;
    shows(&cx, &places[0], 2).await?;
    shows(&cx, &places[1], 1).await
}

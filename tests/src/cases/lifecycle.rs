//! Lifecycle: closing, dropping, starting again, restarts of brokers and processes, and what else a
//! bus gives: time, ids, tasks.

use std::collections::BTreeSet;
use std::time::Duration;

use bus_core::{
    ConsumerConfig, ErrorKind, ProducerConfig, ProducerExt, RebalanceKind, StartAt, Subscription,
    TopicPartition,
};
use futures_util::future::join;

use crate::cx::{Cx, STEP, quick_producer};
use crate::failure::Verdict;
use crate::fixture::Fault;
use crate::script::{Report, Role};
use crate::{ensure, ensure_eq};

/// Work that was handed out and not committed when a member stops is delivered again.
pub async fn stopping_redelivers_what_was_not_committed(cx: Cx) -> Verdict {
    let topic = cx.topic(1).await?;
    let place = TopicPartition::new(&topic, 0);
    let group = cx.name("group");
    cx.publish(&topic, 5).await?;
    let first = cx.member(&group, &topic)?;
    cx.drive(&[&first], "the records are read", || first.count() == 5).await?;
    // The handler of the third record was under way.
    first.commit(&[(place.clone(), 2.into())]).await?;
    first.close().await?;
    let second = cx.member(&group, &topic)?;
    cx.drive(&[&second], "the rest is read again", || second.count() == 3).await?;
    ensure_eq!(second.offsets(&place), [2, 3, 4], "what was not committed");
    Ok(())
}

/// A group that was stopped as a whole goes on where it was.
pub async fn stopped_group_starts_again(cx: Cx) -> Verdict {
    let topic = cx.topic(2).await?;
    let group = cx.name("group");
    let mut total = 0;
    for round in 0..3 {
        let member = cx.member(&group, &topic)?;
        cx.publish(&topic, 4).await?;
        cx.drive(&[&member], "the new records are read", || member.count() >= 4).await?;
        ensure_eq!(member.count(), 4, "round {round} reads the new records only");
        total += member.count();
        member.commit_positions().await?;
        member.close().await?;
    }
    ensure_eq!(total, 12, "all records are read");
    Ok(())
}

/// Closing twice does nothing the second time, for producers and for consumers.
pub async fn second_close_does_nothing(cx: Cx) -> Verdict {
    let topic = cx.topic(1).await?;
    let producer = cx.producer()?;
    producer.send(cx.record(&TopicPartition::new(&topic, 0))).await?;
    let member = cx.member(&cx.name("group"), &topic)?;
    cx.drive(&[&member], "the record is read", || member.count() == 1).await?;
    for _ in 0..2 {
        producer.close(Duration::from_secs(20)).await?;
        member.close().await?;
    }
    Ok(())
}

/// Closing a consumer ends a poll that waits.
pub async fn close_ends_a_waiting_poll(cx: Cx) -> Verdict {
    let topic = cx.topic(1).await?;
    let reader = cx.assigned(&[(TopicPartition::new(&topic, 0), StartAt::Beginning)])?;
    reader.step(STEP).await?;
    let begin = cx.bus().elapsed();
    let close = async {
        // The poll comes first, and waits while the topic is looked up.
        cx.admin().describe_topic(topic.clone()).await?;
        reader.close().await
    };
    let (polled, closed) = join(reader.step(Duration::from_secs(25)), close).await;
    closed?;
    let took = cx.bus().elapsed() - begin;
    ensure!(took < Duration::from_secs(10), "the poll waited for {took:?}");
    if let Err(error) = polled {
        ensure_eq!(error.kind(), ErrorKind::Closed, "{error}");
    }
    Ok(())
}

/// Clients that were dropped without close leave nothing behind that hinders their successors.
pub async fn dropped_clients_can_be_replaced(cx: Cx) -> Verdict {
    let topic = cx.topic(1).await?;
    let place = TopicPartition::new(&topic, 0);
    let group = cx.name("group");
    for round in 1..=3 {
        let producer = cx.producer()?;
        producer.send(cx.record(&place)).await?;
        let member = cx.member(&group, &topic)?;
        cx.drive(&[&member], "all records are read", || member.count() == round).await?;
    }
    Ok(())
}

/// A process that crashes while it publishes loses nothing that was acknowledged to it.
pub async fn crashed_publisher_loses_nothing_acknowledged(cx: Cx) -> Verdict {
    let topic = cx.topic(1).await?;
    let place = TopicPartition::new(&topic, 0);
    let process = cx.process(&topic, Role::Publisher { records: 100_000 }).await?;
    process.until(&cx, "it has published some", || process.published().len() >= 20).await?;
    process.crash(&cx)?;
    process.listen().await?;
    let published = process.published();
    let read = cx.read(&place, published.len()).await?;
    for (value, metadata) in published {
        let found = read.iter().find(|record| Some(record.offset) == metadata.offset);
        let found = found.and_then(|record| record.value.as_deref());
        ensure_eq!(found, Some(value.as_bytes()), "what was acknowledged at {metadata:?}");
    }
    Ok(())
}

/// A process that crashes and is started again goes on at its last commit.
pub async fn restarted_process_resumes(cx: Cx) -> Verdict {
    let topic = cx.topic(1).await?;
    let group = cx.name("group");
    let mut config = cx.member_config(&group);
    (config.session_timeout, config.max_poll_interval) =
        (Duration::from_secs(2), Duration::from_secs(5));
    cx.publish(&topic, 4).await?;
    let process = cx.process(&topic, Role::member(&config, usize::MAX)).await?;
    let committed = || process.count(|report| matches!(report, Report::Committed(..)));
    process.until(&cx, "it has committed all", || committed() == 4).await?;
    process.crash(&cx)?;
    process.restart(&cx)?;
    cx.publish(&topic, 2).await?;
    process.until(&cx, "it has committed the new ones", || committed() == 6).await?;
    ensure_eq!(process.delivered(), 6, "each record was delivered once");
    process.crash(&cx)?;
    process.note_commits(&cx, &group);
    Ok(())
}

/// Brokers that crash and restart while records are sent lose nothing that was acknowledged, and
/// the producer goes on by itself.
pub async fn broker_restart_loses_nothing_acknowledged(cx: Cx) -> Verdict {
    let topic = cx.topic(2).await?;
    let producer = cx.producer()?;
    let places = [0, 1].map(|partition| TopicPartition::new(&topic, partition));
    for part in 0..3 {
        let records: Vec<_> = (0..30).map(|n| cx.record(&places[n % 2])).collect();
        let sending = producer.send_all(records);
        let restart = async {
            if part > 0 {
                cx.inflict(&Fault::CrashBrokers)?;
                tokio::time::sleep(Duration::from_millis(700)).await;
                cx.inflict(&Fault::RestartBrokers)?;
            }
            Verdict::Ok(())
        };
        let (sent, restarted) = join(sending, restart).await;
        restarted?;
        for outcome in sent {
            outcome?;
        }
    }
    ensure_eq!(cx.read(&places[0], 45).await?.len(), 45, "half of the records");
    Ok(())
}

/// A group goes on by itself after its brokers have restarted, from what it had committed.
pub async fn group_survives_a_broker_restart(cx: Cx) -> Verdict {
    let topic = cx.topic(2).await?;
    let group = cx.name("group");
    // It is not polled while the brokers start, and their replicas take a while to be in sync.
    let config = ConsumerConfig {
        max_poll_interval: Duration::from_mins(5),
        session_timeout: Duration::from_secs(45),
        ..cx.member_config(&group)
    };
    let member = cx.subscribed(config, Subscription::topics([&topic]))?;
    cx.publish(&topic, 6).await?;
    cx.drive(&[&member], "the records are read", || member.count() == 6).await?;
    member.commit_positions().await?;
    cx.inflict(&Fault::CrashBrokers)?;
    cx.drive_for(&[&member], Duration::from_secs(1)).await?;
    cx.inflict(&Fault::RestartBrokers)?;
    cx.publish(&topic, 6).await?;
    cx.drive(&[&member], "the new records are read", || member.count() >= 12).await?;
    ensure_eq!(member.count(), 12, "nothing that was committed comes again");
    cx.until("commits work again", async || {
        member.step(STEP).await?;
        Ok(member.commit_positions().await.ok())
    })
    .await
}

/// Clients that start while no broker answers wait, and work when the brokers are there.
pub async fn clients_wait_for_their_brokers(cx: Cx) -> Verdict {
    let topic = cx.topic(1).await?;
    let group = cx.name("group");
    cx.inflict(&Fault::CrashBrokers)?;
    let producer = cx.producer()?;
    let delivery = producer.send(cx.record(&TopicPartition::new(&topic, 0)));
    let member = cx.member(&group, &topic)?;
    cx.drive_for(&[&member], Duration::from_secs(2)).await?;
    cx.inflict(&Fault::RestartBrokers)?;
    delivery.await?;
    cx.drive(&[&member], "the record is read", || member.count() == 1).await
}

/// A member and a producer that wait idle for a while keep their membership and their sequence.
pub async fn idle_clients_stay_alive(cx: Cx) -> Verdict {
    let topic = cx.topic(1).await?;
    let place = TopicPartition::new(&topic, 0);
    let producer = cx.bus().producer(ProducerConfig { ..quick_producer() })?;
    let member = cx.member(&cx.name("group"), &topic)?;
    producer.send(cx.record(&place)).await?;
    cx.drive(&[&member], "the record is read", || member.count() == 1).await?;
    cx.drive_for(&[&member], Duration::from_secs(3)).await?;
    producer.send(cx.record(&place)).await?;
    cx.drive(&[&member], "the next record is read", || member.count() == 2).await?;
    ensure_eq!(member.rebalanced(RebalanceKind::Assigned), 1, "it was a member all the time");
    Ok(())
}

/// The bus gives time that goes on and does not go back, and ids that are new and in order.
pub async fn time_and_ids(cx: Cx) -> Verdict {
    let (elapsed, now) = (cx.bus().elapsed(), cx.bus().now());
    cx.topic(1).await?;
    ensure!(cx.bus().elapsed() > elapsed, "time passes while an operation runs");
    ensure!(cx.bus().now() >= now, "the time of day goes on");
    let ids: Vec<_> = (0..1_000).map(|_| cx.bus().new_id()).collect();
    ensure_eq!(ids.iter().collect::<BTreeSet<_>>().len(), 1_000, "ids are new");
    ensure!(ids.iter().all(|id| id.get_version_num() == 7), "ids are of version 7");
    Ok(())
}

/// A task runs beside its caller and hands back its output.
pub async fn tasks_hand_back_their_output(cx: Cx) -> Verdict {
    let place = TopicPartition::new(cx.topic(1).await?, 0);
    let tasks: Vec<_> = (0..3)
        .map(|n| {
            let (cx, place) = (cx.clone(), place.clone());
            cx.bus().clone().spawn(&format!("task {n}"), async move {
                cx.publish_to(&place, 1).await.map(|sent| sent[0].offset)
            })
        })
        .collect();
    let mut offsets = BTreeSet::new();
    for task in tasks {
        offsets.insert(task.await??);
    }
    ensure_eq!(offsets, BTreeSet::from([Some(0), Some(1), Some(2)]), "the outputs of the tasks");
    Ok(())
}

//! Errors: calls that are wrong in themselves, or come at the wrong time. Each is refused at once,
//! for certain, and the client stays usable where it can.

use std::time::Duration;

use bus_core::{
    ConsumerConfig, ErrorKind, ProducerExt, StartAt, Subscription, Timestamp, TopicPartition,
};

use crate::cx::{Cx, STEP, quick_consumer};
use crate::failure::{Verdict, refused};
use crate::{ensure, ensure_eq};

/// Every call on a closed producer is refused.
pub async fn closed_producer_refuses_every_call(cx: Cx) -> Verdict {
    let topic = cx.topic(1).await?;
    let place = TopicPartition::new(&topic, 0);
    let producer = cx.producer()?;
    producer.send(cx.record(&place)).await?;
    producer.close(Duration::from_secs(20)).await?;
    refused(producer.send(cx.record(&place)).await, ErrorKind::Closed)?;
    refused(producer.ready().await, ErrorKind::Closed)?;
    refused(producer.flush().await, ErrorKind::Closed)?;
    refused(producer.partitions_for(topic).await, ErrorKind::Closed)?;
    for outcome in producer.send_all([cx.record(&place), cx.record(&place)]).await {
        refused(outcome, ErrorKind::Closed)?;
    }
    ensure_eq!(cx.read(&place, 1).await?.len(), 1, "what was accepted is there");
    Ok(())
}

/// Every call on a closed consumer is refused.
pub async fn closed_consumer_refuses_every_call(cx: Cx) -> Verdict {
    let topic = cx.topic(1).await?;
    let place = TopicPartition::new(&topic, 0);
    let places = std::slice::from_ref(&place);
    cx.publish(&topic, 1).await?;
    let member = cx.member(&cx.name("group"), &topic)?;
    cx.drive(&[&member], "the record is read", || member.count() == 1).await?;
    member.close().await?;
    refused(member.poll(STEP).await, ErrorKind::Closed)?;
    refused(member.subscribe(Subscription::topics([&topic])), ErrorKind::Closed)?;
    refused(member.unsubscribe().await, ErrorKind::Closed)?;
    refused(member.assign(&[(place.clone(), StartAt::Beginning)]), ErrorKind::Closed)?;
    refused(member.seek(&place, StartAt::Beginning).await, ErrorKind::Closed)?;
    refused(member.pause(places), ErrorKind::Closed)?;
    refused(member.resume(places), ErrorKind::Closed)?;
    refused(member.commit(&[(place.clone(), 1.into())]).await, ErrorKind::Closed)?;
    refused(member.store_offsets(&[(place.clone(), 1)]), ErrorKind::Closed)?;
    refused(member.position(&place), ErrorKind::Closed)?;
    refused(member.committed(places).await, ErrorKind::Closed)?;
    refused(member.watermarks(&place).await, ErrorKind::Closed)?;
    let times = [(place.clone(), Timestamp::EPOCH)];
    refused(member.offsets_for_times(&times).await, ErrorKind::Closed)?;
    ensure_eq!(member.assignment(), [], "nothing is assigned");
    Ok(())
}

/// Negative offsets are refused wherever they are handed in, and change nothing.
pub async fn negative_offsets_are_refused(cx: Cx) -> Verdict {
    let topic = cx.topic(1).await?;
    let place = TopicPartition::new(&topic, 0);
    cx.publish(&topic, 3).await?;
    let member = cx.member(&cx.name("group"), &topic)?;
    cx.drive(&[&member], "the records are read", || member.count() == 3).await?;
    let invalid = ErrorKind::InvalidArgument;
    for offset in [-1, -2, i64::MIN] {
        refused(member.seek(&place, StartAt::Offset(offset)).await, invalid)?;
        refused(member.commit(&[(place.clone(), offset.into())]).await, invalid)?;
    }
    ensure_eq!(member.position(&place)?, Some(3), "the position is where it was");
    ensure_eq!(
        member.committed(std::slice::from_ref(&place)).await?,
        [None],
        "nothing was committed"
    );
    let consumer = cx.bus().consumer(quick_consumer(ConsumerConfig::default()))?;
    refused(consumer.assign(&[(place, StartAt::Offset(-7))]), invalid)?;
    cx.publish(&topic, 1).await?;
    cx.drive(&[&member], "it reads on", || member.count() == 4).await
}

/// Seeking, pausing, or asking for the position of a partition that is not assigned is refused.
pub async fn partitions_of_others_are_refused(cx: Cx) -> Verdict {
    let topic = cx.topic(2).await?;
    let (mine, other) = (TopicPartition::new(&topic, 0), TopicPartition::new(&topic, 1));
    let others = std::slice::from_ref(&other);
    let reader = cx.assigned(&[(mine.clone(), StartAt::Beginning)])?;
    let invalid = ErrorKind::InvalidState;
    refused(reader.seek(&other, StartAt::Beginning).await, invalid)?;
    refused(reader.pause(others), invalid)?;
    refused(reader.resume(others), invalid)?;
    refused(reader.position(&other), invalid)?;
    refused(reader.pause(&[mine.clone(), other.clone()]), invalid)?;
    ensure_eq!(reader.paused(), [], "a refused call has paused nothing");
    cx.publish(&topic, 2).await?;
    cx.drive(&[&reader], "its own is read", || reader.count() == 1).await
}

/// A partition that is named twice in an assignment is refused.
pub async fn partition_assigned_twice_is_refused(cx: Cx) -> Verdict {
    let place = TopicPartition::new(cx.topic(1).await?, 0);
    let consumer = cx.bus().consumer(quick_consumer(ConsumerConfig::default()))?;
    let twice = [(place.clone(), StartAt::Beginning), (place, StartAt::End)];
    refused(consumer.assign(&twice), ErrorKind::InvalidArgument)?;
    ensure_eq!(consumer.assignment(), [], "nothing is assigned");
    Ok(())
}

/// Without a group there is no subscription and no commit.
pub async fn group_operations_need_a_group(cx: Cx) -> Verdict {
    let place = TopicPartition::new(cx.topic(1).await?, 0);
    let reader = cx.assigned(&[(place.clone(), StartAt::Beginning)])?;
    let topics = Subscription::topics([&place.topic]);
    refused(reader.subscribe(topics), ErrorKind::InvalidConfig)?;
    let outcome = reader.commit(&[(place.clone(), 1.into())]).await;
    refused(outcome, ErrorKind::InvalidConfig)?;
    ensure!(reader.group_metadata().is_none(), "there is no group");
    ensure_eq!(reader.assignment(), [place], "the assignment is as it was");
    Ok(())
}

/// A subscription to nothing, to an impossible name, or by a malformed pattern is refused.
pub async fn impossible_subscriptions_are_refused(cx: Cx) -> Verdict {
    let topic = cx.topic(1).await?;
    let member = cx.member(&cx.name("group"), &topic)?;
    for (subscription, kind) in [
        (Subscription::default(), ErrorKind::InvalidArgument),
        (Subscription::topics(["not a name"]), ErrorKind::InvalidTopic),
        (Subscription::pattern("orders-.*"), ErrorKind::InvalidArgument),
        (Subscription::pattern("^orders-(.*"), ErrorKind::InvalidArgument),
    ] {
        refused(member.subscribe(subscription), kind)?;
    }
    cx.publish(&topic, 1).await?;
    cx.drive(&[&member], "the first subscription stands", || member.count() == 1).await
}

/// Offsets are stored by hand only where they are not stored by delivery.
pub async fn storing_offsets_needs_to_be_configured(cx: Cx) -> Verdict {
    let topic = cx.topic(1).await?;
    let place = TopicPartition::new(&topic, 0);
    cx.publish(&topic, 1).await?;
    let member = cx.member(&cx.name("group"), &topic)?;
    cx.drive(&[&member], "the record is read", || member.count() == 1).await?;
    refused(member.store_offsets(&[(place, 1)]), ErrorKind::InvalidState)?;
    Ok(())
}

/// A send to a topic with an impossible name is refused.
pub async fn send_to_an_impossible_name_is_refused(cx: Cx) -> Verdict {
    let producer = cx.producer()?;
    for name in ["", "..", "not a name", "주문"] {
        let record = bus_core::ProducerRecord::to(name).value("v");
        let error = refused(producer.send(record).await, ErrorKind::InvalidTopic)?;
        ensure!(!error.is_indeterminate(), "it is certain that nothing was sent: {error}");
    }
    Ok(())
}

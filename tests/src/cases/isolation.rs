//! Isolation: names that look alike, and clients that share a process.

use std::collections::BTreeSet;

use bus_core::{ConsumerConfig, NewTopic, ProducerRecord, Record, Subscription, TopicPartition};
use futures_util::future::try_join_all;

use crate::cx::{Cx, STEP};
use crate::ensure_eq;
use crate::failure::Verdict;

/// Topics whose names differ in case only, or of which one begins with the other, are different.
pub async fn topic_names_that_look_alike(cx: Cx) -> Verdict {
    let name = cx.name("orders");
    let names = [name.clone(), name.replace("orders", "Orders"), format!("{name}-1"), name + "1"];
    let mut readers = Vec::new();
    for name in names {
        let topic = cx.create(NewTopic::new(name)).await?;
        cx.publish(&topic, 2).await?;
        readers.push(cx.member(&cx.name("group"), &topic)?);
    }
    let driven: Vec<_> = readers.iter().collect();
    cx.drive(&driven, "each is read", || driven.iter().all(|r| r.count() == 2)).await?;
    for reader in &readers {
        ensure_eq!(reader.seen().len(), 1, "a reader is given its own topic");
    }
    Ok(())
}

/// Equal keys and values in many topics stay where they were sent.
pub async fn equal_records_in_many_topics(cx: Cx) -> Verdict {
    let topics = try_join_all((0..5).map(|_| cx.topic(2))).await?;
    for topic in &topics {
        let record = |n: usize| ProducerRecord::to(topic).key(format!("key {n}")).value("the same");
        cx.publish_records((0..4).map(record)).await?;
    }
    let group = cx.name("group");
    let member = cx.subscribed(cx.member_config(&group), Subscription::topics(&topics))?;
    cx.drive(&[&member], "all records are read", || member.count() == 20).await?;
    for topic in &topics {
        let records = member.records();
        let keys: BTreeSet<_> =
            records.iter().filter(|r| r.topic == *topic).map(|r| r.key.clone()).collect();
        ensure_eq!(keys.len(), 4, "each key is there once");
    }
    Ok(())
}

/// Groups whose names begin alike, or differ in case only, have members and offsets of their own.
pub async fn group_names_that_look_alike(cx: Cx) -> Verdict {
    let topic = cx.topic(1).await?;
    let place = TopicPartition::new(&topic, 0);
    cx.publish(&topic, 5).await?;
    let name = cx.name("billing");
    let names = [name.clone(), name.replace("billing", "Billing"), format!("{name}.1"), name + "1"];
    let members = names.each_ref().map(|name| cx.member(name, &topic));
    let members = members.into_iter().collect::<bus_core::Result<Vec<_>>>()?;
    let driven: Vec<_> = members.iter().collect();
    cx.drive(&driven, "each reads all", || driven.iter().all(|m| m.count() == 5)).await?;
    for (offset, member) in (1..).zip(&members) {
        member.commit(&[(place.clone(), offset.into())]).await?;
    }
    for (offset, member) in (1..).zip(&members) {
        let committed = member.committed(std::slice::from_ref(&place)).await?;
        ensure_eq!(committed, [Some(bus_core::OffsetAndMetadata::from(offset))], "its own offset");
    }
    Ok(())
}

/// Two buses in one process reach the same cluster, and closing clients of one leaves the other.
pub async fn two_buses_in_one_process(cx: Cx) -> Verdict {
    let topic = cx.topic(1).await?;
    let place = TopicPartition::new(&topic, 0);
    let other = cx.another_bus().await?;
    let (mine, theirs) = (cx.producer()?, other.producer(crate::cx::quick_producer())?);
    mine.send(cx.record(&place)).await?;
    theirs.send(cx.record(&place)).await?;
    theirs.close(STEP * 100).await?;
    drop((theirs, other));
    mine.send(cx.record(&place)).await?;
    ensure_eq!(cx.read(&place, 3).await?.len(), 3, "all records are there");
    Ok(())
}

/// Members that have the same client id are different members.
pub async fn members_of_one_client_id(cx: Cx) -> Verdict {
    let topic = cx.topic(2).await?;
    let group = cx.name("group");
    let config =
        ConsumerConfig { client_id: Some("the same".to_owned()), ..cx.member_config(&group) };
    let member = || cx.subscribed(config.clone(), Subscription::topics([&topic]));
    let members = [member()?, member()?];
    let members = [&members[0], &members[1]];
    cx.drive(&members, "both have a partition", || {
        members.iter().all(|member| member.assignment().len() == 1)
    })
    .await?;
    cx.publish(&topic, 4).await?;
    cx.drive(&members, "both read", || members.iter().all(|member| member.count() == 2)).await
}

/// Many clients at once do not disturb each other.
pub async fn many_clients_at_once(cx: Cx) -> Verdict {
    let topic = cx.topic(3).await?;
    let readers = (0..8)
        .map(|n| cx.member(&cx.name(&format!("group-{n}")), &topic))
        .collect::<bus_core::Result<Vec<_>>>()?;
    let producers = (0..8).map(|_| cx.producer()).collect::<bus_core::Result<Vec<_>>>()?;
    let places = [0, 1, 2].map(|partition| TopicPartition::new(&topic, partition));
    for place in &places {
        try_join_all(producers.iter().map(|producer| producer.send(cx.record(place)))).await?;
    }
    let driven: Vec<_> = readers.iter().collect();
    cx.drive(&driven, "each reads all", || driven.iter().all(|r| r.count() == 24)).await?;
    let values: BTreeSet<Vec<String>> = readers
        .iter()
        .map(|reader| {
            let mut values: Vec<_> = reader.records().iter().map(value).collect();
            values.sort();
            values
        })
        .collect();
    ensure_eq!(values.len(), 1, "all have read the same");
    readers[0].commit_positions().await?;
    Ok(())
}

fn value(record: &Record) -> String {
    String::from_utf8_lossy(record.value.as_deref().unwrap_or_default()).into_owned()
}

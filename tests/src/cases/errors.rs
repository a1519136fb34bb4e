//! Errors: bad input from outside. Each is an error of the right kind, in time, and nothing that
//! was accepted is lost.

use std::time::Duration;

use bus_core::{
    Assignor, BusUrl, ConsumerConfig, Envelope, Error, ErrorKind, Event, Json, NewTopic,
    ProducerConfig, ProducerExt, ProducerRecord, Result, StartAt, Subscription, Timestamp, Topic,
    TopicPartition,
};
use serde::{Deserialize, Serialize};

use crate::cx::{Cx, STEP, quick_producer};
use crate::failure::{Failure, Verdict, refused};
use crate::fixture::Fault;
use crate::{ensure, ensure_eq};

/// The least that a bound on time is checked for: scheduling, and a busy machine.
const BOUND: Duration = Duration::from_secs(15);

/// Opens a bus by URL, as an application does that an operator has started.
fn open(url: &str) -> Result<()> {
    let url = url.to_owned();
    // `bus::run` owns its runtime, so it needs a thread without one.
    let opened = std::thread::spawn(move || bus::run(&url, |_| std::future::ready(())).map(drop));
    opened.join().unwrap_or_else(|_| Err(Error::from(ErrorKind::Backend)))
}

/// A URL with an unknown scheme is refused.
pub async fn unknown_scheme_is_refused(_: Cx) -> Verdict {
    for url in ["kafak://127.0.0.1:9092", "http://127.0.0.1:9092", "simulator://?seed=1"] {
        refused(open(url), ErrorKind::InvalidConfig)?;
    }
    Ok(())
}

/// A simulation cannot be connected to, only run, and the error says so.
pub async fn connecting_to_a_simulation_is_refused(_: Cx) -> Verdict {
    let error = refused(bus::connect("sim://?seed=1").await, ErrorKind::InvalidConfig)?;
    ensure!(error.to_string().contains("bus::run"), "the error does not say what to do: {error}");
    Ok(())
}

/// A URL with an option that no client has is refused, and so is one with an impossible value.
pub async fn unknown_option_is_refused(cx: Cx) -> Verdict {
    let url: BusUrl = cx.fixture().url().parse()?;
    for (name, value) in
        [("no.such.option", "1"), ("linger.mss", "1"), ("linger.ms", "soon"), ("acks", "2")]
    {
        let mut url = url.clone();
        url.options.push((name.to_owned(), value.to_owned()));
        let error = refused(open(&url.to_string()), ErrorKind::InvalidConfig)?;
        ensure!(error.to_string().contains(name), "the error does not name {name}: {error}");
    }
    Ok(())
}

/// A URL with a malformed address is refused, and the error names it.
pub async fn malformed_address_is_refused(_: Cx) -> Verdict {
    for (url, part) in [
        ("kafka://localhost:port", "port"),
        ("kafka://localhost:99999", "99999"),
        ("kafka://a:1,,b:2", "address"),
        ("localhost:9092", "scheme"),
    ] {
        let error = refused(open(url), ErrorKind::InvalidConfig)?;
        ensure!(error.to_string().contains(part), "the error does not name {part}: {error}");
    }
    Ok(())
}

/// An unknown property is refused where it is set, with the nearest known one.
pub async fn unknown_property_is_refused(_: Cx) -> Verdict {
    let mut config = ConsumerConfig::default();
    let error = refused(config.set("sesion.timeout.ms", "1"), ErrorKind::InvalidConfig)?;
    ensure!(error.to_string().contains("session.timeout.ms"), "no hint: {error}");
    refused(config.set("session.timeout.ms", "soon"), ErrorKind::InvalidConfig)?;
    refused(ProducerConfig::default().set("group.id", "g"), ErrorKind::InvalidConfig)?;
    Ok(())
}

/// Properties that contradict each other are refused when the client is made.
pub async fn contradicting_properties_are_refused(cx: Cx) -> Verdict {
    let acks = bus_core::Acks::Leader;
    let outcome = cx.bus().producer(ProducerConfig { acks, ..quick_producer() });
    refused(outcome, ErrorKind::InvalidConfig)?;
    let heartbeat_interval = Duration::from_mins(1);
    let config = ConsumerConfig { heartbeat_interval, ..ConsumerConfig::in_group("group") };
    refused(cx.bus().consumer(config), ErrorKind::InvalidConfig)?;
    let assignors = vec![Assignor::Range, Assignor::CooperativeSticky];
    let config = ConsumerConfig { assignors, ..ConsumerConfig::in_group("group") };
    refused(cx.bus().consumer(config), ErrorKind::InvalidConfig)?;
    Ok(())
}

/// A broker that cannot be reached is an error within the time that was configured.
pub async fn unreachable_broker_is_an_error_in_time(cx: Cx) -> Verdict {
    let begin = cx.bus().elapsed();
    let outcome = match cx.fixture().unreachable(Duration::from_secs(2)).await {
        Ok(bus) => bus.admin()?.describe_cluster().await.map(drop),
        Err(error) => Err(error),
    };
    let took = cx.bus().elapsed() - begin;
    cx.inflict(&Fault::Heal)?;
    let Err(error) = outcome else {
        return Err(Failure::assertion("a broker has answered"));
    };
    let expected = [ErrorKind::AllBrokersDown, ErrorKind::TimedOut, ErrorKind::NetworkException];
    ensure!(expected.contains(&error.kind()), "the error is {error}");
    ensure!(took <= BOUND * 5, "it took {took:?}");
    Ok(())
}

/// A send to a topic that does not exist fails for certain, and records before it arrive.
pub async fn send_to_a_missing_topic_fails(cx: Cx) -> Verdict {
    let place = TopicPartition::new(cx.topic(1).await?, 0);
    let missing = Topic::from(cx.name("missing"));
    let producer = cx.producer()?;
    let outcomes = producer
        .send_all([cx.record(&place), ProducerRecord::to(&missing).value("v"), cx.record(&place)])
        .await;
    let mut outcomes = outcomes.into_iter();
    let begin = cx.bus().elapsed();
    for is_good in [true, false, true] {
        let Some(outcome) = outcomes.next() else { continue };
        if is_good {
            outcome?;
        } else {
            let error = refused(outcome, ErrorKind::UnknownTopicOrPartition)?;
            ensure!(!error.is_indeterminate(), "it is certain that nothing was sent: {error}");
        }
    }
    let took = cx.bus().elapsed() - begin;
    ensure!(took < BOUND, "it took {took:?}");
    let unknown = ErrorKind::UnknownTopicOrPartition;
    refused(producer.partitions_for(missing).await, unknown)?;
    ensure_eq!(cx.read(&place, 2).await?.len(), 2, "the good records are there");
    Ok(())
}

/// A subscription to a topic that does not exist is an error of the poll; when the topic is made,
/// the member reads it, and meanwhile the topics that exist.
pub async fn subscription_to_a_missing_topic_is_told(cx: Cx) -> Verdict {
    let topic = cx.topic(1).await?;
    let missing = Topic::from(cx.name("missing"));
    let group = cx.name("group");
    let config = ConsumerConfig {
        metadata_refresh_interval: Duration::from_millis(300),
        ..cx.member_config(&group)
    };
    let member = cx.subscribed(config, Subscription::topics([&topic, &missing]))?;
    let error = cx.until("the poll fails", async || Ok(member.step(STEP).await.err())).await?;
    ensure_eq!(error.kind(), ErrorKind::UnknownTopicOrPartition, "{error}");
    cx.publish(&topic, 1).await?;
    let step = async || match member.step(STEP).await {
        // It may be told again as long as it lasts.
        Err(error) if error.kind() == ErrorKind::UnknownTopicOrPartition => Ok(()),
        other => other,
    };
    cx.until("the topic that exists is read", async || {
        step().await?;
        Ok((member.count() == 1).then_some(()))
    })
    .await?;
    cx.create(NewTopic::new(&missing)).await?;
    cx.publish(&missing, 1).await?;
    cx.until("the new topic is read", async || {
        step().await?;
        Ok((member.count() == 2).then_some(()))
    })
    .await
}

/// A record that is larger than the producer allows fails at once and for certain.
pub async fn record_too_large_for_the_producer_is_refused(cx: Cx) -> Verdict {
    let place = TopicPartition::new(cx.topic(1).await?, 0);
    let config = ProducerConfig { max_request_size: 10_000, ..quick_producer() };
    let producer = cx.bus().producer(config)?;
    let before = producer.send(cx.record(&place).value(vec![1; 9_000]));
    let outcome = producer.send(cx.record(&place).value(vec![1; 10_001])).await;
    let error = refused(outcome, ErrorKind::MessageTooLarge)?;
    ensure!(!error.is_indeterminate(), "it is certain that nothing was sent: {error}");
    before.await?;
    producer.send(cx.record(&place)).await?;
    ensure_eq!(cx.read(&place, 2).await?.len(), 2, "the good records are there");
    Ok(())
}

/// A record that is larger than the topic allows is refused by the broker, and only that record.
pub async fn record_too_large_for_the_topic_is_refused(cx: Cx) -> Verdict {
    let new = NewTopic::new(cx.name("topic")).config("max.message.bytes", "20000");
    let place = TopicPartition::new(cx.create(new).await?, 0);
    let producer = cx.producer()?;
    for (bytes, is_good) in [(10_000, true), (30_000, false), (10_000, true)] {
        let outcome = producer.send(cx.record(&place).value(vec![1; bytes])).await;
        if is_good {
            outcome?;
        } else {
            let error = refused(outcome, ErrorKind::MessageTooLarge)?;
            ensure!(!error.is_indeterminate(), "it is certain that it was refused: {error}");
        }
    }
    ensure_eq!(cx.read(&place, 2).await?.len(), 2, "the good records are there");
    Ok(())
}

/// A partition that the topic does not have is an error of the send, for certain.
pub async fn send_to_a_missing_partition_fails(cx: Cx) -> Verdict {
    let topic = cx.topic(2).await?;
    let producer = cx.producer()?;
    producer.send(cx.record(&TopicPartition::new(&topic, 1))).await?;
    for partition in [2, 1_000, -1] {
        let outcome = producer.send(cx.record(&TopicPartition::new(&topic, partition))).await;
        let error = refused(outcome, ErrorKind::UnknownTopicOrPartition)?;
        ensure!(!error.is_indeterminate(), "it is certain that nothing was sent: {error}");
    }
    producer.send(cx.record(&TopicPartition::new(&topic, 1))).await?;
    Ok(())
}

/// Asking for the ends or times of a partition that does not exist is an error in time.
pub async fn questions_about_a_missing_partition_fail(cx: Cx) -> Verdict {
    let topic = cx.topic(1).await?;
    let reader = cx.assigned(&[(TopicPartition::new(&topic, 0), StartAt::Beginning)])?;
    let begin = cx.bus().elapsed();
    for place in
        [TopicPartition::new(&topic, 7), TopicPartition::new(cx.name("missing").as_str(), 0)]
    {
        refused(reader.watermarks(&place).await, ErrorKind::UnknownTopicOrPartition)?;
    }
    let took = cx.bus().elapsed() - begin;
    ensure!(took < BOUND * 2, "it took {took:?}");
    Ok(())
}

/// So it is for a member that has subscribed to a pattern.
pub async fn questions_about_a_missing_topic_fail_beside_a_pattern(cx: Cx) -> Verdict {
    let topic = cx.topic(1).await?;
    let config = cx.member_config(&cx.name("group"));
    let member = cx.subscribed(config, Subscription::pattern(format!("^{topic}$")))?;
    cx.drive(&[&member], "it has the partition", || member.assignment().len() == 1).await?;
    let missing = TopicPartition::new(cx.name("missing").as_str(), 0);
    let begin = cx.bus().elapsed();
    refused(member.watermarks(&missing).await, ErrorKind::UnknownTopicOrPartition)?;
    let times = [(missing, Timestamp::EPOCH)];
    refused(member.offsets_for_times(&times).await, ErrorKind::UnknownTopicOrPartition)?;
    let took = cx.bus().elapsed() - begin;
    ensure!(took < BOUND * 2, "it took {took:?}");
    Ok(())
}

/// A consumer that is assigned a partition that does not exist is told, and reads the others.
pub async fn assignment_of_a_missing_partition_is_told(cx: Cx) -> Verdict {
    let topic = cx.topic(1).await?;
    cx.publish(&topic, 2).await?;
    let reader = cx.assigned(&[
        (TopicPartition::new(&topic, 0), StartAt::Beginning),
        (TopicPartition::new(&topic, 7), StartAt::Beginning),
    ])?;
    let mut errors = Vec::new();
    cx.until("it is told, and reads", async || {
        errors.extend(reader.step(STEP).await.err());
        Ok((reader.count() == 2 && !errors.is_empty()).then_some(()))
    })
    .await?;
    for error in errors {
        ensure_eq!(error.kind(), ErrorKind::UnknownTopicOrPartition, "{error}");
    }
    Ok(())
}

/// A session time-out that the brokers do not allow is an error of the poll.
pub async fn session_timeout_out_of_range_is_told(cx: Cx) -> Verdict {
    let topic = cx.topic(1).await?;
    let group = cx.name("group");
    let config = ConsumerConfig {
        // `group.max.session.timeout.ms` is half an hour.
        session_timeout: Duration::from_secs(3_599),
        max_poll_interval: Duration::from_secs(3_599),
        ..cx.member_config(&group)
    };
    let member = cx.subscribed(config, Subscription::topics([&topic]))?;
    let error = cx.until("the poll fails", async || Ok(member.step(STEP).await.err())).await?;
    ensure_eq!(error.kind(), ErrorKind::InvalidSessionTimeout, "{error}");
    Ok(())
}

/// A member whose assignors the group does not share is refused, and the group goes on.
pub async fn member_without_a_common_assignor_is_told(cx: Cx) -> Verdict {
    let topic = cx.topic(2).await?;
    let group = cx.name("group");
    let with = |assignor| {
        let config = ConsumerConfig { assignors: vec![assignor], ..cx.member_config(&group) };
        cx.subscribed(config, Subscription::topics([&topic]))
    };
    let member = with(Assignor::Range)?;
    cx.drive(&[&member], "it has the partitions", || member.assignment().len() == 2).await?;
    let stranger = with(Assignor::RoundRobin)?;
    let error = cx
        .until("the stranger is told", async || {
            member.step(STEP).await?;
            Ok(stranger.step(STEP).await.err())
        })
        .await?;
    ensure_eq!(error.kind(), ErrorKind::InconsistentGroupProtocol, "{error}");
    cx.publish(&topic, 2).await?;
    cx.drive(&[&member], "the group goes on", || member.count() == 2).await
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct OrderPlaced {
    order_id: u64,
}

impl Event for OrderPlaced {
    const TYPE: &'static str = "order.placed.v1";
}

/// A payload that cannot be decoded is an error that names where it is; the records behind it
/// are read as ever.
pub async fn undecodable_payload_is_told(cx: Cx) -> Verdict {
    let place = TopicPartition::new(cx.topic(1).await?, 0);
    let event = |order_id| Envelope::new(cx.bus(), "/orders", OrderPlaced { order_id });
    let mut records = Vec::new();
    for order_id in 0..3 {
        records.push(event(order_id).to_record::<Json>(&place.topic)?.partition(0));
    }
    records[1].value = Some("{\"order_id\": tru".into());
    cx.publish_records(records).await?;
    let group = cx.name("group");
    let member = cx.member(&group, &place.topic)?;
    cx.drive(&[&member], "all records are read", || member.count() == 3).await?;
    let records = member.records();
    let mut decoded = records.iter().map(|record| {
        Envelope::<OrderPlaced>::from_record::<Json>(record).map(|event| event.data.order_id)
    });
    ensure_eq!(decoded.next().transpose()?, Some(0), "the first event");
    let error = match decoded.next() {
        Some(outcome) => refused(outcome, ErrorKind::Serialization)?,
        None => return Err(Failure::assertion("there is no second event")),
    };
    ensure_eq!(error.topic_partition(), Some(&place), "where it is");
    ensure_eq!(decoded.next().transpose()?, Some(2), "the event behind it");
    Ok(())
}

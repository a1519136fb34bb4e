//! Stories of a simulated cluster: what an application sees when something goes wrong.

use std::sync::Arc;
use std::time::Duration;

use bus_core::{
    Bus, ConsumerConfig, ConsumerExt, ErrorKind, Polled, ProducerConfig, ProducerRecord, Record,
    Result, StartAt, Subscription, TopicPartition,
};
use bus_sim::{Api, Sim, SimConfig};

use crate::common::{Ledger, bad_day, create_topic, output, produce, quick_member, settled, story};

async fn read(bus: &Bus, topic: &str, count: usize) -> Result<Vec<Record>> {
    let consumer = bus.consumer(ConsumerConfig::default())?;
    consumer.assign(&[(TopicPartition::new(topic, 0), StartAt::Beginning)])?;
    let mut records = Vec::new();
    while records.len() < count {
        records.extend(consumer.poll_records(Duration::from_secs(1)).await?);
    }
    Ok(records)
}

#[test]
fn a_lost_response_is_no_duplicate_with_idempotence() {
    let outcome = story(2, |sim| async move {
        let bus = sim.bus();
        create_topic(&bus, "orders", 1).await?;
        let producer = bus.producer(ProducerConfig::default())?;
        sim.lose_next_response(Api::Produce);
        let metadata = producer.send(ProducerRecord::to("orders").value("1")).await?;
        assert_eq!(metadata.offset, Some(0));
        let metadata = producer.send(ProducerRecord::to("orders").value("2")).await?;
        assert_eq!(metadata.offset, Some(1));
        Result::<()>::Ok(())
    });
    let trace = outcome.report.trace.join("\n");
    output(outcome);
    assert!(trace.contains("duplicate of orders-0@0"), "{trace}");
}

#[test]
fn a_lost_response_is_a_duplicate_without_idempotence() {
    let outcome = story(2, |sim| async move {
        let bus = sim.bus();
        create_topic(&bus, "orders", 1).await?;
        let config = ProducerConfig { enable_idempotence: false, ..Default::default() };
        let producer = bus.producer(config)?;
        sim.lose_next_response(Api::Produce);
        producer.send(ProducerRecord::to("orders").value("1")).await?;
        read(&bus, "orders", 2).await
    });
    let records = output(outcome);
    assert_eq!(records[0].value, records[1].value);
}

#[test]
fn a_lost_request_is_sent_again_and_appended_once() {
    let outcome = story(3, |sim| async move {
        let bus = sim.bus();
        create_topic(&bus, "orders", 1).await?;
        let config = ProducerConfig { enable_idempotence: false, ..Default::default() };
        let producer = bus.producer(config)?;
        sim.lose_next_request(Api::Produce);
        let first = producer.send(ProducerRecord::to("orders").value("1")).await?;
        let second = producer.send(ProducerRecord::to("orders").value("2")).await?;
        Ok((first.offset, second.offset))
    });
    assert_eq!(output(outcome), (Some(0), Some(1)));
}

#[test]
fn an_answer_that_says_nothing_of_a_topic_does_not_mean_that_it_is_missing() {
    output(story(2, |sim| async move {
        let bus = sim.bus();
        create_topic(&bus, "orders", 1).await?;
        create_topic(&bus, "others", 1).await?;
        let producer = bus.producer(ProducerConfig::default())?;
        // Longer than a topic may be unknown.
        sim.delay_next_response(Api::Metadata, Duration::from_secs(10));
        let first = producer.send(ProducerRecord::to("orders").value("1"));
        let second = producer.send(ProducerRecord::to("others").value("2"));
        first.await?;
        second.await?;
        Result::<()>::Ok(())
    }));
}

#[test]
fn a_delayed_request_arrives_after_the_application_gave_up() {
    let outcome = story(4, |sim| async move {
        let bus = sim.bus();
        create_topic(&bus, "orders", 1).await?;
        let config =
            ProducerConfig { delivery_timeout: Duration::from_secs(2), ..Default::default() };
        let producer = bus.producer(config)?;
        sim.delay_next_request(Api::Produce, Duration::from_secs(30));
        let error = producer.send(ProducerRecord::to("orders").value("1")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::MessageTimedOut);
        assert!(error.is_indeterminate(), "the broker may have it: {error:?}");
        // Under a new producer id the next record does not wait for it.
        let second = producer.send(ProducerRecord::to("orders").value("2")).await?;
        assert_eq!(second.offset, Some(0));
        tokio::time::sleep(Duration::from_secs(60)).await;
        read(&bus, "orders", 2).await
    });
    let values =
        output(outcome).into_iter().map(|record| record.value.unwrap()).collect::<Vec<_>>();
    assert_eq!(values, ["2", "1"], "the record that failed is in the log after all");
}

#[test]
fn what_a_link_holds_back_arrives_when_it_heals() {
    let outcome = story(5, |sim| async move {
        let bus = sim.bus();
        create_topic(&bus, "orders", 1).await?;
        let producer = bus.producer(ProducerConfig::default())?;
        producer.send(ProducerRecord::to("orders").value("1")).await?;
        sim.partition_link("main", 1)?;
        let delivery = producer.send(ProducerRecord::to("orders").value("2"));
        let cut_at = bus.elapsed();
        tokio::time::sleep(Duration::from_secs(20)).await;
        sim.heal();
        let metadata = delivery.await?;
        Ok((metadata.offset, bus.elapsed() - cut_at))
    });
    let (offset, waited) = output(outcome);
    assert_eq!(offset, Some(1));
    assert!(waited >= Duration::from_secs(20), "{waited:?}");
}

#[test]
fn a_crashed_member_is_replaced_when_its_session_expires() {
    let outcome = story(6, |sim| async move {
        let bus = sim.bus();
        let ledger = Ledger::default();
        create_topic(&bus, "orders", 3).await?;
        crate::common::start_members(&bus, "orders", &ledger);
        produce(&bus, "orders", 30).await?;
        settled(&ledger, 30).await;
        sim.crash("member-1")?;
        sim.crash("member-2")?;
        let producer = bus.producer(ProducerConfig::default())?;
        for n in 30..60 {
            let record = ProducerRecord::to("orders").partition(n % 3).value(n.to_string());
            producer.send(record).await?;
        }
        settled(&ledger, 60).await;
        let group = bus.admin()?.describe_group("g").await?;
        assert_eq!(group.members.len(), 1, "{group:?}");
        Result::<()>::Ok(())
    });
    let trace = outcome.report.trace.join("\n");
    output(outcome);
    assert!(trace.contains("session expired"), "{trace}");
}

#[test]
fn a_paused_member_wakes_up_as_a_zombie_and_is_fenced() {
    let outcome = story(7, |sim| async move {
        let bus = sim.bus();
        create_topic(&bus, "orders", 1).await?;
        produce(&bus, "orders", 1).await?;
        let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel();
        let sender = Arc::new(sender);
        bus.process("zombie", move |bus| {
            let sender = Arc::clone(&sender);
            async move {
                let consumer = bus.consumer(quick_member("g")).expect("a consumer");
                consumer.subscribe(Subscription::topics(["orders"])).expect("subscribed");
                loop {
                    let records = consumer.poll_records(Duration::from_secs(1)).await;
                    for record in records.unwrap_or_default() {
                        sender.send("polled").expect("somebody listens");
                        tokio::time::sleep(Duration::from_secs(1)).await;
                        let outcome = consumer.commit_record(&record).await;
                        let kind = outcome.expect_err("it is fenced").kind();
                        assert!(
                            [ErrorKind::UnknownMemberId, ErrorKind::IllegalGeneration]
                                .contains(&kind),
                            "{kind}"
                        );
                        sender.send("fenced").expect("somebody listens");
                    }
                }
            }
        });
        assert_eq!(receiver.recv().await, Some("polled"));
        sim.pause("zombie")?;
        // Another member takes over meanwhile.
        let other = bus.consumer(quick_member("g"))?;
        other.subscribe(Subscription::topics(["orders"]))?;
        while other.poll_records(Duration::from_secs(1)).await?.is_empty() {}
        other.commit_positions().await?;
        sim.resume("zombie")?;
        assert_eq!(receiver.recv().await, Some("fenced"));
        Result::<()>::Ok(())
    });
    output(outcome);
}

#[test]
fn a_stalled_member_sends_heartbeats_until_its_time_between_polls_is_over() {
    let outcome = story(7, |sim| async move {
        let bus = sim.bus();
        create_topic(&bus, "orders", 1).await?;
        let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel();
        let sender = Arc::new(sender);
        bus.process("stuck", move |bus| {
            let sender = Arc::clone(&sender);
            async move {
                let max_poll_interval = Duration::from_secs(30);
                let config = ConsumerConfig { max_poll_interval, ..quick_member("g") };
                let consumer = bus.consumer(config).expect("a consumer");
                consumer.subscribe(Subscription::topics(["orders"])).expect("subscribed");
                loop {
                    let polled = consumer.poll_records(Duration::from_secs(1)).await;
                    let polled = polled.map(|_| ()).map_err(|error| error.kind());
                    sender.send(polled).expect("somebody listens");
                }
            }
        });
        assert_eq!(receiver.recv().await, Some(Ok(())));
        let admin = bus.admin()?;
        sim.stall("stuck")?;
        tokio::time::sleep(Duration::from_secs(25)).await;
        assert_eq!(admin.describe_group("g").await?.members.len(), 1, "its heartbeats go on");
        tokio::time::sleep(Duration::from_secs(10)).await;
        assert_eq!(admin.describe_group("g").await?.members.len(), 0, "it has left by itself");
        while receiver.try_recv().is_ok() {}
        sim.resume("stuck")?;
        while receiver.recv().await != Some(Err(ErrorKind::MaxPollExceeded)) {}
        while admin.describe_group("g").await?.members.is_empty() {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        Result::<()>::Ok(())
    });
    let trace = outcome.report.trace.join("\n");
    output(outcome);
    assert!(!trace.contains("session expired"), "{trace}");
}

#[test]
fn calls_of_a_crashed_process_never_complete() {
    let outcome = story(8, |sim| async move {
        let bus = sim.bus();
        create_topic(&bus, "orders", 1).await?;
        let escaped = Arc::new(std::sync::Mutex::new(None));
        let slot = Arc::clone(&escaped);
        bus.process("doomed", move |bus| {
            let slot = Arc::clone(&slot);
            async move {
                let producer = bus.producer(ProducerConfig::default()).expect("a producer");
                *slot.lock().expect("no panic holds it") = Some(producer);
                std::future::pending::<()>().await;
            }
        });
        tokio::time::sleep(Duration::from_secs(1)).await;
        sim.crash("doomed")?;
        let producer = escaped.lock().expect("no panic holds it").take().expect("it escaped");
        let delivery = producer.send(ProducerRecord::to("orders").value("ghost"));
        let waited = tokio::time::timeout(Duration::from_secs(3600), delivery).await;
        assert!(waited.is_err(), "a dead process reached the bus: {waited:?}");
        Result::<()>::Ok(())
    });
    output(outcome);
}

#[test]
fn every_record_is_handled_on_a_bad_day() {
    for seed in 0..20 {
        let ledger = output(story(seed, bad_day));
        assert_eq!(ledger.len(), 70, "seed {seed}: {ledger:?}");
    }
}

#[test]
fn an_hour_of_idling_costs_no_wall_time_and_no_membership() {
    let outcome = story(9, |sim| async move {
        let bus = sim.bus();
        create_topic(&bus, "orders", 1).await?;
        let consumer = bus.consumer(ConsumerConfig::in_group("g"))?;
        consumer.subscribe(Subscription::topics(["orders"]))?;
        let mut polls = 0;
        while bus.elapsed() < Duration::from_secs(3600) {
            assert!(consumer.poll_records(Duration::from_secs(60)).await?.is_empty());
            polls += 1;
        }
        produce(&bus, "orders", 1).await?;
        let records = consumer.poll_records(Duration::from_secs(5)).await?;
        Ok((polls, records.len()))
    });
    let (polls, records) = output(outcome);
    assert!((60..70).contains(&polls), "{polls}");
    assert_eq!(records, 1);
}

#[test]
fn a_run_that_waits_for_nothing_is_stalled_and_says_who_waits() {
    let config = SimConfig { time_limit: Duration::from_secs(100), ..Default::default() };
    let outcome = Sim::new(config).expect("a valid configuration").run(|sim| async move {
        let consumer = sim.bus().consumer(ConsumerConfig::in_group("g"))?;
        consumer.poll(Duration::from_secs(1_000_000)).await
    });
    let stalled = outcome.result.expect_err("nobody produces");
    assert!(stalled.waiting.contains("a consumer polls"), "{stalled}");
}

#[test]
fn a_rebalance_shows_what_moves_and_waits_for_the_application() {
    let outcome = story(10, |sim| async move {
        let bus = sim.bus();
        create_topic(&bus, "orders", 2).await?;
        let consumer = bus.consumer(quick_member("g"))?;
        consumer.subscribe(Subscription::topics(["orders"]))?;
        let Polled::Rebalance(guard) = consumer.poll(Duration::from_secs(5)).await? else {
            panic!("records before an assignment");
        };
        assert_eq!(guard.partitions().len(), 2);
        // A dropped guard is handed out again.
        drop(guard);
        let Polled::Rebalance(guard) = consumer.poll(Duration::from_secs(5)).await? else {
            panic!("the guard is lost");
        };
        assert!(consumer.assignment().is_empty());
        guard.complete().await?;
        assert_eq!(consumer.assignment().len(), 2);
        Result::<()>::Ok(())
    });
    output(outcome);
}

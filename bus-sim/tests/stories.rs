//! Stories of a simulated cluster: what an application sees when something goes wrong.

use std::time::Duration;

use bus_core::{
    Bus, ConsumerConfig, ConsumerExt, NewTopic, ProducerConfig, ProducerExt, ProducerRecord,
    Record, Result, Subscription,
};
use bus_sim::{Api, Outcome, Sim, SimConfig, SimHandle};

/// Runs a story on a world that keeps its trace; the trace is part of a failure's message.
fn story<F, T>(seed: u64, app: impl FnOnce(SimHandle) -> F) -> Outcome<T>
where
    F: Future<Output = T>,
{
    let config = SimConfig { seed, record_trace: true, ..Default::default() };
    Sim::new(config).expect("a valid configuration").run(app)
}

async fn topic(bus: &Bus, name: &str, partitions: i32) -> Result<()> {
    bus.admin()?.create_topic(NewTopic::new(name).partitions(partitions)).await
}

fn numbered(topic: &'static str, count: u32) -> impl Iterator<Item = ProducerRecord> + Send {
    (0..count)
        .map(move |n| ProducerRecord::to(topic).key(format!("key-{}", n % 7)).value(n.to_string()))
}

async fn read(bus: &Bus, group: &str, topic: &str, count: usize) -> Result<Vec<Record>> {
    let consumer = bus.consumer(ConsumerConfig::in_group(group))?;
    consumer.subscribe(Subscription::topics([topic]))?;
    let mut records = Vec::new();
    while records.len() < count {
        records.extend(consumer.poll_records(Duration::from_secs(1)).await?);
    }
    consumer.commit_positions().await?;
    consumer.close().await?;
    Ok(records)
}

#[test]
fn a_group_reads_what_was_sent() {
    let outcome = story(1, |sim| async move {
        let bus = sim.bus();
        topic(&bus, "orders", 3).await?;
        let producer = bus.producer(ProducerConfig::default())?;
        for outcome in producer.send_all(numbered("orders", 100)).await {
            outcome?;
        }
        read(&bus, "g", "orders", 100).await
    });
    let trace = outcome.report.trace.join("\n");
    let records = outcome.result.expect(&trace).expect(&trace);
    assert_eq!(records.len(), 100, "{trace}");
}

#[test]
fn a_lost_response_is_no_duplicate_with_idempotence() {
    let outcome = story(2, |sim| async move {
        let bus = sim.bus();
        topic(&bus, "orders", 1).await?;
        let producer = bus.producer(ProducerConfig::default())?;
        sim.lose_next_response(Api::Produce);
        let metadata = producer.send(ProducerRecord::to("orders").value("1")).await?;
        assert_eq!(metadata.offset, Some(0));
        let metadata = producer.send(ProducerRecord::to("orders").value("2")).await?;
        assert_eq!(metadata.offset, Some(1));
        Result::<()>::Ok(())
    });
    let trace = outcome.report.trace.join("\n");
    outcome.result.expect(&trace).expect(&trace);
    assert!(trace.contains("duplicate of orders-0@0"), "{trace}");
}

#[test]
fn a_lost_response_is_a_duplicate_without_idempotence() {
    let outcome = story(2, |sim| async move {
        let bus = sim.bus();
        topic(&bus, "orders", 1).await?;
        let config = ProducerConfig { enable_idempotence: false, ..Default::default() };
        let producer = bus.producer(config)?;
        sim.lose_next_response(Api::Produce);
        producer.send(ProducerRecord::to("orders").value("1")).await?;
        read(&bus, "g", "orders", 2).await
    });
    let trace = outcome.report.trace.join("\n");
    let records = outcome.result.expect(&trace).expect(&trace);
    assert_eq!(records[0].value, records[1].value);
}

//! A story to draw: a record that only its leader had is acknowledged, and lost with the leader.

use std::time::Duration;

use bus::picture::parts::Verdict;
use bus::picture::{Subject, witness_of};
use bus::sim::{Sim, SimConfig, SimEvent, SimHandle};
use bus::{
    Acks, Bus, ConsumerConfig, ConsumerExt as _, NewTopic, ProducerConfig, ProducerRecord, Result,
    Subscription, TopicPartition,
};

/// What came of the story.
pub(crate) struct Told {
    pub(crate) seed: u64,
    pub(crate) events: Vec<SimEvent>,
    /// The offset that was acknowledged for the record that is lost.
    pub(crate) offset: i64,
}

/// Runs the story.
pub(crate) fn tell(seed: u64) -> Result<Told> {
    let config = SimConfig { seed, brokers: 3, record_events: true, ..Default::default() };
    let outcome = Sim::new(config)?.run(lose_a_record);
    let offset = match outcome.result {
        Ok(offset) => offset?,
        Err(stalled) => return Err(bus::Error::new(bus::ErrorKind::Stalled, stalled.to_string())),
    };
    Ok(Told { seed, events: outcome.report.recorded, offset })
}

/// What the picture of the story is about.
pub(crate) fn subject(told: &Told) -> Subject {
    let partition = orders();
    let offset = told.offset;
    let text = |text: &str| text.to_owned();
    Subject {
        title: text("Orders with acks=1, and a leader that dies"),
        verdict: Verdict {
            is_violation: true,
            word: text("violated"),
            guarantee: text("B2 lost write, finally"),
            sentence: format!(
                "Order 3 was acknowledged at {partition}@{offset}, and is not there."
            ),
            reason: text(
                "With acks=1 a leader answers before any follower has the record. This one was cut \
                 off from its followers, died, and a follower without the record was elected.",
            ),
            replay: String::new(),
            facts: vec![(text("seed"), told.seed.to_string())],
        },
        witness: witness_of(&told.events, &partition, offset),
        ..Subject::default()
    }
}

pub(crate) fn orders() -> TopicPartition {
    TopicPartition::new("orders", 0)
}

async fn lose_a_record(sim: SimHandle) -> Result<i64> {
    let bus = sim.bus();
    bus.admin()?.create_topic(NewTopic::new("orders").replication_factor(3)).await?;
    bus.process("billing", |bus| async move {
        // It ends only with the simulation.
        drop(bill(bus).await);
    });
    let config = ProducerConfig {
        acks: Acks::Leader,
        enable_idempotence: false,
        linger: Duration::ZERO,
        ..Default::default()
    };
    let producer = bus.producer(config)?;
    for n in 1..=2 {
        producer.send(ProducerRecord::to("orders").value(format!("order {n}"))).await?;
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    let topic = bus.admin()?.describe_topic("orders".into()).await?;
    let leader = topic.partitions[0].leader.unwrap_or(1);
    for follower in (1..=3).filter(|broker| *broker != leader) {
        sim.partition_brokers(leader, follower)?;
    }
    tokio::time::sleep(Duration::from_millis(600)).await;
    let told = producer.send(ProducerRecord::to("orders").value("order 3")).await?;
    sim.crash_broker(leader)?;
    sim.heal();
    tokio::time::sleep(Duration::from_secs(10)).await;
    producer.send(ProducerRecord::to("orders").value("order 4")).await?;
    sim.restart_broker(leader)?;
    tokio::time::sleep(Duration::from_secs(10)).await;
    Ok(told.offset.unwrap_or(-1))
}

/// Reads orders and commits them, for ever.
async fn bill(bus: Bus) -> Result<()> {
    let consumer = bus.consumer(ConsumerConfig::in_group("billing"))?;
    consumer.subscribe(Subscription::topics(["orders"]))?;
    loop {
        for record in consumer.poll_records(Duration::from_millis(500)).await? {
            consumer.commit_record(&record).await?;
        }
    }
}

//! `unclean-rewrite-under-reader` (B03): where a reader stands, the log is rewritten behind it.
//!
//! The only replica in sync dies, and one that lacks its last records is elected uncleanly. The log
//! is shorter now, but before the reader comes, new records have made it longer than what was read.
//! In the buggy form the reader goes on at its offset, which is valid again, and never sees the new
//! records before it. The fix is to ask a new leader where the epoch of the last record that was
//! read ends, and to go back there.
//!
//! KIP-320, KAFKA-7395, KAFKA-7747.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bus_core::{
    Bus, ConsumerConfig, ConsumerExt as _, IsolationLevel, NewTopic, OffsetReset, ProducerConfig,
    ProducerRecord, Result, StartAt, TopicPartition,
};
use parking_lot::Mutex;

use super::common::value;
use super::read_back::ReadBack;
use crate::catalogue::{Application, BEYOND, Form, Kind, WorstDay};
use crate::lifecycle::Lifecycle;
use crate::patience::create_topic;
use crate::report::{Broken, Report};
use crate::setting::Setting;

/// The story in the catalogue.
pub const STORY: Application = Application {
    name: "unclean-rewrite-under-reader",
    title: "Where a reader stands, the log is rewritten behind it",
    kind: Kind::Story,
    forms: Form::ALL,
    worst_day: WorstDay {
        options: |form| match form {
            Form::AsWritten => "brokers=2&validate.leader.epochs=false",
            Form::Sound => "brokers=2&validate.leader.epochs=true",
        },
        faults: &[BEYOND, "CrashBroker", "ShutDownBroker", "PauseProcess"],
        horizon: HORIZON,
    },
    run: |bus, _, setting| Box::pin(run(bus, setting)),
};

/// The guarantee that the bug breaks.
pub const GUARANTEE: &str = "D4 skipped-record";

const TOPIC: &str = "prices";
const READER: &str = "reader";
const PRICES: usize = 60;
const PAUSE: Duration = Duration::from_millis(150);
const HORIZON: Duration = Duration::from_secs(10);
/// By then all brokers are back, and no election is due any more.
const SETTLED: Duration = Duration::from_secs(40);

/// Sends prices to a topic that prefers to go on over keeping all, and has them read.
///
/// # Errors
/// Those that no retry gets over.
pub async fn run(bus: Bus, setting: Setting) -> Result<Report> {
    let topic = NewTopic::new(TOPIC).replication_factor(2);
    create_topic(&bus, topic.config("unclean.leader.election.enable", "true")).await?;
    let (seen, life) = (Seen::default(), Lifecycle::default());
    let (seen_inside, life_inside) = (seen.clone(), life.clone());
    life.process(&bus, READER, move |bus| read(bus, seen_inside.clone(), life_inside.clone()));
    // A leader that has lost the producer's sequences takes any batch for the first: with several
    // in flight, it would reorder them.
    let producer = bus.producer(ProducerConfig { max_in_flight: 1, ..Default::default() })?;
    let mut deliveries = Vec::new();
    for n in 0..setting.size("prices", 1..=PRICES) {
        deliveries.push(producer.send(ProducerRecord::to(TOPIC).value(format!("price-{n:02}"))));
        tokio::time::sleep(PAUSE).await;
    }
    for delivery in deliveries {
        // What is lost is the price of going on; whether it was told is another story.
        drop(delivery.await);
    }
    tokio::time::sleep(SETTLED.saturating_sub(bus.elapsed())).await;
    let log = ReadBack::of(&bus, TOPIC, IsolationLevel::ReadCommitted).await?;
    let is_read = tokio::time::timeout(PATIENCE, async {
        while !seen.0.lock().has_ended {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
    let is_read = is_read.await.is_ok();
    life.stop(Duration::from_secs(30)).await;
    let seen = &seen.0.lock().prices;
    let skipped = log.records.iter().filter(|record| !seen.contains(&value(record)));
    let broken = skipped.map(|record| Broken {
        guarantee: GUARANTEE,
        sentence: format!(
            "{} is at {TOPIC}-{}@{}, and the reader passed over it",
            value(record),
            record.partition,
            record.offset
        ),
    });
    let broken = broken.collect();
    Ok(log.report(is_read, broken))
}

/// How long a reader may take to come to the end.
const PATIENCE: Duration = Duration::from_mins(2);

/// What the reader has seen.
#[derive(Clone, Debug, Default)]
struct Seen(Arc<Mutex<Prices>>);

#[derive(Debug, Default)]
struct Prices {
    prices: BTreeSet<String>,
    /// The record that ends the story.
    has_ended: bool,
}

async fn read(bus: Bus, seen: Seen, life: Lifecycle) -> Result<()> {
    let consumer = bus.consumer(ConsumerConfig {
        client_id: Some(READER.to_owned()),
        auto_offset_reset: OffsetReset::Earliest,
        ..ConsumerConfig::default()
    })?;
    consumer.assign(&[(TopicPartition::new(TOPIC, 0), StartAt::Beginning)])?;
    let poll = || consumer.poll_records(Duration::from_secs(1));
    while let Some(polled) = life.unless_stopping(poll()).await {
        for record in polled? {
            let mut seen = seen.0.lock();
            seen.has_ended |= record.key.is_some();
            seen.prices.insert(value(&record));
        }
    }
    consumer.close().await
}

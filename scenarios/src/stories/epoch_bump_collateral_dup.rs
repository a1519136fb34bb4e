//! `epoch-bump-collateral-dup` (P08): what goes wrong in one partition duplicates a record of
//! another.
//!
//! An idempotent producer has one producer id and epoch for all partitions. A batch is refused, and
//! those behind it on the wire are out of order. In the buggy form the producer answers that with a
//! new epoch, under which everything that waits is numbered anew, as librdkafka does; also the
//! batch of another partition that is in the log already, because only its acknowledgment failed.
//! Under the new epoch the broker does not recognize it. The fix is to send what was out of order
//! again behind what was refused, as Java's client does.
//!
//! librdkafka#4953, KAFKA-14034.

use std::collections::BTreeMap;
use std::time::Duration;

use bus_core::{Bus, IsolationLevel, NewTopic, ProducerConfig, ProducerRecord, Result};

use super::common::value;
use super::read_back::ReadBack;
use crate::catalogue::{Application, Form, Kind, WorstDay};
use crate::patience::create_topic;
use crate::report::{Broken, Report};
use crate::setting::Setting;

/// The story in the catalogue.
pub const STORY: Application = Application {
    name: "epoch-bump-collateral-dup",
    title: "What goes wrong in one partition duplicates a record of another",
    kind: Kind::Story,
    forms: Form::ALL,
    worst_day: WorstDay {
        // Three data centers.
        options: |form| match form {
            Form::AsWritten => {
                "brokers=3&latency.min.us=5000&latency.max.us=5000&out.of.order.sequence=bump-epoch"
            }
            Form::Sound => {
                "brokers=3&latency.min.us=5000&latency.max.us=5000&out.of.order.sequence=retry"
            }
        },
        faults: &["CrashBroker", "ShutDownBroker", "LoseResponse"],
        horizon: Duration::from_secs(6),
    },
    run: |bus, _, setting| Box::pin(run(bus, setting)),
};

/// The guarantee that the bug breaks.
pub const GUARANTEE: &str = "A2 duplicate-append";

const TOPIC: &str = "steps";
/// The steps come in bursts to the first partition, then some to the second.
const ROUNDS: usize = 16;
const BURST: usize = 4;
const PACE: Duration = Duration::from_millis(2);
const PAUSE: Duration = Duration::from_millis(50);

/// Sends records to two partitions, and reads them back.
///
/// # Errors
/// Those that no retry gets over.
pub async fn run(bus: Bus, setting: Setting) -> Result<Report> {
    let topic = NewTopic::new(TOPIC).partitions(2).replication_factor(3);
    create_topic(&bus, topic.config("min.insync.replicas", "3")).await?;
    let producer = bus.producer(ProducerConfig {
        linger: Duration::ZERO,
        batch_records: 1,
        retry_backoff: Duration::from_millis(10),
        retry_backoff_max: Duration::from_millis(10),
        ..Default::default()
    })?;
    let send = |partition: i32, step: String| {
        producer.send(ProducerRecord::to(TOPIC).partition(partition).value(step))
    };
    // The first batch of a partition may be refused and overtaken in any form (KAFKA-14359).
    send(0, "a-00-0".to_owned()).await?;
    send(1, "b-00-0".to_owned()).await?;
    let mut deliveries = Vec::new();
    for round in 1..=setting.size("rounds", 1..=ROUNDS) {
        for step in 0..BURST {
            deliveries.push(send(0, format!("a-{round:02}-{step}")));
            tokio::time::sleep(PACE).await;
        }
        for step in 0..BURST {
            deliveries.push(send(1, format!("b-{round:02}-{step}")));
            tokio::time::sleep(PAUSE).await;
        }
    }
    for delivery in deliveries {
        delivery.await?;
    }
    let log = ReadBack::of(&bus, TOPIC, IsolationLevel::ReadCommitted).await?;
    let mut places = BTreeMap::<_, Vec<_>>::new();
    for record in &log.records {
        places
            .entry(value(record))
            .or_default()
            .push(format!("{TOPIC}-{}@{}", record.partition, record.offset));
    }
    let twice = places.into_iter().filter(|(_, places)| places.len() > 1);
    let broken = twice.map(|(step, places)| Broken {
        guarantee: GUARANTEE,
        sentence: format!("{step} was sent once, and is at {}", places.join(" and ")),
    });
    let broken = broken.collect();
    Ok(log.report(true, broken))
}

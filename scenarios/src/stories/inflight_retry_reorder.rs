//! `inflight-retry-reorder` (P01): a batch that is sent again lands behind those that were sent
//! after it.
//!
//! A producer without idempotence keeps five requests in flight. The first is refused, because too
//! few replicas are in sync, or because the broker does not know yet that it leads; those behind it
//! on the wire are appended, because by now it is otherwise; and the first one, sent again, lands
//! behind them. The fix is the idempotent producer: the broker refuses a batch whose predecessor is
//! missing.
//!
//! The partition has a record before the bursts begin: the very first batch of an idempotent
//! producer has no predecessor that could be missed (KAFKA-14359).
//!
//! KAFKA-3197, KAFKA-5494; librdkafka#1092.

use std::collections::BTreeSet;
use std::time::Duration;

use bus_core::{Bus, IsolationLevel, NewTopic, ProducerConfig, ProducerRecord, Record, Result};

use super::common::value;
use super::read_back::ReadBack;
use crate::catalogue::{Application, Form, Kind, WorstDay};
use crate::patience::create_topic;
use crate::report::{Broken, Report};
use crate::setting::Setting;

/// The story in the catalogue.
pub const STORY: Application = Application {
    name: "inflight-retry-reorder",
    title: "A batch that is sent again lands behind those that were sent after it",
    kind: Kind::Story,
    forms: Form::ALL,
    worst_day: WorstDay {
        // Three data centers.
        options: |_| "brokers=3&latency.min.us=5000&latency.max.us=5000",
        faults: &["CrashBroker", "ShutDownBroker", "ElectPreferred"],
        horizon: Duration::from_secs(6),
    },
    run: |bus, form, setting| Box::pin(run(bus, form, setting)),
};

/// The guarantee that the bug breaks.
pub const GUARANTEE: &str = "C2 pipelined-inversion";

const TOPIC: &str = "steps";
/// The steps come in bursts, whose records are under way at the same time.
const BURSTS: usize = 20;
const BURST: usize = 4;
const PACE: Duration = Duration::from_millis(2);
const PAUSE: Duration = Duration::from_millis(300);

/// Sends numbered records to each partition, and reads them back.
///
/// # Errors
/// Those that no retry gets over.
pub async fn run(bus: Bus, form: Form, setting: Setting) -> Result<Report> {
    create_topic(
        &bus,
        NewTopic::new(TOPIC).replication_factor(3).config("min.insync.replicas", "3"),
    )
    .await?;
    let producer = bus.producer(ProducerConfig {
        enable_idempotence: form == Form::Sound,
        linger: Duration::ZERO,
        retry_backoff: Duration::from_millis(10),
        retry_backoff_max: Duration::from_millis(10),
        batch_records: 1,
        ..Default::default()
    })?;
    producer.send(ProducerRecord::to(TOPIC).value("step-00")).await?;
    let mut deliveries = Vec::new();
    for burst in 1..=setting.size("bursts", 1..=BURSTS) {
        for step in 0..BURST {
            let record = ProducerRecord::to(TOPIC).value(format!("step-{burst:02}-{step}"));
            deliveries.push(producer.send(record));
            tokio::time::sleep(PACE).await;
        }
        tokio::time::sleep(PAUSE).await;
    }
    for delivery in deliveries {
        delivery.await?;
    }
    let log = ReadBack::of(&bus, TOPIC, IsolationLevel::ReadCommitted).await?;
    // What was appended twice is another story: the first time counts.
    let mut known = BTreeSet::new();
    let is_first = |record: &&Record| known.insert(value(record));
    let seen: Vec<_> = log.records.iter().filter(is_first).collect();
    let inverted = seen.windows(2).filter(|pair| value(pair[0]) > value(pair[1]));
    let broken = inverted.map(|pair| {
        let [later, earlier] = [0, 1].map(|n| value(pair[n]));
        let sentence = format!("{earlier} was sent before {later}, and is behind it in the log");
        Broken { guarantee: GUARANTEE, sentence }
    });
    let broken = broken.collect();
    Ok(log.report(true, broken))
}

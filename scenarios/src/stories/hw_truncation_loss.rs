//! `hw-truncation-loss` (B01): a follower takes back what all replicas had acknowledged, and then
//! it leads.
//!
//! A follower learns one fetch late how far the replicas in sync are. In the buggy form it takes
//! its log back to that old high watermark whenever it begins to follow a leader, as Kafka did
//! before 0.11, and fetches the rest again. If the leader crashes before it has, the follower is
//! elected, because it is in sync, and records that were acknowledged are gone everywhere. The fix
//! is to take back only what the leader does not have, by the epochs in which the records were
//! written.
//!
//! It takes two brokers that are away, one shortly after the other; the third one has all that was
//! acknowledged, as `acks=all` promises.
//!
//! KIP-101, scenario 1; KAFKA-1211.

use std::collections::BTreeSet;
use std::time::Duration;

use bus_core::{Bus, IsolationLevel, NewTopic, ProducerConfig, ProducerRecord, Result};

use super::common::value;
use super::read_back::ReadBack;
use crate::catalogue::{Application, BEYOND, Form, Kind, WorstDay};
use crate::patience::create_topic;
use crate::report::{Broken, Report};
use crate::setting::Setting;

/// The story in the catalogue.
pub const STORY: Application = Application {
    name: "hw-truncation-loss",
    title: "A follower takes back what all replicas had acknowledged, and then it leads",
    kind: Kind::Story,
    forms: Form::ALL,
    worst_day: WorstDay {
        options: |form| match form {
            Form::AsWritten => "brokers=3&truncation=high-watermark",
            Form::Sound => "brokers=3&truncation=leader-epoch",
        },
        faults: &[BEYOND, "CrashBroker", "ShutDownBroker"],
        horizon: Duration::from_secs(10),
    },
    run: |bus, _, setting| Box::pin(run(bus, setting)),
};

/// The guarantee that the bug breaks.
pub const GUARANTEE: &str = "B2 lost-write-finally";

const TOPIC: &str = "orders";
const PARTITIONS: usize = 3;
const ORDERS: usize = 90;
const PAUSE: Duration = Duration::from_millis(100);

/// Sends orders, one after another, and looks which of the acknowledged ones are there when all is
/// over.
///
/// # Errors
/// Those that no retry gets over.
pub async fn run(bus: Bus, setting: Setting) -> Result<Report> {
    create_topic(&bus, NewTopic::new(TOPIC).partitions(3).replication_factor(3)).await?;
    let config = ProducerConfig { enable_idempotence: false, ..Default::default() };
    let producer = bus.producer(config)?;
    let mut sent = Vec::new();
    for n in 0..setting.size("orders", 1..=ORDERS) {
        let order = format!("order-{n:02}");
        let partition = i32::try_from(n % PARTITIONS).unwrap_or(0);
        let record = ProducerRecord::to(TOPIC).partition(partition).value(order.clone());
        sent.push((order, producer.send(record)));
        tokio::time::sleep(PAUSE).await;
    }
    let mut acknowledged = Vec::new();
    for (order, delivery) in sent {
        if delivery.await.is_ok() {
            acknowledged.push(order);
        }
    }
    let log = ReadBack::of(&bus, TOPIC, IsolationLevel::ReadCommitted).await?;
    let there: BTreeSet<_> = log.records.iter().map(value).collect();
    let missing = acknowledged.iter().filter(|order| !there.contains(*order));
    let broken = missing.map(|order| Broken {
        guarantee: GUARANTEE,
        sentence: format!("{order} was acknowledged by all replicas, and is in no log"),
    });
    let broken = broken.collect();
    Ok(log.report(true, broken))
}

//! `cancel-then-dedupe-swallow` (P10): a record is acknowledged, and was never stored.
//!
//! A meter sends its readings with a short delivery timeout: a reading that is late is of no use,
//! the next one comes soon. The producer is idempotent. In the buggy form it takes what ran out of
//! time for not written, and gives its sequence out again. But the leader has stored it, and only
//! the answer was late: so it takes the next reading for a repetition, acknowledges it with the
//! offset of the old one, and drops it. The fix: what may be in the log keeps its sequence; the
//! producer goes on with another producer id.
//!
//! See franz-go #1217, mended in 1.20.7.

use std::time::Duration;

use bus_core::{Bus, IsolationLevel, NewTopic, ProducerConfig, ProducerRecord, Recovery, Result};
use serde::{Deserialize, Serialize};

use super::common::value;
use super::read_back::ReadBack;
use crate::catalogue::{Application, Form, Kind, WorstDay};
use crate::lifecycle::Lifecycle;
use crate::patience::create_topic;
use crate::report::{Broken, Report};
use crate::setting::Setting;
use crate::store::{Row, Store};

/// The story in the catalogue.
pub const STORY: Application = Application {
    name: "cancel-then-dedupe-swallow",
    title: "A record is acknowledged, and was never stored",
    kind: Kind::Story,
    forms: Form::ALL,
    worst_day: WorstDay {
        options: |form| match form {
            Form::AsWritten => "brokers=1&delivery.timeout.reuses.sequences=true",
            Form::Sound => "brokers=1&delivery.timeout.reuses.sequences=false",
        },
        faults: &["DelayResponse", "CutProcess", "FreezeBroker"],
        horizon: Duration::from_secs(8),
    },
    run: |bus, _, setting| Box::pin(run(bus, setting)),
};

/// The guarantee that the bug breaks.
pub const GUARANTEE: &str = "B2 lost write, finally";

const TOPIC: &str = "readings";
const READINGS: usize = 40;
/// Between two readings.
const PACE: Duration = Duration::from_millis(200);
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(1);

/// A reading, and whether it was delivered.
#[derive(Debug, Serialize, Deserialize)]
struct Reading {
    name: String,
    is_delivered: bool,
}

impl Row for Reading {
    const TABLE: &'static str = "readings";

    fn key(&self) -> String {
        self.name.clone()
    }
}

/// Sends readings, and looks whether all that were delivered are there.
///
/// # Errors
/// Those that no retry gets over.
pub async fn run(bus: Bus, setting: Setting) -> Result<Report> {
    create_topic(&bus, NewTopic::new(TOPIC)).await?;
    let count = setting.size("readings", 1..=READINGS);
    let (store, life) = (Store::default(), Lifecycle::default());
    let sent = store.clone();
    life.process(&bus, "meter", move |bus| send(bus, count, sent.clone()));
    while store.all::<Reading>()?.len() < count && bus.elapsed() < DEADLINE {
        life.check()?;
        tokio::time::sleep(PACE).await;
    }
    let readings: Vec<Reading> = store.all()?;
    let read = ReadBack::of(&bus, TOPIC, IsolationLevel::ReadUncommitted).await?;
    let is_there = |name: &str| read.records.iter().any(|record| value(record) == name);
    let lost = readings.iter().filter(|reading| reading.is_delivered && !is_there(&reading.name));
    let broken = lost.map(|Reading { name, .. }| Broken {
        guarantee: GUARANTEE,
        sentence: format!("{name} was acknowledged, and is not in the log"),
    });
    let broken = broken.collect();
    Ok(read.report(readings.len() == count, broken))
}

/// How long all readings may take.
const DEADLINE: Duration = Duration::from_mins(5);

/// Sends so many readings, and notes what became of each.
async fn send(bus: Bus, count: usize, store: Store) -> Result<()> {
    let config = ProducerConfig { delivery_timeout: DELIVERY_TIMEOUT, ..Default::default() };
    let producer = bus.producer(config)?;
    let mut transaction = store.begin();
    for n in 0..count {
        let name = format!("reading-{n:02}");
        let sent = producer.send(ProducerRecord::to(TOPIC).value(name.clone()));
        let is_delivered = match sent.await {
            Ok(_) => true,
            // The next one is as good.
            Err(error) if error.recovery() != Recovery::Fix || error.is_indeterminate() => false,
            Err(error) => return Err(error),
        };
        transaction.insert(&Reading { name, is_delivered })?;
        tokio::time::sleep(PACE).await;
    }
    Ok(transaction.commit().await?)
}

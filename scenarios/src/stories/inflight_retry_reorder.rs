//! `inflight-retry-reorder` (P01): a batch that is sent again lands behind those that were sent
//! after it.
//!
//! A producer keeps five requests in flight. One is lost, those behind it arrive; the lost one is
//! sent again and is appended behind them. The fix is the idempotent producer: its broker refuses a
//! batch whose predecessor is missing.
//!
//! Kafka's documentation of `max.in.flight.requests.per.connection`; KAFKA-5494.

use std::time::Duration;

use bus_core::{Bus, IsolationLevel, NewTopic, ProducerConfig, ProducerRecord, Result};

use super::common::{create_topic, read_all, report, value};
use crate::catalogue::{Application, Form, Kind, WorstDay};
use crate::report::{Broken, Report};

/// The story in the catalogue.
pub const STORY: Application = Application {
    name: "inflight-retry-reorder",
    title: "A batch that is sent again lands behind those that were sent after it",
    kind: Kind::Story,
    forms: Form::ALL,
    worst_day: WorstDay {
        options: |_| "brokers=1",
        faults: &["LoseRequest", "LoseResponse", "DelayRequest"],
        horizon: Duration::from_secs(2),
    },
    run: |bus, form, _| Box::pin(run(bus, form)),
};

/// The guarantee that the bug breaks.
pub const GUARANTEE: &str = "C2 pipelined-inversion";

const TOPIC: &str = "steps";
const RECORDS: usize = 20;

/// Sends numbered records one right after the other, and reads them back.
///
/// # Errors
/// Those that no retry gets over.
pub async fn run(bus: Bus, form: Form) -> Result<Report> {
    create_topic(&bus, NewTopic::new(TOPIC)).await?;
    let producer = bus.producer(ProducerConfig {
        enable_idempotence: form == Form::Sound,
        max_in_flight: 5,
        linger: Duration::ZERO,
        ..Default::default()
    })?;
    let mut deliveries = Vec::new();
    for n in 0..RECORDS {
        deliveries.push(producer.send(ProducerRecord::to(TOPIC).value(format!("{n:02}"))));
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    for delivery in deliveries {
        delivery.await?;
    }
    let log = read_all(&bus, TOPIC, IsolationLevel::ReadCommitted).await?;
    // What was appended twice is another story: the first time counts.
    let mut seen: Vec<String> = Vec::new();
    for value in log.iter().map(value) {
        if !seen.contains(&value) {
            seen.push(value);
        }
    }
    let inverted = seen.windows(2).filter(|pair| pair[0] > pair[1]);
    let broken = inverted.map(|pair| Broken {
        guarantee: GUARANTEE,
        sentence: format!("{} was sent before {}, and is behind it in the log", pair[1], pair[0]),
    });
    Ok(report(log.len(), broken.collect(), vec![format!("the log is {}", seen.join(" "))]))
}

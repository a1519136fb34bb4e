//! `unstable-offset-read` (T16): a new owner starts at an offset that is about to change.
//!
//! Two workers make an invoice of each order, exactly once: outputs and offsets are in one
//! transaction. They are deployed anew all the time, so partitions change hands. A commit counts
//! when it is decided; its markers follow. In the buggy form the new owner of a partition does not
//! wait for the marker in `__consumer_offsets`: it is told the offset before, and does again what
//! is committed already. The fix: it asks for stable offsets only, and is told to ask again while a
//! transaction is about to change them (KIP-447).
//!
//! See KIP-447, and librdkafka 1.6.1 (#3265).

use std::time::Duration;

use bus_core::{
    Bus, Consumer, ConsumerConfig, ConsumerExt as _, IsolationLevel, NewTopic, OffsetAndMetadata,
    ProducerConfig, ProducerExt as _, ProducerRecord, Record, Recovery, Result, Subscription,
    Topic, TransactionConfig, TransactionalProducer,
};

use super::common::{finished, processes, value};
use super::read_back::ReadBack;
use crate::catalogue::{Application, Form, Kind, WorstDay};
use crate::lifecycle::Lifecycle;
use crate::patience::{create_topic, patiently};
use crate::report::{Broken, Observer, Report};
use crate::setting::Setting;

/// The story in the catalogue.
pub const STORY: Application = Application {
    name: "unstable-offset-read",
    title: "A new owner starts at an offset that is about to change",
    kind: Kind::Story,
    forms: Form::ALL,
    worst_day: WorstDay {
        options: |form| match form {
            Form::AsWritten => "brokers=1&offset.fetch.require.stable=false",
            Form::Sound => "brokers=1&offset.fetch.require.stable=true",
        },
        faults: &["DelayRequest", "DelayResponse", "LoseResponse"],
        horizon: Duration::from_secs(8),
    },
    run: |bus, _, setting| Box::pin(run(bus, setting)),
};

/// The guarantee that the bug breaks.
pub const GUARANTEE: &str = "F10 duplicate output";
/// Nor may there be none.
pub const MISSING: &str = "F11 missing output";

const ORDERS: &str = "orders";
const INVOICES: &str = "invoices";
const GROUP: &str = "invoicing";
const WORKERS: [&str; 2] = ["worker-1", "worker-2"];
const COUNT: usize = 40;
/// Between two orders.
const PACE: Duration = Duration::from_millis(150);
/// How long a worker has partitions before it is deployed anew.
const DEPLOYED: Duration = Duration::from_millis(400);

/// Has invoices made, and looks which orders have more than one.
///
/// # Errors
/// Those that no retry gets over.
pub async fn run(bus: Bus, setting: Setting) -> Result<Report> {
    create_topic(&bus, NewTopic::new(ORDERS).partitions(2)).await?;
    create_topic(&bus, NewTopic::new(INVOICES)).await?;
    let observer = Observer::new(&bus, Topic::from(ORDERS), GROUP).await?;
    let life = Lifecycle::default();
    for name in processes(&setting, &WORKERS) {
        let life_inside = life.clone();
        life.process(&bus, name, move |bus| work(bus, name, life_inside.clone()));
    }
    let producer = bus.producer(ProducerConfig::default())?;
    let count = setting.size("orders", 1..=COUNT);
    let orders: Vec<_> = (1..=count).map(|n| format!("order-{n:02}")).collect();
    for order in &orders {
        let record = ProducerRecord::to(ORDERS).key(order.clone()).value(order.clone());
        for sent in producer.send_all([record]).await {
            sent?;
        }
        tokio::time::sleep(PACE).await;
    }
    let is_settled = finished(&bus, &observer, &life).await?;
    let read = ReadBack::of(&bus, INVOICES, IsolationLevel::ReadCommitted).await?;
    let count =
        |order: &String| read.records.iter().filter(|record| value(record) == *order).count();
    let broken = orders.iter().filter_map(|order| match count(order) {
        1 => None,
        0 => Some(Broken {
            guarantee: MISSING,
            sentence: format!("{order} was committed by the group, and has no invoice"),
        }),
        count => Some(Broken {
            guarantee: GUARANTEE,
            sentence: format!("{order} has {count} invoices, each in a committed transaction"),
        }),
    });
    let broken = broken.collect();
    Ok(read.report(is_settled, broken))
}

/// Works until it is to end, with clients that are made anew once in a while.
async fn work(bus: Bus, name: &'static str, life: Lifecycle) -> Result<()> {
    while !life.is_stopping() {
        let worker = Worker::start(&bus, name).await?;
        let mut until = None;
        while until.is_none_or(|until| bus.elapsed() < until) && !life.is_stopping() {
            let records = worker.consumer.poll_records(PACE).await?;
            if !records.is_empty() {
                worker.invoice(&records).await?;
            }
            if !worker.consumer.assignment().is_empty() {
                until.get_or_insert_with(|| bus.elapsed() + DEPLOYED);
            }
        }
        worker.consumer.close().await?;
        worker.producer.close(DEPLOYED).await?;
    }
    Ok(())
}

/// The clients of a worker.
struct Worker {
    consumer: std::sync::Arc<dyn Consumer>,
    producer: std::sync::Arc<dyn TransactionalProducer>,
}

impl Worker {
    async fn start(bus: &Bus, name: &str) -> Result<Self> {
        let transaction = TransactionConfig {
            transaction_timeout: Duration::from_secs(10),
            ..TransactionConfig::new(name)
        };
        let producer = bus.transactional_producer(ProducerConfig::default(), transaction)?;
        patiently(|| producer.init_transactions()).await?;
        let consumer = bus.consumer(ConsumerConfig {
            client_id: Some(name.to_owned()),
            session_timeout: Duration::from_secs(6),
            heartbeat_interval: Duration::from_millis(500),
            ..ConsumerConfig::in_group(GROUP)
        })?;
        consumer.subscribe(Subscription::topics([ORDERS]))?;
        Ok(Self { consumer, producer })
    }

    /// Makes invoices of orders, together with the offsets behind them.
    ///
    /// # Errors
    /// After one the worker starts over, at what is committed.
    async fn invoice(&self, orders: &[Record]) -> Result<()> {
        let Some(group) = self.consumer.group_metadata() else { return Ok(()) };
        self.producer.begin()?;
        for order in orders {
            // The commit fails if this delivery does.
            drop(self.producer.send(ProducerRecord::to(INVOICES).value(value(order))));
        }
        let behind = |order: &Record| {
            (order.topic_partition(), OffsetAndMetadata::from(order.next_offset()))
        };
        // Of each partition the last one counts.
        let offsets: Vec<_> = orders.iter().map(behind).collect();
        let committed = async {
            self.producer.send_offsets(&offsets, &group).await?;
            patiently(|| self.producer.commit()).await
        };
        let outcome = committed.await;
        if outcome.as_ref().is_err_and(|error| error.recovery() == Recovery::Abort) {
            patiently(|| self.producer.abort()).await?;
        }
        outcome
    }
}

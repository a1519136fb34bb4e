//! `epoch-bump-splits-transaction` (T06): recovery inside of a transaction begins another one.
//!
//! A shop sends the lines of an order one behind the other, and its total to another partition when
//! they are delivered, all in one transaction. While a replica is away, `min.insync.replicas` has
//! the lines refused. It comes back between two of them that are in flight: the first is refused,
//! and the second one too, because a sequence is missing. So the producer needs another epoch. In
//! the buggy form it asks for that at once and goes on, though the coordinator has aborted what was
//! open: the lines before are gone, the total begins a transaction that only it is part of, and the
//! commit succeeds. The fix: the transaction has failed, and the application must abort it.
//!
//! See librdkafka #3575, mended in 1.8.2. Brokers of that time did not verify transactions.
//! Messages are under way for 8 ms here, so that several lines are in flight.

use std::time::Duration;

use bus_core::{
    Bus, IsolationLevel, NewTopic, ProducerConfig, ProducerRecord, Recovery, Result,
    TransactionConfig, TransactionalProducer,
};
use serde::{Deserialize, Serialize};

use super::common::value;
use super::read_back::ReadBack;
use crate::catalogue::{Application, Form, Kind, WorstDay};
use crate::lifecycle::Lifecycle;
use crate::patience::{create_topic, patiently};
use crate::report::{Broken, Report};
use crate::setting::Setting;
use crate::store::{Row, Store};

/// The story in the catalogue.
pub const STORY: Application = Application {
    name: "epoch-bump-splits-transaction",
    title: "Recovery inside of a transaction begins another one",
    kind: Kind::Story,
    forms: Form::ALL,
    worst_day: WorstDay {
        options: |form| match form {
            Form::AsWritten => {
                "brokers=2&latency.min.us=8000&latency.max.us=8000\
                 &transaction.partition.verification.enable=false\
                 &abort.reuses.sequences=false&epoch.bump.keeps.transaction=true"
            }
            Form::Sound => {
                "brokers=2&latency.min.us=8000&latency.max.us=8000\
                 &transaction.partition.verification.enable=false\
                 &abort.reuses.sequences=false&epoch.bump.keeps.transaction=false"
            }
        },
        faults: &["ShutDownBroker", "ElectPreferred"],
        horizon: Duration::from_secs(4),
    },
    run: |bus, _, setting| Box::pin(run(bus, setting)),
};

/// The guarantee that the bug breaks.
pub const GUARANTEE: &str = "F4 torn transaction";

const TOPIC: &str = "orders";
const ORDERS: usize = 8;
const LINES: usize = 16;
/// Between two lines.
const PACE: Duration = Duration::from_millis(4);
/// Before a batch that was refused is sent again.
const RETRY_BACKOFF: Duration = Duration::from_millis(10);

/// An order whose transaction was committed, as the producer was told.
#[derive(Debug, Serialize, Deserialize)]
struct Committed {
    order: usize,
    attempt: u32,
}

impl Row for Committed {
    const TABLE: &'static str = "committed";

    fn key(&self) -> String {
        format!("{:02}", self.order)
    }
}

/// Sends orders, and looks whether all of each is there.
///
/// # Errors
/// Those that no retry gets over.
pub async fn run(bus: Bus, setting: Setting) -> Result<Report> {
    let topic = NewTopic::new(TOPIC).partitions(2).replication_factor(2);
    create_topic(&bus, topic.config("min.insync.replicas", "2")).await?;
    let orders = setting.size("orders", 1..=ORDERS);
    let (store, life) = (Store::default(), Lifecycle::default());
    let sent = store.clone();
    life.process(&bus, "shop", move |bus| send(bus, orders, sent.clone()));
    while store.all::<Committed>()?.len() < orders && bus.elapsed() < DEADLINE {
        life.check()?;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let committed: Vec<Committed> = store.all()?;
    let read = ReadBack::of(&bus, TOPIC, IsolationLevel::ReadCommitted).await?;
    let seen: Vec<_> = read.records.iter().map(value).collect();
    let broken = committed.iter().filter_map(|committed| {
        let Committed { order, attempt } = committed;
        let parts = parts(*order, *attempt);
        let missing: Vec<_> = parts.iter().filter(|part| !seen.contains(part)).collect();
        let first = missing.first()?;
        Some(Broken {
            guarantee: GUARANTEE,
            sentence: format!(
                "the transaction of order {order} was committed, and {} of its {} records are \
                 not visible, the first of them {first:?}",
                missing.len(),
                parts.len()
            ),
        })
    });
    let broken = broken.collect();
    Ok(read.report(committed.len() == orders, broken))
}

/// How long all orders may take.
const DEADLINE: Duration = Duration::from_mins(5);

/// The lines of an order, and its total.
fn parts(order: usize, attempt: u32) -> Vec<String> {
    let lines = (0..LINES).map(|line| format!("line {line} of order {order}, attempt {attempt}"));
    lines.chain([format!("total of order {order}, attempt {attempt}")]).collect()
}

/// Sends each order until its transaction is committed.
async fn send(bus: Bus, orders: usize, store: Store) -> Result<()> {
    let config = ProducerConfig {
        linger: Duration::ZERO,
        batch_records: 1,
        retry_backoff: RETRY_BACKOFF,
        retry_backoff_max: RETRY_BACKOFF,
        ..Default::default()
    };
    let transaction = TransactionConfig {
        transaction_timeout: Duration::from_secs(30),
        ..TransactionConfig::new("shop")
    };
    let mut attempt = 0;
    'start: loop {
        let producer = bus.transactional_producer(config.clone(), transaction.clone())?;
        patiently(|| producer.init_transactions()).await?;
        let begun = store.all::<Committed>()?.len();
        for order in begun..orders {
            attempt += 1;
            while let Err(error) = send_order(&*producer, order, attempt).await {
                match error.recovery() {
                    Recovery::Abort => patiently(|| producer.abort()).await?,
                    Recovery::Fix => return Err(error),
                    // Another producer goes on.
                    _ => continue 'start,
                }
                attempt += 1;
            }
            let mut row = store.begin();
            row.insert(&Committed { order, attempt })?;
            row.commit().await?;
        }
        return Ok(());
    }
}

async fn send_order(
    producer: &dyn TransactionalProducer,
    order: usize,
    attempt: u32,
) -> Result<()> {
    producer.begin()?;
    let mut parts = parts(order, attempt);
    let total = parts.pop();
    let mut deliveries = Vec::with_capacity(parts.len());
    for line in parts {
        deliveries.push(producer.send(ProducerRecord::to(TOPIC).partition(0).value(line)));
        tokio::time::sleep(PACE).await;
    }
    for delivery in deliveries {
        delivery.await?;
    }
    if let Some(total) = total {
        producer.send(ProducerRecord::to(TOPIC).partition(1).value(total)).await?;
    }
    patiently(|| producer.commit()).await
}

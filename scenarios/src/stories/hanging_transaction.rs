//! `hanging-transaction` (T02): a late record opens a transaction that nobody will end.
//!
//! An importer writes each file in a transaction of its own, with a transactional id of its own, as
//! jobs do that run once. A produce request is under way for longer than the delivery timeout, so
//! the transaction is aborted, and its marker written. Then the request arrives: its epoch is good,
//! and in the buggy form the leader takes it for the beginning of the next transaction. The
//! coordinator has never heard of that one, so no marker will follow: the last stable offset stays
//! before it for ever, and whoever reads committed records stands still. The fix: the leader asks
//! the coordinator before the first record of a transaction (KIP-890, part 1).
//!
//! See KAFKA-12671, KAFKA-14402, and KIP-890.

use std::time::Duration;

use bus_core::{
    Bus, ConsumerConfig, IsolationLevel, NewTopic, Partition, ProducerConfig, ProducerRecord,
    Recovery, Result, TopicPartition, TransactionConfig, Watermarks,
};
use serde::{Deserialize, Serialize};

use super::read_back::report;
use crate::catalogue::{Application, Form, Kind, WorstDay};
use crate::lifecycle::Lifecycle;
use crate::patience::{create_topic, patiently};
use crate::report::{Broken, PartitionReport, Report};
use crate::setting::Setting;
use crate::store::{Row, Store};

/// The story in the catalogue.
pub const STORY: Application = Application {
    name: "hanging-transaction",
    title: "A late record opens a transaction that nobody will end",
    kind: Kind::Story,
    forms: Form::ALL,
    worst_day: WorstDay {
        options: |form| match form {
            Form::AsWritten => "brokers=1&transaction.partition.verification.enable=false",
            Form::Sound => "brokers=1&transaction.partition.verification.enable=true",
        },
        faults: &["DelayRequest", "CutProcess", "LoseResponse"],
        horizon: Duration::from_secs(8),
    },
    run: |bus, _, setting| Box::pin(run(bus, setting)),
};

/// The guarantee that the bug breaks.
pub const GUARANTEE: &str = "F12 hanging transaction";

const TOPIC: &str = "rows";
const PARTITIONS: Partition = 2;
const FILES: usize = 12;
const ROWS: usize = 3;
/// Between two files.
const PACE: Duration = Duration::from_millis(300);
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(2);
const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(10);
/// When nothing is under way any more: the longest delay of all that happened on the worst day.
const QUIET: Duration = Duration::from_secs(60);

/// A file that was imported.
#[derive(Debug, Serialize, Deserialize)]
struct Imported(String);

impl Row for Imported {
    const TABLE: &'static str = "imported";

    fn key(&self) -> String {
        self.0.clone()
    }
}

/// Imports files, and looks whether all of the topic can be read.
///
/// # Errors
/// Those that no retry gets over.
pub async fn run(bus: Bus, setting: Setting) -> Result<Report> {
    create_topic(&bus, NewTopic::new(TOPIC).partitions(PARTITIONS)).await?;
    let files = setting.size("files", 1..=FILES);
    let (store, life) = (Store::default(), Lifecycle::default());
    let imported = store.clone();
    life.process(&bus, "importer", move |bus| import(bus, files, imported.clone()));
    while store.all::<Imported>()?.len() < files && bus.elapsed() < DEADLINE {
        life.check()?;
        tokio::time::sleep(PACE).await;
    }
    let is_settled = store.all::<Imported>()?.len() == files;
    tokio::time::sleep(QUIET.saturating_sub(bus.elapsed()) + TRANSACTION_TIMEOUT).await;
    let (mut broken, mut partitions) = (Vec::new(), Vec::new());
    for partition in 0..PARTITIONS {
        let here = TopicPartition::new(TOPIC, partition);
        let stable = watermarks(&bus, &here, IsolationLevel::ReadCommitted).await?.high;
        let end = watermarks(&bus, &here, IsolationLevel::ReadUncommitted).await?.high;
        if stable < end {
            broken.push(Broken {
                guarantee: GUARANTEE,
                sentence: format!(
                    "no transaction is open, and {here} is stable up to offset {stable} only; \
                     {} records behind it will never be read",
                    end - stable
                ),
            });
        }
        partitions.push(PartitionReport {
            topic: here.topic,
            partition,
            leader: None,
            records: u64::try_from(end).unwrap_or(0),
            end,
        });
    }
    Ok(report(is_settled, broken, partitions))
}

/// How long the import may take.
const DEADLINE: Duration = Duration::from_mins(5);

async fn watermarks(
    bus: &Bus,
    partition: &TopicPartition,
    isolation_level: IsolationLevel,
) -> Result<Watermarks> {
    let consumer = bus.consumer(ConsumerConfig { isolation_level, ..Default::default() })?;
    patiently(|| consumer.watermarks(partition)).await
}

/// Imports the files that are not, each until its transaction commits.
async fn import(bus: Bus, files: usize, store: Store) -> Result<()> {
    for n in 0..files {
        let file = format!("file-{n:02}");
        let mut attempt = 0;
        let mut transaction = store.begin();
        if transaction.find::<Imported>(&file)?.is_some() {
            continue;
        }
        while let Err(error) = import_file(&bus, &file, n, attempt).await {
            if error.recovery() == Recovery::Fix {
                return Err(error);
            }
            tokio::time::sleep(PACE).await;
            attempt += 1;
        }
        transaction.insert(&Imported(file))?;
        transaction.commit().await?;
        tokio::time::sleep(PACE).await;
    }
    Ok(())
}

/// Imports a file in one transaction; if that fails nothing of it is there.
async fn import_file(bus: &Bus, file: &str, n: usize, attempt: u32) -> Result<()> {
    let config = ProducerConfig { delivery_timeout: DELIVERY_TIMEOUT, ..Default::default() };
    let producer = bus.transactional_producer(
        config,
        TransactionConfig {
            transaction_timeout: TRANSACTION_TIMEOUT,
            ..TransactionConfig::new(format!("import of {file}, attempt {attempt}"))
        },
    )?;
    patiently(|| producer.init_transactions()).await?;
    producer.begin()?;
    let partition = Partition::try_from(n).unwrap_or(0) % PARTITIONS;
    for row in 0..ROWS {
        let record = ProducerRecord::to(TOPIC).partition(partition);
        // A commit fails if one of its deliveries does.
        drop(producer.send(record.value(format!("{file}, row {row}, attempt {attempt}"))));
    }
    let outcome = patiently(|| producer.commit()).await;
    if outcome.as_ref().is_err_and(|error| error.recovery() == Recovery::Abort) {
        patiently(|| producer.abort()).await?;
    }
    // Only connections are left.
    drop(producer.close(Duration::from_secs(1)).await);
    outcome
}

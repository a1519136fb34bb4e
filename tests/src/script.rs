//! Scripts: what a process does that a case starts in order to crash, pause, or restart it.
//!
//! Such a process may be a process of the operating system, so a script is data, and the process
//! reports through the bus: it sends what it does to a topic of the case, and waits for the
//! acknowledgement before it goes on.

mod transactions;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bus_core::{
    Bus, Consumer, ConsumerConfig, ConsumerExt, ErrorKind, Offset, Polled, Producer,
    ProducerConfig, ProducerRecord, RebalanceKind, Recovery, Result, Subscription, TopicPartition,
};
use serde::{Deserialize, Serialize};

/// What a process does.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Script {
    /// The topic that it works on.
    pub topic: String,
    /// The topic that it reports to.
    pub reports: String,
    /// What it does there.
    pub role: Role,
}

/// The part that a process plays.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Role {
    /// Consumes the topic as a member of a group.
    Member {
        /// The configuration, by property names.
        properties: Vec<(String, String)>,
        /// How many records it commits, each after its report; none behind them.
        commits: usize,
        /// Whether it commits its positions after every poll, as one that does not know better.
        insists: bool,
    },
    /// Sends so many records to the topic, one after the other, and reports each.
    Publisher {
        /// How many.
        records: usize,
    },
    /// Sends records to the topic, each in a transaction of its own, until it is stopped.
    Transactor {
        /// Who it is.
        transactional_id: String,
    },
    /// Copies the topic to another one as a member of a group: each batch that a poll returns is a
    /// transaction, with its offsets.
    Copier {
        /// The configuration of the consumer, by property names.
        properties: Vec<(String, String)>,
        /// Who it is.
        transactional_id: String,
        /// Where it copies to: to the partition of the same number.
        output: String,
        /// Where it stands still for good: at this step of the transaction of this number.
        stop: Option<(usize, Step)>,
    },
}

/// A step of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Step {
    /// Its records are acknowledged.
    Sent,
    /// So are its offsets.
    OffsetsSent,
    /// It is committed.
    Committed,
}

impl Role {
    /// A member of this configuration that commits so many records.
    pub fn member(config: &ConsumerConfig, commits: usize) -> Self {
        Self::Member { properties: config.to_properties(), commits, insists: false }
    }

    /// The transactional id, if it has transactions, and the topic that they write to, if that is
    /// another one.
    pub fn transactions(&self) -> Option<(&str, Option<&str>)> {
        match self {
            Self::Member { .. } | Self::Publisher { .. } => None,
            Self::Transactor { transactional_id } => Some((transactional_id, None)),
            Self::Copier { transactional_id, output, .. } => Some((transactional_id, Some(output))),
        }
    }
}

/// What a process reports.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "each says what it says")]
pub enum Report {
    Started,
    Rebalanced(RebalanceKind, Vec<TopicPartition>),
    Delivered(TopicPartition, Offset),
    Committed(TopicPartition, Offset),
    CommitFailed(ErrorKind),
    PollFailed(ErrorKind),
    Published { value: String, at: (TopicPartition, Offset) },
    Reached(usize, Step),
    TransactionFailed(ErrorKind),
    Failed(String),
    Ended,
}

/// Plays a script to its end.
pub async fn play(bus: Bus, script: Script) {
    let config = ProducerConfig { linger: Duration::ZERO, ..Default::default() };
    // Without a producer there is nobody to report to; the case runs into its deadline.
    let Ok(producer) = bus.producer(config) else { return };
    let reporter = Reporter { producer, topic: script.reports.clone() };
    let outcome = match &script.role {
        Role::Member { properties, commits, insists } => {
            consume(&bus, &script, properties, *commits, *insists, &reporter).await
        }
        Role::Publisher { records } => publish(&script, *records, &reporter).await,
        Role::Transactor { transactional_id } => {
            transactions::transact(&bus, &script, transactional_id, &reporter).await
        }
        Role::Copier { properties, transactional_id, output, stop } => {
            let copier = transactions::Copier { properties, transactional_id, output, stop };
            copier.copy(&bus, &script, &reporter).await
        }
    };
    let last = match outcome {
        Ok(()) => Report::Ended,
        Err(error) => Report::Failed(error.to_string()),
    };
    // The case sees that no report comes.
    drop(reporter.report(last).await);
}

struct Reporter {
    producer: Arc<dyn Producer>,
    topic: String,
}

impl Reporter {
    async fn report(&self, report: Report) -> Result<()> {
        let value = serde_json::to_vec(&report).unwrap_or_default();
        self.producer.send(ProducerRecord::to(self.topic.as_str()).value(value)).await?;
        Ok(())
    }
}

async fn consume(
    bus: &Bus,
    script: &Script,
    properties: &[(String, String)],
    mut commits: usize,
    insists: bool,
    reporter: &Reporter,
) -> Result<()> {
    let mut config = ConsumerConfig::default();
    for (name, value) in properties {
        config.set(name, value)?;
    }
    let consumer = bus.consumer(config)?;
    consumer.subscribe(Subscription::topics([script.topic.as_str()]))?;
    reporter.report(Report::Started).await?;
    let mut reported = BTreeMap::new();
    loop {
        match consumer.poll(Duration::from_millis(50)).await {
            Ok(Polled::Records(records)) => {
                for record in &records {
                    let (place, next) = (record.topic_partition(), record.next_offset());
                    reporter.report(Report::Delivered(place.clone(), record.offset)).await?;
                    if commits > 0 {
                        commits -= 1;
                        consumer.commit_record(record).await?;
                        reporter.report(Report::Committed(place, next)).await?;
                    }
                }
            }
            Ok(Polled::Rebalance(guard)) => {
                let (kind, partitions) = (guard.kind(), guard.partitions().to_vec());
                guard.complete().await?;
                reporter.report(Report::Rebalanced(kind, partitions)).await?;
            }
            Err(error) => {
                reporter.report(Report::PollFailed(error.kind())).await?;
                if error.recovery() == Recovery::Close {
                    return Err(error);
                }
            }
        }
        if insists {
            insist(&consumer, &mut reported, reporter).await?;
        }
    }
}

/// Commits all positions, and reports those that are new; a refusal is reported and nothing more.
async fn insist(
    consumer: &Arc<dyn Consumer>,
    reported: &mut BTreeMap<TopicPartition, Offset>,
    reporter: &Reporter,
) -> Result<()> {
    let mut positions = BTreeMap::new();
    for place in consumer.assignment() {
        positions.extend(consumer.position(&place).ok().flatten().map(|offset| (place, offset)));
    }
    let offsets: Vec<_> =
        positions.iter().map(|(place, offset)| (place.clone(), (*offset).into())).collect();
    if offsets.is_empty() {
        return Ok(());
    }
    if let Err(error) = consumer.commit(&offsets).await {
        return reporter.report(Report::CommitFailed(error.kind())).await;
    }
    for (place, offset) in positions {
        if reported.insert(place.clone(), offset) != Some(offset) {
            reporter.report(Report::Committed(place, offset)).await?;
        }
    }
    Ok(())
}

async fn publish(script: &Script, records: usize, reporter: &Reporter) -> Result<()> {
    reporter.report(Report::Started).await?;
    for n in 0..records {
        let value = format!("published {n}");
        let record = ProducerRecord::to(script.topic.as_str()).partition(0).value(value.clone());
        let metadata = reporter.producer.send(record).await?;
        let at = (metadata.topic_partition, metadata.offset.unwrap_or_default());
        reporter.report(Report::Published { value, at }).await?;
    }
    Ok(())
}

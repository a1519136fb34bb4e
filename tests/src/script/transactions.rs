//! The scripts with transactions.

use std::collections::BTreeMap;
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use bus_core::{
    Bus, Consumer, ConsumerConfig, ErrorKind, Offset, OffsetAndMetadata, Polled, ProducerConfig,
    ProducerExt, ProducerRecord, Record, Recovery, Result, StartAt, Subscription, TopicPartition,
    TransactionConfig, TransactionalProducer,
};

use super::{Report, Reporter, Script, Step};

/// Sends records, each in a transaction of its own.
pub(super) async fn transact(
    bus: &Bus,
    script: &Script,
    transactional_id: &str,
    reporter: &Reporter,
) -> Result<()> {
    let producer = producer(bus, transactional_id).await?;
    reporter.report(Report::Started).await?;
    for n in 0.. {
        let value = format!("{transactional_id} {n}");
        let record = ProducerRecord::to(script.topic.as_str()).partition(0).value(value);
        let sent = async {
            producer.begin()?;
            producer.send(record).await?;
            reporter.report(Report::Reached(n, Step::Sent)).await?;
            producer.commit().await
        };
        if let Err(error) = sent.await {
            return reporter.report(Report::TransactionFailed(error.kind())).await;
        }
        reporter.report(Report::Reached(n, Step::Committed)).await?;
    }
    Ok(())
}

async fn producer(bus: &Bus, transactional_id: &str) -> Result<Arc<dyn TransactionalProducer>> {
    let config = ProducerConfig { linger: Duration::ZERO, ..Default::default() };
    let transaction = TransactionConfig::new(transactional_id);
    let producer = bus.transactional_producer(config, transaction)?;
    producer.init_transactions().await?;
    Ok(producer)
}

/// Copies one topic to another.
#[derive(Debug)]
pub(super) struct Copier<'a> {
    pub(super) properties: &'a [(String, String)],
    pub(super) transactional_id: &'a str,
    pub(super) output: &'a str,
    pub(super) stop: &'a Option<(usize, Step)>,
}

impl Copier<'_> {
    pub(super) async fn copy(&self, bus: &Bus, script: &Script, reporter: &Reporter) -> Result<()> {
        let mut config = ConsumerConfig::default();
        for (name, value) in self.properties {
            config.set(name, value)?;
        }
        // The older incarnation is fenced before the group tells where to start.
        let producer = producer(bus, self.transactional_id).await?;
        let consumer = bus.consumer(config)?;
        consumer.subscribe(Subscription::topics([script.topic.as_str()]))?;
        reporter.report(Report::Started).await?;
        let mut number = 0;
        loop {
            let records = match consumer.poll(Duration::from_millis(50)).await? {
                Polled::Rebalance(guard) => {
                    guard.complete().await?;
                    continue;
                }
                Polled::Records(records) if records.is_empty() => continue,
                Polled::Records(records) => records,
            };
            let copied = self.transaction(number, &consumer, &producer, &records, reporter).await;
            number += 1;
            let Err(error) = copied else { continue };
            reporter.report(Report::TransactionFailed(error.kind())).await?;
            match error.recovery() {
                Recovery::Abort => {
                    producer.abort().await?;
                    rewind(&consumer).await?;
                }
                Recovery::Close => return Ok(()),
                Recovery::Retry | Recovery::Rejoin | Recovery::Fix => return Err(error),
            }
        }
    }

    async fn transaction(
        &self,
        number: usize,
        consumer: &Arc<dyn Consumer>,
        producer: &Arc<dyn TransactionalProducer>,
        records: &[Record],
        reporter: &Reporter,
    ) -> Result<()> {
        producer.begin()?;
        let copies = records.iter().map(|record| ProducerRecord {
            key: record.key.clone(),
            value: record.value.clone(),
            ..ProducerRecord::to(self.output).partition(record.partition)
        });
        producer
            .send_all(copies.collect::<Vec<_>>())
            .await
            .into_iter()
            .collect::<Result<Vec<_>>>()?;
        self.reached(number, Step::Sent, reporter).await?;
        let next: BTreeMap<TopicPartition, Offset> =
            records.iter().map(|record| (record.topic_partition(), record.next_offset())).collect();
        let offsets: Vec<(TopicPartition, OffsetAndMetadata)> =
            next.into_iter().map(|(place, offset)| (place, offset.into())).collect();
        let group = consumer.group_metadata().ok_or(ErrorKind::InvalidGroupId)?;
        producer.send_offsets(&offsets, &group).await?;
        self.reached(number, Step::OffsetsSent, reporter).await?;
        producer.commit().await?;
        self.reached(number, Step::Committed, reporter).await
    }

    async fn reached(&self, number: usize, step: Step, reporter: &Reporter) -> Result<()> {
        reporter.report(Report::Reached(number, step)).await?;
        if *self.stop == Some((number, step)) {
            pending::<()>().await;
        }
        Ok(())
    }
}

/// Goes back to what the group has committed.
async fn rewind(consumer: &Arc<dyn Consumer>) -> Result<()> {
    let places = consumer.assignment();
    for (place, committed) in places.iter().zip(consumer.committed(&places).await?) {
        let to =
            committed.map_or(StartAt::Beginning, |committed| StartAt::Offset(committed.offset));
        consumer.seek(place, to).await?;
    }
    Ok(())
}

//! Producers: sends and what came of each record.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bus_core::{
    Acks, ErrorKind, Headers, Producer, ProducerConfig, ProducerRecord, RecordMetadata, Result,
    Timestamp,
};

use super::Interpreter;
use crate::outcome::{Action, Fault, Outcome, Sent};
use crate::program::{ProducerSpec, ProducerStep, RecordSpec, Sending};
use crate::slot::{Place, ProducerSlot, TransactorSlot};

/// How long a record that can be delivered may take.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(8);

/// How long a close waits for what is in the buffer; each step has awaited its own.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

impl Interpreter<'_> {
    pub(super) async fn producer(
        &mut self,
        index: usize,
        slot: ProducerSlot,
        step: &ProducerStep,
    ) -> Outcome {
        if *step == ProducerStep::Reopen
            && let Some(old) = self.producers.remove(&slot)
        {
            drop(old.close(CLOSE_TIMEOUT).await);
        }
        let producer = match self.open_producer(slot) {
            Ok(producer) => producer,
            Err(error) => return Outcome::Failed(Fault::from(&error)),
        };
        match step {
            ProducerStep::Send(sending) => {
                let is_silent = self.program.producer(slot).acks == Acks::None;
                let sent = if is_silent {
                    self.send_silently(index, &*producer, sending).await
                } else {
                    self.send(index, &*producer, sending, None).await
                };
                Outcome::Sent(sent)
            }
            ProducerStep::Flush => Outcome::done(producer.flush().await),
            ProducerStep::PartitionsFor(topic) => {
                let topic = self.names.topic(*topic);
                Outcome::of(producer.partitions_for(topic).await, Outcome::Partitions)
            }
            ProducerStep::Close => Outcome::done(producer.close(CLOSE_TIMEOUT).await),
            ProducerStep::Reopen => Outcome::Done,
        }
    }

    fn open_producer(&mut self, slot: ProducerSlot) -> Result<Arc<dyn Producer>> {
        if let Some(producer) = self.producers.get(&slot) {
            return Ok(Arc::clone(producer));
        }
        let producer = self.bus.producer(producer_config(&self.program.producer(slot))?)?;
        self.producers.insert(slot, Arc::clone(&producer));
        Ok(producer)
    }

    /// Sends records and awaits their deliveries.
    pub(super) async fn send<P: Producer + ?Sized>(
        &mut self,
        index: usize,
        producer: &P,
        sending: &Sending,
        by: Option<TransactorSlot>,
    ) -> Vec<Sent> {
        let mut sent = Vec::with_capacity(sending.records.len());
        let mut under_way = Vec::new();
        for (n, record) in sending.records.iter().enumerate() {
            if let Some(reason) = self.exclusions.record(index, n) {
                sent.push(Sent::Excluded(reason));
                continue;
            }
            let delivery = producer.send(self.record(record));
            if sending.one_by_one {
                sent.push(self.sent(delivery.await));
            } else {
                under_way.push((sent.len(), delivery));
                // Its outcome comes here.
                sent.push(Sent::At(Place::new(record.to, -1), None, None));
            }
        }
        for (n, delivery) in under_way {
            sent[n] = self.sent(delivery.await);
        }
        for (outcome, record) in sent.iter().zip(&sending.records) {
            match (outcome, by) {
                (Sent::At(place, Some(offset), _), _) => self.ledger.append(*place, *offset, by),
                // In a failed transaction nothing is sent.
                (Sent::Failed(fault), Some(by))
                    if fault.recovery == Action::Abort && fault.kind != ErrorKind::InvalidState =>
                {
                    let partition = record.partition.unwrap_or(0);
                    self.ledger.touch(Place::new(record.to, partition), by);
                }
                _ => {}
            }
        }
        sent
    }

    /// Sends records that no broker acknowledges, and waits until they are in the log.
    async fn send_silently(
        &mut self,
        index: usize,
        producer: &dyn Producer,
        sending: &Sending,
    ) -> Vec<Sent> {
        let mut ends = BTreeMap::new();
        for topic in sending.records.iter().map(|record| record.to).collect::<BTreeSet<_>>() {
            let described = self.admin.describe_topic(self.names.topic(topic)).await;
            for partition in described.into_iter().flat_map(|topic| topic.partitions) {
                let place = Place::new(topic, partition.partition);
                if let Some(end) = self.end(place).await {
                    ends.insert(place, end);
                }
            }
        }
        let sent = self.send(index, producer, sending, None).await;
        let mut expected = BTreeMap::new();
        for outcome in &sent {
            if let Sent::At(place, None, _) = outcome
                && let Some(end) = ends.get(place)
            {
                *expected.entry(*place).or_insert(*end) += 1;
            }
        }
        self.await_ends(&expected).await;
        for (place, end) in ends {
            let now = self.end(place).await.unwrap_or(end);
            (end..now).for_each(|offset| self.ledger.append(place, offset, None));
        }
        sent
    }

    /// Waits until partitions have so many records; a record that was dropped never comes, so not
    /// for long.
    pub(super) async fn await_ends(&self, expected: &BTreeMap<Place, i64>) {
        const ATTEMPTS: u32 = 100;
        const PAUSE: Duration = Duration::from_millis(10);

        for _ in 0..ATTEMPTS {
            let mut is_there = true;
            for (place, expected) in expected {
                is_there &= self.end(*place).await.is_none_or(|end| end >= *expected);
            }
            if is_there {
                return;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// The high watermark of a partition, if it exists.
    pub(super) async fn end(&self, place: Place) -> Option<i64> {
        let place = self.names.place(place);
        Some(self.probe.watermarks(&place).await.ok()?.high)
    }

    fn record(&self, spec: &RecordSpec) -> ProducerRecord {
        let mut headers = Headers::new();
        for (name, value) in &spec.headers {
            headers.push(name.as_str(), value.to_bytes());
        }
        ProducerRecord {
            topic: self.names.topic(spec.to),
            partition: spec.partition,
            key: spec.key.to_bytes(),
            value: spec.value.to_bytes(),
            headers,
            timestamp: spec.timestamp.map(Timestamp::from_millis),
        }
    }

    fn sent(&self, outcome: Result<RecordMetadata>) -> Sent {
        match outcome {
            Ok(metadata) => {
                let place = self.names.place_of(&metadata.topic_partition);
                let strange = Place::new(crate::slot::TopicSlot::Missing, -1);
                let time = metadata.timestamp.map(Into::into);
                Sent::At(place.unwrap_or(strange), metadata.offset, time)
            }
            Err(error) => Sent::Failed(Fault::from(&error)),
        }
    }
}

/// The configuration of a producer of a program.
pub(super) fn producer_config(spec: &ProducerSpec) -> Result<ProducerConfig> {
    let defaults = ProducerConfig::default();
    let mut config = ProducerConfig {
        acks: spec.acks,
        enable_idempotence: spec.idempotence,
        linger: Duration::from_millis(spec.linger_ms.into()),
        batch_records: spec.batch_records.unwrap_or(defaults.batch_records),
        max_request_size: spec.max_request_size.unwrap_or(defaults.max_request_size),
        compression: spec.compression,
        delivery_timeout: DELIVERY_TIMEOUT,
        ..defaults
    };
    for (name, value) in &spec.properties {
        config.set(name, value)?;
    }
    Ok(config)
}

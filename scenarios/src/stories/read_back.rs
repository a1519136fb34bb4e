//! What stories without a group share: what is in a topic when all is over.

use std::collections::BTreeSet;
use std::time::Duration;

use bus_core::{
    Bus, ConsumerConfig, ConsumerExt as _, IsolationLevel, Offset, Partition, ProducerConfig,
    ProducerRecord, Record, Result, StartAt, Topic, TopicPartition,
};

use crate::patience::patiently;
use crate::report::{Broken, PartitionReport, Report, Verdict};

/// A topic as a reader sees it that comes when all is over.
#[derive(Debug)]
pub struct ReadBack {
    /// The records in order per partition.
    pub records: Vec<Record>,
    /// Whether the reader came to the end of each partition.
    pub is_complete: bool,
    partitions: Vec<PartitionReport>,
}

/// The key of the record that ends a partition.
const END: &[u8] = b"end of the story";
/// How long reading may take: longer than any fault lasts.
const DEADLINE: Duration = Duration::from_mins(3);

impl ReadBack {
    /// Reads a topic from its start to a record that is put behind all others.
    ///
    /// # Errors
    /// Those that no retry gets over.
    pub async fn of(bus: &Bus, topic: &str, isolation_level: IsolationLevel) -> Result<Self> {
        let producer = bus.producer(ProducerConfig::default())?;
        let count = patiently(|| producer.partitions_for(Topic::from(topic))).await?;
        for partition in 0..count {
            let end = || producer.send(ProducerRecord::to(topic).partition(partition).key(END));
            patiently(end).await?;
        }
        let config = ConsumerConfig { isolation_level, ..Default::default() };
        let consumer = bus.consumer(config)?;
        let from_start = |partition| (TopicPartition::new(topic, partition), StartAt::Beginning);
        consumer.assign(&(0..count).map(from_start).collect::<Vec<_>>())?;
        let (mut records, mut ended) = (Vec::<Record>::new(), BTreeSet::new());
        let begun = bus.elapsed();
        while ended.len() < as_count(count) && bus.elapsed().saturating_sub(begun) < DEADLINE {
            for record in consumer.poll_records(Duration::from_secs(1)).await? {
                if record.key.as_deref() == Some(END) {
                    ended.insert(record.partition);
                } else if !ended.contains(&record.partition) {
                    records.push(record);
                }
            }
        }
        let is_complete = ended.len() == as_count(count);
        let partitions = (0..count).map(|partition| seen(topic, partition, &records)).collect();
        Ok(Self { records, is_complete, partitions })
    }

    /// The report of a run: stalled unless the reader came to the end.
    pub fn report(self, is_settled: bool, broken: Vec<Broken>) -> Report {
        let is_settled = is_settled && self.is_complete;
        report(is_settled, broken, self.partitions)
    }
}

/// The report of a run without a group.
pub fn report(is_settled: bool, broken: Vec<Broken>, partitions: Vec<PartitionReport>) -> Report {
    let verdict = match (is_settled, broken.is_empty()) {
        (true, true) => Verdict::Held,
        (true, false) => Verdict::Violated,
        // What is missing may only be late.
        (false, _) => Verdict::Stalled,
    };
    let note = if is_settled { "all work was done" } else { "the work did not come to its end" };
    Report {
        verdict,
        broken: if is_settled { broken } else { Vec::new() },
        notes: vec![note.to_owned()],
        records: partitions.iter().map(|partition| partition.records).sum(),
        partitions,
        groups: Vec::new(),
    }
}

fn seen(topic: &str, partition: Partition, records: &[Record]) -> PartitionReport {
    let here = records.iter().filter(|record| record.partition == partition);
    let end: Offset = here.clone().map(Record::next_offset).max().unwrap_or(0);
    PartitionReport {
        topic: Topic::from(topic),
        partition,
        leader: None,
        records: here.count() as u64,
        end,
    }
}

fn as_count(partitions: Partition) -> usize {
    usize::try_from(partitions).unwrap_or(0)
}

//! Reads topics back when all is over, as somebody who looks for a lost record does.

use std::time::Duration;

use bus_core::{
    Bus, ConsumerConfig, ConsumerExt as _, Offset, Record, Result, StartAt, Topic, TopicPartition,
};

use crate::patience::patiently;
use crate::report::{Broken, Report, Verdict};

/// All records of a topic that are there now, in the order of partitions and offsets.
///
/// # Errors
/// Those that no retry gets over.
pub async fn read_back(bus: &Bus, topic: &str) -> Result<Vec<Record>> {
    let admin = bus.admin()?;
    let described = patiently(|| admin.describe_topic(topic.into())).await?;
    let consumer = bus.consumer(ConsumerConfig::default())?;
    let topic = Topic::from(topic);
    let mut records = Vec::new();
    for partition in described.partitions {
        let place = TopicPartition::new(&topic, partition.partition);
        let end = patiently(|| consumer.watermarks(&place)).await?.high;
        consumer.assign(&[(place, StartAt::Beginning)])?;
        let mut next: Offset = 0;
        while next < end {
            for record in patiently(|| consumer.poll_records(Duration::from_secs(1))).await? {
                next = record.offset + 1;
                records.push(record);
            }
        }
    }
    consumer.close().await?;
    Ok(records)
}

/// The report of a story without groups that has come to its end.
pub fn report(records: usize, broken: Vec<Broken>) -> Report {
    Report {
        verdict: if broken.is_empty() { Verdict::Held } else { Verdict::Violated },
        broken,
        notes: vec![format!("{records} records were read back")],
        records: u64::try_from(records).unwrap_or(u64::MAX),
        partitions: Vec::new(),
        groups: Vec::new(),
    }
}

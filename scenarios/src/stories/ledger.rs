//! Ledger: what a group was told to be committed for certain, and what it was given all the same.
//!
//! A committed offset that goes back is seen by nobody at once. Whoever starts from it sees it: it
//! is given records that were done. So a story that is about this ends with a restart of the group,
//! and only that is judged: before it, a member that was thought dead may go on for a while with
//! what it had fetched, and is right to.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bus_core::{
    Bus, ConsumerExt as _, Offset, OffsetAndMetadata, Record, Recovery, Result, Subscription,
    TopicPartition,
};
use parking_lot::Mutex;

use super::common::value;
use super::member;
use crate::report::Broken;

/// The guarantee that a commit which is overwritten by an older one breaks.
pub const GUARANTEE: &str = "E7 given-again-after-the-commit";

/// The ledger of a group; outside of its processes. Cheap to clone; its clones are one.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    entries: Arc<Mutex<Entries>>,
}

#[derive(Debug, Default)]
struct Entries {
    /// The greatest offset that a commit succeeded with.
    certain: BTreeMap<TopicPartition, Offset>,
    again: BTreeSet<String>,
}

impl Ledger {
    /// A commit has succeeded.
    pub fn committed(&self, offsets: &[(TopicPartition, OffsetAndMetadata)]) {
        let mut entries = self.entries.lock();
        for (topic_partition, committed) in offsets {
            let certain = entries.certain.entry(topic_partition.clone()).or_default();
            *certain = committed.offset.max(*certain);
        }
    }

    /// The group, restarted, was given a record.
    fn given(&self, record: &Record) {
        let mut entries = self.entries.lock();
        let topic_partition = record.topic_partition();
        let certain = entries.certain.get(&topic_partition).copied().unwrap_or(0);
        if record.offset < certain {
            entries.again.insert(format!(
                "{} (offset {} of {topic_partition}) was given again, although the group had \
                 committed {certain} for certain",
                value(record),
                record.offset,
            ));
        }
    }

    /// Restarts the group, whose members have ended: whatever it is given then, the ledger knows.
    /// Returns whether it came to the end of the topic in time.
    ///
    /// # Errors
    /// Those that a person must fix.
    pub async fn restart(&self, bus: &Bus, group: &str, topic: &str) -> Result<bool> {
        let consumer = bus.consumer(member::config("restart", group))?;
        consumer.subscribe(Subscription::topics([topic]))?;
        let begun = bus.elapsed();
        let mut quiet = 0;
        while quiet < QUIET && bus.elapsed().saturating_sub(begun) < DEADLINE {
            match consumer.poll_records(Duration::from_secs(1)).await {
                Ok(records) if records.is_empty() && !consumer.assignment().is_empty() => {
                    quiet += 1;
                }
                Ok(records) => {
                    records.iter().for_each(|record| self.given(record));
                    quiet = 0;
                }
                Err(error) if error.recovery() == Recovery::Fix => return Err(error),
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
        member::is_certain(consumer.commit_positions().await)?;
        consumer.close().await?;
        Ok(quiet == QUIET)
    }

    /// What was given again.
    pub fn broken(&self) -> Vec<Broken> {
        let entries = self.entries.lock();
        let again = entries.again.iter();
        again.map(|sentence| Broken { guarantee: GUARANTEE, sentence: sentence.clone() }).collect()
    }
}

/// Polls without a record after which nothing is expected any more.
const QUIET: u32 = 3;
const DEADLINE: Duration = Duration::from_mins(2);

#[cfg(test)]
mod tests {
    use bus_core::{Headers, Timestamp, TimestampType};

    use super::*;

    fn record(offset: Offset) -> Record {
        Record {
            topic: "t".into(),
            partition: 0,
            offset,
            timestamp: Timestamp::EPOCH,
            timestamp_type: TimestampType::CreateTime,
            leader_epoch: None,
            key: None,
            value: Some(format!("r{offset}").into()),
            headers: Headers::default(),
        }
    }

    #[test]
    fn only_what_was_committed_for_certain_must_not_come_again() {
        let ledger = Ledger::default();
        let partition = TopicPartition::new("t", 0);
        for offset in [2, 5, 4] {
            ledger.committed(&[(partition.clone(), offset.into())]);
        }
        ledger.given(&record(5));
        assert!(ledger.broken().is_empty());
        ledger.given(&record(4));
        let broken = ledger.broken();
        assert!(
            broken[0].sentence.starts_with("r4 (offset 4 of t-0) was given again"),
            "{broken:?}"
        );
    }
}

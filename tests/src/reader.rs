//! A consumer with all that it was given.

use std::collections::BTreeSet;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use bus_core::{
    Commit, Consumer, ConsumerExt, Error, Polled, Rebalance, RebalanceKind, Record, Recovery,
    Result, TopicPartition,
};
use parking_lot::Mutex;

/// A consumer with all that it was given: a subscribed member, or an assigned reader.
#[derive(Debug)]
pub struct Reader {
    consumer: Arc<dyn Consumer>,
    given: Mutex<Given>,
    commits_on_revoke: bool,
}

#[derive(Debug, Default)]
struct Given {
    records: Vec<Record>,
    rebalances: Vec<Rebalance>,
}

impl Reader {
    /// A reader that was given nothing yet.
    pub fn new(consumer: Arc<dyn Consumer>) -> Self {
        Self { consumer, given: Mutex::default(), commits_on_revoke: false }
    }

    /// A reader that commits its positions before it gives partitions up.
    #[must_use]
    pub fn committing(self) -> Self {
        Self { commits_on_revoke: true, ..self }
    }

    /// Polls once, and completes the rebalance if that is what comes.
    ///
    /// # Errors
    /// That of the poll.
    pub async fn step(&self, timeout: Duration) -> Result<()> {
        match self.consumer.poll(timeout).await? {
            Polled::Records(records) => self.given.lock().records.extend(records),
            Polled::Rebalance(guard) => {
                if self.commits_on_revoke && guard.kind() == RebalanceKind::Revoked {
                    self.commit_positions().await.or_else(unless_rejoining)?;
                }
                let rebalance = guard.rebalance().clone();
                guard.complete().await?;
                self.given.lock().rebalances.push(rebalance);
            }
        }
        Ok(())
    }

    /// Commits everything that was delivered of the partitions that it owns.
    pub fn commit_positions(&self) -> Commit {
        self.consumer.commit_positions()
    }

    /// Everything that it was given, in order.
    pub fn records(&self) -> Vec<Record> {
        self.given.lock().records.clone()
    }

    /// How many records it was given.
    pub fn count(&self) -> usize {
        self.given.lock().records.len()
    }

    /// The offsets that it was given of one partition, in order.
    pub fn offsets(&self, place: &TopicPartition) -> Vec<i64> {
        let given = self.given.lock();
        let records = given.records.iter().filter(|record| record.topic_partition() == *place);
        records.map(|record| record.offset).collect()
    }

    /// The values that it was given, as text, in order.
    pub fn values(&self) -> Vec<String> {
        let given = self.given.lock();
        let values = given.records.iter().map(|record| record.value.as_deref().unwrap_or_default());
        values.map(|value| String::from_utf8_lossy(value).into_owned()).collect()
    }

    /// The partitions of which it was given records.
    pub fn seen(&self) -> BTreeSet<TopicPartition> {
        self.given.lock().records.iter().map(Record::topic_partition).collect()
    }

    /// The rebalances that it went through, in order.
    pub fn rebalances(&self) -> Vec<Rebalance> {
        self.given.lock().rebalances.clone()
    }

    /// How many rebalances of this kind it went through.
    pub fn rebalanced(&self, kind: RebalanceKind) -> usize {
        self.given.lock().rebalances.iter().filter(|rebalance| rebalance.kind == kind).count()
    }

    /// Forgets what it was given so far.
    pub fn forget(&self) {
        *self.given.lock() = Given::default();
    }
}

impl Deref for Reader {
    type Target = dyn Consumer;

    fn deref(&self) -> &Self::Target {
        &*self.consumer
    }
}

/// Takes a commit that fails because the group rebalances for done: the records come again.
///
/// # Errors
/// Every other error.
pub fn unless_rejoining(error: Error) -> Result<()> {
    if error.recovery() == Recovery::Rejoin { Ok(()) } else { Err(error) }
}

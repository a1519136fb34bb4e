//! The audit: when all is over, fresh readers read every log from its start to its end.
//!
//! It decides what a running application leaves open: whether a record that nobody has read yet is
//! late or lost. One reader sees what `read_uncommitted` shows, another what `read_committed` does.

use std::collections::BTreeSet;
use std::time::Duration;

use bus_core::{
    Bus, Consumer, ConsumerConfig, ConsumerExt as _, Error, ErrorKind, IsolationLevel, Partition,
    Result, StartAt, Topic, TopicPartition, Watermarks,
};

use super::Recorder;
use crate::history::{Call, Client, Note, Role, What};

/// How long one poll takes at most.
const STEP: Duration = Duration::from_millis(200);

/// For how long a reader waits for the next record. The end of a log may be control records, which
/// no reader is shown, so at some time it must take silence for the end.
const PATIENCE: Duration = Duration::from_secs(3);

impl Recorder {
    /// Reads every log of the history's topics from its start to its end, and notes it; and asks
    /// what each group has committed.
    ///
    /// Call it when the application is over and all faults are healed.
    ///
    /// # Errors
    /// That of the backend, but for topics that are gone; [`ErrorKind::InvalidState`] if no bus is
    /// recorded.
    pub async fn audit(&self) -> Result<()> {
        let Some(bus) = self.shared.lives.lock().bus.clone() else {
            return Err(Error::new(ErrorKind::InvalidState, "no bus is recorded"));
        };
        let recorded = self.of_process(&bus, PROCESS, 1);
        let admin = recorded.admin()?;
        for topic in self.topics() {
            let partitions = match admin.describe_topic(topic.clone()).await {
                Ok(description) => description.partitions.len(),
                Err(error) if error.kind() == ErrorKind::UnknownTopicOrPartition => continue,
                Err(error) => return Err(error),
            };
            for isolation in [IsolationLevel::ReadUncommitted, IsolationLevel::ReadCommitted] {
                for partition in 0..Partition::try_from(partitions).unwrap_or(Partition::MAX) {
                    let place = TopicPartition::new(&topic, partition);
                    self.audit_partition(&recorded, &place, isolation).await?;
                }
            }
        }
        for group in self.groups() {
            match admin.group_offsets(&group).await {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::GroupIdNotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// The groups of the consumers.
    fn groups(&self) -> BTreeSet<String> {
        let writer = self.shared.writer.lock();
        let history = writer.history();
        let group = |client: &Client| match &client.role {
            Role::Consumer(facts) => facts.group.map(|group| history.name(group).to_owned()),
            Role::Producer(_) | Role::Admin => None,
        };
        history.clients().iter().filter_map(group).collect()
    }

    /// The topics that the application works on.
    fn topics(&self) -> BTreeSet<Topic> {
        let writer = self.shared.writer.lock();
        let history = writer.history();
        let mut topics = BTreeSet::new();
        for entry in history.entries() {
            if let What::Invoke(_, call) = &entry.what {
                match call {
                    Call::Send(sent) => topics.insert(sent.topic),
                    Call::CreateTopic { topic, .. } => topics.insert(*topic),
                    Call::Subscribe(subscribed) => {
                        topics.extend(subscribed.iter().copied());
                        continue;
                    }
                    _ => continue,
                };
            }
        }
        topics.into_iter().map(|id| history.topics()[id.index()].clone()).collect()
    }

    /// Whether logs may hold control records.
    fn has_transactions(&self) -> bool {
        let writer = self.shared.writer.lock();
        let clients = writer.history().clients();
        clients.iter().any(
            |client| matches!(&client.role, Role::Producer(facts) if facts.transaction.is_some()),
        )
    }

    async fn audit_partition(
        &self,
        bus: &Bus,
        place: &TopicPartition,
        isolation: IsolationLevel,
    ) -> Result<()> {
        let config = ConsumerConfig { isolation_level: isolation, ..Default::default() };
        let consumer = bus.consumer(config)?;
        let pen = self.shared.lives.lock().consumers.get(&super::address(&consumer)).cloned();
        let ends = ends(bus, &*consumer, place).await?;
        consumer.assign(&[(place.clone(), StartAt::Offset(ends.low))])?;
        let mut silent_since = bus.elapsed();
        loop {
            let reached = consumer.position(place)?.unwrap_or(ends.low);
            if reached >= ends.high || bus.elapsed() - silent_since >= PATIENCE {
                break;
            }
            if !consumer.poll_records(STEP).await?.is_empty() {
                silent_since = bus.elapsed();
            }
        }
        let reached = consumer.position(place)?.unwrap_or(ends.low);
        let is_complete = reached >= ends.high || self.has_transactions();
        if let Some(pen) = pen.filter(|_| is_complete) {
            pen.write(|writer, at, client| {
                let partition = writer.partition(&place.topic, place.partition);
                let note = Note::Audited { partition, low: ends.low, high: ends.high };
                writer.note(at, client, note);
            });
        }
        consumer.close().await
    }
}

/// The ends of a log. A broker that was cut off may not have heard of the topic yet.
async fn ends(bus: &Bus, consumer: &dyn Consumer, place: &TopicPartition) -> Result<Watermarks> {
    let begun = bus.elapsed();
    loop {
        match consumer.watermarks(place).await {
            Err(error)
                if error.kind() == ErrorKind::UnknownTopicOrPartition
                    && bus.elapsed() - begun < HEARSAY =>
            {
                tokio::time::sleep(STEP).await;
            }
            outcome => return outcome,
        }
    }
}

/// For how long a broker may not have heard of a topic: a few sessions with the controller.
const HEARSAY: Duration = Duration::from_secs(30);

/// The process of the readers.
const PROCESS: &str = "audit";

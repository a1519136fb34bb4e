//! Replication: followers, high watermarks, who is in sync, and failover.

mod failover;
mod in_sync;
mod laws;
mod watermark;

use std::time::Duration;

use bus_core::{Acks, ErrorKind, Offset, Topic, TopicPartition, Uuid};

use super::{Cluster, batch, produce_request, response_of};
use crate::broker::replica::Replica;
use crate::config::{BrokerConfig, SimConfig};
use crate::node::{BrokerId, ConnectionId, NodeId};
use crate::protocol::batch::StoredBatch;
use crate::protocol::cluster::{MetadataRecord, PartitionState};
use crate::protocol::produce;

/// How long a follower's fetch waits.
const WAIT: Duration = Duration::from_millis(500);

fn orders() -> TopicPartition {
    TopicPartition::new("orders", 0)
}

impl Cluster {
    /// Brokers 1 to `brokers`, each with a replica of `orders`, which broker 1 leads.
    fn replicated(brokers: BrokerId, config: BrokerConfig, topic_config: &[(&str, &str)]) -> Self {
        let config = SimConfig { brokers, broker: config, ..Default::default() };
        Self::replicated_with(config, topic_config)
    }

    fn replicated_with(mut config: SimConfig, topic_config: &[(&str, &str)]) -> Self {
        // Nothing else is replicated, so that no fetch of it is under way.
        config.broker.offsets_topic_replication_factor = 1;
        config.broker.transaction_state_replication_factor = 1;
        let replicas: Vec<_> = (1..=config.brokers).collect();
        let mut cluster = Self::new(config);
        let topic = Topic::from("orders");
        let property = |(name, value): &(&str, &str)| (name.to_string(), Some(value.to_string()));
        cluster.write(vec![
            MetadataRecord::Topic { topic: topic.clone(), topic_id: Uuid::from_u128(7) },
            MetadataRecord::TopicConfig {
                topic: topic.clone(),
                config: topic_config.iter().map(property).collect(),
            },
            MetadataRecord::Partition { topic, partition: 0, state: PartitionState::new(replicas) },
        ]);
        cluster
    }

    fn state(&self) -> &PartitionState {
        self.controller.image.partition(&orders()).unwrap()
    }

    /// Makes a broker the leader, as the controller does.
    fn elect(&mut self, leader: Option<BrokerId>, in_sync_replicas: &[BrokerId]) {
        let mut state = self.state().clone();
        state.leader = leader;
        state.in_sync_replicas = in_sync_replicas.to_vec();
        state.leader_epoch += 1;
        state.partition_epoch += 1;
        self.write(vec![MetadataRecord::Partition { topic: "orders".into(), partition: 0, state }]);
    }

    fn replica(&self, broker: BrokerId) -> &Replica {
        &self.brokers[&broker].0.replicas[&orders()]
    }

    /// Per broker, where its log ends and its high watermark.
    fn ends(&self) -> Vec<(Offset, Offset)> {
        let brokers = self.brokers.keys();
        brokers
            .map(|id| (self.replica(*id).log.end(), self.replica(*id).high_watermark()))
            .collect()
    }

    /// Sends a batch of one record to a broker.
    fn send_to(&mut self, broker: BrokerId, acks: Acks, value: i64) -> (ConnectionId, u32) {
        let connection = self.connect(broker);
        let sent = self.send(connection, produce_request(acks, "orders", batch(&[value])));
        (connection, sent)
    }

    fn answer(
        &mut self,
        sent: (ConnectionId, u32),
    ) -> Option<Result<produce::Appended, ErrorKind>> {
        let response = self.take(sent.0, sent.1)?;
        Some(response_of!(Produce, response).partitions.remove(0).result)
    }

    /// Sends a batch of one record to a broker, and waits for the answer.
    fn append(&mut self, broker: BrokerId, acks: Acks, value: i64) -> Result<Offset, ErrorKind> {
        let sent = self.send_to(broker, acks, value);
        self.advance(Duration::ZERO);
        self.answer(sent).expect("an answer").map(|appended| appended.base_offset)
    }

    /// Holds all messages between two brokers.
    fn cut_brokers(&mut self, a: BrokerId, b: BrokerId) {
        self.cut(NodeId::Broker(a), NodeId::Broker(b));
    }

    fn log(&self, broker: BrokerId) -> Vec<StoredBatch> {
        self.replica(broker).log.batches().cloned().collect()
    }

    /// The records of a log, by their timestamps, with the epoch of each.
    fn records(&self, broker: BrokerId) -> Vec<(i64, i32)> {
        let record = |stored: &StoredBatch| {
            (stored.batch.records[0].timestamp.as_millis(), stored.leader_epoch)
        };
        self.log(broker).iter().map(record).collect()
    }
}

//! A cluster that is up: every broker registered and unfenced, `__consumer_offsets` there, as a
//! Kafka cluster is after its first use.

use std::sync::Arc;

use bus_core::{Topic, Uuid};

use super::controller::Controller;
use super::image::Image;
use super::{Broker, OFFSETS_TOPIC};
use crate::config::SimConfig;
use crate::node::{BrokerId, Effects};
use crate::protocol::cluster::{MetadataRecord, PartitionState};
use crate::time::SimTime;

/// The controller and the brokers of a cluster that is up. Each wants an `Input::Start` at the
/// start of the world.
pub fn bootstrap(config: &Arc<SimConfig>) -> (Controller, Vec<Broker>) {
    let log = genesis(config);
    let controller = Controller::resumed(config, log);
    let brokers = (1..=config.brokers).map(|id| {
        let mut broker = Broker::new(id, config);
        broker.resume(&controller.image);
        broker
    });
    let brokers = brokers.collect();
    (controller, brokers)
}

impl Broker {
    /// Makes it one that registered and replayed `image`.
    fn resume(&mut self, image: &Image) {
        self.image.clone_from(image);
        let epoch = image.brokers[&self.id].epoch;
        self.session.resume(epoch);
        // The logs are empty, so there is nothing to tell of.
        let mut effects = Effects::default();
        let topic = self.offsets_topic.clone();
        self.follow_topic(SimTime::ZERO, &topic, &mut effects);
    }
}

/// The first records of the metadata log.
fn genesis(config: &SimConfig) -> Vec<MetadataRecord> {
    let partitions = config.broker.offsets_topic_partitions;
    let factor = config.replication_factor(config.broker.offsets_topic_replication_factor);
    let mut log = Vec::new();
    for broker in 1..=config.brokers {
        let broker_epoch = i64::try_from(log.len()).unwrap_or(0);
        log.push(MetadataRecord::RegisterBroker { broker, broker_epoch, incarnation: 1 });
        log.push(MetadataRecord::BrokerFenced { broker, is_fenced: false });
    }
    let topic = Topic::from(OFFSETS_TOPIC);
    log.push(MetadataRecord::Topic { topic: topic.clone(), topic_id: Uuid::from_u128(1) });
    for partition in 0..partitions {
        let replicas = (0..i32::from(factor)).map(|turn| (partition + turn) % config.brokers + 1);
        let state = PartitionState::new(replicas.collect::<Vec<BrokerId>>());
        log.push(MetadataRecord::Partition { topic: topic.clone(), partition, state });
    }
    log
}

//! A cluster that is up: every broker registered and unfenced, `__consumer_offsets` and
//! `__transaction_state` there, as a Kafka cluster is after its first use.

use std::collections::BTreeMap;
use std::sync::Arc;

use bus_core::{Topic, Uuid};

use super::controller::Controller;
use super::image::Image;
use super::{Broker, OFFSETS_TOPIC, TRANSACTIONS_TOPIC};
use crate::choice::Choices;
use crate::config::SimConfig;
use crate::node::{BrokerId, Effects};
use crate::protocol::cluster::{MetadataRecord, PartitionState};
use crate::time::SimTime;

/// The controller and the brokers of a cluster that is up. Each wants an `Input::Start` at the
/// start of the world.
pub fn bootstrap(config: &Arc<SimConfig>, choices: &Choices) -> (Controller, Vec<Broker>) {
    let log = genesis(config);
    let controller = Controller::resumed(config, choices, log);
    let brokers = (1..=config.brokers).map(|id| {
        let mut broker = Broker::new(id, config, choices);
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
        for topic in [self.offsets_topic.clone(), self.transactions_topic.clone()] {
            self.follow_topic(SimTime::ZERO, &topic, &mut effects);
        }
    }
}

/// The first records of the metadata log.
fn genesis(config: &SimConfig) -> Vec<MetadataRecord> {
    let mut log = Vec::new();
    for broker in 1..=config.brokers {
        let broker_epoch = i64::try_from(log.len()).unwrap_or(0);
        log.push(MetadataRecord::RegisterBroker { broker, broker_epoch, incarnation: 1 });
        log.push(MetadataRecord::BrokerFenced { broker, is_fenced: false });
    }
    let broker = &config.broker;
    let offsets = (broker.offsets_topic_partitions, broker.offsets_topic_replication_factor);
    let transactions =
        (broker.transaction_state_partitions, broker.transaction_state_replication_factor);
    for (name, id, (count, factor)) in
        [(OFFSETS_TOPIC, 1, offsets), (TRANSACTIONS_TOPIC, 2, transactions)]
    {
        let topic = Topic::from(name);
        let factor = i32::from(config.replication_factor(factor));
        log.push(MetadataRecord::Topic { topic: topic.clone(), topic_id: Uuid::from_u128(id) });
        if name == TRANSACTIONS_TOPIC {
            let least = if factor < 3 { 1 } else { broker.transaction_state_min_insync_replicas };
            let least = Some(least.to_string());
            let config = BTreeMap::from([("min.insync.replicas".to_owned(), least)]);
            log.push(MetadataRecord::TopicConfig { topic: topic.clone(), config });
        }
        for partition in 0..count {
            let replicas = (0..factor).map(|turn| (partition + turn) % config.brokers + 1);
            let state = PartitionState::new(replicas.collect::<Vec<BrokerId>>());
            log.push(MetadataRecord::Partition { topic: topic.clone(), partition, state });
        }
    }
    log
}

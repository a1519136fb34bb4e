//! The white box of a simulation: its facts as the events of a [`Cluster`].
//!
//! ```
//! use bus_check::{Environment, Recorder, judge, sim};
//! use bus_core::{NewTopic, ProducerConfig, ProducerRecord};
//! use bus_sim::{Sim, SimConfig};
//!
//! let recorder = Recorder::default();
//! let written = recorder.clone();
//! let config = SimConfig { seed: 42, record_facts: true, ..SimConfig::default() };
//! let outcome = Sim::new(config)?.run(|sim| async move {
//!     let bus = written.record(&sim.bus());
//!     bus.admin()?.create_topic(NewTopic::new("orders")).await?;
//!     let producer = bus.producer(ProducerConfig::default())?;
//!     producer.send(ProducerRecord::to("orders").value("1")).await?;
//!     written.quiesced();
//!     written.audit().await
//! });
//! let cluster = sim::cluster(&outcome.report);
//! let report = judge(&recorder.history(), &Environment::safe(), &cluster);
//! assert!(report.holds(), "{report}");
//! # Ok::<_, bus_core::Error>(())
//! ```

use bus_sim::SimReport;
use bus_sim::fact::{Fact, TransactionFact};

use crate::cluster::{Cluster, CutBy, Happened};

/// What happened inside of the cluster of a simulation; nothing, unless its configuration had
/// [`record_facts`](bus_sim::SimConfig::record_facts).
pub fn cluster(report: &SimReport) -> Cluster {
    let mut cluster = Cluster::new();
    for told in &report.facts {
        let at = u64::try_from(told.at.elapsed().as_nanos()).unwrap_or(u64::MAX);
        if let Some(what) = happened(&mut cluster, &told.fact) {
            cluster.push(told.event, at, what);
        }
    }
    cluster
}

fn happened(cluster: &mut Cluster, fact: &Fact) -> Option<Happened> {
    Some(match fact {
        Fact::Appended { broker, topic_partition, base_offset, count, digest } => {
            Happened::Appended {
                broker: *broker,
                place: cluster.place(topic_partition),
                base: *base_offset,
                count: *count,
                digest: *digest,
            }
        }
        Fact::Replicated { broker, topic_partition, base_offset, count, leader_epoch } => {
            Happened::Replicated {
                broker: *broker,
                place: cluster.place(topic_partition),
                base: *base_offset,
                count: *count,
                leader_epoch: *leader_epoch,
            }
        }
        Fact::Truncated { broker, topic_partition, from, to } => {
            let (place, why) = (cluster.place(topic_partition), CutBy::Truncation);
            Happened::Cut { broker: *broker, place, from: *from, to: *to, why }
        }
        Fact::PageCacheLost { broker, topic_partition, from, to } => {
            let (place, why) = (cluster.place(topic_partition), CutBy::PowerLoss);
            Happened::Cut { broker: *broker, place, from: *from, to: *to, why }
        }
        Fact::EpochStart { broker, topic_partition, leader_epoch, offset } => {
            Happened::EpochStart {
                broker: *broker,
                place: cluster.place(topic_partition),
                leader_epoch: *leader_epoch,
                end: *offset,
            }
        }
        Fact::HighWatermark { broker, topic_partition, offset } => {
            let place = cluster.place(topic_partition);
            Happened::HighWatermark { broker: *broker, place, offset: *offset }
        }
        Fact::InSync { topic_partition, in_sync_replicas } => {
            let place = cluster.place(topic_partition);
            Happened::InSync { place, replicas: in_sync_replicas.clone() }
        }
        Fact::Eligible { topic_partition, eligible_leaders } => {
            let place = cluster.place(topic_partition);
            Happened::Eligible { place, replicas: eligible_leaders.clone() }
        }
        Fact::Leader { topic_partition, leader, leader_epoch } => {
            let place = cluster.place(topic_partition);
            Happened::Leader { place, leader: *leader, leader_epoch: *leader_epoch }
        }
        Fact::ProduceRefused { topic_partition, error } => {
            Happened::Refused { place: cluster.place(topic_partition), error: *error }
        }
        Fact::Topic { topic, partitions: 0 } => Happened::TopicDeleted { topic: topic.to_string() },
        Fact::Transaction(fact) => return of_transaction(fact),
        Fact::GroupState { .. }
        | Fact::MemberLeft { .. }
        | Fact::OffsetCommit { .. }
        | Fact::OffsetRemoved { .. } => return of_group(fact),
        // A duplicate changes nothing; a topic that is made or grows shows in its leaders.
        Fact::DuplicateBatch { .. } | Fact::Topic { .. } | Fact::CoordinatorLoaded { .. } => {
            return None;
        }
    })
}

fn of_group(fact: &Fact) -> Option<Happened> {
    let (group_id, what) = match fact {
        Fact::GroupState { group_id, generation, state, members } => {
            (group_id, format!("{state}, generation {generation}, {members} members"))
        }
        Fact::MemberLeft { group_id, member_id, reason } => {
            (group_id, format!("member {member_id} is out: {reason}"))
        }
        Fact::OffsetRemoved { group_id, topic_partition } => {
            (group_id, format!("the committed offset of {topic_partition} was removed"))
        }
        Fact::OffsetCommit { group_id, topic_partition, offset, refused: Some(error) } => {
            (group_id, format!("commit of {topic_partition}@{offset} refused: {error}"))
        }
        _ => return None,
    };
    Some(Happened::Group { group_id: group_id.to_string(), what })
}

fn of_transaction(fact: &TransactionFact) -> Option<Happened> {
    match fact {
        TransactionFact::State { transactional_id, state, producer_id, producer_epoch } => {
            Some(Happened::Transaction {
                transactional_id: transactional_id.to_string(),
                state,
                producer_id: *producer_id,
                producer_epoch: *producer_epoch,
            })
        }
        TransactionFact::Fenced { transactional_id, reason, .. } => {
            Some(Happened::Fenced { transactional_id: transactional_id.to_string(), reason })
        }
        TransactionFact::Expired { transactional_id } => Some(Happened::Transaction {
            transactional_id: transactional_id.to_string(),
            state: "Dead",
            producer_id: -1,
            producer_epoch: -1,
        }),
        TransactionFact::OffsetPending { .. }
        | TransactionFact::OffsetAborted { .. }
        | TransactionFact::Marker { .. } => None,
    }
}

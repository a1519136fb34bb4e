//! `coop-stale-owned-partitions` (C17): two members own a partition, because both say so.
//!
//! The cooperative assignor lets members keep what they claim to own. A member misses an assignment
//! and is put out of its group, its partitions go to others, and it joins again with the claims
//! that it had. In the buggy form claims have no date, as before KIP-792: the assignor lets both
//! keep the partition. The fix is that claims carry the generation in which they were given, and
//! the newer one counts.
//!
//! KAFKA-12984, KAFKA-13419; KIP-792.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bus_core::{
    Assignor, Bus, Consumer, ConsumerConfig, ConsumerExt as _, NewTopic, Polled, ProducerConfig,
    ProducerRecord, RebalanceKind, Recovery, Result, Subscription, Topic, TopicPartition,
};
use parking_lot::Mutex;

use super::common::{finished, processes};
use crate::catalogue::{Application, Form, Kind, WorstDay};
use crate::lifecycle::Lifecycle;
use crate::patience::create_topic;
use crate::report::{Broken, Observer, Report};
use crate::setting::Setting;

/// The story in the catalogue.
pub const STORY: Application = Application {
    name: "coop-stale-owned-partitions",
    title: "Two members own a partition, because both say so",
    kind: Kind::Story,
    forms: Form::ALL,
    worst_day: WorstDay {
        options: |form| match form {
            Form::AsWritten => "brokers=1&owned.partitions.generation=false",
            Form::Sound => "brokers=1&owned.partitions.generation=true",
        },
        faults: &["CrashProcess", "DelayRequest"],
        horizon: Duration::from_secs(10),
    },
    run: |bus, _, setting| Box::pin(run(bus, setting)),
};

/// The guarantee that the bug breaks.
pub const GUARANTEE: &str = "E1 double-ownership";

/// All processes consume.
pub const PROCESSES: [&str; 2] = ["worker-1", "worker-2"];

const TOPIC: &str = "jobs";
const GROUP: &str = "workers";
const JOBS: usize = 40;
const PAUSE: Duration = Duration::from_millis(200);

/// Sends jobs, has them done by a group of two, and looks who owned which partition.
///
/// # Errors
/// Those that no retry gets over.
pub async fn run(bus: Bus, setting: Setting) -> Result<Report> {
    create_topic(&bus, NewTopic::new(TOPIC).partitions(2)).await?;
    let observer = Observer::new(&bus, Topic::from(TOPIC), GROUP).await?;
    let (owners, life) = (Owners::default(), Lifecycle::default());
    for name in processes(&setting, &PROCESSES) {
        let (owners, life_inside) = (owners.clone(), life.clone());
        life.process(&bus, name, move |bus| work(bus, name, owners.clone(), life_inside.clone()));
    }
    let producer = bus.producer(ProducerConfig::default())?;
    for n in 0..setting.size("jobs", 1..=JOBS) {
        let job = format!("job-{n:02}");
        producer.send(ProducerRecord::to(TOPIC).key(job.clone()).value(job)).await?;
        tokio::time::sleep(PAUSE).await;
    }
    let is_settled = finished(&bus, &observer, &life).await?;
    observer.report(is_settled, owners.broken()).await
}

async fn work(bus: Bus, name: &'static str, owners: Owners, life: Lifecycle) -> Result<()> {
    let consumer = bus.consumer(ConsumerConfig {
        client_id: Some(name.to_owned()),
        assignors: vec![Assignor::CooperativeSticky],
        session_timeout: Duration::from_secs(3),
        heartbeat_interval: Duration::from_millis(1000),
        ..ConsumerConfig::in_group(GROUP)
    })?;
    consumer.subscribe(Subscription::topics([TOPIC]))?;
    while let Some(polled) = life.unless_stopping(consumer.poll(Duration::from_secs(1))).await {
        match polled {
            // What fails now is committed after the next poll, here or by the next owner.
            Ok(Polled::Records(_)) => drop(consumer.commit_positions().await),
            Ok(Polled::Rebalance(guard)) => {
                let is_assigned = guard.kind() == RebalanceKind::Assigned;
                let member = consumer.group_metadata();
                guard.complete().await?;
                if let Some(member) = member.filter(|_| is_assigned) {
                    owners.note(member.generation, &member.member_id, name, &*consumer);
                }
            }
            Err(error) if matches!(error.recovery(), Recovery::Rejoin | Recovery::Retry) => {
                life.unless_stopping(tokio::time::sleep(Duration::from_millis(100))).await;
            }
            Err(error) => return Err(error),
        }
    }
    consumer.close().await
}

/// Who owned what in which generation.
#[derive(Clone, Debug, Default)]
struct Owners(Arc<Mutex<BTreeMap<Owned, Vec<Owner>>>>);

/// A partition in a generation.
type Owned = (i32, TopicPartition);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Owner {
    member_id: String,
    process: &'static str,
}

impl Owners {
    /// A member has the assignment of a generation.
    fn note(
        &self,
        generation: i32,
        member_id: &str,
        process: &'static str,
        consumer: &dyn Consumer,
    ) {
        let owner = Owner { member_id: member_id.to_owned(), process };
        let mut owners = self.0.lock();
        for owned in consumer.assignment() {
            let here = owners.entry((generation, owned)).or_default();
            if !here.contains(&owner) {
                here.push(owner.clone());
            }
        }
    }

    fn broken(&self) -> Vec<Broken> {
        let owners = self.0.lock();
        let double = owners.iter().filter(|(_, owners)| owners.len() > 1);
        let broken = double.map(|((generation, owned), owners)| {
            let owners: Vec<_> = owners.iter().map(|owner| owner.process).collect();
            let owners = owners.join(" and ");
            let sentence = format!("in generation {generation} {owned} belongs to {owners}");
            Broken { guarantee: GUARANTEE, sentence }
        });
        broken.collect()
    }
}

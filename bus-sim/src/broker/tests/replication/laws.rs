//! Laws of replication, over random days of a cluster.

use std::collections::BTreeSet;
use std::time::Duration;

use bus_core::Acks;
use proptest::prelude::*;

use super::orders;
use crate::broker::tests::Cluster;
use crate::config::SimConfig;
use crate::node::{BrokerId, ConnectionId, NodeId};

/// What happens to the cluster.
#[derive(Clone, Debug)]
enum Step {
    /// A client sends a record to who it takes for the leader.
    Produce(Acks),
    Crash(BrokerId),
    /// Its machine goes down, and what is not on disk is gone.
    LosePower(BrokerId),
    Start(BrokerId),
    /// The controller prefers another leader, of those in sync.
    Elect(usize),
    /// Two brokers cannot reach each other.
    Cut(BrokerId, BrokerId),
    /// A broker cannot reach the controller.
    Isolate(BrokerId),
    Heal,
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let broker = || 1..=3_i32;
    prop_oneof![
        6 => prop_oneof![Just(Acks::All), Just(Acks::Leader)].prop_map(Step::Produce),
        1 => broker().prop_map(Step::Crash),
        1 => broker().prop_map(Step::LosePower),
        2 => broker().prop_map(Step::Start),
        2 => (0..3_usize).prop_map(Step::Elect),
        1 => (broker(), broker()).prop_map(|(a, b)| Step::Cut(a, b)),
        1 => broker().prop_map(Step::Isolate),
        1 => Just(Step::Heal),
        4 => prop_oneof![0..1_000_u64, 9_000..20_000_u64, Just(35_000_u64)].prop_map(Step::Wait),
    ]
}

/// A day, and the records that were sent with `acks=all`.
struct Day {
    cluster: Cluster,
    next: i64,
    sent: Vec<(i64, (ConnectionId, u32))>,
    acknowledged: BTreeSet<i64>,
}

impl Day {
    fn new() -> Self {
        let config = SimConfig { brokers: 3, ..Default::default() };
        // Every append is flushed, so a loss of power takes no more than a crash.
        let topic = [("min.insync.replicas", "2"), ("flush.messages", "1")];
        let cluster = Cluster::replicated_with(config, &topic);
        Self { cluster, next: 1, sent: Vec::new(), acknowledged: BTreeSet::new() }
    }

    fn run(&mut self, step: &Step) {
        match *step {
            Step::Produce(acks) => self.produce(acks),
            Step::Crash(broker) if self.is_up(broker) => self.cluster.crash(broker),
            Step::LosePower(broker) if self.is_up(broker) => self.cluster.lose_power(broker),
            Step::Start(broker) if !self.is_up(broker) => self.cluster.start(broker),
            Step::Elect(index) => self.elect(index),
            Step::Cut(a, b) if a != b => self.cluster.cut_brokers(a, b),
            Step::Isolate(broker) => {
                self.cluster.cut(NodeId::Broker(broker), NodeId::Controller);
            }
            Step::Heal => self.cluster.heal(),
            Step::Wait(millis) => self.cluster.advance(Duration::from_millis(millis)),
            Step::Crash(_) | Step::LosePower(_) | Step::Start(_) | Step::Cut(..) => {}
        }
        self.take_answers();
    }

    fn is_up(&self, broker: BrokerId) -> bool {
        self.cluster.brokers[&broker].1
    }

    fn produce(&mut self, acks: Acks) {
        // A client may take an old leader for the leader, as long as that does itself.
        let believes = |id: &BrokerId| {
            let replicas = &self.cluster.brokers[id].0.replicas;
            replicas.get(&orders()).is_some_and(|replica| replica.is_leader())
        };
        for broker in (1..=3).filter(believes).collect::<Vec<_>>() {
            let value = self.next;
            self.next += 1;
            let sent = self.cluster.send_to(broker, acks, value);
            if acks == Acks::All {
                self.sent.push((value, sent));
            }
        }
    }

    fn elect(&mut self, index: usize) {
        let state = self.cluster.state().clone();
        let candidates = state.in_sync_replicas.iter().copied();
        let alive: Vec<_> =
            candidates.filter(|id| self.cluster.controller.image.brokers[id].is_active()).collect();
        if let Some(leader) = alive.get(index) {
            self.cluster.elect(Some(*leader), &state.in_sync_replicas);
        }
    }

    fn take_answers(&mut self) {
        for (value, sent) in std::mem::take(&mut self.sent) {
            match self.cluster.answer(sent) {
                Some(Ok(_)) => {
                    self.acknowledged.insert(value);
                }
                Some(Err(_)) => {}
                None => self.sent.push((value, sent)),
            }
        }
    }

    /// Heals everything, and lets the cluster settle.
    fn settle(&mut self) {
        self.cluster.heal();
        for broker in 1..=3 {
            if !self.is_up(broker) {
                self.cluster.start(broker);
            }
        }
        self.cluster.advance(Duration::from_secs(90));
        self.take_answers();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn committed_records_stay_and_logs_agree(
        steps in proptest::collection::vec(step(), 1..60),
    ) {
        let mut day = Day::new();
        for step in &steps {
            day.run(step);
            check_logs_agree(&day.cluster)?;
        }
        day.settle();
        let cluster = &mut day.cluster;
        let mut in_sync = cluster.state().in_sync_replicas.clone();
        in_sync.sort_unstable();
        prop_assert_eq!(in_sync, [1, 2, 3], "all caught up");
        let leader = cluster.state().leader.expect("a leader");
        let end = cluster.replica(leader).log.end();
        prop_assert_eq!(cluster.ends(), [(end, end); 3]);
        prop_assert_eq!(cluster.log(1), cluster.log(2));
        prop_assert_eq!(cluster.log(1), cluster.log(3));
        let there: BTreeSet<_> = cluster.records(1).into_iter().map(|(value, _)| value).collect();
        let lost: Vec<_> = day.acknowledged.difference(&there).collect();
        prop_assert!(lost.is_empty(), "lost {:?} of {:?}", lost, day.acknowledged);
        prop_assert_eq!(there.len(), cluster.records(1).len(), "none is there twice");
        prop_assert!(cluster.append(leader, Acks::All, 0).is_ok());
    }
}

/// Two logs have the same batches below both high watermarks.
fn check_logs_agree(cluster: &Cluster) -> Result<(), TestCaseError> {
    for (a, b) in [(1, 2), (1, 3), (2, 3)] {
        let committed = cluster.ends()[a - 1].1.min(cluster.ends()[b - 1].1);
        let of = |broker: usize| {
            let log = cluster.log(BrokerId::try_from(broker).unwrap());
            log.into_iter().filter(|batch| batch.base_offset < committed).collect::<Vec<_>>()
        };
        prop_assert_eq!(of(a), of(b), "brokers {} and {} below {}", a, b, committed);
    }
    Ok(())
}

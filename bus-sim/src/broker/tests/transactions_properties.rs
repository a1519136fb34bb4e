//! Transactions: what holds for any order of steps.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bus_core::{Acks, IsolationLevel, Offset};
use proptest::prelude::*;

use super::groups::Member;
use super::transactions::{Producer, TIMEOUT, orders, visible, with_broker};
use super::{Cluster, batch, produce_request, response_of};
use crate::broker::transaction::record::TransactionRecord;
use crate::broker::transaction::state::Metadata;
use crate::config::{BrokerConfig, SimConfig};
use crate::node::Name;
use crate::protocol::fetch;
use crate::protocol::{Api, Request};

/// What somebody does to one partition.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// A producer writes so many records in its transaction.
    Write(usize, usize),
    End(usize, bool),
    /// Somebody writes a record outside of transactions.
    Plain,
    /// A producer is replaced by another with its id.
    Replace(usize),
    Crash,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..3_usize, 1..4_usize).prop_map(|(who, count)| Step::Write(who, count)),
        4 => (0..3_usize, any::<bool>()).prop_map(|(who, is_commit)| Step::End(who, is_commit)),
        2 => Just(Step::Plain),
        1 => (0..3_usize).prop_map(Step::Replace),
        1 => Just(Step::Crash),
    ]
}

/// What a partition should hold, as somebody would say it who knows nothing of markers' mechanics.
#[derive(Debug, Default)]
struct Model {
    /// The records: their offsets, and who wrote them in which transaction.
    records: Vec<(Offset, Option<(usize, u32)>)>,
    /// How many transactions of each producer ended, and the last one's records are open.
    ended: BTreeMap<usize, u32>,
    committed: BTreeSet<(usize, u32)>,
}

impl Model {
    fn transaction_of(&self, who: usize) -> (usize, u32) {
        (who, self.ended.get(&who).copied().unwrap_or(0))
    }

    fn end(&mut self, who: usize, is_commit: bool) {
        let transaction = self.transaction_of(who);
        if is_commit {
            self.committed.insert(transaction);
        }
        self.ended.insert(who, transaction.1 + 1);
    }

    fn is_open(&self, (who, number): (usize, u32)) -> bool {
        self.transaction_of(who).1 == number
    }

    /// What those see that read committed records.
    fn visible(&self) -> Vec<Offset> {
        let mut seen = Vec::new();
        for (offset, transaction) in &self.records {
            match transaction {
                Some(transaction) if self.is_open(*transaction) => break,
                Some(transaction) if !self.committed.contains(transaction) => {}
                _ => seen.push(*offset),
            }
        }
        seen
    }
}

impl Cluster {
    /// Reads `orders-0` batch by batch, each in a response of its own.
    fn read_in_pieces(&mut self) -> Vec<Offset> {
        let mut offset = 0;
        let mut seen = Vec::new();
        loop {
            let request = Request::Fetch(fetch::Request {
                replica: None,
                max_wait: Duration::ZERO,
                min_bytes: 0,
                max_bytes: 1,
                isolation_level: IsolationLevel::ReadCommitted,
                partitions: vec![fetch::PartitionRequest {
                    topic_partition: orders(0),
                    offset,
                    current_leader_epoch: None,
                    last_fetched_epoch: None,
                    max_bytes: 1,
                }],
            });
            let connection = self.connect(1);
            let response = response_of!(Fetch, self.call(connection, request));
            let fetched = response.partitions.into_iter().next().unwrap().result.unwrap();
            seen.extend(visible(&fetched));
            match fetched.batches.last() {
                Some(last) => offset = last.next_offset(),
                None => return seen,
            }
        }
    }

    /// What a replay of `__transaction_state` says.
    fn transactions_by_log(&self) -> BTreeMap<Name, Metadata> {
        let mut transactions = BTreeMap::new();
        for (topic_partition, replica) in &self.brokers[&1].0.replicas {
            if topic_partition.topic.as_str() != "__transaction_state" {
                continue;
            }
            let records = replica.log.batches().flat_map(|stored| stored.batch.records.iter());
            for record in records.filter_map(TransactionRecord::decode) {
                match record.value {
                    Some(value) => transactions.insert(record.transactional_id, value),
                    None => transactions.remove(&record.transactional_id),
                };
            }
        }
        transactions
    }

    /// What the coordinators know.
    fn transactions(&self) -> BTreeMap<Name, Metadata> {
        let shards = self.brokers[&1].0.transactions.values();
        shards.flat_map(crate::broker::transaction::Shard::durable).collect()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn committed_records_are_those_of_a_naive_model(
        steps in proptest::collection::vec(step(), 1..40),
    ) {
        // A broker takes 10 s to come back, so transactions would time out.
        let transaction_abort_interval = Duration::from_hours(24);
        let broker = BrokerConfig { transaction_abort_interval, ..Default::default() };
        let mut cluster = Cluster::with_orders(with_broker(broker), 1);
        let mut producers: Vec<_> = ["a", "b", "c"]
            .into_iter()
            .map(|id| Producer::new(&mut cluster, id))
            .collect();
        producers[2].is_version_2 = true;
        let mut model = Model::default();
        for step in steps {
            match step {
                Step::Write(who, count) => {
                    let offset = producers[who].write(&mut cluster, &orders(0), count).unwrap();
                    let transaction = Some(model.transaction_of(who));
                    let end = offset + Offset::try_from(count).unwrap();
                    model.records.extend((offset..end).map(|offset| (offset, transaction)));
                }
                Step::End(who, is_commit) => {
                    let transaction = Some(model.transaction_of(who));
                    let is_open = model.records.iter().any(|(_, of)| *of == transaction);
                    if is_open {
                        producers[who].end(&mut cluster, is_commit).unwrap();
                        model.end(who, is_commit);
                    }
                }
                Step::Plain => {
                    let connection = cluster.connect(1);
                    let request = produce_request(Acks::All, "orders", batch(&[0]));
                    let response = response_of!(Produce, cluster.call(connection, request));
                    let offset = response.partitions[0].result.unwrap().base_offset;
                    model.records.push((offset, None));
                }
                Step::Replace(who) => {
                    let is_version_2 = producers[who].is_version_2;
                    let id = Name::clone(&producers[who].transactional_id);
                    producers[who] = Producer::new(&mut cluster, &id);
                    producers[who].is_version_2 = is_version_2;
                    model.end(who, false);
                }
                Step::Crash => {
                    cluster.crash(1);
                    cluster.restart(1);
                }
            }
            let expected = model.visible();
            prop_assert_eq!(cluster.committed_records(&orders(0)), &expected[..]);
            prop_assert_eq!(cluster.read_in_pieces(), expected);
        }
    }
}

/// What a client does to a coordinator.
#[derive(Clone, Copy, Debug)]
enum Deed {
    Init(usize),
    Bump(usize),
    Add(usize, i32),
    Send(usize, i32),
    Offset(usize, Offset),
    End(usize, bool),
    Wait(u64),
    /// Markers do not arrive from now on, or again.
    Hold(bool),
    LoseMarkers,
    Crash,
}

fn deed() -> impl Strategy<Value = Deed> {
    let who = || 0..3_usize;
    prop_oneof![
        2 => who().prop_map(Deed::Init),
        1 => who().prop_map(Deed::Bump),
        4 => (who(), 0..3).prop_map(|(who, partition)| Deed::Add(who, partition)),
        4 => (who(), 0..3).prop_map(|(who, partition)| Deed::Send(who, partition)),
        2 => (who(), 0..100_i64).prop_map(|(who, offset)| Deed::Offset(who, offset)),
        5 => (who(), any::<bool>()).prop_map(|(who, is_commit)| Deed::End(who, is_commit)),
        2 => prop_oneof![0..100_u64, 30_000..70_000_u64].prop_map(Deed::Wait),
        2 => any::<bool>().prop_map(Deed::Hold),
        1 => Just(Deed::LoseMarkers),
        2 => Just(Deed::Crash),
    ]
}

fn carry_out(cluster: &mut Cluster, producers: &mut [Producer], deed: Deed) {
    match deed {
        Deed::Init(who) => drop(producers[who].init(cluster)),
        Deed::Bump(who) => drop(producers[who].bump(cluster)),
        Deed::Add(who, partition) => drop(producers[who].add(cluster, &[orders(partition)])),
        Deed::Send(who, partition) => drop(producers[who].send(cluster, &orders(partition), 1)),
        Deed::Offset(who, offset) => {
            let member = Member {
                connection: cluster.connect(1),
                id: "".into(),
                instance: None,
                generation: -1,
                protocols: Vec::new(),
            };
            producers[who].commit_offset(cluster, &member, offset);
        }
        Deed::End(who, is_commit) => drop(producers[who].end(cluster, is_commit)),
        Deed::Wait(millis) => cluster.advance(Duration::from_millis(millis)),
        Deed::Hold(true) => cluster.hold(Api::WriteTxnMarkers),
        Deed::Hold(false) => cluster.release(),
        Deed::LoseMarkers => cluster.lose_held(),
        Deed::Crash => {}
    }
}

fn pending(cluster: &Cluster) -> String {
    let groups = cluster.brokers[&1].0.shards.values().flat_map(|shard| shard.groups.values());
    let all = groups.map(|group| (group.offsets().clone(), group.pending_offsets().clone()));
    format!("{:?}", all.collect::<Vec<_>>())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn a_coordinator_is_what_its_records_say(
        deeds in proptest::collection::vec(deed(), 1..40),
    ) {
        let mut cluster = Cluster::with_orders(SimConfig::default(), 3);
        let mut producers: Vec<_> =
            ["a", "b", "c"].into_iter().map(|id| Producer::new(&mut cluster, id)).collect();
        producers[2].is_version_2 = true;
        for deed in deeds {
            carry_out(&mut cluster, &mut producers, deed);
            prop_assert_eq!(cluster.transactions(), cluster.transactions_by_log());
            if matches!(deed, Deed::Crash) {
                let before = (cluster.transactions(), pending(&cluster));
                cluster.hold(Api::WriteTxnMarkers);
                cluster.crash(1);
                cluster.held_back.clear();
                cluster.start(1);
                // Longer than the session and loading, shorter than timeouts of transactions.
                cluster.advance(Duration::from_secs(12));
                let after = cluster.transactions();
                for (id, metadata) in &before.0 {
                    let timed_out = after[id].updated > metadata.updated;
                    prop_assert!(timed_out || after[id] == *metadata, "{id}");
                }
                if before.0 == after {
                    prop_assert_eq!(pending(&cluster), before.1);
                }
                cluster.release();
            }
        }
        // In the end every transaction ends.
        cluster.release();
        cluster.advance(TIMEOUT + Duration::from_secs(5));
        let at_rest = ["Empty", "CompleteCommit", "CompleteAbort"];
        for (id, metadata) in cluster.transactions() {
            let state = format!("{:?}", metadata.state);
            prop_assert!(at_rest.contains(&state.as_str()), "{id} {metadata:?}");
        }
        for partition in 0..3 {
            let partition = orders(partition);
            let end = cluster.end_offset(&partition, IsolationLevel::ReadUncommitted);
            let stable = cluster.end_offset(&partition, IsolationLevel::ReadCommitted);
            prop_assert_eq!(end, stable);
        }
    }
}

//! The white box: G, what happened inside of the cluster; and what of B, D, F, and H is judged by
//! that beside the history.

use std::collections::BTreeMap;

use bus_core::{Acks, Offset};

use super::{Anomalies, Anomaly, Promise, Subject};
use crate::cluster::replicas::{Place, Replicas};
use crate::cluster::{Cluster, ClusterEvent, Happened, PlaceId, brokers};
use crate::history::PartitionId;
use crate::model::Model;

/// What happened inside of the cluster, worked out for the checkers.
#[derive(Debug)]
pub struct White<'a> {
    /// The events.
    pub cluster: &'a Cluster,
    /// What each replica held.
    pub replicas: Replicas,
    /// The places of the history's partitions, by id.
    places: Vec<Option<PlaceId>>,
}

impl<'a> White<'a> {
    /// Works out what happened inside of a cluster during a history.
    pub fn new(model: &Model<'_>, cluster: &'a Cluster) -> Self {
        let partitions = 0..model.history.partitions().len();
        let places = partitions
            .map(|index| cluster.find(&model.history.partition(PartitionId::from_index(index))));
        Self { cluster, replicas: Replicas::new(cluster), places: places.collect() }
    }

    /// A partition of the history that has several replicas.
    fn place(&self, partition: PartitionId) -> Option<&Place> {
        let place = &self.replicas.places[self.places[partition.index()]?.index()];
        (place.in_sync_most > 1 && !place.is_deleted).then_some(place)
    }
}

/// The promise of what only a loss of power or an unclean election breaks.
fn unless(excuse: Option<u64>) -> Promise {
    Promise::when(excuse.is_none())
}

/// The rise that committed an offset.
fn commit_of(place: &Place, offset: Offset) -> Option<(u64, u64, Offset)> {
    let index = place.committed.partition_point(|(_, _, end)| *end <= offset);
    place.committed.get(index).copied()
}

/// B4: a follower gives up what is committed and what its leader holds.
pub(super) fn committed_truncation(_: &Model<'_>, white: &White<'_>, found: &mut Anomalies) {
    let is_cut = |event: &&ClusterEvent| matches!(event.what, Happened::Cut { .. });
    found.examined += white.cluster.events().iter().filter(is_cut).count() as u64;
    for loss in &white.replicas.waste {
        found.add(|| {
            let sentence = format!(
                "{}@{} was committed, and a follower gave it up although its leader holds it.",
                white.cluster.name(loss.place),
                loss.offset
            );
            let events = [loss.event, loss.committed_by];
            Anomaly::inside(Promise::Required, events, None, sentence)
        });
    }
}

/// B5: a record is acknowledged before all in sync have it, or with too few of them.
pub(super) fn premature_ack(model: &Model<'_>, white: &White<'_>, found: &mut Anomalies) {
    let least = model.environment.min_insync_replicas;
    for send in &model.sends {
        let (Some((id, offset)), Some(ended)) = (send.told_offset(), send.ended) else { continue };
        let acks = model.history.producer(send.client).map(|facts| facts.acks);
        if acks != Some(Acks::All) {
            continue;
        }
        let Some(place) = white.place(id) else { continue };
        found.examined += 1;
        let at = model.at(ended);
        let record = || format!("Record {} at {}@{offset}", send.id, model.history.partition(id));
        let commit = commit_of(place, offset);
        if commit.is_none_or(|(_, committed, _)| committed > at) {
            found.add(|| {
                let sentence = format!(
                    "{} was acknowledged to {} before it was committed.",
                    record(),
                    model.history.title(send.client)
                );
                Anomaly::new(
                    Subject::Operation(send.id),
                    Promise::Required,
                    [send.invoked, ended],
                    sentence,
                )
                .seen_in(commit.map(|(event, ..)| event))
            });
            continue;
        }
        let holders = || {
            let holders = place.held.iter().filter(|(_, held)| {
                let first = held.partition_point(|(_, end)| *end <= offset);
                held.get(first).is_some_and(|(since, _)| *since <= at)
            });
            holders.map(|(broker, _)| *broker)
        };
        if holders().count() >= least as usize {
            continue;
        }
        found.add(|| {
            let holders: Vec<_> = holders().collect();
            let sentence = format!(
                "{} was acknowledged to {} when only {} had it; min.insync.replicas is {least}.",
                record(),
                model.history.title(send.client),
                match holders.as_slice() {
                    [one] => format!("broker-{one}"),
                    several => format!("brokers {}", brokers(several)),
                }
            );
            Anomaly::new(
                Subject::Operation(send.id),
                Promise::Required,
                [send.invoked, ended],
                sentence,
            )
            .seen_in(commit.map(|(event, ..)| event))
        });
    }
}

/// D7: what a consumer read was not committed yet.
pub(super) fn future_read(model: &Model<'_>, white: &White<'_>, found: &mut Anomalies) {
    for read in &model.reads {
        let Some(place) = white.place(read.partition()) else { continue };
        found.examined += 1;
        let commit = commit_of(place, read.offset());
        let at = model.at(read.entry);
        if commit.is_some_and(|(_, committed, _)| committed <= at) {
            continue;
        }
        found.add(|| {
            let sentence = format!(
                "{} was given {}@{} before that was committed.",
                model.history.title(read.client),
                model.history.partition(read.partition()),
                read.offset()
            );
            let subject = Subject::Delivery(read.client, read.partition(), read.offset());
            let promise = model.environment.is_not_cut();
            Anomaly::new(subject, promise, [read.entry], sentence)
                .seen_in(commit.map(|(event, ..)| event))
        });
    }
}

/// F17: a producer id belongs to two transactional ids, or its epoch goes back.
pub(super) fn id_given_twice(_: &Model<'_>, white: &White<'_>, found: &mut Anomalies) {
    let mut owners: BTreeMap<i64, (&str, i16, u64)> = BTreeMap::new();
    for event in white.cluster.events() {
        let Happened::Transaction { transactional_id, producer_id, producer_epoch, .. } =
            &event.what
        else {
            continue;
        };
        if *producer_id < 0 {
            continue;
        }
        found.examined += 1;
        let own = (transactional_id.as_str(), *producer_epoch, event.number);
        let Some((owner, epoch, before)) = owners.insert(*producer_id, own) else { continue };
        let what = if owner != transactional_id {
            format!("is that of {owner} and of {transactional_id}")
        } else if epoch > *producer_epoch {
            format!("of {owner} went back from epoch {epoch} to {producer_epoch}")
        } else {
            continue;
        };
        found.add(|| {
            let sentence = format!("Producer id {producer_id} {what}.");
            Anomaly::inside(Promise::Required, [event.number, before], None, sentence)
        });
    }
}

/// F18: a transaction moves as its coordinator's state machine does not allow.
pub(super) fn illegal_state(_: &Model<'_>, white: &White<'_>, found: &mut Anomalies) {
    let mut states: BTreeMap<&str, (&str, u64)> = BTreeMap::new();
    for event in white.cluster.events() {
        let Happened::Transaction { transactional_id, state, .. } = &event.what else { continue };
        found.examined += 1;
        let before = states.insert(transactional_id, (state, event.number));
        let (from, evidence) = match before {
            Some((from, number)) => (from, vec![event.number, number]),
            None => ("Empty", vec![event.number]),
        };
        if may_move(from, state) {
            continue;
        }
        found.add(|| {
            let sentence =
                format!("The transaction of {transactional_id} went from {from} to {state}.");
            Anomaly::inside(Promise::Required, evidence, None, sentence)
        });
    }
}

/// Kafka's `TransactionState.validPreviousStates`. Version 2 ends what is not ongoing, too; and a
/// coordinator that takes over tells the state that it loaded.
fn may_move(from: &str, to: &str) -> bool {
    match to {
        _ if from == to => true,
        "Empty" => matches!(from, "Empty" | "CompleteCommit" | "CompleteAbort" | "Dead"),
        "Ongoing" => matches!(from, "Ongoing" | "Empty" | "CompleteCommit" | "CompleteAbort"),
        "PrepareCommit" => matches!(from, "Ongoing"),
        "PrepareAbort" => {
            let ended = matches!(from, "Empty" | "CompleteCommit" | "CompleteAbort");
            ended || matches!(from, "Ongoing" | "PrepareEpochFence")
        }
        "CompleteCommit" => from == "PrepareCommit",
        "CompleteAbort" => from == "PrepareAbort",
        "Dead" => matches!(from, "Empty" | "CompleteCommit" | "CompleteAbort"),
        "PrepareEpochFence" => from == "Ongoing",
        _ => true,
    }
}

/// G1: a new leader lacks what is committed.
pub(super) fn incomplete_leader(model: &Model<'_>, white: &White<'_>, found: &mut Anomalies) {
    for start in &white.replicas.starts {
        found.examined += 1;
        let Some(lacks) = start.lacks else { continue };
        found.add(|| {
            let sentence = format!(
                "broker-{} leads {} in epoch {} and lacks what was committed at {lacks}.",
                start.broker,
                white.cluster.name(start.place),
                start.leader_epoch
            );
            let events = [start.event].into_iter().chain(start.committed_by).chain(start.excuse);
            Anomaly::inside(model.environment.is_kept(), events, start.excuse, sentence)
        });
    }
}

/// G3: a high watermark is above the end of a log in sync.
pub(super) fn beyond_in_sync(_: &Model<'_>, white: &White<'_>, found: &mut Anomalies) {
    for rise in &white.replicas.rises {
        let Some((broker, end, in_sync)) = rise.shortest else { continue };
        found.examined += 1;
        if end >= rise.offset {
            continue;
        }
        found.add(|| {
            let sentence = format!(
                "The high watermark of {} rose to {} on broker-{}, but broker-{broker}, which is \
                 in sync, ends at {end}.",
                white.cluster.name(rise.place),
                rise.offset,
                rise.broker
            );
            let events = [rise.event, in_sync].into_iter().chain(rise.excuse);
            Anomaly::inside(unless(rise.excuse), events, rise.excuse, sentence)
        });
    }
}

/// G4: below the high watermark, a replica in sync holds another record than the leader.
pub(super) fn diverging_logs(_: &Model<'_>, white: &White<'_>, found: &mut Anomalies) {
    for rise in &white.replicas.rises {
        found.examined += 1;
        let Some((broker, offset)) = rise.differs else { continue };
        found.add(|| {
            let sentence = format!(
                "At {}@{offset}, which is committed, broker-{broker} holds another record than \
                 broker-{}, the leader.",
                white.cluster.name(rise.place),
                rise.broker
            );
            let events = [rise.event].into_iter().chain(rise.excuse);
            Anomaly::inside(unless(rise.excuse), events, rise.excuse, sentence)
        });
    }
    diverging_joins(white, found);
}

/// The same, when it joins those in sync.
fn diverging_joins(white: &White<'_>, found: &mut Anomalies) {
    for join in &white.replicas.joins {
        found.examined += 1;
        let Some(offset) = join.differs else { continue };
        found.add(|| {
            let sentence = format!(
                "broker-{} joined those in sync of {} and holds another record at {offset} than \
                 what is committed.",
                join.broker,
                white.cluster.name(join.place)
            );
            let events = [join.event, join.committed.0].into_iter().chain(join.excuse);
            Anomaly::inside(unless(join.excuse), events, join.excuse, sentence)
        });
    }
}

/// G8: no replica holds a committed record any more.
pub(super) fn committed_gone(model: &Model<'_>, white: &White<'_>, found: &mut Anomalies) {
    let places = white.replicas.places.iter();
    found.examined += places.map(|place| place.committed.len() as u64).sum::<u64>();
    for loss in &white.replicas.losses {
        found.add(|| {
            let sentence = format!(
                "{}@{} was committed, and no replica has it any more.",
                white.cluster.name(loss.place),
                loss.offset
            );
            let events = [loss.event, loss.committed_by].into_iter().chain(loss.excuse);
            Anomaly::inside(model.environment.is_kept(), events, loss.excuse, sentence)
        });
    }
}

/// G9: an epoch has two leaders, or a leader goes back to an older one.
pub(super) fn two_leaders(_: &Model<'_>, white: &White<'_>, found: &mut Anomalies) {
    for start in &white.replicas.starts {
        found.examined += 1;
        let Some(rival) = start.rival else { continue };
        found.add(|| {
            let sentence = format!(
                "broker-{} leads {} in epoch {}, which was over or another's.",
                start.broker,
                white.cluster.name(start.place),
                start.leader_epoch
            );
            Anomaly::inside(Promise::Required, [start.event, rival], None, sentence)
        });
    }
}

/// G10: a high watermark goes back.
pub(super) fn watermark_regress(_: &Model<'_>, white: &White<'_>, found: &mut Anomalies) {
    for rise in &white.replicas.rises {
        found.examined += 1;
        let Some((event, before)) = rise.above else { continue };
        found.add(|| {
            let sentence = format!(
                "The high watermark of {} on broker-{} went back from {before} to {}.",
                white.cluster.name(rise.place),
                rise.broker,
                rise.offset
            );
            Anomaly::inside(unless(rise.excuse), [rise.event, event], rise.excuse, sentence)
        });
    }
}

/// G11: a leader is elected that is not in sync.
pub(super) fn leader_out_of_sync(model: &Model<'_>, white: &White<'_>, found: &mut Anomalies) {
    for election in &white.replicas.elections {
        found.examined += 1;
        let (told, in_sync) = &election.in_sync;
        if in_sync.contains(&election.leader) || election.eligible.contains(&election.leader) {
            continue;
        }
        found.add(|| {
            let sentence = format!(
                "broker-{} was elected for {}; in sync was {}, and eligible {}.",
                election.leader,
                white.cluster.name(election.place),
                brokers(in_sync),
                brokers(&election.eligible)
            );
            // Where it is permitted, it is its own explanation: an unclean election.
            let promise = model.environment.is_kept();
            let excuse = (promise == Promise::NotPromised).then_some(election.event);
            Anomaly::inside(promise, [election.event, *told], excuse, sentence)
        });
    }
}

/// G12: a replica joins those in sync before it has all that is committed.
pub(super) fn in_sync_too_early(_: &Model<'_>, white: &White<'_>, found: &mut Anomalies) {
    for join in &white.replicas.joins {
        found.examined += 1;
        let (event, committed) = join.committed;
        if join.end >= committed {
            continue;
        }
        found.add(|| {
            let sentence = format!(
                "broker-{} joined those in sync of {} with {} records, and {committed} are \
                 committed.",
                join.broker,
                white.cluster.name(join.place),
                join.end
            );
            let events = [join.event, event].into_iter().chain(join.excuse);
            Anomaly::inside(unless(join.excuse), events, join.excuse, sentence)
        });
    }
}

/// H3: when all is over, a partition has no leader.
pub(super) fn no_leader(model: &Model<'_>, white: &White<'_>, found: &mut Anomalies) {
    settled(model, white, found, |place| {
        let (event, leader) = place.leader?;
        leader.is_none().then(|| (event, "has no leader".to_owned()))
    });
}

/// H4: when all is over, a replica is out of sync.
pub(super) fn out_of_sync(model: &Model<'_>, white: &White<'_>, found: &mut Anomalies) {
    settled(model, white, found, |place| {
        let (event, in_sync) = place.in_sync.as_ref()?;
        let is_short = in_sync.len() < place.in_sync_most;
        is_short.then(|| (*event, format!("has only {} in sync", brokers(in_sync))))
    });
}

/// Looks at each partition in the end, if it had the time to settle.
fn settled(
    model: &Model<'_>,
    white: &White<'_>,
    found: &mut Anomalies,
    wrong: impl Fn(&Place) -> Option<(u64, String)>,
) {
    let (Some(quiesced), Some(last)) = (model.quiesced, model.history.entries().last()) else {
        return;
    };
    let settling = u64::try_from(model.environment.settling.as_nanos()).unwrap_or(u64::MAX);
    if last.at < model.at(quiesced).saturating_add(settling) {
        return;
    }
    for (index, place) in white.replicas.places.iter().enumerate() {
        if place.is_deleted || place.in_sync_most < 2 {
            continue;
        }
        found.examined += 1;
        let Some((event, what)) = wrong(place) else { continue };
        found.add(|| {
            let name = &white.cluster.places()[index];
            let sentence = format!("{name} {what}, though all faults are healed.");
            let anomaly = Anomaly::inside(Promise::Required, [event], None, sentence);
            Anomaly { witness: vec![quiesced], ..anomaly }
        });
    }
}

//! What each replica held, at each moment that matters: elections, rises of the high watermark,
//! changes of who is in sync, and cuts of logs.
//!
//! Only partitions with several replicas are followed: of others nobody tells a high watermark.

use std::collections::BTreeMap;

use bus_core::Offset;

use super::{BrokerId, Cluster, CutBy, Happened, PlaceId};

/// The moments that matter, each in order.
#[derive(Clone, Debug, Default)]
pub struct Replicas {
    /// Leaders that began.
    pub starts: Vec<Start>,
    /// Leaders that were elected.
    pub elections: Vec<Election>,
    /// Rises of high watermarks.
    pub rises: Vec<Rise>,
    /// Replicas that joined those in sync.
    pub joins: Vec<Join>,
    /// Committed records that no replica holds any more.
    pub losses: Vec<Loss>,
    /// Committed records that a follower gave up although its leader holds them.
    pub waste: Vec<Loss>,
    /// What is known of each partition in the end, by id.
    pub places: Vec<Place>,
}

/// A leader begins.
#[derive(Clone, Debug)]
pub struct Start {
    /// The event.
    pub event: u64,
    /// The partition.
    pub place: PlaceId,
    /// The leader.
    pub broker: BrokerId,
    /// Its epoch.
    pub leader_epoch: i32,
    /// Another broker that led in this epoch, or an epoch above it that began before: the event.
    pub rival: Option<u64>,
    /// The first committed offset that it does not hold as it was committed.
    pub lacks: Option<Offset>,
    /// The event that committed that.
    pub committed_by: Option<u64>,
    /// What excuses it: an unclean election, a loss of power.
    pub excuse: Option<u64>,
}

/// A leader is elected.
#[derive(Clone, Debug)]
pub struct Election {
    /// The event.
    pub event: u64,
    /// The partition.
    pub place: PlaceId,
    /// The leader.
    pub leader: BrokerId,
    /// The event that said who is in sync, and who is.
    pub in_sync: (u64, Vec<BrokerId>),
    /// Those that may lead when nobody is in sync.
    pub eligible: Vec<BrokerId>,
}

/// A high watermark rises.
#[derive(Clone, Debug)]
pub struct Rise {
    /// The event.
    pub event: u64,
    /// The partition.
    pub place: PlaceId,
    /// The leader.
    pub broker: BrokerId,
    /// To where.
    pub offset: Offset,
    /// The rise before it in this epoch, if that was not lower.
    pub above: Option<(u64, Offset)>,
    /// The replica in sync whose log ends first, where it ends, and the event that said who is in
    /// sync.
    pub shortest: Option<(BrokerId, Offset, u64)>,
    /// A replica in sync that holds another record than the leader, and where.
    pub differs: Option<(BrokerId, Offset)>,
    /// A loss of power, or an unclean election, before it.
    pub excuse: Option<u64>,
}

/// A replica joins those in sync.
#[derive(Clone, Debug)]
pub struct Join {
    /// The event.
    pub event: u64,
    /// The partition.
    pub place: PlaceId,
    /// Who joins.
    pub broker: BrokerId,
    /// Where its log ends.
    pub end: Offset,
    /// What is committed, and by which event.
    pub committed: (u64, Offset),
    /// Where it holds another record than what is committed.
    pub differs: Option<Offset>,
    /// A loss of power, or an unclean election, before it.
    pub excuse: Option<u64>,
}

/// Committed records are gone, from one replica or from all.
#[derive(Clone, Debug)]
pub struct Loss {
    /// The cut that took them.
    pub event: u64,
    /// The partition.
    pub place: PlaceId,
    /// The first of them.
    pub offset: Offset,
    /// The event that committed it.
    pub committed_by: u64,
    /// A loss of power, or an unclean election, before it or it itself.
    pub excuse: Option<u64>,
}

/// A partition.
#[derive(Clone, Debug, Default)]
pub struct Place {
    /// All rises above what was committed before: event, time, and offset; rising.
    pub committed: Vec<(u64, u64, Offset)>,
    /// For each broker, which offsets it was the first time to hold, with the time: rising.
    pub held: BTreeMap<BrokerId, Vec<(u64, Offset)>>,
    /// The last election: event and leader.
    pub leader: Option<(u64, Option<BrokerId>)>,
    /// The last word on who is in sync: event and replicas.
    pub in_sync: Option<(u64, Vec<BrokerId>)>,
    /// The most that were in sync at one time.
    pub in_sync_most: usize,
    /// Whether its topic was deleted.
    pub is_deleted: bool,
    eligible: Vec<BrokerId>,
    last_leader: Option<BrokerId>,
    logs: BTreeMap<BrokerId, Vec<Batch>>,
    /// What was committed, as the leader held it.
    record: Vec<Batch>,
    epochs: BTreeMap<i32, (BrokerId, u64)>,
    leads: BTreeMap<BrokerId, i32>,
    risen: Option<(BrokerId, i32, u64, Offset)>,
    excuse: Option<u64>,
}

/// A batch in a log. Two are the same if all of this is: a leader appends once at an offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Batch {
    base: Offset,
    end: Offset,
    leader_epoch: i32,
}

impl Replicas {
    /// Follows the replicas of a cluster.
    pub fn new(cluster: &Cluster) -> Self {
        let mut replicas =
            Self { places: vec![Place::default(); cluster.places().len()], ..Self::default() };
        for event in cluster.events() {
            replicas.follow(cluster, event.number, event.at, &event.what);
        }
        replicas
    }

    fn follow(&mut self, cluster: &Cluster, event: u64, at: u64, what: &Happened) {
        match what {
            Happened::Appended { broker, place, base, count, .. } => {
                let state = &mut self.places[place.index()];
                let leader_epoch = state.leads.get(broker).copied().unwrap_or(0);
                state.append(at, *broker, (*base, *count, leader_epoch));
            }
            Happened::Replicated { broker, place, base, count, leader_epoch } => {
                let state = &mut self.places[place.index()];
                state.append(at, *broker, (*base, *count, *leader_epoch));
            }
            Happened::Cut { broker, place, to, why, .. } => {
                self.cut(event, (*broker, *place), *to, *why);
            }
            Happened::EpochStart { broker, place, leader_epoch, .. } => {
                self.start(event, *place, *broker, *leader_epoch);
            }
            Happened::HighWatermark { broker, place, offset } => {
                self.rise(event, at, *place, *broker, *offset);
            }
            Happened::Eligible { place, replicas } => {
                self.places[place.index()].eligible.clone_from(replicas);
            }
            Happened::InSync { place, replicas } => self.in_sync(event, *place, replicas),
            Happened::Leader { place, leader, .. } => {
                let state = &mut self.places[place.index()];
                let last = state.last_leader;
                state.leader = Some((event, *leader));
                state.last_leader = leader.or(last);
                let mut eligible = state.eligible.clone();
                // With nobody in sync and nobody eligible, it may be the last leader again.
                let is_nobody = state.in_sync.as_ref().is_some_and(|(_, list)| list.is_empty());
                if is_nobody && eligible.is_empty() {
                    eligible.extend(last);
                }
                if let (Some(leader), Some(in_sync)) = (*leader, state.in_sync.clone()) {
                    if !in_sync.1.contains(&leader) && !eligible.contains(&leader) {
                        state.excuse = Some(event);
                    }
                    let place = *place;
                    self.elections.push(Election { event, place, leader, in_sync, eligible });
                }
            }
            Happened::TopicDeleted { topic } => {
                for (index, place) in cluster.places().iter().enumerate() {
                    if place.topic.as_str() == topic {
                        self.places[index] = Place { is_deleted: true, ..Place::default() };
                    }
                }
            }
            Happened::Refused { .. }
            | Happened::Group { .. }
            | Happened::Transaction { .. }
            | Happened::Fenced { .. } => {}
        }
    }

    fn cut(&mut self, event: u64, (broker, place): (BrokerId, PlaceId), to: Offset, why: CutBy) {
        let state = &mut self.places[place.index()];
        if why == CutBy::PowerLoss {
            state.excuse = Some(event);
        }
        let gone = state.truncate(broker, to);
        let first = state.record.partition_point(|batch| batch.end <= to);
        let leader = state.epochs.last_key_value().map(|(_, (leader, _))| *leader);
        let leads = leader.and_then(|leader| state.logs.get(&leader));
        if let (CutBy::Truncation, Some(leads)) = (why, leads)
            && let Some(wasted) = state.record[first..]
                .iter()
                .find(|batch| gone.contains(batch) && holds(leads, batch))
        {
            let (offset, excuse) = (wasted.base.max(to), state.excuse);
            let (committed_by, ..) = *state.commit_of(offset);
            self.waste.push(Loss { event, place, offset, committed_by, excuse });
        }
        let lost = state.record[first..].iter().find(|batch| {
            gone.contains(batch) && !state.logs.values().any(|log| holds(log, batch))
        });
        if let Some(lost) = lost {
            let offset = lost.base.max(to);
            let (committed_by, ..) = *state.commit_of(offset);
            let excuse = state.excuse;
            self.losses.push(Loss { event, place, offset, committed_by, excuse });
        }
    }

    fn start(&mut self, event: u64, place: PlaceId, broker: BrokerId, leader_epoch: i32) {
        let state = &mut self.places[place.index()];
        let same = state.epochs.get(&leader_epoch).filter(|(other, _)| *other != broker);
        let above = state.epochs.range(leader_epoch + 1..).next().map(|(_, start)| start);
        // A broker that was away may learn late that it led once.
        let above = above.filter(|(other, _)| *other == broker);
        let rival = same.or(above).map(|(_, event)| *event);
        state.epochs.entry(leader_epoch).or_insert((broker, event));
        state.leads.insert(broker, leader_epoch);
        let none = Vec::new();
        let log = state.logs.get(&broker).unwrap_or(&none);
        // Nobody asks a broker that learns late that it led for what others committed after it.
        let is_later = state.epochs.range(leader_epoch + 1..).next().is_some();
        let lacking = state.record.iter().find(|batch| !is_later && !holds(log, batch));
        let lacks = lacking.map(|batch| batch.base);
        let committed_by = lacks.map(|offset| state.commit_of(offset).0);
        let excuse = state.excuse;
        self.starts.push(Start {
            event,
            place,
            broker,
            leader_epoch,
            rival,
            lacks,
            committed_by,
            excuse,
        });
    }

    fn rise(&mut self, event: u64, at: u64, place: PlaceId, broker: BrokerId, offset: Offset) {
        let state = &mut self.places[place.index()];
        let leader_epoch = state.leads.get(&broker).copied().unwrap_or(0);
        let above = state.risen.filter(|(leader, epoch, _, before)| {
            (*leader, *epoch) == (broker, leader_epoch) && *before > offset
        });
        let above = above.map(|(_, _, event, before)| (event, before));
        state.risen = Some((broker, leader_epoch, event, offset));
        let before = state.committed.last().map_or(0, |(_, _, before)| *before);
        let (shortest, differs) = state.compare(broker, before, offset);
        if before < offset {
            state.committed.push((event, at, offset));
            let log = state.logs.get(&broker).map(Vec::as_slice).unwrap_or_default();
            let first = log.partition_point(|batch| batch.end <= before);
            let new = log[first..].iter().take_while(|batch| batch.end <= offset).copied();
            state.record.extend(new);
        }
        let excuse = state.excuse;
        self.rises.push(Rise { event, place, broker, offset, above, shortest, differs, excuse });
    }

    fn in_sync(&mut self, event: u64, place: PlaceId, replicas: &[BrokerId]) {
        let state = &mut self.places[place.index()];
        // Of topics that were there from the start no election is told.
        if let ([only], None) = (replicas, state.last_leader) {
            state.last_leader = Some(*only);
        }
        let committed = state.committed.last().map(|(event, _, offset)| (*event, *offset));
        if let (Some((_, before)), Some(committed)) = (&state.in_sync, committed) {
            for broker in replicas.iter().filter(|broker| !before.contains(broker)) {
                let end = state.end(*broker);
                let log = state.logs.get(broker).map(Vec::as_slice).unwrap_or_default();
                let mut held = state.record.iter().take_while(|batch| batch.end <= end);
                let differs = held.find(|batch| !holds(log, batch)).map(|batch| batch.base);
                let (broker, excuse) = (*broker, state.excuse);
                self.joins.push(Join { event, place, broker, end, committed, differs, excuse });
            }
        }
        state.in_sync_most = state.in_sync_most.max(replicas.len());
        state.in_sync = Some((event, replicas.to_vec()));
    }
}

impl Place {
    fn append(&mut self, at: u64, broker: BrokerId, batch: (Offset, u32, i32)) {
        let (base, count, leader_epoch) = batch;
        let end = base + i64::from(count);
        self.logs.entry(broker).or_default().push(Batch { base, end, leader_epoch });
        let held = self.held.entry(broker).or_default();
        if held.last().is_none_or(|(_, last)| *last < end) {
            held.push((at, end));
        }
    }

    /// Cuts a log, and gives what is gone.
    fn truncate(&mut self, broker: BrokerId, to: Offset) -> Vec<Batch> {
        let log = self.logs.entry(broker).or_default();
        let keep = log.partition_point(|batch| batch.end <= to);
        log.split_off(keep)
    }

    fn end(&self, broker: BrokerId) -> Offset {
        self.logs.get(&broker).and_then(|log| log.last()).map_or(0, |last| last.end)
    }

    /// The rise that committed an offset.
    fn commit_of(&self, offset: Offset) -> &(u64, u64, Offset) {
        let index = self.committed.partition_point(|(_, _, end)| *end <= offset);
        &self.committed[index.min(self.committed.len() - 1)]
    }

    /// The replica in sync whose log ends first, and one that differs from the leader.
    #[expect(clippy::type_complexity, reason = "two findings of one comparison")]
    fn compare(
        &self,
        leader: BrokerId,
        from: Offset,
        to: Offset,
    ) -> (Option<(BrokerId, Offset, u64)>, Option<(BrokerId, Offset)>) {
        let Some((event, in_sync)) = &self.in_sync else { return (None, None) };
        let part = |broker: &BrokerId| {
            let log = self.logs.get(broker).map(Vec::as_slice).unwrap_or_default();
            let first = log.partition_point(|batch| batch.end <= from);
            let last = log.partition_point(|batch| batch.end <= to);
            &log[first..last.max(first)]
        };
        let ends = in_sync.iter().map(|broker| (*broker, self.end(*broker), *event));
        let shortest = ends.min_by_key(|(_, end, _)| *end);
        let own = part(&leader);
        let differs = in_sync.iter().filter(|broker| **broker != leader).find_map(|broker| {
            let other = part(broker).iter().zip(own).find(|(other, own)| other != own)?;
            Some((*broker, other.1.base))
        });
        (shortest, differs)
    }
}

fn holds(log: &[Batch], batch: &Batch) -> bool {
    let index = log.partition_point(|other| other.base < batch.base);
    log.get(index) == Some(batch)
}

//! The director: watches what happens for the triggers of the plan, and keeps what came of its
//! faults. It does nothing itself: `strike` does.

mod past;

use std::collections::BTreeMap;
use std::time::Duration;

use bus_core::TopicPartition;

use crate::fact::Fact;
use crate::fault::{
    FactPattern, FaultId, FaultReport, Party, Plan, Planned, Stage, Struck, Trigger, Until,
};
use crate::node::BrokerId;
use crate::protocol::Api;
use crate::time::SimTime;

use super::{Endpoint, ProcessId};
use past::Past;

/// What is to be done to a fault, by its place in the plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Due {
    /// It strikes.
    Strike(usize),
    /// It ends.
    End(usize),
}

/// When something is to be done to a fault.
pub(super) type Timed = (SimTime, Due);

/// Who sends or handles a request.
#[derive(Clone, Copy, Debug)]
pub(super) enum Seen<'a> {
    Controller,
    Broker(BrokerId),
    Process(&'a str),
}

/// What a fault that struck holds until it ends.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Held {
    /// Nothing: it is over, or struck nobody.
    #[default]
    Nothing,
    /// A broker that is down, or shutting down.
    Down(BrokerId),
    /// A broker that stands still.
    Frozen(BrokerId),
    /// Links that are cut, each in one direction.
    Links(Vec<(Endpoint, Endpoint)>),
    /// A rule for messages, or for commits.
    Rule,
    /// A process that has crashed, with its incarnation.
    Crashed(ProcessId, u32),
    /// A process that is paused or stalled, with its incarnation.
    Paused(ProcessId, u32),
}

/// Watches for triggers, and keeps what came of each fault.
#[derive(Debug)]
pub(super) struct Director {
    entries: Vec<Entry>,
    /// Events that are waited for.
    watches: Vec<Watch>,
    /// What comes some time after the strike of a fault.
    followers: Vec<(FaultId, Due, Duration)>,
    /// What to do before the next event.
    due: Vec<Due>,
    /// How many replicas were in sync when last told.
    in_sync: BTreeMap<TopicPartition, usize>,
    /// What came so far, if that is to be told.
    past: Option<Past>,
    /// All is healed, and nothing strikes any more.
    is_over: bool,
}

#[derive(Debug)]
struct Entry {
    planned: Planned,
    struck: Option<Struck>,
    ended: Option<SimTime>,
    held: Held,
    before: Vec<Trigger>,
}

#[derive(Debug)]
struct Watch {
    trigger: Trigger,
    /// How many more times it has to come.
    left: u32,
    due: Due,
}

impl Director {
    /// Of a plan, with what is due at which times; none if there is nothing to do.
    pub(super) fn new(plan: &Plan, tells_past: bool) -> Option<(Box<Self>, Vec<Timed>)> {
        if plan.faults.is_empty() {
            return None;
        }
        let entry = |planned: &Planned| Entry {
            planned: planned.clone(),
            struck: None,
            ended: None,
            held: Held::Nothing,
            before: Vec::new(),
        };
        let mut director = Self {
            entries: plan.faults.iter().map(entry).collect(),
            watches: Vec::new(),
            followers: Vec::new(),
            due: Vec::new(),
            in_sync: BTreeMap::new(),
            past: tells_past.then(Past::default),
            is_over: false,
        };
        let timed = plan.faults.iter().enumerate().filter_map(|(index, planned)| {
            let at = director.wait_for(planned.when.clone(), Due::Strike(index), SimTime::ZERO)?;
            Some((at, Due::Strike(index)))
        });
        let timed = timed.collect();
        Some((Box::new(director), timed))
    }

    /// Waits for a trigger; or returns when it comes, if that is known.
    fn wait_for(&mut self, trigger: Trigger, due: Due, now: SimTime) -> Option<SimTime> {
        let left = match &trigger {
            Trigger::At(at) => return Some(now.max(*at)),
            Trigger::After { fault, by } => {
                let other = self.entries.iter().find(|entry| entry.planned.id == *fault);
                let struck = other.and_then(|other| other.struck.as_ref());
                if let Some(struck) = struck {
                    return Some(now.max(struck.at + *by));
                }
                self.followers.push((*fault, due, *by));
                return None;
            }
            Trigger::Request { nth, .. }
            | Trigger::Fact { nth, .. }
            | Trigger::Reached { nth, .. }
            | Trigger::Commit { nth, .. } => *nth,
        };
        self.watches.push(Watch { trigger, left, due });
        None
    }

    /// A request came to a stage. Returns whether that makes something due.
    pub(super) fn request(&mut self, stage: Stage, api: Api, from: Seen<'_>, to: Seen<'_>) -> bool {
        if let Some(past) = &mut self.past {
            past.came(Trigger::request(api, stage));
        }
        self.seen(|trigger| match trigger {
            Trigger::Request { api: of, is, from: sender, to: handler, nth: _ } => {
                *of == api
                    && *is == stage
                    && fits(sender.as_ref(), from)
                    && fits(handler.as_ref(), to)
            }
            _ => false,
        })
    }

    /// Something became true.
    pub(super) fn fact(&mut self, fact: &Fact) {
        if self.watches.is_empty() && self.past.is_none() {
            return;
        }
        let before = match fact {
            Fact::InSync { topic_partition, in_sync_replicas } => {
                let count = in_sync_replicas.len();
                // The internal topics are there from the start, without a fact.
                let is_internal = topic_partition.topic.as_str().starts_with("__");
                let before = self.in_sync.insert(topic_partition.clone(), count);
                before.or(if is_internal { Some(usize::MAX) } else { None })
            }
            _ => None,
        };
        if let (Some(past), Some(pattern)) = (&mut self.past, past::pattern(fact, before)) {
            past.came(Trigger::fact(pattern));
        }
        self.seen(|trigger| match trigger {
            Trigger::Fact { is, nth: _ } => is_told(is, fact, before),
            _ => false,
        });
    }

    /// A process came to a crash point.
    pub(super) fn reached(&mut self, name: &str, at: &str) {
        if let Some(past) = &mut self.past {
            let (process, point) = (name.to_owned(), at.to_owned());
            past.came(Trigger::Reached { process, point, nth: 1 });
        }
        self.seen(|trigger| match trigger {
            Trigger::Reached { process, point, nth: _ } => process == name && point == at,
            _ => false,
        });
    }

    /// A process commits at a database.
    pub(super) fn commits(&mut self, name: &str, at: &str) {
        if let Some(past) = &mut self.past {
            let (process, database) = (name.to_owned(), at.to_owned());
            past.came(Trigger::Commit { process, database, nth: 1 });
        }
        self.seen(|trigger| match trigger {
            Trigger::Commit { process, database, nth: _ } => process == name && database == at,
            _ => false,
        });
    }

    fn seen(&mut self, is_it: impl Fn(&Trigger) -> bool) -> bool {
        let before = self.due.len();
        let due = &mut self.due;
        self.watches.retain_mut(|watch| {
            if !is_it(&watch.trigger) {
                return true;
            }
            watch.left -= 1;
            if watch.left == 0 {
                due.push(watch.due);
            }
            watch.left > 0
        });
        self.due.len() > before
    }

    /// Something is due now.
    pub(super) fn is_due(&mut self, due: Due) {
        self.due.push(due);
    }

    /// The next that is due.
    pub(super) fn next_due(&mut self) -> Option<Due> {
        (!self.due.is_empty()).then(|| self.due.remove(0))
    }

    /// The next that is due and only makes a rule for messages or commits.
    pub(super) fn next_rule(&mut self) -> Option<usize> {
        let entries = &self.entries;
        let is_rule = |due: &Due| match due {
            Due::Strike(index) => entries[*index].planned.fault.is_rule(),
            Due::End(_) => false,
        };
        let place = self.due.iter().position(is_rule)?;
        match self.due.remove(place) {
            Due::Strike(index) | Due::End(index) => Some(index),
        }
    }

    /// The fault at a place of the plan, if it can still strike.
    pub(super) fn to_strike(&self, index: usize) -> Option<Planned> {
        let entry = &self.entries[index];
        (!self.is_over && entry.struck.is_none()).then(|| entry.planned.clone())
    }

    /// A fault struck. Returns what is due at which times from now on.
    pub(super) fn struck(&mut self, index: usize, struck: Struck, held: Held) -> Vec<Timed> {
        let now = struck.at;
        let entry = &mut self.entries[index];
        let id = entry.planned.id;
        if let (Some(past), Trigger::At(_)) = (&self.past, &entry.planned.when) {
            entry.before = past.last_first();
        }
        let until = entry.planned.until.clone();
        (entry.struck, entry.held) = (Some(struck), held);
        let mut timed = Vec::new();
        self.followers.retain(|(other, due, by)| {
            let follows = *other == id;
            if follows {
                timed.push((now + *by, *due));
            }
            !follows
        });
        let end = Due::End(index);
        let at = match until {
            None => None,
            Some(Until::For(duration)) => Some(now + duration),
            Some(Until::When(trigger)) => self.wait_for(trigger, end, now),
        };
        timed.extend(at.map(|at| (at, end)));
        timed
    }

    /// A fault ends: returns its id and what it held, if it had not ended before.
    pub(super) fn end(&mut self, index: usize, now: SimTime) -> Option<(FaultId, Held)> {
        let entry = &mut self.entries[index];
        if self.is_over || entry.ended.is_some() || entry.struck.is_none() {
            return None;
        }
        entry.ended = Some(now);
        Some((entry.planned.id, std::mem::take(&mut entry.held)))
    }

    /// A fault changed something.
    pub(super) fn changed(&mut self, index: usize) {
        if let Some(struck) = &mut self.entries[index].struck {
            struck.has_changed = true;
        }
    }

    /// A link held a message back.
    pub(super) fn held_back(&mut self, link: (Endpoint, Endpoint)) {
        for entry in &mut self.entries {
            if let (Held::Links(links), Some(struck)) = (&entry.held, &mut entry.struck) {
                struck.has_changed |= links.contains(&link);
            }
        }
    }

    /// A broker that stands still did not handle something.
    pub(super) fn stood_still(&mut self, id: BrokerId) {
        for entry in &mut self.entries {
            if let (true, Some(struck)) = (entry.held == Held::Frozen(id), &mut entry.struck) {
                struck.has_changed = true;
            }
        }
    }

    /// Whether a fault that has not ended holds such a thing.
    pub(super) fn holds(&self, is_it: impl Fn(&Held) -> bool) -> bool {
        self.entries.iter().any(|entry| is_it(&entry.held))
    }

    /// Everything heals: nothing strikes any more, and nothing is held.
    pub(super) fn quiesce(&mut self, now: SimTime) {
        self.is_over = true;
        self.watches.clear();
        self.followers.clear();
        self.due.clear();
        for entry in &mut self.entries {
            if std::mem::take(&mut entry.held) != Held::Nothing {
                entry.ended = Some(now);
            }
        }
    }

    /// What came of each fault.
    pub(super) fn reports(&self) -> impl Iterator<Item = (&Planned, FaultReport)> {
        self.entries.iter().map(|entry| {
            let report = FaultReport {
                id: entry.planned.id,
                struck: entry.struck.clone(),
                ended: entry.ended,
                before: entry.before.clone(),
            };
            (&entry.planned, report)
        })
    }
}

fn fits(party: Option<&Party>, seen: Seen<'_>) -> bool {
    match (party, seen) {
        (None, _)
        | (Some(Party::AnyBroker), Seen::Broker(_))
        | (Some(Party::AnyProcess), Seen::Process(_))
        | (Some(Party::Controller), Seen::Controller) => true,
        (Some(Party::Broker(id)), Seen::Broker(seen)) => *id == seen,
        (Some(Party::Process(name)), Seen::Process(seen)) => name == seen,
        _ => false,
    }
}

/// Whether a fact is what a trigger waits for. `before` is how many were in sync.
fn is_told(pattern: &FactPattern, fact: &Fact, before: Option<usize>) -> bool {
    use crate::fact::TransactionFact;
    let is = |topic: &bus_core::Topic, partition: &i32, place: &TopicPartition| {
        *topic == place.topic && *partition == place.partition
    };
    match (pattern, fact) {
        (FactPattern::LeaderElected(t, p), Fact::Leader { topic_partition, leader, .. }) => {
            is(t, p, topic_partition) && leader.is_some()
        }
        (FactPattern::LeaderLost(t, p), Fact::Leader { topic_partition, leader, .. }) => {
            is(t, p, topic_partition) && leader.is_none()
        }
        (FactPattern::InSyncShrank(t, p), Fact::InSync { topic_partition, in_sync_replicas }) => {
            let count = in_sync_replicas.len();
            is(t, p, topic_partition) && before.is_some_and(|before| count < before)
        }
        (FactPattern::InSyncGrew(t, p), Fact::InSync { topic_partition, in_sync_replicas }) => {
            let count = in_sync_replicas.len();
            is(t, p, topic_partition) && before.is_some_and(|before| count > before)
        }
        (FactPattern::InSync(t, p, all), Fact::InSync { topic_partition, in_sync_replicas }) => {
            let same = all.len() == in_sync_replicas.len()
                && all.iter().all(|id| in_sync_replicas.contains(id));
            is(t, p, topic_partition) && same
        }
        (FactPattern::LeaderStarted(t, p), Fact::EpochStart { topic_partition, .. })
        | (FactPattern::Appended(t, p), Fact::Appended { topic_partition, .. })
        | (FactPattern::Replicated(t, p), Fact::Replicated { topic_partition, .. })
        | (FactPattern::HighWatermark(t, p), Fact::HighWatermark { topic_partition, .. })
        | (FactPattern::Truncated(t, p), Fact::Truncated { topic_partition, .. })
        | (FactPattern::DuplicateBatch(t, p), Fact::DuplicateBatch { topic_partition, .. })
        | (
            FactPattern::Marker(t, p),
            Fact::Transaction(TransactionFact::Marker { topic_partition, .. }),
        ) => is(t, p, topic_partition),
        (FactPattern::GroupState(group, name), Fact::GroupState { group_id, state, .. }) => {
            **group == **group_id && name == state
        }
        (FactPattern::MemberLeft(group), Fact::MemberLeft { group_id, .. })
        | (
            FactPattern::OffsetCommitted(group),
            Fact::OffsetCommit { group_id, refused: None, .. },
        ) => **group == **group_id,
        (
            FactPattern::TransactionState(id, name),
            Fact::Transaction(TransactionFact::State { transactional_id, state, .. }),
        ) => **id == **transactional_id && name == state,
        _ => false,
    }
}

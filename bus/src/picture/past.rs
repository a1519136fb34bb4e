//! The causal past of the witness: back along the causes, once around what goes on for ever.
//!
//! A heartbeat comes of a timer that the answer to the heartbeat before had set, and so on to the
//! start of the world. The same message between the same two, or the same timer, is told once.

use std::collections::{BTreeMap, BTreeSet};

use bus_check::picture::diagram::EventId;
use bus_sim::event::{Change, Place};
use bus_sim::fact::Fact;
use bus_sim::{SimEvent, SimEventKind};

use super::{Cast, words};

/// What led to the witness.
pub(super) struct Past {
    /// All of it, with the witness.
    pub(super) ids: BTreeSet<EventId>,
    /// The causes of each.
    pub(super) causes: BTreeMap<EventId, Vec<EventId>>,
}

impl Past {
    /// Follows the causes of the witness.
    pub(super) fn of(cast: &Cast<'_>) -> Self {
        let mut past = Self { ids: BTreeSet::new(), causes: BTreeMap::new() };
        let extra = extra_causes(cast);
        for witness in cast.witness {
            past.follow(cast, &extra, *witness);
        }
        past
    }

    fn follow(&mut self, cast: &Cast<'_>, extra: &BTreeMap<EventId, Vec<EventId>>, from: EventId) {
        // What was met on the way back to here, so that a circle ends.
        let mut next: Vec<(EventId, Vec<String>)> = vec![(from, Vec::new())];
        while let Some((id, mut met)) = next.pop() {
            let Some(event) = cast.event(id) else { continue };
            if let Some(key) = key(event) {
                if met.contains(&key) {
                    continue;
                }
                met.push(key);
            }
            if !self.ids.insert(id) {
                continue;
            }
            let mut causes: Vec<EventId> = event.cause.into_iter().collect();
            causes.extend(extra.get(&id).into_iter().flatten());
            causes.sort_unstable();
            causes.dedup();
            next.extend(causes.iter().map(|cause| (*cause, met.clone())));
            self.causes.insert(id, causes);
        }
        let ids = &self.ids;
        for causes in self.causes.values_mut() {
            causes.retain(|cause| ids.contains(cause));
        }
    }
}

/// What makes an event the same as an earlier one, if it goes around.
fn key(event: &SimEvent) -> Option<String> {
    match &event.kind {
        SimEventKind::Sent { message, to, .. } => Some(format!("{message:?} {} {to}", event.place)),
        SimEventKind::Timer(timer) => Some(format!("{timer:?} {}", event.place)),
        _ => None,
    }
}

/// Causes that the record does not name: what was found out while the same thing was handled, and
/// the crash of a leader for the election of the next.
fn extra_causes(cast: &Cast<'_>) -> BTreeMap<EventId, Vec<EventId>> {
    let mut extra: BTreeMap<EventId, Vec<EventId>> = BTreeMap::new();
    let mut found: BTreeMap<EventId, Vec<EventId>> = BTreeMap::new();
    let mut crashes: BTreeMap<i32, EventId> = BTreeMap::new();
    let mut leaders: BTreeMap<String, i32> = BTreeMap::new();
    for event in cast.events {
        if let Some(cause) = event.cause {
            let earlier = found.get(&cause).cloned().unwrap_or_default();
            if matches!(event.kind, SimEventKind::Sent { .. } | SimEventKind::Delivered { .. }) {
                extra.entry(event.seq).or_default().extend(earlier);
            }
        }
        match &event.kind {
            SimEventKind::Changed(Change::Crashed | Change::PowerLost | Change::Stopped, _) => {
                if let Place::Broker(id) = event.place {
                    crashes.insert(id, event.seq);
                }
            }
            SimEventKind::Changed(Change::Started, _) => {
                if let Place::Broker(id) = event.place {
                    crashes.remove(&id);
                }
            }
            SimEventKind::Fact(fact) => {
                let is_shown = words::partition(fact).is_some_and(|p| cast.shows(p));
                if let Some(cause) = event.cause.filter(|_| is_shown) {
                    found.entry(cause).or_default().push(event.seq);
                }
                if let Fact::Leader { topic_partition, leader, .. } = fact {
                    let before = leaders.get(&topic_partition.to_string());
                    let crash = before.and_then(|before| crashes.get(before));
                    extra.entry(event.seq).or_default().extend(crash);
                    if let Some(leader) = leader {
                        leaders.insert(topic_partition.to_string(), *leader);
                    }
                }
                if let Fact::EpochStart { broker, topic_partition, .. } = fact {
                    leaders.insert(topic_partition.to_string(), *broker);
                }
            }
            _ => {}
        }
    }
    extra
}

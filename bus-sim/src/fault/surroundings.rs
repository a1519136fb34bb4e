//! What there is for faults to strike, as a run without faults showed it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::{Envelope, Surroundings};
use crate::driver::SimReport;
use crate::event::{Change, Place, SimEventKind};
use crate::fact::{Fact, TransactionFact};

impl Surroundings {
    /// So many brokers with nothing on them, for faults of all kinds within what is tolerated,
    /// until `horizon`.
    pub const fn new(brokers: i32, horizon: Duration) -> Self {
        Self {
            brokers,
            processes: Vec::new(),
            topics: Vec::new(),
            groups: Vec::new(),
            transactional_ids: Vec::new(),
            crash_points: Vec::new(),
            commits: Vec::new(),
            horizon,
            envelope: Envelope::Tolerated,
            kinds: BTreeSet::new(),
        }
    }

    /// With the processes, topics, groups, transactional ids, crash points, and commits of a
    /// run whose events were [recorded](crate::SimConfig::record_events).
    #[must_use]
    pub fn seen_in(mut self, report: &SimReport) -> Self {
        let mut seen = Seen::default();
        for event in &report.recorded {
            seen.event(&event.place, &event.kind);
        }
        self.processes = seen.processes.into_iter().collect();
        self.topics = seen.topics.into_iter().map(|(name, n)| (name.as_str().into(), n)).collect();
        self.groups = seen.groups.into_iter().collect();
        self.transactional_ids = seen.transactional_ids.into_iter().collect();
        self.crash_points = seen.crash_points.into_iter().collect();
        self.commits = seen.commits.into_iter().collect();
        self
    }
}

#[derive(Debug, Default)]
struct Seen {
    processes: BTreeSet<String>,
    topics: BTreeMap<String, i32>,
    groups: BTreeSet<String>,
    transactional_ids: BTreeSet<String>,
    crash_points: BTreeSet<(String, String)>,
    commits: BTreeSet<(String, String)>,
}

impl Seen {
    fn event(&mut self, place: &Place, kind: &SimEventKind) {
        match (place, kind) {
            (Place::Process(name), SimEventKind::Changed(Change::Started, _)) => {
                self.processes.insert(name.to_string());
            }
            (Place::Process(name), SimEventKind::Reached(point)) => {
                self.crash_points.insert((name.to_string(), point.clone()));
            }
            (Place::Process(name), SimEventKind::Commits { database, .. }) => {
                self.commits.insert((name.to_string(), database.clone()));
            }
            (_, SimEventKind::Fact(fact)) => self.fact(fact),
            _ => {}
        }
    }

    fn fact(&mut self, fact: &Fact) {
        match fact {
            Fact::Topic { topic, partitions } if *partitions > 0 && !topic.starts_with("__") => {
                self.topics.insert(topic.to_string(), *partitions);
            }
            Fact::GroupState { group_id, .. } => {
                self.groups.insert(group_id.to_string());
            }
            Fact::Transaction(TransactionFact::State { transactional_id, .. }) => {
                self.transactional_ids.insert(transactional_id.to_string());
            }
            _ => {}
        }
    }
}

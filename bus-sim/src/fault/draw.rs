//! Plans drawn from a seed, by swarm testing: each seed first draws which kinds of faults are on,
//! how many there are, and how long they last. A quarter of the seeds has none.
//!
//! Each part of a plan is a choice of its own, so taking one fault out of a plan does not change
//! the others.

use std::collections::BTreeSet;
use std::time::Duration;

use bus_core::{Partition, Topic};
use serde::{Deserialize, Serialize};

use super::swarm::{Dice, possible};
use super::{
    Envelope, FactPattern, Fault, FaultId, FaultKind, Messages, Party, Plan, Planned, Stage,
    Target, Trigger, Until, text,
};
use crate::choice::Choices;
use crate::config::SimConfig;
use crate::node::BrokerId;
use crate::protocol::Api;
use crate::time::SimTime;

/// What there is for faults to strike.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Surroundings {
    /// How many brokers.
    pub brokers: i32,
    /// The named processes of the application.
    #[serde(default)]
    pub processes: Vec<String>,
    /// The topics, each with how many partitions it has.
    #[serde(default)]
    pub topics: Vec<(Topic, Partition)>,
    /// The groups.
    #[serde(default)]
    pub groups: Vec<String>,
    /// The transactional ids.
    #[serde(default)]
    pub transactional_ids: Vec<String>,
    /// The crash points: process and point.
    #[serde(default)]
    pub crash_points: Vec<(String, String)>,
    /// Who commits at databases outside of the bus: process and database.
    #[serde(default)]
    pub commits: Vec<(String, String)>,
    /// Until when faults strike. Then everything heals.
    #[serde(with = "text::duration")]
    pub horizon: Duration,
    /// How bad it may be.
    #[serde(default)]
    pub envelope: Envelope,
    /// The kinds that may be on; empty for all.
    #[serde(default)]
    pub kinds: BTreeSet<FaultKind>,
}

/// What was drawn for a seed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Drawn {
    /// The faults.
    pub plan: Plan,
    /// Which kinds were on, whether or not there is a fault of each.
    pub kinds: BTreeSet<FaultKind>,
    /// The most time that a message is under way.
    #[serde(with = "text::duration")]
    pub latency_max: Duration,
}

impl Drawn {
    /// A configuration with the plan and the settings that were drawn.
    #[must_use]
    pub fn apply(&self, config: SimConfig) -> SimConfig {
        let latency_max = self.latency_max.max(config.latency_min);
        SimConfig { plan: self.plan.clone(), latency_max, ..config }
    }
}

/// The most faults of a plan.
const MOST: u64 = 12;

/// The most time that a message is under way: a data center, mostly.
const LATENCIES: [Duration; 4] = [
    Duration::from_millis(1),
    Duration::from_millis(1),
    Duration::from_millis(5),
    Duration::from_millis(40),
];

/// How long faults last: around the timeouts of clients, replicas, and sessions.
const LENGTHS: [Duration; 7] = [
    Duration::from_millis(30),
    Duration::from_millis(300),
    Duration::from_secs(1),
    Duration::from_secs(3),
    Duration::from_secs(5),
    Duration::from_secs(11),
    Duration::from_secs(35),
];

/// How often an event comes before a fault strikes.
const COUNTS: [u32; 8] = [1, 1, 2, 3, 5, 8, 20, 50];

/// APIs that processes use.
const OF_CLIENTS: &[Api] = &[
    Api::Produce,
    Api::Produce,
    Api::Fetch,
    Api::Metadata,
    Api::InitProducerId,
    Api::ListOffsets,
    Api::FindCoordinator,
];
/// APIs of groups.
const OF_GROUPS: &[Api] = &[
    Api::JoinGroup,
    Api::SyncGroup,
    Api::Heartbeat,
    Api::OffsetCommit,
    Api::OffsetFetch,
    Api::LeaveGroup,
];
/// APIs of transactions.
const OF_TRANSACTIONS: &[Api] = &[
    Api::AddPartitionsToTxn,
    Api::AddOffsetsToTxn,
    Api::TxnOffsetCommit,
    Api::EndTxn,
    Api::WriteTxnMarkers,
];
/// APIs of brokers.
const OF_BROKERS: &[Api] = &[
    Api::Fetch,
    Api::AlterPartition,
    Api::BrokerHeartbeat,
    Api::FetchMetadataLog,
    Api::OffsetForLeaderEpoch,
];

/// Draws the faults of a seed. Equal seed and surroundings give an equal plan.
///
/// ```
/// use bus_sim::fault::{Surroundings, draw};
///
/// let surroundings = Surroundings {
///     processes: vec!["member-0".to_owned()],
///     topics: vec![("orders".into(), 3)],
///     groups: vec!["g".to_owned()],
///     ..Surroundings::new(3, std::time::Duration::from_secs(20))
/// };
/// let drawn = draw(7, &surroundings);
/// assert_eq!(drawn, draw(7, &surroundings));
/// assert!(drawn.plan.validate(3).is_ok());
/// ```
pub fn draw(seed: u64, surroundings: &Surroundings) -> Drawn {
    let choices = Choices::new(seed);
    let dice = Dice::new(&choices, 0);
    let kinds = possible(surroundings);
    let on: BTreeSet<_> =
        kinds.iter().copied().filter(|kind| dice.below(("on", *kind), 2) == 0).collect();
    let mut counts = dice.below("how many", MOST) + 1;
    if dice.below("quiet", 4) == 0 || on.is_empty() {
        counts = 0;
    }
    // Sometimes all faults come at once.
    let span =
        if dice.below("crowded", 3) == 0 { surroundings.horizon / 8 } else { surroundings.horizon };
    let start = dice.duration("start", surroundings.horizon.saturating_sub(span));
    let faults = (1..=u32::try_from(counts).unwrap_or(0)).filter_map(|id| {
        let dice = Dice::new(&choices, id);
        let draw = Draw { dice, surroundings, start, span };
        Some(draw.planned(id, dice.kind(&on)?))
    });
    Drawn {
        plan: Plan {
            faults: faults.collect(),
            quiesce_at: Some(SimTime::ZERO + surroundings.horizon),
            envelope: surroundings.envelope,
        },
        kinds: on,
        latency_max: *dice.pick("latency", &LATENCIES),
    }
}

/// Draws one fault.
#[derive(Clone, Copy, Debug)]
struct Draw<'a> {
    dice: Dice<'a>,
    surroundings: &'a Surroundings,
    start: Duration,
    span: Duration,
}

impl Draw<'_> {
    fn planned(&self, id: FaultId, kind: FaultKind) -> Planned {
        let fault = self.fault(kind);
        let when = self.trigger(&fault);
        let is_rule = fault.is_rule();
        // Of messages and commits, mostly one is lost or late.
        let lasts = fault.has_end() && (!is_rule || self.dice.below("lasts", 4) == 0);
        // Beyond the envelope some last until everything heals.
        let is_beyond = self.surroundings.envelope == Envelope::Beyond;
        let stays = is_beyond && !is_rule && self.dice.below("stays", 3) == 0;
        let until = (lasts && !stays).then(|| Until::For(*self.dice.pick("until", &LENGTHS)));
        Planned { id, when, fault, until }
    }

    fn fault(&self, kind: FaultKind) -> Fault {
        match kind {
            FaultKind::CrashBroker => Fault::CrashBroker(self.target()),
            FaultKind::LosePower => Fault::LosePower(self.target()),
            FaultKind::ShutDownBroker => Fault::ShutDownBroker(self.target()),
            FaultKind::FreezeBroker => Fault::FreezeBroker(self.target()),
            FaultKind::IsolateBroker => Fault::IsolateBroker(self.target()),
            FaultKind::CutBrokers | FaultKind::CutOneWay => {
                let brokers = u64::try_from(self.surroundings.brokers).unwrap_or(2);
                let first = self.dice.below("first", brokers);
                let second = (first + 1 + self.dice.below("second", brokers - 1)) % brokers;
                let [a, b] = [first, second].map(|index| Target::Broker(broker(index)));
                if kind == FaultKind::CutBrokers {
                    Fault::CutBrokers(a, b)
                } else {
                    Fault::CutOneWay(a, b)
                }
            }
            FaultKind::CutFromController => Fault::CutFromController(self.target()),
            FaultKind::CutProcess => Fault::CutProcess(self.client(), self.target()),
            FaultKind::ResetConnections => Fault::ResetConnections(self.client(), self.target()),
            FaultKind::CrashController => Fault::CrashController,
            FaultKind::ElectPreferred => Fault::ElectPreferred,
            FaultKind::LoseRequest => Fault::LoseRequest(self.messages()),
            FaultKind::LoseResponse => Fault::LoseResponse(self.messages()),
            FaultKind::DelayRequest => Fault::DelayRequest(self.messages(), self.delay()),
            FaultKind::DelayResponse => Fault::DelayResponse(self.messages(), self.delay()),
            FaultKind::CrashProcess => Fault::CrashProcess(self.process()),
            FaultKind::PauseProcess => Fault::PauseProcess(self.process()),
            FaultKind::StallProcess => Fault::StallProcess(self.process()),
            FaultKind::RefuseCommit
            | FaultKind::LoseCommit
            | FaultKind::LoseCommitAnswer
            | FaultKind::DelayCommit => self.of_commits(kind),
        }
    }

    /// A fault of the commits of a process.
    fn of_commits(&self, kind: FaultKind) -> Fault {
        let (process, database) = self.dice.pick("commits", &self.surroundings.commits).clone();
        match kind {
            FaultKind::RefuseCommit => Fault::RefuseCommit(process, database),
            FaultKind::LoseCommit => Fault::LoseCommit(process, database),
            FaultKind::LoseCommitAnswer => Fault::LoseCommitAnswer(process, database),
            _ => Fault::DelayCommit(process, database, self.delay()),
        }
    }

    fn target(&self) -> Target {
        let brokers = u64::try_from(self.surroundings.brokers).unwrap_or(1);
        let by_number = || Target::Broker(broker(self.dice.below("broker", brokers)));
        let Surroundings { topics, groups, transactional_ids, .. } = self.surroundings;
        match self.dice.below("target", 8) {
            0 | 1 if !topics.is_empty() => {
                let (topic, partition) = self.partition();
                Target::Leader(topic, partition)
            }
            2 if !topics.is_empty() && brokers > 1 => {
                let (topic, partition) = self.partition();
                Target::Follower(topic, partition)
            }
            3 if !groups.is_empty() => {
                Target::GroupCoordinator(self.dice.pick("group", groups).clone())
            }
            4 if !transactional_ids.is_empty() => {
                let id = self.dice.pick("transactional id", transactional_ids);
                Target::TransactionCoordinator(id.clone())
            }
            _ => by_number(),
        }
    }

    fn partition(&self) -> (Topic, Partition) {
        let (topic, count) = self.dice.pick("topic", &self.surroundings.topics);
        let count = u64::try_from(*count).unwrap_or(1).max(1);
        let partition = self.dice.below("partition", count);
        (topic.clone(), Partition::try_from(partition).unwrap_or(0))
    }

    /// A process with clients; `main` is one, too.
    fn client(&self) -> String {
        let mut clients = vec!["main".to_owned()];
        clients.extend_from_slice(&self.surroundings.processes);
        self.dice.pick("client", &clients).clone()
    }

    fn process(&self) -> String {
        self.dice.pick("process", &self.surroundings.processes).clone()
    }

    fn delay(&self) -> Duration {
        *self.dice.pick("delay", &LENGTHS)
    }

    /// An API, with who sends its requests.
    fn messages(&self) -> Messages {
        let Surroundings { brokers, groups, transactional_ids, .. } = self.surroundings;
        let mut apis: Vec<_> =
            OF_CLIENTS.iter().map(|api| (*api, Some(Party::AnyProcess))).collect();
        if !groups.is_empty() {
            apis.extend(OF_GROUPS.iter().map(|api| (*api, None)));
        }
        if !transactional_ids.is_empty() {
            apis.extend(OF_TRANSACTIONS.iter().map(|api| (*api, None)));
        }
        if *brokers > 1 {
            apis.extend(OF_BROKERS.iter().map(|api| (*api, Some(Party::AnyBroker))));
        }
        let (api, from) = self.dice.pick("api", &apis).clone();
        Messages { api, from, to: None }
    }

    fn trigger(&self, fault: &Fault) -> Trigger {
        let nth = *self.dice.pick("nth", &COUNTS);
        if let Fault::CrashProcess(name) | Fault::PauseProcess(name) | Fault::StallProcess(name) =
            fault
        {
            let points = &self.surroundings.crash_points;
            let own: Vec<_> = points.iter().filter(|(process, _)| process == name).collect();
            if !own.is_empty() && self.dice.below("at a point", 2) == 0 {
                let (process, point) = *self.dice.pick("point", &own);
                return Trigger::Reached { process: process.clone(), point: point.clone(), nth };
            }
        }
        if let Some((process, database)) = fault.commits_of()
            && self.dice.below("at a commit", 4) > 0
        {
            let (process, database) = (process.to_owned(), database.to_owned());
            return Trigger::Commit { process, database, nth };
        }
        // Only a replica that is back in sync can be elected again.
        if *fault == Fault::ElectPreferred
            && !self.surroundings.topics.is_empty()
            && self.dice.below("back in sync", 4) > 0
        {
            let (topic, partition) = self.partition();
            let nth = nth.min(3);
            return Trigger::Fact { is: FactPattern::InSyncGrew(topic, partition), nth };
        }
        match self.dice.below("when", 8) {
            0..=2 => {
                let Messages { api, from, to } = self.messages();
                let stages = [Stage::Sent, Stage::Handled, Stage::Answered, Stage::Received];
                let is = *self.dice.pick("stage", &stages);
                Trigger::Request { api, is, from, to, nth }
            }
            3 => match self.fact() {
                Some(is) => Trigger::Fact { is, nth },
                None => self.time(),
            },
            _ => self.time(),
        }
    }

    fn time(&self) -> Trigger {
        Trigger::At(SimTime::ZERO + self.start + self.dice.duration("at", self.span))
    }

    fn fact(&self) -> Option<FactPattern> {
        let Surroundings { topics, groups, transactional_ids, brokers, .. } = self.surroundings;
        let mut facts = Vec::new();
        if !topics.is_empty() {
            let (topic, partition) = self.partition();
            facts.push(FactPattern::Appended(topic.clone(), partition));
            if *brokers > 1 {
                facts.push(FactPattern::Replicated(topic.clone(), partition));
                facts.push(FactPattern::InSyncShrank(topic.clone(), partition));
                facts.push(FactPattern::LeaderStarted(topic, partition));
            }
        }
        if !groups.is_empty() {
            let group = || self.dice.pick("group of fact", groups).clone();
            facts.push(FactPattern::OffsetCommitted(group()));
            for state in ["PreparingRebalance", "CompletingRebalance", "Stable"] {
                facts.push(FactPattern::GroupState(group(), state.to_owned()));
            }
        }
        if !transactional_ids.is_empty() {
            let id = || self.dice.pick("id of fact", transactional_ids).clone();
            for state in ["Ongoing", "PrepareCommit", "PrepareAbort", "CompleteCommit"] {
                facts.push(FactPattern::TransactionState(id(), state.to_owned()));
            }
        }
        (!facts.is_empty()).then(|| self.dice.pick("fact", &facts).clone())
    }
}

fn broker(index: u64) -> BrokerId {
    BrokerId::try_from(index).unwrap_or(0) + 1
}

#[cfg(test)]
mod tests {
    use super::super::swarm::LATER;
    use super::*;

    fn surroundings(brokers: i32) -> Surroundings {
        Surroundings {
            brokers,
            processes: vec!["a".to_owned(), "b".to_owned()],
            topics: vec![("orders".into(), 3)],
            groups: vec!["g".to_owned()],
            transactional_ids: vec!["t".to_owned()],
            crash_points: vec![("a".to_owned(), "sent".to_owned())],
            commits: vec![("b".to_owned(), "shop".to_owned())],
            horizon: Duration::from_secs(20),
            envelope: Envelope::Tolerated,
            kinds: BTreeSet::new(),
        }
    }

    #[test]
    fn plans_are_valid_and_a_quarter_is_quiet() {
        let mut quiet = 0;
        for seed in 0..2_000 {
            let brokers = if seed % 2 == 0 { 1 } else { 3 };
            let drawn = draw(seed, &surroundings(brokers));
            drawn.plan.validate(brokers).unwrap();
            assert!(drawn.plan.faults.len() <= 12);
            assert!(drawn.plan.faults.iter().all(|f| drawn.kinds.contains(&f.fault.kind())));
            quiet += u32::from(drawn.plan.faults.is_empty());
        }
        assert!((400..600).contains(&quiet), "{quiet}");
    }

    #[test]
    fn every_kind_and_every_way_to_trigger_is_drawn() {
        let plans = (0..500).map(|seed| draw(seed, &surroundings(3)).plan);
        let faults: Vec<_> = plans.flat_map(|plan| plan.faults).collect();
        let kinds: BTreeSet<_> = faults.iter().map(|planned| planned.fault.kind()).collect();
        assert_eq!(kinds.len(), FaultKind::ALL.len());
        let of = |is: fn(&Trigger) -> bool| faults.iter().filter(|f| is(&f.when)).count();
        assert!(of(|when| matches!(when, Trigger::At(_))) > 100);
        assert!(of(|when| matches!(when, Trigger::Request { .. })) > 100);
        assert!(of(|when| matches!(when, Trigger::Fact { .. })) > 100);
        assert!(of(|when| matches!(when, Trigger::Reached { .. })) > 10);
        assert!(of(|when| matches!(when, Trigger::Commit { .. })) > 100);
    }

    #[test]
    fn later_kinds_leave_the_others_as_they_are() {
        let with = surroundings(3);
        let first = FaultKind::ALL.iter().copied().filter(|kind| !LATER.contains(kind));
        let without = Surroundings { kinds: first.collect(), ..with.clone() };
        let (mut same, mut all) = (0, 0);
        for seed in 0..500 {
            let (with, without) = (draw(seed, &with), draw(seed, &without));
            let is_new = |kind: &FaultKind| LATER.contains(kind);
            let on: BTreeSet<_> = with.kinds.iter().copied().filter(|kind| !is_new(kind)).collect();
            assert_eq!((on, with.latency_max), (without.kinds, without.latency_max));
            if !with.kinds.iter().any(is_new) {
                assert_eq!(with.plan, without.plan);
            }
            for (with, without) in with.plan.faults.iter().zip(&without.plan.faults) {
                all += 1;
                same += u32::from(with == without);
                assert!(with == without || is_new(&with.fault.kind()), "{with:?}");
            }
        }
        assert!(same < all && same * 4 > all * 3, "{same} of {all}");
    }

    #[test]
    fn a_single_broker_keeps_its_page_cache_within_the_envelope() {
        let kinds = (0..100).flat_map(|seed| draw(seed, &surroundings(1)).kinds);
        assert!(!kinds.collect::<BTreeSet<_>>().contains(&FaultKind::LosePower));
    }

    #[test]
    fn a_plan_is_read_as_it_is_written() {
        for seed in 0..100 {
            let drawn = draw(seed, &surroundings(3));
            let text = ron::to_string(&drawn).unwrap();
            assert_eq!(ron::from_str::<Drawn>(&text).unwrap(), drawn);
        }
    }
}

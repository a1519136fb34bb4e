//! From the record of a simulation to the picture of it.
//!
//! The simulator records every event with its cause ([`SimConfig::record_events`]); a picture needs
//! to know what it is about: the few events that prove the verdict.
//!
//! - [`diagram`]: the picture of recorded events;
//! - [`of_replay`]: the picture of the run of a replay file;
//! - [`of_finding`], [`witness_of`]: what a finding of the checkers is about, and which events
//!   prove what became of an offset;
//! - [`to_html`], [`to_text`]: what to do with it.
//!
//! [`SimConfig::record_events`]: crate::sim::SimConfig::record_events

mod arrows;
mod bands;
mod logs;
mod past;
mod witness;
mod words;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;

use bus_check::picture::diagram::{
    Commit, EventId, Lane, LaneIndex, LaneKind, Sentence, Step, Transaction, TransactionState,
    Verdict,
};
pub use bus_check::picture::{Diagram, diagram as parts, to_html, to_text};
use bus_check::verdict::Verdict::Explained;
use bus_check::{Finding, Report};
use bus_core::TopicPartition;
use bus_sim::event::{Change, EventSeq, Place};
use bus_sim::explore::{Replay, Replayed, Shrunk};
use bus_sim::fact::{Fact, TransactionFact};
use bus_sim::{SimEvent, SimEventKind};

use crate::explore::{Evidence, FORM, guarantee_name};
use past::Past;
pub use witness::{of_finding, witness_of};

/// What a picture is about.
#[derive(Clone, Debug, Default)]
pub struct Subject {
    /// What the run was.
    pub title: String,
    /// What came of it.
    pub verdict: Verdict,
    /// The events that prove it, by their numbers in the record.
    pub witness: Vec<EventSeq>,
    /// The partitions to show; none for those that the witness is about.
    pub partitions: Vec<TopicPartition>,
    /// The story, if you tell it better than the record does.
    pub narrative: Vec<Sentence>,
    /// The plan, if there was one; none for the faults that happened.
    pub plan: Vec<Step>,
}

/// Draws what the simulator recorded. Events must be all of one run, in their order.
///
/// ```
/// use bus::picture::{Subject, diagram, to_html};
/// use bus::sim::{Sim, SimConfig};
///
/// let config = SimConfig { record_events: true, ..Default::default() };
/// let outcome = Sim::new(config)?.run(|sim| async move {
///     sim.bus().admin()?.create_topic(bus::NewTopic::new("orders")).await
/// });
/// let subject = Subject { title: "a topic".to_owned(), ..Default::default() };
/// let page = to_html(&diagram(&outcome.report.recorded, subject));
/// assert!(page.starts_with("<!doctype html>"));
/// # Ok::<_, bus::Error>(())
/// ```
pub fn diagram(events: &[SimEvent], subject: Subject) -> Diagram {
    let events = &words::joined(events);
    let lanes = Lanes::of(events);
    let partitions = partitions(events, &subject);
    let cast = Cast { events, lanes, partitions, witness: &subject.witness };
    let past = Past::of(&cast);
    let narrative = if subject.narrative.is_empty() {
        words::narrative(&cast, &past)
    } else {
        subject.narrative
    };
    let plan = if subject.plan.is_empty() { words::plan(&cast) } else { subject.plan };
    let shown = arrows::shown(&cast, &past);
    Diagram {
        title: subject.title,
        verdict: subject.verdict,
        lanes: cast.lanes.all.clone(),
        arrows: arrows::arrows(&cast, &shown),
        marks: arrows::marks(&cast, &shown),
        bands: bands::bands(&cast),
        logs: logs::strips(&cast),
        commits: commits(&cast),
        transactions: transactions(&cast),
        witness: subject.witness,
        narrative,
        plan,
        causes: past.causes,
    }
}

/// The picture of a run of a replay file, whose events were recorded. Its witness is what was done
/// to the world, and the events that prove what the checkers say of it.
pub fn of_replay(replay: &Replay, replayed: &Replayed, evidence: &Evidence) -> Diagram {
    let events = replayed.report.as_ref().map_or(&[][..], |report| &report.recorded);
    let found = replayed.violations.iter().find(|v| v.guarantee == replay.expect.guarantee);
    let first = found.or_else(|| replayed.violations.first());
    let proof = evidence.show(|history, report| {
        let finding = finding(report, &replay.expect.guarantee);
        finding.map(|finding| of_finding(events, history, finding))
    });
    let mut proof = proof.flatten().unwrap_or_default();
    proof.witness.extend(done_to_the_world(events));
    proof.witness.sort_unstable();
    proof.witness.dedup();
    let form = replay.with.get(FORM);
    let verdict = Verdict {
        is_violation: first.is_some(),
        word: if first.is_some() { "violated" } else { "held" }.to_owned(),
        guarantee: first.map_or_else(String::new, |violation| violation.guarantee.clone()),
        sentence: first.map_or_else(String::new, |violation| violation.sentence.clone()),
        reason: proof.verdict.reason,
        replay: format!("bus replay {}-{}.busplay", replay.name, replay.case.seed),
        facts: facts(replay),
    };
    let title = [Some(&replay.name), form].into_iter().flatten().cloned().collect::<Vec<_>>();
    let subject =
        Subject { title: title.join(", "), verdict, witness: proof.witness, ..Subject::default() };
    diagram(events, subject)
}

/// What the head of a page says of a run, and how small it was made.
fn facts(replay: &Replay) -> Vec<(String, String)> {
    let Shrunk { faults, sizes, brokers, choices, runs: _ } = &replay.shrunk;
    let smaller = |name: &str, before: &dyn Display, after: &dyn Display| {
        (name.to_owned(), format!("{after} of {before}"))
    };
    let mut facts = vec![
        ("seed".to_owned(), replay.case.seed.to_string()),
        ("trace".to_owned(), replay.expect.trace.clone()),
        smaller("faults", &faults.0, &faults.1),
    ];
    facts.extend(sizes.iter().map(|(name, (before, after))| smaller(name, before, after)));
    facts.extend(brokers.iter().map(|(before, after)| smaller("brokers", before, after)));
    facts.push(smaller("choices", &choices.0, &choices.1));
    facts
}

/// What the checkers found of a guarantee. One that the application judges by itself is broken by
/// something: by what the checkers call a violation, or else permitted and explained.
fn finding<'a>(report: &'a Report, guarantee: &str) -> Option<&'a Finding> {
    let findings = report.findings();
    let found = findings.iter().find(|finding| guarantee_name(finding) == guarantee);
    let explained = || findings.iter().find(|finding| finding.verdict == Explained);
    found.or_else(|| report.violations().next()).or_else(explained)
}

/// What crashed, stood still, or was cut.
fn done_to_the_world(events: &[SimEvent]) -> Vec<EventSeq> {
    let is_done = |event: &&SimEvent| match &event.kind {
        SimEventKind::Changed(change, _) => {
            use Change::{Crashed, Paused, PowerLost, ShuttingDown, Stalled};
            matches!(change, Crashed | PowerLost | Paused | Stalled | ShuttingDown)
        }
        SimEventKind::Cut(_) => true,
        _ => false,
    };
    events.iter().filter(is_done).map(|event| event.seq).collect()
}

/// What all parts of a picture are made from.
struct Cast<'a> {
    events: &'a [SimEvent],
    lanes: Lanes,
    partitions: BTreeSet<TopicPartition>,
    witness: &'a [EventSeq],
}

impl Cast<'_> {
    fn event(&self, seq: EventSeq) -> Option<&SimEvent> {
        self.events.get(usize::try_from(seq.checked_sub(1)?).ok()?)
    }

    fn shows(&self, partition: &TopicPartition) -> bool {
        self.partitions.contains(partition)
    }
}

/// The lanes of a picture: processes, brokers, the controller.
struct Lanes {
    all: Vec<Lane>,
    processes: BTreeMap<String, LaneIndex>,
    brokers: BTreeMap<i32, LaneIndex>,
    controller: LaneIndex,
}

impl Lanes {
    fn of(events: &[SimEvent]) -> Self {
        let mut names: Vec<String> = Vec::new();
        let mut brokers: BTreeSet<i32> = BTreeSet::new();
        let mut add = |name: &str| {
            if !names.iter().any(|known| known == name) {
                names.push(name.to_owned());
            }
        };
        for event in events {
            match &event.place {
                Place::Process(process) | Place::Client { process, .. } => add(process),
                Place::Broker(id) => {
                    brokers.insert(*id);
                }
                Place::Controller | Place::World => {}
            }
        }
        let lane = |name: String, kind| Lane { name, kind };
        let mut all: Vec<Lane> =
            names.iter().map(|name| lane(name.clone(), LaneKind::Process)).collect();
        let processes = names.into_iter().zip(0..).collect();
        let first = all.len();
        all.extend(brokers.iter().map(|id| lane(format!("broker-{id}"), LaneKind::Broker)));
        let brokers = brokers.into_iter().zip(first..).collect();
        let controller = all.len();
        all.push(lane("controller".to_owned(), LaneKind::Controller));
        Self { all, processes, brokers, controller }
    }

    /// The lane of a place; `None` for what is nowhere in particular.
    fn find(&self, place: &Place) -> Option<LaneIndex> {
        match place {
            Place::World => None,
            Place::Controller => Some(self.controller),
            Place::Broker(id) => self.broker(*id),
            Place::Process(process) | Place::Client { process, .. } => {
                self.processes.get(&**process).copied()
            }
        }
    }

    fn broker(&self, id: i32) -> Option<LaneIndex> {
        self.brokers.get(&id).copied()
    }
}

/// The partitions to show: those asked for, those of the witness, or those of the application.
fn partitions(events: &[SimEvent], subject: &Subject) -> BTreeSet<TopicPartition> {
    let asked: BTreeSet<TopicPartition> = subject.partitions.iter().cloned().collect();
    if !asked.is_empty() {
        return asked;
    }
    let of = |event: &SimEvent| match &event.kind {
        SimEventKind::Fact(fact) => words::partition(fact).cloned(),
        SimEventKind::Delivered { topic_partition, .. } => Some(topic_partition.clone()),
        _ => None,
    };
    let witness = events.iter().filter(|event| subject.witness.contains(&event.seq));
    let of_witness: BTreeSet<TopicPartition> = witness.filter_map(of).collect();
    if !of_witness.is_empty() {
        return of_witness;
    }
    let all =
        events.iter().filter_map(of).filter(|partition| !partition.to_string().starts_with("__"));
    let all: BTreeSet<TopicPartition> = all.collect();
    all.into_iter().take(MOST_PARTITIONS).collect()
}

fn commits(cast: &Cast<'_>) -> Vec<Commit> {
    let commits = cast.events.iter().filter_map(|event| match &event.kind {
        SimEventKind::Fact(Fact::OffsetCommit { group_id, topic_partition, offset, refused })
            if cast.shows(topic_partition) =>
        {
            Some(Commit {
                id: event.seq,
                at: event.at.as_nanos(),
                group: group_id.to_string(),
                partition: topic_partition.to_string(),
                offset: *offset,
                refused: refused.map(|error| error.to_string()),
            })
        }
        _ => None,
    });
    commits.collect()
}

fn transactions(cast: &Cast<'_>) -> Vec<Transaction> {
    let mut transactions: BTreeMap<String, Vec<TransactionState>> = BTreeMap::new();
    for event in cast.events {
        let SimEventKind::Fact(Fact::Transaction(TransactionFact::State {
            transactional_id,
            state,
            producer_id,
            producer_epoch,
        })) = &event.kind
        else {
            continue;
        };
        transactions.entry(transactional_id.to_string()).or_default().push(TransactionState {
            id: event.seq,
            at: event.at.as_nanos(),
            state: (*state).to_owned(),
            detail: format!("producer {producer_id}/{producer_epoch}"),
        });
    }
    let transactions = transactions.into_iter();
    transactions.map(|(name, states)| Transaction { name, states }).collect()
}

/// Whether an event is among some.
fn has(ids: &BTreeSet<EventId>, id: Option<EventId>) -> bool {
    id.is_some_and(|id| ids.contains(&id))
}

/// How many partitions are shown where nobody says which.
const MOST_PARTITIONS: usize = 4;

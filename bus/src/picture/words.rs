//! What happened, in words: short ones for labels, sentences for the narrative.

use bus_check::picture::diagram::{MarkKind, Sentence, Step};
use bus_core::{Operation, RebalanceKind, TopicPartition};
use bus_sim::event::{Change, Place};
use bus_sim::fact::{Fact, TransactionFact};
use bus_sim::fault::CommitFate;
use bus_sim::{SimEvent, SimEventKind};

use super::Cast;
use super::past::Past;

/// The partition that a fact is about.
pub(super) fn partition(fact: &Fact) -> Option<&TopicPartition> {
    match fact {
        Fact::Appended { topic_partition, .. }
        | Fact::Replicated { topic_partition, .. }
        | Fact::Truncated { topic_partition, .. }
        | Fact::PageCacheLost { topic_partition, .. }
        | Fact::EpochStart { topic_partition, .. }
        | Fact::HighWatermark { topic_partition, .. }
        | Fact::InSync { topic_partition, .. }
        | Fact::DuplicateBatch { topic_partition, .. }
        | Fact::ProduceRefused { topic_partition, .. }
        | Fact::OffsetCommit { topic_partition, .. }
        | Fact::OffsetRemoved { topic_partition, .. }
        | Fact::Leader { topic_partition, .. }
        | Fact::CoordinatorLoaded { topic_partition, .. } => Some(topic_partition),
        Fact::Transaction(
            TransactionFact::OffsetPending { topic_partition, .. }
            | TransactionFact::OffsetAborted { topic_partition, .. }
            | TransactionFact::Marker { topic_partition, .. },
        ) => Some(topic_partition),
        _ => None,
    }
}

/// A fact in a few words.
pub(super) fn fact(fact: &Fact) -> String {
    let last = |base: i64, count: u32| base + i64::from(count) - 1;
    match fact {
        Fact::Appended { topic_partition, base_offset, count, .. } => {
            format!(
                "appends {}",
                offsets(topic_partition, *base_offset, last(*base_offset, *count))
            )
        }
        Fact::Replicated { topic_partition, base_offset, count, .. } => {
            format!("copies {}", offsets(topic_partition, *base_offset, last(*base_offset, *count)))
        }
        Fact::Truncated { topic_partition, from, to, .. } => {
            format!("takes back {}", offsets(topic_partition, *to, from - 1))
        }
        Fact::PageCacheLost { topic_partition, from, to, .. } => {
            format!("loses {}", offsets(topic_partition, *to, from - 1))
        }
        Fact::EpochStart { topic_partition, leader_epoch, offset, .. } => {
            format!("leads {topic_partition}, epoch {leader_epoch}, from {offset}")
        }
        Fact::HighWatermark { topic_partition, offset, .. } => {
            format!("high watermark {topic_partition}@{offset}")
        }
        Fact::InSync { topic_partition, in_sync_replicas } => {
            format!("in sync {topic_partition}: {in_sync_replicas:?}")
        }
        Fact::Leader { topic_partition, leader: Some(leader), leader_epoch } => {
            format!("elects broker-{leader} for {topic_partition}, epoch {leader_epoch}")
        }
        Fact::Leader { topic_partition, leader: None, .. } => {
            format!("no leader for {topic_partition}")
        }
        other => other.to_string(),
    }
}

fn offsets(partition: &TopicPartition, first: i64, last: i64) -> String {
    if first < last {
        format!("{partition}@{first}..{last}")
    } else {
        format!("{partition}@{first}")
    }
}

/// A mark: its kind, its label, and more. `None` for what is an arrow, or nothing to see.
pub(super) fn mark(event: &SimEvent) -> Option<(MarkKind, String, String)> {
    let plain = |kind, label: String| Some((kind, label, String::new()));
    match &event.kind {
        SimEventKind::Changed(change, line) => {
            let (kind, label) = changed(*change);
            Some((kind, label.to_owned(), line.clone()))
        }
        SimEventKind::Cut(cut) => plain(MarkKind::Fault, format!("{} cut", links(cut))),
        SimEventKind::Mended(mended) => plain(MarkKind::Fault, format!("{} mended", links(mended))),
        SimEventKind::Healed => plain(MarkKind::Fault, "all links are healed".to_owned()),
        SimEventKind::Note(line) if line == "quiesce" => {
            plain(MarkKind::Fault, "all faults end".to_owned())
        }
        SimEventKind::Note(line) => plain(MarkKind::Fault, line.clone()),
        SimEventKind::Reached(point) => plain(MarkKind::Fact, format!("reached {point}")),
        SimEventKind::Commits { database, fate: CommitFate::Ordinary } => {
            plain(MarkKind::Fact, format!("commits at {database}"))
        }
        SimEventKind::Commits { database, fate } => {
            plain(MarkKind::Fault, format!("commits at {database}: {fate}"))
        }
        SimEventKind::Called { operation, detail } => {
            let call = format!("{} {detail}", operation_name(*operation));
            plain(MarkKind::Call, call.trim_end().to_owned())
        }
        SimEventKind::Delivered { topic_partition, base_offset, count } => {
            let count = i64::try_from(*count).unwrap_or(0);
            let place = base_offset.map_or_else(
                || format!("{topic_partition} ×{count}"),
                |base| offsets(topic_partition, base, base + count - 1),
            );
            plain(MarkKind::Answer, format!("acknowledged {place}"))
        }
        SimEventKind::Polled(spans) => {
            let spans = spans.iter().map(|(of, first, last)| offsets(of, *first, *last));
            plain(MarkKind::Answer, format!("polls {}", spans.collect::<Vec<_>>().join(", ")))
        }
        SimEventKind::Returned { detail, error: None } => plain(MarkKind::Answer, detail.clone()),
        SimEventKind::Returned { detail, error: Some(error) } => {
            plain(MarkKind::Failure, format!("{detail}: {error}"))
        }
        SimEventKind::Rebalance(rebalance) => {
            let partitions: Vec<String> =
                rebalance.partitions.iter().map(ToString::to_string).collect();
            let word = match rebalance.kind {
                RebalanceKind::Assigned => "assigned",
                RebalanceKind::Revoked => "revoked",
                RebalanceKind::Lost => "lost",
            };
            plain(MarkKind::Answer, format!("{word} {}", partitions.join(", ")))
        }
        SimEventKind::Timer(timer) => plain(MarkKind::Timer, timer_name(timer)),
        SimEventKind::Disconnected(_) => plain(MarkKind::Timer, "a connection is gone".to_owned()),
        SimEventKind::Fact(told) => plain(MarkKind::Fact, fact(told)),
        SimEventKind::Sent { .. } | SimEventKind::Arrived | SimEventKind::Discarded => None,
    }
}

/// A timer by its name alone.
fn timer_name(timer: &bus_sim::node::Timer) -> String {
    let name = match timer {
        bus_sim::node::Timer::Broker(timer) => format!("{timer:?}"),
        bus_sim::node::Timer::Client(timer) => format!("{timer:?}"),
    };
    let end = name.find(['(', '{', ' ']).unwrap_or(name.len());
    name[..end].to_owned()
}

const fn changed(change: Change) -> (MarkKind, &'static str) {
    match change {
        Change::Started => (MarkKind::Start, "starts"),
        Change::Crashed => (MarkKind::Crash, "crashes"),
        Change::PowerLost => (MarkKind::Crash, "loses power"),
        Change::ShuttingDown => (MarkKind::Pause, "shuts down"),
        Change::Stopped => (MarkKind::Crash, "stops"),
        Change::Paused => (MarkKind::Pause, "pauses"),
        Change::Stalled => (MarkKind::Pause, "stalls"),
        Change::Resumed => (MarkKind::Pause, "goes on"),
    }
}

fn operation_name(operation: Operation) -> String {
    let name = format!("{operation:?}");
    let mut words = String::new();
    for c in name.chars() {
        if c.is_uppercase() && !words.is_empty() {
            words.push(' ');
        }
        words.extend(c.to_lowercase());
    }
    words
}

/// The events with what is told twice once: links that were cut one after the other at one time are
/// links that were cut, and a fault of a plan is what it does.
pub(super) fn joined(events: &[SimEvent]) -> Vec<SimEvent> {
    let mut events = events.to_vec();
    for index in 1..events.len() {
        let (before, after) = events.split_at_mut(index);
        let (before, after) = (&mut before[index - 1], &mut after[0]);
        let is_told = matches!(
            after.kind,
            SimEventKind::Changed(..) | SimEventKind::Cut(_) | SimEventKind::Mended(_)
        );
        if is_told
            && after.cause == Some(before.seq)
            && matches!(&before.kind, SimEventKind::Note(line) if line.starts_with("fault "))
        {
            before.kind = SimEventKind::Arrived;
        }
        if before.at == after.at
            && let (SimEventKind::Cut(first), SimEventKind::Cut(second)) =
                (&mut before.kind, &mut after.kind)
        {
            let mut links = std::mem::take(first);
            links.append(second);
            // The last one tells of all; the others keep their numbers, and tell nothing.
            after.kind = SimEventKind::Cut(links);
            before.kind = SimEventKind::Arrived;
        }
    }
    events
}

/// Links in words; those that go both ways are one.
fn links(links: &[(Place, Place)]) -> String {
    let mut words: Vec<String> = Vec::new();
    let mut told: Vec<&(Place, Place)> = Vec::new();
    for link in links {
        let (from, to) = link;
        if told.iter().any(|(a, b)| (a, b) == (to, from) || (a, b) == (from, to)) {
            continue;
        }
        told.push(link);
        let both = links.iter().any(|(a, b)| (a, b) == (to, from));
        words.push(format!("{from} {} {to}", if both { "⇹" } else { "to" }));
    }
    let word = if words.len() > 1 { "links" } else { "link" };
    format!("{word} {}", words.join(", "))
}

/// Whether an event was done to the run from outside.
pub(super) const fn is_fault(event: &SimEvent) -> bool {
    match &event.kind {
        SimEventKind::Changed(..) => event.at.as_nanos() > 0 && !is_client(&event.place),
        SimEventKind::Cut(_)
        | SimEventKind::Mended(_)
        | SimEventKind::Healed
        | SimEventKind::Note(_) => true,
        SimEventKind::Commits { fate, .. } => !matches!(fate, CommitFate::Ordinary),
        _ => false,
    }
}

const fn is_client(place: &Place) -> bool {
    matches!(place, Place::Client { .. })
}

/// The story that the causal past and the faults of that time tell.
pub(super) fn narrative(cast: &Cast<'_>, past: &Past) -> Vec<Sentence> {
    let (Some(first), Some(last)) = (past.ids.first(), past.ids.last()) else { return Vec::new() };
    let mut told: Vec<&SimEvent> = cast
        .events
        .iter()
        .filter(|event| (*first..=*last).contains(&event.seq))
        .filter(|event| is_fault(event) || (past.ids.contains(&event.seq) && is_told(event)))
        .collect();
    // What is not needed goes if there is too much.
    let mut index = 0;
    while told.len() > MOST_SENTENCES && index < told.len() {
        let event = told[index];
        if cast.witness.contains(&event.seq) || is_fault(event) {
            index += 1;
        } else {
            told.remove(index);
        }
    }
    told.truncate(MOST_SENTENCES);
    told.into_iter().map(|event| sentence(cast, event)).collect()
}

/// Whether an event is worth a sentence.
const fn is_told(event: &SimEvent) -> bool {
    match &event.kind {
        SimEventKind::Called { .. }
        | SimEventKind::Delivered { .. }
        | SimEventKind::Polled(_)
        | SimEventKind::Rebalance(_)
        | SimEventKind::Returned { .. } => true,
        SimEventKind::Fact(fact) => !matches!(fact, Fact::HighWatermark { .. }),
        _ => false,
    }
}

fn sentence(cast: &Cast<'_>, event: &SimEvent) -> Sentence {
    let (_, label, _) = mark(event).unwrap_or((MarkKind::Fact, String::new(), String::new()));
    let who = match &event.place {
        Place::World => String::new(),
        place => {
            cast.lanes.find(place).map_or(String::new(), |lane| cast.lanes.all[lane].name.clone())
        }
    };
    let text = match &event.kind {
        SimEventKind::Called { operation: Operation::Send, detail } => {
            let (topic, value) = detail.split_once(' ').unwrap_or((detail, ""));
            format!("{who} sends “{value}” to {topic}.")
        }
        SimEventKind::Called { .. } => format!("{who} calls {label}."),
        SimEventKind::Delivered { .. } => format!("{who} is told: {label}."),
        SimEventKind::Fact(told) => in_words(&who, told),
        _ if who.is_empty() => format!("The {label}."),
        _ => format!("{who} {label}."),
    };
    let text = text.replace("The all ", "All ");
    Sentence { text, ids: vec![event.seq] }
}

/// A fact as a sentence.
fn in_words(who: &str, told: &Fact) -> String {
    match told {
        Fact::Leader { topic_partition, leader: None, .. } => {
            format!("There is no leader for {topic_partition} any more.")
        }
        Fact::Leader { .. } => format!("The {who} {}.", fact(told)),
        Fact::Truncated { .. } => format!("{who} {}, to follow its leader.", fact(told)),
        Fact::PageCacheLost { .. } => {
            format!("{who} {}: it was in the page cache only.", fact(told))
        }
        Fact::InSync { .. } => format!("{}.", capitalized(&fact(told))),
        _ => format!("{who} {}.", fact(told)),
    }
}

fn capitalized(text: &str) -> String {
    let mut chars = text.chars();
    let first = chars.next().map(|c| c.to_uppercase().to_string()).unwrap_or_default();
    format!("{first}{}", chars.as_str())
}

/// What was done to the run, as its plan.
pub(super) fn plan(cast: &Cast<'_>) -> Vec<Step> {
    let faults = cast.events.iter().filter(|event| is_fault(event));
    let steps = faults.filter_map(|event| {
        let (_, label, _) = mark(event)?;
        let lane = cast.lanes.find(&event.place).map(|lane| &cast.lanes.all[lane].name);
        let text = lane.map_or_else(|| label.clone(), |lane| format!("{lane} {label}"));
        Some(Step { at: Some(event.at.as_nanos()), text, is_needed: None, id: Some(event.seq) })
    });
    steps.take(MOST_STEPS).collect()
}

/// The most sentences of a story that nobody has written.
const MOST_SENTENCES: usize = 16;
/// The most steps of a plan that nobody has written.
const MOST_STEPS: usize = 60;

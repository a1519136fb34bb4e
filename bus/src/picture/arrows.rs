//! Messages and marks: which are shown, and how.

use std::collections::BTreeSet;

use bus_check::picture::diagram::{Arrow, EventId, Fate, Mark};
use bus_core::Operation;
use bus_sim::event::{Fate as SimFate, MessageKind};
use bus_sim::{Api, SimEvent, SimEventKind};

use super::past::Past;
use super::{Cast, has, words};

/// The events that the picture holds: the causal past, all faults, and what is not routine in the
/// time of the past.
pub(super) fn shown(cast: &Cast<'_>, past: &Past) -> BTreeSet<EventId> {
    let first = past.ids.first().and_then(|id| cast.event(*id)).map(|event| event.at);
    let last = past.ids.last().and_then(|id| cast.event(*id)).map(|event| event.at);
    let is_within = |event: &SimEvent| {
        first.is_none_or(|first| event.at >= first) && last.is_none_or(|last| event.at <= last)
    };
    let mut other: Vec<EventId> = cast
        .events
        .iter()
        .filter(|event| !past.ids.contains(&event.seq) && is_within(event))
        .filter(|event| is_of_interest(cast, event))
        .map(|event| event.seq)
        .collect();
    let too_many = other.len().saturating_sub(MOST_OTHERS);
    other.drain(..too_many);
    let faults = cast.events.iter().filter(|event| words::is_fault(event)).map(|event| event.seq);
    past.ids.iter().copied().chain(other).chain(faults).collect()
}

/// Whether an event that is not in the causal past is shown where everything is.
fn is_of_interest(cast: &Cast<'_>, event: &SimEvent) -> bool {
    match &event.kind {
        SimEventKind::Sent { message, detail, .. } => match message {
            MessageKind::Request(api) | MessageKind::Response(api) => {
                let is_routine = matches!(
                    api,
                    Api::BrokerHeartbeat | Api::FetchMetadataLog | Api::Heartbeat | Api::Metadata
                );
                let is_request = matches!(message, MessageKind::Request(_));
                let is_idle = is_request || !detail.contains('@');
                let is_idle_fetch = *api == Api::Fetch && is_idle;
                !is_routine && !is_idle_fetch
            }
            MessageKind::Connect | MessageKind::Accept => false,
        },
        SimEventKind::Fact(fact) => {
            words::partition(fact).is_some_and(|partition| cast.shows(partition))
                && !matches!(fact, bus_sim::fact::Fact::HighWatermark { .. })
        }
        SimEventKind::Delivered { topic_partition, .. } => cast.shows(topic_partition),
        SimEventKind::Polled(spans) => spans.iter().any(|(of, ..)| cast.shows(of)),
        SimEventKind::Called { operation, .. } => {
            matches!(
                operation,
                Operation::Send
                    | Operation::Commit
                    | Operation::CommitTransaction
                    | Operation::AbortTransaction
            )
        }
        SimEventKind::Rebalance(_)
        | SimEventKind::Returned { error: Some(_), .. }
        | SimEventKind::Commits { .. } => true,
        _ => false,
    }
}

/// The messages among them.
pub(super) fn arrows(cast: &Cast<'_>, shown: &BTreeSet<EventId>) -> Vec<Arrow> {
    cast.events.iter().filter_map(|event| arrow(cast, shown, event)).collect()
}

fn arrow(cast: &Cast<'_>, shown: &BTreeSet<EventId>, event: &SimEvent) -> Option<Arrow> {
    let SimEventKind::Sent { message, to, detail, fate, is_held, .. } = &event.kind else {
        return None;
    };
    let end = match fate {
        SimFate::Arrived(end) | SimFate::Discarded(end) => Some(*end),
        SimFate::UnderWay | SimFate::Lost => None,
    };
    if !has(shown, Some(event.seq)) && !has(shown, end) {
        return None;
    }
    let (label, is_reply) = match message {
        MessageKind::Request(api) => (api.name().to_owned(), false),
        MessageKind::Response(api) => (api.name().to_owned(), true),
        MessageKind::Connect => ("connect".to_owned(), false),
        MessageKind::Accept => ("connected".to_owned(), true),
    };
    let sent = event.at.as_nanos();
    let arrived = end.and_then(|end| cast.event(end)).map(|end| end.at.as_nanos());
    let is_late = arrived.is_some_and(|arrived| arrived - sent > LATE);
    let fate = match fate {
        SimFate::Arrived(_) if is_late => Fate::Late,
        SimFate::Arrived(_) => Fate::Arrived,
        SimFate::Discarded(_) => Fate::Discarded,
        SimFate::Lost => Fate::Lost,
        SimFate::UnderWay if *is_held => Fate::Held,
        SimFate::UnderWay => Fate::UnderWay,
    };
    Some(Arrow {
        id: event.seq,
        end,
        from: cast.lanes.find(&event.place)?,
        sent,
        to: cast.lanes.find(to)?,
        arrived,
        label,
        detail: shortened(cast, message.api(), detail),
        is_reply,
        fate,
    })
}

/// What a fetch says of the partitions that are shown, if it says something of them.
fn shortened(cast: &Cast<'_>, api: Option<Api>, detail: &str) -> String {
    if api != Some(Api::Fetch) {
        return detail.to_owned();
    }
    let parts = detail.split(", ").filter(|part| {
        cast.partitions.iter().any(|partition| part.starts_with(&partition.to_string()))
    });
    let parts: Vec<&str> = parts.collect();
    if parts.is_empty() { detail.to_owned() } else { parts.join(", ") }
}

/// What happened at one place among them.
pub(super) fn marks(cast: &Cast<'_>, shown: &BTreeSet<EventId>) -> Vec<Mark> {
    let marks = cast.events.iter().filter(|event| shown.contains(&event.seq));
    let marks = marks.filter_map(|event| {
        let (kind, label, detail) = words::mark(event)?;
        let lane = cast.lanes.find(&event.place);
        Some(Mark { id: event.seq, lane, at: event.at.as_nanos(), kind, label, detail })
    });
    marks.collect()
}

/// From when on a message is late: longer than any link takes by itself.
const LATE: u64 = 20_000_000;
/// The most that is held beside the causal past.
const MOST_OTHERS: usize = 500;

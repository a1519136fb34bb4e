//! Simpler faults: what a fault of a plan could be instead, the simplest first.

use std::time::Duration;

use crate::fault::{Fault, Planned, Trigger, Until};
use crate::time::SimTime;

/// Whether a fault strikes at a time.
pub(super) const fn is_timed(planned: &Planned) -> bool {
    matches!(planned.when, Trigger::At(_))
}

/// The same fault at one of the events that came before its time, each the last of its kind: crash
/// points and commits first, then what became true inside of the brokers, then requests; of these,
/// the last first.
pub(super) fn at_events(planned: &Planned, before: &[Trigger]) -> Vec<Planned> {
    if !is_timed(planned) {
        return Vec::new();
    }
    let is_point =
        |trigger: &&Trigger| matches!(trigger, Trigger::Reached { .. } | Trigger::Commit { .. });
    let is_fact = |trigger: &&Trigger| matches!(trigger, Trigger::Fact { .. });
    let is_request = |trigger: &&Trigger| matches!(trigger, Trigger::Request { .. });
    let points = before.iter().filter(is_point).take(OF_A_KIND);
    let facts = before.iter().filter(is_fact).take(OF_A_KIND);
    let requests = before.iter().filter(is_request).take(OF_A_KIND);
    let events = points.chain(facts).chain(requests);
    events.map(|when| Planned { when: when.clone(), ..planned.clone() }).collect()
}

/// How many events of a kind are tried.
const OF_A_KIND: usize = 4;

/// What could stand instead of a fault of a plan; each changes one thing.
pub(super) fn than(planned: &Planned) -> Vec<Planned> {
    let mut found = Vec::new();
    if let Some(until) = &planned.until {
        found.push(Planned { until: None, ..planned.clone() });
        if let Until::For(duration) = until {
            for duration in rounder(*duration) {
                found.push(Planned { until: Some(Until::For(duration)), ..planned.clone() });
            }
        }
    }
    for when in earlier(&planned.when) {
        found.push(Planned { when, ..planned.clone() });
    }
    for fault in shorter(&planned.fault) {
        found.push(Planned { fault, ..planned.clone() });
    }
    found
}

fn earlier(when: &Trigger) -> Vec<Trigger> {
    match when {
        Trigger::At(at) => rounder(at.elapsed())
            .into_iter()
            .map(|time| Trigger::At(SimTime::ZERO + time))
            .collect(),
        Trigger::After { fault, by } => {
            rounder(*by).into_iter().map(|by| Trigger::After { fault: *fault, by }).collect()
        }
        Trigger::Request { nth, .. }
        | Trigger::Fact { nth, .. }
        | Trigger::Reached { nth, .. }
        | Trigger::Commit { nth, .. } => {
            let mut counts = vec![1, *nth / 2, nth.saturating_sub(1)];
            counts.retain(|count| (1..*nth).contains(count));
            counts.dedup();
            counts.into_iter().map(|count| when.clone().nth(count)).collect()
        }
    }
}

fn shorter(fault: &Fault) -> Vec<Fault> {
    match fault {
        Fault::DelayRequest(messages, by) => {
            rounder(*by).into_iter().map(|by| Fault::DelayRequest(messages.clone(), by)).collect()
        }
        Fault::DelayResponse(messages, by) => {
            rounder(*by).into_iter().map(|by| Fault::DelayResponse(messages.clone(), by)).collect()
        }
        Fault::DelayCommit(process, database, by) => {
            let late = |by| Fault::DelayCommit(process.clone(), database.clone(), by);
            rounder(*by).into_iter().map(late).collect()
        }
        _ => Vec::new(),
    }
}

/// Times with fewer digits, the roundest first: down to whole seconds, tenths, hundredths, and
/// milliseconds, or up to the next of these.
fn rounder(time: Duration) -> Vec<Duration> {
    let nanos = time.as_nanos();
    let mut found = Vec::new();
    for unit in [1_000_000_000, 100_000_000, 10_000_000, 1_000_000_u128] {
        if nanos.is_multiple_of(unit) {
            break;
        }
        for rounded in [nanos / unit * unit, nanos.div_ceil(unit) * unit] {
            found.extend(u64::try_from(rounded).ok().map(Duration::from_nanos));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::{FactPattern, Target};

    #[test]
    fn times_become_rounder_and_then_stay() {
        let times = rounder(Duration::from_micros(1_234_567));
        let expected = [1_000_000, 2_000_000, 1_200_000, 1_300_000, 1_230_000, 1_240_000];
        let expected = expected.into_iter().chain([1_234_000, 1_235_000]);
        assert_eq!(times, expected.map(Duration::from_micros).collect::<Vec<_>>());
        assert_eq!(rounder(Duration::from_secs(2)), []);
        assert_eq!(rounder(Duration::ZERO), []);
    }

    #[test]
    fn each_candidate_changes_one_thing() {
        let fact = FactPattern::OffsetCommitted("g".to_owned());
        let planned = Planned {
            id: 1,
            when: Trigger::fact(fact).nth(9),
            fault: Fault::CrashBroker(Target::Broker(1)),
            until: Some(Until::For(Duration::from_millis(1_500))),
        };
        let candidates = than(&planned);
        let ends = candidates.iter().filter(|other| other.until != planned.until).count();
        let starts = candidates.iter().filter(|other| other.when != planned.when).count();
        assert_eq!((ends, starts, candidates.len()), (3, 3, 6));
    }
}

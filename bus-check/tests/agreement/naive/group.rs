//! E, ownership, as it is defined.

use std::collections::BTreeSet;

use bus_check::check::{Promise, Subject};
use bus_check::history::{
    Answer, Call, ClientId, EntryId, NameId, Note, OperationId, PartitionId, TopicId, What,
};
use bus_core::{RebalanceKind, Recovery};

use super::facts::How;
use super::{Broken, Facts};

/// A guard that a member was given: polls return the same one until it is completed.
#[derive(Clone, Debug)]
struct Guard {
    client: ClientId,
    entry: usize,
    kind: RebalanceKind,
    partitions: Vec<PartitionId>,
    generation: Option<i32>,
    completed: Option<usize>,
}

/// A partition in the hands of a member.
#[derive(Clone, Debug)]
struct Owned {
    group: NameId,
    partition: PartitionId,
    client: ClientId,
    generation: Option<i32>,
    began: usize,
    revoking: Option<usize>,
    ended: Option<usize>,
}

fn group_of(facts: &Facts<'_>, client: ClientId) -> Option<NameId> {
    facts.consumer(client).and_then(|own| own.group)
}

fn guards(facts: &Facts<'_>) -> Vec<Guard> {
    let mut guards: Vec<Guard> = Vec::new();
    for (at, entry) in facts.history.entries().iter().enumerate() {
        let client = entry.client;
        if group_of(facts, client).is_none() {
            continue;
        }
        match &entry.what {
            What::Ok(_, Answer::Rebalance { kind, partitions, generation }) => {
                let last = guards.iter().rfind(|guard| guard.client == client);
                let is_same = last.is_some_and(|last| {
                    last.completed.is_none()
                        && last.kind == *kind
                        && last.partitions.as_slice() == &**partitions
                });
                if !is_same {
                    guards.push(Guard {
                        client,
                        entry: at,
                        kind: *kind,
                        partitions: partitions.to_vec(),
                        generation: *generation,
                        completed: None,
                    });
                }
            }
            What::Invoke(_, Call::Complete { kind, partitions }) => {
                let pending = guards.iter_mut().rfind(|guard| {
                    guard.client == client
                        && guard.completed.is_none()
                        && guard.kind == *kind
                        && guard.partitions.as_slice() == &**partitions
                });
                if let Some(pending) = pending {
                    pending.completed = Some(at);
                }
            }
            _ => {}
        }
    }
    guards
}

/// Whether an entry ends all that a member owns.
fn gives_up(facts: &Facts<'_>, what: &What) -> bool {
    match what {
        What::Invoke(
            id,
            Call::Subscribe(_) | Call::Unsubscribe | Call::CloseConsumer | Call::Assign(_),
        ) => facts.op(*id).is_some_and(|op| !op.how.is_fail()),
        What::Note(Note::Dropped) => true,
        other => is_given_up(facts, other),
    }
}

/// Whether an entry says that the group has given the member up.
fn is_given_up(facts: &Facts<'_>, what: &What) -> bool {
    let (What::Fail(id, failure) | What::Info(id, Some(failure))) = what else { return false };
    matches!(failure.recovery, Recovery::Rejoin | Recovery::Close)
        && facts.op(*id).is_some_and(|op| matches!(op.call, Call::Poll))
}

fn owned(facts: &Facts<'_>) -> Vec<Owned> {
    let guards = guards(facts);
    let mut all = Vec::new();
    for (at, entry) in facts.history.entries().iter().enumerate() {
        let What::Invoke(_, Call::Complete { kind: RebalanceKind::Assigned, partitions }) =
            &entry.what
        else {
            continue;
        };
        let client = entry.client;
        let Some(group) = group_of(facts, client) else { continue };
        for partition in partitions {
            let rest = facts.history.entries().iter().enumerate().skip(at + 1);
            let ended = rest.clone().find(|(_, other)| {
                let is_completed = matches!(
                    &other.what,
                    What::Invoke(_, Call::Complete { partitions, .. })
                        if partitions.contains(partition)
                );
                other.client == client && (is_completed || gives_up(facts, &other.what))
            });
            let ended = ended.map(|(ended, _)| ended);
            let revoking = guards.iter().find(|guard| {
                guard.client == client
                    && guard.kind != RebalanceKind::Assigned
                    && guard.partitions.contains(partition)
                    && at < guard.entry
                    && ended.is_none_or(|ended| guard.entry < ended)
            });
            let guard =
                guards.iter().find(|guard| guard.client == client && guard.completed == Some(at));
            all.push(Owned {
                group,
                partition: *partition,
                client,
                generation: guard.and_then(|guard| guard.generation),
                began: at,
                revoking: revoking.map(|guard| guard.entry),
                ended,
            });
        }
    }
    all
}

fn subject(owned: &Owned) -> Subject {
    Subject::Owned(owned.partition, EntryId::from_index(owned.began))
}

/// Two members were assigned a partition in one generation.
pub(crate) fn e1(facts: &Facts<'_>) -> Broken {
    let all = owned(facts);
    let mut broken = Broken::new();
    for (index, later) in all.iter().enumerate() {
        // The first that had it in this generation is the rightful one.
        let first = all[..index].iter().find(|earlier| {
            (earlier.group, earlier.partition, earlier.generation)
                == (later.group, later.partition, later.generation)
        });
        let is_other = first.is_some_and(|first| first.client != later.client);
        if later.generation.is_some() && is_other {
            broken.insert((subject(later), Promise::Required));
        }
    }
    broken
}

/// A member owns a partition while another one does, which is alive and responsive, and is asked
/// to give it up or not.
pub(crate) fn overlap(facts: &Facts<'_>, is_revoking: bool) -> Broken {
    let all = owned(facts);
    let mut broken = Broken::new();
    for newer in &all {
        let is_overlapping = all.iter().any(|older| {
            let asked = older.revoking.is_some_and(|revoking| revoking < newer.began);
            let patience = facts.consumer(older.client).unwrap().patience();
            let polls = facts.ops.iter().filter(|op| {
                matches!(op.call, Call::Poll)
                    && op.client == older.client
                    && op.invoked < newer.began
            });
            let last = polls.map(|op| facts.at(op.invoked)).next_back().unwrap_or(0);
            let silence = facts.at(newer.began).saturating_sub(last);
            let later = facts.history.entries().iter().skip(newer.began + 1);
            let mut later = later.filter(|entry| entry.client == older.client);
            let is_given_up = later.any(|entry| {
                let is_lost = matches!(
                    &entry.what,
                    What::Invoke(_, Call::Complete { kind: RebalanceKind::Lost, .. })
                );
                is_lost || is_given_up(facts, &entry.what)
            });
            (older.group, older.partition) == (newer.group, newer.partition)
                && older.client != newer.client
                && older.began < newer.began
                && older.ended.is_none_or(|ended| ended > newer.began)
                && asked == is_revoking
                && u128::from(silence) < patience.as_nanos()
                && !is_given_up
        });
        if is_overlapping {
            let is_settled = settled(facts).is_some()
                && facts.quiesced().is_some_and(|quiesced| quiesced > newer.began);
            let promise = if is_settled { Promise::Required } else { Promise::Open };
            broken.insert((subject(newer), promise));
        }
    }
    broken
}

/// A commit of a member succeeds, though another member was assigned partitions in a later
/// generation before, and this one has not joined again since.
pub(crate) fn e3(facts: &Facts<'_>) -> Broken {
    let guards = guards(facts);
    let mut broken = Broken::new();
    for op in &facts.ops {
        let Some(group) = group_of(facts, op.client) else { continue };
        if !matches!(op.call, Call::Commit(_)) || op.how != How::Ok {
            continue;
        }
        let own = guards.iter().filter(|guard| guard.client == op.client);
        let own: Vec<_> = own.filter(|guard| guard.entry < op.invoked).collect();
        let is_assigned = |guard: &&&Guard| guard.kind == RebalanceKind::Assigned;
        let Some(last) = own.iter().rposition(|guard| is_assigned(&guard)) else { continue };
        let has_rejoined = own[last + 1..]
            .iter()
            .any(|guard| guard.completed.is_some_and(|completed| completed < op.invoked));
        let Some(generation) = own[last].generation.filter(|_| !has_rejoined) else { continue };
        let is_zombie = guards.iter().any(|guard| {
            guard.client != op.client
                && group_of(facts, guard.client) == Some(group)
                && guard.kind == RebalanceKind::Assigned
                && guard.entry < op.invoked
                && guard.generation.is_some_and(|newer| newer > generation)
        });
        if is_zombie {
            broken.insert((Subject::Operation(op.id), Promise::Open));
        }
    }
    broken
}

/// The first entry that is the settling time after the quiescence.
pub(crate) fn settled(facts: &Facts<'_>) -> Option<usize> {
    let quiesced = facts.quiesced()?;
    let due = facts.at(quiesced) + facts.settling();
    (quiesced..facts.entries()).find(|entry| facts.at(*entry) >= due)
}

/// Whether an entry makes its client a member, or ends that.
pub(crate) fn changes(facts: &Facts<'_>, what: &What) -> Option<bool> {
    match what {
        What::Invoke(id, Call::Subscribe(_)) => {
            facts.op(*id).filter(|op| !op.how.is_fail()).map(|_| true)
        }
        What::Invoke(_, Call::Unsubscribe | Call::CloseConsumer | Call::Assign(_))
        | What::Note(Note::Dropped) => Some(false),
        _ => None,
    }
}

/// When all has settled, a partition of a subscribed topic has no owner, or two.
pub(crate) fn e9(facts: &Facts<'_>) -> Broken {
    let mut broken = Broken::new();
    let (Some(quiesced), Some(settled)) = (facts.quiesced(), settled(facts)) else {
        return broken;
    };
    for group in 0..facts.history.names().len() {
        let group = NameId::from_index(group);
        let mut members: BTreeSet<ClientId> = BTreeSet::new();
        let mut has_changed = false;
        for (at, entry) in facts.history.entries().iter().enumerate().take(settled) {
            if group_of(facts, entry.client) != Some(group) {
                continue;
            }
            match changes(facts, &entry.what) {
                Some(true) => drop(members.insert(entry.client)),
                Some(false) => drop(members.remove(&entry.client)),
                None => continue,
            }
            has_changed |= at > quiesced;
        }
        if has_changed || members.is_empty() {
            continue;
        }
        let all = owned(facts);
        for partition in partitions_of(facts, &members) {
            let owners = all.iter().filter(|owned| {
                (owned.group, owned.partition) == (group, partition)
                    && owned.began <= settled
                    && owned.ended.is_none_or(|ended| ended > settled)
            });
            if owners.count() != 1 {
                broken.insert((Subject::Group(group, partition), Promise::Required));
            }
        }
    }
    broken
}

/// The partitions that members subscribe to: in the tiny Kafka, all of its only topic.
fn partitions_of(facts: &Facts<'_>, members: &BTreeSet<ClientId>) -> Vec<PartitionId> {
    let is_subscribed = |topic: TopicId| {
        let last = |client: &ClientId| {
            let own = facts.ops.iter().filter(|op| op.client == *client);
            own.filter_map(|op| match op.call {
                Call::Subscribe(topics) if !op.how.is_fail() => Some(topics.contains(&topic)),
                _ => None,
            })
            .next_back()
        };
        members.iter().any(|client| last(client) == Some(true))
    };
    let count = |topic: TopicId| {
        let made = facts.history.entries().iter().filter_map(|entry| match &entry.what {
            What::Invoke(
                id,
                Call::CreateTopic { topic: made, partitions }
                | Call::CreatePartitions { topic: made, partitions },
            ) if *made == topic && !is_refused(facts, *id) => Some(*partitions),
            _ => None,
        });
        made.max().unwrap_or(0)
    };
    let partitions = facts.history.partitions().iter().enumerate();
    partitions
        .filter(|(_, (topic, number))| is_subscribed(*topic) && *number < count(*topic))
        .map(|(index, _)| PartitionId::from_index(index))
        .collect()
}

fn is_refused(facts: &Facts<'_>, id: OperationId) -> bool {
    let mut entries = facts.history.entries().iter();
    entries.any(|entry| matches!(&entry.what, What::Fail(other, _) if *other == id))
}

/// What is assigned is owned already, or what is revoked was never assigned.
pub(crate) fn e11(facts: &Facts<'_>) -> Broken {
    let guards = guards(facts);
    let all = owned(facts);
    let mut broken = Broken::new();
    for guard in &guards {
        let is_wrong = if guard.kind == RebalanceKind::Assigned {
            all.iter().any(|owned| {
                owned.client == guard.client
                    && guard.partitions.contains(&owned.partition)
                    && owned.began < guard.entry
                    && owned.ended.is_none_or(|ended| ended > guard.entry)
            })
        } else {
            guard.partitions.iter().any(|partition| {
                !guards.iter().any(|earlier| {
                    earlier.client == guard.client
                        && earlier.kind == RebalanceKind::Assigned
                        && earlier.entry < guard.entry
                        && earlier.partitions.contains(partition)
                })
            })
        };
        if is_wrong {
            let subject = Subject::Guard(EntryId::from_index(guard.entry));
            broken.insert((subject, Promise::Required));
        }
    }
    broken
}

/// A member is assigned partitions in a lower generation than the one before.
pub(crate) fn e12(facts: &Facts<'_>) -> Broken {
    let assigned: Vec<_> = guards(facts)
        .into_iter()
        .filter(|guard| guard.kind == RebalanceKind::Assigned && guard.generation.is_some())
        .collect();
    let mut broken = Broken::new();
    for (index, guard) in assigned.iter().enumerate() {
        let before = assigned[..index].iter().rfind(|before| before.client == guard.client);
        if before.is_some_and(|before| before.generation > guard.generation) {
            let subject = Subject::Guard(EntryId::from_index(guard.entry));
            broken.insert((subject, Promise::Required));
        }
    }
    broken
}

/// The guards of members of groups: client and entry.
pub(crate) fn guard_entries(facts: &Facts<'_>) -> Vec<(ClientId, usize, Option<usize>)> {
    let guards = guards(facts).into_iter();
    guards.map(|guard| (guard.client, guard.entry, guard.completed)).collect()
}

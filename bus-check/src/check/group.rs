//! E, ownership: one owner at a time, handed over in order, and no commits of former ones.

use std::collections::{BTreeMap, BTreeSet};

use bus_core::RebalanceKind;

use super::{Anomalies, Anomaly, Promise, Subject};
use crate::history::{Call, ClientId, EntryId, NameId, Note, PartitionId, What};
use crate::model::Model;
use crate::model::groups::{Guard, Ownership};
use crate::model::operations::End;
use crate::truth::Question;

/// E1: two members were assigned a partition in one generation.
pub(super) fn double_ownership(model: &Model<'_>, found: &mut Anomalies) {
    let deleted = deleted(model);
    let mut first: BTreeMap<(NameId, PartitionId, i32), &Ownership> = BTreeMap::new();
    for ownership in &model.groups.ownerships {
        let Some(generation) = ownership.generation else { continue };
        if deleted.contains(&ownership.group) {
            continue;
        }
        found.examined += 1;
        let key = (ownership.group, ownership.partition, generation);
        let earlier = *first.entry(key).or_insert(ownership);
        if earlier.client == ownership.client || are_one(model, earlier, ownership) {
            continue;
        }
        found.add(|| {
            let sentence = format!(
                "{} was assigned to {} and to {}, both in generation {generation} of group {:?}.",
                model.history.partition(ownership.partition),
                model.history.title(earlier.client),
                model.history.title(ownership.client),
                model.history.name(ownership.group)
            );
            let subject = Subject::Owned(ownership.partition, ownership.began);
            let witness = [earlier.began, ownership.began];
            Anomaly::new(subject, Promise::Required, witness, sentence)
        });
    }
}

/// Whether two members are one static member, restarted.
fn are_one(model: &Model<'_>, one: &Ownership, other: &Ownership) -> bool {
    let instance = |client: ClientId| {
        model.history.consumer(client).and_then(|facts| facts.instance.as_deref())
    };
    let one = instance(one.client);
    one.is_some() && one == instance(other.client)
}

/// The groups that were deleted: their generations may begin again.
fn deleted(model: &Model<'_>) -> BTreeSet<NameId> {
    let calls = model.operations.iter().filter_map(|operation| operation.call);
    calls
        .filter_map(|call| match call {
            Call::DeleteGroup(group) => Some(*group),
            _ => None,
        })
        .collect()
}

/// E2: a member owns a partition while another one does, which is alive and responsive.
pub(super) fn overlapping_ownership(model: &Model<'_>, found: &mut Anomalies) {
    overlap(model, found, HandOver::Unasked);
}

/// E10: the same, while the older one is asked to give it up and has not done so.
pub(super) fn illegal_hand_over(model: &Model<'_>, found: &mut Anomalies) {
    overlap(model, found, HandOver::Revoking);
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum HandOver {
    Unasked,
    Revoking,
}

fn overlap(model: &Model<'_>, found: &mut Anomalies, kind: HandOver) {
    let mut owners: BTreeMap<(NameId, PartitionId), Vec<&Ownership>> = BTreeMap::new();
    for ownership in &model.groups.ownerships {
        let began = ownership.began;
        let others = owners.entry((ownership.group, ownership.partition)).or_default();
        others.retain(|older| older.ended.is_none_or(|ended| ended > began));
        found.examined += 1;
        let overlapping = others.iter().find(|older| {
            let is_revoking = older.revoking.is_some_and(|revoking| revoking < began);
            older.client != ownership.client
                && is_revoking == (kind == HandOver::Revoking)
                && is_responsive(model, older, began)
        });
        if let Some(older) = overlapping.copied() {
            found.add(|| overlapping_owners(model, older, ownership));
        }
        others.push(ownership);
    }
}

/// Whether an owner polls, and the group has not given it up.
fn is_responsive(model: &Model<'_>, owner: &Ownership, at: EntryId) -> bool {
    let Some(facts) = model.history.consumer(owner.client) else { return false };
    let silence = model.groups.silence(owner.client, (at, model.at(at)));
    silence < facts.patience() && !model.groups.is_given_up_after(owner.client, at)
}

fn overlapping_owners(model: &Model<'_>, older: &Ownership, newer: &Ownership) -> Anomaly {
    let sentence = format!(
        "{} was given to {} while {} of group {:?} owned it{}.",
        model.history.partition(newer.partition),
        model.history.title(newer.client),
        model.history.title(older.client),
        model.history.name(newer.group),
        if older.revoking.is_some_and(|revoking| revoking < newer.began) {
            " and had not completed its revocation"
        } else {
            ""
        }
    );
    // Whether the older one was given up, it learns at the latest when all has settled.
    let is_settled = model.history.iter().last().is_some_and(|(last, _)| model.is_settled(last));
    let promise = match model.quiesced {
        Some(quiesced) if quiesced > newer.began && is_settled => Promise::Required,
        _ => Promise::Open,
    };
    let witness =
        [Some(older.began), older.revoking.filter(|at| *at < newer.began), Some(newer.began)];
    let subject = Subject::Owned(newer.partition, newer.began);
    let name = model.history.name(newer.group).to_owned();
    Anomaly::new(subject, promise, witness.into_iter().flatten(), sentence)
        .asking(Question::Fenced { name, since: 0 })
}

/// E3: a commit of a member succeeds, though another member was assigned partitions in a later
/// generation before, and this one has not joined again since.
///
/// A client that has learned that it is no member commits as nobody does (generation -1), which a
/// group without members accepts. No history shows that, so it is for the ground truth to say.
pub(super) fn zombie_commit(model: &Model<'_>, found: &mut Anomalies) {
    let deleted = deleted(model);
    // By group: the guards that assign, with their members.
    let mut assigned: BTreeMap<NameId, Vec<(EntryId, i32, ClientId)>> = BTreeMap::new();
    for (client, group) in eager_members(model) {
        for guard in &model.groups.guards[client.index()] {
            if let (RebalanceKind::Assigned, Some(generation)) = (guard.kind, guard.generation) {
                assigned.entry(group).or_default().push((guard.entry, generation, client));
            }
        }
    }
    for assigned in assigned.values_mut() {
        assigned.sort_unstable();
    }
    for operation in &model.operations {
        let (Some(Call::Commit(_)), Some(invoked), Some(ended)) =
            (operation.call, operation.invoked, operation.ended)
        else {
            continue;
        };
        let facts = model.history.consumer(operation.client);
        let Some(group) = facts.filter(|facts| !facts.is_cooperative).and_then(|f| f.group) else {
            continue;
        };
        let Some(generation) = generation_at(model, operation.client, invoked) else { continue };
        found.examined += 1;
        if operation.end != End::Ok || deleted.contains(&group) {
            continue;
        }
        let others = assigned.get(&group).map(Vec::as_slice).unwrap_or_default();
        let newer = others.iter().find(|(at, newer, client)| {
            *at < invoked && *newer > generation && *client != operation.client
        });
        let Some((newer_at, newer, client)) = newer else { continue };
        found.add(|| {
            let sentence = format!(
                "{} committed in generation {generation} of group {:?}, after {} had been assigned \
                 partitions in generation {newer}.",
                model.history.title(operation.client),
                model.history.name(group),
                model.history.title(*client)
            );
            let id = match model.history.entry(invoked).what {
                What::Invoke(id, _) => id,
                _ => crate::history::OperationId(0),
            };
            let witness = [*newer_at, invoked, ended];
            let group_id = model.history.name(group).to_owned();
            let since = model.at(invoked);
            Anomaly::new(Subject::Operation(id), Promise::Open, witness, sentence)
                .asking(Question::ZombieCommit { group_id, since })
        });
    }
}

fn eager_members<'m>(model: &'m Model<'_>) -> impl Iterator<Item = (ClientId, NameId)> + 'm {
    let clients = (0..model.history.clients().len()).map(ClientId::from_index);
    clients.filter_map(|client| {
        let facts = model.history.consumer(client)?;
        facts.group.filter(|_| !facts.is_cooperative).map(|group| (client, group))
    })
}

/// The generation that an eager member is in for certain: that of its last guard, unless it has
/// completed a revocation since, after which it joins again.
fn generation_at(model: &Model<'_>, client: ClientId, at: EntryId) -> Option<i32> {
    let guards = &model.groups.guards[client.index()];
    let known = guards.partition_point(|guard| guard.entry < at);
    let mut generation = None;
    for guard in guards[..known].iter().rev() {
        match guard.kind {
            RebalanceKind::Assigned => {
                generation = guard.generation;
                break;
            }
            RebalanceKind::Revoked | RebalanceKind::Lost => {
                if guard.completed.is_some_and(|completed| completed < at) {
                    return None;
                }
            }
        }
    }
    generation
}

/// E9: when all has settled, a partition of a subscribed topic has no owner, or two.
pub(super) fn incomplete_assignment(model: &Model<'_>, found: &mut Anomalies) {
    let Some(settled) = settled(model) else { return };
    for (group, members) in members_at(model, settled) {
        let Some(topics) = members.topics else { continue };
        for topic in topics {
            let facts = &model.topics[topic.index()];
            let Some((count, _)) = facts.counts.last_key_value().filter(|_| !facts.is_deleted)
            else {
                continue;
            };
            for number in 0..*count {
                let place = model.history.partitions().iter().position(|at| *at == (topic, number));
                let Some(id) = place.map(PartitionId::from_index) else { continue };
                found.examined += 1;
                let owners: Vec<_> = model
                    .groups
                    .ownerships
                    .iter()
                    .filter(|owned| owned.group == group && owned.partition == id)
                    .filter(|owned| owned.began <= settled)
                    .filter(|owned| owned.ended.is_none_or(|ended| ended > settled))
                    .collect();
                if owners.len() == 1 {
                    continue;
                }
                found.add(|| {
                    let sentence = format!(
                        "{} has {} owners in group {:?}, which has {} members.",
                        model.history.partition(id),
                        owners.len(),
                        model.history.name(group),
                        members.clients.len()
                    );
                    let owners = owners.iter().take(3).map(|owned| owned.began);
                    let witness = owners.chain(model.quiesced).chain([settled]);
                    let subject = Subject::Group(group, id);
                    Anomaly::new(subject, Promise::Required, witness, sentence)
                });
            }
        }
    }
}

/// The first entry by which all must have settled.
pub(super) fn settled(model: &Model<'_>) -> Option<EntryId> {
    let quiesced = model.quiesced?;
    let settling = u64::try_from(model.environment.settling.as_nanos()).unwrap_or(u64::MAX);
    let due = model.at(quiesced).saturating_add(settling);
    let entries = model.history.entries();
    let settled = quiesced.index() + entries[quiesced.index()..].partition_point(|e| e.at < due);
    (settled < entries.len()).then(|| EntryId::from_index(settled))
}

/// The members of a group.
#[derive(Debug, Default)]
struct Members {
    clients: BTreeSet<ClientId>,
    /// What they subscribe to; none if that is not known.
    topics: Option<BTreeSet<crate::history::TopicId>>,
}

/// The members of all groups that none has joined or left between the quiescence and this entry.
fn members_at(model: &Model<'_>, at: EntryId) -> BTreeMap<NameId, Members> {
    let mut groups: BTreeMap<NameId, Members> = BTreeMap::new();
    let mut changed: BTreeSet<NameId> = BTreeSet::new();
    let mut subscribed: BTreeMap<ClientId, &[crate::history::TopicId]> = BTreeMap::new();
    for (entry_id, entry) in model.history.iter().take(at.index()) {
        let facts = model.history.consumer(entry.client);
        let Some(group) = facts.and_then(|facts| facts.group) else { continue };
        let members = groups.entry(group).or_default();
        match change(model, &entry.what) {
            Some(Change::Joins(topics)) => {
                members.clients.insert(entry.client);
                subscribed.insert(entry.client, topics);
            }
            Some(Change::Leaves) => {
                members.clients.remove(&entry.client);
            }
            None => continue,
        }
        if model.quiesced.is_some_and(|quiesced| quiesced < entry_id) {
            changed.insert(group);
        }
    }
    groups.retain(|group, members| !changed.contains(group) && !members.clients.is_empty());
    for members in groups.values_mut() {
        let topics = members.clients.iter().map(|client| subscribed[client]);
        // A pattern is not in the history, so it is not known what it matches.
        let is_known = topics.clone().all(|topics| !topics.is_empty());
        members.topics = is_known.then(|| topics.flatten().copied().collect());
    }
    groups
}

pub(super) enum Change<'a> {
    Joins(&'a [crate::history::TopicId]),
    Leaves,
}

/// Whether an entry makes its client a member of its group, or ends that.
pub(super) fn change<'a>(model: &Model<'_>, what: &'a What) -> Option<Change<'a>> {
    match what {
        What::Invoke(id, Call::Subscribe(topics))
            if !matches!(model.operation(*id).end, End::Fail(_)) =>
        {
            Some(Change::Joins(topics))
        }
        What::Invoke(_, Call::Unsubscribe | Call::CloseConsumer | Call::Assign(_))
        | What::Note(Note::Dropped) => Some(Change::Leaves),
        _ => None,
    }
}

/// E11: what is assigned is owned already, or what is revoked was never assigned.
pub(super) fn callback_protocol(model: &Model<'_>, found: &mut Anomalies) {
    for (index, guards) in model.groups.guards.iter().enumerate() {
        let client = ClientId::from_index(index);
        let mut assigned: BTreeSet<PartitionId> = BTreeSet::new();
        for guard in guards {
            found.examined += 1;
            let wrong = match guard.kind {
                RebalanceKind::Assigned => {
                    let wrong = owned_already(model, client, guard);
                    assigned.extend(&guard.partitions);
                    wrong.map(|(partition, began)| (partition, "owned already", Some(began)))
                }
                RebalanceKind::Revoked | RebalanceKind::Lost => {
                    let never = guard.partitions.iter().find(|id| !assigned.contains(id));
                    never.map(|partition| (*partition, "never assigned", None))
                }
            };
            let Some((partition, why, since)) = wrong else { continue };
            found.add(|| {
                let sentence = format!(
                    "{} was told {:?} for {}, which was {why}.",
                    model.history.title(client),
                    guard.kind,
                    model.history.partition(partition)
                );
                let witness = [since, Some(guard.entry)].into_iter().flatten();
                Anomaly::new(Subject::Guard(guard.entry), Promise::Required, witness, sentence)
            });
        }
    }
}

fn owned_already(
    model: &Model<'_>,
    client: ClientId,
    guard: &Guard,
) -> Option<(PartitionId, EntryId)> {
    // Ownerships of one client are few: those that last at one time.
    let owned = model.groups.ownerships.iter().filter(|owned| owned.client == client);
    owned
        .filter(|owned| owned.began < guard.entry)
        .filter(|owned| owned.ended.is_none_or(|ended| ended > guard.entry))
        .find(|owned| guard.partitions.contains(&owned.partition))
        .map(|owned| (owned.partition, owned.began))
}

/// E12: a member is assigned partitions in a lower generation than before.
pub(super) fn generation_regress(model: &Model<'_>, found: &mut Anomalies) {
    let deleted = deleted(model);
    for (index, guards) in model.groups.guards.iter().enumerate() {
        let client = ClientId::from_index(index);
        let group = model.history.consumer(client).and_then(|facts| facts.group);
        if group.is_none_or(|group| deleted.contains(&group)) {
            continue;
        }
        let assigned = guards.iter().filter(|guard| guard.kind == RebalanceKind::Assigned);
        let mut last: Option<(i32, EntryId)> = None;
        for guard in assigned {
            let Some(generation) = guard.generation else { continue };
            found.examined += 1;
            if let Some((earlier, at)) = last.filter(|(earlier, _)| *earlier > generation) {
                found.add(|| {
                    let sentence = format!(
                        "{} was in generation {earlier} and then in {generation}.",
                        model.history.title(client)
                    );
                    let subject = Subject::Guard(guard.entry);
                    Anomaly::new(subject, Promise::Required, [at, guard.entry], sentence)
                });
            }
            last = Some((generation, guard.entry));
        }
    }
}

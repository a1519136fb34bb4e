//! Groups: after each change of membership, the members poll until the group is at rest.
//!
//! While they do, all their partitions are paused: how many records a poll brings along, and
//! whether it comes before the revoke, is a matter of timing.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bus_core::{
    ConsumerExt, ErrorKind, GroupDescription, GroupState, Polled, RebalanceKind, StartAt,
    Subscription, TopicPartition,
};
use futures_util::future::join_all;

use super::Interpreter;
use super::consume::Reader;
use crate::outcome::{Action, Fault, Guard, Outcome, Rebalanced};
use crate::slot::{ConsumerSlot, GroupSlot, Names, TopicSlot};

/// How long each member is polled before the group is looked at.
const POLL: Duration = Duration::from_millis(20);

/// A group that is not at rest after so many polls of all its members never is.
const POLLS_MAX: usize = 400;

impl Interpreter<'_> {
    pub(super) async fn subscribe(
        &mut self,
        slot: ConsumerSlot,
        topics: &[TopicSlot],
        pattern: &[TopicSlot],
        commit_on_revoke: bool,
    ) -> Outcome {
        let Some(reader) = self.consumers.get(&slot) else { return Outcome::Overdue };
        let group = reader.spec.group;
        if let Some(group) = group {
            self.pause_members(group);
        }
        let mut subscription =
            Subscription::topics(topics.iter().map(|topic| self.names.topic(*topic)));
        if !pattern.is_empty() {
            subscription = subscription.and_pattern(self.names.pattern(pattern));
        }
        let Some(reader) = self.consumers.get_mut(&slot) else { return Outcome::Overdue };
        let is_cooperative = reader.spec.assignor.is_cooperative();
        let before = reader.subscription.clone().filter(|_| is_cooperative);
        let subscribed = reader.consumer.subscribe(subscription);
        match (subscribed, group) {
            (Ok(()), Some(group)) => {
                if reader.subscription.is_none() {
                    reader.forget();
                }
                reader.subscription = Some(topics.iter().chain(pattern).copied().collect());
                let named = topics.iter().copied().collect();
                let reported = std::mem::take(&mut reader.reported);
                let joining = Joining { slot, named, pattern: pattern.to_vec(), before, reported };
                Outcome::Rebalanced(self.settle(group, Some(joining), commit_on_revoke).await)
            }
            (Ok(()), None) => Outcome::Done,
            (Err(error), group) => {
                if let Some(group) = group {
                    self.resume_members(group).await;
                }
                Outcome::Failed(Fault::from(&error))
            }
        }
    }

    pub(super) async fn unsubscribe(&mut self, slot: ConsumerSlot) -> Outcome {
        let Some(reader) = self.consumers.get_mut(&slot) else { return Outcome::Overdue };
        let left = reader.subscription.is_some().then_some(reader.spec.group).flatten();
        let result = reader.consumer.unsubscribe().await;
        if result.is_ok() {
            reader.forget();
        }
        self.after_leaving(left, result).await
    }

    pub(super) async fn close_consumer(&mut self, slot: ConsumerSlot) -> Outcome {
        let Some(reader) = self.consumers.get_mut(&slot) else { return Outcome::Done };
        let left = reader.subscription.is_some().then_some(reader.spec.group).flatten();
        let result = reader.consumer.close().await;
        reader.forget();
        reader.is_closed = true;
        self.after_leaving(left, result).await
    }

    async fn after_leaving(
        &mut self,
        left: Option<GroupSlot>,
        result: bus_core::Result<()>,
    ) -> Outcome {
        match (result, left) {
            (Ok(()), Some(group)) => Outcome::Rebalanced(self.settle(group, None, false).await),
            (result, _) => Outcome::done(result),
        }
    }

    /// The members of a group poll until it is at rest.
    pub(super) async fn settle(
        &mut self,
        group: GroupSlot,
        joining: Option<Joining>,
        commit_on_revoke: bool,
    ) -> Rebalanced {
        self.pause_members(group);
        let shape = self.shape_of(group, joining.as_ref()).await;
        let mut seen = Rebalanced { is_restless: true, ..Default::default() };
        for _ in 0..POLLS_MAX {
            self.poll_members(group, commit_on_revoke, &mut seen.members).await;
            if self.is_at_rest(group, &shape, joining.as_ref(), &seen.members).await {
                seen.is_restless = false;
                break;
            }
        }
        self.resume_members(group).await;
        if let Some(joining) = &joining
            && let Some(reader) = self.consumers.get_mut(&joining.slot)
        {
            reader.reported = joining.missing(&shape);
        }
        // Whether a member without partitions is told so before the group is at rest is a matter
        // of timing.
        for guards in seen.members.values_mut() {
            guards.retain(|guard| !guard.is_empty());
            // Every poll repeats what a client cannot recover from.
            let is_final =
                |guard: &Guard| matches!(guard, Guard::Error(f) if f.recovery == Action::Close);
            guards.dedup_by(|next, first| is_final(next) && next == first);
            // Nor is it sure when an error comes.
            guards.sort_by_key(|guard| !matches!(guard, Guard::Error(_)));
        }
        seen.members.retain(|_, guards| !guards.is_empty());
        seen
    }

    async fn poll_members(
        &mut self,
        group: GroupSlot,
        commit_on_revoke: bool,
        seen: &mut BTreeMap<ConsumerSlot, Vec<Guard>>,
    ) {
        let names = &self.names;
        let members = members(&mut self.consumers, group);
        let polls = members
            .map(async |(slot, reader)| (slot, poll_member(reader, names, commit_on_revoke).await));
        for (slot, guards) in join_all(polls).await {
            seen.entry(slot).or_default().extend(guards);
        }
    }

    fn pause_members(&mut self, group: GroupSlot) {
        for (_, reader) in members(&mut self.consumers, group) {
            pause_all(reader);
        }
    }

    /// Resumes what the program has not paused, and finds out where new partitions begin.
    async fn resume_members(&mut self, group: GroupSlot) {
        // Where it is not in the log shows when they have resumed.
        let resumed = members(&mut self.consumers, group).map(async |(_, reader)| {
            let assigned = reader.consumer.assignment();
            for gone in reader.starts.keys().cloned().collect::<Vec<_>>() {
                if !assigned.contains(&gone) {
                    reader.outdate(&gone);
                }
            }
            let is_new = |place: &&TopicPartition| {
                matches!(reader.consumer.position(place), Ok(None))
                    && !reader.starts.contains_key(*place)
            };
            let new = assigned.iter().filter(is_new);
            let new: Vec<_> = new.map(|place| (place.clone(), StartAt::Committed)).collect();
            let known_after = reader.find_starts(&new).await;
            reader.forget_stale();
            let resumed: Vec<_> =
                assigned.into_iter().filter(|place| !reader.paused.contains(place)).collect();
            // A consumer that lost its partitions meanwhile has nothing to resume.
            drop(reader.consumer.resume(&resumed));
            known_after
        });
        let known_after = join_all(resumed).await.into_iter().max().unwrap_or_default();
        tokio::time::sleep(known_after).await;
    }

    /// What the members of a group have subscribed to, as far as it exists.
    async fn shape_of(&mut self, group: GroupSlot, joining: Option<&Joining>) -> Shape {
        let subscriptions: BTreeMap<_, _> = members(&mut self.consumers, group)
            .map(|(slot, reader)| (slot, reader.subscription.clone().unwrap_or_default()))
            .collect();
        let before = joining.and_then(|joining| joining.before.clone());
        let topics = subscriptions.values().chain(&before).flatten().collect::<BTreeSet<_>>();
        let described = topics.into_iter().map(async |topic| {
            let described = self.admin.describe_topic(self.names.topic(*topic)).await.ok()?;
            Some((*topic, described.partitions.len()))
        });
        let partitions = join_all(described).await.into_iter().flatten().collect();
        Shape { subscriptions, partitions }
    }

    async fn is_at_rest(
        &self,
        group: GroupSlot,
        shape: &Shape,
        joining: Option<&Joining>,
        seen: &BTreeMap<ConsumerSlot, Vec<Guard>>,
    ) -> bool {
        let none = Vec::new();
        if let Some(joining) = joining {
            let seen = seen.get(&joining.slot).unwrap_or(&none);
            let errors = seen.iter().filter(|guard| matches!(guard, Guard::Error(_))).count();
            let has_joined = seen.iter().any(|guard| matches!(guard, Guard::Assigned(_)));
            let joins = shape.joins_anew(joining.slot, joining.before.as_ref());
            let missing = joining.missing(shape);
            let never_joins = seen.iter().any(
                |guard| matches!(guard, Guard::Error(f) if f.kind == ErrorKind::FencedInstanceId),
            );
            if !never_joins
                && (errors < missing.difference(&joining.reported).count()
                    || (joins && !has_joined))
            {
                return false;
            }
        }
        let Ok(described) = self.admin.describe_group(&self.names.group(group)).await else {
            return false;
        };
        let are_members_right = self.consumers.iter().all(|(slot, reader)| {
            let is_member = shape.has_topics(*slot);
            let refused = seen.get(slot).unwrap_or(&none);
            let is_refused = refused.iter().any(|guard| match guard {
                Guard::Error(fault) => fault.kind != ErrorKind::UnknownTopicOrPartition,
                _ => false,
            });
            if shape.subscriptions.contains_key(slot) && !is_member {
                // There is nothing that it could join for.
                return reader.consumer.assignment().is_empty();
            }
            !is_member || is_refused || is_assigned(&described, *slot, reader)
        });
        let are_others_gone = described.members.iter().all(|member| {
            let slot = ConsumerSlot::ALL.iter().find(|slot| slot.name() == member.client_id);
            // A static member stays in its group when it closes.
            slot.is_some_and(|slot| {
                shape.has_topics(*slot) || self.program.consumer(*slot).is_static
            })
        });
        let assigned: usize = described.members.iter().map(|member| member.assignment.len()).sum();
        let is_idle = described.members.is_empty();
        let is_state_right = if is_idle {
            matches!(described.state, GroupState::Empty | GroupState::Dead)
        } else {
            described.state == GroupState::Stable
        };
        let is_all_assigned = is_idle || assigned >= shape.wanted();
        are_members_right && are_others_gone && is_state_right && is_all_assigned
    }
}

/// A consumer that joins a group.
pub(super) struct Joining {
    slot: ConsumerSlot,
    /// The topics that it named; one that does not exist is an error of a poll.
    named: BTreeSet<TopicSlot>,
    /// What its pattern matches, if it has one; if none of it exists, that is an error too.
    pattern: Vec<TopicSlot>,
    /// What it has subscribed to before, if it is cooperative: then the same topics change nothing.
    before: Option<BTreeSet<TopicSlot>>,
    /// What it was told of before as missing: a topic alone, or those of a pattern.
    reported: BTreeSet<Vec<TopicSlot>>,
}

impl Joining {
    /// What of its subscription does not exist: topics alone, and a pattern with its topics.
    fn missing(&self, shape: &Shape) -> BTreeSet<Vec<TopicSlot>> {
        let exists = |topic: &TopicSlot| shape.partitions.contains_key(topic);
        let named = self.named.iter().filter(|topic| !exists(topic)).map(|topic| vec![*topic]);
        let is_unmatched = !self.pattern.is_empty() && !self.pattern.iter().any(exists);
        // A pattern of one topic is not that topic.
        let mut pattern = self.pattern.clone();
        pattern.extend(self.pattern.first());
        named.chain(is_unmatched.then_some(pattern)).collect()
    }
}

/// What the members of a group want.
struct Shape {
    subscriptions: BTreeMap<ConsumerSlot, BTreeSet<TopicSlot>>,
    /// How many partitions each topic has that exists.
    partitions: BTreeMap<TopicSlot, usize>,
}

impl Shape {
    /// Whether a member joins for other topics than before.
    fn joins_anew(&self, slot: ConsumerSlot, before: Option<&BTreeSet<TopicSlot>>) -> bool {
        let existing = |topics: Option<&BTreeSet<TopicSlot>>| {
            let topics = topics.into_iter().flatten().copied();
            topics.filter(|t| self.partitions.contains_key(t)).collect::<BTreeSet<_>>()
        };
        let now = existing(self.subscriptions.get(&slot));
        !now.is_empty() && (before.is_none() || now != existing(before))
    }

    /// How many partitions the members have subscribed to.
    fn wanted(&self) -> usize {
        let topics = self.subscriptions.values().flatten().collect::<BTreeSet<_>>();
        topics.into_iter().filter_map(|topic| self.partitions.get(topic)).sum()
    }

    /// Whether a member has subscribed to a topic that exists.
    fn has_topics(&self, slot: ConsumerSlot) -> bool {
        let topics = self.subscriptions.get(&slot);
        topics.is_some_and(|topics| topics.iter().any(|t| self.partitions.contains_key(t)))
    }
}

/// The open consumers that have subscribed as members of a group.
fn members(
    consumers: &mut BTreeMap<ConsumerSlot, Reader>,
    group: GroupSlot,
) -> impl Iterator<Item = (ConsumerSlot, &mut Reader)> {
    let is_member = move |reader: &Reader| {
        reader.spec.group == Some(group) && reader.subscription.is_some() && !reader.is_closed
    };
    consumers.iter_mut().map(|(slot, reader)| (*slot, reader)).filter(move |(_, r)| is_member(r))
}

fn is_assigned(described: &GroupDescription, slot: ConsumerSlot, reader: &Reader) -> bool {
    let assignment = reader.consumer.assignment();
    described
        .members
        .iter()
        .any(|member| member.client_id == slot.name() && member.assignment == assignment)
}

/// Polls a member once, and completes what comes.
async fn poll_member(reader: &mut Reader, names: &Names, commit_on_revoke: bool) -> Vec<Guard> {
    let mut seen = Vec::new();
    match reader.consumer.poll(POLL).await {
        Ok(Polled::Records(records)) => {
            let places = records.iter().filter_map(|r| names.place_of(&r.topic_partition()));
            let places = places.collect::<Vec<_>>();
            if !places.is_empty() {
                seen.push(Guard::Unasked(places));
            }
        }
        Ok(Polled::Rebalance(guard)) => {
            seen.push(Guard::of(guard.rebalance(), names));
            if commit_on_revoke && guard.kind() == RebalanceKind::Revoked {
                let committed = reader.consumer.commit_positions().await;
                seen.push(Guard::Commit(committed.map_err(|error| Fault::from(&error))));
            }
            for place in guard.partitions() {
                reader.paused.remove(place);
                reader.outdate(place);
            }
            if let Err(error) = guard.complete().await {
                seen.push(Guard::Incomplete(Fault::from(&error)));
            }
            pause_all(reader);
        }
        Err(error) => match error.topic_partition().filter(|place| place.partition >= 0) {
            // It could have come as well after the group is at rest; what it is worth shows when it
            // is known where the partition begins.
            Some(place) => {
                if reader.may_concern(place) {
                    reader.late.insert(place.clone(), Fault::from(&error));
                }
            }
            None => seen.push(Guard::Error(Fault::from(&error))),
        },
    }
    seen
}

fn pause_all(reader: &Reader) {
    // What is not assigned any more needs no pause.
    drop(reader.consumer.pause(&reader.consumer.assignment()));
}

//! Assignors: how the leader of a group divides partitions among its members.

use std::collections::{BTreeMap, BTreeSet};

use bus_core::{Assignor, Partition, Topic, TopicPartition};

use crate::node::Name;

use super::wire::MemberSubscription;

/// A member, as an assignor sees it.
#[derive(Clone, Debug)]
pub(crate) struct Member {
    pub(crate) member_id: Name,
    pub(crate) group_instance_id: Option<Name>,
    pub(crate) subscription: MemberSubscription,
}

/// The partitions of each member.
pub(crate) type Assignment = BTreeMap<Name, Vec<TopicPartition>>;

/// Divides the partitions of the subscribed topics. Topics without partitions do not exist.
pub(crate) fn assign(
    assignor: Assignor,
    members: &[Member],
    partitions: &BTreeMap<Topic, Partition>,
) -> Assignment {
    let mut members = members.iter().collect::<Vec<_>>();
    // Static members keep their places over restarts, so they sort by their static ids.
    members.sort_by(|a, b| sort_key(a).cmp(&sort_key(b)));
    let mut assignment: Assignment =
        members.iter().map(|member| (member.member_id.clone(), Vec::new())).collect();
    match assignor {
        Assignor::Range => range(&members, partitions, &mut assignment),
        Assignor::RoundRobin => round_robin(&members, partitions, &mut assignment),
        Assignor::CooperativeSticky => sticky(&members, partitions, &mut assignment),
    }
    for partitions in assignment.values_mut() {
        partitions.sort();
    }
    assignment
}

fn sort_key(member: &Member) -> (bool, &Name) {
    match &member.group_instance_id {
        Some(instance) => (false, instance),
        None => (true, &member.member_id),
    }
}

fn is_subscribed(member: &Member, topic: &Topic) -> bool {
    member.subscription.topics.contains(topic)
}

/// Per topic: consecutive partitions, the first members one more where it does not come out even.
fn range(
    members: &[&Member],
    partitions: &BTreeMap<Topic, Partition>,
    assignment: &mut Assignment,
) {
    for (topic, count) in partitions {
        let subscribed =
            members.iter().filter(|member| is_subscribed(member, topic)).collect::<Vec<_>>();
        let Ok(members_count) = Partition::try_from(subscribed.len()) else { continue };
        if members_count == 0 {
            continue;
        }
        let (each, extra) = (count / members_count, count % members_count);
        let mut next = 0;
        for (index, member) in (0..).zip(subscribed) {
            let share = each + Partition::from(index < extra);
            let mine = (next..next + share).map(|partition| TopicPartition::new(topic, partition));
            assignment.entry(member.member_id.clone()).or_default().extend(mine);
            next += share;
        }
    }
}

/// All partitions in turn.
fn round_robin(
    members: &[&Member],
    partitions: &BTreeMap<Topic, Partition>,
    assignment: &mut Assignment,
) {
    let mut turn = members.iter().cycle();
    for topic_partition in all(partitions) {
        if !members.iter().any(|member| is_subscribed(member, &topic_partition.topic)) {
            continue;
        }
        let Some(member) = turn.find(|member| is_subscribed(member, &topic_partition.topic)) else {
            continue;
        };
        assignment.entry(member.member_id.clone()).or_default().push(topic_partition);
    }
}

/// Balanced, moving as little as can be. What moves is first taken away, and given in the next
/// generation, when its owner has let go (KIP-429).
fn sticky(
    members: &[&Member],
    partitions: &BTreeMap<Topic, Partition>,
    assignment: &mut Assignment,
) {
    let owners = owners(members, partitions);
    for (topic_partition, owner) in &owners {
        assignment.entry(owner.clone()).or_default().push(topic_partition.clone());
    }
    for topic_partition in all(partitions) {
        if !owners.contains_key(&topic_partition)
            && let Some(member) = least_loaded(members, &topic_partition.topic, assignment)
        {
            assignment.entry(member).or_default().push(topic_partition);
        }
    }
    balance(members, assignment);
    for (member, mine) in assignment.iter_mut() {
        mine.retain(|topic_partition| {
            owners.get(topic_partition).is_none_or(|owner| owner == member)
        });
    }
}

/// Who owns what, by the claims of the members. Of two claims the one of the higher generation
/// counts; with equal generations neither does (KAFKA-12984, KIP-792).
fn owners(
    members: &[&Member],
    partitions: &BTreeMap<Topic, Partition>,
) -> BTreeMap<TopicPartition, Name> {
    let mut claims = BTreeMap::<TopicPartition, (i32, Option<Name>)>::new();
    for member in members {
        let generation = member.subscription.generation;
        for topic_partition in &member.subscription.owned {
            let exists = partitions
                .get(&topic_partition.topic)
                .is_some_and(|count| topic_partition.partition < *count);
            if !exists || !is_subscribed(member, &topic_partition.topic) {
                continue;
            }
            let claim = claims.entry(topic_partition.clone()).or_insert((i32::MIN, None));
            if generation > claim.0 {
                *claim = (generation, Some(member.member_id.clone()));
            } else if generation == claim.0 {
                claim.1 = None;
            }
        }
    }
    claims
        .into_iter()
        .filter_map(|(topic_partition, (_, owner))| Some((topic_partition, owner?)))
        .collect()
}

fn least_loaded(members: &[&Member], topic: &Topic, assignment: &Assignment) -> Option<Name> {
    members
        .iter()
        .filter(|member| is_subscribed(member, topic))
        .min_by_key(|member| assignment.get(&member.member_id).map_or(0, Vec::len))
        .map(|member| member.member_id.clone())
}

/// Moves single partitions from the most to the least loaded member that may have them, until no
/// move makes it more even.
fn balance(members: &[&Member], assignment: &mut Assignment) {
    loop {
        let Some((from, to, place)) = find_move(members, assignment) else { return };
        let moved = assignment.get_mut(&from).map(|mine| mine.remove(place));
        assignment.entry(to).or_default().extend(moved);
    }
}

fn find_move(members: &[&Member], assignment: &Assignment) -> Option<(Name, Name, usize)> {
    let load = |member: &Member| assignment.get(&member.member_id).map_or(0, Vec::len);
    let mut by_load = members.to_vec();
    by_load.sort_by_key(|member| load(member));
    for from in by_load.iter().rev() {
        let mine = assignment.get(&from.member_id)?;
        for to in &by_load {
            if load(from) <= load(to) + 1 {
                break;
            }
            let place = mine.iter().rposition(|moved| is_subscribed(to, &moved.topic));
            if let Some(place) = place {
                return Some((from.member_id.clone(), to.member_id.clone(), place));
            }
        }
    }
    None
}

fn all(partitions: &BTreeMap<Topic, Partition>) -> BTreeSet<TopicPartition> {
    partitions
        .iter()
        .flat_map(|(topic, count)| (0..*count).map(move |p| TopicPartition::new(topic, p)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(id: &str, owned: &[i32], generation: i32) -> Member {
        let owned = owned.iter().map(|partition| TopicPartition::new("t", *partition)).collect();
        let subscription = MemberSubscription { topics: vec!["t".into()], owned, generation };
        Member { member_id: id.into(), group_instance_id: None, subscription }
    }

    fn assigned(assignor: Assignor, members: &[Member], partitions: i32) -> Vec<Vec<i32>> {
        let topics = BTreeMap::from([(Topic::from("t"), partitions)]);
        assign(assignor, members, &topics)
            .into_values()
            .map(|mine| mine.into_iter().map(|tp| tp.partition).collect())
            .collect()
    }

    #[test]
    fn range_gives_the_first_members_one_more() {
        let members = [member("a", &[], -1), member("b", &[], -1)];
        assert_eq!(assigned(Assignor::Range, &members, 3), [vec![0, 1], vec![2]]);
    }

    #[test]
    fn round_robin_takes_turns() {
        let members = [member("a", &[], -1), member("b", &[], -1)];
        assert_eq!(assigned(Assignor::RoundRobin, &members, 3), [vec![0, 2], vec![1]]);
    }

    #[test]
    fn a_partition_that_moves_is_free_for_one_generation() {
        let members = [member("a", &[0, 1, 2, 3], 1), member("b", &[], -1)];
        assert_eq!(assigned(Assignor::CooperativeSticky, &members, 4), [vec![0, 1], vec![]]);
        let members = [member("a", &[0, 1], 2), member("b", &[], 2)];
        assert_eq!(assigned(Assignor::CooperativeSticky, &members, 4), [vec![0, 1], vec![2, 3]]);
    }

    #[test]
    fn of_two_claims_the_newer_generation_counts() {
        let members = [member("a", &[0], 1), member("b", &[0], 2)];
        assert_eq!(assigned(Assignor::CooperativeSticky, &members, 1), [vec![], vec![0]]);
    }
}

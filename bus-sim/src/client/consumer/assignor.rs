//! Assignors: how the leader of a group divides partitions among its members.

mod sticky;

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

/// What counts if two members claim to own a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Claims {
    /// The claim of the higher generation; neither if they are equal (KAFKA-12984, KIP-792).
    Dated,
    /// Both: each keeps what it claims, as before Kafka 3.0.
    Trusted,
}

/// Divides the partitions of the subscribed topics. Topics without partitions do not exist.
pub(crate) fn assign(
    assignor: Assignor,
    members: &[Member],
    partitions: &BTreeMap<Topic, Partition>,
    claims: Claims,
) -> Assignment {
    let mut members = members.iter().collect::<Vec<_>>();
    // Static members keep their places over restarts, so they sort by their static ids.
    members.sort_by_key(|member| member.group_instance_id.as_ref().unwrap_or(&member.member_id));
    let mut assignment: Assignment =
        members.iter().map(|member| (member.member_id.clone(), Vec::new())).collect();
    match assignor {
        Assignor::Range => range(&members, partitions, &mut assignment),
        Assignor::RoundRobin => round_robin(&members, partitions, &mut assignment),
        Assignor::CooperativeSticky => {
            cooperative_sticky(&members, partitions, claims, &mut assignment);
        }
    }
    for partitions in assignment.values_mut() {
        partitions.sort();
    }
    assignment
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
fn cooperative_sticky(
    members: &[&Member],
    partitions: &BTreeMap<Topic, Partition>,
    claims: Claims,
    assignment: &mut Assignment,
) {
    sticky::assign(members, partitions, claims, assignment);
    let owners = sticky::owners(members, claims);
    for (member, mine) in assignment.iter_mut() {
        mine.retain(|at| owners.get(at).is_none_or(|owners| owners.contains(member)));
    }
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
        assigned_by(assignor, members, &topics, Claims::Dated)
    }

    fn assigned_by(
        assignor: Assignor,
        members: &[Member],
        topics: &BTreeMap<Topic, Partition>,
        claims: Claims,
    ) -> Vec<Vec<i32>> {
        assign(assignor, members, topics, claims)
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
        assert_eq!(assigned(Assignor::CooperativeSticky, &members, 4), [vec![2, 3], vec![]]);
        let members = [member("a", &[2, 3], 2), member("b", &[], 2)];
        assert_eq!(assigned(Assignor::CooperativeSticky, &members, 4), [vec![2, 3], vec![0, 1]]);
    }

    #[test]
    fn what_nobody_owns_is_handed_out_from_the_last_to_the_first() {
        let members = [member("a", &[0], 1), member("b", &[], -1), member("c", &[], -1)];
        let assigned = assigned(Assignor::CooperativeSticky, &members, 4);
        assert_eq!(assigned, [vec![0, 1], vec![3], vec![2]]);
    }

    #[test]
    fn of_two_claims_the_newer_generation_counts() {
        let members = [member("a", &[0], 1), member("b", &[0], 2)];
        assert_eq!(assigned(Assignor::CooperativeSticky, &members, 1), [vec![], vec![0]]);
    }

    #[test]
    fn members_that_are_trusted_both_keep_a_partition() {
        let topics = BTreeMap::from([(Topic::from("t"), 2)]);
        let members = [member("a", &[0], -1), member("b", &[0, 1], -1)];
        let assigned = assigned_by(Assignor::CooperativeSticky, &members, &topics, Claims::Trusted);
        assert_eq!(assigned, [vec![0], vec![0, 1]]);
    }
}

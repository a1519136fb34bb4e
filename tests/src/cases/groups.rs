//! Groups: how partitions are divided, and how they move when members come and go.

use std::collections::BTreeSet;
use std::time::Duration;

use bus_core::{Assignor, ConsumerConfig, RebalanceKind, Subscription, Topic, TopicPartition};

use super::{are_divided, places};
use crate::cx::Cx;
use crate::failure::Verdict;
use crate::reader::Reader;
use crate::{ensure, ensure_eq};

/// The members of a group split the partitions, and each record goes to exactly one of them.
pub async fn members_split_partitions(cx: Cx) -> Verdict {
    let topic = cx.topic(6).await?;
    let group = cx.name("group");
    let members =
        [cx.member(&group, &topic)?, cx.member(&group, &topic)?, cx.member(&group, &topic)?];
    let members = [&members[0], &members[1], &members[2]];
    cx.drive(&members, "each has two partitions", || are_divided(&members, 6)).await?;
    cx.publish(&topic, 60).await?;
    let count = || members.iter().map(|member| member.count()).sum::<usize>();
    cx.drive(&members, "all records are read", || count() >= 60).await?;
    cx.drive_for(&members, Duration::from_millis(500)).await?;
    ensure_eq!(count(), 60, "each record goes to one member");
    ensure!(members.iter().all(|member| member.count() == 20), "each member has its share");
    Ok(())
}

/// Two groups read the same topic independently: each gets every record.
pub async fn two_groups_are_independent(cx: Cx) -> Verdict {
    let topic = cx.topic(2).await?;
    let (one, other) = (cx.member(&cx.name("a"), &topic)?, cx.member(&cx.name("b"), &topic)?);
    cx.publish(&topic, 20).await?;
    cx.drive(&[&one, &other], "both read all", || one.count() == 20 && other.count() == 20).await?;
    one.commit_positions().await?;
    let place = TopicPartition::new(&topic, 0);
    ensure_eq!(other.committed(&[place]).await?, [None], "the other group has committed nothing");
    Ok(())
}

/// Two members that share four partitions by this assignor, each with the numbers of its own.
async fn two_members_by(cx: &Cx, assignor: Assignor) -> Verdict<BTreeSet<Vec<i32>>> {
    let topic = cx.topic(4).await?;
    let group = cx.name("group");
    let config = ConsumerConfig { assignors: vec![assignor], ..cx.member_config(&group) };
    let member = || cx.subscribed(config.clone(), Subscription::topics([&topic]));
    let members = [member()?, member()?];
    let members = [&members[0], &members[1]];
    cx.drive(&members, "the partitions are divided", || are_divided(&members, 4)).await?;
    let numbers = |member: &&Reader| {
        member.assignment().into_iter().map(|place| place.partition).collect::<Vec<_>>()
    };
    Ok(members.iter().map(numbers).collect())
}

/// The range assignor gives consecutive partitions.
pub async fn range_gives_consecutive_partitions(cx: Cx) -> Verdict {
    let shares = two_members_by(&cx, Assignor::Range).await?;
    ensure_eq!(shares, BTreeSet::from([vec![0, 1], vec![2, 3]]), "the shares");
    Ok(())
}

/// The round robin assignor gives every second partition.
pub async fn round_robin_alternates(cx: Cx) -> Verdict {
    let shares = two_members_by(&cx, Assignor::RoundRobin).await?;
    ensure_eq!(shares, BTreeSet::from([vec![0, 2], vec![1, 3]]), "the shares");
    Ok(())
}

/// The cooperative sticky assignor gives equal shares, too.
pub async fn cooperative_sticky_balances(cx: Cx) -> Verdict {
    let shares = two_members_by(&cx, Assignor::CooperativeSticky).await?;
    let sizes: Vec<_> = shares.iter().map(Vec::len).collect();
    ensure_eq!(sizes, [2, 2], "the sizes of the shares {shares:?}");
    Ok(())
}

/// A member that has read and committed the first records of a topic of four partitions.
async fn busy_member(cx: &Cx) -> Verdict<(Topic, String, Reader)> {
    let topic = cx.topic(4).await?;
    let group = cx.name("group");
    let member = cx.member(&group, &topic)?;
    cx.publish(&topic, 8).await?;
    cx.drive(&[&member], "the first records are read", || member.count() == 8).await?;
    member.commit_positions().await?;
    Ok((topic, group, member))
}

/// A member that joins gets its share, and what was committed is not delivered again.
pub async fn join_moves_partitions(cx: Cx) -> Verdict {
    let (topic, group, first) = busy_member(&cx).await?;
    let second = cx.member(&group, &topic)?;
    let members = [&first, &second];
    cx.drive(&members, "both have their share", || are_divided(&members, 4)).await?;
    cx.publish(&topic, 8).await?;
    let count = || first.count() + second.count();
    cx.drive(&members, "the new records are read", || count() >= 16).await?;
    ensure_eq!(count(), 16, "each record came once");
    ensure_eq!(second.count(), 4, "the second member reads its share");
    Ok(())
}

/// The partitions of a member that closes move at once, long before its session would time out.
pub async fn leave_moves_partitions(cx: Cx) -> Verdict {
    let (topic, group, first) = busy_member(&cx).await?;
    let second = cx.member(&group, &topic)?;
    let members = [&first, &second];
    cx.drive(&members, "both have their share", || are_divided(&members, 4)).await?;
    let begin = cx.bus().elapsed();
    first.close().await?;
    cx.drive(&[&second], "the second has all", || second.assignment().len() == 4).await?;
    let took = cx.bus().elapsed() - begin;
    ensure!(took < Duration::from_secs(8), "it took {took:?}; the session time-out is 10 s");
    cx.publish(&topic, 8).await?;
    cx.drive(&[&second], "the new records are read", || second.count() == 8).await
}

/// A member that unsubscribes leaves the group: its partitions move at once.
pub async fn unsubscribe_moves_partitions(cx: Cx) -> Verdict {
    let (topic, group, first) = busy_member(&cx).await?;
    let second = cx.member(&group, &topic)?;
    let members = [&first, &second];
    cx.drive(&members, "both have their share", || are_divided(&members, 4)).await?;
    let begin = cx.bus().elapsed();
    first.unsubscribe().await?;
    cx.drive(&[&second], "the second has all", || second.assignment().len() == 4).await?;
    let took = cx.bus().elapsed() - begin;
    ensure!(took < Duration::from_secs(8), "it took {took:?}; the session time-out is 10 s");
    Ok(())
}

/// A member that is dropped without close leaves the group in the background.
pub async fn dropped_member_leaves(cx: Cx) -> Verdict {
    let (topic, group, first) = busy_member(&cx).await?;
    let second = cx.member(&group, &topic)?;
    let members = [&first, &second];
    cx.drive(&members, "both have their share", || are_divided(&members, 4)).await?;
    let begin = cx.bus().elapsed();
    drop(first);
    cx.drive(&[&second], "the second has all", || second.assignment().len() == 4).await?;
    let took = cx.bus().elapsed() - begin;
    ensure!(took < Duration::from_secs(8), "it took {took:?}; the session time-out is 10 s");
    Ok(())
}

/// With more members than partitions one is idle, and takes over when an owner leaves.
pub async fn idle_member_takes_over(cx: Cx) -> Verdict {
    let topic = cx.topic(1).await?;
    let group = cx.name("group");
    let member = || cx.member(&group, &topic).map(Reader::committing);
    cx.publish(&topic, 3).await?;
    // The first one reads before the second comes: an assignment that is revoked while librdkafka
    // looks up its first offset leaves a look-up behind (see docs/fidelity.md, `Stale look-up`).
    let one = member()?;
    cx.drive(&[&one], "the first member reads", || one.count() == 3).await?;
    one.commit_positions().await?;
    let other = member()?;
    let both = [&one, &other];
    cx.drive(&both, "both are members, and one of them owns the partition", || {
        let joined = |member: &&Reader| member.rebalanced(RebalanceKind::Assigned) > 0;
        let owned = one.assignment().len() + other.assignment().len();
        both.iter().all(joined) && owned == 1
    })
    .await?;
    let (owner, idle) = if one.assignment().is_empty() { (other, one) } else { (one, other) };
    owner.close().await?;
    idle.forget();
    cx.publish(&topic, 3).await?;
    cx.drive(&[&idle], "the idle one takes over", || idle.count() == 3).await
}

/// Partitions that a topic grows by are assigned to the group, from their start.
pub async fn grown_topic_is_divided_anew(cx: Cx) -> Verdict {
    let topic = cx.topic(1).await?;
    let group = cx.name("group");
    let config = ConsumerConfig {
        metadata_refresh_interval: Duration::from_millis(300),
        ..cx.member_config(&group)
    };
    let member = || cx.subscribed(config.clone(), Subscription::topics([&topic]));
    let members = [member()?, member()?];
    let members = [&members[0], &members[1]];
    cx.publish(&topic, 2).await?;
    let count = || members[0].count() + members[1].count();
    cx.drive(&members, "the first records are read", || count() == 2).await?;
    for member in members {
        member.commit_positions().await?;
    }
    cx.admin().create_partitions(topic.clone(), 4).await?;
    cx.drive(&members, "all four are divided", || are_divided(&members, 4)).await?;
    // A new producer: the old one may know only the old partitions for a while.
    let producer = cx.producer()?;
    for partition in 0..4 {
        producer.send(cx.record(&TopicPartition::new(&topic, partition))).await?;
    }
    // The members may find the new partitions one after the other, which is two rebalances.
    let read = || places(&[members[0].records(), members[1].records()].concat()).len();
    cx.drive(&members, "the new partitions are read", || read() == 6).await
}

/// Partitions that nobody owns go to the members from the last to the first, if others are owned.
pub async fn unowned_partitions_are_handed_out_from_the_last(cx: Cx) -> Verdict {
    let topic = cx.topic(1).await?;
    let group = cx.name("group");
    // Member ids begin with the client id, and assignors sort by them.
    let member = |client_id: &str| {
        let config = ConsumerConfig {
            client_id: Some(client_id.to_owned()),
            assignors: vec![Assignor::CooperativeSticky],
            metadata_refresh_interval: Duration::from_millis(300),
            ..cx.member_config(&group)
        };
        cx.subscribed(config, Subscription::topics([&topic]))
    };
    let first = member("a")?;
    cx.drive(&[&first], "one has the partition", || first.assignment().len() == 1).await?;
    let members = [&first, &member("b")?, &member("c")?];
    let is_told = |member: &Reader| !member.rebalances().is_empty();
    cx.drive(&members, "all are members", || members.iter().all(|m| is_told(m))).await?;
    cx.admin().create_partitions(topic.clone(), 4).await?;
    cx.drive(&members, "all four are divided", || are_divided(&members, 4)).await?;
    let shares = members.map(|member| {
        member.assignment().into_iter().map(|place| place.partition).collect::<Vec<_>>()
    });
    ensure_eq!(shares, [vec![0, 1], vec![3], vec![2]], "the shares");
    Ok(())
}

/// A subscription to several topics divides the partitions of all of them.
pub async fn several_topics_are_divided(cx: Cx) -> Verdict {
    let topics = [cx.topic(2).await?, cx.topic(2).await?, cx.topic(2).await?];
    let group = cx.name("group");
    let member = || cx.subscribed(cx.member_config(&group), Subscription::topics(&topics));
    let members = [member()?, member()?];
    let members = [&members[0], &members[1]];
    cx.drive(&members, "all are divided", || are_divided(&members, 6)).await?;
    for topic in &topics {
        cx.publish(topic, 4).await?;
    }
    let read = || members[0].count() + members[1].count();
    cx.drive(&members, "all records are read", || read() == 12).await
}

/// Members of one group may subscribe to different topics: each is given only its own.
pub async fn members_get_only_their_topics(cx: Cx) -> Verdict {
    let (first, second) = (cx.topic(2).await?, cx.topic(2).await?);
    let group = cx.name("group");
    let members = [cx.member(&group, &first)?, cx.member(&group, &second)?];
    let members = [&members[0], &members[1]];
    cx.drive(&members, "both have their topic", || are_divided(&members, 4)).await?;
    cx.publish(&first, 4).await?;
    cx.publish(&second, 4).await?;
    cx.drive(&members, "all is read", || members.iter().all(|m| m.count() == 4)).await?;
    ensure!(members[0].records().iter().all(|record| record.topic == first), "the first topic");
    ensure!(members[1].records().iter().all(|record| record.topic == second), "the second topic");
    Ok(())
}

/// A group without changes does not rebalance.
pub async fn stable_group_does_not_rebalance(cx: Cx) -> Verdict {
    let topic = cx.topic(4).await?;
    let group = cx.name("group");
    let members = [cx.member(&group, &topic)?, cx.member(&group, &topic)?];
    let members = [&members[0], &members[1]];
    cx.drive(&members, "both have their share", || are_divided(&members, 4)).await?;
    members.iter().for_each(|member| member.forget());
    cx.drive_for(&members, Duration::from_secs(4)).await?;
    for member in members {
        ensure_eq!(member.rebalances(), [], "no rebalance without a reason");
    }
    Ok(())
}

/// What one member has read and not committed is read again by the next owner, the rest is not.
pub async fn uncommitted_records_are_delivered_again(cx: Cx) -> Verdict {
    let topic = cx.topic(1).await?;
    let place = TopicPartition::new(&topic, 0);
    let group = cx.name("group");
    let first = cx.member(&group, &topic)?;
    cx.publish(&topic, 10).await?;
    cx.drive(&[&first], "all records are read", || first.count() == 10).await?;
    first.commit(&[(place.clone(), 7.into())]).await?;
    first.close().await?;
    let second = cx.member(&group, &topic)?;
    cx.publish(&topic, 2).await?;
    cx.drive(&[&second], "the rest is read", || second.count() == 5).await?;
    ensure_eq!(second.offsets(&place), [7, 8, 9, 10, 11], "from the commit on");
    let all: Vec<_> = [first.records(), second.records()].concat();
    ensure_eq!(places(&all).len(), 12, "every record was read");
    Ok(())
}

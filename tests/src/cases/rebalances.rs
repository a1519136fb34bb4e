//! Groups: guards, cooperative rebalances, and rebalances under load.

use std::time::Duration;

use bus_core::{
    Assignor, ConsumerConfig, GroupState, Polled, RebalanceGuard, RebalanceKind, Subscription,
    Topic, TopicPartition,
};
use futures_util::FutureExt as _;

use super::{are_divided, places};
use crate::cx::{Cx, STEP};
use crate::failure::Verdict;
use crate::reader::{Reader, unless_rejoining};
use crate::{ensure, ensure_eq};

/// Polls until a rebalance is handed out; the others are driven meanwhile.
async fn next_guard(cx: &Cx, reader: &Reader, others: &[&Reader]) -> Verdict<RebalanceGuard> {
    cx.until("a rebalance is handed out", async || {
        for other in others {
            other.step(STEP).await?;
        }
        Ok(match reader.poll(STEP).await? {
            Polled::Rebalance(guard) => Some(guard),
            Polled::Records(_) => None,
        })
    })
    .await
}

/// A member that owns all partitions, has read ten records, and is asked to give partitions up
/// because a second member joins.
async fn pending_revoke(cx: &Cx) -> Verdict<(Topic, Reader, Reader, RebalanceGuard)> {
    let topic = cx.topic(2).await?;
    let group = cx.name("group");
    let first = cx.member(&group, &topic)?;
    cx.publish(&topic, 10).await?;
    cx.drive(&[&first], "the records are read", || first.count() == 10).await?;
    let second = cx.member(&group, &topic)?;
    let guard = next_guard(cx, &first, &[&second]).await?;
    ensure_eq!(guard.kind(), RebalanceKind::Revoked, "what happens to the partitions");
    ensure_eq!(guard.partitions(), first.assignment(), "an eager rebalance revokes all");
    Ok((topic, first, second, guard))
}

/// No record is delivered before the guard of the assignment is completed.
pub async fn assignment_starts_with_its_guard(cx: Cx) -> Verdict {
    let topic = cx.topic(1).await?;
    cx.publish(&topic, 3).await?;
    let member = cx.member(&cx.name("group"), &topic)?;
    let guard = next_guard(&cx, &member, &[]).await?;
    ensure_eq!(guard.kind(), RebalanceKind::Assigned, "what happens to the partitions");
    ensure_eq!(guard.partitions(), [TopicPartition::new(&topic, 0)], "the partitions");
    for _ in 0..5 {
        let again = next_guard(&cx, &member, &[]).await?;
        ensure_eq!(again.rebalance(), guard.rebalance(), "every poll gives the same guard");
    }
    guard.complete().await?;
    cx.drive(&[&member], "the records are read", || member.count() == 3).await
}

/// A guard that is dropped, or whose poll is, is handed out again: no rebalance is lost.
pub async fn dropped_guard_is_handed_out_again(cx: Cx) -> Verdict {
    let topic = cx.topic(1).await?;
    let member = cx.member(&cx.name("group"), &topic)?;
    drop(next_guard(&cx, &member, &[]).await?);
    for _ in 0..3 {
        drop(member.poll(STEP).now_or_never());
    }
    let guard = next_guard(&cx, &member, &[]).await?;
    ensure_eq!(guard.kind(), RebalanceKind::Assigned, "what happens to the partitions");
    guard.clone().complete().await?;
    // Completing again does nothing.
    guard.complete().await?;
    cx.publish(&topic, 1).await?;
    cx.drive(&[&member], "the record is read", || member.count() == 1).await
}

/// Until the guard of a revocation is completed the partitions are still this member's: the group
/// waits, and gives them to nobody else.
pub async fn partitions_wait_for_the_revoke(cx: Cx) -> Verdict {
    let (_, first, second, guard) = pending_revoke(&cx).await?;
    cx.drive_for(&[&second], Duration::from_secs(1)).await?;
    ensure_eq!(second.assignment(), [], "the second member waits");
    first.commit_positions().await?;
    guard.complete().await?;
    let members = [&first, &second];
    cx.drive(&members, "both have their share", || are_divided(&members, 2)).await
}

/// While a revoke is pending, finished work can be committed, and the next owner starts behind it.
pub async fn revoke_lets_finished_work_be_committed(cx: Cx) -> Verdict {
    let (topic, first, second, guard) = pending_revoke(&cx).await?;
    for place in guard.partitions() {
        ensure_eq!(first.position(place)?, Some(5), "the position of {place} is still known");
        first.commit(&[(place.clone(), 4.into())]).await?;
    }
    guard.complete().await?;
    let members = [&first, &second];
    cx.drive(&members, "both have their share", || are_divided(&members, 2)).await?;
    cx.publish(&topic, 2).await?;
    let count = || first.count() + second.count();
    cx.drive(&members, "the rest is read", || count() == 10 + 2 + 2).await?;
    for member in members {
        let place = &member.assignment()[0];
        let tail = member.offsets(place);
        ensure_eq!(tail[tail.len() - 2..], [4, 5], "the owner of {place} starts at the commit");
    }
    Ok(())
}

/// Closing a member answers its pending revoke: the partitions go on to the others at once.
pub async fn closing_answers_a_pending_revoke(cx: Cx) -> Verdict {
    let (topic, first, second, guard) = pending_revoke(&cx).await?;
    first.commit_positions().await?;
    let begin = cx.bus().elapsed();
    first.close().await?;
    cx.drive(&[&second], "the second has all", || second.assignment().len() == 2).await?;
    let took = cx.bus().elapsed() - begin;
    ensure!(took < Duration::from_secs(8), "it took {took:?}; the session time-out is 10 s");
    drop(guard);
    cx.publish(&topic, 2).await?;
    cx.drive(&[&second], "the new records are read", || second.count() == 2).await
}

/// A member by the cooperative sticky assignor.
fn cooperative(cx: &Cx, group: &str, topic: &Topic) -> bus_core::Result<Reader> {
    let config =
        ConsumerConfig { assignors: vec![Assignor::CooperativeSticky], ..cx.member_config(group) };
    cx.subscribed(config, Subscription::topics([topic]))
}

/// A cooperative rebalance takes from a member only the partitions that move; the others are
/// neither revoked nor assigned again, and their records flow on without a gap or a repetition.
pub async fn cooperative_untouched_partitions_keep_flowing(cx: Cx) -> Verdict {
    let topic = cx.topic(4).await?;
    let group = cx.name("group");
    let first = cooperative(&cx, &group, &topic)?;
    cx.publish(&topic, 4).await?;
    cx.drive(&[&first], "the first has all, and they flow", || first.seen().len() == 4).await?;
    first.commit_positions().await?;
    first.forget();
    let second = cooperative(&cx, &group, &topic)?;
    let members = [&first, &second];
    let mut sent = 0;
    cx.until("both have their share", async || {
        cx.publish(&topic, 4).await?;
        sent += 4;
        cx.drive_for(&members, STEP).await?;
        first.commit_positions().await.or_else(unless_rejoining)?;
        Ok(are_divided(&members, 4).then_some(()))
    })
    .await?;
    let kept = first.assignment();
    for rebalance in first.rebalances() {
        let touched = rebalance.partitions.iter().any(|place| kept.contains(place));
        ensure!(!touched, "of {kept:?}, kept by the first member, some are in {rebalance:?}");
    }
    for place in &kept {
        ensure!(!first.offsets(place).is_empty(), "{place} stood still during the rebalance");
    }
    let expected: Vec<_> = (1..=sent / 4).collect();
    cx.drive(&members, "all records are read", || {
        kept.iter().all(|place| first.offsets(place).len() == expected.len())
            && second.assignment().iter().all(|p| second.offsets(p).last() == expected.last())
    })
    .await?;
    for place in &kept {
        ensure_eq!(first.offsets(place), expected, "{place} flows on with its first owner");
    }
    Ok(())
}

/// A pause survives a cooperative rebalance that does not touch the partition.
pub async fn pause_survives_a_cooperative_rebalance(cx: Cx) -> Verdict {
    let topic = cx.topic(2).await?;
    let group = cx.name("group");
    let first = cooperative(&cx, &group, &topic)?;
    cx.drive(&[&first], "the first has all", || first.assignment().len() == 2).await?;
    first.pause(&first.assignment())?;
    let second = cooperative(&cx, &group, &topic)?;
    let members = [&first, &second];
    cx.drive(&members, "both have their share", || are_divided(&members, 2)).await?;
    ensure_eq!(first.paused(), first.assignment(), "what was kept is paused still");
    cx.publish(&topic, 4).await?;
    cx.drive(&members, "the second reads its share", || second.count() == 2).await?;
    cx.drive_for(&members, Duration::from_secs(1)).await?;
    ensure_eq!(first.count(), 0, "the first member is paused");
    first.resume(&first.assignment())?;
    cx.drive(&members, "the first reads its share", || first.count() == 2).await
}

/// When a member joins under load and each owner commits what it has read before it gives a
/// partition up, every record is delivered exactly once.
pub async fn join_under_load_delivers_each_record_once(cx: Cx) -> Verdict {
    let topic = cx.topic(4).await?;
    let group = cx.name("group");
    let first = cx.member(&group, &topic)?.committing();
    cx.publish(&topic, 20).await?;
    cx.drive(&[&first], "the first reads alone", || first.count() == 20).await?;
    let second = cx.member(&group, &topic)?.committing();
    let members = [&first, &second];
    let mut sent = 0;
    cx.until("both have their share", async || {
        cx.publish(&topic, 4).await?;
        sent += 4;
        cx.drive_for(&members, STEP).await?;
        Ok(are_divided(&members, 4).then_some(()))
    })
    .await?;
    cx.publish(&topic, 20).await?;
    let count = || first.count() + second.count();
    cx.drive(&members, "all records are read", || count() >= 40 + sent).await?;
    cx.drive_for(&members, Duration::from_millis(500)).await?;
    ensure_eq!(count(), 40 + sent, "each record was delivered once");
    Ok(())
}

/// Twenty members join and leave under load: every record is delivered, and none is skipped.
pub async fn storm_of_joins_and_leaves_loses_nothing(cx: Cx) -> Verdict {
    let topic = cx.topic(3).await?;
    let group = cx.name("group");
    let mut members = vec![cx.member(&group, &topic)?.committing()];
    let mut read = Vec::new();
    let mut sent = 0;
    for n in 0..20 {
        if members.len() < 3 && n % 3 != 2 {
            members.push(cx.member(&group, &topic)?.committing());
        } else {
            let leaving = members.remove(0);
            leaving.commit_positions().await.or_else(unless_rejoining)?;
            leaving.close().await?;
            read.extend(leaving.records());
        }
        cx.publish(&topic, 6).await?;
        sent += 6;
        let driven: Vec<_> = members.iter().collect();
        cx.drive_for(&driven, STEP * 6).await?;
    }
    let driven: Vec<_> = members.iter().collect();
    let all = || {
        let rest: Vec<_> = driven.iter().flat_map(|member| member.records()).collect();
        places(&[read.clone(), rest].concat()).len()
    };
    cx.drive(&driven, "every record is read", || all() == sent).await?;
    cx.drive(&driven, "in the end the partitions are divided", || are_divided(&driven, 3)).await
}

/// A member that closes while its join is pending is out as soon as the others have joined, and not
/// only when its session ends: its request to leave waits behind the one to join.
pub async fn member_that_closes_amid_its_join_is_soon_out(cx: Cx) -> Verdict {
    let topic = cx.topic(2).await?;
    let group = cx.name("group");
    let member = || {
        let config = ConsumerConfig {
            session_timeout: Duration::from_mins(3),
            max_poll_interval: Duration::from_mins(4),
            ..cx.member_config(&group)
        };
        cx.subscribed(config, Subscription::topics([&topic]))
    };
    let first = member()?;
    cx.publish(&topic, 4).await?;
    cx.drive(&[&first], "the first reads alone", || first.count() == 4).await?;
    // The first one is not polled, so it gives nothing up, and the second waits for it.
    let second = member()?;
    cx.until("two are in the group", async || {
        second.step(STEP).await?;
        let described = cx.admin().describe_group(&group).await?;
        Ok((described.members.len() == 2).then_some(()))
    })
    .await?;
    second.close().await?;
    // Its connections are closed by now, and its requests are not carried out yet.
    tokio::time::sleep(STEP).await;
    cx.until("the first is alone", async || {
        first.step(STEP).await?;
        let described = cx.admin().describe_group(&group).await?;
        let is_alone = described.state == GroupState::Stable && described.members.len() == 1;
        Ok(is_alone.then_some(()))
    })
    .await?;
    cx.publish(&topic, 4).await?;
    cx.drive(&[&first], "the first reads all", || places(&first.records()).len() == 8).await
}

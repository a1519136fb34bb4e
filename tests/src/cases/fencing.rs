//! Groups: members that crash, hang, or come back, and what the group still lets them do.

use std::time::Duration;

use bus_core::{
    ConsumerConfig, Error, ErrorKind, RebalanceKind, Recovery, StartAt, Subscription, Topic,
    TopicPartition,
};

use super::are_divided;
use crate::cx::{Cx, STEP};
use crate::failure::{Failure, Verdict, refused};
use crate::reader::Reader;
use crate::script::{Report, Role};
use crate::{ensure, ensure_eq};

/// After this a silent member is given up.
const SESSION: Duration = Duration::from_secs(2);

/// The configuration of a member that is given up soon.
fn brief(cx: &Cx, group: &str) -> ConsumerConfig {
    ConsumerConfig {
        session_timeout: SESSION,
        max_poll_interval: Duration::from_secs(3),
        ..cx.member_config(group)
    }
}

/// The partitions of a crashed member move when its session times out, and what it had not
/// committed is delivered again.
pub async fn crash_moves_partitions_after_the_session(cx: Cx) -> Verdict {
    let topic = cx.topic(2).await?;
    let group = cx.name("group");
    cx.publish(&topic, 6).await?;
    // A rebalance that waits for the member ends by the session alone, not by this.
    let max_poll_interval = Duration::from_mins(5);
    let config = ConsumerConfig { max_poll_interval, ..brief(&cx, &group) };
    let process = cx.process(&topic, Role::member(&config, 0)).await?;
    process.until(&cx, "it has read the records", || process.delivered() == 6).await?;
    process.crash(&cx)?;
    let begin = cx.bus().elapsed();
    let member = cx.subscribed(config, Subscription::topics([&topic]))?;
    cx.drive(&[&member], "the records come again", || member.count() == 6).await?;
    let took = cx.bus().elapsed() - begin;
    // Some of the session has passed when the process crashes: up to a heartbeat and its delivery.
    ensure!(took > SESSION / 2, "it took {took:?}; the session time-out is {SESSION:?}");
    Ok(())
}

/// A member that pauses for longer than its session wakes up as a zombie: its commits are refused,
/// and what its successor committed stays.
pub async fn paused_member_wakes_up_as_a_zombie(cx: Cx) -> Verdict {
    let topic = cx.topic(1).await?;
    let place = TopicPartition::new(&topic, 0);
    let group = cx.name("group");
    cx.publish(&topic, 3).await?;
    let config = brief(&cx, &group);
    let role = Role::Member { properties: config.to_properties(), commits: 0, insists: true };
    let process = cx.process(&topic, role).await?;
    let done = Report::Committed(place.clone(), 3);
    process.until(&cx, "it has committed", || process.count(|report| *report == done) == 1).await?;
    process.pause(&cx)?;
    process.note_commits(&cx, &group);
    cx.publish(&topic, 3).await?;
    let member = cx.subscribed(config, Subscription::topics([&topic]))?;
    cx.drive(&[&member], "its successor reads", || member.count() == 3).await?;
    member.commit(&[(place.clone(), 6.into())]).await?;
    process.resume(&cx)?;
    process
        .until(&cx, "the zombie notices", || {
            process.count(|report| {
                matches!(
                    report,
                    Report::CommitFailed(_)
                        | Report::PollFailed(_)
                        | Report::Rebalanced(RebalanceKind::Lost, _)
                )
            }) > 0
        })
        .await?;
    let committed = member.committed(std::slice::from_ref(&place)).await?;
    ensure_eq!(committed, [Some(6.into())], "the successor's commit stays");
    process.crash(&cx)?;
    Ok(())
}

/// A member that does not poll within `max.poll.interval.ms` is told so, and with the next poll it
/// joins again.
pub async fn member_that_polls_too_late_rejoins(cx: Cx) -> Verdict {
    let topic = cx.topic(1).await?;
    let group = cx.name("group");
    let slow = cx.subscribed(brief(&cx, &group), Subscription::topics([&topic]))?;
    cx.publish(&topic, 5).await?;
    cx.drive(&[&slow], "it has read the records", || slow.count() == 5).await?;
    slow.commit_positions().await?;
    cx.until("the group is without it", async || {
        let described = cx.admin().describe_group(&group).await?;
        Ok(described.members.is_empty().then_some(()))
    })
    .await?;
    let error =
        cx.until("the slow member is told", async || Ok(slow.step(STEP).await.err())).await?;
    ensure_eq!(error.kind(), ErrorKind::MaxPollExceeded, "{error}");
    ensure_eq!(error.recovery(), Recovery::Rejoin, "what it may do");
    slow.forget();
    cx.publish(&topic, 2).await?;
    cx.drive(&[&slow], "it is a member again", || slow.count() == 2).await
}

/// The commit of a member that was given up is refused: it does not undo what its successor has
/// committed.
pub async fn zombie_commit_is_fenced(cx: Cx) -> Verdict {
    let topic = cx.topic(1).await?;
    let place = TopicPartition::new(&topic, 0);
    let (slow, heir) = slow_member_and_heir(&cx, &topic).await?;
    heir.commit_positions().await?;
    let outcome = slow.commit(&[(place.clone(), 2.into())]).await;
    is_fenced(outcome)?;
    let committed = heir.committed(std::slice::from_ref(&place)).await?;
    ensure_eq!(committed, [Some(5.into())], "the successor's commit stays");
    Ok(())
}

fn is_fenced(outcome: Result<(), Error>) -> Verdict {
    match outcome {
        Err(error) if error.recovery() == Recovery::Rejoin && !error.is_indeterminate() => Ok(()),
        other => Err(Failure::assertion(format!(
            "a zombie's commit is refused for certain, and it must rejoin; the outcome is {other:?}"
        ))),
    }
}

/// A member that has read five records and polls no more, and the one that was given its partition.
async fn slow_member_and_heir(cx: &Cx, topic: &Topic) -> Verdict<(Reader, Reader)> {
    let group = cx.name("group");
    let member = || cx.subscribed(brief(cx, &group), Subscription::topics([topic]));
    let slow = member()?;
    cx.publish(topic, 5).await?;
    cx.drive(&[&slow], "it has read the records", || slow.count() == 5).await?;
    let heir = member()?;
    cx.drive(&[&heir], "another reads the records", || heir.count() == 5).await?;
    Ok((slow, heir))
}

/// The configuration of a static member.
fn static_member(cx: &Cx, group: &str, instance: &str) -> ConsumerConfig {
    ConsumerConfig { group_instance_id: Some(instance.to_owned()), ..cx.member_config(group) }
}

/// A static member that closes and comes back within its session gets its partitions again, and
/// nothing moves for the others.
pub async fn static_member_restart_moves_nothing(cx: Cx) -> Verdict {
    let topic = cx.topic(4).await?;
    let group = cx.name("group");
    let member =
        |id: &str| cx.subscribed(static_member(&cx, &group, id), Subscription::topics([&topic]));
    let (one, other) = (member("one")?, member("other")?);
    cx.drive(&[&one, &other], "both have their share", || are_divided(&[&one, &other], 4)).await?;
    let mine = other.assignment();
    one.forget();
    other.close().await?;
    cx.drive_for(&[&one], Duration::from_secs(1)).await?;
    let other = member("other")?;
    cx.drive(&[&one, &other], "it is back", || other.assignment().len() == 2).await?;
    cx.drive_for(&[&one, &other], Duration::from_secs(1)).await?;
    ensure_eq!(other.assignment(), mine, "it has the partitions that it had");
    ensure_eq!(one.rebalances(), [], "nothing moved for the other");
    cx.publish(&topic, 4).await?;
    let count = || one.count() + other.count();
    cx.drive(&[&one, &other], "all is read", || count() == 4).await
}

/// A second member of the same instance id takes the place of the first, which is fenced for good.
pub async fn second_holder_of_an_instance_id_fences_the_first(cx: Cx) -> Verdict {
    let topic = cx.topic(1).await?;
    let group = cx.name("group");
    let member =
        || cx.subscribed(static_member(&cx, &group, "the one"), Subscription::topics([&topic]));
    let first = member()?;
    cx.drive(&[&first], "the first is a member", || first.assignment().len() == 1).await?;
    let second = member()?;
    let error = cx
        .until("the first is fenced", async || {
            second.step(STEP).await?;
            Ok(first.step(STEP).await.err())
        })
        .await?;
    ensure_eq!(error.kind(), ErrorKind::FencedInstanceId, "{error}");
    ensure_eq!(error.recovery(), Recovery::Close, "what it may do");
    cx.publish(&topic, 1).await?;
    cx.drive(&[&second], "the second reads", || second.count() == 1).await
}

/// A client that is no member and commits with an instance id that a member has is fenced: it can
/// only be closed. The member does not notice.
pub async fn commit_with_an_instance_id_in_use_is_the_end(cx: Cx) -> Verdict {
    let topic = cx.topic(1).await?;
    let place = TopicPartition::new(&topic, 0);
    let group = cx.name("group");
    let config = static_member(&cx, &group, "the one");
    let member = cx.subscribed(config.clone(), Subscription::topics([&topic]))?;
    cx.drive(&[&member], "it is a member", || member.assignment().len() == 1).await?;
    let other = cx.bus().consumer(config)?;
    other.assign(&[(place.clone(), StartAt::Beginning)])?;
    let fenced = ErrorKind::FencedInstanceId;
    let error = refused(other.commit(&[(place.clone(), 1.into())]).await, fenced)?;
    ensure_eq!(error.recovery(), Recovery::Close, "what it may do");
    refused(other.poll(STEP).await, fenced)?;
    refused(other.assign(&[(place.clone(), StartAt::Beginning)]), fenced)?;
    refused(other.subscribe(Subscription::topics([&topic])), fenced)?;
    refused(other.seek(&place, StartAt::Beginning).await, fenced)?;
    ensure_eq!(other.assignment(), [], "it has no partitions any more");
    other.close().await?;
    cx.publish(&topic, 1).await?;
    cx.drive(&[&member], "the member reads on", || member.count() == 1).await
}

/// A static member that stays away for longer than its session loses its partitions.
pub async fn static_member_that_stays_away_is_replaced(cx: Cx) -> Verdict {
    let topic = cx.topic(2).await?;
    let group = cx.name("group");
    let member = |id: &str| {
        let session_timeout = SESSION;
        let config = ConsumerConfig { session_timeout, ..static_member(&cx, &group, id) };
        cx.subscribed(config, Subscription::topics([&topic]))
    };
    let (one, other) = (member("one")?, member("other")?);
    cx.drive(&[&one, &other], "both have their share", || are_divided(&[&one, &other], 2)).await?;
    other.close().await?;
    cx.drive(&[&one], "one has all", || one.assignment().len() == 2).await
}

/// A member that is cut off from the brokers is replaced; when it is back it joins again, and the
/// partitions have one owner at any time.
pub async fn partitioned_member_is_replaced(cx: Cx) -> Verdict {
    let topic = cx.topic(2).await?;
    let group = cx.name("group");
    let process = cx.process(&topic, Role::member(&brief(&cx, &group), 0)).await?;
    cx.publish(&topic, 4).await?;
    process.until(&cx, "it has read the records", || process.delivered() == 4).await?;
    process.cut(&cx)?;
    let member = cx.subscribed(brief(&cx, &group), Subscription::topics([&topic]))?;
    cx.drive(&[&member], "another reads them again", || member.count() == 4).await?;
    member.commit_positions().await?;
    cx.inflict(&crate::fixture::Fault::Heal)?;
    let assigned =
        |report: &Report| matches!(report, Report::Rebalanced(RebalanceKind::Assigned, _));
    cx.until("it joins again", async || {
        member.step(STEP).await?;
        process.listen().await?;
        Ok((process.count(assigned) >= 2).then_some(()))
    })
    .await?;
    process.crash(&cx)
}

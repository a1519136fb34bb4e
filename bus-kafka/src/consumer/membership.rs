//! How a consumer gets and gives up partitions: subscribe, assign, unsubscribe, close.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bus_core::{Error, ErrorKind, Operation, Result, StartAt, Subscription, TopicPartition};
use rdkafka::TopicPartitionList;
use rdkafka::error::RDKafkaErrorCode;

use super::core::{Core, Kept, Native, Pump, to_list};
use super::place::{add, first_place, look_up_starts, no_offset, pause_again, start};
use super::rebalance;
use super::state::{Mode, Place, State};
use crate::ffi::consumer::{self as requests, Protocol};
use crate::ffi::{EventKind, Failure};
use crate::offload::{self, Offloaded};
use crate::{OPERATION_TIMEOUT, blocking_failed};

/// Subscribes as a member of the group.
pub(crate) fn subscribe(core: &Core, subscription: &Subscription) -> Result<()> {
    core.check_open()?;
    subscription.validate()?;
    if core.config.group_id.is_none() {
        let message = "property group.id is needed to subscribe; ConsumerConfig::in_group sets it";
        return Err(Error::new(ErrorKind::InvalidConfig, message));
    }
    let mut list = TopicPartitionList::new();
    // librdkafka refuses a list that names something twice.
    for topic in subscription.topics.iter().collect::<BTreeSet<_>>() {
        list.add_topic_unassigned(topic.as_str());
    }
    for pattern in subscription.patterns.iter().collect::<BTreeSet<_>>() {
        if pattern.contains('\0') {
            let message = format!("pattern {pattern:?} contains a NUL byte");
            return Err(Error::new(ErrorKind::InvalidArgument, message));
        }
        list.add_topic_unassigned(pattern);
    }
    let mut pump = core.pump.lock();
    let native = core.native.client()?;
    let mut state = core.state.lock();
    let was_assigned = state.mode == Mode::Assigned;
    if was_assigned {
        replace_assignment(&native, None).map_err(Failure::into_error)?;
        pump.kept.clear();
    }
    if let Err(failure) = requests::subscribe(native.client(), &list) {
        if was_assigned {
            // All stays as it was.
            let mut list = TopicPartitionList::with_capacity(state.assignment.len());
            for (topic_partition, place) in &state.assignment {
                add(&mut list, topic_partition, place.next());
            }
            replace_assignment(&native, Some(&list)).map_err(Failure::into_error)?;
        }
        return Err(refused(failure, subscription));
    }
    if state.mode != Mode::Subscribed {
        reset(&native, &mut state, Mode::Subscribed);
    }
    state.subscription = subscription.clone();
    Ok(())
}

fn refused(failure: Failure, subscription: &Subscription) -> Error {
    if failure.code.known() == Some(RDKafkaErrorCode::InvalidArgument) {
        let message = format!("invalid pattern among {:?}", subscription.patterns);
        return Error::new(ErrorKind::InvalidArgument, message);
    }
    failure.into_error()
}

/// Reads exactly these partitions.
pub(crate) fn assign(core: &Arc<Core>, partitions: &[(TopicPartition, StartAt)]) -> Result<()> {
    core.check_open()?;
    for (i, (topic_partition, to)) in partitions.iter().enumerate() {
        topic_partition.validate()?;
        to.validate(topic_partition)?;
        if partitions[..i].iter().any(|(other, _)| other == topic_partition) {
            return Err(Error::new(ErrorKind::InvalidArgument, "the partition is named twice")
                .with_topic_partition(topic_partition.clone()));
        }
    }
    let mut pump = core.pump.lock();
    let native = core.native.client()?;
    let mut state = core.state.lock();
    let was_subscribed = state.mode == Mode::Subscribed;
    if was_subscribed {
        drop(state);
        start_leaving(core, &native, &mut pump)?;
        state = core.state.lock();
    }
    let version = reset(&native, &mut state, Mode::Assigned);
    for (topic_partition, to) in partitions {
        // The place is known to the application from now on, its start perhaps a little later.
        let start = start(core, *to).unwrap_or(rdkafka::Offset::End);
        state.assignment.insert(topic_partition.clone(), Place::starting_at(start));
    }
    drop(state);
    pump.kept.clear();
    let starts: Option<Vec<_>> = partitions
        .iter()
        .map(|(topic_partition, to)| Some((topic_partition.clone(), start(core, *to)?)))
        .collect();
    if let (Some(starts), false) = (starts, was_subscribed) {
        return assign_at(core, &native, &mut pump, &starts);
    }
    if !was_subscribed {
        // Nothing of what was assigned before is delivered while the starts are looked up.
        replace_assignment(&native, None).map_err(Failure::into_error)?;
    }
    drop(pump);
    let (core, partitions) = (Arc::clone(core), partitions.to_vec());
    core.runtime.clone().spawn(async move {
        if let Err(error) = assign_later(&core, &partitions, version, was_subscribed).await {
            core.pump.lock().kept.push_back(Kept::Error(error));
            core.wake.notify_waiters();
        }
    });
    Ok(())
}

/// Assigns once the group is left and the starts are known, unless that was overtaken.
async fn assign_later(
    core: &Core,
    partitions: &[(TopicPartition, StartAt)],
    version: u64,
    was_subscribed: bool,
) -> Result<()> {
    if was_subscribed {
        finish_leaving(core, version).await?;
    }
    let starts = look_up_starts(core, partitions).await?;
    let mut pump = core.pump.lock();
    if core.state.lock().version != version {
        return Ok(());
    }
    let native = core.native.client()?;
    assign_at(core, &native, &mut pump, &starts)
}

fn assign_at(
    core: &Core,
    native: &Native,
    pump: &mut Pump,
    starts: &[(TopicPartition, rdkafka::Offset)],
) -> Result<()> {
    let mut list = TopicPartitionList::with_capacity(starts.len());
    let mut state = core.state.lock();
    for (topic_partition, start) in starts {
        let Some(place) = first_place(core, *start) else {
            let error = no_offset(core, topic_partition).with_operation(Operation::Poll);
            pump.kept.push_back(Kept::Error(error));
            continue;
        };
        let known = state.assignment.entry(topic_partition.clone()).or_insert(place);
        known.start = place.start;
        // A place that was sought in the meantime stays.
        add(&mut list, topic_partition, known.next());
    }
    replace_assignment(native, Some(&list)).map_err(Failure::into_error)?;
    pause_again(native, &state).map_err(Failure::into_error)?;
    drop(state);
    core.wake.notify_waiters();
    Ok(())
}

/// Goes over to another mode, with nothing assigned and, unlike in librdkafka, nothing paused.
fn reset(native: &Native, state: &mut State, mode: Mode) -> u64 {
    let paused = state.paused();
    if !paused.is_empty()
        && let Err(failure) = requests::pause(native.client(), &to_list(&paused), false)
    {
        tracing::warn!(target: "librdkafka", ?failure, "partitions could not be resumed");
    }
    state.reset(mode)
}

/// Replaces what is assigned by hand.
fn replace_assignment(native: &Native, list: Option<&TopicPartitionList>) -> Result<(), Failure> {
    let client = native.client();
    if requests::protocol(client) != Protocol::Cooperative {
        return requests::assign(client, list);
    }
    // A client that was in a cooperative group goes on to be asked partition by partition.
    let assigned = requests::assignment(client);
    if !assigned.is_empty() {
        requests::incremental_unassign(client, &to_list(&assigned))?;
    }
    list.map_or(Ok(()), |list| requests::incremental_assign(client, list))
}

/// Leaves the group, or gives up what was assigned by hand.
pub(crate) async fn unsubscribe(core: &Arc<Core>) -> Result<()> {
    core.check_open()?;
    let version = {
        let mut pump = core.pump.lock();
        let native = core.native.client()?;
        let mut state = core.state.lock();
        match state.mode {
            Mode::Idle => return Ok(()),
            Mode::Assigned => {
                reset(&native, &mut state, Mode::Idle);
                pump.kept.clear();
                return replace_assignment(&native, None).map_err(Failure::into_error);
            }
            Mode::Subscribed => {
                drop(state);
                start_leaving(core, &native, &mut pump)?
            }
        }
    };
    // A task of its own: dropping the future does not leave a revocation unanswered.
    let leaving = Arc::clone(core);
    let left = core.runtime.spawn(async move { finish_leaving(&leaving, version).await });
    left.await.map_err(blocking_failed)?
}

/// Starts to leave the group: what is pending is answered, and what comes of it will be.
fn start_leaving(core: &Core, native: &Native, pump: &mut Pump) -> Result<u64> {
    let (version, pending) = {
        let mut state = core.state.lock();
        let left: Vec<_> = state.assignment.keys().cloned().collect();
        let version = reset(native, &mut state, Mode::Idle);
        discard_fetched(native, &left);
        state.left.extend(left);
        (version, state.pending.take())
    };
    pump.kept.clear();
    if let Some(pending) = pending {
        rebalance::answer(native, &pending.rebalance).map_err(Failure::into_error)?;
    }
    requests::unsubscribe(native.client()).map_err(Failure::into_error)?;
    Ok(version)
}

/// Throws away what librdkafka has fetched, by a pause.
///
/// It would count a marker of a transaction as delivered when the queue is emptied, and with it all
/// records before it that no poll has returned, so that an auto commit would pass them.
fn discard_fetched(native: &Native, partitions: &[TopicPartition]) {
    if partitions.is_empty() {
        return;
    }
    if let Err(failure) = requests::pause(native.client(), &to_list(partitions), true) {
        tracing::debug!(target: "librdkafka", ?failure, "partitions could not be paused");
    }
}

/// Ends the pause of partitions that were left.
fn resume_left(native: &Native, state: &mut State) {
    let left = std::mem::take(&mut state.left);
    if left.is_empty() {
        return;
    }
    let resumed = requests::pause(native.client(), &to_list(&left), false);
    if let Err(failure) = resumed.and_then(|()| pause_again(native, state)) {
        tracing::warn!(target: "librdkafka", ?failure, "partitions could not be resumed");
    }
}

/// Answers the revocation that leaving brings, and returns when nothing is assigned. If something
/// else is subscribed to or assigned meanwhile, that is left to `poll`.
async fn finish_leaving(core: &Core, version: u64) -> Result<()> {
    let leaving = async {
        loop {
            let woken = core.wake.notified();
            tokio::pin!(woken);
            woken.as_mut().enable();
            {
                let _pump = core.pump.lock();
                let native = core.native.client()?;
                let mut state = core.state.lock();
                if state.version != version {
                    resume_left(&native, &mut state);
                    return Ok(());
                }
                drop(state);
                while let Some(event) = native.queue.poll(Duration::ZERO) {
                    // Records and errors of the old membership are of no interest.
                    if !matches!(event.kind(), EventKind::Record) {
                        drop(core.handle(&native, &event, &mut None));
                    }
                }
                if requests::assignment(native.client()).is_empty() {
                    resume_left(&native, &mut core.state.lock());
                    return Ok(());
                }
            }
            woken.await;
        }
    };
    tokio::time::timeout(OPERATION_TIMEOUT, leaving).await.unwrap_or_else(|_| {
        Err(Error::new(ErrorKind::TimedOut, "the partitions were not given up in time"))
    })
}

/// How a consumer goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Farewell {
    /// In the open: with a last auto commit, if that is on.
    Close,
    /// By a drop: without one.
    Drop,
}

/// Closes the consumer on a thread of its own, unless it is closed or closing.
pub(crate) fn close(core: &Arc<Core>, farewell: Farewell) {
    if core.is_closing.swap(true, Ordering::SeqCst) {
        return;
    }
    core.wake.notify_waiters();
    let closing = Arc::clone(core);
    let done = offload::spawn("bus-kafka-close", move || {
        close_now(&closing, farewell);
        closing.is_closed.send_replace(true);
    });
    if let Err(error) = done {
        // The client goes with its last handle then, on whatever thread that is.
        tracing::error!(%error, "cannot start a thread to close a consumer");
        drop(core.native.take());
        core.is_closed.send_replace(true);
    }
}

fn close_now(core: &Core, farewell: Farewell) {
    /// How long a look at the queue lasts; the end of closing is no event.
    const LOOK: Duration = Duration::from_millis(10);

    let Some(native) = core.native.take() else { return };
    // Events go before the client; from here on nobody takes new ones.
    core.pump.lock().kept.clear();
    let client = native.client();
    let (pending, assignment) = {
        let mut state = core.state.lock();
        let assignment = std::mem::take(&mut state.assignment);
        state.mode = Mode::Idle;
        (state.pending.take(), assignment)
    };
    discard_fetched(&native, &assignment.keys().cloned().collect::<Vec<_>>());
    if farewell == Farewell::Drop && core.config.enable_auto_commit {
        for topic_partition in assignment.keys() {
            requests::forget_stored_offset(client, topic_partition);
        }
    }
    if let Some(pending) = pending
        && let Err(failure) = rebalance::answer(&native, &pending.rebalance)
    {
        tracing::debug!(target: "librdkafka", ?failure, "closing with a pending rebalance");
    }
    match requests::close(client, &native.queue) {
        Ok(()) => {
            while !requests::is_closed(client) {
                if let Some(event) = native.queue.poll(LOOK)
                    && !matches!(event.kind(), EventKind::Record)
                {
                    drop(core.handle(&native, &event, &mut None));
                }
            }
        }
        // A client in a fatal state is closed by its destruction.
        Err(failure) => tracing::debug!(target: "librdkafka", ?failure, "closing"),
    }
    core.replies.resolve(core, &native);
    core.replies.abandon();
    // If another call still holds the client, that one's end destroys it.
    if let Some(native) = Arc::into_inner(native) {
        drop(Offloaded::into_inner(native));
    }
}

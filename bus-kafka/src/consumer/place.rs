//! Where partitions start: seeking, and looking up the places that have no number yet.

use bus_core::{
    Error, ErrorKind, Offset, OffsetReset, Operation, Result, StartAt, Timestamp, TopicPartition,
    Watermarks,
};
use rdkafka::TopicPartitionList;
use rdkafka::error::RDKafkaErrorCode;

use super::commit;
use super::core::{Core, Kept, Native, Pump, to_list};
use super::state::{Place, State};
use crate::error::from_rdkafka;
use crate::ffi::consumer::{self as requests, Protocol};
use crate::ffi::{Failure, Listed};
use crate::{Attempts, OPERATION_TIMEOUT, blocking};

/// Moves the position of an assigned partition.
pub(crate) async fn seek(core: &Core, topic_partition: &TopicPartition, to: StartAt) -> Result<()> {
    core.check_open()?;
    to.validate(topic_partition)?;
    core.state.lock().place(topic_partition)?;
    let offset = resolve(core, topic_partition, to).await?;
    let mut pump = core.pump.lock();
    let native = core.native.client()?;
    let mut state = core.state.lock();
    state.place(topic_partition)?;
    seek_to(&native, &mut pump, &mut state, topic_partition, offset)?;
    drop(state);
    core.wake.notify_waiters();
    Ok(())
}

/// Seeks what was sought while a rebalance was pending.
pub(crate) fn seek_again(native: &Native, pump: &mut Pump, state: &mut State) {
    let sought: Vec<_> = state
        .assignment
        .iter()
        .filter_map(|(partition, place)| Some((partition.clone(), place.sought?)))
        .collect();
    for (topic_partition, offset) in sought {
        if let Err(error) = seek_to(native, pump, state, &topic_partition, offset) {
            pump.kept.push_back(Kept::Error(error));
        }
    }
}

/// Moves an assigned partition to an offset.
fn seek_to(
    native: &Native,
    pump: &mut Pump,
    state: &mut State,
    topic_partition: &TopicPartition,
    offset: Offset,
) -> Result<()> {
    let is_pending = state.pending.is_some();
    let Some(place) = state.assignment.get_mut(topic_partition) else { return Ok(()) };
    place.position = Some(offset);
    place.sought = None;
    pump.forget(|partition| partition == topic_partition);
    let mut list = TopicPartitionList::with_capacity(1);
    add(&mut list, topic_partition, rdkafka::Offset::Offset(offset));
    match requests::seek(native.client(), &list) {
        Ok(()) => Ok(()),
        // The fetcher has not started, or it just stops: librdkafka does not seek then, but it
        // takes a new start. While it waits for the answer to a rebalance it would take that for
        // the answer, so then the seek waits too.
        Err(Failure { code, .. }) if is_not_started(code) => {
            if is_pending {
                place.sought = Some(offset);
                return Ok(());
            }
            restart(native, pump, state, topic_partition, &list)
        }
        Err(failure) => Err(failure.into_error().with_topic_partition(topic_partition.clone())),
    }
}

/// Assigns a partition anew, at its place in `list`.
fn restart(
    native: &Native,
    pump: &mut Pump,
    state: &State,
    topic_partition: &TopicPartition,
    list: &TopicPartitionList,
) -> Result<()> {
    let client = native.client();
    let restarted = if requests::protocol(client) == Protocol::Eager {
        // An eager member changes its assignment as a whole: each partition starts where it is.
        pump.forget(|_| true);
        let mut all = TopicPartitionList::with_capacity(state.assignment.len());
        for (topic_partition, place) in &state.assignment {
            // Without a start it waits to be sought.
            if place.next() != rdkafka::Offset::Invalid {
                add(&mut all, topic_partition, place.next());
            }
        }
        requests::assign(client, Some(&all))
    } else if requests::assignment(client).contains(topic_partition) {
        requests::incremental_unassign(client, list)
            .and_then(|()| requests::incremental_assign(client, list))
    } else {
        // It had no start until now.
        requests::incremental_assign(client, list)
    };
    restarted
        .and_then(|()| pause_again(native, state))
        .map_err(|failure| failure.into_error().with_topic_partition(topic_partition.clone()))
}

/// Pauses what is paused, after librdkafka may have forgotten it.
pub(crate) fn pause_again(native: &Native, state: &State) -> Result<(), Failure> {
    let paused = state.paused();
    if paused.is_empty() {
        return Ok(());
    }
    requests::pause(native.client(), &to_list(&paused), true)
}

fn is_not_started(code: crate::error::Code) -> bool {
    matches!(
        code.known(),
        Some(
            RDKafkaErrorCode::State
                | RDKafkaErrorCode::PreviousInProgress
                | RDKafkaErrorCode::UnknownPartition
        )
    )
}

/// The offset that a place stands for now.
async fn resolve(core: &Core, topic_partition: &TopicPartition, to: StartAt) -> Result<Offset> {
    let ends = || watermarks(core, topic_partition.clone());
    Ok(match to {
        StartAt::Offset(offset) => offset,
        StartAt::Beginning => ends().await?.low,
        StartAt::End => ends().await?.high,
        StartAt::Timestamp(time) => {
            let times = vec![(topic_partition.clone(), time)];
            match offsets_for_times(core, times).await?.first().copied().flatten() {
                Some(offset) => offset,
                None => ends().await?.high,
            }
        }
        StartAt::Committed => {
            let committed = match core.config.group_id {
                Some(_) => commit::committed(core, vec![topic_partition.clone()]).await?,
                None => Vec::new(),
            };
            match (committed.into_iter().next().flatten(), core.config.auto_offset_reset) {
                (Some(committed), _) => committed.offset,
                (None, OffsetReset::Earliest) => ends().await?.low,
                (None, OffsetReset::Latest) => ends().await?.high,
                (None, OffsetReset::None) => return Err(no_offset(core, topic_partition)),
            }
        }
    })
}

/// The starts of partitions that are assigned by hand, as librdkafka has them; `None` where the
/// time has to be looked up first.
pub(crate) fn start(core: &Core, to: StartAt) -> Option<rdkafka::Offset> {
    Some(match to {
        StartAt::Offset(offset) => rdkafka::Offset::Offset(offset),
        StartAt::Beginning => rdkafka::Offset::Beginning,
        StartAt::End => rdkafka::Offset::End,
        StartAt::Committed if core.config.group_id.is_some() => rdkafka::Offset::Stored,
        // Without a group there is nothing to ask a coordinator for.
        StartAt::Committed => rdkafka::Offset::Invalid,
        StartAt::Timestamp(_) => return None,
    })
}

/// Looks up the starts that are times.
pub(crate) async fn look_up_starts(
    core: &Core,
    partitions: &[(TopicPartition, StartAt)],
) -> Result<Vec<(TopicPartition, rdkafka::Offset)>> {
    let times: Vec<_> = partitions
        .iter()
        .filter_map(|(topic_partition, to)| match to {
            StartAt::Timestamp(time) => Some((topic_partition.clone(), *time)),
            _ => None,
        })
        .collect();
    let mut found = offsets_for_times(core, times).await?.into_iter();
    let starts = partitions.iter().map(|(topic_partition, to)| {
        let start = start(core, *to).unwrap_or_else(|| {
            found.next().flatten().map_or(rdkafka::Offset::End, rdkafka::Offset::Offset)
        });
        (topic_partition.clone(), start)
    });
    Ok(starts.collect())
}

/// Asks the leader for the ends of a partition.
pub(crate) async fn watermarks(core: &Core, topic_partition: TopicPartition) -> Result<Watermarks> {
    let native = core.native.client()?;
    topic_partition.validate()?;
    let look_up = move || {
        let TopicPartition { topic, partition } = &topic_partition;
        ask_leaders(|| {
            native
                .client
                .fetch_watermarks(topic.as_str(), *partition, OPERATION_TIMEOUT)
                .map(|(low, high)| Watermarks { low, high })
                .map_err(|error| {
                    from_rdkafka(&error, Operation::Watermarks)
                        .with_topic_partition(topic_partition.clone())
                })
        })
    };
    blocking(&core.runtime, look_up).await?
}

/// Asks the leaders for the first offsets that are not older than the times.
pub(crate) async fn offsets_for_times(
    core: &Core,
    times: Vec<(TopicPartition, Timestamp)>,
) -> Result<Vec<Option<Offset>>> {
    let native = core.native.client()?;
    for (topic_partition, _) in &times {
        topic_partition.validate()?;
    }
    if times.is_empty() {
        return Ok(Vec::new());
    }
    let look_up = move || {
        ask_leaders(|| {
            let mut list = TopicPartitionList::with_capacity(times.len());
            for (topic_partition, time) in &times {
                // Negative times stand for other things in the protocol; no record is that old.
                let millis = time.as_millis().max(0);
                add(&mut list, topic_partition, rdkafka::Offset::Offset(millis));
            }
            let found = requests::offsets_for_times(native.client(), &list, OPERATION_TIMEOUT)
                .map_err(Failure::into_error)?;
            let found = times.iter().map(|(topic_partition, _)| {
                let listed = find(&found, topic_partition)?;
                Ok((listed.offset >= 0).then_some(listed.offset))
            });
            found.collect()
        })
    };
    blocking(&core.runtime, look_up).await?
}

/// Asks again while a leader is new or about to change; librdkafka does not by itself.
fn ask_leaders<T>(ask: impl Fn() -> Result<T>) -> Result<T> {
    let mut attempts = Attempts::within(OPERATION_TIMEOUT);
    loop {
        match ask() {
            Err(error) if is_leader_changing(error.kind()) && attempts.pause() => {}
            answer => return answer,
        }
    }
}

const fn is_leader_changing(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::LeaderNotAvailable
            | ErrorKind::NotLeaderOrFollower
            | ErrorKind::ReplicaNotAvailable
            | ErrorKind::FencedLeaderEpoch
            | ErrorKind::UnknownLeaderEpoch
            | ErrorKind::OffsetNotAvailable
    )
}

/// The element of a partition, or its error.
pub(crate) fn find<'a>(
    found: &'a [Listed],
    topic_partition: &TopicPartition,
) -> Result<&'a Listed> {
    let listed = found.iter().find(|listed| listed.topic_partition == *topic_partition);
    let listed = listed.ok_or_else(|| {
        Error::new(ErrorKind::Backend, "librdkafka did not answer for the partition")
            .with_topic_partition(topic_partition.clone())
    })?;
    match listed.error {
        Some(code) => Err(code.error("").with_topic_partition(topic_partition.clone())),
        None => Ok(listed),
    }
}

/// Adds a partition with an offset, which is not negative or one of librdkafka's marks.
pub(crate) fn add(
    list: &mut TopicPartitionList,
    topic_partition: &TopicPartition,
    offset: rdkafka::Offset,
) {
    let TopicPartition { topic, partition } = topic_partition;
    let mut element = list.add_partition(topic.as_str(), *partition);
    // Only a negative offset fails; those were refused before.
    drop(element.set_offset(offset));
}

/// The error of a partition that has nowhere to start.
pub(crate) fn no_offset(core: &Core, topic_partition: &TopicPartition) -> Error {
    let message = "there is no committed offset, and auto.offset.reset is none; seek first";
    core.in_group(Error::new(ErrorKind::NoOffset, message))
        .with_topic_partition(topic_partition.clone())
}

/// What an assigned partition starts with; without a group, the reset policy is applied here.
pub(crate) fn first_place(core: &Core, start: rdkafka::Offset) -> Option<Place> {
    let start = match (start, core.config.auto_offset_reset) {
        (rdkafka::Offset::Invalid, OffsetReset::Earliest) => rdkafka::Offset::Beginning,
        (rdkafka::Offset::Invalid, OffsetReset::Latest) => rdkafka::Offset::End,
        (rdkafka::Offset::Invalid, OffsetReset::None) => return None,
        (start, _) => start,
    };
    Some(Place::starting_at(start))
}

//! Consumers: assignment, positions, commits, and questions.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bus_core::{
    Consumer, ConsumerConfig, ConsumerExt, Error, ErrorKind, Offset, OffsetAndMetadata,
    OffsetReset, Result, StartAt, Timestamp, TopicPartition,
};

use super::{FETCH_WAIT, Interpreter};
use crate::outcome::{Fault, Held, Membership, Outcome};
use crate::program::{ConsumerSpec, ConsumerStep};
use crate::slot::{ConsumerSlot, Names, Place, TopicSlot};

/// librdkafka tries a look-up again after 500 ms if it does not know the leader yet.
const LOOK_UP: Duration = Duration::from_millis(800);

/// librdkafka begins to fetch from a partition within a second, and looks up where the log begins
/// or ends 500 ms after it was told that an offset is not in it.
const OUT_OF_RANGE: Duration = Duration::from_secs(2);

/// A consumer of a program, with what the interpreter must know to await it.
pub(super) struct Reader {
    pub(super) consumer: Arc<dyn Consumer>,
    pub(super) spec: ConsumerSpec,
    /// What it has subscribed to.
    pub(super) subscription: Option<BTreeSet<TopicSlot>>,
    /// Where partitions go on that have delivered nothing since they began or were sought.
    pub(super) starts: BTreeMap<TopicPartition, Start>,
    /// Numbers that are out of range, of paused partitions: that shows when they are resumed.
    unfetched: BTreeMap<TopicPartition, Offset>,
    /// Errors about partitions that came while the group was not at rest.
    pub(super) late: BTreeMap<TopicPartition, Fault>,
    /// Errors that have not been read when their partition was sought or assigned anew. Whether
    /// they are read at all is a matter of timing.
    pub(super) stale: BTreeSet<(TopicPartition, ErrorKind)>,
    /// Partitions that ended with an error, which is told once.
    pub(super) failed: BTreeSet<TopicPartition>,
    /// What the program paused; the interpreter pauses more while a group rebalances.
    pub(super) paused: BTreeSet<TopicPartition>,
    /// What it was told of as missing when it subscribed last.
    pub(super) reported: BTreeSet<Vec<TopicSlot>>,
    pub(super) is_closed: bool,
}

/// Where a partition begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Start {
    At(Offset),
    /// Nowhere: the partition does not exist, or `auto.offset.reset=none` has nothing to go by. The
    /// next poll says so with this error.
    Nowhere(ErrorKind),
    /// The committed offset, which an open transaction is about to change: the partition waits for
    /// its end.
    Unstable,
}

impl Reader {
    fn new(consumer: Arc<dyn Consumer>, spec: ConsumerSpec) -> Self {
        Self {
            consumer,
            spec,
            subscription: None,
            starts: BTreeMap::new(),
            unfetched: BTreeMap::new(),
            late: BTreeMap::new(),
            stale: BTreeSet::new(),
            failed: BTreeSet::new(),
            paused: BTreeSet::new(),
            reported: BTreeSet::new(),
            is_closed: false,
        }
    }

    /// The partitions that are assigned, with position and pause.
    pub(super) fn held(&self, names: &Names) -> Vec<Held> {
        let paused = self.consumer.paused();
        let held = self.consumer.assignment().into_iter().filter_map(|place| {
            let position = self.consumer.position(&place).ok().flatten();
            Some(Held(names.place_of(&place)?, position, paused.contains(&place)))
        });
        held.collect()
    }

    /// Forgets what was known of an assignment that is gone.
    pub(super) fn forget(&mut self) {
        self.subscription = None;
        for place in self.starts.keys().cloned().collect::<Vec<_>>() {
            self.outdate(&place);
        }
        self.late.clear();
        self.failed.clear();
        self.paused.clear();
    }

    /// Forgets where a partition was to begin.
    pub(super) fn outdate(&mut self, place: &TopicPartition) {
        let was_told = self.failed.remove(place);
        self.unfetched.remove(place);
        self.late.remove(place);
        if let Some(Start::Nowhere(kind)) = self.starts.remove(place)
            && !was_told
        {
            self.stale.insert((place.clone(), kind));
        }
    }

    /// Whether an error is about a partition that the consumer still has, or about none, and still
    /// means something.
    pub(super) fn concerns(&self, error: &Error) -> bool {
        let partition = error.topic_partition().filter(|partition| partition.partition >= 0);
        partition.is_none_or(|partition| {
            self.may_concern(partition) && !self.is_stale(partition, error.kind())
        })
    }

    /// Whether an error about a partition may mean something. One that comes after its partition is
    /// gone could have come before, too; and one that was told may come again.
    pub(super) fn may_concern(&self, partition: &TopicPartition) -> bool {
        self.consumer.assignment().contains(partition) && !self.failed.contains(partition)
    }

    /// Forgets late errors about partitions that begin somewhere else now.
    pub(super) fn forget_stale(&mut self) {
        let mut late = std::mem::take(&mut self.late);
        late.retain(|partition, fault| !self.is_stale(partition, fault.kind));
        self.late = late;
    }

    fn is_stale(&self, partition: &TopicPartition, kind: ErrorKind) -> bool {
        let expected = self.starts.get(partition) == Some(&Start::Nowhere(kind));
        !expected && self.stale.contains(&(partition.clone(), kind))
    }

    /// Finds out where partitions begin, and tells after how long the consumer knows it too.
    ///
    /// A real consumer looks up the end, and falls back to it or to the start, in the background
    /// and tells nobody; records that come before it has done so would be read or not.
    pub(super) async fn find_starts(&mut self, starts: &[(TopicPartition, StartAt)]) -> Duration {
        let mut known_after = Duration::ZERO;
        for (place, start) in starts {
            self.unfetched.remove(place);
            let found = self.find_start(place, *start).await;
            let (found, after) =
                found.unwrap_or_else(|error| (Start::Nowhere(error.kind()), Duration::ZERO));
            known_after = known_after.max(after);
            self.starts.insert(place.clone(), found);
        }
        // librdkafka asks for all committed offsets at once, and for all again.
        let is_unstable = |place: &TopicPartition| self.starts.get(place) == Some(&Start::Unstable);
        if starts.iter().any(|(place, _)| is_unstable(place)) {
            for (place, _) in starts.iter().filter(|(_, start)| *start == StartAt::Committed) {
                self.starts.insert(place.clone(), Start::Unstable);
            }
        }
        known_after
    }

    /// Finds the starts of partitions again that waited for the end of a transaction.
    pub(super) async fn find_unstable(&mut self) -> Duration {
        let unstable = self.starts.iter().filter(|(_, start)| **start == Start::Unstable);
        let unstable: Vec<_> =
            unstable.map(|(place, _)| (place.clone(), StartAt::Committed)).collect();
        let known_after = self.find_starts(&unstable).await;
        // The committed offset itself is only asked for again after a while.
        if unstable.is_empty() { known_after } else { known_after + LOOK_UP }
    }

    /// Where a partition begins, and after how long the consumer knows it.
    async fn find_start(
        &mut self,
        place: &TopicPartition,
        start: StartAt,
    ) -> Result<(Start, Duration)> {
        let consumer = Arc::clone(&self.consumer);
        // The questions go the way that the consumer's own look-ups go.
        let committed = match (start, self.spec.group) {
            (StartAt::Committed, Some(_)) => {
                match consumer.committed(std::slice::from_ref(place)).await {
                    Ok(mut committed) => committed.pop().flatten(),
                    Err(error) if error.kind() == ErrorKind::TimedOut => {
                        return Ok((Start::Unstable, Duration::ZERO));
                    }
                    Err(error) => return Err(error),
                }
            }
            _ => None,
        };
        let ends = consumer.watermarks(place).await?;
        let offset = match start {
            StartAt::Offset(offset) => Some(offset),
            StartAt::Beginning => return Ok((Start::At(ends.low), Duration::ZERO)),
            StartAt::End => return Ok((Start::At(ends.high), LOOK_UP)),
            StartAt::Timestamp(time) => {
                let found = consumer.offsets_for_times(&[(place.clone(), time)]).await?;
                match found.first().copied().flatten() {
                    Some(found) => return Ok((Start::At(found), Duration::ZERO)),
                    None => return Ok((Start::At(ends.high), LOOK_UP)),
                }
            }
            StartAt::Committed => committed.map(|committed| committed.offset),
        };
        if let Some(offset) = offset.filter(|offset| !(ends.low..=ends.high).contains(offset))
            && self.paused.contains(place)
        {
            self.unfetched.insert(place.clone(), offset);
        }
        let after = if offset.is_some() { OUT_OF_RANGE } else { LOOK_UP };
        Ok(match (offset, self.spec.reset) {
            (Some(offset), _) if (ends.low..=ends.high).contains(&offset) => {
                (Start::At(offset), Duration::ZERO)
            }
            (None, OffsetReset::Earliest) => (Start::At(ends.low), Duration::ZERO),
            (Some(_), OffsetReset::Earliest) => (Start::At(ends.low), after),
            (_, OffsetReset::Latest) => (Start::At(ends.high), after),
            (Some(_), OffsetReset::None) => (Start::Nowhere(ErrorKind::OffsetOutOfRange), after),
            (None, OffsetReset::None) => (Start::Nowhere(ErrorKind::NoOffset), after),
        })
    }
}

impl Interpreter<'_> {
    pub(super) async fn consumer(&mut self, slot: ConsumerSlot, step: &ConsumerStep) -> Outcome {
        if *step == ConsumerStep::Reopen {
            let closed = self.close_consumer(slot).await;
            self.consumers.remove(&slot);
            return match self.open_consumer(slot) {
                Ok(()) => closed,
                Err(error) => Outcome::Failed(Fault::from(&error)),
            };
        }
        if let Err(error) = self.open_consumer(slot) {
            return Outcome::Failed(Fault::from(&error));
        }
        match step {
            ConsumerStep::Assign(starts) => self.assign(slot, starts).await,
            ConsumerStep::Subscribe { topics, pattern, commit_on_revoke } => {
                self.subscribe(slot, topics, pattern, *commit_on_revoke).await
            }
            ConsumerStep::Unsubscribe => self.unsubscribe(slot).await,
            ConsumerStep::Close | ConsumerStep::Reopen => self.close_consumer(slot).await,
            ConsumerStep::Read => self.read(slot, None).await,
            ConsumerStep::Take(records) => self.read(slot, Some(*records)).await,
            ConsumerStep::Seek(place, to) => self.seek(slot, *place, *to).await,
            ConsumerStep::Pause(places) => self.pause(slot, places, true),
            ConsumerStep::Resume(places) => self.resume(slot, places).await,
            _ => match self.consumers.get(&slot) {
                Some(reader) => self.ask(reader, step).await,
                // It was opened above.
                None => Outcome::Overdue,
            },
        }
    }

    pub(super) fn open_consumer(&mut self, slot: ConsumerSlot) -> Result<()> {
        if self.consumers.contains_key(&slot) {
            return Ok(());
        }
        let spec = self.program.consumer(slot);
        let consumer = self.bus.consumer(consumer_config(slot, &spec, &self.names)?)?;
        self.consumers.insert(slot, Reader::new(consumer, spec));
        Ok(())
    }

    async fn assign(&mut self, slot: ConsumerSlot, starts: &[(Place, StartAt)]) -> Outcome {
        let starts: Vec<_> =
            starts.iter().map(|(place, start)| (self.names.place(*place), *start)).collect();
        let Some(reader) = self.consumers.get_mut(&slot) else { return Outcome::Overdue };
        let result = reader.consumer.assign(&starts);
        if let Err(error) = result {
            return Outcome::Failed(Fault::from(&error));
        }
        let left = reader.subscription.is_some().then_some(reader.spec.group).flatten();
        reader.forget();
        // Leaving may commit, and where the partitions begin is asked for after that.
        let outcome = match left {
            Some(group) => Outcome::Rebalanced(self.settle(group, None, false).await),
            None => Outcome::Done,
        };
        let Some(reader) = self.consumers.get_mut(&slot) else { return Outcome::Overdue };
        let known_after = reader.find_starts(&starts).await;
        tokio::time::sleep(known_after).await;
        outcome
    }

    async fn seek(&mut self, slot: ConsumerSlot, place: Place, to: StartAt) -> Outcome {
        let place = self.names.place(place);
        let Some(reader) = self.consumers.get_mut(&slot) else { return Outcome::Overdue };
        let sought = reader.consumer.seek(&place, to).await;
        // Where it is now; whether the log has that offset shows at the next fetch.
        if let (Ok(()), Ok(Some(position))) = (&sought, reader.consumer.position(&place)) {
            reader.outdate(&place);
            let known_after = reader.find_starts(&[(place, StartAt::Offset(position))]).await;
            tokio::time::sleep(known_after).await;
        }
        Outcome::done(sought)
    }

    /// Partitions that resume may find that their place is not in the log.
    async fn resume(&mut self, slot: ConsumerSlot, places: &[Place]) -> Outcome {
        let outcome = self.pause(slot, places, false);
        let Some(reader) = self.consumers.get_mut(&slot) else { return Outcome::Overdue };
        let is_resumed = |place: &TopicPartition| !reader.paused.contains(place);
        let unfetched = reader.unfetched.iter().filter(|(place, _)| is_resumed(place));
        let unfetched: Vec<_> =
            unfetched.map(|(place, at)| (place.clone(), StartAt::Offset(*at))).collect();
        let known_after = reader.find_starts(&unfetched).await;
        tokio::time::sleep(known_after).await;
        outcome
    }

    fn pause(&mut self, slot: ConsumerSlot, places: &[Place], pause: bool) -> Outcome {
        let places: Vec<_> = places.iter().map(|place| self.names.place(*place)).collect();
        let Some(reader) = self.consumers.get_mut(&slot) else { return Outcome::Overdue };
        let consumer = &reader.consumer;
        let result = if pause { consumer.pause(&places) } else { consumer.resume(&places) };
        if result.is_ok() {
            for place in places {
                if pause {
                    reader.paused.insert(place);
                } else {
                    reader.paused.remove(&place);
                }
            }
        }
        Outcome::done(result)
    }

    /// Steps that change nothing that the interpreter must know.
    async fn ask(&self, reader: &Reader, step: &ConsumerStep) -> Outcome {
        let (consumer, names) = (&reader.consumer, &self.names);
        match step {
            ConsumerStep::Commit(offsets) => {
                let offsets: Vec<_> = offsets
                    .iter()
                    .map(|(place, offset, metadata)| {
                        let metadata = metadata.clone();
                        (names.place(*place), OffsetAndMetadata { offset: *offset, metadata })
                    })
                    .collect();
                Outcome::done(consumer.commit(&offsets).await)
            }
            ConsumerStep::CommitPositions => Outcome::done(consumer.commit_positions().await),
            ConsumerStep::Store(offsets) => {
                let offsets = offsets.iter().map(|(place, offset)| (names.place(*place), *offset));
                Outcome::done(consumer.store_offsets(&offsets.collect::<Vec<_>>()))
            }
            ConsumerStep::Committed(places) => self.committed(reader, places).await,
            ConsumerStep::Position(place) => {
                Outcome::of(consumer.position(&names.place(*place)), Outcome::Position)
            }
            ConsumerStep::Watermarks(place) => {
                let place = names.place(*place);
                Outcome::of(consumer.watermarks(&place).await, |ends| {
                    Outcome::Watermarks(ends.low, ends.high)
                })
            }
            ConsumerStep::OffsetsForTimes(times) => {
                let asked: Vec<_> = times
                    .iter()
                    .map(|(place, time)| (names.place(*place), Timestamp::from_millis(*time)))
                    .collect();
                Outcome::of(consumer.offsets_for_times(&asked).await, |offsets| {
                    Outcome::Offsets(times.iter().map(|(at, _)| *at).zip(offsets).collect())
                })
            }
            ConsumerStep::Membership => {
                Outcome::Membership(consumer.group_metadata().map(|member| Membership {
                    group: names.group_of(&member.group_id),
                    is_named: !member.member_id.is_empty(),
                    is_member: member.generation >= 0,
                    instance: member.group_instance_id,
                }))
            }
            // The others are told before; these are all that is left.
            _ => Outcome::Positions(reader.held(names)),
        }
    }

    async fn committed(&self, reader: &Reader, places: &[Place]) -> Outcome {
        let asked: Vec<_> = places.iter().map(|place| self.names.place(*place)).collect();
        Outcome::of(reader.consumer.committed(&asked).await, |committed| {
            let committed = committed.into_iter().map(|c| c.map(|c| (c.offset, c.metadata)));
            Outcome::Committed(places.iter().copied().zip(committed).collect())
        })
    }
}

fn consumer_config(
    slot: ConsumerSlot,
    spec: &ConsumerSpec,
    names: &Names,
) -> Result<ConsumerConfig> {
    const LONGER_THAN_A_PROGRAM: Duration = Duration::from_hours(1);

    let mut config = ConsumerConfig {
        // The assignors sort members by their ids, which begin with it.
        client_id: Some(slot.to_string()),
        group_id: spec.group.map(|group| names.group(group)),
        group_instance_id: spec.is_static.then(|| slot.to_string()),
        assignors: vec![spec.assignor],
        auto_offset_reset: spec.reset,
        isolation_level: spec.isolation,
        enable_auto_commit: spec.auto_commit,
        auto_commit_interval: LONGER_THAN_A_PROGRAM,
        enable_auto_offset_store: !spec.store_by_hand,
        max_poll_records: if spec.one_record_per_poll { 1 } else { 500 },
        // A member learns of a rebalance by a heartbeat.
        heartbeat_interval: Duration::from_millis(100),
        fetch_max_wait: FETCH_WAIT,
        ..Default::default()
    };
    for (name, value) in &spec.properties {
        config.set(name, value)?;
    }
    Ok(config)
}

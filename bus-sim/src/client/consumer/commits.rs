//! Commits: one request at a time, in the order of the calls, so that an older commit can never
//! overwrite a newer one. By `commit.max.in.flight` several at a time, each on a connection of its
//! own: then they come in any order.

use std::collections::VecDeque;
use std::time::Duration;

use bus_core::{
    Commit, CommitSender, Error, ErrorKind, Offset, OffsetAndMetadata, Operation, Recovery,
    TopicPartition,
};

use crate::client::connections::Link;
use crate::client::{ClientTimer, Completion};
use crate::mutation::Mutation;
use crate::node::{Effects, Name, Timer};
use crate::protocol::{Request, offset_commit};
use crate::time::SimTime;

use super::{Consumer, Token};

/// librdkafka's pause before it tries a commit again.
const COMMIT_RETRY: Duration = Duration::from_millis(100);

/// The commits of a consumer.
#[derive(Debug, Default)]
pub(super) struct Commits {
    /// In the order of the calls; the first ones may be in flight.
    queue: VecDeque<Call>,
    next_id: u64,
    /// The member joins when there are no more: librdkafka does not join while a commit of what it
    /// gives up is under way.
    pub(super) holds_join: bool,
}

#[derive(Debug)]
struct Call {
    id: u64,
    /// The connection that it is in flight on.
    slot: Option<u8>,
    partitions: Vec<offset_commit::PartitionRequest>,
    /// Who waits for it; nobody waits for an auto commit.
    sender: Option<CommitSender>,
    deadline: SimTime,
    /// Generation and member at the time of the call: a commit never borrows a newer one.
    generation: i32,
    member_id: Name,
    /// An attempt was not answered: whatever is answered to the next one, it may have counted.
    is_possibly_committed: bool,
}

impl Commits {
    pub(super) fn is_idle(&self) -> bool {
        self.queue.is_empty()
    }

    /// The first call that is not in flight, of those that may be.
    fn first_waiting(&self, max_in_flight: u8) -> Option<&Call> {
        let mut first = self.queue.iter().take(usize::from(max_in_flight));
        first.find(|call| call.slot.is_none())
    }

    fn find(&mut self, id: u64) -> Option<&mut Call> {
        self.queue.iter_mut().find(|call| call.id == id)
    }

    /// A connection that no call is in flight on.
    fn free_slot(&self) -> u8 {
        let is_free = |slot: &u8| self.queue.iter().all(|call| call.slot != Some(*slot));
        (0..=u8::MAX).find(is_free).unwrap_or(u8::MAX)
    }
}

impl Consumer {
    /// Commits offsets that the application names.
    pub(crate) fn commit(
        &mut self,
        now: SimTime,
        offsets: &[(TopicPartition, OffsetAndMetadata)],
        effects: &mut Effects,
    ) -> Commit {
        if let Err(error) = self.check_commit(offsets) {
            return Commit::done(Err(error.with_operation(Operation::Commit)));
        }
        if offsets.is_empty() {
            return Commit::done(Ok(()));
        }
        let (sender, commit) = Commit::channel();
        let partitions =
            offsets.iter().map(|(topic_partition, offset)| offset_commit::PartitionRequest {
                topic_partition: topic_partition.clone(),
                offset: offset.offset,
                leader_epoch: self.epoch_of(topic_partition, offset.offset),
                metadata: offset.metadata.as_str().into(),
            });
        let mut partitions = partitions.collect::<Vec<_>>();
        // Of several errors the first one is told, and librdkafka sorts before it asks.
        partitions.sort_by(|a, b| a.topic_partition.cmp(&b.topic_partition));
        self.enqueue_commit(now, partitions, Some(sender), effects);
        commit
    }

    /// Sends the next commit, if the coordinator is known and none is in flight.
    pub(super) fn pump_commits(&mut self, now: SimTime, effects: &mut Effects) {
        let max_in_flight = self.policy.commit_max_in_flight;
        while let Some(call) = self.commits.first_waiting(max_in_flight)
            && call.deadline <= now
        {
            let (id, message) = (call.id, "no coordinator answered in time");
            self.finish_commit(id, Err(Error::new(ErrorKind::TimedOut, message)), effects);
        }
        if self.commits.is_idle() && std::mem::take(&mut self.commits.holds_join) {
            self.join_if_out(now, effects);
        }
        while let Some(call) = self.commits.first_waiting(max_in_flight) {
            let Some(member) = &self.member else { return };
            let Some(coordinator) = member.coordinator else {
                return self.want_coordinator(now, effects);
            };
            let request = Request::OffsetCommit(offset_commit::Request {
                group_id: member.group_id.clone(),
                generation: call.generation,
                member_id: call.member_id.clone(),
                group_instance_id: member.group_instance_id.clone(),
                partitions: call.partitions.clone(),
            });
            let (id, deadline, slot) = (call.id, call.deadline, self.commits.free_slot());
            if let Some(call) = self.commits.find(id) {
                call.slot = Some(slot);
            }
            let link = Link::commit(coordinator, slot);
            self.connections.send(now, link, Token::Commit(id), request, deadline, effects);
        }
    }

    pub(super) fn commit_answered(
        &mut self,
        now: SimTime,
        id: u64,
        partitions: &[(TopicPartition, Option<ErrorKind>)],
        effects: &mut Effects,
    ) {
        if let Some(call) = self.commits.find(id) {
            call.slot = None;
        }
        let refused = partitions.iter().find_map(|(tp, error)| Some((tp, (*error)?)));
        match refused {
            None => {
                self.note_committed(id);
                self.finish_commit(id, Ok(()), effects);
            }
            Some((_, kind)) if is_retried(kind) => {
                // Perhaps it was written and not replicated in time: that is no different error.
                self.may_have_counted(id);
                self.note_coordinator_error(now, kind, effects);
                self.retry_commit(now, effects);
            }
            Some((topic_partition, kind)) => {
                if kind == ErrorKind::FencedInstanceId {
                    self.fenced(effects);
                }
                let error = Error::new(kind, "").with_topic_partition(topic_partition.clone());
                self.finish_commit(id, Err(error), effects);
            }
        }
        self.pump_commits(now, effects);
    }

    pub(super) fn commit_unanswered(&mut self, now: SimTime, id: u64, effects: &mut Effects) {
        if self.mutation == Some(Mutation::CommitNeverRepeated) {
            return;
        }
        if let Some(call) = self.commits.find(id) {
            call.slot = None;
        }
        self.may_have_counted(id);
        self.coordinator_lost(now, effects);
        self.retry_commit(now, effects);
    }

    pub(super) fn check_commit(
        &self,
        offsets: &[(TopicPartition, OffsetAndMetadata)],
    ) -> Result<(), Error> {
        self.check_open()?;
        if self.member.is_none() {
            return Err(Error::new(ErrorKind::InvalidConfig, "to commit, set group.id"));
        }
        for (topic_partition, offset) in offsets {
            topic_partition.validate()?;
            bus_core::consumer::validate_offset(topic_partition, offset.offset)?;
        }
        Ok(())
    }

    fn epoch_of(&self, topic_partition: &TopicPartition, offset: Offset) -> Option<i32> {
        let partition = self.partitions.get(topic_partition)?;
        partition.leader_epoch.filter(|_| partition.position == Some(offset))
    }

    pub(super) fn enqueue_commit(
        &mut self,
        now: SimTime,
        partitions: Vec<offset_commit::PartitionRequest>,
        sender: Option<CommitSender>,
        effects: &mut Effects,
    ) {
        let Some(member) = &self.member else { return };
        let (generation, member_id) = if self.subscription.is_some() {
            (member.generation, member.member_id.clone())
        } else {
            // librdkafka forgets its member id when it leaves, but not the generation, so that a
            // former member cannot commit on its own.
            (member.last_generation, Name::from(""))
        };
        let deadline = self.connections.deadline(now);
        let id = self.commits.next_id;
        self.commits.next_id += 1;
        self.commits.queue.push_back(Call {
            id,
            slot: None,
            partitions,
            sender,
            deadline,
            generation,
            member_id,
            is_possibly_committed: false,
        });
        self.pump_commits(now, effects);
    }

    /// Notes that a commit has perhaps been written.
    fn may_have_counted(&mut self, id: u64) {
        if let Some(call) = self.commits.find(id) {
            call.is_possibly_committed = true;
        }
    }

    /// Notes what a commit has committed.
    fn note_committed(&mut self, id: u64) {
        let Some(call) = self.commits.find(id) else { return };
        for committed in &call.partitions {
            if let Some(partition) = self.partitions.get_mut(&committed.topic_partition) {
                partition.committed = Some(committed.offset);
            }
        }
    }

    fn retry_commit(&mut self, now: SimTime, effects: &mut Effects) {
        effects.set_timer(Timer::Client(ClientTimer::CommitRetry), now + COMMIT_RETRY);
    }

    fn finish_commit(&mut self, id: u64, outcome: Result<(), Error>, effects: &mut Effects) {
        let group_id = self.member.as_ref().map(|member| member.group_id.to_string());
        let place = self.commits.queue.iter().position(|call| call.id == id);
        let Some(call) = place.and_then(|at| self.commits.queue.remove(at)) else { return };
        if let Some(sender) = call.sender {
            let outcome = outcome.map_err(|error| {
                let error = if call.is_possibly_committed { error.indeterminate() } else { error };
                error.with_operation(Operation::Commit).with_group_id(group_id.unwrap_or_default())
            });
            effects.complete(Completion::Committed(sender, outcome));
        }
    }
}

/// Whether librdkafka tries a refused commit again by itself. A partition that does not exist is
/// the application's to know about.
fn is_retried(kind: ErrorKind) -> bool {
    kind.recovery() == Recovery::Retry && kind != ErrorKind::UnknownTopicOrPartition
}

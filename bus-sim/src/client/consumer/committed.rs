//! The call for committed offsets. With `read_committed` an offset that an open transaction is
//! about to change is asked for again, until the transaction ends or the call runs out of time
//! (KIP-447).

use std::time::Duration;

use bus_core::{
    Error, ErrorKind, IsolationLevel, OffsetAndMetadata, Operation, Recovery, TopicPartition,
};

use crate::client::connections::Link;
use crate::client::{ClientTimer, Reply, backoff};
use crate::node::{Effects, Timer};
use crate::protocol::offset_fetch::PartitionResponse;
use crate::protocol::{Request, offset_fetch};
use crate::time::SimTime;

use super::{Consumer, Token};

/// How long a call waits: what `bus-kafka` passes to librdkafka.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);
/// librdkafka's `retry.backoff.ms` and `retry.backoff.max.ms`.
const RETRY: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(1);

/// A call for committed offsets.
#[derive(Debug)]
pub(crate) struct CommittedCall {
    partitions: Vec<TopicPartition>,
    reply: Reply<Vec<Option<OffsetAndMetadata>>>,
    deadline: SimTime,
    ask_at: SimTime,
    attempts: u32,
}

impl CommittedCall {
    pub(super) fn fail(self, error: Error, effects: &mut Effects) {
        self.reply.send(Err(error.with_operation(Operation::Committed)), effects);
    }
}

impl Consumer {
    /// Asks the coordinator for committed offsets.
    pub(crate) fn committed(
        &mut self,
        now: SimTime,
        partitions: Vec<TopicPartition>,
        reply: Reply<Vec<Option<OffsetAndMetadata>>>,
        effects: &mut Effects,
    ) {
        let deadline = now + CALL_TIMEOUT;
        let call = CommittedCall { partitions, reply, deadline, ask_at: now, attempts: 0 };
        let checked = self.check_commit(&[]);
        let checked =
            checked.and_then(|()| call.partitions.iter().try_for_each(TopicPartition::validate));
        if let Err(error) = checked {
            return call.fail(error, effects);
        }
        self.committed_calls.push(call);
        self.pump_committed_calls(now, effects);
    }

    /// Whether committed offsets that a transaction is about to change are waited for (KIP-447).
    pub(super) fn requires_stable(&self) -> bool {
        self.config.isolation_level == IsolationLevel::ReadCommitted
            && self.policy.offset_fetch_requires_stable
    }

    pub(super) fn pump_committed_calls(&mut self, now: SimTime, effects: &mut Effects) {
        if self.committed_calls.is_empty() {
            return;
        }
        let Some(member) = &self.member else { return };
        let Some(coordinator) = member.coordinator else {
            return self.want_coordinator(now, effects);
        };
        let group_id = member.group_id.clone();
        let (due, waiting) = std::mem::take(&mut self.committed_calls)
            .into_iter()
            .partition::<Vec<_>, _>(|call| call.ask_at <= now);
        self.committed_calls = waiting;
        for call in due {
            let request = Request::OffsetFetch(offset_fetch::Request {
                group_id: group_id.clone(),
                partitions: Some(call.partitions.clone()),
                require_stable: self.requires_stable(),
            });
            let token = Token::Committed(call);
            let link = Link::coordinator(coordinator);
            self.connections.send(
                now,
                link,
                token,
                request,
                self.connections.deadline(now),
                effects,
            );
        }
    }

    pub(super) fn committed_answered(
        &mut self,
        now: SimTime,
        call: CommittedCall,
        result: Result<Vec<PartitionResponse>, ErrorKind>,
        effects: &mut Effects,
    ) {
        let answers = match result {
            Ok(answers) => answers,
            Err(kind) if kind.recovery() == Recovery::Retry => {
                self.note_coordinator_error(now, kind, effects);
                return self.ask_committed_again(now, call, effects);
            }
            Err(kind) => return call.fail(kind.into(), effects),
        };
        let is_unstable = |answer: &PartitionResponse| {
            answer.result.as_ref().is_err_and(|kind| *kind == ErrorKind::UnstableOffsetCommit)
        };
        if answers.iter().any(is_unstable) {
            return self.ask_committed_again(now, call, effects);
        }
        let offset_of = |topic_partition: &TopicPartition| {
            let answer = answers.iter().find(|answer| answer.topic_partition == *topic_partition);
            match answer.map(|answer| &answer.result) {
                Some(Ok(Some(committed))) => Ok(Some(OffsetAndMetadata {
                    offset: committed.offset,
                    metadata: committed.metadata.to_string(),
                })),
                Some(Ok(None)) | None => Ok(None),
                Some(Err(kind)) => Err(Error::from(*kind)),
            }
        };
        let CommittedCall { partitions, reply, .. } = call;
        reply.send(partitions.iter().map(offset_of).collect(), effects);
    }

    /// There was no answer, or none that counts.
    pub(super) fn ask_committed_again(
        &mut self,
        now: SimTime,
        mut call: CommittedCall,
        effects: &mut Effects,
    ) {
        if call.deadline <= now {
            let message = "the committed offsets were not told in time";
            return call.fail(Error::new(ErrorKind::TimedOut, message), effects);
        }
        call.ask_at = (now + backoff(RETRY, RETRY_MAX, call.attempts)).min(call.deadline);
        call.attempts += 1;
        let earliest = self.committed_calls.iter().map(|other| other.ask_at).min();
        if earliest.is_none_or(|earliest| call.ask_at < earliest || earliest <= now) {
            effects.set_timer(Timer::Client(ClientTimer::CommittedRetry), call.ask_at);
        }
        self.committed_calls.push(call);
    }

    /// The timer of the first call that is due has fired.
    pub(super) fn committed_retry(&mut self, now: SimTime, effects: &mut Effects) {
        self.pump_committed_calls(now, effects);
        let next = self.committed_calls.iter().map(|call| call.ask_at).filter(|at| *at > now);
        if let Some(at) = next.min() {
            effects.set_timer(Timer::Client(ClientTimer::CommittedRetry), at);
        }
    }
}

//! Questions to the leaders: watermarks, and offsets by time.

use std::collections::BTreeSet;

use bus_core::{Error, ErrorKind, Offset, Operation, Timestamp, Topic, TopicPartition, Watermarks};

use crate::client::Reply;
use crate::client::connections::{Link, SOCKET_TIMEOUT};
use crate::node::Effects;
use crate::protocol::list_offsets::OffsetSpec;
use crate::protocol::{Request, list_offsets};
use crate::time::SimTime;

use super::{Consumer, Token, closed};

/// A call that asks for offsets, one part per offset.
#[derive(Debug)]
pub(super) struct Query {
    parts: Vec<Part>,
    reply: QueryReply,
    deadline: SimTime,
}

#[derive(Debug)]
struct Part {
    topic_partition: TopicPartition,
    spec: OffsetSpec,
    state: PartState,
}

#[derive(Debug, PartialEq, Eq)]
enum PartState {
    Waiting,
    /// The leader that was asked is none: fresh metadata is awaited.
    Stale,
    Asked,
    Answered(Option<Offset>),
}

#[derive(Debug)]
enum QueryReply {
    Watermarks(Reply<Watermarks>),
    Offsets(Reply<Vec<Option<Offset>>>),
}

impl Query {
    /// The topics that it asks about.
    pub(super) fn topics(&self) -> impl Iterator<Item = Topic> {
        self.parts.iter().map(|part| part.topic_partition.topic.clone())
    }

    /// Ends the call with an error.
    pub(super) fn fail(self, error: Error, effects: &mut Effects) {
        match self.reply {
            QueryReply::Watermarks(reply) => reply.send(Err(error), effects),
            QueryReply::Offsets(reply) => reply.send(Err(error), effects),
        }
    }

    /// There is fresh metadata.
    pub(super) fn ask_again(&mut self) {
        for part in self.parts.iter_mut().filter(|part| part.state == PartState::Stale) {
            part.state = PartState::Waiting;
        }
    }

    fn is_answered(&self) -> bool {
        self.parts.iter().all(|part| matches!(part.state, PartState::Answered(_)))
    }

    fn answer(self, effects: &mut Effects) {
        let offsets = self.parts.into_iter().map(|part| match part.state {
            PartState::Answered(offset) => offset,
            PartState::Waiting | PartState::Stale | PartState::Asked => None,
        });
        let offsets = offsets.collect::<Vec<_>>();
        match self.reply {
            QueryReply::Watermarks(reply) => {
                let end = |index: usize| offsets.get(index).copied().flatten().unwrap_or(0);
                reply.send(Ok(Watermarks { low: end(0), high: end(1) }), effects);
            }
            QueryReply::Offsets(reply) => reply.send(Ok(offsets), effects),
        }
    }
}

impl Consumer {
    /// Asks for both ends of a partition.
    pub(crate) fn watermarks(
        &mut self,
        now: SimTime,
        topic_partition: &TopicPartition,
        reply: Reply<Watermarks>,
        effects: &mut Effects,
    ) {
        let parts =
            [OffsetSpec::Earliest, OffsetSpec::Latest].map(|spec| (topic_partition.clone(), spec));
        self.ask(now, parts.into(), QueryReply::Watermarks(reply), effects);
    }

    /// Asks for the first offset of each partition that is not older than a time.
    pub(crate) fn offsets_for_times(
        &mut self,
        now: SimTime,
        times: &[(TopicPartition, Timestamp)],
        reply: Reply<Vec<Option<Offset>>>,
        effects: &mut Effects,
    ) {
        let part =
            |(tp, time): &(TopicPartition, Timestamp)| (tp.clone(), OffsetSpec::Timestamp(*time));
        let parts = times.iter().map(part).collect();
        self.ask(now, parts, QueryReply::Offsets(reply), effects);
    }

    fn ask(
        &mut self,
        now: SimTime,
        parts: Vec<(TopicPartition, OffsetSpec)>,
        reply: QueryReply,
        effects: &mut Effects,
    ) {
        let part =
            |(topic_partition, spec)| Part { topic_partition, spec, state: PartState::Waiting };
        let parts = parts.into_iter().map(part).collect();
        let query = Query { parts, reply, deadline: now + SOCKET_TIMEOUT };
        if self.closing.is_some() {
            return query.fail(closed(), effects);
        }
        let checked = query.parts.iter().try_for_each(|part| part.topic_partition.validate());
        if let Err(error) = checked {
            return query.fail(error, effects);
        }
        if query.is_answered() {
            return query.answer(effects);
        }
        let id = self.next_query;
        self.next_query += 1;
        self.queries.insert(id, query);
        self.pump_queries(now, effects);
    }

    /// Asks the leaders that are known; for the others metadata is asked for.
    pub(super) fn pump_queries(&mut self, now: SimTime, effects: &mut Effects) {
        let mut is_unknown = false;
        let mut asks = Vec::new();
        for (id, query) in &mut self.queries {
            for (index, part) in query.parts.iter_mut().enumerate() {
                if part.state != PartState::Waiting {
                    continue;
                }
                let Some((leader, epoch)) = self.metadata.leader(&part.topic_partition) else {
                    is_unknown = true;
                    continue;
                };
                part.state = PartState::Asked;
                let request = Request::ListOffsets(list_offsets::Request {
                    replica: None,
                    isolation_level: self.config.isolation_level,
                    partitions: vec![list_offsets::PartitionRequest {
                        topic_partition: part.topic_partition.clone(),
                        current_leader_epoch: Some(epoch),
                        spec: part.spec,
                    }],
                });
                asks.push((leader, Token::Query { query: *id, part: index }, request));
            }
        }
        for (leader, token, request) in asks {
            let deadline = self.connections.deadline(now);
            self.connections.send(now, Link::data(leader), token, request, deadline, effects);
        }
        if is_unknown {
            self.want_metadata(now, effects);
        }
    }

    pub(super) fn query_answered(
        &mut self,
        now: SimTime,
        id: u64,
        part: usize,
        result: Result<Option<Offset>, ErrorKind>,
        effects: &mut Effects,
    ) {
        let Some(query) = self.queries.get_mut(&id) else { return };
        match result {
            Ok(offset) => {
                query.parts[part].state = PartState::Answered(offset);
                if query.is_answered()
                    && let Some(query) = self.queries.remove(&id)
                {
                    query.answer(effects);
                }
            }
            Err(kind) if kind.recovery() == bus_core::Recovery::Retry && now < query.deadline => {
                query.parts[part].state = PartState::Stale;
                self.want_metadata_later(now, effects);
            }
            Err(kind) => {
                let error = Error::new(kind, "")
                    .with_operation(Operation::Watermarks)
                    .with_topic_partition(query.parts[part].topic_partition.clone());
                if let Some(query) = self.queries.remove(&id) {
                    query.fail(error, effects);
                }
            }
        }
    }

    /// Ends the calls about topics and partitions that do not exist.
    pub(super) fn fail_queries_for(&mut self, missing: &BTreeSet<Topic>, effects: &mut Effects) {
        let metadata = &self.metadata;
        let is_missing = |topic_partition: &TopicPartition| {
            let TopicPartition { topic, partition } = topic_partition;
            let count = metadata.partitions(topic);
            missing.contains(topic) || count.is_some_and(|count| !(0..count).contains(partition))
        };
        let failed = self.queries.iter().filter_map(|(id, query)| {
            let part = query.parts.iter().find(|part| is_missing(&part.topic_partition))?;
            Some((*id, part.topic_partition.clone()))
        });
        for (id, topic_partition) in failed.collect::<Vec<_>>() {
            let error = Error::new(ErrorKind::UnknownTopicOrPartition, "no such partition")
                .with_topic_partition(topic_partition);
            if let Some(query) = self.queries.remove(&id) {
                query.fail(error, effects);
            }
        }
    }
}

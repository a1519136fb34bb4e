//! CreateTopics, DeleteTopics, CreatePartitions at a broker: forwarded to the controller.
//!
//! - The response goes out once this broker's own image shows what was done.
//! - Without a connection to the controller a request waits for one, and is sent again on the next,
//!   as in Kafka; so it may be done twice.
//!
//! Simplified: given up after 30 s with `RequestTimedOut`. See `docs/fidelity.md`.

use std::time::Duration;

use bus_core::{ErrorKind, Topic, TopicPartition};

use super::connections::Caller;
use super::session::schedule;
use super::{Broker, BrokerTimer};
use crate::node::{ConnectionId, Effects, Timer};
use crate::protocol::topics::{TopicResponse, TopicResult};
use crate::protocol::{Request, Response};
use crate::time::SimTime;

/// A request that was forwarded to the controller.
#[derive(Debug)]
pub(super) struct Forward {
    caller: Caller,
    request: Request,
    state: ForwardState,
}

#[derive(Debug)]
enum ForwardState {
    /// It waits for a connection.
    Waiting,
    /// It waits for the controller.
    Sent,
    /// It waits for the image to show what was done.
    Done(Response),
}

impl Forward {
    /// The connection that it was sent on is gone.
    pub(super) fn not_sent(&mut self) {
        if matches!(self.state, ForwardState::Sent) {
            self.state = ForwardState::Waiting;
        }
    }
}

impl Broker {
    pub(super) fn forward(
        &mut self,
        now: SimTime,
        caller: Caller,
        request: Request,
        effects: &mut Effects,
    ) {
        let connection = caller.connection;
        schedule(BrokerTimer::ForwardExpires { connection }, now + FORWARD_TIMEOUT, effects);
        let forward = Forward { caller, request, state: ForwardState::Waiting };
        self.forwards.insert(connection, forward);
        self.send_forwards(effects);
    }

    /// Sends what waits for a connection to the controller.
    pub(super) fn send_forwards(&mut self, effects: &mut Effects) {
        for (connection, forward) in &mut self.forwards {
            if matches!(forward.state, ForwardState::Waiting)
                && self.session.forward(*connection, &forward.request, effects)
            {
                forward.state = ForwardState::Sent;
            }
        }
    }

    /// The controller answered a request of the connection `from`.
    pub(super) fn on_forwarded(
        &mut self,
        from: ConnectionId,
        response: Response,
        effects: &mut Effects,
    ) {
        if let Some(forward) = self.forwards.get_mut(&from) {
            forward.state = ForwardState::Done(response);
            self.complete_forwards(effects);
        }
    }

    /// Answers the requests whose outcome the image shows.
    pub(super) fn complete_forwards(&mut self, effects: &mut Effects) {
        let shown: Vec<_> = self
            .forwards
            .iter()
            .filter(|(_, forward)| self.is_shown(forward))
            .map(|(connection, _)| *connection)
            .collect();
        for connection in shown {
            let Some(forward) = self.forwards.remove(&connection) else { continue };
            effects.cancel_timer(Timer::Broker(BrokerTimer::ForwardExpires { connection }));
            if let ForwardState::Done(response) = forward.state {
                self.connections.respond(forward.caller, response, effects);
            }
        }
    }

    /// Whether the image shows what a request has done.
    fn is_shown(&self, forward: &Forward) -> bool {
        let ForwardState::Done(response) = &forward.state else { return false };
        let partitions =
            |topic: &Topic| self.image.topics.get(topic).map_or(0, |t| t.partitions.len());
        let is_shown = |result: &TopicResult| match &forward.request {
            _ if result.error.is_some() => true,
            Request::CreatePartitions(request) => request
                .topics
                .iter()
                .filter(|(topic, _)| *topic == result.topic)
                .all(|(topic, count)| partitions(topic) >= usize::try_from(*count).unwrap_or(0)),
            Request::DeleteTopics(_) => partitions(&result.topic) == 0,
            _ => partitions(&result.topic) > 0,
        };
        match response {
            Response::CreateTopics(TopicResponse { topics })
            | Response::DeleteTopics(TopicResponse { topics })
            | Response::CreatePartitions(TopicResponse { topics }) => topics.iter().all(is_shown),
            _ => true,
        }
    }

    /// Gives up a request that was forwarded.
    pub(super) fn expire_forward(&mut self, connection: ConnectionId, effects: &mut Effects) {
        let Some(forward) = self.forwards.remove(&connection) else { return };
        let timed_out = |topic: &Topic| {
            let error = Some((ErrorKind::RequestTimedOut, "The request timed out.".to_owned()));
            TopicResult { topic: topic.clone(), error }
        };
        let response = match (forward.state, &forward.request) {
            (ForwardState::Done(response), _) => response,
            (_, Request::CreateTopics(request)) => {
                let topics = request.topics.iter().map(|topic| timed_out(&topic.topic)).collect();
                Response::CreateTopics(TopicResponse { topics })
            }
            (_, Request::DeleteTopics(request)) => {
                let topics = request.topics.iter().map(timed_out).collect();
                Response::DeleteTopics(TopicResponse { topics })
            }
            (_, Request::CreatePartitions(request)) => {
                let topics = request.topics.iter().map(|(topic, _)| timed_out(topic)).collect();
                Response::CreatePartitions(TopicResponse { topics })
            }
            (_, other) => unreachable!("{} is not forwarded", other.api().name()),
        };
        self.connections.respond(forward.caller, response, effects);
    }

    /// Makes the replicas of a topic what the image says.
    pub(super) fn follow_topic(&mut self, now: SimTime, topic: &Topic, effects: &mut Effects) {
        let image = self.image.topics.get(topic).cloned();
        let topic_id = image.as_ref().map(|image| image.topic_id);
        let range = TopicPartition::new(topic, 0)..=TopicPartition::new(topic, i32::MAX);
        let old = self.replicas.range(range).filter(|(_, old)| Some(old.topic_id) != topic_id);
        let old: Vec<_> = old.map(|(topic_partition, _)| topic_partition.clone()).collect();
        old.iter().for_each(|topic_partition| self.remove_partition(topic_partition, effects));
        if !old.is_empty() {
            self.forget_offsets(now, topic, effects);
        }
        let Some(image) = image else { return };
        for (partition, state) in (0..).zip(&image.partitions) {
            if !state.replicas.contains(&self.id) {
                continue;
            }
            let topic_partition = TopicPartition::new(topic, partition);
            let followed = self.follow_partition(now, &topic_partition, (&image, state), effects);
            let is_new = followed.has_lead && followed.is_new_epoch;
            if *topic == self.offsets_topic {
                self.follow_coordinator(now, partition, is_new, followed.has_lead, effects);
            } else if *topic == self.transactions_topic {
                let new_epoch = is_new.then_some(state.leader_epoch);
                self.follow_transactions(now, partition, new_epoch, followed.has_lead, effects);
            }
        }
    }
}

/// `request.timeout.ms` of the broker's own client.
const FORWARD_TIMEOUT: Duration = Duration::from_secs(30);

//! Administration: one request after another, each to where it belongs: any broker, the leader of
//! a partition, or the coordinator of a group.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bus_core::{Error, ErrorKind, Operation, Recovery, TopicPartition};

use crate::client::connections::{Connections, Link, Outcome};
use crate::client::{ClientTimer, Identity, Reply};
use crate::node::{BrokerId, Effects, Input, Name, Timer};
use crate::protocol::find_coordinator::CoordinatorType;
use crate::protocol::{Request, Response, find_coordinator, metadata};
use crate::time::SimTime;

/// How long an operation may take (librdkafka's `socket.timeout.ms`, its default for admin).
const OPERATION_TIMEOUT: Duration = Duration::from_mins(1);
/// Pause before an operation is tried again.
const RETRY: Duration = Duration::from_millis(100);

/// Where a request goes.
#[derive(Clone, Debug)]
pub(crate) enum Target {
    /// Any broker.
    Any,
    /// This broker.
    Broker(BrokerId),
    /// The leader of this partition: the broker that is said to be it, and if that is none, or not
    /// known, whoever metadata says.
    Leader(Option<BrokerId>, TopicPartition),
    /// The coordinator of this group.
    Coordinator(Name),
}

/// An administration client.
#[derive(Debug)]
pub(crate) struct Admin {
    connections: Connections<Token>,
    calls: BTreeMap<u64, Call>,
    /// Calls to be tried again.
    again: VecDeque<u64>,
    next_call: u64,
}

#[derive(Debug)]
pub(crate) enum Token {
    Call(u64),
    FindLeader(u64),
    FindCoordinator(u64),
}

#[derive(Debug)]
struct Call {
    target: Target,
    request: Request,
    operation: Operation,
    reply: Reply<Response>,
    deadline: SimTime,
}

impl Admin {
    pub(crate) fn new(identity: Identity, brokers: i32) -> Self {
        Self {
            connections: Connections::new(identity, brokers),
            calls: BTreeMap::new(),
            again: VecDeque::new(),
            next_call: 0,
        }
    }

    /// Sends a request and replies with its response, once it is no retriable error.
    pub(crate) fn call(
        &mut self,
        now: SimTime,
        target: Target,
        request: Request,
        operation: Operation,
        reply: Reply<Response>,
        effects: &mut Effects,
    ) {
        let id = self.next_call;
        self.next_call += 1;
        let deadline = now + OPERATION_TIMEOUT;
        self.calls.insert(id, Call { target, request, operation, reply, deadline });
        self.send(now, id, effects);
    }

    pub(crate) fn handle(&mut self, now: SimTime, input: Input, effects: &mut Effects) {
        match self.connections.handle(now, input, effects) {
            Ok(outcomes) => {
                for outcome in outcomes {
                    self.conclude(now, outcome, effects);
                }
            }
            Err(Input::Timer(Timer::Client(ClientTimer::Retry))) => {
                for id in std::mem::take(&mut self.again) {
                    self.send(now, id, effects);
                }
            }
            Err(_) => {}
        }
    }

    /// What a call of the application waits for, if one does.
    pub(crate) fn waiting(&self) -> Option<String> {
        let call = self.calls.values().next()?;
        Some(format!("{:?} waits for an answer", call.operation))
    }

    fn conclude(&mut self, now: SimTime, outcome: Outcome<Token>, effects: &mut Effects) {
        match outcome {
            Outcome::Response(Token::Call(id), response) => {
                let error = first_error(&response);
                let is_retriable = error.is_some_and(|kind| {
                    kind.recovery() == Recovery::Retry && kind != ErrorKind::UnknownTopicOrPartition
                });
                if is_retriable {
                    self.try_again(now, id, error, effects);
                } else if let Some(call) = self.calls.remove(&id) {
                    call.reply.send(Ok(response), effects);
                }
            }
            Outcome::Response(Token::FindCoordinator(id), Response::FindCoordinator(found)) => {
                match found.result {
                    Ok(broker) => {
                        self.send_to(now, id, Some(Link::coordinator(broker)), effects);
                    }
                    Err(kind) => self.try_again(now, id, Some(kind), effects),
                }
            }
            Outcome::Response(Token::FindLeader(id), Response::Metadata(metadata)) => {
                self.found_leader(now, id, &metadata, effects);
            }
            Outcome::Response(..) | Outcome::Down => {}
            Outcome::Failed { token, .. } => {
                let (Token::Call(id) | Token::FindLeader(id) | Token::FindCoordinator(id)) = token;
                self.try_again(now, id, None, effects);
            }
        }
    }

    fn send(&mut self, now: SimTime, id: u64, effects: &mut Effects) {
        let Some(call) = self.calls.get(&id) else { return };
        match &call.target {
            Target::Any => self.send_to(now, id, None, effects),
            Target::Broker(broker) | Target::Leader(Some(broker), _) => {
                self.send_to(now, id, Some(Link::data(*broker)), effects);
            }
            Target::Leader(None, TopicPartition { topic, .. }) => {
                let topics = Some(vec![topic.clone()]);
                let request = Request::Metadata(metadata::Request { topics });
                let (token, deadline) = (Token::FindLeader(id), call.deadline);
                self.connections.send_to_any(now, &[], token, request, deadline, effects);
            }
            Target::Coordinator(group_id) => {
                let request = Request::FindCoordinator(find_coordinator::Request {
                    coordinator_type: CoordinatorType::Group,
                    key: group_id.clone(),
                });
                let (token, deadline) = (Token::FindCoordinator(id), call.deadline);
                self.connections.send_to_any(now, &[], token, request, deadline, effects);
            }
        }
    }

    fn found_leader(
        &mut self,
        now: SimTime,
        id: u64,
        response: &metadata::Response,
        effects: &mut Effects,
    ) {
        let Some(Call { target: Target::Leader(leader, place), .. }) = self.calls.get_mut(&id)
        else {
            return;
        };
        let details = response.topics.iter().find(|topic| topic.topic == place.topic);
        let details = details.and_then(|topic| topic.result.as_ref().ok());
        let index = usize::try_from(place.partition).unwrap_or(usize::MAX);
        *leader = details.and_then(|details| details.partitions.get(index)?.leader);
        match *leader {
            Some(broker) => self.send_to(now, id, Some(Link::data(broker)), effects),
            None => self.try_again(now, id, Some(ErrorKind::LeaderNotAvailable), effects),
        }
    }

    /// Sends the request of a call, to any broker if no link is given.
    fn send_to(&mut self, now: SimTime, id: u64, link: Option<Link>, effects: &mut Effects) {
        let Some(call) = self.calls.get(&id) else { return };
        let (token, request, deadline) = (Token::Call(id), call.request.clone(), call.deadline);
        match link {
            Some(link) => self.connections.send(now, link, token, request, deadline, effects),
            None => {
                self.connections.send_to_any(now, &[], token, request, deadline, effects);
            }
        }
    }

    fn try_again(
        &mut self,
        now: SimTime,
        id: u64,
        error: Option<ErrorKind>,
        effects: &mut Effects,
    ) {
        let Some(call) = self.calls.get_mut(&id) else { return };
        if let Target::Leader(leader, _) = &mut call.target {
            *leader = None;
        }
        if now + RETRY < call.deadline {
            self.again.push_back(id);
            effects.set_timer(Timer::Client(ClientTimer::Retry), now + RETRY);
        } else if let Some(call) = self.calls.remove(&id) {
            let error = match error {
                Some(kind) => Error::new(kind, "the operation did not succeed in time"),
                None => Error::new(ErrorKind::TimedOut, "no broker answered in time"),
            };
            call.reply.send(Err(error.with_operation(call.operation)), effects);
        }
    }
}

/// The first error that a response holds.
fn first_error(response: &Response) -> Option<ErrorKind> {
    match response {
        Response::CreateTopics(topics)
        | Response::DeleteTopics(topics)
        | Response::CreatePartitions(topics) => {
            topics.topics.iter().find_map(|topic| Some(topic.error.as_ref()?.0))
        }
        Response::ListGroups(groups) => groups.result.as_ref().err().copied(),
        Response::DescribeGroups(groups) => {
            groups.groups.iter().find_map(|group| group.result.as_ref().err().copied())
        }
        Response::DeleteGroups(groups) => groups.groups.iter().find_map(|(_, error)| *error),
        Response::OffsetFetch(offsets) => offsets.result.as_ref().err().copied(),
        Response::ListOffsets(offsets) => {
            offsets.partitions.iter().find_map(|partition| partition.result.err())
        }
        _ => None,
    }
}

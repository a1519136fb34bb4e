//! A producer between an application and brokers that a script plays, for tests.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bus_core::{
    Delivery, ErrorKind, ProducerConfig, ProducerRecord, Result, Topic, TopicPartition,
};

use super::Producer;
use crate::client::{ClientTimer, Identity, Reply};
use crate::node::{ConnectionId, CorrelationId, Effect, Effects, Input, NodeId, Timer};
use crate::protocol::metadata::{PartitionMetadata, TopicDetails, TopicMetadata};
use crate::protocol::{Request, Response, init_producer_id, metadata, produce};
use crate::time::SimTime;

/// A producer between an application and brokers that a script plays.
pub(super) struct Script {
    pub(super) producer: Producer,
    pub(super) now: SimTime,
    pub(super) effects: Effects,
    pub(super) requests: Vec<(ConnectionId, CorrelationId, Request)>,
    timers: std::collections::BTreeMap<Timer, SimTime>,
}

pub(super) type Outcome = Arc<Mutex<Option<Result<()>>>>;

impl Script {
    pub(super) fn of(make: impl FnOnce(Identity, ProducerConfig) -> Producer) -> Self {
        let identity = Identity::new(NodeId::Client(0), 1, crate::choice::Choices::new(7));
        let config = ProducerConfig { linger: Duration::ZERO, ..Default::default() };
        Self {
            producer: make(identity, config),
            now: SimTime::ZERO,
            effects: Effects::default(),
            requests: Vec::new(),
            timers: std::collections::BTreeMap::new(),
        }
    }

    pub(super) fn call(
        &mut self,
        act: impl FnOnce(&mut Producer, SimTime, Reply<()>, &mut Effects),
    ) -> Outcome {
        let outcome = Outcome::default();
        let slot = Arc::clone(&outcome);
        let reply = Reply::new(move |result| *slot.lock().unwrap() = Some(result));
        act(&mut self.producer, self.now, reply, &mut self.effects);
        self.settle();
        outcome
    }

    pub(super) fn send(&mut self) -> Delivery {
        let record = ProducerRecord::to("a").partition(0).value("1");
        let delivery = self.producer.send(self.now, record, &mut self.effects);
        self.settle();
        delivery
    }

    /// Carries out what the producer asked for, as a network without delay does.
    pub(super) fn settle(&mut self) {
        while !self.effects.list.is_empty() {
            for effect in std::mem::take(&mut self.effects).list {
                match effect {
                    Effect::Connect { connection, .. } => {
                        self.input(Input::Connected { connection });
                    }
                    Effect::Request { connection, correlation, request } => {
                        self.requests.push((connection, correlation, *request));
                    }
                    Effect::SetTimer { timer, at } => {
                        self.timers.insert(timer, at);
                    }
                    Effect::CancelTimer { timer } => {
                        self.timers.remove(&timer);
                    }
                    Effect::Complete(completion) => completion.hand_over(),
                    _ => {}
                }
            }
        }
    }

    pub(super) fn input(&mut self, input: Input) {
        self.producer.handle(self.now, input, &mut self.effects);
    }

    /// Lets time pass, and fires the timers on the way.
    pub(super) fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some((timer, at)) = self.next_timer().filter(|(_, at)| *at <= end) {
            self.now = self.now.max(at);
            self.timers.remove(&timer);
            self.input(Input::Timer(timer));
            self.settle();
        }
        self.now = end;
    }

    pub(super) fn next_timer(&self) -> Option<(Timer, SimTime)> {
        let ours = |timer: &&Timer| !matches!(timer, Timer::Client(ClientTimer::RequestTimeout(_)));
        let timers = self.timers.iter().filter(|(timer, _)| ours(timer));
        timers.min_by_key(|(_, at)| **at).map(|(timer, at)| (timer.clone(), *at))
    }

    /// The oldest request without an answer.
    pub(super) fn request(&self) -> &Request {
        &self.requests.first().expect("a request is under way").2
    }

    /// Answers the oldest request of the API of the response.
    pub(super) fn answer(&mut self, response: Response) {
        let place = self.requests.iter().position(|(_, _, r)| r.api() == response.api());
        let place = place.unwrap_or_else(|| panic!("nobody asked for {:?}", response.api()));
        let (connection, correlation, _) = self.requests.remove(place);
        let response = Box::new(response);
        self.input(Input::Response { connection, correlation, response });
        self.settle();
    }

    pub(super) fn answer_metadata(&mut self) {
        let partitions = vec![PartitionMetadata {
            partition: 0,
            leader: Some(1),
            leader_epoch: 0,
            replicas: vec![1],
            in_sync_replicas: vec![1],
        }];
        self.answer(Response::Metadata(metadata::Response {
            cluster_id: String::new(),
            brokers: vec![1],
            topics: vec![TopicMetadata {
                topic: Topic::from("a"),
                result: Ok(TopicDetails {
                    topic_id: bus_core::Uuid::nil(),
                    is_internal: false,
                    partitions,
                }),
            }],
        }));
    }
}

pub(super) fn identity(id: i64, epoch: i16) -> Response {
    Response::InitProducerId(init_producer_id::Response { result: Ok((id, epoch)) })
}

pub(super) fn produced(result: Result<i64, ErrorKind>) -> Response {
    let result = result.map(|base_offset| produce::Appended {
        base_offset,
        log_append_time: None,
        log_start: 0,
    });
    let topic_partition = TopicPartition::new("a", 0);
    let partitions = vec![produce::PartitionResponse { topic_partition, result }];
    Response::Produce(produce::Response { partitions })
}

pub(super) fn delivered(delivery: Delivery) -> Result<bus_core::RecordMetadata> {
    let mut delivery = std::pin::pin!(delivery);
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match delivery.as_mut().poll(&mut context) {
        std::task::Poll::Ready(outcome) => outcome,
        std::task::Poll::Pending => panic!("the delivery is not known yet"),
    }
}

//! What a producer sends, and when: batches, requests for metadata, requests for producer ids.

use std::sync::Arc;
use std::time::Duration;

use bus_core::{Acks, Topic, TopicPartition};

use crate::client::ClientTimer;
use crate::client::connections::Link;
use crate::mutation::Mutation;
use crate::node::{Effects, Timer};
use crate::protocol::{Request, init_producer_id, metadata, produce};
use crate::time::SimTime;

use super::partition::{Batch, BatchStamp, Readiness};
use super::planted;
use super::session::Session;
use super::{Producer, Token};

/// librdkafka's wait before it asks for a producer id again.
pub(super) const SESSION_RETRY: Duration = Duration::from_millis(500);

impl Producer {
    /// Sends what can be sent of all partitions.
    pub(super) fn pump_all(&mut self, now: SimTime, effects: &mut Effects) {
        let mut topics = std::mem::take(&mut self.topics);
        for (topic, state) in &mut topics {
            for (index, queue) in state.partitions.iter_mut().enumerate() {
                self.pump_queue(now, topic, index, queue, effects);
            }
        }
        self.topics = topics;
        self.pump_session(now, effects);
    }

    /// Sends what can be sent of one partition.
    pub(super) fn pump(
        &mut self,
        now: SimTime,
        topic: &Topic,
        index: usize,
        effects: &mut Effects,
    ) {
        let Some(state) = self.topics.get_mut(topic) else { return };
        let mut queue = std::mem::take(&mut state.partitions[index]);
        self.pump_queue(now, topic, index, &mut queue, effects);
        if let Some(state) = self.topics.get_mut(topic) {
            state.partitions[index] = queue;
        }
        self.pump_session(now, effects);
    }

    fn pump_queue(
        &mut self,
        now: SimTime,
        topic: &Topic,
        index: usize,
        queue: &mut super::partition::PartitionQueue,
        effects: &mut Effects,
    ) {
        loop {
            match queue.readiness(now, &self.config, self.is_flushing()) {
                Readiness::Empty => return,
                Readiness::RetryAt(at) => return self.watch_retry(at, effects),
                Readiness::LingerAt(at) => return self.watch_linger(at, effects),
                Readiness::Now => {}
            }
            let producer = match self.session {
                Session::Off => None,
                Session::Assigned { id, epoch } => Some((id, epoch)),
                Session::Unassigned { .. }
                | Session::Requested { .. }
                | Session::Draining
                | Session::Bumping { .. }
                | Session::Uninitialized
                | Session::AwaitingAbort
                | Session::Failed => return,
            };
            let topic_partition = super::topic_partition(topic, index);
            if !self.may_send(&topic_partition) {
                return;
            }
            let Some((leader, _)) = self.metadata.leader(&topic_partition) else {
                return self.want_metadata_later(now, effects);
            };
            if self.session != Session::Off && self.mutation != Some(Mutation::NewLeaderNotAwaited)
            {
                queue.is_led_by(leader);
            }
            // What is sent again waits for what is in flight, so that it is known what is missing;
            // and so does what goes to another leader.
            if queue.is_draining() {
                return;
            }
            let link = Link::data(leader);
            if self.connections.in_flight(link) >= self.config.max_in_flight as usize {
                return;
            }
            // No batch waits for a connection: the leader may be another one before it is up.
            if !self.connections.open_for(now, link, effects) {
                if self.connections.is_failing(link) {
                    self.want_metadata_later(now, effects);
                }
                return;
            }
            let is_reversed = self.mutation == Some(Mutation::BatchReversed);
            let stamp =
                BatchStamp { producer, is_transactional: self.transaction.is_some(), is_reversed };
            let Some(mut batch) = queue.take(&self.config, stamp) else { return };
            if self.acknowledges_when_sent(queue) {
                planted::acknowledge_early(&topic_partition, &mut batch, effects);
            }
            if self.config.acks == Acks::None {
                queue.landed(&batch);
            }
            self.send_batch(now, link, topic_partition, batch, effects);
        }
    }

    fn send_batch(
        &mut self,
        now: SimTime,
        link: Link,
        topic_partition: TopicPartition,
        batch: Batch,
        effects: &mut Effects,
    ) {
        let settings = self.transaction.as_ref().map(|transaction| transaction.settings());
        let request = Request::Produce(produce::Request {
            transactional_id: settings.map(|settings| settings.id.clone()),
            is_version_2: settings.is_some_and(|settings| settings.is_version_2),
            acks: self.config.acks,
            timeout: self.config.request_timeout,
            partitions: vec![produce::PartitionRequest {
                topic_partition: topic_partition.clone(),
                batch: Arc::clone(&batch.content),
            }],
        });
        if self.config.acks == Acks::None {
            self.connections.send_without_response(link, request, effects);
            return self.delivered(topic_partition, batch, None, effects);
        }
        let out_of_time = batch.enqueued + self.config.delivery_timeout;
        let deadline = out_of_time.min(self.connections.deadline(now));
        self.requests_in_flight += 1;
        let token = Token::Produce(topic_partition, batch);
        self.connections.send(now, link, token, request, deadline, effects);
    }

    /// Asks for a producer id when one is needed and may be asked for.
    pub(super) fn pump_session(&mut self, now: SimTime, effects: &mut Effects) {
        if self.transaction.is_some() {
            return self.pump_transactional_session(now, effects);
        }
        let attempt = match self.session {
            Session::Bumping { id, epoch } if self.requests_in_flight == 0 => {
                let epoch = epoch + 1;
                self.session = Session::Assigned { id, epoch };
                self.restamp_queues((id, epoch));
                return self.pump_all(now, effects);
            }
            Session::Draining if self.requests_in_flight == 0 => 0,
            Session::Unassigned { retry_at, attempt }
                if retry_at <= now && self.buffered_records > 0 =>
            {
                attempt
            }
            Session::Unassigned { retry_at, .. } if retry_at > now => {
                return self.watch_retry(retry_at, effects);
            }
            _ => return,
        };
        self.session = Session::Requested { attempt };
        let request = Request::InitProducerId(init_producer_id::Request {
            transactional: None,
            current: None,
        });
        let deadline = self.connections.deadline(now);
        let (token, brokers) = (Token::InitProducerId, &self.metadata.brokers);
        self.connections.send_to_any(now, brokers, token, request, deadline, effects);
    }

    /// Asks for the metadata of all topics in use, unless it is asked for already.
    pub(super) fn want_metadata(&mut self, now: SimTime, effects: &mut Effects) {
        if !self.refresh.begin() {
            return;
        }
        let topics = self.topics.keys().cloned().collect();
        let request = Request::Metadata(metadata::Request { topics: Some(topics) });
        let deadline = self.connections.deadline(now);
        let brokers = &self.metadata.brokers;
        self.connections.send_to_any(now, brokers, Token::Metadata, request, deadline, effects);
    }

    /// Asks for metadata after a pause.
    pub(super) fn want_metadata_later(&mut self, now: SimTime, effects: &mut Effects) {
        self.refresh.soon(now, effects);
    }

    pub(super) fn watch_linger(&mut self, at: SimTime, effects: &mut Effects) {
        if self.linger_at.is_none_or(|earlier| at < earlier) {
            self.linger_at = Some(at);
            effects.set_timer(Timer::Client(ClientTimer::Linger), at);
        }
    }

    pub(super) fn watch_retry(&mut self, at: SimTime, effects: &mut Effects) {
        if self.retry_at.is_none_or(|earlier| at < earlier) {
            self.retry_at = Some(at);
            effects.set_timer(Timer::Client(ClientTimer::Retry), at);
        }
    }

    pub(super) fn watch_delivery_timeout(&mut self, now: SimTime, effects: &mut Effects) {
        if self.delivery_timeout_at.is_none() {
            let at = now + self.config.delivery_timeout;
            self.delivery_timeout_at = Some(at);
            effects.set_timer(Timer::Client(ClientTimer::DeliveryTimeout), at);
        }
    }
}

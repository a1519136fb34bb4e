//! What the parts of a consumer share, and `poll`.
//!
//! `poll` looks at librdkafka's queue without waiting, and otherwise waits to be woken by it. A
//! look runs in one go under a lock, so a poll that is dropped has either taken nothing or was
//! about to return.

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use bus_core::{
    ConsumerConfig, Error, ErrorKind, Operation, Polled, Rebalance, RebalanceGuard, Record, Result,
    Topic, TopicPartition,
};
use parking_lot::{Mutex, RwLock};
use rdkafka::client::{Client, NativeClient};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::types::RDKafkaType;
use tokio::runtime::Handle;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::commit::Replies;
use super::rebalance::{self, Completer};
use super::state::{Mode, State};
use crate::config::Consumer as Config;
use crate::context::Context;
use crate::error::{Code, from_rdkafka};
use crate::ffi::consumer as requests;
use crate::ffi::{self, Event, EventKind, Failure, Queue};
use crate::offload::Offloaded;

/// A consumer without its handle.
pub(crate) struct Core {
    pub(crate) config: ConsumerConfig,
    pub(crate) native: NativeConsumer,
    pub(crate) runtime: Handle,
    /// Held while something is done to the queue and the assignment. Taken before `state`.
    pub(crate) pump: Mutex<Pump>,
    pub(crate) state: Mutex<State>,
    pub(crate) replies: Replies,
    /// Wakes those who wait for events or for a change of state.
    pub(crate) wake: Arc<Notify>,
    pub(crate) is_closing: AtomicBool,
    pub(crate) is_closed: watch::Sender<bool>,
    is_polling: AtomicBool,
    /// For the guards, which do not keep the consumer alive.
    me: Weak<Self>,
}

/// What was taken from the queue and not returned yet.
#[derive(Debug, Default)]
pub(crate) struct Pump {
    pub(crate) kept: VecDeque<Kept>,
    /// The topic of the newest record.
    topic: Option<Topic>,
}

/// Something for the next look.
#[derive(Debug)]
pub(crate) enum Kept {
    Event(Event),
    Error(Error),
}

impl Pump {
    /// Forgets kept records of partitions that were sought, paused, or given up. librdkafka has
    /// not counted them as delivered, so it reads them again if they are wanted.
    pub(crate) fn forget(&mut self, is_gone: impl Fn(&TopicPartition) -> bool) {
        self.kept.retain(|kept| match kept {
            Kept::Event(event) => {
                event.topic_partition().is_none_or(|partition| !is_gone(&partition))
            }
            Kept::Error(_) => true,
        });
    }
}

impl Core {
    pub(crate) fn new(config: &Config, runtime: Handle) -> Result<Arc<Self>> {
        let wake = Arc::new(Notify::new());
        let replies = Replies::new();
        let native = Native::new(config, &wake, &replies)?;
        let core = Arc::new_cyclic(|me| Self {
            config: config.config.clone(),
            native: NativeConsumer { slot: RwLock::new(Some(Arc::new(Offloaded::new(native)))) },
            runtime,
            pump: Mutex::default(),
            state: Mutex::default(),
            replies,
            wake,
            is_closing: AtomicBool::new(false),
            is_closed: watch::Sender::new(false),
            is_polling: AtomicBool::new(false),
            me: Weak::clone(me),
        });
        core.replies.resolve_in_background(&core);
        Ok(core)
    }

    /// Waits for records, a rebalance, or an error.
    pub(crate) async fn poll(&self, timeout: Duration) -> Result<Polled> {
        let _turn = Turn::take(&self.is_polling)?;
        // Beyond what the clock can hold is as good as for ever.
        let deadline = Instant::now().checked_add(timeout);
        // A look is also the sign of life, so a long wait looks now and then.
        let keep_alive = self.config.max_poll_interval / 2;
        loop {
            let woken = self.wake.notified();
            tokio::pin!(woken);
            woken.as_mut().enable();
            if let Some(polled) = self.look()? {
                return Ok(polled);
            }
            let now = Instant::now();
            let left = deadline.map(|deadline| deadline.saturating_duration_since(now));
            if left.is_some_and(|left| left.is_zero()) {
                return Ok(Polled::Records(Vec::new()));
            }
            let wait = left.map_or(keep_alive, |left| left.min(keep_alive));
            // Which of the two it was shows in the next look.
            drop(tokio::time::timeout(wait, woken).await);
        }
    }

    /// Takes from the queue what there is for one poll.
    fn look(&self) -> Result<Option<Polled>> {
        self.check_open()?;
        let mut pump = self.pump.lock();
        let native = self.native.client()?;
        if self.state.lock().pending.is_some() {
            // A sign of life; records do not come now, and what else comes waits.
            if let Some(event) = native.queue.poll(Duration::ZERO) {
                if is_eviction(&event) {
                    self.evicted();
                }
                pump.kept.push_back(Kept::Event(event));
            }
        }
        if let Some(pending) = rebalance::pending(self, &native) {
            return Ok(Some(Polled::Rebalance(self.guard(pending))));
        }
        let max = usize::try_from(self.config.max_poll_records).unwrap_or(usize::MAX);
        let mut records = Vec::with_capacity(native.queue.len().min(max));
        while records.len() < max {
            // What was kept comes first.
            let event = match pump.kept.pop_front() {
                Some(Kept::Event(event)) => event,
                Some(Kept::Error(error)) if records.is_empty() => return Err(error),
                Some(error) => {
                    pump.kept.push_front(error);
                    break;
                }
                None => match native.queue.poll(Duration::ZERO) {
                    Some(event) => event,
                    None => break,
                },
            };
            match self.handle(&native, &event, &mut pump.topic) {
                Seen::Nothing => {}
                Seen::Record(record) => records.push(record),
                Seen::Rebalance => break,
                Seen::Error(error) if records.is_empty() => return Err(error),
                Seen::Error(error) => {
                    pump.kept.push_front(Kept::Error(error));
                    break;
                }
            }
        }
        let mut state = self.state.lock();
        state.deliver(&mut records);
        if !records.is_empty() {
            return Ok(Some(Polled::Records(records)));
        }
        let pending = state.pending.as_ref().map(|pending| Arc::clone(&pending.rebalance));
        Ok(pending.map(|rebalance| Polled::Rebalance(self.guard(rebalance))))
    }

    /// Does what an event asks for.
    pub(crate) fn handle(&self, native: &Native, event: &Event, topic: &mut Option<Topic>) -> Seen {
        match event.kind() {
            EventKind::Record => event.record(topic).map_or(Seen::Nothing, Seen::Record),
            EventKind::Rebalance { is_assign } => {
                rebalance::arrived(self, native, event, is_assign)
            }
            EventKind::Error { is_fatal } => self.failed(native, event, is_fatal),
            EventKind::Commit { .. } => {
                // The reply to an auto commit; those of the application have a queue of their own.
                let nothing = Some(RDKafkaErrorCode::NoOffset);
                if let Some(failure) = event.failure().filter(|f| f.code.known() != nothing) {
                    tracing::warn!(target: "librdkafka", ?failure, "an auto commit failed");
                }
                Seen::Nothing
            }
            other => {
                native.client.context().side_event(other);
                Seen::Nothing
            }
        }
    }

    fn failed(&self, native: &Native, event: &Event, is_fatal: bool) -> Seen {
        let Some(Failure { code, message }) = event.failure() else { return Seen::Nothing };
        native.client.context().side_error(code, &message);
        if code.is_passing() {
            return Seen::Nothing;
        }
        let is_fatal = is_fatal || code.known() == Some(RDKafkaErrorCode::Fatal);
        let error = if is_fatal {
            fatal(native)
        } else if is_out_of_range(code, &message) {
            Error::new(ErrorKind::OffsetOutOfRange, message)
        } else {
            code.error(message)
        };
        let error = match event.topic_partition() {
            Some(topic_partition) => error.with_topic_partition(topic_partition),
            None => error,
        };
        let error = self.in_group(error.with_operation(Operation::Poll));
        if is_fatal {
            self.note_fatal(native);
        }
        Seen::Error(error)
    }

    /// Takes note that the group goes on without this member; librdkafka does not say so while it
    /// waits for the answer to a rebalance.
    pub(crate) fn evicted(&self) {
        if let Some(pending) = &mut self.state.lock().pending {
            pending.turn_lost();
        }
    }

    /// Pauses or resumes assigned partitions.
    pub(crate) fn pause(&self, partitions: &[TopicPartition], pause: bool) -> Result<()> {
        let mut pump = self.pump.lock();
        let native = self.native.client()?;
        let mut state = self.state.lock();
        for topic_partition in partitions {
            state.place(topic_partition)?;
        }
        requests::pause(native.client(), &to_list(partitions), pause)
            .map_err(Failure::into_error)?;
        if pause {
            pump.forget(|topic_partition| partitions.contains(topic_partition));
        }
        for topic_partition in partitions {
            if let Some(place) = state.assignment.get_mut(topic_partition) {
                place.is_paused = pause;
            }
        }
        Ok(())
    }

    /// Fails if the consumer is closed, or of no use any more.
    pub(crate) fn check_open(&self) -> Result<()> {
        if self.is_closing.load(Ordering::SeqCst) {
            return Err(closed());
        }
        self.fatal().map_or(Ok(()), Err)
    }

    /// The error after which this consumer can only be closed. Its partitions are gone with it.
    pub(crate) fn fatal(&self) -> Option<Error> {
        let native = self.native.client().ok()?;
        self.note_fatal(&native)
    }

    fn note_fatal(&self, native: &Native) -> Option<Error> {
        let mut state = self.state.lock();
        if state.fatal.is_none() && native.client.fatal_error().is_some() {
            state.reset(Mode::Idle);
            state.pending = None;
            state.fatal = Some(self.in_group(fatal(native)));
        }
        state.fatal.clone()
    }

    /// Waits until the consumer is closed.
    pub(crate) async fn closed(&self) -> Result<()> {
        // It cannot fail: the sender is here.
        drop(self.is_closed.subscribe().wait_for(|closed| *closed).await);
        Ok(())
    }

    /// The error, with the group that it is about.
    pub(crate) fn in_group(&self, error: Error) -> Error {
        match &self.config.group_id {
            Some(group_id) => error.with_group_id(group_id),
            None => error,
        }
    }

    fn guard(&self, pending: Arc<Rebalance>) -> RebalanceGuard {
        RebalanceGuard::new(pending, Arc::new(Completer::new(Weak::clone(&self.me))))
    }
}

/// What came of an event.
#[derive(Debug)]
pub(crate) enum Seen {
    Nothing,
    Record(Record),
    Rebalance,
    Error(Error),
}

/// librdkafka's client and its queues.
pub(crate) struct Native {
    // The queues go before the client.
    pub(crate) replies: Queue,
    pub(crate) queue: Queue,
    pub(crate) client: Client<Context>,
}

impl Native {
    fn new(config: &Config, wake: &Arc<Notify>, replies: &Replies) -> Result<Self> {
        let failed = |error| from_rdkafka(&error, Operation::Connect);
        let native = config.native.create_native_config().map_err(failed)?;
        ffi::enable_events(&native);
        let kind = RDKafkaType::RD_KAFKA_CONSUMER;
        let client =
            Client::new(&config.native, native, kind, Context::default()).map_err(failed)?;
        let missing = || Error::new(ErrorKind::Backend, "librdkafka's consumer has no queue");
        let mut queue = Queue::of_consumer(client.native_client()).ok_or_else(missing)?;
        let wake = Arc::clone(wake);
        queue.on_nonempty(move || wake.notify_waiters());
        let mut reply_queue = Queue::new(client.native_client()).ok_or_else(missing)?;
        let arrived = replies.arrived();
        reply_queue.on_nonempty(move || arrived.notify_one());
        Ok(Self { replies: reply_queue, queue, client })
    }

    pub(crate) fn client(&self) -> &NativeClient {
        self.client.native_client()
    }
}

/// librdkafka's consumer, for what the contract leaves out.
///
/// The bus serves its queues: do not poll it, and leave subscription and assignment to the bus.
pub struct NativeConsumer {
    slot: RwLock<Option<Arc<Offloaded<Native>>>>,
}

impl NativeConsumer {
    /// Calls `f` with the client; its `native_ptr` is what rdkafka-sys wants.
    ///
    /// # Errors
    /// [`ErrorKind::Closed`].
    pub fn with<R>(&self, f: impl FnOnce(&Client<Context>) -> R) -> Result<R> {
        Ok(f(&self.client()?.client))
    }

    /// The client. Whoever holds it last destroys it, on a thread made for that.
    pub(crate) fn client(&self) -> Result<Arc<Offloaded<Native>>> {
        self.slot.read().clone().ok_or_else(closed)
    }

    /// Takes the client away: the consumer is closed.
    pub(crate) fn take(&self) -> Option<Arc<Offloaded<Native>>> {
        self.slot.write().take()
    }
}

impl fmt::Debug for NativeConsumer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NativeConsumer")
    }
}

/// One poll at a time.
struct Turn<'a>(&'a AtomicBool);

impl<'a> Turn<'a> {
    fn take(is_polling: &'a AtomicBool) -> Result<Self> {
        if is_polling.swap(true, Ordering::SeqCst) {
            let message = "another poll of this consumer waits; await or drop it first";
            return Err(Error::new(ErrorKind::InvalidState, message));
        }
        Ok(Self(is_polling))
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::SeqCst);
    }
}

/// The error of every call after `close`.
pub(crate) fn closed() -> Error {
    Error::new(ErrorKind::Closed, "the consumer is closed")
}

/// The partitions as librdkafka's list.
pub(crate) fn to_list(partitions: &[TopicPartition]) -> rdkafka::TopicPartitionList {
    let mut list = rdkafka::TopicPartitionList::with_capacity(partitions.len());
    for TopicPartition { topic, partition } in partitions {
        list.add_partition(topic.as_str(), *partition);
    }
    list
}

/// The error that made librdkafka's client useless.
pub(crate) fn fatal(native: &Native) -> Error {
    match native.client.fatal_error() {
        Some((code, reason)) => Code::from(code).error(reason),
        None => Error::from(ErrorKind::Fatal),
    }
}

/// Whether an event says that the member left the group because it did not poll.
fn is_eviction(event: &Event) -> bool {
    let code = event.failure().and_then(|failure| failure.code.known());
    code == Some(RDKafkaErrorCode::PollExceeded)
}

/// librdkafka has one code for "no committed offset", for "offset out of range", and for records
/// that a new leader does not have, with `auto.offset.reset=none`; only the text tells which it
/// was.
fn is_out_of_range(code: Code, message: &str) -> bool {
    code.known() == Some(RDKafkaErrorCode::AutoOffsetReset)
        && (message.contains("out of range") || message.contains("truncation detected"))
}

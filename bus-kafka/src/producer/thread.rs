//! The thread that serves a producer: it takes the outcomes and, in the end, the producer itself.

use std::sync::Arc;
use std::time::Duration;

use bus_core::{Error, ErrorKind, Operation, Result};
use parking_lot::{Condvar, Mutex};
use rdkafka::producer::{BaseProducer, Producer as _, PurgeConfig};
use tokio::sync::watch;

use super::buffer::Buffer;
use super::{NativeProducer, ProducerContext};
use crate::ffi::Queue;
use crate::offload;

/// Tells the thread what to do, and others that it is done.
#[derive(Debug)]
pub(crate) struct ServingThread {
    signal: Arc<Signal>,
    stopped: watch::Receiver<bool>,
}

impl ServingThread {
    /// Starts the thread.
    pub(crate) fn start(
        producer: Arc<BaseProducer<ProducerContext>>,
        native: Arc<NativeProducer>,
        buffer: Arc<Buffer>,
    ) -> Result<Self> {
        let signal = Arc::new(Signal::default());
        let mut queue = Queue::main(producer.client().native_client()).ok_or_else(|| {
            Error::new(ErrorKind::Backend, "librdkafka's producer has no main queue")
        })?;
        let notifier = Arc::clone(&signal);
        queue.on_nonempty(move || notifier.set(|state| state.has_events = true));
        // Events may have come before the callback.
        signal.set(|state| state.has_events = true);
        let (sender, stopped) = watch::channel(false);
        let served = Arc::clone(&signal);
        offload::spawn("bus-kafka-producer", move || {
            serve(&producer, &queue, &served, &buffer);
            // The queue goes before the client; the last handle of the client goes here.
            drop(queue);
            native.release();
            drop(producer);
            sender.send_replace(true);
        })
        .map_err(|error| {
            Error::new(ErrorKind::Backend, "cannot start the thread of the producer")
                .with_operation(Operation::Send)
                .with_source(error)
        })?;
        Ok(Self { signal, stopped })
    }

    /// Asks the thread to purge what is left and to end.
    pub(crate) fn stop(&self) {
        self.signal.set(|state| state.is_stopping = true);
    }

    /// Waits until the producer is gone.
    pub(crate) async fn stopped(&self) {
        // An error means that the thread is gone, and the producer with it.
        drop(self.stopped.clone().wait_for(|stopped| *stopped).await);
    }
}

/// Handles events until it is told to stop; then purges and handles what comes of that.
fn serve(
    producer: &BaseProducer<ProducerContext>,
    queue: &Queue,
    signal: &Signal,
    buffer: &Buffer,
) {
    loop {
        let State { is_stopping, .. } = signal.wait(None);
        drain(producer, queue, buffer);
        if is_stopping {
            break;
        }
    }
    producer.purge(PurgeConfig::default().queue().inflight());
    loop {
        drain(producer, queue, buffer);
        if producer.in_flight_count() <= 0 {
            break;
        }
        // A record that a broker thread holds is purged a moment later, without an event if it is
        // the log's turn: look again soon.
        signal.wait(Some(Duration::from_millis(10)));
    }
}

fn drain(producer: &BaseProducer<ProducerContext>, queue: &Queue, buffer: &Buffer) {
    while !queue.is_empty() {
        // One event: a batch of outcomes, or something on the side.
        producer.poll(Duration::ZERO);
        buffer.wake();
    }
}

#[derive(Debug, Default)]
struct Signal {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Clone, Copy, Debug, Default)]
struct State {
    has_events: bool,
    is_stopping: bool,
}

impl Signal {
    fn set(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock());
        self.changed.notify_one();
    }

    /// Waits for events, for the order to stop, or for at most `limit`.
    fn wait(&self, limit: Option<Duration>) -> State {
        let mut state = self.state.lock();
        match limit {
            Some(limit) => {
                if !state.has_events {
                    self.changed.wait_for(&mut state, limit);
                }
            }
            None => {
                while !state.has_events && !state.is_stopping {
                    self.changed.wait(&mut state);
                }
            }
        }
        let seen = *state;
        state.has_events = false;
        seen
    }
}

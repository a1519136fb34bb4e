//! The producer of a simulated process.

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use bus_core::{
    BoxFuture, Delivery, Operation, Partition, Producer, ProducerRecord, Result, Topic,
};
use tokio::sync::oneshot;

use crate::client::{ClientMachine, Reply, producer};
use crate::event::value_text;
use crate::node::{ClientId, Effects};
use crate::time::SimTime;
use crate::world::CallRecord;

use super::Shared;
use super::bus::over;

/// A simulated producer.
#[derive(Debug)]
pub(super) struct SimProducer {
    shared: Arc<Shared>,
    client: ClientId,
}

impl SimProducer {
    pub(super) const fn new(shared: Arc<Shared>, client: ClientId) -> Self {
        Self { shared, client }
    }

    /// Calls the machine. `None` if its process has crashed or the simulation is over.
    pub(super) fn call<T>(
        &self,
        act: impl FnOnce(&mut producer::Producer, SimTime, &mut Effects) -> T,
    ) -> Option<T> {
        let called = self.shared.enter(|world| {
            world.with_client(self.client, |machine, now, effects| match machine {
                ClientMachine::Producer(producer) => act(producer, now, effects),
                ClientMachine::Consumer(_) | ClientMachine::Admin(_) => {
                    unreachable!("client {} is a producer", self.client)
                }
            })
        });
        called.flatten()
    }

    pub(super) fn ask<T: Send + 'static>(
        &self,
        operation: Operation,
        act: impl FnOnce(&mut producer::Producer, SimTime, Reply<T>, &mut Effects),
    ) -> BoxFuture<'_, Result<T>> {
        let (reply, receiver) = reply_channel();
        let called = self.call(|producer, now, effects| {
            effects.record(|| CallRecord::Called(operation, String::new()));
            act(producer, now, reply, effects);
        });
        Box::pin(answer(called.is_some(), receiver, operation))
    }
}

/// A reply and where it arrives.
pub(super) fn reply_channel<T: Send + 'static>() -> (Reply<T>, oneshot::Receiver<Result<T>>) {
    let (sender, receiver) = oneshot::channel();
    // The application need not wait for it.
    (Reply::new(move |outcome| drop(sender.send(outcome))), receiver)
}

/// Waits for a reply; for ever if the process of the caller has crashed.
pub(super) async fn answer<T>(
    was_called: bool,
    receiver: oneshot::Receiver<Result<T>>,
    operation: Operation,
) -> Result<T> {
    if !was_called {
        std::future::pending::<()>().await;
    }
    receiver.await.unwrap_or_else(|_| Err(over())).map_err(|error| error.with_operation(operation))
}

/// A record in a few words, for people.
fn describe(record: &ProducerRecord) -> String {
    let text = |bytes: Option<&[u8]>| bytes.map(|b| String::from_utf8_lossy(b).into_owned());
    let mut value = value_text(text(record.value.as_deref()));
    if let Some((end, _)) = value.char_indices().nth(24) {
        value.truncate(end);
        value.push('…');
    }
    format!("{} {value}", record.topic)
}

impl Producer for SimProducer {
    fn send(&self, record: ProducerRecord) -> Delivery {
        let called = self.call(|producer, now, effects| {
            effects.record(|| CallRecord::Called(Operation::Send, describe(&record)));
            producer.send(now, record, effects)
        });
        called.unwrap_or_else(|| {
            // The call of a dead process never completes.
            let (sender, delivery) = Delivery::channel();
            std::mem::forget(sender);
            delivery
        })
    }

    fn ready(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(std::future::poll_fn(|cx| {
            let ready = self.call(|producer, _, _| producer.poll_ready(cx.waker())).flatten();
            match ready {
                Some(ready) => {
                    std::task::Poll::Ready(ready.map_err(|e| e.with_operation(Operation::Ready)))
                }
                None => std::task::Poll::Pending,
            }
        }))
    }

    fn flush(&self) -> BoxFuture<'_, Result<()>> {
        self.ask(Operation::Flush, |producer, now, reply, effects| {
            producer.flush(now, reply, effects);
        })
    }

    fn partitions_for(&self, topic: Topic) -> BoxFuture<'_, Result<Partition>> {
        self.ask(Operation::DescribeTopics, |producer, now, reply, effects| {
            producer.partitions_for(now, topic, reply, effects);
        })
    }

    fn close(&self, timeout: Duration) -> BoxFuture<'_, Result<()>> {
        self.ask(Operation::Close, |producer, now, reply, effects| {
            producer.close(now, timeout, reply, effects);
        })
    }

    fn native(&self) -> &dyn Any {
        self
    }
}

impl Drop for SimProducer {
    fn drop(&mut self) {
        self.call(|producer, _, effects| {
            effects.record(|| CallRecord::Called(Operation::Close, "dropped".to_owned()));
            producer.purge(effects);
        });
        // After the end of the simulation there is nothing to remove.
        let _over = self.shared.enter(|world| world.remove_client(self.client));
    }
}

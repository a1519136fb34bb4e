//! The bus: makes producers, consumers, and administration, and gives time, identity, and tasks.

use std::any::Any;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tokio::sync::oneshot;
use uuid::Uuid;

use crate::admin::Admin;
use crate::config::{ConsumerConfig, ProducerConfig, TransactionConfig};
use crate::consumer::Consumer;
use crate::error::{Error, ErrorKind, Result};
use crate::producer::{Producer, TransactionalProducer};
use crate::record::Timestamp;

/// An event bus: one API over a real Kafka and over a simulated one. Cheap to clone.
///
/// An application takes all that it needs from the bus, time and identity included, and so runs
/// deterministically on the simulator. For sleeping it uses `tokio::time`.
#[derive(Clone, Debug)]
pub struct Bus {
    backend: Arc<dyn Backend>,
}

/// What a backend provides; applications use [`Bus`].
pub trait Backend: Send + Sync + fmt::Debug {
    /// The scheme of the backend's URL: `sim` or `kafka`.
    fn scheme(&self) -> &'static str;

    /// Makes a producer.
    fn producer(&self, config: ProducerConfig) -> Result<Arc<dyn Producer>>;

    /// Makes a transactional producer.
    fn transactional_producer(
        &self,
        config: ProducerConfig,
        transaction: TransactionConfig,
    ) -> Result<Arc<dyn TransactionalProducer>>;

    /// Makes a consumer.
    fn consumer(&self, config: ConsumerConfig) -> Result<Arc<dyn Consumer>>;

    /// Makes an administration client.
    fn admin(&self) -> Result<Arc<dyn Admin>>;

    /// The time of day.
    fn now(&self) -> Timestamp;

    /// The time since the bus was made; never goes back.
    fn elapsed(&self) -> Duration;

    /// A new UUID, version 7.
    fn new_id(&self) -> Uuid;

    /// Runs a task in the process of this bus.
    fn spawn(&self, name: &str, task: BoxFuture<'static, ()>);

    /// Runs a process: `start` is called with a bus of its own, and again at each restart.
    fn process(&self, name: &str, start: ProcessStart);

    /// The backend itself.
    fn native(&self) -> &dyn Any;
}

/// Starts (and restarts) a process; see [`Bus::process`].
pub type ProcessStart = Box<dyn Fn(Bus) -> BoxFuture<'static, ()> + Send + Sync>;

impl Bus {
    /// A bus on a backend. Applications use `bus::run` or `bus::connect`.
    pub fn new(backend: Arc<dyn Backend>) -> Self {
        Self { backend }
    }

    /// The scheme of the backend's URL: `sim` or `kafka`. For reports; an application that asks is
    /// no longer one application.
    pub fn scheme(&self) -> &'static str {
        self.backend.scheme()
    }

    /// Makes a producer.
    ///
    /// Returns without waiting for a broker; the first operation that needs one does.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`], naming the property and what would be right.
    pub fn producer(&self, config: ProducerConfig) -> Result<Arc<dyn Producer>> {
        self.backend.producer(config)
    }

    /// Makes a producer whose sends are transactional.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`]; [`ErrorKind::Unsupported`] where the backend has no
    /// transactions.
    pub fn transactional_producer(
        &self,
        config: ProducerConfig,
        transaction: TransactionConfig,
    ) -> Result<Arc<dyn TransactionalProducer>> {
        self.backend.transactional_producer(config, transaction)
    }

    /// Makes a consumer.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`], naming the property and what would be right.
    pub fn consumer(&self, config: ConsumerConfig) -> Result<Arc<dyn Consumer>> {
        self.backend.consumer(config)
    }

    /// Makes an administration client.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`].
    pub fn admin(&self) -> Result<Arc<dyn Admin>> {
        self.backend.admin()
    }

    /// The time of day: real on Kafka, virtual on the simulator.
    pub fn now(&self) -> Timestamp {
        self.backend.now()
    }

    /// The time since the bus was made, which never goes back; in nanoseconds of virtual time on
    /// the simulator.
    pub fn elapsed(&self) -> Duration {
        self.backend.elapsed()
    }

    /// A new id: UUID version 7, drawn from the seed on the simulator.
    pub fn new_id(&self) -> Uuid {
        self.backend.new_id()
    }

    /// Runs `future` as a task of this process and returns a handle to its output.
    ///
    /// On the simulator the task is polled only while its process runs: it stops when the process
    /// is paused, and is dropped when it crashes. Raw `tokio::spawn` escapes both.
    pub fn spawn<F>(&self, name: &str, future: F) -> Task<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let (sender, receiver) = oneshot::channel();
        let task = async move {
            // The application need not wait for it.
            drop(sender.send(future.await));
        };
        self.backend.spawn(name, task.boxed());
        Task { name: name.to_owned(), receiver }
    }

    /// Runs a process: a part of the application that fails as one, with a bus of its own.
    ///
    /// Clients that `start` makes with the bus it is handed belong to the process. On the simulator
    /// a process can crash (clients and tasks vanish, calls never complete), pause (and wake up as
    /// a zombie), and restart (`start` is called again). On Kafka it is a task.
    ///
    /// ```
    /// # fn example(bus: &bus_core::Bus) {
    /// bus.process("exporter-1", |bus| async move {
    ///     let consumer = bus.consumer(bus_core::ConsumerConfig::in_group("exporter"));
    ///     // Poll until done.
    /// });
    /// # }
    /// ```
    pub fn process<S, F>(&self, name: &str, start: S)
    where
        S: Fn(Self) -> F + Send + Sync + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        self.backend.process(name, Box::new(move |bus| start(bus).boxed()));
    }

    /// The backend itself, for what the contract leaves out.
    pub fn native(&self) -> &dyn Any {
        self.backend.native()
    }
}

/// A task that runs; a future of its output. Dropping it lets the task run on.
#[derive(Debug)]
pub struct Task<T> {
    name: String,
    receiver: oneshot::Receiver<T>,
}

impl<T> Future for Task<T> {
    type Output = Result<T>;

    /// Resolves with [`ErrorKind::Crashed`] if the task panicked or its process crashed.
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.receiver).poll(cx).map(|output| {
            output.map_err(|_| {
                let message = format!("task {:?} ended without an output", self.name);
                Error::new(ErrorKind::Crashed, message)
            })
        })
    }
}

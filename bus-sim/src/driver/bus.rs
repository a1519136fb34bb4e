//! The bus of a simulated process.

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use bus_core::{
    Admin, Backend, BoxFuture, Bus, Consumer, ConsumerConfig, Error, ErrorKind, ProcessStart,
    Producer, ProducerConfig, Result, Timestamp, TransactionConfig, TransactionalProducer, Uuid,
};

use crate::client::producer::TransactionSettings;
use crate::client::timeout::{socket_timeout, transactional_socket_timeout};
use crate::client::{ClientMachine, Identity, admin, consumer, producer};
use crate::config::check_passed_through;
use crate::node::{ClientId, NodeId};
use crate::time::SimTime;
use crate::world::{ProcessId, ProcessState};

use super::Shared;
use super::admin::SimAdmin;
use super::consumer::SimConsumer;
use super::process::Control;
use super::producer::SimProducer;
use super::transaction::SimTransactionalProducer;

/// The bus of one incarnation of a simulated process.
#[derive(Clone, Debug)]
pub(super) struct SimBus {
    pub(super) shared: Arc<Shared>,
    pub(super) process: ProcessId,
    pub(super) incarnation: u32,
    pub(super) control: Arc<Control>,
}

impl SimBus {
    fn add_client(&self, make: impl FnOnce(Identity) -> ClientMachine) -> Result<ClientId> {
        let added = self.shared.enter(|world| {
            let process = world.process(self.process);
            let is_alive =
                process.incarnation == self.incarnation && process.state != ProcessState::Crashed;
            if !is_alive {
                let message = format!("process {:?} has crashed", process.name);
                return Err(Error::new(ErrorKind::Crashed, message));
            }
            let choices = world.choices.clone();
            let policy = world.config.client;
            let machine = |node: NodeId, name: u64| {
                make(Identity::new(node, name, choices).with_policy(policy))
            };
            Ok(world.add_client(self.process, machine))
        });
        added.unwrap_or_else(|| Err(over()))
    }

    /// Applies the properties of the URL.
    fn apply_properties(&self, config: &mut ProducerConfig) -> Result<()> {
        for (name, value) in &self.shared.properties {
            if bus_core::config::is_known_property(name, bus_core::config::Client::Producer) {
                config.set(name, value)?;
            }
        }
        Ok(())
    }

    fn settings(&self) -> (i32, Option<crate::Mutation>, String) {
        let world = self.shared.world.lock();
        let process = world.process(self.process).name.clone();
        (world.config.brokers, world.config.mutation, process)
    }
}

impl Backend for SimBus {
    fn scheme(&self) -> &'static str {
        "sim"
    }

    fn producer(&self, mut config: ProducerConfig) -> Result<Arc<dyn Producer>> {
        self.apply_properties(&mut config)?;
        config.validate()?;
        check_passed_through(&config.properties)?;
        let timeout = socket_timeout(&config.properties)?;
        let (brokers, mutation, _) = self.settings();
        let client = self.add_client(|identity| {
            let identity = identity.with_socket_timeout(timeout);
            let machine = producer::Producer::new(identity, config, brokers, mutation);
            ClientMachine::Producer(Box::new(machine))
        })?;
        Ok(Arc::new(SimProducer::new(Arc::clone(&self.shared), client)))
    }

    fn transactional_producer(
        &self,
        mut config: ProducerConfig,
        transaction: TransactionConfig,
    ) -> Result<Arc<dyn TransactionalProducer>> {
        self.apply_properties(&mut config)?;
        // What is delivered later can be no part of the transaction; as in librdkafka.
        config.delivery_timeout = config.delivery_timeout.min(transaction.transaction_timeout);
        transaction.validate(&config)?;
        config.validate()?;
        check_passed_through(&config.properties)?;
        let timeout = transaction.transaction_timeout;
        let timeout = transactional_socket_timeout(&config.properties, timeout)?;
        let (brokers, mutation, _) = self.settings();
        let (is_version_2, reuses_sequences) = {
            let world = self.shared.world.lock();
            (world.config.transaction_version == 2, world.config.abort_reuses_sequences)
        };
        let settings = TransactionSettings {
            id: transaction.transactional_id.as_str().into(),
            timeout: transaction.transaction_timeout,
            is_version_2,
            reuses_sequences,
        };
        let client = self.add_client(|identity| {
            let identity = identity.with_socket_timeout(timeout);
            let machine =
                producer::Producer::transactional(identity, config, settings, brokers, mutation);
            ClientMachine::Producer(Box::new(machine))
        })?;
        let producer = SimProducer::new(Arc::clone(&self.shared), client);
        Ok(Arc::new(SimTransactionalProducer::new(producer)))
    }

    fn consumer(&self, mut config: ConsumerConfig) -> Result<Arc<dyn Consumer>> {
        for (name, value) in &self.shared.properties {
            if bus_core::config::is_known_property(name, bus_core::config::Client::Consumer) {
                config.set(name, value)?;
            }
        }
        config.validate()?;
        check_passed_through(&config.properties)?;
        let timeout = socket_timeout(&config.properties)?;
        let (brokers, mutation, process) = self.settings();
        let client_id = config.client_id.clone().unwrap_or(process);
        let client = self.add_client(|identity| {
            let identity = identity.with_socket_timeout(timeout);
            let machine = consumer::Consumer::new(identity, config, &client_id, brokers, mutation);
            ClientMachine::Consumer(Box::new(machine))
        })?;
        Ok(Arc::new(SimConsumer::new(Arc::clone(&self.shared), client)))
    }

    fn admin(&self) -> Result<Arc<dyn Admin>> {
        let (brokers, _, _) = self.settings();
        let client = self.add_client(|identity| {
            ClientMachine::Admin(Box::new(admin::Admin::new(identity, brokers)))
        })?;
        Ok(Arc::new(SimAdmin::new(Arc::clone(&self.shared), client, brokers)))
    }

    fn now(&self) -> Timestamp {
        SimTime::timestamp(SimTime::ZERO + self.elapsed())
    }

    fn elapsed(&self) -> Duration {
        self.shared.now().elapsed()
    }

    fn new_id(&self) -> Uuid {
        let draw = |world: &mut crate::world::World| world.random_id(self.process);
        let (high, low) = match self.shared.enter(draw) {
            Some(drawn) => drawn,
            None => self.shared.world.lock().random_id(self.process),
        };
        let mut bytes = [0; 10];
        bytes[..8].copy_from_slice(&high.to_be_bytes());
        bytes[8..].copy_from_slice(&low.to_be_bytes()[..2]);
        let millis = u64::try_from(self.now().as_millis()).unwrap_or(0);
        uuid::Builder::from_unix_timestamp_millis(millis, &bytes).into_uuid()
    }

    fn spawn(&self, _name: &str, task: BoxFuture<'static, ()>) {
        self.shared.processes.spawn(Arc::clone(&self.control), task);
    }

    fn process(&self, name: &str, start: ProcessStart) {
        let added = self.shared.enter(|world| world.add_process(name));
        match added {
            Some(Ok(id)) => start_process(&self.shared, id, Arc::new(start)),
            Some(Err(error)) => tracing::error!(%error, "process not started"),
            None => {}
        }
    }

    fn native(&self) -> &dyn Any {
        self
    }
}

/// Starts an incarnation of a process.
pub(super) fn start_process(shared: &Arc<Shared>, id: ProcessId, start: Arc<ProcessStart>) {
    let control = Control::running();
    let incarnation = shared.world.lock().process(id).incarnation;
    let bus = Bus::new(Arc::new(SimBus {
        shared: Arc::clone(shared),
        process: id,
        incarnation,
        control: Arc::clone(&control),
    }));
    shared.processes.add(id, Arc::clone(&start), Arc::clone(&control));
    shared.processes.spawn(control, start(bus));
}

/// The error of a call after the end of the simulation.
pub(super) fn over() -> Error {
    Error::new(ErrorKind::Closed, "the simulation is over")
}

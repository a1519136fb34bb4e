//! The interpreter: runs a program over a bus, and tells what came of each step.
//!
//! It is written once, against the contract, and does not know its backend. Each step is awaited to
//! its end before the next begins; where Kafka goes on in the background (an assignment looks up
//! its starts, a group rebalances, a record that nobody acknowledges arrives), the step waits for
//! that too, because the next step would meet it sooner or later.

mod admin;
mod consume;
mod group;
mod produce;
mod read;
mod transact;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bus_core::{
    Admin, Bus, Consumer, ConsumerConfig, IsolationLevel, NewTopic, Producer, Result,
    TransactionalProducer,
};
use futures_util::future::join_all;

use crate::ledger::Ledger;
use crate::outcome::Outcome;
use crate::program::{Program, Step, TopicSpec};
use crate::rules::Exclusions;
use crate::slot::{ConsumerSlot, Names, ProducerSlot, TopicSlot, TransactorSlot};

use consume::Reader;

/// All that a step may wait for is below it.
const STEP_LIMIT: Duration = Duration::from_secs(60);

/// How long a fetch of a program's consumers waits for records: a seek waits for it too.
const FETCH_WAIT: Duration = Duration::from_millis(50);

/// Runs a program, whose names begin with `prefix`, and gives one outcome per step.
///
/// # Errors
/// What the backend says when it cannot even make the clients that the interpreter itself needs.
pub(crate) async fn run(bus: &Bus, program: &Program, prefix: &str) -> Result<Vec<Outcome>> {
    let mut interpreter = Interpreter::new(bus, program, prefix)?;
    interpreter.make_topics().await;
    let mut outcomes = Vec::with_capacity(program.steps.len());
    for (index, step) in program.steps.iter().enumerate() {
        let outcome = match interpreter.exclusions.step(index) {
            Some(reason) => Outcome::Excluded(reason),
            None => {
                let step = interpreter.step(index, step);
                tokio::time::timeout(STEP_LIMIT, step).await.unwrap_or(Outcome::Overdue)
            }
        };
        outcomes.push(outcome);
    }
    interpreter.clean_up().await;
    Ok(outcomes)
}

/// The state of a program that runs.
struct Interpreter<'a> {
    program: &'a Program,
    exclusions: Exclusions,
    names: Names,
    bus: &'a Bus,
    admin: Arc<dyn Admin>,
    /// Looks at what is in the log without being a part of the program.
    probe: Arc<dyn Consumer>,
    producers: BTreeMap<ProducerSlot, Arc<dyn Producer>>,
    transactors: BTreeMap<TransactorSlot, Arc<dyn TransactionalProducer>>,
    consumers: BTreeMap<ConsumerSlot, Reader>,
    ledger: Ledger,
}

impl<'a> Interpreter<'a> {
    fn new(bus: &'a Bus, program: &'a Program, prefix: &str) -> Result<Self> {
        let probe = bus.consumer(ConsumerConfig {
            isolation_level: IsolationLevel::ReadUncommitted,
            ..Default::default()
        })?;
        Ok(Self {
            program,
            exclusions: Exclusions::of(program),
            names: Names::new(prefix),
            bus,
            admin: bus.admin()?,
            probe,
            producers: BTreeMap::new(),
            transactors: BTreeMap::new(),
            consumers: BTreeMap::new(),
            ledger: Ledger::default(),
        })
    }

    async fn step(&mut self, index: usize, step: &Step) -> Outcome {
        match step {
            Step::Producer(slot, step) => self.producer(index, *slot, step).await,
            Step::Transactor(slot, step) => self.transactor(index, *slot, step).await,
            Step::Consumer(slot, step) => self.consumer(*slot, step).await,
            Step::Admin(step) => self.admin(step).await,
        }
    }

    /// Topics that cannot be made are missing on both backends alike.
    async fn make_topics(&self) {
        let topics = self.program.topics.iter();
        let topics =
            topics.map(|(slot, spec)| self.admin.create_topic(self.new_topic(*slot, spec)));
        drop(join_all(topics).await);
    }

    /// A topic that keeps its records: programs send old ones, and when a broker deletes what is
    /// older than a week, or compacts it, is a matter of its timers.
    fn new_topic(&self, slot: TopicSlot, spec: &TopicSpec) -> NewTopic {
        let mut config = spec.config.clone();
        config.entry("retention.ms".to_owned()).or_insert_with(|| "-1".to_owned());
        config.entry("min.compaction.lag.ms".to_owned()).or_insert_with(|| i64::MAX.to_string());
        NewTopic {
            topic: self.names.topic(slot),
            partitions: spec.partitions,
            replication_factor: spec.replicas,
            config,
        }
    }

    /// Closes all clients, and removes what would slow the brokers down.
    async fn clean_up(self) {
        const GRACE: Duration = Duration::from_secs(5);

        let Self { names, admin, probe, producers, transactors, consumers, .. } = self;
        let producers = producers.values().map(|producer| producer.close(Duration::ZERO));
        let transactors = transactors.values().map(|producer| producer.close(Duration::ZERO));
        let consumers = consumers.values().map(|reader| reader.consumer.close());
        let closing = async {
            drop(join_all(producers).await);
            drop(join_all(transactors).await);
            drop(join_all(consumers).await);
            drop(probe.close().await);
            let slots = [TopicSlot::T0, TopicSlot::T1, TopicSlot::T2];
            drop(join_all(slots.map(|slot| admin.delete_topic(names.topic(slot)))).await);
        };
        // What is left behind is only untidy.
        drop(tokio::time::timeout(GRACE, closing).await);
    }
}

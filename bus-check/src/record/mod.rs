//! `Recorded`: any bus, with the history of what its clients do.
//!
//! It stands at the traits, so that the same history is written on a real Kafka and on the
//! simulator, and it changes nothing of what passes through: no header is added, no call is made
//! that the application does not make. Two things are to be known:
//! - the outcomes of deliveries and commits are recorded where the backend completes them, also if
//!   the application drops them;
//! - a bus URL may override a client's configuration below this adapter, which records what the
//!   code says.

mod admin;
mod audit;
mod consumer;
mod outcomes;
mod pen;
mod producer;

use std::any::Any;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bus_core::{
    Admin, Assignor, Backend, BoxFuture, Bus, Consumer, ConsumerConfig, Offset, Partition,
    ProcessStart, Producer, ProducerConfig, ProducerRecord, Record, Result, Timestamp, Topic,
    TopicPartition, TransactionConfig, TransactionalProducer, Uuid,
};
use parking_lot::Mutex;

use crate::history::{
    ClientId, ConsumerFacts, Handled, History, Note, ProducerFacts, Role, Writer,
};
use pen::Pen;

/// What a history is written with. Cheap to clone; all clones write the same history.
///
/// ```
/// # async fn example(bus: &bus_core::Bus) -> bus_core::Result<()> {
/// use bus_check::Recorder;
///
/// let (bus, recorder) = Recorder::new(bus);
/// // Run the application on this bus, then:
/// recorder.quiesced();
/// recorder.audit().await?;
/// println!("{}", recorder.history());
/// # Ok(())
/// # }
/// ```
///
/// A run that may never end, such as one of a simulation with a limit, keeps a recorder outside of
/// it: [`Recorder::default`] makes one without a bus, [`record`](Self::record) adds that.
#[derive(Clone, Debug, Default)]
pub struct Recorder {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    writer: Mutex<Writer>,
    lives: Mutex<Lives>,
    cause_header: Option<String>,
}

/// Who lives: which process in which incarnation, and which consumer is which client.
#[derive(Debug, Default)]
struct Lives {
    incarnations: BTreeMap<String, u32>,
    /// By address, which is only looked up and never shown.
    consumers: BTreeMap<usize, Pen>,
    /// Under what the notes of a test stand.
    own: Option<ClientId>,
    /// The bus that is recorded, as it was before.
    bus: Option<Bus>,
}

impl Recorder {
    /// A bus like `bus` whose clients write a history, and what it is read with. Processes that the
    /// bus starts are recorded too.
    pub fn new(bus: &Bus) -> (Bus, Self) {
        let recorder = Self::default();
        (recorder.record(bus), recorder)
    }

    /// A recorder without a bus, which takes this header of a sent record, of the form
    /// `orders-0@17`, for the input that the record is made of. Duplicate and missing outputs are
    /// found by it.
    pub fn with_cause_header(name: impl Into<String>) -> Self {
        let shared = Shared { cause_header: Some(name.into()), ..Default::default() };
        Self { shared: Arc::new(shared) }
    }

    /// A bus like `bus` whose clients write the history. Notes and the audit are of the bus that
    /// was given last.
    pub fn record(&self, bus: &Bus) -> Bus {
        self.shared.lives.lock().bus = Some(bus.clone());
        self.of_process(bus, "main", 1)
    }

    /// The history so far.
    pub fn history(&self) -> History {
        self.shared.writer.lock().history().clone().settled()
    }

    /// The history, which is taken out; what comes later begins another one, without its clients.
    pub fn into_history(self) -> History {
        match Arc::try_unwrap(self.shared) {
            Ok(shared) => shared.writer.into_inner().into_history().settled(),
            Err(shared) => shared.writer.lock().history().clone().settled(),
        }
    }

    /// Notes that all faults are healed: from here on, progress is due.
    pub fn quiesced(&self) {
        self.note(|_| Note::Quiesced);
    }

    /// Notes that others, whose sends are not recorded, write to the topic too.
    pub fn foreign(&self, topic: &Topic) {
        self.note(|writer| Note::Foreign(writer.topic(topic)));
    }

    /// What the handling of records is noted with, if `consumer` was made by a bus of this
    /// recorder.
    pub fn handling(&self, consumer: &Arc<dyn Consumer>) -> Option<Handling> {
        let pen = self.shared.lives.lock().consumers.get(&address(consumer)).cloned()?;
        Some(Handling { pen })
    }

    fn note(&self, note: impl FnOnce(&mut Writer) -> Note) {
        let bus = self.shared.lives.lock().bus.clone();
        let at = bus.map_or(0, |bus| nanos(bus.elapsed()));
        let client = self.own(at);
        let mut writer = self.shared.writer.lock();
        let note = note(&mut writer);
        writer.note(at, client, note);
    }

    /// The client that notes stand under.
    fn own(&self, at: u64) -> ClientId {
        let mut lives = self.shared.lives.lock();
        *lives.own.get_or_insert_with(|| {
            let mut writer = self.shared.writer.lock();
            let process = writer.process("main");
            writer.client(at, (process, 1), Role::Admin)
        })
    }

    fn of_process(&self, bus: &Bus, process: &str, incarnation: u32) -> Bus {
        self.shared.writer.lock().set_scheme(bus.scheme());
        Bus::new(Arc::new(Recorded {
            bus: bus.clone(),
            recorder: self.clone(),
            process: process.to_owned(),
            incarnation,
        }))
    }

    /// The input that a record is made of.
    fn cause(&self, record: &ProducerRecord) -> Option<(TopicPartition, Offset)> {
        let name = self.shared.cause_header.as_ref()?;
        parse_place(record.headers.last_str(name)?)
    }
}

/// Notes of how an application handles the records of one consumer: what was begun, what is done.
/// Without them a record counts as handled when a poll returned it.
#[derive(Clone, Debug)]
pub struct Handling {
    pen: Pen,
}

impl Handling {
    /// The application begins to handle a record.
    pub fn start(&self, record: &Record) {
        self.pen.note_of(record, Note::HandleStart);
    }

    /// The application has settled a record.
    pub fn end(&self, record: &Record, handled: Handled) {
        self.pen.note_of(record, |partition, offset| Note::HandleEnd(partition, offset, handled));
    }
}

/// A backend around another one, which writes the history of its clients.
#[derive(Debug)]
struct Recorded {
    bus: Bus,
    recorder: Recorder,
    process: String,
    incarnation: u32,
}

impl Recorded {
    fn pen(&self, role: impl FnOnce(&mut Writer) -> Role) -> Pen {
        let at = nanos(self.bus.elapsed());
        let mut writer = self.recorder.shared.writer.lock();
        let process = writer.process(&self.process);
        let role = role(&mut writer);
        let client = writer.client(at, (process, self.incarnation), role);
        drop(writer);
        Pen { bus: self.bus.clone(), recorder: self.recorder.clone(), client }
    }
}

#[deny(clippy::missing_trait_methods, reason = "what an adapter leaves out is not recorded")]
impl Backend for Recorded {
    fn scheme(&self) -> &'static str {
        self.bus.scheme()
    }

    fn producer(&self, config: ProducerConfig) -> Result<Arc<dyn Producer>> {
        let facts = producer_facts(&config);
        let inner = self.bus.producer(config)?;
        let pen = self.pen(|_| Role::Producer(facts));
        Ok(Arc::new(producer::Recorded::new(inner, pen)))
    }

    fn transactional_producer(
        &self,
        config: ProducerConfig,
        transaction: TransactionConfig,
    ) -> Result<Arc<dyn TransactionalProducer>> {
        let mut facts = producer_facts(&config);
        let (id, timeout) = (transaction.transactional_id.clone(), transaction.transaction_timeout);
        let inner = self.bus.transactional_producer(config, transaction)?;
        let pen = self.pen(|writer| {
            facts.transaction = Some((writer.name(&id), timeout));
            Role::Producer(facts)
        });
        Ok(Arc::new(producer::Recorded::new(inner, pen)))
    }

    fn consumer(&self, config: ConsumerConfig) -> Result<Arc<dyn Consumer>> {
        let group = config.group_id.clone();
        let facts = ConsumerFacts {
            group: None,
            instance: config.group_instance_id.clone(),
            isolation: config.isolation_level,
            reset: config.auto_offset_reset,
            auto_commit: config.enable_auto_commit,
            auto_store: config.enable_auto_offset_store,
            session_timeout: config.session_timeout,
            max_poll_interval: config.max_poll_interval,
            max_poll_records: config.max_poll_records,
            is_cooperative: config.assignors.iter().copied().any(Assignor::is_cooperative),
        };
        let inner = self.bus.consumer(config)?;
        let pen = self.pen(|writer| {
            let group = group.map(|group| writer.name(&group));
            Role::Consumer(ConsumerFacts { group, ..facts })
        });
        let consumer: Arc<dyn Consumer> = Arc::new(consumer::Recorded::new(inner, pen.clone()));
        self.recorder.shared.lives.lock().consumers.insert(address(&consumer), pen);
        Ok(consumer)
    }

    fn admin(&self) -> Result<Arc<dyn Admin>> {
        let inner = self.bus.admin()?;
        let pen = self.pen(|_| Role::Admin);
        Ok(Arc::new(admin::Recorded { inner, pen }))
    }

    fn now(&self) -> Timestamp {
        self.bus.now()
    }

    fn elapsed(&self) -> Duration {
        self.bus.elapsed()
    }

    fn new_id(&self) -> Uuid {
        self.bus.new_id()
    }

    fn spawn(&self, name: &str, task: BoxFuture<'static, ()>) {
        drop(self.bus.spawn(name, task));
    }

    fn process(&self, name: &str, start: ProcessStart) {
        let (recorder, process) = (self.recorder.clone(), name.to_owned());
        self.bus.process(name, move |bus| {
            let incarnation = {
                let mut lives = recorder.shared.lives.lock();
                let incarnation = lives.incarnations.entry(process.clone()).or_default();
                *incarnation += 1;
                *incarnation
            };
            start(recorder.of_process(&bus, &process, incarnation))
        });
    }

    fn native(&self) -> &dyn Any {
        self.bus.native()
    }
}

const fn producer_facts(config: &ProducerConfig) -> ProducerFacts {
    ProducerFacts {
        acks: config.acks,
        idempotence: config.enable_idempotence,
        max_in_flight: config.max_in_flight,
        retries: config.retries,
        delivery_timeout: config.delivery_timeout,
        transaction: None,
    }
}

fn address(consumer: &Arc<dyn Consumer>) -> usize {
    Arc::as_ptr(consumer).cast::<()>().addr()
}

fn nanos(elapsed: Duration) -> u64 {
    u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX)
}

/// Reads `orders-0@17`.
fn parse_place(text: &str) -> Option<(TopicPartition, Offset)> {
    let (place, offset) = text.rsplit_once('@')?;
    let (topic, partition) = place.rsplit_once('-')?;
    let partition: Partition = partition.parse().ok()?;
    Some((TopicPartition::new(topic, partition), offset.parse().ok()?))
}

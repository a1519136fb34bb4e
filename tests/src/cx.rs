//! `Cx`: what a case is handed. A recorded bus, names of its own, clients that are quick, waiting
//! without sleeping, and the powers of the backend.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bus_core::{
    Admin, Bus, ConsumerConfig, IsolationLevel, NewTopic, Partition, Producer, ProducerConfig,
    ProducerExt, ProducerRecord, Record, RecordMetadata, Result, StartAt, Subscription, Topic,
    TopicPartition, TransactionConfig, TransactionalProducer,
};
use futures_util::future::try_join_all;
use parking_lot::Mutex;

use crate::failure::{Failure, FailureKind, Verdict};
use crate::fixture::{Fault, Fixture};
use crate::history::{Client, ClientId, Entry, Event, History};
use crate::oracle::Law;
use crate::process::Process;
use crate::reader::Reader;
use crate::recorded::recorded;
use crate::script::{Role, Script};

/// How long one poll of a waiting case takes at most.
pub const STEP: Duration = Duration::from_millis(50);

/// For how long a case waits for what must come, in the time of the bus.
const PATIENCE: Duration = Duration::from_secs(30);

/// How often a case tries, should that take no time.
const ATTEMPTS: usize = 200_000;

/// What a case is handed. Cheap to clone.
#[derive(Clone)]
pub struct Cx(Arc<Inner>);

struct Inner {
    fixture: Arc<dyn Fixture>,
    raw: Bus,
    bus: Bus,
    history: History,
    own: ClientId,
    /// In every name, so that cases on one cluster do not meet.
    unique: String,
    names: AtomicUsize,
    values: AtomicUsize,
    partitions: Mutex<BTreeMap<Topic, Partition>>,
    admin: Arc<dyn Admin>,
    publisher: Arc<dyn Producer>,
}

impl fmt::Debug for Cx {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Cx").field(&self.0.unique).finish()
    }
}

impl Cx {
    /// A context on a fresh world; `unique` is a part of all names.
    ///
    /// # Errors
    /// If the clients that every case needs cannot be made.
    pub fn new(fixture: Arc<dyn Fixture>, unique: String) -> Result<Self> {
        let raw = fixture.bus();
        let history = History::default();
        let bus = recorded(&raw, &history);
        let own = history.client(raw.elapsed(), raw.now(), Client::Admin);
        let admin = bus.admin()?;
        let publisher = bus.producer(quick_producer())?;
        let (names, values) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let partitions = Mutex::default();
        Ok(Self(Arc::new(Inner {
            fixture,
            raw,
            bus,
            history,
            own,
            unique,
            names,
            values,
            partitions,
            admin,
            publisher,
        })))
    }

    /// The bus; all that its clients do is in the history.
    pub fn bus(&self) -> &Bus {
        &self.0.bus
    }

    /// The bus without the history, for the oracle's own reading.
    pub fn raw_bus(&self) -> &Bus {
        &self.0.raw
    }

    /// The backend.
    pub fn fixture(&self) -> &dyn Fixture {
        &*self.0.fixture
    }

    /// The history so far.
    pub fn history(&self) -> &History {
        &self.0.history
    }

    /// Administration, recorded.
    pub fn admin(&self) -> &dyn Admin {
        &*self.0.admin
    }

    /// Whether waiting costs no real time.
    pub fn is_virtual_time(&self) -> bool {
        self.0.fixture.is_virtual_time()
    }

    /// A bus of its own on the same cluster, in the same history.
    ///
    /// # Errors
    /// Whatever the backend says.
    pub async fn another_bus(&self) -> Result<Bus> {
        Ok(recorded(&self.0.fixture.another_bus().await?, &self.0.history))
    }

    /// A name that no other case has, for a topic or a group.
    pub fn name(&self, what: &str) -> String {
        let n = self.0.names.fetch_add(1, Ordering::Relaxed);
        format!("{}-{what}-{n}", self.0.unique)
    }

    /// Makes a topic of so many partitions.
    ///
    /// # Errors
    /// Whatever the backend says.
    pub async fn topic(&self, partitions: Partition) -> Result<Topic> {
        self.create(NewTopic::new(self.name("topic")).partitions(partitions)).await
    }

    /// The topics that this case has made.
    pub fn topics(&self) -> Vec<Topic> {
        self.0.partitions.lock().keys().cloned().collect()
    }

    /// Makes this topic.
    ///
    /// # Errors
    /// Whatever the backend says.
    pub async fn create(&self, new: NewTopic) -> Result<Topic> {
        let (topic, partitions) = (new.topic.clone(), new.partitions);
        self.0.admin.create_topic(new).await?;
        self.0.partitions.lock().insert(topic.clone(), partitions);
        Ok(topic)
    }

    /// Makes a producer that does not linger.
    ///
    /// # Errors
    /// Whatever the backend says.
    pub fn producer(&self) -> Result<Arc<dyn Producer>> {
        self.0.bus.producer(quick_producer())
    }

    /// Makes a producer of transactions that does not linger, and initializes it.
    ///
    /// # Errors
    /// Whatever the backend says.
    pub async fn transactional(
        &self,
        transactional_id: &str,
    ) -> Result<Arc<dyn TransactionalProducer>> {
        self.transactional_with(quick_producer(), TransactionConfig::new(transactional_id)).await
    }

    /// Makes a producer of transactions of this configuration, and initializes it.
    ///
    /// # Errors
    /// Whatever the backend says.
    pub async fn transactional_with(
        &self,
        config: ProducerConfig,
        transaction: TransactionConfig,
    ) -> Result<Arc<dyn TransactionalProducer>> {
        let producer = self.0.bus.transactional_producer(config, transaction)?;
        producer.init_transactions().await?;
        Ok(producer)
    }

    /// Sends so many records with values of their own to one partition, all of them as soon as
    /// possible, and waits until they are acknowledged.
    ///
    /// # Errors
    /// The first that a delivery has.
    pub async fn send_to(
        &self,
        producer: &(impl ProducerExt + ?Sized),
        place: &TopicPartition,
        records: usize,
    ) -> Result<Vec<RecordMetadata>> {
        let records: Vec<_> = (0..records).map(|_| self.record(place)).collect();
        producer.send_all(records).await.into_iter().collect()
    }

    /// Sends so many records with values of their own, in turn to each partition of the topic, and
    /// waits until they are acknowledged.
    ///
    /// # Errors
    /// The first that a delivery has.
    pub async fn publish(&self, topic: &Topic, records: usize) -> Result<Vec<RecordMetadata>> {
        let partitions = self.0.partitions.lock().get(topic).copied().unwrap_or(1);
        let places = (0..partitions).cycle().map(|partition| TopicPartition::new(topic, partition));
        self.publish_records(places.take(records).map(|place| self.record(&place))).await
    }

    /// Sends so many records with values of their own to one partition, and waits until they are
    /// acknowledged.
    ///
    /// # Errors
    /// The first that a delivery has.
    pub async fn publish_to(
        &self,
        place: &TopicPartition,
        records: usize,
    ) -> Result<Vec<RecordMetadata>> {
        self.publish_records((0..records).map(|_| self.record(place))).await
    }

    /// Sends these records, and waits until they are acknowledged.
    ///
    /// # Errors
    /// The first that a delivery has.
    pub async fn publish_records(
        &self,
        records: impl IntoIterator<Item = ProducerRecord>,
    ) -> Result<Vec<RecordMetadata>> {
        let records: Vec<_> = records.into_iter().collect();
        self.0.publisher.send_all(records).await.into_iter().collect()
    }

    /// A record for this partition, with a value that no other record of the case has.
    pub fn record(&self, place: &TopicPartition) -> ProducerRecord {
        let n = self.0.values.fetch_add(1, Ordering::Relaxed);
        ProducerRecord::to(&place.topic).partition(place.partition).value(format!("value {n}"))
    }

    /// The configuration of a group's member that learns of changes quickly.
    pub fn member_config(&self, group_id: &str) -> ConsumerConfig {
        ConsumerConfig {
            session_timeout: Duration::from_secs(10),
            heartbeat_interval: Duration::from_millis(100),
            max_poll_interval: Duration::from_secs(20),
            ..quick_consumer(ConsumerConfig::in_group(group_id))
        }
    }

    /// A member of the group that reads the topic.
    ///
    /// # Errors
    /// Whatever the backend says.
    pub fn member(&self, group_id: &str, topic: &Topic) -> Result<Reader> {
        self.subscribed(self.member_config(group_id), Subscription::topics([topic]))
    }

    /// A consumer of this configuration and subscription.
    ///
    /// # Errors
    /// Whatever the backend says.
    pub fn subscribed(&self, config: ConsumerConfig, to: Subscription) -> Result<Reader> {
        let consumer = self.0.bus.consumer(config)?;
        consumer.subscribe(to)?;
        Ok(Reader::new(consumer))
    }

    /// A consumer outside of any group that reads these partitions.
    ///
    /// # Errors
    /// Whatever the backend says.
    pub fn assigned(&self, partitions: &[(TopicPartition, StartAt)]) -> Result<Reader> {
        let consumer = self.0.bus.consumer(quick_consumer(ConsumerConfig::default()))?;
        consumer.assign(partitions)?;
        Ok(Reader::new(consumer))
    }

    /// A consumer outside of any group that reads these partitions from their start, at an
    /// isolation level.
    ///
    /// # Errors
    /// Whatever the backend says.
    pub fn isolated(
        &self,
        isolation_level: IsolationLevel,
        partitions: &[TopicPartition],
    ) -> Result<Reader> {
        let config = quick_consumer(ConsumerConfig { isolation_level, ..Default::default() });
        let consumer = self.0.bus.consumer(config)?;
        let from: Vec<_> =
            partitions.iter().map(|place| (place.clone(), StartAt::Beginning)).collect();
        consumer.assign(&from)?;
        Ok(Reader::new(consumer))
    }

    /// Reads so many records of one partition from its start.
    ///
    /// # Errors
    /// A deadline, if they do not come.
    pub async fn read(&self, place: &TopicPartition, records: usize) -> Verdict<Vec<Record>> {
        let reader = self.assigned(&[(place.clone(), StartAt::Beginning)])?;
        self.drive(&[&reader], "all records are read", || reader.count() >= records).await?;
        Ok(reader.records())
    }

    /// Polls the readers side by side until the condition holds.
    ///
    /// # Errors
    /// The first error of a poll; a deadline, if the condition does not come to hold.
    pub async fn drive(
        &self,
        readers: &[&Reader],
        what: &str,
        condition: impl Fn() -> bool,
    ) -> Verdict {
        self.until(what, async || {
            if condition() {
                return Ok(Some(()));
            }
            try_join_all(readers.iter().map(|reader| reader.step(STEP))).await?;
            Ok(None)
        })
        .await
    }

    /// Polls the readers side by side for so long, in the time of the bus.
    ///
    /// # Errors
    /// The first error of a poll.
    pub async fn drive_for(&self, readers: &[&Reader], time: Duration) -> Verdict {
        let until = self.bus().elapsed() + time;
        while self.bus().elapsed() < until {
            try_join_all(readers.iter().map(|reader| reader.step(STEP))).await?;
        }
        Ok(())
    }

    /// Repeats `attempt`, which lets time pass, until it gives a value.
    ///
    /// # Errors
    /// What `attempt` says; a deadline, if it gives none for too long.
    #[track_caller]
    pub fn until<T>(
        &self,
        what: &str,
        mut attempt: impl AsyncFnMut() -> Verdict<Option<T>>,
    ) -> impl Future<Output = Verdict<T>> {
        let late = Failure::new(FailureKind::Deadline, format!("{what}: not within {PATIENCE:?}"));
        async move {
            let deadline = self.bus().elapsed() + PATIENCE;
            for _ in 0..ATTEMPTS {
                if let Some(value) = attempt().await? {
                    return Ok(value);
                }
                if self.bus().elapsed() > deadline {
                    break;
                }
            }
            Err(late)
        }
    }

    /// Starts a process that plays a role on the topic.
    ///
    /// # Errors
    /// Why it cannot be started.
    pub async fn process(&self, topic: &Topic, role: Role) -> Verdict<Process> {
        let reports = self.name("reports");
        self.raw_bus().admin()?.create_topic(NewTopic::new(reports.as_str())).await?;
        self.0.partitions.lock().insert(reports.as_str().into(), 1);
        let script = Script { topic: topic.to_string(), reports: reports.clone(), role };
        self.note(Event::Foreign(topic.clone()));
        if let Some((transactional_id, output)) = script.role.transactions() {
            self.note(Event::ForeignTransactions(transactional_id.to_owned()));
            self.note(Event::Foreign(output.unwrap_or(topic.as_str()).into()));
        }
        let name = self.name("process");
        self.0.fixture.start(&name, script).map_err(Failure::assertion)?;
        Process::new(self, name, &Topic::from(reports))
    }

    /// Makes something fail, or work again.
    ///
    /// # Errors
    /// Why it cannot be done.
    pub fn inflict(&self, fault: &Fault) -> Verdict {
        self.note(Event::Inflicted(fault.clone()));
        self.0.fixture.inflict(fault).map_err(Failure::assertion)
    }

    /// States that this case makes a law impossible to keep.
    pub fn excuse(&self, law: Law, reason: &'static str) {
        self.note(Event::Excused { law, reason });
    }

    /// Adds to the history what no client of it can.
    pub fn note(&self, event: Event) {
        let Inner { raw, history, own, .. } = &*self.0;
        history.push(Entry { at: raw.elapsed(), now: raw.now(), client: *own, event });
    }
}

/// The configuration of a producer that does not linger.
pub fn quick_producer() -> ProducerConfig {
    ProducerConfig { linger: Duration::ZERO, ..Default::default() }
}

/// The same configuration with fetches that end soon, so that closing does not wait for them.
pub fn quick_consumer(config: ConsumerConfig) -> ConsumerConfig {
    ConsumerConfig { fetch_max_wait: Duration::from_millis(100), ..config }
}

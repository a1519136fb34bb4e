//! One storm: producers and a group at work while the faults of the plan strike, and the reckoning
//! when all is healed.

use std::time::Duration;

use bus_core::{
    Bus, ConsumerConfig, ConsumerExt as _, ErrorKind, NewTopic, ProducerConfig, ProducerRecord,
    Record, Result, StartAt, Subscription, TopicPartition,
};
use bus_sim::SimHandle;
use bus_sim::digest::Digest;
use bus_sim::fault::CommitFate;

use crate::HORIZON;
use crate::ledger::Ledger;

pub(crate) const TOPIC: &str = "orders";
pub(crate) const PARTITIONS: i32 = 3;
/// Where members note what they have seen.
pub(crate) const DATABASE: &str = "books";
/// How many records each of the two producers sends.
const RECORDS: u32 = 100;

/// What came of a storm.
pub(crate) struct Verdict {
    /// What is wrong.
    pub(crate) wrong: Vec<String>,
    /// A digest of what clients saw, and of when they were done.
    pub(crate) outcome: u64,
}

impl Verdict {
    pub(crate) fn wrong(why: String) -> Self {
        Self { outcome: Digest::of(&why), wrong: vec![why] }
    }
}

pub(crate) async fn storm(sim: SimHandle) -> Result<Verdict> {
    let bus = sim.bus();
    create_topic(&bus).await?;
    let ledger = Ledger::default();
    for n in 0..3 {
        let (ledger, sim, name) = (Ledger::clone(&ledger), sim.clone(), format!("member-{n}"));
        bus.process(&name.clone(), move |bus| {
            let books = Books { sim: sim.clone(), name: name.clone() };
            let ledger = Ledger::clone(&ledger);
            // It ends only when its process crashes.
            async move { drop(consume(bus, books, ledger).await) }
        });
    }
    let producers: Vec<_> = ["a", "b"]
        .map(|name| bus.spawn(name, produce(bus.clone(), name, Ledger::clone(&ledger))))
        .into();
    tokio::time::sleep(HORIZON).await;
    for producer in producers {
        producer.await??;
    }
    // The members go on, too.
    produce(bus.clone(), "last", Ledger::clone(&ledger)).await?;
    let last = format!("last:{}", RECORDS - 1);
    while !ledger.lock().expect("no panic holds it").is_seen(&last) {
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    let log = read_all(&bus).await?;
    let mut ledger = ledger.lock().expect("no panic holds it");
    let seen = format!("{:?} {:?} {:?} {:?}", ledger.sent, ledger.seen, ledger.noted, sim.now());
    Ok(Verdict { wrong: ledger.judge(&log), outcome: Digest::of(&seen) })
}

/// Faults may strike here, too: an attempt that failed may have made the topic.
async fn create_topic(bus: &Bus) -> Result<()> {
    let admin = bus.admin()?;
    loop {
        let topic = NewTopic::new(TOPIC).partitions(PARTITIONS).replication_factor(3);
        match admin.create_topic(topic.config("min.insync.replicas", "2")).await {
            Err(error) if error.kind() == ErrorKind::TopicAlreadyExists => return Ok(()),
            Err(error) if error.is_indeterminate() => {}
            outcome => return outcome,
        }
    }
}

/// Sends numbered records, a few at a time, and writes down what became of each.
async fn produce(bus: Bus, name: &'static str, ledger: Ledger) -> Result<()> {
    let config = ProducerConfig { delivery_timeout: Duration::from_secs(20), ..Default::default() };
    let producer = bus.producer(config)?;
    for numbers in (0..RECORDS).collect::<Vec<_>>().chunks(10) {
        let mut deliveries = Vec::new();
        for n in numbers {
            let value = format!("{name}:{n}");
            let record = ProducerRecord::to(TOPIC).key(format!("key-{}", n % 7));
            deliveries.push((value.clone(), producer.send(record.value(value))));
        }
        for (value, delivery) in deliveries {
            let outcome = delivery.await;
            ledger.lock().expect("no panic holds it").sent.insert(value, outcome);
        }
        tokio::time::sleep(Duration::from_millis(600)).await;
    }
    producer.close(Duration::from_secs(30)).await
}

/// The database of a member.
struct Books {
    sim: SimHandle,
    name: String,
}

impl Books {
    /// Notes what was seen. Returns what is known of that.
    async fn note(&self) -> &'static str {
        match self.sim.commits(&self.name, DATABASE) {
            CommitFate::Ordinary => "noted",
            CommitFate::Refused => "refused",
            CommitFate::Lost | CommitFate::AnswerLost => "unknown",
            CommitFate::Late(by) => {
                tokio::time::sleep(by).await;
                "noted"
            }
            CommitFate::Crashed => std::future::pending().await,
        }
    }
}

async fn consume(bus: Bus, books: Books, ledger: Ledger) -> Result<()> {
    let consumer = bus.consumer(ConsumerConfig {
        heartbeat_interval: Duration::from_millis(100),
        session_timeout: Duration::from_secs(2),
        max_poll_records: 10,
        ..ConsumerConfig::in_group("g")
    })?;
    consumer.subscribe(Subscription::topics([TOPIC]))?;
    loop {
        for record in consumer.poll_records(Duration::from_millis(500)).await? {
            ledger.lock().expect("no panic holds it").saw(&record);
            let noted = (books.name.clone(), books.note().await);
            ledger.lock().expect("no panic holds it").noted.push(noted);
            // A member that lost the partition meanwhile is fenced; it goes on polling.
            drop(consumer.commit_record(&record).await);
        }
    }
}

/// Reads every partition from its beginning to its end.
async fn read_all(bus: &Bus) -> Result<Vec<Record>> {
    let consumer = bus.consumer(ConsumerConfig::default())?;
    let partitions: Vec<_> = (0..PARTITIONS).map(|n| TopicPartition::new(TOPIC, n)).collect();
    let start: Vec<_> = partitions.iter().map(|p| (p.clone(), StartAt::Beginning)).collect();
    consumer.assign(&start)?;
    let mut log = Vec::new();
    for partition in &partitions {
        let end = consumer.watermarks(partition).await?.high;
        while consumer.position(partition)?.unwrap_or(0) < end {
            log.extend(consumer.poll_records(Duration::from_secs(1)).await?);
        }
    }
    consumer.close().await?;
    log.sort_by_key(|record: &Record| (record.topic_partition(), record.offset));
    Ok(log)
}

//! Transactions in storms: however often processes and brokers crash, pause, and lose what they
//! send, a reader of committed records sees each transaction whole or not at all, and every record
//! that is copied by consume, process, produce exactly once.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bus_core::{
    Bus, Consumer, ConsumerConfig, ConsumerExt, NewTopic, OffsetAndMetadata, ProducerConfig,
    ProducerRecord, Record, Recovery, Result, StartAt, Subscription, TopicPartition,
    TransactionConfig, TransactionalProducer,
};
use bus_sim::{Sim, SimConfig, SimHandle};

use crate::common::{produce, quick_member};
use crate::storm::{Dice, rage};

/// How many seeds a test tries.
const SEEDS: u64 = 12;
/// The seed of the first.
const FIRST: u64 = 0;
const PARTITIONS: i32 = 2;

/// Names the seed of a run that panics.
#[derive(Debug)]
struct Seed(u64);

impl Drop for Seed {
    #[expect(clippy::print_stderr, reason = "the message of a panic cannot be changed")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("seed {}", self.0);
        }
    }
}

fn run<F, T>(seed: u64, app: impl FnOnce(SimHandle, Dice) -> F) -> T
where
    F: Future<Output = Result<T>>,
{
    let _seed = Seed(seed);
    let mut dice = Dice::new(seed);
    let config = SimConfig {
        seed,
        brokers: dice.pick(&[1, 1, 3]),
        transaction_version: dice.pick(&[1, 1, 2]),
        // A bug of librdkafka that loses records; a story shows it.
        abort_reuses_sequences: false,
        time_limit: Duration::from_secs(3 * 3600),
        ..Default::default()
    };
    let outcome = Sim::new(config).expect("a valid configuration").run(|sim| app(sim, dice));
    match outcome.result {
        Ok(Ok(output)) => output,
        Ok(Err(error)) => panic!("{error:?}"),
        Err(stalled) => panic!("{stalled}"),
    }
}

/// Creates the topics, and says how many brokers there are.
async fn topics(bus: &Bus, dice: &mut Dice, names: &[&str]) -> Result<i32> {
    let admin = bus.admin()?;
    let brokers = admin.describe_cluster().await?.brokers.len();
    let replicas = if brokers >= 3 { dice.pick(&[1, 3]) } else { 1 };
    for name in names {
        let topic = NewTopic::new(*name).partitions(PARTITIONS).replication_factor(replicas);
        admin.create_topic(topic).await?;
    }
    Ok(i32::try_from(brokers).expect("few"))
}

fn transaction(id: &str) -> TransactionConfig {
    TransactionConfig { transaction_timeout: Duration::from_secs(15), ..TransactionConfig::new(id) }
}

/// A producer that can begin. It is tried until there is one.
async fn transactional(bus: &Bus, id: &str) -> Result<Arc<dyn TransactionalProducer>> {
    let producer = bus.transactional_producer(ProducerConfig::default(), transaction(id))?;
    while let Err(error) = producer.init_transactions().await {
        if error.recovery() != Recovery::Retry {
            return Err(error);
        }
    }
    Ok(producer)
}

/// Calls until the outcome is not "call again".
async fn persist<F: Future<Output = Result<()>>>(call: impl Fn() -> F) -> Result<()> {
    loop {
        match call().await {
            Err(error) if error.recovery() == Recovery::Retry => {}
            outcome => return outcome,
        }
    }
}

/// Reads committed records of all partitions for ever.
async fn reader(bus: &Bus, topics: &[&str]) -> Result<Arc<dyn Consumer>> {
    let consumer = bus.consumer(ConsumerConfig::default())?;
    let places = topics.iter().flat_map(|topic| {
        (0..PARTITIONS)
            .map(|partition| (TopicPartition::new(*topic, partition), StartAt::Beginning))
    });
    consumer.assign(&places.collect::<Vec<_>>())?;
    Ok(consumer)
}

fn text(record: &Record) -> String {
    String::from_utf8_lossy(record.value.as_deref().unwrap_or(b"")).into_owned()
}

/// Longer than the delays that a storm leaves behind.
const QUIET: Duration = Duration::from_secs(200);

/// Reads until there was nothing to read for as long as this.
async fn read_all(bus: &Bus, topics: &[&str], quiet: Duration) -> Result<Vec<Record>> {
    let consumer = reader(bus, topics).await?;
    let mut records = Vec::new();
    let mut last = bus.elapsed();
    while bus.elapsed() < last + quiet {
        let polled = consumer.poll_records(quiet / 10).await?;
        if !polled.is_empty() {
            last = bus.elapsed();
        }
        records.extend(polled);
    }
    Ok(records)
}

/// Copies records from one topic to another, each batch in a transaction with its offsets.
async fn copy(bus: &Bus, id: &str) -> Result<()> {
    let producer = transactional(bus, id).await?;
    let consumer = bus.consumer(quick_member("copiers"))?;
    consumer.subscribe(Subscription::topics(["in"]))?;
    loop {
        let records = consumer.poll_records(Duration::from_millis(500)).await?;
        if records.is_empty() {
            continue;
        }
        producer.begin()?;
        match copy_batch(&*producer, &*consumer, &records).await {
            Ok(()) => {}
            Err(error) if error.recovery() == Recovery::Abort => {
                persist(|| producer.abort()).await?;
                rewind(&*consumer).await?;
            }
            Err(error) => return Err(error),
        }
    }
}

async fn copy_batch(
    producer: &dyn TransactionalProducer,
    consumer: &dyn Consumer,
    records: &[Record],
) -> Result<()> {
    let mut offsets = BTreeMap::new();
    for record in records {
        let copy = ProducerRecord::to("out").partition(record.partition).value(text(record));
        // A failed delivery fails the commit.
        drop(producer.send(copy));
        let place = TopicPartition::new(&record.topic, record.partition);
        offsets.insert(place, OffsetAndMetadata::from(record.offset + 1));
    }
    let offsets = offsets.into_iter().collect::<Vec<_>>();
    let group = consumer.group_metadata().expect("it is a member");
    loop {
        match producer.send_offsets(&offsets, &group).await {
            Err(error) if error.recovery() == Recovery::Retry => {}
            Ok(()) => break,
            // A member that lost its partitions has nothing to commit.
            Err(error) if error.recovery() == Recovery::Rejoin => {
                return Err(error.with_recovery(Recovery::Abort));
            }
            Err(error) => return Err(error),
        }
    }
    persist(|| producer.commit()).await
}

/// Goes back to what is committed.
async fn rewind(consumer: &dyn Consumer) -> Result<()> {
    let places = consumer.assignment();
    let committed = consumer.committed(&places).await?;
    for (place, committed) in places.iter().zip(committed) {
        let to = committed.map_or(StartAt::Beginning, |at| StartAt::Offset(at.offset));
        // A partition that went away meanwhile needs none.
        drop(consumer.seek(place, to).await);
    }
    Ok(())
}

async fn copy_for_ever(bus: Bus, id: String) {
    loop {
        drop(copy(&bus, &id).await);
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

fn copies_exactly_once(seed: u64) {
    run::<_, ()>(seed, |sim, mut dice| async move {
        let bus = sim.bus();
        let brokers = topics(&bus, &mut dice, &["in", "out"]).await?;
        let processes = ["copier-0", "copier-1"];
        for name in processes {
            let id = name.to_owned();
            bus.process(name, move |bus| copy_for_ever(bus, id.clone()));
        }
        let count = u32::try_from(20 + dice.below(200)).expect("few");
        let feed = bus.spawn("feed", {
            let bus = bus.clone();
            async move { produce(&bus, "in", count).await }
        });
        rage(&sim, &mut dice, &processes, brokers).await?;
        feed.await??;
        let consumer = reader(&bus, &["out"]).await?;
        let mut seen = BTreeMap::<String, u32>::new();
        let begun = bus.elapsed();
        while seen.len() < count as usize {
            assert!(
                bus.elapsed() < begun + Duration::from_secs(1_800),
                "{} of {count}",
                seen.len()
            );
            for record in consumer.poll_records(Duration::from_secs(1)).await? {
                *seen.entry(text(&record)).or_default() += 1;
            }
        }
        drop(consumer);
        let records = read_all(&bus, &["out"], QUIET).await?;
        check_order(&records);
        let values = records.iter().map(text).collect::<Vec<_>>();
        assert_eq!(values.len(), count as usize, "each once: {values:?}");
        Ok(())
    });
}

/// Records of one input partition are in their order.
fn check_order(records: &[Record]) {
    let mut last = BTreeMap::new();
    for record in records {
        let value = text(record).parse::<u32>().expect("a number");
        let key = (record.partition, value % 7);
        let before = last.insert(key, value);
        assert!(before.is_none_or(|before| before < value), "{before:?} before {value}");
    }
}

#[test]
fn consume_process_produce_is_exactly_once() {
    for seed in FIRST..FIRST + SEEDS {
        copies_exactly_once(seed);
    }
}

/// The process that copies crashes at a moment, counted from when it was started, and starts again.
/// Returns what was copied, and when all of it was there.
fn copy_with_a_crash(at: Option<Duration>) -> (Vec<String>, Duration) {
    let config = SimConfig { abort_reuses_sequences: false, ..Default::default() };
    let outcome = Sim::new(config).expect("a valid configuration").run(|sim| async move {
        let bus = sim.bus();
        topics(&bus, &mut Dice::new(0), &["in", "out"]).await?;
        produce(&bus, "in", 25).await?;
        let begun = bus.elapsed();
        bus.process("copier", |bus| copy_for_ever(bus, "copier".to_owned()));
        if let Some(at) = at {
            tokio::time::sleep(at).await;
            sim.crash("copier")?;
            sim.restart("copier")?;
        }
        let consumer = reader(&bus, &["out"]).await?;
        let mut seen = 0;
        while seen < 25 {
            seen += consumer.poll_records(Duration::from_secs(1)).await?.len();
        }
        let took = bus.elapsed() - begun;
        Ok((read_all(&bus, &["out"], Duration::from_secs(1)).await?, took))
    });
    let (records, took) = crate::common::output(outcome);
    check_order(&records);
    (records.iter().map(text).collect(), took)
}

#[test]
fn a_copier_may_crash_at_any_moment() {
    let (_, took) = copy_with_a_crash(None);
    for at in (0..60).map(|n| took * n / 60) {
        let (mut copied, _) = copy_with_a_crash(Some(at));
        copied.sort_by_key(|value| value.parse::<u32>().expect("a number"));
        let expected = (0..25).map(|n| n.to_string()).collect::<Vec<_>>();
        assert_eq!(copied, expected, "a crash after {at:?}");
    }
}

/// What an application knows of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Known {
    /// Neither commit nor abort was called.
    Begun,
    /// It was called, and nobody knows.
    Committing,
    Committed,
    /// By the application, or the commit failed for sure.
    Aborted,
}

/// Each transaction by its name: how many records it has, and what is known of it.
type Ledger = Arc<Mutex<BTreeMap<String, (u64, Known)>>>;

fn note(ledger: &Ledger, name: &str, size: u64, known: Known) {
    ledger.lock().expect("no panic holds it").insert(name.to_owned(), (size, known));
}

/// Writes transactions of random sizes to random partitions, and commits or aborts them.
async fn write(bus: &Bus, id: &str, dice: &mut Dice, ledger: &Ledger) -> Result<()> {
    let producer = transactional(bus, id).await?;
    for _ in 0..15 {
        let name = bus.new_id().to_string();
        let size = 1 + dice.below(6);
        note(ledger, &name, size, Known::Begun);
        producer.begin()?;
        let mut deliveries = Vec::new();
        for n in 0..size {
            let topic = dice.pick(&["a", "b"]);
            let partition = i32::try_from(dice.below(2)).expect("few");
            let value = format!("{name}:{n}");
            deliveries
                .push(producer.send(ProducerRecord::to(topic).partition(partition).value(value)));
            if dice.chance(30) {
                tokio::time::sleep(dice.millis(300)).await;
            }
        }
        if dice.chance(30) {
            for delivery in deliveries {
                // A failed delivery fails the commit.
                drop(delivery.await);
            }
        }
        let commits = dice.chance(70);
        let outcome = if commits {
            note(ledger, &name, size, Known::Committing);
            persist(|| producer.commit()).await
        } else {
            persist(|| producer.abort()).await
        };
        match outcome {
            Ok(()) if commits => note(ledger, &name, size, Known::Committed),
            Ok(()) => note(ledger, &name, size, Known::Aborted),
            Err(error) => {
                if commits && !error.is_indeterminate() {
                    note(ledger, &name, size, Known::Aborted);
                }
                if error.recovery() != Recovery::Abort {
                    return Err(error);
                }
                persist(|| producer.abort()).await?;
            }
        }
    }
    producer.close(Duration::from_secs(30)).await
}

async fn write_for_ever(bus: Bus, id: String, seed: u64, ledger: Ledger) {
    let mut dice = Dice::new(seed);
    loop {
        drop(write(&bus, &id, &mut dice, &ledger).await);
        tokio::time::sleep(dice.millis(1_000)).await;
    }
}

/// Sends plain records between the transactions; each that is acknowledged must be read once.
async fn chatter(bus: Bus, acknowledged: Arc<Mutex<Vec<String>>>) {
    let Ok(producer) = bus.producer(ProducerConfig::default()) else { return };
    for n in 0..40 {
        let value = format!("plain-{n}");
        let record = ProducerRecord::to("a").partition(n % 2).value(value.clone());
        if producer.send(record).await.is_ok() {
            acknowledged.lock().expect("no panic holds it").push(value);
        }
        tokio::time::sleep(Duration::from_millis(150)).await;
    }
}

/// Returns how many were committed.
fn transactions_are_whole(seed: u64) -> u32 {
    run(seed, |sim, mut dice| async move {
        let bus = sim.bus();
        let brokers = topics(&bus, &mut dice, &["a", "b"]).await?;
        let ledger = Ledger::default();
        let acknowledged = Arc::new(Mutex::new(Vec::new()));
        let processes = ["writer-0", "writer-1", "writer-2"];
        for (name, id) in processes.into_iter().zip(["x", "y", "y"]) {
            let (ledger, seed) = (Arc::clone(&ledger), dice.below(u64::MAX));
            bus.process(name, move |bus| {
                write_for_ever(bus, id.to_owned(), seed, Arc::clone(&ledger))
            });
        }
        let chatting = bus.spawn("chatter", chatter(bus.clone(), Arc::clone(&acknowledged)));
        rage(&sim, &mut dice, &processes, brokers).await?;
        tokio::time::sleep(Duration::from_secs(20)).await;
        chatting.await?;
        for process in processes {
            sim.crash(process)?;
        }
        check_whole(&bus, &ledger, &acknowledged).await
    })
}

async fn check_whole(bus: &Bus, ledger: &Ledger, acknowledged: &Mutex<Vec<String>>) -> Result<u32> {
    // What was left open is aborted by then.
    tokio::time::sleep(Duration::from_secs(120)).await;
    let mut seen = BTreeMap::<String, u32>::new();
    for record in read_all(bus, &["a", "b"], QUIET).await? {
        *seen.entry(text(&record)).or_default() += 1;
    }
    assert!(seen.values().all(|count| *count == 1), "each once: {seen:?}");
    for plain in acknowledged.lock().expect("no panic holds it").iter() {
        assert!(seen.contains_key(plain), "{plain} was acknowledged");
    }
    let mut committed = 0;
    for (name, (size, known)) in ledger.lock().expect("no panic holds it").iter() {
        let count = (0..*size).filter(|n| seen.contains_key(&format!("{name}:{n}"))).count() as u64;
        let is_right = match known {
            Known::Begun | Known::Aborted => count == 0,
            Known::Committed => count == *size,
            Known::Committing => count == 0 || count == *size,
        };
        assert!(is_right, "{name} is {known:?}, and {count} of {size} are seen");
        committed += u32::from(*known == Known::Committed);
    }
    Ok(committed)
}

#[test]
fn transactions_are_seen_whole_or_not_at_all() {
    let committed = (FIRST..FIRST + SEEDS).map(transactions_are_whole).sum::<u32>();
    assert!(u64::from(committed) > SEEDS, "{committed} were committed");
}

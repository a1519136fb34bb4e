//! What a leader's death costs: sends records while the leader is killed, then counts.
//!
//! ```text
//! cargo run --release -p bus --example failover -- 'sim://?seed=1&brokers=3' 1
//! cargo run --release -p bus --example failover -- kafka://127.0.0.1:9092,127.0.0.1:9093 all 30
//! ```
//!
//! Arguments: the URL of the bus, `acks` (1 or all), and for how many seconds records are sent. On
//! the simulator this program does the damage itself; on Kafka you do. `docs/failover.md` is the
//! guide.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program for people")]

use std::collections::{BTreeMap, BTreeSet};
use std::process::ExitCode;
use std::time::Duration;

use bus::{
    Acks, Bus, ConsumerConfig, ConsumerExt as _, Error, ErrorKind, NewTopic, ProducerConfig,
    ProducerRecord, RecordMetadata, Result, StartAt, TopicPartition,
};

/// How long after the start the first thing happens, and then each next one.
const PAUSE: Duration = Duration::from_secs(3);
/// The time between two records.
const INTERVAL: Duration = Duration::from_millis(2);
const USAGE: &str = "usage: failover <URL> <1|all> [seconds]";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let outcome = parse(&arguments).and_then(|(url, acks, time)| {
        bus::run(url, |bus| async move { story(bus, acks, time).await })?.output
    });
    match outcome {
        Ok(tally) => {
            tally.print();
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn parse(arguments: &[String]) -> Result<(&str, Acks, Duration)> {
    let wrong = |what: &str| Error::new(ErrorKind::InvalidArgument, format!("{what}; {USAGE}"));
    let [url, acks, rest @ ..] = arguments else { return Err(wrong("URL or acks is missing")) };
    let acks = match acks.as_str() {
        "1" => Acks::Leader,
        "all" => Acks::All,
        other => return Err(wrong(&format!("acks={other} is neither 1 nor all"))),
    };
    let seconds = match rest {
        [] => 15,
        [seconds] => seconds.parse().map_err(|_| wrong("seconds must be a whole number"))?,
        _ => return Err(wrong("too many arguments")),
    };
    Ok((url, acks, Duration::from_secs(seconds)))
}

/// What became of the records.
#[derive(Debug, Default)]
struct Tally {
    acknowledged: usize,
    /// Acknowledged, and not in the log in the end.
    lost: usize,
    /// Acknowledged at an offset that another record has now.
    replaced: usize,
    /// Failed, and it is not known whether they were appended.
    unknown: usize,
    unknown_but_there: usize,
    refused: usize,
    /// Records that are in the log more than once.
    duplicated: usize,
    errors: BTreeMap<ErrorKind, usize>,
}

async fn story(bus: Bus, acks: Acks, time: Duration) -> Result<Tally> {
    let partition = create_topic(&bus, acks).await?;
    let leader = leader(&bus, &partition).await?;
    println!("{partition} is led by broker {leader}");
    match bus::sim::SimHandle::of(&bus) {
        Some(sim) => drop(bus.spawn("fate", damage(sim, leader))),
        None => println!("kill it now: bus kafka kill {leader}   (see docs/failover.md)"),
    }
    let sent = send(&bus, &partition, acks, time).await?;
    let log = read(&bus, &partition).await?;
    println!("{partition} is led by broker {}", self::leader(&bus, &partition).await?);
    Ok(count(&sent, &log))
}

async fn create_topic(bus: &Bus, acks: Acks) -> Result<TopicPartition> {
    let acks = if acks == Acks::All { "all" } else { "1" };
    let name = format!("failover-{acks}-{}", bus.new_id().simple());
    let topic = NewTopic::new(name.as_str()).replication_factor(3);
    bus.admin()?.create_topic(topic.config("min.insync.replicas", "2")).await?;
    Ok(TopicPartition::new(name.as_str(), 0))
}

async fn leader(bus: &Bus, partition: &TopicPartition) -> Result<i32> {
    loop {
        let topic = bus.admin()?.describe_topic(partition.topic.clone()).await?;
        if let Some(leader) = topic.partitions.first().and_then(|partition| partition.leader) {
            return Ok(leader);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// The followers stop hearing the leader, the leader dies, and all of it comes back.
async fn damage(sim: bus::sim::SimHandle, leader: i32) -> Result<()> {
    tokio::time::sleep(PAUSE).await;
    println!("{:?}: the followers do not hear broker {leader} any more", sim.now());
    for follower in (1..=3).filter(|broker| *broker != leader) {
        sim.partition_brokers(leader, follower)?;
    }
    tokio::time::sleep(PAUSE).await;
    println!("{:?}: broker {leader} dies", sim.now());
    sim.crash_broker(leader)?;
    sim.heal();
    tokio::time::sleep(2 * PAUSE).await;
    println!("{:?}: broker {leader} is back", sim.now());
    sim.restart_broker(leader)
}

/// Sends numbers, and returns the outcome of each.
async fn send(
    bus: &Bus,
    partition: &TopicPartition,
    acks: Acks,
    time: Duration,
) -> Result<Vec<Result<RecordMetadata>>> {
    let config =
        ProducerConfig { acks, enable_idempotence: acks == Acks::All, ..Default::default() };
    let producer = bus.producer(config)?;
    let mut deliveries = Vec::new();
    let end = tokio::time::Instant::now() + time;
    while tokio::time::Instant::now() < end {
        producer.ready().await?;
        let record = ProducerRecord::to(partition.topic.clone()).partition(partition.partition);
        deliveries.push(producer.send(record.value(deliveries.len().to_string())));
        tokio::time::sleep(INTERVAL).await;
    }
    producer.flush().await?;
    let mut outcomes = Vec::with_capacity(deliveries.len());
    for delivery in deliveries {
        outcomes.push(delivery.await);
    }
    producer.close(Duration::from_secs(30)).await?;
    Ok(outcomes)
}

/// Reads the whole partition: the number at each offset.
async fn read(bus: &Bus, partition: &TopicPartition) -> Result<BTreeMap<i64, usize>> {
    let consumer = bus.consumer(ConsumerConfig::default())?;
    consumer.assign(&[(partition.clone(), StartAt::Beginning)])?;
    let end = consumer.watermarks(partition).await?.high;
    let mut log = BTreeMap::new();
    while consumer.position(partition)?.unwrap_or(0) < end {
        for record in consumer.poll_records(Duration::from_secs(1)).await? {
            let number = record.value.as_deref().and_then(|v| std::str::from_utf8(v).ok());
            log.insert(record.offset, number.and_then(|n| n.parse().ok()).unwrap_or(usize::MAX));
        }
    }
    consumer.close().await?;
    Ok(log)
}

fn count(sent: &[Result<RecordMetadata>], log: &BTreeMap<i64, usize>) -> Tally {
    let there: BTreeSet<usize> = log.values().copied().collect();
    let mut tally = Tally { duplicated: log.len() - there.len(), ..Tally::default() };
    for (number, outcome) in sent.iter().enumerate() {
        match outcome {
            Ok(metadata) => {
                tally.acknowledged += 1;
                tally.lost += usize::from(!there.contains(&number));
                let now = metadata.offset.and_then(|offset| log.get(&offset));
                tally.replaced += usize::from(now.is_some_and(|now| *now != number));
            }
            Err(error) => {
                *tally.errors.entry(error.kind()).or_default() += 1;
                if error.is_indeterminate() {
                    tally.unknown += 1;
                    tally.unknown_but_there += usize::from(there.contains(&number));
                } else {
                    tally.refused += 1;
                }
            }
        }
    }
    tally
}

impl Tally {
    fn print(&self) {
        let Self { acknowledged, lost, replaced, unknown, unknown_but_there, refused, .. } = self;
        println!("acknowledged        {acknowledged:>6}");
        println!("  of them lost      {lost:>6}");
        println!("  of them replaced  {replaced:>6}   (another record has the offset now)");
        println!("unknown outcome     {unknown:>6}   (of them {unknown_but_there} are there)");
        println!("refused             {refused:>6}");
        println!("more than once      {:>6}", self.duplicated);
        for (kind, count) in &self.errors {
            println!("error {kind}: {count}");
        }
    }
}

//! Transactional applications: one that commits and aborts by turns, one whose id is taken over,
//! one that hangs, and a group that reads from one topic and writes to another exactly once.

use std::collections::BTreeMap;
use std::time::Duration;

use bus_check::Recorder;
use bus_core::{
    Bus, ConsumerConfig, ConsumerExt as _, IsolationLevel, NewTopic, Polled, ProducerConfig,
    ProducerRecord, Recovery, Result, StartAt, Subscription, TopicPartition, TransactionConfig,
};
use bus_sim::SimHandle;

use super::Faults;

/// The header that names the input of an output.
pub(super) const CAUSE: &str = "cause";

const PARTITIONS: i32 = 2;

/// The most bytes of a batch in these topics.
const LARGE: usize = 3_000;

pub(super) async fn play(
    sim: &SimHandle,
    bus: &Bus,
    recorder: &Recorder,
    (faults, is_observed): (Faults, bool),
) -> Result<()> {
    let admin = bus.admin()?;
    for topic in ["inputs", "outputs", "accounts"] {
        let new = NewTopic::new(topic).partitions(PARTITIONS);
        admin.create_topic(new.config("max.message.bytes", LARGE.to_string())).await?;
    }
    bus.process("feeder", feed);
    bus.process("ledger", |bus| book(bus, "ledger", 60));
    bus.process("sleeper", sleep_on_it);
    for n in 0..2 {
        bus.process(&format!("relay-{n}"), move |bus| relay(bus, format!("relay-{n}")));
    }
    for (name, isolation) in
        [("reader", IsolationLevel::ReadCommitted), ("dirty", IsolationLevel::ReadUncommitted)]
    {
        bus.process(name, move |bus| read(bus, isolation));
    }
    if is_observed {
        bus.process("observer", observe);
    }
    for step in 0..10 {
        faults(sim, step);
        if step == 3 {
            bus.process("successor", |bus| book(bus, "ledger", 30));
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        // While a broker is down, it can't be asked.
        drop(admin.group_offsets("relay").await);
    }
    sim.heal();
    recorder.quiesced();
    tokio::time::sleep(Duration::from_secs(40)).await;
    recorder.audit().await
}

async fn feed(bus: Bus) {
    let Ok(producer) = bus.producer(ProducerConfig::default()) else { return };
    let mut deliveries = Vec::new();
    for n in 0..100 {
        let value = format!("input {n} {}", bus.new_id());
        deliveries
            .push(producer.send(ProducerRecord::to("inputs").key(format!("{n}")).value(value)));
        tokio::time::sleep(Duration::from_millis(80)).await;
    }
    for delivery in deliveries {
        // What failed is in the history.
        drop(delivery.await);
    }
    drop(producer.close(Duration::from_secs(5)).await);
}

/// Books in transactions of a few records in both partitions; every third one is aborted.
async fn book(bus: Bus, id: &'static str, transactions: u32) {
    let config = ProducerConfig { linger: Duration::from_millis(2), ..Default::default() };
    let transaction = TransactionConfig {
        transaction_timeout: Duration::from_secs(4),
        ..TransactionConfig::new(id)
    };
    let Ok(producer) = bus.transactional_producer(config, transaction) else { return };
    if retried(|| producer.init_transactions()).await.is_err() {
        return;
    }
    for n in 0..transactions {
        if producer.begin().is_err() {
            return;
        }
        let mut deliveries = Vec::new();
        for m in 0..4 {
            let mut value = format!("{id} {n}.{m} {}", bus.new_id());
            if n % 7 == 6 && m == 2 {
                // The broker refuses it, and so the transaction fails.
                value.push_str(&"x".repeat(LARGE));
            }
            let record = ProducerRecord::to("accounts").partition(m % PARTITIONS).value(value);
            deliveries.push(producer.send(record));
        }
        if n % 2 == 0 {
            tokio::time::sleep(Duration::from_millis(60)).await;
        }
        let ended = match n % 3 {
            1 => retried(|| producer.abort()).await,
            _ => retried(|| producer.commit()).await,
        };
        match ended {
            Ok(()) => {}
            Err(error) if error.recovery() == Recovery::Abort => {
                if retried(|| producer.abort()).await.is_err() {
                    return;
                }
            }
            Err(_) => return,
        }
        drop(deliveries);
        tokio::time::sleep(Duration::from_millis(40)).await;
    }
    drop(producer.close(Duration::from_secs(5)).await);
}

/// Begins a transaction, and never ends it.
async fn sleep_on_it(bus: Bus) {
    let transaction = TransactionConfig {
        transaction_timeout: Duration::from_secs(3),
        ..TransactionConfig::new("sleeper")
    };
    let producer = bus.transactional_producer(ProducerConfig::default(), transaction);
    let Ok(producer) = producer else { return };
    if retried(|| producer.init_transactions()).await.is_err() || producer.begin().is_err() {
        return;
    }
    drop(producer.send(ProducerRecord::to("accounts").partition(0).value("never committed")).await);
    tokio::time::sleep(Duration::from_hours(1)).await;
    drop(producer);
}

/// Makes one output of each input, in the transaction that commits the input.
async fn relay(bus: Bus, id: String) {
    loop {
        if relay_until_error(&bus, &id).await.is_err() {
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    }
}

async fn relay_until_error(bus: &Bus, id: &str) -> Result<()> {
    let consumer = bus.consumer(ConsumerConfig {
        isolation_level: IsolationLevel::ReadCommitted,
        enable_auto_commit: false,
        session_timeout: Duration::from_secs(2),
        heartbeat_interval: Duration::from_millis(200),
        max_poll_interval: Duration::from_secs(4),
        max_poll_records: 5,
        ..ConsumerConfig::in_group("relay")
    })?;
    let transaction = TransactionConfig {
        transaction_timeout: Duration::from_secs(4),
        ..TransactionConfig::new(id)
    };
    let producer = bus.transactional_producer(ProducerConfig::default(), transaction)?;
    retried(|| producer.init_transactions()).await?;
    consumer.subscribe(Subscription::topics(["inputs"]))?;
    let mut count = 0;
    loop {
        let records = match consumer.poll(Duration::from_millis(200)).await? {
            Polled::Records(records) if records.is_empty() => continue,
            Polled::Records(records) => records,
            Polled::Rebalance(guard) => {
                guard.complete().await?;
                continue;
            }
        };
        // Taken now: a member that learns later that it is out has none, and is not fenced then.
        let Some(group) = consumer.group_metadata() else { return Ok(()) };
        producer.begin()?;
        let mut next = BTreeMap::new();
        for record in &records {
            let cause = format!("{}@{}", record.topic_partition(), record.offset);
            let output = ProducerRecord::to("outputs")
                .value(format!("made of {cause} {}", bus.new_id()))
                .header(CAUSE, cause);
            drop(producer.send(output));
            next.insert(record.topic_partition(), record.next_offset().into());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
        let next: Vec<_> = next.into_iter().collect();
        producer.send_offsets(&next, &group).await?;
        count += 1;
        if count % 3 == 0 {
            retried(|| producer.abort()).await?;
            // What was read counts as not read.
            let mut first = BTreeMap::new();
            for record in &records {
                first.entry(record.topic_partition()).or_insert(record.offset);
            }
            for (place, offset) in first {
                consumer.seek(&place, StartAt::Offset(offset)).await?;
            }
            continue;
        }
        retried(|| producer.commit()).await?;
    }
}

/// Reads outputs and accounts by hand.
async fn read(bus: Bus, isolation: IsolationLevel) {
    let config = ConsumerConfig { isolation_level: isolation, ..Default::default() };
    let Ok(consumer) = bus.consumer(config) else { return };
    let places = ["outputs", "accounts"]
        .iter()
        .flat_map(|topic| (0..PARTITIONS).map(|partition| TopicPartition::new(*topic, partition)));
    let from: Vec<_> = places.map(|place| (place, StartAt::Beginning)).collect();
    if consumer.assign(&from).is_err() {
        return;
    }
    loop {
        drop(consumer.poll_records(Duration::from_millis(200)).await);
    }
}

/// Asks all the time what the relays have committed.
async fn observe(bus: Bus) {
    let config = ConsumerConfig {
        isolation_level: IsolationLevel::ReadCommitted,
        enable_auto_commit: false,
        ..ConsumerConfig::in_group("relay")
    };
    let Ok(consumer) = bus.consumer(config) else { return };
    let inputs: Vec<_> =
        (0..PARTITIONS).map(|partition| TopicPartition::new("inputs", partition)).collect();
    loop {
        // While transactions are undecided, there is no answer.
        drop(consumer.committed(&inputs).await);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Tries again what may be tried again.
async fn retried<'a>(mut act: impl FnMut() -> bus_core::BoxFuture<'a, Result<()>>) -> Result<()> {
    loop {
        match act().await {
            Err(error) if error.recovery() == Recovery::Retry => {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            outcome => return outcome,
        }
    }
}

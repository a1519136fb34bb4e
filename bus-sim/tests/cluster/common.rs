//! What the stories share: a topic, records, and a group of processes that consume them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bus_core::{
    Bus, ConsumerConfig, ConsumerExt, NewTopic, ProducerConfig, ProducerExt, ProducerRecord,
    Result, Subscription,
};
use bus_sim::{Api, Outcome, Sim, SimConfig, SimHandle};

/// Runs a story on a world that keeps its trace.
pub(crate) fn story<F, T>(seed: u64, app: impl FnOnce(SimHandle) -> F) -> Outcome<T>
where
    F: Future<Output = T>,
{
    let config = SimConfig { seed, record_trace: true, ..Default::default() };
    Sim::new(config).expect("a valid configuration").run(app)
}

/// The output of a story that must end well; the trace is part of the message if it does not.
pub(crate) fn output<T>(outcome: Outcome<Result<T>>) -> T {
    let trace = outcome.report.trace.join("\n");
    match outcome.result {
        Ok(Ok(output)) => output,
        Ok(Err(error)) => panic!("{error:?}\n{trace}"),
        Err(stalled) => panic!("{stalled}\n{trace}"),
    }
}

pub(crate) async fn create_topic(bus: &Bus, name: &str, partitions: i32) -> Result<()> {
    bus.admin()?.create_topic(NewTopic::new(name).partitions(partitions)).await
}

/// Sends `count` numbered records, with seven keys.
pub(crate) async fn produce(bus: &Bus, topic: &str, count: u32) -> Result<()> {
    let producer = bus.producer(ProducerConfig::default())?;
    let records = (0..count)
        .map(|n| ProducerRecord::to(topic).key(format!("key-{}", n % 7)).value(n.to_string()));
    for outcome in producer.send_all(records.collect::<Vec<_>>()).await {
        outcome?;
    }
    producer.close(Duration::from_secs(60)).await
}

/// How often each value was handled, by any process.
pub(crate) type Ledger = Arc<Mutex<BTreeMap<String, u32>>>;

/// The configuration of a member that notices everything soon.
pub(crate) fn quick_member(group: &str) -> ConsumerConfig {
    ConsumerConfig {
        heartbeat_interval: Duration::from_millis(100),
        session_timeout: Duration::from_secs(2),
        max_poll_records: 10,
        ..ConsumerConfig::in_group(group)
    }
}

/// Handles records for ever: an effect in the ledger, then a commit.
pub(crate) async fn handle(bus: Bus, group: &str, topic: &str, ledger: Ledger) -> Result<()> {
    let consumer = bus.consumer(quick_member(group))?;
    consumer.subscribe(Subscription::topics([topic]))?;
    loop {
        for record in consumer.poll_records(Duration::from_millis(500)).await? {
            let value = String::from_utf8_lossy(record.value.as_deref().unwrap_or(b"")).into();
            *ledger.lock().expect("no panic holds it").entry(value).or_insert(0) += 1;
            // A member that lost the partition meanwhile is fenced; it goes on polling.
            drop(consumer.commit_record(&record).await);
        }
    }
}

/// Starts three members as processes `member-0` to `member-2`.
pub(crate) fn start_members(bus: &Bus, topic: &'static str, ledger: &Ledger) {
    for n in 0..3 {
        let ledger = Arc::clone(ledger);
        bus.process(&format!("member-{n}"), move |bus| {
            let ledger = Arc::clone(&ledger);
            async move {
                // It ends only when its process crashes.
                drop(handle(bus, "g", topic, ledger).await);
            }
        });
    }
}

/// Waits until the ledger holds `count` values.
pub(crate) async fn settled(ledger: &Ledger, count: usize) {
    while ledger.lock().expect("no panic holds it").len() < count {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// A day on which a lot happens: members crash and pause, the broker restarts, responses are lost.
pub(crate) async fn bad_day(sim: SimHandle) -> Result<BTreeMap<String, u32>> {
    let bus = sim.bus();
    let ledger = Ledger::default();
    create_topic(&bus, "orders", 3).await?;
    start_members(&bus, "orders", &ledger);
    sim.lose_next_response(Api::Produce);
    produce(&bus, "orders", 50).await?;
    sim.crash("member-0")?;
    sim.pause("member-1")?;
    produce(&bus, "orders", 20).await?;
    tokio::time::sleep(Duration::from_secs(5)).await;
    sim.resume("member-1")?;
    sim.restart("member-0")?;
    sim.crash_broker(1)?;
    tokio::time::sleep(Duration::from_secs(1)).await;
    sim.restart_broker(1)?;
    produce(&bus, "orders", 70).await?;
    settled(&ledger, 70).await;
    let ledger = ledger.lock().expect("no panic holds it").clone();
    Ok(ledger)
}

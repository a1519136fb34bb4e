//! Plans of faults: each trigger comes when it says, each fault does what it says and ends, and the
//! report tells.

mod choices;
mod commits;
mod faults;
mod triggers;

use std::time::Duration;

use bus_core::{
    Bus, ConsumerConfig, ConsumerExt as _, NewTopic, ProducerConfig, ProducerRecord, Result,
    Subscription,
};
use bus_sim::fault::{FaultReport, Plan};
use bus_sim::{Outcome, Sim, SimConfig, SimHandle, SimReport};

/// A plan, as it is written.
fn plan(faults: &str) -> Plan {
    ron::from_str(&format!("(faults: [{faults}])")).unwrap_or_else(|error| panic!("{error}"))
}

/// Runs an application on three brokers with a plan.
fn run<F, T>(faults: &str, app: impl FnOnce(SimHandle) -> F) -> Outcome<Result<T>>
where
    F: Future<Output = Result<T>>,
{
    let config = SimConfig {
        seed: 7,
        brokers: 3,
        plan: plan(faults),
        record_trace: true,
        time_limit: Duration::from_mins(30),
        ..Default::default()
    };
    Sim::new(config).expect("a valid configuration").run(app)
}

/// The report of a run that must end well.
fn report<T>(outcome: Outcome<Result<T>>) -> SimReport {
    match outcome.result {
        Ok(Ok(_)) => outcome.report,
        Ok(Err(error)) => panic!("{error:?}\n{}", outcome.report.trace.join("\n")),
        Err(stalled) => panic!("{stalled}\n{}", outcome.report.trace.join("\n")),
    }
}

/// The report of one fault.
fn fault(report: &SimReport, id: u32) -> &FaultReport {
    report.faults.iter().find(|fault| fault.id == id).expect("it is in the plan")
}

/// How many lines of the trace contain a text.
fn count(report: &SimReport, text: &str) -> usize {
    report.trace.iter().filter(|line| line.contains(text)).count()
}

/// A topic with one partition on three brokers, and five records, one after the other.
async fn send_five(sim: SimHandle) -> Result<()> {
    let bus = sim.bus();
    create(&bus).await?;
    send(&bus, 5).await
}

async fn create(bus: &Bus) -> Result<()> {
    let topic = NewTopic::new("orders").partitions(1).replication_factor(3);
    bus.admin()?.create_topic(topic.config("min.insync.replicas", "2")).await
}

async fn send(bus: &Bus, count: u32) -> Result<()> {
    let producer = bus.producer(ProducerConfig::default())?;
    for n in 0..count {
        producer.send(ProducerRecord::to("orders").value(n.to_string())).await?;
    }
    producer.close(Duration::from_secs(60)).await
}

/// A member that reads and commits for ever.
async fn consume(bus: Bus) -> Result<()> {
    let consumer = bus.consumer(ConsumerConfig {
        heartbeat_interval: Duration::from_millis(100),
        session_timeout: Duration::from_secs(2),
        ..ConsumerConfig::in_group("g")
    })?;
    consumer.subscribe(Subscription::topics(["orders"]))?;
    loop {
        for record in consumer.poll_records(Duration::from_millis(500)).await? {
            drop(consumer.commit_record(&record).await);
        }
    }
}

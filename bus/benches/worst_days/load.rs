//! The load of the bench, which a test judges: producers that send until all is acknowledged, and
//! a group that reads until it has everything.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bus::explore::{NO_FAILURE, recorded};
use bus_core::{
    Bus, ConsumerConfig, ConsumerExt as _, NewTopic, ProducerConfig, ProducerExt as _,
    ProducerRecord, Recovery, Result, Subscription,
};
use bus_sim::explore::Violation;
use bus_sim::fault::Surroundings;
use bus_sim::{Sim, SimConfig, SimHandle};
use parking_lot::Mutex;

/// How large a run is.
#[derive(Clone, Copy)]
pub(crate) struct Size {
    pub(crate) brokers: i32,
    pub(crate) producers: usize,
    pub(crate) members: usize,
    /// By each producer.
    pub(crate) records: usize,
    /// At most in a batch.
    pub(crate) batch: u32,
}

/// One broker, 100 records, and a group of 2.
pub(crate) const TINY: Size =
    Size { brokers: 1, producers: 1, members: 2, records: 100, batch: 10_000 };
/// Three brokers, 900 records of 3 producers, and a group of 3.
pub(crate) const LARGE: Size =
    Size { brokers: 3, producers: 3, members: 3, records: 300, batch: 10_000 };

pub(crate) fn config(size: Size) -> SimConfig {
    SimConfig {
        brokers: size.brokers,
        record_facts: true,
        // A day that never ends is no rate.
        time_limit: Duration::from_mins(10),
        ..SimConfig::default()
    }
}

/// What there is to strike: what a run without faults has.
pub(crate) fn surroundings(size: Size) -> Surroundings {
    let config = SimConfig { record_events: true, ..config(size) };
    let quiet = Sim::new(config).expect("a valid configuration").run(|sim| judged(sim, size));
    Surroundings::new(size.brokers, Duration::from_secs(5)).seen_in(&quiet.report)
}

pub(crate) async fn judged(sim: SimHandle, size: Size) -> std::result::Result<(), Vec<Violation>> {
    let ran = recorded(sim, |bus| run(bus, size)).await;
    ran.map_err(|error| vec![Violation::new(NO_FAILURE, error.to_string())])
}

/// Producers send, and a group reads until it has everything.
async fn run(bus: Bus, size: Size) -> Result<()> {
    scenarios::patience::create_topic(&bus, NewTopic::new("t").partitions(3)).await?;
    let seen = Arc::new(Mutex::new(BTreeSet::new()));
    let wanted = size.producers * size.records;
    let members = (0..size.members)
        .map(|n| bus.spawn(&format!("member-{n}"), consume(bus.clone(), Arc::clone(&seen), wanted)))
        .collect::<Vec<_>>();
    let producers = (0..size.producers)
        .map(|n| bus.spawn(&format!("producer-{n}"), produce(bus.clone(), n, size)))
        .collect::<Vec<_>>();
    for task in producers.into_iter().chain(members) {
        task.await??;
    }
    Ok(())
}

/// Sends until everything is acknowledged; records whose delivery failed are sent again by another
/// producer, since one that has failed for good stays so.
async fn produce(bus: Bus, producer: usize, size: Size) -> Result<()> {
    let record = |n: &usize| ProducerRecord::to("t").value(format!("{producer}-{n}"));
    let mut left: Vec<_> = (0..size.records).collect();
    while !left.is_empty() {
        let client =
            bus.producer(ProducerConfig { batch_records: size.batch, ..Default::default() })?;
        let sent = client.send_all(left.iter().map(record).collect::<Vec<_>>()).await;
        let failed = left.into_iter().zip(sent).filter(|(_, sent)| sent.is_err());
        left = failed.map(|(n, _)| n).collect();
        client.close(Duration::from_secs(30)).await?;
        if !left.is_empty() {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }
    Ok(())
}

/// Reads and commits until the group has everything.
async fn consume(bus: Bus, seen: Arc<Mutex<BTreeSet<Vec<u8>>>>, wanted: usize) -> Result<()> {
    let consumer = bus.consumer(ConsumerConfig::in_group("g"))?;
    consumer.subscribe(Subscription::topics(["t"]))?;
    while seen.lock().len() < wanted {
        let polled = consumer.poll_records(Duration::from_millis(500)).await;
        let outcome = match polled {
            Ok(records) if records.is_empty() => Ok(()),
            Ok(records) => {
                let values = records.into_iter().filter_map(|record| record.value);
                seen.lock().extend(values.map(|value| value.to_vec()));
                consumer.commit_positions().await
            }
            Err(error) => Err(error),
        };
        match outcome {
            Err(error) if matches!(error.recovery(), Recovery::Rejoin | Recovery::Retry) => {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            outcome => outcome?,
        }
    }
    consumer.close().await
}

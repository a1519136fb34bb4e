//! How fast histories are judged, and what recording one costs.
//!
//! An observation is something that a checker looks at: an entry of the history, or a record that a
//! poll returned.

use std::hint::black_box;
use std::time::Duration;

use bus_check::history::{Answer, What};
use bus_check::{Cluster, Environment, History, NoTruth, Recorder, judge, sim};
use bus_core::{
    Bus, ConsumerConfig, ConsumerExt as _, NewTopic, ProducerConfig, ProducerExt as _,
    ProducerRecord, Result, StartAt, TopicPartition,
};
use bus_sim::{Sim, SimConfig};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

const PARTITIONS: i32 = 4;
const READERS: usize = 3;

/// Sends so many records, and reads all of them with several readers.
async fn work(bus: Bus, records: usize) -> Result<()> {
    bus.admin()?.create_topic(NewTopic::new("orders").partitions(PARTITIONS)).await?;
    let producer = bus.producer(ProducerConfig::default())?;
    let sends = (0..records).map(|n| {
        ProducerRecord::to("orders").key(format!("key {}", n % 97)).value(format!("value {n}"))
    });
    for outcome in producer.send_all(sends).await {
        outcome?;
    }
    for _ in 0..READERS {
        let consumer = bus.consumer(ConsumerConfig::default())?;
        let places = (0..PARTITIONS).map(|partition| TopicPartition::new("orders", partition));
        let from: Vec<_> = places.map(|place| (place, StartAt::Beginning)).collect();
        consumer.assign(&from)?;
        let mut read = 0;
        while read < records {
            read += consumer.poll_records(Duration::from_millis(100)).await?.len();
        }
    }
    Ok(())
}

/// Runs the work on a simulated broker, recorded or not.
fn run(records: usize, recorder: Option<&Recorder>, record_facts: bool) -> Cluster {
    let config = SimConfig { seed: 7, record_facts, ..SimConfig::default() };
    let simulation = Sim::new(config).expect("a valid configuration");
    let outcome = simulation.run(|sim| {
        let bus = recorder.map_or_else(|| sim.bus(), |recorder| recorder.record(&sim.bus()));
        work(bus, records)
    });
    outcome.result.expect("it ends").expect("nothing fails");
    sim::cluster(&outcome.report)
}

fn observations(history: &History) -> u64 {
    let records = history.entries().iter().map(|entry| match &entry.what {
        What::Ok(_, Answer::Records(records)) => records.len(),
        _ => 0,
    });
    (history.entries().len() + records.sum::<usize>()) as u64
}

fn checkers(c: &mut Criterion) {
    let mut group = c.benchmark_group("judge");
    group.sample_size(10);
    for records in [1_000, 50_000] {
        let recorder = Recorder::default();
        let cluster = run(records, Some(&recorder), true);
        let history = recorder.into_history();
        group.throughput(Throughput::Elements(observations(&history)));
        let environment = Environment::safe();
        group.bench_function(BenchmarkId::new("black box", records), |b| {
            b.iter(|| black_box(judge(&history, &environment, &NoTruth)));
        });
        group.bench_function(BenchmarkId::new("with facts", records), |b| {
            b.iter(|| black_box(judge(&history, &environment, &cluster)));
        });
    }
    group.finish();
}

fn recording(c: &mut Criterion) {
    const RECORDS: usize = 5_000;
    let mut group = c.benchmark_group("record");
    group.sample_size(10);
    let recorder = Recorder::default();
    drop(run(RECORDS, Some(&recorder), false));
    group.throughput(Throughput::Elements(observations(&recorder.into_history())));
    group.bench_function("not recorded", |b| b.iter(|| run(RECORDS, None, false)));
    group.bench_function("recorded", |b| {
        b.iter(|| run(RECORDS, Some(&Recorder::default()), false));
    });
    group.bench_function("recorded, with facts", |b| {
        b.iter(|| run(RECORDS, Some(&Recorder::default()), true));
    });
    group.finish();
}

criterion_group!(benches, checkers, recording);
criterion_main!(benches);

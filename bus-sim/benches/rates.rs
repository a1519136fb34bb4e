//! Rates of the simulator: whole small runs, and records through a large one.
//!
//! `cargo bench -p bus-sim` prints runs and records per second.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::time::Duration;

use bus_core::{
    Bus, ConsumerConfig, ConsumerExt, Delivery, NewTopic, ProducerConfig, ProducerRecord,
    Rebalance, RebalanceKind, Result, Subscription,
};
use bus_sim::{Sim, SimConfig};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

criterion_group! {
    name = rates;
    config = Criterion::default().sample_size(20);
    targets = whole_runs, records
}
criterion_main!(rates);

/// 100 records of 100 B, 3 partitions, 1 producer, a group of 2, one broker or three; built and
/// torn down.
fn whole_runs(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("whole_runs");
    group.throughput(Throughput::Elements(1));
    let mut seed = 0;
    group.bench_function("100_records_group_of_2", |bencher| {
        bencher.iter(|| {
            seed += 1;
            run(seed, 100, 2, 1);
        });
    });
    group.bench_function("100_records_group_of_2_three_brokers", |bencher| {
        bencher.iter(|| {
            seed += 1;
            run(seed, 100, 2, 3);
        });
    });
}

/// 200,000 records of 100 B through a group of 3.
fn records(criterion: &mut Criterion) {
    const RECORDS: u32 = 200_000;
    let mut group = criterion.benchmark_group("records");
    group.throughput(Throughput::Elements(RECORDS.into())).sample_size(10);
    group.bench_function("200k_group_of_3", |bencher| {
        bencher.iter(|| run(7, RECORDS, 3, 1));
    });
    group.bench_function("200k_group_of_3_three_brokers", |bencher| {
        bencher.iter(|| run(7, RECORDS, 3, 3));
    });
}

fn run(seed: u64, records: u32, members: usize, brokers: i32) {
    // Topics have as many replicas as there are brokers.
    let config = SimConfig { seed, brokers, ..Default::default() };
    let outcome = Sim::new(config).expect("a valid configuration").run(|sim| async move {
        let bus = sim.bus();
        bus.admin()?.create_topic(NewTopic::new("t").partitions(3)).await?;
        let group = Arc::new(Group { left: AtomicI64::new(records.into()), ..Default::default() });
        let consumers = (0..members)
            .map(|n| bus.spawn(&format!("member-{n}"), consume(bus.clone(), Arc::clone(&group))))
            .collect::<Vec<_>>();
        while group.settled.load(Ordering::Relaxed) < members {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        produce(&bus, records).await?;
        for consumer in consumers {
            consumer.await??;
        }
        Result::<()>::Ok(())
    });
    outcome.result.expect("no stall").expect("no error");
}

/// What the members of the group share.
#[derive(Debug, Default)]
struct Group {
    /// Records to read.
    left: AtomicI64,
    /// Members that own some, but not all, of the partitions.
    settled: AtomicUsize,
}

async fn produce(bus: &Bus, records: u32) -> Result<()> {
    let producer = bus.producer(ProducerConfig::default())?;
    let value = bus_core::Bytes::from(vec![b'x'; 100]);
    let mut left = records;
    while left > 0 {
        let batch = left.min(10_000);
        let sent = (0..batch)
            .map(|n| {
                let record = ProducerRecord::to("t").value(value.clone());
                producer.send(record.partition(i32::try_from(n % 3).unwrap_or(0)))
            })
            .collect::<Vec<Delivery>>();
        for delivery in sent {
            delivery.await?;
        }
        left -= batch;
    }
    producer.close(Duration::from_secs(10)).await
}

/// Reads until the group has read everything, and commits.
async fn consume(bus: Bus, group: Arc<Group>) -> Result<()> {
    let config = ConsumerConfig {
        max_poll_records: 10_000,
        heartbeat_interval: Duration::from_millis(100),
        ..ConsumerConfig::in_group("g")
    };
    let consumer = bus.consumer(config)?;
    consumer.subscribe(Subscription::topics(["t"]))?;
    while group.left.load(Ordering::Relaxed) > 0 {
        let listener = |rebalance: Rebalance| {
            if rebalance.kind == RebalanceKind::Assigned && rebalance.partitions.len() < 3 {
                group.settled.fetch_add(1, Ordering::Relaxed);
            }
            std::future::ready(())
        };
        let records = consumer.poll_with(Duration::from_millis(500), listener).await?;
        let read = i64::try_from(records.len()).unwrap_or(0);
        group.left.fetch_sub(read, Ordering::Relaxed);
    }
    consumer.commit_positions().await?;
    consumer.close().await
}

//! The code of the guide `docs/testing.md`: a consumer, and the test that explores it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bus_check::{Environment, Recorder};
use bus_core::{
    Bus, ConsumerConfig, ConsumerExt as _, ErrorKind, NewTopic, ProducerConfig, ProducerRecord,
    Record, Result, Subscription,
};
use bus_sim::explore::{Exploration, Replay, Violation};
use bus_sim::fault::{FaultKind, Surroundings, draw};
use bus_sim::{Sim, SimConfig, SimHandle, SimReport, sometimes};
use parking_lot::Mutex;

/// When the consumer commits an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Commit {
    BeforeShipping,
    AfterShipping,
}

/// Ships each order that is in the topic.
async fn ship_orders(bus: Bus, warehouse: Warehouse, commit: Commit) -> Result<()> {
    let consumer = bus.consumer(ConsumerConfig {
        session_timeout: Duration::from_secs(10),
        ..ConsumerConfig::in_group("shipping")
    })?;
    consumer.subscribe(Subscription::topics(["orders"]))?;
    loop {
        for record in consumer.poll_records(Duration::from_secs(1)).await? {
            if commit == Commit::BeforeShipping {
                consumer.commit_record(&record).await?;
            }
            warehouse.ship(&record).await;
            if commit == Commit::AfterShipping {
                consumer.commit_record(&record).await?;
            }
        }
    }
}

/// Somebody else's system: what it knows survives a crash of ours.
#[derive(Clone, Debug, Default)]
struct Warehouse {
    shipped: Arc<Mutex<BTreeSet<String>>>,
}

impl Warehouse {
    async fn ship(&self, record: &Record) {
        tokio::time::sleep(Duration::from_millis(25)).await; // the request is under way
        let is_new = self.shipped.lock().insert(order(record));
        sometimes!(!is_new, "an order comes again");
        tokio::time::sleep(Duration::from_millis(25)).await; // and its answer
    }
}

fn order(record: &Record) -> String {
    String::from_utf8_lossy(record.value.as_deref().unwrap_or_default()).into_owned()
}

/// One day: twenty orders, and a process that ships them and starts again when it fails.
async fn day(bus: &Bus, warehouse: &Warehouse, commit: Commit) -> Result<Vec<String>> {
    bus.admin()?.create_topic(NewTopic::new("orders").partitions(2)).await?;
    let shared = warehouse.clone();
    bus.process("shipping", move |bus| {
        let warehouse = shared.clone();
        async move {
            while let Err(error) = ship_orders(bus.clone(), warehouse.clone(), commit).await {
                if error.kind() == ErrorKind::Crashed {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }
    });
    let producer = bus.producer(ProducerConfig::default())?;
    let mut orders = Vec::new();
    for number in 1..=20 {
        let order = format!("order-{number}");
        let record = ProducerRecord::to("orders").key(order.clone()).value(order.clone());
        producer.send(record).await?;
        orders.push(order);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(orders)
}

/// A day and its judges.
async fn judged(sim: SimHandle, commit: Commit) -> Result<(), Vec<Violation>> {
    let recorder = Recorder::default();
    let (bus, warehouse) = (recorder.record(&sim.bus()), Warehouse::default());

    // When all is over, bus-check judges what the clients were told.
    let history = recorder.clone();
    sim.judge_afterwards(move |report| kafka_kept_its_promises(&history, report));

    let failed = |error: bus_core::Error| vec![Violation::new("no failure", error.to_string())];
    let orders = day(&bus, &warehouse, commit).await.map_err(failed)?;
    // No more faults: what is not done in ten minutes from now is never done.
    sim.quiesce();
    recorder.quiesced();
    let is_done = || warehouse.shipped.lock().len() == orders.len();
    for _ in 0..600 {
        if is_done() {
            break;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    recorder.audit().await.map_err(failed)?;

    // We judge what our application is for.
    let shipped = warehouse.shipped.lock();
    let missing = orders.iter().filter(|order| !shipped.contains(*order));
    let violations: Vec<_> = missing
        .map(|order| Violation::new("every order is shipped", format!("{order} was not")))
        .collect();
    if violations.is_empty() { Ok(()) } else { Err(violations) }
}

fn kafka_kept_its_promises(recorder: &Recorder, report: &SimReport) -> Vec<Violation> {
    let cluster = bus_check::sim::cluster(report);
    let judged = bus_check::judge(&recorder.history(), &Environment::default(), &cluster);
    judged
        .violations()
        .map(|finding| Violation::new(finding.guarantee.slug(), finding.sentence()))
        .collect()
}

/// The worlds in which it runs. The facts are for bus-check.
fn world() -> SimConfig {
    SimConfig { record_facts: true, time_limit: Duration::from_hours(1), ..SimConfig::default() }
}

/// What there is to strike, learned from a run in which nothing goes wrong.
fn surroundings() -> Surroundings {
    let quiet = Sim::new(SimConfig { record_events: true, ..world() })
        .expect("the configuration is valid")
        .run(|sim| judged(sim, Commit::AfterShipping));
    let nothing_yet = Surroundings {
        kinds: [FaultKind::CrashProcess, FaultKind::PauseProcess, FaultKind::LoseResponse].into(),
        ..Surroundings::new(1, Duration::from_secs(3))
    };
    nothing_yet.seen_in(&quiet.report)
}

#[test]
fn every_order_is_shipped_on_every_day() {
    let surroundings = surroundings();
    let explored = Exploration::new("shipping", world())
        .seeds(0..200)
        .faults(|seed| draw(seed, &surroundings))
        .checks_in(module_path!())
        .run(|sim| judged(sim, Commit::AfterShipping));
    explored.assert_held();
    explored.assert_covered();
}

/// That the test above can fail: the consumer that commits first loses an order.
#[test]
fn a_consumer_that_commits_first_is_found() {
    let surroundings = surroundings();
    let explored = Exploration::new("shipping-commits-first", world())
        .seeds(0..200)
        .faults(|seed| draw(seed, &surroundings))
        .run(|sim| judged(sim, Commit::BeforeShipping));
    let found = explored.violations.first().expect("an order is lost on some day");
    assert_eq!(found.violations[0].guarantee, "every order is shipped");
    println!("{}\n{}", found.replay, found.replay.to_text());
    assert_eq!(found.replay.shrunk.faults.1, 1, "{}", found.replay);
}

/// The file of that failure, kept in the repository: the consumer that we have now survives it.
#[test]
fn the_lost_order_stays_found() {
    let replay = Replay::from_text(include_str!("testing/commits-first.busplay"));
    let replay = replay.expect("it is a replay file");
    let before = replay.run(&world(), |sim| judged(sim, Commit::BeforeShipping));
    assert!(before.is_reproduced, "{:?}", before.violations);
    let now = replay.run(&world(), |sim| judged(sim, Commit::AfterShipping));
    assert!(now.violations.is_empty(), "{:?}", now.violations);
}

/// Each block of code of the guide stands in this file. `always!` and sizes are shown by tests of
/// bus-sim.
#[test]
fn the_guide_shows_this_code() {
    let here = include_str!("testing.rs");
    let guide = include_str!("../../docs/testing.md");
    // Its heart is there, too.
    let exploring = include_str!("../../docs/exploring.md");
    let blocks = guide.split("```rust\n").skip(1).chain(exploring.split("```rust\n").skip(1));
    let blocks = blocks.filter_map(|rest| rest.split("```").next());
    let is_elsewhere = |block: &str| block.contains("always!") || block.contains("sim.size(");
    let blocks: Vec<_> = blocks.filter(|block| !is_elsewhere(block)).collect();
    assert!(blocks.len() > 4, "the guides have {} blocks of code", blocks.len());
    for block in blocks {
        assert!(here.contains(block), "this is in docs/testing.md only:\n{block}");
    }
}

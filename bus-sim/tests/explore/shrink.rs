//! Shrinking to the end: a shop on three brokers, of which one order on one broker is left.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bus_core::{
    Bus, ConsumerConfig, NewTopic, ProducerConfig, ProducerRecord, Result, TopicPartition,
};
use bus_sim::explore::{Exploration, Explored, Replay, Violation};
use bus_sim::fault::{FaultKind, Surroundings, draw};
use bus_sim::{SimConfig, SimHandle};

const POINT: &str = "shop: taken, not yet sent";

/// A shop takes orders and sends them. What it has taken, it knows only by heart.
async fn orders_are_sent(sim: SimHandle) -> Result<(), Vec<Violation>> {
    let orders = sim.size("orders", 1..=20);
    let sent = send_all(&sim, orders).await.expect("it goes on after every fault");
    if sent == i64::try_from(orders).expect("there are few") {
        return Ok(());
    }
    Err(vec![Violation::new("orders are sent", format!("{sent} of {orders} were"))])
}

async fn send_all(sim: &SimHandle, orders: usize) -> Result<i64> {
    let bus = sim.bus();
    let topic = NewTopic::new("orders").replication_factor(3);
    bus.admin()?.create_topic(topic.config("min.insync.replicas", "2")).await?;
    let taken = Arc::new(AtomicUsize::new(0));
    let (taken_inside, sim_inside) = (Arc::clone(&taken), sim.clone());
    bus.process("shop", move |bus| {
        let (taken, sim) = (Arc::clone(&taken_inside), sim_inside.clone());
        async move { drop(serve(bus, sim, &taken, orders).await) }
    });
    tokio::time::sleep(Duration::from_secs(10)).await;
    sim.quiesce();
    while taken.load(Ordering::Relaxed) <= orders {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let consumer = bus.consumer(ConsumerConfig::default())?;
    Ok(consumer.watermarks(&TopicPartition::new("orders", 0)).await?.high)
}

async fn serve(bus: Bus, sim: SimHandle, taken: &AtomicUsize, orders: usize) -> Result<()> {
    let producer = bus.producer(ProducerConfig::default())?;
    while taken.fetch_add(1, Ordering::Relaxed) < orders {
        if sim.reached("shop", POINT) {
            std::future::pending::<()>().await;
        }
        producer.send(ProducerRecord::to("orders").value("order")).await?;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    Ok(())
}

fn world() -> SimConfig {
    SimConfig { brokers: 3, ..Default::default() }
}

fn explored(jobs: usize) -> Explored {
    let surroundings = Surroundings {
        processes: vec!["shop".to_owned()],
        topics: vec![("orders".into(), 1)],
        crash_points: vec![("shop".to_owned(), POINT.to_owned())],
        kinds: [FaultKind::CrashProcess, FaultKind::CrashBroker, FaultKind::DelayResponse].into(),
        ..Surroundings::new(3, Duration::from_secs(6))
    };
    Exploration::new("shop", world())
        .seeds(0..200)
        .jobs(jobs.try_into().expect("more than none"))
        .faults(move |seed| draw(seed, &surroundings))
        .run(orders_are_sent)
}

#[test]
fn workload_and_cluster_become_smaller_and_the_file_replays_the_same_run() {
    let [one, two] = [1, 2].map(explored);
    let replay = &one.violations[0].replay;
    assert_eq!(replay.to_text(), two.violations[0].replay.to_text(), "it is deterministic");
    let shrunk = &replay.shrunk;
    assert_eq!(shrunk.sizes["orders"], (20, 1), "{replay}");
    assert_eq!(shrunk.brokers, Some((3, 1)), "{replay}");
    assert_eq!((shrunk.faults.1, shrunk.choices.1), (1, 0), "{replay}");
    let text = replay.to_text();
    println!("{text}{replay}");
    for part in ["brokers: Some(1)", "\"orders\": 1", "point: \"shop: taken, not yet sent\""] {
        assert!(text.contains(part), "{part}:\n{text}");
    }
    assert!(replay.to_string().contains("20 to 1 orders, 3 to 1 brokers, "), "{replay}");

    let read = Replay::from_bytes(&replay.to_bytes()).expect("it was written by us");
    let replayed = read.run(&world(), orders_are_sent);
    assert!(replayed.is_reproduced && replayed.is_identical, "{:?}", replayed.violations);
    assert_eq!(replayed.violations[0].sentence, "0 of 1 were");
}

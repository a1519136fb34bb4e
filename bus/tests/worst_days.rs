//! The load of the bench on worst days: every guarantee holds.

#[path = "../benches/worst_days/load.rs"]
mod load;

use bus_sim::explore::Exploration;
use bus_sim::fault::draw;

use load::{LARGE, Size, TINY, config, judged, surroundings};

fn holds(name: &str, size: Size, seeds: u64) {
    let surroundings = surroundings(size);
    let explored = Exploration::new(name, config(size))
        .seeds(0..seeds)
        .faults(|seed| draw(seed, &surroundings))
        .run(|sim| judged(sim, size));
    explored.assert_held();
}

#[test]
fn one_broker_keeps_every_guarantee() {
    holds("one-broker", TINY, 40);
}

#[test]
fn three_brokers_keep_every_guarantee() {
    holds("three-brokers", LARGE, 10);
}

/// Several batches are under way when a leader hears of its partition, or has too few replicas.
#[test]
fn three_brokers_keep_every_guarantee_with_batches_in_flight() {
    holds("three-brokers-pipelined", Size { batch: 20, ..LARGE }, 10);
}

//! Rates of worst days: whole runs with faults, recorded, and judged by all guarantees.
//!
//! `cargo bench -p bus` prints runs per second on one core. The seeds are those of a search: each
//! iteration runs the next one.

mod load;

use bus_sim::explore::Exploration;
use bus_sim::fault::draw;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

use load::{LARGE, TINY, config, judged, surroundings};

/// That of the command.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

criterion_group! {
    name = rates;
    config = Criterion::default().sample_size(20);
    targets = worst_days
}
criterion_main!(rates);

fn worst_days(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("worst_days");
    group.throughput(Throughput::Elements(1));
    for (name, size) in
        [("1_broker_100_records_group_of_2", TINY), ("3_brokers_900_records_group_of_3", LARGE)]
    {
        let surroundings = surroundings(size);
        let mut seed = 0;
        group.bench_function(name, |bencher| {
            // One search, as a person has it, of which each run is an iteration.
            bencher.iter_custom(|runs| {
                let explored = Exploration::new(name, config(size))
                    .without_environment()
                    .seeds(seed..seed + runs)
                    .jobs(std::num::NonZeroUsize::MIN)
                    .violations(usize::MAX)
                    .audit_every(0)
                    .shrink_runs(0)
                    .faults(|seed| draw(seed, &surroundings))
                    .run(|sim| judged(sim, size));
                seed += runs;
                // What breaks is for `tests/worst_days.rs` to say.
                explored.wall_time
            });
        });
    }
}

//! scratch
use differential::backend::*;
use differential::campaign::*;
use std::time::*;
fn main() {
    let a: Vec<String> = std::env::args().collect();
    let seed: u64 = a[1].parse().unwrap();
    let first: u64 = a[2].parse().unwrap();
    let n: u64 = a[3].parse().unwrap();
    let side: usize = a[4].parse().unwrap();
    let max: usize = a[5].parse().unwrap();
    let shrink: u64 = a[6].parse().unwrap();
    let rt =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    rt.block_on(async {
        let kafka = OnKafka::connect("127.0.0.1:19092").await.unwrap();
        let pair = Pair::new(kafka, OnSim::default());
        let c = Campaign {
            seed,
            first,
            programs: n,
            side_by_side: side,
            divergences_max: max,
            shrink_for: Duration::from_secs(shrink),
            ..Default::default()
        };
        let f = c.run(&pair, |_| {}).await;
        let mut kinds = std::collections::BTreeMap::<String, Vec<u64>>::new();
        for (n, s, d) in &f.divergences {
            println!("--- program {n} ({s} steps)\n{d}");
            kinds.entry(d.kind()).or_default().push(*n);
        }
        println!(
            "{} programs {} steps {} excluded {:?} {:.1}/s unsteady {:?}",
            f.programs,
            f.steps,
            f.excluded,
            f.time,
            f.rate(),
            f.unsteady
        );
        for (k, n) in kinds {
            println!("{} {k} {n:?}", n.len());
        }
    });
}

//! Scratch.
#![allow(missing_docs, clippy::all, clippy::pedantic, clippy::restriction)]
use bus_core::BusUrl;
use bus_sim::explore::{Exploration, PROGRESS, Violation};
use bus_sim::fault::{Envelope, FaultKind, Surroundings, draw};
use bus_sim::{Sim, SimConfig, SimHandle};
use scenarios::{Application, CrashPoints, Form, Reached, Verdict};
use std::collections::BTreeSet;
use std::time::Duration;

type Judged =
    std::pin::Pin<Box<dyn std::future::Future<Output = Result<(), Vec<Violation>>> + Send>>;
fn judged(a: &'static Application, form: Form) -> impl Fn(SimHandle) -> Judged + Sync {
    move |sim| {
        let cp = {
            let sim = sim.clone();
            CrashPoints::new(
                move |p, q| if sim.reached(p, q) { Reached::Crash } else { Reached::Continue },
            )
        };
        let run = (a.run)(sim.bus(), form, cp);
        Box::pin(async move {
            let report = match run.await {
                Ok(r) => r,
                Err(e) => return Err(vec![Violation::new("no failure", e.to_string())]),
            };
            if std::env::var("NOTES").is_ok() {
                println!("{:?} {:?}", report.notes, report.broken);
            }
            let mut v: Vec<_> =
                report.broken.iter().map(|b| Violation::new(b.guarantee, &b.sentence)).collect();
            if report.verdict == Verdict::Stalled {
                v.push(Violation::new(PROGRESS, report.notes.join("; ")));
            }
            if v.is_empty() { Ok(()) } else { Err(v) }
        })
    }
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let a = scenarios::find(&args[1]).expect("story");
    let form = a.form(&args[2]).unwrap();
    let (b, e) = args[3].split_once("..").unwrap();
    let (b, e): (u64, u64) = (b.parse().unwrap(), e.parse().unwrap());
    let many: usize = std::env::var("MANY").ok().map_or(1, |v| v.parse().unwrap());
    let shrink: u32 = std::env::var("SHRINK").ok().map_or(2000, |v| v.parse().unwrap());
    let extra = std::env::var("SIM").unwrap_or_default();
    let mut opts = (a.worst_day.options)(form).to_owned();
    if !extra.is_empty() {
        opts = format!("{opts}&{extra}");
    }
    let url: BusUrl = format!("sim://?{opts}").parse().unwrap();
    let mut world = SimConfig::from_url(&url).unwrap();
    world.time_limit = Duration::from_secs(3600);
    world.event_limit = 5_000_000;
    let beyond = a.worst_day.faults.contains(&"beyond");
    let kinds: BTreeSet<FaultKind> = std::env::var("FAULTS")
        .map(|f| f.split(',').map(str::to_owned).collect::<Vec<_>>())
        .unwrap_or_else(|_| {
            a.worst_day.faults.iter().filter(|s| **s != "beyond").map(|s| s.to_string()).collect()
        })
        .iter()
        .map(|k| *FaultKind::ALL.iter().find(|f| f.name() == k.as_str()).expect("kind"))
        .collect();
    if std::env::var("TRACE").is_ok() {
        let q = Sim::new(SimConfig { record_trace: true, seed: b, ..world.clone() })
            .unwrap()
            .run(judged(a, form));
        for l in &q.report.trace {
            println!("{l}");
        }
        return;
    }
    let quiet =
        Sim::new(SimConfig { record_events: true, ..world.clone() }).unwrap().run(judged(a, form));
    let s = Surroundings {
        brokers: world.brokers,
        processes: vec![],
        topics: vec![],
        groups: vec![],
        transactional_ids: vec![],
        crash_points: vec![],
        horizon: a.worst_day.horizon,
        envelope: if beyond || std::env::var("BEYOND").is_ok() {
            Envelope::Beyond
        } else {
            Envelope::Tolerated
        },
        kinds,
    }
    .seen_in(&quiet.report);
    if let Ok(seed) = std::env::var("DRAWN") {
        let seed: u64 = seed.parse().unwrap();
        let d = draw(seed, &s);
        println!("{d:#?}");
        let q = Sim::new(d.apply(SimConfig { record_trace: true, seed, ..world.clone() }))
            .unwrap()
            .run(judged(a, form));
        for l in &q.report.trace {
            println!("{l}");
        }
        for f in &q.report.faults {
            println!("{f:?}");
        }
        return;
    }
    let x = Exploration::new(a.name, world.clone())
        .seeds(b..e)
        .violations(many)
        .shrink_runs(shrink)
        .faults(|seed| draw(seed, &s))
        .run(judged(a, form));
    for f in &x.violations {
        println!(
            "seed {} steps {:?} choices {:?} : {:?}\n{}",
            f.seed,
            f.replay.shrunk.steps(),
            f.replay.shrunk.choices,
            f.violations.iter().take(2).collect::<Vec<_>>(),
            f.replay
        );
        if std::env::var("FULL").is_ok() {
            println!("{}", f.replay.to_text());
        }
        if std::env::var("REPLAY").is_ok() {
            let w = SimConfig { record_trace: true, ..world.clone() };
            let r = f.replay.run(&w, judged(a, form));
            for l in r.report.iter().flat_map(|r| &r.trace) {
                println!("{l}");
            }
        }
    }
    for d in &x.divergences {
        println!("DIVERGED {d}");
    }
    println!(
        "{} {} {}..{}: {} after {} seeds, {:.0}/s",
        a.name,
        args[2],
        b,
        e,
        if x.held() { "held" } else { "violated" },
        x.seeds_run,
        x.runs_per_second()
    );
}

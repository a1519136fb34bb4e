//! Exploration: what it finds, how it shrinks, and that a replay gives the same run.

mod checks;
mod environment;
mod shrink;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bus_core::{
    Bus, ConsumerConfig, ConsumerExt as _, NewTopic, Producer, ProducerConfig, ProducerRecord,
    Result, StartAt, TopicPartition,
};
use bus_sim::explore::{Exploration, Explored, Replay, ReplayError, Violation};
use bus_sim::{SimConfig, SimHandle};

/// Two producers send at the same time, and somebody relies on which of them is first: a race that
/// only the latency of messages decides.
async fn race(sim: SimHandle) -> Result<(), Vec<Violation>> {
    let first = who_is_first(&sim.bus()).await.expect("nothing goes wrong in this world");
    if first == "a" {
        return Ok(());
    }
    Err(vec![Violation::new("a is first", format!("{first} was first"))])
}

async fn who_is_first(bus: &Bus) -> Result<String> {
    bus.admin()?.create_topic(NewTopic::new("race")).await?;
    let [a, b] = [(); 2].map(|()| bus.producer(ProducerConfig::default()));
    let (a, b) = (a?, b?);
    let send =
        |producer: &Arc<dyn Producer>, name| producer.send(ProducerRecord::to("race").value(name));
    let (sent_a, sent_b) = (send(&a, "a"), send(&b, "b"));
    sent_a.await?;
    sent_b.await?;
    let consumer = bus.consumer(ConsumerConfig::default())?;
    consumer.assign(&[(TopicPartition::new("race", 0), StartAt::Beginning)])?;
    let records = consumer.poll_records(Duration::from_secs(10)).await?;
    Ok(String::from_utf8_lossy(records[0].value.as_deref().unwrap_or_default()).into_owned())
}

fn explore_race(jobs: usize) -> Explored {
    let jobs = jobs.try_into().expect("more than none");
    Exploration::new("race", SimConfig::default()).seeds(0..100).jobs(jobs).run(race)
}

#[test]
fn a_race_is_found_and_shrunk_to_the_choices_that_decide_it() {
    let explored = explore_race(2);
    let [found] = explored.violations.as_slice() else { panic!("{explored:#?}") };
    assert_eq!(explored.seeds_run, found.seed + 1);
    assert_eq!(found.violations[0].guarantee, "a is first");
    let (before, after) = found.replay.shrunk.steps();
    println!("{}", found.replay.to_text());
    assert!(before > 20 && after <= 3, "{before} to {after}: {}", found.replay);
}

#[test]
fn the_number_of_jobs_changes_nothing() {
    let [one, four] = [1, 4].map(|jobs| explore_race(jobs).violations[0].replay.to_text());
    assert_eq!(one, four);
}

#[test]
fn a_replay_gives_the_same_run_from_its_text() {
    let text = explore_race(2).violations[0].replay.to_text();
    let replay = Replay::from_text(&text).expect("it was written by us");
    let replayed = replay.run(&SimConfig::default(), race);
    assert!(replayed.is_reproduced && replayed.is_identical, "{replayed:#?}");
    let without_comments = |text: &str| -> Vec<String> {
        text.lines().map(|line| line.split(" // ").next().unwrap_or_default().to_owned()).collect()
    };
    assert_eq!(without_comments(&replay.to_text()), without_comments(&text));
    // Edited by hand: without the choices that decide it, nothing is broken.
    let mut harmless = replay;
    harmless.case.overrides.values.clear();
    let replayed = harmless.run(&SimConfig::default(), race);
    assert!(!replayed.is_reproduced && !replayed.is_identical, "{replayed:#?}");
}

#[test]
fn what_is_no_replay_file_is_refused_with_its_place() {
    let text = explore_race(1).violations[0].replay.to_text();
    let refused = |text: &str| Replay::from_text(text).expect_err("it is no replay file");
    assert!(matches!(refused("[package]\nname = \"bus\""), ReplayError::Foreign));
    assert!(matches!(refused(""), ReplayError::Foreign));
    let other = text.replace("busplay: 1", "busplay: 7");
    assert!(matches!(refused(&other), ReplayError::Version { found: 7 }), "{}", refused(&other));
    let cut = &text[..text.len() / 2];
    assert!(matches!(refused(cut), ReplayError::Broken { .. }), "{}", refused(cut));
    let unknown = text.replace("seed:", "sed:");
    let error = refused(&unknown);
    assert!(matches!(error, ReplayError::Broken { line, .. } if line > 5), "{error}");
    assert!(error.to_string().contains("sed"), "{error}");
}

#[test]
fn panics_of_tasks_are_violations_and_not_printed() {
    let explored =
        Exploration::new("panic", SimConfig::default()).seeds(0..5).run(|sim| async move {
            let task = sim.bus().spawn("unlucky", async { panic!("no stock") });
            drop(task);
            tokio::time::sleep(Duration::from_secs(1)).await;
            Ok(())
        });
    let found = &explored.violations[0].violations[0];
    assert_eq!(found.guarantee, "no panic");
    assert!(found.sentence.starts_with("no stock, at "), "{found:?}");
}

#[test]
fn an_application_that_is_not_deterministic_is_told_so() {
    let runs = AtomicU64::new(0);
    let explored =
        Exploration::new("clock", SimConfig::default()).seeds(0..1).audit_every(1).run(|sim| {
            // What a clock of the machine would do.
            let run = runs.fetch_add(1, Ordering::Relaxed);
            async move {
                let topic = NewTopic::new(format!("topic-{run}"));
                let admin = sim.bus().admin().expect("it is there");
                admin.create_topic(topic).await.expect("nothing goes wrong in this world");
                Ok(())
            }
        });
    let [divergence] = explored.divergences.as_slice() else { panic!("{explored:#?}") };
    let (_, lines) = divergence.first.as_ref().expect("the first event that differs is found");
    assert!(lines[0].contains("CreateTopics"), "{divergence}");
    assert!(!explored.held());
}

#[test]
fn a_run_that_never_ends_is_reported_with_what_it_waits_for() {
    let config = SimConfig { time_limit: Duration::from_mins(10), ..Default::default() };
    let explored = Exploration::new("stall", config).seeds(0..3).run(|sim| async move {
        let admin = sim.bus().admin().expect("it is there");
        admin.create_topic(NewTopic::new("empty")).await.expect("nothing goes wrong");
        let consumer = sim.bus().consumer(ConsumerConfig::default()).expect("it is valid");
        let start = [(TopicPartition::new("empty", 0), StartAt::Beginning)];
        consumer.assign(&start).expect("it is valid");
        while consumer.poll_records(Duration::from_hours(1)).await.is_ok_and(|r| r.is_empty()) {}
        Ok(())
    });
    let found = &explored.violations[0].violations[0];
    assert_eq!(found.guarantee, "progress");
    assert!(found.sentence.contains("poll"), "{found:?}");
}

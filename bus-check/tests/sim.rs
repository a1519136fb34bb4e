//! A group application on the simulator, recorded and judged: with faults every guarantee holds,
//! and with a planted bug the one that it breaks is named.

mod application;

use application::faults::try_to;
use application::{Application, Run, cluster, network, processes, quiet, zombies};
use bus_check::{Guarantee, History, Verdict};
use bus_core::{Assignor, ProducerConfig};
use bus_sim::SimHandle;

#[test]
fn every_guarantee_holds_without_faults() {
    holds(&Run { faults: quiet, ..Run::default() });
}

#[test]
fn every_guarantee_holds_when_members_crash_pause_and_restart() {
    holds(&Run { faults: processes, ..Run::default() });
    holds(&Run {
        faults: processes,
        assignors: vec![Assignor::CooperativeSticky],
        members: 3,
        ..Run::default()
    });
}

#[test]
fn every_guarantee_holds_when_tasks_stand_still() {
    for assignor in [Assignor::Range, Assignor::CooperativeSticky] {
        let run = Run { faults: stalls, assignors: vec![assignor], ..Run::default() };
        holds(&run);
        let events = run.record().0.to_string();
        assert!(events.contains("MaxPollExceeded"), "the member leaves by itself:\n{events}");
    }
}

#[test]
fn every_guarantee_holds_when_messages_are_lost_and_the_broker_crashes() {
    holds(&Run { faults: network, ..Run::default() });
}

#[test]
fn every_guarantee_holds_when_brokers_of_a_cluster_crash() {
    holds(&Run { faults: cluster, brokers: 3, min_insync_replicas: 2, ..Run::default() });
}

#[test]
fn every_guarantee_holds_with_transactions() {
    let ledger = Run { application: Application::Ledger, ..Run::default() };
    holds(&ledger);
    holds(&Run { faults: zombies, ..ledger.clone() });
    holds(&Run { faults: cluster, brokers: 3, min_insync_replicas: 2, ..ledger });
}

#[test]
fn duplicates_without_idempotence_are_permitted_and_explained() {
    let producer = ProducerConfig { enable_idempotence: false, ..Default::default() };
    let run = Run { faults: network, producer, ..Run::default() };
    let (_, report) = run.judge();
    assert_eq!(report.broken(), []);
    let duplicates: Vec<_> = report.of(Guarantee::A2).collect();
    assert!(!duplicates.is_empty(), "a response was lost, so its request was sent again");
    assert!(duplicates.iter().all(|found| found.verdict == Verdict::Explained));
}

#[test]
fn a_run_is_recorded_the_same_again() {
    let run = Run { faults: processes, seed: 7, ..Run::default() };
    let ((one, _), (other, _)) = (run.record(), run.record());
    let (lines, again) = (one.to_string(), other.to_string());
    let differs =
        lines.lines().zip(again.lines()).enumerate().find(|(_, (one, other))| one != other);
    assert_eq!(differs, None, "the first line that differs");
    assert_eq!(one.to_json_lines().ok(), other.to_json_lines().ok());
    let read = History::from_bincode(&one.to_bincode().expect("it can be written"));
    assert_eq!(read.expect("it can be read"), one);
}

/// The tasks of a member and of a publisher stand still, the member's until it leaves by itself.
fn stalls(sim: &SimHandle, step: u32) {
    match step {
        1 => try_to(sim.stall("member-0")),
        3 => try_to(sim.stall("publisher-0")),
        5 => try_to(sim.resume("publisher-0")),
        8 => try_to(sim.resume("member-0")),
        _ => {}
    }
}

/// On several seeds, nothing is wrong, and nothing is left open.
fn holds(run: &Run) {
    for seed in 0..3 {
        let (history, report) = Run { seed, ..run.clone() }.judge();
        let wrong = report.findings().iter().filter(|found| found.verdict < Verdict::Explained);
        let wrong: Vec<_> = wrong
            .map(|found| {
                let witness = found.anomaly.witness.iter();
                let witness: Vec<_> = witness.map(|at| history.line(*at).to_string()).collect();
                let sentence = &found.anomaly.sentence;
                format!("{}: {sentence}\n  {}", found.guarantee, witness.join("\n  "))
            })
            .collect();
        assert!(wrong.is_empty(), "seed {seed}\n{}", wrong.join("\n"));
    }
}

//! Tests the checkers: each planted bug of the simulator is caught by a named guarantee.

mod application;

use application::{Run, network, processes};
use bus_check::Guarantee;
use bus_sim::{Mutation, SimHandle};

/// On so many seeds each is tried.
const SEEDS: u64 = 2;

/// Which guarantee catches which planted bug, under which faults.
const CATCHERS: &[(Mutation, Guarantee, application::Faults)] = &[
    (Mutation::DeliveredTwice, Guarantee::D1, quiet),
    (Mutation::EveryMemberGetsEveryRecord, Guarantee::E1, quiet),
    (Mutation::CommitRewound, Guarantee::E8, quiet),
    (Mutation::RecordSkippedAtRebalance, Guarantee::D5, processes),
    (Mutation::KeyToAnotherPartition, Guarantee::A5, quiet),
    (Mutation::BatchReversed, Guarantee::C2, quiet),
    (Mutation::PayloadCut, Guarantee::A4, quiet),
    (Mutation::NonUtf8Mangled, Guarantee::A4, quiet),
    (Mutation::ZombieCommitAccepted, Guarantee::E3, processes),
    (Mutation::AcknowledgedInFlightLostOnClose, Guarantee::B2, quiet),
    (Mutation::HeadersLost, Guarantee::A4, quiet),
    (Mutation::SequenceIgnored, Guarantee::A2, network),
    (Mutation::ResetPolicyIgnored, Guarantee::D5, quiet),
    (Mutation::ConsumerDiesWhenIdle, Guarantee::H2, quiet),
    (Mutation::PublishAfterCloseDropped, Guarantee::B2, quiet),
    (Mutation::CommitPassesUnfinishedRecord, Guarantee::E5, quiet),
    (Mutation::TimestampLost, Guarantee::A4, quiet),
    (Mutation::NullBecomesEmpty, Guarantee::A4, quiet),
    (Mutation::AckedWithWrongOffset, Guarantee::A8, quiet),
    (Mutation::PauseIgnored, Guarantee::D10, quiet),
    (Mutation::SeekIgnored, Guarantee::D6, quiet),
    (Mutation::SessionNeverExpires, Guarantee::E9, crash),
    (Mutation::StaleAssignment, Guarantee::E9, processes),
    (Mutation::DuplicateAnsweredAsError, Guarantee::A2, network),
];

fn quiet(_: &SimHandle, _: u32) {}

fn crash(sim: &SimHandle, step: u32) {
    if step == 4 {
        sim.crash("member-0").expect("it runs");
    }
}

#[test]
fn every_planted_bug_is_caught_by_its_guarantee() {
    let mut missed = Vec::new();
    println!("| Planted bug | Caught by | Seeds | As | Also broken |\n|---|---|---|---|---|");
    for (mutation, guarantee, faults) in CATCHERS {
        let sound = Run { faults: *faults, ..Run::default() };
        let mutant = Run { mutation: Some(*mutation), ..sound };
        let mut caught = 0;
        let mut how = String::new();
        let mut others = String::new();
        for seed in 0..SEEDS {
            let (_, judgment) = Run { seed, ..mutant.clone() }.judge();
            let broken = judgment.broken();
            if let Some(finding) = judgment.of(*guarantee).find(|f| f.verdict.is_violation()) {
                caught += 1;
                how.clone_from(&finding.anomaly.sentence);
                let also = broken.iter().filter(|broken| *broken != guarantee);
                others = also.map(|broken| broken.id()).collect::<Vec<_>>().join(" ");
            }
        }
        println!("| {} | {guarantee} | {caught} of {SEEDS} | {how} | {others} |", mutation.name());
        if caught == 0 {
            missed.push(mutation.name());
        }
    }
    assert!(missed.is_empty(), "no guarantee caught {missed:?}");
}

#[test]
fn without_a_planted_bug_they_hold() {
    for faults in [quiet, crash, processes, network] {
        for seed in 0..SEEDS {
            let (_, judgment) = Run { seed, faults, ..Run::default() }.judge();
            assert_eq!(judgment.broken(), [], "seed {seed}");
        }
    }
}

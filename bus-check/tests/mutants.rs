//! Tests the checkers: each planted bug of the simulator is caught by a named guarantee, within a
//! stated number of seeds.
//!
//! The table is printed with `--nocapture`; that of `docs/semantics.md` is made of it.

mod application;
mod delays;
mod outages;
mod table;

use std::collections::BTreeSet;
use std::time::Duration;

use application::{Application, Faults, Run, cluster, network, processes, quiet, zombies};
use bus_check::{Guarantee, Report};
use bus_core::{Assignor, ProducerConfig};
use bus_sim::Mutation;
use delays::{apart, late, unheeded};
use outages::{
    crash, lagging, last_words, outlived, paused, rolling, severed, unanswered, unclean, undecided,
    unheard,
};

/// Within so many seeds each is caught; [`seeds_of`] says with which.
const SEEDS: u64 = 5;

/// What a planted bug runs in.
#[derive(Clone, Copy)]
enum Scene {
    /// A group, and what is done to it.
    Group(Faults),
    /// A group on three brokers.
    Cluster(Faults),
    /// A group on three brokers, of which one alone may acknowledge.
    Alone(Faults),
    /// Transactions.
    Ledger(Faults),
    /// A group whose producers are not idempotent.
    Plain(Faults),
    /// A group whose producers give up before they send more.
    Hasty(Faults),
    /// A group, and somebody who asks for the ends of the logs all the time.
    Asked(Faults),
    /// The same on three brokers.
    AskedCluster(Faults),
    /// A group that rebalances cooperatively.
    Cooperative(Faults),
    /// A group whose members take their time to give up partitions.
    Slow(Faults),
    /// Transactions, and somebody who asks what they have committed.
    Observed(Faults),
    /// Transactions on three brokers.
    LedgerCluster(Faults),
}

impl Scene {
    fn run(self) -> Run {
        let ledger = Run { application: Application::Ledger, ..Run::default() };
        match self {
            Self::Group(faults) => Run { faults, ..Run::default() },
            Self::Cluster(faults) => {
                Run { faults, brokers: 3, min_insync_replicas: 2, ..Run::default() }
            }
            Self::Alone(faults) => Run { faults, brokers: 3, ..Run::default() },
            Self::Ledger(faults) => Run { faults, ..ledger },
            Self::Plain(faults) => {
                let producer =
                    ProducerConfig { enable_idempotence: false, ..ProducerConfig::default() };
                Run { faults, producer, ..Run::default() }
            }
            Self::Hasty(faults) => {
                let delivery_timeout = Duration::from_millis(300);
                let producer = ProducerConfig { delivery_timeout, ..ProducerConfig::default() };
                Run { faults, producer, ..Run::default() }
            }
            Self::Asked(faults) => Run { asks: true, ..Self::Group(faults).run() },
            Self::AskedCluster(faults) => Run { asks: true, ..Self::Cluster(faults).run() },
            Self::Cooperative(faults) => {
                let assignors = vec![Assignor::CooperativeSticky];
                Run { faults, assignors, members: 3, ..Run::default() }
            }
            Self::Slow(faults) => {
                let revocation = Duration::from_millis(300);
                Run { faults, revocation, members: 3, ..Run::default() }
            }
            Self::Observed(faults) => Run { faults, is_observed: true, ..ledger },
            Self::LedgerCluster(faults) => {
                Run { faults, brokers: 3, min_insync_replicas: 2, ..ledger }
            }
        }
    }
}

/// Which guarantee catches which planted bug, and where.
const CATCHERS: &[(Mutation, Guarantee, Scene)] = &[
    (Mutation::DeliveredTwice, Guarantee::D1, Scene::Group(quiet)),
    (Mutation::EveryMemberGetsEveryRecord, Guarantee::E1, Scene::Group(quiet)),
    (Mutation::CommitRewound, Guarantee::E8, Scene::Group(quiet)),
    (Mutation::RecordSkippedAtRebalance, Guarantee::D5, Scene::Group(processes)),
    (Mutation::KeyToAnotherPartition, Guarantee::A5, Scene::Group(quiet)),
    (Mutation::BatchReversed, Guarantee::C2, Scene::Group(quiet)),
    (Mutation::PayloadCut, Guarantee::A4, Scene::Group(quiet)),
    (Mutation::NonUtf8Mangled, Guarantee::A4, Scene::Group(quiet)),
    (Mutation::ZombieCommitAccepted, Guarantee::E3, Scene::Group(processes)),
    (Mutation::AcknowledgedInFlightLostOnClose, Guarantee::B2, Scene::Group(quiet)),
    (Mutation::HeadersLost, Guarantee::A4, Scene::Group(quiet)),
    (Mutation::SequenceIgnored, Guarantee::A2, Scene::Group(network)),
    (Mutation::ResetPolicyIgnored, Guarantee::D5, Scene::Group(quiet)),
    (Mutation::ConsumerDiesWhenIdle, Guarantee::H2, Scene::Group(quiet)),
    (Mutation::PublishAfterCloseDropped, Guarantee::B2, Scene::Group(quiet)),
    (Mutation::CommitPassesUnfinishedRecord, Guarantee::E5, Scene::Group(quiet)),
    (Mutation::TimestampLost, Guarantee::A4, Scene::Group(quiet)),
    (Mutation::NullBecomesEmpty, Guarantee::A4, Scene::Group(quiet)),
    (Mutation::AckedWithWrongOffset, Guarantee::A8, Scene::Group(quiet)),
    (Mutation::PauseIgnored, Guarantee::D10, Scene::Group(quiet)),
    (Mutation::SeekIgnored, Guarantee::D6, Scene::Group(quiet)),
    (Mutation::SessionNeverExpires, Guarantee::E9, Scene::Group(crash)),
    (Mutation::StaleAssignment, Guarantee::E9, Scene::Group(processes)),
    (Mutation::CoordinatorLoadsNothing, Guarantee::E8, Scene::Group(network)),
    (Mutation::ElectedOutOfSync, Guarantee::G11, Scene::Alone(lagging)),
    (Mutation::CommitBeforeFlush, Guarantee::C9, Scene::Ledger(quiet)),
    (Mutation::CommitIgnoresFailures, Guarantee::F19, Scene::Ledger(quiet)),
    (Mutation::AbortFilterIgnoresProducer, Guarantee::F4, Scene::Ledger(zombies)),
    (Mutation::MarkerDelivered, Guarantee::A3, Scene::Ledger(quiet)),
    (Mutation::AbortedRecordVisible, Guarantee::F1, Scene::Ledger(quiet)),
    (Mutation::MarkerOffsetReused, Guarantee::D3, Scene::Ledger(quiet)),
    (Mutation::ZombieTransactionAccepted, Guarantee::F9, Scene::Ledger(zombies)),
    (Mutation::OffsetsBeforeCommit, Guarantee::F8, Scene::Ledger(zombies)),
    (Mutation::OpenTransactionVisible, Guarantee::F2, Scene::Ledger(quiet)),
    (Mutation::MarkerMissing, Guarantee::F12, Scene::Ledger(quiet)),
    (Mutation::TransactionNeverTimesOut, Guarantee::F12, Scene::Ledger(quiet)),
    (Mutation::TransactionOfOldGenerationAccepted, Guarantee::F10, Scene::Ledger(paused)),
    (Mutation::WatermarkAheadOfInSync, Guarantee::G3, Scene::Cluster(cluster)),
    (Mutation::TruncatedToWatermark, Guarantee::B4, Scene::Cluster(rolling)),
    (Mutation::DivergenceIgnored, Guarantee::G4, Scene::Cluster(cluster)),
    (Mutation::AckedBeforeReplicated, Guarantee::B5, Scene::Cluster(cluster)),
    (Mutation::MinInsyncReplicasIgnored, Guarantee::B5, Scene::Cluster(cluster)),
    (Mutation::ReadAboveWatermark, Guarantee::D7, Scene::Cluster(cluster)),
    // A to D.
    (Mutation::DuplicateAnsweredWithLogEnd, Guarantee::A1, Scene::Group(network)),
    (Mutation::DuplicateTakesOffsets, Guarantee::A6, Scene::Group(network)),
    (Mutation::EarliestIsNewestBatch, Guarantee::A7, Scene::Asked(quiet)),
    (Mutation::BufferLostWithConnection, Guarantee::A10, Scene::Group(network)),
    (Mutation::BatchLostAtRoll, Guarantee::B1, Scene::Group(quiet)),
    (Mutation::TimeoutCalledDefinite, Guarantee::B3, Scene::Hasty(unheeded)),
    (Mutation::EndToldTooEarly, Guarantee::B6, Scene::AskedCluster(apart)),
    (Mutation::TailLostAtRestart, Guarantee::C1, Scene::Plain(network)),
    (Mutation::AckedWhenSent, Guarantee::C3, Scene::Group(late)),
    (Mutation::FailedBatchForgotten, Guarantee::C4, Scene::Group(network)),
    (Mutation::RetryDeliveredSilently, Guarantee::C5, Scene::Group(network)),
    (Mutation::PipelinedAckedWhenSent, Guarantee::C6, Scene::Group(late)),
    (Mutation::ZombieAppendAccepted, Guarantee::C7, Scene::Ledger(zombies)),
    (Mutation::EndSentAgainFenced, Guarantee::C8, Scene::Ledger(zombies)),
    (Mutation::FirstOfBatchSkipped, Guarantee::D2, Scene::Group(quiet)),
    (Mutation::PollDropsTheRest, Guarantee::D4, Scene::Group(quiet)),
    (Mutation::EndOfCheckpointTold, Guarantee::D9, Scene::Asked(quiet)),
    (Mutation::MaxPollRecordsPerPartition, Guarantee::D12, Scene::Group(quiet)),
    // E: groups and their commits.
    (Mutation::HandedOverUnrevoked, Guarantee::E2, Scene::Cooperative(processes)),
    (Mutation::CommitMixedUp, Guarantee::E4, Scene::Group(quiet)),
    (Mutation::NoOffsetMeansEnd, Guarantee::E6, Scene::Group(quiet)),
    (Mutation::CommitTakenForLastRecord, Guarantee::E7, Scene::Group(processes)),
    (Mutation::JoinsBeforeRevoked, Guarantee::E10, Scene::Slow(processes)),
    (Mutation::AssignedAgain, Guarantee::E11, Scene::Cooperative(processes)),
    (Mutation::GenerationNotLoaded, Guarantee::E12, Scene::Group(network)),
    (Mutation::CommitAckedBeforeReplicated, Guarantee::E7, Scene::Cluster(severed)),
    // F: transactions.
    (Mutation::AbortNeverEnds, Guarantee::F5, Scene::Ledger(quiet)),
    (Mutation::AbortMarkedAsCommit, Guarantee::F6, Scene::Ledger(quiet)),
    (Mutation::UnstableOffsetServed, Guarantee::E8, Scene::Observed(undecided)),
    (Mutation::MarkerMissing, Guarantee::F7, Scene::Ledger(unanswered)),
    (Mutation::AbortedOffsetsCount, Guarantee::F11, Scene::Ledger(quiet)),
    (Mutation::UncleanRestartForgotten, Guarantee::F14, Scene::LedgerCluster(unclean)),
    (Mutation::ProducerIdsOverlap, Guarantee::F17, Scene::LedgerCluster(quiet)),
    (Mutation::OpenTransactionForgotten, Guarantee::F18, Scene::Ledger(unanswered)),
    // G: replicas.
    (Mutation::EligibleForTooLong, Guarantee::G1, Scene::Cluster(outlived)),
    (Mutation::UncleanRestartForgotten, Guarantee::G8, Scene::Cluster(unclean)),
    (Mutation::DeposedLeaderLeadsOn, Guarantee::G9, Scene::Cluster(cluster)),
    (Mutation::WatermarkTakenBack, Guarantee::G10, Scene::Cluster(cluster)),
    (Mutation::JoinsBehindWatermark, Guarantee::G12, Scene::Cluster(cluster)),
    (Mutation::StaleLeaderNotFenced, Guarantee::G1, Scene::Cluster(unheard)),
    // H: progress.
    (Mutation::CommitNeverRepeated, Guarantee::H1, Scene::Group(network)),
    (Mutation::LeaderlessForEver, Guarantee::H3, Scene::Alone(lagging)),
    (Mutation::RegistrationNotHeard, Guarantee::H4, Scene::Cluster(cluster)),
    (Mutation::HeartbeatNotCounted, Guarantee::H5, Scene::Group(quiet)),
    (Mutation::CloseIgnoresDeadline, Guarantee::H9, Scene::Group(last_words)),
];

/// Those that take more than one seed to be caught, and how many.
const LATER: &[(Mutation, u64)] = &[
    (Mutation::ZombieTransactionAccepted, 3),
    (Mutation::BufferLostWithConnection, 2),
    (Mutation::EndToldTooEarly, 2),
    (Mutation::TailLostAtRestart, 2),
    (Mutation::ZombieAppendAccepted, 3),
    (Mutation::GenerationNotLoaded, 2),
    (Mutation::AbortedOffsetsCount, 2),
];

/// Planted bugs that change nothing that a guarantee is about, with the reason.
const UNSEEN: &[(Mutation, &str)] = &[
    (Mutation::LeaderEpochIgnored, "an old leader has no client that would believe it"),
    (Mutation::DuplicateAnsweredAsError, "its producer fails for good, and says so"),
    (Mutation::TruncationNotDetected, "needs a log that loses what a reader has read"),
    (Mutation::SentBeforeCloseDropped, "a member that leaves unheard is missed a session later"),
    (Mutation::NewLeaderNotAwaited, "needs a leader that dies with five batches in flight"),
];

/// Within how many seeds a planted bug is caught.
fn seeds_of(bug: Mutation) -> u64 {
    LATER.iter().find(|(other, _)| *other == bug).map_or(1, |(_, seeds)| *seeds)
}

/// The first seed on which a guarantee is broken, with the report of that run.
fn first(run: &Run, guarantee: Guarantee) -> Option<(u64, Report)> {
    (0..SEEDS).find_map(|seed| {
        let (_, report) = Run { seed, ..run.clone() }.judge();
        report.broken().contains(&guarantee).then_some((seed, report))
    })
}

#[test]
fn planted_bugs_are_caught_in_a_group() {
    let is_group =
        |scene| matches!(scene, Scene::Group(_) | Scene::Cooperative(_) | Scene::Slow(_));
    let (rows, missed) = catch(is_group);
    println!("{rows}");
    assert!(missed.is_empty(), "not caught as the table says: {missed:?}");
}

#[test]
fn planted_bugs_are_caught_in_a_group_that_is_watched() {
    let (rows, missed) = catch(|scene| {
        matches!(
            scene,
            Scene::Plain(_) | Scene::Hasty(_) | Scene::Asked(_) | Scene::AskedCluster(_)
        )
    });
    println!("{rows}");
    assert!(missed.is_empty(), "not caught as the table says: {missed:?}");
}

#[test]
fn planted_bugs_are_caught_in_a_cluster() {
    let (rows, missed) = catch(|scene| matches!(scene, Scene::Cluster(_) | Scene::Alone(_)));
    println!("{rows}");
    assert!(missed.is_empty(), "not caught as the table says: {missed:?}");
}

#[test]
fn planted_bugs_are_caught_in_transactions() {
    let (rows, missed) = catch(|scene| {
        matches!(scene, Scene::Ledger(_) | Scene::Observed(_) | Scene::LedgerCluster(_))
    });
    println!("{rows}");
    assert!(missed.is_empty(), "not caught as the table says: {missed:?}");
}

/// Catches the planted bugs of some scenes: guarantee, bug, seeds, the sentence, and what else is
/// broken. Also gives those that were not caught, or not with the seed that the table names.
fn catch(is_meant: fn(Scene) -> bool) -> (String, Vec<String>) {
    let (mut rows, mut missed) = (Vec::new(), Vec::new());
    for (mutation, guarantee, scene) in CATCHERS.iter().filter(|(.., scene)| is_meant(*scene)) {
        let run = Run { mutation: Some(*mutation), ..scene.run() };
        let name = mutation.name();
        let Some((seed, report)) = first(&run, *guarantee) else {
            missed.push(format!("{name} (in {SEEDS} seeds)"));
            continue;
        };
        if seed + 1 != seeds_of(*mutation) {
            missed.push(format!("{name} (with seed {}: see LATER)", seed + 1));
        }
        let finding = report.of(*guarantee).find(|found| found.verdict.is_violation());
        let sentence = finding.map(|found| found.sentence().to_owned()).unwrap_or_default();
        let others = report.broken().into_iter().filter(|broken| broken != guarantee);
        let others = others.map(Guarantee::id).collect::<Vec<_>>().join(" ");
        rows.push(format!("| {guarantee} | {name} | {} | {sentence} | {others} |", seed + 1));
    }
    (rows.join("\n"), missed)
}

#[test]
fn every_planted_bug_has_a_row() {
    let rows = CATCHERS.iter().map(|(mutation, guarantee, _)| (*mutation, Some(*guarantee)));
    let rows: Vec<_> = rows.chain(UNSEEN.iter().map(|(mutation, _)| (*mutation, None))).collect();
    assert_eq!(rows.len(), rows.iter().collect::<BTreeSet<_>>().len(), "a row is there twice");
    let rows: BTreeSet<_> = rows.into_iter().map(|(mutation, _)| mutation).collect();
    let missing: Vec<_> = Mutation::ALL.iter().filter(|bug| !rows.contains(bug)).collect();
    assert!(missing.is_empty(), "add a row for {missing:?}");
}

#[test]
fn without_a_planted_bug_they_hold() {
    let scenes = [
        Scene::Group(quiet),
        Scene::Group(crash),
        Scene::Group(processes),
        Scene::Group(network),
        Scene::Group(last_words),
        Scene::Cooperative(processes),
        Scene::Slow(processes),
        Scene::Cluster(cluster),
        Scene::Cluster(outlived),
        Scene::Cluster(severed),
        Scene::Cluster(unclean),
        Scene::Cluster(unheard),
        Scene::Alone(lagging),
        Scene::Ledger(quiet),
        Scene::Ledger(zombies),
        Scene::Ledger(paused),
        Scene::Group(late),
        Scene::Plain(network),
        Scene::Hasty(unheeded),
        Scene::Asked(quiet),
        Scene::AskedCluster(apart),
        Scene::Ledger(unanswered),
        Scene::Observed(undecided),
        Scene::LedgerCluster(quiet),
        Scene::LedgerCluster(unclean),
    ];
    for scene in scenes {
        for seed in 0..2 {
            let (_, report) = Run { seed, ..scene.run() }.judge();
            assert_eq!(report.broken(), [], "seed {seed}\n{report}");
        }
    }
}

#[test]
fn the_tables_of_the_documents_are_these() {
    let document = include_str!("../../docs/semantics.md");
    let rows = CATCHERS.iter().map(|(bug, guarantee, _)| (*bug, *guarantee, seeds_of(*bug)));
    let tables = table::all(&rows.collect::<Vec<_>>(), UNSEEN);
    let versions = table::VERSIONS;
    assert!(document.replace('\n', " ").contains(versions), "docs/semantics.md names {versions}");
    assert!(document.contains(&tables), "put this into docs/semantics.md:\n{tables}");
}

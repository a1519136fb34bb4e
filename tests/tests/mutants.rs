//! Tests the tests: each planted bug of the simulator is caught by a named case.
//!
//! The case must hold without the bug on every seed, and fail with it on at least one, by an
//! assertion, a law, a deadline, or an error: not because the simulator crashes. A table of all
//! planted bugs stands behind the results. `BUS_TEST_MATRIX=1` also counts all cases that catch
//! each.

#![expect(clippy::print_stdout, reason = "the table of planted bugs is what it is for")]

use std::collections::BTreeMap;
use std::sync::Arc;

use bus_sim::Mutation;
use conformance::column::{Column, SIM, SIM3};
use conformance::failure::{Failure, FailureKind};
use conformance::fixture::Need;
use conformance::suite::{CASES, case};
use conformance::{case::Case, on_sim};
use libtest_mimic::{Arguments, Failed, Trial};
use parking_lot::Mutex;

/// On so many seeds each case is run, with the bug and without.
const SEEDS: u64 = 5;

/// Which case catches which planted bug.
const CATCHERS: &[(Mutation, &str)] = &[
    (Mutation::DeliveredTwice, "consume::earliest_reads_from_the_start"),
    (Mutation::EveryMemberGetsEveryRecord, "groups::members_split_partitions"),
    (Mutation::CommitRewound, "commit::commit_is_what_the_group_is_told"),
    (Mutation::RecordSkippedAtRebalance, "rebalances::join_under_load_delivers_each_record_once"),
    (Mutation::KeyToAnotherPartition, "produce::key_goes_to_kafkas_partition"),
    (Mutation::BatchReversed, "produce::batch_keeps_order"),
    (Mutation::PayloadCut, "payload::values_of_all_sizes_arrive_whole"),
    (Mutation::NonUtf8Mangled, "payload::bytes_that_are_no_text_arrive_unchanged"),
    (Mutation::ZombieCommitAccepted, "fencing::zombie_commit_is_fenced"),
    (Mutation::AcknowledgedInFlightLostOnClose, "produce::close_flushes"),
    (Mutation::HeadersLost, "payload::headers_keep_order_and_repetitions"),
    (Mutation::SequenceIgnored, "retries::retry_is_no_duplicate"),
    (Mutation::ResetPolicyIgnored, "consume::latest_skips_what_was_there"),
    (Mutation::ConsumerDiesWhenIdle, "consume::record_after_an_idle_hour"),
    (Mutation::PublishAfterCloseDropped, "produce::send_after_close_is_refused"),
    (Mutation::CommitPassesUnfinishedRecord, "commit::auto_commit_never_passes_delivery"),
    (Mutation::TimestampLost, "payload::timestamps_are_kept"),
    (Mutation::NullBecomesEmpty, "payload::null_is_not_empty"),
    (Mutation::AckedWithWrongOffset, "produce::one_record_arrives"),
    (Mutation::PauseIgnored, "positions::pause_holds_back_what_was_fetched"),
    (Mutation::SeekIgnored, "positions::seek_discards_what_was_fetched"),
    (Mutation::SessionNeverExpires, "fencing::crash_moves_partitions_after_the_session"),
    (Mutation::StaleAssignment, "groups::join_moves_partitions"),
    (Mutation::DuplicateAnsweredAsError, "retries::retry_is_no_duplicate"),
    (Mutation::CommitBeforeFlush, "transactions::commit_flushes"),
    (
        Mutation::CommitIgnoresFailures,
        "transaction_errors::record_for_a_missing_topic_fails_the_transaction",
    ),
    (Mutation::AbortFilterIgnoresProducer, "transactions::interleaved_transactions_are_told_apart"),
    (Mutation::MarkerDelivered, "transactions::many_transactions_in_a_row"),
    (Mutation::AbortedRecordVisible, "transactions::aborted_records_are_invisible"),
    (Mutation::MarkerOffsetReused, "transactions::markers_take_offsets"),
    (Mutation::ZombieTransactionAccepted, "transaction_fencing::newer_producer_fences_the_commit"),
    (Mutation::OffsetsBeforeCommit, "exactly_once::abort_rolls_offsets_back"),
    (
        Mutation::OpenTransactionVisible,
        "transactions::open_transaction_holds_back_committed_readers",
    ),
    (Mutation::MarkerMissing, "transactions::commit_makes_all_partitions_visible"),
    (Mutation::TransactionNeverTimesOut, "transaction_fencing::overdue_transaction_is_aborted"),
    (Mutation::UnstableOffsetServed, "exactly_once::pending_offsets_are_waited_for"),
    (
        Mutation::TransactionOfOldGenerationAccepted,
        "exactly_once::offsets_of_an_old_generation_are_refused",
    ),
    (Mutation::MinInsyncReplicasIgnored, "failover::too_few_in_sync_replicas_refuse_acks_all"),
    (Mutation::AckedBeforeReplicated, "replication::unreplicated_records_are_not_visible"),
    (Mutation::WatermarkAheadOfInSync, "replication::unreplicated_records_are_not_visible"),
    (Mutation::ReadAboveWatermark, "replication::unreplicated_records_are_not_visible"),
    (Mutation::DivergenceIgnored, "replication::old_leader_gives_up_what_others_do_not_have"),
    (Mutation::ElectedOutOfSync, "replication::only_replicas_in_sync_are_elected"),
    (
        Mutation::TruncatedToWatermark,
        "replication::followers_keep_what_is_above_their_high_watermark",
    ),
    (Mutation::TruncationNotDetected, "replication::readers_go_back_to_what_a_new_leader_has"),
    (Mutation::CoordinatorLoadsNothing, "lifecycle::group_survives_a_broker_restart"),
    // Guarantees A to D.
    (Mutation::DuplicateTakesOffsets, "retries::order_survives_losses_with_5_in_flight"),
    (Mutation::EarliestIsNewestBatch, "positions::seek_to_the_ends"),
    (Mutation::BufferLostWithConnection, "replication::only_replicas_in_sync_are_elected"),
    (Mutation::BatchLostAtRoll, "produce::close_amid_publishers_loses_nothing_acknowledged"),
    (Mutation::TimeoutCalledDefinite, "retries::unknown_outcome_is_said"),
    (Mutation::TailLostAtRestart, "lifecycle::group_survives_a_broker_restart"),
    (Mutation::AckedWhenSent, "produce::acks_1_names_the_offset"),
    (Mutation::FailedBatchForgotten, "retries::lost_request_is_retried"),
    (Mutation::RetryDeliveredSilently, "retries::retry_is_no_duplicate"),
    (Mutation::ZombieAppendAccepted, "transaction_fencing::newer_producer_fences_the_send"),
    (Mutation::EndSentAgainFenced, "transaction_faults::lost_abort_is_repeated"),
    (Mutation::FirstOfBatchSkipped, "produce::close_flushes"),
    (Mutation::PollDropsTheRest, "consume::polls_are_limited_in_records"),
    (Mutation::EndOfCheckpointTold, "produce::one_record_arrives"),
    // E: groups and their commits.
    (Mutation::HandedOverUnrevoked, "rebalances::cooperative_untouched_partitions_keep_flowing"),
    (Mutation::CommitMixedUp, "commit::commit_holds_several_partitions"),
    (Mutation::NoOffsetMeansEnd, "consume::earliest_reads_from_the_start"),
    (Mutation::CommitTakenForLastRecord, "consume::reading_resumes_from_the_commit"),
    (Mutation::JoinsBeforeRevoked, "rebalances::partitions_wait_for_the_revoke"),
    (Mutation::AssignedAgain, "rebalances::cooperative_untouched_partitions_keep_flowing"),
    (Mutation::SentBeforeCloseDropped, "rebalances::member_that_closes_amid_its_join_is_soon_out"),
    // F: transactions.
    (Mutation::AbortNeverEnds, "transactions::abort_and_commit_of_one_producer_are_told_apart"),
    (Mutation::AbortMarkedAsCommit, "transactions::aborted_records_are_invisible"),
    (Mutation::AbortedOffsetsCount, "exactly_once::abort_rolls_offsets_back"),
    (Mutation::OpenTransactionForgotten, "transaction_fencing::init_aborts_what_was_left_open"),
    // H: progress.
    (Mutation::CommitNeverRepeated, "commit::lost_commit_can_be_retried"),
    (Mutation::LeaderlessForEver, "lifecycle::broker_restart_loses_nothing_acknowledged"),
    (Mutation::RegistrationNotHeard, "failover::leader_failover_loses_nothing_acknowledged"),
    (Mutation::HeartbeatNotCounted, "consume::record_after_an_idle_hour"),
];

/// Planted bugs that no client can see while the elections are clean, or only after a fault that no
/// case brings about, or with more partitions than one; and the test that catches each.
const ELSEWHERE: &[(Mutation, &str)] = &[
    (Mutation::LeaderEpochIgnored, "bus-sim/src/broker/tests/replication/watermark.rs"),
    (Mutation::NewLeaderNotAwaited, "bus-sim/tests/cluster/leaders.rs"),
    (Mutation::StaleLeaderNotFenced, "bus-sim/src/broker/tests/replication/in_sync.rs"),
    (Mutation::CommitAckedBeforeReplicated, "bus-sim/src/broker/tests/coordinators.rs"),
    // Guarantees A to D.
    (Mutation::DuplicateAnsweredWithLogEnd, "bus-check/tests/mutants.rs"),
    (Mutation::EndToldTooEarly, "bus-check/tests/mutants.rs"),
    (Mutation::PipelinedAckedWhenSent, "bus-check/tests/mutants.rs"),
    (Mutation::MaxPollRecordsPerPartition, "bus-check/tests/mutants.rs"),
    // E, F, G, and H: by a guarantee that a history is judged by.
    (Mutation::GenerationNotLoaded, "bus-check/tests/mutants.rs"),
    (Mutation::ProducerIdsOverlap, "bus-check/tests/mutants.rs"),
    (Mutation::EligibleForTooLong, "bus-check/tests/mutants.rs"),
    (Mutation::UncleanRestartForgotten, "bus-check/tests/mutants.rs"),
    (Mutation::DeposedLeaderLeadsOn, "bus-check/tests/mutants.rs"),
    (Mutation::WatermarkTakenBack, "bus-check/tests/mutants.rs"),
    (Mutation::JoinsBehindWatermark, "bus-check/tests/mutants.rs"),
    (Mutation::CloseIgnoresDeadline, "bus-check/tests/mutants.rs"),
];

/// A row of the table behind the results.
type Rows = Arc<Mutex<BTreeMap<&'static str, String>>>;

fn main() {
    let arguments = Arguments::from_args();
    let rows = Rows::default();
    let trials = Mutation::ALL.iter().map(|mutation| {
        let rows = Arc::clone(&rows);
        Trial::test(mutation.name(), move || check(*mutation, &rows)).with_kind("mutant")
    });
    let conclusion = libtest_mimic::run(&arguments, trials.collect());
    let rows = rows.lock();
    if !rows.is_empty() {
        println!("| Planted bug | Caught by | Seeds | How |\n|---|---|---|---|");
        rows.values().for_each(|row| println!("{row}"));
    }
    conclusion.exit();
}

fn check(mutation: Mutation, rows: &Rows) -> Result<(), Failed> {
    if let Some((_, place)) = ELSEWHERE.iter().find(|(caught, _)| *caught == mutation) {
        let row = format!("| {} | `{place}` | - | beside the machine |", mutation.name());
        rows.lock().insert(mutation.name(), row);
        return Ok(());
    }
    let catchers = CATCHERS.iter().filter(|(caught, _)| *caught == mutation);
    let catcher = catchers.map(|(_, name)| case(name)).next();
    let Some(Some(catcher)) = catcher else {
        return Err(format!("no case of the suite is named to catch {}", mutation.name()).into());
    };
    let column = column(catcher);
    let mut caught = Vec::new();
    for seed in 0..SEEDS {
        if let Err(failure) = on_sim::run(catcher, column, seed, None) {
            return Err(format!("without the bug, seed {seed}: {failure}").into());
        }
        if let Err(failure) = on_sim::run(catcher, column, seed, Some(mutation)) {
            if failure.kind == FailureKind::Crash {
                return Err(format!("the simulator crashed, seed {seed}: {failure}").into());
            }
            caught.push(failure);
        }
    }
    let name = catcher.name;
    let Some(first) = caught.first() else {
        return Err(format!("{name} holds with the bug, on {SEEDS} seeds").into());
    };
    let (count, how) = (caught.len(), first_line(first));
    let others = others(mutation, catcher);
    let row = format!("| {} | `{name}`{others} | {count} of {SEEDS} | {how} |", mutation.name());
    rows.lock().insert(mutation.name(), row);
    Ok(())
}

/// Where a case is run: with three brokers if it needs them.
fn column(case: &Case) -> &'static Column {
    if case.needs.contains(&Need::Replicas) { &SIM3 } else { &SIM }
}

fn first_line(failure: &Failure) -> String {
    failure.to_string().lines().next().unwrap_or_default().replace('|', "/")
}

/// How many other cases catch it, if that is asked for.
fn others(mutation: Mutation, catcher: &Case) -> String {
    if std::env::var_os("BUS_TEST_MATRIX").is_none() {
        return String::new();
    }
    let others = CASES.iter().filter(|case| case.name != catcher.name);
    let is_caught = |case: &&Case| on_sim::run(case, column(case), 0, Some(mutation)).is_err();
    let count = others.filter(is_caught).count();
    format!(" and {count} others")
}

//! The suite: every case once, by group. The table of contents.

use crate::case::{Case, Group};
use crate::fixture::Need;

/// Lists cases: group, then module, then number, function, and what it needs.
macro_rules! suite {
    ($($group:ident { $($module:ident { $(
        $id:literal $function:ident $(needs $($need:ident)+)?;
    )+ })+ })+) => {
        /// All cases, in order.
        pub const CASES: &[Case] = &[$($($(
            Case {
                group: Group::$group,
                id: $id,
                name: concat!(stringify!($module), "::", stringify!($function)),
                needs: &[$($(Need::$need),+)?],
                run: |cx| Box::pin(crate::cases::$module::$function(cx)),
            },
        )+)+)+];
    };
}

suite! {
    Produce {
        produce {
            "P1" one_record_arrives;
            "P2" batch_keeps_order;
            "P2" two_producers_keep_their_order;
            "P3" bad_record_fails_alone;
            "P4" key_goes_to_kafkas_partition;
            "P4" key_keeps_its_partition;
            "P5" explicit_partition_wins_over_the_key;
            "P6" null_keys_spread;
            "P6" null_keys_stick_for_a_while;
            "P1" acks_0_knows_no_offset;
            "P1" acks_1_names_the_offset;
            "P13" flush_does_not_linger;
            "P13" close_flushes;
            "P13" close_amid_publishers_loses_nothing_acknowledged;
            "P12" send_after_close_is_refused;
            "P13" dropped_producer_answers_every_delivery;
            "P3" full_buffer_gives_back_pressure;
            "P4" partitions_are_known;
        }
        payload {
            "P7" null_is_not_empty;
            "P8" values_of_all_sizes_arrive_whole;
            "P9" bytes_that_are_no_text_arrive_unchanged;
            "P10" headers_keep_order_and_repetitions;
            "P10" many_headers_arrive;
            "P8" timestamps_are_kept;
            "P8" timestamp_defaults_to_the_time_of_the_send;
            "P8" log_append_time_replaces_the_timestamp;
            "P8" compression_is_invisible;
        }
        retries {
            "P15" retry_is_no_duplicate needs Losses;
            "P15" without_idempotence_a_retry_is_a_duplicate needs Losses;
            "P15" lost_request_is_retried needs Losses;
            "P15" order_survives_losses_with_5_in_flight needs Losses;
            "P14" unknown_outcome_is_said needs Losses;
            "P14" record_that_never_left_fails_for_certain needs Brokers;
        }
    }
    Consume {
        consume {
            "C1" earliest_reads_from_the_start;
            "C1" latest_skips_what_was_there;
            "C1" reset_none_is_an_error;
            "C1" reading_from_a_time;
            "C1" offsets_of_times;
            "C1" reading_from_the_end;
            "C1" reading_from_an_offset;
            "C2" reading_resumes_from_the_commit;
            "C2" assigned_reading_resumes_from_the_commit;
            "C7" polls_are_limited_in_records;
            "C9" polls_end_in_time;
            "C9" waiting_poll_wakes_for_a_record;
            "C9" poll_is_cancel_safe;
            "C10" unsubscribe_ends_delivery;
            "C10" subscribing_replaces_the_subscription;
            "C10" assigning_replaces_the_assignment;
            "C2" assigned_consumers_are_independent;
            "C7" large_record_passes_small_fetch_limits;
            "G13" pattern_follows_new_topics;
            "C6" record_after_an_idle_hour needs VirtualTime;
            "C9" second_poll_at_once_is_refused;
        }
        positions {
            "C3" seek_goes_back_and_forth;
            "C3" seek_to_the_ends;
            "C3" seek_to_a_time;
            "C3" seek_discards_what_was_fetched;
            "C3" seek_past_the_end_follows_the_reset_policy;
            "C3" seek_past_the_end_without_a_policy_is_an_error;
            "C3" sought_place_is_the_position;
            "C3" seek_to_no_commit_without_a_policy_changes_nothing;
            "C4" pause_stops_one_partition;
            "C4" pause_holds_back_what_was_fetched;
            "C4" seek_while_paused_counts_later;
            "C3" position_follows_delivery;
            "C3" watermarks_are_the_ends;
            "C5" pause_ends_with_the_revocation;
        }
    }
    Groups {
        groups {
            "G1" members_split_partitions;
            "G2" two_groups_are_independent;
            "G1" range_gives_consecutive_partitions;
            "G1" round_robin_alternates;
            "G1" cooperative_sticky_balances;
            "G3" join_moves_partitions;
            "G4" leave_moves_partitions;
            "G4" unsubscribe_moves_partitions;
            "G4" dropped_member_leaves;
            "G8" idle_member_takes_over;
            "G9" grown_topic_is_divided_anew;
            "G9" unowned_partitions_are_handed_out_from_the_last;
            "G13" several_topics_are_divided;
            "G13" members_get_only_their_topics;
            "G12" stable_group_does_not_rebalance;
            "G11" uncommitted_records_are_delivered_again;
        }
        rebalances {
            "G11" assignment_starts_with_its_guard;
            "G11" dropped_guard_is_handed_out_again;
            "G11" partitions_wait_for_the_revoke;
            "G11" revoke_lets_finished_work_be_committed;
            "G11" closing_answers_a_pending_revoke;
            "G7" cooperative_untouched_partitions_keep_flowing;
            "C5" pause_survives_a_cooperative_rebalance;
            "G12" join_under_load_delivers_each_record_once;
            "G12" storm_of_joins_and_leaves_loses_nothing;
            "G12" member_that_closes_amid_its_join_is_soon_out;
        }
        fencing {
            "G5" crash_moves_partitions_after_the_session needs Processes;
            "G10" paused_member_wakes_up_as_a_zombie needs Processes;
            "C8" member_that_polls_too_late_rejoins;
            "G10" zombie_commit_is_fenced;
            "G6" static_member_restart_moves_nothing;
            "G6" second_holder_of_an_instance_id_fences_the_first;
            "G6" commit_with_an_instance_id_in_use_is_the_end;
            "G6" static_member_that_stays_away_is_replaced;
            "S8" partitioned_member_is_replaced needs Links;
        }
    }
    Commit {
        commit {
            "K1" commit_is_what_the_group_is_told;
            "K1" nothing_committed_is_none;
            "K1" commit_holds_several_partitions;
            "K7" metadata_is_kept;
            "K7" metadata_that_is_too_long_is_refused;
            "K5" commits_apply_in_the_order_of_the_calls;
            "K5" owner_may_commit_backwards;
            "K6" commit_past_the_end_is_reset;
            "K1" commits_outlive_the_members;
            "K1" nothing_is_committed_unasked;
            "K2" auto_commit_follows_its_interval;
            "K2" auto_commit_happens_on_close;
            "K2" auto_commit_happens_on_revoke;
            "K2" auto_commit_passes_aborted_records;
            "K2" auto_commit_never_passes_delivery;
            "K2" last_auto_commit_never_passes_delivery;
            "K2" auto_commit_covers_only_stored_offsets;
            "K1" assigned_consumer_may_commit;
            "K3" crash_before_the_commit_redelivers_once needs Processes;
            "K4" lost_commit_can_be_retried needs Losses;
        }
    }
    Transactions {
        transactions {
            "X5" aborted_records_are_invisible;
            "X5" commit_makes_all_partitions_visible;
            "X5" open_transaction_holds_back_committed_readers;
            "X5" other_partitions_do_not_wait;
            "X5" markers_take_offsets;
            "X5" position_follows_records_not_markers;
            "X5" watermarks_follow_the_isolation_level;
            "X5" empty_transaction_leaves_no_trace;
            "X5" many_transactions_in_a_row;
            "X5" transaction_after_an_abort_starts_anew;
            "X5" interleaved_transactions_are_told_apart;
            "X5" abort_and_commit_of_one_producer_are_told_apart;
            "X5" latest_is_the_last_stable_offset;
            "X5" transactions_keep_the_order;
            "X5" flush_commits_nothing;
            "X5" commit_flushes;
            "X5" large_transaction_is_one;
            "X5" topic_grows_amid_a_transaction;
            "X5" transaction_spans_topics_and_payloads;
            "X5" plain_records_and_transactions_mix;
            "K6" members_resume_over_markers;
            "X5" dropped_commit_goes_on;
        }
        exactly_once {
            "X5" offsets_commit_with_the_transaction;
            "X5" abort_rolls_offsets_back;
            "X5" pending_offsets_are_waited_for;
            "X5" members_start_behind_pending_offsets;
            "X5" seek_waits_for_pending_offsets;
            "X5" one_pending_offset_holds_back_all_starts;
            "X5" offsets_of_a_transaction_add_up;
            "X5" later_plain_commit_stays;
            "X5" aborted_work_is_done_again;
            "X5" crash_after_the_records_copies_nothing_twice needs Processes;
            "X5" crash_after_the_offsets_copies_nothing_twice needs Processes;
            "X5" crash_after_the_commit_copies_nothing_twice needs Processes;
            "X6" offsets_of_an_old_generation_are_refused;
            "X6" offsets_of_an_unknown_member_are_refused;
            "X6" offsets_of_a_fenced_instance_are_refused;
            "X6" offsets_of_nobody_are_taken;
            "X5" offsets_of_no_group_are_refused;
            "X5" rebalance_copies_nothing_twice;
        }
        transaction_fencing {
            "X6" newer_producer_fences_the_send;
            "X6" newer_producer_fences_the_commit;
            "X6" newer_producer_fences_the_abort;
            "X6" newer_producer_fences_the_offsets;
            "X6" newer_producer_fences_the_next_transaction;
            "X6" init_aborts_what_was_left_open;
            "X6" zombie_records_never_show;
            "X6" other_ids_are_not_fenced;
            "X6" newest_producer_wins;
            "X6" producer_takes_over_after_a_close;
            "X6" overdue_transaction_is_aborted;
            "X6" overdue_commit_is_refused;
            "X6" overdue_offsets_are_refused;
            "X6" idle_producer_outlives_the_timeout;
            "X6" crashed_transaction_is_ended_by_the_next needs Processes;
            "X6" paused_producer_wakes_up_fenced needs Processes;
        }
        transaction_errors {
            "X5" everything_needs_the_initialization;
            "X5" second_initialization_is_refused;
            "X5" second_begin_is_refused;
            "X5" calls_without_a_transaction_are_refused;
            "X5" closed_producer_of_transactions_refuses_every_call;
            "X5" refused_records_do_not_harm;
            "X5" record_too_large_for_the_topic_fails_the_transaction;
            "X5" abort_close_behind_a_commit_ends_at_most_the_producer;
            "X5" record_for_a_missing_topic_fails_the_transaction;
            "X5" metadata_too_long_fails_the_transaction;
            "X5" transaction_timeout_above_the_limit_is_refused;
            "X5" impossible_transactions_are_refused;
        }
        transaction_faults {
            "X5" lost_messages_of_a_transaction_are_repeated needs Losses;
            "X5" lost_abort_is_repeated needs Losses;
            "X5" lost_initialization_is_repeated needs Losses;
            "X5" open_transaction_survives_a_broker_restart needs Brokers;
            "X5" commit_survives_a_broker_restart needs Brokers;
        }
    }
    Replication {
        replication {
            "R2" unreplicated_records_are_not_visible needs Replicas Brokers;
            "R3" old_leader_gives_up_what_others_do_not_have needs Replicas Brokers;
            "R3" only_replicas_in_sync_are_elected needs Replicas Brokers;
            "R3" followers_keep_what_is_above_their_high_watermark needs Replicas Brokers Links;
            "R3" readers_go_back_to_what_a_new_leader_has needs Replicas Brokers;
        }
        failover {
            "R1" replicas_are_spread needs Replicas;
            "R1" impossible_replication_factors_are_refused needs Replicas;
            "R2" more_in_sync_replicas_than_replicas_means_all;
            "R3" leader_failover_loses_nothing_acknowledged needs Replicas Brokers;
            "R3" acks_1_may_lose_records_with_their_leader needs Replicas Brokers;
            "R3" readers_continue_over_a_failover needs Replicas Brokers;
            "R4" group_survives_its_coordinator needs Replicas Brokers;
            "R4" questions_about_a_group_follow_its_coordinator needs Brokers;
            "R4" transaction_survives_its_coordinator needs Replicas Brokers;
            "R2" too_few_in_sync_replicas_refuse_acks_all needs Replicas Brokers;
            "R2" in_sync_replicas_shrink_and_grow needs Replicas Brokers;
            "R5" shutdown_hands_over_and_the_preferred_leader_returns needs Replicas Brokers;
            "R5" rolling_restart_loses_nothing needs Replicas Brokers;
        }
    }
    Lifecycle {
        lifecycle {
            "S2" stopping_redelivers_what_was_not_committed;
            "S3" stopped_group_starts_again;
            "S4" second_close_does_nothing;
            "S1" close_ends_a_waiting_poll;
            "S5" dropped_clients_can_be_replaced;
            "S5" crashed_publisher_loses_nothing_acknowledged needs Processes;
            "S3" restarted_process_resumes needs Processes;
            "S6" broker_restart_loses_nothing_acknowledged needs Brokers;
            "S6" group_survives_a_broker_restart needs Brokers;
            "S7" clients_wait_for_their_brokers needs Brokers;
            "S1" idle_clients_stay_alive;
            "S1" time_and_ids;
            "S1" tasks_hand_back_their_output;
        }
    }
    Isolation {
        isolation {
            "I1" topic_names_that_look_alike;
            "I2" equal_records_in_many_topics;
            "I3" group_names_that_look_alike;
            "I4" two_buses_in_one_process;
            "I4" members_of_one_client_id;
            "I4" many_clients_at_once;
        }
    }
    Admin {
        admin {
            "A1" created_topic_is_described_and_listed;
            "A1" existing_topic_is_not_created_again;
            "A1" impossible_topics_are_refused;
            "A1" deleted_topic_is_gone;
            "A1" recreated_topic_is_empty;
            "A1" topic_grows_and_never_shrinks;
            "A3" cluster_is_described;
            "A2" group_is_described_with_its_members;
            "A2" groups_without_members_are_empty_or_dead;
            "A2" group_offsets_tell_the_lag;
            "A2" group_is_deleted_without_members_only;
            "A3" unsupported_operations_say_so;
        }
    }
    Errors {
        errors {
            "E1" unknown_scheme_is_refused;
            "E1" connecting_to_a_simulation_is_refused;
            "E1" unknown_option_is_refused;
            "E1" malformed_address_is_refused;
            "E1" unknown_property_is_refused;
            "E1" contradicting_properties_are_refused;
            "S7" unreachable_broker_is_an_error_in_time;
            "P11" send_to_a_missing_topic_fails;
            "P11" subscription_to_a_missing_topic_is_told;
            "P8" record_too_large_for_the_producer_is_refused;
            "P8" record_too_large_for_the_topic_is_refused;
            "P11" send_to_a_missing_partition_fails;
            "P11" questions_about_a_missing_partition_fail;
            "P11" questions_about_a_missing_topic_fail_beside_a_pattern;
            "P11" assignment_of_a_missing_partition_is_told;
            "G1" session_timeout_out_of_range_is_told;
            "G1" member_without_a_common_assignor_is_told;
            "E3" undecodable_payload_is_told;
        }
        misuse {
            "P12" closed_producer_refuses_every_call;
            "P12" closed_consumer_refuses_every_call;
            "C3" negative_offsets_are_refused;
            "C3" partitions_of_others_are_refused;
            "C2" partition_assigned_twice_is_refused;
            "K1" group_operations_need_a_group;
            "G13" impossible_subscriptions_are_refused;
            "K2" storing_offsets_needs_to_be_configured;
            "P11" send_to_an_impossible_name_is_refused;
        }
    }
}

/// The case of this name.
pub fn case(name: &str) -> Option<&'static Case> {
    CASES.iter().find(|case| case.name == name)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_case_is_listed_once_and_states_its_guarantee() {
        let names: BTreeSet<_> = CASES.iter().map(|case| case.name).collect();
        assert_eq!(names.len(), CASES.len());
        for case in CASES {
            let guarantee = case.guarantee();
            assert!(guarantee.ends_with('.'), "{}: {guarantee:?}", case.name);
        }
    }

    #[test]
    fn no_case_is_forgotten() {
        for group in CASES.iter().map(|case| case.group).collect::<BTreeSet<_>>() {
            for function in group.functions() {
                let is_listed =
                    CASES.iter().any(|case| case.name.ends_with(&format!("::{function}")));
                assert!(is_listed, "{function} is not in the suite");
            }
        }
    }
}

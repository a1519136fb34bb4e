//! Where Kafka says what is promised, or does what keeps the promise: a method of Kafka
//! (`Class.method`, or a constant of it), a function of librdkafka (`rd_kafka_…`) where clients
//! keep it, the proposal (KIP), the issue (KAFKA), or the setting. Each was looked up in
//! [`VERSIONS`].

use bus_check::Guarantee;

/// What the sources were looked up in.
pub(crate) const VERSIONS: &str =
    "Kafka 4.3.0 (`-sources.jar` of its release) and librdkafka 2.12.1";

/// The sources of a guarantee, in a few words of Markdown.
pub(super) fn source(guarantee: Guarantee) -> String {
    let sources = SOURCES.iter().find(|(other, _)| *other == guarantee);
    sources.map_or_else(String::new, |(_, sources)| sources.join("; "))
}

const SOURCES: &[(Guarantee, &[&str])] = &[
    (
        Guarantee::A1,
        &[
            "`UnifiedLog.append`",
            "`AbstractFetcherThread.getOffsetTruncationState`",
            "KIP-101",
            "KIP-279",
        ],
    ),
    (Guarantee::A2, &["`ProducerStateEntry.findDuplicateBatch`", "KIP-98"]),
    (
        Guarantee::A3,
        &[
            "`DefaultRecordBatch.ensureValid`",
            "`CompletedFetch.nextFetchedRecord`",
            "`rd_kafka_msgset_reader_msg_v2`",
        ],
    ),
    (
        Guarantee::A4,
        &[
            "`DefaultRecord.writeTo`",
            "`DefaultRecord.readFrom`",
            "KIP-82 (headers)",
            "KIP-32 (timestamps)",
        ],
    ),
    (
        Guarantee::A5,
        &["`BuiltInPartitioner.partitionForKey`", "`rd_kafka_msg_partitioner_murmur2_random`"],
    ),
    (Guarantee::A6, &["`LogValidator.validateMessagesAndAssignOffsets`"]),
    (
        Guarantee::A7,
        &["`UnifiedLog.maybeIncrementLogStartOffset`", "`ReplicaManager.deleteRecords`", "KIP-107"],
    ),
    (Guarantee::A8, &["`RecordMetadata.offset`", "`rd_kafka_msgq_set_metadata`"]),
    (
        Guarantee::A10,
        &["`CompletedFetch.nextFetchedRecord`", "`rd_kafka_offset_validate`", "KIP-320"],
    ),
    (
        Guarantee::B1,
        &[
            "`Partition.checkEnoughReplicasReachOffset`",
            "`min.insync.replicas`",
            "KIP-101",
            "KIP-966",
        ],
    ),
    (
        Guarantee::B2,
        &[
            "`Partition.checkEnoughReplicasReachOffset`",
            "`min.insync.replicas`",
            "KIP-101",
            "KIP-966",
        ],
    ),
    (Guarantee::B3, &["`rd_kafka_message_status`", "KIP-91"]),
    (Guarantee::B4, &["`AbstractFetcherThread.getOffsetTruncationState`", "KIP-101", "KIP-279"]),
    (Guarantee::B5, &["`Partition.checkEnoughReplicasReachOffset`", "KIP-966"]),
    (Guarantee::B6, &["`Partition.fetchOffsetForTimestamp`", "KIP-207"]),
    (Guarantee::C1, &["`UnifiedLog.append`", "KIP-101"]),
    (Guarantee::C2, &["`ProducerAppendInfo.checkSequence`", "KIP-98", "KAFKA-5494 (5 in flight)"]),
    (Guarantee::C3, &["`UnifiedLog.append`", "KIP-101"]),
    (
        Guarantee::C4,
        &["`ProducerAppendInfo.checkSequence`", "`rd_kafka_idemp_drain_epoch_bump`", "KIP-98"],
    ),
    (Guarantee::C5, &["`ProducerBatch.done`", "`rd_kafka_dr_msgq0`", "KIP-91"]),
    (Guarantee::C6, &["`KafkaProducer.send`", "KAFKA-5494 (5 in flight)"]),
    (
        Guarantee::C7,
        &[
            "`ProducerAppendInfo.checkProducerEpoch`",
            "`TransactionCoordinator.handleAddPartitionsToTransaction`",
            "KIP-98",
            "KIP-890",
        ],
    ),
    (
        Guarantee::C8,
        &["`TransactionMetadata.prepareIncrementProducerEpoch`", "KIP-360", "KIP-588", "KIP-890"],
    ),
    (
        Guarantee::C9,
        &[
            "`KafkaProducer.flush`",
            "`KafkaProducer.commitTransaction`",
            "`rd_kafka_commit_transaction`",
        ],
    ),
    (Guarantee::D1, &["`CompletedFetch.fetchRecords`", "`rd_kafka_msgset_reader_msg_v2`"]),
    (Guarantee::D2, &["`CompletedFetch.fetchRecords`", "`rd_kafka_msgset_reader_msg_v2`"]),
    (
        Guarantee::D3,
        &["`FetchCollector.fetchRecords`", "`rd_kafka_op_version_outdated`", "KIP-320"],
    ),
    (Guarantee::D4, &["`FetchCollector.fetchRecords`", "`rd_kafka_q_serve_rkmessages`"]),
    (
        Guarantee::D5,
        &[
            "`ConsumerCoordinator.initWithCommittedOffsetsIfNeeded`",
            "`rd_kafka_assignment_apply_offsets`",
            "`rd_kafka_offset_reset`",
            "`auto.offset.reset`",
        ],
    ),
    (Guarantee::D6, &["`KafkaConsumer.seek`", "`rd_kafka_toppar_seek`", "KAFKA-7703"]),
    (Guarantee::D7, &["`FetchIsolation.HIGH_WATERMARK`", "`UnifiedLog.read`"]),
    (Guarantee::D9, &["`Partition.fetchOffsetForTimestamp`", "KIP-207"]),
    (Guarantee::D10, &["`SubscriptionState.isFetchable`", "`rd_kafka_toppar_pause_resume`"]),
    (
        Guarantee::D12,
        &[
            "`FetchCollector.collectFetch`",
            "KIP-41 (counted by the bus: librdkafka has no such limit)",
        ],
    ),
    (
        Guarantee::E1,
        &[
            "`ConsumerPartitionAssignor.assign`",
            "`GroupMetadataManager.classicGroupSync`",
            "`rd_kafka_assignor_run`",
        ],
    ),
    (
        Guarantee::E2,
        &[
            "`GroupMetadataManager.completeClassicGroupJoin`",
            "`ConsumerCoordinator.onJoinPrepare`",
            "KIP-62",
            "KIP-429",
        ],
    ),
    (Guarantee::E3, &["`ClassicGroup.validateOffsetCommit`"]),
    (Guarantee::E4, &["`OffsetMetadataManager.commitOffset`"]),
    (
        Guarantee::E5,
        &["`SubscriptionState.allConsumed`", "`rd_kafka_update_app_pos`", "`enable.auto.commit`"],
    ),
    (
        Guarantee::E6,
        &[
            "`KafkaConsumer` \"Offsets and Consumer Position\"",
            "`ConsumerCoordinator.initWithCommittedOffsetsIfNeeded`",
        ],
    ),
    (
        Guarantee::E7,
        &[
            "`KafkaConsumer` \"Offsets and Consumer Position\"",
            "`ConsumerCoordinator.initWithCommittedOffsetsIfNeeded`",
        ],
    ),
    (
        Guarantee::E8,
        &[
            "`OffsetMetadataManager.fetchOffsets`",
            "`GroupCoordinatorShard.replay`",
            "KIP-447 (offsets of open transactions)",
        ],
    ),
    (
        Guarantee::E9,
        &[
            "`ConsumerPartitionAssignor.assign`",
            "`GroupMetadataManager.expireClassicGroupMemberHeartbeat`",
            "KIP-429",
        ],
    ),
    (
        Guarantee::E10,
        &[
            "`ConsumerRebalanceListener.onPartitionsRevoked`",
            "`rd_kafka_cgrp_unassign_done`",
            "KIP-429",
        ],
    ),
    (
        Guarantee::E11,
        &[
            "`ConsumerRebalanceListener.onPartitionsAssigned`",
            "`rd_kafka_rebalance_op_incr`",
            "KIP-429",
        ],
    ),
    (Guarantee::E12, &["`ClassicGroup.initNextGeneration`", "`GroupMetadataManager.replay`"]),
    (
        Guarantee::F1,
        &[
            "`TransactionIndex.collectAbortedTxns`",
            "`CompletedFetch.isBatchAborted`",
            "`rd_kafka_msgset_reader_msgs_v2`",
            "KIP-98",
        ],
    ),
    (Guarantee::F2, &["`UnifiedLog.lastStableOffset`", "`FetchIsolation.TXN_COMMITTED`", "KIP-98"]),
    (Guarantee::F4, &["`TransactionMarkerChannelManager.addTxnMarkersToSend`", "KIP-98"]),
    (
        Guarantee::F5,
        &[
            "`TransactionMarkerChannelManager.maybeWriteTxnCompletion`",
            "KIP-98",
            "KAFKA-17754 (version 1 does not keep it when an EndTxn comes late)",
        ],
    ),
    (
        Guarantee::F6,
        &[
            "`UnifiedLog.collectAbortedTransactions`",
            "KIP-98",
            "KAFKA-17754 (version 1 does not keep it when an EndTxn comes late)",
        ],
    ),
    (
        Guarantee::F7,
        &[
            "`TransactionCoordinator.handleEndTransaction`",
            "`TransactionStateManager.loadTransactionsForTxnTopicPartition`",
            "KIP-98",
        ],
    ),
    (Guarantee::F8, &["`OffsetMetadataManager.replayEndTransactionMarker`", "KIP-98"]),
    (Guarantee::F9, &["`TransactionCoordinator.handleEndTransaction`", "KIP-98"]),
    (Guarantee::F10, &["`OffsetMetadataManager.validateTransactionalOffsetCommit`", "KIP-447"]),
    (
        Guarantee::F11,
        &[
            "`OffsetMetadataManager.replayEndTransactionMarker`",
            "`TransactionMarkerChannelManager.addTxnMarkersToSend`",
            "KIP-98",
        ],
    ),
    (Guarantee::F12, &["`TransactionCoordinator.abortTimedOutTransactions`", "KIP-664", "KIP-890"]),
    (
        Guarantee::F14,
        &["`TransactionCoordinator.handleAddPartitionsToTransaction`", "KIP-98", "KIP-890"],
    ),
    (
        Guarantee::F17,
        &[
            "`ProducerIdControlManager.generateNextProducerId`",
            "`TransactionMetadata.completeTransitionTo`",
            "KIP-730",
        ],
    ),
    (
        Guarantee::F18,
        &["`TransactionState.validPreviousStates`", "`TransactionMetadata.prepareTransitionTo`"],
    ),
    (
        Guarantee::F19,
        &[
            "`KafkaProducer.commitTransaction`",
            "`TransactionManager.beginCommit`",
            "`rd_kafka_txn_op_commit_transaction`",
        ],
    ),
    (Guarantee::G1, &["`PartitionChangeBuilder.electLeader`", "KIP-966"]),
    (Guarantee::G3, &["`Partition.maybeIncrementLeaderHW`"]),
    (
        Guarantee::G4,
        &[
            "`AbstractFetcherThread.getOffsetTruncationState`",
            "`LeaderEpochFileCache.endOffsetFor`",
            "KIP-101",
            "KIP-279",
        ],
    ),
    (
        Guarantee::G8,
        &[
            "`Partition.maybeIncrementLeaderHW`",
            "`PartitionChangeBuilder.maybePopulateTargetElr`",
            "KIP-966",
        ],
    ),
    (Guarantee::G9, &["`PartitionRegistration.merge`", "KIP-320"]),
    (Guarantee::G10, &["`UnifiedLog.maybeIncrementHighWatermark`"]),
    (Guarantee::G11, &["`PartitionChangeBuilder.electLeader`", "KIP-966"]),
    (Guarantee::G12, &["`Partition.isFollowerInSync`", "KIP-841 (nor may it be fenced)"]),
    (Guarantee::H1, &["`delivery.timeout.ms`", "`default.api.timeout.ms`", "KIP-91", "KIP-266"]),
    (Guarantee::H2, &["`KafkaConsumer.poll`", "`rd_kafka_broker_fetch_toppars`", "KIP-62"]),
    (
        Guarantee::H3,
        &[
            "`ReplicationControlManager.handleBrokerUnfenced`",
            "`PartitionChangeBuilder.electLeader`",
        ],
    ),
    (Guarantee::H4, &["`Partition.maybeExpandIsr`", "KIP-497"]),
    (Guarantee::H5, &["`GroupMetadataManager.classicGroupHeartbeat`"]),
    (Guarantee::H9, &["KIP-15", "KIP-102 (kept by the bus: librdkafka's close has no deadline)"]),
];

/// Whether a source has one of the forms that the head of this file names.
fn is_well_formed(source: &str) -> bool {
    let is_number = |number: &str| number.parse::<u32>().is_ok();
    if let Some(ticket) = ["KIP-", "KAFKA-"].iter().find_map(|head| source.strip_prefix(head)) {
        let (number, note) = ticket.split_once(' ').unwrap_or((ticket, "()"));
        return is_number(number) && note.starts_with('(') && note.ends_with(')');
    }
    let Some((name, heading)) = source.strip_prefix('`').and_then(|rest| rest.split_once('`'))
    else {
        return false;
    };
    let is_word = |word: &str| {
        !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    };
    let words: Vec<_> = name.split('.').collect();
    let is_class = words[0].starts_with(|letter: char| letter.is_ascii_uppercase());
    let is_named = match (is_class, words.len()) {
        // A part of what the documentation of a class says.
        (true, 1) => return heading.starts_with(" \"") && heading.ends_with('"'),
        (true, length) => length == 2,
        (false, 1) => name.starts_with("rd_kafka_"),
        (false, _) => name == name.to_lowercase(),
    };
    is_named && heading.is_empty() && words.iter().all(|word| is_word(word))
}

#[test]
fn every_guarantee_names_a_source() {
    for guarantee in Guarantee::all() {
        let sources = SOURCES.iter().filter(|(other, _)| *other == guarantee);
        let sources: Vec<_> = sources.flat_map(|(_, sources)| sources.iter()).collect();
        assert!(!sources.is_empty(), "{guarantee:?} has no source");
        for source in sources {
            assert!(is_well_formed(source), "{guarantee:?} names {source:?}");
        }
    }
    let vague = ["`ReplicationControlManager`", "`Partition.Isr.x`", "KIP-x", "`close`", "flush"];
    for vague in vague {
        assert!(!is_well_formed(vague), "{vague}");
    }
}

//! Topics and clients: how they are configured, and what consumers do.

use std::collections::BTreeMap;

use bus_core::{Acks, Assignor, CompressionType, IsolationLevel, OffsetReset, StartAt, Timestamp};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::{place, places, property, topic_slot};
use crate::program::{ConsumerSpec, ConsumerStep, ProducerSpec, TopicSpec, TransactorSpec};
use crate::rules::LINGER_TOGETHER_MS;
use crate::slot::{ConsumerSlot, GroupSlot, IdSlot, ProducerSlot, TopicSlot, TransactorSlot};

pub(super) fn topics() -> impl Strategy<Value = BTreeMap<TopicSlot, TopicSpec>> {
    let others = (option::weighted(0.7, good_topic()), option::weighted(0.3, good_topic()));
    (option::weighted(0.97, good_topic()), others).prop_map(|(t0, (t1, t2))| {
        let topics = [(TopicSlot::T0, t0), (TopicSlot::T1, t1), (TopicSlot::T2, t2)];
        topics.into_iter().filter_map(|(slot, spec)| Some((slot, spec?))).collect()
    })
}

fn good_topic() -> impl Strategy<Value = TopicSpec> {
    let partitions = prop_oneof![5 => Just(1), 4 => Just(2), 2 => Just(3), 1 => Just(4)];
    (partitions, good_config()).prop_map(|(partitions, config)| TopicSpec {
        partitions,
        replicas: None,
        config,
    })
}

fn good_config() -> impl Strategy<Value = BTreeMap<String, String>> {
    prop_oneof![
        10 => Just(BTreeMap::new()),
        1 => Just(property("max.message.bytes", "600")),
        1 => Just(property("message.timestamp.type", "LogAppendTime")),
        1 => Just(property("message.timestamp.before.max.ms", "60000")),
        1 => Just(property("cleanup.policy", "compact")),
    ]
}

/// Any topic, also one that cannot be.
pub(super) fn topic() -> impl Strategy<Value = TopicSpec> {
    let partitions = prop_oneof![8 => 1..5_i32, 1 => Just(0), 1 => Just(-1)];
    let replicas =
        prop_oneof![8 => Just(None), 2 => Just(Some(1)), 1 => Just(Some(0)), 1 => Just(Some(7))];
    let config = prop_oneof![
        8 => good_config(),
        1 => Just(property("max.message.bytes", "many")),
        1 => Just(property("no.such.property", "1")),
    ];
    (partitions, replicas, config).prop_map(|(partitions, replicas, config)| TopicSpec {
        partitions,
        replicas,
        config,
    })
}

/// Some of the slots of clients with a configuration, the others with the default.
fn some<K: Copy + Ord + std::fmt::Debug + 'static, V: std::fmt::Debug>(
    slots: &'static [K],
    spec: impl Strategy<Value = V>,
) -> impl Strategy<Value = BTreeMap<K, V>> {
    vec(option::weighted(0.95, spec), slots.len()).prop_map(move |specs| {
        let specs = slots.iter().zip(specs);
        specs.filter_map(|(slot, spec)| Some((*slot, spec?))).collect()
    })
}

pub(super) fn producers() -> impl Strategy<Value = BTreeMap<ProducerSlot, ProducerSpec>> {
    let acks = prop_oneof![
        30 => Just((Acks::All, true)),
        8 => Just((Acks::All, false)),
        8 => Just((Acks::Leader, false)),
        5 => Just((Acks::None, false)),
        // A conflict.
        1 => Just((Acks::Leader, true)),
    ];
    let linger = prop_oneof![3 => Just(0), 1 => Just(5), 1 => Just(LINGER_TOGETHER_MS)];
    let batch = prop_oneof![4 => Just(None), 1 => Just(Some(1)), 1 => Just(Some(2))];
    let size = prop_oneof![
        6 => Just(None),
        1 => Just(Some(1_000)),
        1 => Just(Some(2_000_000)),
    ];
    let compression =
        prop_oneof![6 => Just(CompressionType::None), 1 => Just(CompressionType::Gzip)];
    let properties = prop_oneof![
        120 => Just(BTreeMap::new()),
        1 => Just(property("linger.ms", "10000")),
        1 => Just(property("linger.mss", "1")),
        1 => Just(property("max.in.flight", "6")),
        1 => Just(property("max.in.flight", "1")),
        1 => Just(property("batch.size", "0")),
    ];
    let spec = (acks, linger, batch, size, compression, properties);
    let spec =
        spec.prop_map(|((acks, idempotence), linger_ms, batch_records, size, c, p)| ProducerSpec {
            acks,
            idempotence,
            linger_ms,
            batch_records,
            max_request_size: size,
            compression: c,
            properties: p,
        });
    some(ProducerSlot::ALL, spec)
}

pub(super) fn transactors() -> impl Strategy<Value = BTreeMap<TransactorSlot, TransactorSpec>> {
    let id = prop_oneof![3 => Just(IdSlot::I0), 1 => Just(IdSlot::I1)];
    // Longer than any program, so that no transaction times out in one.
    let timeout = prop_oneof![40 => Just(600_000), 1 => Just(2_000_000_000)];
    let properties = prop_oneof![60 => Just(BTreeMap::new()), 1 => Just(property("acks", "1"))];
    let spec = (id, timeout, properties).prop_map(|(id, timeout_ms, properties)| TransactorSpec {
        id,
        timeout_ms,
        properties,
    });
    some(TransactorSlot::ALL, spec)
}

pub(super) fn consumers() -> impl Strategy<Value = BTreeMap<ConsumerSlot, ConsumerSpec>> {
    // All in one group most of the time, with one assignor, so that they share it.
    let group = prop_oneof![
        8 => Just(Some(GroupSlot::G0)),
        1 => Just(Some(GroupSlot::G1)),
        1 => Just(None),
    ];
    let reset = prop_oneof![
        4 => Just(OffsetReset::Earliest),
        2 => Just(OffsetReset::Latest),
        1 => Just(OffsetReset::None),
    ];
    let isolation = prop_oneof![
        1 => Just(IsolationLevel::ReadCommitted),
        1 => Just(IsolationLevel::ReadUncommitted),
    ];
    let flags = (
        prop::bool::weighted(0.1),
        prop::bool::weighted(0.25),
        prop::bool::weighted(0.15),
        prop::bool::weighted(0.5),
    );
    let properties = prop_oneof![
        120 => Just(BTreeMap::new()),
        1 => Just(property("heartbeat.interval.ms", "45000")),
        1 => Just(property("isolation.level", "read_everything")),
        1 => Just(property("fetch.min.bytes", "0")),
    ];
    let spec = (group, reset, isolation, flags, properties);
    let spec = spec.prop_map(|(group, reset, isolation, flags, properties)| {
        let (is_static, auto_commit, store_by_hand, one_record_per_poll) = flags;
        ConsumerSpec {
            group,
            is_static,
            assignor: Assignor::Range,
            reset,
            isolation,
            auto_commit,
            store_by_hand,
            one_record_per_poll,
            properties,
        }
    });
    let assignor = prop_oneof![
        3 => Just(Assignor::Range),
        1 => Just(Assignor::RoundRobin),
        3 => Just(Assignor::CooperativeSticky),
    ];
    (assignor, some(ConsumerSlot::ALL, spec)).prop_map(|(assignor, mut specs)| {
        specs.values_mut().for_each(|spec| spec.assignor = assignor);
        specs
    })
}

pub(super) fn consumer_step() -> impl Strategy<Value = ConsumerStep> {
    prop_oneof![
        12 => starts().prop_map(ConsumerStep::Assign),
        12 => subscribe(),
        2 => Just(ConsumerStep::Unsubscribe),
        20 => Just(ConsumerStep::Read),
        8 => (0..4_usize).prop_map(ConsumerStep::Take),
        8 => (place(), start()).prop_map(|(place, to)| ConsumerStep::Seek(place, to)),
        3 => places(2).prop_map(ConsumerStep::Pause),
        2 => places(2).prop_map(ConsumerStep::Resume),
        30 => question(),
        2 => Just(ConsumerStep::Close),
        4 => Just(ConsumerStep::Reopen),
    ]
}

/// Commits, and questions.
fn question() -> impl Strategy<Value = ConsumerStep> {
    prop_oneof![
        6 => commit(),
        6 => Just(ConsumerStep::CommitPositions),
        3 => vec((place(), offset()), 1..3).prop_map(ConsumerStep::Store),
        6 => places(3).prop_map(ConsumerStep::Committed),
        4 => Just(ConsumerStep::Positions),
        2 => place().prop_map(ConsumerStep::Position),
        4 => place().prop_map(ConsumerStep::Watermarks),
        4 => vec((place(), time()), 1..3).prop_map(ConsumerStep::OffsetsForTimes),
        2 => Just(ConsumerStep::Membership),
    ]
}

fn commit() -> impl Strategy<Value = ConsumerStep> {
    vec((place(), offset(), metadata()), 1..3).prop_map(ConsumerStep::Commit)
}

pub(super) fn metadata() -> impl Strategy<Value = String> {
    prop_oneof![
        8 => Just(String::new()),
        2 => Just("note".to_owned()),
        1 => Just("x".repeat(4_097)),
    ]
}

pub(super) fn subscribe() -> impl Strategy<Value = ConsumerStep> {
    let topics = vec(topic_slot(), 1..3).prop_map(|mut topics| {
        topics.sort_unstable();
        topics.dedup();
        topics
    });
    let what = prop_oneof![
        12 => topics.prop_map(|topics| (topics, Vec::new())),
        2 => Just((Vec::new(), vec![TopicSlot::T0, TopicSlot::T1])),
        1 => Just((vec![TopicSlot::T1], vec![TopicSlot::T0])),
        1 => Just((Vec::new(), Vec::new())),
    ];
    (what, any::<bool>()).prop_map(|((topics, pattern), commit_on_revoke)| {
        ConsumerStep::Subscribe { topics, pattern, commit_on_revoke }
    })
}

fn starts() -> impl Strategy<Value = Vec<(crate::slot::Place, StartAt)>> {
    vec((place(), start()), 1..4).prop_map(|mut starts| {
        starts.sort_by_key(|(place, _)| *place);
        starts.dedup_by_key(|(place, _)| *place);
        starts
    })
}

pub(super) fn start() -> impl Strategy<Value = StartAt> {
    prop_oneof![
        6 => Just(StartAt::Beginning),
        4 => Just(StartAt::Committed),
        2 => Just(StartAt::End),
        4 => offset().prop_map(StartAt::Offset),
        2 => time().prop_map(|time| StartAt::Timestamp(Timestamp::from_millis(time))),
    ]
}

pub(super) fn offset() -> impl Strategy<Value = i64> {
    prop_oneof![12 => 0..8_i64, 1 => Just(1_000), 1 => Just(-1)]
}

pub(super) fn time() -> impl Strategy<Value = i64> {
    prop_oneof![
        6 => (0..21_i64).prop_map(|n| n * 1_000),
        1 => Just(1_000_000_000_000),
        1 => Just(4_102_444_800_000),
        1 => Just(-1),
    ]
}

//! Records, and what producers do with them.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

use super::{consumer_slot, place, topic_slot};
use crate::data::Data;
use crate::program::{Behalf, ProducerStep, RecordSpec, Sending, TransactorStep};
use crate::slot::{GroupSlot, Place};

pub(super) fn producer_step() -> impl Strategy<Value = ProducerStep> {
    prop_oneof![
        30 => sending().prop_map(ProducerStep::Send),
        1 => Just(ProducerStep::Flush),
        2 => topic_slot().prop_map(ProducerStep::PartitionsFor),
        1 => Just(ProducerStep::Close),
        1 => Just(ProducerStep::Reopen),
    ]
}

pub(super) fn transactor_step() -> impl Strategy<Value = TransactorStep> {
    prop_oneof![
        3 => Just(TransactorStep::Init),
        3 => Just(TransactorStep::Begin),
        3 => sending().prop_map(TransactorStep::Send),
        1 => (vec((place(), 0..6_i64), 1..3), behalf())
            .prop_map(|(offsets, group)| TransactorStep::SendOffsets { offsets, group }),
        3 => Just(TransactorStep::Commit),
        3 => Just(TransactorStep::Abort),
        1 => Just(TransactorStep::Close),
        1 => Just(TransactorStep::Reopen),
    ]
}

pub(super) fn behalf() -> impl Strategy<Value = Behalf> {
    prop_oneof![
        5 => consumer_slot().prop_map(Behalf::Of),
        4 => Just(Behalf::Group(GroupSlot::G0)),
        1 => Just(Behalf::Stranger(GroupSlot::G0)),
        1 => Just(Behalf::Stranger(GroupSlot::Nobody)),
    ]
}

/// Records for one place most of the time, as those of a batch are.
pub(super) fn sending() -> impl Strategy<Value = Sending> {
    sending_about(place())
}

/// Records for one of these places most of the time.
pub(super) fn sending_to(places: Vec<Place>) -> impl Strategy<Value = Sending> {
    sending_about(select(places))
}

fn sending_about(place: impl Strategy<Value = Place>) -> impl Strategy<Value = Sending> {
    (place, vec((record(), prop::bool::weighted(0.8)), 1..6), any::<bool>()).prop_map(
        |(place, records, one_by_one)| {
            let records = records.into_iter().map(|(mut record, is_there)| {
                if is_there {
                    record.to = place.topic;
                    record.partition = record.partition.map(|_| place.partition);
                }
                if record.key == Data::Null && record.partition.is_none() {
                    record.partition = Some(place.partition);
                }
                record
            });
            Sending { one_by_one, records: records.collect() }
        },
    )
}

fn record() -> impl Strategy<Value = RecordSpec> {
    let partition = option::weighted(0.6, place().prop_map(|place| place.partition));
    (topic_slot(), partition, key(), value(), headers(), timestamp()).prop_map(
        |(to, partition, key, value, headers, timestamp)| RecordSpec {
            to,
            partition,
            key,
            value,
            headers,
            timestamp,
        },
    )
}

fn key() -> impl Strategy<Value = Data> {
    prop_oneof![
        6 => Just(Data::Null),
        6 => (0..8_u8).prop_map(|n| Data::Text(format!("k{n}"))),
        1 => Just(Data::Text(String::new())),
        1 => vec(any::<u8>(), 1..6).prop_map(Data::Raw),
        1 => (0..400_usize).prop_map(Data::Size),
    ]
}

fn value() -> impl Strategy<Value = Data> {
    prop_oneof![
        20 => (0..100_u8).prop_map(|n| Data::Text(format!("v{n}"))),
        2 => Just(Data::Null),
        2 => Just(Data::Text(String::new())),
        2 => vec(any::<u8>(), 1..8).prop_map(Data::Raw),
        3 => (0..3_000_usize).prop_map(Data::Size),
        1 => prop_oneof![Just(70_000), Just(400_000), Just(990_000)].prop_map(Data::Size),
        1 => prop_oneof![Just(1_000_001), Just(1_048_600), Just(1_200_000)].prop_map(Data::Size),
    ]
}

fn headers() -> impl Strategy<Value = Vec<(String, Data)>> {
    let name = prop_oneof![
        4 => Just("a".to_owned()),
        2 => Just("b".to_owned()),
        1 => Just("größe".to_owned()),
        1 => Just(String::new()),
    ];
    let value = prop_oneof![
        4 => (0..10_u8).prop_map(|n| Data::Text(format!("h{n}"))),
        1 => Just(Data::Null),
        1 => Just(Data::Text(String::new())),
        1 => vec(any::<u8>(), 1..4).prop_map(Data::Raw),
    ];
    prop_oneof![5 => Just(Vec::new()), 1 => vec((name, value), 1..4)]
}

fn timestamp() -> impl Strategy<Value = Option<i64>> {
    prop_oneof![
        16 => Just(None),
        // Times of the past, a few, so that they meet and look-ups have something to find.
        4 => (1..20_i64).prop_map(|n| Some(n * 1_000)),
        1 => Just(Some(1_000_000_000_000)),
        1 => Just(Some(-5)),
        // The year 2100.
        1 => Just(Some(4_102_444_800_000)),
    ]
}

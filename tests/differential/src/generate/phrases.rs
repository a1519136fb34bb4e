//! Phrases: a few steps that belong together, as applications have them.
//!
//! Steps that were drawn alone would mostly find nothing to read and no transaction open. In a
//! phrase they are about the same partitions, and phrases of several clients follow one another.

use bus_core::StartAt;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::records::{behalf, sending, sending_to};
use super::{
    Features, admin, clients, consumer_slot, places, producer_slot, records, transactor_slot,
};
use crate::program::{ConsumerStep, ProducerStep, Step, TransactorStep};
use crate::slot::{ConsumerSlot, Place, TransactorSlot};

pub(super) fn phrase(features: Features) -> BoxedStrategy<Vec<Step>> {
    let single = prop_oneof![
        3 => (producer_slot(), records::producer_step()).prop_map(|(p, s)| Step::Producer(p, s)),
        5 => (consumer_slot(), clients::consumer_step()).prop_map(|(c, s)| Step::Consumer(c, s)),
        3 => admin::admin_step(features).prop_map(Step::Admin),
    ];
    let single = single.prop_map(|step| vec![step]);
    if !features.transactions {
        return prop_oneof![6 => single, 5 => assigned(), 4 => subscribed()].boxed();
    }
    let odd = (transactor_slot(), records::transactor_step())
        .prop_map(|(slot, step)| vec![Step::Transactor(slot, step)]);
    prop_oneof![6 => single, 5 => assigned(), 4 => subscribed(), 5 => transaction(), 1 => odd]
        .boxed()
}

/// Sends to some places, assigns them, and reads.
fn assigned() -> impl Strategy<Value = Vec<Step>> {
    let who = (producer_slot(), consumer_slot(), places(2), prop::bool::weighted(0.8));
    who.prop_flat_map(|(producer, consumer, places, sends)| {
        let starts = vec(clients::start(), places.len());
        let again = sending_to(places.clone());
        (
            sending_to(places.clone()),
            starts,
            vec(about(places.clone()), 1..4),
            again,
            prop::bool::weighted(0.3),
        )
            .prop_map(move |(sent, starts, steps, again, sends_again)| {
                let mut phrase = Vec::new();
                if sends {
                    phrase.push(Step::Producer(producer, ProducerStep::Send(sent)));
                }
                let starts = places.iter().copied().zip(starts).collect();
                phrase.push(Step::Consumer(consumer, ConsumerStep::Assign(starts)));
                if sends_again {
                    phrase.push(Step::Producer(producer, ProducerStep::Send(again)));
                }
                phrase.extend(steps.into_iter().map(|step| Step::Consumer(consumer, step)));
                phrase
            })
    })
}

/// Subscribes, reads, and commits.
fn subscribed() -> impl Strategy<Value = Vec<Step>> {
    let who = (consumer_slot(), producer_slot(), places(3), prop::bool::weighted(0.6));
    who.prop_flat_map(|(consumer, producer, places, sends)| {
        let steps = vec(about(places.clone()), 1..4);
        (clients::subscribe(), sending_to(places), steps).prop_map(
            move |(subscribe, sent, steps)| {
                let mut phrase = vec![Step::Consumer(consumer, subscribe)];
                if sends {
                    phrase.push(Step::Producer(producer, ProducerStep::Send(sent)));
                }
                phrase.extend(steps.into_iter().map(|step| Step::Consumer(consumer, step)));
                phrase
            },
        )
    })
}

/// Begins, sends, and ends, while others look on.
fn transaction() -> impl Strategy<Value = Vec<Step>> {
    let end = prop_oneof![
        6 => Just(Some(TransactorStep::Commit)),
        4 => Just(Some(TransactorStep::Abort)),
        1 => Just(None),
    ];
    (transactor_slot(), consumer_slot(), places(2), prop::bool::weighted(0.25)).prop_flat_map(
        move |(slot, consumer, places, inits)| {
            let within = vec(within(slot, consumer, places.clone()), 1..5);
            (within, end.clone(), prop::bool::weighted(0.6)).prop_map(
                move |(within, end, reads)| {
                    let mut phrase = Vec::new();
                    if inits {
                        phrase.push(Step::Transactor(slot, TransactorStep::Init));
                    }
                    phrase.push(Step::Transactor(slot, TransactorStep::Begin));
                    phrase.extend(within);
                    phrase.extend(end.map(|end| Step::Transactor(slot, end)));
                    if reads {
                        let starts = places.iter().map(|place| (*place, StartAt::Beginning));
                        let starts = ConsumerStep::Assign(starts.collect());
                        phrase.push(Step::Consumer(consumer, starts));
                        phrase.push(Step::Consumer(consumer, ConsumerStep::Read));
                    }
                    phrase
                },
            )
        },
    )
}

fn within(
    slot: TransactorSlot,
    consumer: ConsumerSlot,
    places: Vec<Place>,
) -> impl Strategy<Value = Step> {
    let offsets = vec((select(places.clone()), 0..6_i64), 1..3);
    prop_oneof![
        8 => sending_to(places.clone())
            .prop_map(move |sent| Step::Transactor(slot, TransactorStep::Send(sent))),
        3 => (offsets, behalf()).prop_map(move |(offsets, group)| {
            Step::Transactor(slot, TransactorStep::SendOffsets { offsets, group })
        }),
        1 => (producer_slot(), sending())
            .prop_map(|(producer, sent)| Step::Producer(producer, ProducerStep::Send(sent))),
        3 => about(places).prop_map(move |step| Step::Consumer(consumer, step)),
        1 => Just(Step::Transactor(slot, TransactorStep::Begin)),
        1 => Just(Step::Transactor(slot, TransactorStep::Init)),
    ]
}

/// What a consumer does with partitions that it may have.
fn about(places: Vec<Place>) -> impl Strategy<Value = ConsumerStep> {
    let place = || select(places.clone());
    let all = places.clone();
    prop_oneof![
        10 => Just(ConsumerStep::Read),
        5 => (0..5_usize).prop_map(ConsumerStep::Take),
        5 => (place(), clients::start()).prop_map(|(at, to)| ConsumerStep::Seek(at, to)),
        2 => place().prop_map(|at| ConsumerStep::Pause(vec![at])),
        2 => place().prop_map(|at| ConsumerStep::Resume(vec![at])),
        4 => Just(ConsumerStep::CommitPositions),
        3 => (place(), clients::offset(), clients::metadata())
            .prop_map(|(at, offset, metadata)| ConsumerStep::Commit(vec![(at, offset, metadata)])),
        2 => (place(), clients::offset())
            .prop_map(|(at, offset)| ConsumerStep::Store(vec![(at, offset)])),
        3 => Just(ConsumerStep::Committed(all)),
        2 => Just(ConsumerStep::Positions),
        2 => place().prop_map(ConsumerStep::Watermarks),
        2 => (place(), clients::time())
            .prop_map(|(at, time)| ConsumerStep::OffsetsForTimes(vec![(at, time)])),
        1 => Just(ConsumerStep::Membership),
        1 => Just(ConsumerStep::Reopen),
    ]
}

//! Repair: makes steps meet what is there.
//!
//! Drawn without regard to each other, a tenth of the steps would ask for partitions that do not
//! exist, which says little and waits long. Those that are wild on purpose stay as they are.

use std::collections::BTreeMap;

use crate::program::{
    AdminStep, ConsumerStep, ProducerStep, Program, Sending, Step, TransactorStep,
};
use crate::rules::{Exclusion, Exclusions};
use crate::slot::{Place, TopicSlot};

/// Partitions from here on are wild on purpose.
pub(super) const WILD: i32 = 9;

pub(super) fn repair(program: &mut Program) {
    let mut partitions: BTreeMap<TopicSlot, i32> =
        program.topics.iter().map(|(topic, spec)| (*topic, spec.partitions)).collect();
    for step in &program.steps {
        if let Step::Admin(AdminStep::CreateTopic(topic, spec)) = step {
            partitions.entry(*topic).or_insert(spec.partitions);
        }
    }
    let Some((&first, _)) = partitions.first_key_value() else { return };
    let topic = |topic: TopicSlot| match topic {
        TopicSlot::Missing | TopicSlot::Invalid => topic,
        _ if partitions.contains_key(&topic) => topic,
        _ => first,
    };
    let place = |place: &mut Place| {
        place.topic = topic(place.topic);
        let count = partitions.get(&place.topic).copied().unwrap_or(1).max(1);
        if (0..WILD).contains(&place.partition) {
            place.partition %= count;
        }
    };
    for step in &mut program.steps {
        match step {
            Step::Producer(_, ProducerStep::Send(sending))
            | Step::Transactor(_, TransactorStep::Send(sending)) => {
                for record in &mut sending.records {
                    let mut at = Place::new(record.to, record.partition.unwrap_or(0));
                    place(&mut at);
                    record.to = at.topic;
                    record.partition = record.partition.map(|_| at.partition);
                }
            }
            Step::Producer(_, ProducerStep::PartitionsFor(named)) => *named = topic(*named),
            Step::Transactor(_, TransactorStep::SendOffsets { offsets, .. }) => {
                offsets.iter_mut().for_each(|(at, _)| place(at));
            }
            Step::Consumer(_, step) => repair_consumer(step, &topic, &place),
            Step::Producer(..) | Step::Transactor(..) | Step::Admin(_) => {}
        }
    }
    repair_sends(program);
}

fn repair_consumer(
    step: &mut ConsumerStep,
    topic: &impl Fn(TopicSlot) -> TopicSlot,
    place: &impl Fn(&mut Place),
) {
    match step {
        ConsumerStep::Assign(starts) => {
            starts.iter_mut().for_each(|(at, _)| place(at));
            starts.sort_by_key(|(at, _)| *at);
            starts.dedup_by_key(|(at, _)| *at);
        }
        ConsumerStep::Subscribe { topics, .. } => {
            topics.iter_mut().for_each(|named| *named = topic(*named));
            topics.dedup();
        }
        ConsumerStep::Seek(at, _) | ConsumerStep::Position(at) | ConsumerStep::Watermarks(at) => {
            place(at);
        }
        ConsumerStep::Pause(places)
        | ConsumerStep::Resume(places)
        | ConsumerStep::Committed(places) => {
            places.iter_mut().for_each(place);
            places.dedup();
        }
        ConsumerStep::Commit(offsets) => {
            offsets.iter_mut().for_each(|(at, ..)| place(at));
            offsets.sort_by_key(|(at, ..)| *at);
            offsets.dedup_by_key(|(at, ..)| *at);
        }
        ConsumerStep::Store(offsets) => {
            offsets.iter_mut().for_each(|(at, _)| place(at));
            offsets.sort_by_key(|(at, _)| *at);
            offsets.dedup_by_key(|(at, _)| *at);
        }
        ConsumerStep::OffsetsForTimes(times) => {
            times.iter_mut().for_each(|(at, _)| place(at));
            // One question about a partition at a time: librdkafka answers the first for all.
            times.sort_by_key(|(at, _)| *at);
            times.dedup_by_key(|(at, _)| *at);
        }
        ConsumerStep::Unsubscribe
        | ConsumerStep::Read
        | ConsumerStep::Take(_)
        | ConsumerStep::CommitPositions
        | ConsumerStep::Positions
        | ConsumerStep::Membership
        | ConsumerStep::Close
        | ConsumerStep::Reopen => {}
    }
}

/// What the rules would leave out is sent in a way that they do not.
fn repair_sends(program: &mut Program) {
    let exclusions = Exclusions::of(program);
    for (n, step) in program.steps.iter_mut().enumerate() {
        let (Step::Producer(_, ProducerStep::Send(sending))
        | Step::Transactor(_, TransactorStep::Send(sending))) = step
        else {
            continue;
        };
        let Sending { one_by_one, records } = sending;
        for (m, record) in records.iter_mut().enumerate() {
            match exclusions.record(n, m) {
                Some(Exclusion::BatchCutByTiming | Exclusion::RecordErrors) => *one_by_one = true,
                Some(Exclusion::KeylessSpread) => record.partition = Some(0),
                _ => {}
            }
        }
    }
}

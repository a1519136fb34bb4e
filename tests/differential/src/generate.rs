//! Strategies: random programs.
//!
//! A program is a row of `phrases`, about few partitions and by few clients, so that they meet.

mod admin;
mod clients;
mod phrases;
mod records;
mod repair;

use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use crate::program::{Program, Step, TransactorStep};
use crate::slot::{ConsumerSlot, Place, ProducerSlot, TopicSlot, TransactorSlot};

/// What random programs are made of.
#[derive(Clone, Copy, Debug)]
pub struct Features {
    /// Transactional producers.
    pub transactions: bool,
    /// Administration of offsets, of topic configuration, and of records.
    pub full_admin: bool,
}

impl Default for Features {
    fn default() -> Self {
        Self { transactions: true, full_admin: false }
    }
}

/// The program of a number: the same for ever, as long as the strategies stay as they are.
pub fn program_of(seed: u64, number: u64, features: Features) -> Program {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    bytes[8..16].copy_from_slice(&number.to_le_bytes());
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let config = Config { failure_persistence: None, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, rng);
    // No strategy here rejects what it draws.
    programs(features).new_tree(&mut runner).map(|tree| tree.current()).unwrap_or_default()
}

/// Random programs.
pub fn programs(features: Features) -> impl Strategy<Value = Program> {
    let header =
        (clients::topics(), clients::producers(), clients::transactors(), clients::consumers());
    let phrases = vec(phrases::phrase(features), 2..9);
    (header, phrases, vec(prop::bool::weighted(0.9), 2)).prop_map(move |(header, steps, inits)| {
        let (topics, producers, transactors, consumers) = header;
        let mut steps = steps.concat();
        for (slot, _) in TransactorSlot::ALL.iter().zip(inits).filter(|(_, inits)| *inits) {
            init_first(*slot, &mut steps);
        }
        let mut program = Program { topics, producers, transactors, consumers, steps };
        forget_unused(&mut program);
        repair::repair(&mut program);
        program
    })
}

/// Clients that no step uses say nothing.
fn forget_unused(program: &mut Program) {
    let Program { producers, transactors, consumers, steps, .. } = program;
    let uses = |wanted: &dyn Fn(&Step) -> bool| steps.iter().any(wanted);
    producers.retain(|slot, _| uses(&|step| matches!(step, Step::Producer(s, _) if s == slot)));
    transactors.retain(|slot, _| uses(&|step| matches!(step, Step::Transactor(s, _) if s == slot)));
    consumers.retain(|slot, _| uses(&|step| matches!(step, Step::Consumer(s, _) if s == slot)));
}

/// Without it nothing works, so it comes before what a transactional producer does first.
fn init_first(slot: TransactorSlot, steps: &mut Vec<Step>) {
    let first = steps.iter().position(|step| matches!(step, Step::Transactor(s, _) if *s == slot));
    if let Some(first) = first {
        steps.insert(first, Step::Transactor(slot, TransactorStep::Init));
    }
}

/// The first slot most of the time, so that what one step does matters to others.
fn producer_slot() -> impl Strategy<Value = ProducerSlot> {
    use ProducerSlot::{P0, P1, P2};
    prop_oneof![6 => Just(P0), 3 => Just(P1), 1 => Just(P2)]
}

fn transactor_slot() -> impl Strategy<Value = TransactorSlot> {
    use TransactorSlot::{X0, X1};
    prop_oneof![3 => Just(X0), 1 => Just(X1)]
}

fn consumer_slot() -> impl Strategy<Value = ConsumerSlot> {
    use ConsumerSlot::{C0, C1, C2};
    prop_oneof![6 => Just(C0), 3 => Just(C1), 1 => Just(C2)]
}

fn topic_slot() -> impl Strategy<Value = TopicSlot> {
    use TopicSlot::{Invalid, Missing, T0, T1, T2};
    prop_oneof![
        70 => Just(T0),
        25 => Just(T1),
        5 => Just(T2),
        1 => Just(Missing),
        1 => Just(Invalid),
    ]
}

/// A topic that is a good one most of the time: each step on a missing one waits for it.
fn place() -> impl Strategy<Value = Place> {
    let wild = Just(repair::WILD);
    let partition = prop_oneof![60 => Just(0), 25 => Just(1), 10 => 2..4, 1 => wild, 1 => Just(-1)];
    (topic_slot(), partition).prop_map(|(topic, partition)| Place::new(topic, partition))
}

/// Different partitions, in order.
fn places(most: usize) -> impl Strategy<Value = Vec<Place>> {
    vec(place(), 1..=most).prop_map(|mut places| {
        places.sort_unstable();
        places.dedup();
        places
    })
}

/// An entry of a table of properties.
fn property(name: &str, value: &str) -> BTreeMap<String, String> {
    BTreeMap::from([(name.to_owned(), value.to_owned())])
}

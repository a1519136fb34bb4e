//! The definitions of the guarantees, written down as they are said, with quantifiers as loops.
//!
//! Nothing here is fast, and nothing is shared with the checkers but the words of the result.

mod commit;
mod consumer;
mod facts;
mod group;
mod liveness;
mod log;
mod producer;
mod transaction;

use std::collections::BTreeSet;

use bus_check::check::{Promise, Subject};
use bus_check::{Environment, Guarantee, History};

pub(crate) use facts::Facts;

/// What breaks a guarantee.
pub(crate) type Broken = BTreeSet<(Subject, Promise)>;

/// What breaks each guarantee in a history.
pub(crate) fn judge(history: &History, environment: &Environment) -> Vec<(Guarantee, Broken)> {
    let facts = Facts::new(history, environment);
    Guarantee::ALL.iter().map(|guarantee| (*guarantee, broken(&facts, *guarantee))).collect()
}

fn broken(facts: &Facts<'_>, guarantee: Guarantee) -> Broken {
    match guarantee {
        Guarantee::A1 => log::a1(facts),
        Guarantee::A2 => log::a2(facts),
        Guarantee::A3 => log::a3(facts),
        Guarantee::A4 => log::a4(facts),
        Guarantee::A5 => log::a5(facts),
        Guarantee::A6 => log::a6(facts),
        Guarantee::A7 => log::a7(facts),
        Guarantee::A8 => log::a8(facts),
        Guarantee::A10 => log::a10(facts),
        Guarantee::B1 => log::b1(facts),
        Guarantee::B2 => log::b2(facts),
        Guarantee::B3 => log::b3(facts),
        Guarantee::B6 => log::b6(facts),
        Guarantee::C1 => producer::c1(facts),
        Guarantee::C2 => producer::c2(facts),
        Guarantee::C3 => producer::c3(facts),
        Guarantee::C4 => producer::c4(facts),
        Guarantee::C5 => producer::c5(facts),
        Guarantee::C6 => producer::c6(facts),
        Guarantee::C7 => producer::c7(facts),
        Guarantee::C8 => producer::c8(facts),
        Guarantee::C9 => producer::c9(facts),
        Guarantee::D1 => consumer::monotonic(facts, true),
        Guarantee::D2 => consumer::complete(facts, true),
        Guarantee::D3 => consumer::monotonic(facts, false),
        Guarantee::D4 => consumer::complete(facts, false),
        Guarantee::D5 => consumer::start(facts, true),
        Guarantee::D6 => consumer::start(facts, false),
        Guarantee::D9 => consumer::d9(facts),
        Guarantee::D10 => consumer::d10(facts),
        Guarantee::D12 => consumer::d12(facts),
        Guarantee::E1 => group::e1(facts),
        Guarantee::E2 => group::overlap(facts, false),
        Guarantee::E3 => group::e3(facts),
        Guarantee::E4 => commit::e4(facts),
        Guarantee::E5 => commit::e5(facts),
        Guarantee::E6 => commit::e6(facts),
        Guarantee::E7 => commit::e7(facts),
        Guarantee::E8 => commit::e8(facts),
        Guarantee::E9 => group::e9(facts),
        Guarantee::E10 => group::overlap(facts, true),
        Guarantee::E11 => group::e11(facts),
        Guarantee::E12 => group::e12(facts),
        Guarantee::F1 => transaction::f1(facts),
        Guarantee::F2 => transaction::f2(facts),
        Guarantee::F4 => transaction::f4(facts),
        Guarantee::F5 => transaction::f5(facts),
        Guarantee::F6 => transaction::f6(facts),
        Guarantee::F7 => transaction::f7(facts),
        Guarantee::F8 => transaction::f8(facts),
        Guarantee::F9 => transaction::f9(facts),
        Guarantee::F10 => transaction::f10(facts),
        Guarantee::F11 => transaction::f11(facts),
        Guarantee::F12 => transaction::f12(facts),
        Guarantee::F14 => transaction::f14(facts),
        Guarantee::H1 => liveness::h1(facts),
        Guarantee::H2 => liveness::h2(facts),
        Guarantee::H5 => liveness::h5(facts),
        Guarantee::H9 => liveness::h9(facts),
    }
}

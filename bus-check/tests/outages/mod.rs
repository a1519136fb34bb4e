//! What is done to the world for one planted bug each: outages that reach the place where it is.

use std::time::Duration;

use bus_sim::{Api, SimHandle};

use crate::application::faults::try_to;

/// A member crashes for good.
pub(crate) fn crash(sim: &SimHandle, step: u32) {
    if step == 4 {
        try_to(sim.crash("member-0"));
    }
}

/// A leader is left alone in sync, and crashes: nobody may follow it until it is back.
pub(crate) fn lagging(sim: &SimHandle, step: u32) {
    match step {
        1 => cut_off(sim, 3),
        4 => try_to(sim.crash_broker(3)),
        7 => {
            sim.heal();
            try_to(sim.restart_broker(3));
        }
        _ => {}
    }
}

/// One broker is restarted after the other, faster than followers learn of high watermarks.
pub(crate) fn rolling(sim: &SimHandle, step: u32) {
    let broker = i32::try_from(step / 2 % 3).unwrap_or(0) + 1;
    match step % 2 {
        0 => try_to(sim.crash_broker(broker)),
        _ => try_to(sim.restart_broker(broker)),
    }
}

/// The members of a transactional group pause by turns, for longer than their session.
pub(crate) fn paused(sim: &SimHandle, step: u32) {
    match step {
        1 => try_to(sim.pause("relay-0")),
        4 => try_to(sim.resume("relay-0")),
        5 => try_to(sim.pause("relay-1")),
        8 => try_to(sim.resume("relay-1")),
        _ => {}
    }
}

/// The end of a transaction is decided and not answered, and its producer crashes: nobody is told
/// what became of it.
pub(crate) fn unanswered(sim: &SimHandle, step: u32) {
    match step % 3 {
        0 => sim.delay_next_response(Api::EndTxn, Duration::from_mins(1)),
        1 => {
            for process in ["ledger", "relay-0", "relay-1"] {
                try_to(sim.crash(process));
            }
        }
        _ => {
            for process in ["ledger", "relay-0", "relay-1"] {
                try_to(sim.restart(process));
            }
        }
    }
}

/// All brokers lag, then one only; while it does, the others crash.
pub(crate) fn outlived(sim: &SimHandle, step: u32) {
    match step {
        1 => all_apart(sim),
        4 => {
            sim.heal();
            cut_off(sim, 3);
        }
        6 => try_to(sim.crash_broker(1)),
        7 => try_to(sim.crash_broker(2)),
        9 => {
            sim.heal();
            try_to(sim.restart_broker(1));
            try_to(sim.restart_broker(2));
        }
        _ => {}
    }
}

/// Of two in sync one loses power, comes back without what it had, and is left alone.
pub(crate) fn unclean(sim: &SimHandle, step: u32) {
    match step {
        1 => cut_off(sim, 3),
        4 => try_to(sim.lose_power(1)),
        5 => {
            all_apart(sim);
            try_to(sim.restart_broker(1));
        }
        6 => try_to(sim.crash_broker(2)),
        8 => {
            sim.heal();
            try_to(sim.restart_broker(2));
        }
        9 => {
            try_to(sim.crash("ledger"));
            try_to(sim.restart("ledger"));
        }
        _ => {}
    }
}

/// A member is behind when the coordinator of its group is cut off from its followers; both crash
/// before they leave those in sync.
pub(crate) fn severed(sim: &SimHandle, step: u32) {
    match step {
        6 => try_to(sim.pause("member-0")),
        7 => {
            cut_off(sim, 1);
            try_to(sim.resume("member-0"));
        }
        8 => {
            try_to(sim.crash_broker(1));
            try_to(sim.crash("member-0"));
        }
        9 => {
            sim.heal();
            try_to(sim.restart_broker(1));
        }
        _ => {}
    }
}

/// A leader is cut off from the controller and from one of its followers: what it says arrives when
/// another has led for long.
pub(crate) fn unheard(sim: &SimHandle, step: u32) {
    match step {
        1 => {
            try_to(sim.partition_from_controller(2));
            try_to(sim.partition_brokers(2, 3));
        }
        6 => sim.heal(),
        _ => {}
    }
}

/// What is sent last is acknowledged late.
pub(crate) fn last_words(sim: &SimHandle, step: u32) {
    if step == 9 {
        sim.delay_next_response(Api::Produce, Duration::from_secs(30));
    }
}

/// The ends of transactions come late.
pub(crate) fn undecided(sim: &SimHandle, step: u32) {
    if step % 2 == 1 {
        sim.delay_next_request(Api::WriteTxnMarkers, Duration::from_millis(700));
    }
}

/// A broker that others cannot reach.
fn cut_off(sim: &SimHandle, broker: i32) {
    for other in (1..=3).filter(|other| *other != broker) {
        try_to(sim.partition_brokers(broker, other));
    }
}

/// No broker reaches another.
fn all_apart(sim: &SimHandle) {
    cut_off(sim, 1);
    try_to(sim.partition_brokers(2, 3));
}

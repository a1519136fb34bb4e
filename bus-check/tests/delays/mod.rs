//! What is slow in the middle of a run: messages, and what brokers hear of each other.

use std::time::Duration;

use bus_sim::{Api, SimHandle};

use crate::application::faults::try_to;

/// Produce requests and their answers arrive late.
pub(crate) fn late(sim: &SimHandle, step: u32) {
    let by = Duration::from_millis(1_500);
    match step {
        1 | 5 => sim.delay_next_request(Api::Produce, by),
        3 | 7 => sim.delay_next_response(Api::Produce, by),
        _ => {}
    }
}

/// Answers to produce requests arrive late.
pub(crate) fn unheeded(sim: &SimHandle, step: u32) {
    if step % 2 == 1 {
        sim.delay_next_response(Api::Produce, Duration::from_millis(1_500));
    }
}

/// A broker crashes, and the others do not hear of each other: what was committed is not known
/// where it is.
pub(crate) fn apart(sim: &SimHandle, step: u32) {
    let broker = i32::try_from(step / 3).unwrap_or(0) + 1;
    match step {
        0 | 3 | 6 => {
            let others = [1, 2, 3].into_iter().filter(|other| *other != broker);
            let others: Vec<i32> = others.collect();
            try_to(sim.crash_broker(broker));
            try_to(sim.partition_brokers(others[0], others[1]));
        }
        2 | 5 | 8 => {
            sim.heal();
            try_to(sim.restart_broker(broker));
        }
        _ => {}
    }
}

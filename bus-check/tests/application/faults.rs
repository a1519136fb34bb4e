//! What is done to the world in the middle of a run.

use bus_core::Result;
use bus_sim::{Api, SimHandle};

/// Nothing.
pub(crate) fn quiet(_: &SimHandle, _: u32) {}

/// What cannot be done to the world now is not done.
pub(crate) fn try_to(outcome: Result<()>) {
    drop(outcome);
}

/// Members crash, pause, and restart, and so does a publisher.
pub(crate) fn processes(sim: &SimHandle, step: u32) {
    match step {
        1 => try_to(sim.crash("member-0")),
        3 => try_to(sim.restart("member-0")),
        4 => try_to(sim.pause("member-1")),
        7 => {
            try_to(sim.resume("member-1"));
            try_to(sim.crash("publisher-1"));
        }
        8 => try_to(sim.restart("publisher-1")),
        _ => {}
    }
}

/// Messages are lost, the broker crashes, and a member is cut off.
pub(crate) fn network(sim: &SimHandle, step: u32) {
    match step {
        0 | 2 => sim.lose_next_response(Api::Produce),
        1 => sim.lose_next_request(Api::Produce),
        3 => sim.lose_next_response(Api::OffsetCommit),
        4 => {
            sim.lose_next_response(Api::Fetch);
            sim.lose_next_response(Api::JoinGroup);
        }
        5 => try_to(sim.crash_broker(1)),
        6 => {
            try_to(sim.restart_broker(1));
            sim.lose_next_request(Api::OffsetCommit);
        }
        7 => try_to(sim.partition_link("member-0", 1)),
        9 => sim.heal(),
        _ => {}
    }
}

/// Followers cannot fetch, a leader crashes, another is cut off with its leadership, one loses its
/// page cache: one after the other, so that two of three brokers always have what is acknowledged.
pub(crate) fn cluster(sim: &SimHandle, step: u32) {
    match step {
        1 => {
            try_to(sim.partition_brokers(3, 1));
            try_to(sim.partition_brokers(3, 2));
        }
        3 => try_to(sim.crash_broker(3)),
        4 => {
            sim.heal();
            try_to(sim.restart_broker(3));
        }
        6 => try_to(sim.isolate_broker(2)),
        8 => {
            sim.heal();
            try_to(sim.lose_power(1));
        }
        9 => try_to(sim.restart_broker(1)),
        _ => {}
    }
}

/// Transactional producers crash, pause while another takes their id over, and lose messages.
pub(crate) fn zombies(sim: &SimHandle, step: u32) {
    match step {
        1 => sim.lose_next_response(Api::Produce),
        2 => {
            try_to(sim.pause("ledger"));
            try_to(sim.pause("relay-0"));
        }
        3 => sim.lose_next_response(Api::EndTxn),
        5 => {
            try_to(sim.resume("ledger"));
            try_to(sim.resume("relay-0"));
        }
        6 => try_to(sim.crash("relay-1")),
        7 => {
            try_to(sim.restart("relay-1"));
            sim.lose_next_request(Api::Produce);
        }
        8 => try_to(sim.crash_broker(1)),
        9 => try_to(sim.restart_broker(1)),
        _ => {}
    }
}

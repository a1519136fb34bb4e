//! A storm: random faults, drawn from a seed, around an application that is then left in peace.

use std::time::Duration;

use bus_core::Result;
use bus_sim::{Api, SimHandle};

/// Random numbers of a test, so that it needs nothing but its seed.
#[derive(Clone, Debug)]
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5eed)
    }

    /// A number below `bound`.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }

    pub(crate) fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        let bound = u64::try_from(of.len()).expect("a short list");
        of[usize::try_from(self.below(bound)).expect("an index")]
    }

    pub(crate) fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    pub(crate) fn millis(&mut self, most: u64) -> Duration {
        Duration::from_millis(self.below(most + 1))
    }
}

/// The requests that a storm loses and delays.
const APIS: &[Api] = &[
    Api::Produce,
    Api::Fetch,
    Api::FindCoordinator,
    Api::InitProducerId,
    Api::AddPartitionsToTxn,
    Api::AddOffsetsToTxn,
    Api::TxnOffsetCommit,
    Api::EndTxn,
    Api::WriteTxnMarkers,
    Api::JoinGroup,
    Api::SyncGroup,
    Api::Heartbeat,
    Api::OffsetFetch,
    Api::Metadata,
];

/// Lets a storm rage, then heals everything.
pub(crate) async fn rage(
    sim: &SimHandle,
    dice: &mut Dice,
    processes: &[&str],
    brokers: i32,
) -> Result<()> {
    let pause = dice.pick(&[20, 200, 2_000]);
    for _ in 0..=dice.below(25) {
        tokio::time::sleep(dice.millis(pause)).await;
        strike(sim, dice, processes, brokers);
    }
    sim.heal();
    for broker in 1..=brokers {
        sim.restart_broker(broker)?;
    }
    for process in processes {
        // Each is in one of the states in which one of these is refused.
        drop(sim.resume(process));
        drop(sim.restart(process));
    }
    Ok(())
}

/// One fault, or the end of one. What is refused (a pause of a crashed process) is none.
fn strike(sim: &SimHandle, dice: &mut Dice, processes: &[&str], brokers: i32) {
    let process = dice.pick(processes);
    let broker = i32::try_from(dice.below(u64::from(brokers.unsigned_abs()))).expect("few") + 1;
    let api = dice.pick(APIS);
    let by = dice.millis(40_000);
    match dice.below(16) {
        0 => drop(sim.crash(process)),
        1 | 2 => drop(sim.restart(process)),
        3 => drop(sim.pause(process)),
        4 | 5 => drop(sim.resume(process)),
        6 => drop(sim.crash_broker(broker)),
        7 | 8 => drop(sim.restart_broker(broker)),
        9 => drop(sim.partition_link(process, broker)),
        10 | 11 => sim.heal(),
        12 => sim.lose_next_request(api),
        13 => sim.lose_next_response(api),
        14 => sim.delay_next_request(api, by),
        _ => sim.delay_next_response(api, by),
    }
}

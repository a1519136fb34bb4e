//! The faults of a storm, drawn from its seed.

use std::time::Duration;

use bus_core::Result;
use bus_sim::{Api, SimHandle};

/// Numbers from a seed (SplitMix64), apart from those of the simulator.
#[derive(Debug)]
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(1))
    }

    /// A number below `end`.
    pub(crate) const fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % end
    }

    fn broker(&mut self) -> i32 {
        i32::try_from(self.below(3)).unwrap_or(0) + 1
    }

    fn api(&mut self) -> Api {
        let index = self.below(Api::ALL.len() as u64);
        Api::ALL[usize::try_from(index).unwrap_or(0)]
    }
}

/// Does up to a dozen bad things, some time apart.
pub(crate) async fn strike(sim: &SimHandle, dice: &mut Dice, is_told: bool) -> Result<()> {
    for _ in 0..dice.below(13) {
        tokio::time::sleep(Duration::from_millis(dice.below(1_500))).await;
        let told = strike_once(sim, dice)?;
        if is_told {
            println!("{:?} {told}", sim.now());
        }
    }
    Ok(())
}

fn strike_once(sim: &SimHandle, dice: &mut Dice) -> Result<String> {
    let (broker, other) = (dice.broker(), dice.broker());
    let process = format!("member-{}", dice.below(3));
    let api = dice.api();
    let delay = Duration::from_millis(dice.below(5_000));
    // What makes no sense for a process now (to resume one that is not paused) does nothing.
    Ok(match dice.below(15) {
        0 => format!("crash {process}: {:?}", sim.crash(&process)),
        1 => format!("restart {process}: {:?}", sim.restart(&process)),
        2 => format!("pause {process}: {:?}", sim.pause(&process)),
        3 => format!("resume {process}: {:?}", sim.resume(&process)),
        4 | 5 => format!("crash broker {broker}: {:?}", sim.crash_broker(broker)?),
        6 => format!("start broker {broker}: {:?}", sim.restart_broker(broker)?),
        7 => format!("lose a request {api:?}: {:?}", sim.lose_next_request(api)),
        8 => format!("lose a response {api:?}: {:?}", sim.lose_next_response(api)),
        9 => format!("delay a request {api:?}: {:?}", sim.delay_next_request(api, delay)),
        10 => format!("cut {process} off broker {broker}: {:?}", {
            sim.partition_link(&process, broker)
        }),
        11 if broker != other => {
            format!("cut brokers {broker} {other}: {:?}", sim.partition_brokers(broker, other)?)
        }
        12 => format!("isolate broker {broker}: {:?}", sim.isolate_broker(broker)?),
        13 => format!("crash the controller: {:?}", sim.crash_controller()),
        _ => format!("heal the links: {:?}", sim.heal()),
    })
}

/// Ends all faults.
pub(crate) fn heal(sim: &SimHandle) -> Result<()> {
    sim.heal();
    for broker in 1..=3 {
        sim.restart_broker(broker)?;
    }
    for n in 0..3 {
        let process = format!("member-{n}");
        // Only one of the two is right, according to what became of the process.
        drop(sim.resume(&process));
        drop(sim.restart(&process));
    }
    Ok(())
}

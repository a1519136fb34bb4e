//! The fixture of the simulator: every case in a fresh world, with every power.

use std::time::Duration;

use bus_core::{BoxFuture, Bus, Result};
use bus_sim::{Mutation, Sim, SimConfig, SimHandle};
use futures_util::FutureExt as _;

use crate::case::Case;
use crate::cx::Cx;
use crate::failure::{Failure, FailureKind, Verdict};
use crate::fixture::{Api, Fault, Fixture};
use crate::runner;
use crate::script::{Script, play};

/// How many brokers each world has.
const BROKERS: i32 = 1;

/// The longest case idles for an hour; one with a planted bug may never end by itself.
const TIME_LIMIT: Duration = Duration::from_hours(3);
const EVENT_LIMIT: u64 = 3_000_000;

/// Runs a case in a fresh world of this seed, with a planted bug or without.
///
/// # Errors
/// Why the case does not hold.
pub fn run(case: &Case, seed: u64, mutation: Option<Mutation>) -> Verdict {
    let config = SimConfig {
        seed,
        brokers: BROKERS,
        mutation,
        time_limit: TIME_LIMIT,
        event_limit: EVENT_LIMIT,
        ..Default::default()
    };
    let work = || {
        let sim = Sim::new(config)?;
        let outcome = sim.run(|sim| async move {
            let cx = Cx::new(std::sync::Arc::new(OnSim { sim }), "case".to_owned())?;
            runner::run(case, &cx).await
        });
        outcome
            .result
            .unwrap_or_else(|stalled| Err(Failure::new(FailureKind::Stalled, stalled.to_string())))
    };
    // The world itself may panic, too.
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let message = format!("panic: {}", runner::panic_message(&*panic));
        Err(Failure::new(FailureKind::Crash, message))
    })
}

struct OnSim {
    sim: SimHandle,
}

impl Fixture for OnSim {
    fn bus(&self) -> Bus {
        self.sim.bus()
    }

    fn another_bus(&self) -> BoxFuture<'_, Result<Bus>> {
        std::future::ready(Ok(self.sim.bus())).boxed()
    }

    fn url(&self) -> String {
        format!("sim://?seed=1&brokers={BROKERS}")
    }

    fn unreachable(&self, _timeout: Duration) -> BoxFuture<'_, Result<Bus>> {
        std::future::ready(self.each_broker(|id| self.sim.crash_broker(id)).map(|()| self.bus()))
            .boxed()
    }

    fn is_virtual_time(&self) -> bool {
        true
    }

    fn start(&self, process: &str, script: Script) -> Result<(), String> {
        self.sim.bus().process(process, move |bus| play(bus, script.clone()));
        Ok(())
    }

    fn inflict(&self, fault: &Fault) -> Result<(), String> {
        let outcome = match fault {
            Fault::Crash(process) => self.sim.crash(process),
            Fault::Pause(process) => self.sim.pause(process),
            Fault::Resume(process) => self.sim.resume(process),
            Fault::Restart(process) => self.sim.restart(process),
            Fault::CrashBrokers => self.each_broker(|id| self.sim.crash_broker(id)),
            Fault::RestartBrokers => self.each_broker(|id| self.sim.restart_broker(id)),
            Fault::Cut(process) => self.each_broker(|id| self.sim.partition_link(process, id)),
            Fault::Heal => {
                self.sim.heal();
                self.each_broker(|id| self.sim.restart_broker(id))
            }
            Fault::LoseRequest(api) => {
                self.sim.lose_next_request(simulated(*api));
                Ok(())
            }
            Fault::LoseResponse(api) => {
                self.sim.lose_next_response(simulated(*api));
                Ok(())
            }
        };
        outcome.map_err(|error| format!("{fault}: {error}"))
    }
}

impl OnSim {
    fn each_broker(&self, act: impl Fn(i32) -> Result<()>) -> Result<()> {
        (1..=BROKERS).try_for_each(act)
    }
}

const fn simulated(api: Api) -> bus_sim::Api {
    match api {
        Api::Produce => bus_sim::Api::Produce,
        Api::Fetch => bus_sim::Api::Fetch,
        Api::OffsetCommit => bus_sim::Api::OffsetCommit,
        Api::JoinGroup => bus_sim::Api::JoinGroup,
        Api::SyncGroup => bus_sim::Api::SyncGroup,
        Api::Heartbeat => bus_sim::Api::Heartbeat,
        Api::InitProducerId => bus_sim::Api::InitProducerId,
        Api::AddPartitionsToTxn => bus_sim::Api::AddPartitionsToTxn,
        Api::AddOffsetsToTxn => bus_sim::Api::AddOffsetsToTxn,
        Api::TxnOffsetCommit => bus_sim::Api::TxnOffsetCommit,
        Api::EndTxn => bus_sim::Api::EndTxn,
        Api::WriteTxnMarkers => bus_sim::Api::WriteTxnMarkers,
    }
}

//! The fixture of the simulator: every case in a fresh world, with every power.

use std::time::Duration;

use bus_core::{BoxFuture, Bus, Result};
use bus_sim::{BrokerConfig, Mutation, Sim, SimConfig, SimHandle};
use futures_util::FutureExt as _;

use crate::case::Case;
use crate::column::Column;
use crate::cx::Cx;
use crate::failure::{Failure, FailureKind, Verdict};
use crate::fixture::{Api, Fault, Fixture, Need};
use crate::runner;
use crate::script::{Script, play};

/// The longest case idles for an hour; one with a planted bug may never end by itself.
const TIME_LIMIT: Duration = Duration::from_hours(3);
const EVENT_LIMIT: u64 = 3_000_000;

/// Why a case that needs this is skipped on this column; `None` if it can be run.
pub const fn lacks(column: &Column, need: Need) -> Option<&'static str> {
    match need {
        Need::Replicas if column.brokers < 3 => Some("one broker has no replicas"),
        Need::Replicas
        | Need::VirtualTime
        | Need::Processes
        | Need::Brokers
        | Need::Links
        | Need::Losses => None,
    }
}

/// Runs a case in a fresh world of this seed, with a planted bug or without.
///
/// # Errors
/// Why the case does not hold.
pub fn run(case: &Case, column: &Column, seed: u64, mutation: Option<Mutation>) -> Verdict {
    let brokers = column.brokers;
    // As `bus kafka up` sets it: as many copies as there are brokers, up to three.
    let broker = BrokerConfig {
        default_replication_factor: 3,
        offsets_topic_replication_factor: 3,
        leader_imbalance_check_interval: Duration::from_secs(2),
        ..Default::default()
    };
    let config = SimConfig {
        seed,
        brokers,
        broker,
        mutation,
        time_limit: TIME_LIMIT,
        event_limit: EVENT_LIMIT,
        ..Default::default()
    };
    let work = || {
        let sim = Sim::new(config)?;
        let outcome = sim.run(|sim| async move {
            let cx = Cx::new(std::sync::Arc::new(OnSim { sim, brokers }), "case".to_owned())?;
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
    brokers: i32,
}

impl Fixture for OnSim {
    fn bus(&self) -> Bus {
        self.sim.bus()
    }

    fn another_bus(&self) -> BoxFuture<'_, Result<Bus>> {
        std::future::ready(Ok(self.sim.bus())).boxed()
    }

    fn url(&self) -> String {
        format!("sim://?seed=1&brokers={}", self.brokers)
    }

    fn brokers(&self) -> i32 {
        self.brokers
    }

    fn unreachable(&self, _timeout: Duration) -> BoxFuture<'_, Result<Bus>> {
        std::future::ready(self.each_broker(|id| self.sim.crash_broker(id)).map(|()| self.bus()))
            .boxed()
    }

    fn is_broker_up(&self, broker: i32) -> bool {
        self.sim.is_broker_up(broker).unwrap_or(false)
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
            Fault::CrashBroker(id) => self.sim.crash_broker(*id),
            Fault::ShutdownBroker(id) => self.sim.shutdown_broker(*id),
            Fault::RestartBroker(id) => self.sim.restart_broker(*id),
            Fault::StallFollowers(leader) => self.each_broker(|id| {
                if id == *leader { Ok(()) } else { self.sim.partition_brokers(*leader, id) }
            }),
            Fault::ResumeFollowers(_) => {
                self.sim.heal();
                Ok(())
            }
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
        (1..=self.brokers).try_for_each(act)
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

//! The two backends that a program runs on.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use bus_core::{Bus, BusUrl, Result};
use bus_sim::{Mutation, Sim, SimConfig};

use crate::interpreter;
use crate::outcome::Outcome;
use crate::program::Program;

/// What came of a program: an outcome per step, or why there is none.
pub type Ran = Result<Vec<Outcome>, String>;

/// The simulator.
#[derive(Clone, Copy, Debug)]
pub struct OnSim {
    /// Decides every choice of the world.
    pub seed: u64,
    /// How many brokers: as many as the other side has.
    pub brokers: i32,
    /// A planted bug, to test the test.
    pub mutation: Option<Mutation>,
}

impl Default for OnSim {
    fn default() -> Self {
        Self { seed: 1, brokers: 1, mutation: None }
    }
}

impl OnSim {
    /// Runs a program, and gives the hash of the trace too. Must not be called inside of a runtime.
    pub fn run(self, program: &Program) -> (Ran, Option<String>) {
        // A world with a planted bug, or with a real one, may not end by itself.
        const TIME_LIMIT: Duration = Duration::from_hours(2);
        const EVENT_LIMIT: u64 = 3_000_000;

        let config = SimConfig {
            seed: self.seed,
            brokers: self.brokers,
            mutation: self.mutation,
            time_limit: TIME_LIMIT,
            event_limit: EVENT_LIMIT,
            ..Default::default()
        };
        let work = || {
            let sim = Sim::new(config)?;
            let outcome = sim.run(|sim| async move {
                let bus = sim.bus();
                interpreter::run(&bus, program, "d").await
            });
            Ok((outcome.result, outcome.report.trace_hash.to_string()))
        };
        match catch_unwind(AssertUnwindSafe(work)) {
            Ok(Ok((Ok(Ok(outcomes)), hash))) => (Ok(outcomes), Some(hash)),
            Ok(Ok((Ok(Err(error)), hash))) => (Err(error.to_string()), Some(hash)),
            Ok(Ok((Err(stalled), hash))) => (Err(stalled.to_string()), Some(hash)),
            Ok(Err(error)) => (Err(bus_core::Error::to_string(&error)), None),
            Err(panic) => (Err(format!("panic: {}", message(&*panic))), None),
        }
    }
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "?".to_owned())
}

/// A real Kafka. Cheap to clone.
#[derive(Clone, Debug)]
pub struct OnKafka {
    bus: Bus,
    brokers: i32,
}

impl OnKafka {
    /// Connects to `host:port[,host:port]`, inside of a runtime.
    ///
    /// # Errors
    /// [`AllBrokersDown`](bus_core::ErrorKind::AllBrokersDown) if nobody answers.
    pub async fn connect(hosts: &str) -> Result<Self> {
        // How long a topic may be unknown before that is an error, here and in `bus-sim`; the
        // controller has answered before a program asks for its topics, so a second is long.
        let url = format!("kafka://{hosts}?topic.metadata.propagation.max.ms=1000");
        let url: BusUrl = url.parse()?;
        let bus = bus_kafka::connect(&url).await?;
        let cluster = bus.admin()?.describe_cluster().await?;
        let brokers = i32::try_from(cluster.brokers.len()).unwrap_or(i32::MAX);
        Ok(Self { bus, brokers })
    }

    /// How many brokers it has.
    pub const fn brokers(&self) -> i32 {
        self.brokers
    }

    /// Runs a program; nothing else on the cluster may have a name that begins with `prefix`.
    pub async fn run(&self, program: &Program, prefix: &str) -> Ran {
        interpreter::run(&self.bus, program, prefix).await.map_err(|error| error.to_string())
    }
}

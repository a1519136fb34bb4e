//! A case: what decides a run beside the configuration and the code; and what comes of it.

use std::collections::BTreeMap;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::FutureExt as _;
use serde::{Deserialize, Serialize};

use super::checks::{self, Check, Seen};
use super::panics;
use crate::choice::Overrides;
use crate::config::SimConfig;
use crate::driver::{Sim, SimHandle, SimReport};
use crate::fault::{Plan, text};

/// What decides a run, beside the configuration and the code. Equal cases run equally.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// The seed.
    pub seed: u64,
    /// The most time that a message is under way; none for what the configuration says.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "text::optional_duration")]
    pub latency_max: Option<Duration>,
    /// How many brokers there are; none for as many as the configuration says. With it, topics have
    /// at most as many replicas.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub brokers: Option<i32>,
    /// What the application does less of than on an ordinary day; see
    /// [`SimHandle::size`](crate::SimHandle::size).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub sizes: BTreeMap<String, usize>,
    /// What goes wrong, and when.
    #[serde(default)]
    pub plan: Plan,
    /// What is chosen otherwise than the seed says.
    #[serde(default, skip_serializing_if = "Overrides::is_empty")]
    pub overrides: Overrides,
}

/// A guarantee that was broken.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Violation {
    /// The name of the guarantee, such as `B1 lost-write`. While a run is shrunk, only one that
    /// breaks the guarantee of the same name counts as the same failure.
    pub guarantee: String,
    /// What happened, as a sentence.
    pub sentence: String,
}

impl Violation {
    /// A guarantee that was broken, and how.
    pub fn new(guarantee: impl Into<String>, sentence: impl Into<String>) -> Self {
        Self { guarantee: guarantee.into(), sentence: sentence.into() }
    }
}

/// The guarantee that an application panics nowhere.
pub const NO_PANIC: &str = "no panic";
/// The guarantee that a run ends: H1 of the catalogue of guarantees.
pub const PROGRESS: &str = "progress";

/// That the configuration and the plan of a run make sense.
pub(super) const VALID: &str = "valid configuration";

/// What came of a case.
#[derive(Debug)]
pub(super) struct Ran {
    /// The guarantees that were broken; none if all held.
    pub(super) violations: Vec<Violation>,
    /// What the simulation did; none if it panicked before it could tell.
    pub(super) report: Option<SimReport>,
    /// The checks that it came to.
    pub(super) checks: BTreeMap<Check, Seen>,
}

/// An application and its judge, as a function.
pub(super) trait Subject: Sync {
    /// Runs it once.
    fn run(&self, config: SimConfig) -> Ran;
}

impl<F, Fut> Subject for F
where
    F: Fn(SimHandle) -> Fut + Sync,
    Fut: Future<Output = Result<(), Vec<Violation>>>,
{
    fn run(&self, config: SimConfig) -> Ran {
        let run = || {
            let sim = Sim::new(config)?;
            // Caught inside of the simulation, so that there is a report.
            Ok(sim.run(|sim| AssertUnwindSafe(async move { self(sim).await }).catch_unwind()))
        };
        let ((ran, panicked), checks) = checks::collect(|| panics::catch(run));
        // What somebody gave a name comes first; a panic may well follow from it.
        let mut violations = checks.violations;
        violations.extend(panicked.into_iter().map(|panic| Violation::new(NO_PANIC, panic)));
        let report = match ran {
            Some(Ok(outcome)) => {
                match outcome.result {
                    Ok(Ok(Ok(()))) => {}
                    Ok(Ok(Err(found))) => violations.extend(found),
                    // The hook has seen it.
                    Ok(Err(_panic)) => {}
                    Err(stalled) => violations.push(Violation::new(PROGRESS, stalled.to_string())),
                }
                violations.extend(outcome.violations);
                Some(outcome.report)
            }
            Some(Err(error)) => {
                let error: bus_core::Error = error;
                violations.push(Violation::new(VALID, error.to_string()));
                None
            }
            // A destructor panicked, or the simulator itself.
            None => None,
        };
        Ran { violations, report, checks: checks.seen }
    }
}

impl Case {
    /// The configuration of a run of this case.
    pub(super) fn config(&self, base: &SimConfig) -> SimConfig {
        SimConfig {
            seed: self.seed,
            brokers: self.brokers.unwrap_or(base.brokers),
            fewer_replicas: self.brokers.is_some() || base.fewer_replicas,
            sizes: self.sizes.clone(),
            plan: self.plan.clone(),
            latency_max: self.latency_max.unwrap_or(base.latency_max).max(base.latency_min),
            overrides: self.overrides.clone(),
            ..base.clone()
        }
    }
}

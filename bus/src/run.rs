//! Run: from a URL to the outcome of an application, in a runtime made for it.

use std::future::Future;
use std::time::{Duration, Instant};

use bus_core::{Bus, BusUrl, Error, ErrorKind, Operation, Result};
use bus_sim::{Sim, SimConfig};

use crate::connect::{Parsed, Scheme, parse};

/// What came of a run.
#[derive(Clone, Debug)]
pub struct Run<T> {
    /// What the application returned.
    pub output: T,
    /// How it ran.
    pub report: RunReport,
}

/// How an application ran.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunReport {
    /// The URL.
    pub bus: String,
    /// The seed of the simulation; `None` on Kafka.
    pub seed: Option<u64>,
    /// How much time passed for the application: virtual on the simulator, real on Kafka.
    pub virtual_time: Duration,
    /// How much time passed for you.
    pub wall_time: Duration,
    /// The hash of all that the simulation did, 16 hexadecimal digits; `None` on Kafka. Equal URL
    /// and equal code give an equal hash.
    pub trace_hash: Option<String>,
}

/// Runs `app` on the bus at `url` until it returns, and blocks this thread meanwhile.
///
/// The runtime is made for the backend: with a paused clock on the simulator, with several threads
/// on Kafka. See the [crate](crate) for the URLs and an example.
///
/// # Errors
/// Those of [`connect`](crate::connect) but for `sim://`; [`ErrorKind::InvalidState`] inside of a
/// tokio runtime, which must not block; [`ErrorKind::Stalled`] when a simulated application waits
/// for something that will not come, naming it.
///
/// # Panics
/// If the application panics.
pub fn run<T, F, Fut>(url: &str, app: F) -> Result<Run<T>>
where
    F: FnOnce(Bus) -> Fut,
    Fut: Future<Output = T>,
{
    let Run { output, report } = try_run(url, app)?;
    Ok(Run { output: output?, report })
}

/// Runs `app` as [`run`] does; when it stalls, that is its output, and so there is a report too.
///
/// # Errors
/// Those of [`run`] but for [`ErrorKind::Stalled`].
///
/// # Panics
/// If the application panics.
pub fn try_run<T, F, Fut>(url: &str, app: F) -> Result<Run<Result<T>>>
where
    F: FnOnce(Bus) -> Fut,
    Fut: Future<Output = T>,
{
    let place = |error: Error| error.with_operation(Operation::Run);
    let Parsed { scheme, url: parsed } = parse(url).map_err(place)?;
    if tokio::runtime::Handle::try_current().is_ok() {
        let message = "bus::run blocks its thread, which a tokio runtime does not allow; call it \
                       outside of async code, or use bus::connect with kafka://";
        return Err(place(Error::new(ErrorKind::InvalidState, message)));
    }
    match scheme {
        Scheme::Sim => simulate(url, &parsed, app).map_err(place),
        Scheme::Kafka => on_kafka(url, &parsed, app),
    }
}

fn simulate<T, F, Fut>(text: &str, url: &BusUrl, app: F) -> Result<Run<Result<T>>>
where
    F: FnOnce(Bus) -> Fut,
    Fut: Future<Output = T>,
{
    let sim = Sim::new(SimConfig::from_url(url)?)?;
    let begun = Instant::now();
    let outcome = sim.run(|sim| app(sim.bus()));
    let report = RunReport {
        bus: text.to_owned(),
        seed: Some(outcome.report.seed),
        virtual_time: outcome.report.virtual_time,
        wall_time: begun.elapsed(),
        trace_hash: Some(outcome.report.trace_hash.to_string()),
    };
    let output = outcome.result.map_err(|stalled| {
        Error::new(ErrorKind::Stalled, stalled.to_string()).with_operation(Operation::Run)
    });
    Ok(Run { output, report })
}

fn on_kafka<T, F, Fut>(text: &str, url: &BusUrl, app: F) -> Result<Run<Result<T>>>
where
    F: FnOnce(Bus) -> Fut,
    Fut: Future<Output = T>,
{
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|error| {
        Error::new(ErrorKind::Backend, "the system refused threads for a tokio runtime")
            .with_operation(Operation::Run)
            .definite()
            .with_source(error)
    })?;
    let begun = Instant::now();
    let output =
        runtime.block_on(async { Ok::<T, Error>(app(bus_kafka::connect(url).await?).await) });
    let time = begun.elapsed();
    // What the application left behind must not hold up the caller.
    runtime.shutdown_background();
    let report = RunReport {
        bus: text.to_owned(),
        seed: None,
        virtual_time: time,
        wall_time: time,
        trace_hash: None,
    };
    Ok(Run { output: Ok(output?), report })
}

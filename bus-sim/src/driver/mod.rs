//! The driver: runs an application on a world. The only async code of the simulator.
//!
//! It is the main future of a current-thread tokio runtime with a paused clock. It handles events
//! of the world until one has an outcome for the application, lets the application run, and so on;
//! when nothing is left to do at this time it sleeps until the next event, and tokio's clock jumps
//! there. Calls of the application enter the world at once, under a short lock; outcomes are handed
//! over after unlocking.
//!
//! World time is exact to the nanosecond. tokio's timers round up to 1 ms, and those of one
//! millisecond fire in the order in which they were set.

mod admin;
mod bus;
mod consumer;
mod handle;
mod process;
mod producer;
mod size;
mod transaction;

use std::fmt;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use bus_core::Result;
use futures_util::task::AtomicWaker;
use parking_lot::Mutex;
use tokio::time::{Instant, Sleep};

use crate::choice::{ChoiceReport, Choices};
use crate::config::SimConfig;
use crate::event::SimEvent;
use crate::explore::Violation;
use crate::fact::ToldFact;
use crate::fault::{Envelope, FaultReport};
use crate::time::SimTime;
use crate::world::{ProcessChange, ProcessId, ProcessState, TraceHash, World};

use bus::start_process;
pub use handle::SimHandle;
use process::Processes;
pub use size::Size;
use size::Sizes;

/// A simulation that is about to run.
///
/// ```
/// use bus_core::{NewTopic, ProducerConfig, ProducerRecord};
/// use bus_sim::{Sim, SimConfig};
///
/// let outcome = Sim::new(SimConfig { seed: 42, ..Default::default() })?.run(|sim| async move {
///     let bus = sim.bus();
///     bus.admin()?.create_topic(NewTopic::new("orders")).await?;
///     let producer = bus.producer(ProducerConfig::default())?;
///     producer.send(ProducerRecord::to("orders").value("1")).await
/// });
/// let metadata = outcome.result.expect("it does not stall")?;
/// assert_eq!(metadata.offset, Some(0));
/// # Ok::<_, bus_core::Error>(())
/// ```
#[derive(Debug)]
pub struct Sim {
    config: SimConfig,
}

/// What came of a simulation.
#[derive(Debug)]
pub struct Outcome<T> {
    /// What the application returned, or that it never would have.
    pub result: Result<T, Stalled>,
    /// What the simulation did.
    pub report: SimReport,
    /// What the judges found that [`SimHandle::judge_afterwards`] was given, in their order.
    pub violations: Vec<Violation>,
}

/// The application waits for something that will not come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stalled {
    /// Which limit was reached, and who waits for what.
    pub waiting: String,
}

impl fmt::Display for Stalled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the simulation stalled: {}", self.waiting)
    }
}

impl std::error::Error for Stalled {}

/// What a simulation did.
#[derive(Clone, Debug)]
pub struct SimReport {
    /// The seed.
    pub seed: u64,
    /// How long it took in the world.
    pub virtual_time: Duration,
    /// How many events the world handled.
    pub events: u64,
    /// What was true inside of the cluster, if the configuration asks for it.
    pub facts: Vec<ToldFact>,
    /// The hash of all events: equal seed, configuration, and code give an equal hash.
    pub trace_hash: TraceHash,
    /// The lines of the trace, if the configuration asks for them.
    pub trace: Vec<String>,
    /// The events with their causes, if the configuration asks for them.
    pub recorded: Vec<SimEvent>,
    /// What was chosen, as far as the configuration asks for it.
    pub choices: ChoiceReport,
    /// What came of each fault of the plan, in its order.
    pub faults: Vec<FaultReport>,
    /// Whether they stayed within what the configuration promises to survive.
    pub envelope: Envelope,
    /// The sizes that the application asked for, in this order.
    pub sizes: Vec<Size>,
    /// Tasks of the application that were still there at its end, but for those of the bus.
    pub tasks_left: usize,
}

impl Sim {
    /// Checks the configuration.
    ///
    /// # Errors
    /// [`InvalidConfig`](bus_core::ErrorKind::InvalidConfig).
    pub fn new(config: SimConfig) -> Result<Self> {
        config.validate()?;
        Ok(Self { config })
    }

    /// Runs `app` to its end, on this thread.
    ///
    /// # Panics
    /// If the application panics; and when it is called from inside of a tokio runtime, which must
    /// not block.
    pub fn run<F, Fut, T>(self, app: F) -> Outcome<T>
    where
        F: FnOnce(SimHandle) -> Fut,
        Fut: Future<Output = T>,
    {
        let seed = self.config.seed;
        let choices = Choices::new(seed)
            .recorded(self.config.record_choices)
            .overridden(self.config.overrides.clone());
        let runtime = build_runtime(&choices);
        let (result, shared, tasks_left) = runtime.block_on(async {
            let shared = Shared::new(self.config, choices);
            let app = app(SimHandle::new(Arc::clone(&shared)));
            let result = drive(&shared, app).await;
            // What is dropped with the runtime must not reach the world any more.
            shared.is_over.store(true, Ordering::Relaxed);
            let alive = tokio::runtime::Handle::current().metrics().num_alive_tasks();
            let tasks_left = alive.saturating_sub(shared.processes.alive_tasks());
            (result, shared, tasks_left)
        });
        let report = shared.report(seed, tasks_left);
        shared.processes.forget();
        drop(runtime);
        let judges = std::mem::take(&mut *shared.judges.lock());
        let violations = judges.into_iter().flat_map(|judge| judge(&report)).collect();
        Outcome { result, report, violations }
    }
}

fn build_runtime(choices: &Choices) -> tokio::runtime::Runtime {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_time().start_paused(true).event_interval(1024);
    #[cfg(tokio_unstable)]
    {
        let bytes = choices.id(crate::choice::Label::Scheduler, ()).to_le_bytes();
        builder.rng_seed(tokio::runtime::RngSeed::from_bytes(&bytes));
    }
    #[cfg(not(tokio_unstable))]
    {
        warn_once(choices.seed());
    }
    match builder.build() {
        Ok(runtime) => runtime,
        // A current-thread runtime without I/O takes nothing from the system that could be refused.
        Err(error) => unreachable!("tokio cannot build a runtime: {error}"),
    }
}

/// Without the flag `select!` looks at its branches in an order that no seed decides.
#[cfg(not(tokio_unstable))]
fn warn_once(seed: u64) {
    static WARNED: std::sync::Once = std::sync::Once::new();
    WARNED.call_once(|| {
        tracing::warn!(
            seed,
            "built without --cfg tokio_unstable: an unbiased select! is not deterministic; \
             see docs/determinism.md"
        );
    });
}

/// What the driver and the handles of the application share.
pub(crate) struct Shared {
    world: Mutex<World>,
    /// The time of tokio at the start of the world.
    start: Instant,
    driver: AtomicWaker,
    is_over: AtomicBool,
    processes: Processes,
    /// Properties of the bus URL, for every client.
    properties: Vec<(String, String)>,
    judges: Mutex<Vec<Judge>>,
    sizes: Sizes,
}

/// Looks at a simulation that is over.
type Judge = Box<dyn FnOnce(&SimReport) -> Vec<Violation> + Send>;

impl Shared {
    fn new(config: SimConfig, choices: Choices) -> Arc<Self> {
        Arc::new(Self {
            properties: config.client_properties.clone(),
            sizes: Sizes::new(config.sizes.clone()),
            world: Mutex::new(World::new(config, choices)),
            start: Instant::now(),
            driver: AtomicWaker::new(),
            is_over: AtomicBool::new(false),
            processes: Processes::default(),
            judges: Mutex::default(),
        })
    }

    /// Enters the world now. `None` if the simulation is over.
    fn enter<T>(self: &Arc<Self>, act: impl FnOnce(&mut World) -> T) -> Option<T> {
        if self.is_over.load(Ordering::Relaxed) {
            return None;
        }
        let now = self.tokio_now();
        let (result, changes, completions, is_earlier) = {
            let mut world = self.world.lock();
            world.advance(now);
            let before = world.next_time();
            let result = act(&mut world);
            world.strike_due();
            let after = world.next_time();
            let is_earlier = after.is_some_and(|after| before.is_none_or(|b| after < b));
            let changes = world.take_process_changes();
            (result, changes, world.take_completions(), is_earlier)
        };
        self.tell_processes(changes);
        if is_earlier {
            self.driver.wake();
        }
        for completion in completions {
            completion.hand_over();
        }
        Some(result)
    }

    /// Tells tasks what faults of the plan did to their processes.
    fn tell_processes(self: &Arc<Self>, changes: Vec<(ProcessId, ProcessChange)>) {
        for (id, change) in changes {
            let state = match change {
                ProcessChange::Crashed => ProcessState::Crashed,
                ProcessChange::Paused => ProcessState::Paused,
                ProcessChange::Stalled => ProcessState::Stalled,
                ProcessChange::Resumed => ProcessState::Running,
                ProcessChange::Restarted => {
                    if let Some(start) = self.processes.start(id) {
                        start_process(self, id, start);
                    }
                    continue;
                }
            };
            if let Some(control) = self.processes.control(id) {
                control.set(state);
            }
        }
    }

    /// The time in the world, which may be behind tokio's while events are due.
    fn now(&self) -> SimTime {
        let mut world = self.world.lock();
        if !self.is_over.load(Ordering::Relaxed) {
            world.advance(self.tokio_now());
        }
        world.now()
    }

    fn tokio_now(&self) -> SimTime {
        SimTime::ZERO + self.start.elapsed()
    }

    fn report(&self, seed: u64, tasks_left: usize) -> SimReport {
        let mut world = self.world.lock();
        SimReport {
            seed,
            virtual_time: world.now().elapsed(),
            events: world.events(),
            facts: world.take_facts(),
            trace_hash: world.trace_hash(),
            trace: world.take_trace(),
            recorded: world.take_recorded(),
            choices: world.choices.report(),
            faults: world.fault_reports(),
            envelope: world.config.plan.envelope,
            sizes: self.sizes.report(),
            tasks_left,
        }
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

/// Lets the application and the world take turns until the application ends.
async fn drive<T>(shared: &Arc<Shared>, app: impl Future<Output = T>) -> Result<T, Stalled> {
    let mut app = pin!(app);
    let mut sleep = pin!(tokio::time::sleep_until(shared.start));
    let app_waker =
        Arc::new(AppWaker { is_woken: AtomicBool::new(true), main: AtomicWaker::new() });
    let waker = Waker::from(Arc::clone(&app_waker));
    std::future::poll_fn(|cx| {
        shared.driver.register(cx.waker());
        app_waker.main.register(cx.waker());
        if app_waker.is_woken.swap(false, Ordering::Relaxed)
            && let Poll::Ready(output) = app.as_mut().poll(&mut Context::from_waker(&waker))
        {
            return Poll::Ready(Ok(output));
        }
        turn_world(shared, sleep.as_mut(), cx)
    })
    .await
}

/// Handles events until one has an outcome, or all that are due are handled.
fn turn_world<T>(
    shared: &Arc<Shared>,
    mut sleep: Pin<&mut Sleep>,
    cx: &mut Context<'_>,
) -> Poll<Result<T, Stalled>> {
    loop {
        let now = shared.tokio_now();
        let (changes, completions, next) = {
            let mut world = shared.world.lock();
            while !world.has_completions() && world.step(now) {}
            if let Some(stalled) = limit_reached(&world) {
                return Poll::Ready(Err(stalled));
            }
            let changes = world.take_process_changes();
            let completions = world.take_completions();
            if changes.is_empty() && completions.is_empty() {
                world.advance(now);
            }
            let limit = SimTime::ZERO + world.config.time_limit;
            let next = world.next_time().map_or(limit, |next| next.min(limit));
            (changes, completions, next)
        };
        if !changes.is_empty() || !completions.is_empty() {
            shared.tell_processes(changes);
            for completion in completions {
                completion.hand_over();
            }
            // The tasks that were woken run before the next event.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        sleep.as_mut().reset(shared.start + next.elapsed());
        if sleep.as_mut().poll(cx).is_pending() {
            return Poll::Pending;
        }
    }
}

fn limit_reached(world: &World) -> Option<Stalled> {
    let limit = if world.now() >= SimTime::ZERO + world.config.time_limit {
        format!("the time limit of {:?} is reached", world.config.time_limit)
    } else if world.events() >= world.config.event_limit {
        format!("the limit of {} events is reached", world.config.event_limit)
    } else {
        return None;
    };
    Some(Stalled { waiting: format!("{limit}; waiting: {}", world.waiting()) })
}

/// Tells the driver that it was the application that was woken.
#[derive(Debug)]
struct AppWaker {
    is_woken: AtomicBool,
    main: AtomicWaker,
}

impl Wake for AppWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.is_woken.store(true, Ordering::Relaxed);
        self.main.wake();
    }
}

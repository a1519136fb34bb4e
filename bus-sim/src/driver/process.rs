//! Processes and their tasks: what stops being polled when a process pauses or stalls, and is
//! dropped when it crashes.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};

use bus_core::{BoxFuture, ProcessStart};
use parking_lot::Mutex;

use crate::world::{ProcessId, ProcessState};

/// The processes of a simulation.
#[derive(Default)]
pub(super) struct Processes {
    running: Mutex<BTreeMap<ProcessId, Running>>,
    alive_tasks: Arc<AtomicUsize>,
}

struct Running {
    start: Arc<ProcessStart>,
    control: Arc<Control>,
}

impl Processes {
    /// Adds a process, or the next incarnation of one.
    pub(super) fn add(&self, id: ProcessId, start: Arc<ProcessStart>, control: Arc<Control>) {
        self.running.lock().insert(id, Running { start, control });
    }

    /// How the tasks of a process are told, if it is a named one.
    pub(super) fn control(&self, id: ProcessId) -> Option<Arc<Control>> {
        Some(Arc::clone(&self.running.lock().get(&id)?.control))
    }

    /// What starts a process.
    pub(super) fn start(&self, id: ProcessId) -> Option<Arc<ProcessStart>> {
        Some(Arc::clone(&self.running.lock().get(&id)?.start))
    }

    /// How many tasks of the bus are not over.
    pub(super) fn alive_tasks(&self) -> usize {
        self.alive_tasks.load(Ordering::Relaxed)
    }

    /// Drops what starts processes: it may hold handles of the simulation.
    pub(super) fn forget(&self) {
        std::mem::take(&mut *self.running.lock());
    }

    /// Spawns a task that obeys `control`.
    pub(super) fn spawn(&self, control: Arc<Control>, future: BoxFuture<'static, ()>) {
        self.alive_tasks.fetch_add(1, Ordering::Relaxed);
        let alive = Alive(Arc::clone(&self.alive_tasks));
        let task = ProcessTask { future: Some(future), control, _alive: alive };
        drop(tokio::spawn(task));
    }
}

impl fmt::Debug for Processes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Processes").finish_non_exhaustive()
    }
}

/// How the tasks of an incarnation are told what to do.
#[derive(Debug)]
pub(super) struct Control {
    state: Mutex<(ProcessState, Vec<Waker>)>,
}

impl Control {
    /// Of an incarnation that runs.
    pub(super) fn running() -> Arc<Self> {
        Arc::new(Self { state: Mutex::new((ProcessState::Running, Vec::new())) })
    }

    /// Tells all tasks.
    pub(super) fn set(&self, state: ProcessState) {
        let wakers = {
            let mut guard = self.state.lock();
            guard.0 = state;
            std::mem::take(&mut guard.1)
        };
        wakers.into_iter().for_each(Waker::wake);
    }

    /// What to do now; the task is woken when that changes.
    fn get(&self, waker: &Waker) -> ProcessState {
        let mut guard = self.state.lock();
        if !guard.1.iter().any(|other| other.will_wake(waker)) {
            guard.1.push(waker.clone());
        }
        guard.0
    }
}

struct ProcessTask {
    future: Option<BoxFuture<'static, ()>>,
    control: Arc<Control>,
    _alive: Alive,
}

impl Future for ProcessTask {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        match self.control.get(cx.waker()) {
            ProcessState::Running => match &mut self.future {
                Some(future) => future.as_mut().poll(cx),
                None => Poll::Ready(()),
            },
            ProcessState::Paused | ProcessState::Stalled => Poll::Pending,
            ProcessState::Crashed => {
                self.future = None;
                Poll::Ready(())
            }
        }
    }
}

/// Counts a task as alive until it is dropped.
struct Alive(Arc<AtomicUsize>);

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

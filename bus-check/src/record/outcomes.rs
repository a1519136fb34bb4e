//! What a client waits for in the background: deliveries and commits, whose outcome is recorded
//! even if the application drops them.
//!
//! One task per client waits for all of them: a task for each would cost more than the record.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bus_core::{BoxFuture, Bus};
use futures_util::Stream as _;
use futures_util::stream::FuturesUnordered;
use parking_lot::Mutex;
use tokio::task::coop::unconstrained;

/// The outcomes that a client waits for.
#[derive(Default)]
pub(super) struct Outcomes {
    shared: Arc<Mutex<Waiting>>,
}

#[derive(Default)]
struct Waiting {
    /// Not taken over by the task yet.
    new: Vec<BoxFuture<'static, ()>>,
    /// The task, once there is one.
    task: Option<Waker>,
    is_started: bool,
}

impl std::fmt::Debug for Outcomes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outcomes").finish_non_exhaustive()
    }
}

impl Outcomes {
    /// Waits for one more.
    pub(super) fn add(&self, bus: &Bus, outcome: BoxFuture<'static, ()>) {
        let (waker, is_first) = {
            let mut waiting = self.shared.lock();
            waiting.new.push(outcome);
            (waiting.task.take(), !std::mem::replace(&mut waiting.is_started, true))
        };
        if let Some(waker) = waker {
            waker.wake();
        }
        if is_first {
            let all = FuturesUnordered::new();
            let task = Task { shared: Arc::clone(&self.shared), all };
            // An outcome that finds the budget of a task used up goes behind those that come after
            // it, and would be recorded late: a batch may well have more than tokio's 128.
            drop(bus.spawn("recorded outcomes", unconstrained(task)));
        }
    }
}

/// Ends when nothing is left to wait for; the next outcome starts another one.
struct Task {
    shared: Arc<Mutex<Waiting>>,
    all: FuturesUnordered<BoxFuture<'static, ()>>,
}

impl Future for Task {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let shared = Arc::clone(&self.shared);
            let mut waiting = shared.lock();
            let new = std::mem::take(&mut waiting.new);
            if new.is_empty() && self.all.is_empty() {
                waiting.is_started = false;
                return Poll::Ready(());
            }
            waiting.task = Some(cx.waker().clone());
            drop(waiting);
            self.all.extend(new);
            match Pin::new(&mut self.all).poll_next(cx) {
                Poll::Ready(_) => {}
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

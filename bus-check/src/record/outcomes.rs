//! What a client waits for in the background: deliveries and commits, whose outcome is recorded
//! even if the application drops them.
//!
//! It is recorded where the backend completes them. A task of the process has the operations that
//! are open: when the process crashes, or the run is over, nobody knows what becomes of them.

use std::collections::BTreeSet;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Waker};

use bus_core::Result;
use parking_lot::Mutex;

use super::pen::Pen;
use crate::history::{Answer, OperationId, Writer};

/// The outcomes that a client waits for.
#[derive(Debug)]
pub(super) struct Outcomes {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    pen: Pen,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    operations: BTreeSet<OperationId>,
    /// The task, once there is one.
    task: Option<Waker>,
    is_started: bool,
}

impl Outcomes {
    /// None yet, of the client of a pen.
    pub(super) fn new(pen: Pen) -> Self {
        Self { shared: Arc::new(Shared { pen, open: Mutex::default() }) }
    }

    /// Waits for the outcome of one more operation.
    pub(super) fn wait_for(&self, operation: OperationId) -> Awaited {
        let is_first = {
            let mut open = self.shared.open.lock();
            open.operations.insert(operation);
            !std::mem::replace(&mut open.is_started, true)
        };
        if is_first {
            let task = Task { shared: Some(Arc::clone(&self.shared)) };
            drop(self.shared.pen.bus.spawn("recorded outcomes", task));
        }
        Awaited { shared: Arc::downgrade(&self.shared), operation }
    }
}

/// An operation whose outcome is awaited.
#[derive(Debug)]
pub(super) struct Awaited {
    /// Weak, because the backend may keep what it will never complete.
    shared: Weak<Shared>,
    operation: OperationId,
}

impl Awaited {
    /// The operation ends.
    pub(super) fn end<T>(
        self,
        outcome: &Result<T>,
        answer: impl FnOnce(&mut Writer, &T) -> Answer,
    ) {
        let Some(shared) = self.shared.upgrade() else { return };
        let waker = {
            let mut open = shared.open.lock();
            if !open.operations.remove(&self.operation) {
                return;
            }
            if open.operations.is_empty() { open.task.take() } else { None }
        };
        shared.pen.end(self.operation, outcome, answer);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// Has what is open. It ends when nothing is; the next operation starts another one.
struct Task {
    /// None once it has ended: what is open since then belongs to the next one.
    shared: Option<Arc<Shared>>,
}

impl Future for Task {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Some(shared) = self.shared.take() else { return Poll::Ready(()) };
        let mut open = shared.open.lock();
        if open.operations.is_empty() {
            open.is_started = false;
            return Poll::Ready(());
        }
        open.task = Some(cx.waker().clone());
        drop(open);
        self.shared = Some(shared);
        Poll::Pending
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        let Some(shared) = &self.shared else { return };
        let Open { operations, .. } = std::mem::take(&mut *shared.open.lock());
        for operation in operations {
            shared.pen.give_up(operation);
        }
    }
}

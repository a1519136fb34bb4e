//! The outcome of a call that goes on in the background: what [`Delivery`](crate::Delivery) and
//! [`Commit`](crate::Commit) are made of.
//!
//! Whoever observes it sees it the moment that it is there, where the backend completes it: before
//! whoever awaits it, and also if nobody does any more.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use crate::error::{Error, Result};

type Shared<T> = Arc<Mutex<Slot<T>>>;

/// An outcome to come; `None` if it was awaited before.
pub(crate) struct Outcome<T>(Shared<T>);

/// What completes an [`Outcome`]; if it is dropped, with the error of that.
pub(crate) struct Completer<T> {
    slot: Option<Shared<T>>,
    dropped: fn() -> Error,
}

/// Sees an outcome.
type Observer<T> = Box<dyn FnOnce(&Result<T>) + Send>;

struct Slot<T> {
    outcome: Option<Result<T>>,
    is_over: bool,
    waker: Option<Waker>,
    observer: Option<Observer<T>>,
}

impl<T> Outcome<T> {
    /// An outcome and what completes it.
    pub(crate) fn channel(dropped: fn() -> Error) -> (Completer<T>, Self) {
        let outcome = Self::of(None);
        (Completer { slot: Some(Arc::clone(&outcome.0)), dropped }, outcome)
    }

    /// One that is there.
    pub(crate) fn known(outcome: Result<T>) -> Self {
        Self::of(Some(outcome))
    }

    fn of(outcome: Option<Result<T>>) -> Self {
        let is_over = outcome.is_some();
        Self(Arc::new(Mutex::new(Slot { outcome, is_over, waker: None, observer: None })))
    }

    /// Has `observe` see the outcome, after those that were given before it; at once if it is
    /// there.
    pub(crate) fn observe(&self, observe: impl FnOnce(&Result<T>) + Send + 'static)
    where
        T: 'static,
    {
        let mut slot = lock(&self.0);
        if slot.is_over {
            let outcome = slot.outcome.take();
            drop(slot);
            if let Some(outcome) = &outcome {
                observe(outcome);
            }
            lock(&self.0).outcome = outcome;
            return;
        }
        slot.observer = Some(match slot.observer.take() {
            None => Box::new(observe),
            Some(first) => Box::new(move |outcome| {
                first(outcome);
                observe(outcome);
            }),
        });
    }
}

impl<T> Future for Outcome<T> {
    type Output = Option<Result<T>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut slot = lock(&self.0);
        if slot.is_over {
            return Poll::Ready(slot.outcome.take());
        }
        slot.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl<T> Completer<T> {
    pub(crate) fn complete(mut self, outcome: Result<T>) {
        self.end(|_| outcome);
    }

    fn end(&mut self, outcome: impl FnOnce(&Self) -> Result<T>) {
        let Some(shared) = self.slot.take() else { return };
        let outcome = outcome(self);
        let mut slot = lock(&shared);
        while let Some(observe) = slot.observer.take() {
            drop(slot);
            observe(&outcome);
            slot = lock(&shared);
        }
        slot.outcome = Some(outcome);
        slot.is_over = true;
        let waker = slot.waker.take();
        drop(slot);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl<T> Drop for Completer<T> {
    fn drop(&mut self) {
        self.end(|completer| Err((completer.dropped)()));
    }
}

/// No code but that of this file runs under the lock, and none of it panics.
fn lock<T>(slot: &Mutex<Slot<T>>) -> MutexGuard<'_, Slot<T>> {
    slot.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<T> fmt::Debug for Outcome<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outcome").field("is_over", &lock(&self.0).is_over).finish_non_exhaustive()
    }
}

impl<T> fmt::Debug for Completer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Completer")
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use futures_util::FutureExt as _;

    use super::*;
    use crate::error::ErrorKind;

    fn channel() -> (Completer<u32>, Outcome<u32>) {
        Outcome::channel(|| ErrorKind::Closed.into())
    }

    #[test]
    fn whoever_observes_sees_it_first_and_in_order() {
        let (completer, mut outcome) = channel();
        let (sender, seen) = mpsc::channel();
        for observer in 0..2 {
            let sender = sender.clone();
            outcome.observe(move |outcome| {
                sender.send((observer, outcome.as_ref().ok().copied())).expect("it is there");
            });
        }
        assert!((&mut outcome).now_or_never().is_none());
        completer.complete(Ok(7));
        assert_eq!(seen.try_iter().collect::<Vec<_>>(), [(0, Some(7)), (1, Some(7))]);
        // It is there for those who come late, too.
        outcome.observe(move |outcome| {
            sender.send((2, outcome.as_ref().ok().copied())).expect("it is there");
        });
        assert_eq!(seen.try_iter().collect::<Vec<_>>(), [(2, Some(7))]);
        assert!(matches!((&mut outcome).now_or_never(), Some(Some(Ok(7)))));
        assert!(matches!(outcome.now_or_never(), Some(None)));
    }

    #[test]
    fn it_is_observed_though_nobody_awaits_it() {
        let (completer, outcome) = channel();
        let (sender, seen) = mpsc::channel();
        outcome.observe(move |outcome| {
            sender.send(outcome.as_ref().err().map(Error::kind)).expect("it is there");
        });
        drop(outcome);
        drop(completer);
        assert_eq!(seen.try_iter().collect::<Vec<_>>(), [Some(ErrorKind::Closed)]);
    }
}

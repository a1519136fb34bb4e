//! The life of an application's processes: starts them, starts over what failed and may be tried
//! again, and ends them.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bus_core::{Bus, Error, ErrorKind, Recovery, Result};
use parking_lot::Mutex;
use tokio::sync::watch;

/// The life of an application. Cheap to clone; its clones are one.
#[derive(Clone, Debug)]
pub struct Lifecycle {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    is_stopping: watch::Sender<bool>,
    running: watch::Sender<usize>,
    failure: Mutex<Option<Error>>,
}

impl Default for Lifecycle {
    fn default() -> Self {
        let is_stopping = watch::Sender::new(false);
        let running = watch::Sender::new(0);
        Self { shared: Arc::new(Shared { is_stopping, running, failure: Mutex::new(None) }) }
    }
}

impl Lifecycle {
    /// Starts `body` as a process.
    ///
    /// When it fails in a way that may pass, it starts over after a pause, with new clients. When
    /// its error must be fixed by a person, the application has failed.
    pub fn process<S, F>(&self, bus: &Bus, name: &str, body: S)
    where
        S: Fn(Bus) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Result<()>> + Send + 'static,
    {
        let life = self.clone();
        let process = name.to_owned();
        bus.process(name, move |bus| {
            let (life, process, body) = (life.clone(), process.clone(), body.clone());
            async move {
                let _running = Running::new(&life.shared);
                while let Err(error) = body(bus.clone()).await {
                    if error.kind() == ErrorKind::Crashed || life.is_stopping() {
                        return;
                    }
                    if error.recovery() == Recovery::Fix {
                        life.shared.failure.lock().get_or_insert(error);
                        return;
                    }
                    tracing::warn!(%process, %error, "starts over");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        });
    }

    /// Whether the processes are to end.
    pub fn is_stopping(&self) -> bool {
        *self.shared.is_stopping.borrow()
    }

    /// Waits until the processes are to end.
    pub async fn stopping(&self) {
        let mut is_stopping = self.shared.is_stopping.subscribe();
        // The sender lives in `self`, so there is nothing to fail.
        drop(is_stopping.wait_for(|is_stopping| *is_stopping).await);
    }

    /// Waits for `future`, or `None` once the processes are to end.
    pub async fn unless_stopping<T>(&self, future: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            () = self.stopping() => None,
            output = future => Some(output),
        }
    }

    /// The error that ended a process for good, if one did.
    ///
    /// # Errors
    /// That error.
    pub fn check(&self) -> Result<()> {
        self.shared.failure.lock().clone().map_or(Ok(()), Err)
    }

    /// Asks the processes to end, and waits up to `timeout` until they have. Those that crashed or
    /// stand still cannot.
    pub async fn stop(&self, timeout: Duration) {
        self.shared.is_stopping.send_replace(true);
        let mut running = self.shared.running.subscribe();
        let ended = running.wait_for(|running| *running == 0);
        if tokio::time::timeout(timeout, ended).await.is_err() {
            tracing::warn!("processes are left that did not end");
        }
    }
}

/// Counts an incarnation of a process from its start until it ends or crashes.
struct Running(Arc<Shared>);

impl Running {
    fn new(shared: &Arc<Shared>) -> Self {
        shared.running.send_modify(|running| *running += 1);
        Self(Arc::clone(shared))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.running.send_modify(|running| *running -= 1);
    }
}

/// Long enough for a broker to come back to its senses, and short for a person.
const PAUSE: Duration = Duration::from_millis(200);

//! A spinner on the terminal, for work that takes longer than a second.

use std::io::{self, IsTerminal as _};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// Spins until it is dropped. Nothing is drawn if stderr is no terminal.
#[derive(Debug)]
pub(crate) struct Spinner {
    drawing: Option<(Sender<()>, JoinHandle<()>)>,
}

impl Spinner {
    /// Starts the second after which it is drawn.
    pub(crate) fn start(what: &str) -> Self {
        if !io::stderr().is_terminal() {
            return Self { drawing: None };
        }
        let what = what.to_owned();
        let (stop, stopped) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            if stopped.recv_timeout(Duration::from_secs(1)) != Err(RecvTimeoutError::Timeout) {
                return;
            }
            let spinner = ProgressBar::new_spinner().with_message(what);
            let style = ProgressStyle::with_template("{spinner} {msg} ({elapsed})");
            spinner.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
            spinner.enable_steady_tick(Duration::from_millis(100));
            // Nobody sends: this returns when the spinner is dropped.
            let _ = stopped.recv();
            spinner.finish_and_clear();
        });
        Self { drawing: Some((stop, thread)) }
    }
}

impl Drop for Spinner {
    fn drop(&mut self) {
        if let Some((stop, thread)) = self.drawing.take() {
            drop(stop);
            // A panic of the thread has been printed, and takes nothing else with it.
            let _ = thread.join();
        }
    }
}

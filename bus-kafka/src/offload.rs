//! Drops what takes time to drop on a thread of its own, so that no runtime thread blocks.

use std::fmt;
use std::ops::Deref;
use std::thread;

/// A value whose drop may block, such as a client that joins its threads.
pub(crate) struct Offloaded<T: Send + 'static>(Option<T>);

impl<T: Send + 'static> Offloaded<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self(Some(value))
    }

    /// The value, to be dropped here.
    pub(crate) fn into_inner(mut self) -> Option<T> {
        self.0.take()
    }
}

impl<T: Send + 'static> Deref for Offloaded<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.0.as_ref().expect("the value is there until the drop")
    }
}

impl<T: Send + 'static> Drop for Offloaded<T> {
    fn drop(&mut self) {
        let Some(value) = self.0.take() else { return };
        // Without a thread the closure is dropped here and now, which blocks but loses nothing.
        drop(spawn("bus-kafka-drop", move || drop(value)));
    }
}

impl<T: Send + 'static> fmt::Debug for Offloaded<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Offloaded")
    }
}

/// Runs `work` on a thread of its own.
pub(crate) fn spawn(
    name: &str,
    work: impl FnOnce() + Send + 'static,
) -> std::io::Result<thread::JoinHandle<()>> {
    thread::Builder::new().name(name.to_owned()).spawn(work)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    struct Reports(mpsc::Sender<thread::ThreadId>);

    impl Drop for Reports {
        fn drop(&mut self) {
            let _ = self.0.send(thread::current().id());
        }
    }

    #[test]
    fn the_value_is_dropped_on_another_thread() {
        let (sender, receiver) = mpsc::channel();
        drop(Offloaded::new(Reports(sender)));
        assert_ne!(receiver.recv().unwrap(), thread::current().id());
    }
}

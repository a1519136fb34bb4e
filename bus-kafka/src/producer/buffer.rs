//! What is in the producer's buffer: room for `ready`, and generations for `flush`.
//!
//! The bus counts this itself, and librdkafka's own limits are off: librdkafka gives room back a
//! whole batch of outcomes later than it reports them, so a `ready` on top of its count would say
//! yes where `send` then says no.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bus_core::{Delivery, DeliverySender, Error, ErrorKind, RecordMetadata, Result, Topic};
use futures_util::FutureExt as _;
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

/// Counts the records between `send` and their outcome.
#[derive(Debug)]
pub(crate) struct Buffer {
    records_max: usize,
    bytes_max: usize,
    records: AtomicUsize,
    bytes: AtomicUsize,
    /// The size of the newest record that found no room, so that `ready` waits for enough of it.
    wanted: AtomicUsize,
    /// How many wait in `ready`; without any, an outcome wakes nobody.
    waiting: AtomicUsize,
    room: Notify,
    /// `None` once closed.
    current: Mutex<Option<Current>>,
}

impl Buffer {
    pub(crate) fn new(records_max: usize, bytes_max: usize) -> Self {
        Self {
            records_max,
            bytes_max,
            records: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            wanted: AtomicUsize::new(0),
            waiting: AtomicUsize::new(0),
            room: Notify::new(),
            current: Mutex::new(Some(Current::new())),
        }
    }

    /// The most bytes that the buffer holds, and so the largest record.
    pub(crate) const fn bytes_max(&self) -> usize {
        self.bytes_max
    }

    /// Takes room for a record of `size` bytes.
    pub(crate) fn admit(
        self: &Arc<Self>,
        topic: Topic,
        size: usize,
    ) -> Result<(Box<Ticket>, Delivery)> {
        let generation = match &*self.current.lock() {
            Some(current) => Arc::clone(&current.generation),
            None => return Err(closed()),
        };
        let records = self.records.fetch_add(1, Ordering::SeqCst);
        let bytes = self.bytes.fetch_add(size, Ordering::SeqCst);
        let (delivery, future) = Delivery::channel();
        let ticket =
            Ticket { delivery: Some(delivery), topic, size, buffer: Arc::clone(self), generation };
        if records >= self.records_max || bytes + size > self.bytes_max {
            // Dropping the ticket gives the room back.
            self.wanted.store(size, Ordering::SeqCst);
            return Err(Error::new(
                ErrorKind::QueueFull,
                format!("{records} records with {bytes} bytes are in the buffer; await `ready`"),
            ));
        }
        self.wanted.store(0, Ordering::SeqCst);
        Ok((Box::new(ticket), future))
    }

    /// Waits until there is room for the newest record that found none.
    pub(crate) async fn ready(&self) -> Result<()> {
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let _waiting = Waiting(&self.waiting);
        loop {
            let room = self.room.notified();
            tokio::pin!(room);
            room.as_mut().enable();
            if self.current.lock().is_none() {
                return Err(closed());
            }
            if self.has_room() {
                return Ok(());
            }
            room.await;
        }
    }

    /// Ends the current generation and returns a future that is done when all records that were
    /// admitted until now have their outcome.
    pub(crate) fn end_of_generation(&self) -> Result<impl Future<Output = ()> + use<>> {
        let next = Current::new();
        let mut current = self.current.lock();
        let Some(current) = current.as_mut() else { return Err(closed()) };
        // The older generation keeps the newer one alive: a flush also waits for what is older.
        *current.generation.next.lock() = Some(Arc::clone(&next.generation));
        let ended = std::mem::replace(current, next);
        Ok(ended.end.map(drop))
    }

    /// Closes the buffer, and returns the end of the last generation; `None` if it was closed.
    pub(crate) fn close(&self) -> Option<impl Future<Output = ()> + use<>> {
        let ended = self.current.lock().take()?;
        self.room.notify_waiters();
        Some(ended.end.map(drop))
    }

    /// Refuses a call after `close`.
    pub(crate) fn check_open(&self) -> Result<()> {
        if self.current.lock().is_some() { Ok(()) } else { Err(closed()) }
    }

    /// Whether it was closed.
    pub(crate) fn is_closed(&self) -> bool {
        self.current.lock().is_none()
    }

    fn has_room(&self) -> bool {
        let records = self.records.load(Ordering::SeqCst);
        let bytes = self.bytes.load(Ordering::SeqCst);
        let wanted = self.wanted.load(Ordering::SeqCst).max(1);
        records < self.records_max && bytes + wanted <= self.bytes_max
    }

    /// Wakes those who wait for room. Called once per batch of outcomes, not per record.
    pub(crate) fn wake(&self) {
        if self.waiting.load(Ordering::SeqCst) > 0 {
            self.room.notify_waiters();
        }
    }
}

/// A record's place in the buffer, and its delivery. librdkafka keeps it with the record.
#[derive(Debug)]
pub struct Ticket {
    delivery: Option<DeliverySender>,
    topic: Topic,
    size: usize,
    buffer: Arc<Buffer>,
    #[expect(dead_code, reason = "its drop ends the generation")]
    generation: Arc<Generation>,
}

impl Ticket {
    /// The topic of the record.
    pub(crate) const fn topic(&self) -> &Topic {
        &self.topic
    }

    /// Resolves the delivery, and then gives the room back; [`Buffer::wake`] tells of it.
    pub(crate) fn complete(mut self, outcome: Result<RecordMetadata>) {
        if let Some(delivery) = self.delivery.take() {
            delivery.complete(outcome);
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.buffer.records.fetch_sub(1, Ordering::SeqCst);
        self.buffer.bytes.fetch_sub(self.size, Ordering::SeqCst);
        if self.delivery.is_some() {
            // It never got to librdkafka, so no batch of outcomes wakes anyone.
            self.buffer.wake();
        }
    }
}

/// The error of every call after `close`.
pub(crate) fn closed() -> Error {
    Error::new(ErrorKind::Closed, "the producer is closed")
}

/// The generation that new records join, and its end.
#[derive(Debug)]
struct Current {
    generation: Arc<Generation>,
    end: oneshot::Receiver<()>,
}

impl Current {
    fn new() -> Self {
        let (alive, end) = oneshot::channel();
        Self { generation: Arc::new(Generation { next: Mutex::new(None), _alive: alive }), end }
    }
}

/// The records between two flushes; it ends when the last holder drops it.
#[derive(Debug)]
struct Generation {
    next: Mutex<Option<Arc<Self>>>,
    /// Dropped with the generation, which resolves [`Current::end`].
    _alive: oneshot::Sender<()>,
}

impl Drop for Generation {
    /// Drops a chain of generations one by one: recursion would use stack for each.
    fn drop(&mut self) {
        let mut next = self.next.get_mut().take();
        while let Some(generation) = next {
            next = Arc::into_inner(generation).and_then(|mut ended| ended.next.get_mut().take());
        }
    }
}

/// Counts one who waits, as long as it lives.
struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn buffer(records: usize, bytes: usize) -> Arc<Buffer> {
        Arc::new(Buffer::new(records, bytes))
    }

    fn admit(buffer: &Arc<Buffer>, size: usize) -> Result<Box<Ticket>> {
        buffer.admit(Topic::from("t"), size).map(|(ticket, _)| ticket)
    }

    #[tokio::test]
    async fn ready_waits_for_the_room_that_the_refused_record_wanted() {
        let buffer = buffer(10, 100);
        let first = admit(&buffer, 30).unwrap();
        let second = admit(&buffer, 60).unwrap();
        assert_eq!(admit(&buffer, 50).unwrap_err().kind(), ErrorKind::QueueFull);
        let mut ready = std::pin::pin!(buffer.ready());
        assert!(ready.as_mut().now_or_never().is_none());
        drop(first);
        assert!(ready.as_mut().now_or_never().is_none(), "40 bytes are free, 50 are wanted");
        drop(second);
        ready.await.unwrap();
        drop(admit(&buffer, 50).unwrap());
    }

    #[tokio::test]
    async fn a_full_buffer_refuses_by_count() {
        let buffer = buffer(2, 100);
        let tickets = [admit(&buffer, 1).unwrap(), admit(&buffer, 1).unwrap()];
        assert_eq!(admit(&buffer, 1).unwrap_err().kind(), ErrorKind::QueueFull);
        assert!(buffer.ready().now_or_never().is_none());
        drop(tickets);
        buffer.ready().now_or_never().unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_flush_waits_for_older_records_and_not_for_newer_ones() {
        let buffer = buffer(10, 100);
        let oldest = admit(&buffer, 1).unwrap();
        let mut first = std::pin::pin!(buffer.end_of_generation().unwrap());
        let middle = admit(&buffer, 1).unwrap();
        let mut second = std::pin::pin!(buffer.end_of_generation().unwrap());
        let newest = admit(&buffer, 1).unwrap();
        drop(middle);
        assert!(second.as_mut().now_or_never().is_none(), "the oldest is still there");
        assert!(first.as_mut().now_or_never().is_none());
        drop(oldest);
        first.await;
        second.await;
        drop(newest);
    }

    #[tokio::test]
    async fn a_long_chain_of_flushes_ends_without_recursion() {
        let buffer = buffer(10, 100);
        let oldest = admit(&buffer, 1).unwrap();
        let mut last = None;
        for _ in 0..200_000 {
            last = Some(buffer.end_of_generation().unwrap());
        }
        drop(oldest);
        last.unwrap().await;
    }

    #[tokio::test]
    async fn a_closed_buffer_takes_nothing_and_wakes_those_who_wait() {
        let buffer = buffer(1, 100);
        let ticket = admit(&buffer, 1).unwrap();
        let mut ready = std::pin::pin!(buffer.ready());
        assert!(ready.as_mut().now_or_never().is_none());
        let end = buffer.close().unwrap();
        assert_eq!(ready.await.unwrap_err().kind(), ErrorKind::Closed);
        assert_eq!(admit(&buffer, 1).unwrap_err().kind(), ErrorKind::Closed);
        assert!(buffer.close().is_none());
        drop(ticket);
        end.await;
    }
}

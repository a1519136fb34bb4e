//! The producer: librdkafka's buffer and retries under the contract's `send`.
//!
//! A record goes to librdkafka with a [`Ticket`], which librdkafka hands back with the outcome, on
//! the one thread that serves the producer. There is no channel and no task per record.

mod begun;
mod buffer;
mod thread;
mod transaction;

use std::any::Any;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use bus_core::{
    Acks, BoxFuture, Delivery, Error, ErrorKind, Headers, Operation, Partition, Producer,
    ProducerRecord, RecordMetadata, Result, Topic, TopicPartition,
};
use futures_util::FutureExt as _;
use parking_lot::RwLock;
use rdkafka::ClientContext;
use rdkafka::config::{FromClientConfigAndContext as _, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Header, Message as _, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use tokio::runtime::Handle;
use tokio::time::timeout;

use self::begun::Begun;
use self::buffer::Buffer;
pub use self::buffer::Ticket;
use self::thread::ServingThread;
pub(crate) use self::transaction::KafkaTransactionalProducer;
use crate::config::Producer as Config;
use crate::context::Context;
use crate::error::{Code, from_rdkafka};
use crate::{OPERATION_TIMEOUT, ffi, metadata};

/// A producer on Kafka.
pub(crate) struct KafkaProducer {
    native: Arc<NativeProducer>,
    buffer: Arc<Buffer>,
    thread: Arc<ServingThread>,
    runtime: Handle,
    max_request_size: usize,
    delivery_timeout: Duration,
    is_transactional: bool,
}

impl KafkaProducer {
    /// Makes a producer and the thread that serves it.
    pub(crate) fn new(config: &Config, runtime: Handle) -> Result<Self> {
        let Config { config, native, is_transactional } = config;
        let context = ProducerContext {
            context: Context::default(),
            has_offsets: config.acks != Acks::None,
            begun: config.enable_idempotence.then(Begun::default),
            transactional: is_transactional.then(OnceLock::new),
        };
        let producer = BaseProducer::from_config_and_context(native, context)
            .map_err(|error| from_rdkafka(&error, Operation::Send))?;
        let producer = Arc::new(producer);
        if let Some(own) = &producer.context().transactional {
            // The context is new, so this is the first and only time.
            drop(own.set(Arc::downgrade(&producer)));
        }
        let native = Arc::new(NativeProducer { slot: RwLock::new(Some(Arc::clone(&producer))) });
        let buffer =
            Buffer::new(to_usize(config.buffer_records), to_usize(config.buffer_kbytes) << 10);
        let buffer = Arc::new(buffer);
        let warm = Arc::clone(&producer);
        let thread = ServingThread::start(producer, Arc::clone(&native), Arc::clone(&buffer))?;
        if config.enable_idempotence {
            drop(runtime.spawn_blocking(move || warm_up(&warm)));
        }
        Ok(Self {
            native,
            buffer,
            thread: Arc::new(thread),
            runtime,
            max_request_size: to_usize(config.max_request_size),
            delivery_timeout: config.delivery_timeout,
            is_transactional: *is_transactional,
        })
    }

    /// What can be said of a record without asking librdkafka.
    fn check(&self, record: &ProducerRecord) -> Result<usize> {
        record.topic.validate()?;
        if let Some(partition) = record.partition.filter(|partition| *partition < 0) {
            let message = format!("partition {partition} is negative; partitions start at 0");
            return Err(Error::new(ErrorKind::UnknownTopicOrPartition, message)
                .with_topic_partition(TopicPartition::new(&record.topic, partition)));
        }
        if record.timestamp == Some(bus_core::Timestamp::EPOCH) {
            let message = "librdkafka takes the timestamp 0 for no timestamp and would send the \
                           time of the call; see docs/fidelity.md";
            return Err(Error::new(ErrorKind::Unsupported, message));
        }
        let size = size_of(record);
        let max = self.max_request_size.min(self.buffer.bytes_max());
        if size > max {
            let message = format!(
                "the record has {size} bytes with its key and headers, and {max} are allowed \
                 (message.max.bytes, queue.buffering.max.kbytes)"
            );
            return Err(Error::new(ErrorKind::MessageTooLarge, message));
        }
        Ok(size)
    }

    fn enqueue(&self, record: &ProducerRecord) -> Result<Delivery> {
        // Whatever is wrong with the record: that the producer is closed comes first.
        let size = self
            .check(record)
            .map_err(|error| if self.buffer.is_closed() { buffer::closed() } else { error })?;
        let (ticket, delivery) = self.buffer.admit(record.topic.clone(), size)?;
        let mut message = BaseRecord::with_opaque_to(record.topic.as_str(), ticket);
        message.partition = record.partition;
        message.key = record.key.as_deref();
        message.payload = record.value.as_deref();
        message.timestamp = record.timestamp.map(bus_core::Timestamp::as_millis);
        message.headers = to_headers(&record.headers);
        self.native.with(|producer| match producer.send(message) {
            Ok(()) => Ok(delivery),
            Err((error, message)) => {
                // The ticket gives the room back; the error goes out through a new delivery.
                drop(message);
                Err(self.refused(producer, &error, record))
            }
        })?
    }
}

impl KafkaProducer {
    /// The error of a record that librdkafka did not take.
    fn refused(
        &self,
        producer: &BaseProducer<ProducerContext>,
        error: &KafkaError,
        record: &ProducerRecord,
    ) -> Error {
        let error = match (error.rdkafka_error_code(), producer.client().fatal_error()) {
            (Some(RDKafkaErrorCode::Fatal), Some((code, reason))) if self.is_transactional => {
                transaction::fatal(code, reason)
            }
            (Some(RDKafkaErrorCode::Fatal), Some((code, reason))) => {
                let message = format!("{reason} ({code})");
                Error::new(ErrorKind::Fatal, message)
            }
            (Some(RDKafkaErrorCode::State), _) if self.is_transactional => {
                let message = "records can be sent only in a transaction that is open and sound";
                Error::new(ErrorKind::InvalidState, message)
            }
            (Some(code), _) => {
                let code = Code::from(code);
                code.error(format!("{} (topic {})", code.description(), record.topic))
            }
            (None, _) => from_rdkafka(error, Operation::Send),
        };
        // It never got into the buffer.
        let error = error.definite();
        match record.partition {
            Some(partition) => {
                error.with_topic_partition(TopicPartition::new(&record.topic, partition))
            }
            None => error,
        }
    }
}

impl Producer for KafkaProducer {
    fn send(&self, record: ProducerRecord) -> Delivery {
        self.enqueue(&record)
            .unwrap_or_else(|error| Delivery::failed(error.with_operation(Operation::Send)))
    }

    fn ready(&self) -> BoxFuture<'_, Result<()>> {
        self.buffer
            .ready()
            .map(|ready| ready.map_err(|e| e.with_operation(Operation::Ready)))
            .boxed()
    }

    fn flush(&self) -> BoxFuture<'_, Result<()>> {
        async {
            let end = self.buffer.end_of_generation()?;
            let _flushing = Flushing::start(&self.native, &self.runtime);
            // librdkafka looks for records that are overdue once a second.
            let limit = self.delivery_timeout.saturating_add(Duration::from_secs(1));
            timeout(limit, end).await.map_err(|_| {
                Error::new(ErrorKind::TimedOut, "records were left when the time was up")
            })
        }
        .map(|flushed| flushed.map_err(|error| error.with_operation(Operation::Flush)))
        .boxed()
    }

    fn partitions_for(&self, topic: Topic) -> BoxFuture<'_, Result<Partition>> {
        async move {
            let producer = self.native.producer()?;
            topic.validate()?;
            let lookup = move || metadata::of_topic(producer.client(), &topic, OPERATION_TIMEOUT);
            let description = crate::blocking(&self.runtime, lookup).await??;
            Ok(Partition::try_from(description.partitions.len()).unwrap_or(Partition::MAX))
        }
        .boxed()
    }

    fn close(&self, limit: Duration) -> BoxFuture<'_, Result<()>> {
        let Some(end) = self.buffer.close() else {
            return async { Ok(()) }.boxed();
        };
        let (native, thread) = (Arc::clone(&self.native), Arc::clone(&self.thread));
        let runtime = self.runtime.clone();
        // A task of its own: dropping the future does not stop the close.
        let closing = self.runtime.spawn(async move {
            let flushed = {
                let _flushing = Flushing::start(&native, &runtime);
                timeout(limit, end).await
            };
            thread.stop();
            thread.stopped().await;
            flushed.map_err(|_| {
                let message = format!("records were left after {limit:?}; they are purged");
                Error::new(ErrorKind::TimedOut, message).with_operation(Operation::Close)
            })
        });
        async move {
            closing.await.unwrap_or_else(|error| {
                Err(Error::new(ErrorKind::Backend, "the close did not finish").with_source(error))
            })
        }
        .boxed()
    }

    fn native(&self) -> &dyn Any {
        &*self.native
    }
}

impl Drop for KafkaProducer {
    fn drop(&mut self) {
        drop(self.buffer.close());
        self.thread.stop();
    }
}

impl fmt::Debug for KafkaProducer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaProducer").field("buffer", &self.buffer).finish_non_exhaustive()
    }
}

/// librdkafka's producer, for what the contract leaves out.
///
/// It is served by a thread of the bus: do not poll it. What it sends counts neither for `ready`
/// nor for `flush`.
pub struct NativeProducer {
    slot: RwLock<Option<Arc<BaseProducer<ProducerContext>>>>,
}

impl NativeProducer {
    /// Calls `f` with the producer.
    ///
    /// # Errors
    /// [`ErrorKind::Closed`].
    pub fn with<R>(&self, f: impl FnOnce(&BaseProducer<ProducerContext>) -> R) -> Result<R> {
        self.slot.read().as_deref().map(f).ok_or_else(buffer::closed)
    }

    /// The producer itself, for calls that block and so must run on another thread, which then
    /// also drops it.
    fn producer(&self) -> Result<Arc<BaseProducer<ProducerContext>>> {
        self.slot.read().clone().ok_or_else(buffer::closed)
    }

    /// Gives the producer up; called by the thread that serves it.
    fn release(&self) {
        drop(self.slot.write().take());
    }
}

impl fmt::Debug for NativeProducer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NativeProducer")
    }
}

/// What librdkafka calls back: the outcome of each record, and what it tells on the side.
pub struct ProducerContext {
    context: Context,
    /// Whether brokers say offsets, which they do not with `acks=0`.
    has_offsets: bool,
    /// Of an idempotent producer: which partitions are known to have records of it.
    begun: Option<Begun>,
    /// The producer itself, if it has transactions.
    transactional: Option<OnceLock<Weak<BaseProducer<Self>>>>,
}

impl fmt::Debug for ProducerContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProducerContext").field("context", &self.context).finish_non_exhaustive()
    }
}

impl ClientContext for ProducerContext {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.context.log(level, facility, message);
    }

    fn stats_raw(&self, statistics: &[u8]) {
        self.context.stats_raw(statistics);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.context.error(error, reason);
    }
}

impl rdkafka::producer::ProducerContext for ProducerContext {
    type DeliveryOpaque = Box<Ticket>;

    fn delivery(&self, result: &DeliveryResult<'_>, ticket: Box<Ticket>) {
        let topic = ticket.topic().clone();
        let outcome = match result {
            Ok(message) => {
                let topic_partition = TopicPartition { topic, partition: message.partition() };
                let offset =
                    Some(message.offset()).filter(|offset| self.has_offsets && *offset >= 0);
                let begun = self.begun.as_ref();
                match begun.map_or(Ok(()), |begun| begun.check(&topic_partition, offset)) {
                    Ok(()) => Ok(RecordMetadata {
                        topic_partition,
                        offset,
                        timestamp: message
                            .timestamp()
                            .to_millis()
                            .map(bus_core::Timestamp::from_millis),
                    }),
                    Err(error) => Err(match &self.transactional {
                        Some(own) => transaction::failed_delivery(error, own.get()),
                        None => error,
                    }
                    .with_topic_partition(topic_partition)
                    .with_operation(Operation::Send)),
                }
            }
            Err((error, message)) => {
                let code = Code::from(error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Fail));
                let error = code.error(format!("{} (topic {topic})", code.description()));
                let error = match &self.transactional {
                    Some(own) => transaction::failed_delivery(error, own.get()),
                    None => error,
                };
                let error = if ffi::may_be_persisted(message) {
                    error.indeterminate()
                } else {
                    error.definite()
                };
                let partition = message.partition();
                Err(if partition < 0 {
                    error
                } else {
                    error.with_topic_partition(TopicPartition { topic, partition })
                }
                .with_operation(Operation::Send))
            }
        };
        ticket.complete(outcome);
    }
}

/// Lingering is off while this lives.
struct Flushing(Arc<AtomicBool>);

impl Flushing {
    fn start(native: &Arc<NativeProducer>, runtime: &Handle) -> Self {
        /// How long librdkafka flushes before it is asked again; it bounds how long lingering stays
        /// off when others go on sending.
        const SLICE: Duration = Duration::from_millis(100);

        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        if let Ok(producer) = native.producer() {
            drop(runtime.spawn_blocking(move || {
                while !stopped.load(Ordering::Relaxed) && producer.in_flight_count() > 0 {
                    ffi::flush(producer.client().native_client(), SLICE);
                }
            }));
        }
        Self(stop)
    }
}

impl Drop for Flushing {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Spares the first record of an idempotent producer half a second.
///
/// librdkafka asks for its producer id when metadata arrives and a broker is connected, or else
/// every 500 ms. The first metadata comes over the bootstrap connection, which it then closes; the
/// second finds a broker connected.
fn warm_up(producer: &BaseProducer<ProducerContext>) {
    for _ in 0..2 {
        ffi::refresh_metadata(producer.client().native_client(), Duration::from_secs(1));
    }
}

fn to_headers(headers: &Headers) -> Option<OwnedHeaders> {
    if headers.is_empty() {
        return None;
    }
    let owned = OwnedHeaders::new_with_capacity(headers.len());
    Some(headers.iter().fold(owned, |owned, header| {
        owned.insert(Header { key: &header.name, value: header.value.as_deref() })
    }))
}

/// The size of a record as the contract counts it.
fn size_of(record: &ProducerRecord) -> usize {
    let len = |bytes: &Option<bus_core::Bytes>| bytes.as_ref().map_or(0, bus_core::Bytes::len);
    let headers = record.headers.iter().map(|header| header.name.len() + len(&header.value));
    len(&record.key) + len(&record.value) + headers.sum::<usize>()
}

fn to_usize(n: u32) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX)
}

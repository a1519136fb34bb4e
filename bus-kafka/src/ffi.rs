//! The one module with `unsafe`: what rdkafka leaves out of librdkafka, behind safe functions.
//!
//! The rules that make it sound:
//! - librdkafka's handles may be used from any thread at once ("completely thread-safe").
//! - A [`Queue`] and an [`Event`] must be dropped before their client is destroyed. Their owners
//!   see to it by the order of their fields.
//! - Strings and lists that librdkafka lends are copied before what lends them is dropped.
//! - Error codes are read as numbers: a broker may send one that rdkafka-sys's enum lacks, and such
//!   a value of the enum would be undefined behavior.

#![expect(unsafe_code, reason = "the one place that calls librdkafka directly")]

pub(crate) mod admin;
pub(crate) mod consumer;
pub(crate) mod transaction;

use std::ffi::{CStr, c_char, c_int, c_void};
use std::ptr::{self, NonNull};
use std::time::Duration;

use bus_core::{Bytes, Header, Headers, Offset, Record, Timestamp, TimestampType, Topic};
use bus_core::{OffsetAndMetadata, TopicPartition};
use rdkafka::TopicPartitionList;
use rdkafka::client::NativeClient;
use rdkafka::config::NativeClientConfig;
use rdkafka::message::BorrowedMessage;
use rdkafka_sys as sys;

use crate::error::Code;

unsafe extern "C" {
    // As in rdkafka-sys, but with the code as a number.
    fn rd_kafka_event_error(event: *mut sys::rd_kafka_event_t) -> c_int;
    fn rd_kafka_error_code(error: *const sys::rd_kafka_error_t) -> c_int;
}

/// What librdkafka said to a call that failed.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) code: Code,
    pub(crate) message: String,
}

impl Failure {
    /// The error of the bus.
    pub(crate) fn into_error(self) -> bus_core::Error {
        self.code.error(self.message)
    }

    /// The result of a call that returns a code of librdkafka's own.
    fn check(code: sys::rd_kafka_resp_err_t) -> Result<(), Self> {
        let code = Code(code as i32);
        code.failure().map_or(Ok(()), |code| Err(Self { code, message: code.description() }))
    }

    /// The result of a call that returns an error object.
    fn check_object(error: *mut sys::rd_kafka_error_t) -> Result<(), Self> {
        if error.is_null() {
            return Ok(());
        }
        // SAFETY: the object is not null, is ours, and is destroyed once, after the last use.
        unsafe {
            let code = Code(rd_kafka_error_code(error));
            let message = text(sys::rd_kafka_error_string(error));
            sys::rd_kafka_error_destroy(error);
            Err(Self { code, message })
        }
    }
}

/// A partition in one of librdkafka's lists.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Listed {
    pub(crate) topic_partition: TopicPartition,
    /// An offset, or one of librdkafka's negative marks.
    pub(crate) offset: Offset,
    pub(crate) metadata: String,
    pub(crate) error: Option<Code>,
}

/// Reads a list that the caller owns.
pub(crate) fn read_list(list: &TopicPartitionList) -> Vec<Listed> {
    // SAFETY: the reference keeps the list alive.
    unsafe { copy_list(list.ptr()) }
}

/// Writes a list of offsets to commit.
pub(crate) fn commit_list(offsets: &[(TopicPartition, OffsetAndMetadata)]) -> TopicPartitionList {
    let mut list = TopicPartitionList::with_capacity(offsets.len());
    for (topic_partition, OffsetAndMetadata { offset, metadata }) in offsets {
        let TopicPartition { topic, partition } = topic_partition;
        let mut element = list.add_partition(topic.as_str(), *partition);
        // Only a negative offset fails; those were refused before.
        drop(element.set_offset(rdkafka::Offset::Offset(*offset)));
        if !metadata.is_empty() {
            element.set_metadata(metadata);
        }
    }
    list
}

/// A queue of events, and what to call when it is no longer empty.
pub(crate) struct Queue {
    pointer: NonNull<sys::rd_kafka_queue_t>,
    /// librdkafka holds its address, so it is boxed and outlives the registration.
    callback: Option<Box<Callback>>,
}

type Callback = Box<dyn Fn() + Send + Sync>;

// SAFETY: librdkafka's queues may be used from any thread; the callback is `Send + Sync`.
unsafe impl Send for Queue {}
// SAFETY: as above.
unsafe impl Sync for Queue {}

impl Queue {
    /// The queue of a consumer in a group: records, rebalances, errors, and (from here on) what
    /// comes on the main queue.
    pub(crate) fn of_consumer(client: &NativeClient) -> Option<Self> {
        // SAFETY: the client is alive; the queue is ours to destroy.
        let pointer = unsafe {
            sys::rd_kafka_poll_set_consumer(client.ptr());
            sys::rd_kafka_queue_get_consumer(client.ptr())
        };
        Some(Self { pointer: NonNull::new(pointer)?, callback: None })
    }

    /// The main queue: deliveries, log, statistics, errors.
    pub(crate) fn main(client: &NativeClient) -> Option<Self> {
        // SAFETY: as above.
        let pointer = unsafe { sys::rd_kafka_queue_get_main(client.ptr()) };
        Some(Self { pointer: NonNull::new(pointer)?, callback: None })
    }

    /// A new queue, for replies.
    pub(crate) fn new(client: &NativeClient) -> Option<Self> {
        // SAFETY: as above.
        let pointer = unsafe { sys::rd_kafka_queue_new(client.ptr()) };
        Some(Self { pointer: NonNull::new(pointer)?, callback: None })
    }

    /// Calls `callback` whenever the queue gets its first event. It runs on a thread of librdkafka
    /// under the queue's lock: it must be quick and must not touch the queue.
    pub(crate) fn on_nonempty(&mut self, callback: impl Fn() + Send + Sync + 'static) {
        unsafe extern "C" fn call(_: *mut sys::rd_kafka_t, callback: *mut c_void) {
            // SAFETY: `on_nonempty` registered a pointer to the boxed callback, which lives until
            // after it is unregistered.
            let callback = unsafe { &*callback.cast::<Callback>() };
            callback();
        }
        let callback: Box<Callback> = Box::new(Box::new(callback));
        let opaque = ptr::from_ref::<Callback>(&callback).cast_mut().cast::<c_void>();
        // SAFETY: the address is that of the heap, stays when the box moves, and is unregistered
        // in `drop` or replaced here before the box goes.
        unsafe { sys::rd_kafka_queue_cb_event_enable(self.pointer.as_ptr(), Some(call), opaque) };
        self.callback = Some(callback);
    }

    /// Takes the next event, waiting for one up to `timeout`.
    pub(crate) fn poll(&self, timeout: Duration) -> Option<Event> {
        let millis = c_int::try_from(timeout.as_millis()).unwrap_or(c_int::MAX);
        // SAFETY: the queue is alive; the event is ours.
        let event = unsafe { sys::rd_kafka_queue_poll(self.pointer.as_ptr(), millis) };
        NonNull::new(event).map(|pointer| Event { pointer })
    }

    /// Whether no event waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many events wait, those that are out of date included.
    pub(crate) fn len(&self) -> usize {
        // SAFETY: the queue is alive.
        unsafe { sys::rd_kafka_queue_length(self.pointer.as_ptr()) }
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        // SAFETY: unregistering takes the queue's lock, so no callback runs afterwards; the handle
        // is destroyed once.
        unsafe {
            sys::rd_kafka_queue_cb_event_enable(self.pointer.as_ptr(), None, ptr::null_mut());
            sys::rd_kafka_queue_destroy(self.pointer.as_ptr());
        }
    }
}

/// An event from a [`Queue`].
#[derive(Debug)]
pub(crate) struct Event {
    pointer: NonNull<sys::rd_kafka_event_t>,
}

// SAFETY: an event belongs to who holds it and is bound to no thread.
unsafe impl Send for Event {}

/// What an event is about.
#[derive(Debug)]
pub(crate) enum EventKind {
    /// A record: [`Event::record`].
    Record,
    /// Partitions come or go; `false`: go.
    Rebalance { is_assign: bool },
    /// An error of the client or of one of its partitions.
    Error { is_fatal: bool },
    /// A line of the log.
    Log { level: i32, facility: String, line: String },
    /// Statistics as JSON.
    Statistics(String),
    /// The reply to a commit.
    Commit { id: usize },
    /// Anything else.
    Other,
}

impl Event {
    /// What the event is about.
    pub(crate) fn kind(&self) -> EventKind {
        let event = self.pointer.as_ptr();
        // SAFETY: the event is alive, and each accessor is called on the type that it is for.
        unsafe {
            match sys::rd_kafka_event_type(event) {
                sys::RD_KAFKA_EVENT_FETCH => EventKind::Record,
                sys::RD_KAFKA_EVENT_REBALANCE => {
                    let assign = sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS;
                    EventKind::Rebalance { is_assign: rd_kafka_event_error(event) == assign as i32 }
                }
                sys::RD_KAFKA_EVENT_ERROR => {
                    EventKind::Error { is_fatal: sys::rd_kafka_event_error_is_fatal(event) != 0 }
                }
                sys::RD_KAFKA_EVENT_OFFSET_COMMIT => {
                    EventKind::Commit { id: sys::rd_kafka_event_opaque(event) as usize }
                }
                sys::RD_KAFKA_EVENT_STATS => {
                    EventKind::Statistics(text(sys::rd_kafka_event_stats(event)))
                }
                sys::RD_KAFKA_EVENT_LOG => {
                    let (mut facility, mut line, mut level) = (ptr::null(), ptr::null(), 0);
                    sys::rd_kafka_event_log(
                        event,
                        &raw mut facility,
                        &raw mut line,
                        &raw mut level,
                    );
                    EventKind::Log { level, facility: text(facility), line: text(line) }
                }
                _ => EventKind::Other,
            }
        }
    }

    /// The error that the event carries, if any.
    pub(crate) fn failure(&self) -> Option<Failure> {
        // SAFETY: the event is alive.
        let code = unsafe { Code(rd_kafka_event_error(self.pointer.as_ptr())) }.failure()?;
        // SAFETY: as above; the text is copied.
        let message = unsafe { text(sys::rd_kafka_event_error_string(self.pointer.as_ptr())) };
        Some(Failure { code, message })
    }

    /// The partition of an error or of a record.
    pub(crate) fn topic_partition(&self) -> Option<TopicPartition> {
        // SAFETY: the event is alive; the partition is ours, and destroyed after it was copied.
        unsafe {
            let element = sys::rd_kafka_event_topic_partition(self.pointer.as_ptr());
            let copied = copy_element(element.as_ref()?);
            sys::rd_kafka_topic_partition_destroy(element);
            Some(copied.topic_partition)
        }
    }

    /// The partitions of a rebalance or of a commit.
    pub(crate) fn list(&self) -> Vec<Listed> {
        // SAFETY: the event is alive and lends the list.
        unsafe { copy_list(sys::rd_kafka_event_topic_partition_list(self.pointer.as_ptr())) }
    }

    /// Takes the record out, which moves librdkafka's position and stored offset past it.
    ///
    /// `topic` is that of the record before: records come in runs of one topic.
    pub(crate) fn record(&self, topic: &mut Option<Topic>) -> Option<Record> {
        // SAFETY: the event is alive and lends the message and all that it points to.
        unsafe {
            let message = sys::rd_kafka_event_message_next(self.pointer.as_ptr());
            Some(copy_message(message.as_ref()?, topic))
        }
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        // SAFETY: the event is ours and destroyed once.
        unsafe { sys::rd_kafka_event_destroy(self.pointer.as_ptr()) };
    }
}

/// Asks for events on the queue of a client, where librdkafka would call back or only log.
pub(crate) fn enable_events(config: &NativeClientConfig) {
    let events = sys::RD_KAFKA_EVENT_REBALANCE
        | sys::RD_KAFKA_EVENT_OFFSET_COMMIT
        | sys::RD_KAFKA_EVENT_STATS
        | sys::RD_KAFKA_EVENT_ERROR;
    // SAFETY: the configuration is alive.
    unsafe { sys::rd_kafka_conf_set_events(config.ptr(), events) };
}

/// Sends without lingering for up to `timeout`, or until the buffer is empty.
pub(crate) fn flush(client: &NativeClient, timeout: Duration) {
    let millis = c_int::try_from(timeout.as_millis()).unwrap_or(c_int::MAX);
    // SAFETY: the client is alive. The outcome is counted elsewhere.
    unsafe { sys::rd_kafka_flush(client.ptr(), millis) };
}

/// Asks a broker for the metadata of the topics that the client knows. Waits for the answer.
pub(crate) fn refresh_metadata(client: &NativeClient, timeout: Duration) {
    let millis = c_int::try_from(timeout.as_millis()).unwrap_or(c_int::MAX);
    let mut metadata = ptr::null();
    // SAFETY: the client is alive; the metadata is ours if the call succeeds, and destroyed once.
    unsafe {
        let out = &raw mut metadata;
        sys::rd_kafka_metadata(client.ptr(), 0, ptr::null_mut(), out, millis);
        if !metadata.is_null() {
            sys::rd_kafka_metadata_destroy(metadata);
        }
    }
}

/// Whether a broker may have a record that failed.
pub(crate) fn may_be_persisted(message: &BorrowedMessage<'_>) -> bool {
    // SAFETY: the reference keeps the message alive.
    let status = unsafe { sys::rd_kafka_message_status(message.ptr()) };
    status != sys::rd_kafka_msg_status_t::RD_KAFKA_MSG_STATUS_NOT_PERSISTED
}

/// Copies a C string; empty if null.
///
/// # Safety
/// `string` is null or points to a string with a NUL at its end.
unsafe fn text(string: *const c_char) -> String {
    if string.is_null() {
        return String::new();
    }
    // SAFETY: not null, and the rest is the caller's promise.
    unsafe { CStr::from_ptr(string) }.to_string_lossy().into_owned()
}

/// Copies bytes; `None` if null.
///
/// # Safety
/// `data` is null or points to `len` bytes.
unsafe fn bytes(data: *const c_void, len: usize) -> Option<Bytes> {
    if data.is_null() {
        return None;
    }
    // SAFETY: not null, and the rest is the caller's promise.
    let bytes = unsafe { std::slice::from_raw_parts(data.cast::<u8>(), len) };
    Some(Bytes::copy_from_slice(bytes))
}

/// Copies a list; empty if null.
///
/// # Safety
/// `list` is null or points to a list.
unsafe fn copy_list(list: *const sys::rd_kafka_topic_partition_list_t) -> Vec<Listed> {
    // SAFETY: null or a list, says the caller.
    let Some(list) = (unsafe { list.as_ref() }) else { return Vec::new() };
    let len = usize::try_from(list.cnt).unwrap_or(0);
    if list.elems.is_null() || len == 0 {
        return Vec::new();
    }
    // SAFETY: a list has `cnt` elements, each initialized.
    (0..len).map(|i| unsafe { copy_element(&*list.elems.add(i)) }).collect()
}

/// Copies an element of a list.
///
/// # Safety
/// The pointers in `element` are those that librdkafka put there.
unsafe fn copy_element(element: &sys::rd_kafka_topic_partition_t) -> Listed {
    // SAFETY: the topic is a C string; the metadata has its length beside it; the code is read as
    // the number that it is.
    unsafe {
        let metadata = bytes(element.metadata, element.metadata_size).unwrap_or_default();
        let code = ptr::from_ref(&element.err).cast::<i32>().read();
        Listed {
            topic_partition: TopicPartition::new(text(element.topic), element.partition),
            offset: element.offset,
            metadata: String::from_utf8_lossy(&metadata).into_owned(),
            error: Code(code).failure(),
        }
    }
}

/// Copies a message of a consumer.
///
/// # Safety
/// The pointers in `message` are those that librdkafka put there.
unsafe fn copy_message(message: &sys::rd_kafka_message_t, last: &mut Option<Topic>) -> Record {
    // SAFETY: a consumed message has a topic, and its key and value have their lengths beside them.
    unsafe {
        let name = CStr::from_ptr(sys::rd_kafka_topic_name(message.rkt));
        let topic = match last {
            Some(topic) if topic.as_str().as_bytes() == name.to_bytes() => topic.clone(),
            _ => last.insert(Topic::from(name.to_string_lossy().as_ref())).clone(),
        };
        let mut timestamp_type = sys::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
        let timestamp = sys::rd_kafka_message_timestamp(message, &raw mut timestamp_type);
        let log_append = sys::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_LOG_APPEND_TIME;
        let leader_epoch = sys::rd_kafka_message_leader_epoch(message);
        Record {
            topic,
            partition: message.partition,
            offset: message.offset,
            timestamp: Timestamp::from_millis(timestamp),
            timestamp_type: if timestamp_type == log_append {
                TimestampType::LogAppendTime
            } else {
                TimestampType::CreateTime
            },
            leader_epoch: (leader_epoch >= 0).then_some(leader_epoch),
            key: bytes(message.key, message.key_len),
            value: bytes(message.payload, message.len),
            headers: copy_headers(message),
        }
    }
}

/// Copies the headers of a message.
///
/// # Safety
/// As `copy_message`.
unsafe fn copy_headers(message: &sys::rd_kafka_message_t) -> Headers {
    let mut list = ptr::null_mut();
    let (mut name, mut value, mut len) = (ptr::null(), ptr::null(), 0);
    let ok = sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR;
    // SAFETY: the message lends the list, and the list its names and values.
    unsafe {
        if sys::rd_kafka_message_headers(message, &raw mut list) != ok {
            return Headers::new();
        }
        (0..sys::rd_kafka_header_cnt(list))
            .map_while(|i| {
                let (name, value, len) = (&raw mut name, &raw mut value, &raw mut len);
                if sys::rd_kafka_header_get_all(list, i, name, value, len) != ok {
                    return None;
                }
                Some(Header { name: text(*name).into(), value: bytes(*value, *len) })
            })
            .collect()
    }
}

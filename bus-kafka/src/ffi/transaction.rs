//! What a transactional producer asks librdkafka to do.
//!
//! Each function takes the client of a producer. All but [`begin`] wait for brokers, and for the
//! thread that serves the producer, so they must run on neither that thread nor one of the runtime.

use std::ffi::{CString, c_int};
use std::ptr::{self, NonNull};
use std::time::Duration;

use bus_core::GroupMetadata;
use rdkafka::TopicPartitionList;
use rdkafka::client::NativeClient;
use rdkafka_sys as sys;

use super::{Failure, rd_kafka_error_code, text};
use crate::error::Code;

/// What librdkafka says may be done about a transactional call that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    /// The call may be repeated, which resumes it.
    Retriable,
    /// The transaction must be aborted.
    Abortable,
    /// The producer cannot go on.
    Fatal,
    /// None of these: the call was wrong.
    None,
}

/// A transactional call that failed.
#[derive(Debug)]
pub(crate) struct TransactionFailure {
    pub(crate) failure: Failure,
    pub(crate) class: Class,
}

impl TransactionFailure {
    fn check(error: *mut sys::rd_kafka_error_t) -> Result<(), Self> {
        if error.is_null() {
            return Ok(());
        }
        // SAFETY: the object is not null, is ours, and is destroyed once, after the last use.
        unsafe {
            let class = if sys::rd_kafka_error_is_fatal(error) != 0 {
                Class::Fatal
            } else if sys::rd_kafka_error_txn_requires_abort(error) != 0 {
                Class::Abortable
            } else if sys::rd_kafka_error_is_retriable(error) != 0 {
                Class::Retriable
            } else {
                Class::None
            };
            let code = Code(rd_kafka_error_code(error));
            let message = text(sys::rd_kafka_error_string(error));
            sys::rd_kafka_error_destroy(error);
            Err(Self { failure: Failure { code, message }, class })
        }
    }
}

/// A member of a group, as librdkafka has it.
#[derive(Debug)]
pub(crate) struct Member(NonNull<sys::rd_kafka_consumer_group_metadata_t>);

// SAFETY: the object is plain data that belongs to who holds it.
unsafe impl Send for Member {}

impl Member {
    /// librdkafka's form of the member; `None` if one of its names contains a NUL byte.
    pub(crate) fn new(metadata: &GroupMetadata) -> Option<Self> {
        let group_id = CString::new(metadata.group_id.as_str()).ok()?;
        let member_id = CString::new(metadata.member_id.as_str()).ok()?;
        let instance = metadata.group_instance_id.as_deref().map(CString::new);
        let instance = instance.transpose().ok()?;
        // SAFETY: the strings live until after the call, which copies them; the object is ours.
        let pointer = unsafe {
            sys::rd_kafka_consumer_group_metadata_new_with_genid(
                group_id.as_ptr(),
                metadata.generation,
                member_id.as_ptr(),
                instance.as_ref().map_or(ptr::null(), |instance| instance.as_ptr()),
            )
        };
        NonNull::new(pointer).map(Self)
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        // SAFETY: the object is ours and destroyed once.
        unsafe { sys::rd_kafka_consumer_group_metadata_destroy(self.0.as_ptr()) };
    }
}

/// Fences older producers of the transactional id. Waits for the coordinator.
pub(crate) fn init(client: &NativeClient, timeout: Duration) -> Result<(), TransactionFailure> {
    // SAFETY: the client is alive; the error object is ours. So in the next functions.
    TransactionFailure::check(unsafe {
        sys::rd_kafka_init_transactions(client.ptr(), millis(timeout))
    })
}

/// Begins a transaction. Waits for librdkafka's own thread only.
pub(crate) fn begin(client: &NativeClient) -> Result<(), TransactionFailure> {
    // SAFETY: as in `init`.
    TransactionFailure::check(unsafe { sys::rd_kafka_begin_transaction(client.ptr()) })
}

/// Adds offsets to the transaction. Waits for both coordinators.
pub(crate) fn send_offsets(
    client: &NativeClient,
    offsets: &TopicPartitionList,
    member: &Member,
    timeout: Duration,
) -> Result<(), TransactionFailure> {
    // SAFETY: as in `init`; list and member are alive and copied by the call.
    TransactionFailure::check(unsafe {
        sys::rd_kafka_send_offsets_to_transaction(
            client.ptr(),
            offsets.ptr(),
            member.0.as_ptr(),
            millis(timeout),
        )
    })
}

/// Flushes and commits. Waits for the leaders and the coordinator.
pub(crate) fn commit(client: &NativeClient, timeout: Duration) -> Result<(), TransactionFailure> {
    // SAFETY: as in `init`.
    TransactionFailure::check(unsafe {
        sys::rd_kafka_commit_transaction(client.ptr(), millis(timeout))
    })
}

/// Purges and aborts. Waits for what is in flight, and for the coordinator.
pub(crate) fn abort(client: &NativeClient, timeout: Duration) -> Result<(), TransactionFailure> {
    // SAFETY: as in `init`.
    TransactionFailure::check(unsafe {
        sys::rd_kafka_abort_transaction(client.ptr(), millis(timeout))
    })
}

fn millis(timeout: Duration) -> c_int {
    c_int::try_from(timeout.as_millis()).unwrap_or(c_int::MAX)
}

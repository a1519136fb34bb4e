//! What a consumer asks librdkafka to do.
//!
//! Each function takes the client of a consumer. Those that wait for a broker say so; the others
//! wait at most for librdkafka's own thread.

use std::ffi::{CString, c_int};
use std::ptr;
use std::time::Duration;

use bus_core::{Offset, TopicPartition};
use rdkafka::TopicPartitionList;
use rdkafka::client::NativeClient;
use rdkafka_sys as sys;

use super::{Failure, Listed, Queue, copy_list, read_list, text};

/// Subscribes to topics and patterns.
pub(crate) fn subscribe(client: &NativeClient, list: &TopicPartitionList) -> Result<(), Failure> {
    // SAFETY: client and list are alive; the list is copied by the call. So in the next functions.
    Failure::check(unsafe { sys::rd_kafka_subscribe(client.ptr(), list.ptr()) })
}

/// Starts to leave the group.
pub(crate) fn unsubscribe(client: &NativeClient) -> Result<(), Failure> {
    // SAFETY: as in `subscribe`.
    Failure::check(unsafe { sys::rd_kafka_unsubscribe(client.ptr()) })
}

/// Replaces the assignment; with nothing, gives it up.
pub(crate) fn assign(
    client: &NativeClient,
    list: Option<&TopicPartitionList>,
) -> Result<(), Failure> {
    let list = list.map_or(ptr::null_mut(), TopicPartitionList::ptr);
    // SAFETY: as in `subscribe`; null means no partition.
    Failure::check(unsafe { sys::rd_kafka_assign(client.ptr(), list) })
}

/// Adds to the assignment.
pub(crate) fn incremental_assign(
    client: &NativeClient,
    list: &TopicPartitionList,
) -> Result<(), Failure> {
    // SAFETY: as in `subscribe`.
    Failure::check_object(unsafe { sys::rd_kafka_incremental_assign(client.ptr(), list.ptr()) })
}

/// Takes from the assignment.
pub(crate) fn incremental_unassign(
    client: &NativeClient,
    list: &TopicPartitionList,
) -> Result<(), Failure> {
    // SAFETY: as in `subscribe`.
    Failure::check_object(unsafe { sys::rd_kafka_incremental_unassign(client.ptr(), list.ptr()) })
}

/// How a consumer may change its assignment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// As it likes: it never was in a group.
    None,
    /// As a whole.
    Eager,
    /// Partition by partition.
    Cooperative,
}

/// How the consumer may change its assignment. It keeps the protocol of its last group.
pub(crate) fn protocol(client: &NativeClient) -> Protocol {
    // SAFETY: the client is alive; the name is static or null.
    match unsafe { text(sys::rd_kafka_rebalance_protocol(client.ptr())) }.as_str() {
        "COOPERATIVE" => Protocol::Cooperative,
        "EAGER" => Protocol::Eager,
        _ => Protocol::None,
    }
}

/// Whether the assignment may be another member's already.
pub(crate) fn is_assignment_lost(client: &NativeClient) -> bool {
    // SAFETY: the client is alive.
    unsafe { sys::rd_kafka_assignment_lost(client.ptr()) != 0 }
}

/// The partitions that librdkafka has assigned.
pub(crate) fn assignment(client: &NativeClient) -> Vec<TopicPartition> {
    let mut list = ptr::null_mut();
    // SAFETY: the client is alive; the list is ours, and null if the call fails.
    let assigned = unsafe {
        sys::rd_kafka_assignment(client.ptr(), &raw mut list);
        let assigned = copy_list(list);
        if !list.is_null() {
            sys::rd_kafka_topic_partition_list_destroy(list);
        }
        assigned
    };
    assigned.into_iter().map(|listed| listed.topic_partition).collect()
}

/// Seeks; the outcome stands in the elements. Waits for librdkafka's thread, not for a broker.
pub(crate) fn seek(client: &NativeClient, list: &TopicPartitionList) -> Result<(), Failure> {
    const TIMEOUT_MS: c_int = 10_000;
    // SAFETY: as in `subscribe`; the call writes the outcome into the elements.
    let error = unsafe { sys::rd_kafka_seek_partitions(client.ptr(), list.ptr(), TIMEOUT_MS) };
    Failure::check_object(error)?;
    match read_list(list).into_iter().find_map(|listed| listed.error) {
        Some(code) => Err(Failure { code, message: code.description() }),
        None => Ok(()),
    }
}

/// Pauses or resumes partitions.
pub(crate) fn pause(
    client: &NativeClient,
    list: &TopicPartitionList,
    pause: bool,
) -> Result<(), Failure> {
    // SAFETY: as in `subscribe`.
    Failure::check(unsafe {
        if pause {
            sys::rd_kafka_pause_partitions(client.ptr(), list.ptr())
        } else {
            sys::rd_kafka_resume_partitions(client.ptr(), list.ptr())
        }
    })
}

/// Stores offsets for the next auto commit.
pub(crate) fn store_offsets(
    client: &NativeClient,
    list: &TopicPartitionList,
) -> Result<(), Failure> {
    // SAFETY: as in `subscribe`.
    Failure::check(unsafe { sys::rd_kafka_offsets_store(client.ptr(), list.ptr()) })
}

/// Forgets the stored offset of a partition, so that closing does not commit it.
pub(crate) fn forget_stored_offset(client: &NativeClient, topic_partition: &TopicPartition) {
    let Ok(name) = CString::new(topic_partition.topic.as_str()) else { return };
    // librdkafka stores the next offset, so this stores "invalid", which it does not commit.
    let before_invalid = Offset::from(sys::RD_KAFKA_OFFSET_INVALID) - 1;
    // SAFETY: client and name are alive; the topic is ours and destroyed once.
    unsafe {
        let topic = sys::rd_kafka_topic_new(client.ptr(), name.as_ptr(), ptr::null_mut());
        if !topic.is_null() {
            sys::rd_kafka_offset_store(topic, topic_partition.partition, before_invalid);
            sys::rd_kafka_topic_destroy(topic);
        }
    }
}

/// Sends a commit; the reply comes to `replies` as [`EventKind::Commit`] with `id`.
pub(crate) fn commit(
    client: &NativeClient,
    list: &TopicPartitionList,
    replies: &Queue,
    id: usize,
) -> Result<(), Failure> {
    let opaque = ptr::without_provenance_mut(id);
    let replies = replies.pointer.as_ptr();
    // SAFETY: client, list, and queue are alive; the opaque is a number that is never followed.
    Failure::check(unsafe {
        sys::rd_kafka_commit_queue(client.ptr(), list.ptr(), replies, None, opaque)
    })
}

/// Looks up committed offsets. Waits for the coordinator.
pub(crate) fn committed(
    client: &NativeClient,
    list: &TopicPartitionList,
    timeout: Duration,
) -> Result<Vec<Listed>, Failure> {
    let millis = c_int::try_from(timeout.as_millis()).unwrap_or(c_int::MAX);
    // SAFETY: as in `subscribe`; the call writes the outcome into the elements.
    Failure::check(unsafe { sys::rd_kafka_committed(client.ptr(), list.ptr(), millis) })?;
    Ok(read_list(list))
}

/// Looks up offsets by the times that stand as offsets in the list. Waits for the leaders.
pub(crate) fn offsets_for_times(
    client: &NativeClient,
    list: &TopicPartitionList,
    timeout: Duration,
) -> Result<Vec<Listed>, Failure> {
    let millis = c_int::try_from(timeout.as_millis()).unwrap_or(c_int::MAX);
    // SAFETY: as in `committed`.
    Failure::check(unsafe { sys::rd_kafka_offsets_for_times(client.ptr(), list.ptr(), millis) })?;
    Ok(read_list(list))
}

/// The generation and the member id of a consumer in its group.
pub(crate) fn generation_and_member(client: &NativeClient) -> Option<(i32, String)> {
    // SAFETY: the client is alive; the metadata is ours and destroyed after it was copied.
    unsafe {
        let metadata = sys::rd_kafka_consumer_group_metadata(client.ptr());
        if metadata.is_null() {
            return None;
        }
        let generation = sys::rd_kafka_consumer_group_metadata_generation_id(metadata);
        let member = text(sys::rd_kafka_consumer_group_metadata_member_id(metadata));
        sys::rd_kafka_consumer_group_metadata_destroy(metadata);
        Some((generation, member))
    }
}

/// Starts to close a consumer; its last events come to `queue`.
pub(crate) fn close(client: &NativeClient, queue: &Queue) -> Result<(), Failure> {
    let queue = queue.pointer.as_ptr();
    // SAFETY: client and queue are alive.
    Failure::check_object(unsafe { sys::rd_kafka_consumer_close_queue(client.ptr(), queue) })
}

/// Whether a consumer is closed.
pub(crate) fn is_closed(client: &NativeClient) -> bool {
    // SAFETY: the client is alive.
    unsafe { sys::rd_kafka_consumer_closed(client.ptr()) != 0 }
}

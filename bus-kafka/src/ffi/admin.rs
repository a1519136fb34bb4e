//! Administration: requests whose reply comes to a queue of their own. Each call blocks until then.

use std::ffi::{CString, c_char, c_int};
use std::ptr;
use std::time::Duration;

use bus_core::{
    GroupDescription, GroupListing, GroupState, MemberDescription, NewTopic, Topic, TopicPartition,
};
use rdkafka::TopicPartitionList;
use rdkafka::client::NativeClient;
use rdkafka_sys as sys;
use rdkafka_sys::rd_kafka_admin_op_t as Op;

use super::{Event, Failure, Listed, Queue, copy_list, rd_kafka_error_code, text};
use crate::error::Code;

unsafe extern "C" {
    // As in rdkafka-sys, but with the code as a number.
    fn rd_kafka_topic_result_error(result: *const sys::rd_kafka_topic_result_t) -> c_int;
}

type Options = sys::rd_kafka_AdminOptions_t;
type RawQueue = sys::rd_kafka_queue_t;
type RawEvent = sys::rd_kafka_event_t;

/// Creates a topic.
pub(crate) fn create_topic(
    client: &NativeClient,
    topic: &NewTopic,
    timeout: Duration,
) -> Result<(), Failure> {
    let name = to_c(topic.topic.as_str())?;
    let mut reason: [c_char; 256] = [0; 256];
    let replication_factor = topic.replication_factor.map_or(-1, c_int::from);
    // SAFETY: name and buffer are alive; the topic is ours, destroyed below.
    let new = unsafe {
        let (buffer, len) = (reason.as_mut_ptr(), reason.len());
        sys::rd_kafka_NewTopic_new(name.as_ptr(), topic.partitions, replication_factor, buffer, len)
    };
    if new.is_null() {
        // SAFETY: librdkafka wrote a string.
        return Err(invalid(unsafe { text(reason.as_ptr()) }));
    }
    let created = set_config(new, topic).and_then(|()| {
        let send = |options: *const Options, queue: *mut RawQueue| {
            // SAFETY: `call` hands out what is alive, and the topic is.
            unsafe {
                sys::rd_kafka_CreateTopics(client.ptr(), [new].as_mut_ptr(), 1, options, queue);
            }
        };
        call(client, Op::RD_KAFKA_ADMIN_OP_CREATETOPICS, timeout, send, |event| {
            let mut len = 0;
            // SAFETY: the event is the reply to this request and lends the results.
            unsafe {
                let result = sys::rd_kafka_event_CreateTopics_result(event);
                check_topics(sys::rd_kafka_CreateTopics_result_topics(result, &raw mut len), len)
            }
        })
    });
    // SAFETY: ours, and no longer used.
    unsafe { sys::rd_kafka_NewTopic_destroy(new) };
    created
}

fn set_config(new: *mut sys::rd_kafka_NewTopic_t, topic: &NewTopic) -> Result<(), Failure> {
    for (name, value) in &topic.config {
        let (name, value) = (to_c(name)?, to_c(value)?);
        // SAFETY: all are alive; the strings are copied.
        Failure::check(unsafe {
            sys::rd_kafka_NewTopic_set_config(new, name.as_ptr(), value.as_ptr())
        })?;
    }
    Ok(())
}

/// Deletes a topic.
pub(crate) fn delete_topic(
    client: &NativeClient,
    topic: &str,
    timeout: Duration,
) -> Result<(), Failure> {
    let name = to_c(topic)?;
    // SAFETY: the name is alive; the request is ours, destroyed below.
    let delete = unsafe { sys::rd_kafka_DeleteTopic_new(name.as_ptr()) };
    let send = |options: *const Options, queue: *mut RawQueue| {
        // SAFETY: `call` hands out what is alive, and the request is.
        unsafe {
            sys::rd_kafka_DeleteTopics(client.ptr(), [delete].as_mut_ptr(), 1, options, queue);
        }
    };
    let deleted = call(client, Op::RD_KAFKA_ADMIN_OP_DELETETOPICS, timeout, send, |event| {
        let mut len = 0;
        // SAFETY: the event is the reply to this request and lends the results.
        unsafe {
            let result = sys::rd_kafka_event_DeleteTopics_result(event);
            check_topics(sys::rd_kafka_DeleteTopics_result_topics(result, &raw mut len), len)
        }
    });
    // SAFETY: ours, and no longer used.
    unsafe { sys::rd_kafka_DeleteTopic_destroy(delete) };
    deleted
}

/// Grows a topic.
pub(crate) fn create_partitions(
    client: &NativeClient,
    topic: &str,
    partitions: usize,
    timeout: Duration,
) -> Result<(), Failure> {
    let name = to_c(topic)?;
    let mut reason: [c_char; 256] = [0; 256];
    // SAFETY: name and buffer are alive; the request is ours, destroyed below.
    let grow = unsafe {
        let (buffer, len) = (reason.as_mut_ptr(), reason.len());
        sys::rd_kafka_NewPartitions_new(name.as_ptr(), partitions, buffer, len)
    };
    if grow.is_null() {
        // SAFETY: librdkafka wrote a string.
        return Err(invalid(unsafe { text(reason.as_ptr()) }));
    }
    let send = |options: *const Options, queue: *mut RawQueue| {
        // SAFETY: `call` hands out what is alive, and the request is.
        unsafe {
            sys::rd_kafka_CreatePartitions(client.ptr(), [grow].as_mut_ptr(), 1, options, queue);
        }
    };
    let grown = call(client, Op::RD_KAFKA_ADMIN_OP_CREATEPARTITIONS, timeout, send, |event| {
        let mut len = 0;
        // SAFETY: the event is the reply to this request and lends the results.
        unsafe {
            let result = sys::rd_kafka_event_CreatePartitions_result(event);
            check_topics(sys::rd_kafka_CreatePartitions_result_topics(result, &raw mut len), len)
        }
    });
    // SAFETY: ours, and no longer used.
    unsafe { sys::rd_kafka_NewPartitions_destroy(grow) };
    grown
}

/// Lists all groups.
pub(crate) fn list_groups(
    client: &NativeClient,
    timeout: Duration,
) -> Result<Vec<GroupListing>, Failure> {
    let send = |options: *const Options, queue: *mut RawQueue| {
        // SAFETY: `call` hands out what is alive.
        unsafe { sys::rd_kafka_ListConsumerGroups(client.ptr(), options, queue) }
    };
    call(client, Op::RD_KAFKA_ADMIN_OP_LISTCONSUMERGROUPS, timeout, send, |event| {
        let (mut len, mut errors) = (0, 0);
        // SAFETY: the event is the reply to this request and lends groups, errors, and names.
        unsafe {
            let result = sys::rd_kafka_event_ListConsumerGroups_result(event);
            let failed = sys::rd_kafka_ListConsumerGroups_result_errors(result, &raw mut errors);
            if errors > 0 {
                copy_error(*failed)?;
            }
            let groups = sys::rd_kafka_ListConsumerGroups_result_valid(result, &raw mut len);
            Ok((0..len)
                .map(|i| {
                    let group = *groups.add(i);
                    let state = sys::rd_kafka_ConsumerGroupListing_state(group);
                    GroupListing {
                        group_id: text(sys::rd_kafka_ConsumerGroupListing_group_id(group)),
                        state: to_state(state),
                    }
                })
                .collect())
        }
    })
}

/// Describes a group.
pub(crate) fn describe_group(
    client: &NativeClient,
    group_id: &str,
    timeout: Duration,
) -> Result<GroupDescription, Failure> {
    let group_id = to_c(group_id)?;
    let send = |options: *const Options, queue: *mut RawQueue| {
        // SAFETY: `call` hands out what is alive, and the name is.
        unsafe {
            let mut groups = [group_id.as_ptr()];
            let groups = groups.as_mut_ptr();
            sys::rd_kafka_DescribeConsumerGroups(client.ptr(), groups, 1, options, queue);
        }
    };
    call(client, Op::RD_KAFKA_ADMIN_OP_DESCRIBECONSUMERGROUPS, timeout, send, |event| {
        let mut len = 0;
        // SAFETY: the event is the reply to this request and lends the descriptions.
        unsafe {
            let result = sys::rd_kafka_event_DescribeConsumerGroups_result(event);
            let groups = sys::rd_kafka_DescribeConsumerGroups_result_groups(result, &raw mut len);
            if len == 0 {
                return Err(no_reply());
            }
            let group = *groups;
            copy_error(sys::rd_kafka_ConsumerGroupDescription_error(group))?;
            let members = sys::rd_kafka_ConsumerGroupDescription_member_count(group);
            Ok(GroupDescription {
                group_id: text(sys::rd_kafka_ConsumerGroupDescription_group_id(group)),
                state: to_state(sys::rd_kafka_ConsumerGroupDescription_state(group)),
                assignor: text(sys::rd_kafka_ConsumerGroupDescription_partition_assignor(group)),
                members: (0..members)
                    .map(|i| copy_member(sys::rd_kafka_ConsumerGroupDescription_member(group, i)))
                    .collect(),
            })
        }
    })
}

/// Lists the committed offsets of a group.
pub(crate) fn group_offsets(
    client: &NativeClient,
    group_id: &str,
    timeout: Duration,
) -> Result<Vec<Listed>, Failure> {
    let group_id = to_c(group_id)?;
    // SAFETY: the name is alive, null means all partitions; the request is ours, destroyed below.
    let list =
        unsafe { sys::rd_kafka_ListConsumerGroupOffsets_new(group_id.as_ptr(), ptr::null()) };
    let send = |options: *const Options, queue: *mut RawQueue| {
        // SAFETY: `call` hands out what is alive, and the request is.
        unsafe {
            let mut requests = [list];
            let requests = requests.as_mut_ptr();
            sys::rd_kafka_ListConsumerGroupOffsets(client.ptr(), requests, 1, options, queue);
        }
    };
    let op = Op::RD_KAFKA_ADMIN_OP_LISTCONSUMERGROUPOFFSETS;
    let listed = call(client, op, timeout, send, |event| {
        let mut len = 0;
        // SAFETY: the event is the reply to this request and lends the result.
        unsafe {
            let result = sys::rd_kafka_event_ListConsumerGroupOffsets_result(event);
            let groups = sys::rd_kafka_ListConsumerGroupOffsets_result_groups(result, &raw mut len);
            if len == 0 {
                return Err(no_reply());
            }
            copy_error(sys::rd_kafka_group_result_error(*groups))?;
            Ok(copy_list(sys::rd_kafka_group_result_partitions(*groups)))
        }
    });
    // SAFETY: ours, and no longer used.
    unsafe { sys::rd_kafka_ListConsumerGroupOffsets_destroy(list) };
    listed
}

/// Looks up the high watermarks of partitions.
pub(crate) fn high_watermarks(
    client: &NativeClient,
    partitions: &[TopicPartition],
    timeout: Duration,
) -> Result<Vec<Listed>, Failure> {
    let mut list = TopicPartitionList::with_capacity(partitions.len());
    for TopicPartition { topic, partition } in partitions {
        let mut element = list.add_partition(topic.as_str(), *partition);
        // The request takes this mark for "latest".
        drop(element.set_offset(rdkafka::Offset::End));
    }
    let send = |options: *const Options, queue: *mut RawQueue| {
        // SAFETY: `call` hands out what is alive, and the list is.
        unsafe { sys::rd_kafka_ListOffsets(client.ptr(), list.ptr(), options, queue) }
    };
    call(client, Op::RD_KAFKA_ADMIN_OP_LISTOFFSETS, timeout, send, |event| {
        let mut len = 0;
        // SAFETY: the event is the reply to this request and lends the results.
        unsafe {
            let result = sys::rd_kafka_event_ListOffsets_result(event);
            let infos = sys::rd_kafka_ListOffsets_result_infos(result, &raw mut len);
            Ok((0..len)
                .map(|i| {
                    let info = sys::rd_kafka_ListOffsetsResultInfo_topic_partition(*infos.add(i));
                    super::copy_element(&*info)
                })
                .collect())
        }
    })
}

/// How many partitions of a topic a broker knows. Waits for the answer of that broker.
pub(crate) fn partitions_known(
    client: &NativeClient,
    broker: i32,
    topic: &Topic,
    timeout: Duration,
) -> Result<usize, Failure> {
    let name = to_c(topic.as_str())?;
    // SAFETY: the name is alive and copied; the collection is ours, destroyed below.
    let topics =
        unsafe { sys::rd_kafka_TopicCollection_of_topic_names([name.as_ptr()].as_mut_ptr(), 1) };
    let send = |options: *const Options, queue: *mut RawQueue| {
        // SAFETY: `call` hands out what is alive, and only this request has these options.
        unsafe {
            sys::rd_kafka_AdminOptions_set_broker(options.cast_mut(), broker, ptr::null_mut(), 0);
            sys::rd_kafka_DescribeTopics(client.ptr(), topics, options, queue);
        }
    };
    let described = call(client, Op::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS, timeout, send, |event| {
        let (mut topics, mut partitions) = (0, 0);
        // SAFETY: the event is the reply to this request and lends the results.
        unsafe {
            let result = sys::rd_kafka_event_DescribeTopics_result(event);
            let found = sys::rd_kafka_DescribeTopics_result_topics(result, &raw mut topics);
            if topics == 0 {
                return Err(no_reply());
            }
            copy_error(sys::rd_kafka_TopicDescription_error(*found))?;
            sys::rd_kafka_TopicDescription_partitions(*found, &raw mut partitions);
        }
        Ok(partitions)
    });
    // SAFETY: ours, and no longer used.
    unsafe { sys::rd_kafka_TopicCollection_destroy(topics) };
    described
}

/// Deletes a group.
pub(crate) fn delete_group(
    client: &NativeClient,
    group_id: &str,
    timeout: Duration,
) -> Result<(), Failure> {
    let group_id = to_c(group_id)?;
    // SAFETY: the name is alive; the request is ours, destroyed below.
    let delete = unsafe { sys::rd_kafka_DeleteGroup_new(group_id.as_ptr()) };
    let send = |options: *const Options, queue: *mut RawQueue| {
        // SAFETY: `call` hands out what is alive, and the request is.
        unsafe {
            sys::rd_kafka_DeleteGroups(client.ptr(), [delete].as_mut_ptr(), 1, options, queue);
        }
    };
    let deleted = call(client, Op::RD_KAFKA_ADMIN_OP_DELETEGROUPS, timeout, send, |event| {
        let mut len = 0;
        // SAFETY: the event is the reply to this request and lends the result.
        unsafe {
            let result = sys::rd_kafka_event_DeleteGroups_result(event);
            let groups = sys::rd_kafka_DeleteGroups_result_groups(result, &raw mut len);
            if len == 0 {
                return Err(no_reply());
            }
            copy_error(sys::rd_kafka_group_result_error(*groups))
        }
    });
    // SAFETY: ours, and no longer used.
    unsafe { sys::rd_kafka_DeleteGroup_destroy(delete) };
    deleted
}

/// The id of the cluster. Waits for the first broker that answers.
pub(crate) fn cluster_id(client: &NativeClient, timeout: Duration) -> Option<String> {
    let millis = c_int::try_from(timeout.as_millis()).unwrap_or(c_int::MAX);
    // SAFETY: the client is alive; the string is ours, freed after it was copied.
    unsafe {
        let id = sys::rd_kafka_clusterid(client.ptr(), millis);
        if id.is_null() {
            return None;
        }
        let copied = text(id);
        sys::rd_kafka_mem_free(client.ptr(), id.cast());
        Some(copied)
    }
}

/// Sends a request, waits for its reply, and reads it.
fn call<T>(
    client: &NativeClient,
    op: Op,
    timeout: Duration,
    send: impl FnOnce(*const Options, *mut RawQueue),
    read: impl FnOnce(*mut RawEvent) -> Result<T, Failure>,
) -> Result<T, Failure> {
    /// librdkafka answers itself when the time is up; this is for that answer.
    const GRACE: Duration = Duration::from_secs(5);

    let millis = c_int::try_from(timeout.as_millis()).unwrap_or(c_int::MAX);
    let queue = Queue::new(client).ok_or_else(no_reply)?;
    // SAFETY: the client is alive; the options are ours, destroyed after the request has copied
    // them. Setting a timeout fails for operations that have none, which does not matter.
    unsafe {
        let options = sys::rd_kafka_AdminOptions_new(client.ptr(), op);
        sys::rd_kafka_AdminOptions_set_request_timeout(options, millis, ptr::null_mut(), 0);
        sys::rd_kafka_AdminOptions_set_operation_timeout(options, millis, ptr::null_mut(), 0);
        send(options, queue.pointer.as_ptr());
        sys::rd_kafka_AdminOptions_destroy(options);
    }
    let event: Event = queue.poll(timeout.saturating_add(GRACE)).ok_or_else(no_reply)?;
    match event.failure() {
        Some(failure) => Err(failure),
        None => read(event.pointer.as_ptr()),
    }
}

/// The first error among the results of a request about topics.
///
/// # Safety
/// `results` points to `len` results.
unsafe fn check_topics(
    results: *mut *const sys::rd_kafka_topic_result_t,
    len: usize,
) -> Result<(), Failure> {
    for i in 0..len {
        // SAFETY: `i` is below `len`, and the result lends its text.
        unsafe {
            let result = *results.add(i);
            if let Some(code) = Code(rd_kafka_topic_result_error(result)).failure() {
                let message = text(sys::rd_kafka_topic_result_error_string(result));
                return Err(Failure { code, message });
            }
        }
    }
    Ok(())
}

/// The error that a result lends, if there is one.
///
/// # Safety
/// `error` is null or points to an error.
unsafe fn copy_error(error: *const sys::rd_kafka_error_t) -> Result<(), Failure> {
    if error.is_null() {
        return Ok(());
    }
    // SAFETY: not null, and the rest is the caller's promise.
    unsafe {
        let code = Code(rd_kafka_error_code(error));
        let message = text(sys::rd_kafka_error_string(error));
        code.failure().map_or(Ok(()), |code| Err(Failure { code, message }))
    }
}

/// Copies the description of a member.
///
/// # Safety
/// `member` points to a member.
unsafe fn copy_member(member: *const sys::rd_kafka_MemberDescription_t) -> MemberDescription {
    // SAFETY: the member lends its strings and its assignment, where it has one.
    unsafe {
        let instance = text(sys::rd_kafka_MemberDescription_group_instance_id(member));
        let assignment = sys::rd_kafka_MemberDescription_assignment(member);
        let partitions = if assignment.is_null() {
            Vec::new()
        } else {
            copy_list(sys::rd_kafka_MemberAssignment_partitions(assignment))
        };
        let mut assignment: Vec<_> =
            partitions.into_iter().map(|listed| listed.topic_partition).collect();
        assignment.sort();
        MemberDescription {
            member_id: text(sys::rd_kafka_MemberDescription_consumer_id(member)),
            group_instance_id: Some(instance).filter(|instance| !instance.is_empty()),
            client_id: text(sys::rd_kafka_MemberDescription_client_id(member)),
            assignment,
        }
    }
}

fn to_state(state: sys::rd_kafka_consumer_group_state_t) -> GroupState {
    // SAFETY: the name is static.
    GroupState::from_name(&unsafe { text(sys::rd_kafka_consumer_group_state_name(state)) })
}

fn to_c(name: &str) -> Result<CString, Failure> {
    CString::new(name).map_err(|_| invalid(format!("{name:?} contains a NUL byte")))
}

fn invalid(message: String) -> Failure {
    Failure { code: Code::from(rdkafka::error::RDKafkaErrorCode::InvalidArgument), message }
}

fn no_reply() -> Failure {
    let code = Code::from(rdkafka::error::RDKafkaErrorCode::OperationTimedOut);
    Failure { code, message: "no reply came".to_owned() }
}

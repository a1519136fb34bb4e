//! What messages say, in a few words for people: the partitions, the records, the errors.

use bus_core::{ErrorKind, TopicPartition};

use crate::event::{CarriedBatch, value_text};
use crate::node::Input;
use crate::protocol::batch::{BatchRecord, RecordBatch};
use crate::protocol::{Request, Response, fetch};

use super::Event;

/// What a request asks for.
pub(super) fn request_detail(request: &Request) -> String {
    match request {
        Request::Produce(request) => listed(&request.partitions, |p| {
            format!("{} {}", p.topic_partition, listed_values(&p.batch))
        }),
        Request::Fetch(request) => {
            listed(&request.partitions, |p| format!("{}@{}", p.topic_partition, p.offset))
        }
        Request::ListOffsets(request) => {
            listed(&request.partitions, |p| p.topic_partition.to_string())
        }
        Request::FindCoordinator(request) => request.key.to_string(),
        Request::JoinGroup(request) => format!("{} {}", request.group_id, request.member_id),
        Request::SyncGroup(request) => {
            format!("{} generation {}", request.group_id, request.generation)
        }
        Request::Heartbeat(request) => {
            format!("{} generation {}", request.group_id, request.generation)
        }
        Request::LeaveGroup(request) => request.group_id.to_string(),
        Request::OffsetCommit(request) => {
            listed(&request.partitions, |p| format!("{}@{}", p.topic_partition, p.offset))
        }
        Request::OffsetFetch(request) => request.group_id.to_string(),
        Request::InitProducerId(request) => {
            let id = request.transactional.as_ref().map(|of| of.transactional_id.to_string());
            id.unwrap_or_default()
        }
        Request::AddPartitionsToTxn(request) => listed(&request.partitions, ToString::to_string),
        Request::AddOffsetsToTxn(request) => request.group_id.to_string(),
        Request::TxnOffsetCommit(request) => {
            listed(&request.partitions, |p| format!("{}@{}", p.topic_partition, p.offset))
        }
        Request::EndTxn(request) => {
            let end = if request.is_commit { "commit" } else { "abort" };
            format!("{} {end}", request.transactional_id)
        }
        Request::WriteTxnMarkers(request) => listed(&request.markers, |marker| {
            format!("{:?} {}", marker.control, listed(&marker.partitions, ToString::to_string))
        }),
        Request::OffsetForLeaderEpoch(request) => listed(&request.partitions, |p| {
            format!("{} epoch {}", p.topic_partition, p.leader_epoch)
        }),
        Request::AlterPartition(request) => listed(&request.partitions, |p| {
            let brokers = p.in_sync_replicas.iter().map(|(broker, _)| *broker).collect::<Vec<_>>();
            format!("{} in sync {brokers:?}", p.topic_partition)
        }),
        Request::CreateTopics(request) => listed(&request.topics, |topic| topic.topic.to_string()),
        Request::DeleteTopics(request) => listed(&request.topics, ToString::to_string),
        Request::CreatePartitions(request) => {
            listed(&request.topics, |(topic, count)| format!("{topic} to {count}"))
        }
        Request::Metadata(_)
        | Request::ListGroups(_)
        | Request::DescribeGroups(_)
        | Request::DeleteGroups(_)
        | Request::RegisterBroker(_)
        | Request::BrokerHeartbeat(_)
        | Request::FetchMetadataLog(_) => String::new(),
    }
}

/// What a response answers.
pub(super) fn response_detail(response: &Response) -> String {
    match response {
        Response::Produce(response) => listed(&response.partitions, |p| match &p.result {
            Ok(appended) => format!("{}@{}", p.topic_partition, appended.base_offset),
            Err(error) => format!("{} {error}", p.topic_partition),
        }),
        Response::Fetch(response) => listed(&response.partitions, fetched),
        Response::FindCoordinator(response) => outcome(&response.result, |b| format!("broker-{b}")),
        Response::JoinGroup(response) => {
            outcome(&response.result, |joined| format!("generation {}", joined.generation))
        }
        Response::SyncGroup(response) => outcome(&response.result, |_| String::new()),
        Response::Heartbeat(response) => error(response.error),
        Response::OffsetCommit(response) => errors(&response.partitions),
        Response::InitProducerId(response) => session(&response.result),
        Response::AddPartitionsToTxn(response) => errors(&response.partitions),
        Response::TxnOffsetCommit(response) => errors(&response.partitions),
        Response::EndTxn(response) => session(&response.result),
        Response::OffsetForLeaderEpoch(response) => {
            listed(&response.partitions, |p| match &p.result {
                Ok(Some(end)) => format!("{} ends at {}", p.topic_partition, end.end_offset),
                Ok(None) => format!("{} unknown", p.topic_partition),
                Err(error) => format!("{} {error}", p.topic_partition),
            })
        }
        Response::BrokerHeartbeat(response) => match response.error {
            None if response.is_fenced => "fenced".to_owned(),
            other => error(other),
        },
        _ => String::new(),
    }
}

/// What a message carries to a leader.
pub(super) fn batches(event: &Event) -> Vec<CarriedBatch> {
    let Event::Input { input: Input::Request { request, .. }, .. } = event else {
        return Vec::new();
    };
    let Request::Produce(request) = &**request else { return Vec::new() };
    let batches = request.partitions.iter().map(|partition| {
        let batch = &partition.batch;
        CarriedBatch {
            topic_partition: partition.topic_partition.clone(),
            values: batch.records.iter().map(value).collect(),
            transaction_of: batch
                .producer
                .filter(|_| batch.is_transactional)
                .map(|producer| producer.producer_id),
            digest: batch.digest,
        }
    });
    batches.collect()
}

fn fetched(partition: &fetch::PartitionResponse) -> String {
    let name = &partition.topic_partition;
    match &partition.result {
        Ok(fetched) if fetched.diverging_epoch.is_some() => format!("{name} diverges"),
        Ok(fetched) => match (fetched.batches.first(), fetched.batches.last()) {
            (Some(first), Some(last)) => {
                let (first, last) = (first.base_offset, last.next_offset() - 1);
                if first < last {
                    format!("{name}@{first}..{last}")
                } else {
                    format!("{name}@{first}")
                }
            }
            _ => format!("{name} nothing"),
        },
        Err(error) => format!("{name} {error}"),
    }
}

/// The values of a batch, as text: the first three, and how many there are.
fn listed_values(batch: &RecordBatch) -> String {
    let first: Vec<String> = batch.records.iter().take(MOST_VALUES).map(value).collect();
    let first = first.join(", ");
    match batch.records.len() {
        count if count > MOST_VALUES => format!("[{first}, … ×{count}]"),
        _ => format!("[{first}]"),
    }
}

/// The beginning of a value, as text.
fn value(record: &BatchRecord) -> String {
    value_text(record.value.as_deref().map(|value| {
        let short = String::from_utf8_lossy(&value[..value.len().min(MOST_BYTES)]);
        let more = if value.len() > MOST_BYTES { "…" } else { "" };
        format!("{short}{more}")
    }))
}

fn listed<T>(items: &[T], describe: impl Fn(&T) -> String) -> String {
    let mut text = items.iter().take(MOST_ITEMS).map(describe).collect::<Vec<_>>().join(", ");
    if items.len() > MOST_ITEMS {
        text.push_str(", …");
    }
    text
}

fn outcome<T>(result: &Result<T, ErrorKind>, describe: impl Fn(&T) -> String) -> String {
    match result {
        Ok(value) => describe(value),
        Err(error) => error.to_string(),
    }
}

fn session<A, B>(result: &Result<(A, B), ErrorKind>) -> String
where
    A: std::fmt::Display,
    B: std::fmt::Display,
{
    outcome(result, |(id, epoch)| format!("producer {id}/{epoch}"))
}

fn error(error: Option<ErrorKind>) -> String {
    error.map(|error| error.to_string()).unwrap_or_default()
}

fn errors(partitions: &[(TopicPartition, Option<ErrorKind>)]) -> String {
    let failed = partitions
        .iter()
        .filter_map(|(partition, error)| error.map(|error| format!("{partition} {error}")));
    listed(&failed.collect::<Vec<_>>(), Clone::clone)
}

/// How many values, and bytes of each, are told.
const MOST_VALUES: usize = 3;
const MOST_BYTES: usize = 24;
/// How many partitions are told.
const MOST_ITEMS: usize = 12;

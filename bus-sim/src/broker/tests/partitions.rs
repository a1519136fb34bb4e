//! Produce, Fetch, ListOffsets, InitProducerId.

use std::time::Duration;

use bus_core::{Acks, ErrorKind, Headers, IsolationLevel, Timestamp, TopicPartition};

use super::{Cluster, batch, fetch_request, produce_request, response_of, stamped};
use crate::config::SimConfig;
use crate::fact::Fact;
use crate::mutation::Mutation;
use crate::protocol::batch::{RecordBatch, StoredTimestamp};
use crate::protocol::list_offsets::{self, OffsetSpec};
use crate::protocol::{Request, init_producer_id};
use crate::time::SimTime;

#[test]
fn what_was_produced_is_fetched() {
    let (mut cluster, connection) = Cluster::with_topic();
    let first = cluster.produce(connection, batch(&[1, 2])).unwrap();
    let second = cluster.produce(connection, batch(&[3])).unwrap();
    assert_eq!((first.base_offset, second.base_offset), (0, 2));
    let fetched = cluster.fetch(connection, 1).unwrap();
    assert_eq!(fetched.high_watermark, 3);
    assert_eq!(fetched.batches.iter().map(|b| b.base_offset).collect::<Vec<_>>(), [0, 2]);
    assert!(cluster.fetch(connection, 3).unwrap().batches.is_empty());
    assert_eq!(cluster.fetch(connection, 4).unwrap_err(), ErrorKind::OffsetOutOfRange);
}

#[test]
fn a_fetch_waits_for_an_append() {
    let (mut cluster, reader) = Cluster::with_topic();
    let writer = cluster.connect(1);
    let fetch = cluster.send(reader, fetch_request("orders", 0, Duration::from_secs(1)));
    assert!(cluster.take(reader, fetch).is_none());
    cluster.produce(writer, batch(&[1])).unwrap();
    let response = response_of!(Fetch, cluster.take(reader, fetch).unwrap());
    assert_eq!(response.partitions[0].result.as_ref().unwrap().batches.len(), 1);
}

#[test]
fn a_fetch_ends_after_its_wait() {
    let (mut cluster, reader) = Cluster::with_topic();
    let fetch = cluster.send(reader, fetch_request("orders", 0, Duration::from_secs(1)));
    cluster.advance(Duration::from_millis(999));
    assert!(cluster.take(reader, fetch).is_none());
    cluster.advance(Duration::from_millis(1));
    let response = response_of!(Fetch, cluster.take(reader, fetch).unwrap());
    assert!(response.partitions[0].result.as_ref().unwrap().batches.is_empty());
}

#[test]
fn a_fetch_waits_for_its_min_bytes() {
    let (mut cluster, reader) = Cluster::with_topic();
    let writer = cluster.connect(1);
    let one = batch(&[1]);
    let Request::Fetch(mut request) = fetch_request("orders", 0, Duration::from_secs(1)) else {
        unreachable!()
    };
    request.min_bytes = one.size + 1;
    let fetch = cluster.send(reader, Request::Fetch(request));
    cluster.produce(writer, one.clone()).unwrap();
    assert!(cluster.take(reader, fetch).is_none());
    cluster.produce(writer, one).unwrap();
    let response = response_of!(Fetch, cluster.take(reader, fetch).unwrap());
    assert_eq!(response.partitions[0].result.as_ref().unwrap().batches.len(), 2);
}

#[test]
fn a_fetch_of_a_closed_connection_is_dropped() {
    let (mut cluster, writer) = Cluster::with_topic();
    let reader = cluster.connect(1);
    cluster.send(reader, fetch_request("orders", 0, Duration::from_secs(1)));
    cluster.close(reader);
    cluster.produce(writer, batch(&[1])).unwrap();
    assert!(cluster.brokers[&1].0.fetches.is_empty());
}

#[test]
fn requests_of_a_connection_are_handled_one_at_a_time() {
    let (mut cluster, connection) = Cluster::with_topic();
    let fetch = cluster.send(connection, fetch_request("orders", 0, Duration::from_secs(1)));
    let produce = cluster.send(connection, produce_request(Acks::All, "orders", batch(&[1])));
    assert!(cluster.take(connection, produce).is_none(), "it is behind the fetch");
    cluster.advance(Duration::from_secs(1));
    let response = response_of!(Fetch, cluster.take(connection, fetch).unwrap());
    assert!(response.partitions[0].result.as_ref().unwrap().batches.is_empty());
    assert!(cluster.take(connection, produce).is_some());
}

#[test]
fn a_duplicate_batch_is_answered_with_its_offset() {
    let (mut cluster, connection) = Cluster::with_topic();
    let batch = batch(&[1, 2]);
    let first = cluster.produce(connection, stamped(&batch, 0)).unwrap();
    let again = cluster.produce(connection, stamped(&batch, 0)).unwrap();
    assert_eq!(first.base_offset, again.base_offset);
    assert_eq!(cluster.fetch(connection, 0).unwrap().high_watermark, 2);
    assert!(cluster.facts.iter().any(|fact| matches!(fact, Fact::DuplicateBatch { .. })));
    let gap = cluster.produce(connection, stamped(&batch, 3));
    assert_eq!(gap.unwrap_err(), ErrorKind::OutOfOrderSequenceNumber);
}

#[test]
fn duplicates_are_known_after_a_crash() {
    let (mut cluster, connection) = Cluster::with_topic();
    cluster.produce(connection, stamped(&batch(&[1]), 0)).unwrap();
    cluster.crash(1);
    cluster.restart(1);
    let connection = cluster.connect(1);
    let again = cluster.produce(connection, stamped(&batch(&[1]), 0)).unwrap();
    assert_eq!(again.base_offset, 0);
    assert_eq!(cluster.fetch(connection, 0).unwrap().high_watermark, 1);
}

#[test]
fn an_error_without_acks_closes_the_connection() {
    let (mut cluster, connection) = Cluster::with_topic();
    let good = cluster.send(connection, produce_request(Acks::None, "orders", batch(&[1])));
    assert!(cluster.take(connection, good).is_none());
    assert_eq!(cluster.fetch(connection, 0).unwrap().high_watermark, 1);
    cluster.send(connection, produce_request(Acks::None, "nowhere", batch(&[1])));
    assert!(cluster.closed.contains(&connection));
}

#[test]
fn appends_are_checked() {
    let (mut cluster, connection) = Cluster::with_topic();
    let config = [("max.message.bytes", "100")];
    assert_eq!(cluster.create_topic(connection, "small", 1, &config).error, None);
    let compacted = [("cleanup.policy", "compact")];
    assert_eq!(cluster.create_topic(connection, "compacted", 1, &compacted).error, None);
    let far = cluster.now.timestamp().as_millis() + 3_600_001;
    for (topic, batch, error) in [
        ("small", batch(&[1; 20]), ErrorKind::MessageTooLarge),
        ("compacted", batch(&[1]), ErrorKind::InvalidRecord),
        ("orders", batch(&[far]), ErrorKind::InvalidTimestamp),
        ("__consumer_offsets", batch(&[1]), ErrorKind::InvalidTopic),
        ("nowhere", batch(&[1]), ErrorKind::UnknownTopicOrPartition),
    ] {
        let response = cluster.call(connection, produce_request(Acks::All, topic, batch));
        let result = response_of!(Produce, response).partitions.remove(0).result;
        assert_eq!(result.unwrap_err(), error, "{topic}");
    }
}

#[test]
fn log_append_time_is_the_leaders() {
    let (mut cluster, connection) = Cluster::with_topic();
    let config = [("message.timestamp.type", "LogAppendTime")];
    assert_eq!(cluster.create_topic(connection, "stamped", 1, &config).error, None);
    cluster.advance(Duration::from_secs(5));
    let request = produce_request(Acks::All, "stamped", batch(&[1, 2]));
    let appended =
        response_of!(Produce, cluster.call(connection, request)).partitions.remove(0).result;
    let now = cluster.now.timestamp();
    assert_eq!(appended.unwrap().log_append_time, Some(now));
    let fetch = cluster.call(connection, fetch_request("stamped", 0, Duration::ZERO));
    let fetched = response_of!(Fetch, fetch).partitions.remove(0).result.unwrap();
    assert_eq!(fetched.batches[0].timestamp, StoredTimestamp::LogAppendTime(now));
}

#[test]
fn the_leader_epoch_is_checked() {
    let (mut cluster, connection) = Cluster::with_topic();
    for (epoch, error) in [(-1, ErrorKind::FencedLeaderEpoch), (1, ErrorKind::UnknownLeaderEpoch)] {
        let Request::Fetch(mut request) = fetch_request("orders", 0, Duration::from_secs(1)) else {
            unreachable!()
        };
        request.partitions[0].current_leader_epoch = Some(epoch);
        let response = response_of!(Fetch, cluster.call(connection, Request::Fetch(request)));
        assert_eq!(response.partitions[0].result.as_ref().unwrap_err(), &error);
    }
}

#[test]
fn offsets_are_found_by_time_and_at_the_ends() {
    let (mut cluster, connection) = Cluster::with_topic();
    cluster.produce(connection, batch(&[10, 20])).unwrap();
    cluster.produce(connection, batch(&[30])).unwrap();
    let time = |millis| OffsetSpec::Timestamp(Timestamp::from_millis(millis));
    for (spec, found) in [
        (OffsetSpec::Earliest, Some(0)),
        (OffsetSpec::Latest, Some(3)),
        (time(20), Some(1)),
        (time(21), Some(2)),
        (time(31), None),
    ] {
        let request = Request::ListOffsets(list_offsets::Request {
            replica: None,
            isolation_level: IsolationLevel::ReadUncommitted,
            partitions: vec![list_offsets::PartitionRequest {
                topic_partition: TopicPartition::new("orders", 0),
                current_leader_epoch: Some(0),
                spec,
            }],
        });
        let response = response_of!(ListOffsets, cluster.call(connection, request));
        assert_eq!(response.partitions[0].result, Ok(found), "{spec:?}");
    }
}

#[test]
fn producer_ids_are_unique_over_brokers_and_crashes() {
    let mut cluster = Cluster::new(SimConfig { brokers: 2, ..Default::default() });
    let mut ids = Vec::new();
    for crashes in 0..2 {
        for broker in [1, 2] {
            let connection = cluster.connect(broker);
            for _ in 0..2 {
                let request = Request::InitProducerId(init_producer_id::Request {
                    transactional: None,
                    current: None,
                });
                let response = response_of!(InitProducerId, cluster.call(connection, request));
                ids.push(response.result.unwrap().0);
            }
        }
        if crashes == 0 {
            cluster.crash(1);
            cluster.restart(1);
        }
    }
    let count = ids.len();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), count);
}

#[test]
fn mutations_break_what_they_say() {
    let with = |mutation| {
        let config = SimConfig { mutation: Some(mutation), ..Default::default() };
        let mut cluster = Cluster::new(config);
        let connection = cluster.connect(1);
        cluster.create_topic(connection, "orders", 1, &[]);
        (cluster, connection)
    };
    let (mut cluster, connection) = with(Mutation::AckedWithWrongOffset);
    assert_eq!(cluster.produce(connection, batch(&[1])).unwrap().base_offset, 1);
    let (mut cluster, connection) = with(Mutation::SequenceIgnored);
    cluster.produce(connection, stamped(&batch(&[1]), 0)).unwrap();
    cluster.produce(connection, stamped(&batch(&[1]), 0)).unwrap();
    assert_eq!(cluster.fetch(connection, 0).unwrap().high_watermark, 2);
    let (mut cluster, connection) = with(Mutation::DuplicateAnsweredAsError);
    cluster.produce(connection, stamped(&batch(&[1]), 0)).unwrap();
    let again = cluster.produce(connection, stamped(&batch(&[1]), 0));
    assert_eq!(again.unwrap_err(), ErrorKind::OutOfOrderSequenceNumber);
    let (mut cluster, connection) = with(Mutation::DeliveredTwice);
    cluster.produce(connection, batch(&[1])).unwrap();
    assert_eq!(cluster.fetch(connection, 0).unwrap().batches.len(), 2);
    let stored = |mutation| {
        let (mut cluster, connection) = with(mutation);
        let mut record = batch(&[1]).records[0].clone();
        record.value = None;
        record.headers = Headers::new().with("trace", "a");
        let mut long = record.clone();
        long.value = Some(vec![0; 65_537].into());
        cluster.produce(connection, RecordBatch::new(None, vec![record, long])).unwrap();
        cluster.fetch(connection, 0).unwrap().batches[0].batch.records.to_vec()
    };
    let start = SimTime::ZERO.timestamp();
    assert_eq!(stored(Mutation::TimestampLost)[0].timestamp, start);
    assert!(stored(Mutation::HeadersLost)[0].headers.is_empty());
    assert_eq!(stored(Mutation::NullBecomesEmpty)[0].value.as_deref(), Some(&[][..]));
    assert_eq!(stored(Mutation::PayloadCut)[1].value.as_ref().unwrap().len(), 65_536);
}

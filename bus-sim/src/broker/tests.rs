//! Tests of the broker through its front door.

use bus_core::{Headers, Timestamp};

use crate::protocol::batch::{BatchRecord, RecordBatch};

/// A batch of records with these timestamps.
pub(super) fn batch(times: &[i64]) -> RecordBatch {
    let record = |millis: &i64| BatchRecord {
        timestamp: Timestamp::from_millis(*millis),
        key: None,
        value: Some("v".into()),
        headers: Headers::new(),
    };
    RecordBatch::new(None, times.iter().map(record).collect())
}

//! The outbox: events that are to be published, written in the transaction that they come from;
//! and the relay that publishes them, each at least once.

use std::time::Duration;

use bus_core::{Bus, Envelope, Json, ProducerConfig, ProducerExt, Result};
use serde::{Deserialize, Serialize};

use super::order::OrderExportRequestedEvent;
use super::{OUTBOX_RELAY, TOPIC, point};
use crate::crash_points::CrashPoints;
use crate::lifecycle::Lifecycle;
use crate::store::{Row, Store};

/// An event that is to be published. It is deleted once that is done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutboxRow {
    /// The event, with the id that it keeps however often it is sent.
    pub event: Envelope<OrderExportRequestedEvent>,
}

impl Row for OutboxRow {
    const TABLE: &'static str = "outbox";

    /// Ids of version 7 sort by time, so the relay publishes in about the order of the commits.
    fn key(&self) -> String {
        self.event.id.to_string()
    }
}

/// Publishes what is in the outbox, until the application stops.
///
/// A crash between publishing and deleting publishes the row again, and so does a delete whose
/// outcome is not known, if it did not happen: whoever reads the topic must
/// recognize the event by its id.
pub(super) async fn relay(
    bus: Bus,
    store: Store,
    crash_points: CrashPoints,
    life: Lifecycle,
) -> Result<()> {
    let producer = bus.producer(ProducerConfig::default())?;
    while !life.is_stopping() {
        let rows = store.all::<OutboxRow>()?;
        if rows.is_empty() {
            life.unless_stopping(tokio::time::sleep(PAUSE)).await;
            continue;
        }
        crash_points.reach(OUTBOX_RELAY, point::READ_NOT_PUBLISHED).await;
        let records = rows.iter().map(|row| row.event.to_record::<Json>(TOPIC));
        let outcomes = producer.send_all(records.collect::<Result<Vec<_>>>()?).await;
        crash_points.reach(OUTBOX_RELAY, point::PUBLISHED_NOT_DELETED).await;
        let mut transaction = store.begin();
        let mut failure = None;
        for (row, outcome) in rows.iter().zip(outcomes) {
            match outcome {
                Ok(_) => transaction.delete::<OutboxRow>(&row.key()),
                // The row stays for the next round.
                Err(error) => failure = Some(error),
            }
        }
        transaction.commit().await?;
        if let Some(error) = failure {
            return Err(error);
        }
    }
    producer.close(CLOSE_TIMEOUT).await
}

/// How long the relay waits when the outbox is empty.
const PAUSE: Duration = Duration::from_millis(20);
const CLOSE_TIMEOUT: Duration = Duration::from_secs(10);

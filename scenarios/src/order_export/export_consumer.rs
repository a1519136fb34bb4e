//! The consumer of `order-export`: hands each event to the use case, and commits what is done.

use std::time::Duration;

use bus_core::{
    Bus, Consumer, ConsumerConfig, ConsumerExt, Envelope, ErrorKind, Json, Record, Recovery,
    Result, Subscription, Uuid,
};

use super::order::OrderExportRequestedEvent;
use super::platform::{FakeExternalPlatformClient, IdempotencyKey, Receipt};
use super::{GROUP, TOPIC, point};
use crate::catalogue::Form;
use crate::crash_points::CrashPoints;
use crate::lifecycle::Lifecycle;

/// Exports orders to the external platform.
#[derive(Clone, Debug)]
pub struct OrderExportUseCase {
    platform: FakeExternalPlatformClient,
    form: Form,
}

impl OrderExportUseCase {
    /// The use case in one of its forms.
    pub const fn new(platform: FakeExternalPlatformClient, form: Form) -> Self {
        Self { platform, form }
    }

    /// Exports an order. In the sound form the platform knows the event by its id, so exporting it
    /// again changes nothing.
    pub async fn export(&self, event_id: Uuid, order: &OrderExportRequestedEvent) -> Receipt {
        let key = match self.form {
            Form::AsWritten => IdempotencyKey::None,
            Form::Sound => IdempotencyKey::EventId(event_id),
        };
        self.platform.send_order(order, key).await
    }
}

/// One consumer of the group, with the name of its process.
#[derive(Clone, Debug)]
pub(super) struct ExportConsumer {
    pub(super) name: String,
    pub(super) use_case: OrderExportUseCase,
    pub(super) crash_points: CrashPoints,
}

impl ExportConsumer {
    /// Consumes until the application stops.
    pub(super) async fn run(self, bus: Bus, life: Lifecycle) -> Result<()> {
        let consumer = bus.consumer(ConsumerConfig {
            client_id: Some(self.name.clone()),
            // A consumer that crashed is missed after this, and its partitions move.
            session_timeout: Duration::from_secs(10),
            heartbeat_interval: Duration::from_secs(1),
            // Told by a broker that is behind that the topic does not exist, it asks again only
            // then; the default of 5 minutes was found to be a stall.
            metadata_refresh_interval: Duration::from_secs(30),
            ..ConsumerConfig::in_group(GROUP)
        })?;
        consumer.subscribe(Subscription::topics([TOPIC]))?;
        while let Some(polled) = life.unless_stopping(consumer.poll_records(POLL_TIMEOUT)).await {
            let records = match polled {
                Ok(records) => records,
                // The next poll joins the group again, or finds the broker back.
                Err(error) if matches!(error.recovery(), Recovery::Rejoin | Recovery::Retry) => {
                    tracing::info!(consumer = %self.name, %error, "polls again");
                    life.unless_stopping(tokio::time::sleep(PAUSE)).await;
                    continue;
                }
                Err(error) => return Err(error),
            };
            for record in &records {
                self.handle(&*consumer, record).await?;
            }
        }
        consumer.close().await
    }

    async fn handle(&self, consumer: &dyn Consumer, record: &Record) -> Result<()> {
        self.reach(point::RECEIVED_NOT_EXPORTED).await;
        match Envelope::<OrderExportRequestedEvent>::from_record::<Json>(record) {
            Ok(event) => {
                let receipt = self.use_case.export(event.id, &event.data).await;
                tracing::debug!(consumer = %self.name, order = %event.data.order_id, ?receipt);
            }
            // It stays in the topic, and no retry will make it readable.
            Err(error) if error.kind() == ErrorKind::Serialization => {
                tracing::error!(consumer = %self.name, %error, "skips a record");
            }
            Err(error) => return Err(error),
        }
        self.reach(point::EXPORTED_NOT_COMMITTED).await;
        match consumer.commit_record(record).await {
            Ok(()) => {}
            // The record comes again, here or at the member that has the partition now.
            Err(error) if error.recovery() != Recovery::Fix => {
                tracing::info!(consumer = %self.name, %error, "commit failed");
            }
            Err(error) => return Err(error),
        }
        self.reach(point::COMMITTED).await;
        Ok(())
    }

    async fn reach(&self, point: &str) {
        self.crash_points.reach(&self.name, point).await;
    }
}

const POLL_TIMEOUT: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_millis(100);

//! The order service: confirms orders. Here the two forms part.

use std::sync::Arc;

use bus_core::{Bus, Envelope, Json, Producer, ProducerConfig, Result};

use super::order::{Order, OrderExportRequestedEvent, OrderId};
use super::outbox::OutboxRow;
use super::requests::ConfirmRequests;
use super::{ORDER_SERVICE, TOPIC, point};
use crate::catalogue::Form;
use crate::crash_points::CrashPoints;
use crate::lifecycle::Lifecycle;
use crate::store::Store;

/// Confirms orders, one at a time.
#[derive(Debug)]
pub struct OrderService {
    bus: Bus,
    store: Store,
    publication: Publication,
    crash_points: CrashPoints,
}

/// The decision at fault: how the event of a confirmed order gets to the topic.
#[derive(Debug)]
enum Publication {
    /// As written (`@TransactionalEventListener(phase = AFTER_COMMIT)`): the service sends it once
    /// the database has committed. Between the two it is nowhere but in the memory of the process.
    AfterCommit(Arc<dyn Producer>),
    /// Sound: a row in the transaction that confirms the order. The relay sends it.
    Outbox,
}

/// What came of a request to confirm an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Confirmation {
    /// It is confirmed now.
    Confirmed,
    /// It was confirmed before; nothing is done twice.
    AlreadyConfirmed,
    /// There is no such order.
    NotFound,
}

impl OrderService {
    /// The service in one of its forms.
    ///
    /// # Errors
    /// Those of the producer.
    pub fn new(bus: Bus, store: Store, form: Form, crash_points: CrashPoints) -> Result<Self> {
        let publication = match form {
            Form::AsWritten => Publication::AfterCommit(bus.producer(ProducerConfig::default())?),
            Form::Sound => Publication::Outbox,
        };
        Ok(Self { bus, store, publication, crash_points })
    }

    /// Confirms an order, and has it exported.
    ///
    /// If the outcome of the commit is not known, the customer has no answer and asks again; and
    /// whoever asks again looks first how far the order is. As written, that is the bug once more:
    /// it is confirmed, and who did so did not come to publish it.
    ///
    /// # Errors
    /// Those of the database, and as written those of the producer.
    pub async fn confirm_order(&self, id: &OrderId) -> Result<Confirmation> {
        let mut transaction = self.store.begin();
        let Some(mut order) = transaction.find::<Order>(id)? else {
            return Ok(Confirmation::NotFound);
        };
        if order.is_confirmed() {
            return Ok(Confirmation::AlreadyConfirmed);
        }
        order.mark_confirmed(self.bus.now());
        transaction.update(&order)?;
        let event = OrderExportRequestedEvent::from(&order);
        let event = Envelope::new(&self.bus, "/order-service", event);
        if let Publication::Outbox = self.publication {
            transaction.insert(&OutboxRow { event: event.clone() })?;
        }
        self.reach(point::NOT_COMMITTED).await;
        transaction.commit().await?;
        match &self.publication {
            Publication::AfterCommit(producer) => {
                self.reach(point::COMMITTED_NOT_PUBLISHED).await;
                producer.send(event.to_record::<Json>(TOPIC)?).await?;
                self.reach(point::PUBLISHED_NOT_ANSWERED).await;
            }
            Publication::Outbox => self.reach(point::COMMITTED_NOT_ANSWERED).await,
        }
        Ok(Confirmation::Confirmed)
    }

    async fn reach(&self, point: &str) {
        self.crash_points.reach(ORDER_SERVICE, point).await;
    }
}

/// Answers all requests to confirm orders.
pub(super) async fn serve(
    service: OrderService,
    requests: ConfirmRequests,
    life: Lifecycle,
) -> Result<()> {
    while let Some(order) = requests.next() {
        let Some(confirmed) = life.unless_stopping(service.confirm_order(&order)).await else {
            break;
        };
        let confirmation = confirmed?;
        tracing::debug!(%order, ?confirmation, "answered");
        requests.answer(&order);
    }
    Ok(())
}

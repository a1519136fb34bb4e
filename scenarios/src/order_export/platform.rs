//! The external platform: another company's system, which keeps a ledger of what it received.
//!
//! A fake. It lives outside of every process, as the real one would.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bus_core::Uuid;
use parking_lot::Mutex;

use super::order::{OrderExportRequestedEvent, OrderId};

/// The platform, and the client of it. Cheap to clone; its clones are one platform.
#[derive(Clone, Debug, Default)]
pub struct FakeExternalPlatformClient {
    ledger: Arc<Mutex<Ledger>>,
}

/// Says that two calls are one. Without it, the platform takes each call for another export.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdempotencyKey {
    /// The call has none.
    None,
    /// The id of the event that is exported.
    EventId(Uuid),
}

/// What the platform answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Receipt {
    /// It is in the ledger now.
    Received,
    /// It was there before: a call with the same key had come.
    AlreadyReceived,
}

#[derive(Debug, Default)]
struct Ledger {
    received: Vec<OrderId>,
    keys: BTreeSet<Uuid>,
}

impl FakeExternalPlatformClient {
    /// Sends an order to the platform, and waits for its answer.
    pub async fn send_order(
        &self,
        order: &OrderExportRequestedEvent,
        key: IdempotencyKey,
    ) -> Receipt {
        tokio::time::sleep(ONE_WAY).await;
        let receipt = self.ledger.lock().receive(order, key);
        tokio::time::sleep(ONE_WAY).await;
        receipt
    }

    /// The orders that the platform has received, in the order of their arrival; one twice if it
    /// was received twice.
    pub fn received_order_ids(&self) -> Vec<OrderId> {
        self.ledger.lock().received.clone()
    }
}

impl Ledger {
    fn receive(&mut self, order: &OrderExportRequestedEvent, key: IdempotencyKey) -> Receipt {
        if let IdempotencyKey::EventId(id) = key
            && !self.keys.insert(id)
        {
            return Receipt::AlreadyReceived;
        }
        self.received.push(order.order_id.clone());
        Receipt::Received
    }
}

/// How long a request or a response is under way.
const ONE_WAY: Duration = Duration::from_millis(2);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn calls_with_one_key_are_one_export() {
        let platform = FakeExternalPlatformClient::default();
        let order = OrderExportRequestedEvent { order_id: "order-1".to_owned(), amount: 1 };
        let key = IdempotencyKey::EventId(Uuid::nil());
        assert_eq!(platform.send_order(&order, key).await, Receipt::Received);
        assert_eq!(platform.send_order(&order, key).await, Receipt::AlreadyReceived);
        assert_eq!(platform.send_order(&order, IdempotencyKey::None).await, Receipt::Received);
        assert_eq!(platform.received_order_ids(), ["order-1", "order-1"]);
    }
}

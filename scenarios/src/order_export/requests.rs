//! The customers: each asks for one order to be confirmed, and asks again until it gets an answer.
//!
//! They live outside of every process: a crash of the order service does not make them forget.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;

use super::order::OrderId;

/// The requests that have no answer yet. Cheap to clone; its clones are one list.
#[derive(Clone, Debug, Default)]
pub struct ConfirmRequests {
    open: Arc<Mutex<VecDeque<OrderId>>>,
}

impl ConfirmRequests {
    /// Requests to confirm these orders, in this order.
    pub fn new(orders: impl IntoIterator<Item = OrderId>) -> Self {
        Self { open: Arc::new(Mutex::new(orders.into_iter().collect())) }
    }

    /// The request that waits longest. It stays until it is answered.
    pub fn next(&self) -> Option<OrderId> {
        self.open.lock().front().cloned()
    }

    /// Answers the request to confirm `order`.
    pub fn answer(&self, order: &OrderId) {
        self.open.lock().retain(|open| open != order);
    }

    /// How many have no answer yet.
    pub fn open(&self) -> usize {
        self.open.lock().len()
    }
}

//! The order, and the event that asks for its export.

use bus_core::{Event, Timestamp};
use serde::{Deserialize, Serialize};

use crate::store::Row;

/// The id of an order.
pub type OrderId = String;

/// An order of the shop.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// The id.
    pub id: OrderId,
    /// What it costs, in the smallest unit of money.
    pub amount: u64,
    /// How far it is.
    pub status: OrderStatus,
    /// When it was confirmed.
    pub confirmed_at: Option<Timestamp>,
}

/// How far an order is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum OrderStatus {
    /// Placed, and not confirmed.
    Created,
    /// Confirmed: the external platform must learn of it.
    Confirmed,
}

impl Order {
    /// An order that was placed.
    pub fn new(id: impl Into<OrderId>, amount: u64) -> Self {
        Self { id: id.into(), amount, status: OrderStatus::Created, confirmed_at: None }
    }

    /// Whether it is confirmed.
    pub fn is_confirmed(&self) -> bool {
        self.status == OrderStatus::Confirmed
    }

    /// Confirms it.
    pub const fn mark_confirmed(&mut self, now: Timestamp) {
        self.status = OrderStatus::Confirmed;
        self.confirmed_at = Some(now);
    }
}

impl Row for Order {
    const TABLE: &'static str = "orders";

    fn key(&self) -> String {
        self.id.clone()
    }
}

/// A confirmed order shall be exported.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OrderExportRequestedEvent {
    /// The order.
    pub order_id: OrderId,
    /// What it costs.
    pub amount: u64,
}

impl From<&Order> for OrderExportRequestedEvent {
    fn from(order: &Order) -> Self {
        Self { order_id: order.id.clone(), amount: order.amount }
    }
}

impl Event for OrderExportRequestedEvent {
    const TYPE: &'static str = "order.export-requested.v1";

    fn subject(&self) -> Option<String> {
        Some(self.order_id.clone())
    }
}

//! Brokers and the controller.

/// A timer of a broker or of the controller.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum BrokerTimer {
    /// Placeholder.
    Tick,
}

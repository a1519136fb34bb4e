//! Policies of clients: what they do now, and what they did before, or other clients do. A failure
//! story is one of them with all else equal.
//!
//! Those of brokers are in [`BrokerConfig`](crate::BrokerConfig).

/// How clients do what not all clients do alike, or have not always done so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientPolicy {
    /// What an idempotent producer does about a batch that is out of order behind one that failed.
    pub out_of_order: OutOfOrder,
    /// Whether a consumer asks a new leader if it has what was read from the one before (KIP-320).
    /// True.
    pub validates_epochs: bool,
    /// Whether a cooperative member says of which generation the assignment is that it claims to
    /// own, and the newer claim counts (KIP-792). If not, each member keeps what it claims, as
    /// before Kafka 3.0. True.
    pub dates_claims: bool,
}

impl Default for ClientPolicy {
    fn default() -> Self {
        Self { out_of_order: OutOfOrder::Retry, validates_epochs: true, dates_claims: true }
    }
}

/// What an idempotent producer does about a batch that is out of order only because one before it
/// failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OutOfOrder {
    /// It sends it again behind that one, as Java's client does.
    #[default]
    Retry,
    /// It waits until nothing is in flight, raises its epoch, and numbers everything anew, in all
    /// partitions, as librdkafka does.
    BumpEpoch,
}

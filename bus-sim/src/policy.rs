//! Policies: what Kafka's clients have done in more than one way, as the failure stories need it.
//!
//! Each has the default of today; the other value is the mechanism that clients had before.

/// What clients do in one way or another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientPolicy {
    /// `offset.fetch.require.stable`: a consumer of committed records that asks for a committed
    /// offset waits while a transaction is about to change it (KIP-447). True. False as in clients
    /// before KIP-447: a new owner starts at the old offset, and does again what is being
    /// committed.
    pub offset_fetch_requires_stable: bool,
    /// `delivery.timeout.reuses.sequences`: an idempotent producer gives out again the sequences of
    /// records that ran out of time, although a leader may have them. False: it goes on with
    /// another producer id. True as in franz-go before 1.20.7 (#1217): a record after them may be
    /// taken for a repetition, so that it is acknowledged and lost.
    pub timeout_reuses_sequences: bool,
    /// `epoch.bump.keeps.transaction`: a transactional producer that skipped a sequence asks for
    /// the next epoch and goes on with its transaction, although that made its coordinator abort
    /// it. False: the transaction has failed. True as in librdkafka before 1.8.2 (#3575): what was
    /// sent before is lost, and the commit succeeds.
    pub epoch_bump_keeps_transaction: bool,
}

impl Default for ClientPolicy {
    fn default() -> Self {
        Self {
            offset_fetch_requires_stable: true,
            timeout_reuses_sequences: false,
            epoch_bump_keeps_transaction: false,
        }
    }
}

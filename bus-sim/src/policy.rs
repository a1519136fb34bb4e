//! Policies: what Kafka's clients have done in more than one way, as the failure stories need it.
//!
//! Each has the default of today; the other value is the mechanism that clients had before.

use bus_core::{Error, ErrorKind, Result};

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
    /// `auto.commit.policy`: when a consumer commits by itself. By its timer.
    pub auto_commit: AutoCommit,
    /// `offset.store.outlives.assignment`: whether a stored offset is kept while its partition is
    /// not assigned, and may be stored then. False: librdkafka resets it with each assignment, and
    /// refuses to store it without one. True as before its 1.9 (librdkafka#2782): when the
    /// partition comes back, the next auto commit commits it, wherever the group has come since.
    pub offset_store_outlives_assignment: bool,
    /// `commit.max.in.flight`: how many commits a consumer has in flight, from 1 to 100. 1: they
    /// count in the order of the calls, as in librdkafka, which has one connection for all. More as
    /// in clients that commit from several threads, each on a connection of its own, such as
    /// segmentio/kafka-go (#439): an older commit may come after a newer one, and is the last then.
    pub commit_max_in_flight: u8,
    /// `out.of.order.sequence`: what an idempotent producer does about a batch that is out of order
    /// behind one that failed. It sends it again.
    pub out_of_order: OutOfOrder,
    /// `validate.leader.epochs`: a consumer asks a new leader if it has what was read from the one
    /// before (KIP-320). True.
    pub validates_epochs: bool,
    /// `owned.partitions.generation`: a cooperative member says of which generation the assignment
    /// is that it claims to own, and the newer claim counts (KIP-792). True. False as before Kafka
    /// 3.0 (KAFKA-12984): each member keeps what it claims.
    pub dates_claims: bool,
}

/// What an idempotent producer does about a batch that is out of order only because one before it
/// failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OutOfOrder {
    /// `retry`: it sends it again behind that one, as Java's client does.
    #[default]
    Retry,
    /// `bump-epoch`: it waits until nothing is in flight, raises its epoch, and numbers everything
    /// anew, in all partitions, as librdkafka does (#4953).
    BumpEpoch,
}

/// When a consumer commits by itself what it has delivered, every `auto.commit.interval.ms`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AutoCommit {
    /// `timer`: whenever the interval has passed, as in librdkafka: also while the application
    /// works on what the last poll gave it.
    #[default]
    Timer,
    /// `poll`: in a poll, before it takes records, as in Java: what polls before have returned.
    Poll,
    /// `prefetch`: in a poll, after it has taken records, as in Java 0.9.0.0 (KAFKA-2942): the poll
    /// that takes them moves the position and fetches ahead, and the commit that is due goes out
    /// there, before the application has them.
    Prefetch,
}

impl Default for ClientPolicy {
    fn default() -> Self {
        Self {
            offset_fetch_requires_stable: true,
            timeout_reuses_sequences: false,
            epoch_bump_keeps_transaction: false,
            auto_commit: AutoCommit::Timer,
            offset_store_outlives_assignment: false,
            commit_max_in_flight: 1,
            out_of_order: OutOfOrder::Retry,
            validates_epochs: true,
            dates_claims: true,
        }
    }
}

impl ClientPolicy {
    /// Sets the policy of that name, if there is one.
    pub(crate) fn set_option(&mut self, name: &str, value: &str) -> Result<bool> {
        let wrong = |values: &str| {
            let message = format!("option {name}={value:?} must be {values}");
            Err(Error::new(ErrorKind::InvalidConfig, message))
        };
        match (name, value) {
            ("auto.commit.policy", "timer") => self.auto_commit = AutoCommit::Timer,
            ("auto.commit.policy", "poll") => self.auto_commit = AutoCommit::Poll,
            ("auto.commit.policy", "prefetch") => self.auto_commit = AutoCommit::Prefetch,
            ("auto.commit.policy", _) => return wrong("timer, poll, or prefetch"),
            ("offset.store.outlives.assignment", "true" | "false") => {
                self.offset_store_outlives_assignment = value == "true";
            }
            ("out.of.order.sequence", "retry") => self.out_of_order = OutOfOrder::Retry,
            ("out.of.order.sequence", "bump-epoch") => self.out_of_order = OutOfOrder::BumpEpoch,
            ("out.of.order.sequence", _) => return wrong("retry or bump-epoch"),
            ("validate.leader.epochs", "true" | "false") => self.validates_epochs = value == "true",
            ("owned.partitions.generation", "true" | "false") => {
                self.dates_claims = value == "true";
            }
            (
                "offset.store.outlives.assignment"
                | "validate.leader.epochs"
                | "owned.partitions.generation",
                _,
            ) => return wrong("true or false"),
            ("commit.max.in.flight", number) => match number.parse() {
                Ok(most @ 1..=100) => self.commit_max_in_flight = most,
                _ => return wrong("from 1 to 100"),
            },
            _ => return Ok(false),
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SimConfig;

    fn read(options: &str) -> Result<ClientPolicy> {
        Ok(SimConfig::from_url(&format!("sim://?{options}").parse()?)?.client)
    }

    #[test]
    fn policies_are_those_of_today_unless_told_otherwise() {
        assert_eq!(read("").unwrap(), ClientPolicy::default());
        let told = "auto.commit.policy=prefetch&offset.store.outlives.assignment=true&\
                    commit.max.in.flight=4";
        let told = read(told).unwrap();
        assert_eq!(told.commit_max_in_flight, 4);
        assert_eq!(told.auto_commit, AutoCommit::Prefetch);
        assert!(told.offset_store_outlives_assignment);
        let told = read("validate.leader.epochs=false&owned.partitions.generation=false").unwrap();
        assert!(!told.validates_epochs && !told.dates_claims);
        let told = read("out.of.order.sequence=bump-epoch").unwrap();
        assert_eq!(told.out_of_order, OutOfOrder::BumpEpoch);
    }

    #[test]
    fn wrong_values_are_refused() {
        let named = [
            "auto.commit.policy",
            "offset.store.outlives.assignment",
            "out.of.order.sequence",
            "validate.leader.epochs",
            "owned.partitions.generation",
        ];
        let named = named.iter().map(|name| format!("{name}=7"));
        let numbers = ["0", "101", "-1", "all"].map(|n| format!("commit.max.in.flight={n}"));
        for wrong in named.chain(numbers) {
            let error = read(&wrong).unwrap_err();
            assert!(error.to_string().contains(" must be "), "{wrong}: {error}");
        }
    }
}

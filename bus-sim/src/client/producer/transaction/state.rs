//! The states of a transaction in a client, and which follows which.

/// The state of the transactions of a producer, by librdkafka's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// `init_transactions` was not called yet.
    Init,
    /// A producer id is being asked for.
    WaitPid,
    /// There is one, but the call for it had given up waiting.
    ReadyNotAcked,
    /// A transaction can begin.
    Ready,
    /// One is open: records are taken and sent.
    InTransaction,
    /// `commit` waits for the records to be delivered; no more are taken.
    BeginCommit,
    /// The coordinator is told to commit.
    CommittingTransaction,
    /// It has, and the application does not know it yet.
    CommitNotAcked,
    /// `abort` waits for what is in flight.
    BeginAbort,
    /// The coordinator is told to abort.
    AbortingTransaction,
    /// It has, and the application does not know it yet.
    AbortNotAcked,
    /// The transaction failed: it can only be aborted.
    AbortableError,
    /// The producer failed: it can only be closed.
    FatalError,
}

/// Whether one state may follow another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Move {
    Valid,
    /// The state stays, because the one that it is in is further on already.
    Ignored,
    Invalid,
}

impl State {
    /// Whether `next` may follow.
    pub(super) const fn to(self, next: Self) -> Move {
        let is_valid = match next {
            Self::Init => false,
            Self::WaitPid => matches!(self, Self::Init),
            Self::ReadyNotAcked => matches!(self, Self::WaitPid),
            Self::Ready => {
                matches!(self, Self::ReadyNotAcked | Self::CommitNotAcked | Self::AbortNotAcked)
            }
            Self::InTransaction => matches!(self, Self::Ready),
            Self::BeginCommit => matches!(self, Self::InTransaction),
            Self::CommittingTransaction => matches!(self, Self::BeginCommit),
            Self::CommitNotAcked => matches!(self, Self::BeginCommit | Self::CommittingTransaction),
            Self::BeginAbort => {
                matches!(
                    self,
                    Self::InTransaction | Self::AbortingTransaction | Self::AbortableError
                )
            }
            Self::AbortingTransaction => matches!(self, Self::BeginAbort),
            Self::AbortNotAcked => matches!(self, Self::BeginAbort | Self::AbortingTransaction),
            Self::AbortableError => match self {
                Self::BeginAbort | Self::AbortingTransaction | Self::FatalError => {
                    return Move::Ignored;
                }
                _ => matches!(
                    self,
                    Self::InTransaction | Self::BeginCommit | Self::CommittingTransaction
                ),
            },
            Self::FatalError => true,
        };
        if is_valid { Move::Valid } else { Move::Invalid }
    }

    /// Whether the application may hand over records.
    pub(super) const fn takes_records(self) -> bool {
        matches!(self, Self::InTransaction)
    }

    /// Whether records may be sent to brokers.
    pub(super) const fn sends_records(self) -> bool {
        matches!(self, Self::InTransaction | Self::BeginCommit)
    }

    /// Whether a transaction was begun and its end is not known yet.
    pub(super) const fn is_open(self) -> bool {
        match self {
            Self::Init | Self::WaitPid | Self::ReadyNotAcked | Self::Ready | Self::FatalError => {
                false
            }
            Self::InTransaction
            | Self::BeginCommit
            | Self::CommittingTransaction
            | Self::CommitNotAcked
            | Self::BeginAbort
            | Self::AbortingTransaction
            | Self::AbortNotAcked
            | Self::AbortableError => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_transaction_can_only_be_aborted() {
        use State as S;
        assert_eq!(S::AbortableError.to(S::BeginAbort), Move::Valid);
        for next in [S::Ready, S::InTransaction, S::BeginCommit, S::CommittingTransaction] {
            assert_eq!(S::AbortableError.to(next), Move::Invalid, "{next:?}");
        }
    }

    #[test]
    fn nothing_follows_a_fatal_error() {
        use State as S;
        for next in [S::Ready, S::InTransaction, S::BeginAbort, S::WaitPid] {
            assert_eq!(S::FatalError.to(next), Move::Invalid, "{next:?}");
        }
        assert_eq!(S::FatalError.to(S::AbortableError), Move::Ignored);
    }
}

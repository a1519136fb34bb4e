//! Why a call of a transactional producer failed, and what librdkafka says may be done about it.

use bus_core::{Error, ErrorKind, Recovery};

/// What may be done about a failure, by librdkafka's flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// The call may be repeated, which resumes it.
    Retriable,
    /// The transaction must be aborted.
    Abortable,
    /// The producer cannot go on.
    Fatal,
    /// The call was wrong.
    Misuse,
}

/// What is to be done about a refusal of the coordinator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// Ask again.
    Retry,
    /// Abort the transaction.
    Abort,
    /// Abort the transaction, and go on with another epoch.
    Bump,
    /// Give up the producer.
    Fatal,
}

/// A call that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) kind: ErrorKind,
    pub(super) class: Class,
    pub(super) message: String,
}

impl Failure {
    pub(super) fn new(kind: ErrorKind, class: Class, message: impl Into<String>) -> Self {
        Self { kind, class, message: message.into() }
    }

    pub(super) fn into_error(self) -> Error {
        let Self { kind, class, message } = self;
        let error = Error::new(kind, message);
        match class {
            Class::Fatal => error.with_recovery(Recovery::Close),
            Class::Abortable if kind == ErrorKind::ProducerFenced => error,
            Class::Abortable => error.with_recovery(Recovery::Abort),
            Class::Retriable => error.with_recovery(Recovery::Retry),
            Class::Misuse => error,
        }
    }
}

/// One kind for all ways in which brokers say that there is a newer producer.
pub(super) const fn normalized(kind: ErrorKind) -> ErrorKind {
    match kind {
        ErrorKind::InvalidProducerEpoch => ErrorKind::ProducerFenced,
        kind => kind,
    }
}

/// The error of a delivery in a transaction: what failed is no part of it, so it must be aborted.
pub(in crate::client::producer) fn failed_delivery(error: Error) -> Error {
    match (error.kind(), error.recovery()) {
        (ErrorKind::InvalidProducerEpoch, _) => {
            Error::new(ErrorKind::ProducerFenced, error.message())
        }
        (_, Recovery::Close) => error,
        _ => error.with_recovery(Recovery::Abort),
    }
}

//! Operations: invoked when, ended when, and how; and sends, with what is known of their records.

use bus_core::Offset;

use crate::history::{
    Answer, Call, ClientId, EntryId, Failure, History, OperationId, PartitionId, SentRecord, What,
};

/// An operation.
#[derive(Clone, Copy, Debug)]
pub struct Operation<'a> {
    /// Whose it is.
    pub client: ClientId,
    /// The entry that invokes it; none if the history was cut.
    pub invoked: Option<EntryId>,
    /// The first entry that ends it.
    pub ended: Option<EntryId>,
    /// What was asked for.
    pub call: Option<&'a Call>,
    /// How it ended.
    pub end: End,
    /// What it answered.
    pub answer: Option<&'a Answer>,
}

/// How an operation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It has not.
    Pending,
    /// It succeeded.
    Ok,
    /// It has definitely no effect.
    Fail(Failure),
    /// Nobody knows; without a failure it was given up.
    Info(Option<Failure>),
}

impl End {
    /// The failure, if there is one.
    pub const fn failure(self) -> Option<Failure> {
        match self {
            Self::Pending | Self::Ok => None,
            Self::Fail(failure) => Some(failure),
            Self::Info(failure) => failure,
        }
    }
}

/// Pairs invocations with the first entries that end them.
pub(super) fn pair(history: &History) -> Vec<Operation<'_>> {
    let none = Operation {
        client: ClientId(0),
        invoked: None,
        ended: None,
        call: None,
        end: End::Pending,
        answer: None,
    };
    let mut operations = vec![none; history.operations()];
    for (at, entry) in history.iter() {
        let (id, end, answer) = match &entry.what {
            What::Invoke(id, call) => {
                let operation = &mut operations[id.index()];
                operation.client = entry.client;
                operation.invoked = Some(at);
                operation.call = Some(call);
                continue;
            }
            What::Ok(id, answer) => (id, End::Ok, Some(answer)),
            What::Fail(id, failure) => (id, End::Fail(*failure), None),
            What::Info(id, failure) => (id, End::Info(*failure), None),
            What::Note(_) => continue,
        };
        let operation = &mut operations[id.index()];
        if operation.invoked.is_some() && operation.ended.is_none() {
            operation.ended = Some(at);
            operation.end = end;
            operation.answer = answer;
        }
    }
    operations
}

/// A send, with what is known of its record.
#[derive(Clone, Debug)]
pub struct Send<'a> {
    /// The operation, which is the uid of the record.
    pub id: OperationId,
    /// The producer.
    pub client: ClientId,
    /// When it was called.
    pub invoked: EntryId,
    /// When it ended.
    pub ended: Option<EntryId>,
    /// How it ended.
    pub end: End,
    /// The record.
    pub record: &'a SentRecord,
    /// Where the record is, by what the producer was told; without an offset with acks 0.
    pub told: Option<(PartitionId, Option<Offset>)>,
    /// The timestamp that the producer was told.
    pub told_timestamp: Option<i64>,
    /// The cells in which the record was seen: partition and place in its log. More than one is a
    /// duplicate.
    pub seen: Vec<(PartitionId, usize)>,
    /// Whether each of those cells holds this record beyond doubt.
    pub is_exact: bool,
    /// The transaction that it is part of.
    pub transaction: Option<usize>,
}

impl Send<'_> {
    /// Where the record was told to be, with its offset.
    pub fn told_offset(&self) -> Option<(PartitionId, Offset)> {
        let (partition, offset) = self.told?;
        Some((partition, offset?))
    }
}

pub(super) fn sends<'a>(operations: &[Operation<'a>], history: &'a History) -> Vec<Send<'a>> {
    let is_send = |operation: &&Operation<'_>| matches!(operation.call, Some(Call::Send(_)));
    let mut sends = Vec::with_capacity(operations.iter().filter(is_send).count());
    for (_, entry) in history.iter() {
        let What::Invoke(id, Call::Send(record)) = &entry.what else { continue };
        let operation = operations[id.index()];
        let Some(invoked) = operation.invoked else { continue };
        let (told, told_timestamp) = match operation.answer {
            Some(Answer::Delivered { partition, offset, timestamp }) => {
                (Some((*partition, *offset)), *timestamp)
            }
            _ => (None, None),
        };
        sends.push(Send {
            id: *id,
            client: operation.client,
            invoked,
            ended: operation.ended,
            end: operation.end,
            record,
            told,
            told_timestamp,
            seen: Vec::new(),
            is_exact: true,
            transaction: None,
        });
    }
    sends
}

/// The sends that succeeded, in the order in which they did.
pub(super) fn acknowledged(sends: &[Send<'_>]) -> Vec<(EntryId, usize)> {
    let succeeded = |send: &Send<'_>| send.ended.filter(|_| send.end == End::Ok);
    let ended = sends.iter().enumerate();
    let mut ended: Vec<_> =
        ended.filter_map(|(index, send)| Some((succeeded(send)?, index))).collect();
    ended.sort_unstable();
    ended
}

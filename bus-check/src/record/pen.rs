//! What a client writes the history with, and operations under way.

use std::fmt;

use bus_core::{Bus, Error, Offset, Record, Result, TopicPartition};

use super::{Recorder, nanos};
use crate::history::{Answer, Call, ClientId, Note, OperationId, PartitionId, Writer};

/// What a client writes the history with.
#[derive(Clone)]
pub(super) struct Pen {
    pub(super) bus: Bus,
    pub(super) recorder: Recorder,
    pub(super) client: ClientId,
}

impl Pen {
    /// Writes with the time of now.
    pub(super) fn write<T>(&self, write: impl FnOnce(&mut Writer, u64, ClientId) -> T) -> T {
        // The time is asked first: a backend may hold a lock of its own for it.
        let at = nanos(self.bus.elapsed());
        write(&mut self.recorder.shared.writer.lock(), at, self.client)
    }

    pub(super) fn note(&self, note: Note) {
        self.write(|writer, at, client| writer.note(at, client, note));
    }

    pub(super) fn note_of(&self, record: &Record, note: impl FnOnce(PartitionId, Offset) -> Note) {
        self.write(|writer, at, client| {
            let partition = writer.partition(&record.topic, record.partition);
            writer.note(at, client, note(partition, record.offset));
        });
    }

    /// An operation begins.
    pub(super) fn invoke(&self, call: impl FnOnce(&mut Writer) -> Call) -> Pending {
        Pending { pen: self.clone(), operation: self.begin(call), is_over: false }
    }

    /// An operation begins; whoever calls this sees to its end.
    pub(super) fn begin(&self, call: impl FnOnce(&mut Writer) -> Call) -> OperationId {
        self.write(|writer, at, client| {
            let call = call(writer);
            writer.invoke(at, client, call)
        })
    }

    /// An operation ends; `answer` is for one that succeeds.
    pub(super) fn end<T>(
        &self,
        operation: OperationId,
        outcome: &Result<T>,
        answer: impl FnOnce(&mut Writer, &T) -> Answer,
    ) {
        self.write(|writer, at, client| match outcome {
            Ok(value) => {
                let answer = answer(writer, value);
                writer.ok(at, client, operation, answer);
            }
            Err(error) => writer.failed(at, client, operation, error),
        });
    }

    /// Nobody waits for the end of an operation any more.
    pub(super) fn give_up(&self, operation: OperationId) {
        self.write(|writer, at, client| writer.given_up(at, client, operation));
    }

    /// An operation that does not wait.
    pub(super) fn at_once<T>(
        &self,
        call: impl FnOnce(&mut Writer) -> Call,
        act: impl FnOnce() -> Result<T>,
    ) -> Result<T> {
        let pending = self.invoke(call);
        let outcome = act();
        pending.end(&outcome);
        outcome
    }
}

impl fmt::Debug for Pen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Pen").field(&self.client).finish()
    }
}

/// An operation under way. If it is dropped before its end, nobody knows its outcome.
#[derive(Debug)]
pub(super) struct Pending {
    pen: Pen,
    operation: OperationId,
    is_over: bool,
}

impl Pending {
    /// The operation ends, and its answer is only that it is done.
    pub(super) fn end<T>(self, outcome: &Result<T>) {
        self.end_with(outcome, |_, _| Answer::Done);
    }

    /// The operation ends; `answer` is for one that succeeds.
    pub(super) fn end_with<T>(
        mut self,
        outcome: &Result<T>,
        answer: impl FnOnce(&mut Writer, &T) -> Answer,
    ) {
        self.is_over = true;
        self.pen.end(self.operation, outcome, answer);
    }

    /// The operation succeeds.
    pub(super) fn ok(self, answer: impl FnOnce(&mut Writer) -> Answer) {
        self.end_with(&Ok(()), |writer, ()| answer(writer));
    }

    /// The operation fails.
    pub(super) fn failed(mut self, error: &Error) {
        self.is_over = true;
        let operation = self.operation;
        self.pen.write(|writer, at, client| writer.failed(at, client, operation, error));
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if !self.is_over {
            self.pen.give_up(self.operation);
        }
    }
}

/// The ids of partitions, in the same order.
pub(super) fn partition_ids(
    writer: &mut Writer,
    partitions: &[TopicPartition],
) -> Box<[PartitionId]> {
    partitions.iter().map(|place| writer.partition(&place.topic, place.partition)).collect()
}

/// Partitions with something, by id.
pub(super) fn with_ids<T, U>(
    writer: &mut Writer,
    list: &[(TopicPartition, T)],
    value: impl Fn(&T) -> U,
) -> Box<[(PartitionId, U)]> {
    list.iter()
        .map(|(place, item)| (writer.partition(&place.topic, place.partition), value(item)))
        .collect()
}

//! Position sessions: which reads of a consumer must follow each other in a partition.
//!
//! A session of a consumer and a partition begins when the partition is assigned (by hand, or with
//! the completion of a guard) or its position is moved, and ends with the next of these, or when
//! the partition is given up. While a call that ends or begins sessions is under way, and for polls
//! that were under way when it ended, reads belong to none: nobody can say which side they are on.

use bus_core::{Offset, RebalanceKind, StartAt};

use super::Model;
use super::operations::End;
use crate::history::{
    Answer, Call, ClientId, Entry, EntryId, OperationId, PartitionId, Role, SeenRecord, What,
};

/// A position session.
#[derive(Clone, Debug)]
pub struct Session {
    /// The consumer.
    pub client: ClientId,
    /// The partition.
    pub partition: PartitionId,
    /// What began it.
    pub origin: Origin,
    /// The entry that invoked what began it.
    pub invoked: EntryId,
    /// The entry from which on it counts.
    pub began: EntryId,
    /// The entry that ended it; none if it lasts.
    pub ended: Option<EntryId>,
    /// Where it starts.
    pub from: StartAt,
    /// Its reads, in order.
    pub reads: Vec<usize>,
    /// Whether a read before its first one can't be told apart.
    pub is_blurred: bool,
    /// Whether it lasts, and its partition is paused.
    pub is_paused: bool,
}

/// What began a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The group assigned the partition.
    Group,
    /// It was assigned by hand.
    Assign,
    /// The position was moved.
    Seek,
}

/// A record that a poll returned.
#[derive(Clone, Copy, Debug)]
pub struct Read<'a> {
    /// The record.
    pub record: &'a SeenRecord,
    /// The entry of the poll's answer.
    pub entry: EntryId,
    /// The entry that invoked the poll.
    pub polled: EntryId,
    /// The consumer.
    pub client: ClientId,
    /// The session that it is part of.
    pub session: Option<usize>,
    /// Its cell in the log of the partition.
    pub cell: usize,
    /// What is wrong with it at first sight.
    pub fault: Option<ReadFault>,
}

impl Read<'_> {
    /// The partition.
    pub const fn partition(&self) -> PartitionId {
        self.record.partition
    }

    /// The offset.
    pub const fn offset(&self) -> Offset {
        self.record.offset
    }
}

/// Why a record should not have been returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadFault {
    /// The partition was paused, since this entry.
    Paused(EntryId),
    /// The partition was not the consumer's, since this entry if it ever was.
    NotOwned(Option<EntryId>),
}

/// Finds all sessions and reads.
pub(super) fn build<'a>(model: &Model<'a>) -> (Vec<Session>, Vec<Read<'a>>) {
    let clients = model.history.clients();
    let partitions = model.history.partitions().len();
    let records = |entry: &Entry| match &entry.what {
        What::Ok(_, Answer::Records(records)) => records.len(),
        _ => 0,
    };
    let state = |role: &Role| match role {
        Role::Consumer(_) => State { slots: vec![Slot::default(); partitions], ..State::default() },
        Role::Producer(_) | Role::Admin => State::default(),
    };
    let mut builder = Builder {
        model,
        states: clients.iter().map(|client| state(&client.role)).collect(),
        sessions: Vec::new(),
        reads: Vec::with_capacity(model.history.entries().iter().map(records).sum()),
    };
    for (at, entry) in model.history.iter() {
        if model.history.consumer(entry.client).is_none() {
            continue;
        }
        match &entry.what {
            What::Invoke(id, call) => builder.invoke(at, entry.client, *id, call),
            What::Ok(id, answer) => builder.end(at, entry.client, *id, Some(answer)),
            What::Fail(id, _) | What::Info(id, _) => builder.end(at, entry.client, *id, None),
            What::Note(_) => {}
        }
    }
    for slot in builder.states.iter().flat_map(|state| &state.slots) {
        if let (Some(session), Some(_)) = (slot.session, slot.paused) {
            builder.sessions[session].is_paused = true;
        }
    }
    (builder.sessions, builder.reads)
}

struct Builder<'m, 'a> {
    model: &'m Model<'a>,
    states: Vec<State>,
    sessions: Vec<Session>,
    reads: Vec<Read<'a>>,
}

/// What is known of a consumer.
#[derive(Debug, Default)]
struct State {
    /// By partition.
    slots: Vec<Slot>,
    /// How many calls are under way that change the whole assignment.
    changing: u32,
    /// When the last one ended.
    changed: Option<EntryId>,
}

/// What is known of a partition of a consumer.
#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    session: Option<usize>,
    paused: Option<EntryId>,
    /// When the last session ended.
    ended: Option<EntryId>,
    /// How many seeks are under way.
    seeking: u32,
}

impl<'a> Builder<'_, 'a> {
    fn invoke(&mut self, at: EntryId, client: ClientId, id: OperationId, call: &Call) {
        match call {
            Call::Subscribe(_) | Call::Unsubscribe | Call::CloseConsumer | Call::Assign(_) => {
                self.states[client.index()].changing += 1;
            }
            Call::Seek(partition, _) => {
                self.slot(client, *partition).seeking += 1;
            }
            Call::Complete { kind, partitions } => {
                for partition in partitions {
                    self.end_session(at, client, *partition);
                    if *kind == RebalanceKind::Assigned {
                        let from = (Origin::Group, StartAt::Committed);
                        self.begin(at, at, (client, *partition), from);
                    }
                }
            }
            Call::Resume(partitions) if self.succeeds(id) => {
                for partition in partitions {
                    self.slot(client, *partition).paused = None;
                }
            }
            _ => {}
        }
    }

    fn end(&mut self, at: EntryId, client: ClientId, id: OperationId, answer: Option<&'a Answer>) {
        let operation = *self.model.operation(id);
        let (Some(invoked), Some(ended)) = (operation.invoked, operation.ended) else { return };
        if ended != at || operation.client != client {
            return;
        }
        let is_ok = operation.end == End::Ok;
        match operation.call {
            Some(Call::Subscribe(_) | Call::Unsubscribe | Call::CloseConsumer) => {
                self.change(at, client, !matches!(operation.end, End::Fail(_)));
            }
            Some(Call::Assign(partitions)) => {
                self.change(at, client, !matches!(operation.end, End::Fail(_)));
                if is_ok {
                    for (partition, from) in partitions {
                        let place = (client, *partition);
                        self.begin(invoked, at, place, (Origin::Assign, *from));
                    }
                }
            }
            Some(Call::Seek(partition, to)) => {
                let slot = self.slot(client, *partition);
                slot.seeking = slot.seeking.saturating_sub(1);
                let paused = slot.paused;
                if slot.session.is_some() && !matches!(operation.end, End::Fail(_)) {
                    self.end_session(at, client, *partition);
                    self.begin(invoked, at, (client, *partition), (Origin::Seek, *to));
                    if !is_ok {
                        // Nobody knows where it reads from now.
                        self.blur(client, *partition);
                    }
                    self.slot(client, *partition).paused = paused;
                }
            }
            Some(Call::Pause(partitions)) if is_ok => {
                for partition in partitions {
                    self.slot(client, *partition).paused = Some(at);
                }
            }
            Some(Call::Poll) => {
                if let Some(Answer::Records(records)) = answer {
                    for record in records {
                        self.read(at, invoked, client, record);
                    }
                }
            }
            _ => {}
        }
    }

    fn read(&mut self, at: EntryId, polled: EntryId, client: ClientId, record: &'a SeenRecord) {
        if self.model.topic_of(record.partition).is_deleted {
            return;
        }
        let state = &self.states[client.index()];
        let slot = state.slots[record.partition.index()];
        let is_changing =
            state.changing > 0 || state.changed.is_some_and(|changed| polled < changed);
        let mut read =
            Read { record, entry: at, polled, client, session: None, cell: 0, fault: None };
        match slot.session {
            Some(session) => {
                let began = self.sessions[session].began;
                if is_changing || slot.seeking > 0 || polled < began {
                    let session = &mut self.sessions[session];
                    session.is_blurred |= session.reads.is_empty();
                } else {
                    self.sessions[session].reads.push(self.reads.len());
                    read.session = Some(session);
                }
                if let Some(paused) = slot.paused.filter(|paused| *paused < polled) {
                    read.fault = Some(ReadFault::Paused(paused));
                }
            }
            None => {
                let was_under_way = slot.ended.is_some_and(|ended| polled < ended);
                if !is_changing && !was_under_way {
                    read.fault = Some(ReadFault::NotOwned(slot.ended));
                }
            }
        }
        self.reads.push(read);
    }

    fn slot(&mut self, client: ClientId, partition: PartitionId) -> &mut Slot {
        &mut self.states[client.index()].slots[partition.index()]
    }

    fn succeeds(&self, id: OperationId) -> bool {
        !matches!(self.model.operation(id).end, End::Fail(_))
    }

    /// A call that changes the whole assignment has ended.
    fn change(&mut self, at: EntryId, client: ClientId, gives_up: bool) {
        let state = &mut self.states[client.index()];
        state.changing = state.changing.saturating_sub(1);
        if gives_up {
            state.changed = Some(at);
            for partition in 0..state.slots.len() {
                self.end_session(at, client, PartitionId::from_index(partition));
            }
        }
    }

    fn begin(
        &mut self,
        invoked: EntryId,
        began: EntryId,
        (client, partition): (ClientId, PartitionId),
        (origin, from): (Origin, StartAt),
    ) {
        let session = self.sessions.len();
        self.sessions.push(Session {
            client,
            partition,
            origin,
            invoked,
            began,
            ended: None,
            from,
            reads: Vec::new(),
            is_blurred: false,
            is_paused: false,
        });
        self.slot(client, partition).session = Some(session);
    }

    fn blur(&mut self, client: ClientId, partition: PartitionId) {
        if let Some(session) = self.slot(client, partition).session {
            self.sessions[session].is_blurred = true;
        }
    }

    fn end_session(&mut self, at: EntryId, client: ClientId, partition: PartitionId) {
        let slot = self.slot(client, partition);
        slot.paused = None;
        if let Some(session) = slot.session.take() {
            slot.ended = Some(at);
            self.sessions[session].ended = Some(at);
        }
    }
}

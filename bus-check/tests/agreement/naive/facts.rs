//! What the definitions speak of: operations, reads, sessions, and which send an offset holds.

use std::collections::{BTreeMap, BTreeSet};

use bus_check::check::Promise;
use bus_check::history::{
    Answer, Call, ClientId, ConsumerFacts, Failure, History, Note, OperationId, PartitionId,
    ProducerFacts, SeenRecord, SentRecord, What,
};
use bus_check::{Durability, Environment, Removal};
use bus_core::{Acks, IsolationLevel, Offset, RebalanceKind, Recovery, StartAt};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum How {
    Pending,
    Ok,
    Fail(Failure),
    Info(Option<Failure>),
}

impl How {
    pub(crate) fn is_fail(self) -> bool {
        matches!(self, Self::Fail(_))
    }

    pub(crate) fn recovery(self) -> Option<Recovery> {
        match self {
            Self::Pending | Self::Ok | Self::Info(None) => None,
            Self::Fail(failure) | Self::Info(Some(failure)) => Some(failure.recovery),
        }
    }
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Op<'a> {
    pub(crate) id: OperationId,
    pub(crate) client: ClientId,
    pub(crate) invoked: usize,
    pub(crate) ended: Option<usize>,
    pub(crate) how: How,
    pub(crate) call: &'a Call,
    pub(crate) answer: Option<&'a Answer>,
}

impl<'a> Op<'a> {
    pub(crate) fn sent(&self) -> &'a SentRecord {
        match self.call {
            Call::Send(sent) => sent,
            _ => unreachable!("only asked of sends"),
        }
    }

    pub(crate) fn told(&self) -> Option<(PartitionId, Option<Offset>)> {
        match self.answer {
            Some(Answer::Delivered { partition, offset, .. }) => Some((*partition, *offset)),
            _ => None,
        }
    }

    pub(crate) fn told_at(&self) -> Option<(PartitionId, Offset)> {
        self.told().and_then(|(partition, offset)| Some((partition, offset?)))
    }
}

/// A read: the entry, the place in the poll's answer, and the record.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Read<'a> {
    pub(crate) entry: usize,
    pub(crate) client: ClientId,
    pub(crate) seen: &'a SeenRecord,
    /// The entry that began its session.
    pub(crate) session: Option<usize>,
    pub(crate) is_paused: bool,
    pub(crate) is_unowned: bool,
}

impl Read<'_> {
    pub(crate) fn p(&self) -> PartitionId {
        self.seen.partition
    }

    pub(crate) fn o(&self) -> Offset {
        self.seen.offset
    }
}

/// A session: what began it, by client and partition.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Session {
    pub(crate) client: ClientId,
    pub(crate) partition: PartitionId,
    pub(crate) invoked: usize,
    pub(crate) began: usize,
    pub(crate) ended: Option<usize>,
    pub(crate) from: StartAt,
    pub(crate) is_of_group: bool,
    pub(crate) is_blurred: bool,
    pub(crate) is_paused: bool,
}

pub(crate) struct Facts<'a> {
    pub(crate) history: &'a History,
    pub(crate) environment: &'a Environment,
    pub(crate) ops: Vec<Op<'a>>,
    pub(crate) reads: Vec<Read<'a>>,
    pub(crate) sessions: Vec<Session>,
    /// What each observed offset holds: the send, if it is known, and whether beyond doubt.
    pub(crate) held: BTreeMap<(PartitionId, Offset), (Option<OperationId>, bool)>,
}

impl<'a> Facts<'a> {
    pub(crate) fn new(history: &'a History, environment: &'a Environment) -> Self {
        let mut facts = Self {
            history,
            environment,
            ops: operations(history),
            reads: Vec::new(),
            sessions: Vec::new(),
            held: BTreeMap::new(),
        };
        facts.sessions = facts.find_sessions();
        facts.find_reads();
        facts.identify();
        facts
    }

    pub(crate) fn at(&self, entry: usize) -> u64 {
        self.history.entries()[entry].at
    }

    pub(crate) fn entries(&self) -> usize {
        self.history.entries().len()
    }

    pub(crate) fn sends(&self) -> impl DoubleEndedIterator<Item = &Op<'a>> {
        self.ops.iter().filter(|op| matches!(op.call, Call::Send(_)))
    }

    pub(crate) fn op(&self, id: OperationId) -> Option<&Op<'a>> {
        self.ops.iter().find(|op| op.id == id)
    }

    pub(crate) fn producer(&self, client: ClientId) -> &ProducerFacts {
        self.history.producer(client).expect("a producer")
    }

    pub(crate) fn consumer(&self, client: ClientId) -> Option<&ConsumerFacts> {
        self.history.consumer(client)
    }

    pub(crate) fn isolation(&self, client: ClientId) -> IsolationLevel {
        self.consumer(client).map(|facts| facts.isolation).unwrap_or_default()
    }

    pub(crate) fn quiesced(&self) -> Option<usize> {
        self.history.entries().iter().position(|entry| entry.what == What::Note(Note::Quiesced))
    }

    pub(crate) fn settling(&self) -> u64 {
        u64::try_from(self.environment.settling.as_nanos()).unwrap()
    }

    /// Whether a transactional producer sends to the topic of this partition.
    pub(crate) fn is_transactional(&self, partition: PartitionId) -> bool {
        let topic = self.history.topic_of(partition);
        self.history.entries().iter().any(|entry| match &entry.what {
            What::Invoke(_, Call::Send(sent)) => {
                sent.topic == topic && self.producer(entry.client).transaction.is_some()
            }
            _ => false,
        })
    }

    pub(crate) fn is_kept(&self) -> Promise {
        match self.environment.durability {
            Durability::Safe => Promise::Required,
            Durability::Unknown => Promise::Open,
            Durability::Unsafe => Promise::NotPromised,
        }
    }

    pub(crate) fn is_not_cut(&self) -> Promise {
        Promise::when(self.environment.durability != Durability::Unsafe)
    }

    pub(crate) fn stays(&self) -> Promise {
        Promise::when(self.environment.removal == Removal::None)
    }

    pub(crate) fn is_kept_with_acks(&self, client: ClientId) -> Promise {
        Promise::when(self.producer(client).acks == Acks::All).max(self.is_kept())
    }

    fn find_sessions(&self) -> Vec<Session> {
        let mut sessions = Vec::new();
        for client in 0..self.history.clients().len() {
            let client = ClientId::from_index(client);
            if self.consumer(client).is_none() {
                continue;
            }
            for partition in 0..self.history.partitions().len() {
                let partition = PartitionId::from_index(partition);
                sessions.extend(self.sessions_of(client, partition));
            }
        }
        sessions.sort_by_key(|session: &Session| session.began);
        sessions
    }

    /// All that begins or ends a session, in the order of entries.
    #[expect(clippy::too_many_lines, reason = "one definition, read from top to bottom")]
    fn sessions_of(&self, client: ClientId, partition: PartitionId) -> Vec<Session> {
        enum Event {
            Begin(StartAt, bool),
            Move(StartAt, bool),
            End,
        }
        let mut events: Vec<(usize, usize, Event)> = Vec::new();
        for op in self.ops.iter().filter(|op| op.client == client) {
            let ended = op.ended.filter(|_| !op.how.is_fail());
            match op.call {
                Call::Complete { kind, partitions } if partitions.contains(&partition) => {
                    events.push((op.invoked, op.invoked, Event::End));
                    if *kind == RebalanceKind::Assigned {
                        let begin = Event::Begin(StartAt::Committed, true);
                        events.push((op.invoked, op.invoked, begin));
                    }
                }
                Call::Subscribe(_) | Call::Unsubscribe | Call::CloseConsumer => {
                    events.extend(ended.map(|ended| (ended, op.invoked, Event::End)));
                }
                Call::Assign(list) => {
                    events.extend(ended.map(|ended| (ended, op.invoked, Event::End)));
                    let from = list.iter().find(|(id, _)| *id == partition).map(|(_, from)| *from);
                    if let (Some(from), Some(ended), How::Ok) = (from, ended, op.how) {
                        events.push((ended, op.invoked, Event::Begin(from, false)));
                    }
                }
                Call::Seek(id, to) if *id == partition => {
                    let moved =
                        ended.map(|ended| (ended, op.invoked, Event::Move(*to, op.how != How::Ok)));
                    events.extend(moved);
                }
                _ => {}
            }
        }
        // The end of a session stands before the beginning of the next.
        events.sort_by_key(|(at, _, event)| (*at, !matches!(event, Event::End)));
        let mut sessions: Vec<Session> = Vec::new();
        let mut is_open = false;
        for (at, invoked, event) in events {
            let (from, is_of_group, is_blurred) = match event {
                Event::Begin(from, is_of_group) => (from, is_of_group, false),
                Event::Move(to, is_blurred) if is_open => (to, false, is_blurred),
                Event::Move(..) => continue,
                Event::End => {
                    if is_open {
                        sessions.last_mut().unwrap().ended = Some(at);
                    }
                    is_open = false;
                    continue;
                }
            };
            if is_open {
                sessions.last_mut().unwrap().ended = Some(at);
            }
            is_open = true;
            sessions.push(Session {
                client,
                partition,
                invoked,
                began: at,
                ended: None,
                from,
                is_of_group,
                is_blurred,
                is_paused: false,
            });
        }
        if is_open {
            let last = sessions.last_mut().unwrap();
            last.is_paused = self.paused(client, partition, self.entries()).is_some();
        }
        sessions
    }

    /// Since when a partition is paused at an entry.
    fn paused(&self, client: ClientId, partition: PartitionId, at: usize) -> Option<usize> {
        let own = || self.ops.iter().filter(move |op| op.client == client);
        let pauses = own().filter(|op| match op.call {
            Call::Pause(list) => op.how == How::Ok && list.contains(&partition),
            _ => false,
        });
        let since = pauses.filter_map(|op| op.ended).filter(|ended| *ended < at).max()?;
        let within = |entry: usize| since < entry && entry < at;
        let is_over = own().any(|op| match op.call {
            Call::Resume(list) => {
                !op.how.is_fail() && list.contains(&partition) && within(op.invoked)
            }
            Call::Complete { partitions, .. } => {
                partitions.contains(&partition) && within(op.invoked)
            }
            Call::Subscribe(_) | Call::Unsubscribe | Call::CloseConsumer | Call::Assign(_) => {
                !op.how.is_fail() && op.ended.is_some_and(within)
            }
            _ => false,
        });
        (!is_over).then_some(since)
    }

    fn find_reads(&mut self) {
        let mut reads = Vec::new();
        for op in &self.ops {
            let (Call::Poll, Some(Answer::Records(records)), Some(entry)) =
                (op.call, op.answer, op.ended)
            else {
                continue;
            };
            reads.extend(records.iter().map(|seen| (entry, op.invoked, op.client, seen)));
        }
        // Within a poll, the order of its answer.
        reads.sort_by_key(|(entry, ..)| *entry);
        for (entry, polled, client, seen) in reads {
            let partition = seen.partition;
            let own = || self.ops.iter().filter(move |op| op.client == client);
            let under_way =
                |op: &Op<'_>| op.invoked < entry && op.ended.is_none_or(|ended| ended > entry);
            let is_changing = own().any(|op| {
                let changes = matches!(
                    op.call,
                    Call::Subscribe(_) | Call::Unsubscribe | Call::CloseConsumer | Call::Assign(_)
                );
                let has_changed = !op.how.is_fail()
                    && op.ended.is_some_and(|ended| ended < entry && polled < ended);
                changes && (under_way(op) || has_changed)
            });
            let is_seeking = own().any(|op| {
                matches!(op.call, Call::Seek(id, _) if *id == partition) && under_way(op)
            });
            let of_place = |session: &&mut Session| {
                session.client == client && session.partition == partition && session.began < entry
            };
            let last = self.sessions.iter_mut().rfind(of_place);
            let mut read =
                Read { entry, client, seen, session: None, is_paused: false, is_unowned: false };
            match last {
                Some(session) if session.ended.is_none_or(|ended| ended > entry) => {
                    if is_changing || is_seeking || polled < session.began {
                        let is_first = !self.reads.iter().any(|other: &Read<'_>| {
                            other.session == Some(session.began)
                                && other.client == client
                                && other.p() == partition
                        });
                        session.is_blurred |= is_first;
                    } else {
                        read.session = Some(session.began);
                    }
                    let paused = self.paused(client, partition, entry);
                    read.is_paused = paused.is_some_and(|paused| paused < polled);
                }
                other => {
                    let ended = other.and_then(|session| session.ended);
                    let was_under_way = ended.is_some_and(|ended| polled < ended);
                    read.is_unowned = !is_changing && !was_under_way;
                }
            }
            self.reads.push(read);
        }
    }

    /// The reads of a session, in order.
    pub(crate) fn reads_of(&self, session: &Session) -> Vec<&Read<'a>> {
        let of = |read: &&Read<'a>| {
            read.client == session.client
                && read.p() == session.partition
                && read.session == Some(session.began)
        };
        self.reads.iter().filter(of).collect()
    }

    /// Which send each offset holds.
    fn identify(&mut self) {
        let mut places: BTreeSet<(PartitionId, Offset)> =
            self.reads.iter().map(|read| (read.p(), read.o())).collect();
        places.extend(self.sends().filter_map(Op::told_at));
        let mut taken: BTreeSet<OperationId> = BTreeSet::new();
        let mut rest = Vec::new();
        for place in places {
            let mut told: Vec<_> =
                self.sends().filter(|send| send.told_at() == Some(place)).collect();
            told.sort_by_key(|send| send.ended);
            let matching = match self.first_seen(place) {
                None => told.first(),
                Some(seen) => told.iter().find(|send| send.sent().digest == seen.seen.digest),
            };
            match matching.map(|send| send.id) {
                Some(id) => {
                    taken.insert(id);
                    self.held.insert(place, (Some(id), true));
                }
                None => rest.push(place),
            }
        }
        for place in rest {
            let digest =
                self.first_seen(place).expect("it is not told, so it was seen").seen.digest;
            let (topic, number) = self.history.partitions()[place.0.index()];
            let alike: Vec<Op<'a>> = self
                .sends()
                .filter(|send| send.sent().topic == topic && send.sent().digest == digest)
                .filter(|send| send.sent().partition.is_none_or(|partition| partition == number))
                .filter(|send| send.told().is_none_or(|(told, _)| told == place.0))
                .copied()
                .collect();
            let held = match alike.as_slice() {
                [] => (None, false),
                [only] => (Some(only.id), true),
                several => {
                    let open = several
                        .iter()
                        .find(|send| !taken.contains(&send.id) && !send.how.is_fail());
                    let last = several.iter().rfind(|send| !send.how.is_fail());
                    (Some(open.or(last).unwrap_or(&several[0]).id), false)
                }
            };
            taken.extend(held.0);
            self.held.insert(place, held);
        }
    }

    pub(crate) fn first_seen(&self, place: (PartitionId, Offset)) -> Option<&Read<'a>> {
        self.reads.iter().find(|read| (read.p(), read.o()) == place)
    }

    /// The offsets at which a send was seen, and whether each is beyond doubt.
    pub(crate) fn seen(&self, send: OperationId) -> (Vec<(PartitionId, Offset)>, bool) {
        let mut places = Vec::new();
        let mut is_exact = true;
        for (place, (held, exact)) in &self.held {
            if *held == Some(send) && self.first_seen(*place).is_some() {
                places.push(*place);
                is_exact &= exact;
            }
        }
        (places, is_exact)
    }

    /// The send that an offset holds beyond doubt.
    pub(crate) fn exactly(&self, place: (PartitionId, Offset)) -> Option<&Op<'a>> {
        let (held, is_exact) = self.held.get(&place)?;
        self.op((*held)?).filter(|_| *is_exact)
    }

    /// Where a send's record is beyond doubt.
    pub(crate) fn place_of(&self, send: &Op<'_>) -> Option<(PartitionId, Offset)> {
        let (seen, is_exact) = self.seen(send.id);
        match seen.as_slice() {
            [only] if is_exact => Some(*only),
            [] | [_] => send.told_at(),
            _ => None,
        }
    }

    /// Whether an offset can be read at this isolation: somebody has at it, or its record is part
    /// of no transaction, or of one that committed.
    pub(crate) fn is_visible(&self, place: (PartitionId, Offset), of: IsolationLevel) -> bool {
        let mut reads = self.reads.iter().filter(|read| (read.p(), read.o()) == place);
        let Some(first) = reads.next() else { return false };
        let is_committed_read =
            |read: &Read<'_>| self.isolation(read.client) == IsolationLevel::ReadCommitted;
        of == IsolationLevel::ReadUncommitted
            || is_committed_read(first)
            || reads.any(is_committed_read)
            || self.exactly(place).is_some_and(|send| self.is_committed(send))
    }

    pub(crate) fn is_committed(&self, send: &Op<'_>) -> bool {
        self.transaction_of(send).is_none_or(|transaction| transaction.committed.is_some())
    }

    /// The last complete reading of a partition at this isolation.
    pub(crate) fn audit(&self, partition: PartitionId, of: IsolationLevel) -> Option<Audit> {
        let entries = self.history.entries().iter().enumerate();
        let mut audits = entries.filter_map(|(noted, entry)| match entry.what {
            What::Note(Note::Audited { partition: id, low, high }) if id == partition => {
                (self.isolation(entry.client) == of).then_some(())?;
                let session = self.sessions.iter().rfind(|session| {
                    session.client == entry.client
                        && session.partition == partition
                        && session.began < noted
                })?;
                let made = self.history.entries().iter().take(noted).position(|made| {
                    made.client == entry.client && made.what == What::Note(Note::Made)
                });
                let seen = self.reads_of(session).iter().map(|read| read.o()).collect();
                Some(Audit { began: made.unwrap_or(0), noted, low, high, seen })
            }
            _ => None,
        });
        audits.next_back()
    }
}

/// A complete reading.
pub(crate) struct Audit {
    pub(crate) began: usize,
    pub(crate) noted: usize,
    pub(crate) low: Offset,
    pub(crate) high: Offset,
    pub(crate) seen: BTreeSet<Offset>,
}

fn operations(history: &History) -> Vec<Op<'_>> {
    let mut ops: Vec<Op<'_>> = Vec::new();
    for (at, entry) in history.entries().iter().enumerate() {
        if let What::Invoke(id, call) = &entry.what {
            let rest = &history.entries()[at..];
            let end = rest.iter().enumerate().find_map(|(after, end)| match &end.what {
                What::Ok(other, answer) if other == id => Some((at + after, How::Ok, Some(answer))),
                What::Fail(other, failure) if other == id => {
                    Some((at + after, How::Fail(*failure), None))
                }
                What::Info(other, failure) if other == id => {
                    Some((at + after, How::Info(*failure), None))
                }
                _ => None,
            });
            ops.push(Op {
                id: *id,
                client: entry.client,
                invoked: at,
                ended: end.map(|(ended, ..)| ended),
                how: end.map_or(How::Pending, |(_, how, _)| how),
                call,
                answer: end.and_then(|(.., answer)| answer),
            });
        }
    }
    ops
}

//! F, as it is defined, and what a transaction is.

use bus_check::CommitMode;
use bus_check::check::{Promise, Subject};
use bus_check::history::{Answer, Call, ClientId, EntryId, NameId, OperationId, PartitionId};
use bus_core::{IsolationLevel, Offset, Recovery};

use super::facts::{How, Op, Read};
use super::producer::is_replaced;
use super::{Broken, Facts};

const RC: IsolationLevel = IsolationLevel::ReadCommitted;

/// A transaction, from one `begin` of a producer to its end or to the next.
#[derive(Clone, Debug)]
pub(crate) struct Transaction {
    pub(crate) client: ClientId,
    pub(crate) id: NameId,
    pub(crate) began: usize,
    pub(crate) until: usize,
    pub(crate) commits: Vec<(usize, How, OperationId)>,
    pub(crate) committed: Option<usize>,
    pub(crate) aborted: Option<usize>,
    pub(crate) last: usize,
}

impl Transaction {
    /// It was aborted, or no commit was called for, or each such call was refused.
    pub(crate) fn is_not_committed(&self) -> bool {
        self.committed.is_none()
            && (self.aborted.is_some() || self.commits.iter().all(|(_, how, _)| how.is_fail()))
    }

    pub(crate) fn subject(&self) -> Subject {
        Subject::Transaction(EntryId::from_index(self.began))
    }
}

impl<'a> Facts<'a> {
    pub(crate) fn transactions(&self) -> Vec<Transaction> {
        let mut begins: Vec<(usize, ClientId)> = self
            .ops
            .iter()
            .filter(|op| matches!(op.call, Call::Begin) && op.how == How::Ok)
            .filter_map(|op| Some((op.ended?, op.client)))
            .filter(|(_, client)| self.producer(*client).transaction.is_some())
            .collect();
        begins.sort_unstable();
        begins.iter().map(|(began, client)| self.transaction(*began, *client, &begins)).collect()
    }

    fn transaction(
        &self,
        began: usize,
        client: ClientId,
        begins: &[(usize, ClientId)],
    ) -> Transaction {
        let next = begins.iter().find(|(at, other)| *other == client && *at > began);
        let next = next.map_or(usize::MAX, |(at, _)| *at);
        let of = |op: &&Op<'a>| op.client == client && began < op.invoked;
        // It ends with the first commit or abort that succeeds, or with the next one.
        let mut ends: Vec<_> = self
            .ops
            .iter()
            .filter(|op| op.client == client && op.how == How::Ok)
            .filter(|op| matches!(op.call, Call::CommitTransaction | Call::AbortTransaction))
            .filter_map(|op| Some((op.ended?, matches!(op.call, Call::CommitTransaction))))
            .filter(|(ended, _)| began < *ended && *ended < next)
            .collect();
        ends.sort_unstable();
        let end = ends.first().copied();
        let until = end.map_or(next, |(ended, _)| ended);
        let inside = |entry: usize| began < entry && entry < until;
        let commits = self.ops.iter().filter(of).filter(|op| inside(op.invoked));
        let commits = commits.filter(|op| matches!(op.call, Call::CommitTransaction));
        let invoked = self.ops.iter().filter(of).map(|op| op.invoked).filter(|at| inside(*at));
        let ended = self
            .ops
            .iter()
            .filter(|op| op.client == client)
            .filter(|op| matches!(op.call, Call::CommitTransaction | Call::AbortTransaction))
            .filter_map(|op| op.ended)
            .filter(|at| began < *at && *at <= until);
        Transaction {
            client,
            id: self.producer(client).transaction.unwrap().0,
            began,
            until,
            commits: commits.map(|op| (op.invoked, op.how, op.id)).collect(),
            committed: end.filter(|(_, is_commit)| *is_commit).map(|(ended, _)| ended),
            aborted: end.filter(|(_, is_commit)| !is_commit).map(|(ended, _)| ended),
            last: invoked.chain(ended).max().unwrap_or(began),
        }
    }

    pub(crate) fn transaction_of(&self, send: &Op<'_>) -> Option<Transaction> {
        self.transactions().into_iter().find(|transaction| {
            transaction.client == send.client
                && transaction.began < send.invoked
                && send.invoked < transaction.until
        })
    }

    fn sends_of<'f>(&'f self, transaction: &'f Transaction) -> impl Iterator<Item = &'f Op<'a>> {
        self.sends().filter(|send| {
            send.client == transaction.client
                && transaction.began < send.invoked
                && send.invoked < transaction.until
        })
    }

    /// The offsets that were sent to a transaction, with the call.
    pub(crate) fn offsets_of(
        &self,
        transaction: &Transaction,
    ) -> Vec<(NameId, PartitionId, Offset, How)> {
        let calls = self.ops.iter().filter(|op| {
            op.client == transaction.client
                && transaction.began < op.invoked
                && op.invoked < transaction.until
        });
        calls
            .flat_map(|op| match op.call {
                Call::SendOffsets { group, offsets, .. } => {
                    let offsets = offsets.iter();
                    offsets.map(|(id, offset)| (*group, *id, *offset, op.how)).collect()
                }
                _ => Vec::new(),
            })
            .collect()
    }
}

/// The reads of transactional records by `read_committed` consumers.
fn reads<'f, 'a>(facts: &'f Facts<'a>) -> Vec<(&'f Read<'a>, Transaction)> {
    let committed = facts.reads.iter().filter(|read| facts.isolation(read.client) == RC);
    committed
        .filter_map(|read| {
            let send = facts.exactly((read.p(), read.o()))?;
            Some((read, facts.transaction_of(send)?))
        })
        .collect()
}

fn delivery(read: &Read<'_>) -> (Subject, Promise) {
    (Subject::Delivery(read.client, read.p(), read.o()), Promise::Required)
}

/// A record of a transaction that was aborted is read.
pub(crate) fn f1(facts: &Facts<'_>) -> Broken {
    let reads = reads(facts).into_iter();
    reads.filter(|(_, found)| found.aborted.is_some()).map(|(read, _)| delivery(read)).collect()
}

/// A record of a transaction is read before its commit is called for.
pub(crate) fn f2(facts: &Facts<'_>) -> Broken {
    let is_dirty = |read: &Read<'_>, transaction: &Transaction| {
        !transaction.commits.iter().any(|(invoked, ..)| *invoked < read.entry)
    };
    let reads = reads(facts).into_iter();
    reads.filter(|(read, found)| is_dirty(read, found)).map(|(read, _)| delivery(read)).collect()
}

/// Whether records of a transaction are visible in the end, and whether others are not.
fn audited(facts: &Facts<'_>, transaction: &Transaction) -> Option<(bool, bool)> {
    let (mut visible, mut missing) = (false, false);
    for send in facts.sends_of(transaction) {
        let (seen, is_exact) = facts.seen(send.id);
        if seen.len() > 1 || (!seen.is_empty() && !is_exact) {
            return None;
        }
        let place = seen.first().copied();
        let partition = place.map(|(id, _)| id).or_else(|| send.told().map(|(id, _)| id));
        let Some(partition) = partition else { continue };
        let audit = facts.audit(partition, RC)?;
        if audit.began <= transaction.last {
            return None;
        }
        let offset = place.map(|(_, offset)| offset).or_else(|| send.told().and_then(|(_, at)| at));
        if offset.is_some_and(|offset| offset < audit.low) {
            continue;
        }
        match place {
            Some((_, offset)) if audit.seen.contains(&offset) => visible = true,
            Some(_) => missing = true,
            None => missing |= send.how == How::Ok,
        }
    }
    Some((visible, missing))
}

fn judged(
    facts: &Facts<'_>,
    promise: Promise,
    is_broken: fn(&Transaction, bool, bool) -> bool,
) -> Broken {
    let mut broken = Broken::new();
    for transaction in facts.transactions() {
        if facts.sends_of(&transaction).next().is_none() {
            continue;
        }
        let Some((visible, missing)) = audited(facts, &transaction) else { continue };
        if is_broken(&transaction, visible, missing) {
            broken.insert((transaction.subject(), promise));
        }
    }
    broken
}

/// Some records of a transaction are visible in the end, and others are not.
pub(crate) fn f4(facts: &Facts<'_>) -> Broken {
    judged(facts, facts.is_kept(), |_, visible, missing| visible && missing)
}

/// Records of a transaction that committed are not visible in the end.
pub(crate) fn f5(facts: &Facts<'_>) -> Broken {
    judged(facts, facts.is_kept(), |found, _, missing| found.committed.is_some() && missing)
}

/// Records of a transaction that did not commit are visible in the end.
pub(crate) fn f6(facts: &Facts<'_>) -> Broken {
    judged(facts, Promise::Required, |found, visible, _| found.is_not_committed() && visible)
}

/// Of a transaction whose outcome is unknown, some records are visible and others are not.
pub(crate) fn f7(facts: &Facts<'_>) -> Broken {
    judged(facts, facts.is_kept(), |found, visible, missing| {
        found.committed.is_none() && !found.is_not_committed() && visible && missing
    })
}

/// What is committed for a group is the offset of a transaction that did not commit.
pub(crate) fn f8(facts: &Facts<'_>) -> Broken {
    let mut broken = Broken::new();
    for told in facts.told_commits() {
        let Some(offset) = told.offset else { continue };
        let window = told.asked..told.answered;
        let key = (told.group, told.partition);
        let (others, _) = facts.may_be_committed(key, &window, false);
        // The first such transaction is named.
        let of_offset = |transaction: &Transaction| {
            let offsets = facts.offsets_of(transaction);
            offsets.iter().any(|(group, id, at, _)| (*group, *id, *at) == (key.0, key.1, offset))
        };
        let transactions = facts.transactions();
        let first = transactions.iter().find(|found| found.is_not_committed() && of_offset(found));
        let is_before = first.is_some_and(|first| first.began <= told.answered);
        if is_before && !others.contains(&offset) {
            broken.insert((Subject::Handled(key.0, key.1, offset), Promise::Required));
        }
    }
    broken
}

/// A producer commits after a newer one of its transactional id was initialized.
pub(crate) fn f9(facts: &Facts<'_>) -> Broken {
    let mut broken = Broken::new();
    for transaction in facts.transactions() {
        let is_empty = facts.sends_of(&transaction).next().is_none()
            && facts.offsets_of(&transaction).is_empty();
        let Some((invoked, _, id)) = transaction.commits.last() else { continue };
        if transaction.committed.is_some()
            && !is_empty
            && is_replaced(facts, transaction.client, *invoked)
        {
            broken.insert((Subject::Operation(*id), Promise::Required));
        }
    }
    broken
}

fn exactly_once(facts: &Facts<'_>) -> Promise {
    match facts.environment.commits {
        CommitMode::Transactional => Promise::Required,
        CommitMode::Unknown => Promise::Open,
        CommitMode::AfterHandling | CommitMode::BeforeHandling => Promise::NotPromised,
    }
}

/// Whether a transactional record counts: somebody read it as committed, or it was acknowledged and
/// its transaction committed.
fn is_output(facts: &Facts<'_>, send: &Op<'_>) -> bool {
    let Some(transaction) = facts.transaction_of(send) else { return false };
    let (seen, is_exact) = facts.seen(send.id);
    let is_read = facts
        .reads
        .iter()
        .any(|read| facts.isolation(read.client) == RC && seen.contains(&(read.p(), read.o())));
    (is_read && is_exact) || (transaction.committed.is_some() && send.how == How::Ok)
}

/// Two transactional outputs in one topic have one input, and both count.
pub(crate) fn f10(facts: &Facts<'_>) -> Broken {
    let outputs: Vec<_> = facts
        .sends()
        .filter(|send| send.sent().cause.is_some() && is_output(facts, send))
        .collect();
    let mut broken = Broken::new();
    for (index, later) in outputs.iter().enumerate() {
        let is_again = outputs[..index].iter().any(|earlier| {
            earlier.sent().cause == later.sent().cause && earlier.sent().topic == later.sent().topic
        });
        if is_again {
            broken.insert((Subject::Operation(later.id), exactly_once(facts)));
        }
    }
    broken
}

/// A transaction has committed the offset of an input, and there is no output that counts.
pub(crate) fn f11(facts: &Facts<'_>) -> Broken {
    let mut broken = Broken::new();
    let is_input = |partition: PartitionId| {
        facts.sends().any(|send| {
            send.sent().cause.is_some_and(|(cause, _)| {
                facts.history.topic_of(cause) == facts.history.topic_of(partition)
            })
        })
    };
    let has_output = |place: (PartitionId, Offset)| {
        facts.sends().any(|send| send.sent().cause == Some(place) && is_output(facts, send))
    };
    for transaction in facts.transactions().iter().filter(|found| found.committed.is_some()) {
        for (group, partition, offset, how) in facts.offsets_of(transaction) {
            if how.is_fail() || !is_input(partition) {
                continue;
            }
            for input in 0..offset {
                let place = (partition, input);
                if facts.is_visible(place, RC) && !has_output(place) {
                    let subject = Subject::Handled(group, partition, input);
                    broken.insert((subject, exactly_once(facts)));
                }
            }
        }
    }
    broken
}

/// The last stable offset is behind the high watermark, and no transaction is open.
pub(crate) fn f12(facts: &Facts<'_>) -> Broken {
    let mut broken = Broken::new();
    for partition in 0..facts.history.partitions().len() {
        let partition = PartitionId::from_index(partition);
        let all = facts.audit(partition, IsolationLevel::ReadUncommitted);
        let (Some(all), Some(committed)) = (all, facts.audit(partition, RC)) else { continue };
        let may_be_open = facts.transactions().iter().any(|found| {
            let (_, timeout) = facts.producer(found.client).transaction.unwrap();
            let timeout = u64::try_from(timeout.as_nanos()).unwrap();
            let due = facts.at(found.last) + timeout + facts.settling();
            let is_over = found.committed.is_some() || found.aborted.is_some();
            !is_over && due > facts.at(committed.began)
        });
        if committed.began > all.noted && committed.high < all.high && !may_be_open {
            broken.insert((Subject::Partition(partition), Promise::Required));
        }
    }
    broken
}

/// A record of a transaction is before one of an earlier transaction of its id.
pub(crate) fn f14(facts: &Facts<'_>) -> Broken {
    let places = |transaction: &Transaction| -> Vec<(PartitionId, Offset)> {
        let sends: Vec<_> = facts.sends_of(transaction).map(|send| facts.seen(send.id)).collect();
        sends
            .into_iter()
            .filter(|(seen, is_exact)| seen.len() == 1 && *is_exact)
            .map(|(seen, _)| seen[0])
            .collect()
    };
    let transactions = facts.transactions();
    let committed = || transactions.iter().filter(|found| found.committed.is_some());
    let mut broken = Broken::new();
    for later in committed() {
        let is_inverted = committed().any(|earlier| {
            earlier.id == later.id
                && earlier.committed.is_some_and(|at| at < later.began)
                && places(earlier).iter().any(|(partition, high)| {
                    places(later).iter().any(|(other, low)| other == partition && low < high)
                })
        });
        if is_inverted {
            broken.insert((later.subject(), facts.is_kept()));
        }
    }
    broken
}

/// What an answer is that tells commits.
pub(crate) struct Told {
    pub(crate) group: NameId,
    pub(crate) partition: PartitionId,
    pub(crate) offset: Option<Offset>,
    pub(crate) asked: usize,
    pub(crate) answered: usize,
    pub(crate) is_stable: bool,
}

impl Facts<'_> {
    /// All that was told of commits.
    pub(crate) fn told_commits(&self) -> Vec<Told> {
        let mut told = Vec::new();
        for op in &self.ops {
            let (Call::Committed(partitions), Some(Answer::Committed(offsets)), Some(answered)) =
                (op.call, op.answer, op.ended)
            else {
                continue;
            };
            let Some(group) = self.consumer(op.client).and_then(|own| own.group) else { continue };
            for (partition, offset) in partitions.iter().zip(offsets) {
                told.push(Told {
                    group,
                    partition: *partition,
                    offset: *offset,
                    asked: op.invoked,
                    answered,
                    is_stable: self.isolation(op.client) == RC,
                });
            }
        }
        told
    }
}

/// A transaction committed after one of its records failed in a way that makes it abort.
pub(crate) fn f19(facts: &Facts<'_>) -> Broken {
    let is_broken = |transaction: &Transaction| {
        let Some(committed) = transaction.committed else { return false };
        facts.sends_of(transaction).any(|send| {
            send.ended.is_some_and(|ended| ended < committed)
                && send.how.recovery() == Some(Recovery::Abort)
        })
    };
    let all = facts.transactions().into_iter();
    all.filter(is_broken).map(|found| (found.subject(), Promise::Required)).collect()
}

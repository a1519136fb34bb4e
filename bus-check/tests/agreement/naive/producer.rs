//! C, as it is defined.

use bus_check::check::{Promise, Subject};
use bus_check::history::{Call, ClientId, OperationId, PartitionId, What};
use bus_core::{ErrorKind, IsolationLevel};

use super::facts::{How, Op};
use super::{Broken, Facts};

/// A record was sent after another one of its producer had ended, and is before it.
pub(crate) fn c1(facts: &Facts<'_>) -> Broken {
    realtime(facts, |earlier, later| earlier.client == later.client)
}

/// The same of another producer's.
pub(crate) fn c3(facts: &Facts<'_>) -> Broken {
    realtime(facts, |earlier, later| earlier.client != later.client)
}

fn realtime(facts: &Facts<'_>, is_meant: fn(&Op<'_>, &Op<'_>) -> bool) -> Broken {
    inverted(facts, |earlier, later| {
        earlier.how == How::Ok
            && earlier.ended.is_some_and(|ended| ended < later.invoked)
            && is_meant(earlier, later)
    })
    .into_iter()
    .map(|(subject, _)| (subject, facts.is_kept()))
    .collect()
}

/// A record was sent after another one of its producer, and is before it.
pub(crate) fn c2(facts: &Facts<'_>) -> Broken {
    inverted(facts, |earlier, later| {
        earlier.invoked < later.invoked && earlier.client == later.client
    })
}

fn inverted(facts: &Facts<'_>, is_before: impl Fn(&Op<'_>, &Op<'_>) -> bool) -> Broken {
    let mut broken = Broken::new();
    for later in facts.sends() {
        let Some((partition, low)) = facts.place_of(later) else { continue };
        let is_inverted = facts.sends().any(|earlier| {
            let place = facts.place_of(earlier);
            is_before(earlier, later)
                && place.is_some_and(|(other, high)| other == partition && high > low)
        });
        if is_inverted {
            let promise = Promise::when(facts.producer(later.client).keeps_order());
            broken.insert((Subject::Operation(later.id), promise));
        }
    }
    broken
}

/// A record whose producer was told nothing is missing between two that are there, and before it
/// no failure was told.
pub(crate) fn c4(facts: &Facts<'_>) -> Broken {
    let mut broken = Broken::new();
    for missing in facts.sends() {
        let own = facts.producer(missing.client);
        let is_silent = matches!(missing.how, How::Pending | How::Info(None));
        let Some(partition) = destination(facts, missing) else { continue };
        if !own.is_idempotent() || !is_silent || !counts(facts, missing, partition) {
            continue;
        }
        let of_producer = |send: &&Op<'_>| {
            send.client == missing.client
                && destination(facts, send) == Some(partition)
                && counts(facts, send, partition)
        };
        let is_there = |send: &Op<'_>| is_in_audit(facts, send, partition);
        if is_there(missing) {
            continue;
        }
        // The first record of the producer that is there; what is told to fail behind it, while
        // nothing is there, ends the sequence.
        let begun = facts.sends().filter(of_producer).find(|send| is_there(send));
        let Some(begun) = begun.filter(|begun| begun.invoked < missing.invoked) else { continue };
        let later = facts
            .sends()
            .filter(of_producer)
            .find(|send| is_there(send) && send.invoked > missing.invoked);
        let Some(later) = later else { continue };
        let is_broken = facts.sends().filter(of_producer).any(|send| {
            let is_told = matches!(send.how, How::Fail(_) | How::Info(Some(_)));
            let is_between = begun.invoked < send.invoked && send.invoked < later.invoked;
            is_told && is_between && !is_there(send)
        });
        if !is_broken {
            broken.insert((Subject::Operation(missing.id), Promise::Required));
        }
    }
    broken
}

/// Whether a send can be judged by the audit of a partition.
fn counts(facts: &Facts<'_>, send: &Op<'_>, partition: PartitionId) -> bool {
    let audit = facts.audit(partition, IsolationLevel::ReadUncommitted);
    audit.is_some_and(|audit| send.invoked < audit.began && audit.low == 0) && facts.seen(send.id).1
}

fn is_in_audit(facts: &Facts<'_>, send: &Op<'_>, partition: PartitionId) -> bool {
    let audit = facts.audit(partition, IsolationLevel::ReadUncommitted);
    audit.is_some_and(|audit| {
        let (seen, _) = facts.seen(send.id);
        seen.iter().any(|(at, offset)| *at == partition && audit.seen.contains(offset))
    })
}

fn destination(facts: &Facts<'_>, send: &Op<'_>) -> Option<PartitionId> {
    if let Some((told, _)) = send.told() {
        return Some(told);
    }
    // The tiny Kafka's topic has had one partition and two, so a key alone does not say it.
    let number = send.sent().partition?;
    let place = (send.sent().topic, number);
    facts.history.partitions().iter().position(|known| *known == place).map(PartitionId::from_index)
}

/// A send ends more than once, or not at all although its producer is closed.
pub(crate) fn c5(facts: &Facts<'_>) -> Broken {
    let mut broken = Broken::new();
    for send in facts.sends() {
        let ends = facts.history.entries().iter().filter(|entry| match &entry.what {
            What::Ok(id, _) | What::Fail(id, _) | What::Info(id, _) => *id == send.id,
            _ => false,
        });
        let ends = ends.count();
        let outlives_close = facts.ops.iter().any(|op| {
            let is_open = |closed| match send.ended {
                None => true,
                Some(ended) => send.how == How::Info(None) && facts.at(ended) > facts.at(closed),
            };
            matches!(op.call, Call::CloseProducer { .. })
                && op.client == send.client
                && op.how == How::Ok
                && op.ended.is_some_and(|closed| closed > send.invoked && is_open(closed))
        });
        if (ends > 1 && send.ended.is_some()) || outlives_close {
            broken.insert((Subject::Operation(send.id), Promise::Required));
        }
    }
    broken
}

/// Of two deliveries of one producer and partition, the one that was sent later ends earlier.
pub(crate) fn c6(facts: &Facts<'_>) -> Broken {
    let mut broken = Broken::new();
    for later in facts.sends() {
        let (Some((partition, _)), Some(ended)) = (later.told(), later.ended) else { continue };
        let is_overtaken = facts.sends().any(|earlier| {
            earlier.invoked < later.invoked
                && earlier.client == later.client
                && earlier.told().is_some_and(|(other, _)| other == partition)
                && earlier.ended.is_some_and(|other| facts.at(other) > facts.at(ended))
        });
        if is_overtaken {
            let promise = Promise::when(facts.producer(later.client).keeps_order());
            broken.insert((Subject::Operation(later.id), promise));
        }
    }
    broken
}

/// Whether a newer producer of the same id was initialized before `at`: its initialization was
/// called for after that of this one had returned, and has returned.
pub(crate) fn is_replaced(facts: &Facts<'_>, client: ClientId, at: usize) -> bool {
    let id = facts.producer(client).transaction.map(|(id, _)| id);
    let inits = |is_meant: &dyn Fn(&Op<'_>) -> bool| -> Vec<(usize, usize)> {
        facts
            .ops
            .iter()
            .filter(|op| matches!(op.call, Call::InitTransactions) && op.how == How::Ok)
            .filter(|op| is_meant(op))
            .filter_map(|op| Some((op.invoked, op.ended?)))
            .collect()
    };
    let own = inits(&|op| op.client == client).into_iter().map(|(_, ended)| ended);
    let Some(own) = own.filter(|ended| *ended < at).max() else { return false };
    let others = inits(&|op| {
        op.client != client && facts.producer(op.client).transaction.map(|(id, _)| id) == id
    });
    others.iter().any(|(invoked, ended)| *invoked > own && *ended < at)
}

/// A producer appends after a newer one of its transactional id was initialized.
pub(crate) fn c7(facts: &Facts<'_>) -> Broken {
    facts
        .sends()
        .filter(|send| facts.producer(send.client).transaction.is_some())
        .filter(|send| send.how == How::Ok && is_replaced(facts, send.client, send.invoked))
        .map(|send| (Subject::Operation(send.id), Promise::Required))
        .collect()
}

/// A producer is fenced, though no other one was initialized since, and none of its transactions
/// took too long.
pub(crate) fn c8(facts: &Facts<'_>) -> Broken {
    let mut broken = Broken::new();
    let mut told: Vec<ClientId> = Vec::new();
    for (at, entry) in facts.history.entries().iter().enumerate() {
        let (What::Fail(id, failure) | What::Info(id, Some(failure))) = &entry.what else {
            continue;
        };
        let Some(client) = client_of(facts, *id) else { continue };
        let Some(own) = facts.history.producer(client) else { continue };
        let Some((tid, timeout)) = own.transaction else { continue };
        let is_fenced =
            matches!(failure.kind, ErrorKind::ProducerFenced | ErrorKind::InvalidProducerEpoch);
        if !is_fenced || told.contains(&client) {
            continue;
        }
        told.push(client);
        let inits = || facts.ops.iter().filter(|op| matches!(op.call, Call::InitTransactions));
        let own = inits().filter(|op| op.client == client && op.how == How::Ok);
        let own = own.filter_map(|op| op.ended).filter(|ended| *ended < at).max();
        let is_replaced = inits().any(|op| {
            let ended = op.ended.filter(|_| op.how == How::Ok);
            op.client != client
                && facts.producer(op.client).transaction.map(|(id, _)| id) == Some(tid)
                && op.invoked < at
                && ended.is_none_or(|ended| own.is_none_or(|own| ended > own))
        });
        let is_late = facts.transactions().iter().any(|transaction| {
            let end = transaction.committed.or(transaction.aborted).unwrap_or(at).min(at);
            transaction.client == client
                && transaction.began < at
                && u128::from(facts.at(end).saturating_sub(facts.at(transaction.began)))
                    >= timeout.as_nanos()
        });
        if !is_replaced && !is_late {
            broken.insert((Subject::Operation(*id), Promise::NotPromised));
        }
    }
    broken
}

/// The client of an operation that was invoked at some time.
fn client_of(facts: &Facts<'_>, id: OperationId) -> Option<ClientId> {
    facts.op(id).map(|op| op.client)
}

/// A flush or a commit has returned, and a send before it ends later.
pub(crate) fn c9(facts: &Facts<'_>) -> Broken {
    let mut broken = Broken::new();
    for flush in &facts.ops {
        let is_flush = matches!(flush.call, Call::Flush | Call::CommitTransaction);
        let Some(flushed) = flush.ended.filter(|_| is_flush && flush.how == How::Ok) else {
            continue;
        };
        let is_early = facts.sends().any(|send| {
            send.client == flush.client
                && send.invoked < flush.invoked
                && send.ended.is_none_or(|ended| facts.at(ended) > facts.at(flushed))
        });
        if is_early {
            broken.insert((Subject::Operation(flush.id), Promise::Required));
        }
    }
    broken
}

//! Transactions: what belongs to each, and what became of it as far as its producer was told.

use bus_core::Offset;

use super::Model;
use super::operations::End;
use crate::history::{Call, ClientId, EntryId, NameId, OperationId, PartitionId, What};

/// A transaction, from its `begin`.
#[derive(Clone, Debug)]
pub struct Transaction {
    /// The producer.
    pub client: ClientId,
    /// Its transactional id.
    pub id: NameId,
    /// The entry that began it.
    pub began: EntryId,
    /// Its sends, in the order of their calls.
    pub sends: Vec<usize>,
    /// The offsets that were sent to it: group, partition, offset, and the call.
    pub offsets: Vec<(NameId, PartitionId, Offset, OperationId)>,
    /// The first call to commit it.
    pub commit_invoked: Option<EntryId>,
    /// The last call to commit it.
    pub last_commit: Option<OperationId>,
    /// Whether every call to commit it has definitely failed.
    pub was_refused: bool,
    /// The entry that says that it committed.
    pub committed: Option<EntryId>,
    /// The entry that says that it was aborted.
    pub aborted: Option<EntryId>,
    /// The last entry that is about it.
    pub last: EntryId,
}

impl Transaction {
    /// Whether it definitely did not commit: it was aborted, or nobody asked for its commit, or
    /// every such call was refused.
    pub const fn is_not_committed(&self) -> bool {
        self.committed.is_none()
            && (self.aborted.is_some() || self.commit_invoked.is_none() || self.was_refused)
    }

    /// Whether nothing is known of its outcome.
    pub const fn is_open(&self) -> bool {
        self.committed.is_none() && !self.is_not_committed()
    }

    /// Whether a broker has heard of it.
    pub const fn is_empty(&self) -> bool {
        self.sends.is_empty() && self.offsets.is_empty()
    }
}

/// Finds all transactions, and tells each send which one it is part of.
pub(super) fn build(model: &mut Model<'_>) -> Vec<Transaction> {
    let mut open: Vec<Option<usize>> = vec![None; model.history.clients().len()];
    let mut transactions: Vec<Transaction> = Vec::new();
    let mut next_send = 0;
    for (at, entry) in model.history.iter() {
        let client = entry.client;
        let Some(facts) = model.history.producer(client) else { continue };
        let Some((tid, _)) = facts.transaction else {
            if matches!(entry.what, What::Invoke(_, Call::Send(_))) {
                next_send += 1;
            }
            continue;
        };
        if let What::Invoke(id, call) = &entry.what {
            if matches!(call, Call::Send(_)) {
                if let Some(index) = open[client.index()] {
                    transactions[index].sends.push(next_send);
                    model.sends[next_send].transaction = Some(index);
                }
                next_send += 1;
            }
            if let Some(index) = open[client.index()] {
                invoke(&mut transactions[index], at, *id, call);
            }
            continue;
        }
        let (What::Ok(id, _) | What::Fail(id, _) | What::Info(id, _)) = &entry.what else {
            continue;
        };
        let operation = *model.operation(*id);
        if operation.ended != Some(at) || operation.client != client {
            continue;
        }
        match (operation.call, operation.end) {
            (Some(Call::Begin), End::Ok) => {
                open[client.index()] = Some(transactions.len());
                transactions.push(Transaction {
                    client,
                    id: tid,
                    began: at,
                    sends: Vec::new(),
                    offsets: Vec::new(),
                    commit_invoked: None,
                    last_commit: None,
                    was_refused: true,
                    committed: None,
                    aborted: None,
                    last: at,
                });
            }
            (Some(Call::CommitTransaction | Call::AbortTransaction), end) => {
                let slot = &mut open[client.index()];
                if let Some(index) = *slot {
                    let is_commit = matches!(operation.call, Some(Call::CommitTransaction));
                    if conclude(&mut transactions[index], at, is_commit, end) {
                        *slot = None;
                    }
                }
            }
            _ => {}
        }
    }
    // A commit whose outcome is pending was not refused.
    for transaction in &mut transactions {
        let last = transaction.last_commit.map(|id| model.operations[id.index()].end);
        if last.is_some_and(|end| !matches!(end, End::Fail(_))) {
            transaction.was_refused = false;
        }
    }
    transactions
}

fn invoke(transaction: &mut Transaction, at: EntryId, id: OperationId, call: &Call) {
    match call {
        Call::SendOffsets { group, offsets, .. } => {
            let offsets =
                offsets.iter().map(|(partition, offset)| (*group, *partition, *offset, id));
            transaction.offsets.extend(offsets);
        }
        Call::CommitTransaction => {
            transaction.commit_invoked.get_or_insert(at);
            transaction.last_commit = Some(id);
        }
        _ => {}
    }
    transaction.last = at;
}

/// Takes note of the end of a call to commit or abort. Returns whether the transaction is over.
fn conclude(transaction: &mut Transaction, at: EntryId, is_commit: bool, end: End) -> bool {
    transaction.last = at;
    match (is_commit, end) {
        (true, End::Ok) => {
            transaction.committed = Some(at);
            true
        }
        (false, End::Ok) => {
            transaction.aborted = Some(at);
            true
        }
        (true, End::Info(_)) => {
            transaction.was_refused = false;
            false
        }
        (_, End::Pending | End::Fail(_) | End::Info(_)) => false,
    }
}

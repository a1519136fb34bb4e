//! What became of transactions: all of one is visible to readers of committed records, or nothing.

use std::collections::BTreeMap;

use bus_core::{Offset, RecordMetadata, TopicPartition};

use super::{Evidence, Law, Violation};
use crate::history::{Client, ClientId, End, Entry, Event, SendId};

/// Checks the laws of this module.
pub fn check(entries: &[Entry], evidence: &Evidence) -> Vec<Violation> {
    let transactions = Transactions::of(entries);
    transactions.all.iter().filter_map(|transaction| transaction.check(evidence)).collect()
}

/// How a transaction has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Its commit was acknowledged.
    Committed,
    /// It was aborted, or nobody ever asked for its commit.
    Aborted,
    /// Its commit was asked for, and its outcome is unknown.
    Unknown,
}

/// The transactions of a history.
#[derive(Debug, Default)]
pub struct Transactions<'a> {
    all: Vec<Transaction<'a>>,
    of_send: BTreeMap<SendId, usize>,
}

#[derive(Debug)]
struct Transaction<'a> {
    client: ClientId,
    fate: Option<Fate>,
    /// The call that was asked to end it, and not answered yet.
    ending: Option<End>,
    /// Whether an earlier commit may have happened.
    is_unknown: bool,
    sends: Vec<SendId>,
    acknowledged: Vec<&'a RecordMetadata>,
}

impl<'a> Transactions<'a> {
    /// Gathers the transactions of a history.
    pub fn of(entries: &'a [Entry]) -> Self {
        let mut transactions = Self::default();
        let mut open: BTreeMap<ClientId, usize> = BTreeMap::new();
        for entry in entries {
            let client = entry.client;
            let current = open.get(&client).copied();
            match &entry.event {
                Event::Begun => {
                    if let Some(older) = current {
                        transactions.all[older].overtaken();
                    }
                    open.insert(client, transactions.all.len());
                    transactions.all.push(Transaction::new(client));
                }
                Event::Send { send, .. } => {
                    if let Some(current) = current {
                        transactions.of_send.insert(*send, current);
                        transactions.all[current].sends.push(*send);
                    }
                }
                Event::Sent { send, outcome: Ok(metadata) } => {
                    if let Some(transaction) = transactions.of_send.get(send) {
                        transactions.all[*transaction].acknowledged.push(metadata);
                    }
                }
                Event::Ending(end) => {
                    if let Some(current) = current {
                        transactions.all[current].ending = Some(*end);
                    }
                }
                Event::Ended { end, outcome } => {
                    let Some(current) = current else { continue };
                    let transaction = &mut transactions.all[current];
                    transaction.ending = None;
                    match outcome {
                        Ok(()) => {
                            transaction.end(*end);
                            open.remove(&client);
                        }
                        Err(error) => {
                            transaction.is_unknown |=
                                *end == End::Commit && error.is_indeterminate();
                        }
                    }
                }
                _ => {}
            }
        }
        transactions
    }

    /// What became of the transaction of a send; `None` if it has none.
    pub fn fate(&self, send: SendId) -> Option<Fate> {
        self.of_send.get(&send).map(|transaction| self.all[*transaction].fate())
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// The least and the most markers that these transactions have left in a partition.
    pub fn markers(
        &self,
        place: &TopicPartition,
        is_sent_there: impl Fn(SendId) -> bool,
    ) -> (Offset, Offset) {
        let is_there = |metadata: &&RecordMetadata| metadata.topic_partition == *place;
        let least = self.all.iter().filter(|t| t.acknowledged.iter().any(is_there)).count();
        let most = self.all.iter().filter(|t| t.sends.iter().any(|send| is_sent_there(*send)));
        (Offset::try_from(least).unwrap_or(0), Offset::try_from(most.count()).unwrap_or(0))
    }
}

/// The transactional ids whose last transaction may be open still.
pub fn left_open(entries: &[Entry]) -> Vec<String> {
    let transactions = Transactions::of(entries);
    let mut last: BTreeMap<ClientId, Option<Fate>> = BTreeMap::new();
    for transaction in &transactions.all {
        last.insert(transaction.client, transaction.fate);
    }
    let mut ids: Vec<_> = entries
        .iter()
        .filter_map(|entry| match &entry.event {
            Event::Made(Client::Producer { transactional_id: Some(id), .. }) => {
                matches!(last.get(&entry.client), Some(None)).then(|| id.clone())
            }
            Event::ForeignTransactions(id) => Some(id.clone()),
            _ => None,
        })
        .collect();
    ids.sort();
    ids.dedup();
    ids
}

impl Transaction<'_> {
    const fn new(client: ClientId) -> Self {
        Self {
            client,
            fate: None,
            ending: None,
            is_unknown: false,
            sends: Vec::new(),
            acknowledged: Vec::new(),
        }
    }

    fn end(&mut self, end: End) {
        self.fate = Some(match end {
            End::Commit => Fate::Committed,
            End::Abort => Fate::Aborted,
        });
    }

    /// Another transaction of the producer began, so this one has ended as was asked.
    fn overtaken(&mut self) {
        if let (None, Some(end)) = (self.fate, self.ending) {
            self.end(end);
        }
    }

    fn fate(&self) -> Fate {
        let may_commit = self.is_unknown || self.ending == Some(End::Commit);
        self.fate.unwrap_or(if may_commit { Fate::Unknown } else { Fate::Aborted })
    }

    fn check(&self, evidence: &Evidence) -> Option<Violation> {
        let places = self.acknowledged.iter().filter_map(|metadata| {
            let place = &metadata.topic_partition;
            let (log, offset) = (evidence.logs.get(place)?, metadata.offset?);
            (offset >= log.start).then(|| (place, offset, log.at(offset).is_some()))
        });
        let (visible, hidden): (Vec<_>, Vec<_>) = places.partition(|(_, _, visible)| *visible);
        let fate = self.fate();
        let wrong = match fate {
            Fate::Committed => hidden.first(),
            Fate::Aborted => visible.first(),
            Fate::Unknown if visible.is_empty() => None,
            Fate::Unknown => hidden.first(),
        };
        let (place, offset, is_visible) = wrong?;
        let message = format!(
            "client {}: of a transaction that is {fate:?}, {} records are visible and {} are not; \
             {place}@{offset} is {}visible",
            self.client.0,
            visible.len(),
            hidden.len(),
            if *is_visible { "" } else { "not " }
        );
        Some(Violation::new(Law::Transaction, message))
    }
}

#[cfg(test)]
mod tests {
    use bus_core::{Error, ErrorKind};

    use super::*;
    use crate::oracle::story::Story;

    /// A story of one transaction with two records, of which so many are visible, that ends so.
    fn story(outcomes: &[(End, bus_core::Result<()>)], visible: usize) -> Vec<Law> {
        let mut story = Story::new();
        let producer = story.transactional();
        story.event(producer, Event::Begun);
        let offsets = [story.sent(producer, "a"), story.sent(producer, "b")];
        for (end, outcome) in outcomes {
            story.event(producer, Event::Ending(*end));
            story.event(producer, Event::Ended { end: *end, outcome: outcome.clone() });
        }
        story.marker();
        for offset in &offsets[visible..] {
            story.hide(*offset);
        }
        story.broken()
    }

    fn failed(kind: ErrorKind) -> bus_core::Result<()> {
        Err(Error::from(kind))
    }

    #[test]
    fn a_committed_transaction_is_visible_as_a_whole() {
        for (visible, broken) in
            [(2, vec![]), (1, vec![Law::Transaction]), (0, vec![Law::Transaction])]
        {
            assert_eq!(story(&[(End::Commit, Ok(()))], visible), broken, "{visible}");
        }
    }

    #[test]
    fn an_aborted_transaction_is_invisible() {
        let commit = (End::Commit, failed(ErrorKind::TransactionAbortable));
        for outcomes in [vec![(End::Abort, Ok(()))], vec![commit, (End::Abort, Ok(()))], vec![]] {
            assert_eq!(story(&outcomes, 0), [], "{outcomes:?}");
            assert!(story(&outcomes, 1).contains(&Law::Transaction), "{outcomes:?}");
        }
    }

    #[test]
    fn a_transaction_with_an_unknown_end_is_visible_or_not() {
        let outcomes = [(End::Commit, failed(ErrorKind::TimedOut))];
        for (visible, broken) in [(2, vec![]), (1, vec![Law::Transaction]), (0, vec![])] {
            assert_eq!(story(&outcomes, visible), broken, "{visible}");
        }
        let refused = [(End::Commit, failed(ErrorKind::ProducerFenced))];
        assert!(story(&refused, 2).contains(&Law::Transaction), "it was refused for certain");
    }

    #[test]
    fn markers_are_the_only_holes() {
        let mut story = Story::new();
        let producer = story.transactional();
        story.event(producer, Event::Begun);
        story.sent(producer, "a");
        story.event(producer, Event::Ending(End::Commit));
        story.event(producer, Event::Ended { end: End::Commit, outcome: Ok(()) });
        assert_eq!(story.broken(), [Law::Offset], "its marker is missing");
        story.marker();
        assert_eq!(story.broken(), []);
        story.marker();
        assert_eq!(story.broken(), [Law::Offset], "one too many");
    }

    #[test]
    fn who_is_left_open_is_known() {
        let mut story = Story::new();
        let producer = story.transactional();
        assert_eq!(left_open(&story.entries()), [""; 0]);
        story.event(producer, Event::Begun);
        assert_eq!(left_open(&story.entries()), ["t"]);
        story.event(producer, Event::Ending(End::Abort));
        story.event(producer, Event::Ended { end: End::Abort, outcome: Ok(()) });
        assert_eq!(left_open(&story.entries()), [""; 0]);
    }
}

//! The ledger: which offsets hold records that a reader will be given.
//!
//! A reader of a real Kafka is not told that it is at the end, and markers of transactions take
//! offsets that nobody is given. So the interpreter notes what it sent, to know how far a read will
//! come, and needs not wait in real time for records that do not exist.

use std::collections::{BTreeMap, BTreeSet};

use bus_core::{IsolationLevel, Offset};

use crate::slot::{Place, TopicSlot, TransactorSlot};

/// Which offsets hold records.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    records: BTreeMap<(Place, Offset), Fate>,
    /// Partitions of open transactions that may have no record of them: a refused record leaves a
    /// marker too.
    touched: BTreeSet<(TransactorSlot, Place)>,
}

/// Who may be given a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// Everyone.
    Committed,
    /// Those who read uncommitted records, until the transaction ends.
    Open(TransactorSlot),
    /// Those who read uncommitted records.
    Aborted,
}

impl Ledger {
    /// A record was appended, by a transaction or not.
    pub(crate) fn append(&mut self, place: Place, offset: Offset, by: Option<TransactorSlot>) {
        let fate = by.map_or(Fate::Committed, Fate::Open);
        self.records.insert((place, offset), fate);
    }

    /// A record of a transaction was refused, which may be after its partition was added.
    pub(crate) fn touch(&mut self, place: Place, by: TransactorSlot) {
        self.touched.insert((by, place));
    }

    /// The transaction of a producer ended.
    pub(crate) fn end(&mut self, by: TransactorSlot, is_commit: bool) {
        let fate = if is_commit { Fate::Committed } else { Fate::Aborted };
        self.records.values_mut().filter(|f| **f == Fate::Open(by)).for_each(|f| *f = fate);
        self.touched.retain(|(slot, _)| *slot != by);
    }

    /// The partitions of an open transaction of a producer.
    pub(crate) fn open(&self, by: TransactorSlot) -> Vec<Place> {
        let open = self.records.iter().filter(|(_, fate)| **fate == Fate::Open(by));
        let touched = self.touched.iter().filter(|(slot, _)| *slot == by);
        let places = open.map(|((place, _), _)| *place).chain(touched.map(|(_, place)| *place));
        places.collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// A topic is gone with its records.
    pub(crate) fn delete(&mut self, topic: TopicSlot) {
        self.records.retain(|(place, _), _| place.topic != topic);
    }

    /// The offset behind the last record from `from` to before `end` that a reader is given; `from`
    /// if there is none.
    pub(crate) fn target(
        &self,
        place: Place,
        isolation: IsolationLevel,
        from: Offset,
        end: Offset,
    ) -> Offset {
        if from >= end {
            return from;
        }
        let mut records = self.records.range((place, from)..(place, end));
        let is_given = |fate: &Fate| match isolation {
            IsolationLevel::ReadUncommitted => true,
            IsolationLevel::ReadCommitted => *fate == Fate::Committed,
        };
        let last = records.rfind(|(_, fate)| is_given(fate));
        last.map_or(from, |((_, offset), _)| offset + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_comes_as_far_as_its_isolation_lets_it() {
        const PLACE: Place = Place::new(TopicSlot::T0, 0);
        let mut ledger = Ledger::default();
        let committed =
            |ledger: &Ledger, from| ledger.target(PLACE, IsolationLevel::ReadCommitted, from, 4);
        ledger.append(PLACE, 0, None);
        ledger.append(PLACE, 1, Some(TransactorSlot::X0));
        assert_eq!(committed(&ledger, 0), 1);
        assert_eq!(ledger.open(TransactorSlot::X0), [PLACE]);
        ledger.end(TransactorSlot::X0, false);
        assert_eq!(committed(&ledger, 0), 1);
        assert_eq!(ledger.target(PLACE, IsolationLevel::ReadUncommitted, 0, 4), 2);
        assert_eq!(committed(&ledger, 3), 3);
        ledger.append(PLACE, 3, Some(TransactorSlot::X0));
        ledger.end(TransactorSlot::X0, true);
        assert_eq!(committed(&ledger, 1), 4);
        assert_eq!(committed(&ledger, 9), 9);
    }
}

//! The leader epochs of a log, each with the offset it begins at: by them two replicas find out
//! where their logs part (KIP-101, KIP-279).
//!
//! - An epoch begins with the first batch that carries it, or when its leader takes over, at the
//!   end of the log of then.
//! - Durable: every epoch is on disk before its first batch is.

use bus_core::Offset;

use crate::protocol::offset_for_leader_epoch::EpochEnd;

/// The leader epochs of a log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct EpochCache {
    /// Epochs and where they begin; both ascend.
    entries: Vec<(i32, Offset)>,
}

impl EpochCache {
    /// The latest epoch.
    pub(super) fn latest(&self) -> Option<i32> {
        self.entries.last().map(|(epoch, _)| *epoch)
    }

    /// Notes that an epoch begins at an offset, unless it is the latest and began before.
    pub(super) fn assign(&mut self, epoch: i32, start: Offset) {
        if self.entries.last().is_some_and(|last| last.0 == epoch && last.1 <= start) {
            return;
        }
        while self.entries.pop_if(|last| last.0 >= epoch || last.1 >= start).is_some() {}
        self.entries.push((epoch, start));
    }

    /// Forgets the epochs that begin at or behind the end of the log.
    pub(super) fn truncate(&mut self, log_end: Offset) {
        while self.entries.pop_if(|last| last.1 >= log_end).is_some() {}
    }

    /// The largest epoch that is not above `epoch`, and the offset behind its last record. `None`
    /// if `epoch` is above all.
    ///
    /// An epoch before all that are known ends where the first of them begins.
    pub(super) fn end_of(&self, epoch: i32, log_end: Offset) -> Option<EpochEnd> {
        if self.latest() == Some(epoch) {
            return Some(EpochEnd { leader_epoch: epoch, end_offset: log_end });
        }
        let higher = self.entries.partition_point(|entry| entry.0 <= epoch);
        let end_offset = self.entries.get(higher)?.1;
        let floor = higher.checked_sub(1).map_or(epoch, |index| self.entries[index].0);
        Some(EpochEnd { leader_epoch: floor, end_offset })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cache(entries: &[(i32, Offset)]) -> EpochCache {
        let mut cache = EpochCache::default();
        entries.iter().for_each(|(epoch, start)| cache.assign(*epoch, *start));
        cache
    }

    fn end(cache: &EpochCache, epoch: i32) -> Option<(i32, Offset)> {
        cache.end_of(epoch, 100).map(|end| (end.leader_epoch, end.end_offset))
    }

    #[test]
    fn an_epoch_ends_where_the_next_one_begins() {
        let cache = cache(&[(2, 0), (3, 10), (7, 20)]);
        assert_eq!(end(&cache, 2), Some((2, 10)));
        assert_eq!(end(&cache, 3), Some((3, 20)));
        assert_eq!(end(&cache, 5), Some((3, 20)), "the largest that is not above");
        assert_eq!(end(&cache, 7), Some((7, 100)), "the latest ends with the log");
        assert_eq!(end(&cache, 8), None);
        assert_eq!(end(&cache, 1), Some((1, 0)), "before all that are known");
        assert_eq!(end(&EpochCache::default(), 0), None);
    }

    #[test]
    fn an_epoch_is_assigned_once() {
        assert_eq!(cache(&[(1, 5), (1, 9)]), cache(&[(1, 5)]));
    }

    #[test]
    fn an_epoch_without_records_gives_way_to_the_next() {
        assert_eq!(cache(&[(1, 0), (2, 5), (3, 5)]), cache(&[(1, 0), (3, 5)]));
    }

    #[test]
    fn truncation_forgets_what_begins_behind() {
        let mut truncated = cache(&[(1, 0), (2, 5), (3, 8)]);
        truncated.truncate(8);
        assert_eq!(truncated, cache(&[(1, 0), (2, 5)]));
        truncated.truncate(6);
        assert_eq!(truncated, cache(&[(1, 0), (2, 5)]), "the epoch has a record left");
        truncated.truncate(0);
        assert_eq!(truncated, EpochCache::default());
    }
}

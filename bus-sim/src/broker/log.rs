//! The log of a replica: batches in the order of their offsets, and how to find them by offset and
//! by time.
//!
//! - A record keeps its offset; a batch is shared with messages and never copied.
//! - Found by time: the first batch whose latest timestamp is not older, and in it the first such
//!   record, as Kafka's time index does.
//! - An append is in the page cache at once, and on the disk when it was flushed or the system
//!   wrote it, some time later: until then a loss of power takes it.
//!
//! Simplified: one segment; the system writes batches as a whole, and in their order.
//! Absent: retention, compaction, deletion of records. See `docs/fidelity.md`.

use std::time::Duration;

use bus_core::{ErrorKind, Offset, Timestamp};

use crate::protocol::batch::StoredBatch;
use crate::time::SimTime;

/// The log of a replica.
#[derive(Clone, Debug, Default)]
pub(super) struct Log {
    /// Sorted by offset.
    entries: Vec<Entry>,
    start: Offset,
    end: Offset,
    /// What is before this was flushed to the disk.
    flushed: Offset,
    /// The bytes of all batches.
    bytes: u64,
}

/// A batch, with what it takes to find it.
#[derive(Clone, Debug)]
struct Entry {
    stored: StoredBatch,
    /// The bytes of the batches before it.
    position: u64,
    /// The latest timestamp of this batch and all before it; ascends.
    latest: Timestamp,
    /// When it was appended.
    appended: SimTime,
}

/// Why there is nothing at an offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct OutOfRange;

impl From<OutOfRange> for ErrorKind {
    fn from(OutOfRange: OutOfRange) -> Self {
        Self::OffsetOutOfRange
    }
}

impl Log {
    /// The first offset that is kept.
    pub(super) const fn start(&self) -> Offset {
        self.start
    }

    /// The offset of the next record to be appended.
    pub(super) const fn end(&self) -> Offset {
        self.end
    }

    /// Appends a batch at its offset, which is the end or, if records before it are missing, behind
    /// it.
    pub(super) fn append(&mut self, now: SimTime, stored: StoredBatch) {
        assert!(stored.base_offset >= self.end, "offsets ascend");
        let own = stored.max_timestamp();
        let latest = self.entries.last().map_or(own, |last| last.latest.max(own));
        let position = self.bytes;
        self.bytes += u64::from(stored.batch.size);
        self.end = stored.next_offset();
        self.entries.push(Entry { stored, position, latest, appended: now });
    }

    /// Takes back the batches that reach beyond `end`.
    pub(super) fn truncate(&mut self, end: Offset) {
        if end >= self.end {
            return;
        }
        while let Some(entry) = self.entries.pop_if(|last| last.stored.next_offset() > end) {
            self.bytes = entry.position;
        }
        self.end = end;
        self.flushed = self.flushed.min(end);
    }

    /// Writes all to the disk.
    pub(super) const fn flush(&mut self) {
        self.flushed = self.end;
    }

    /// Writes all to the disk if so many records are not.
    pub(super) fn flush_from(&mut self, records: u64) {
        if u64::try_from(self.end - self.flushed).is_ok_and(|unflushed| unflushed >= records) {
            self.flush();
        }
    }

    /// What is before this is on the disk, if the system writes each batch after `expiry`.
    pub(super) fn written(&self, now: SimTime, expiry: Duration) -> Offset {
        let index = self.entries.partition_point(|entry| entry.appended + expiry <= now);
        let written = self.entries.get(index).map_or(self.end, |entry| entry.stored.base_offset);
        written.max(self.flushed)
    }

    /// Gives the last offset to the next batch as well: a planted bug.
    pub(super) const fn reuse_last_offset(&mut self) {
        self.end -= 1;
    }

    /// Gives no batch the next offsets: a planted bug.
    pub(super) const fn skip(&mut self, count: Offset) {
        self.end += count;
    }

    /// Loses the last batch, and keeps its offsets: a planted bug.
    pub(super) fn lose_last_batch(&mut self) {
        if let Some(entry) = self.entries.pop() {
            self.bytes = entry.position;
        }
    }

    /// Where the last batch begins.
    pub(super) fn last_base(&self) -> Offset {
        self.entries.last().map_or(self.start, |last| last.stored.base_offset)
    }

    /// All batches, in order.
    pub(super) fn batches(&self) -> impl Iterator<Item = &StoredBatch> {
        self.entries.iter().map(|entry| &entry.stored)
    }

    /// How many records it holds.
    pub(super) fn record_count(&self) -> usize {
        self.batches().map(|stored| stored.batch.records.len()).sum()
    }

    /// Reads the batches from `offset` to before `limit`, up to `max_bytes`; with `or_one`, the
    /// first of them also when it is larger than that.
    ///
    /// # Errors
    /// `offset` is before the start or after the end of the log. The end itself is fine.
    pub(super) fn read(
        &self,
        offset: Offset,
        limit: Offset,
        max_bytes: u32,
        or_one: bool,
    ) -> Result<Vec<StoredBatch>, OutOfRange> {
        self.check(offset)?;
        if offset >= limit {
            return Ok(Vec::new());
        }
        let first = self.index_of(offset);
        let mut bytes = 0;
        let fits = |entry: &&Entry| {
            bytes += entry.stored.batch.size;
            let is_forced = or_one && bytes == entry.stored.batch.size;
            entry.stored.base_offset < limit && (bytes <= max_bytes || is_forced)
        };
        Ok(self.entries[first..].iter().take_while(fits).map(|e| e.stored.clone()).collect())
    }

    /// The bytes of the batches from the one that holds `offset` to before `limit`.
    pub(super) fn bytes_between(&self, offset: Offset, limit: Offset) -> u64 {
        if offset >= limit {
            return 0;
        }
        let position = |index: usize| self.entries.get(index).map_or(self.bytes, |e| e.position);
        position(self.index_of(limit)) - position(self.index_of(offset))
    }

    /// Checks that `offset` is in the log, or its end.
    pub(super) const fn check(&self, offset: Offset) -> Result<(), OutOfRange> {
        if offset < self.start || offset > self.end { Err(OutOfRange) } else { Ok(()) }
    }

    /// The offset of the first record that is not older than `timestamp`.
    pub(super) fn find_by_time(&self, timestamp: Timestamp) -> Option<Offset> {
        let index = self.entries.partition_point(|entry| entry.latest < timestamp);
        let stored = &self.entries.get(index)?.stored;
        let mut offsets = stored.base_offset..;
        let mut records = stored.batch.records.iter().zip(&mut offsets);
        let found = records.find(|(record, _)| stored.timestamp_of(record).0 >= timestamp);
        found.map(|(_, offset)| offset)
    }

    /// The index of the batch that holds `offset`, or how many there are if none does.
    fn index_of(&self, offset: Offset) -> usize {
        self.entries.partition_point(|entry| entry.stored.next_offset() <= offset)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::broker::tests::batch;
    use crate::protocol::batch::StoredTimestamp;

    fn append(log: &mut Log, times: &[i64]) -> Offset {
        append_at(log, SimTime::ZERO, times)
    }

    fn append_at(log: &mut Log, now: SimTime, times: &[i64]) -> Offset {
        let base_offset = log.end();
        let batch = Arc::new(batch(times));
        let timestamp = StoredTimestamp::CreateTime;
        log.append(now, StoredBatch { base_offset, leader_epoch: 0, timestamp, batch });
        base_offset
    }

    #[test]
    fn offsets_follow_each_other() {
        let mut log = Log::default();
        assert_eq!(append(&mut log, &[1, 2, 3]), 0);
        assert_eq!(append(&mut log, &[4]), 3);
        assert_eq!(log.end(), 4);
    }

    #[test]
    fn a_read_begins_with_the_batch_that_holds_the_offset() {
        let mut log = Log::default();
        append(&mut log, &[1, 2, 3]);
        append(&mut log, &[4]);
        append(&mut log, &[5]);
        let bases = |read: Vec<StoredBatch>| read.iter().map(|b| b.base_offset).collect::<Vec<_>>();
        assert_eq!(bases(log.read(1, 5, 1 << 20, true).unwrap()), [0, 3, 4]);
        assert_eq!(bases(log.read(3, 4, 1 << 20, true).unwrap()), [3]);
        assert_eq!(bases(log.read(1, 5, 1, true).unwrap()), [0], "the first always fits");
        assert!(log.read(1, 5, 1, false).unwrap().is_empty(), "unless another one came first");
        assert!(log.read(5, 5, 1 << 20, true).unwrap().is_empty(), "the end is in range");
        assert_eq!(log.read(6, 6, 1, true).unwrap_err(), OutOfRange);
        assert_eq!(log.read(-1, 6, 1, true).unwrap_err(), OutOfRange);
    }

    #[test]
    fn bytes_are_counted_in_whole_batches() {
        let mut log = Log::default();
        append(&mut log, &[1, 2, 3]);
        append(&mut log, &[4]);
        let sizes: Vec<_> = log.batches().map(|b| u64::from(b.batch.size)).collect();
        assert_eq!(log.bytes_between(0, 4), sizes[0] + sizes[1]);
        assert_eq!(log.bytes_between(1, 4), sizes[0] + sizes[1]);
        assert_eq!(log.bytes_between(3, 4), sizes[1]);
        assert_eq!(log.bytes_between(4, 4), 0);
    }

    #[test]
    fn a_time_finds_the_first_batch_that_reaches_it() {
        let mut log = Log::default();
        append(&mut log, &[10, 50]);
        append(&mut log, &[20, 60]);
        append(&mut log, &[30]);
        let find = |millis| log.find_by_time(Timestamp::from_millis(millis));
        assert_eq!(find(0), Some(0));
        assert_eq!(find(11), Some(1));
        assert_eq!(find(51), Some(3));
        assert_eq!(find(60), Some(3));
        assert_eq!(find(61), None);
    }

    #[test]
    fn truncation_takes_whole_batches() {
        let mut log = Log::default();
        append(&mut log, &[1, 2, 3]);
        let before = log.clone();
        append(&mut log, &[9]);
        append(&mut log, &[5]);
        log.truncate(3);
        assert_eq!(format!("{log:?}"), format!("{before:?}"));
        assert_eq!(append(&mut log, &[4]), 3);
        log.truncate(0);
        assert_eq!((log.end(), log.bytes, log.batches().count()), (0, 0, 0));
    }

    #[test]
    fn the_disk_has_what_was_flushed_or_is_old_enough() {
        let expiry = Duration::from_secs(30);
        let at = |secs| SimTime::ZERO + Duration::from_secs(secs);
        let mut log = Log::default();
        append_at(&mut log, at(0), &[1, 2]);
        append_at(&mut log, at(1), &[3]);
        assert_eq!(log.written(at(29), expiry), 0);
        assert_eq!(log.written(at(30), expiry), 2);
        assert_eq!(log.written(at(31), expiry), 3);
        log.flush_from(4);
        assert_eq!(log.written(at(2), expiry), 0);
        log.flush_from(3);
        assert_eq!(log.written(at(2), expiry), 3);
    }
}

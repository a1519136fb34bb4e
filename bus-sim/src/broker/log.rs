//! The log of a replica: batches at consecutive offsets, and how to find them by offset and by
//! time.
//!
//! - A record keeps its offset; a batch is shared with messages and never copied.
//! - Found by time: the first batch whose latest timestamp is not older, and in it the first such
//!   record, as Kafka's time index does.
//!
//! Simplified: one segment; every append is on disk at once.
//! Absent: retention, compaction, deletion of records. See `docs/fidelity.md`.

use std::sync::Arc;

use bus_core::{ErrorKind, Offset, Timestamp};

use crate::protocol::batch::{RecordBatch, StoredBatch, StoredTimestamp};

/// The log of a replica.
#[derive(Clone, Debug, Default)]
pub(super) struct Log {
    /// Sorted by offset.
    entries: Vec<Entry>,
    start: Offset,
    end: Offset,
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

    /// Appends a batch, and returns the offset of its first record.
    pub(super) fn append(
        &mut self,
        batch: Arc<RecordBatch>,
        leader_epoch: i32,
        timestamp: StoredTimestamp,
    ) -> Offset {
        let stored = StoredBatch { base_offset: self.end, leader_epoch, timestamp, batch };
        let base_offset = stored.base_offset;
        let own = stored.max_timestamp();
        let latest = self.entries.last().map_or(own, |last| last.latest.max(own));
        let position = self.bytes;
        self.bytes += u64::from(stored.batch.size);
        self.end = stored.next_offset();
        self.entries.push(Entry { stored, position, latest });
        base_offset
    }

    /// Gives the last offset to the next batch as well: a planted bug.
    pub(super) const fn reuse_last_offset(&mut self) {
        self.end -= 1;
    }

    /// All batches, in order.
    pub(super) fn batches(&self) -> impl Iterator<Item = &StoredBatch> {
        self.entries.iter().map(|entry| &entry.stored)
    }

    /// The last batch.
    pub(super) fn last(&self) -> Option<&StoredBatch> {
        self.entries.last().map(|entry| &entry.stored)
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
    use super::*;
    use crate::broker::tests::batch;

    fn append(log: &mut Log, times: &[i64]) -> Offset {
        log.append(Arc::new(batch(times)), 0, StoredTimestamp::CreateTime)
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
}

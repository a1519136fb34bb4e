//! The log that a history proves: for each partition, what producers were told and consumers saw at
//! each offset, and which send that is.
//!
//! A record is recognized by its contents. Where several sends have the same contents, one that was
//! told this offset is taken; else the first that may still be anywhere; and such a cell is not
//! *exact*, so that no checker of order draws conclusions from it. Contents that are there more
//! often than they were sent are still a duplicate.

use std::collections::BTreeMap;

use bus_core::{IsolationLevel, Offset};

use super::Model;
use super::operations::End;
use crate::history::{Answer, Call, EntryId, Note, PartitionId, TopicId, What};

/// A partition.
#[derive(Clone, Debug, Default)]
pub struct Log {
    /// What is known of each offset, in order.
    pub cells: Vec<Cell>,
    /// All that was told and seen, in the order of offsets, then of entries.
    pub observations: Vec<Observation>,
    /// The least that the log end can be from an entry on: rising.
    pub ends: Vec<(EntryId, Offset)>,
    /// The log starts that clients were told, with the entry that told: rising.
    pub starts: Vec<(EntryId, Offset)>,
    /// Records below this may have been deleted.
    pub deleted_below: Offset,
    /// The last audits of the partition, of `read_uncommitted` and of `read_committed`.
    pub audits: [Option<Audit>; 2],
}

/// An offset.
#[derive(Clone, Debug)]
pub struct Cell {
    /// The offset.
    pub offset: Offset,
    /// Its observations, by place.
    pub observations: std::ops::Range<usize>,
    /// The first send that was told this offset.
    pub told: Option<usize>,
    /// The first read of it.
    pub seen: Option<usize>,
    /// Whether a consumer with `read_committed` saw it.
    pub seen_committed: bool,
    /// The send that it is.
    pub send: Option<usize>,
    /// Whether that is beyond doubt.
    pub is_exact: bool,
    /// Whether the last audit has seen it, by isolation as in [`Log::audits`].
    pub audited: [bool; 2],
}

/// Something that was told or seen.
#[derive(Clone, Copy, Debug)]
pub struct Observation {
    /// The offset.
    pub offset: Offset,
    /// By whom.
    pub source: Source,
}

/// Who observed an offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// A producer was told that its record is there: the send.
    Told(usize),
    /// A consumer saw a record there: the read.
    Seen(usize),
}

/// A complete reading of a log after all was over.
#[derive(Clone, Copy, Debug)]
pub struct Audit {
    /// The session that read it.
    pub session: usize,
    /// When its consumer was made.
    pub began: EntryId,
    /// The note that it is complete.
    pub noted: EntryId,
    /// The log start.
    pub low: Offset,
    /// The end.
    pub high: Offset,
}

/// The place of an isolation in [`Log::audits`].
pub const fn audit_of(isolation: IsolationLevel) -> usize {
    match isolation {
        IsolationLevel::ReadUncommitted => 0,
        IsolationLevel::ReadCommitted => 1,
    }
}

impl Log {
    /// The cell of an offset.
    pub fn at(&self, offset: Offset) -> Option<&Cell> {
        let found = self.cells.binary_search_by_key(&offset, |cell| cell.offset);
        found.ok().map(|index| &self.cells[index])
    }

    /// The cells of offsets from `from` up to `to`, not included.
    pub fn range(&self, from: Offset, to: Offset) -> &[Cell] {
        let first = self.cells.partition_point(|cell| cell.offset < from);
        let last = self.cells.partition_point(|cell| cell.offset < to);
        &self.cells[first..last.max(first)]
    }
}

/// Fills the logs of a model, and connects reads, cells, and sends.
pub(super) fn build(model: &mut Model<'_>) {
    let mut logs = vec![Log::default(); model.history.partitions().len()];
    observe(model, &mut logs);
    follow(model, &mut logs);
    for log in &mut logs {
        log.observations.sort_by_key(|observation| observation.offset);
        group(model, log);
    }
    model.logs = logs;
    identify(model);
    audit(model);
}

/// Gathers what was told and seen, in the order of entries.
fn observe(model: &Model<'_>, logs: &mut [Log]) {
    let mut told = model.acknowledged.iter().peekable();
    let tell = |logs: &mut [Log], index: usize| {
        let Some((partition, offset)) = model.sends[index].told_offset() else { return };
        if !model.topic_of(partition).is_deleted {
            let source = Source::Told(index);
            logs[partition.index()].observations.push(Observation { offset, source });
        }
    };
    for (index, read) in model.reads.iter().enumerate() {
        while let Some((_, send)) = told.next_if(|(ended, _)| *ended < read.entry) {
            tell(logs, *send);
        }
        let observation = Observation { offset: read.offset(), source: Source::Seen(index) };
        logs[read.partition().index()].observations.push(observation);
    }
    for (_, send) in told {
        tell(logs, *send);
    }
}

/// Follows the ends, starts, and deletions of the logs.
fn follow(model: &Model<'_>, logs: &mut [Log]) {
    let reach = |log: &mut Log, at: EntryId, end: Offset| {
        if log.ends.last().is_none_or(|(_, last)| *last < end) {
            log.ends.push((at, end));
        }
    };
    for (at, entry) in model.history.iter() {
        let What::Ok(id, answer) = &entry.what else {
            if let What::Invoke(id, Call::DeleteRecords(partition, before)) = &entry.what
                && super::may_have_effect(model.operation(*id).end)
            {
                let log = &mut logs[partition.index()];
                // The high watermark may be asked for with -1.
                let before = if *before < 0 { Offset::MAX } else { *before };
                log.deleted_below = log.deleted_below.max(before);
            }
            continue;
        };
        match (answer, model.operation(*id).call) {
            (Answer::Delivered { partition, offset: Some(offset), .. }, _) => {
                reach(&mut logs[partition.index()], at, offset + 1);
            }
            (Answer::Records(records), _) => {
                for record in records {
                    reach(&mut logs[record.partition.index()], at, record.offset + 1);
                }
            }
            (Answer::Watermarks { low, high }, Some(Call::Watermarks(partition))) => {
                reach(&mut logs[partition.index()], at, *high);
                start(&mut logs[partition.index()], at, *low);
            }
            (Answer::LogStart(low), Some(Call::DeleteRecords(partition, _))) => {
                start(&mut logs[partition.index()], at, *low);
            }
            _ => {}
        }
    }
}

fn start(log: &mut Log, at: EntryId, low: Offset) {
    if log.starts.last().is_none_or(|(_, last)| *last < low) {
        log.starts.push((at, low));
    }
}

/// Groups the observations of a partition into cells.
fn group(model: &mut Model<'_>, log: &mut Log) {
    let mut from = 0;
    let chunks = || log.observations.chunk_by(|a, b| a.offset == b.offset);
    log.cells.reserve_exact(chunks().count());
    for chunk in chunks() {
        let mut cell = Cell {
            offset: chunk[0].offset,
            observations: from..from + chunk.len(),
            told: None,
            seen: None,
            seen_committed: false,
            send: None,
            is_exact: false,
            audited: [false; 2],
        };
        from += chunk.len();
        for observation in chunk {
            match observation.source {
                Source::Told(send) => {
                    cell.told.get_or_insert(send);
                }
                Source::Seen(index) => {
                    cell.seen.get_or_insert(index);
                    let read = &mut model.reads[index];
                    read.cell = log.cells.len();
                    cell.seen_committed |= model
                        .history
                        .consumer(read.client)
                        .is_some_and(|facts| facts.isolation == IsolationLevel::ReadCommitted);
                }
            }
        }
        log.cells.push(cell);
    }
}

/// Finds out which send each cell holds.
fn identify(model: &mut Model<'_>) {
    let mut rest = Vec::new();
    let mut placed = vec![false; model.sends.len()];
    // 1. A send that was told this offset and has these contents.
    for partition in 0..model.logs.len() {
        for index in 0..model.logs[partition].cells.len() {
            let log = &model.logs[partition];
            let cell = &log.cells[index];
            let matching = match cell.seen {
                None => cell.told,
                Some(seen) => {
                    let digest = model.reads[seen].record.digest;
                    let observations = &log.observations[cell.observations.clone()];
                    observations.iter().find_map(|observation| match observation.source {
                        Source::Told(send) if model.sends[send].record.digest == digest => {
                            Some(send)
                        }
                        _ => None,
                    })
                }
            };
            match matching {
                Some(send) => {
                    placed[send] = true;
                    place(model, partition, index, (send, true));
                }
                None => rest.push((partition, index)),
            }
        }
    }
    if rest.is_empty() {
        return;
    }
    // 2. By contents alone.
    let mut by_digest: BTreeMap<(TopicId, u64), Vec<usize>> = BTreeMap::new();
    for (index, send) in model.sends.iter().enumerate() {
        by_digest.entry((send.record.topic, send.record.digest)).or_default().push(index);
    }
    for (partition, index) in rest {
        let Some(seen) = model.logs[partition].cells[index].seen else { continue };
        let id = PartitionId::from_index(partition);
        let (topic, number) = model.history.partitions()[partition];
        let digest = model.reads[seen].record.digest;
        let alike = by_digest.get(&(topic, digest)).into_iter().flatten().copied();
        let alike: Vec<usize> = alike
            .filter(|send| model.sends[*send].record.partition.is_none_or(|at| at == number))
            .filter(|send| model.sends[*send].told.is_none_or(|(told, _)| told == id))
            .collect();
        let is_free =
            |send: &&usize| !placed[**send] && !matches!(model.sends[**send].end, End::Fail(_));
        let found = match alike.as_slice() {
            [] => continue,
            [only] => (*only, true),
            several => {
                let open = several.iter().find(is_free);
                let last = several
                    .iter()
                    .rev()
                    .find(|send| !matches!(model.sends[**send].end, End::Fail(_)));
                (*open.or(last).unwrap_or(&several[0]), false)
            }
        };
        placed[found.0] = true;
        place(model, partition, index, found);
    }
}

fn place(model: &mut Model<'_>, partition: usize, index: usize, (send, is_exact): (usize, bool)) {
    let cell = &mut model.logs[partition].cells[index];
    cell.send = Some(send);
    cell.is_exact = is_exact;
    if cell.seen.is_some() {
        model.sends[send].seen.push((PartitionId::from_index(partition), index));
        model.sends[send].is_exact &= is_exact;
    }
}

/// Finds the last audit of each partition, and marks what it has seen.
fn audit(model: &mut Model<'_>) {
    let mut made = vec![EntryId(0); model.history.clients().len()];
    for (noted, entry) in model.history.iter() {
        if matches!(entry.what, What::Note(Note::Made)) {
            made[entry.client.index()] = noted;
        }
        let What::Note(Note::Audited { partition, low, high }) = entry.what else { continue };
        let session = model.sessions.iter().rposition(|session| {
            session.client == entry.client
                && session.partition == partition
                && session.began < noted
        });
        let Some(session) = session else { continue };
        let began = made[entry.client.index()];
        let isolation = audit_of(model.isolation(entry.client));
        model.logs[partition.index()].audits[isolation] =
            Some(Audit { session, began, noted, low, high });
    }
    for partition in 0..model.logs.len() {
        for isolation in 0..2 {
            let Some(audit) = model.logs[partition].audits[isolation] else { continue };
            for read in &model.sessions[audit.session].reads {
                let cell = model.reads[*read].cell;
                model.logs[partition].cells[cell].audited[isolation] = true;
            }
        }
    }
}

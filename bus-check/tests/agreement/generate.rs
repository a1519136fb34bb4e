//! Random histories: steps of the tiny Kafka, and anomalies planted into what it wrote.

use bus_check::History;
use bus_check::history::{Answer, Call, Entry, Note, What};
use bus_core::{ErrorKind, RebalanceKind, Recovery};
use proptest::prelude::*;

use crate::step::{Fate, HowEnded, Step};

/// Steps of the tiny Kafka.
pub(crate) fn steps() -> impl Strategy<Value = Vec<Step>> {
    prop::collection::vec(step(), 0..50)
}

fn step() -> impl Strategy<Value = Step> {
    let fate = prop_oneof![
        6 => Just(Fate::Delivered),
        3 => Just(Fate::Open),
        1 => Just(Fate::Appended),
        1 => Just(Fate::Lost),
        1 => Just(Fate::Refused),
    ];
    let how = prop_oneof![
        3 => Just(HowEnded::Committed),
        2 => Just(HowEnded::Aborted),
        1 => Just(HowEnded::CommittedUnknown),
        1 => Just(HowEnded::NotCommittedUnknown),
    ];
    prop_oneof![
        10 => (0..5_usize, 0..2_i32, any::<bool>(), 0..40_u8, fate).prop_map(
            |(producer, partition, keyed, contents, fate)| {
                Step::Send { producer, partition, keyed, contents, fate }
            }
        ),
        2 => (0..5_usize).prop_map(|producer| Step::Acknowledge { producer }),
        1 => (0..5_usize).prop_map(|producer| Step::Flush { producer }),
        2 => (3..5_usize).prop_map(|producer| Step::Init { producer }),
        3 => (3..5_usize).prop_map(|producer| Step::Begin { producer }),
        1 => (3..5_usize, 0..2_usize)
            .prop_map(|(producer, member)| Step::SendOffsets { producer, member }),
        3 => (3..5_usize, how.clone()).prop_map(|(producer, how)| Step::End { producer, how }),
        4 => (3..5_usize, 1..4_u8, prop::option::of(0..2_usize), how).prop_map(
            |(producer, sends, member, how)| Step::Transaction { producer, sends, member, how }
        ),
        1 => (0..5_usize).prop_map(|producer| Step::Close { producer }),
        2 => [0..2_usize, 0..2_usize].prop_map(|owners| Step::Rebalance { owners }),
        8 => (0..4_usize, 1..6_usize).prop_map(|(consumer, most)| Step::Poll { consumer, most }),
        3 => (0..2_usize, 0..3_i64, prop::bool::weighted(0.2))
            .prop_map(|(member, less, is_lost)| Step::Commit { member, less, is_lost }),
        2 => (0..2_usize).prop_map(|member| Step::Committed { member }),
        2 => (0..4_usize, 0..2_i32)
            .prop_map(|(consumer, partition)| Step::Watermarks { consumer, partition }),
        1 => (0..4_usize, 0..2_i32, 0..6_i64)
            .prop_map(|(consumer, partition, to)| Step::Seek { consumer, partition, to }),
        1 => (0..4_usize, 0..2_i32, any::<bool>())
            .prop_map(|(consumer, partition, resumes)| {
                Step::Pause { consumer, partition, resumes }
            }),
        1 => (0..3_000_u64).prop_map(|millis| Step::Wait { millis }),
    ]
}

/// A change of a history: what, where, and a number that says how.
pub(crate) type Plant = (u8, prop::sample::Index, u8);

/// Changes to plant.
pub(crate) fn plants() -> impl Strategy<Value = Vec<Plant>> {
    prop::collection::vec((0..23_u8, any::<prop::sample::Index>(), any::<u8>()), 1..5)
}

/// Plants anomalies into a history.
pub(crate) fn plant(history: &History, plants: &[Plant]) -> History {
    let mut entries = history.entries().to_vec();
    for (kind, at, how) in plants {
        change(&mut entries, *kind, at, *how);
    }
    history.with_entries(entries)
}

/// The entries that a change can be made to.
fn places(entries: &[Entry], is_meant: impl Fn(&What) -> bool) -> Vec<usize> {
    (0..entries.len()).filter(|index| is_meant(&entries[*index].what)).collect()
}

#[expect(clippy::too_many_lines, reason = "one arm for each kind of change")]
fn change(entries: &mut Vec<Entry>, kind: u8, at: &prop::sample::Index, how: u8) {
    let up = i64::from(how % 5) - 2;
    let is_meant: fn(&What) -> bool = match kind {
        0 | 1 | 16 => |what| matches!(what, What::Ok(..) | What::Fail(..) | What::Info(..)),
        2..=5 => {
            |what| matches!(what, What::Ok(_, Answer::Records(records)) if !records.is_empty())
        }
        6 | 7 => |what| matches!(what, What::Ok(_, Answer::Delivered { .. })),
        8 => |what| matches!(what, What::Ok(_, Answer::Committed(_) | Answer::Watermarks { .. })),
        9 => |what| matches!(what, What::Invoke(_, Call::Commit(_) | Call::SendOffsets { .. })),
        10 => |what| matches!(what, What::Ok(_, Answer::Rebalance { .. })),
        11 => |what| matches!(what, What::Invoke(_, Call::Send(_))),
        12 => |what| matches!(what, What::Note(_)),
        13 => |what| matches!(what, What::Invoke(..)),
        17 => |what| matches!(what, What::Invoke(_, Call::Complete { .. })),
        18 => |what| {
            let is_end = |call: &Call| {
                matches!(call, Call::CommitTransaction | Call::AbortTransaction | Call::Begin)
            };
            matches!(what, What::Invoke(_, call) if is_end(call))
        },
        20 => |what| matches!(what, What::Info(..)),
        21 => |what| matches!(what, What::Note(Note::Audited { .. })),
        22 => |what| matches!(what, What::Invoke(_, Call::InitTransactions)),
        _ => |_| true,
    };
    let places = places(entries, is_meant);
    if places.is_empty() {
        return;
    }
    let index = *at.get(&places);
    match kind {
        // An end is missing, or there twice, or another one.
        0 if how.is_multiple_of(3) => drop(entries.remove(index)),
        0 => {
            let again = entries[index].clone();
            let last = entries.last().map_or(0, |last| last.at);
            entries.push(Entry { at: last, ..again });
        }
        1 => {
            let (What::Ok(id, _) | What::Fail(id, _) | What::Info(id, _)) = entries[index].what
            else {
                return;
            };
            let failure = bus_check::history::Failure {
                kind: if how.is_multiple_of(2) {
                    ErrorKind::ProducerFenced
                } else {
                    ErrorKind::TimedOut
                },
                recovery: if how.is_multiple_of(3) { Recovery::Retry } else { Recovery::Abort },
            };
            entries[index].what = match how % 4 {
                0 | 1 => What::Fail(id, failure),
                2 => What::Info(id, Some(failure)),
                _ => What::Info(id, None),
            };
        }
        12 | 13 => drop(entries.remove(index)),
        // An end comes later.
        16 => {
            let entry = entries.remove(index);
            let later = (index + 1 + usize::from(how) % 40).min(entries.len());
            let at = entries[later - 1].at;
            entries.insert(later, Entry { at, ..entry });
        }
        17 | 18 if how.is_multiple_of(3) => drop(entries.remove(index)),
        17 => {
            if let What::Invoke(_, Call::Complete { kind, .. }) = &mut entries[index].what {
                *kind = match how % 3 {
                    1 => RebalanceKind::Lost,
                    _ => RebalanceKind::Assigned,
                };
            }
        }
        18 => {
            if let What::Invoke(_, call) = &mut entries[index].what {
                *call = match how % 3 {
                    1 => Call::CommitTransaction,
                    _ => Call::AbortTransaction,
                };
            }
        }
        // The records of a reader that read last are not all there.
        19 => {
            let last = places.iter().rev().find(|index| {
                matches!(&entries[**index].what, What::Ok(_, Answer::Records(r)) if r.len() > 1)
            });
            if let Some(last) = last {
                alter(&mut entries[*last].what, 3, how & !1, up);
            }
        }
        // Neighbors change places.
        14 if index + 1 < entries.len() => {
            let is_pair = matches!(
                (&entries[index].what, &entries[index + 1].what),
                (What::Invoke(id, _), What::Ok(end, _) | What::Fail(end, _) | What::Info(end, _))
                    if id == end
            );
            if !is_pair {
                let (one, other) = (entries[index].clone(), entries[index + 1].clone());
                entries[index] = Entry { at: one.at, ..other };
                entries[index + 1] = Entry { at: entries[index + 1].at, ..one };
            }
        }
        15 => {
            // An entry comes much earlier or later in time, and all behind it with it.
            let by = u64::from(how) * 40_000_000;
            entries[index..].iter_mut().for_each(|entry| entry.at += by);
        }
        20 => {
            if let What::Info(id, _) = entries[index].what {
                entries[index].what = What::Info(id, None);
            }
        }
        21 => {
            if let What::Note(Note::Audited { high, .. }) = &mut entries[index].what {
                *high = (*high + up).max(0);
            }
        }
        22 => initialize_another(entries, index),
        _ => alter(&mut entries[index].what, kind, how, up),
    }
}

/// It was another producer that was initialized.
fn initialize_another(entries: &mut [Entry], index: usize) {
    let What::Invoke(id, _) = entries[index].what else { return };
    let own = entries[index].client;
    let inits = entries.iter().filter(|entry| {
        matches!(entry.what, What::Invoke(_, Call::InitTransactions)) && entry.client != own
    });
    let Some(other) = inits.map(|entry| entry.client).next() else { return };
    for entry in entries.iter_mut() {
        let is_its = match &entry.what {
            What::Invoke(other, _) | What::Ok(other, _) => *other == id,
            _ => false,
        };
        if is_its {
            entry.client = other;
        }
    }
}

fn alter(what: &mut What, kind: u8, how: u8, up: i64) {
    match what {
        What::Ok(_, Answer::Records(records)) => {
            let mut list = records.to_vec();
            let nth = usize::from(how) % list.len();
            match kind {
                2 => list[nth].offset = (list[nth].offset + up).max(0),
                3 if how.is_multiple_of(2) => drop(list.remove(nth)),
                3 => list.insert(nth, list[nth]),
                4 if how.is_multiple_of(3) => list[nth].digest ^= 1,
                4 if how % 3 == 1 => list[nth].timestamp += up,
                4 => list.reverse(),
                _ => list[nth].partition.0 ^= 1,
            }
            *records = list.into();
        }
        What::Ok(_, Answer::Delivered { partition, offset, timestamp }) => match how % 4 {
            0 => partition.0 ^= 1,
            1 => *timestamp = Some(0),
            _ => *offset = offset.map(|offset| (offset + up).max(0)),
        },
        What::Ok(_, Answer::Committed(offsets)) => {
            let nth = usize::from(how) % offsets.len();
            offsets[nth] = match how % 3 {
                0 => None,
                _ => Some((offsets[nth].unwrap_or(0) + up).max(0)),
            };
        }
        What::Ok(_, Answer::Watermarks { low, high }) => {
            if how.is_multiple_of(2) {
                *high = (*high + up).max(0);
            } else {
                *low = (*low + up).max(0);
            }
        }
        What::Invoke(_, Call::Commit(offsets) | Call::SendOffsets { offsets, .. }) => {
            let nth = usize::from(how) % offsets.len();
            offsets[nth].1 = (offsets[nth].1 + up).max(0);
        }
        What::Ok(_, Answer::Rebalance { generation, partitions, .. }) => match how % 3 {
            0 => *generation = generation.map(|generation| generation + 1 - i32::from(how % 4)),
            1 => partitions.iter_mut().for_each(|partition| partition.0 ^= 1),
            _ => *generation = None,
        },
        What::Invoke(_, Call::Send(sent)) => match how % 4 {
            0 => sent.digest ^= 1,
            1 => sent.partition = sent.partition.map(|partition| partition ^ 1),
            2 => sent.key = sent.key.map(|key| key ^ 1),
            _ => sent.timestamp = Some(sent.now + up),
        },
        _ => {}
    }
}

//! Reading: polls until all that can be read is read.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bus_core::{IsolationLevel, Offset, Polled, TopicPartition};

use super::Interpreter;
use super::consume::{Reader, Start};
use crate::outcome::{Fault, Guard, Outcome, Reading};
use crate::slot::ConsumerSlot;

/// A poll of a real consumer may return before its time is up.
const POLL: Duration = Duration::from_millis(50);

/// What is in the log comes within milliseconds, and not at all on a divergence.
const POLLS_MAX: usize = 100;

/// How far a read will come.
#[derive(Debug, Default)]
struct Goal {
    targets: BTreeMap<TopicPartition, Offset>,
    /// Partitions that will end with an error.
    failing: Vec<TopicPartition>,
    /// Behind the last record there are more offsets, which the consumer passes by itself.
    has_tail: bool,
}

/// How often a consumer is polled that passes offsets without records, because it commits by itself
/// what it has passed. librdkafka begins to fetch from a partition within a second.
const TAIL_POLLS: usize = 30;

impl Interpreter<'_> {
    pub(super) async fn read(&mut self, slot: ConsumerSlot, at_most: Option<usize>) -> Outcome {
        let Some(reader) = self.consumers.get(&slot) else { return Outcome::Overdue };
        if reader.is_closed {
            let polled = reader.consumer.poll(Duration::ZERO).await;
            return Outcome::of(polled, |_| Outcome::Read(Reading::default()));
        }
        let goal = self.goal(reader).await;
        let active = reader.consumer.assignment().len() - reader.consumer.paused().len();
        let is_exact = reader.spec.one_record_per_poll && active == 1;
        let at_most = at_most.filter(|_| is_exact).unwrap_or(usize::MAX);
        let mut reading = self.poll_to(reader, &goal, at_most).await;
        reading.held = reader.held(&self.names);
        let read: Vec<_> = reading.records.keys().map(|place| self.names.place(*place)).collect();
        if let Some(reader) = self.consumers.get_mut(&slot) {
            reader.failed.extend(goal.failing);
            reader.late.clear();
            reader.starts.retain(|partition, _| !read.contains(partition));
        }
        Outcome::Read(reading)
    }

    async fn poll_to(&self, reader: &Reader, goal: &Goal, at_most: usize) -> Reading {
        let mut reading = Reading::default();
        // One may come more than once.
        let late = reader.late.iter().map(|(place, fault)| (Some(place.clone()), *fault));
        let mut errors = late.collect::<BTreeSet<_>>();
        let (mut count, mut polls) = (0, 0);
        let commits = reader.spec.auto_commit && !reader.spec.store_by_hand;
        let mut tail = if commits && goal.has_tail { TAIL_POLLS } else { 0 };
        while count < at_most {
            let mut is_over = goal.is_reached(reader) && errors.len() >= goal.failing.len();
            if is_over && tail > 0 {
                tail -= 1;
                is_over = false;
            }
            // What came along with the last record belongs to this read too.
            let wait = if is_over { Duration::ZERO } else { POLL };
            match reader.consumer.poll(wait).await {
                Ok(Polled::Records(records)) => {
                    if is_over && records.is_empty() {
                        break;
                    }
                    count += records.len();
                    for record in &records {
                        if let Some(place) = self.names.place_of(&record.topic_partition()) {
                            reading.records.entry(place).or_default().push(record.into());
                        }
                    }
                }
                Ok(Polled::Rebalance(guard)) => {
                    if !guard.partitions().is_empty() {
                        reading.rebalances.push(Guard::of(guard.rebalance(), &self.names));
                    }
                    if let Err(error) = guard.complete().await {
                        reading.rebalances.push(Guard::Incomplete(Fault::from(&error)));
                    }
                }
                Err(error) => {
                    if reader.concerns(&error) {
                        let place = error.topic_partition().cloned();
                        errors.insert((place, Fault::from(&error)));
                    }
                }
            }
            polls += 1;
            if polls >= POLLS_MAX + count {
                reading.is_incomplete = true;
                break;
            }
        }
        reading.errors = errors.into_iter().map(|(_, fault)| fault).collect();
        reading.errors.sort_unstable();
        reading
    }

    async fn goal(&self, reader: &Reader) -> Goal {
        let mut goal = Goal::default();
        let paused = reader.consumer.paused();
        let assigned = reader.consumer.assignment().into_iter();
        for partition in assigned.filter(|partition| !paused.contains(partition)) {
            let Some(place) = self.names.place_of(&partition) else { continue };
            let ends = reader.consumer.watermarks(&partition).await.ok();
            let from = match (reader.starts.get(&partition), &ends) {
                (Some(Start::At(start)), Some(_)) => Some(*start),
                (None, Some(_)) => reader.consumer.position(&partition).ok().flatten(),
                // Nothing comes, and no error either.
                (Some(Start::Unstable), _) => continue,
                // A partition without a start, or one that does not exist, is told of once.
                (Some(Start::Nowhere(_)), _) | (_, None) => None,
            };
            let (Some(from), Some(ends)) = (from, ends) else {
                if !reader.failed.contains(&partition) {
                    goal.failing.push(partition);
                }
                continue;
            };
            let end = match reader.spec.isolation {
                IsolationLevel::ReadCommitted => ends.high,
                IsolationLevel::ReadUncommitted => self.end(place).await.unwrap_or(ends.high),
            };
            let target = self.ledger.target(place, reader.spec.isolation, from, end);
            goal.has_tail |= target < end;
            if target > from {
                goal.targets.insert(partition, target);
            }
        }
        goal
    }
}

impl Goal {
    fn is_reached(&self, reader: &Reader) -> bool {
        self.targets.iter().all(|(partition, target)| {
            let position = reader.consumer.position(partition);
            // A partition that is lost on the way is waited for no longer.
            position.is_err() || position.is_ok_and(|at| at.is_some_and(|at| at >= *target))
        })
    }
}

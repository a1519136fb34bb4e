//! The queue of events, ordered by time and then by number: the only place where time advances.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BinaryHeap};

use crate::event::EventSeq;
use crate::node::{NodeId, Timer};
use crate::time::SimTime;
use crate::world::Event;

/// Events to come, and the timers that are set.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    heap: BinaryHeap<Entry>,
    /// The events, by slot: they are large, and the heap moves what it holds.
    events: Vec<Option<Event>>,
    /// Slots without an event.
    free: Vec<u32>,
    /// The number of the event of each timer that is set; an event of another number is stale.
    timers: BTreeMap<NodeId, BTreeMap<Timer, u64>>,
    next_number: u64,
    /// The number of the first event, once it is known not to be stale.
    fresh: Option<u64>,
}

#[derive(Debug)]
struct Entry {
    at: SimTime,
    number: u64,
    slot: u32,
}

impl Queue {
    /// Adds an event.
    pub(crate) fn push(&mut self, at: SimTime, event: Event) {
        let number = self.next_number;
        self.next_number += 1;
        let slot = self.free.pop().unwrap_or_else(|| {
            self.events.push(None);
            u32::try_from(self.events.len() - 1).expect("fewer events than 2^32 are to come")
        });
        self.events[slot as usize] = Some(event);
        self.heap.push(Entry { at, number, slot });
    }

    /// Sets a timer, in place of the one of that name, and returns its number.
    pub(crate) fn set_timer(
        &mut self,
        node: NodeId,
        timer: Timer,
        at: SimTime,
        cause: EventSeq,
    ) -> u64 {
        self.fresh = None;
        let number = self.next_number;
        self.timers.entry(node).or_default().insert(timer.clone(), number);
        self.push(at, Event::Timer { node, timer, cause });
        number
    }

    /// Takes a timer back, if it is still the one of that number.
    pub(crate) fn take_timer(&mut self, node: NodeId, timer: &Timer, number: u64) -> bool {
        let is_set = self.timers.get(&node).and_then(|timers| timers.get(timer)) == Some(&number);
        if is_set {
            self.cancel_timer(node, timer);
        }
        is_set
    }

    /// Takes a timer back.
    pub(crate) fn cancel_timer(&mut self, node: NodeId, timer: &Timer) {
        self.fresh = None;
        if let Some(timers) = self.timers.get_mut(&node) {
            timers.remove(timer);
        }
    }

    /// Takes all timers of a node back.
    pub(crate) fn cancel_timers_of(&mut self, node: NodeId) {
        self.fresh = None;
        self.timers.remove(&node);
    }

    /// When the next event is.
    pub(crate) fn next_time(&mut self) -> Option<SimTime> {
        while let Some(entry) = self.heap.peek() {
            if self.fresh == Some(entry.number) || !self.is_stale(entry) {
                self.fresh = Some(entry.number);
                return Some(entry.at);
            }
            self.take_first();
        }
        None
    }

    /// Takes the next event.
    pub(crate) fn pop(&mut self) -> Option<(SimTime, Event)> {
        self.next_time()?;
        let (at, event) = self.take_first()?;
        if let Event::Timer { node, timer, .. } = &event
            && let Some(timers) = self.timers.get_mut(node)
        {
            timers.remove(timer);
        }
        Some((at, event))
    }

    fn take_first(&mut self) -> Option<(SimTime, Event)> {
        let Entry { at, slot, .. } = self.heap.pop()?;
        self.free.push(slot);
        Some((at, self.events[slot as usize].take()?))
    }

    fn is_stale(&self, entry: &Entry) -> bool {
        match &self.events[entry.slot as usize] {
            Some(Event::Timer { node, timer, .. }) => {
                self.timers.get(node).and_then(|timers| timers.get(timer)) != Some(&entry.number)
            }
            _ => false,
        }
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// The earliest is the greatest, because the heap gives the greatest first.
impl Ord for Entry {
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.number).cmp(&(self.at, self.number))
    }
}

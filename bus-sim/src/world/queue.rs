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
    /// The events, by slot: they are large, and the heap moves what it holds. That of a timer which
    /// was taken back is gone, and its entry is passed over.
    events: Vec<Option<Event>>,
    /// Slots that no entry of the heap has.
    free: Vec<u32>,
    /// The timers that are set: the number and the slot of the event of each.
    timers: BTreeMap<NodeId, BTreeMap<Timer, (u64, u32)>>,
    next_number: u64,
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
        self.add(at, event);
    }

    /// Adds an event, and returns its number and its slot.
    fn add(&mut self, at: SimTime, event: Event) -> (u64, u32) {
        let number = self.next_number;
        self.next_number += 1;
        let slot = self.free.pop().unwrap_or_else(|| {
            self.events.push(None);
            u32::try_from(self.events.len() - 1).expect("fewer events than 2^32 are to come")
        });
        self.events[slot as usize] = Some(event);
        self.heap.push(Entry { at, number, slot });
        (number, slot)
    }

    /// Sets a timer, in place of the one of that name, and returns its number.
    pub(crate) fn set_timer(
        &mut self,
        node: NodeId,
        timer: Timer,
        at: SimTime,
        cause: EventSeq,
    ) -> u64 {
        let set = self.add(at, Event::Timer { node, timer: timer.clone(), cause });
        if let Some((_, slot)) = self.timers.entry(node).or_default().insert(timer, set) {
            self.events[slot as usize] = None;
        }
        set.0
    }

    /// Takes a timer back, if it is still the one of that number.
    pub(crate) fn take_timer(&mut self, node: NodeId, timer: &Timer, number: u64) -> bool {
        let set = self.timers.get(&node).and_then(|timers| timers.get(timer));
        let is_set = set.is_some_and(|(other, _)| *other == number);
        if is_set {
            self.cancel_timer(node, timer);
        }
        is_set
    }

    /// Takes a timer back.
    pub(crate) fn cancel_timer(&mut self, node: NodeId, timer: &Timer) {
        let timers = self.timers.get_mut(&node);
        if let Some((_, slot)) = timers.and_then(|timers| timers.remove(timer)) {
            self.events[slot as usize] = None;
        }
    }

    /// Takes all timers of a node back.
    pub(crate) fn cancel_timers_of(&mut self, node: NodeId) {
        for (_, slot) in self.timers.remove(&node).into_iter().flat_map(BTreeMap::into_values) {
            self.events[slot as usize] = None;
        }
    }

    /// When the next event is.
    pub(crate) fn next_time(&mut self) -> Option<SimTime> {
        loop {
            let Entry { at, slot, .. } = self.heap.peek()?;
            if self.events[*slot as usize].is_some() {
                return Some(*at);
            }
            self.take_first();
        }
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

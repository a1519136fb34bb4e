//! What of a diagram is drawn, and on which row: every event that has a label has a row of its own,
//! so that no label covers another.

use std::collections::{BTreeMap, BTreeSet};

use super::axis::{Axis, Scale};
use super::diagram::{Band, BandKind, Diagram, EventId, Fate, Mark, MarkKind};

/// What is drawn of a diagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum View {
    /// The causal past of the witness, with the faults of that time.
    Past,
    /// Everything, or what is nearest to the witness if that is too much.
    All,
}

/// What is on a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Item {
    /// An arrow begins.
    Sent(usize),
    /// An arrow ends.
    Arrived(usize),
    /// A mark.
    Mark(usize),
    /// A band begins that has no mark.
    Band(usize),
}

/// Something with its place.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row {
    /// What.
    pub(super) item: Item,
    /// When.
    pub(super) at: u64,
    /// Where it is, from above.
    pub(super) y: i64,
}

/// A diagram that is ready to be drawn.
#[derive(Debug)]
pub(super) struct Scene<'a> {
    /// The diagram.
    pub(super) diagram: &'a Diagram,
    /// The rows, from above.
    pub(super) rows: Vec<Row>,
    /// Time, from above.
    pub(super) axis: Axis,
    /// Those that prove the verdict.
    pub(super) witness: BTreeSet<EventId>,
    /// The sentence that each event is told by.
    pub(super) numbers: BTreeMap<EventId, usize>,
    /// How many arrows and marks are not drawn, because there are too many.
    pub(super) left_out: usize,
}

/// The most arrows and marks that are drawn.
pub(super) const MOST_ITEMS: usize = 150;
/// The most faults that are drawn although they were before the causal past.
const MOST_FAULTS: usize = 24;

/// How rows follow each other, for a head of this height.
pub(super) const fn rows_below(head: i64) -> Scale {
    Scale { begin: head, pause: 54, idle: 40_000_000 }
}

impl<'a> Scene<'a> {
    /// Chooses what is drawn, and gives it rows.
    pub(super) fn new(diagram: &'a Diagram, view: View, scale: Scale) -> Self {
        let past = diagram.past();
        let mut shown = chosen(diagram, view, &past);
        let left_out = limit(diagram, &past, &mut shown);
        let mut items = with_ends(diagram, &shown);
        items.sort_by_key(|(at, order, item)| (*at, *order, rank(*item)));
        let mut axis = Axis::new(scale);
        let mut rows: Vec<Row> = Vec::with_capacity(items.len());
        for (at, _, item) in items {
            let gap = gap(rows.last().map(|row| row.item), item);
            let y = axis.add(at, gap, scale);
            rows.push(Row { item, at, y });
        }
        let witness = diagram.witness.iter().copied().collect();
        Self { diagram, rows, axis, witness, numbers: diagram.numbers(), left_out }
    }

    /// Whether there is nothing to draw.
    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Where an arrow ends, if it arrives.
    pub(super) fn arrival(&self, arrow: usize) -> Option<i64> {
        let row = self.rows.iter().find(|row| row.item == Item::Arrived(arrow))?;
        Some(row.y)
    }
}

/// The arrows and marks to draw.
fn chosen(diagram: &Diagram, view: View, past: &BTreeSet<EventId>) -> Vec<(u64, Item)> {
    let is_in_past = |ids: [Option<EventId>; 2]| ids.iter().flatten().any(|id| past.contains(id));
    let arrows = diagram
        .arrows
        .iter()
        .enumerate()
        .filter(|(_, arrow)| view == View::All || is_in_past([Some(arrow.id), arrow.end]));
    let marks = diagram.marks.iter().enumerate();
    let marks = marks.filter(|(_, mark)| view == View::All || is_in_past([Some(mark.id), None]));
    let mut shown: Vec<(u64, Item)> =
        arrows.map(|(i, arrow)| (arrow.sent, Item::Sent(i))).collect();
    shown.extend(marks.map(|(i, mark)| (mark.at, Item::Mark(i))));
    if view == View::Past {
        let first = shown.iter().map(|(at, _)| *at).min().unwrap_or(0);
        let last = shown.iter().map(|(at, _)| *at).max().unwrap_or(0);
        let faults = diagram.marks.iter().enumerate();
        let faults = faults.filter(|(_, mark)| is_fault(mark) && !past.contains(&mark.id));
        let faults = faults.map(|(i, mark)| (mark.at, Item::Mark(i)));
        let mut faults: Vec<(u64, Item)> = faults.filter(|(at, _)| *at <= last).collect();
        if faults.len() > MOST_FAULTS {
            faults.retain(|(at, _)| *at >= first);
        }
        shown.extend(faults);
    }
    shown
}

/// Whether a mark is something that was done to the run.
pub(super) const fn is_fault(mark: &Mark) -> bool {
    matches!(mark.kind, MarkKind::Start | MarkKind::Crash | MarkKind::Pause | MarkKind::Fault)
}

/// Keeps what is nearest to the last of the witness; returns how much was left out.
fn limit(diagram: &Diagram, past: &BTreeSet<EventId>, shown: &mut Vec<(u64, Item)>) -> usize {
    let ids = |item: Item| match item {
        Item::Sent(i) => diagram.arrows[i].id,
        Item::Mark(i) => diagram.marks[i].id,
        Item::Arrived(_) | Item::Band(_) => 0,
    };
    let last = shown.iter().filter(|(_, item)| past.contains(&ids(*item))).map(|(at, _)| *at).max();
    let last = last.unwrap_or(0);
    let left_out = shown.len().saturating_sub(MOST_ITEMS);
    if left_out > 0 {
        shown
            .sort_by_key(|(at, item)| (!past.contains(&ids(*item)), at.abs_diff(last), ids(*item)));
        shown.truncate(MOST_ITEMS);
    }
    left_out
}

/// Adds the ends of arrows, and the bands that begin meanwhile.
fn with_ends(diagram: &Diagram, shown: &[(u64, Item)]) -> Vec<(u64, EventId, Item)> {
    let mut items = Vec::with_capacity(shown.len() * 2);
    for (at, item) in shown {
        match *item {
            Item::Sent(i) => {
                let arrow = &diagram.arrows[i];
                items.push((*at, arrow.id, *item));
                let arrives = matches!(arrow.fate, Fate::Arrived | Fate::Late | Fate::Discarded);
                if let Some(arrived) = arrow.arrived.filter(|_| arrives) {
                    items.push((arrived, arrow.end.unwrap_or(arrow.id), Item::Arrived(i)));
                }
            }
            Item::Mark(i) => items.push((*at, diagram.marks[i].id, *item)),
            Item::Arrived(_) | Item::Band(_) => {}
        }
    }
    let first = items.iter().map(|(at, ..)| *at).min().unwrap_or(0);
    let last = items.iter().map(|(at, ..)| *at).max().unwrap_or(0);
    let marked: BTreeSet<EventId> = items.iter().map(|(_, id, _)| *id).collect();
    for (index, band) in diagram.bands.iter().enumerate() {
        let is_new = band.from > first && band.from <= last;
        let is_marked = band.id.is_some_and(|id| marked.contains(&id));
        if is_labeled(band) && is_new && !(is_marked && is_on_its_lane(diagram, band)) {
            items.push((band.from, band.id.unwrap_or(EventId::MAX), Item::Band(index)));
        }
    }
    items
}

/// Whether the beginning of a band is written beside it.
pub(super) const fn is_labeled(band: &Band) -> bool {
    matches!(band.kind, BandKind::Leads | BandKind::Owns)
}

/// Whether the mark of the event that began a band is on the lane of the band.
fn is_on_its_lane(diagram: &Diagram, band: &Band) -> bool {
    diagram.marks.iter().any(|mark| {
        Some(mark.id) == band.id && mark.lane.is_some_and(|lane| band.lanes.contains(&lane))
    })
}

/// What comes first of what happens at one time with one id.
const fn rank(item: Item) -> u8 {
    match item {
        Item::Arrived(_) => 0,
        Item::Mark(_) => 1,
        Item::Band(_) => 2,
        Item::Sent(_) => 3,
    }
}

/// How far a row is below the one before.
const fn gap(before: Option<Item>, item: Item) -> i64 {
    match (before, item) {
        (Some(Item::Arrived(_)), Item::Arrived(_)) => 12,
        (Some(Item::Sent(_)), Item::Arrived(_)) => 20,
        (Some(Item::Mark(_) | Item::Band(_)), Item::Arrived(_)) => 18,
        (Some(Item::Arrived(_)), _) => 22,
        _ => 27,
    }
}

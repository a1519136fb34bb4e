//! The diagram of space and time as SVG: a lane for each who took part, time downwards, messages as
//! arrows.

use std::fmt::Display;

use super::diagram::{Arrow, Band, BandKind, Diagram, EventId, Fate, LaneIndex, MarkKind, seconds};
use super::markup::{Markup, cut};
use super::scene::{Item, Row, Scene, View, is_labeled, rows_below};
use super::words::{about, described, said, told};

/// What is left of the lanes: times.
const GUTTER: i64 = 104;
/// The height of the names of the lanes.
const HEAD: i64 = 96;

/// Draws a view of a diagram; `prefix` makes its ids its own. Returns how much was left out too.
pub(super) fn draw(diagram: &Diagram, view: View, prefix: char) -> Option<(Markup, usize)> {
    let scene = Scene::new(diagram, view, rows_below(HEAD + 24));
    if scene.is_empty() {
        return None;
    }
    let column = match diagram.lanes.len() {
        0..=4 => 236,
        5..=7 => 204,
        _ => 164,
    };
    let left_out = scene.left_out;
    let space = Space { scene, column, prefix, view };
    Some((space.draw(), left_out))
}

struct Space<'a> {
    scene: Scene<'a>,
    column: i64,
    prefix: char,
    view: View,
}

impl Space<'_> {
    fn draw(&self) -> Markup {
        let mut out = Markup::default();
        let (width, height) = (self.width(), self.height());
        let name = format!("{}-title {}-desc", self.prefix, self.prefix);
        out.open(
            "svg",
            &[
                ("class", &"space"),
                ("viewBox", &format_args!("0 0 {width} {height}")),
                ("width", &width),
                ("height", &height),
                ("role", &"group"),
                ("tabindex", &"0"),
                ("aria-labelledby", &name),
            ],
        );
        let title = match self.view {
            View::Past => "Space and time: what led to the witness",
            View::All => "Space and time: everything",
        };
        out.element("title", &[("id", &format_args!("{}-title", self.prefix))], title);
        out.element("desc", &[("id", &format_args!("{}-desc", self.prefix))], self.description());
        self.ground(&mut out);
        self.heads(&mut out, 8);
        for row in &self.scene.rows {
            if let Item::Sent(index) = row.item {
                self.arrow(&mut out, *row, index);
            }
        }
        for row in &self.scene.rows {
            match row.item {
                Item::Mark(index) => self.mark(&mut out, *row, index),
                Item::Band(index) => self.band_begins(&mut out, *row, index),
                Item::Sent(_) | Item::Arrived(_) => {}
            }
        }
        out.close("svg");
        out.line();
        out
    }

    fn description(&self) -> String {
        let lanes: Vec<&str> =
            self.scene.diagram.lanes.iter().map(|lane| lane.name.as_str()).collect();
        let (from, to) = self.scene.axis.range();
        format!(
            "Time goes down from {} s to {} s. Lanes from left to right: {}. The same is told as a \
             list below the diagram.",
            seconds(from),
            seconds(to),
            lanes.join(", ")
        )
    }

    fn width(&self) -> i64 {
        GUTTER + self.column * count(self.scene.diagram.lanes.len()).max(1) + 8
    }

    fn height(&self) -> i64 {
        self.scene.axis.length + 34
    }

    fn x(&self, lane: LaneIndex) -> i64 {
        GUTTER + self.column * count(lane) + self.column / 2
    }

    /// What is behind the arrows: lanes, bands, pauses, and times.
    fn ground(&self, out: &mut Markup) {
        let bottom = self.height() - 10;
        for (y, passed) in self.scene.axis.pauses() {
            let top = y - 13;
            rect(out, "pause", (0, top), (self.width(), 26));
            text(out, "passed", "end", (GUTTER - 14, y + 4), format_args!("⋮ {passed}"));
        }
        for band in &self.scene.diagram.bands {
            if band.kind == BandKind::Cut {
                self.cut_link(out, band);
            }
        }
        for (index, lane) in self.scene.diagram.lanes.iter().enumerate() {
            let class = format!("lane {}", lane.kind.name());
            line(out, &class, (self.x(index), HEAD - 38), (self.x(index), bottom));
        }
        for band in &self.scene.diagram.bands {
            if band.kind != BandKind::Cut {
                self.band(out, band);
            }
        }
        self.times(out);
    }

    /// The times of what has a label, where there is room.
    fn times(&self, out: &mut Markup) {
        let mut last = (u64::MAX, i64::MIN);
        for row in &self.scene.rows {
            if matches!(row.item, Item::Arrived(_)) || row.at == last.0 || row.y < last.1 + 14 {
                continue;
            }
            last = (row.at, row.y);
            text(out, "time", "end", (GUTTER - 14, row.y + 4), seconds(row.at));
        }
    }

    /// The names of the lanes, and what was so before the first row.
    fn heads(&self, out: &mut Markup, top: i64) {
        let (first, _) = self.scene.axis.range();
        for (index, lane) in self.scene.diagram.lanes.iter().enumerate() {
            let x = self.x(index);
            let size = (self.column - 26, 42);
            let class = format!("head {}", lane.kind.name());
            rect(out, &class, (x - size.0 / 2, top), size);
            let room = chars(size.0 - 16);
            text(out, "name", "middle", (x, top + 18), cut(&lane.name, room));
            text(out, "kind", "middle", (x, top + 33), lane.kind.name());
            let held: Vec<String> = self.bands_at(index, first).map(said).collect();
            if let Some(held) = summary(&held) {
                let held = cut(&held, chars(self.column - 12));
                chip(out, "so", (x, HEAD - 8), &held);
            }
        }
    }

    fn bands_at(&self, lane: LaneIndex, at: u64) -> impl Iterator<Item = &Band> {
        self.scene.diagram.bands.iter().filter(move |band| {
            let is_so = band.from <= at && band.to.is_none_or(|to| to > at);
            is_labeled(band) && is_so && band.lanes.contains(&lane)
        })
    }

    /// Where a band is, from above: `None` if it is outside of what is drawn.
    fn extent(&self, band: &Band) -> Option<(i64, i64)> {
        let (first, last) = self.scene.axis.range();
        if band.from > last || band.to.is_some_and(|to| to <= first) {
            return None;
        }
        let top = if band.from <= first { HEAD - 8 } else { self.scene.axis.place(band.from) };
        let bottom = match band.to {
            Some(to) if to <= last => self.scene.axis.place(to),
            _ => self.height() - 10,
        };
        Some((top, bottom))
    }

    fn band(&self, out: &mut Markup, band: &Band) {
        let Some((top, bottom)) = self.extent(band) else { return };
        for lane in &band.lanes {
            let (class, half) = match band.kind {
                BandKind::Leads => (format!("band leads s{}", self.subject(band)), 4),
                BandKind::Owns => (format!("band owns s{}", self.subject(band)), 4),
                BandKind::Down | BandKind::Cut => ("band down".to_owned(), 12),
                BandKind::Paused => ("band paused".to_owned(), 12),
            };
            // Several subjects of one lane stand side by side.
            let shift = if is_labeled(band) { self.beside(band) * 10 } else { 0 };
            let at = (self.x(*lane) - half + shift, top);
            out.open("g", &[("class", &class)]);
            out.element("title", &[], about(self.scene.diagram, band));
            rect(out, "", at, (half * 2, bottom - top));
            out.close("g");
        }
    }

    /// The number of what a band is about, for its color.
    fn subject(&self, band: &Band) -> usize {
        subject(self.scene.diagram, &band.subject)
    }

    /// How many other subjects this lane has had before this one.
    fn beside(&self, band: &Band) -> i64 {
        let mut subjects: Vec<&str> = Vec::new();
        for other in &self.scene.diagram.bands {
            let is_new = !subjects.contains(&other.subject.as_str());
            if is_new && is_labeled(other) && other.lanes == band.lanes {
                subjects.push(&other.subject);
            }
        }
        count(subjects.iter().position(|subject| *subject == band.subject).unwrap_or(0))
    }

    /// A cut link: what is between its ends is shaded.
    fn cut_link(&self, out: &mut Markup, band: &Band) {
        let Some((top, bottom)) = self.extent(band) else { return };
        let (Some(left), Some(right)) = (band.lanes.iter().min(), band.lanes.iter().max()) else {
            return;
        };
        let (left, right) = (self.x(*left), self.x(*right));
        let (left, right) = if left == right { (left - 20, right + 20) } else { (left, right) };
        out.open("g", &[("class", &"cut")]);
        out.element("title", &[], about(self.scene.diagram, band));
        rect(out, "", (left, top), (right - left, bottom - top));
        out.close("g");
    }

    fn arrow(&self, out: &mut Markup, row: Row, index: usize) {
        let arrow = &self.scene.diagram.arrows[index];
        let from = (self.x(arrow.from), row.y);
        let to = (self.x(arrow.to), self.scene.arrival(index).unwrap_or(row.y + 22));
        let mut class = String::from("ev message");
        if arrow.is_reply {
            class.push_str(" reply");
        }
        if arrow.fate != Fate::Arrived {
            class.push_str(" astray");
        }
        self.open_event(
            out,
            &class,
            [Some(arrow.id), arrow.end],
            described(self.scene.diagram, arrow),
        );
        let way = Way::new(from, to, arrow.fate);
        out.leaf("path", &[("class", &"wide"), ("d", &way.path)]);
        out.leaf("path", &[("class", &"way"), ("d", &way.path)]);
        way.end(out, arrow.fate);
        out.leaf("circle", &[("class", &"dot"), ("cx", &from.0), ("cy", &from.1), ("r", &3)]);
        self.arrow_label(out, arrow, from, to);
        self.badge(out, arrow.id, from);
        if let Some(end) = arrow.end {
            let side = if to.0 >= from.0 { 16 } else { -16 };
            self.badge(out, end, (to.0 + side, to.1));
        }
        out.close("g");
        out.line();
    }

    /// The label begins where the arrow does, above it.
    fn arrow_label(&self, out: &mut Markup, arrow: &Arrow, from: (i64, i64), to: (i64, i64)) {
        let is_right = to.0 >= from.0;
        let (anchor, x) = if is_right { ("start", from.0 + 11) } else { ("end", from.0 - 11) };
        let room = (to.0 - from.0).abs().max(self.column) - 30;
        let sign = if self.is_witness([Some(arrow.id), arrow.end]) { "◆ " } else { "" };
        let head = format!("{sign}{}", arrow.label);
        let tail = match (arrow.detail.as_str(), arrow.fate.name()) {
            ("", fate) => fate.to_owned(),
            (detail, "") => detail.to_owned(),
            (detail, fate) => format!("{fate}: {detail}"),
        };
        let tail = cut(&tail, chars(room).saturating_sub(head.chars().count() + 1));
        out.open(
            "text",
            &[("class", &"label"), ("text-anchor", &anchor), ("x", &x), ("y", &(from.1 - 5))],
        );
        out.element("tspan", &[("class", &"what")], head);
        if !tail.is_empty() {
            out.text(" ");
            out.element("tspan", &[("class", &"said")], tail);
        }
        out.close("text");
    }

    fn mark(&self, out: &mut Markup, row: Row, index: usize) {
        let mark = &self.scene.diagram.marks[index];
        let is_witness = self.is_witness([Some(mark.id), None]);
        let sign = if is_witness { "◆ " } else { "" };
        let label = format!("{sign}{} {}", mark.kind.sign(), mark.label);
        let class = format!("ev mark {}", class_of(mark.kind));
        self.open_event(out, &class, [Some(mark.id), None], told(self.scene.diagram, mark));
        let (x, room) = match mark.lane {
            Some(lane) => (self.x(lane), self.column * 2),
            None => ((GUTTER + self.width()) / 2, self.width() - GUTTER - 40),
        };
        if mark.lane.is_none() {
            line(out, "across", (GUTTER - 4, row.y), (self.width() - 8, row.y));
        }
        let label = cut(&label, chars(room - 12));
        let x = self.within(x, &label);
        let half = chip(out, "", (x, row.y), &label);
        self.badge(out, mark.id, (x - half - 10, row.y));
        out.close("g");
        out.line();
    }

    fn band_begins(&self, out: &mut Markup, row: Row, index: usize) {
        let band = &self.scene.diagram.bands[index];
        for lane in &band.lanes {
            let label = cut(&said(band), chars(self.column * 2));
            chip(out, "so", (self.within(self.x(*lane), &label), row.y), &label);
        }
    }

    /// The middle of a label that shall be at `x`, so that all of it is on the drawing.
    fn within(&self, x: i64, label: &str) -> i64 {
        let half = wide(label) / 2 + 14;
        x.min(self.width() - half).max(GUTTER + half + 12)
    }

    fn is_witness(&self, ids: [Option<EventId>; 2]) -> bool {
        ids.iter().flatten().any(|id| self.scene.witness.contains(id))
    }

    fn open_event(&self, out: &mut Markup, class: &str, ids: [Option<EventId>; 2], told: String) {
        let class =
            if self.is_witness(ids) { format!("{class} witness") } else { class.to_owned() };
        let [id, end] = ids.map(|id| id.unwrap_or(0));
        let causes = self.scene.diagram.causes.get(&id);
        let causes: Vec<String> = causes.into_iter().flatten().map(ToString::to_string).collect();
        out.open(
            "g",
            &[
                ("class", &class),
                ("id", &format_args!("{}{id}", self.prefix)),
                ("data-i", &id),
                ("data-e", &end),
                ("data-c", &causes.join(" ")),
                ("role", &"img"),
            ],
        );
        if end != 0 && end != id {
            out.leaf("g", &[("id", &format_args!("{}{end}", self.prefix))]);
        }
        out.element("title", &[], told);
    }

    /// The number of the sentence that is about an event.
    fn badge(&self, out: &mut Markup, id: EventId, at: (i64, i64)) {
        let Some(number) = self.scene.numbers.get(&id) else { return };
        out.open("g", &[("class", &"badge")]);
        out.leaf("circle", &[("cx", &at.0), ("cy", &at.1), ("r", &8)]);
        text(out, "", "middle", (at.0, at.1 + 4), number);
        out.close("g");
    }
}

/// The way of an arrow, and how it ends.
struct Way {
    path: String,
    tip: (i64, i64),
    angle: f64,
}

impl Way {
    fn new(from: (i64, i64), to: (i64, i64), fate: Fate) -> Self {
        let part = match fate {
            Fate::Arrived | Fate::Late | Fate::Discarded => 100,
            Fate::Lost => 60,
            Fate::Held => 35,
            Fate::UnderWay => 80,
        };
        if from.0 == to.0 {
            let path = format!("M{} {}h34v{}h-28", from.0, from.1, (to.1 - from.1).max(8));
            return Self { path, tip: to, angle: 180.0 };
        }
        let tip = (from.0 + (to.0 - from.0) * part / 100, from.1 + (to.1 - from.1) * part / 100);
        let path = format!("M{} {}L{} {}", from.0, from.1, tip.0, tip.1);
        let (dx, dy) = ((tip.0 - from.0) as f64, (tip.1 - from.1) as f64);
        Self { path, tip, angle: dy.atan2(dx).to_degrees() }
    }

    fn end(&self, out: &mut Markup, fate: Fate) {
        let (x, y) = self.tip;
        let place = format!("translate({x} {y}) rotate({:.0})", self.angle);
        let (class, d) = match fate {
            Fate::Arrived | Fate::Late | Fate::UnderWay => ("tip", "M-1 0l-9 -4v8z"),
            Fate::Lost | Fate::Discarded => ("cross", "M-5 -5l10 10M5 -5l-10 10"),
            Fate::Held => ("cross", "M-2 -6v12M3 -6v12"),
        };
        out.leaf("path", &[("class", &class), ("transform", &place), ("d", &d)]);
    }
}

/// The number of a subject among all, for its color.
pub(super) fn subject(diagram: &Diagram, name: &str) -> usize {
    let mut subjects: Vec<&str> = Vec::new();
    for band in diagram.bands.iter().filter(|band| is_labeled(band)) {
        if !subjects.contains(&band.subject.as_str()) {
            subjects.push(&band.subject);
        }
    }
    subjects.iter().position(|subject| *subject == name).unwrap_or(0) % 6
}

fn summary(held: &[String]) -> Option<String> {
    let first = held.first()?;
    Some(if held.len() > 1 { format!("{first} +{}", held.len() - 1) } else { first.clone() })
}

const fn class_of(kind: MarkKind) -> &'static str {
    match kind {
        MarkKind::Crash | MarkKind::Pause | MarkKind::Fault => "fault",
        MarkKind::Start => "start",
        MarkKind::Call => "call",
        MarkKind::Answer => "answer",
        MarkKind::Failure => "failure",
        MarkKind::Timer => "timer",
        MarkKind::Fact => "fact",
    }
}

/// A label on a plate; returns half of its width.
fn chip(out: &mut Markup, class: &str, at: (i64, i64), label: &str) -> i64 {
    let half = wide(label) / 2 + 9;
    out.open("g", &[("class", &format_args!("chip {class}"))]);
    out.leaf(
        "rect",
        &[
            ("x", &(at.0 - half)),
            ("y", &(at.1 - 10)),
            ("width", &(half * 2)),
            ("height", &20),
            ("rx", &10),
        ],
    );
    text(out, "", "middle", (at.0, at.1 + 4), label);
    out.close("g");
    half
}

pub(super) fn text(
    out: &mut Markup,
    class: &str,
    anchor: &str,
    at: (i64, i64),
    text: impl Display,
) {
    let (x, y) = at;
    if class.is_empty() {
        out.element("text", &[("text-anchor", &anchor), ("x", &x), ("y", &y)], text);
    } else {
        let class: (&str, &dyn Display) = ("class", &class);
        out.element("text", &[class, ("text-anchor", &anchor), ("x", &x), ("y", &y)], text);
    }
}

pub(super) fn rect(out: &mut Markup, class: &str, at: (i64, i64), size: (i64, i64)) {
    let (width, height) = (size.0.max(1), size.1.max(1));
    out.leaf(
        "rect",
        &[("class", &class), ("x", &at.0), ("y", &at.1), ("width", &width), ("height", &height)],
    );
}

pub(super) fn line(out: &mut Markup, class: &str, from: (i64, i64), to: (i64, i64)) {
    out.leaf(
        "line",
        &[("class", &class), ("x1", &from.0), ("y1", &from.1), ("x2", &to.0), ("y2", &to.1)],
    );
}

/// How wide a text is: a character of the font takes 7.25 pixels.
fn wide(text: &str) -> i64 {
    count(text.chars().count()) * 29 / 4
}

/// How many characters fit into a width.
pub(super) fn chars(width: i64) -> usize {
    usize::try_from(width * 4 / 29).unwrap_or(0)
}

pub(super) fn count(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

//! The chart of a partition as SVG: offsets over time, with the end of the log of each replica, the
//! high watermark, the last stable offset, and what was taken back.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::axis::{Axis, Scale};
use super::diagram::{Diagram, LaneIndex, LogChange, LogChangeKind, LogStrip, nearest, seconds};
use super::markup::Markup;
use super::space::{count, line, rect, text};

const LEFT: i64 = 74;
const RIGHT: i64 = 190;
const TOP: i64 = 16;
/// The most that the offsets take.
const TALL: i64 = 230;
const PAUSED: Scale = Scale { begin: LEFT + 14, pause: 66, idle: 300_000_000 };

/// The most changes that a chart has.
const MOST_CHANGES: usize = 120;

/// What a line of the chart shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Line {
    /// The end of the log of a replica.
    End(LaneIndex),
    HighWatermark,
    LastStable,
}

/// Draws a partition. `None` if nothing happened to its logs.
pub(super) fn draw(diagram: &Diagram, strip: &LogStrip) -> Option<Markup> {
    let changes: Vec<&LogChange> = strip.changes.iter().collect();
    let changes = nearest(changes, MOST_CHANGES, |change| change.at, diagram.focus());
    let last = changes.last()?;
    let times = changes.iter().map(|change| change.at).chain([last.at + 1]);
    let gap = if changes.len() > 60 { 9 } else { 22 };
    let axis = Axis::of(times, gap, PAUSED);
    let offsets = changes.iter().flat_map(|change| ends(&change.kind));
    let low = offsets.clone().min().unwrap_or(0);
    let high = offsets.max().unwrap_or(0).max(low + 1);
    let unit_count = high - low;
    let tall = (unit_count * 32).clamp(120, TALL);
    Some(Chart { diagram, strip, changes, axis, low, unit_count, tall }.draw())
}

struct Chart<'a> {
    diagram: &'a Diagram,
    strip: &'a LogStrip,
    /// What is drawn: what is nearest to the witness.
    changes: Vec<&'a LogChange>,
    axis: Axis,
    low: i64,
    unit_count: i64,
    tall: i64,
}

impl Chart<'_> {
    fn draw(&self) -> Markup {
        let (width, height) = (self.axis.length + RIGHT, self.tall + TOP + 40);
        let title = format!("The logs of {}: offsets over time", self.strip.partition);
        let mut out = Markup::default();
        out.open(
            "svg",
            &[
                ("class", &"chart"),
                ("viewBox", &format_args!("0 0 {width} {height}")),
                ("width", &width),
                ("height", &height),
                ("role", &"group"),
                ("aria-label", &title),
            ],
        );
        self.grid(&mut out);
        let lines = self.lines();
        for (index, (name, points)) in lines.iter().enumerate() {
            self.line(&mut out, *name, points, self.shift(*name, index));
        }
        for change in &self.changes {
            self.change(&mut out, change);
        }
        self.names(&mut out, &lines);
        out.close("svg");
        out.line();
        out
    }

    fn y(&self, offset: i64) -> i64 {
        TOP + self.tall - (offset - self.low) * self.tall / self.unit_count
    }

    fn grid(&self, out: &mut Markup) {
        let bottom = TOP + self.tall;
        for (x, passed) in self.axis.pauses() {
            rect(out, "pause", (x - 11, TOP - 6), (22, self.tall + 12));
            text(out, "passed", "middle", (x, bottom + 18), passed);
        }
        let step = (1..).map(nice).find(|step| self.tall / (self.unit_count / step + 1) >= 16);
        let step = step.unwrap_or(self.unit_count);
        let first = (self.low + step - 1).div_euclid(step) * step;
        let mut offset = first;
        while offset <= self.low + self.unit_count {
            let y = self.y(offset);
            line(out, "grid", (LEFT, y), (self.axis.length + 10, y));
            text(out, "time", "end", (LEFT - 8, y + 4), offset);
            offset += step;
        }
        text(out, "axis", "start", (6, TOP - 4), "offset");
        let (first, last) = self.axis.range();
        for (at, anchor) in [(first, "start"), (last, "end")] {
            let x = self.axis.place(at);
            text(out, "time", anchor, (x, bottom + 33), format_args!("{} s", seconds(at)));
        }
    }

    /// The points of each line, in the order of time.
    fn lines(&self) -> BTreeMap<Line, Vec<(u64, i64)>> {
        let mut lines: BTreeMap<Line, Vec<(u64, i64)>> = BTreeMap::new();
        for change in &self.changes {
            let (line, offset) = match change.kind {
                LogChangeKind::Added { to, .. }
                | LogChangeKind::Truncated { to, .. }
                | LogChangeKind::PowerLost { to, .. } => (Line::End(change.lane), to),
                LogChangeKind::Marker { offset, .. } => (Line::End(change.lane), offset + 1),
                LogChangeKind::HighWatermark(offset) => (Line::HighWatermark, offset),
                LogChangeKind::LastStable(offset) => (Line::LastStable, offset),
                LogChangeKind::Aborted { .. } => continue,
            };
            lines.entry(line).or_default().push((change.at, offset));
        }
        lines
    }

    /// Lines that are equal stand beside each other.
    fn shift(&self, line: Line, index: usize) -> i64 {
        match line {
            Line::End(_) => count(index % 6) * 4,
            Line::HighWatermark | Line::LastStable => -4,
        }
    }

    fn class(&self, line: Line) -> String {
        match line {
            Line::End(lane) => format!("end r{}", lane % 6),
            Line::HighWatermark => "high".to_owned(),
            Line::LastStable => "stable".to_owned(),
        }
    }

    fn name(&self, line: Line) -> String {
        match line {
            Line::End(lane) => self.diagram.lane(lane).to_owned(),
            Line::HighWatermark => "high watermark".to_owned(),
            Line::LastStable => "last stable".to_owned(),
        }
    }

    fn line(&self, out: &mut Markup, line: Line, points: &[(u64, i64)], shift: i64) {
        let mut path = String::new();
        for (at, offset) in points {
            let (x, y) = (self.axis.place(*at) + shift, self.y(*offset) - shift);
            // Writing to a string does not fail.
            let _written =
                if path.is_empty() { write!(path, "M{x} {y}") } else { write!(path, "H{x}V{y}") };
        }
        let _written = write!(path, "H{}", self.axis.length + 10);
        let told = format!("{}: {}", self.name(line), story(points));
        out.open("g", &[("class", &self.class(line)), ("role", &"img")]);
        out.element("title", &[], told);
        out.leaf("path", &[("d", &path)]);
        out.close("g");
    }

    /// What is more than a step of a line.
    fn change(&self, out: &mut Markup, change: &LogChange) {
        let lane = self.diagram.lane(change.lane);
        let at = seconds(change.at);
        let x = self.axis.place(change.at);
        let (class, sign, from, to, told) = match &change.kind {
            LogChangeKind::Truncated { from, to } => {
                let told = format!("{at} s: {lane} takes back offsets {to} to {}", from - 1);
                ("gone", "✂", *to, *from, told)
            }
            LogChangeKind::PowerLost { from, to } => {
                let told = format!("{at} s: {lane} loses offsets {to} to {}", from - 1);
                ("gone", "✗", *to, *from, told)
            }
            LogChangeKind::Aborted { from, to } => {
                let told = format!("{at} s: offsets {from} to {} are aborted", to - 1);
                // Its marker says so with a letter.
                ("aborted", "", *from, *to, told)
            }
            LogChangeKind::Marker { offset, is_commit } => {
                let word = if *is_commit { "commit" } else { "abort" };
                let told = format!("{at} s: {lane} {word} marker at {offset}");
                ("marker", if *is_commit { "C" } else { "A" }, *offset, offset + 1, told)
            }
            LogChangeKind::Added { .. }
            | LogChangeKind::HighWatermark(_)
            | LogChangeKind::LastStable(_) => return,
        };
        let class = format!("{class} ev");
        out.open("g", &[("class", &class), ("data-i", &change.id), ("role", &"img")]);
        out.element("title", &[], told);
        let (top, bottom) = (self.y(to), self.y(from));
        rect(out, "", (x - 4, top), (8, bottom - top));
        if !sign.is_empty() {
            text(out, "", "middle", (x, top - 4), sign);
        }
        out.close("g");
    }

    /// The names of the lines, at their right ends, below each other.
    fn names(&self, out: &mut Markup, lines: &BTreeMap<Line, Vec<(u64, i64)>>) {
        let mut names: Vec<(i64, Line, i64)> = lines
            .iter()
            .enumerate()
            .filter_map(|(index, (line, points))| {
                let (_, offset) = points.last()?;
                Some((self.y(*offset) - self.shift(*line, index), *line, *offset))
            })
            .collect();
        names.sort_unstable();
        let x = self.axis.length + 16;
        let mut free = i64::MIN;
        for (y, line, offset) in names {
            let y = y.max(free);
            free = y + 15;
            let class = format!("{} name", self.class(line));
            let name = format!("{} {offset}", self.name(line));
            text(out, &class, "start", (x, y + 4), name);
        }
    }
}

/// The offsets that a change is about.
fn ends(kind: &LogChangeKind) -> [i64; 2] {
    match kind {
        LogChangeKind::Added { from, to, .. }
        | LogChangeKind::Truncated { from, to }
        | LogChangeKind::PowerLost { from, to }
        | LogChangeKind::Aborted { from, to } => [*from, *to],
        LogChangeKind::HighWatermark(offset) | LogChangeKind::LastStable(offset) => [*offset; 2],
        LogChangeKind::Marker { offset, .. } => [*offset, offset + 1],
    }
}

/// 1, 2, 5, 10, 20, 50, and so on.
fn nice(n: u32) -> i64 {
    [1, 2, 5][(n as usize - 1) % 3] * 10_i64.saturating_pow((n - 1) / 3)
}

/// The last few points of a line in words.
fn story(points: &[(u64, i64)]) -> String {
    let skipped = points.len().saturating_sub(6);
    let told =
        points[skipped..].iter().map(|(at, offset)| format!("{offset} at {} s", seconds(*at)));
    let told: Vec<String> = told.collect();
    let before = if skipped > 0 { format!("{skipped} steps, then ") } else { String::new() };
    format!("{before}{}", told.join(", "))
}

//! Bars over time as SVG: who led, who owned, what was down, and the states of transactions.

use std::collections::BTreeSet;

use super::axis::{Axis, Scale};
use super::diagram::{Band, BandKind, Diagram, EventId, Transaction, nearest, seconds};
use super::markup::{Markup, cut};
use super::space::{chars, count, line, rect, subject, text};
use super::words::{about, said};

/// What the names of the rows take.
const NAMES: i64 = 190;
const ROW: i64 = 30;
const PAUSED: Scale = Scale { begin: NAMES + 12, pause: 132, idle: 2_000_000_000 };

/// The most bars of a row of transactions, and the most rows.
const MOST_BARS: usize = 24;
const MOST_ROWS: usize = 8;

/// A row of bars.
struct Row {
    name: String,
    bars: Vec<Bar>,
}

/// A bar.
struct Bar {
    from: u64,
    to: Option<u64>,
    class: String,
    label: String,
    told: String,
    id: Option<EventId>,
}

/// Draws what was led, owned, down, paused, and cut. `None` if nothing was.
pub(super) fn bands(diagram: &Diagram) -> Option<Markup> {
    let mut rows = Vec::new();
    for kind in [BandKind::Leads, BandKind::Owns] {
        let subjects: BTreeSet<&str> =
            of(diagram, kind).map(|band| band.subject.as_str()).collect();
        for name in subjects {
            rows.extend(rows_of_subject(diagram, kind, name));
        }
    }
    for kind in [BandKind::Down, BandKind::Paused, BandKind::Cut] {
        let whose: BTreeSet<&[usize]> =
            of(diagram, kind).map(|band| band.lanes.as_slice()).collect();
        for lanes in whose {
            let names: Vec<&str> = lanes.iter().map(|lane| diagram.lane(*lane)).collect();
            let bands = of(diagram, kind).filter(|band| band.lanes == lanes);
            let bars = bands.map(|band| bar(diagram, band, kind.name().to_owned())).collect();
            let between = if kind == BandKind::Cut { " ⇹ " } else { ", " };
            rows.push(Row { name: names.join(between), bars });
        }
    }
    draw(diagram, &rows, "Leadership, ownership, and faults over time")
}

/// Draws the states of transactions. `None` if there are none.
pub(super) fn transactions(diagram: &Diagram) -> Option<Markup> {
    let mut rows: Vec<Row> = diagram.transactions.iter().map(states).collect();
    for row in &mut rows {
        let bars = std::mem::take(&mut row.bars);
        row.bars = nearest(bars, MOST_BARS, |bar| bar.from, diagram.focus());
    }
    rows.truncate(MOST_ROWS);
    draw(diagram, &rows, "The states of each transactional id over time")
}

fn states(transaction: &Transaction) -> Row {
    let states = &transaction.states;
    let bars = states.iter().enumerate().map(|(index, state)| {
        let to = states.get(index + 1).map(|next| next.at);
        let till = to.map_or_else(|| "the end".to_owned(), |to| format!("{} s", seconds(to)));
        let from = seconds(state.at);
        let told = format!(
            "{}: {} {}, from {from} s to {till}",
            transaction.name, state.state, state.detail
        );
        let class = if state.state.contains("Abort") { "bar aborts" } else { "bar" };
        Bar {
            from: state.at,
            to,
            class: class.to_owned(),
            label: state.state.clone(),
            told,
            id: Some(state.id),
        }
    });
    Row { name: transaction.name.clone(), bars: bars.collect() }
}

fn of(diagram: &Diagram, kind: BandKind) -> impl Iterator<Item = &Band> {
    diagram.bands.iter().filter(move |band| band.kind == kind)
}

/// The bars of a partition. Owners at the same time are below each other, and marked.
fn rows_of_subject(diagram: &Diagram, kind: BandKind, name: &str) -> Vec<Row> {
    let mut rows: Vec<(u64, Row)> = Vec::new();
    let bands: Vec<&Band> = of(diagram, kind).filter(|band| band.subject == name).collect();
    let mut bands = nearest(bands, MOST_BARS, |band| band.from, diagram.focus());
    bands.sort_by_key(|band| (band.from, band.lanes.clone()));
    for band in &bands {
        let who: Vec<&str> = band.lanes.iter().map(|lane| diagram.lane(*lane)).collect();
        let mut label = who.join(", ");
        if !band.detail.is_empty() {
            label = format!("{label} · {}", band.detail);
        }
        let mut bar = bar(diagram, band, label);
        let overlaps = bands.iter().any(|other| {
            other.lanes != band.lanes && overlap((band.from, band.to), (other.from, other.to))
        });
        if overlaps {
            bar.class.push_str(" overlap");
            bar.label = format!("! {}", bar.label);
            bar.told.push_str(", at the same time as another");
        }
        let end = band.to.unwrap_or(u64::MAX);
        match rows.iter_mut().find(|(free, _)| *free <= band.from) {
            Some((free, row)) => {
                *free = end;
                row.bars.push(bar);
            }
            None => {
                let name =
                    if rows.is_empty() { format!("{} {name}", kind.name()) } else { String::new() };
                rows.push((end, Row { name, bars: vec![bar] }));
            }
        }
    }
    rows.into_iter().map(|(_, row)| row).collect()
}

fn overlap(a: (u64, Option<u64>), b: (u64, Option<u64>)) -> bool {
    a.0 < b.1.unwrap_or(u64::MAX) && b.0 < a.1.unwrap_or(u64::MAX)
}

fn bar(diagram: &Diagram, band: &Band, label: String) -> Bar {
    let class = match band.kind {
        BandKind::Leads | BandKind::Owns => format!("bar s{}", subject(diagram, &band.subject)),
        BandKind::Down => "bar down".to_owned(),
        BandKind::Paused => "bar paused".to_owned(),
        BandKind::Cut => "bar cut".to_owned(),
    };
    let told = match band.kind {
        BandKind::Cut => format!("{} {}", about(diagram, band), said(band)),
        _ => about(diagram, band),
    };
    Bar { from: band.from, to: band.to, class, label, told, id: band.id }
}

fn draw(diagram: &Diagram, rows: &[Row], title: &str) -> Option<Markup> {
    let bars = || rows.iter().flat_map(|row| &row.bars);
    let begin = bars().map(|bar| bar.from).min()?;
    let end = diagram.end().max(begin + 1);
    let times: BTreeSet<u64> = bars()
        .flat_map(|bar| [bar.from, bar.to.unwrap_or(end)])
        .chain([begin, end])
        .map(|time| time.min(end))
        .collect();
    let gap = if times.len() > 14 { 44 } else { 78 };
    let axis = Axis::of(times.iter().copied(), gap, PAUSED);
    let (width, height) = (axis.length + 40, count(rows.len()) * ROW + 34);
    let mut out = Markup::default();
    out.open(
        "svg",
        &[
            ("class", &"gantt"),
            ("viewBox", &format_args!("0 0 {width} {height}")),
            ("width", &width),
            ("height", &height),
            ("role", &"group"),
            ("aria-label", &title),
        ],
    );
    let bottom = height - 26;
    grid(&mut out, &axis, &times, bottom);
    for (index, row) in rows.iter().enumerate() {
        let y = count(index) * ROW + 4;
        text(&mut out, "name", "end", (NAMES, y + 16), cut(&row.name, chars(NAMES - 8)));
        for bar in &row.bars {
            draw_bar(&mut out, &axis, bar, y, end);
        }
    }
    out.close("svg");
    out.line();
    Some(out)
}

fn grid(out: &mut Markup, axis: &Axis, times: &BTreeSet<u64>, bottom: i64) {
    for (x, passed) in axis.pauses() {
        rect(out, "pause", (x - 12, 0), (24, bottom));
        text(out, "passed", "middle", (x, bottom + 16), passed);
    }
    let mut last = i64::MIN;
    for time in times {
        let x = axis.place(*time);
        line(out, "grid", (x, 0), (x, bottom));
        let is_free = axis.breaks.iter().all(|(pause, _)| (pause - x).abs() > 50);
        if is_free && x >= last + 72 {
            last = x;
            text(out, "time", "middle", (x, bottom + 16), seconds(*time));
        }
    }
}

fn draw_bar(out: &mut Markup, axis: &Axis, bar: &Bar, y: i64, end: u64) {
    let left = axis.place(bar.from);
    let right = axis.place(bar.to.unwrap_or(end)).max(left + 6);
    let id = bar.id.map_or(String::new(), |id| id.to_string());
    out.open("g", &[("class", &bar.class), ("data-i", &id), ("role", &"img")]);
    out.element("title", &[], &bar.told);
    rect(out, "", (left, y), (right - left, 22));
    let label = cut(&bar.label, chars(right - left - 10));
    if label.chars().count() > 2 {
        text(out, "", "start", (left + 6, y + 15), label);
    }
    out.close("g");
}

//! What the logs of a partition hold in the end, and what they held before: a table.

use std::collections::{BTreeMap, BTreeSet};

use super::diagram::{Diagram, LaneIndex, LogChangeKind, LogStrip, NULL, UNKNOWN};
use super::markup::{Markup, cut};

/// The most offsets that a table has.
const MOST_OFFSETS: i64 = 12;

/// What a log has, and had, at an offset.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Cell {
    /// What is there.
    pub(super) now: Option<String>,
    /// What was there and was taken back or lost, the oldest first.
    pub(super) gone: Vec<String>,
    /// It belongs to a transaction that was aborted.
    pub(super) is_aborted: bool,
    /// It is no record but the end of a transaction, which commits or aborts.
    pub(super) marker: Option<bool>,
}

impl Cell {
    /// What is there, in at most ten characters: a marker is in brackets, and a record that was
    /// aborted between tildes, so that a terminal can show them too.
    pub(super) fn text(&self) -> Option<String> {
        Some(match (self.marker, &self.now) {
            (Some(is_commit), _) => format!("[{}]", end_of_transaction(is_commit)),
            (None, Some(value)) if self.is_aborted => format!("~{}~", cut(value, 10)),
            (None, value) => cut(value.as_ref()?, 10),
        })
    }
}

const fn end_of_transaction(is_commit: bool) -> &'static str {
    if is_commit { "commit" } else { "abort" }
}

/// What the logs of a partition hold.
#[derive(Debug)]
pub(super) struct Logs {
    /// By replica, what is at each offset.
    pub(super) replicas: BTreeMap<LaneIndex, BTreeMap<i64, Cell>>,
    /// The last high watermark.
    pub(super) high_watermark: Option<i64>,
    /// The last last stable offset.
    pub(super) last_stable: Option<i64>,
}

impl Logs {
    /// Follows the changes of a partition to their end.
    pub(super) fn of(strip: &LogStrip) -> Self {
        let mut logs = Self { replicas: BTreeMap::new(), high_watermark: None, last_stable: None };
        let (mut aborted, mut markers) = (BTreeSet::new(), BTreeMap::new());
        for change in &strip.changes {
            match &change.kind {
                LogChangeKind::HighWatermark(offset) => logs.high_watermark = Some(*offset),
                LogChangeKind::LastStable(offset) => logs.last_stable = Some(*offset),
                LogChangeKind::Aborted { from, to } => aborted.extend(*from..*to),
                LogChangeKind::Added { from, to, values, is_copy } => {
                    if !is_copy {
                        // What was there before was taken back, and so was what came of it.
                        aborted.split_off(from);
                        markers.split_off(from);
                    }
                    let values =
                        values.iter().map(String::as_str).chain(std::iter::repeat(UNKNOWN));
                    let replica = logs.replicas.entry(change.lane).or_default();
                    for (offset, value) in (*from..*to).zip(values) {
                        replica.entry(offset).or_default().now = Some(value.to_owned());
                    }
                }
                LogChangeKind::Marker { offset, is_commit } => {
                    markers.insert(*offset, *is_commit);
                    let replica = logs.replicas.entry(change.lane).or_default();
                    replica.entry(*offset).or_default().now = Some(UNKNOWN.to_owned());
                }
                LogChangeKind::Truncated { to, .. } | LogChangeKind::PowerLost { to, .. } => {
                    let replica = logs.replicas.entry(change.lane).or_default();
                    for (_, cell) in replica.range_mut(*to..) {
                        cell.gone.extend(cell.now.take());
                    }
                }
            }
        }
        for replica in logs.replicas.values_mut() {
            for (offset, cell) in replica {
                // A follower that has not heard of it may have another record there.
                let is_unknown = cell.now.as_deref() == Some(UNKNOWN);
                cell.marker = markers.get(offset).copied().filter(|_| is_unknown);
                cell.is_aborted = aborted.contains(offset) && cell.now.is_some();
            }
        }
        logs
    }

    /// The offsets that are told of: around what differs, or the last ones.
    pub(super) fn window(&self) -> std::ops::Range<i64> {
        let offsets = || self.replicas.values().flat_map(BTreeMap::keys).copied();
        let (Some(low), Some(high)) = (offsets().min(), offsets().max()) else { return 0..0 };
        let cells = self.replicas.values().flatten();
        let odd = cells.filter(|(_, cell)| !cell.gone.is_empty()).map(|(offset, _)| *offset).min();
        let mut from = odd.map_or(high + 1 - MOST_OFFSETS, |odd| odd - 3);
        let cells = self.replicas.values().flatten();
        let aborted = cells.filter(|(_, cell)| cell.is_aborted).map(|(offset, _)| *offset).max();
        if let Some(aborted) = aborted.filter(|aborted| odd.is_none() && *aborted < from) {
            // What was aborted last tells more than the end does.
            from = aborted - 3;
        }
        let from = from.min(high + 1 - MOST_OFFSETS).max(low);
        // What differs comes first, even if it is long ago.
        let from = odd.map_or(from, |odd| from.min((odd - 3).max(low)));
        from..(from + MOST_OFFSETS).min(high + 1)
    }
}

/// Writes the table of a partition.
pub(super) fn table(out: &mut Markup, diagram: &Diagram, strip: &LogStrip) {
    let logs = Logs::of(strip);
    let window = logs.window();
    if window.is_empty() {
        return;
    }
    out.raw("<div class=\"scroll\"><table class=\"cells\">");
    out.open("caption", &[]);
    out.text("The logs in the end");
    if let Some(offset) = logs.high_watermark {
        out.text(format_args!(", high watermark {offset}"));
    }
    if let Some(offset) = logs.last_stable {
        out.text(format_args!(", last stable offset {offset}"));
    }
    out.text(". Struck out: what was acknowledged or copied, and is gone.");
    out.close("caption");
    out.raw("<thead><tr><th scope=\"col\">replica</th>");
    for offset in window.clone() {
        out.element("th", &[("scope", &"col")], offset);
    }
    out.raw("</tr></thead><tbody>");
    for (lane, cells) in &logs.replicas {
        out.raw("<tr>");
        out.element("th", &[("scope", &"row")], diagram.lane(*lane));
        for offset in window.clone() {
            cell(out, cells.get(&offset));
        }
        out.raw("</tr>");
        out.line();
    }
    out.raw("</tbody></table></div>");
    out.line();
}

fn cell(out: &mut Markup, cell: Option<&Cell>) {
    let Some(Cell { now, gone, is_aborted, marker }) = cell else {
        out.raw("<td class=\"none\"></td>");
        return;
    };
    let class = match (now, gone.is_empty(), is_aborted) {
        _ if marker.is_some() => "marker",
        (_, _, true) => "aborted",
        (None, ..) => "gone",
        (Some(_), false, _) => "replaced",
        (Some(_), true, _) => "here",
    };
    out.open("td", &[("class", &class)]);
    for gone in gone {
        out.open("s", &[]);
        value(out, gone);
        out.close("s");
        out.text(" ");
    }
    match (marker, now) {
        (Some(is_commit), _) => {
            out.text(end_of_transaction(*is_commit));
            out.element("small", &[], " marker");
        }
        (None, Some(now)) => value(out, now),
        (None, None) => {}
    }
    if *is_aborted {
        out.element("small", &[], " aborted");
    }
    out.close("td");
}

fn value(out: &mut Markup, value: &str) {
    if value == NULL {
        let told = "null (tombstone)";
        out.element("span", &[("role", &"img"), ("aria-label", &told), ("title", &told)], NULL);
    } else {
        out.text(cut(value, 10));
    }
}

/// What the signs of the tables and charts mean, as far as they occur.
pub(super) fn legend(out: &mut Markup, diagram: &Diagram) {
    let kinds = || diagram.logs.iter().flat_map(|strip| &strip.changes).map(|change| &change.kind);
    let is_there = |is_it: fn(&LogChangeKind) -> bool| kinds().any(is_it);
    let signs = [
        (
            is_there(|kind| matches!(kind, LogChangeKind::Aborted { .. })),
            "<li><i class=\"key aborted\"></i> of a transaction that was aborted</li>",
        ),
        (
            is_there(|kind| matches!(kind, LogChangeKind::Marker { .. })),
            "<li><i class=\"key marker\"></i> marker: a transaction ends (C commits, A aborts), \
             no application sees it</li>",
        ),
        (
            is_there(|kind| {
                matches!(kind, LogChangeKind::Added { values, .. }
                    if values.iter().any(|value| value == NULL))
            }),
            "<li>∅ null (tombstone)</li>",
        ),
    ];
    let mut signs = signs.iter().filter(|(is_there, _)| *is_there).peekable();
    if signs.peek().is_none() {
        return;
    }
    out.raw("<ul class=\"legend\" aria-label=\"Legend of the logs\">");
    for (_, sign) in signs {
        out.raw(sign);
    }
    out.raw("</ul>");
    out.line();
}

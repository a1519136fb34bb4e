//! Bands, messages, and marks in words: for titles, lists, and terminals.

use super::diagram::{Arrow, Band, Diagram, Fate, Mark, seconds, span};
use super::scene::is_labeled;

/// A band in a few words: `leads orders-0, epoch 1`.
pub(super) fn said(band: &Band) -> String {
    let Band { kind, subject, detail, .. } = band;
    if detail.is_empty() {
        format!("{} {subject}", kind.name())
    } else {
        format!("{} {subject}, {detail}", kind.name())
    }
}

/// A band in a sentence.
pub(super) fn about(diagram: &Diagram, band: &Band) -> String {
    let lanes: Vec<&str> = band.lanes.iter().map(|lane| diagram.lane(*lane)).collect();
    let what = if is_labeled(band) { said(band) } else { band.kind.name().to_owned() };
    let till = band.to.map_or_else(|| "the end".to_owned(), |to| format!("{} s", seconds(to)));
    format!("{} {what}, from {} s to {till}", lanes.join(" and "), seconds(band.from))
}

/// An arrow in a sentence.
pub(super) fn described(diagram: &Diagram, arrow: &Arrow) -> String {
    let (from, to) = (diagram.lane(arrow.from), diagram.lane(arrow.to));
    let detail = if arrow.detail.is_empty() { String::new() } else { format!(" {}", arrow.detail) };
    let end = match (arrow.fate, arrow.arrived) {
        (Fate::Arrived, Some(at)) => {
            format!("arrives after {}", span(at.saturating_sub(arrow.sent)))
        }
        (fate, Some(at)) => {
            format!("{} after {}", fate.name(), span(at.saturating_sub(arrow.sent)))
        }
        (fate, None) => fate.name().to_owned(),
    };
    format!("{} s: {from} to {to}: {}{detail} ({end})", seconds(arrow.sent), arrow.label)
}

/// A mark in a sentence.
pub(super) fn told(diagram: &Diagram, mark: &Mark) -> String {
    let place = mark.lane.map_or(String::new(), |lane| format!("{}: ", diagram.lane(lane)));
    let detail = if mark.detail.is_empty() { String::new() } else { format!(" ({})", mark.detail) };
    format!("{} s: {place}{} {}{detail}", seconds(mark.at), mark.kind.name(), mark.label)
}

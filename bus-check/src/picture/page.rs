//! The page: one HTML file with its style and script inside. It asks no network, works from a file,
//! and says the same without scripts, which only highlight.

use std::collections::BTreeSet;

use super::diagram::{BandKind, Diagram, EventId, LaneKind};
use super::markup::Markup;
use super::scene::{Item, Scene, View, rows_below};
use super::{chart, gantt, lists, logs, space};

const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("script.js");

/// The picture as one self-contained HTML file.
pub fn to_html(diagram: &Diagram) -> String {
    let drawn = drawn(diagram);
    let mut out = Markup::default();
    head(&mut out, diagram);
    lists::header(&mut out, diagram);
    out.raw("<main>");
    lists::narrative(&mut out, diagram, &drawn);
    out.raw("<div class=\"panels\">");
    space_and_time(&mut out, diagram);
    partitions(&mut out, diagram);
    bars(&mut out, diagram);
    lists::commits(&mut out, diagram);
    transactions(&mut out, diagram);
    lists::plan(&mut out, diagram, &drawn);
    out.raw("</div></main>");
    out.line();
    out.raw("<aside id=\"look\" aria-live=\"polite\" hidden><p></p></aside>");
    out.raw("<script>");
    out.raw(SCRIPT);
    out.raw("</script></body></html>");
    out.line();
    out.finish()
}

/// What is in the diagram of the causal past, so that links to it lead somewhere.
fn drawn(diagram: &Diagram) -> BTreeSet<EventId> {
    let scene = Scene::new(diagram, View::Past, rows_below(0));
    let ids = scene.rows.iter().flat_map(|row| match row.item {
        Item::Sent(index) => [Some(diagram.arrows[index].id), diagram.arrows[index].end],
        Item::Mark(index) => [Some(diagram.marks[index].id), None],
        Item::Arrived(_) | Item::Band(_) => [None, None],
    });
    ids.flatten().collect()
}

fn head(out: &mut Markup, diagram: &Diagram) {
    out.raw("<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">");
    out.raw("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">");
    out.raw("<meta name=\"color-scheme\" content=\"light dark\">");
    out.raw("<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; ");
    out.raw("style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:\">");
    out.raw("<link rel=\"icon\" href=\"data:,\">");
    let word = &diagram.verdict.word;
    let separator = if word.is_empty() { "" } else { " – " };
    out.element("title", &[], format_args!("{word}{separator}{}", diagram.title));
    out.raw("<style>");
    out.raw(STYLE);
    out.raw("</style></head><body>");
    out.line();
    // Patterns that all drawings share.
    out.raw("<svg width=\"0\" height=\"0\" class=\"patterns\" aria-hidden=\"true\"><defs>");
    out.raw("<pattern id=\"hatch\" width=\"6\" height=\"6\" patternUnits=\"userSpaceOnUse\" ");
    out.raw("patternTransform=\"rotate(45)\"><path d=\"M0 0V6\"/></pattern>");
    out.raw("<pattern id=\"dots\" width=\"6\" height=\"6\" patternUnits=\"userSpaceOnUse\">");
    out.raw("<circle cx=\"2\" cy=\"2\" r=\"1.2\"/></pattern></defs></svg>");
    out.line();
}

fn space_and_time(out: &mut Markup, diagram: &Diagram) {
    let Some((past, left_out)) = space::draw(diagram, View::Past, 'e') else { return };
    out.raw("<section class=\"times\" aria-labelledby=\"h-space\">");
    out.raw("<h2 id=\"h-space\">Space and time</h2>");
    let all = if drawn(diagram).is_superset(&diagram.ids()) {
        None
    } else {
        space::draw(diagram, View::All, 'a')
    };
    if all.is_some() {
        out.raw("<fieldset class=\"view\"><legend>Show</legend>");
        out.raw("<label><input type=\"radio\" name=\"view\" id=\"v-past\" checked> ");
        out.raw("causal past of the witness</label>");
        out.raw("<label><input type=\"radio\" name=\"view\" id=\"v-all\"> everything</label>");
        out.raw("</fieldset>");
    }
    legend(out, diagram);
    out.raw("<div class=\"scroll view-past\">");
    out.insert(past);
    note_left_out(out, left_out);
    out.raw("</div>");
    if let Some((all, left_out)) = all {
        out.raw("<div class=\"scroll view-all\">");
        out.insert(all);
        note_left_out(out, left_out);
        out.raw("</div>");
    }
    lists::events(out, diagram);
    out.raw("</section>");
    out.line();
}

fn note_left_out(out: &mut Markup, left_out: usize) {
    if left_out > 0 {
        let text =
            format!("{left_out} more messages and marks, further from the witness, are not drawn.");
        out.element("p", &[("class", &"hint")], text);
    }
}

/// What the signs mean, as far as they occur.
fn legend(out: &mut Markup, diagram: &Diagram) {
    let has = |kind: BandKind| diagram.bands.iter().any(|band| band.kind == kind);
    out.raw("<ul class=\"legend\" aria-label=\"Legend\">");
    out.raw("<li><b>◆</b> witness</li><li><i class=\"num\">1</i> sentence</li>");
    out.raw("<li>──▸ request</li><li>╌╌▸ answer</li><li>─✗ lost, or found nobody</li>");
    out.raw("<li>⋮ time left out</li>");
    if has(BandKind::Leads) {
        out.raw("<li><i class=\"key leads\"></i> leads a partition</li>");
    }
    if has(BandKind::Owns) {
        out.raw("<li><i class=\"key owns\"></i> owns a partition</li>");
    }
    if has(BandKind::Down) {
        out.raw("<li><i class=\"key down\"></i> down</li>");
    }
    if has(BandKind::Paused) {
        out.raw("<li><i class=\"key paused\"></i> paused</li>");
    }
    if has(BandKind::Cut) {
        out.raw("<li><i class=\"key cut\"></i> link cut</li>");
    }
    if diagram.lanes.iter().any(|lane| lane.kind == LaneKind::Process) {
        out.raw("<li>▸ call</li><li>✓ answer to the application</li>");
    }
    out.raw("</ul>");
}

fn partitions(out: &mut Markup, diagram: &Diagram) {
    if diagram.logs.is_empty() {
        return;
    }
    out.raw("<section aria-labelledby=\"h-logs\"><h2 id=\"h-logs\">Logs</h2>");
    out.line();
    logs::legend(out, diagram);
    for strip in &diagram.logs {
        out.element("h3", &[], &strip.partition);
        logs::table(out, diagram, strip);
        if let Some(chart) = chart::draw(diagram, strip) {
            out.raw("<div class=\"scroll\">");
            out.insert(chart);
            out.raw("</div>");
        }
    }
    out.raw("</section>");
    out.line();
}

fn bars(out: &mut Markup, diagram: &Diagram) {
    let Some(drawing) = gantt::bands(diagram) else { return };
    out.raw("<section aria-labelledby=\"h-bands\">");
    out.raw("<h2 id=\"h-bands\">Leadership, ownership, and faults</h2><div class=\"scroll\">");
    out.insert(drawing);
    out.raw("</div></section>");
    out.line();
}

fn transactions(out: &mut Markup, diagram: &Diagram) {
    let Some(drawing) = gantt::transactions(diagram) else { return };
    out.raw("<section aria-labelledby=\"h-transactions\">");
    out.raw("<h2 id=\"h-transactions\">Transactions</h2><div class=\"scroll\">");
    out.insert(drawing);
    out.raw("</div></section>");
    out.line();
}

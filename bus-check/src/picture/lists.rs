//! What is told in words: the verdict, the narrative, the events as a list, commits, and the plan.

use std::collections::BTreeSet;

use super::diagram::{Commit, Diagram, EventId, Step, nearest, seconds};
use super::markup::Markup;
use super::scene::is_fault;
use super::words::{described, told};

/// The verdict, with what the run was and how to run it again.
pub(super) fn header(out: &mut Markup, diagram: &Diagram) {
    let verdict = &diagram.verdict;
    let (class, sign) = if verdict.is_violation { ("bad", '✗') } else { ("good", '✓') };
    out.open("header", &[("class", &class)]);
    if !verdict.word.is_empty() {
        out.open("p", &[("class", &"verdict")]);
        out.element("span", &[("class", &"word")], format_args!("{sign} {}", verdict.word));
        out.text(" ");
        out.element("span", &[("class", &"guarantee")], &verdict.guarantee);
        out.close("p");
    }
    out.element("h1", &[], &diagram.title);
    if !verdict.sentence.is_empty() {
        out.element("p", &[("class", &"sentence")], &verdict.sentence);
    }
    if !verdict.reason.is_empty() {
        out.open("p", &[("class", &"reason")]);
        out.element("strong", &[], "Why");
        out.text(" ");
        out.text(&verdict.reason);
        out.close("p");
    }
    if !verdict.facts.is_empty() {
        out.raw("<dl class=\"facts\">");
        for (name, value) in &verdict.facts {
            out.raw("<div>");
            out.element("dt", &[], name);
            out.element("dd", &[], value);
            out.raw("</div>");
        }
        out.raw("</dl>");
    }
    if !verdict.replay.is_empty() {
        out.raw("<p class=\"replay\"><span>Run it again</span> ");
        out.element("code", &[], &verdict.replay);
        out.raw("</p>");
    }
    out.close("header");
    out.line();
}

/// The sentences, each with a link to what it is about.
pub(super) fn narrative(out: &mut Markup, diagram: &Diagram, drawn: &BTreeSet<EventId>) {
    if diagram.narrative.is_empty() {
        return;
    }
    out.raw("<section class=\"story\" aria-labelledby=\"h-story\">");
    out.raw("<h2 id=\"h-story\">What happened</h2><ol>");
    out.line();
    for sentence in &diagram.narrative {
        let witness = sentence.ids.iter().any(|id| diagram.witness.contains(id));
        out.open("li", &[("class", &if witness { "witness" } else { "" })]);
        let ids: Vec<String> = sentence.ids.iter().map(ToString::to_string).collect();
        match sentence.ids.iter().find(|id| drawn.contains(id)) {
            Some(id) => {
                let link = format!("#e{id}");
                out.element("a", &[("href", &link), ("data-i", &ids.join(" "))], &sentence.text);
            }
            None => out.text(&sentence.text),
        }
        if witness {
            out.raw(" <span class=\"tag\">◆ witness</span>");
        }
        out.close("li");
        out.line();
    }
    out.raw("</ol></section>");
    out.line();
}

/// The events of the causal past as a list: the diagram for those who do not see it.
pub(super) fn events(out: &mut Markup, diagram: &Diagram) {
    let past = diagram.past();
    let is_in = |ids: [Option<EventId>; 2]| ids.iter().flatten().any(|id| past.contains(id));
    let arrows = diagram.arrows.iter().filter(|arrow| is_in([Some(arrow.id), arrow.end]));
    let marks = diagram.marks.iter().filter(|mark| past.contains(&mark.id) || is_fault(mark));
    let mut lines: Vec<(u64, EventId, String)> =
        arrows.map(|arrow| (arrow.sent, arrow.id, described(diagram, arrow))).collect();
    lines.extend(marks.map(|mark| (mark.at, mark.id, told(diagram, mark))));
    lines.sort();
    if lines.is_empty() {
        return;
    }
    out.raw("<details class=\"list\"><summary>The same as a list</summary><ol>");
    out.line();
    for (_, id, line) in lines.iter().take(MOST_LINES) {
        out.open("li", &[]);
        if diagram.witness.contains(id) {
            out.raw("<strong>◆ witness</strong> ");
        }
        out.text(line);
        out.close("li");
        out.line();
    }
    out.raw("</ol>");
    if lines.len() > MOST_LINES {
        out.element("p", &[], format_args!("And {} more.", lines.len() - MOST_LINES));
    }
    out.raw("</details>");
}

/// The commits as a table.
pub(super) fn commits(out: &mut Markup, diagram: &Diagram) {
    if diagram.commits.is_empty() {
        return;
    }
    out.raw("<section aria-labelledby=\"h-commits\"><h2 id=\"h-commits\">Commits</h2>");
    out.raw("<div class=\"scroll\"><table><thead><tr>");
    for name in ["time", "group", "partition", "offset", "outcome"] {
        out.element("th", &[("scope", &"col")], name);
    }
    out.raw("</tr></thead><tbody>");
    out.line();
    let commits: Vec<&Commit> = diagram.commits.iter().collect();
    for commit in nearest(commits, MOST_COMMITS, |commit| commit.at, diagram.focus()) {
        row(out, commit);
    }
    out.raw("</tbody></table></div>");
    if let Some(more) = diagram.commits.len().checked_sub(MOST_COMMITS + 1) {
        let text = format!("{} more, further from the witness, are not listed.", more + 1);
        out.element("p", &[("class", &"hint")], text);
    }
    out.raw("</section>");
    out.line();
}

fn row(out: &mut Markup, commit: &Commit) {
    let Commit { id, at, group, partition, offset, refused } = commit;
    let (class, outcome) = match refused {
        None => ("", "✓ stored".to_owned()),
        Some(why) => ("refused", format!("✗ refused: {why}")),
    };
    out.open("tr", &[("class", &class), ("data-i", id)]);
    out.element("td", &[("class", &"number")], format_args!("{} s", seconds(*at)));
    out.element("td", &[], group);
    out.element("td", &[], partition);
    out.element("td", &[("class", &"number")], offset);
    out.element("td", &[], outcome);
    out.close("tr");
    out.line();
}

/// The plan: what was done to the run.
pub(super) fn plan(out: &mut Markup, diagram: &Diagram, drawn: &BTreeSet<EventId>) {
    if diagram.plan.is_empty() {
        return;
    }
    out.raw("<section aria-labelledby=\"h-plan\"><h2 id=\"h-plan\">Plan</h2>");
    out.raw("<p class=\"hint\">What was done to this run.</p><ol class=\"plan\">");
    out.line();
    for step in &diagram.plan {
        plan_step(out, step, drawn);
    }
    out.raw("</ol></section>");
    out.line();
}

fn plan_step(out: &mut Markup, step: &Step, drawn: &BTreeSet<EventId>) {
    let Step { at, text, is_needed, id } = step;
    out.raw("<li>");
    if let Some(at) = at {
        out.element("span", &[("class", &"number")], format_args!("{} s ", seconds(*at)));
    }
    match id.filter(|id| drawn.contains(id)) {
        Some(id) => {
            let link = format!("#e{id}");
            out.element("a", &[("href", &link), ("data-i", &id)], text);
        }
        None => out.text(text),
    }
    match is_needed {
        Some(true) => out.raw(" <span class=\"tag needed\">needed</span>"),
        Some(false) => out.raw(" <span class=\"tag\">any value works</span>"),
        None => {}
    }
    out.raw("</li>");
    out.line();
}

/// The most commits that are listed.
const MOST_COMMITS: usize = 40;
/// The most lines of a list.
const MOST_LINES: usize = 200;

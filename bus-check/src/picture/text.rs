//! The picture as text for a terminal: at most 60 lines.
//!
//! A column for each lane; a message is an arrow between two, on the line of the time at which it
//! was sent.

use super::diagram::{Arrow, BandKind, Diagram, Fate, LogChangeKind, Mark, seconds, span};
use super::logs::Logs;
use super::markup::{cut, is_invisible};
use super::scene::{Item, Scene, View, rows_below};

/// The most lines.
const LINES_MAX: usize = 60;
/// What the time takes.
const TIME: usize = 12;
/// The least and the most that a lane takes.
const COLUMN: (usize, usize) = (12, 34);

/// The picture as at most 60 lines, `width` columns wide if the lanes fit into that.
pub fn to_text(diagram: &Diagram, width: usize) -> String {
    let width = width.clamp(40, 400);
    let head = head(diagram, width);
    let foot = foot(diagram, width);
    let mut table = table(diagram, width);
    let room = LINES_MAX.saturating_sub(head.len() + foot.len());
    shorten(&mut table, room);
    let mut lines: Vec<String> = head;
    lines.extend(table.into_iter().map(|row| row.text));
    lines.extend(foot);
    lines.truncate(LINES_MAX);
    let lines: Vec<String> = lines.iter().map(|line| plain(line.trim_end())).collect();
    lines.join("\n") + "\n"
}

/// A line of the table.
struct Line {
    text: String,
    /// Whether it may be left out if there are too many.
    is_needed: bool,
}

fn head(diagram: &Diagram, width: usize) -> Vec<String> {
    let verdict = &diagram.verdict;
    let word = if verdict.is_violation { "FAIL" } else { "OK" };
    let facts: Vec<String> =
        verdict.facts.iter().map(|(name, value)| format!("{name} {value}")).collect();
    let mut lines = Vec::new();
    let what = [&verdict.word, " ", &verdict.guarantee, ": ", &diagram.title].concat();
    wrap(&mut lines, word, what.trim_start_matches([' ', ':']), width);
    if !verdict.sentence.is_empty() {
        wrap(&mut lines, "", &verdict.sentence, width);
    }
    if !verdict.reason.is_empty() {
        wrap(&mut lines, "WHY", &verdict.reason, width);
    }
    if !facts.is_empty() {
        wrap(&mut lines, "RUN", &facts.join(", "), width);
    }
    lines.truncate(12);
    lines.push(String::new());
    lines
}

/// Adds a text behind a word, in lines of this width.
fn wrap(lines: &mut Vec<String>, word: &str, text: &str, width: usize) {
    let mut line = format!("{word:<5}");
    let mut is_empty = true;
    for part in text.split_whitespace() {
        if !is_empty && line.chars().count() + 1 + part.chars().count() > width {
            lines.push(std::mem::replace(&mut line, " ".repeat(5)));
            is_empty = true;
        }
        if !is_empty {
            line.push(' ');
        }
        line.push_str(part);
        is_empty = false;
    }
    lines.push(line);
}

fn table(diagram: &Diagram, width: usize) -> Vec<Line> {
    let scene = Scene::new(diagram, View::Past, rows_below(0));
    let lanes = diagram.lanes.len().max(1);
    let column = (width.saturating_sub(TIME) / lanes).clamp(COLUMN.0, COLUMN.1);
    let mut names = Canvas::new(column, lanes);
    names.put_time("time");
    for (index, lane) in diagram.lanes.iter().enumerate() {
        names.put(index, &lane.name);
    }
    let mut lines = vec![Line { text: names.finish(), is_needed: true }];
    let mut before: Option<u64> = None;
    for row in &scene.rows {
        let mut canvas = Canvas::new(column, lanes);
        let is_needed = match row.item {
            Item::Sent(index) => {
                let arrow = &diagram.arrows[index];
                canvas.arrow(arrow);
                scene.witness.contains(&arrow.id)
                    || arrow.end.is_some_and(|end| scene.witness.contains(&end))
            }
            Item::Mark(index) => {
                let mark = &diagram.marks[index];
                canvas.mark(mark);
                scene.witness.contains(&mark.id) || super::scene::is_fault(mark)
            }
            Item::Band(index) => {
                let band = &diagram.bands[index];
                for lane in &band.lanes {
                    canvas.spill(*lane, &super::words::said(band));
                }
                band.kind == BandKind::Leads
            }
            Item::Arrived(_) => continue,
        };
        if let Some(passed) = before.map(|before| row.at.saturating_sub(before))
            && passed >= 1_000_000_000
        {
            lines.push(Line {
                text: format!("{:>10}", format!("⋮ {}", span(passed))),
                is_needed: false,
            });
        }
        before = Some(row.at);
        canvas.put_time(&seconds(row.at));
        let witness = is_needed && row_is_witness(&scene, row.item);
        let mut text = canvas.finish();
        if witness {
            text = format!("{}  ◆", text.trim_end());
        }
        lines.push(Line { text, is_needed });
    }
    lines
}

fn row_is_witness(scene: &Scene<'_>, item: Item) -> bool {
    match item {
        Item::Sent(index) => {
            let arrow = &scene.diagram.arrows[index];
            scene.witness.contains(&arrow.id)
                || arrow.end.is_some_and(|end| scene.witness.contains(&end))
        }
        Item::Mark(index) => scene.witness.contains(&scene.diagram.marks[index].id),
        Item::Band(_) | Item::Arrived(_) => false,
    }
}

/// Leaves out lines until the rest fits, those in the middle of what is not needed first.
fn shorten(lines: &mut Vec<Line>, room: usize) {
    while lines.len() > room {
        let optional: Vec<usize> =
            (0..lines.len()).filter(|index| !lines[*index].is_needed).collect();
        let too_many = lines.len() + 1 - room;
        if optional.is_empty() {
            lines.truncate(room.saturating_sub(1));
            lines.push(Line { text: "…".to_owned(), is_needed: true });
            return;
        }
        // The newest tell the most, so the oldest go.
        let gone = &optional[..too_many.min(optional.len())];
        let first = gone[0];
        let mut index = 0;
        lines.retain(|_| {
            index += 1;
            !gone.contains(&(index - 1))
        });
        let text = format!("{:>10} {} lines left out", "…", gone.len());
        lines.insert(first, Line { text, is_needed: true });
    }
}

/// The logs in the end, and how to run it again.
fn foot(diagram: &Diagram, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for strip in diagram.logs.iter().take(3) {
        let logs = Logs::of(strip);
        let window = logs.window();
        let high = logs.high_watermark.map_or(String::new(), |o| format!(", high watermark {o}"));
        if window.is_empty() {
            continue;
        }
        let (from, to) = (window.start, window.end - 1);
        lines.push(format!("log {}, offsets {from} to {to}{high}", strip.partition));
        for (lane, cells) in logs.replicas.iter().take(5) {
            let cells = window.clone().filter_map(|offset| cells.get(&offset)).map(|cell| {
                let gone = cell.gone.iter().map(|value| format!("✗{}", cut(value, 10)));
                gone.chain(cell.text()).collect::<Vec<_>>().join("→")
            });
            let cells: Vec<String> = cells.collect();
            let line = format!("  {:<12} {}", diagram.lane(*lane), cells.join(" "));
            lines.push(cut(&line, width));
        }
    }
    let kinds = || diagram.logs.iter().flat_map(|strip| &strip.changes).map(|change| &change.kind);
    if kinds().any(|kind| matches!(kind, LogChangeKind::Marker { .. })) {
        let signs = "~x~ aborted, [commit] [abort] ends of transactions, ✗x gone, ∅ null";
        lines.push(cut(signs, width));
    }
    if !diagram.verdict.replay.is_empty() {
        lines.push(cut(&format!("replay: {}", diagram.verdict.replay), width.max(120)));
    }
    lines
}

/// Without what a terminal would take for a command.
fn plain(line: &str) -> String {
    line.chars().map(|c| if is_invisible(c) { '\u{fffd}' } else { c }).collect()
}

/// A line of characters with a column for each lane.
struct Canvas {
    cells: Vec<char>,
    column: usize,
}

impl Canvas {
    fn new(column: usize, lanes: usize) -> Self {
        let mut cells = vec![' '; TIME + column * lanes];
        for lane in 0..lanes {
            cells[TIME + column * lane] = '│';
        }
        Self { cells, column }
    }

    fn put_time(&mut self, time: &str) {
        self.write(0, &format!("{time:>10}"), TIME - 1);
    }

    /// Writes into the column of a lane.
    fn put(&mut self, lane: usize, text: &str) {
        let room = self.column - 1;
        self.write(TIME + self.column * lane, text, room);
    }

    /// Writes from the column of a lane on, over the next ones if it is long: they are empty.
    fn spill(&mut self, lane: usize, text: &str) {
        let last = self.cells.len().saturating_sub(text.chars().count() + 1);
        let at = (TIME + self.column * lane).min(last.max(TIME));
        let room = self.cells.len() - at - 1;
        self.write(at, text, room);
    }

    fn write(&mut self, at: usize, text: &str, room: usize) {
        for (cell, c) in self.cells.iter_mut().skip(at).zip(cut(text, room).chars()) {
            *cell = c;
        }
    }

    fn mark(&mut self, mark: &Mark) {
        let text = format!("{} {}", mark.kind.sign(), mark.label);
        match mark.lane {
            Some(lane) => self.spill(lane, &text),
            None => {
                self.cells[TIME..].fill('░');
                let room = self.cells.len() - TIME - 2;
                self.write(TIME + 1, &format!(" {text} "), room);
            }
        }
    }

    /// A line between two lanes with the label at its beginning and the tip at its end.
    fn arrow(&mut self, arrow: &Arrow) {
        let (from, to) = (TIME + self.column * arrow.from, TIME + self.column * arrow.to);
        let stroke = if arrow.is_reply { '╌' } else { '─' };
        let is_right = to > from;
        let (left, right) = (from.min(to), from.max(to));
        if left == right {
            self.put(arrow.from, &format!("↻ {}", arrow.label));
            return;
        }
        self.cells[left + 1..right].fill(stroke);
        let tip = match (arrow.fate, is_right) {
            (Fate::Arrived | Fate::Late | Fate::UnderWay, true) => '▶',
            (Fate::Arrived | Fate::Late | Fate::UnderWay, false) => '◀',
            (Fate::Lost | Fate::Discarded, _) => '✗',
            (Fate::Held, _) => '‖',
        };
        let tip_at = if is_right { right - 1 } else { left + 1 };
        self.cells[tip_at] = tip;
        self.cells[from] = '●';
        let detail = if arrow.detail.is_empty() { "" } else { " " };
        let fate = arrow.fate.name();
        let fate = if fate.is_empty() { String::new() } else { format!(" ({fate})") };
        let label = format!(" {}{fate}{detail}{} ", arrow.label, arrow.detail);
        let room = (right - left).saturating_sub(5);
        let label = cut(&label, room);
        let at = if is_right { left + 2 } else { right - 1 - label.chars().count() };
        self.write(at, &label, room);
    }

    fn finish(self) -> String {
        self.cells.into_iter().collect()
    }
}

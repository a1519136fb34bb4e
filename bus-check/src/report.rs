//! The report: what the checkers say of a history, in at most 60 lines of text.
//!
//! What is broken comes first, one finding per guarantee with its evidence, then what is left open,
//! what is explained, what held, and what was never put to the test.

use std::fmt;

use crate::history::text::seconds;
use crate::history::{EntryId, History};
use crate::verdict::{Explanation, Finding, Judgment, Outcome, Verdict};

/// The most lines that a report has.
pub const LINES_MAX: usize = 60;

/// The width of a report.
const WIDTH: usize = 100;

/// A report; its `Display` is the text.
#[derive(Clone, Copy, Debug)]
pub struct Report<'a> {
    history: &'a History,
    judgment: &'a Judgment,
}

impl<'a> Report<'a> {
    /// The report of a judgment.
    pub const fn new(history: &'a History, judgment: &'a Judgment) -> Self {
        Self { history, judgment }
    }

    fn lines(&self) -> Vec<String> {
        let mut lines = self.head();
        let foot = self.foot();
        let shown = self.first_of_each();
        for (index, finding) in shown.iter().enumerate() {
            let block = self.block(finding);
            let rest = shown.len() - index;
            // A line is kept for how many did not fit.
            if lines.len() + block.len() + foot.len() + 1 > LINES_MAX {
                lines.push(String::new());
                lines.push(format!("and {rest} more broken guarantees"));
                break;
            }
            lines.extend(block);
        }
        lines.extend(foot);
        lines.truncate(LINES_MAX);
        lines
    }

    fn head(&self) -> Vec<String> {
        let Judgment { outcomes, .. } = self.judgment;
        let broken = self.judgment.broken().len();
        let tried = outcomes.iter().filter(|outcome| outcome.examined > 0).count();
        let verdict = if self.judgment.holds() {
            format!("held       {tried} of {} guarantees were put to the test", outcomes.len())
        } else {
            format!("violated   {broken} of {tried} guarantees that were put to the test")
        };
        let last = self.history.entries().last().map_or(0, |last| last.at);
        let history = format!(
            "history    {} operations of {} clients in {} s",
            self.history.operations(),
            self.history.clients().len(),
            seconds(last)
        );
        vec![verdict, history]
    }

    /// The first finding of each guarantee that is broken.
    fn first_of_each(&self) -> Vec<&'a Finding> {
        let broken = self.judgment.broken();
        broken
            .iter()
            .filter_map(|guarantee| {
                let mut findings = self.judgment.of(*guarantee);
                findings.find(|finding| finding.verdict.is_violation())
            })
            .collect()
    }

    fn block(&self, finding: &Finding) -> Vec<String> {
        let Finding { guarantee, verdict, anomaly, explanation } = finding;
        let outcome = self.judgment.outcomes.iter().find(|other| other.guarantee == *guarantee);
        let count = outcome.map_or(1, |outcome| outcome.anomalies);
        let times = if count > 1 { format!(", {count} times") } else { String::new() };
        let mut lines = vec![String::new(), format!("{guarantee}{times}: {}", verdict.name())];
        wrap(
            &mut lines,
            &format!("promised: {} If: {}.", guarantee.sentence(), condition(finding)),
        );
        wrap(&mut lines, &anomaly.sentence);
        for entry in &anomaly.witness {
            lines.push(cut(&format!("  {:>6} {}", entry.to_string(), self.history.line(*entry))));
        }
        if let Some(explanation) = explanation {
            wrap(&mut lines, &self.because(explanation));
        }
        lines
    }

    fn because(&self, explanation: &Explanation) -> String {
        match explanation {
            Explanation::Entry(entry) => format!("because of {}", self.entry(*entry)),
            Explanation::Event(cause) => {
                format!("because (event {}): {}", cause.event, cause.sentence)
            }
        }
    }

    fn entry(&self, entry: EntryId) -> String {
        let line = self.history.line(entry).to_string();
        let words: Vec<_> = line.split_whitespace().collect();
        format!("{entry}: {}", words.join(" "))
    }

    fn foot(&self) -> Vec<String> {
        let of = |verdict: Verdict| {
            let outcomes = self.judgment.outcomes.iter();
            outcomes.filter(move |outcome| outcome.verdict == Some(verdict))
        };
        let counted = |outcome: &Outcome| {
            format!(
                "{} {} ({})",
                outcome.guarantee.id(),
                outcome.guarantee.name(),
                outcome.anomalies
            )
        };
        let id = |outcome: &Outcome| outcome.guarantee.id().to_owned();
        let clean = |is_tried: bool| {
            let outcomes = self.judgment.outcomes.iter();
            outcomes
                .filter(move |outcome| {
                    outcome.verdict.is_none() && (outcome.examined > 0) == is_tried
                })
                .map(id)
                .collect::<Vec<_>>()
        };
        let mut lines = vec![String::new()];
        let undecided: Vec<_> = of(Verdict::Undecided).map(counted).collect();
        let explained: Vec<_> = of(Verdict::Explained).map(counted).collect();
        for (title, list, between) in [
            ("undecided", undecided, ", "),
            ("explained", explained, ", "),
            ("held", clean(true), " "),
            ("not tried", clean(false), " "),
        ] {
            if !list.is_empty() {
                listed(&mut lines, title, &list, between);
            }
        }
        lines
    }
}

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.lines().iter().try_for_each(|line| writeln!(f, "{line}"))
    }
}

fn condition(finding: &Finding) -> &'static str {
    finding.guarantee.condition()
}

/// Adds a text, indented, in lines of the report's width.
fn wrap(lines: &mut Vec<String>, text: &str) {
    let mut line = String::from(" ");
    for word in text.split(' ') {
        if line.chars().count() + 1 + word.chars().count() > WIDTH {
            lines.push(std::mem::replace(&mut line, String::from("   ")));
        }
        line.push(' ');
        line.push_str(word);
    }
    lines.push(line);
}

/// Adds a list under a title, in lines of the report's width.
fn listed(lines: &mut Vec<String>, title: &str, list: &[String], between: &str) {
    const INDENT: usize = 11;
    let mut line = format!("{title:INDENT$}");
    for (index, item) in list.iter().enumerate() {
        let is_last = index + 1 == list.len();
        if line.chars().count() + item.chars().count() > WIDTH && line.trim() != title {
            let full = std::mem::replace(&mut line, " ".repeat(INDENT));
            lines.push(full.trim_end().to_owned());
        }
        line.push_str(item);
        if !is_last {
            line.push_str(between);
        }
    }
    lines.push(line);
}

/// A line of at most the report's width.
fn cut(line: &str) -> String {
    if line.chars().count() <= WIDTH {
        return line.to_owned();
    }
    let short: String = line.chars().take(WIDTH - 1).collect();
    short + "…"
}

#[cfg(test)]
mod tests {
    use bus_core::IsolationLevel;

    use super::*;
    use crate::environment::Environment;
    use crate::story::Story;
    use crate::verdict::judge;

    #[test]
    fn a_violation_is_told_with_its_evidence() {
        let mut story = Story::new();
        let producer = story.producer();
        story.sent(producer, "a");
        let send = story.send(producer, "b");
        story.deliver(producer, send, 1);
        story.audit(IsolationLevel::ReadUncommitted, &[0], 1);
        let history = story.history();
        let judgment = judge(&history, &Environment::safe());
        let text = Report::new(&history, &judgment).to_string();
        let expected = "\
violated   2 of 21 guarantees that were put to the test
history    6 operations of 3 clients in 0.016000 s

B2 lost write, finally: forbidden
  promised: When all is over, every delivered record is in the log. If: SAFE, acks all.
  Record #2 of p2 producer c1 was acknowledged at t-0@1 and is not in the log, which goes from 0 to
    1.
      e6     0.007000 s  p2 producer c1           #2 send to t-0 [";
        assert!(text.starts_with(expected), "{text}");
        assert!(text.lines().count() <= LINES_MAX, "{text}");
    }

    #[test]
    fn a_report_has_at_most_60_lines_of_100_columns() {
        let mut story = Story::new();
        let producer = story.producer();
        let reader = story.reader(bus_core::StartAt::Beginning);
        for n in 0..50 {
            story.append("never sent");
            story.sent(producer, &format!("value {n}"));
            story.poll(reader, &[2 * n + 1, 2 * n, 2 * n, 2 * n + 1]);
            story.commit(reader, 7);
            story.committed(reader, Some(9));
            story.watermarks(reader, 0, 1);
        }
        story.audit(IsolationLevel::ReadUncommitted, &[3, 4], 5);
        let history = story.history();
        let judgment = judge(&history, &Environment::safe());
        assert!(judgment.broken().len() > 6, "{:?}", judgment.broken());
        let text = Report::new(&history, &judgment).to_string();
        assert!(text.lines().count() <= LINES_MAX, "{}", text.lines().count());
        assert!(text.lines().all(|line| line.chars().count() <= WIDTH), "{text}");
        assert!(text.contains("more broken guarantees"), "{text}");
    }
}

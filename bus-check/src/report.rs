//! The report: what the checkers say of a history, in at most 60 lines of text.
//!
//! What is broken comes first, one finding per guarantee with its evidence, then what is left open,
//! what is explained, what held, and what was never put to the test.

use std::fmt;
use std::time::Duration;

use crate::cluster::Cluster;
use crate::guarantee::Guarantee;
use crate::history::text::seconds;
use crate::history::{EntryId, History};
use crate::verdict::{Explanation, Finding, Outcome, Verdict};

/// The most lines that a report has.
pub const LINES_MAX: usize = 60;

/// The width of a report.
const WIDTH: usize = 100;

/// What the checkers say of a history. Its `Display` is the text for people: at most
/// [`LINES_MAX`] lines of 100 columns, the worst first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    outcomes: Vec<Outcome>,
    findings: Vec<Finding>,
    operations: usize,
    clients: usize,
    /// Nanoseconds.
    last: u64,
    /// The evidence of the first violation of each guarantee, as lines.
    evidence: Vec<(Guarantee, Vec<String>)>,
}

impl Report {
    pub(crate) fn new(
        history: &History,
        outcomes: Vec<Outcome>,
        findings: Vec<Finding>,
        cluster: Option<&Cluster>,
    ) -> Self {
        let (operations, clients) = (history.operations(), history.clients().len());
        let last = history.entries().last().map_or(0, |last| last.at);
        let evidence = Vec::new();
        let mut report = Self { outcomes, findings, operations, clients, last, evidence };
        let shown = report.first_of_each();
        let lines =
            |finding: &&Finding| (finding.guarantee, evidence_of(finding, history, cluster));
        report.evidence = shown.iter().map(lines).collect();
        report
    }

    /// What is wrong: what is forbidden, and what is permitted and has no cause; the worst first.
    pub fn violations(&self) -> impl Iterator<Item = &Finding> {
        self.findings.iter().filter(|finding| finding.verdict.is_violation())
    }

    /// The guarantees that are broken, in order.
    pub fn broken(&self) -> Vec<Guarantee> {
        let broken = |outcome: &&Outcome| outcome.verdict.is_some_and(Verdict::is_violation);
        self.outcomes.iter().filter(broken).map(|outcome| outcome.guarantee).collect()
    }

    /// Whether no guarantee is broken.
    pub fn holds(&self) -> bool {
        self.violations().next().is_none()
    }

    /// The guarantees that were put to the test and held without any anomaly, in order.
    pub fn held(&self) -> impl Iterator<Item = Guarantee> {
        let held = |outcome: &&Outcome| outcome.verdict.is_none() && outcome.examined > 0;
        self.outcomes.iter().filter(held).map(|outcome| outcome.guarantee)
    }

    /// The guarantees that were never put to the test, in order: nothing is said of them.
    pub fn untried(&self) -> impl Iterator<Item = Guarantee> {
        let untried = |outcome: &&Outcome| outcome.verdict.is_none() && outcome.examined == 0;
        self.outcomes.iter().filter(untried).map(|outcome| outcome.guarantee)
    }

    /// How each guarantee fared, in order.
    pub fn outcomes(&self) -> &[Outcome] {
        &self.outcomes
    }

    /// All anomalies with their verdicts, the worst first.
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// The findings about a guarantee.
    pub fn of(&self, guarantee: Guarantee) -> impl Iterator<Item = &Finding> {
        self.findings.iter().filter(move |finding| finding.guarantee == guarantee)
    }

    /// How long the run took, in its own time.
    pub const fn duration(&self) -> Duration {
        Duration::from_nanos(self.last)
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
        let (all, tried) = (self.outcomes.len(), self.outcomes.len() - self.untried().count());
        let verdict = match self.broken().len() {
            0 => format!("held       {tried} of {all} guarantees were put to the test"),
            broken => {
                format!("violated   {broken} of {tried} guarantees that were put to the test")
            }
        };
        let (operations, clients) = (self.operations, self.clients);
        let took = seconds(self.last);
        vec![
            verdict,
            format!("history    {operations} operations of {clients} clients in {took} s"),
        ]
    }

    /// The first finding of each guarantee that is broken.
    fn first_of_each(&self) -> Vec<&Finding> {
        let first = |guarantee| self.of(guarantee).find(|finding| finding.verdict.is_violation());
        self.broken().into_iter().filter_map(first).collect()
    }

    fn block(&self, finding: &Finding) -> Vec<String> {
        let Finding { guarantee, verdict, anomaly, .. } = finding;
        let outcome = self.outcomes.iter().find(|other| other.guarantee == *guarantee);
        let count = outcome.map_or(1, |outcome| outcome.anomalies);
        let times = if count > 1 { format!(", {count} times") } else { String::new() };
        let mut lines = vec![String::new(), format!("{guarantee}{times}: {}", verdict.name())];
        let (promised, condition) = (guarantee.sentence(), guarantee.condition());
        wrap(&mut lines, &format!("promised: {promised} If: {condition}."));
        wrap(&mut lines, &anomaly.sentence);
        let evidence = self.evidence.iter().find(|(other, _)| other == guarantee);
        lines.extend(evidence.into_iter().flat_map(|(_, lines)| lines.iter().cloned()));
        lines
    }

    fn foot(&self) -> Vec<String> {
        let of = |verdict: Verdict| {
            let outcomes = self.outcomes.iter();
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
        let id = |guarantee: Guarantee| guarantee.id().to_owned();
        let mut lines = vec![String::new()];
        let undecided: Vec<_> = of(Verdict::Undecided).map(counted).collect();
        let explained: Vec<_> = of(Verdict::Explained).map(counted).collect();
        for (title, list, between) in [
            ("undecided", undecided, ", "),
            ("explained", explained, ", "),
            ("held", self.held().map(id).collect(), " "),
            ("not tried", self.untried().map(id).collect(), " "),
        ] {
            if !list.is_empty() {
                listed(&mut lines, title, &list, between);
            }
        }
        lines
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.lines().iter().try_for_each(|line| writeln!(f, "{line}"))
    }
}

/// The evidence of a finding, by time, and what explains it.
fn evidence_of(finding: &Finding, history: &History, cluster: Option<&Cluster>) -> Vec<String> {
    let mut told: Vec<(u64, String)> = Vec::new();
    for entry in finding.witness() {
        let line = cut(&format!("  {:>6} {}", entry.to_string(), history.line(*entry)));
        told.push((history.entry(*entry).at, line));
    }
    let events = finding.events().iter().filter_map(|number| cluster?.event(*number));
    for event in events {
        let sentence = cluster.map(|cluster| cluster.sentence(event)).unwrap_or_default();
        let line = format!("  {:>6} {:>12} s  cluster", event.number, seconds(event.at));
        told.push((event.at, cut(&format!("{line:<49}{sentence}"))));
    }
    told.sort_by_key(|(at, _)| *at);
    let mut lines: Vec<_> = told.into_iter().map(|(_, line)| line).collect();
    match &finding.explanation {
        Some(Explanation::Entry(entry)) => {
            wrap(&mut lines, &format!("because of {}", entry_of(history, *entry)));
        }
        Some(Explanation::Event(cause)) => {
            wrap(&mut lines, &format!("because (event {}): {}", cause.event, cause.sentence));
        }
        None => {}
    }
    lines
}

fn entry_of(history: &History, entry: EntryId) -> String {
    let line = history.line(entry).to_string();
    let words: Vec<_> = line.split_whitespace().collect();
    format!("{entry}: {}", words.join(" "))
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
    use crate::environment::{CommitMode, Environment};
    use crate::story::Story;
    use crate::truth::NoTruth;
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
        let text = judge(&history, &Environment::safe(), &NoTruth).to_string();
        let expected = "\
violated   1 of 21 guarantees that were put to the test
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
        let claimed = Environment { commits: CommitMode::AfterHandling, ..Environment::safe() };
        let report = judge(&history, &claimed, &NoTruth);
        assert!(report.broken().len() > 6, "{:?}", report.broken());
        let text = report.to_string();
        assert!(text.lines().count() <= LINES_MAX, "{}", text.lines().count());
        assert!(text.lines().all(|line| line.chars().count() <= WIDTH), "{text}");
        assert!(text.contains("more broken guarantees"), "{text}");
    }
}

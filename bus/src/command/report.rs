//! What a run prints: for people, and for programs.

use std::fmt::Write as _;
use std::time::Duration;

use bus::{Error, RunReport};
use bus_check::verdict::Finding;
use scenarios::{Application, Form, GroupReport, PartitionReport, Report};
use serde::Serialize;

use super::Failure;
use super::run::verdict;

/// All that is known of a run.
pub(crate) struct Printed {
    pub(crate) application: &'static Application,
    pub(crate) form: Form,
    /// What the application says, or that the simulation stalled.
    pub(crate) outcome: Result<Report, Error>,
    pub(crate) report: RunReport,
    /// What the guarantees say of its history, if it was recorded.
    pub(crate) checked: Option<bus_check::Report>,
}

/// Writes one JSON object.
pub(crate) fn to_json(printed: &Printed) -> Result<String, Failure> {
    let Printed { application, form, outcome, report, checked } = printed;
    let found = outcome.as_ref().ok();
    let stalled = outcome.as_ref().err().map(|error| vec![error.to_string()]);
    let said = |report: &Report| report.explanations().map(str::to_owned).collect();
    let explanations = found.map(said).or(stalled);
    let object = Object {
        app: application.name,
        form: application.form_name(*form),
        bus: &report.bus,
        seed: report.seed,
        verdict: verdict(outcome).name(),
        explanations: explanations.unwrap_or_default(),
        records: found.map(|report| report.records),
        virtual_ms: report.virtual_time.as_millis(),
        wall_ms: report.wall_time.as_millis(),
        trace_hash: report.trace_hash.as_deref(),
        partitions: found.map_or(&[], |report| &report.partitions),
        groups: found.map_or(&[], |report| &report.groups),
        broken: checked.as_ref().map(|checked| {
            let sentence = |finding: &Finding| format!("{} {}", finding.id(), finding.sentence());
            checked.violations().map(sentence).collect()
        }),
    };
    serde_json::to_string(&object).map_err(|error| Failure::output(error.into()))
}

#[derive(Serialize)]
struct Object<'a> {
    app: &'a str,
    form: &'a str,
    bus: &'a str,
    seed: Option<u64>,
    verdict: &'a str,
    explanations: Vec<String>,
    /// Null when the simulation stalled, and nobody could count.
    records: Option<u64>,
    virtual_ms: u128,
    wall_ms: u128,
    trace_hash: Option<&'a str>,
    partitions: &'a [PartitionReport],
    groups: &'a [GroupReport],
    /// Findings of `--check`.
    #[serde(skip_serializing_if = "Option::is_none")]
    broken: Option<Vec<String>>,
}

/// Writes what a person would like to read.
pub(crate) fn to_text(printed: &Printed) -> String {
    let Printed { application, form, outcome, report, checked } = printed;
    let mut text =
        format!("{}, {}: {}\n", application.name, application.form_name(*form), application.title);
    let _ = writeln!(text, "on {}\n", report.bus);
    let _ = writeln!(text, "{}", verdict(outcome));
    match outcome {
        Ok(found) => {
            for explanation in found.explanations() {
                let _ = writeln!(text, "  {explanation}");
            }
            add_tables(&mut text, found);
        }
        Err(stalled) => {
            let _ = writeln!(text, "  {stalled}");
        }
    }
    let wall = seconds(report.wall_time);
    match (report.seed, &report.trace_hash) {
        (Some(seed), Some(hash)) => {
            let virtual_time = seconds(report.virtual_time);
            let _ = write!(text, "\n{virtual_time} of virtual time in {wall}");
            let _ = write!(text, "\nseed {seed}, trace {hash}: the same seed gives the same trace");
        }
        _ => {
            let _ = write!(text, "\n{wall}");
        }
    }
    if let Some(checked) = checked {
        let _ = write!(text, "\n\n{checked}");
    }
    text
}

fn add_tables(text: &mut String, found: &Report) {
    let _ = writeln!(text, "\n{} records", found.records);
    let width = found.partitions.iter().map(|p| p.topic.as_str().len()).max().unwrap_or(0).max(5);
    let _ = writeln!(text, "  {:width$}  partition  leader  records", "topic");
    for PartitionReport { topic, partition, leader, records, .. } in &found.partitions {
        let leader = leader.map_or_else(|| "none".to_owned(), |leader| leader.to_string());
        let topic = topic.as_str();
        let _ = writeln!(text, "  {topic:width$}  {partition:>9}  {leader:>6}  {records:>7}");
    }
    for GroupReport { group_id, state, members, lag } in &found.groups {
        let _ = writeln!(text, "\ngroup {group_id}: {state}, lag {lag}");
        let width = members.iter().map(|member| member.client_id.len()).max().unwrap_or(0);
        for member in members {
            let assignment = match member.assignment.as_slice() {
                [] => "idle".to_owned(),
                partitions => partitions.join(", "),
            };
            let _ = writeln!(text, "  {:width$}  {assignment}", member.client_id);
        }
    }
}

fn seconds(time: Duration) -> String {
    if time < Duration::from_secs(1) {
        format!("{:.1} ms", time.as_secs_f64() * 1_000.0)
    } else {
        format!("{:.1} s", time.as_secs_f64())
    }
}

//! The tables of `docs/semantics.md`: guarantees with the planted bugs that they catch, the cases
//! of the conformance suite that catch those, and where Kafka says what is promised.

mod kafka;

use bus_check::Guarantee;
use bus_check::guarantee::{NOT_DECIDED, NotDecided};
use bus_sim::Mutation;

pub(crate) use kafka::VERSIONS;

/// A planted bug, the guarantee that catches it, and with the how manieth seed.
pub(crate) type Row = (Mutation, Guarantee, u64);

/// Guarantees that nothing breaks which can be planted in the simulator, with the reason.
const UNBROKEN: &[(Guarantee, &str)] = &[];

/// All tables.
pub(crate) fn all(rows: &[Row], unseen: &[(Mutation, &str)]) -> String {
    let mut lines = guarantees(rows);
    lines.push("\nNot decided:\n\n| Id | Name | Because |\n|---|---|---|".to_owned());
    let not_decided = |other: &NotDecided| {
        let NotDecided { id, name, reason } = other;
        format!("| {id} | {name} | {reason} |")
    };
    lines.extend(NOT_DECIDED.iter().map(not_decided));
    lines
        .push("\nPlanted bugs that no guarantee sees here:\n\n| Bug | Because |\n|---|---|".into());
    lines.extend(unseen.iter().map(|(bug, reason)| format!("| `{}` | {reason} |", bug.name())));
    lines.join("\n") + "\n"
}

fn guarantees(rows: &[Row]) -> Vec<String> {
    let columns = [
        "Id",
        "Name",
        "Promised",
        "If",
        "Judged by",
        "Planted bugs",
        "Seeds to find",
        "Conformance case",
        "In Kafka",
    ];
    let mut lines =
        vec![format!("| {} |", columns.join(" | ")), "|---".repeat(columns.len()) + "|"];
    lines.extend(Guarantee::all().map(|guarantee| {
        let own = || rows.iter().filter(|(_, catcher, _)| *catcher == guarantee);
        let list = |cell: fn(&Row) -> String| own().map(cell).collect::<Vec<_>>().join(", ");
        let bugs = match UNBROKEN.iter().find(|(unbroken, _)| *unbroken == guarantee) {
            Some((_, reason)) if own().next().is_none() => format!("none: {reason}"),
            _ => list(|(bug, ..)| format!("`{}`", bug.name())),
        };
        let cells = [
            guarantee.id().to_owned(),
            format!("`{}`", guarantee.slug()),
            guarantee.sentence().to_owned(),
            guarantee.condition().to_owned(),
            guarantee.view().name().to_owned(),
            bugs,
            list(|(_, _, seeds)| seeds.to_string()),
            list(|(bug, ..)| cases(*bug)),
            kafka::source(guarantee),
        ];
        let cells = cells.map(|cell| if cell.is_empty() { "-".to_owned() } else { cell });
        format!("| {} |", cells.join(" | "))
    }));
    lines
}

/// What of the conformance suite catches a planted bug, by the table in its own test.
fn cases(bug: Mutation) -> String {
    let table = include_str!("../../../tests/tests/mutants.rs");
    let name = format!("Mutation::{bug:?},");
    let place = table.find(&name).and_then(|at| table[at..].split('"').nth(1));
    match place {
        None | Some("bus-check/tests/mutants.rs") => "-".to_owned(),
        // A test of the simulator.
        Some(path) if path.ends_with(".rs") => {
            format!("`{}`", path.rsplit('/').next().unwrap_or(path))
        }
        Some(case) => format!("`{case}`"),
    }
}

#[test]
fn every_guarantee_has_a_planted_bug_or_a_reason() {
    let caught = |guarantee: &Guarantee| {
        crate::CATCHERS.iter().any(|(_, catcher, _)| catcher == guarantee)
            || UNBROKEN.iter().any(|(unbroken, _)| unbroken == guarantee)
    };
    let missing: Vec<_> = Guarantee::all().filter(|guarantee| !caught(guarantee)).collect();
    assert!(missing.is_empty(), "no bug is planted that {missing:?} catch");
}

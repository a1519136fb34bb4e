//! Sometimes: each kind of fault changes an outcome. If it is taken out of a plan and all else
//! stays as it is, something that clients see, or when, comes out otherwise.

use std::collections::{BTreeMap, BTreeSet};

use bus_sim::SimConfig;
use bus_sim::fault::FaultKind;

use crate::{Weather, drawn, storm};

/// Within how many seeds each kind must have done so.
const WITHIN: u64 = 150;

/// What was seen of a kind.
#[derive(Debug, Default)]
struct Row {
    struck: u32,
    changed: u32,
    /// The first seed in which it changed an outcome.
    shown_by: Option<u64>,
}

#[test]
fn each_kind_of_fault_changes_an_outcome() {
    let mut rows: BTreeMap<FaultKind, Row> =
        FaultKind::ALL.iter().map(|kind| (*kind, Row::default())).collect();
    let mut seeds = 0;
    for seed in 0..WITHIN {
        if rows.values().all(|row| row.shown_by.is_some()) {
            break;
        }
        seeds += 1;
        look_at(seed, &mut rows);
    }
    println!("{seeds} seeds    struck  changed  an outcome in seed");
    for (kind, Row { struck, changed, shown_by }) in &rows {
        let shown_by = shown_by.map_or("none".to_owned(), |seed| seed.to_string());
        println!("{:<18} {struck:>4} {changed:>8}  {shown_by}", kind.name());
    }
    let missing: Vec<_> = rows
        .iter()
        .filter(|(_, row)| row.shown_by.is_none())
        .map(|(kind, _)| kind.name())
        .collect();
    assert!(missing.is_empty(), "no outcome is changed by {}", missing.join(", "));
}

/// Runs a seed, and again without each fault that may show something new.
fn look_at(seed: u64, rows: &mut BTreeMap<FaultKind, Row>) {
    let config = drawn(seed, Weather::Worst);
    let whole = storm(config.clone());
    for (planned, report) in config.plan.faults.iter().zip(&whole.faults) {
        let row = rows.entry(planned.fault.kind()).or_default();
        row.struck += u32::from(report.struck.is_some());
        row.changed += u32::from(report.has_changed());
        if report.has_changed() && row.shown_by.is_none() {
            let plan = config.plan.without(&BTreeSet::from([planned.id]));
            let without = storm(SimConfig { plan, ..config.clone() });
            if without.verdict.outcome != whole.verdict.outcome {
                row.shown_by = Some(seed);
            }
        }
    }
}

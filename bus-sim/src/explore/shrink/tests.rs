//! Each pass of the shrinker by itself, on runs that are made up.

use std::time::Duration;

use super::*;
use crate::choice::{ChoiceKey, ChoiceReport, Chosen, Label};
use crate::fault::{Fault, FaultReport, Plan, Struck, Target, Trigger};
use crate::time::SimTime;
use crate::world::TraceHash;

/// A shrinker of a case that fails if `fails` says so, in a world of three brokers.
fn shrinker<'a>(run: Run<'a>, wanted: &'a Violation, best: Case) -> Shrinker<'a, fn(u32)> {
    let size = |name: &str, most| Size { name: name.to_owned(), least: 1, most, was: most };
    let sizes = vec![size("orders", 20), size("processes", 3)];
    let before = Before { faults: 0, choices: 0, sizes, brokers: 3 };
    let choices_first = false;
    Shrinker { run, wanted, before, best, choices_first, runs: 0, budget: 1_000, told: |_| {} }
}

fn wanted() -> Violation {
    Violation::new("needed", "it is there")
}

fn ran(fails: bool, report: Option<SimReport>) -> Ran {
    let violations = fails.then(wanted).into_iter().collect();
    Ran { violations, report, checks: Default::default() }
}

fn report(chosen: Vec<Chosen>, faults: Vec<FaultReport>) -> SimReport {
    SimReport {
        seed: 0,
        virtual_time: Duration::ZERO,
        events: 0,
        facts: Vec::new(),
        trace_hash: TraceHash(0),
        trace: Vec::new(),
        recorded: Vec::new(),
        choices: ChoiceReport { chosen, ..Default::default() },
        faults,
        envelope: crate::fault::Envelope::Beyond,
        sizes: Vec::new(),
        tasks_left: 0,
    }
}

/// Shrinks choices 0..50 of a run that fails if it still has all of `needed`.
fn shrunk(needed: &[u64], budget: u32) -> (Vec<u64>, u32) {
    let keys = (0..50).map(|key| (ChoiceKey(key), 1));
    let case = Case { overrides: Overrides::only(keys), ..Case::default() };
    let run = |case: &Case, _: bool| {
        let has = |key: &u64| case.overrides.values.contains_key(&ChoiceKey(*key));
        ran(needed.iter().all(has), None)
    };
    let wanted = wanted();
    let mut shrinker = Shrinker { budget, ..shrinker(&run, &wanted, case) };
    let items: Vec<_> = shrinker.best.overrides.values.clone().into_iter().collect();
    shrinker.minimize(items, |items| Case {
        overrides: Overrides::only(items.iter().copied()),
        ..Case::default()
    });
    let left = shrinker.best.overrides.values.keys().map(|key| key.0).collect();
    (left, shrinker.runs)
}

#[test]
fn what_is_needed_is_left() {
    assert_eq!(shrunk(&[], 1_000), (vec![], 1));
    assert_eq!(shrunk(&[17], 1_000).0, [17]);
    assert_eq!(shrunk(&[0, 17, 49], 1_000).0, [0, 17, 49]);
    assert_eq!(shrunk(&(0..50).collect::<Vec<_>>(), 1_000).0.len(), 50);
}

#[test]
fn the_budget_is_kept() {
    let (left, runs) = shrunk(&[0, 17, 49], 10);
    assert_eq!(runs, 10);
    assert!(left.len() > 3 && left.len() < 50, "{left:?}");
}

#[test]
fn few_choices_count_more_than_a_small_workload() {
    // With fewer orders, all choices are needed; with all orders, one.
    let run = |case: &Case, is_recorded: bool| {
        let orders = case.sizes.get("orders").copied().unwrap_or(20);
        let Overrides { values, harmless_unless_listed } = &case.overrides;
        let is_chosen = |key| !harmless_unless_listed || values.contains_key(&ChoiceKey(key));
        let fails = if orders < 20 { (0..20).all(is_chosen) } else { is_chosen(7) };
        let choice = |key| Chosen {
            key: ChoiceKey(key),
            label: Label::Latency,
            cause: String::new(),
            value: 1,
            below: 2,
        };
        let chosen = (0..20).filter(|key| is_chosen(*key)).map(choice);
        let told = || {
            let orders = Size { name: "orders".to_owned(), least: 1, most: 20, was: orders };
            SimReport { sizes: vec![orders], ..report(chosen.collect(), Vec::new()) }
        };
        ran(fails, is_recorded.then(told))
    };
    let shrunk = shrink(&run, &Case::default(), 1, &wanted(), 1_000, |_| {});
    assert_eq!(shrunk.case.overrides, Overrides::only([(ChoiceKey(7), 1)]));
    let few = shrink(&run, &Case::default(), 1, &wanted(), 30, |_| {});
    assert_eq!(few.runs, 30);
}

fn fault(when: Trigger, fault: Fault) -> Planned {
    Planned { id: 1, when, fault, until: None }
}

fn with_fault(planned: Planned) -> Case {
    Case { plan: Plan { faults: vec![planned], ..Default::default() }, ..Case::default() }
}

#[test]
fn a_workload_becomes_as_small_as_it_can() {
    let run = |case: &Case, _: bool| {
        let size = |name, most| case.sizes.get(name).copied().unwrap_or(most);
        ran(size("orders", 20) >= 7 && size("processes", 3) >= 1, None)
    };
    let wanted = wanted();
    let mut shrinker = shrinker(&run, &wanted, Case::default());
    shrinker.smaller_workload();
    let sizes = [("orders", 7), ("processes", 1)].map(|(name, size)| (name.to_owned(), size));
    assert_eq!(shrinker.best.sizes, sizes.into());
    assert!(shrinker.runs < 12, "{}", shrinker.runs);
}

#[test]
fn what_strikes_late_strikes_earlier_in_a_smaller_workload() {
    // The fault needs its order to be there.
    let run = |case: &Case, _: bool| {
        let orders = case.sizes.get("orders").copied().unwrap_or(20);
        let Trigger::Reached { nth, .. } = case.plan.faults[0].when else { unreachable!() };
        ran(nth as usize <= orders, None)
    };
    let reached = Trigger::Reached { process: "shop".into(), point: "sent".into(), nth: 15 };
    let case = with_fault(fault(reached.clone(), Fault::CrashProcess("shop".into())));
    let wanted = wanted();
    let mut shrinker = shrinker(&run, &wanted, case);
    shrinker.smaller_workload();
    assert_eq!(shrinker.best.sizes["orders"], 1);
    assert_eq!(shrinker.best.plan.faults[0].when, reached.nth(1));
}

#[test]
fn a_cluster_becomes_as_small_as_it_can_and_its_faults_follow() {
    for (needed, expected) in [(1, Some(1)), (2, Some(2)), (3, None)] {
        let run = |case: &Case, _: bool| {
            let brokers = case.brokers.unwrap_or(3);
            ran(brokers >= needed && case.plan.validate(brokers).is_ok(), None)
        };
        let crash = Fault::CrashBroker(Target::Broker(3));
        let case = with_fault(fault(Trigger::At(SimTime::ZERO), crash));
        let wanted = wanted();
        let mut shrinker = shrinker(&run, &wanted, case);
        shrinker.smaller_cluster();
        assert_eq!(shrinker.best.brokers, expected);
        assert!(shrinker.best.plan.validate(expected.unwrap_or(3)).is_ok());
    }
}

#[test]
fn choices_that_do_harm_become_round() {
    let key = ChoiceKey(1);
    let run = |case: &Case, is_recorded: bool| {
        let value = case.overrides.values.get(&key).copied().unwrap_or(0);
        let chosen =
            Chosen { key, label: Label::Latency, cause: String::new(), value, below: 9_500 };
        ran(value >= 7_200, is_recorded.then(|| report(vec![chosen], Vec::new())))
    };
    let wanted = wanted();
    let overrides = Overrides::only([(key, 7_317)]);
    let mut shrinker = shrinker(&run, &wanted, Case { overrides, ..Case::default() });
    shrinker.rounder_choices();
    assert_eq!(shrinker.best.overrides.values[&key], 8_000);
    shrinker.rounder_choices();
    assert_eq!(shrinker.best.overrides.values[&key], 8_000);
}

#[test]
fn a_time_becomes_an_event_where_one_will_do() {
    let committed = Trigger::fact(crate::fault::FactPattern::OffsetCommitted("g".into()));
    for (will_do, expected) in
        [(true, committed.clone()), (false, Trigger::At(SimTime::ZERO + Duration::from_secs(1)))]
    {
        let run = |case: &Case, is_recorded: bool| {
            let fails = match &case.plan.faults[0].when {
                Trigger::At(at) => at.elapsed() > Duration::from_millis(900),
                Trigger::Fact { nth, .. } => will_do && *nth < 5,
                _ => false,
            };
            let struck = Struck { at: SimTime::ZERO, event: 7, on: "g".into(), has_changed: true };
            let before = vec![committed.clone().nth(4)];
            let fault = FaultReport { id: 1, struck: Some(struck), ended: None, before };
            ran(fails, is_recorded.then(|| report(Vec::new(), vec![fault])))
        };
        let at = Trigger::At(SimTime::ZERO + Duration::from_micros(1_234_567));
        let case = with_fault(fault(at, Fault::CrashController));
        let wanted = wanted();
        let mut shrinker = shrinker(&run, &wanted, case);
        shrinker.simpler_faults();
        assert_eq!(shrinker.best.plan.faults[0].when, expected);
    }
}

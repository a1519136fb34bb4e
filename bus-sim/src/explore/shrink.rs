//! Shrinking: a run that breaks a guarantee, made as small as it gets.
//!
//! Passes, repeated until none helps or the budget is used up: faults that never struck go; faults
//! are taken out, by halves first and one by one last; the workload, which may be how many
//! processes there are, and the cluster become smaller; choices become harmless, all at once, then
//! those of a label, then by halves; what is left of the faults strikes at an event instead of a
//! time, and gets rounder numbers; and what is left of the choices becomes rounder. A smaller run
//! counts if it breaks the guarantee of the same name. Runs are deterministic, so one decides.
//!
//! With less work, the timing of a failure may come to depend on many choices. If many are left,
//! all is done once more with the choices first, and the smaller run of both is kept.
//!
//! Absent: taking single records or calls of an application out. It does as much less as it lets
//! others decide ([`SimHandle::size`](crate::SimHandle::size)).

mod choices;
mod simpler;
mod smaller;

use super::case::{Case, Ran, Violation};
use crate::choice::Overrides;
use crate::driver::{SimReport, Size};
use crate::fault::Planned;

/// Runs a case; the flag asks for its choices, and for the events before its faults.
pub(super) type Run<'a> = &'a dyn Fn(&Case, bool) -> Ran;

/// A run that was shrunk.
#[derive(Debug)]
pub(super) struct ShrunkRun {
    /// The smallest case.
    pub(super) case: Case,
    /// What came of it.
    pub(super) ran: Ran,
    /// The violation, as the smallest case has it.
    pub(super) violation: Violation,
    /// How it was at first.
    pub(super) before: Before,
    /// How many runs it took.
    pub(super) runs: u32,
}

/// What a run was before it was shrunk.
#[derive(Debug)]
pub(super) struct Before {
    /// How many faults struck.
    pub(super) faults: usize,
    /// How many choices were not harmless.
    pub(super) choices: usize,
    /// The sizes that the application asked for.
    pub(super) sizes: Vec<Size>,
    /// How many brokers there were.
    pub(super) brokers: i32,
}

/// Shrinks a run in a world of so many brokers in at most so many runs (and two more), telling how
/// many there were.
pub(super) fn shrink(
    run: Run<'_>,
    case: &Case,
    brokers: i32,
    violation: &Violation,
    budget: u32,
    told: impl FnMut(u32),
) -> ShrunkRun {
    let first = run(case, true);
    let report = first.report.as_ref();
    let struck = |id| {
        let faults = report.map_or(&[][..], |report| &report.faults);
        faults.iter().any(|fault| fault.id == id && fault.struck.is_some())
    };
    let before = Before {
        faults: case.plan.faults.iter().filter(|fault| struck(fault.id)).count(),
        choices: report.map_or(0, |report| report.choices.chosen.len()),
        sizes: report.map_or_else(Vec::new, |report| report.sizes.clone()),
        brokers,
    };
    let mut plan = case.plan.clone();
    plan.faults.retain(|fault| struck(fault.id));
    let best = case.clone();
    let choices_first = false;
    let mut shrinker =
        Shrinker { run, wanted: violation, before, best, choices_first, runs: 0, budget, told };
    if plan != case.plan {
        shrinker.attempt(Case { plan, ..case.clone() });
    }
    let begun = shrinker.best.clone();
    while shrinker.round() {}
    if steps(&shrinker.best).saturating_sub(shrinker.best.plan.faults.len()) > FEW {
        let other = std::mem::replace(&mut shrinker.best, begun);
        shrinker.choices_first = true;
        while shrinker.round() {}
        if steps(&other) <= steps(&shrinker.best) {
            shrinker.best = other;
        }
    }
    let Shrinker { best, before, runs, .. } = shrinker;
    let ran = run(&best, true);
    let found = ran.violations.iter().find(|found| found.guarantee == violation.guarantee);
    let violation = found.unwrap_or(violation).clone();
    ShrunkRun { case: best, ran, violation, before, runs }
}

/// So many choices may be left.
const FEW: usize = 3;

/// How many faults and choices a case has; of one whose seed decides, more than any other.
fn steps(case: &Case) -> usize {
    let Overrides { values, harmless_unless_listed } = &case.overrides;
    let choices = if *harmless_unless_listed { values.len() } else { usize::MAX / 2 };
    case.plan.faults.len() + choices
}

struct Shrinker<'a, F> {
    run: Run<'a>,
    wanted: &'a Violation,
    before: Before,
    best: Case,
    /// Whether choices are made harmless before the workload becomes smaller.
    choices_first: bool,
    runs: u32,
    budget: u32,
    told: F,
}

impl<F: FnMut(u32)> Shrinker<'_, F> {
    /// All passes once; returns whether any of them helped.
    fn round(&mut self) -> bool {
        let before = self.best.clone();
        self.without_faults();
        if self.choices_first {
            self.harmless_choices();
        }
        self.smaller_workload();
        self.smaller_cluster();
        self.harmless_choices();
        self.simpler_faults();
        self.rounder_choices();
        self.best != before && self.runs < self.budget
    }

    /// Keeps a case if it fails in the same way.
    fn attempt(&mut self, case: Case) -> bool {
        if case == self.best {
            return false;
        }
        let Some(ran) = self.try_out(&case, false) else { return false };
        let is_same = ran.violations.iter().any(|v| v.guarantee == self.wanted.guarantee);
        if is_same {
            self.best = case;
        }
        is_same
    }

    /// What the smallest case does, with its choices.
    fn look(&mut self) -> Option<SimReport> {
        self.try_out(&self.best.clone(), true)?.report
    }

    /// Runs a case, if that is still within the budget.
    fn try_out(&mut self, case: &Case, is_recorded: bool) -> Option<Ran> {
        if self.runs >= self.budget {
            return None;
        }
        self.runs += 1;
        (self.told)(self.runs);
        Some((self.run)(case, is_recorded))
    }

    fn without_faults(&mut self) {
        let base = self.best.clone();
        let faults = base.plan.faults.clone();
        self.minimize(faults, |faults| {
            let mut case = base.clone();
            case.plan.faults = faults.to_vec();
            case
        });
    }

    fn simpler_faults(&mut self) {
        self.events_for_times();
        for place in 0..self.best.plan.faults.len() {
            // Each candidate that helps opens new ones.
            while self.simpler_fault(place) {}
        }
    }

    /// Has faults strike at an event that came shortly before their time.
    fn events_for_times(&mut self) {
        if !self.best.plan.faults.iter().any(simpler::is_timed) {
            return;
        }
        let Some(report) = self.look() else { return };
        for place in 0..self.best.plan.faults.len() {
            let planned = self.best.plan.faults[place].clone();
            let found = report.faults.iter().find(|fault| fault.id == planned.id);
            let before = found.map_or(&[][..], |found| &found.before);
            self.instead(place, simpler::at_events(&planned, before));
        }
    }

    fn simpler_fault(&mut self, place: usize) -> bool {
        self.instead(place, simpler::than(&self.best.plan.faults[place]))
    }

    /// Puts the first candidate that fails in the same way in the place of a fault.
    fn instead(&mut self, place: usize, candidates: Vec<Planned>) -> bool {
        candidates.into_iter().any(|candidate| {
            let mut case = self.best.clone();
            case.plan.faults[place] = candidate;
            self.attempt(case)
        })
    }

    /// Takes items away in ever smaller parts, until each one that is left is needed.
    fn minimize<T: Clone>(&mut self, mut items: Vec<T>, with: impl Fn(&[T]) -> Case) {
        let mut part = items.len();
        while part > 0 && self.runs < self.budget {
            let mut helped = false;
            let mut begin = 0;
            while begin < items.len() {
                let mut fewer = items.clone();
                fewer.drain(begin..(begin + part).min(items.len()));
                if self.attempt(with(&fewer)) {
                    items = fewer;
                    helped = true;
                } else {
                    begin += part;
                }
            }
            // One by one, until a whole pass takes nothing away.
            part = if part == 1 { usize::from(helped) } else { part.div_ceil(2).min(part - 1) };
        }
    }
}

#[cfg(test)]
mod tests;

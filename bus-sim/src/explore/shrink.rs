//! Shrinking: a run that breaks a guarantee, made as small as it gets.
//!
//! Passes, repeated until none helps or the budget is used up: faults that never struck go; faults
//! are taken out, by halves first and one by one last; choices become harmless, all at once, then
//! those of a label, then by halves; what is left of the faults gets rounder numbers. A smaller run
//! counts if it breaks the guarantee of the same name. Runs are deterministic, so one decides.

mod simpler;

use super::case::{Case, Ran, Violation};
use crate::choice::{Chosen, Overrides};
use crate::fault::Planned;

/// Runs a case; the flag asks for its choices.
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
    /// How many faults struck at first.
    pub(super) faults_before: usize,
    /// How many choices were not harmless at first.
    pub(super) choices_before: usize,
    /// How many runs it took.
    pub(super) runs: u32,
}

/// Shrinks a run in at most so many runs (and two more), telling how many there were.
pub(super) fn shrink(
    run: Run<'_>,
    case: &Case,
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
    let faults_before = case.plan.faults.iter().filter(|fault| struck(fault.id)).count();
    let choices_before = report.map_or(0, |report| report.choices.chosen.len());
    let mut shrinker =
        Shrinker { run, wanted: violation, best: case.clone(), runs: 0, budget, told };
    let mut plan = case.plan.clone();
    plan.faults.retain(|fault| struck(fault.id));
    if plan != case.plan {
        shrinker.attempt(Case { plan, ..case.clone() });
    }
    while shrinker.round() {}
    let Shrinker { best, runs, .. } = shrinker;
    let ran = run(&best, true);
    let found = ran.violations.iter().find(|found| found.guarantee == violation.guarantee);
    let violation = found.unwrap_or(violation).clone();
    ShrunkRun { case: best, ran, violation, faults_before, choices_before, runs }
}

struct Shrinker<'a, F> {
    run: Run<'a>,
    wanted: &'a Violation,
    best: Case,
    runs: u32,
    budget: u32,
    told: F,
}

impl<F: FnMut(u32)> Shrinker<'_, F> {
    /// All passes once; returns whether any of them helped.
    fn round(&mut self) -> bool {
        let before = self.best.clone();
        self.without_faults();
        self.harmless_choices();
        self.simpler_faults();
        self.best != before && self.runs < self.budget
    }

    /// Keeps a case if it fails in the same way.
    fn attempt(&mut self, case: Case) -> bool {
        if self.runs >= self.budget || case == self.best {
            return false;
        }
        self.runs += 1;
        (self.told)(self.runs);
        let ran = (self.run)(&case, false);
        let is_same = ran.violations.iter().any(|v| v.guarantee == self.wanted.guarantee);
        if is_same {
            self.best = case;
        }
        is_same
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

    /// Makes choices harmless: all; or all but those that matter.
    fn harmless_choices(&mut self) {
        let base = self.best.clone();
        if self.attempt(Case { overrides: Overrides::only([]), ..base.clone() }) {
            return;
        }
        let Some(report) = (self.run)(&base, true).report else { return };
        let mut chosen = report.choices.chosen;
        let with = |chosen: &[Chosen]| {
            let values = chosen.iter().map(|chosen| (chosen.key, chosen.value));
            Case { overrides: Overrides::only(values), ..base.clone() }
        };
        // The same run from its own choices: from here on the seed decides nothing but ids.
        if with(&chosen) != base && !self.attempt(with(&chosen)) {
            return;
        }
        let mut labels: Vec<_> = chosen.iter().map(|chosen| chosen.label).collect();
        labels.sort_unstable();
        labels.dedup();
        for label in labels {
            let others: Vec<_> =
                chosen.iter().filter(|chosen| chosen.label != label).cloned().collect();
            if self.attempt(with(&others)) {
                chosen = others;
            }
        }
        self.minimize(chosen, with);
    }

    fn simpler_faults(&mut self) {
        for place in 0..self.best.plan.faults.len() {
            // Each candidate that helps opens new ones.
            while self.simpler_fault(place) {}
        }
    }

    fn simpler_fault(&mut self, place: usize) -> bool {
        let candidates: Vec<Planned> = simpler::than(&self.best.plan.faults[place]);
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
mod tests {
    use super::*;
    use crate::choice::ChoiceKey;

    /// Shrinks choices 0..50 of a run that fails if it still has all of `needed`.
    fn shrunk(needed: &[u64], budget: u32) -> (Vec<u64>, u32) {
        let keys = (0..50).map(|key| (ChoiceKey(key), 1));
        let case = Case { overrides: Overrides::only(keys), ..Case::default() };
        let violation = Violation::new("needed", "it is there");
        let run = |case: &Case, _: bool| {
            let has = |key: &u64| case.overrides.values.contains_key(&ChoiceKey(*key));
            let fails = needed.iter().all(has);
            Ran {
                violations: fails.then(|| violation.clone()).into_iter().collect(),
                report: None,
                checks: Default::default(),
            }
        };
        let mut shrinker =
            Shrinker { run: &run, wanted: &violation, best: case, runs: 0, budget, told: |_| {} };
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
}

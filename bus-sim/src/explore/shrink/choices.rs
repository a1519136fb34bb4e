//! Choices: those that do harm and need not become harmless, and the others round.

use super::super::case::Case;
use super::Shrinker;
use crate::choice::{ChoiceKey, Chosen, Overrides};

impl<F: FnMut(u32)> Shrinker<'_, F> {
    /// Makes choices harmless: all; or all but those that matter.
    pub(super) fn harmless_choices(&mut self) {
        let base = self.best.clone();
        if self.attempt(Case { overrides: Overrides::only([]), ..base.clone() }) {
            return;
        }
        if base.overrides.harmless_unless_listed && base.overrides.values.is_empty() {
            return;
        }
        let Some(report) = self.look() else { return };
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

    /// Gives choices that are not harmless rounder values: all at once, or one by one.
    pub(super) fn rounder_choices(&mut self) {
        let is_rough = |value: &u64| !rounder(*value, u64::MAX).is_empty();
        if !self.best.overrides.values.values().any(is_rough) {
            return;
        }
        let Some(report) = self.look() else { return };
        let chosen = report.choices.chosen.iter();
        let listed = chosen.filter(|chosen| self.best.overrides.values.contains_key(&chosen.key));
        let candidates: Vec<_> =
            listed.map(|chosen| (chosen.key, rounder(chosen.value, chosen.below))).collect();
        let roundest = candidates.iter().filter_map(|(key, values)| Some((*key, *values.first()?)));
        if self.attempt(self.choosing(roundest)) {
            return;
        }
        for (key, values) in candidates {
            // The first that will do is the roundest.
            let _found =
                values.into_iter().any(|value| self.attempt(self.choosing([(key, value)])));
        }
    }

    /// The smallest case with other values for some choices.
    fn choosing(&self, values: impl IntoIterator<Item = (ChoiceKey, u64)>) -> Case {
        let mut case = self.best.clone();
        case.overrides.values.extend(values);
        case
    }
}

/// Numbers below a bound with fewer digits that are not zero, the roundest first: of 7,317 these
/// are 7,000, 10,000, and 8,000, then 7,300, 7,400, and so on.
fn rounder(value: u64, below: u64) -> Vec<u64> {
    let mut found = Vec::new();
    let mut unit = 10_u64.pow(value.checked_ilog10().unwrap_or(0));
    if !value.is_multiple_of(unit) {
        found.push(value / unit * unit);
        found.extend(unit.checked_mul(10));
    }
    while unit > 1 && !value.is_multiple_of(unit) && found.len() < MOST {
        found.push(value / unit * unit);
        found.extend(value.div_ceil(unit).checked_mul(unit));
        unit /= 10;
    }
    let mut seen = Vec::new();
    found.retain(|number| {
        let is_new = *number < below && !seen.contains(number);
        seen.push(*number);
        is_new
    });
    found
}

/// With three digits, a number is round enough.
const MOST: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_become_rounder_and_then_stay() {
        let expected = [7_000_000, 10_000_000, 8_000_000, 7_300_000, 7_400_000];
        let expected: Vec<_> = expected.into_iter().chain([7_310_000, 7_320_000]).collect();
        assert_eq!(rounder(7_317_021, u64::MAX), expected);
        assert_eq!(
            rounder(7_317_021, 8_000_000),
            [7_000_000, 7_300_000, 7_400_000, 7_310_000, 7_320_000]
        );
        assert_eq!(rounder(7_300, u64::MAX), [7_000, 10_000, 8_000]);
        for round in [0, 1, 7, 10, 7_000] {
            assert_eq!(rounder(round, u64::MAX), [0; 0]);
        }
        assert_eq!(rounder(u64::MAX, u64::MAX)[0], 10_000_000_000_000_000_000);
    }
}

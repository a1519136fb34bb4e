//! Sizes: how much work an application does in a run, where it lets others decide.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

/// A size that an application asked for; see [`SimHandle::size`](super::SimHandle::size).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Size {
    /// Its name.
    pub name: String,
    /// The least that makes sense.
    pub least: usize,
    /// What it is on an ordinary day.
    pub most: usize,
    /// What it was in this run.
    pub was: usize,
}

/// The sizes of a run.
#[derive(Debug, Default)]
pub(super) struct Sizes {
    /// Those that are smaller than on an ordinary day.
    smaller: BTreeMap<String, usize>,
    /// Those that were asked for, in this order.
    asked: Mutex<Vec<Size>>,
}

impl Sizes {
    pub(super) fn new(smaller: BTreeMap<String, usize>) -> Self {
        Self { smaller, asked: Mutex::default() }
    }

    pub(super) fn ask(&self, name: &str, range: RangeInclusive<usize>) -> usize {
        let (least, most) = range.into_inner();
        let least = least.min(most);
        let smaller = self.smaller.get(name).copied().unwrap_or(most);
        let was = smaller.clamp(least, most);
        let mut asked = self.asked.lock();
        if asked.iter().all(|size| size.name != name) {
            asked.push(Size { name: name.to_owned(), least, most, was });
        }
        was
    }

    pub(super) fn report(&self) -> Vec<Size> {
        self.asked.lock().clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_the_ordinary_one_unless_it_was_made_smaller() {
        let sizes = Sizes::new(BTreeMap::from([("orders".to_owned(), 3), ("rows".to_owned(), 0)]));
        assert_eq!(sizes.ask("orders", 1..=20), 3);
        assert_eq!(sizes.ask("rows", 2..=20), 2, "never below the least");
        assert_eq!(sizes.ask("processes", 1..=3), 3);
        assert_eq!(sizes.ask("orders", 1..=20), 3, "asked twice, told once");
        let told: Vec<_> = sizes.report().into_iter().map(|size| (size.name, size.was)).collect();
        let expected = [("orders", 3), ("rows", 2), ("processes", 3)];
        assert_eq!(told, expected.map(|(name, was)| (name.to_owned(), was)));
    }
}

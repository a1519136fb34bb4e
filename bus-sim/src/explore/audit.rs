//! The audit of determinism: a run is repeated and must be the same, event by event.

use std::fmt;

use super::case::Ran;
use crate::config::SimConfig;

/// A run that was not the same when it was repeated: the application uses a clock, randomness, or
/// an order that no seed decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Divergence {
    /// The seed.
    pub seed: u64,
    /// The hashes of both traces.
    pub hashes: [String; 2],
    /// The number of the first event that differs, and what it was in two runs; none if two more
    /// runs with their traces kept were the same.
    pub first: Option<(usize, [String; 2])>,
}

impl Divergence {
    /// That of a run whose traces, of which these are the lines, have these hashes.
    pub fn between(seed: u64, hashes: [String; 2], one: &[String], other: &[String]) -> Self {
        Self { seed, hashes, first: first_difference(one, other) }
    }
}

impl fmt::Display for Divergence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, hashes: [one, other], first } = self;
        write!(f, "seed {seed} is not deterministic: its traces are {one} and {other}")?;
        if let Some((number, [one, other])) = first {
            write!(f, "; event {number} is first\n  {one}\nand then\n  {other}")?;
        }
        write!(f, "\nhint: docs/determinism.md says what an application must not use")
    }
}

/// Repeats a run.
pub(super) fn repeat(
    ran: &Ran,
    run: &dyn Fn(fn(&mut SimConfig)) -> Ran,
    seed: u64,
) -> Option<Divergence> {
    let hash = |ran: &Ran| ran.report.as_ref().map(|report| report.trace_hash);
    let again = run(|_| {});
    let hashes = [hash(ran)?, hash(&again)?];
    if hashes[0] == hashes[1] && ran.violations == again.violations {
        return None;
    }
    let trace = || {
        let ran = run(|config| config.record_trace = true);
        ran.report.map(|report| report.trace).unwrap_or_default()
    };
    Some(Divergence::between(seed, hashes.map(|hash| hash.to_string()), &trace(), &trace()))
}

fn first_difference(one: &[String], other: &[String]) -> Option<(usize, [String; 2])> {
    let line = |lines: &[String], number: usize| {
        lines.get(number).cloned().unwrap_or_else(|| "the end of the run".to_owned())
    };
    let number = (0..one.len().max(other.len())).find(|i| one.get(*i) != other.get(*i))?;
    Some((number, [line(one, number), line(other, number)]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_difference_is_found() {
        let lines = |texts: &[&str]| texts.iter().map(|t| (*t).to_owned()).collect::<Vec<_>>();
        assert_eq!(first_difference(&lines(&["a", "b"]), &lines(&["a", "b"])), None);
        let found = first_difference(&lines(&["a", "b"]), &lines(&["a", "c"]));
        assert_eq!(found, Some((1, ["b".to_owned(), "c".to_owned()])));
        let found = first_difference(&lines(&["a"]), &lines(&["a", "c"]));
        assert_eq!(found, Some((1, ["the end of the run".to_owned(), "c".to_owned()])));
    }
}

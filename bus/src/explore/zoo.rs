//! The zoo, measured: how soon a story is found, how small it becomes, and whether its fixed form
//! holds. The table of `docs/zoo.md` is made of this.

use std::num::NonZeroUsize;

use bus_core::Result;
use bus_sim::explore::{Explored, Progress, Shrunk};
use bus_sim::fault::Envelope;
use scenarios::stories::Entry;
use scenarios::{Application, Form};

use super::WorstDays;

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// How many disjoint ranges of seeds are searched.
    pub ranges: u64,
    /// How many seeds a range has, and so many the fixed form must survive.
    pub seeds: u64,
    /// How many runs the shrinking may take.
    pub shrink_runs: u32,
    /// How many runs at a time; as many as there are cores.
    pub jobs: Option<NonZeroUsize>,
}

impl Default for Effort {
    fn default() -> Self {
        Self { ranges: 5, seeds: 2_000, shrink_runs: 2_000, jobs: None }
    }
}

/// What came of a story.
#[derive(Clone, Debug)]
pub struct Measured {
    /// The story.
    pub entry: &'static Entry,
    /// Of each range how many seeds were run up to the first violation; none if it held.
    pub seeds_to_find: Vec<Option<u64>>,
    /// The guarantees that were broken, the one that was most often first.
    pub guarantees: Vec<String>,
    /// How the first one was shrunk.
    pub shrunk: Option<Shrunk>,
    /// How many seeds of the fixed form were run.
    pub fixed_seeds: u64,
    /// What broke the fixed form, if anything did.
    pub fixed_broken: Option<String>,
}

impl Measured {
    /// Whether each range has a violation, it became as small as it should, and the fixed form
    /// held.
    pub fn is_as_it_should_be(&self) -> bool {
        let is_small = self
            .shrunk
            .as_ref()
            .is_some_and(|shrunk| shrunk.steps().1 <= self.entry.trigger_steps + MORE_STEPS);
        self.seeds_to_find.iter().all(Option::is_some) && is_small && self.fixed_broken.is_none()
    }

    /// The median of the seeds to find, of the ranges where there was something to be found.
    pub fn median(&self) -> Option<u64> {
        let mut found: Vec<u64> = self.seeds_to_find.iter().copied().flatten().collect();
        found.sort_unstable();
        let middle = found.len() / 2;
        match found.len() {
            0 => None,
            count if count % 2 == 1 => Some(found[middle]),
            _ => Some(found[middle - 1].midpoint(found[middle])),
        }
    }

    /// A row of the [table](HEADER).
    pub fn row(&self) -> String {
        let Self { entry, seeds_to_find, guarantees, shrunk, fixed_seeds, fixed_broken } = self;
        let or_none =
            |seeds: Option<u64>| seeds.map_or_else(|| "none".to_owned(), |n| n.to_string());
        let found: Vec<_> = seeds_to_find.iter().map(|seeds| or_none(*seeds)).collect();
        let (before, after) = shrunk.as_ref().map_or((0, 0), Shrunk::steps);
        let broken = fixed_broken.as_ref().map(|broken| format!("broken: {broken}"));
        let cells = [
            entry.id.to_owned(),
            format!("`{}`", entry.story),
            guarantees.first().cloned().unwrap_or_else(|| "none".to_owned()),
            format!("{} ({})", found.join(", "), or_none(self.median())),
            thousands(before),
            after.to_string(),
            entry.trigger_steps.to_string(),
            shrunk.as_ref().map_or_else(String::new, sizes),
            broken.unwrap_or_else(|| format!("held, {}", thousands(*fixed_seeds))),
        ];
        format!("| {} |", cells.join(" | "))
    }
}

/// The head of the table in Markdown.
pub const HEADER: &str = "\
| entry | story | guarantee | seeds to find (median) | steps before | after | trigger steps \
| smaller | fixed, seeds |
|---|---|---|---|---|---|---|---|---|";

/// So many steps more than the entry names are small enough.
const MORE_STEPS: usize = 3;

/// Measures a story, telling how far each exploration is.
///
/// # Errors
/// Those of [`WorstDays`].
pub fn measure(
    entry: &'static Entry,
    effort: &Effort,
    told: impl Fn(&Progress) + Sync,
) -> Result<Measured> {
    let story = entry.application();
    let mut measured = Measured {
        entry,
        seeds_to_find: Vec::new(),
        guarantees: Vec::new(),
        shrunk: None,
        fixed_seeds: 0,
        fixed_broken: None,
    };
    let buggy = worst_days(story, Form::AsWritten)?;
    for range in 0..effort.ranges {
        let begin = range * effort.seeds;
        let shrink_runs = if measured.shrunk.is_none() { effort.shrink_runs } else { 0 };
        let explored = explore(&buggy, begin, shrink_runs, effort, &told);
        let found = explored.violations.into_iter().next();
        measured.seeds_to_find.push(found.as_ref().map(|found| found.seed - begin + 1));
        let Some(found) = found else { continue };
        measured.guarantees.push(found.replay.expect.guarantee);
        measured.shrunk.get_or_insert(found.replay.shrunk);
    }
    measured.guarantees = most_often_first(&measured.guarantees);
    let fixed = explore(&worst_days(story, Form::Sound)?, 0, 0, effort, &told);
    measured.fixed_seeds = fixed.seeds_run;
    let found = fixed.violations.first();
    let broken = found.map(|found| format!("{} ({})", found.replay.expect.guarantee, found.seed));
    let differs = fixed.divergences.first().map(ToString::to_string);
    measured.fixed_broken = broken.or(differs);
    Ok(measured)
}

fn worst_days(story: &'static Application, form: Form) -> Result<WorstDays> {
    WorstDays::new(story, form, "")?.with_faults(None, Envelope::Tolerated)
}

fn explore(
    days: &WorstDays,
    begin: u64,
    shrink_runs: u32,
    effort: &Effort,
    told: &(impl Fn(&Progress) + Sync),
) -> Explored {
    let mut exploration = days
        .exploration()
        .seeds(begin..begin + effort.seeds)
        .shrink_runs(shrink_runs)
        .on_progress(told);
    if let Some(jobs) = effort.jobs {
        exploration = exploration.jobs(jobs);
    }
    exploration.run(days.judged())
}

/// What became smaller, beside faults and choices: `payments 20 to 1`.
fn sizes(shrunk: &Shrunk) -> String {
    let sizes = shrunk.sizes.iter().map(|(name, (from, to))| (name.as_str(), *from, *to));
    let brokers = shrunk.brokers.map(|(from, to)| {
        ("brokers", usize::try_from(from).unwrap_or(0), usize::try_from(to).unwrap_or(0))
    });
    let smaller = sizes.chain(brokers).filter(|(_, from, to)| to < from);
    let smaller: Vec<_> =
        smaller.map(|(name, from, to)| format!("{name} {from} to {to}")).collect();
    if smaller.is_empty() { "nothing".to_owned() } else { smaller.join(", ") }
}

/// Each once; those that come equally often in their order.
fn most_often_first(names: &[String]) -> Vec<String> {
    let count = |name: &String| names.iter().filter(|other| *other == name).count();
    let mut once: Vec<String> = Vec::new();
    for name in names {
        if !once.contains(name) {
            once.push(name.clone());
        }
    }
    once.sort_by_key(|name| std::cmp::Reverse(count(name)));
    once
}

fn thousands(number: impl ToString) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(seeds_to_find: Vec<Option<u64>>) -> Measured {
        Measured {
            entry: &scenarios::stories::ENTRIES[0],
            seeds_to_find,
            guarantees: vec!["E5 committed-too-far".to_owned()],
            shrunk: Some(Shrunk {
                faults: (3, 1),
                sizes: [("payments".to_owned(), (24, 4)), ("processes".to_owned(), (2, 2))].into(),
                brokers: None,
                choices: (5_172, 0),
                runs: 40,
            }),
            fixed_seeds: 2_000,
            fixed_broken: None,
        }
    }

    #[test]
    fn a_row_has_what_the_header_says() {
        let measured = measured(vec![Some(3), Some(54), None, Some(7)]);
        assert_eq!(measured.median(), Some(7));
        let row = measured.row();
        let cells = |line: &str| line.matches('|').count();
        assert!(HEADER.lines().all(|line| cells(line) == cells(&row)), "{row}");
        for cell in
            ["| 3, 54, none, 7 (7) |", "| 5,175 | 1 |", "| payments 24 to 4 |", "held, 2,000"]
        {
            assert!(row.contains(cell), "{row}");
        }
        assert!(!measured.is_as_it_should_be());
    }

    #[test]
    fn the_median_of_an_even_number_is_in_the_middle() {
        assert_eq!(measured(vec![Some(2), Some(9), Some(4), Some(1)]).median(), Some(3));
        assert_eq!(measured(vec![None]).median(), None);
        assert!(measured(vec![Some(1)]).is_as_it_should_be());
    }

    #[test]
    fn the_guarantee_that_is_broken_most_often_comes_first() {
        let names = ["a", "b", "c", "b"].map(str::to_owned);
        assert_eq!(most_often_first(&names), ["b", "a", "c"]);
    }
}

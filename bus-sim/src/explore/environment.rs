//! The environment variables of an exploration: which seeds a person wants to see, instead of those
//! that the test says.

use std::ops::Range;
use std::thread;

/// Runs this one seed.
pub(super) const SEED: &str = "BUS_SEED";
/// Runs these seeds: `0..5000`, or `5000` for the same.
pub(super) const SEEDS: &str = "BUS_SEEDS";
/// What cargo calls the package whose test it runs.
const PACKAGE: &str = "CARGO_PKG_NAME";

/// What the environment says about an exploration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Environment {
    /// The seeds that are asked for, instead of those of the exploration.
    pub(super) seeds: Option<Range<u64>>,
    /// Whether that is one seed, to see it again.
    pub(super) is_one_seed: bool,
    /// The arguments of `cargo` that run this test again.
    pub(super) command: String,
}

impl Environment {
    /// That of this process and thread.
    ///
    /// # Panics
    /// If a variable has a value that means nothing, naming both, and what it may be.
    #[expect(
        clippy::disallowed_methods,
        reason = "which seeds are run is for people to say; what \
        a run does is not changed by it"
    )]
    pub(super) fn read() -> Self {
        let read = |name: &str| std::env::var_os(name).map(|value| value.to_string_lossy().into());
        let test = thread::current().name().map(str::to_owned);
        Self::of(read, test.as_deref()).unwrap_or_else(|bad| panic!("{bad}"))
    }

    /// That of some variables, for a test of this name. A variable without a text is not there.
    fn of(read: impl Fn(&str) -> Option<String>, test: Option<&str>) -> Result<Self, String> {
        let read = |name| read(name).filter(|value| !value.is_empty());
        let bad = |name: &str, value: &str, right: &str| {
            format!("{name}={value} means nothing: write {right}, or unset {name}")
        };
        let one = match read(SEED) {
            None => None,
            Some(value) => {
                let seed = number(&value).and_then(|seed| Some(seed..seed.checked_add(1)?));
                Some(seed.ok_or_else(|| bad(SEED, &value, "the number of a seed, such as 29"))?)
            }
        };
        let many = match read(SEEDS) {
            None => None,
            Some(value) => {
                let right = "a range that is not empty, such as 0..5000, or a number, such as 5000";
                Some(range(&value).ok_or_else(|| bad(SEEDS, &value, right))?)
            }
        };
        let is_one_seed = one.is_some();
        let package = read(PACKAGE).map(|package| format!(" -p {package}")).unwrap_or_default();
        // libtest names the thread of a test after it, unless it runs all of them on the first one.
        let test = test.filter(|test| *test != "main").map(|test| format!(" {test}"));
        let command = format!("cargo test{package}{}", test.unwrap_or_default());
        Ok(Self { seeds: one.or(many), is_one_seed, command })
    }

    /// The command line that runs a seed of this test again.
    pub(super) fn again(&self, seed: u64) -> String {
        format!("{SEED}={seed} {}", self.command)
    }
}

/// A number, perhaps with `_` between its digits.
fn number(text: &str) -> Option<u64> {
    text.trim().replace('_', "").parse().ok()
}

fn range(text: &str) -> Option<Range<u64>> {
    let range = match text.split_once("..") {
        Some((start, end)) => number(start)?..number(end)?,
        None => 0..number(text)?,
    };
    (!range.is_empty()).then_some(range)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(variables: &[(&str, &str)], test: Option<&str>) -> Result<Environment, String> {
        let find = |name: &str| variables.iter().find(|(other, _)| *other == name);
        Environment::of(|name| find(name).map(|(_, value)| (*value).to_owned()), test)
    }

    fn seeds(name: &str, value: &str) -> Result<Option<Range<u64>>, String> {
        of(&[(name, value)], None).map(|environment| environment.seeds)
    }

    #[test]
    fn seeds_are_read() {
        assert_eq!(of(&[], None).map(|environment| environment.seeds), Ok(None));
        assert_eq!(seeds(SEED, ""), Ok(None));
        assert_eq!(seeds(SEED, "29"), Ok(Some(29..30)));
        assert_eq!(seeds(SEEDS, "5000"), Ok(Some(0..5_000)));
        assert_eq!(seeds(SEEDS, "0..5_000"), Ok(Some(0..5_000)));
        assert_eq!(seeds(SEEDS, " 7 .. 9 "), Ok(Some(7..9)));
    }

    #[test]
    fn one_seed_wins_over_many() {
        let both = of(&[(SEEDS, "0..10"), (SEED, "29")], None).expect("both are right");
        assert_eq!((both.seeds, both.is_one_seed), (Some(29..30), true));
        let many = of(&[(SEEDS, "0..10")], None).expect("it is right");
        assert!(!many.is_one_seed);
    }

    #[test]
    fn a_bad_value_is_named_with_what_is_right() {
        let largest = u64::MAX.to_string();
        for value in ["x", "-1", "1.5", "0..5", "0x1d", &largest] {
            let message = seeds(SEED, value).expect_err(value);
            let begin = format!("BUS_SEED={value} means nothing: ");
            assert!(message.starts_with(&begin) && message.contains("such as 29"), "{message}");
        }
        for value in ["x", "0", "5..5", "9..7", "0..", "..5", "0..=5", "1..2..3"] {
            let message = seeds(SEEDS, value).expect_err(value);
            let begin = format!("BUS_SEEDS={value} means nothing: ");
            assert!(message.starts_with(&begin) && message.contains("0..5000"), "{message}");
        }
    }

    #[test]
    fn the_command_names_the_package_and_the_test() {
        let again = |variables: &[_], test| of(variables, test).expect("they are right").again(29);
        assert_eq!(again(&[], None), "BUS_SEED=29 cargo test");
        let named = again(&[(PACKAGE, "shop")], Some("orders::arrive"));
        assert_eq!(named, "BUS_SEED=29 cargo test -p shop orders::arrive");
        assert_eq!(again(&[], Some("main")), "BUS_SEED=29 cargo test");
    }
}

//! Choice points: every random decision of the simulator, drawn by its cause.
//!
//! A choice is a hash of seed, label, and cause, not of a stream: the cause is what asked (the
//! request, its sender, how often it asked the same before), so taking one operation away re-rolls
//! nothing else. A choice of a number has a harmless value to shrink towards, which is the lowest.
//!
//! [`Choices`] can write down what was chosen, and can be told what to choose: so a run is replayed
//! from the few choices that mattered, and shrunk towards those that do no harm. Ids (of members,
//! topics, the application) are never written down: each is as harmless as any other.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::hash::Hash;
use std::sync::Arc;

use parking_lot::Mutex;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::digest::Digest;

macro_rules! labels {
    ($($(#[doc = $doc:literal])+ $label:ident,)+) => {
        /// What is decided. Part of the hash, so two decisions of one cause are independent.
        #[derive(
            Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
        )]
        pub enum Label {
            $($(#[doc = $doc])+ $label,)+
        }

        impl Label {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$label),+];
        }
    };
}

// New ones go to the end: the place of a label is part of the hash.
labels! {
    /// How long a message is under way. Harmless: the least latency.
    Latency,
    /// Which coordinator-given id a member gets.
    MemberId,
    /// The random part of a UUID of the application.
    ApplicationId,
    /// How long a client waits before it connects again. Harmless: the least.
    ReconnectBackoff,
    /// Which partition records without key go to. Harmless: the first.
    StickyPartition,
    /// Which broker a client asks for metadata. Harmless: the first.
    MetadataBroker,
    /// The id of a topic, and the broker that its first partition goes to. Harmless: the first.
    TopicId,
    /// How long controllers need to elect the next. Harmless: the least.
    ControllerElection,
    /// The seed of tokio's own randomness.
    Scheduler,
    /// A part of a [plan of faults](crate::fault::Plan) that is drawn, not of a run.
    Plan,
}

/// The name of a choice point: a digest of its label and cause, equal in every process. Written as
/// 16 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChoiceKey(pub u64);

/// What a run shall choose, instead of what its seed says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Overrides {
    /// Values by choice point. One that is out of range counts as the greatest in range.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub values: BTreeMap<ChoiceKey, u64>,
    /// Every choice that `values` does not list is harmless; ids stay those of the seed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub harmless_unless_listed: bool,
}

impl Overrides {
    /// Chooses what is listed, and what does no harm for all else.
    pub fn only(chosen: impl IntoIterator<Item = (ChoiceKey, u64)>) -> Self {
        Self { values: chosen.into_iter().collect(), harmless_unless_listed: true }
    }

    /// Whether the seed decides everything.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty() && !self.harmless_unless_listed
    }
}

/// A choice that was not harmless.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Chosen {
    /// The name of the choice point.
    pub key: ChoiceKey,
    /// What was decided.
    pub label: Label,
    /// What asked, for people.
    pub cause: String,
    /// What was chosen. The harmless value is 0.
    pub value: u64,
    /// It had to be below this.
    pub below: u64,
}

/// What was chosen in a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChoiceReport {
    /// Choices that were not harmless, in their order, if they were recorded.
    pub chosen: Vec<Chosen>,
    /// Choice points that [`Overrides::values`] lists and that never came up: what asked for them
    /// does not happen any more.
    pub never_came_up: Vec<ChoiceKey>,
    /// How many choices were made harmless because they were not listed.
    pub made_harmless: u64,
}

/// Draws the choices of a run. Cheap to clone; clones share what they write down.
///
/// ```
/// use bus_sim::choice::{Choices, Label, Overrides};
///
/// let choices = Choices::new(7).recorded(true);
/// let value = choices.below(Label::Latency, "a request", 1_000, || "a request".to_owned());
/// let report = choices.report();
/// let replayed = Overrides::only(report.chosen.iter().map(|chosen| (chosen.key, chosen.value)));
/// // Another seed, and yet the same choice.
/// let choices = Choices::new(8).overridden(replayed);
/// assert_eq!(choices.below(Label::Latency, "a request", 1_000, String::new), value);
/// assert_eq!(choices.below(Label::Latency, "another", 1_000, String::new), 0);
/// ```
#[derive(Clone, Debug)]
pub struct Choices {
    seed: u64,
    /// None if the seed decides everything and nothing is written down: it costs nothing then.
    book: Option<Arc<Mutex<Book>>>,
}

#[derive(Debug, Default)]
struct Book {
    overrides: Overrides,
    is_recorded: bool,
    /// What is listed and has not come up yet.
    missing: BTreeSet<ChoiceKey>,
    chosen: Vec<Chosen>,
    made_harmless: u64,
}

impl Choices {
    /// Choices that the seed decides.
    pub const fn new(seed: u64) -> Self {
        Self { seed, book: None }
    }

    /// The seed.
    pub const fn seed(&self) -> u64 {
        self.seed
    }

    /// Writes down each choice that is not harmless, if `is_recorded`.
    #[must_use]
    pub fn recorded(self, is_recorded: bool) -> Self {
        if is_recorded { self.with_book(|book| book.is_recorded = true) } else { self }
    }

    /// Chooses otherwise than the seed says.
    #[must_use]
    pub fn overridden(self, overrides: Overrides) -> Self {
        if overrides.is_empty() {
            return self;
        }
        self.with_book(|book| {
            book.missing = overrides.values.keys().copied().collect();
            book.overrides = overrides;
        })
    }

    fn with_book(self, write: impl FnOnce(&mut Book)) -> Self {
        let book = self.book.unwrap_or_default();
        write(&mut book.lock());
        Self { seed: self.seed, book: Some(book) }
    }

    /// Chooses a number from `0..bound`, of which 0 is harmless. `describe` says for people what
    /// asks; it is called only if that is written down.
    ///
    /// # Panics
    /// If `bound` is zero: there is nothing to choose from.
    pub fn below(
        &self,
        label: Label,
        cause: impl Hash,
        bound: u64,
        describe: impl FnOnce() -> String,
    ) -> u64 {
        assert!(bound > 0, "a choice has at least one value");
        let cause = Digest::of(&cause);
        // The high half of the product is unbiased enough for bounds far below 2^64.
        let wide = u128::from(draw(self.seed, label, cause)) * u128::from(bound);
        let drawn = (wide >> 64) as u64;
        match &self.book {
            None => drawn,
            Some(book) => book.lock().choose(label, cause, bound, drawn, describe),
        }
    }

    /// Draws 64 bits for an id.
    pub fn id(&self, label: Label, cause: impl Hash) -> u64 {
        let cause = Digest::of(&cause);
        match &self.book {
            None => draw(self.seed, label, cause),
            Some(book) => book.lock().id(self.seed, label, cause),
        }
    }

    /// What was chosen so far.
    pub fn report(&self) -> ChoiceReport {
        let Some(book) = &self.book else { return ChoiceReport::default() };
        let book = book.lock();
        ChoiceReport {
            chosen: book.chosen.clone(),
            never_came_up: book.missing.iter().copied().collect(),
            made_harmless: book.made_harmless,
        }
    }
}

impl Book {
    fn choose(
        &mut self,
        label: Label,
        cause: u64,
        bound: u64,
        drawn: u64,
        describe: impl FnOnce() -> String,
    ) -> u64 {
        let key = ChoiceKey(Digest::of(&(label, cause)));
        let value = match self.overrides.values.get(&key) {
            Some(listed) => {
                self.missing.remove(&key);
                (*listed).min(bound - 1)
            }
            None if self.overrides.harmless_unless_listed => {
                self.made_harmless += u64::from(drawn != 0);
                0
            }
            None => drawn,
        };
        if self.is_recorded && value != 0 {
            self.chosen.push(Chosen { key, label, cause: describe(), value, below: bound });
        }
        value
    }

    fn id(&mut self, seed: u64, label: Label, cause: u64) -> u64 {
        let key = ChoiceKey(Digest::of(&(label, cause)));
        match self.overrides.values.get(&key) {
            Some(listed) => {
                self.missing.remove(&key);
                *listed
            }
            None => draw(seed, label, cause),
        }
    }
}

fn draw(seed: u64, label: Label, cause: u64) -> u64 {
    Digest::of(&(seed, label, cause))
}

impl fmt::Display for ChoiceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for ChoiceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for ChoiceKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ChoiceKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        match u64::from_str_radix(&text, 16) {
            Ok(key) if text.len() == 16 => Ok(Self(key)),
            _ => Err(D::Error::custom(format!(
                "the name of a choice point has 16 hexadecimal digits, not {text:?}"
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn latency(choices: &Choices, cause: impl Hash) -> u64 {
        choices.below(Label::Latency, cause, 1_000, String::new)
    }

    #[test]
    fn a_choice_depends_on_each_of_its_parts() {
        let base = Choices::new(1).id(Label::Latency, "a");
        assert_eq!(base, Choices::new(1).id(Label::Latency, "a"));
        assert_ne!(base, Choices::new(2).id(Label::Latency, "a"));
        assert_ne!(base, Choices::new(1).id(Label::MemberId, "a"));
        assert_ne!(base, Choices::new(1).id(Label::Latency, "b"));
    }

    #[test]
    fn bounded_choices_are_spread_evenly() {
        let choices = Choices::new(7);
        let mut counts = [0_u32; 10];
        for cause in 0..100_000_u32 {
            let drawn = choices.below(Label::Latency, cause, 10, String::new);
            counts[usize::try_from(drawn).unwrap()] += 1;
        }
        assert!(counts.iter().all(|count| (9_500..10_500).contains(count)), "{counts:?}");
    }

    #[test]
    fn recording_changes_no_choice() {
        let (plain, recorded) = (Choices::new(3), Choices::new(3).recorded(true));
        assert!((0..100).all(|cause| latency(&plain, cause) == latency(&recorded, cause)));
        let report = recorded.report();
        assert!((95..=100).contains(&report.chosen.len()), "{}", report.chosen.len());
        assert_eq!((report.never_came_up.len(), report.made_harmless), (0, 0));
    }

    #[test]
    fn what_is_not_listed_is_harmless_and_counted() {
        let choices = Choices::new(3).overridden(Overrides::only([]));
        assert!((0..100).all(|cause| latency(&choices, cause) == 0));
        assert!((95..=100).contains(&choices.report().made_harmless));
    }

    #[test]
    fn a_listed_choice_that_never_comes_up_is_reported() {
        let gone = ChoiceKey(5);
        let choices = Choices::new(3).overridden(Overrides::only([(gone, 1)]));
        latency(&choices, "a");
        assert_eq!(choices.report().never_came_up, [gone]);
    }

    #[test]
    fn a_listed_value_out_of_range_is_the_greatest() {
        let first = Choices::new(1).recorded(true);
        latency(&first, "a");
        let key = first.report().chosen[0].key;
        let choices = Choices::new(1).overridden(Overrides::only([(key, u64::MAX)]));
        assert_eq!(latency(&choices, "a"), 999);
    }

    #[test]
    fn ids_stay_those_of_the_seed() {
        let (plain, harmless) = (Choices::new(1), Choices::new(1).overridden(Overrides::only([])));
        assert_eq!(plain.id(Label::MemberId, 1), harmless.id(Label::MemberId, 1));
        assert_ne!(plain.id(Label::MemberId, 1), plain.id(Label::MemberId, 2));
    }

    #[test]
    fn keys_are_written_as_digits() {
        let text = serde_json::to_string(&ChoiceKey(0xab)).unwrap();
        assert_eq!(text, "\"00000000000000ab\"");
        assert_eq!(serde_json::from_str::<ChoiceKey>(&text).unwrap(), ChoiceKey(0xab));
        let error = serde_json::from_str::<ChoiceKey>("\"ab\"").unwrap_err();
        assert!(error.to_string().contains("16 hexadecimal digits"), "{error}");
    }
}

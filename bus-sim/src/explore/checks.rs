//! Checks inside of applications and tests: what is always true, what is true sometimes, and what
//! is reached. All checks of a program are known before it runs, so one that never ran is told.
//!
//! Simplified: the runs of an exploration are on one thread each, and only what happens on it is
//! seen; not what an application does on threads of its own.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;

use super::case::Violation;

/// A check in the code of an application or a test, made by [`always!`](crate::always),
/// [`sometimes!`](crate::sometimes), or [`reachable!`](crate::reachable).
///
/// A failure on some day is found by an exploration only if that day comes. `sometimes!` and
/// `reachable!` say which days there must be: they count over all runs.
///
/// ```
/// use bus_core::{NewTopic, ProducerConfig, ProducerRecord};
/// use bus_sim::explore::{Exploration, Violation};
/// use bus_sim::{SimConfig, SimHandle, always, reachable, sometimes};
///
/// async fn send(sim: SimHandle) -> Result<(), Vec<Violation>> {
///     let bus = sim.bus();
///     let sent = async {
///         bus.admin()?.create_topic(NewTopic::new("orders")).await?;
///         let producer = bus.producer(ProducerConfig::default())?;
///         producer.send(ProducerRecord::to("orders").value("1")).await
///     };
///     let began = tokio::time::Instant::now();
///     match sent.await {
///         Ok(metadata) => {
///             always!(metadata.offset == Some(0), "the first record has offset 0");
///             sometimes!(began.elapsed().as_millis() > 5, "it takes more than 5 ms");
///         }
///         Err(_) => reachable!("sending fails"),
///     }
///     Ok(())
/// }
///
/// let exploration = Exploration::new("send", SimConfig::default()).seeds(0..20);
/// let explored = exploration.checks_in(module_path!()).run(send);
/// explored.assert_held();
/// // Nothing goes wrong in this world: the test does not show what it was written for.
/// let never: Vec<_> = explored.never().map(|checked| checked.check.name).collect();
/// assert_eq!(never, ["sending fails"]);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Check {
    /// The path of the module that it is in.
    pub module: &'static str,
    /// The file that it is in.
    pub file: &'static str,
    /// Its line.
    pub line: u32,
    /// Its column.
    pub column: u32,
    /// What it says.
    pub kind: CheckKind,
    /// What it is called.
    pub name: &'static str,
}

/// What a check says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CheckKind {
    /// Whenever it runs, it is true; and it runs in some run.
    Always,
    /// It is true in some run.
    Sometimes,
    /// It runs in some run.
    Reachable,
}

/// What came of a check in all runs of an exploration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checked {
    /// The check.
    pub check: Check,
    /// In how many of the runs it ran.
    pub runs: u64,
    /// In how many of them it was true at least once.
    pub runs_true: u64,
}

impl Check {
    /// Whether it is in this module, or in one inside of it.
    fn is_in(&self, module: &str) -> bool {
        let rest = self.module.strip_prefix(module);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
    }
}

impl Checked {
    /// Whether no run showed what it says: a `sometimes!` that was never true, or another check
    /// that never ran.
    pub const fn is_never(&self) -> bool {
        match self.check.kind {
            CheckKind::Sometimes => self.runs_true == 0,
            CheckKind::Always | CheckKind::Reachable => self.runs == 0,
        }
    }
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, line, kind, name, .. } = self;
        let kind = match kind {
            CheckKind::Always => "always",
            CheckKind::Sometimes => "sometimes",
            CheckKind::Reachable => "reachable",
        };
        write!(f, "{kind} {name:?}, at {file}:{line}")
    }
}

impl fmt::Display for Checked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { check, runs, runs_true } = self;
        match check.kind {
            _ if *runs == 0 => write!(f, "{check}: never ran"),
            CheckKind::Reachable => write!(f, "{check}: in {runs} runs"),
            CheckKind::Always | CheckKind::Sometimes => {
                write!(f, "{check}: in {runs} runs, true in {runs_true}")
            }
        }
    }
}

/// A check of this program, for the macros: they put one into the catalogue.
#[derive(Debug)]
#[doc(hidden)]
pub struct Registered(pub &'static Check);

inventory::collect!(Registered);

/// What a run did with one check.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    is_true: bool,
}

/// The checks that a run came to.
#[derive(Debug, Default)]
pub(super) struct Checks {
    pub(super) seen: BTreeMap<Check, Seen>,
    /// Each check that was false, once, in the order in which they were.
    pub(super) violations: Vec<Violation>,
}

thread_local! {
    /// What the run on this thread came to; none while there is none.
    static RUN: RefCell<Option<Checks>> = const { RefCell::new(None) };
}

/// Runs `run` and returns what it returned, and the checks that it came to. It does not panic.
pub(super) fn collect<T>(run: impl FnOnce() -> T) -> (T, Checks) {
    let outer = RUN.with(|checks| checks.replace(Some(Checks::default())));
    let output = run();
    let checks = RUN.with(|checks| checks.replace(outer));
    (output, checks.unwrap_or_default())
}

/// Notes that a check ran, for the macros. Outside of an exploration nothing happens.
#[doc(hidden)]
pub fn note(check: &'static Check, is_true: bool) {
    with_run(|checks| checks.seen.entry(*check).or_default().is_true |= is_true);
}

/// Notes that a check ran that must be true, for the macros.
///
/// # Panics
/// If it is not, outside of an exploration.
#[doc(hidden)]
#[track_caller]
pub fn demand(check: &'static Check, is_true: bool, said: impl FnOnce() -> Option<String>) {
    note(check, is_true);
    if is_true {
        return;
    }
    let Check { name, file, line, .. } = check;
    let said = said().map(|said| format!(": {said}")).unwrap_or_default();
    let sentence = format!("it was not{said}, at {file}:{line}");
    let noted = with_run(|checks| {
        if checks.violations.iter().all(|violation| violation.guarantee != *name) {
            checks.violations.push(Violation::new(*name, sentence.as_str()));
        }
    });
    assert!(noted.is_some(), "always {name:?}: {sentence}");
}

fn with_run<T>(with: impl FnOnce(&mut Checks) -> T) -> Option<T> {
    // A destructor may come here when the thread ends.
    RUN.try_with(|checks| checks.try_borrow_mut().ok()?.as_mut().map(with)).ok()?
}

/// All checks of this program that are in one of these modules, with what some runs did with them.
pub(super) fn count<'a>(
    modules: &[String],
    runs: impl Iterator<Item = &'a BTreeMap<Check, Seen>>,
) -> Vec<Checked> {
    let is_asked_for =
        |check: &Check| modules.is_empty() || modules.iter().any(|module| check.is_in(module));
    let new = |check: Check| (check, Checked { check, runs: 0, runs_true: 0 });
    let all = inventory::iter::<Registered>.into_iter().map(|registered| *registered.0);
    let mut checked: BTreeMap<_, _> = all.filter(is_asked_for).map(new).collect();
    for (check, seen) in runs.flatten() {
        if let Some(checked) = checked.get_mut(check) {
            checked.runs += 1;
            checked.runs_true += u64::from(seen.is_true);
        }
    }
    checked.into_values().collect()
}

/// Says that a condition is true whenever the code comes here: if not, the run breaks the guarantee
/// of this name, and goes on. Outside of an exploration it panics like [`assert!`].
///
/// What follows the name is a message like that of [`format!`]. See [`explore`](crate::explore).
#[macro_export]
macro_rules! always {
    ($condition:expr, $name:literal $(,)?) => {
        $crate::explore::demand($crate::__check!(Always, $name), $condition, || None)
    };
    ($condition:expr, $name:literal, $($said:tt)+) => {
        $crate::explore::demand($crate::__check!(Always, $name), $condition, || {
            Some(format!($($said)+))
        })
    };
}

/// Says that a condition is true in some run of an exploration: if not,
/// [`Explored::never`](crate::explore::Explored::never) has it. See [`explore`](crate::explore).
#[macro_export]
macro_rules! sometimes {
    ($condition:expr, $name:literal $(,)?) => {
        $crate::explore::note($crate::__check!(Sometimes, $name), $condition)
    };
}

/// Says that the code comes here in some run of an exploration: if not,
/// [`Explored::never`](crate::explore::Explored::never) has it. See [`explore`](crate::explore).
#[macro_export]
macro_rules! reachable {
    ($name:literal $(,)?) => {
        $crate::explore::note($crate::__check!(Reachable, $name), true)
    };
}

/// A check at this place, in the catalogue of the program.
#[doc(hidden)]
#[macro_export]
macro_rules! __check {
    ($kind:ident, $name:literal) => {{
        static CHECK: $crate::explore::Check = $crate::explore::Check {
            module: module_path!(),
            file: file!(),
            line: line!(),
            column: column!(),
            kind: $crate::explore::CheckKind::$kind,
            name: $name,
        };
        $crate::explore::inventory::submit! { $crate::explore::Registered(&CHECK) }
        &CHECK
    }};
}

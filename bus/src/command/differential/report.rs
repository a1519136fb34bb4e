//! What `bus differential` prints.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use differential::compare::{Coverage, Divergence};
use differential::program::Program;
use differential::rules::Exclusions;
use serde::Serialize;

use super::{Arguments, Failure};

/// What came of all programs.
#[derive(Debug, Default)]
pub(super) struct Summary {
    pub(super) programs: u64,
    pub(super) steps: u64,
    /// Steps and records that the rules leave out.
    pub(super) excluded: u64,
    pub(super) time: Duration,
    /// Programs on which the real Kafka does not always agree with itself.
    pub(super) unsteady: Vec<Problem>,
    pub(super) coverage: Coverage,
    pub(super) problems: Vec<Problem>,
}

impl Summary {
    /// Counts a program in.
    pub(super) fn count(&mut self, program: &Program) {
        let count = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
        self.programs += 1;
        self.steps += count(program.steps.len());
        self.excluded += count(Exclusions::of(program).len());
    }

    fn rate(&self) -> f64 {
        let seconds = self.time.as_secs_f64();
        #[expect(clippy::cast_precision_loss, reason = "a rate is shown with one digit")]
        let programs = self.programs as f64;
        if seconds > 0.0 { programs / seconds } else { 0.0 }
    }
}

/// A program that does not give what it should.
#[derive(Debug, Serialize)]
pub(super) struct Problem {
    program: String,
    kind: String,
    steps_before: usize,
    steps_after: usize,
    /// Where the program was written.
    file: Option<PathBuf>,
    /// The program, with both outcomes where they differ.
    text: String,
}

impl Problem {
    /// The backends do not agree.
    pub(super) fn diverged(
        program: String,
        steps_before: usize,
        divergence: &Divergence,
        file: Option<PathBuf>,
    ) -> Self {
        let steps_after = divergence.program.steps.len();
        let (kind, text) = (divergence.kind(), divergence.to_string());
        Self { program, kind, steps_before, steps_after, file, text }
    }

    /// Both agree, on something else than was recorded.
    pub(super) fn changed(program: String, divergence: &Divergence) -> Self {
        let steps = divergence.program.steps.len();
        let kind = "both differ from the record, which is shown as sim".to_owned();
        let text = divergence.to_string();
        Self { program, kind, steps_before: steps, steps_after: steps, file: None, text }
    }

    /// Two runs on the simulator are not equal.
    pub(super) fn unequal(program: String, text: String) -> Self {
        let kind = "two runs on the simulator differ".to_owned();
        Self { program, kind, steps_before: 0, steps_after: 0, file: None, text }
    }
}

/// Writes one JSON object.
pub(super) fn to_json(arguments: &Arguments, summary: &Summary) -> Result<String, Failure> {
    let Summary { programs, steps, excluded, time, unsteady, coverage, problems } = summary;
    let object = Object {
        verdict: if problems.is_empty() { "held" } else { "violated" },
        kafka: (!arguments.sim_only).then_some(&arguments.kafka),
        seed: arguments.seed,
        first: arguments.first,
        programs: *programs,
        steps: *steps,
        excluded: *excluded,
        seconds: time.as_secs_f64(),
        programs_per_second: summary.rate(),
        unsteady,
        coverage,
        divergences: problems,
    };
    serde_json::to_string(&object).map_err(|error| Failure::output(error.into()))
}

#[derive(Serialize)]
struct Object<'a> {
    verdict: &'static str,
    /// Null when only the simulator was asked.
    kafka: Option<&'a String>,
    seed: u64,
    first: u64,
    programs: u64,
    steps: u64,
    excluded: u64,
    seconds: f64,
    programs_per_second: f64,
    unsteady: &'a [Problem],
    coverage: &'a Coverage,
    divergences: &'a [Problem],
}

/// Writes what a person would like to read: one line per divergence first.
pub(super) fn to_text(arguments: &Arguments, summary: &Summary) -> String {
    let Summary { programs, steps, excluded, time, unsteady, coverage, problems } = summary;
    let mut text = String::new();
    for problem in problems {
        let Problem { program, kind, steps_before, steps_after, file, .. } = problem;
        let _ = write!(text, "violated  {program}: {kind}");
        if steps_after < steps_before {
            let _ = write!(text, " ({steps_before} steps, shrunk to {steps_after})");
        }
        let _ =
            writeln!(text, "\n{}{}", problem.text, file.as_deref().map_or_else(String::new, hint));
    }
    for Problem { program, kind, text: both, .. } in unsteady {
        let _ = writeln!(text, "unsteady  {program}: {kind}\n{both}");
    }
    if problems.is_empty() {
        let _ = writeln!(text, "held");
    }
    let on = if arguments.sim_only { "the simulator".to_owned() } else { arguments.kafka.clone() };
    let seconds = time.as_secs_f64();
    let rate = summary.rate();
    let _ = writeln!(
        text,
        "{programs} programs with {steps} steps ({excluded} steps and records excluded) on {on} in \
         {seconds:.1} s: {rate:.1} per second"
    );
    if arguments.program.is_empty() {
        let _ = writeln!(text, "seed {}, from program {}", arguments.seed, arguments.first);
    }
    if !unsteady.is_empty() {
        let names = unsteady.iter().map(|problem| problem.program.as_str());
        let (count, names) = (unsteady.len(), names.collect::<Vec<_>>().join(", "));
        let _ =
            writeln!(text, "{count} unsteady (Kafka does not always agree with itself): {names}");
    }
    if arguments.coverage {
        let _ = write!(text, "\nstep, and how often which outcome\n{coverage}");
    }
    text.truncate(text.trim_end().len());
    text
}

fn hint(file: &Path) -> String {
    format!("hint: bus differential --program {}\n", file.display())
}

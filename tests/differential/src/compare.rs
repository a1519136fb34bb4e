//! Comparison: the first step on which the backends do not agree, and how to show it.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};

use ron::ser::PrettyConfig;
use serde::Serialize;

use crate::backend::Ran;
use crate::outcome::{Outcome, Sent};
use crate::program::{Program, Step};

/// A program on which the backends do not agree, with both outcomes.
#[derive(Clone, Debug)]
pub struct Divergence {
    /// The program.
    pub program: Program,
    /// What a real Kafka made of it.
    pub kafka: Ran,
    /// What the simulator made of it.
    pub sim: Ran,
}

impl Divergence {
    /// Compares what came of a program: the outcomes that both have, or the divergence.
    ///
    /// # Errors
    /// The divergence.
    pub fn between(program: &Program, kafka: Ran, sim: Ran) -> Result<Vec<Outcome>, Box<Self>> {
        match (kafka, sim) {
            (Ok(kafka), Ok(sim)) if kafka == sim => Ok(kafka),
            (kafka, sim) => Err(Box::new(Self { program: program.clone(), kafka, sim })),
        }
    }

    /// The first step on which they do not agree; `None` if one of them has no outcomes at all.
    pub fn step(&self) -> Option<usize> {
        let (Ok(kafka), Ok(sim)) = (&self.kafka, &self.sim) else { return None };
        kafka.iter().zip(sim).position(|(kafka, sim)| kafka != sim)
    }

    /// What kind of divergence it is: two of the same kind may have the same cause.
    pub fn kind(&self) -> String {
        let Some(step) = self.step() else {
            let side = |ran: &Ran| if ran.is_ok() { "outcomes" } else { "none" };
            return format!("kafka {}, sim {}", side(&self.kafka), side(&self.sim));
        };
        let of =
            |ran: &Ran| ran.as_ref().map(|outcomes| shape(&outcomes[step])).unwrap_or_default();
        let step = self.program.steps.get(step).map(step_name).unwrap_or_default();
        format!("{step}: kafka {}, sim {}", of(&self.kafka), of(&self.sim))
    }
}

/// How often each step had each kind of outcome: what a campaign has tried, and what it has not.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Coverage {
    counts: BTreeMap<String, BTreeMap<String, u64>>,
}

impl Coverage {
    /// Counts what came of a program.
    pub fn add(&mut self, program: &Program, outcomes: &[Outcome]) {
        for (step, outcome) in program.steps.iter().zip(outcomes) {
            let counts = self.counts.entry(step_name(step)).or_default();
            *counts.entry(shape(outcome)).or_default() += 1;
        }
    }
}

impl fmt::Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (step, counts) in &self.counts {
            let counts = counts.iter().map(|(outcome, count)| format!("{outcome} {count}"));
            writeln!(f, "  {step:24}  {}", counts.collect::<Vec<_>>().join(", "))?;
        }
        Ok(())
    }
}

/// The name of a step, without what it is about.
fn step_name(step: &Step) -> String {
    let (who, what) = match step {
        Step::Producer(_, step) => ("Producer", format!("{step:?}")),
        Step::Transactor(_, step) => ("Transactor", format!("{step:?}")),
        Step::Consumer(_, step) => ("Consumer", format!("{step:?}")),
        Step::Admin(step) => ("Admin", format!("{step:?}")),
    };
    let what = what.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default();
    format!("{who} {what}")
}

fn shape(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Failed(fault) => fault.kind.name().to_owned(),
        Outcome::Sent(sent) => {
            let failed = sent.iter().find_map(|sent| match sent {
                Sent::Failed(fault) => Some(fault.kind.name()),
                Sent::At(..) | Sent::Excluded(_) => None,
            });
            format!("Sent {}", failed.unwrap_or("all"))
        }
        other => {
            let text = format!("{other:?}");
            let mut words = text.split(|c: char| !c.is_alphanumeric());
            let name = words.next().unwrap_or_default();
            let detail = match other {
                Outcome::Excluded(reason) => format!(" {reason:?}"),
                Outcome::Read(reading) if !reading.errors.is_empty() => " error".to_owned(),
                Outcome::Read(reading) if reading.records.is_empty() => " nothing".to_owned(),
                _ => String::new(),
            };
            format!("{name}{detail}")
        }
    }
}

impl fmt::Display for Divergence {
    /// The program step by step, with one outcome where they agree and two where they do not.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Program { topics, producers, transactors, consumers, steps } = &self.program;
        writeln!(f, "  topics       {}", line(topics))?;
        let configured = [
            ("producers", line(producers), producers.is_empty()),
            ("transactors", line(transactors), transactors.is_empty()),
            ("consumers", line(consumers), consumers.is_empty()),
        ];
        for (name, text, _) in configured.iter().filter(|(.., is_empty)| !is_empty) {
            writeln!(f, "  {name:11}  {text}")?;
        }
        for (n, step) in steps.iter().enumerate() {
            writeln!(f, "  {n:>3}  {}", line(step))?;
            let of = |ran: &Ran| ran.as_ref().ok().and_then(|o| o.get(n)).map(line);
            match (of(&self.kafka), of(&self.sim)) {
                (Some(kafka), Some(sim)) if kafka == sim => writeln!(f, "       both   {kafka}")?,
                (kafka, sim) => {
                    let shown = |side: Option<String>| side.unwrap_or_else(|| "-".to_owned());
                    writeln!(f, "     ! kafka  {}", shown(kafka))?;
                    writeln!(f, "     ! sim    {}", shown(sim))?;
                }
            }
        }
        for (side, ran) in [("kafka", &self.kafka), ("sim", &self.sim)] {
            if let Err(why) = ran {
                writeln!(f, "  {side} gave no outcomes: {why}")?;
            }
        }
        Ok(())
    }
}

/// A value on one line.
pub(crate) fn line<T: Serialize>(value: &T) -> String {
    let pretty =
        PrettyConfig::new().depth_limit(0).extensions(ron::extensions::Extensions::IMPLICIT_SOME);
    let text = ron::Options::default().to_string_pretty(value, pretty).unwrap_or_default();
    let text = text.trim_start_matches("#![enable(implicit_some)]").trim();
    // Large records would hide what a line is about.
    const SHOWN: usize = 1_200;
    let mut line = String::with_capacity(text.len().min(SHOWN + 1));
    line.extend(text.chars().take(SHOWN));
    if line.len() < text.len() {
        let _ = write!(line, "… ({} more)", text.len() - line.len());
    }
    line
}

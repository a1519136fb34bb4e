//! Campaigns: many random programs, side by side on one Kafka.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use futures_util::future::join;
use futures_util::stream::{self, StreamExt as _};

use crate::backend::{OnKafka, OnSim, Ran};
use crate::compare::{Coverage, Divergence};
use crate::generate::{Features, program_of};
use crate::outcome::Outcome;
use crate::program::Program;
use crate::rules::Exclusions;
use crate::shrink::shrink;

/// A real Kafka and the simulator, side by side. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Pair {
    kafka: OnKafka,
    sim: OnSim,
    run_id: Arc<str>,
    runs: Arc<AtomicU64>,
}

/// What came of a program on both.
#[derive(Clone, Debug)]
pub enum Verdict {
    /// They agree on these outcomes.
    Agreed(Vec<Outcome>),
    /// They do not, but the real Kafka does not always agree with itself: the simulator does what
    /// it does at other times. The divergence is that of the first run.
    Unsteady(Box<Divergence>),
    /// They do not, and the real Kafka never did what the simulator does.
    Diverged(Box<Divergence>),
}

impl Pair {
    /// Puts the simulator beside a Kafka, with as many brokers.
    pub fn new(kafka: OnKafka, sim: OnSim) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let sim = OnSim { brokers: kafka.brokers(), ..sim };
        let run_id = format!("d{:x}", now.as_millis()).into();
        Self { kafka, sim, run_id, runs: Arc::default() }
    }

    /// Runs a program on Kafka.
    pub async fn run_on_kafka(&self, program: &Program) -> Ran {
        // Long for any program; one step has a limit of its own.
        const LIMIT: Duration = Duration::from_mins(5);

        let run = self.runs.fetch_add(1, Ordering::Relaxed);
        let prefix = format!("{}-{run}", self.run_id);
        let ran = tokio::time::timeout(LIMIT, self.kafka.run(program, &prefix)).await;
        ran.unwrap_or_else(|_| Err(format!("not over within {LIMIT:?}")))
    }

    /// Runs a program on the simulator.
    pub async fn run_on_sim(&self, program: &Program) -> Ran {
        let (sim, program) = (self.sim, program.clone());
        let ran = tokio::task::spawn_blocking(move || sim.run(&program).0).await;
        ran.unwrap_or_else(|error| Err(error.to_string()))
    }

    /// Runs a program on both and compares.
    pub async fn judge(&self, program: &Program) -> Verdict {
        /// So often the real Kafka is asked again before it is believed.
        const AGAIN: usize = 2;

        let (kafka, sim) = join(self.run_on_kafka(program), self.run_on_sim(program)).await;
        let divergence = match Divergence::between(program, kafka, sim) {
            Ok(outcomes) => return Verdict::Agreed(outcomes),
            Err(divergence) => divergence,
        };
        for _ in 0..AGAIN {
            let again = self.run_on_kafka(program).await;
            if Divergence::between(program, again, divergence.sim.clone()).is_ok() {
                return Verdict::Unsteady(divergence);
            }
        }
        Verdict::Diverged(divergence)
    }
}

/// What a campaign does.
#[derive(Clone, Debug)]
pub struct Campaign {
    /// The numbers of the programs are drawn from it.
    pub seed: u64,
    /// The first number.
    pub first: u64,
    /// How many programs.
    pub programs: u64,
    /// How many at a time.
    pub side_by_side: usize,
    /// What the programs are made of.
    pub features: Features,
    /// Ends the campaign: so many divergences are enough.
    pub divergences_max: usize,
    /// For how long a divergence is shrunk.
    pub shrink_for: Duration,
}

impl Default for Campaign {
    fn default() -> Self {
        Self {
            seed: 1,
            first: 0,
            programs: 100,
            side_by_side: 12,
            features: Features::default(),
            divergences_max: 1,
            shrink_for: Duration::from_mins(1),
        }
    }
}

/// What came of a campaign.
#[derive(Clone, Debug, Default)]
pub struct Findings {
    /// How many programs were run.
    pub programs: u64,
    /// How many steps they had.
    pub steps: u64,
    /// How many steps and records were excluded.
    pub excluded: u64,
    /// How long it took, shrinking left out.
    pub time: Duration,
    /// Programs on which the real Kafka does not always agree with itself, as they are.
    pub unsteady: Vec<(u64, Divergence)>,
    /// How often each step had each kind of outcome, where both agreed.
    pub coverage: Coverage,
    /// Divergences, shrunk.
    pub divergences: Vec<Found>,
}

/// A divergence that a campaign found.
#[derive(Clone, Debug)]
pub struct Found {
    /// The number of the program.
    pub number: u64,
    /// How many steps it had.
    pub steps_before: usize,
    /// What is left of it.
    pub shrunk: Divergence,
}

/// A program of a campaign that was run.
#[derive(Clone, Debug)]
pub struct Judged {
    /// Its number.
    pub number: u64,
    /// The program.
    pub program: Program,
    /// What came of it.
    pub verdict: Verdict,
}

impl Findings {
    /// Programs per second.
    pub fn rate(&self) -> f64 {
        let seconds = self.time.as_secs_f64();
        // A count of programs is far below what a float holds exactly.
        #[expect(clippy::cast_precision_loss, reason = "a rate is shown with one digit")]
        let programs = self.programs as f64;
        if seconds > 0.0 { programs / seconds } else { 0.0 }
    }
}

impl Campaign {
    /// Runs the programs; `done` is told of each.
    pub async fn run(&self, pair: &Pair, mut done: impl FnMut(&Judged)) -> Findings {
        let begin = Instant::now();
        let numbers = self.first..self.first.saturating_add(self.programs);
        let judged = stream::iter(numbers).map(|number| {
            let program = program_of(self.seed, number, self.features);
            async move {
                let verdict = pair.judge(&program).await;
                Judged { number, program, verdict }
            }
        });
        let mut judged = std::pin::pin!(judged.buffer_unordered(self.side_by_side.max(1)));
        let mut findings = Findings::default();
        let mut diverged = Vec::new();
        while let Some(judged) = judged.next().await {
            done(&judged);
            let Judged { number, program, verdict } = judged;
            findings.programs += 1;
            findings.steps += count(program.steps.len());
            findings.excluded += count(Exclusions::of(&program).len());
            match verdict {
                Verdict::Agreed(outcomes) => findings.coverage.add(&program, &outcomes),
                Verdict::Unsteady(divergence) => findings.unsteady.push((number, *divergence)),
                Verdict::Diverged(divergence) => diverged.push((number, divergence)),
            }
            if diverged.len() >= self.divergences_max.max(1) {
                break;
            }
        }
        findings.time = begin.elapsed();
        for (number, divergence) in diverged {
            let steps_before = divergence.program.steps.len();
            let shrunk = shrink(pair, *divergence, self.shrink_for).await;
            findings.divergences.push(Found { number, steps_before, shrunk });
        }
        findings.divergences.sort_by_key(|found| found.number);
        findings.unsteady.sort_by_key(|(number, _)| *number);
        findings
    }
}

fn count(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

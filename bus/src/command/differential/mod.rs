//! `bus differential`: the same random programs on the simulator and on a real Kafka.

mod report;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;
use differential::backend::{OnKafka, OnSim};
use differential::campaign::{Campaign, Judged, Pair, Verdict};
use differential::compare::Divergence;
use differential::file::{FileError, ProgramFile};
use differential::generate::{Features, program_of};
use differential::replay;
use indicatif::{ProgressBar, ProgressStyle};

use super::{Failure, print, say};
use report::{Problem, Summary};

/// The arguments of `bus differential`.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// How many random programs
    #[arg(long, value_name = "N", default_value_t = 100)]
    programs: u64,
    /// What they are drawn from
    #[arg(long, value_name = "S", default_value_t = 1)]
    seed: u64,
    /// The number of the first program
    #[arg(long, value_name = "N", default_value_t = 0)]
    first: u64,
    /// The real Kafka
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:9092")]
    kafka: String,
    /// Run the program of this file instead; may be given more than once
    #[arg(long, value_name = "FILE")]
    program: Vec<PathBuf>,
    /// No Kafka: each random program twice on the simulator; a program file against what Kafka made
    /// of it when it was recorded
    #[arg(long)]
    sim_only: bool,
    /// How many programs at a time
    #[arg(long, value_name = "N", default_value_t = 24)]
    jobs: usize,
    /// Stop after so many divergences
    #[arg(long, value_name = "N", default_value_t = 1)]
    divergences: usize,
    /// For how many seconds a divergence is shrunk
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    shrink: u64,
    /// Where programs are written
    #[arg(long, value_name = "DIRECTORY", default_value = ".")]
    save: PathBuf,
    /// Record what Kafka makes of the programs on which both agree: into the files of `--program`,
    /// else into a new file each
    #[arg(long, conflicts_with = "sim_only")]
    record: bool,
    /// Print how often each step had which outcome
    #[arg(long)]
    coverage: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Runs programs and prints what came of them.
pub(crate) fn differential(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let begin = Instant::now();
    let mut summary = if arguments.sim_only {
        without_kafka(arguments)?
    } else {
        let runtime = differential::runtime()
            .map_err(|error| Failure::new(error, "the system has no threads left"))?;
        runtime.block_on(with_kafka(arguments))?
    };
    if summary.time.is_zero() {
        summary.time = begin.elapsed();
    }
    print(&if arguments.json {
        report::to_json(arguments, &summary)?
    } else {
        report::to_text(arguments, &summary)
    })?;
    Ok(if summary.problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(2) })
}

async fn with_kafka(arguments: &Arguments) -> Result<Summary, Failure> {
    let files = read(&arguments.program)?;
    let kafka = OnKafka::connect(&arguments.kafka).await.map_err(|error| {
        let hint = "start one with `bus kafka up`, name another with --kafka HOST:PORT, or stay \
                    with --sim-only";
        Failure::new(error, hint)
    })?;
    let pair = Pair::new(kafka, OnSim::default());
    if files.is_empty() {
        random(arguments, &pair).await
    } else {
        replayed(arguments, files, &pair).await
    }
}

async fn random(arguments: &Arguments, pair: &Pair) -> Result<Summary, Failure> {
    let campaign = Campaign {
        seed: arguments.seed,
        first: arguments.first,
        programs: arguments.programs,
        side_by_side: arguments.jobs,
        features: Features::default(),
        divergences_max: arguments.divergences,
        shrink_for: Duration::from_secs(arguments.shrink),
    };
    let bar = progress(arguments.programs);
    let mut recorded = Vec::new();
    let findings = campaign
        .run(pair, |judged| {
            bar.inc(1);
            let Judged { number, program, verdict } = judged;
            match verdict {
                Verdict::Agreed(outcomes) if arguments.record => {
                    let mut file = ProgramFile::new(program.clone(), "");
                    file.kafka.clone_from(outcomes);
                    recorded.push((*number, file));
                }
                Verdict::Diverged(_) => bar.set_message("diverged: shrinking"),
                Verdict::Agreed(_) | Verdict::Unsteady(_) => {}
            }
        })
        .await;
    bar.finish_and_clear();
    for (number, mut file) in recorded {
        file.note = format!("Program {number} of seed {}.", arguments.seed);
        let name = format!("seed-{}-{number}.ron", arguments.seed);
        file.write(&arguments.save.join(name)).map_err(unusable)?;
    }
    let mut problems = Vec::new();
    for found in &findings.divergences {
        let file = save(arguments, found.number, &found.shrunk)?;
        let name = format!("program {} of seed {}", found.number, arguments.seed);
        problems.push(Problem::diverged(name, found.steps_before, &found.shrunk, Some(file)));
    }
    let unsteady = findings.unsteady.iter().map(|(number, divergence)| {
        let name = format!("program {number} of seed {}", arguments.seed);
        Problem::diverged(name, divergence.program.steps.len(), divergence, None)
    });
    Ok(Summary {
        programs: findings.programs,
        steps: findings.steps,
        excluded: findings.excluded,
        time: findings.time,
        unsteady: unsteady.collect(),
        coverage: findings.coverage,
        problems,
    })
}

/// Program files on both backends.
async fn replayed(
    arguments: &Arguments,
    files: Vec<(PathBuf, ProgramFile)>,
    pair: &Pair,
) -> Result<Summary, Failure> {
    let mut summary = Summary::default();
    for (path, mut file) in files {
        let name = path.display().to_string();
        summary.count(&file.program);
        let replayed = replay::on_both(&file, pair).await;
        let outcomes = match replayed.verdict {
            Verdict::Agreed(outcomes) => {
                summary.coverage.add(&file.program, &outcomes);
                outcomes
            }
            Verdict::Unsteady(divergence) => {
                let steps = divergence.program.steps.len();
                summary.unsteady.push(Problem::diverged(name, steps, &divergence, None));
                continue;
            }
            Verdict::Diverged(divergence) => {
                let steps = divergence.program.steps.len();
                summary.problems.push(Problem::diverged(name, steps, &divergence, None));
                continue;
            }
        };
        if arguments.record {
            file.kafka = outcomes;
            file.write(&path).map_err(unusable)?;
        } else if let Some(changed) = replayed.changed {
            summary.problems.push(Problem::changed(name, &changed));
        }
    }
    Ok(summary)
}

/// What can be tested with the simulator alone.
fn without_kafka(arguments: &Arguments) -> Result<Summary, Failure> {
    let mut summary = Summary::default();
    for (path, file) in read(&arguments.program)? {
        summary.count(&file.program);
        let name = path.display().to_string();
        if file.kafka.is_empty() {
            let message = format!("{name} does not say what Kafka made of it");
            return Err(Failure::new(message, "record it: --record, with a Kafka"));
        }
        match replay::on_sim(&file, OnSim::default()) {
            Ok(outcomes) => summary.coverage.add(&file.program, &outcomes),
            Err(divergence) => {
                let steps = divergence.program.steps.len();
                summary.problems.push(Problem::diverged(name, steps, &divergence, None));
            }
        }
    }
    if !arguments.program.is_empty() {
        return Ok(summary);
    }
    let bar = progress(arguments.programs);
    for number in arguments.first..arguments.first.saturating_add(arguments.programs) {
        let program = program_of(arguments.seed, number, Features::default());
        summary.count(&program);
        match replay::twice(&program, OnSim::default()) {
            Ok((outcomes, _)) => summary.coverage.add(&program, &outcomes),
            Err(why) => summary.problems.push(Problem::unequal(format!("program {number}"), why)),
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(summary)
}

fn read(paths: &[PathBuf]) -> Result<Vec<(PathBuf, ProgramFile)>, Failure> {
    let read = |path: &PathBuf| Ok((path.clone(), ProgramFile::read(path).map_err(unusable)?));
    paths.iter().map(read).collect()
}

/// Writes a diverging program with what Kafka made of it.
fn save(arguments: &Arguments, number: u64, divergence: &Divergence) -> Result<PathBuf, Failure> {
    let path = arguments.save.join(format!("divergence-{}-{number}.ron", arguments.seed));
    let note = format!("{}; program {number} of seed {}.", divergence.kind(), arguments.seed);
    let mut file = ProgramFile::new(divergence.program.clone(), note);
    file.kafka = divergence.kafka.clone().unwrap_or_default();
    file.write(&path).map_err(unusable)?;
    say(&format_args!("wrote {}", path.display()));
    Ok(path)
}

fn unusable(error: FileError) -> Failure {
    let hint = "docs/differential.md shows a program file; `bus differential --record --programs 1 \
                --save DIRECTORY` writes one";
    Failure::new(error, hint)
}

/// A bar on the terminal; nothing is drawn if stderr is none.
fn progress(programs: u64) -> ProgressBar {
    let bar = ProgressBar::new(programs);
    let style = "{bar:30} {pos} of {len} programs, {per_sec}, {eta} left {msg}";
    bar.with_style(
        ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar()),
    )
}

const EXAMPLES: &str = "\
Examples:
  bus kafka up                                           a real Kafka on port 9092
  bus differential --programs 2000 --seed 7              2,000 programs on both
  bus differential --program divergence-7-12.ron         a program from a file, on both
  bus differential --sim-only --programs 2000            each program twice on the simulator
  bus differential --sim-only --program FILE             against what Kafka made of it

Exit codes: 0 all agree, 1 usage or no Kafka, 2 a divergence.";

//! `bus traces`: the hashes of traces, to compare processes, builds, and machines by; and the
//! comparison with another process, for `bus explore --audit-process`.

use std::collections::BTreeMap;
use std::ops::Range;
use std::process::{Command, ExitCode, Stdio};

use bus::explore::WorstDays;
use bus::explore::traces::{hashes, trace};
use bus_sim::TraceHash;
use bus_sim::explore::Divergence;
use clap::Args;

use super::days::Days;
use super::{Failure, print};

/// The arguments of `bus traces`.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    #[command(flatten)]
    days: Days,
    /// Print the traces themselves, a line for each event
    #[arg(long)]
    lines: bool,
}

/// Prints a line for each seed: it and the hash of its trace.
pub(crate) fn traces(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let Days { seeds, jobs, .. } = &arguments.days;
    let days = arguments.days.worst_days()?;
    if arguments.lines {
        for seed in seeds.clone() {
            trace(&days, seed).iter().try_for_each(|line| print(line))?;
        }
    } else {
        for (seed, hash) in hashes(&days, seeds.clone(), *jobs) {
            print(&format!("{seed} {hash}"))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Runs seeds here and in another process, and returns those whose traces are not the same.
pub(super) fn compare(
    arguments: &Days,
    days: &WorstDays,
    seeds: Range<u64>,
) -> Result<Vec<Divergence>, Failure> {
    let here = hashes(days, seeds.clone(), arguments.jobs);
    let there = elsewhere(arguments, &seeds, None)?;
    let diverged = differing(seeds, &here, &there).into_iter().map(|(seed, hashes)| {
        let lines = elsewhere(arguments, &(seed..seed + 1), Some("--lines"))?;
        let lines: Vec<String> = lines.lines().map(str::to_owned).collect();
        Ok(Divergence::between(seed, hashes, &trace(days, seed), &lines))
    });
    diverged.collect()
}

/// The seeds whose hash here is not that of their line, with both; a run without one has none.
fn differing(
    seeds: Range<u64>,
    here: &BTreeMap<u64, TraceHash>,
    there: &str,
) -> Vec<(u64, [String; 2])> {
    let there: BTreeMap<&str, &str> =
        there.lines().filter_map(|line| line.split_once(' ')).collect();
    let both = seeds.map(|seed| {
        let one = here.get(&seed).map_or_else(|| "none".to_owned(), TraceHash::to_string);
        let other = there.get(&*seed.to_string()).copied().unwrap_or("none");
        (seed, [one, other.to_owned()])
    });
    both.filter(|(_, [one, other])| one != other).collect()
}

/// What `bus traces` prints in another process.
fn elsewhere(
    arguments: &Days,
    seeds: &Range<u64>,
    option: Option<&str>,
) -> Result<String, Failure> {
    let failed = |error: String| {
        let message = format!("the runs in another process failed: {error}");
        Failure::new(message, "without --audit-process there is no other process")
    };
    let program = std::env::current_exe().map_err(|error| failed(error.to_string()))?;
    let output = Command::new(program)
        .arg("traces")
        .args(arguments.to_arguments(seeds))
        .args(option)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| failed(error.to_string()))?;
    if !output.status.success() {
        return Err(failed(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

const EXAMPLES: &str = "\
Examples:
  bus traces order-export --seeds 0..1000 > here.txt      compare it with another machine's
  bus traces order-export --seeds 17..18 --lines          every event of a day

Exit codes: 0 done, 1 usage or configuration.";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_whose_hashes_differ_are_found() {
        let here = BTreeMap::from([(3, TraceHash(1)), (4, TraceHash(2)), (5, TraceHash(3))]);
        let hash = |number: u64| TraceHash(number).to_string();
        let same = format!("3 {}\n4 {}\n5 {}\n", hash(1), hash(2), hash(3));
        assert_eq!(differing(3..6, &here, &same), []);
        let other = format!("3 {}\n4 {}\n", hash(1), hash(7));
        let four = (4, [hash(2), hash(7)]);
        let five = (5, [hash(3), "none".to_owned()]);
        assert_eq!(differing(3..6, &here, &other), [four, five]);
    }
}

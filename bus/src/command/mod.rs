//! The command line: reads arguments, calls the library, prints. Decides nothing.
//!
//! Data goes to stdout and can be piped; talk goes to stderr. Exit codes: 0 held (or done), 1 usage
//! or configuration, 2 violated, 3 stalled.

mod days;
mod differential;
mod explain;
mod explore;
mod failure;
mod list;
mod replay;
mod report;
mod run;
mod spinner;
mod traces;
mod zoo;

use std::io::{self, IsTerminal as _, Write as _};
use std::process::ExitCode;

use bus::kafka::command as kafka;
use clap::{CommandFactory as _, Parser, Subcommand};
use tracing_subscriber::EnvFilter;

use failure::Failure;

/// A broker-agnostic event bus: run applications on a simulated or on a real Kafka
///
/// Without a command, it explores the order export on the simulator: as it is often written, and
/// sound.
#[derive(Debug, Parser)]
#[command(name = "bus", version, after_help = EXAMPLES)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List the applications
    List(list::Arguments),
    /// Run an application once, and judge what came of it
    Run(run::Arguments),
    /// Run an application on many worst days, and shrink what breaks a guarantee
    Explore(explore::Arguments),
    /// Print the hashes of the traces of worst days, to compare processes and machines by
    Traces(traces::Arguments),
    /// Run the run of a replay file again
    Replay(replay::Arguments),
    /// Say what happened in the run of a replay file, and what would have prevented it
    Explain(explain::Arguments),
    /// Measure the failure stories: how soon each is found, and how small it becomes
    Zoo(zoo::Arguments),
    /// Run random programs on the simulator and on a real Kafka, and compare
    Differential(differential::Arguments),
    /// Run a real Kafka on this machine, from Maven Central's jars with a JDK
    Kafka(kafka::Arguments),
}

/// Runs the command and returns its exit code.
pub(crate) fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return usage(&error),
    };
    log();
    let done = match &arguments.command {
        None => explore::demonstrate(),
        Some(Command::List(arguments)) => list::list(arguments),
        Some(Command::Run(arguments)) => run::run(arguments),
        Some(Command::Explore(arguments)) => explore::explore(arguments),
        Some(Command::Traces(arguments)) => traces::traces(arguments),
        Some(Command::Replay(arguments)) => replay::replay(arguments),
        Some(Command::Explain(arguments)) => explain::explain(arguments),
        Some(Command::Zoo(arguments)) => zoo::zoo(arguments),
        Some(Command::Differential(arguments)) => differential::differential(arguments),
        Some(Command::Kafka(arguments)) => {
            kafka::run(arguments).map(|()| ExitCode::SUCCESS).map_err(Failure::from)
        }
    };
    done.unwrap_or_else(|failure| {
        say(&failure);
        ExitCode::FAILURE
    })
}

/// Prints help where it was asked for, and else what is wrong with the arguments.
fn usage(error: &clap::Error) -> ExitCode {
    if !error.use_stderr() {
        // When nobody can read it there is nobody to tell.
        let _ = error.print();
        return ExitCode::SUCCESS;
    }
    let text = error.render();
    let text = if io::stderr().is_terminal() { text.ansi().to_string() } else { text.to_string() };
    let text = text.split("For more information").next().unwrap_or_default().trim_end();
    let named = std::env::args_os().nth(1);
    let commands = Arguments::command();
    let command = named.and_then(|name| commands.find_subcommand(name));
    let command = command.map_or_else(String::new, |command| format!("{} ", command.get_name()));
    say(&format_args!("{text}\nhint: `bus {command}--help` shows what there is, with examples"));
    ExitCode::FAILURE
}

/// Logs to stderr what `BUS_LOG` asks for.
fn log() {
    let filter = EnvFilter::try_from_env("BUS_LOG").unwrap_or_else(|_| EnvFilter::new("error"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        // The time of this machine says nothing about a simulation.
        .without_time()
        .init();
}

/// Talks to the person.
fn say(what: &dyn std::fmt::Display) {
    // When nobody can read stderr any more there is nobody to tell.
    let _ = writeln!(io::stderr().lock(), "{what}");
}

/// Prints data.
fn print(text: &str) -> Result<(), Failure> {
    writeln!(io::stdout().lock(), "{text}").map_err(Failure::output)
}

const EXAMPLES: &str = "\
Examples:
  bus                                                  the order export on its worst days
  bus list                                             what can be run
  bus run order-export --bus 'sim://?seed=7' --json    a seed of your choice, for programs
  bus explore order-export --form as-written           find what breaks it, and shrink that
  bus kafka up                                         start a real Kafka on port 9092
  bus run order-export --bus kafka://127.0.0.1:9092    the same application on it

Exit codes: 0 held, 1 usage or configuration, 2 violated, 3 stalled.
BUS_LOG=debug (or info,bus_sim=trace) writes a log to stderr.";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arguments_are_consistent() {
        Arguments::command().debug_assert();
    }
}

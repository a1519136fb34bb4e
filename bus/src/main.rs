//! The command `bus`.

use std::{error::Error as _, fmt::Write as _, io::Write as _, process::ExitCode};

use bus::kafka::{Error, command};
use clap::{Parser, Subcommand};

/// A broker-agnostic event bus: run applications on a simulated or a real Kafka.
#[derive(Debug, Parser)]
#[command(version)]
struct Bus {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a real Kafka on this machine, from Maven Central's jars with a JDK
    Kafka(command::Arguments),
}

fn main() -> ExitCode {
    let bus = match Bus::try_parse() {
        Ok(bus) => bus,
        Err(error) => {
            let _ = error.print();
            return if error.use_stderr() { ExitCode::FAILURE } else { ExitCode::SUCCESS };
        }
    };
    let Command::Kafka(arguments) = bus.command;
    match command::run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr().lock(), "{}", report(&error));
            ExitCode::FAILURE
        }
    }
}

/// Returns the error, what led to it, and what to do about it.
fn report(error: &Error) -> String {
    let mut text = format!("error: {error}");
    let mut source = error.source();
    while let Some(cause) = source {
        let _ = write!(text, ": {cause}");
        source = cause.source();
    }
    let _ = write!(text, "\nhint: {}", error.hint());
    text
}

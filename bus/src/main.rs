//! The command `bus`; what it does is in `command`.

mod command;

use std::process::ExitCode;

fn main() -> ExitCode {
    command::main()
}

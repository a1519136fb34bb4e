//! `bus list`: the applications.

use std::process::ExitCode;

use clap::Args;
use scenarios::catalogue;
use serde::Serialize;

use super::{Failure, print};

/// The arguments of `bus list`.
#[derive(Args, Debug)]
pub(crate) struct Arguments {
    /// Print one JSON array
    #[arg(long)]
    json: bool,
}

/// Prints the applications.
pub(crate) fn list(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let lines = catalogue().iter().map(|app| Line {
        name: app.name,
        title: app.title,
        forms: app.forms.iter().map(|form| app.form_name(*form)).collect(),
    });
    if arguments.json {
        let lines = lines.collect::<Vec<_>>();
        let text = serde_json::to_string(&lines);
        print(&text.map_err(|error| Failure::output(error.into()))?)?;
    } else {
        for Line { name, title, forms } in lines {
            print(&format!("{name}  {title} ({})", forms.join(", ")))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

#[derive(Serialize)]
struct Line {
    name: &'static str,
    title: &'static str,
    forms: Vec<&'static str>,
}

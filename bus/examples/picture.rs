//! Draws how a record is lost that was acknowledged by its leader alone.
//!
//! ```text
//! cargo run -p bus --example picture -- lost.html 7
//! ```
//!
//! Arguments: the file for the page, and a seed. The text for terminals is printed.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program for people")]

#[path = "../tests/picture/story.rs"]
mod story;

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let file = arguments.next().unwrap_or_else(|| "lost.html".to_owned());
    let seed = arguments.next().and_then(|seed| seed.parse().ok()).unwrap_or(7);
    let told = match story::tell(seed) {
        Ok(told) => told,
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::FAILURE;
        }
    };
    let picture = bus::picture::diagram(&told.events, story::subject(&told));
    println!("{}", bus::picture::to_text(&picture, 160));
    println!("{} of {} events are its causal past", picture.past().len(), told.events.len());
    let page = bus::picture::to_html(&picture);
    if let Err(error) = std::fs::write(&file, &page) {
        eprintln!("error: {file}: {error}");
        return ExitCode::FAILURE;
    }
    println!("{file}: {} bytes", page.len());
    ExitCode::SUCCESS
}

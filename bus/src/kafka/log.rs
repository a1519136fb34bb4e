//! Log: what a broker or Maven wrote, and the few lines of it that a person should see.

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    path::Path,
};

/// How many lines an excerpt has.
const LINES: usize = 8;

/// Returns what stands in a log from byte `from` on.
pub(super) fn read_from(path: &Path, from: u64) -> io::Result<String> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(from))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Returns how long a log is; one that isn't there has no length.
pub(super) fn length(path: &Path) -> u64 {
    path.metadata().map_or(0, |metadata| metadata.len())
}

/// Returns the lines that say why a broker ended, indented: its errors from the first one on, since
/// those that follow come from shutting down; without errors, the last lines.
pub(super) fn why_ended(text: &str) -> String {
    let lines: Vec<&str> = text.lines().filter(|line| says_something(line)).collect();
    let is_error = |line: &&str| line.contains(" ERROR ") || line.starts_with("Exception in");
    let errors = lines.iter().copied().skip_while(|line| !is_error(line));
    let errors: Vec<&str> = errors.filter(|line| !line.contains(" INFO ")).take(LINES).collect();
    if errors.is_empty() {
        indent(&lines[lines.len().saturating_sub(LINES)..])
    } else {
        indent(&errors)
    }
}

/// Returns the first lines that Maven marks as errors, indented; without such, the last lines.
pub(super) fn first_errors(text: &str) -> String {
    let errors = text.lines().filter_map(|line| Some(line.split_once("[ERROR]")?.1));
    let errors: Vec<&str> = errors.filter(|line| says_something(line)).take(1).collect();
    if errors.is_empty() { why_ended(text) } else { indent(&errors) }
}

/// Tells frames of stack traces from the rest, of which there are more than of all else.
fn says_something(line: &str) -> bool {
    let line = line.trim();
    !line.is_empty() && !line.starts_with("at ") && !line.starts_with("...")
}

fn indent(lines: &[&str]) -> String {
    let lines: Vec<String> = lines.iter().map(|line| format!("  {}", line.trim())).collect();
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_errors_say_why_a_broker_ended() {
        let text = "[main] INFO a\n[main] ERROR boom\na.Exception: b\n\tat a.b.C(C.java:1)\n\
                    Caused by: c\n\t... 7 more\n\n[main] INFO closing\n[main] ERROR not open\n";
        assert_eq!(
            why_ended(text),
            "  [main] ERROR boom\n  a.Exception: b\n  Caused by: c\n  [main] ERROR not open"
        );
    }

    #[test]
    fn without_errors_the_last_lines_are_shown() {
        let text: String = (1..=20).map(|n| format!("line {n}\n")).collect();
        let lines = why_ended(&text);
        assert_eq!(lines.lines().count(), LINES);
        assert!(lines.starts_with("  line 13\n"), "{lines}");
    }

    #[test]
    fn the_first_error_of_maven_is_shown() {
        let text = "[WARNING] w\n\u{1b}[0m[ERROR] no network\n[ERROR] \n[ERROR] -> [Help 1]\nend";
        assert_eq!(first_errors(text), "  no network");
        assert_eq!(first_errors("mvn: broken\n"), "  mvn: broken");
    }
}

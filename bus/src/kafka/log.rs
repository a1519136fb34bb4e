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

/// Returns the last lines of `text`, indented; without the frames of stack traces, of which there
/// are more than of anything that says something.
pub(super) fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.lines().filter(|line| says_something(line)).collect();
    indent(&lines[lines.len().saturating_sub(LINES)..])
}

/// Returns the first lines that Maven marks as errors, indented.
pub(super) fn first_errors(text: &str) -> String {
    let errors = text.lines().filter_map(|line| line.strip_prefix("[ERROR]"));
    let errors: Vec<&str> = errors.filter(|line| says_something(line)).take(3).collect();
    if errors.is_empty() { last_lines(text) } else { indent(&errors) }
}

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
    fn the_end_of_a_log_is_shown_without_stack_frames() {
        let mut text: String = (1..=20).map(|n| format!("line {n}\n")).collect();
        text.push_str("\nCaused by: boom\n\tat a.b.C.d(C.java:1)\n\t... 7 more\n");
        let lines = last_lines(&text);
        assert_eq!(lines.lines().count(), LINES);
        assert!(lines.starts_with("  line 14\n"), "{lines}");
        assert!(lines.ends_with("\n  Caused by: boom"), "{lines}");
    }

    #[test]
    fn the_first_errors_of_maven_are_shown() {
        let text = "[WARNING] w\n[ERROR] no network\n[ERROR] \n[ERROR] -> [Help 1]\nend";
        assert_eq!(first_errors(text), "  no network\n  -> [Help 1]");
        assert_eq!(first_errors("mvn: broken\n"), "  mvn: broken");
    }
}

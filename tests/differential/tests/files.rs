//! Broken program files: what is wrong is said with the file, the line, and what would be right.

use std::path::Path;

use differential::file::ProgramFile;

const GOOD: &str = r#"(
  version: 1,
  program: (
    topics: {T0: (partitions: 1)},
    steps: [
      Consumer(C0, Assign([("T0-0", Beginning)])),
      Consumer(C0, Read),
    ],
  ),
  kafka: [
    Done,
    Read((records: {}, is_incomplete: false, held: [])),
  ],
)
"#;

/// The message about `GOOD` with one thing changed.
fn message(from: &str, to: &str) -> String {
    assert!(GOOD.contains(from), "{from}");
    broken(&GOOD.replacen(from, to, 1))
}

fn broken(text: &str) -> String {
    let error = ProgramFile::parse(text, "a/program.ron").expect_err("it is broken");
    let message = error.to_string();
    assert!(message.contains("program file a/program.ron, line "), "{message}");
    message
}

#[track_caller]
fn says(message: &str, parts: &[&str]) {
    for part in parts {
        assert!(message.contains(part), "{part:?} is not in {message:?}");
    }
}

#[test]
fn a_good_file_is_read() {
    let file = ProgramFile::parse(GOOD, "a/program.ron").expect("it is good");
    assert_eq!((file.program.steps.len(), file.kafka.len()), (2, 2));
    assert_eq!(ProgramFile::parse(&file.to_text(), "again").expect("it is good"), file);
}

#[test]
fn a_file_that_is_cut_off_says_so_wherever_it_ends() {
    let end = GOOD.trim_end().len();
    for length in (0..end).step_by(3) {
        let text = &GOOD[..length];
        let lines = text.lines().count().max(1);
        let message = broken(text);
        let line = message.split("line ").nth(1).and_then(|rest| rest.split(',').next());
        let line = line.and_then(|line| line.parse::<usize>().ok()).expect("it names a line");
        assert!((1..=lines).contains(&line), "{message}");
    }
    let cut = GOOD.find("    steps:").expect("it is there");
    says(&broken(&GOOD[..cut]), &["is it cut off?"]);
}

#[test]
fn an_unknown_operation_is_named_beside_the_known_ones() {
    says(&message("Read)", "Raed)"), &["line 7", "`Raed`", "`Read`", "`Seek`"]);
    says(&message("Consumer(C0, R", "Consume(C0, R"), &["line 7", "`Consume`", "`Consumer`"]);
    says(&message("Beginning", "Start"), &["line 6", "`Start`", "`Beginning`", "`Committed`"]);
    says(&message("Done", "Fine"), &["line 11", "`Fine`", "`Done`"]);
}

#[test]
fn names_that_do_not_exist_are_named_beside_those_that_do() {
    says(&message("steps:", "step:"), &["line 5", "`step`", "`steps`"]);
    says(&message("C0, Read", "C9, Read"), &["line 7", "`C9`", "`C0`", "`C2`"]);
    says(&message("\"T0-0\"", "\"T0\""), &["line 6", "\"T0-1\"", "\"T0\""]);
    says(&message("{T0: (partitions: 1)}", "{T0: (partition: 1)}"), &["line 4", "`partitions`"]);
}

#[test]
fn another_version_is_told_before_anything_else() {
    says(&message("version: 1", "version: 7"), &["line 2", "version 7", "`version: 1`"]);
    let other = GOOD.replacen("version: 1", "version: 2", 1).replacen("steps", "stages", 1);
    says(&broken(&other), &["line 2", "version 2", "`version: 1`"]);
    says(&message("  version: 1,\n", ""), &["missing field", "`version`"]);
}

#[test]
fn outcomes_that_do_not_belong_to_the_steps_are_refused() {
    says(&message("    Done,\n", ""), &["line 10", "1 outcomes", "2 steps", "record it again"]);
}

#[test]
fn a_missing_file_is_named() {
    let error = ProgramFile::read(Path::new("no/such/file.ron")).expect_err("it is missing");
    says(&error.to_string(), &["program file no/such/file.ron cannot be read"]);
    let source = std::error::Error::source(&error).map(ToString::to_string);
    assert!(source.is_some(), "the system says why");
}

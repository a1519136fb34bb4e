//! Tidy: the rules of style that neither rustfmt nor clippy knows, as tests.
//!
//! A rule reads the files of the workspace and returns findings; each finding says where, and what
//! to do. Beside every rule stand small bad inputs that it must find: a rule that cannot fail is a
//! defect.

#[path = "tidy/crates.rs"]
mod crates;
#[path = "tidy/documents.rs"]
mod documents;
#[path = "tidy/files.rs"]
mod files;
#[path = "tidy/names.rs"]
mod names;
#[path = "tidy/source.rs"]
mod source;
#[path = "tidy/tokens.rs"]
mod tokens;

use files::{Files, Finding};

#[test]
fn lines_have_at_most_100_columns() {
    holds(source::line_width);
}

#[test]
fn every_file_opens_with_its_purpose() {
    holds(source::opening);
}

#[test]
fn nothing_is_left_to_do() {
    holds(source::unfinished);
}

#[test]
fn no_test_is_ignored() {
    holds(source::ignored_tests);
}

#[test]
fn every_exception_to_a_lint_has_a_reason() {
    holds(source::lint_exceptions);
}

#[test]
fn state_machines_know_neither_tokio_nor_the_driver() {
    holds(source::pure_machines);
}

#[test]
fn public_names_are_those_of_the_glossary() {
    holds(names::banned_words);
}

#[test]
fn every_crate_inherits_the_lints() {
    holds(crates::inherited_lints);
}

#[test]
fn dependencies_point_down() {
    holds(crates::arrows);
}

#[test]
fn files_name_no_path_of_one_machine() {
    holds(documents::machine_paths);
}

#[test]
fn links_of_documents_resolve() {
    holds(documents::links);
}

/// Applies a rule to the workspace, and fails with all that it finds.
fn holds(rule: fn(&Files) -> Vec<Finding>) {
    let findings = rule(&Files::of_workspace());
    let lines: Vec<String> = findings.iter().map(ToString::to_string).collect();
    assert!(findings.is_empty(), "{} finding(s):\n{}", lines.len(), lines.join("\n"));
}

//! Source: the rules for every `.rs` file.

use super::{
    files::{Files, Finding},
    tokens::{Token, code_only, tokens},
};

const WIDTH_MAX: usize = 100;

/// What a line that can't be broken contains: an address, or the start of a table's row.
const UNBREAKABLE: [&str; 4] = ["http://", "https://", "//! | ", "/// | "];

/// The folders of `bus-sim` with state machines.
const MACHINES: [&str; 3] = ["bus-sim/src/broker", "bus-sim/src/client", "bus-sim/src/protocol"];

/// Lines have at most 100 columns, but for those with an address, which can't be broken.
pub(crate) fn line_width(files: &Files) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, text) in files.ending(".rs") {
        for (line, content) in text.lines().enumerate() {
            let width = content.chars().count();
            if width > WIDTH_MAX && !UNBREAKABLE.iter().any(|part| content.contains(part)) {
                let message = format!("{width} columns: break the line at {WIDTH_MAX}");
                findings.push(Finding::new(path, line, message));
            }
        }
    }
    findings
}

/// A file opens with what it is for.
pub(crate) fn opening(files: &Files) -> Vec<Finding> {
    let unopened = files.ending(".rs").filter(|(_, text)| !text.starts_with("//! "));
    unopened
        .map(|(path, _)| {
            Finding::new(path, 0, "open the file with `//!`: what it does, and what it does not")
        })
        .collect()
}

/// What is missing says so with an error kind, and not with a panic.
pub(crate) fn unfinished(files: &Files) -> Vec<Finding> {
    find_tokens(files.ending(".rs"), |token, next| {
        let is_macro = next.is_some_and(|next| next.text == "!");
        (is_macro && matches!(token.text, "todo" | "unimplemented")).then(|| {
            format!("`{}!` panics: finish it, or answer with an error `Unsupported`", token.text)
        })
    })
}

/// A test runs, or says itself why it skips.
pub(crate) fn ignored_tests(files: &Files) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, text) in files.ending(".rs") {
        let code = code_only(text);
        for attribute in tokens(&code).windows(3) {
            let [hash, bracket, name] = attribute else { continue };
            if (hash.text, bracket.text, name.text) == ("#", "[", "ignore") {
                let message =
                    "nobody runs an ignored test: let it print why it skips, or remove it";
                findings.push(Finding::new(path, name.line, message));
            }
        }
    }
    findings
}

/// Exceptions are `#[expect(lint, reason = "…")]`: they vanish with what they excuse.
pub(crate) fn lint_exceptions(files: &Files) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, text) in files.ending(".rs") {
        let code = code_only(text);
        let tokens = tokens(&code);
        for (at, token) in tokens.iter().enumerate() {
            if !is_exception(&tokens, at) {
                continue;
            }
            let has_reason = arguments(&tokens, at + 1).iter().any(|t| t.text == "reason");
            if token.text == "allow" {
                findings.push(Finding::new(
                    path,
                    token.line,
                    "use `#[expect(…, reason = \"…\")]`, which tells when it is no longer needed",
                ));
            } else if !has_reason {
                findings.push(Finding::new(
                    path,
                    token.line,
                    "say why: `#[expect(…, reason = \"…\")]`",
                ));
            }
        }
    }
    findings
}

/// The state machines of the simulator can neither wait nor know who drives them.
pub(crate) fn pure_machines(files: &Files) -> Vec<Finding> {
    let is_machine = |path: &str| {
        MACHINES.iter().any(|folder| {
            path.strip_prefix(folder).is_some_and(|rest| rest == ".rs" || rest.starts_with('/'))
        })
    };
    find_tokens(files.ending(".rs").filter(|(path, _)| is_machine(path)), |token, _| {
        matches!(token.text, "tokio" | "driver").then(|| {
            format!(
                "a state machine must not know `{}`: take an input and add to the effects",
                token.text
            )
        })
    })
}

/// Looks at all tokens of `files` with the one that follows.
fn find_tokens<'a>(
    files: impl Iterator<Item = (&'a str, &'a str)>,
    look: impl Fn(Token<'_>, Option<Token<'_>>) -> Option<String>,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, text) in files {
        let code = code_only(text);
        let tokens = tokens(&code);
        for (at, token) in tokens.iter().enumerate() {
            let message = look(*token, tokens.get(at + 1).copied());
            findings.extend(message.map(|message| Finding::new(path, token.line, message)));
        }
    }
    findings
}

/// Says whether `allow(` or `expect(` of an attribute stands at `at`, and not a method.
fn is_exception(tokens: &[Token<'_>], at: usize) -> bool {
    let text = |at: usize| tokens.get(at).map_or("", |token: &Token<'_>| token.text);
    let before = at.checked_sub(1).map_or("", text);
    // `#[allow(…)]`, `#![allow(…)]`, and `#[cfg_attr(test, allow(…))]`.
    let in_cfg_attr = before == "," && tokens[..at].iter().rev().take(12).any(is_cfg_attr);
    matches!(text(at), "allow" | "expect") && text(at + 1) == "(" && (before == "[" || in_cfg_attr)
}

fn is_cfg_attr(token: &Token<'_>) -> bool {
    token.text == "cfg_attr"
}

/// Returns the tokens between the bracket at `open` and the one that closes it.
fn arguments<'a>(tokens: &'a [Token<'a>], open: usize) -> &'a [Token<'a>] {
    let mut depth = 0;
    for (at, token) in tokens.iter().enumerate().skip(open) {
        match token.text {
            "(" => depth += 1,
            ")" => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return &tokens[open..at];
        }
    }
    &tokens[open..]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::places;

    fn finds(rule: fn(&Files) -> Vec<Finding>, text: &str) -> Vec<String> {
        places(&rule(&Files::example(&[("a.rs", text)])))
    }

    #[test]
    fn a_wide_line_is_found() {
        let wide = "é".repeat(WIDTH_MAX + 1);
        let fits = "é".repeat(WIDTH_MAX);
        assert_eq!(finds(line_width, &format!("{fits}\n{wide}\n")), ["a.rs:2"]);
        assert!(finds(line_width, &format!("// https://a {wide}\n")).is_empty());
        let other = Files::example(&[("a.md", &wide)]);
        assert!(line_width(&other).is_empty());
    }

    #[test]
    fn a_file_without_purpose_is_found() {
        assert_eq!(finds(opening, "use a;\n"), ["a.rs:1"]);
        assert_eq!(finds(opening, ""), ["a.rs:1"]);
        assert_eq!(finds(opening, "\n//! Late.\n"), ["a.rs:1"]);
        assert!(finds(opening, "//! What it does.\n").is_empty());
    }

    #[test]
    fn what_is_left_to_do_is_found() {
        let text = "fn a() {\n    todo!()\n}\nfn b() { unimplemented !(\"x\") }\n";
        assert_eq!(finds(unfinished, text), ["a.rs:2", "a.rs:4"]);
        assert!(finds(unfinished, "// todo!()\nlet todo = \"todo!\";").is_empty());
    }

    #[test]
    fn an_ignored_test_is_found() {
        let text = "#[test]\n#[ignore]\nfn a() {}\n#[ignore = \"slow\"]\nfn b() { [ignore] }\n";
        assert_eq!(finds(ignored_tests, text), ["a.rs:2", "a.rs:4"]);
    }

    #[test]
    fn exceptions_without_reason_are_found() {
        let text = "#[allow(dead_code)]\n#[expect(\n    dead_code\n)]\n#![expect(unused)]\n\
                    #[cfg_attr(test, expect(unused))]\n#[allow(a, reason = \"b\")]\n";
        let lines = ["a.rs:1", "a.rs:2", "a.rs:5", "a.rs:6", "a.rs:7"];
        assert_eq!(finds(lint_exceptions, text), lines);
        let good = "#[expect(\n    dead_code,\n    reason = \"why\"\n)]\nlet a = b.expect(\"c\");\n\
                    f(a, expect(1));\n";
        assert!(finds(lint_exceptions, good).is_empty());
    }

    #[test]
    fn machines_that_wait_are_found() {
        let text = "//! About tokio.\nuse tokio::time;\nuse crate::{driver, node};\n";
        for (path, count) in [
            ("bus-sim/src/broker/log.rs", 2),
            ("bus-sim/src/client.rs", 2),
            ("bus-sim/src/protocol/mod.rs", 2),
            ("bus-sim/src/driver/mod.rs", 0),
            ("bus-sim/src/clients.rs", 0),
            ("bus-kafka/src/client/mod.rs", 0),
        ] {
            assert_eq!(pure_machines(&Files::example(&[(path, text)])).len(), count, "{path}");
        }
    }
}

//! Crates: the rules for every `Cargo.toml`.

use toml::{Table, Value};

use super::files::{Files, Finding};

/// The crates from the bottom up, each with those of ours that it may depend on.
///
/// Only `bus` and the tests name backends, so that an application can't.
const ARROWS: [(&str, &[&str]); 9] = [
    ("bus-core", &[]),
    ("bus-kafka", &["bus-core"]),
    ("bus-sim", &["bus-core"]),
    // The white box of a simulation, behind a feature.
    ("bus-check", &["bus-core", "bus-sim"]),
    ("bus-app", &["bus-core"]),
    ("scenarios", &["bus-core", "bus-app"]),
    ("differential", &["bus-core", "bus-kafka", "bus-sim"]),
    (
        "bus",
        &["bus-core", "bus-kafka", "bus-sim", "bus-check", "bus-app", "scenarios", "differential"],
    ),
    (
        "conformance",
        &["bus-core", "bus-kafka", "bus-sim", "bus-check", "bus-app", "scenarios", "bus"],
    ),
];

/// What is behind a backend, with the crates that may depend on it.
const BEHIND: [(&str, &[&str]); 2] =
    [("rdkafka", &["bus-kafka", "conformance"]), ("rdkafka-sys", &["bus-kafka"])];

/// Every crate takes the lints of the workspace, and every folder with a crate is a member.
pub(crate) fn inherited_lints(files: &Files) -> Vec<Finding> {
    let mut findings = Vec::new();
    let root = files.all().find(|(path, _)| *path == "Cargo.toml").map(|(_, text)| text);
    let root: Table = root.and_then(|text| text.parse().ok()).unwrap_or_default();
    let members = root.get("workspace").and_then(|workspace| workspace.get("members"));
    let members: Vec<&str> =
        members.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
    for manifest in manifests(files) {
        let Manifest { path, text, table } = match manifest {
            Ok(manifest) => manifest,
            Err(finding) => {
                findings.push(finding);
                continue;
            }
        };
        let lints = table.get("lints").and_then(|lints| lints.get("workspace"));
        if lints.and_then(Value::as_bool) != Some(true) {
            let message = "inherit the lints: `[lints]` with `workspace = true`";
            findings.push(Finding::new(path, line_of(text, "[lints]"), message));
        }
        let folder = path.trim_end_matches("/Cargo.toml");
        if !members.contains(&folder) {
            let message = "add the folder to `members` of the workspace, or nothing checks it";
            findings.push(Finding::new(path, 0, message));
        }
    }
    findings
}

/// Dependencies point down: to the contract, and never to a backend from what must not know one.
///
/// Development dependencies may point anywhere: they are not part of what is built on the crate.
pub(crate) fn arrows(files: &Files) -> Vec<Finding> {
    let mut findings = Vec::new();
    for manifest in manifests(files) {
        let Manifest { path, text, table } = match manifest {
            Ok(manifest) => manifest,
            Err(finding) => {
                findings.push(finding);
                continue;
            }
        };
        let name = table.get("package").and_then(|p| p.get("name")).and_then(Value::as_str);
        let Some((name, below)) = ARROWS.iter().find(|(crate_name, _)| Some(*crate_name) == name)
        else {
            let message = "give the crate its place in `ARROWS` of tests/tests/tidy/crates.rs";
            findings.push(Finding::new(path, line_of(text, "name"), message));
            continue;
        };
        for dependency in dependencies(&table) {
            let line = line_of(text, &dependency);
            let is_ours = ARROWS.iter().any(|(crate_name, _)| *crate_name == dependency);
            if is_ours && !below.contains(&dependency.as_str()) {
                let below = if below.is_empty() { "none of ours".into() } else { below.join(", ") };
                let message = format!("`{name}` may depend on {below}, not on `{dependency}`");
                findings.push(Finding::new(path, line, message));
            }
            let behind = BEHIND.iter().find(|(behind, _)| *behind == dependency);
            if behind.is_some_and(|(_, users)| !users.contains(name)) {
                let message = format!("only `bus-kafka` knows `{dependency}`: use its contract");
                findings.push(Finding::new(path, line, message));
            }
        }
    }
    findings
}

/// A `Cargo.toml` of a crate.
struct Manifest<'a> {
    path: &'a str,
    text: &'a str,
    table: Table,
}

fn manifests(files: &Files) -> impl Iterator<Item = Result<Manifest<'_>, Finding>> {
    files.ending("/Cargo.toml").map(|(path, text)| {
        let table = text.parse().map_err(|error: toml::de::Error| {
            Finding::new(path, 0, format!("correct it: {}", error.message()))
        })?;
        Ok(Manifest { path, text, table })
    })
}

/// Returns the names of the packages that a crate is built with, on any platform.
fn dependencies(table: &Table) -> Vec<String> {
    let platforms = table.get("target").and_then(Value::as_table).into_iter().flatten();
    let platforms = platforms.filter_map(|(_, platform)| platform.as_table());
    let mut names = Vec::new();
    for table in [table].into_iter().chain(platforms) {
        for section in ["dependencies", "build-dependencies"] {
            let section = table.get(section).and_then(Value::as_table).into_iter().flatten();
            names.extend(section.map(|(name, value)| {
                // A dependency may go by another name than its package.
                let package = value.get("package").and_then(Value::as_str);
                package.unwrap_or(name).to_owned()
            }));
        }
    }
    names
}

/// Returns the line on which `word` begins or, for a renamed package, stands.
fn line_of(text: &str, word: &str) -> usize {
    let begins = |line: &str| {
        line.strip_prefix(word)
            .is_some_and(|rest| !rest.starts_with(|c: char| c.is_alphanumeric() || c == '-'))
    };
    let line = text.lines().position(begins);
    line.or_else(|| text.lines().position(|line| line.contains(word))).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::places;

    const ROOT: (&str, &str) = ("Cargo.toml", "[workspace]\nmembers = [\"a\"]\n");

    fn lints(text: &str) -> Vec<String> {
        places(&inherited_lints(&Files::example(&[ROOT, ("a/Cargo.toml", text)])))
    }

    fn arrows_of(text: &str) -> Vec<String> {
        places(&arrows(&Files::example(&[("a/Cargo.toml", text)])))
    }

    #[test]
    fn a_crate_with_lints_of_its_own_is_found() {
        assert!(lints("[lints]\nworkspace = true\n").is_empty());
        assert_eq!(lints("[package]\nname = \"a\"\n"), ["a/Cargo.toml:1"]);
        assert_eq!(lints("[package]\n\n[lints]\nworkspace = false\n"), ["a/Cargo.toml:3"]);
        assert_eq!(lints("[lints"), ["a/Cargo.toml:1"], "what can't be read is found");
    }

    #[test]
    fn a_crate_that_is_no_member_is_found() {
        let text = "[lints]\nworkspace = true\n";
        let found = inherited_lints(&Files::example(&[ROOT, ("b/Cargo.toml", text)]));
        assert_eq!(places(&found), ["b/Cargo.toml:1"]);
    }

    #[test]
    fn arrows_that_point_up_or_sideways_are_found() {
        for (name, dependency) in [
            ("bus-core", "bus-sim.workspace = true"),
            ("bus-core", "bus = { path = \"../bus\" }"),
            ("bus-kafka", "bus-sim.workspace = true"),
            ("bus-check", "bus-app.workspace = true"),
            ("bus-app", "bus-kafka.workspace = true"),
            ("scenarios", "bus-sim.workspace = true"),
            ("scenarios", "bus.workspace = true"),
            ("bus", "conformance.workspace = true"),
            ("bus-sim", "rdkafka.workspace = true"),
            ("bus-sim", "other = { package = \"bus-kafka\", path = \"../bus-kafka\" }"),
        ] {
            for section in ["dependencies", "build-dependencies", "target.'cfg(unix)'.dependencies"]
            {
                let text = format!("[package]\nname = \"{name}\"\n[{section}]\n{dependency}\n");
                assert_eq!(arrows_of(&text), ["a/Cargo.toml:4"], "{text}");
            }
        }
    }

    #[test]
    fn arrows_that_point_down_are_good() {
        for (name, dependency) in [
            ("bus-kafka", "bus-core.workspace = true"),
            ("bus-kafka", "rdkafka.workspace = true"),
            ("scenarios", "bus-app.workspace = true"),
            ("bus", "bus-kafka.workspace = true"),
            ("conformance", "bus.workspace = true"),
        ] {
            let text = format!("[package]\nname = \"{name}\"\n[dependencies]\n{dependency}\n");
            assert!(arrows_of(&text).is_empty(), "{text}");
        }
        let tests = "[package]\nname = \"bus-check\"\n[dev-dependencies]\nbus-sim.path = \"\"\n";
        assert!(arrows_of(tests).is_empty());
    }

    #[test]
    fn a_crate_without_a_place_is_found() {
        assert_eq!(arrows_of("[package]\nname = \"new\"\n"), ["a/Cargo.toml:2"]);
    }
}

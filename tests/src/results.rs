//! The results of the runs, kept in files, and the table of cases and backends made from them.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::case::Outcome;
use crate::suite::CASES;

/// What came of the cases on one backend.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Results {
    /// By the name of the case.
    pub cases: BTreeMap<String, Outcome>,
    /// How long the newest run took.
    pub seconds: f64,
}

impl Results {
    /// Reads the results of a backend; none, if there was no run.
    pub fn read(backend: &str) -> Self {
        let text = std::fs::read_to_string(file(backend)).unwrap_or_default();
        serde_json::from_str(&text).unwrap_or_default()
    }

    /// Adds these results to those of earlier runs, without the cases that are no more.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn write(&self, backend: &str) -> io::Result<()> {
        let mut all = Self { seconds: self.seconds, ..Self::read(backend) };
        all.cases.extend(self.cases.clone());
        all.cases.retain(|name, _| CASES.iter().any(|case| case.name == name));
        let path = file(backend);
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        std::fs::write(path, serde_json::to_string_pretty(&all)? + "\n")
    }
}

/// `target/conformance/<backend>.json`.
fn file(backend: &str) -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../target")),
        PathBuf::from,
    );
    target.join("conformance").join(format!("{backend}.json"))
}

/// The table of all cases on these backends, as Markdown.
pub fn table(backends: &[(&str, Results)]) -> String {
    let names: Vec<_> = backends.iter().map(|(name, _)| *name).collect();
    let mut rows = vec![row(["Case", "Guarantee"].into_iter().chain(names))];
    rows.push(row(std::iter::repeat_n("---", backends.len() + 2)));
    let mut group = None;
    for case in CASES {
        if group.replace(case.group) != Some(case.group) {
            let title = format!("**{:?}**", case.group);
            rows.push(row(
                std::iter::once(&*title).chain(std::iter::repeat_n("", backends.len() + 1))
            ));
        }
        let mut cells = vec![format!("{} `{}`", case.id, case.name), case.guarantee()];
        cells.extend(backends.iter().map(|(_, results)| match results.cases.get(case.name) {
            None => "not run".to_owned(),
            Some(Outcome::Passed) => "passed".to_owned(),
            Some(Outcome::Skipped(reason)) => format!("skipped: {reason}"),
            Some(Outcome::Failed(_)) => "**failed**".to_owned(),
        }));
        rows.push(row(cells.iter().map(String::as_str)));
    }
    rows.join("\n") + "\n"
}

fn row<'a>(cells: impl IntoIterator<Item = &'a str>) -> String {
    format!("| {} |", cells.into_iter().collect::<Vec<_>>().join(" | "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_a_row_for_every_case() {
        let cases = BTreeMap::from([
            (CASES[0].name.to_owned(), Outcome::Passed),
            (CASES[1].name.to_owned(), Outcome::Skipped("no reason".to_owned())),
        ]);
        let table = table(&[("Kafka", Results { cases, seconds: 0.0 })]);
        assert!(table.lines().count() >= CASES.len() + 2);
        assert!(table.contains("| passed |"), "{table}");
        assert!(table.contains("| skipped: no reason |"), "{table}");
    }
}

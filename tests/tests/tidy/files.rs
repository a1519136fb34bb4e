//! Files: what the rules read, and what they say of it.

use std::{collections::BTreeMap, fmt, fs, io, path::Path};

/// Folders at the root that are not the project's: what is built, and git's own.
const FOREIGN: [&str; 2] = [".git", "target"];

/// The text files of the workspace, or of an example of one.
pub(crate) struct Files {
    /// Path from the root, with `/`, to content.
    texts: BTreeMap<String, String>,
}

/// What a rule found.
#[derive(Debug, Eq, PartialEq)]
pub(crate) struct Finding {
    /// The file, from the root of the workspace.
    pub(crate) path: String,
    /// The line, from 1 on.
    pub(crate) line: usize,
    /// What is wrong and what to do.
    pub(crate) message: String,
}

impl Files {
    /// Reads the workspace that this test belongs to. Files that are not yet committed count: they
    /// will be.
    pub(crate) fn of_workspace() -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a folder above tests");
        let mut texts = BTreeMap::new();
        if let Err(error) = collect(root, root, &mut texts) {
            panic!("reading {}: {error}", root.display());
        }
        assert!(texts.contains_key("Cargo.toml"), "{} is no workspace", root.display());
        Self { texts }
    }

    /// Makes an example, for a test of a rule.
    pub(crate) fn example(texts: &[(&str, &str)]) -> Self {
        let texts = texts.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned()));
        Self { texts: texts.collect() }
    }

    /// Returns all files as path and text, sorted by path.
    pub(crate) fn all(&self) -> impl Iterator<Item = (&str, &str)> {
        self.texts.iter().map(|(path, text)| (path.as_str(), text.as_str()))
    }

    /// Returns the files whose names end with `suffix`.
    pub(crate) fn ending(&self, suffix: &str) -> impl Iterator<Item = (&str, &str)> {
        self.all().filter(move |(path, _)| path.ends_with(suffix))
    }

    /// Says whether there is a file, or a folder with files, at `path`.
    pub(crate) fn has(&self, path: &str) -> bool {
        let folder = if path.is_empty() { String::new() } else { format!("{path}/") };
        self.texts.contains_key(path) || self.texts.keys().any(|key| key.starts_with(&folder))
    }
}

impl Finding {
    /// Says what is wrong at a line of a file, counted from 0 on, and what to do.
    pub(crate) fn new(path: &str, line: usize, message: impl Into<String>) -> Self {
        Self { path: path.to_owned(), line: line + 1, message: message.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.message)
    }
}

/// Returns where a rule finds something, as `path:line`.
pub(crate) fn places(findings: &[Finding]) -> Vec<String> {
    findings.iter().map(|finding| format!("{}:{}", finding.path, finding.line)).collect()
}

fn collect(root: &Path, folder: &Path, texts: &mut BTreeMap<String, String>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let path = entry.path();
        let relative = path.strip_prefix(root).expect("a path below the root");
        let relative = relative.to_string_lossy().replace('\\', "/");
        if FOREIGN.contains(&relative.as_str()) {
            continue;
        }
        if entry.file_type()?.is_dir() {
            collect(root, &path, texts)?;
        } else {
            // Files that are no text are kept by name, so that links to them resolve.
            texts.insert(relative, fs::read_to_string(&path).unwrap_or_default());
        }
    }
    Ok(())
}

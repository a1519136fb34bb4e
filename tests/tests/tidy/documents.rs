//! Documents: the rules for what people read, and for what must not tell where it was written.

use super::files::{Files, Finding};

/// Folders of one machine; in two pieces, so that this file has none of them.
const MACHINE: [(&str, &str); 4] =
    [("/ro", "ot/"), ("/wo", "rk/"), ("/tmp/", "bash_jobs"), ("/ho", "me/")];

/// No file names a path that exists on one machine only.
pub(crate) fn machine_paths(files: &Files) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, text) in files.all() {
        for (line, content) in text.lines().enumerate() {
            for (start, end) in MACHINE {
                let folder = format!("{start}{end}");
                if has_path(content, &folder) {
                    let message = format!("`{folder}` exists on one machine: use a relative path");
                    findings.push(Finding::new(path, line, message));
                }
            }
        }
    }
    findings
}

/// Links from one document to another file of the project resolve.
pub(crate) fn links(files: &Files) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, text) in files.ending(".md") {
        let mut in_code = false;
        for (line, content) in text.lines().enumerate() {
            if content.trim_start().starts_with("```") {
                in_code = !in_code;
            }
            if in_code {
                continue;
            }
            for target in targets(content) {
                let file = target.split('#').next().unwrap_or_default();
                let is_elsewhere = target.contains("://") || target.starts_with("mailto:");
                if is_elsewhere || file.is_empty() {
                    continue;
                }
                if !resolve(path, file).is_some_and(|file| files.has(&file)) {
                    let message = format!("there is no `{file}`: correct the link");
                    findings.push(Finding::new(path, line, message));
                }
            }
        }
    }
    findings
}

/// Says whether a path that begins with `folder` stands in the line, and not only one that has it
/// in its middle.
fn has_path(line: &str, folder: &str) -> bool {
    line.match_indices(folder).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        !before
            .is_some_and(|c| c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | '}' | ')' | '*'))
    })
}

/// Returns what the links of a line point to: `[a](target)` and `[a]: target`.
fn targets(line: &str) -> Vec<String> {
    // Code in backticks is no link, whatever it looks like.
    let outside: String = line.split('`').step_by(2).collect::<Vec<_>>().join("``");
    let inline = outside.split("](").skip(1).filter_map(|rest| rest.split([')', ' ']).next());
    let reference = outside.strip_prefix('[').and_then(|rest| rest.split_once("]: "));
    let reference = reference.and_then(|(_, rest)| rest.split(' ').next());
    inline.chain(reference).map(str::to_owned).collect()
}

/// Returns the path from the root that `link` means in the file at `path`; `None` if it leads out.
fn resolve(path: &str, link: &str) -> Option<String> {
    let mut folders: Vec<&str> = path.split('/').collect();
    folders.pop();
    for part in link.trim_end_matches('/').split('/') {
        match part {
            "." => {}
            ".." => {
                folders.pop()?;
            }
            part => folders.push(part),
        }
    }
    Some(folders.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::places;

    #[test]
    fn a_path_of_one_machine_is_found() {
        for (start, end) in MACHINE {
            let text = format!("fine\nsee {start}{end}x\n");
            let files = Files::example(&[("a.toml", &text)]);
            assert_eq!(places(&machine_paths(&files)), ["a.toml:2"], "{text}");
            let text = format!("a path of the project: tests{start}{end}x\n");
            assert!(machine_paths(&Files::example(&[("a.rs", &text)])).is_empty(), "{text}");
        }
    }

    #[test]
    fn broken_links_are_found() {
        let text = "[a](b.md)\n[a](../b.md#c) [a](missing.md)\n[a]: ../src\n[a]: gone\n\
                    [a](../../out.md)\n";
        let files = Files::example(&[("docs/a.md", text), ("b.md", ""), ("src/lib.rs", "")]);
        let lines = ["docs/a.md:1", "docs/a.md:2", "docs/a.md:4", "docs/a.md:5"];
        assert_eq!(places(&links(&files)), lines);
    }

    #[test]
    fn links_elsewhere_and_code_are_left_alone() {
        let text = "[a](https://b/c) [a](#d) [a](mailto:e@f)\n`[a](b)` and `#[c](d)`\n\
                    ```rust\nlet a = b[c](d);\n```\n[b](./docs/ \"title\")\n";
        let files = Files::example(&[("a.md", text), ("docs/b.md", "")]);
        assert_eq!(places(&links(&files)), Vec::<String>::new());
    }
}

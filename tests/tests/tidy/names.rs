//! Names: public names use the glossary's words (`docs/glossary.md`), and not those it bans.
//!
//! Only words that mean nothing else here are looked for: `message` or `queue` have good uses, and
//! a reviewer tells them from the bad ones.

use super::{
    files::{Files, Finding},
    tokens::{Token, code_only, tokens},
};

/// A banned word, and the glossary's word for the same thing.
const BANNED: [(&str, &str); 15] = [
    ("shard", "partition"),
    ("cursor", "position"),
    ("ack", "commit"),
    ("checkpoint", "committed offset"),
    ("rewind", "seek"),
    ("master", "leader"),
    ("slave", "follower"),
    ("reshuffle", "rebalance"),
    ("balancer", "assignor"),
    ("rollback", "abort"),
    ("evicted", "fenced"),
    ("kicked", "fenced"),
    ("backlog", "lag"),
    ("helper", "a noun that says what it is"),
    ("impl", "a noun that says what it is"),
];

/// What may stand between `pub` and the kind of the item.
const QUALIFIERS: [&str; 4] = ["async", "const", "extern", "unsafe"];
const KINDS: [&str; 9] =
    ["fn", "struct", "enum", "trait", "type", "const", "static", "mod", "union"];

/// Public items and fields, and the methods of public traits, have no banned word in their names.
pub(crate) fn banned_words(files: &Files) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, text) in files.ending(".rs") {
        let code = code_only(text);
        for name in public_names(&tokens(&code)) {
            let words = words(name.text);
            for (banned, better) in BANNED {
                if words.iter().any(|word| word == banned) {
                    let message = format!(
                        "`{}` has the word \"{banned}\", which the glossary bans: say {better}",
                        name.text
                    );
                    findings.push(Finding::new(path, name.line, message));
                }
            }
            if words.len() > 1 && words[0] == "get" {
                let message = format!("`{}`: a method is named for what it returns", name.text);
                findings.push(Finding::new(path, name.line, message));
            }
        }
    }
    findings
}

/// Returns the names that other crates may see, and a few that they can't.
fn public_names<'a>(tokens: &[Token<'a>]) -> Vec<Token<'a>> {
    let text = |at: usize| tokens.get(at).map_or("", |token: &Token<'_>| token.text);
    let mut names = Vec::new();
    // The depth of braces in which the methods of a public trait stand.
    let mut depth = 0;
    let mut traits = Vec::new();
    let mut trait_begins = false;
    for at in 0..tokens.len() {
        match text(at) {
            "{" => {
                depth += 1;
                if trait_begins {
                    traits.push(depth);
                    trait_begins = false;
                }
            }
            "}" => {
                if traits.last() == Some(&depth) {
                    traits.pop();
                }
                depth -= 1;
            }
            // `pub(crate)` and the like are not public.
            "pub" if text(at + 1) != "(" => {
                let name = name_after(tokens, at + 1);
                trait_begins |= name.is_some_and(|name| text(name - 1) == "trait");
                names.extend(name.map(|name| tokens[name]));
            }
            "fn" if traits.last() == Some(&depth) => names.extend(tokens.get(at + 1).copied()),
            _ => {}
        }
    }
    names
}

/// Returns where the name of the item or field stands whose `pub` is before `at`.
fn name_after(tokens: &[Token<'_>], at: usize) -> Option<usize> {
    let text = |at: usize| tokens.get(at).map_or("", |token: &Token<'_>| token.text);
    let mut at = at;
    while QUALIFIERS.contains(&text(at))
        && KINDS.iter().chain(&QUALIFIERS).any(|k| *k == text(at + 1))
    {
        at += 1;
    }
    if KINDS.contains(&text(at)) {
        Some(at + 1)
    } else {
        // A field; a re-export has no name of its own.
        (text(at + 1) == ":" && text(at + 2) != ":").then_some(at)
    }
}

/// Splits `snake_case`, `CamelCase`, and `SCREAMING_CASE` into lower-case words.
fn words(name: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut last_is_lower = false;
    for c in name.chars() {
        if c == '_' || (c.is_uppercase() && last_is_lower) {
            words.push(String::new());
        }
        last_is_lower = c.is_lowercase() || c.is_numeric();
        if let (Some(word), true) = (words.last_mut(), c != '_') {
            word.extend(c.to_lowercase());
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::places;

    fn finds(text: &str) -> Vec<String> {
        places(&banned_words(&Files::example(&[("a.rs", text)])))
    }

    #[test]
    fn names_are_split_into_words() {
        assert_eq!(words("get_leaderEpoch"), ["get", "leader", "epoch"]);
        assert_eq!(words("ConsumerImpl"), ["consumer", "impl"]);
        assert_eq!(words("ACK_MAX"), ["ack", "max"]);
        assert_eq!(words("_acks2"), ["acks2"]);
    }

    #[test]
    fn banned_words_in_public_names_are_found() {
        for bad in [
            "pub fn rollback() {}",
            "pub async fn ack(&self) {}",
            "pub const unsafe fn kicked() {}",
            "pub const BACKLOG: usize = 1;",
            "pub struct ShardMap;",
            "pub struct A { pub cursor: u64 }",
            "pub enum MasterState {}",
            "pub trait ConsumerHelper {}",
            "pub type Slave = u8;",
            "pub mod balancer;",
            "pub fn get_offset() {}",
            "pub trait A { fn b(&self) { c(); } fn rewind(&self); }",
        ] {
            assert_eq!(finds(bad), ["a.rs:1"], "{bad}");
        }
    }

    #[test]
    fn good_and_private_names_are_left_alone() {
        for good in [
            "pub fn acks() {}",
            "fn rollback() {}",
            "pub(crate) fn ack() {}",
            "struct A { cursor: u64 }",
            "pub use crate::master::Leader;",
            "trait A { fn rewind(&self); }",
            "pub trait A { fn b(&self); } fn rewind() {}",
            "/// pub fn ack() {}\npub fn get() {}",
            "pub fn packages() { let ack = 1; }",
        ] {
            assert!(finds(good).is_empty(), "{good}: {:?}", finds(good));
        }
    }
}

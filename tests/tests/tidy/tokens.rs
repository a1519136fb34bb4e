//! Tokens: Rust source without its comments and literals, as far as the rules need it.

/// An identifier, keyword, number, or a single character of punctuation.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Token<'a> {
    /// What stands there.
    pub(crate) text: &'a str,
    /// The line, from 0 on.
    pub(crate) line: usize,
}

/// Replaces all that stands in comments, strings, and characters by spaces; lines stay lines.
pub(crate) fn code_only(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut code = String::with_capacity(text.len());
    let mut at = 0;
    while at < chars.len() {
        let end = match literal_end(&chars, at) {
            Some(end) => end.min(chars.len()),
            None => {
                code.push(chars[at]);
                at += 1;
                continue;
            }
        };
        code.extend(chars[at..end].iter().map(|c| if *c == '\n' { '\n' } else { ' ' }));
        at = end;
    }
    code
}

/// Splits code into tokens.
pub(crate) fn tokens(code: &str) -> Vec<Token<'_>> {
    let mut tokens = Vec::new();
    for (line, text) in code.lines().enumerate() {
        let mut rest = text.trim_start();
        while let Some(first) = rest.chars().next() {
            let length = if is_word(first) {
                rest.find(|c| !is_word(c)).unwrap_or(rest.len())
            } else {
                first.len_utf8()
            };
            let (token, others) = rest.split_at(length);
            tokens.push(Token { text: token, line });
            rest = others.trim_start();
        }
    }
    tokens
}

/// Returns the place after the comment or literal that begins at `at`, if one does.
fn literal_end(chars: &[char], at: usize) -> Option<usize> {
    let starts = |text: &str| text.chars().enumerate().all(|(i, c)| chars.get(at + i) == Some(&c));
    let in_word = at > 0 && is_word(chars[at - 1]);
    if starts("//") {
        let length = chars[at..].iter().position(|c| *c == '\n');
        return Some(length.map_or(chars.len(), |length| at + length));
    }
    if starts("/*") {
        return Some(block_comment_end(chars, at));
    }
    if starts("\"") {
        return Some(string_end(chars, at));
    }
    if !in_word && (starts("r\"") || starts("r#") || starts("br\"") || starts("br#")) {
        let hashes_at = at + if starts("b") { 2 } else { 1 };
        let hashes = chars[hashes_at..].iter().take_while(|c| **c == '#').count();
        // `r#name` is an identifier.
        return (chars.get(hashes_at + hashes) == Some(&'"'))
            .then(|| raw_string_end(chars, hashes_at + hashes + 1, hashes));
    }
    if starts("'\\") {
        let length = chars[at + 3..].iter().position(|c| *c == '\'')?;
        return Some(at + 3 + length + 1);
    }
    // A lifetime has no second quote after one character.
    (starts("'") && chars.get(at + 2) == Some(&'\'')).then_some(at + 3)
}

fn block_comment_end(chars: &[char], at: usize) -> usize {
    let mut depth = 0;
    let mut end = at;
    while end < chars.len() {
        match (chars[end], chars.get(end + 1)) {
            ('/', Some('*')) => depth += 1,
            ('*', Some('/')) => depth -= 1,
            _ => {
                end += 1;
                continue;
            }
        }
        end += 2;
        if depth == 0 {
            break;
        }
    }
    end
}

fn string_end(chars: &[char], at: usize) -> usize {
    let mut end = at + 1;
    while end < chars.len() && chars[end] != '"' {
        end += if chars[end] == '\\' { 2 } else { 1 };
    }
    end + 1
}

fn raw_string_end(chars: &[char], from: usize, hashes: usize) -> usize {
    let ends = |at: usize| {
        chars[at] == '"' && chars[at + 1..].iter().take_while(|c| **c == '#').count() >= hashes
    };
    let end = (from..chars.len()).find(|at| ends(*at));
    end.map_or(chars.len(), |end| end + 1 + hashes)
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        let code = code_only(text);
        tokens(&code).iter().map(|token| token.text.to_owned()).collect()
    }

    #[test]
    fn comments_are_no_code() {
        assert_eq!(words("a // b\nc /* d /* e */ f */ g\n/// h\n//! i"), ["a", "c", "g"]);
    }

    #[test]
    fn literals_are_no_code() {
        assert_eq!(words(r#"a "b \" c" d 'e' f '\'' g '\u{1}' h"#), ["a", "d", "f", "g", "h"]);
        assert_eq!(words("a r#\"b \" c\"# d br\"e\" f \"g\nh\" i"), ["a", "d", "f", "i"]);
        // A slash pair in a string does not begin a comment.
        assert_eq!(words("a \"https://b\" c"), ["a", "c"]);
    }

    #[test]
    fn lifetimes_and_raw_identifiers_are_code() {
        assert_eq!(words("&'a str"), ["&", "'", "a", "str"]);
        assert_eq!(words("<'a, 'b>"), ["<", "'", "a", ",", "'", "b", ">"]);
        assert_eq!(words("r#type"), ["r", "#", "type"]);
    }

    #[test]
    fn tokens_know_their_lines() {
        let code = code_only("a\n\"x\ny\"\nb");
        let lines: Vec<usize> = tokens(&code).iter().map(|token| token.line).collect();
        assert_eq!(lines, [0, 3]);
    }
}

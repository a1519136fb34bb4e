//! Markup: tags, attributes, and text, in a string. All text and all values of attributes are
//! escaped here and nowhere else, so none can be forgotten.

use std::fmt::{self, Display, Write as _};

/// An attribute: its name and value.
pub(super) type Attribute<'a> = (&'a str, &'a dyn Display);

/// HTML or SVG in the making.
#[derive(Debug, Default)]
pub(super) struct Markup {
    out: String,
}

impl Markup {
    /// The markup.
    pub(super) fn finish(self) -> String {
        self.out
    }

    /// Text, escaped.
    pub(super) fn text(&mut self, text: impl Display) {
        put(&mut Escaped(&mut self.out), format_args!("{text}"));
    }

    /// Our own markup, as it is.
    pub(super) fn raw(&mut self, markup: &'static str) {
        self.out.push_str(markup);
    }

    /// Markup that was made by another one of these.
    pub(super) fn insert(&mut self, markup: Self) {
        self.out.push_str(&markup.out);
    }

    /// An opening tag.
    pub(super) fn open(&mut self, tag: &'static str, attributes: &[Attribute<'_>]) {
        self.out.push('<');
        self.out.push_str(tag);
        for (name, value) in attributes {
            self.out.push(' ');
            self.out.push_str(name);
            self.out.push_str("=\"");
            put(&mut Escaped(&mut self.out), format_args!("{value}"));
            self.out.push('"');
        }
        self.out.push('>');
    }

    /// A closing tag.
    pub(super) fn close(&mut self, tag: &'static str) {
        self.out.push_str("</");
        self.out.push_str(tag);
        self.out.push('>');
    }

    /// A tag that holds a text.
    pub(super) fn element(
        &mut self,
        tag: &'static str,
        attributes: &[Attribute<'_>],
        text: impl Display,
    ) {
        self.open(tag, attributes);
        self.text(text);
        self.close(tag);
    }

    /// A tag that holds nothing, as SVG writes it.
    pub(super) fn leaf(&mut self, tag: &'static str, attributes: &[Attribute<'_>]) {
        self.open(tag, attributes);
        self.out.pop();
        self.out.push_str("/>");
    }

    /// A new line, so that a difference of two pictures can be read.
    pub(super) fn line(&mut self) {
        self.out.push('\n');
    }
}

fn put(out: &mut Escaped<'_>, text: fmt::Arguments<'_>) {
    // Writing to a string does not fail.
    let _written = out.write_fmt(text);
}

/// Writes text so that it is text in HTML and SVG, also inside of an attribute.
struct Escaped<'a>(&'a mut String);

impl fmt::Write for Escaped<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for c in text.chars() {
            match c {
                '&' => self.0.push_str("&amp;"),
                '<' => self.0.push_str("&lt;"),
                '>' => self.0.push_str("&gt;"),
                '"' => self.0.push_str("&quot;"),
                '\'' => self.0.push_str("&#39;"),
                '\n' | '\t' => self.0.push(' '),
                c if is_invisible(c) => self.0.push('\u{fffd}'),
                c => self.0.push(c),
            }
        }
        Ok(())
    }
}

/// Whether a character would show nothing, or change the direction of what is around it.
pub(super) fn is_invisible(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{feff}' | '\u{fffe}' | '\u{ffff}')
}

/// The beginning of a text that fits into so many characters.
pub(super) fn cut(text: &str, chars: usize) -> String {
    if text.chars().count() <= chars {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(chars.saturating_sub(1)).collect();
    short.push('…');
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_stays_text() {
        let mut markup = Markup::default();
        let hostile = "</script><b a='\"'>&amp;\u{0}\u{202e}";
        markup.element("p", &[("title", &hostile)], hostile);
        let escaped =
            "&lt;/script&gt;&lt;b a=&#39;&quot;&#39;&gt;&amp;amp;\u{fffd}\u{fffd}".to_owned();
        assert_eq!(markup.finish(), format!("<p title=\"{escaped}\">{escaped}</p>"));
    }

    #[test]
    fn a_cut_text_says_so() {
        assert_eq!(cut("orders", 6), "orders");
        assert_eq!(cut("orders-0", 6), "order…");
    }
}

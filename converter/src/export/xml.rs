// SPDX-License-Identifier: MIT OR Apache-2.0
//! Writes XML: every value is escaped here, and nowhere else.

use std::fmt::Write as _;

/// An XML document that is being written.
#[derive(Debug)]
pub(super) struct Xml {
    text: String,
    open: Vec<&'static str>,
}

/// Attributes: name and value.
pub(super) type Attributes<'a> = &'a [(&'a str, &'a str)];

impl Xml {
    /// Begins a document with a comment.
    pub(super) fn new(comment: &[String]) -> Self {
        let mut text = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<!--\n".to_owned();
        for line in comment {
            // Two dashes would end the comment.
            let line = line.replace("--", "- -");
            let _ = writeln!(text, "  {}", line.trim_end_matches('-'));
        }
        text.push_str("-->\n");
        Self {
            text,
            open: Vec::new(),
        }
    }

    fn begin(&mut self, name: &str, attributes: Attributes<'_>) {
        let indent = 2 * self.open.len();
        let _ = write!(self.text, "{:indent$}<{name}", "");
        for (name, value) in attributes {
            let _ = write!(self.text, " {name}=\"{}\"", escaped(value));
        }
    }

    /// Opens an element.
    pub(super) fn open(&mut self, name: &'static str, attributes: Attributes<'_>) {
        self.begin(name, attributes);
        self.text.push_str(">\n");
        self.open.push(name);
    }

    /// Closes the element that was opened last.
    pub(super) fn close(&mut self) {
        if let Some(name) = self.open.pop() {
            let indent = 2 * self.open.len();
            let _ = writeln!(self.text, "{:indent$}</{name}>", "");
        }
    }

    /// An element without content.
    pub(super) fn empty(&mut self, name: &str, attributes: Attributes<'_>) {
        self.begin(name, attributes);
        self.text.push_str("/>\n");
    }

    /// An element with text.
    pub(super) fn text(&mut self, name: &str, attributes: Attributes<'_>, text: &str) {
        self.begin(name, attributes);
        let _ = writeln!(self.text, ">{}</{name}>", escaped(text));
    }

    /// The document, with everything closed.
    pub(super) fn finish(mut self) -> String {
        while !self.open.is_empty() {
            self.close();
        }
        self.text
    }
}

/// Characters that XML 1.0 has no way to write are replaced.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&apos;"),
            '\u{fffe}' | '\u{ffff}' => escaped.push('?'),
            c if c.is_control() => escaped.push('?'),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_escaped_and_comments_cannot_end_early() {
        let mut xml = Xml::new(&["a --> b".to_owned(), "ends in -".to_owned()]);
        xml.open("a", &[("b", "\"<&>'")]);
        xml.text("c", &[], "x\u{0}\ny");
        xml.empty("d", &[]);
        let expected = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<!--\n  a - -> b\n  ends in \n-->\n\
                        <a b=\"&quot;&lt;&amp;&gt;&apos;\">\n  <c>x??y</c>\n  <d/>\n</a>\n";
        assert_eq!(xml.finish(), expected);
    }
}

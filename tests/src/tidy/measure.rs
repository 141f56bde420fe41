// SPDX-License-Identifier: MIT OR Apache-2.0
//! How long files and functions are. Printed, never failed: a long match can be the clearest text.

use super::source::{Source, Tree};

/// The longest files and functions of the shipped code, longest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Longest {
    /// Lines without unit tests, and the path.
    pub files: Vec<(usize, String)>,
    /// Lines, and `path:line name`.
    pub functions: Vec<(usize, String)>,
}

/// Measures the shipped Rust of a tree; keeps the `count` longest of each.
#[must_use]
pub fn longest(tree: &Tree, count: usize) -> Longest {
    let shipped = || {
        tree.sources
            .iter()
            .filter(|source| source.is_shipped_rust())
    };
    let mut files: Vec<_> = shipped()
        .map(|s| (s.shipped_lines().count(), s.path.clone()))
        .collect();
    let mut functions: Vec<_> = shipped().flat_map(functions_of).collect();
    for list in [&mut files, &mut functions] {
        list.sort_by(|a, b| b.cmp(a));
        list.truncate(count);
    }
    Longest { files, functions }
}

/// Finds functions by their indentation, which rustfmt guarantees: a function ends at the first
/// `}` that stands as deep as its first line.
fn functions_of(source: &Source) -> Vec<(usize, String)> {
    let mut open: Vec<(usize, usize, String)> = Vec::new();
    let mut found = Vec::new();
    for (number, line) in source.shipped_lines() {
        let indent = line.len() - line.trim_start().len();
        if let Some((_, start, name)) =
            open.pop_if(|(depth, _, _)| line.trim_end() == format!("{:depth$}}}", ""))
        {
            found.push((
                number - start + 1,
                format!("{}:{start} {name}", source.path),
            ));
        } else if let Some(name) = function_name(line)
            && !line.trim_end().ends_with([';', '}'])
        {
            open.push((indent, number, name.to_owned()));
        }
    }
    found
}

/// The name after `fn` when the line begins a function.
fn function_name(line: &str) -> Option<&str> {
    let line = line.trim_start();
    let words_before = [
        "pub ",
        "pub(crate) ",
        "pub(super) ",
        "const ",
        "async ",
        "unsafe ",
    ];
    let mut rest = line;
    while let Some(word) = words_before.iter().find(|word| rest.starts_with(**word)) {
        rest = &rest[word.len()..];
    }
    let name = rest.strip_prefix("fn ")?;
    name.split(['(', '<']).next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_function_is_measured_from_its_first_line_to_its_brace() {
        let text = "pub fn one() {\n    two();\n}\n\nimpl A {\n    fn three(\n        &self,\n    ) {\n        if x {\n        }\n    }\n}\n";
        let tree = Tree::sample(&[("disk/src/a.rs", text)]);
        let longest = longest(&tree, 5);
        assert_eq!(
            longest.functions,
            [
                (6, "disk/src/a.rs:6 three".to_owned()),
                (3, "disk/src/a.rs:1 one".to_owned())
            ]
        );
        assert_eq!(longest.files, [(12, "disk/src/a.rs".to_owned())]);
    }
}

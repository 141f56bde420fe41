// SPDX-License-Identifier: MIT OR Apache-2.0
//! The codes of findings: each is a row of `runbooks/docs/findings.md`, each row is a code, and what
//! the converter can say is said by a golden plan or named by a test.
//!
//! A code is a text of lower-case words with dots, which stands where findings have theirs (behind a
//! level, or as `code:`), or begins as documented ones do.

use std::collections::{BTreeMap, BTreeSet};

use super::{Source, Tree, Violation};

const PAGE: &str = "runbooks/docs/findings.md";
/// Names of files and services that look like codes.
const NOT_CODES: [&str; 7] = [
    "boot.csv",
    "boot.multipath",
    "disk.raw",
    "initramfs.img",
    "library.image",
    "library.json",
    "runbook.yaml",
];
/// What stands before the code of a finding.
const BEFORE: [&str; 5] = [
    "Level::Note,",
    "Level::Warning,",
    "Level::Error,",
    "level,",
    "code:",
];

/// Codes without a row, and rows without a code.
pub(super) fn documented(tree: &Tree) -> Vec<Violation> {
    let rows = rows(tree);
    let used = used(tree, &rows.keys().copied().collect());
    let mut found = Vec::new();
    for (code, (path, line)) in &used {
        if !rows.contains_key(code) {
            let problem = format!("{code} is not in {PAGE}");
            found.push(violation(path, *line, problem));
        }
    }
    for (code, line) in rows {
        if !used.contains_key(code) {
            let problem = format!("{code} is the code of no finding");
            found.push(violation(PAGE, line, problem));
        }
    }
    found
}

/// Codes of the converter that no test makes it say.
pub(super) fn tested(tree: &Tree) -> Vec<Violation> {
    let rows = rows(tree).into_keys().collect();
    let mut found = Vec::new();
    for (code, (path, line)) in used(tree, &rows) {
        let is_converter = path.starts_with("converter/src/");
        if is_converter && !tree.sources.iter().any(|source| is_said(source, code)) {
            let problem = format!("{code} is said by no golden plan, and no test names it");
            found.push(violation(path, line, problem));
        }
    }
    found
}

fn violation(path: &str, line: usize, problem: String) -> Violation {
    Violation {
        path: path.to_owned(),
        line,
        problem,
    }
}

/// Whether a golden plan has the code, or a test has it in quotes.
fn is_said(source: &Source, code: &str) -> bool {
    if source.path.ends_with(".snap") {
        return source.text.contains(&format!(" {code}: "));
    }
    let quoted = format!("\"{code}\"");
    let is_said = source.is_rust() && source.text.contains(&quoted);
    is_said && {
        let everywhere = source.text.matches(&quoted).count();
        let shipped = source.shipped_lines();
        let shipped = shipped.map(|(_, line)| line.matches(&quoted).count());
        !source.is_shipped_rust() || everywhere > shipped.sum()
    }
}

/// The codes of the page with their lines: those in the first column of a table.
fn rows(tree: &Tree) -> BTreeMap<&str, usize> {
    let page = tree.sources.iter().find(|source| source.path == PAGE);
    let lines = page.into_iter().flat_map(|page| page.text.lines());
    let mut rows = BTreeMap::new();
    for (index, line) in lines.enumerate() {
        let column = line
            .strip_prefix("| `")
            .and_then(|rest| rest.split('|').next());
        let codes = column.unwrap_or_default().split('`');
        for code in codes.filter(|text| is_code(text)) {
            rows.insert(code, index + 1);
        }
    }
    rows
}

/// Every code that is shipped, with its first place.
fn used<'a>(tree: &'a Tree, rows: &BTreeSet<&str>) -> BTreeMap<&'a str, (&'a str, usize)> {
    let families: BTreeSet<&str> = rows.iter().map(|code| family(code)).collect();
    let mut used = BTreeMap::new();
    for source in tree
        .sources
        .iter()
        .filter(|source| source.is_shipped_rust())
    {
        let mut before = "";
        for (line, text) in source.shipped_lines() {
            let mut parts = text.split('"');
            let mut in_front = parts.next().unwrap_or_default().trim();
            if in_front.is_empty() {
                in_front = before;
            }
            while let Some(quoted) = parts.next() {
                let stands_there = BEFORE.iter().any(|end| in_front.ends_with(end));
                let is_known = families.contains(family(quoted)) && !NOT_CODES.contains(&quoted);
                if is_code(quoted) && (stands_there || is_known) {
                    used.entry(quoted).or_insert((source.path.as_str(), line));
                }
                in_front = parts.next().unwrap_or_default().trim();
            }
            if !text.trim().is_empty() {
                before = text.trim();
            }
        }
    }
    used
}

fn family(code: &str) -> &str {
    code.split('.').next().unwrap_or_default()
}

fn is_code(text: &str) -> bool {
    let is_word = |word: &str| {
        let mut bytes = word.bytes();
        !word.is_empty() && bytes.all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    };
    text.contains('.') && text.split('.').all(is_word)
}

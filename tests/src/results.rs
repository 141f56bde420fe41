// SPDX-License-Identifier: MIT OR Apache-2.0
//! What benchmarks measured: tables, and the page that keeps them, of which every benchmark writes
//! sections of its own and leaves those of the others. And what became of the sample servers: a page
//! with a row for each.

use std::fmt;
use std::fs;
use std::path::Path;

use crate::server::PROJECT_DIR;

const PAGE: &str = "tests/benches/RESULTS.md";
const HEAD: &str = "# Results of the benchmarks\n\n\
    Written by `make bench`. Compare ratios and CPU seconds; the elapsed time depends on what else\n\
    the machine does.\n";

const SERVERS_PAGE: &str = "tests/RESULTS.md";
const SERVERS_HEAD: &str = "# Sample servers recovered\n\n\
    Written with `E2E_RESULTS` set, as `make test-all` does, a row for each server that passes its\n\
    drill: as the physical server it was built as, it does not start on virtio; converted, it shows its\n\
    web page there, and has the addresses, routes, swap, mounts and services as before and no failed\n\
    unit. Without KVM.\n\n\
    | server | what it is | on virtio, as it is | s to its page before | s after | profile | date | with |\n\
    |---|---|---|---|---|---|---|---|\n";

/// A Markdown table.
#[derive(Debug)]
pub struct Table(String);

impl Table {
    /// With a heading for each column.
    #[must_use]
    pub fn new(columns: &[&str]) -> Self {
        let heading = format!("| {} |\n", columns.join(" | "));
        Self(heading + &"|---".repeat(columns.len()) + "|\n")
    }

    /// One more row.
    pub fn row(&mut self, cells: &[String]) {
        self.0.push_str(&format!("| {} |\n", cells.join(" | ")));
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a promise's cell says.
#[must_use]
pub fn promise(is_kept: bool) -> String {
    if is_kept { "kept" } else { "NOT KEPT" }.to_owned()
}

/// Keeps the text of one section on the page of results.
///
/// # Panics
/// When the page cannot be written.
pub fn keep_section(title: &str, text: &str) {
    let path = Path::new(PROJECT_DIR).join(PAGE);
    // A page that is not there is begun.
    let page = fs::read_to_string(&path).unwrap_or_default();
    fs::write(path, with_section(&page, title, text)).expect("the checkout can be written to");
}

/// Keeps a server's row on the page of recovered servers: the cells after its name.
///
/// # Panics
/// When the page cannot be written.
pub fn keep_recovery(server: &str, cells: &[String]) {
    let path = Path::new(PROJECT_DIR).join(SERVERS_PAGE);
    // A page that is not there is begun.
    let page = fs::read_to_string(&path).unwrap_or_default();
    fs::write(path, with_row(&page, server, cells)).expect("the checkout can be written to");
}

/// The page with this row in place of the server's earlier one; rows are sorted.
fn with_row(page: &str, server: &str, cells: &[String]) -> String {
    let start = format!("| {server} |");
    let mut rows: Vec<String> = page
        .lines()
        .skip_while(|line| !line.starts_with("|---"))
        .skip(1)
        .filter(|line| !line.starts_with(&start))
        .map(|line| format!("{line}\n"))
        .collect();
    rows.push(format!("{start} {} |\n", cells.join(" | ")));
    rows.sort();
    SERVERS_HEAD.to_owned() + &rows.concat()
}

/// The page with this section in place of its earlier text, or at the end.
fn with_section(page: &str, title: &str, text: &str) -> String {
    let wanted = format!("## {title}");
    let mut sections: Vec<String> = Vec::new();
    for line in page.lines() {
        if line.starts_with("## ") {
            sections.push(String::new());
        }
        if let Some(section) = sections.last_mut() {
            section.push_str(line);
            section.push('\n');
        }
    }
    let new = format!("{wanted}\n\n{}", text.trim());
    match sections
        .iter_mut()
        .find(|section| section.lines().next() == Some(&wanted))
    {
        Some(section) => *section = new,
        None => sections.push(new),
    }
    sections.iter().fold(HEAD.to_owned(), |page, section| {
        page + "\n" + section.trim() + "\n"
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_section_is_replaced_and_the_others_stay() {
        let page = with_section("", "One", "first\n");
        let page = with_section(&page, "Two", "second\n\nmore\n");
        assert_eq!(
            page,
            format!("{HEAD}\n## One\n\nfirst\n\n## Two\n\nsecond\n\nmore\n")
        );
        let page = with_section(&page, "One", "changed");
        assert_eq!(
            page,
            format!("{HEAD}\n## One\n\nchanged\n\n## Two\n\nsecond\n\nmore\n")
        );
        assert_eq!(with_section(&page, "One", "changed"), page);
    }

    #[test]
    fn a_servers_row_is_replaced_and_the_others_stay() {
        let page = with_row("", "web", &["old".to_owned()]);
        let page = with_row(&page, "mail", &["new".to_owned()]);
        let page = with_row(&page, "web", &["new".to_owned()]);
        assert_eq!(
            page,
            format!("{SERVERS_HEAD}| mail | new |\n| web | new |\n")
        );
    }

    #[test]
    fn a_table_has_a_heading_and_rows() {
        let mut table = Table::new(&["what", "s"]);
        table.row(&["a copy".to_owned(), "1.00".to_owned()]);
        assert_eq!(
            table.to_string(),
            "| what | s |\n|---|---|\n| a copy | 1.00 |\n"
        );
    }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! The files that rules look at: the checkout's own, or a sample's.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Folders that hold nothing anybody wrote here.
const SKIPPED: [&str; 4] = [".git", "target", "node_modules", "output"];

/// A text file of the checkout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// Relative to the checkout, with `/`.
    pub path: String,
    /// The whole text.
    pub text: String,
    /// Whether a `#[cfg(test)] mod` declares it, or a module above it.
    pub is_test_module: bool,
}

impl Source {
    /// A file made up for a test.
    #[must_use]
    pub fn sample(path: &str, text: &str) -> Self {
        Self {
            path: path.to_owned(),
            text: text.to_owned(),
            is_test_module: false,
        }
    }

    /// Whether it is Rust.
    #[must_use]
    pub fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    /// The paths, without `.rs`, of the modules that it declares for tests only.
    fn test_modules(&self) -> Vec<String> {
        let (folder, file) = self.path.rsplit_once('/').unwrap_or(("", &self.path));
        let folder = match file.strip_suffix(".rs") {
            Some("mod" | "lib" | "main") => folder.to_owned(),
            Some(name) => format!("{folder}/{name}"),
            None => return Vec::new(),
        };
        let lines: Vec<&str> = self.text.lines().map(str::trim).collect();
        let pairs = lines.windows(2).filter(|pair| pair[0] == "#[cfg(test)]");
        let names = pairs.filter_map(|pair| {
            let name = pair[1].split_once("mod ")?.1;
            name.strip_suffix(';')
        });
        names.map(|name| format!("{folder}/{name}")).collect()
    }

    /// Whether it is part of a program or library that users get, not of a test or benchmark.
    #[must_use]
    pub fn is_shipped_rust(&self) -> bool {
        self.is_rust()
            && !self.is_test_module
            && !self.path.starts_with("tests/")
            && !self
                .path
                .split('/')
                .any(|part| matches!(part, "tests" | "benches" | "examples"))
            && !self.path.ends_with("/tests.rs")
    }

    /// The numbered lines before the file's own unit tests, without comments.
    ///
    /// Unit tests stand last in a file, so the first `#[cfg(test)]` ends the shipped part, but for
    /// one that declares a module in another file, and those of single methods.
    pub fn shipped_lines(&self) -> impl Iterator<Item = (usize, &str)> {
        let lines: Vec<&str> = self.text.lines().collect();
        let declares =
            |line: Option<&&str>| line.is_some_and(|line| line.trim_end().ends_with(';'));
        let end = (0..lines.len())
            .find(|&at| lines[at].trim_end() == "#[cfg(test)]" && !declares(lines.get(at + 1)));
        let shipped = lines
            .into_iter()
            .enumerate()
            .take(end.unwrap_or(usize::MAX));
        shipped.map(|(index, line)| (index + 1, without_comment(line)))
    }
}

/// Cuts a line at `//`, where that does not stand in a URL.
fn without_comment(line: &str) -> &str {
    let mut from = 0;
    while let Some(at) = line[from..].find("//").map(|at| at + from) {
        if at == 0 || line.as_bytes()[at - 1] != b':' {
            return &line[..at];
        }
        from = at + 2;
    }
    line
}

/// The checkout as rules see it.
#[derive(Debug, Clone, Default)]
pub struct Tree {
    /// Every text file, sorted by path.
    pub sources: Vec<Source>,
    /// Every file and folder, with the file's size in bytes.
    pub entries: Vec<(String, u64)>,
}

impl Tree {
    /// Reads the checkout at `root`.
    pub fn read(root: &Path) -> io::Result<Self> {
        let mut tree = Self::default();
        let mut folders = vec![root.to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder)? {
                tree.add(root, &entry?.path(), &mut folders)?;
            }
        }
        tree.sources.sort_by(|a, b| a.path.cmp(&b.path));
        tree.entries.sort();
        tree.mark_test_modules();
        Ok(tree)
    }

    /// Finds the files of modules that exist in tests only, and of the modules inside those.
    fn mark_test_modules(&mut self) {
        let declared: Vec<String> = self.sources.iter().flat_map(Source::test_modules).collect();
        for source in &mut self.sources {
            source.is_test_module = declared.iter().any(|module| {
                let rest = source.path.strip_prefix(module.as_str());
                rest.is_some_and(|rest| rest == ".rs" || rest.starts_with('/'))
            });
        }
    }

    fn add(&mut self, root: &Path, path: &Path, folders: &mut Vec<PathBuf>) -> io::Result<()> {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let metadata = fs::symlink_metadata(path)?;
        let relative = path
            .strip_prefix(root)
            .unwrap_or(path)
            .to_string_lossy()
            .replace('\\', "/");
        if metadata.is_dir() {
            if !SKIPPED.contains(&&*name) {
                self.entries.push((relative, 0));
                folders.push(path.to_owned());
            }
            return Ok(());
        }
        self.entries.push((relative.clone(), metadata.len()));
        // What is not UTF-8 is a fixture: its size counts, its text does not.
        if metadata.is_file()
            && let Ok(text) = fs::read_to_string(path)
        {
            self.sources.push(Source {
                path: relative,
                text,
                is_test_module: false,
            });
        }
        Ok(())
    }

    /// A tree of made-up files.
    #[must_use]
    pub fn sample(sources: &[(&str, &str)]) -> Self {
        let sources: Vec<_> = sources
            .iter()
            .map(|(path, text)| Source::sample(path, text))
            .collect();
        let entries = sources
            .iter()
            .map(|s| (s.path.clone(), s.text.len() as u64))
            .collect();
        let mut tree = Self { sources, entries };
        tree.mark_test_modules();
        tree
    }

    /// Whether a file or folder exists.
    #[must_use]
    pub fn contains(&self, path: &str) -> bool {
        let path = path.trim_end_matches('/');
        path.is_empty()
            || self
                .entries
                .binary_search_by(|(entry, _)| entry.as_str().cmp(path))
                .is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_declared_for_tests_and_what_is_in_it_is_not_shipped() {
        let tree = Tree::sample(&[
            (
                "disk/src/a/mod.rs",
                "#[cfg(test)]\npub(crate) mod phony;\nmod real;\n",
            ),
            ("disk/src/a/phony.rs", ""),
            ("disk/src/a/phony/inner.rs", ""),
            ("disk/src/a/phony_not.rs", ""),
            ("disk/src/a/real.rs", ""),
        ]);
        let shipped: Vec<_> = tree
            .sources
            .iter()
            .filter(|s| s.is_shipped_rust())
            .collect();
        let paths: Vec<_> = shipped.iter().map(|source| source.path.as_str()).collect();
        assert_eq!(
            paths,
            [
                "disk/src/a/mod.rs",
                "disk/src/a/phony_not.rs",
                "disk/src/a/real.rs"
            ]
        );
    }

    #[test]
    fn comments_and_unit_tests_are_not_shipped_lines() {
        let source = Source::sample(
            "a.rs",
            "#[cfg(test)]\nmod b;\nlet a = 1; // b\nlet u = \"http://x\";\n#[cfg(test)]\nmod tests {}\n",
        );
        let lines: Vec<_> = source.shipped_lines().skip(2).collect();
        assert_eq!(lines, [(3, "let a = 1; "), (4, "let u = \"http://x\";")]);
    }
}

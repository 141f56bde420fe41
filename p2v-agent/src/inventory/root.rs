// SPDX-License-Identifier: MIT OR Apache-2.0
//! The tree that an inventory reads: `/` of this server, or any other directory.
//!
//! What a server does not tell is absent, never an error: a file that cannot be read gives
//! `None`. Limits: files are read up to 1 MiB, directories up to 100 000 names.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

/// The most bytes that are read of one file.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// The most names that are read of one directory.
const NAMES_MAX: usize = 100_000;

/// The root of the tree.
#[derive(Debug, Clone)]
pub(crate) struct Root(PathBuf);

impl Root {
    /// Takes a directory as the root.
    pub(crate) fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// Whether it is the root of this server.
    pub(crate) fn is_this_server(&self) -> bool {
        self.0 == Path::new("/")
    }

    /// Where an absolute path of the tree is.
    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.0.join(path.trim_start_matches('/'))
    }

    /// The bytes of a file.
    pub(crate) fn bytes(&self, path: &str) -> Option<Vec<u8>> {
        let mut bytes = Vec::new();
        // A file that a server does not have, or does not show, is simply not told.
        let file = File::open(self.path(path)).ok()?;
        file.take(FILE_BYTES_MAX).read_to_end(&mut bytes).ok()?;
        Some(bytes)
    }

    /// The text of a file; what is not UTF-8 is replaced.
    pub(crate) fn text(&self, path: &str) -> Option<String> {
        Some(String::from_utf8_lossy(&self.bytes(path)?).into_owned())
    }

    /// The text of a file of one line; `None` when it is empty.
    pub(crate) fn line(&self, path: &str) -> Option<String> {
        let text = self.text(path)?;
        let line = text.trim_matches(|c: char| c.is_whitespace() || c == '\0');
        (!line.is_empty()).then(|| line.to_owned())
    }

    /// The number in a file.
    pub(crate) fn number(&self, path: &str) -> Option<u64> {
        self.line(path)?.parse().ok()
    }

    /// The names in a directory, sorted.
    pub(crate) fn names(&self, path: &str) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.path(path)) else {
            return Vec::new();
        };
        let mut names: Vec<String> = entries
            .take(NAMES_MAX)
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .collect();
        names.sort();
        names
    }

    /// Whether there is such a file or directory; a link counts, wherever it points.
    pub(crate) fn exists(&self, path: &str) -> bool {
        fs::symlink_metadata(self.path(path)).is_ok()
    }

    /// The last name of a link's target.
    pub(crate) fn link_name(&self, path: &str) -> Option<String> {
        let target = fs::read_link(self.path(path)).ok()?;
        Some(target.file_name()?.to_str()?.to_owned())
    }

    /// A link's target as it is stored.
    pub(crate) fn link_target(&self, path: &str) -> Option<String> {
        let target = fs::read_link(self.path(path)).ok()?;
        target.to_str().map(str::to_owned)
    }
}

/// `sda2` before `sda10`: names in the order of the numbers in them.
pub(crate) fn by_number(name: &str) -> (String, u64, String) {
    let start = name.find(|c: char| c.is_ascii_digit());
    let Some((letters, rest)) = start.and_then(|start| name.split_at_checked(start)) else {
        return (name.to_owned(), 0, String::new());
    };
    let end = rest
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(rest.len());
    let (digits, rest) = rest.split_at_checked(end).unwrap_or((rest, ""));
    (
        letters.to_owned(),
        digits.parse().unwrap_or(u64::MAX),
        rest.to_owned(),
    )
}

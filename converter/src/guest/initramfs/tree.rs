// SPDX-License-Identifier: MIT OR Apache-2.0
//! The tree that the kernel makes of the archives of an initramfs, without contents.
//!
//! Every path is kept with the symbolic links of its directories followed, as they were when its
//! entry was unpacked: a second archive's `lib/x` is `usr/lib/x` where the first made `lib` a link.

use std::collections::BTreeMap;

use crate::guest::cpio::{self, FileKind};

/// As many symbolic links as the kernel follows in one path.
const LINKS_FOLLOWED_MAX: usize = 40;

/// One file, directory or link of an initramfs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// What it is.
    pub kind: FileKind,
    /// File type and permissions, as in `st_mode`.
    pub mode: u32,
    /// Time of modification, in seconds since 1970.
    pub mtime: u32,
    /// Length of the data in bytes; 0 for all but the last of several hard links.
    pub length: u64,
    /// Where a symbolic link points.
    pub target: Option<String>,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Tree {
    nodes: BTreeMap<String, Node>,
    name_bytes: usize,
}

impl Tree {
    pub(super) fn len(&self) -> usize {
        self.nodes.len()
    }

    pub(super) fn name_bytes(&self) -> usize {
        self.name_bytes
    }

    pub(super) fn get(&self, path: &str) -> Option<&Node> {
        self.nodes.get(path)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &Node)> {
        self.nodes.iter().map(|(path, node)| (path.as_str(), node))
    }

    /// Adds an entry as the kernel would; gives its path, or `None` where nothing is made.
    pub(super) fn insert(&mut self, entry: &cpio::Entry, target: Option<String>) -> Option<String> {
        let path = self.resolve_parent(&entry.name)?;
        if path.is_empty() || self.is_full_directory_in_the_way(&path, entry.kind()) {
            return None;
        }
        self.name_bytes += path.len() + target.as_ref().map_or(0, String::len);
        let node = Node {
            kind: entry.kind(),
            mode: entry.mode,
            mtime: entry.mtime,
            length: entry.data_length,
            target,
        };
        self.nodes.insert(path.clone(), node);
        Some(path)
    }

    /// A directory with files in it is not removed for an entry of another type.
    fn is_full_directory_in_the_way(&self, path: &str, kind: FileKind) -> bool {
        let is_directory = self
            .get(path)
            .is_some_and(|node| node.kind == FileKind::Directory);
        if !is_directory || kind == FileKind::Directory {
            return false;
        }
        let below = format!("{path}/");
        self.nodes
            .range(below.clone()..)
            .next()
            .is_some_and(|(next, _)| next.starts_with(&below))
    }

    /// Follows all symbolic links of a path; parts that do not exist are kept as they are.
    pub(super) fn resolve(&self, path: &str) -> Option<String> {
        self.walk(path, true)
    }

    /// Follows the symbolic links of the directories of a path, not its last part.
    pub(super) fn resolve_parent(&self, path: &str) -> Option<String> {
        self.walk(path, false)
    }

    /// `None` where links lead in a circle.
    fn walk(&self, path: &str, follow_last: bool) -> Option<String> {
        let mut pending: Vec<&str> = parts(path).collect();
        let mut links = 0;
        let mut resolved = String::new();
        while let Some(part) = pending.pop() {
            if part == ".." {
                resolved.truncate(resolved.rfind('/').unwrap_or(0));
                continue;
            }
            let directory_length = resolved.len();
            if directory_length > 0 {
                resolved.push('/');
            }
            resolved.push_str(part);
            let target = self.get(&resolved).and_then(|node| node.target.as_deref());
            let Some(target) = target.filter(|_| follow_last || !pending.is_empty()) else {
                continue;
            };
            links += 1;
            if links > LINKS_FOLLOWED_MAX {
                return None;
            }
            resolved.truncate(if target.starts_with('/') {
                0
            } else {
                directory_length
            });
            pending.extend(parts(target));
        }
        Some(resolved)
    }
}

/// The parts of a path, last one first.
fn parts(path: &str) -> impl Iterator<Item = &str> {
    path.rsplit('/').filter(|part| !matches!(*part, "" | "."))
}

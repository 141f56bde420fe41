// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a plan changes: one edit per file, with its reasons.

use serde::{Deserialize, Serialize};

use crate::guest::compression::Compression;
use crate::inspect::{Encoding, FilePlace, InnerFile, TextFile};

/// One change of one file of the guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Edit {
    /// The file.
    pub place: FilePlace,
    /// Why, one sentence per thing that is changed in it.
    pub reasons: Vec<String>,
    /// What is changed.
    pub change: Change,
}

/// What is changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Change {
    /// A text file gets another content; mode, owner and attributes stay.
    Rewrite {
        /// The content that was inspected.
        before: String,
        /// The new content.
        after: String,
        /// How both are written as bytes.
        encoding: Encoding,
    },
    /// A text file that does not exist yet; missing directories are made.
    Create {
        /// Its content.
        content: String,
        /// Its permission bits.
        mode: u32,
    },
    /// A file that does not exist yet gets the bytes of another one; missing directories are made.
    Copy {
        /// The other one.
        from: FilePlace,
        /// BLAKE3 of it as it was inspected, in hexadecimal.
        hash: String,
        /// Its size in bytes.
        size_bytes: u64,
        /// The copy's permission bits.
        mode: u32,
    },
    /// An archive is appended to an initramfs.
    AppendToInitramfs(InitramfsAppend),
}

/// What an initramfs gets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InitramfsAppend {
    /// The kernel that it belongs to.
    pub kernel: String,
    /// BLAKE3 of the file that was inspected.
    pub hash_before: String,
    /// How the appended archive is compressed.
    pub compression: Compression,
    /// The kernel's modules on the root filesystem, where the indexes come from; `None` where the
    /// initramfs has no indexes, and its modules are not below `lib/modules`.
    pub module_directory: Option<FilePlace>,
    /// The modules that are added, in load order; the indexes are built anew when there are any.
    pub modules: Vec<AddedModule>,
    /// Text files that are added or that replace those inside.
    pub files: Vec<InnerFile>,
}

/// A module that an initramfs gets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddedModule {
    /// Its name.
    pub name: String,
    /// Its path below `lib/modules/<version>/` inside the initramfs, not compressed; below the root
    /// where that has no indexes.
    pub path: String,
    /// The file on the root filesystem.
    pub file: FilePlace,
    /// That file's size in bytes.
    pub size_bytes: u64,
}

/// Collects the changes of text files, several of which may concern the same file.
#[derive(Debug, Default)]
pub(crate) struct Rewrites {
    drafts: Vec<Draft>,
}

#[derive(Debug)]
struct Draft {
    file: TextFile,
    after: String,
    reasons: Vec<String>,
}

impl Rewrites {
    /// The file's text with what was changed so far, to be read.
    pub(crate) fn current(&self, file: &TextFile) -> String {
        self.drafts
            .iter()
            .find(|draft| draft.file.place == file.place)
            .map_or_else(|| file.text.clone(), |draft| draft.after.clone())
    }

    /// Changes a file: its new text is made of the current one, so that nobody undoes what another
    /// changed before. Nothing happens where the text stays the same.
    pub(crate) fn change(
        &mut self,
        file: &TextFile,
        reason: impl Into<String>,
        make: impl FnOnce(&str) -> String,
    ) {
        self.change_because(file, |text| (make(text), reason.into()));
    }

    /// The same, where the reason is known only with the new text.
    pub(crate) fn change_because(
        &mut self,
        file: &TextFile,
        make: impl FnOnce(&str) -> (String, String),
    ) {
        let current = self.current(file);
        let (after, reason) = make(&current);
        if current == after {
            return;
        }
        match self
            .drafts
            .iter_mut()
            .find(|draft| draft.file.place == file.place)
        {
            Some(draft) => {
                draft.after = after;
                draft.reasons.push(reason);
            }
            None => self.drafts.push(Draft {
                file: file.clone(),
                after,
                reasons: vec![reason],
            }),
        }
    }

    /// One edit per changed file, in the order of the first change.
    pub(crate) fn into_edits(self) -> impl Iterator<Item = Edit> {
        self.drafts
            .into_iter()
            .filter(|draft| draft.after != draft.file.text)
            .map(|draft| Edit {
                place: draft.file.place,
                reasons: draft.reasons,
                change: Change::Rewrite {
                    before: draft.file.text,
                    after: draft.after,
                    encoding: draft.file.encoding,
                },
            })
    }
}

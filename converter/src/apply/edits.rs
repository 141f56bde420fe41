// SPDX-License-Identifier: MIT OR Apache-2.0
//! Edits of files: made and checked against what was inspected, then weighed, then written.

use disk::filesystem::{Attributes, Filesystem};

use super::{AppliedFile, ApplyOptions, FILE_BYTES_MAX, Volumes, initramfs};
use crate::error::{Error, Result};
use crate::inspect::tree::encode;
use crate::inspect::{Encoding, FilePlace};
use crate::plan::{Change, Edit, InitramfsAppend};

/// Directory blocks, block maps and rounding, per file.
const OVERHEAD_BYTES: u64 = 16 << 10;

/// What one file is to hold.
#[derive(Debug)]
struct Write<'a> {
    place: &'a FilePlace,
    before: Option<String>,
    after: String,
    size_bytes: u64,
    action: Action,
}

#[derive(Debug)]
enum Action {
    Replace(Vec<u8>),
    Append(Vec<u8>),
    Create(Vec<u8>, u32),
}

impl Action {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Replace(bytes) | Self::Append(bytes) | Self::Create(bytes, _) => bytes,
        }
    }
}

/// Makes, checks and writes all edits.
pub(crate) fn write_edits(
    edits: &[Edit],
    volumes: &mut Volumes,
    options: &ApplyOptions,
) -> Result<Vec<AppliedFile>> {
    let mut writes = Vec::new();
    for edit in edits {
        writes.push(make(edit, volumes, options)?);
    }
    check_space(&writes, volumes)?;
    let mut files = Vec::new();
    for write in writes {
        carry_out(&write, volumes)?;
        files.push(AppliedFile {
            place: write.place.clone(),
            before: write.before,
            after: write.after,
            size_bytes: write.size_bytes,
        });
    }
    Ok(files)
}

fn make<'a>(edit: &'a Edit, volumes: &Volumes, options: &ApplyOptions) -> Result<Write<'a>> {
    let place = &edit.place;
    if let Change::Create { .. } | Change::Copy { .. } = edit.change
        && volumes.exists(place, &place.path)?
    {
        return Err(changed(place));
    }
    match &edit.change {
        Change::Rewrite {
            before,
            after,
            encoding,
        } => rewrite(place, [before, after], *encoding, volumes),
        Change::Create { content, mode } => {
            let bytes = content.as_bytes().to_vec();
            Ok(Write {
                place,
                before: None,
                after: hash(&bytes),
                size_bytes: bytes.len() as u64,
                action: Action::Create(bytes, *mode),
            })
        }
        Change::Copy {
            from, hash, mode, ..
        } => copy(place, from, hash, *mode, volumes),
        Change::AppendToInitramfs(append) => extend(place, append, volumes, options),
    }
}

fn changed(place: &FilePlace) -> Error {
    Error::Changed {
        place: place.guest_path.clone(),
    }
}

/// A file with another text, if it still has the one that was inspected.
fn rewrite<'a>(
    place: &'a FilePlace,
    [before, after]: [&str; 2],
    encoding: Encoding,
    volumes: &Volumes,
) -> Result<Write<'a>> {
    let current = volumes.read(place, FILE_BYTES_MAX)?;
    if encode(encoding, before).as_ref() != Some(&current) {
        return Err(changed(place));
    }
    let bytes = encode(encoding, after).ok_or_else(|| Error::File {
        place: place.guest_path.clone(),
        problem: "the new text has characters that the file's encoding lacks".to_owned(),
    })?;
    Ok(Write {
        place,
        before: Some(hash(&current)),
        after: hash(&bytes),
        size_bytes: bytes.len() as u64,
        action: Action::Replace(bytes),
    })
}

/// An initramfs with more behind it, or, where its end must be made anew, a whole new one.
fn extend<'a>(
    place: &'a FilePlace,
    append: &InitramfsAppend,
    volumes: &Volumes,
    options: &ApplyOptions,
) -> Result<Write<'a>> {
    let file = volumes.read(place, FILE_BYTES_MAX)?;
    if hash(&file) != append.hash_before {
        return Err(changed(place));
    }
    let appended = initramfs::build(place, &file, append, volumes, options)?;
    let whole = appended.apply_to(&file);
    Ok(Write {
        place,
        before: Some(hash(&file)),
        after: hash(&whole),
        size_bytes: whole.len() as u64,
        action: match appended.keep == file.len() as u64 {
            true => Action::Append(appended.bytes),
            false => Action::Replace(whole),
        },
    })
}

/// A new file with the bytes of another one, which must be what was inspected.
fn copy<'a>(
    place: &'a FilePlace,
    from: &FilePlace,
    wanted: &str,
    mode: u32,
    volumes: &Volumes,
) -> Result<Write<'a>> {
    let bytes = volumes.read(from, FILE_BYTES_MAX)?;
    let found = hash(&bytes);
    if found != wanted {
        return Err(changed(from));
    }
    Ok(Write {
        place,
        before: None,
        after: found,
        size_bytes: bytes.len() as u64,
        action: Action::Create(bytes, mode),
    })
}

/// Refuses before the first write what would not fit. A replaced file is counted whole, because
/// the old one is only removed after the new one is there.
fn check_space(writes: &[Write<'_>], volumes: &Volumes) -> Result<()> {
    for (id, free) in &volumes.free_bytes {
        let on_volume = writes.iter().filter(|write| write.place.volume == *id);
        let needed: u64 = on_volume
            .map(|write| write.action.bytes().len() as u64 + OVERHEAD_BYTES)
            .sum();
        if needed > *free {
            return Err(Error::NoSpace {
                place: id.to_string(),
                needed_bytes: needed,
                free_bytes: *free,
            });
        }
    }
    Ok(())
}

fn carry_out(write: &Write<'_>, volumes: &mut Volumes) -> Result<()> {
    let place = write.place;
    if let Action::Create(..) = write.action {
        make_directories(place, volumes)?;
    }
    let filesystem = volumes.writer(place)?;
    match &write.action {
        Action::Replace(bytes) => filesystem.write(&place.path, bytes, None),
        Action::Append(bytes) => filesystem.append(&place.path, bytes),
        Action::Create(bytes, mode) => {
            let label = label_of_parent(&**filesystem, &place.path)?;
            filesystem.write(&place.path, bytes, Some(&owned_by_root(*mode, label)))
        }
    }
    .map_err(Error::guest(&place.guest_path))
}

fn make_directories(place: &FilePlace, volumes: &mut Volumes) -> Result<()> {
    let ends: Vec<usize> = place
        .path
        .match_indices('/')
        .map(|(end, _)| end)
        .skip(1)
        .collect();
    for end in ends {
        let directory = &place.path[..end];
        if !volumes.exists(place, directory)? {
            let filesystem = volumes.writer(place)?;
            let label = label_of_parent(&**filesystem, directory)?;
            filesystem
                .create_directory(directory, &owned_by_root(0o755, label))
                .map_err(Error::guest(directory))?;
        }
    }
    Ok(())
}

/// What the guest's kernel would label a new file with: the context of its directory. Policies that
/// name single files are few, and none of what is made here is among them.
fn label_of_parent(filesystem: &dyn Filesystem, path: &str) -> Result<Option<String>> {
    let parent = match path.rsplit_once('/') {
        Some(("", _)) | None => "/",
        Some((parent, _)) => parent,
    };
    filesystem
        .selinux_context(parent)
        .map_err(Error::guest(parent))
}

fn owned_by_root(mode: u32, selinux: Option<String>) -> Attributes {
    Attributes {
        mode,
        uid: 0,
        gid: 0,
        selinux,
    }
}

/// BLAKE3 in hexadecimal.
pub(crate) fn hash(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_hex().to_string()
}

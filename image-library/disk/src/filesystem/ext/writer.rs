// SPDX-License-Identifier: MIT OR Apache-2.0
//! Writing ext2, ext3 and ext4 through `rust-fs-ext4`.
//!
//! Every operation writes into a [`Staging`] area, which is passed on when the operation has
//! succeeded and dropped when it has not: an operation is whole or absent. The journal is therefore
//! replayed once, when the filesystem is opened, and not written again; the filesystem that
//! [`ExtWriter::finish`] leaves is clean.
//!
//! **Refused:** what the library says it does not keep consistent (quota, bigalloc, project,
//! verity, mmp, casefold, encrypt and unknown features).

use std::sync::Arc;

use super::super::path::{self, GuestPath};
use super::super::staging::Staging;
use super::super::superblock;
use super::super::superblock::ext::{Superblock, feature};
use super::super::{
    Attributes, DirectoryEntry, FileType, Filesystem, Identity, Metadata, WritableFilesystem,
};
use super::features::{refuse_features, set_orphans_present};
use super::library::{Device, GivenTime, LibraryResult, ReadOnly, guard};
use super::{STRUCTURE, directory, mapped};
use crate::block::{ReadAt, WriteAt};
use crate::error::{Error, Result};
use crate::finding::{Finding, Level};

const ROOT_INODE: u32 = 2;
const SELINUX: &str = "security.selinux";

/// An ext filesystem, for reading and writing.
pub(crate) struct ExtWriter {
    identity: Identity,
    superblock: Superblock,
    device: Arc<dyn WriteAt>,
    staging: Arc<Staging>,
    now: i64,
    writable: bool,
    /// The superblock said so, and says so again at the end.
    orphans_present: bool,
    /// Absent only after an operation failed and opening again failed too.
    tree: Option<fs_ext4::Filesystem>,
}

impl std::fmt::Debug for ExtWriter {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("ExtWriter")
            .field("identity", &self.identity)
            .finish_non_exhaustive()
    }
}

impl ExtWriter {
    pub(crate) fn open(
        device: Arc<dyn WriteAt>,
        superblock: &Superblock,
        now: i64,
    ) -> Result<(Self, Vec<Finding>)> {
        let mut writer = Self::new(device, superblock, now, true);
        refuse_features(superblock)?;
        let mut findings = Vec::new();
        if superblock.needs_recovery() {
            superblock.require_own_journal()?;
            findings.push(journal_replayed());
        }
        writer.mount()?;
        writer.set_orphans_aside()?;
        writer.staging.commit()?;
        Ok((writer, findings))
    }

    /// Opens for reading what the other library does not read: inodes of 128 bytes, as ext3 had
    /// until 2008 and small filesystems for longer, and unusual features. Nothing is written, and
    /// the journal is not looked at.
    pub(crate) fn open_for_reading(
        device: Arc<dyn ReadAt>,
        superblock: &Superblock,
    ) -> Result<Self> {
        let device = Arc::new(ReadOnly(device));
        let mut reader = Self::new(device, superblock, 0, false);
        reader.mount()?;
        Ok(reader)
    }

    fn new(device: Arc<dyn WriteAt>, superblock: &Superblock, now: i64, writable: bool) -> Self {
        Self {
            identity: superblock.identity(device.length_bytes()),
            superblock: superblock.clone(),
            staging: Arc::new(Staging::new(Arc::clone(&device))),
            device,
            now,
            writable,
            orphans_present: false,
            tree: None,
        }
    }

    /// Hides the mark that the orphan file may hold something, until [`Self::finish`].
    ///
    /// A system that was imaged while it ran has the mark, and the library does not write then. The
    /// file, and the inodes that it names, are in use and in no directory: nothing here touches
    /// them, and the guest's kernel deals with them when it mounts.
    fn set_orphans_aside(&mut self) -> Result<()> {
        // The journal may just have brought a newer superblock.
        let superblock = superblock::ext::read(&*self.staging)?;
        self.orphans_present = superblock.is_some_and(|superblock| {
            superblock.ro_compat & feature::RO_COMPAT_ORPHAN_PRESENT != 0
        });
        if self.orphans_present {
            self.close()?;
            set_orphans_present(&self.staging, false)?;
            self.mount()?;
        }
        Ok(())
    }

    fn library_device(&self) -> Device {
        Device {
            staging: Arc::clone(&self.staging),
            writable: self.writable,
        }
    }

    fn mount(&mut self) -> Result<()> {
        let device = Arc::new(self.library_device());
        let runtime = Arc::new(GivenTime(self.now));
        let mounted = guard(
            || fs_ext4::Filesystem::mount_with_runtime(device, runtime),
            "/",
        );
        let mut tree = mounted?;
        // The staging area makes an operation whole, so writing everything twice gains nothing.
        tree.journal = None;
        self.tree = Some(tree);
        Ok(())
    }

    fn tree(&self) -> Result<&fs_ext4::Filesystem> {
        self.tree
            .as_ref()
            .ok_or_else(|| Error::corrupt(STRUCTURE, 0, "an earlier operation left it unreadable"))
    }

    fn look<T>(
        &self,
        path: &str,
        operation: impl FnOnce(&fs_ext4::Filesystem) -> LibraryResult<T>,
    ) -> Result<T> {
        let tree = self.tree()?;
        guard(|| operation(tree), path)
    }

    /// Runs one operation that writes: all of it reaches the device, or nothing.
    fn change<T>(
        &mut self,
        path: &str,
        operation: impl FnOnce(&fs_ext4::Filesystem) -> LibraryResult<T>,
    ) -> Result<T> {
        let outcome = self.look(path, operation);
        self.settle(outcome)
    }

    /// Runs one operation, and appends to the file that it names: one whose blocks are listed in
    /// pointers, which the library's own writer does not extend.
    fn change_and_append(
        &mut self,
        path: &str,
        operation: impl FnOnce(&fs_ext4::Filesystem) -> LibraryResult<Option<u32>>,
        content: &[u8],
    ) -> Result<()> {
        let outcome = match self.look(path, operation) {
            Ok(Some(number)) if !content.is_empty() => self.close().and_then(|()| {
                let device = self.library_device();
                let (superblock, now) = (&self.superblock, self.now);
                guard(
                    || mapped::append(&device, superblock, number, content, now),
                    path,
                )
            }),
            Ok(_) => Ok(()),
            Err(error) => Err(error),
        };
        self.settle(outcome)
    }

    /// Passes on what an operation wrote, or drops it.
    fn settle<T>(&mut self, outcome: Result<T>) -> Result<T> {
        match &outcome {
            Ok(_) => self.staging.commit()?,
            Err(_) => {
                // What the library remembers may be what was written and is now dropped.
                drop(self.tree.take());
                self.staging.discard();
            }
        }
        if self.tree.is_none() {
            self.mount()?;
        }
        outcome
    }

    /// Closes the library's handle, which writes back what it remembers.
    fn close(&mut self) -> Result<()> {
        match self.tree.take() {
            Some(tree) => guard(|| tree.finish(), "/"),
            None => Ok(()),
        }
    }

    /// The inode that a path names, following no links; `None` where there is none.
    fn find(&self, components: &[&str]) -> Result<Option<u32>> {
        let mut inode = ROOT_INODE;
        for (depth, component) in components.iter().enumerate() {
            let path = || format!("/{}", components[..=depth].join("/"));
            match self.look(&path(), |tree| tree.lookup_at(inode, component.as_bytes())) {
                Ok(found) => inode = found,
                Err(Error::NotFound { .. }) => return Ok(None),
                Err(error) => return Err(error),
            }
        }
        Ok(Some(inode))
    }

    fn inode(&self, path: &str) -> Result<(u32, fs_ext4::inode::Inode)> {
        let number = self
            .find(GuestPath::parse(path)?.components())?
            .ok_or_else(|| path::not_found(path))?;
        let inode = self.look(path, |tree| tree.stat_ino(number))?;
        Ok((number, inode))
    }

    fn file(&self, path: &str) -> Result<(u32, fs_ext4::inode::Inode)> {
        let (number, inode) = self.inode(path)?;
        match inode.is_file() {
            true => Ok((number, inode)),
            false => Err(path::not_a_file(STRUCTURE, path)),
        }
    }

    /// The parent's inode and the last name of a path that is to be created.
    fn parent<'p>(&self, guest: &GuestPath<'p>, path: &str) -> Result<(u32, &'p str)> {
        let (parent, name) = guest
            .split_name()
            .ok_or_else(|| path::already_exists(STRUCTURE, path))?;
        let parent = self.find(parent)?.ok_or_else(|| path::not_found(path))?;
        Ok((parent, name))
    }
}

impl Filesystem for ExtWriter {
    fn identity(&self) -> &Identity {
        &self.identity
    }

    fn metadata(&self, path: &str) -> Result<Metadata> {
        let (_, inode) = self.inode(path)?;
        Ok(Metadata {
            file_type: file_type(inode.mode),
            size_bytes: inode.size,
            mode: u32::from(inode.mode & 0o7777),
            uid: inode.uid,
            gid: inode.gid,
        })
    }

    fn read(&self, path: &str, limit_bytes: u64) -> Result<Vec<u8>> {
        let (number, inode) = self.file(path)?;
        if inode.size > limit_bytes {
            return Err(path::too_large(limit_bytes));
        }
        let mut content = vec![0; inode.size as usize];
        let count = self.look(path, |tree| tree.read_ino(number, 0, &mut content))?;
        content.truncate(count);
        Ok(content)
    }

    fn read_link(&self, path: &str) -> Result<String> {
        let (number, inode) = self.inode(path)?;
        if file_type(inode.mode) != FileType::Symlink {
            return Err(Error::unsupported(
                STRUCTURE,
                format!("reading {path} as a symbolic link, which it is not,"),
            ));
        }
        let target = self.look(path, |tree| tree.read_link_ino(number))?;
        Ok(String::from_utf8_lossy(&target).into_owned())
    }

    fn read_directory(&self, path: &str) -> Result<Vec<DirectoryEntry>> {
        let (number, inode) = self.inode(path)?;
        if !inode.is_dir() {
            return Err(path::not_found(path));
        }
        let listing = self.look(path, |tree| directory::entries(tree, number, &inode))?;
        let mut entries = Vec::new();
        for entry in listing {
            if entry.name == b"." || entry.name == b".." {
                continue;
            }
            let mode = self.look(path, |tree| tree.stat_ino(entry.inode))?.mode;
            entries.push(DirectoryEntry {
                name: String::from_utf8_lossy(&entry.name).into_owned(),
                file_type: file_type(mode),
            });
        }
        entries.sort_by(|left, right| left.name.cmp(&right.name));
        Ok(entries)
    }

    fn selinux_context(&self, path: &str) -> Result<Option<String>> {
        let (number, inode) = self.inode(path)?;
        let value = self.look(path, |tree| {
            let raw = tree.read_inode_raw(number)?;
            fs_ext4::xattr::get_resolved(tree, &inode, &raw, SELINUX)
        })?;
        let text = value.map(|value| String::from_utf8_lossy(&value).into_owned());
        let context = text.map(|text| text.trim_end_matches('\0').to_owned());
        Ok(context.filter(|context| !context.is_empty()))
    }

    fn free_bytes(&self) -> Result<Option<u64>> {
        superblock::ext::free_bytes(&*self.staging, &self.superblock).map(Some)
    }
}

impl WritableFilesystem for ExtWriter {
    fn write(&mut self, path: &str, content: &[u8], attributes: Option<&Attributes>) -> Result<()> {
        let guest = GuestPath::parse(path)?;
        let existing = match self.find(guest.components())? {
            Some(_) => Some(self.file(path)?.0),
            None => None,
        };
        let (parent, name) = self.parent(&guest, path)?;
        let new = Attributes {
            mode: 0o644,
            uid: 0,
            gid: 0,
            selinux: None,
        };
        let operation = |tree: &fs_ext4::Filesystem| {
            let attributes = match (attributes, existing) {
                (Some(given), _) => Some(given),
                (None, Some(_)) => None,
                (None, None) => Some(&new),
            };
            let number = match existing {
                Some(number) => number,
                None => tree.apply_create_at(parent, name.as_bytes(), 0o644)?,
            };
            let written = replace(tree, path, number, content)?;
            if let Some(given) = attributes {
                set_attributes(tree, path, number, given)?;
            }
            Ok((!written).then_some(number))
        };
        self.change_and_append(path, operation, content)
    }

    fn append(&mut self, path: &str, content: &[u8]) -> Result<()> {
        let (number, inode) = self.file(path)?;
        if inode.has_extents() {
            return self.change(path, |tree| {
                tree.apply_pwrite_ino(number, inode.size, content).map(drop)
            });
        }
        self.change_and_append(path, |_| Ok(Some(number)), content)
    }

    fn create_directory(&mut self, path: &str, attributes: &Attributes) -> Result<()> {
        let guest = GuestPath::parse(path)?;
        let (parent, name) = self.parent(&guest, path)?;
        self.change(path, |tree| {
            let number = tree.apply_mkdir_at(parent, name.as_bytes(), 0o755)?;
            set_attributes(tree, path, number, attributes)
        })
    }

    fn create_symlink(&mut self, path: &str, target: &str) -> Result<()> {
        let guest = GuestPath::parse(path)?;
        let (parent, name) = self.parent(&guest, path)?;
        self.change(path, |tree| {
            tree.apply_symlink_at(parent, name.as_bytes(), target.as_bytes())
                .map(drop)
        })
    }

    fn remove(&mut self, path: &str) -> Result<()> {
        let guest = GuestPath::parse(path)?;
        let (_, inode) = self.inode(path)?;
        if inode.is_dir() {
            return Err(path::not_a_file(STRUCTURE, path));
        }
        let (parent, name) = self.parent(&guest, path)?;
        self.change(path, |tree| tree.apply_unlink_at(parent, name.as_bytes()))
    }

    fn rename(&mut self, from: &str, to: &str) -> Result<()> {
        let (source, target) = (GuestPath::parse(from)?, GuestPath::parse(to)?);
        self.inode(from)?;
        let (source_parent, source_name) = self.parent(&source, from)?;
        let (target_parent, target_name) = self.parent(&target, to)?;
        self.change(from, |tree| {
            tree.apply_rename_at(
                source_parent,
                source_name.as_bytes(),
                target_parent,
                target_name.as_bytes(),
                true,
            )
        })
    }

    fn finish(mut self: Box<Self>) -> Result<()> {
        self.close()?;
        if self.orphans_present {
            set_orphans_present(&self.staging, true)?;
        }
        self.staging.commit()?;
        self.device.flush()
    }
}

/// Gives an existing regular file new content; its inode, and so its attributes, stay.
///
/// `false`: the file is empty now, and its content is to be appended.
fn replace(
    tree: &fs_ext4::Filesystem,
    path: &str,
    number: u32,
    content: &[u8],
) -> LibraryResult<bool> {
    let inode = tree.stat_ino(number)?;
    if !inode.has_extents() {
        tree.apply_replace_file_content(path, &[])?;
        return Ok(false);
    }
    tree.apply_truncate_ino(number, 0)?;
    tree.apply_pwrite_ino(number, 0, content)?;
    Ok(true)
}

fn set_attributes(
    tree: &fs_ext4::Filesystem,
    path: &str,
    number: u32,
    attributes: &Attributes,
) -> LibraryResult<()> {
    // Owner first: changing it clears set-user-id, as the kernel does.
    tree.apply_chown_ino(number, attributes.uid, attributes.gid)?;
    tree.apply_chmod_ino(number, (attributes.mode & 0o7777) as u16)?;
    match &attributes.selinux {
        // The kernel and `restorecon` store the context with its terminating NUL.
        Some(context) => {
            let value = format!("{}\0", context.trim_end_matches('\0'));
            tree.apply_setxattr(path, SELINUX, value.as_bytes())
        }
        None => Ok(()),
    }
}

fn journal_replayed() -> Finding {
    Finding {
        level: Level::Note,
        code: "disk.ext.journal-replayed".to_owned(),
        place: STRUCTURE.to_owned(),
        problem: "the journal held transactions; they were replayed into the overlay".to_owned(),
        remedy: None,
    }
}

fn file_type(mode: u16) -> FileType {
    match mode & 0o170_000 {
        0o100_000 => FileType::File,
        0o040_000 => FileType::Directory,
        0o120_000 => FileType::Symlink,
        _ => FileType::Special,
    }
}

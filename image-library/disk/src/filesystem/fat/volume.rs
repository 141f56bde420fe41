// SPDX-License-Identifier: MIT OR Apache-2.0
//! The tree of files of a FAT filesystem, through the `fatfs` library.
//!
//! FAT has no owners, modes, links or attributes: everything is `root:root`, `0755`, and what cannot
//! be stored is refused (symbolic links) or left out (owner, mode, SELinux). Names compare without
//! case.
//!
//! The library's handle is opened anew for each operation: that costs two sectors, which are
//! cached, and keeps no state that could disagree with the device after an operation failed. A panic
//! inside it, on bytes that lie, is an error here.

use std::cell::Cell;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};

use fatfs::{Date, DateTime, Dir, FileSystem, FsOptions, Time, TimeProvider};

use super::super::cache::CachedDevice;
use super::super::path::{self, GuestPath};
use super::super::staging::Staging;
use super::super::superblock::fat::BootSector;
use super::super::{
    Attributes, DirectoryEntry, FileType, Filesystem, Identity, Metadata, WritableFilesystem,
};
use super::stream::{Device, Note, Stream};
use crate::block::{ReadAt, WriteAt};
use crate::error::{Error, Result};

const STRUCTURE: &str = "FAT filesystem";
const MODE: u32 = 0o755;
const ENTRIES_MAX: usize = 1 << 17;

/// A FAT filesystem, for reading or for writing too.
#[derive(Debug)]
pub(crate) struct FatVolume {
    identity: Identity,
    device: Device,
    /// Set when writing.
    staging: Option<(Arc<Staging>, Arc<dyn WriteAt>)>,
    now: i64,
    note: Arc<Mutex<Note>>,
}

type Tree = FileSystem<Stream>;

impl FatVolume {
    pub(crate) fn open(device: Arc<dyn ReadAt>, boot: &BootSector) -> Result<Self> {
        let device: Arc<dyn ReadAt> = Arc::new(CachedDevice::new(device));
        Ok(Self {
            identity: boot.identity(&device)?,
            device: Device::ReadOnly(device),
            staging: None,
            now: 0,
            note: Arc::default(),
        })
    }

    pub(crate) fn open_writable(
        device: Arc<dyn WriteAt>,
        boot: &BootSector,
        now: i64,
    ) -> Result<Self> {
        let staging = Arc::new(Staging::new(Arc::clone(&device)));
        Ok(Self {
            identity: boot.identity(&staging)?,
            device: Device::Writable(Arc::clone(&staging) as Arc<dyn WriteAt>),
            staging: Some((staging, device)),
            now,
            note: Arc::default(),
        })
    }

    /// Runs one operation on a fresh handle.
    fn with<T>(
        &self,
        path: &str,
        operation: impl FnOnce(&Tree) -> io::Result<Result<T>>,
    ) -> Result<T> {
        NOW.set(self.now);
        let guarded = catch_unwind(AssertUnwindSafe(|| {
            let options = FsOptions::new().time_provider(&GIVEN_TIME);
            let tree = FileSystem::new(
                Stream::new(self.device.clone(), Arc::clone(&self.note)),
                options,
            )?;
            let outcome = operation(&tree);
            match &self.device {
                Device::Writable(_) => tree.unmount()?,
                // Dropping writes nothing back when nothing was changed.
                Device::ReadOnly(_) => drop(tree),
            }
            outcome
        }));
        match guarded {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(error)) => Err(translate(error, path)),
            Err(_) => Err(Error::corrupt(
                STRUCTURE,
                0,
                "its structures contradict each other",
            )),
        }
    }

    fn set_note(&self, note: Note) -> Note {
        let mut current = self.note.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut current, note)
    }

    /// Removes the long names that the library (0.3.6) gives to `.` and `..` of a new directory, which
    /// every checker rejects, and the cluster of a FAT32 root from `..`, which must be 0 there.
    fn repair_dot_entries(&self, in_root: bool) -> Result<()> {
        let Note::Read(start) = self.set_note(Note::NotAsked) else {
            return Ok(());
        };
        let mut entries = [0; 128];
        self.device.reader().read_exact_at(start, &mut entries)?;
        let has_long_names = entries[11] == 0x0f
            && entries[32..34] == *b". "
            && entries[75] == 0x0f
            && entries[96..99] == *b".. ";
        let Device::Writable(device) = &self.device else {
            return Ok(());
        };
        if !has_long_names {
            return Ok(());
        }
        let mut repaired = [0; 128];
        repaired[..32].copy_from_slice(&entries[32..64]);
        repaired[32..64].copy_from_slice(&entries[96..]);
        if in_root {
            repaired[32 + 20..32 + 22].fill(0);
            repaired[32 + 26..32 + 28].fill(0);
        }
        device.write_all_at(start, &repaired)
    }

    /// Runs one operation that writes: all of it reaches the device, or nothing.
    fn change<T>(
        &self,
        path: &str,
        operation: impl FnOnce(&Tree) -> io::Result<Result<T>>,
    ) -> Result<T> {
        let Some((staging, _)) = &self.staging else {
            return Err(Error::unsupported(
                STRUCTURE,
                "writing to a device opened for reading",
            ));
        };
        let outcome = self.with(path, operation);
        match &outcome {
            Ok(_) => staging.commit()?,
            Err(_) => staging.discard(),
        }
        outcome
    }
}

impl Filesystem for FatVolume {
    fn identity(&self) -> &Identity {
        &self.identity
    }

    fn metadata(&self, path: &str) -> Result<Metadata> {
        let guest = GuestPath::parse(path)?;
        self.with(path, |tree| {
            let (file_type, size_bytes) = match guest.name() {
                None => (FileType::Directory, 0),
                Some(_) => {
                    let Some(entry) = find(tree, &guest)? else {
                        return Ok(Err(path::not_found(path)));
                    };
                    match entry.is_dir() {
                        true => (FileType::Directory, 0),
                        false => (FileType::File, entry.len()),
                    }
                }
            };
            Ok(Ok(Metadata {
                file_type,
                size_bytes,
                mode: MODE,
                uid: 0,
                gid: 0,
            }))
        })
    }

    fn read(&self, path: &str, limit_bytes: u64) -> Result<Vec<u8>> {
        let guest = GuestPath::parse(path)?;
        self.with(path, |tree| {
            let entry = match find(tree, &guest)? {
                Some(entry) if entry.is_file() => entry,
                Some(_) => return Ok(Err(path::not_a_file(STRUCTURE, path))),
                None => return Ok(Err(path::not_found(path))),
            };
            if entry.len() > limit_bytes {
                return Ok(Err(path::too_large(limit_bytes)));
            }
            let mut content = Vec::new();
            entry
                .to_file()
                .take(limit_bytes)
                .read_to_end(&mut content)?;
            Ok(Ok(content))
        })
    }

    fn read_link(&self, path: &str) -> Result<String> {
        self.metadata(path)?;
        Err(Error::unsupported(STRUCTURE, "a symbolic link"))
    }

    fn read_directory(&self, path: &str) -> Result<Vec<DirectoryEntry>> {
        let guest = GuestPath::parse(path)?;
        self.with(path, |tree| {
            let Some(directory) = directory(tree, guest.components())? else {
                return Ok(Err(path::not_found(path)));
            };
            let mut entries = Vec::new();
            for entry in directory.iter() {
                let entry = entry?;
                let name = entry.file_name();
                if name != "." && name != ".." {
                    let file_type = match entry.is_dir() {
                        true => FileType::Directory,
                        false => FileType::File,
                    };
                    entries.push(DirectoryEntry { name, file_type });
                }
                if entries.len() > ENTRIES_MAX {
                    return Ok(Err(path::directory_too_large(ENTRIES_MAX)));
                }
            }
            entries.sort_by(|left, right| left.name.cmp(&right.name));
            Ok(Ok(entries))
        })
    }
}

impl WritableFilesystem for FatVolume {
    fn write(&mut self, path: &str, content: &[u8], _: Option<&Attributes>) -> Result<()> {
        let guest = GuestPath::parse(path)?;
        self.change(path, |tree| {
            let Some((parent, name)) = guest.split_name() else {
                return Ok(Err(path::not_a_file(STRUCTURE, path)));
            };
            let Some(directory) = directory(tree, parent)? else {
                return Ok(Err(path::not_found(path)));
            };
            if find(tree, &guest)?.is_some_and(|entry| entry.is_dir()) {
                return Ok(Err(path::not_a_file(STRUCTURE, path)));
            }
            let mut file = directory.create_file(name)?;
            file.truncate()?;
            file.write_all(content)?;
            file.flush()?;
            Ok(Ok(()))
        })
    }

    fn append(&mut self, path: &str, content: &[u8]) -> Result<()> {
        let guest = GuestPath::parse(path)?;
        self.change(path, |tree| {
            let entry = match find(tree, &guest)? {
                Some(entry) if entry.is_file() => entry,
                Some(_) => return Ok(Err(path::not_a_file(STRUCTURE, path))),
                None => return Ok(Err(path::not_found(path))),
            };
            let mut file = entry.to_file();
            file.seek(SeekFrom::End(0))?;
            file.write_all(content)?;
            file.flush()?;
            Ok(Ok(()))
        })
    }

    fn create_directory(&mut self, path: &str, _: &Attributes) -> Result<()> {
        let guest = GuestPath::parse(path)?;
        self.change(path, |tree| {
            let Some((parent, name)) = guest.split_name() else {
                return Ok(Err(path::already_exists(STRUCTURE, path)));
            };
            if find(tree, &guest)?.is_some() {
                return Ok(Err(path::already_exists(STRUCTURE, path)));
            }
            let Some(directory) = directory(tree, parent)? else {
                return Ok(Err(path::not_found(path)));
            };
            let created = directory.create_dir(name)?;
            // Reading the first entry tells where the directory begins.
            self.set_note(Note::Asked);
            let _ = created.iter().next().transpose()?;
            Ok(self.repair_dot_entries(parent.is_empty()))
        })
    }

    fn create_symlink(&mut self, _path: &str, _target: &str) -> Result<()> {
        Err(Error::unsupported(STRUCTURE, "a symbolic link"))
    }

    fn remove(&mut self, path: &str) -> Result<()> {
        let guest = GuestPath::parse(path)?;
        self.change(path, |tree| remove_file(tree, &guest, path))
    }

    fn rename(&mut self, from: &str, to: &str) -> Result<()> {
        let (source, target) = (GuestPath::parse(from)?, GuestPath::parse(to)?);
        self.change(from, |tree| {
            let (Some((source_parent, source_name)), Some((target_parent, target_name))) =
                (source.split_name(), target.split_name())
            else {
                return Ok(Err(path::not_a_file(STRUCTURE, from)));
            };
            if find(tree, &source)?.is_none() {
                return Ok(Err(path::not_found(from)));
            }
            let (Some(source_directory), Some(target_directory)) = (
                directory(tree, source_parent)?,
                directory(tree, target_parent)?,
            ) else {
                return Ok(Err(path::not_found(to)));
            };
            let same = source.same_ignoring_case(&target);
            if !same && find(tree, &target)?.is_some() {
                // The library does not replace; nothing is lost if what follows fails, because
                // the operation's writes are dropped together.
                if let Err(error) = remove_file(tree, &target, to)? {
                    return Ok(Err(error));
                }
            }
            if source_parent == target_parent && source_name == target_name {
                return Ok(Ok(()));
            }
            source_directory.rename(source_name, &target_directory, target_name)?;
            Ok(Ok(()))
        })
    }

    fn finish(self: Box<Self>) -> Result<()> {
        match self.staging {
            Some((_, device)) => device.flush(),
            None => Ok(()),
        }
    }
}

fn remove_file(tree: &Tree, guest: &GuestPath<'_>, path: &str) -> io::Result<Result<()>> {
    let Some((parent, name)) = guest.split_name() else {
        return Ok(Err(path::not_a_file(STRUCTURE, path)));
    };
    match find(tree, guest)? {
        None => return Ok(Err(path::not_found(path))),
        Some(entry) if entry.is_dir() => return Ok(Err(path::not_a_file(STRUCTURE, path))),
        Some(_) => {}
    }
    let Some(directory) = directory(tree, parent)? else {
        return Ok(Err(path::not_found(path)));
    };
    directory.remove(name)?;
    Ok(Ok(()))
}

/// The entry that a path names, compared without case; `None` where there is none.
fn find<'tree>(
    tree: &'tree Tree,
    guest: &GuestPath<'_>,
) -> io::Result<Option<fatfs::DirEntry<'tree, Stream>>> {
    let Some((parent, name)) = guest.split_name() else {
        return Ok(None);
    };
    let Some(directory) = directory(tree, parent)? else {
        return Ok(None);
    };
    entry_in(&directory, name)
}

fn entry_in<'tree>(
    directory: &Dir<'tree, Stream>,
    name: &str,
) -> io::Result<Option<fatfs::DirEntry<'tree, Stream>>> {
    let wanted = name.to_uppercase();
    for entry in directory.iter() {
        let entry = entry?;
        let matches = entry.file_name().to_uppercase() == wanted
            || entry.short_file_name().to_uppercase() == wanted;
        if matches {
            return Ok(Some(entry));
        }
    }
    Ok(None)
}

fn directory<'tree>(
    tree: &'tree Tree,
    components: &[&str],
) -> io::Result<Option<Dir<'tree, Stream>>> {
    let mut directory = tree.root_dir();
    for component in components {
        directory = match entry_in(&directory, component)? {
            Some(entry) if entry.is_dir() => entry.to_dir(),
            Some(_) | None => return Ok(None),
        };
    }
    Ok(Some(directory))
}

fn translate(error: io::Error, path: &str) -> Error {
    match error.kind() {
        io::ErrorKind::NotFound => path::not_found(path),
        io::ErrorKind::InvalidInput => Error::unsupported(STRUCTURE, format!("the name in {path}")),
        // The library has no kind of its own for a full volume.
        _ if error.to_string().contains("No space left") => path::no_space(),
        io::ErrorKind::UnexpectedEof | io::ErrorKind::WriteZero => Error::corrupt(
            STRUCTURE,
            0,
            "a structure reaches past the end of the device",
        ),
        _ => path::device_error(error, STRUCTURE),
    }
}

thread_local! {
    /// The time of the operation that runs on this thread; the library takes only a static clock.
    static NOW: Cell<i64> = const { Cell::new(0) };
}

static GIVEN_TIME: GivenTime = GivenTime;

/// The time that the caller gave, in UTC.
#[derive(Debug)]
struct GivenTime;

impl TimeProvider for GivenTime {
    fn get_current_date(&self) -> Date {
        self.get_current_date_time().date
    }

    fn get_current_date_time(&self) -> DateTime {
        date_time(NOW.get())
    }
}

/// Seconds since 1970 as a date; FAT's calendar runs from 1980 to 2107.
fn date_time(seconds: i64) -> DateTime {
    const FIRST: i64 = 315_532_800;
    const LAST: i64 = 4_354_819_199;
    let seconds = seconds.clamp(FIRST, LAST);
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    // Days to a civil date, with years that begin in March so that the leap day comes last.
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = (month_from_march + 2) % 12 + 1;
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    DateTime {
        date: Date {
            year: year as u16,
            month: month as u16,
            day: day as u16,
        },
        time: Time {
            hour: (rest / 3600) as u16,
            min: (rest / 60 % 60) as u16,
            sec: (rest % 60) as u16,
            millis: 0,
        },
    }
}

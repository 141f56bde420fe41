// SPDX-License-Identifier: MIT OR Apache-2.0
//! The files of a cache.
//!
//! ```text
//! DIRECTORY/chunks/            0700: these are plain bytes of servers
//!   usage                      how many bytes all files have (see `usage`)
//!   eviction.lock              held by the one process that removes files
//!   ab/                        00 to ff
//!     abcd..                   a chunk, named by its 64 digits, written under another name first
//!     0123...part              a chunk that is being written, of 32 random digits
//! ```
//!
//! Invariants: no file is written in place, and none is given out whose bytes do not have its hash,
//! so what a crash, a bad disk or a stranger left there is noticed. Nothing is flushed. What has
//! none of these names, and what is no regular file, is neither followed, nor read, nor removed.

use std::fs::{DirBuilder, File};
use std::io::{self, Read as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use image_library::ContentHash;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

/// A file's time of use is set again when it is older.
const TOUCH_AFTER: Duration = Duration::from_secs(600);
/// What the name of a file that is being written ends with.
const PART: &str = ".part";

/// How bytes get into a new file; tests fail here.
pub(super) type WriteBytes = fn(&mut File, &[u8]) -> io::Result<()>;

/// An open tree of files.
#[derive(Debug)]
pub(super) struct Tree {
    root: OwnedFd,
    path: PathBuf,
}

/// What was found of a chunk.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// All of it, checked.
    Whole(Vec<u8>),
    /// Nothing.
    Absent,
    /// Other bytes, which were removed.
    Damaged,
}

/// What became of a chunk that was to be written.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Written {
    /// It is there now.
    New,
    /// Something of its name is there already, or in the way.
    Occupied,
}

/// What a file is, by its name.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Chunk,
    Part,
}

impl Tree {
    /// Opens the tree below `directory`, both created where they are not there.
    pub(super) fn open(directory: &Path) -> io::Result<Self> {
        let mut builder = DirBuilder::new();
        builder.recursive(true).mode(0o700).create(directory)?;
        let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
        let above = rustix::fs::open(directory, flags, Mode::empty())?;
        let root = create_directory(&above, "chunks")?;
        let stat = rustix::fs::fstat(&root)?;
        if stat.st_uid != rustix::process::geteuid().as_raw() {
            let problem = "its directory `chunks` belongs to somebody else";
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, problem));
        }
        if stat.st_mode & 0o077 != 0 {
            rustix::fs::fchmod(&root, Mode::RWXU)?;
        }
        Ok(Self {
            root,
            path: directory.join("chunks"),
        })
    }

    /// Opens one of the files beside the chunks.
    pub(super) fn own_file(&self, name: &str) -> io::Result<File> {
        let flags = OFlags::RDWR | OFlags::CREATE | SAFELY;
        let file = File::from(rustix::fs::openat(&self.root, name, flags, FILE_MODE)?);
        if !file.metadata()?.is_file() {
            let problem = format!("{} is no file", self.path.join(name).display());
            return Err(io::Error::other(problem));
        }
        Ok(file)
    }

    /// The directory of the chunks whose names begin like this; `None` where there is none.
    pub(super) fn directory(&self, prefix: &str) -> io::Result<Option<OwnedFd>> {
        match open_directory(&self.root, prefix) {
            Ok(directory) => Ok(Some(directory)),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// A chunk of so many bytes. What cannot be read is absent: the library has it too.
    pub(super) fn read(&self, hash: &ContentHash, length: usize) -> Found {
        self.try_read(hash, length).unwrap_or_else(|error| {
            let directory = self.path.display();
            tracing::debug!(%error, %directory, "a chunk in the cache cannot be read");
            Found::Absent
        })
    }

    fn try_read(&self, hash: &ContentHash, length: usize) -> io::Result<Found> {
        let name = name_of(hash);
        let Some(directory) = self.directory(prefix_of(&name))? else {
            return Ok(Found::Absent);
        };
        // A pipe in the way must not be waited for.
        let flags = OFlags::RDONLY | SAFELY;
        let mut file = match rustix::fs::openat(&directory, &*name, flags, Mode::empty()) {
            Ok(file) => File::from(file),
            Err(Errno::NOENT | Errno::LOOP) => return Ok(Found::Absent),
            Err(error) => return Err(error.into()),
        };
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Ok(Found::Absent);
        }
        let mut bytes = vec![0; length];
        let is_whole = metadata.len() == length as u64
            && file.read_exact(&mut bytes).is_ok()
            && ContentHash::of(&bytes) == *hash;
        if !is_whole {
            // Who writes it again at this moment has written in vain: it is fetched once more.
            let _ = rustix::fs::unlinkat(&directory, &*name, AtFlags::empty());
            return Ok(Found::Damaged);
        }
        let now = SystemTime::now();
        let age = metadata
            .modified()
            .ok()
            .map(|used| now.duration_since(used));
        if age.is_none_or(|age| age.is_ok_and(|age| age > TOUCH_AFTER)) {
            // On a file system that is only read nothing is removed either.
            let _ = file.set_modified(now);
        }
        Ok(Found::Whole(bytes))
    }

    /// Whether there is a file of a chunk; nothing is known about its bytes.
    pub(super) fn has(&self, hash: &ContentHash) -> bool {
        let name = name_of(hash);
        let directory = self.directory(prefix_of(&name)).ok().flatten();
        let stat = directory.and_then(|directory| stat_of(&directory, &name).ok());
        stat.is_some_and(|stat| is_file(&stat))
    }

    /// Writes a chunk.
    pub(super) fn write(
        &self,
        hash: &ContentHash,
        bytes: &[u8],
        write: WriteBytes,
    ) -> io::Result<Written> {
        let name = name_of(hash);
        let directory = match create_directory(&self.root, prefix_of(&name)) {
            Ok(directory) => directory,
            Err(Errno::NOTDIR | Errno::LOOP) => return Ok(Written::Occupied),
            Err(error) => return Err(error.into()),
        };
        match stat_of(&directory, &name) {
            Err(Errno::NOENT) => {}
            Ok(_) => return Ok(Written::Occupied),
            Err(error) => return Err(error.into()),
        }
        let part = format!("{}{PART}", uuid::Uuid::new_v4().simple());
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | SAFELY;
        let file = rustix::fs::openat(&directory, &*part, flags, FILE_MODE)?;
        let written = write(&mut File::from(file), bytes).and_then(|()| {
            Ok(rustix::fs::renameat(
                &directory, &*part, &directory, &*name,
            )?)
        });
        if written.is_err() {
            let _ = rustix::fs::unlinkat(&directory, &*part, AtFlags::empty());
        }
        match written {
            Ok(()) => Ok(Written::New),
            Err(error) if error.kind() == io::ErrorKind::IsADirectory => Ok(Written::Occupied),
            Err(error) => Err(error),
        }
    }
}

/// Neither a link nor a terminal is opened, and nothing is waited for.
const SAFELY: OFlags = OFlags::NOFOLLOW
    .union(OFlags::NONBLOCK)
    .union(OFlags::NOCTTY)
    .union(OFlags::CLOEXEC);

const FILE_MODE: Mode = Mode::RUSR.union(Mode::WUSR);

fn open_directory(above: &OwnedFd, name: &str) -> Result<OwnedFd, Errno> {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(above, name, flags, Mode::empty())
}

fn create_directory(above: &OwnedFd, name: &str) -> Result<OwnedFd, Errno> {
    match open_directory(above, name) {
        Err(Errno::NOENT) => {}
        opened => return opened,
    }
    match rustix::fs::mkdirat(above, name, Mode::RWXU) {
        // Another process was quicker.
        Ok(()) | Err(Errno::EXIST) => open_directory(above, name),
        Err(error) => Err(error),
    }
}

/// What a name is in the directory of `prefix`; `None` for a stranger's.
pub(super) fn kind_of(name: &str, prefix: &str) -> Option<Kind> {
    let is_hex = |text: &str| {
        text.bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    };
    if name.len() == 64 && name.starts_with(prefix) && is_hex(name) {
        return Some(Kind::Chunk);
    }
    let part = name.strip_suffix(PART)?;
    (part.len() == 32 && is_hex(part)).then_some(Kind::Part)
}

/// What is there of that name, links as themselves.
pub(super) fn stat_of(directory: &OwnedFd, name: &str) -> Result<Stat, Errno> {
    rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)
}

pub(super) fn is_file(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
}

fn name_of(hash: &ContentHash) -> String {
    blake3::Hash::from_bytes(*hash.as_bytes())
        .to_hex()
        .to_string()
}

/// The directory of a chunk: what its name begins with.
fn prefix_of(name: &str) -> &str {
    name.get(..2).unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_the_cache_are_its_own() {
        let chunk = name_of(&ContentHash::of(b"x"));
        let prefix = prefix_of(&chunk);
        assert_eq!(kind_of(&chunk, prefix), Some(Kind::Chunk));
        assert_eq!(kind_of(&chunk, "zz"), None);
        let part = format!("{}.part", "0".repeat(32));
        assert_eq!(kind_of(&part, prefix), Some(Kind::Part));
        let upper = chunk.to_uppercase();
        for strange in ["", "a", &chunk[..63], &upper, "a.part", ".part", ".."] {
            assert_eq!(kind_of(strange, prefix_of(strange)), None);
        }
    }
}

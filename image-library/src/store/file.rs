// SPDX-License-Identifier: MIT OR Apache-2.0
//! Operations on files, each error with the path: read with a limit, write durably, list.

use std::fs::{self, File, Permissions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::{Error, Result};

/// Temporary files that are older belong to no living program.
const STALE_AFTER: Duration = Duration::from_secs(24 * 60 * 60);

/// A name in a directory.
#[derive(Debug)]
pub(crate) struct Listed {
    pub(crate) name: String,
    pub(crate) path: PathBuf,
}

/// The whole content of a file, at most `limit` bytes; `None` when there is no such file.
pub(crate) fn read(path: &Path, limit: u64, what: &'static str) -> Result<Option<Vec<u8>>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::file("open", path)(error)),
    };
    let mut content = Vec::new();
    file.take(limit.saturating_add(1))
        .read_to_end(&mut content)
        .map_err(Error::file("read", path))?;
    if content.len() as u64 > limit {
        return Err(Error::Limit { what, limit });
    }
    Ok(Some(content))
}

/// Writes a new file that nobody else may read, and makes its bytes durable.
pub(crate) fn write_durably(path: &Path, content: &[u8]) -> Result<()> {
    let write = || -> io::Result<()> {
        let mut file = File::create_new(path)?;
        file.set_permissions(Permissions::from_mode(0o600))?;
        file.write_all(content)?;
        file.sync_all()
    };
    write().map_err(|error| {
        // Half a file must not stay; what went wrong first is what is reported.
        let _ = fs::remove_file(path);
        Error::file("write", path)(error)
    })
}

/// Gives a file a second name; `false` when that name is taken.
pub(crate) fn link_new(from: &Path, to: &Path) -> Result<bool> {
    match fs::hard_link(from, to) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(false),
        // Filesystems without hard links: rename without replacing, where the kernel can.
        Err(error) if error.kind() == ErrorKind::Unsupported || is_not_permitted(&error) => {
            rename_new(from, to)
        }
        Err(error) => Err(Error::file("create", to)(error)),
    }
}

fn is_not_permitted(error: &io::Error) -> bool {
    error.raw_os_error() == Some(rustix::io::Errno::PERM.raw_os_error())
}

fn rename_new(from: &Path, to: &Path) -> Result<bool> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    // The caller removes `from` afterwards: that it is gone already is no error there.
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        Ok(()) => Ok(true),
        Err(rustix::io::Errno::EXIST) => Ok(false),
        Err(error) => Err(Error::file("create", to)(error.into())),
    }
}

/// Renames a file, replacing what has that name.
pub(crate) fn rename(from: &Path, to: &Path) -> Result<()> {
    fs::rename(from, to).map_err(Error::file("replace", to))
}

/// Removes a file; that there is none is no error.
pub(crate) fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(Error::file("remove", path)(error))
        }
        _ => Ok(()),
    }
}

/// Removes a directory with the files in it; that there is none is no error.
pub(crate) fn remove_directory(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(Error::file("remove", path)(error))
        }
        _ => Ok(()),
    }
}

/// Creates a directory, and those above it.
pub(crate) fn create_directory(path: &Path) -> Result<()> {
    fs::create_dir_all(path).map_err(Error::file("create directory", path))
}

/// Makes the names in a directory durable.
pub(crate) fn sync_directory(path: &Path) -> Result<()> {
    File::open(path)
        .and_then(|directory| directory.sync_all())
        .map_err(Error::file("make durable", path))
}

/// Takes everybody else's permissions away.
pub(crate) fn restrict_to_owner(path: &Path, mode: u32) -> Result<()> {
    fs::set_permissions(path, Permissions::from_mode(mode))
        .map_err(Error::file("set permissions of", path))
}

/// The permission bits of a file.
pub(crate) fn mode(path: &Path) -> Result<u32> {
    let metadata = fs::metadata(path).map_err(Error::file("read", path))?;
    Ok(metadata.permissions().mode())
}

/// The names in a directory that are UTF-8 (all of ours are), sorted.
pub(crate) fn list(path: &Path) -> Result<Vec<Listed>> {
    let mut listed = Vec::new();
    for entry in fs::read_dir(path).map_err(Error::file("list", path))? {
        let entry = entry.map_err(Error::file("list", path))?;
        if let Ok(name) = entry.file_name().into_string() {
            let path = entry.path();
            listed.push(Listed { name, path });
        }
    }
    listed.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    Ok(listed)
}

/// Removes the files of a directory that nobody has written to for a day and whose name ends so:
/// a program that was killed left them.
pub(crate) fn remove_stale(directory: &Path, suffix: &str) -> Result<()> {
    for listed in list(directory)? {
        let age = fs::metadata(&listed.path)
            .and_then(|metadata| metadata.modified())
            .map(|modified| modified.elapsed().unwrap_or_default());
        // Gone meanwhile: then it need not be removed.
        if listed.name.ends_with(suffix) && age.is_ok_and(|age| age > STALE_AFTER) {
            remove(&listed.path)?;
        }
    }
    Ok(())
}

/// The directory that a path is in.
pub(crate) fn parent(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new("/"))
}

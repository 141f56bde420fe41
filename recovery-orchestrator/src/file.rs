// SPDX-License-Identifier: MIT OR Apache-2.0
//! Files of this computer: every error names its path, and every read has a limit.

use std::fs::{self, File, Permissions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::Path;

use crate::error::{Error, Result};

/// Reads a whole text file of at most `limit_bytes`.
pub(crate) fn read_text(path: &Path, limit_bytes: u64) -> Result<String> {
    let file = File::open(path).map_err(Error::file("open", path))?;
    let mut text = String::new();
    file.take(limit_bytes.saturating_add(1))
        .read_to_string(&mut text)
        .map_err(Error::file("read", path))?;
    if u64::try_from(text.len()).unwrap_or(u64::MAX) > limit_bytes {
        return Err(Error::Request {
            problem: format!("{} is larger than {limit_bytes} bytes", path.display()),
            hint: None,
        });
    }
    Ok(text)
}

/// The last `limit_bytes` of a file that may still grow; empty when there is no such file.
pub(crate) fn read_tail(path: &Path, limit_bytes: u64) -> Result<Vec<u8>> {
    use std::io::{Seek as _, SeekFrom};
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Error::file("open", path)(error)),
    };
    let length = file.metadata().map_err(Error::file("read", path))?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(limit_bytes)))
        .map_err(Error::file("read", path))?;
    let mut bytes = Vec::new();
    file.take(limit_bytes)
        .read_to_end(&mut bytes)
        .map_err(Error::file("read", path))?;
    Ok(bytes)
}

/// Creates a directory and the ones above it.
pub(crate) fn create_directories(path: &Path) -> Result<()> {
    fs::create_dir_all(path).map_err(Error::file("create directory", path))
}

/// The same for what holds the data of servers: what is made of the path only its owner may enter.
pub(crate) fn create_private_directories(path: &Path) -> Result<()> {
    let mut builder = fs::DirBuilder::new();
    let created = builder.recursive(true).mode(0o700).create(path);
    created.map_err(Error::file("create directory", path))
}

/// Writes a whole file, durable and under its name only when complete; readable for whom the
/// user's umask lets.
pub(crate) fn write_atomically(path: &Path, content: &[u8]) -> Result<()> {
    let directory = path.parent().unwrap_or_else(|| Path::new("."));
    let mut temporary = tempfile::Builder::new()
        .permissions(Permissions::from_mode(0o666))
        .tempfile_in(directory)
        .map_err(Error::file("create a file in", directory))?;
    temporary
        .write_all(content)
        .and_then(|()| temporary.as_file().sync_all())
        .map_err(Error::file("write", path))?;
    temporary
        .persist(path)
        .map_err(|error| Error::file("write", path)(error.error))?;
    // Its name is durable only with its directory.
    let directory = if directory.as_os_str().is_empty() {
        Path::new(".")
    } else {
        directory
    };
    File::open(directory)
        .and_then(|directory| directory.sync_all())
        .map_err(Error::file("write", directory))
}

/// Writes a scratch file of a run: no need to survive a power failure.
pub(crate) fn write(path: &Path, content: &[u8]) -> Result<()> {
    fs::write(path, content).map_err(Error::file("write", path))
}

/// Gives a file another name, in place of what has it.
pub(crate) fn rename(from: &Path, to: &Path) -> Result<()> {
    fs::rename(from, to).map_err(Error::file("rename", from))
}

/// Removes a file; one that is gone already is fine.
pub(crate) fn remove_file(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::file("remove", path)(error))
        }
        _ => Ok(()),
    }
}

/// Removes a directory with all that is in it; one that is gone already is fine.
pub(crate) fn remove_directory(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::file("remove", path)(error))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_made_for_the_data_of_servers_is_its_owners_alone() {
        let above = tempfile::tempdir().unwrap();
        let own = above.path().join("machines/web01");
        create_private_directories(&own).unwrap();
        create_private_directories(&own).expect("it is there already");
        for path in [&own, &above.path().join("machines")] {
            let mode = fs::metadata(path).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o700, "{}", path.display());
        }
    }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the operating system said about a file, with the file's name. The programs' packages have
//! this as one case of their own error.

use std::io;
use std::path::PathBuf;

/// A file or device of this computer could not be read or written.
#[derive(Debug, thiserror::Error)]
#[error("{action} {path}")]
pub struct FileError {
    /// What was being done.
    action: &'static str,
    /// Which file.
    path: PathBuf,
    /// What the operating system said.
    source: io::Error,
}

impl FileError {
    /// For `map_err`: names the file that an operating system's error is about.
    pub fn on(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self {
            action,
            path,
            source,
        }
    }

    /// What kind of error the operating system's is.
    #[must_use]
    pub fn kind(&self) -> io::ErrorKind {
        self.source.kind()
    }

    /// What the reader of the message can do about it, where there is something.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        let text = match self.kind() {
            io::ErrorKind::PermissionDenied => {
                "run as a user who may use it, or name another place"
            }
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                "make room on that filesystem and run the command again"
            }
            io::ErrorKind::NotFound => "check the path",
            _ => return None,
        };
        Some(text.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_named_and_a_full_disk_tells_what_to_do() {
        let error = FileError::on("write", "/var/lib/x")(io::ErrorKind::StorageFull.into());
        assert_eq!(error.to_string(), "write /var/lib/x");
        assert!(error.hint().unwrap().starts_with("make room"));
    }
}

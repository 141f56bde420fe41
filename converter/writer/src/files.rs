// SPDX-License-Identifier: MIT OR Apache-2.0
//! The operations of an order, done in a directory that a filesystem is mounted on.
//!
//! A file that is there is written in place: inode, owner, mode, attributes, hard links and what else
//! its filesystem knows about it stay. That a power failure would leave half of it does no harm: who
//! ordered it drops everything unless all is done.

use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, IFlags, OFlags, Timespec, Timestamps, XattrFlags, ioctl_getflags, ioctl_setflags,
};

use crate::{Action, Attributes, Operation};

const SELINUX: &str = "security.selinux";
/// What a write takes away from a file.
const CAPABILITY: &str = "security.capability";
const CAPABILITY_BYTES_MAX: usize = 4096;
/// `chattr +i` and `+a`: root cannot write such a file either.
const PROTECTED: IFlags = IFlags::IMMUTABLE.union(IFlags::APPEND);
const NEW: Attributes = Attributes {
    mode: 0o644,
    uid: 0,
    gid: 0,
    selinux: None,
};

/// A mounted filesystem, and where contents come from.
#[derive(Debug)]
pub struct Files<'a> {
    /// Where it is mounted.
    pub root: &'a Path,
    /// Where contents are, by the names in the order.
    pub contents: &'a Path,
    /// The time of everything that is written.
    pub now_unix_seconds: i64,
}

impl Files<'_> {
    /// Does it; a file's content is on the disk when this returns.
    pub fn carry_out(&self, operation: &Operation) -> io::Result<()> {
        let path = self.place(&operation.path)?;
        match &operation.action {
            Action::Write {
                content,
                attributes,
            } => self.write(&path, content, attributes.as_ref()),
            Action::Append { content } => {
                let mut options = OpenOptions::new();
                options.append(true).custom_flags(nofollow());
                self.fill(&path, &options, content, None)
            }
            Action::CreateDirectory { attributes } => {
                fs::create_dir(&path)?;
                set(&path, attributes)?;
                self.stamp(&path)
            }
            Action::CreateSymlink { target } => {
                std::os::unix::fs::symlink(target, &path)?;
                self.stamp(&path)
            }
            Action::Remove => fs::remove_file(&path),
            Action::Rename { to } => fs::rename(&path, self.place(to)?),
        }
    }

    /// A path inside as one outside.
    fn place(&self, inside: &str) -> io::Result<PathBuf> {
        let is_plain = |inside: &&str| {
            let mut parts = inside.split('/');
            parts.all(|part| !matches!(part, "" | "." | ".."))
        };
        let relative = inside.strip_prefix('/').filter(is_plain);
        let relative =
            relative.ok_or_else(|| io::Error::other(format!("{inside} is no absolute path")))?;
        Ok(self.root.join(relative))
    }

    fn write(&self, path: &Path, content: &str, attributes: Option<&Attributes>) -> io::Result<()> {
        let is_new = match fs::symlink_metadata(path) {
            Ok(found) if found.is_file() => false,
            Ok(_) => return Err(io::Error::other("it is no regular file")),
            Err(error) if error.kind() == io::ErrorKind::NotFound => true,
            Err(error) => return Err(error),
        };
        let mut options = OpenOptions::new();
        options.write(true).custom_flags(nofollow());
        if is_new {
            options.create_new(true).mode(0o600);
        } else {
            options.truncate(true);
        }
        let attributes = attributes.or(is_new.then_some(&NEW));
        self.fill(path, &options, content, attributes)
    }

    fn fill(
        &self,
        path: &Path,
        options: &OpenOptions,
        content: &str,
        attributes: Option<&Attributes>,
    ) -> io::Result<()> {
        let protection = unprotect(path)?;
        let capability = capability(path);
        let mut file = options.open(path)?;
        let mut source = File::open(self.contents.join(content))?;
        io::copy(&mut source, &mut file)?;
        file.flush()?;
        if let Some(attributes) = attributes {
            set(path, attributes)?;
        } else if let Some(value) = capability {
            rustix::fs::lsetxattr(path, CAPABILITY, &value, XattrFlags::empty())?;
        }
        self.stamp(path)?;
        if let Some(flags) = protection {
            ioctl_setflags(&file, flags)?;
        }
        file.sync_all()
    }

    fn stamp(&self, path: &Path) -> io::Result<()> {
        let now = Timespec {
            tv_sec: self.now_unix_seconds,
            tv_nsec: 0,
        };
        let times = Timestamps {
            last_access: now,
            last_modification: now,
        };
        rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)?;
        Ok(())
    }
}

fn nofollow() -> i32 {
    // The same bits, whatever type they have.
    i32::try_from(OFlags::NOFOLLOW.bits()).unwrap_or_default()
}

/// Takes the protection from a file; the flags to be set again.
fn unprotect(path: &Path) -> io::Result<Option<IFlags>> {
    let Ok(file) = OpenOptions::new()
        .read(true)
        .custom_flags(nofollow())
        .open(path)
    else {
        return Ok(None);
    };
    // Not all filesystems have flags.
    let Ok(flags) = ioctl_getflags(&file) else {
        return Ok(None);
    };
    if !flags.intersects(PROTECTED) {
        return Ok(None);
    }
    ioctl_setflags(&file, flags.difference(PROTECTED))?;
    Ok(Some(flags))
}

fn capability(path: &Path) -> Option<Vec<u8>> {
    let mut value = vec![0; CAPABILITY_BYTES_MAX];
    // Few files have one.
    let length = rustix::fs::lgetxattr(path, CAPABILITY, value.as_mut_slice()).ok()?;
    value.truncate(length);
    Some(value)
}

fn set(path: &Path, attributes: &Attributes) -> io::Result<()> {
    std::os::unix::fs::lchown(path, Some(attributes.uid), Some(attributes.gid))?;
    // After the owner, whose change takes the set-uid bit.
    fs::set_permissions(path, fs::Permissions::from_mode(attributes.mode & 0o7777))?;
    if let Some(context) = &attributes.selinux {
        // The kernel keeps it with the zero at its end.
        let value = CString::new(context.as_str())?;
        let flags = XattrFlags::empty();
        rustix::fs::lsetxattr(path, SELINUX, value.as_bytes_with_nul(), flags)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;

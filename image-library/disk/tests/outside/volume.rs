// SPDX-License-Identifier: MIT OR Apache-2.0
//! A file with a filesystem in it, read and written by this package and by the filesystem's tools.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use disk::{Error, ReadAt, Result, WriteAt};

use crate::outside::program_path;

/// An image, as a device.
#[derive(Debug)]
pub(crate) struct ImageFile(File, u64);

impl ImageFile {
    pub(crate) fn open(path: &Path) -> Arc<Self> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(path)
            .expect("the image opens");
        let length = file.metadata().expect("the image has a size").len();
        Arc::new(Self(file, length))
    }
}

impl ReadAt for ImageFile {
    fn length_bytes(&self) -> u64 {
        self.1
    }

    fn read_exact_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let read = self.0.read_exact_at(buffer, offset);
        read.map_err(|_| Error::corrupt("image", offset, "expected bytes, found its end"))
    }
}

impl WriteAt for ImageFile {
    fn write_all_at(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        if offset.saturating_add(bytes.len() as u64) > self.1 {
            return Err(Error::corrupt(
                "image",
                offset,
                "expected room, found its end",
            ));
        }
        let written = self.0.write_all_at(bytes, offset);
        written.expect("the image is writable");
        Ok(())
    }

    fn flush(&self) -> Result<()> {
        Ok(())
    }
}

/// Runs a program whose exit code says something; gives code, output and errors.
pub(crate) fn attempt(program: &str, arguments: &[&str]) -> (i32, String) {
    let output = Command::new(program_path(program))
        .args(arguments)
        .env("LC_ALL", "C")
        .output()
        .unwrap_or_else(|error| panic!("start {program}: {error}"));
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    text += &String::from_utf8_lossy(&output.stderr);
    (output.status.code().unwrap_or(-1), text)
}

/// The checker of ext filesystems finds nothing.
pub(crate) fn assert_clean(image: &Path, context: &str) {
    let (code, output) = attempt("e2fsck", &["-fn", &image.to_string_lossy()]);
    assert_eq!(code, 0, "{context}: e2fsck -fn\n{output}");
}

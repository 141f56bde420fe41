// SPDX-License-Identifier: MIT OR Apache-2.0
//! A real block device of this machine: a disk file behind a loop device, mounted when asked.
//! Both go when they are dropped.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::toolbox::{have_tool, skip};

/// A disk file as a block device.
#[derive(Debug)]
pub struct LoopDevice {
    node: PathBuf,
}

impl LoopDevice {
    /// `None`, and said so, where this user or machine has no loop devices.
    #[must_use]
    pub fn attach(file: &Path) -> Option<Self> {
        if !have_tool("losetup") {
            return None;
        }
        match run("losetup", &["--find".as_ref(), "--show".as_ref(), file]) {
            Ok(node) => Some(Self {
                node: PathBuf::from(node),
            }),
            Err(problem) => {
                skip(&format!("no loop device: {problem}"));
                None
            }
        }
    }

    /// Its device node: `/dev/loop0`.
    #[must_use]
    pub fn node(&self) -> &Path {
        &self.node
    }

    /// Its name, as the kernel calls it: `loop0`.
    ///
    /// # Panics
    /// Never: every node has a name.
    #[must_use]
    pub fn name(&self) -> String {
        let name = self.node.file_name().expect("a node has a name");
        name.to_string_lossy().into_owned()
    }

    /// Mounts the filesystem on it; `None`, and said so, where that is not allowed.
    #[must_use]
    pub fn mount(&self, directory: &Path) -> Option<Mounted<'_>> {
        match run("mount", &[&self.node, directory]) {
            Ok(_) => Some(Mounted {
                directory: directory.to_owned(),
                _device: self,
            }),
            Err(problem) => {
                skip(&format!("mounting is not possible: {problem}"));
                None
            }
        }
    }
}

impl Drop for LoopDevice {
    fn drop(&mut self) {
        // Nothing can be done about one that stays; the test has been judged already.
        let _ = run("losetup", &["--detach".as_ref(), &self.node]);
    }
}

/// A mounted filesystem; unmounted when dropped, before its device goes.
#[derive(Debug)]
pub struct Mounted<'device> {
    directory: PathBuf,
    _device: &'device LoopDevice,
}

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        let _ = run("umount", &[&self.directory]);
    }
}

fn run(tool: &str, arguments: &[&Path]) -> Result<String, String> {
    let output = Command::new(tool)
        .env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin")
        .args(arguments)
        .output()
        .map_err(|error| format!("{tool}: {error}"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if output.status.success() {
        Ok(text(&output.stdout))
    } else {
        Err(text(&output.stderr))
    }
}

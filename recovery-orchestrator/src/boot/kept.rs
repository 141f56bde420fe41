// SPDX-License-Identifier: MIT OR Apache-2.0
//! A machine whose disks are kept in a directory of this computer.
//!
//! ```text
//! machine.json      what it is; written last, so a directory without it holds nothing
//! overlayN.qcow2    what was changed of disk N, over the image in the library
//! diskN.qcow2       the whole disk N, once it was moved here
//! kernel, initramfs what the machine is given from outside, where its disks do not start by themselves
//! moved.json        which disks were moved: for these the overlay counts no more
//! ```
//!
//! A copy that was interrupted (the computer lost its power) begins anew, over the overlay, which has
//! all that the guest wrote; what is in the chunk cache is not fetched again.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};

use converter::vm::VmDefinition;
use disk::block::create_empty_qcow2;
use image_library::ImageId;
use rustix::io::{FdFlags, fcntl_setfd};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::file;
use crate::guest::{Conversion, Guest, GuestDisk};
use crate::keeper::{KeptDiskOrder, MoveOrder, Moved};
use crate::platform::{DiskOrder, KernelOrder};

const MACHINE: &str = "machine.json";
const MOVED: &str = "moved.json";
const FILE_BYTES_MAX: u64 = 16 << 20;

/// What `machine.json` holds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Record {
    version: u32,
    image: ImageId,
    definition: VmDefinition,
    disks: Vec<KeptDiskOrder>,
}

/// A directory with a machine's disks, locked while this or its machine lives.
#[derive(Debug)]
pub struct KeptMachine {
    directory: PathBuf,
    record: Record,
    moved: Moved,
    /// `None`: the machine that was taken over has it.
    _lock: Option<File>,
}

impl KeptMachine {
    /// Makes the directory for a guest, or takes up what is in it.
    ///
    /// # Errors
    ///
    /// When it holds something else, another image's machine, or one that runs.
    pub fn create(directory: &Path, guest: &Guest) -> Result<Self> {
        if directory.join(MACHINE).exists() {
            let kept = Self::open(directory)?;
            if kept.record.image == guest.image {
                return Ok(kept);
            }
            return Err(refuse(
                directory,
                &format!("it holds a machine of the image {}", kept.record.image),
                "name another directory, or go on with that one: relevo boot --from DIR",
            ));
        }
        file::create_private_directories(directory)?;
        let mut entries = std::fs::read_dir(directory).map_err(Error::file("read", directory))?;
        if entries.next().is_some() {
            return Err(refuse(
                directory,
                "it is not empty",
                "name a directory that does not exist yet",
            ));
        }
        for (number, disk) in guest.disks.iter().enumerate() {
            disk.write_overlay(&overlay(directory, number))?;
        }
        // As the disks are here for good, so is what starts them: the library may be gone by then.
        guest.write_kernel(directory, file::write_atomically)?;
        let record = Record {
            version: 1,
            image: guest.image,
            definition: guest.definition.clone(),
            disks: guest.kept_disks(),
        };
        let text = serde_json::to_vec_pretty(&record).unwrap_or_default();
        file::write_atomically(&directory.join(MACHINE), &text)?;
        Self::open(directory)
    }

    /// Takes up what is in a directory.
    ///
    /// # Errors
    ///
    /// When its machine runs.
    pub fn open(directory: &Path) -> Result<Self> {
        let kept = Self::of_running(directory)?;
        // What is read is read under the lock.
        let lock = Some(lock(&directory.join(MACHINE), directory)?);
        Ok(Self {
            _lock: lock,
            ..Self::of_running(&kept.directory)?
        })
    }

    /// What is in the directory of a machine that is taken over.
    pub fn of_running(directory: &Path) -> Result<Self> {
        let place = directory.join(MACHINE);
        let wrong =
            |problem: String| refuse(directory, &problem, "relevo boot IMAGE --to DIR makes one");
        let text = file::read_text(&place, FILE_BYTES_MAX)?;
        let record: Record = serde_json::from_str(&text)
            .map_err(|error| wrong(format!("{MACHINE} is none: {error}")))?;
        let moved = directory.join(MOVED);
        let moved = if moved.exists() {
            serde_json::from_str(&file::read_text(&moved, FILE_BYTES_MAX)?)
                .map_err(|error| wrong(format!("{MOVED} is none: {error}")))?
        } else {
            Moved {
                disks: vec![false; record.disks.len()],
            }
        };
        let kept = Self {
            _lock: None,
            directory: std::path::absolute(directory).map_err(Error::file("find", directory))?,
            record,
            moved,
        };
        let is_whole = kept.kernel().is_none_or(|kernel| {
            let mut files = std::iter::once(&kernel.kernel).chain(&kernel.initramfs);
            files.all(|file| file.is_file())
        });
        if kept.record.version != 1
            || kept.record.disks.len() != kept.moved.disks.len()
            || !is_whole
        {
            return Err(wrong("its files do not fit each other".to_owned()));
        }
        Ok(kept)
    }

    /// Whether all disks are here, so that the library is not needed.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.moved.disks.iter().all(|moved| *moved)
    }

    /// The guest as it was prepared when the directory was made.
    #[must_use]
    pub fn guest(&self) -> Guest {
        let disk = |disk: &KeptDiskOrder| GuestDisk {
            index: disk.index,
            size_bytes: disk.size_bytes,
            sector_size: disk.sector_size,
            overlay: None,
        };
        Guest {
            image: self.record.image,
            definition: self.record.definition.clone(),
            disks: self.record.disks.iter().map(disk).collect(),
            kernel: None,
            conversion: Conversion::default(),
        }
    }

    /// The disks as a machine gets them.
    #[must_use]
    pub fn disks(&self) -> Vec<DiskOrder> {
        let disks = self.record.disks.iter().zip(&self.moved.disks);
        disks
            .enumerate()
            .map(|(number, (disk, moved))| DiskOrder {
                file: match moved {
                    true => whole(&self.directory, number),
                    false => overlay(&self.directory, number),
                },
                is_overlay: !moved,
                is_kept: true,
                sector_size: disk.sector_size,
            })
            .collect()
    }

    /// What the machine is given from outside, where its disks do not start by themselves.
    #[must_use]
    pub fn kernel(&self) -> Option<KernelOrder> {
        self.guest().kernel_order(&self.directory)
    }

    /// How the disks that are not here yet are moved; `None` when all are. Makes new files for them.
    pub fn move_order(&self, rate_bytes_per_second: u64) -> Result<Option<MoveOrder>> {
        if self.is_complete() {
            return Ok(None);
        }
        let mut targets = Vec::new();
        for (number, disk) in self.record.disks.iter().enumerate() {
            if self.moved.disks[number] {
                targets.push(None);
            } else {
                let target = whole(&self.directory, number);
                // What an earlier copy had come to.
                file::remove_file(&target)?;
                create_empty_qcow2(&target, disk.size_bytes)?;
                targets.push(Some(target));
            }
        }
        Ok(Some(MoveOrder {
            targets,
            rate_bytes_per_second,
            record: self.directory.join(MOVED),
        }))
    }

    /// Removes the overlays of disks that were moved: nothing reads them any more.
    pub fn tidy_up(&self) -> Result<()> {
        let kept = file::read_text(&self.directory.join(MOVED), FILE_BYTES_MAX);
        let moved: Moved = kept
            .ok()
            .and_then(|text| serde_json::from_str(&text).ok())
            .unwrap_or_default();
        for (number, moved) in moved.disks.iter().enumerate() {
            if *moved {
                file::remove_file(&overlay(&self.directory, number))?;
            }
        }
        Ok(())
    }
}

fn overlay(directory: &Path, number: usize) -> PathBuf {
    directory.join(format!("overlay{number}.qcow2"))
}

fn whole(directory: &Path, number: usize) -> PathBuf {
    directory.join(format!("disk{number}.qcow2"))
}

/// Two machines on the same files would destroy them. The lock is inherited by the processes of the
/// machine, so it lasts as long as they do, whatever becomes of this one.
fn lock(place: &Path, directory: &Path) -> Result<File> {
    let file = File::open(place).map_err(Error::file("open", place))?;
    match file.try_lock() {
        Ok(()) => {
            let inherited = fcntl_setfd(&file, FdFlags::empty());
            inherited.map_err(|error| Error::file("lock", place)(error.into()))?;
            Ok(file)
        }
        Err(TryLockError::WouldBlock) => Err(refuse(
            directory,
            "its machine runs",
            "if its command is gone, `relevo attach` takes it over and `relevo cleanup` ends it",
        )),
        Err(TryLockError::Error(error)) => Err(Error::file("lock", place)(error)),
    }
}

fn refuse(directory: &Path, problem: &str, hint: &str) -> Error {
    Error::Request {
        problem: format!("{}: {problem}", directory.display()),
        hint: Some(hint.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use converter::inspect::{FilePlace, VolumeId};
    use converter::vm::{DirectBoot, Firmware, KernelFiles, Mainboard};
    use disk::SectorSize;
    use image_library::DiskIndex;

    use super::*;

    fn guest(initramfs: Option<&[u8]>) -> Guest {
        let place = |path: &str| FilePlace {
            volume: VolumeId::on_disk(DiskIndex(0), Some(1)),
            path: path.to_owned(),
            guest_path: path.to_owned(),
        };
        let definition = VmDefinition {
            name: "fax".to_owned(),
            firmware: Firmware::Bios,
            mainboard: Mainboard::Pc,
            cpus: 1,
            memory_bytes: 1 << 28,
            profiles: Vec::new(),
            disks: Vec::new(),
            nics: Vec::new(),
            clock_utc: true,
            direct_boot: Some(DirectBoot {
                kernel: place("/vmlinuz"),
                initramfs: initramfs.map(|_| place("/initrd.img")),
                command_line: "root=UUID=1234 ro".to_owned(),
            }),
        };
        Guest {
            image: ImageId::from_uuid(uuid::Uuid::from_u128(1)),
            definition,
            disks: vec![GuestDisk {
                index: DiskIndex(0),
                size_bytes: 1 << 20,
                sector_size: SectorSize::B512,
                overlay: None,
            }],
            kernel: Some(KernelFiles {
                kernel: b"a kernel".to_vec(),
                initramfs: initramfs.map(<[u8]>::to_vec),
            }),
            conversion: Conversion::default(),
        }
    }

    #[test]
    fn a_kernel_from_outside_is_kept_with_the_disks() {
        for initramfs in [Some(&b"its initramfs"[..]), None] {
            let above = tempfile::tempdir().unwrap();
            let directory = above.path().join("fax");
            drop(KeptMachine::create(&directory, &guest(initramfs)).unwrap());
            // Another command, without the library.
            let kept = KeptMachine::open(&directory).unwrap();
            assert_eq!(kept.guest().definition, guest(initramfs).definition);
            let kernel = kept.kernel().unwrap();
            assert_eq!(std::fs::read(&kernel.kernel).unwrap(), b"a kernel");
            let read = kernel.initramfs.map(|file| std::fs::read(file).unwrap());
            assert_eq!(read.as_deref(), initramfs);
            assert_eq!(kernel.command_line, "root=UUID=1234 ro");
            drop(kept);
            std::fs::remove_file(kernel.kernel).unwrap();
            let error = KeptMachine::open(&directory).unwrap_err().to_string();
            assert!(error.contains("do not fit each other"), "{error}");
        }
    }

    #[test]
    fn a_machine_that_starts_by_itself_keeps_no_kernel() {
        let above = tempfile::tempdir().unwrap();
        let directory = above.path().join("web");
        let mut guest = guest(None);
        guest.definition.direct_boot = None;
        guest.kernel = None;
        let kept = KeptMachine::create(&directory, &guest).unwrap();
        assert_eq!(kept.kernel(), None);
        assert!(!directory.join("kernel").exists());
    }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where virtual machines run. Only this module starts them, and the program that writes their disk files.
//!
//! Life of a machine: [`Platform::start`] makes it with its processors stopped;
//! [`Machine::resume`] lets them run, which is the moment from which recovery is measured;
//! [`Machine::stop`] ends it. A machine that is dropped is stopped.

pub mod fake;
pub mod qemu;
pub(crate) mod qemu_img;

use std::fmt::{self, Debug};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Instant;

use converter::vm::{DiskController, NicModel, Profile, VmDefinition};
use disk::SectorSize;
use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::journal::ProcessIdentity;
use crate::network::NicPlan;
use crate::process::Lifetime;

/// Runs virtual machines.
pub trait Platform: Debug + Sync {
    /// What it is, for the report.
    fn description(&self) -> Description;

    /// Makes a machine whose processors do not run yet.
    ///
    /// To be called from a thread that outlives a machine that is to die with the command: on Linux
    /// it dies with that thread.
    fn start(&self, order: &Order) -> Result<Box<dyn Machine>>;

    /// Takes over a machine that a command made which is gone.
    fn take_over(&self, running: &RunningMachine) -> Result<Box<dyn Machine>>;
}

/// What is written down of a machine that goes on without its command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunningMachine {
    /// Whose.
    pub name: String,
    /// The hardware that it has, as [`ProfileName`].
    pub profile: String,
    /// Its process.
    pub process: ProcessIdentity,
    /// Its network cards.
    pub nics: Vec<NicPlan>,
    /// Where its files are.
    pub directory: PathBuf,
    /// Where its sockets are.
    pub sockets: PathBuf,
    /// The directory in which its disks are kept, if they are.
    pub kept: Option<PathBuf>,
}

/// What a platform is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Description {
    /// `qemu`.
    pub platform: String,
    /// Its version.
    pub version: String,
    /// What runs the guest's code, and why that was chosen.
    pub acceleration: String,
}

/// A machine that is to be made.
#[derive(Debug)]
pub struct Order {
    /// What it is like.
    pub definition: VmDefinition,
    /// The virtual hardware to give it.
    pub profile: Profile,
    /// Its disks, in the definition's order.
    pub disks: Vec<DiskOrder>,
    /// The kernel that it is given, where no boot loader on its disks can start one.
    pub kernel: Option<KernelOrder>,
    /// Its network cards.
    pub nics: Vec<NicPlan>,
    /// The socket on which its image's disks are served, as `disk0` and so on.
    pub nbd: PathBuf,
    /// How long it lives.
    pub lifetime: Lifetime,
    /// Where its files go; exists, and is its own.
    pub directory: PathBuf,
    /// Where its sockets go: exists, is its own, and has a short path.
    pub sockets: PathBuf,
}

/// A disk of a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskOrder {
    /// A qcow2 file, the machine's own: its writes go there.
    pub file: PathBuf,
    /// Whether what the file has not is read from the image.
    pub is_overlay: bool,
    /// Whether the file outlives the machine, so that what the guest flushes must be durable.
    pub is_kept: bool,
    /// Logical sector size.
    pub sector_size: SectorSize,
}

/// A kernel that the platform itself loads, each time that the machine starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KernelOrder {
    /// The file with the kernel.
    pub kernel: PathBuf,
    /// The file with its initramfs.
    pub initramfs: Option<PathBuf>,
    /// Its command line.
    pub command_line: String,
}

/// What has become of a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Status {
    /// It runs.
    Running,
    /// It has ended, and what it said last.
    Ended(String),
}

/// A machine.
pub trait Machine: Debug + Send + Sync {
    /// The process that it is, where it is one.
    fn process(&self) -> Option<ProcessIdentity>;

    /// Lets the processors run.
    fn resume(&self) -> Result<Instant>;

    /// Whether it still runs.
    fn status(&self) -> Status;

    /// The last part of what the guest wrote to its serial console.
    fn console(&self) -> Result<Vec<u8>>;

    /// Where a forwarded TCP port of the guest can be reached from here.
    fn endpoint(&self, port: u16) -> Option<SocketAddr>;

    /// Whether something in the guest accepts connections on a forwarded port.
    fn accepts(&self, port: u16) -> Result<bool>;

    /// The screen as a PNG image, where there is one.
    fn screenshot(&self) -> Option<Vec<u8>>;

    /// Ends it; ending twice is fine.
    fn stop(&self);
}

/// A profile as it is written in runbooks and on the command line: `virtio`, `virtio-scsi`,
/// `sata`, `ide`, `scsi-lsi`, each optionally with a card: `sata/e1000`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProfileName {
    disk: DiskController,
    nic: Option<NicModel>,
}

impl ProfileName {
    const DISKS: [(&'static str, DiskController); 5] = [
        ("virtio", DiskController::VirtioBlk),
        ("virtio-scsi", DiskController::VirtioScsi),
        ("sata", DiskController::Sata),
        ("ide", DiskController::Ide),
        ("scsi-lsi", DiskController::ScsiLsi),
    ];
    const NICS: [(&'static str, NicModel); 4] = [
        ("virtio", NicModel::Virtio),
        ("e1000e", NicModel::E1000e),
        ("e1000", NicModel::E1000),
        ("rtl8139", NicModel::Rtl8139),
    ];

    /// The name of a profile.
    #[must_use]
    pub fn of(profile: Profile) -> Self {
        Self {
            disk: profile.disk,
            nic: Some(profile.nic),
        }
    }

    /// The profile: the card that was named, else the one of the same disk in `known`, else the
    /// card of `known`'s first profile.
    #[must_use]
    pub fn profile(self, known: &[Profile]) -> Profile {
        let same_disk = known.iter().find(|profile| profile.disk == self.disk);
        let nic = self
            .nic
            .or_else(|| {
                same_disk
                    .or_else(|| known.first())
                    .map(|profile| profile.nic)
            })
            .unwrap_or(NicModel::Virtio);
        Profile {
            disk: self.disk,
            nic,
        }
    }
}

impl std::str::FromStr for ProfileName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (disk, nic) = match text.split_once('/') {
            Some((disk, nic)) => (disk, Some(nic)),
            None => (text, None),
        };
        let unknown = || {
            let disks = Self::DISKS.map(|(name, _)| name).join(", ");
            let nics = Self::NICS.map(|(name, _)| name).join(", ");
            format!("no profile {text:?}: it is one of {disks}, optionally with a card (/{nics})")
        };
        let found = Self::DISKS
            .iter()
            .find(|(name, _)| *name == disk)
            .ok_or_else(unknown)?;
        let nic = match nic {
            Some(wanted) => Some(
                Self::NICS
                    .iter()
                    .find(|(name, _)| *name == wanted)
                    .ok_or_else(unknown)?
                    .1,
            ),
            None => None,
        };
        Ok(Self { disk: found.1, nic })
    }
}

impl fmt::Display for ProfileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let disk = Self::DISKS.iter().find(|(_, disk)| *disk == self.disk);
        f.write_str(disk.map_or("?", |(name, _)| name))?;
        match self.nic {
            Some(nic) => {
                let name = Self::NICS.iter().find(|(_, model)| *model == nic);
                write!(f, "/{}", name.map_or("?", |(name, _)| name))
            }
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_keeps_the_card_that_the_guest_is_known_to_have_a_driver_for() {
        let known = [
            Profile {
                disk: DiskController::VirtioBlk,
                nic: NicModel::Virtio,
            },
            Profile {
                disk: DiskController::Sata,
                nic: NicModel::E1000,
            },
        ];
        let name: ProfileName = "sata".parse().unwrap();
        assert_eq!(name.profile(&known), known[1]);
        let name: ProfileName = "ide/rtl8139".parse().unwrap();
        assert_eq!(name.profile(&known).nic, NicModel::Rtl8139);
        assert_eq!(name.to_string(), "ide/rtl8139");
        assert!(
            "floppy"
                .parse::<ProfileName>()
                .unwrap_err()
                .contains("virtio-scsi")
        );
    }
}

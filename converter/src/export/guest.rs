// SPDX-License-Identifier: MIT OR Apache-2.0
//! What an export must know of the guest beside its virtual machine.

use std::collections::BTreeMap;

use image_library::DiskIndex;

use crate::inspect::{DriverFacts, DriverPlace, Inspection};
use crate::plan::default_kernel;

/// The first kernel whose virtio drivers know devices of version 1.0, which have no old interface.
const VIRTIO_1_KERNEL: u32 = 4;

/// The operating system, its drivers, and the serial numbers of its disks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GuestFacts {
    /// `ID` of os-release: `debian`.
    pub system: Option<String>,
    /// `VERSION_ID`.
    pub system_version: Option<String>,
    /// `x86_64`, `i386`.
    pub architecture: Option<String>,
    /// The kernel that starts (`6.1.0-28-amd64`).
    pub kernel: Option<String>,
    /// Where it has its drivers; empty where there is no kernel that we know.
    pub drivers: Vec<DriverFacts>,
    /// Serial numbers of the physical disks.
    pub serials: BTreeMap<DiskIndex, String>,
}

/// When a driver can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Use {
    /// Never.
    Never,
    /// Once the root is mounted.
    Late,
    /// As soon as the root is looked for.
    AtBoot,
}

impl GuestFacts {
    /// Takes the facts from an inspection.
    #[must_use]
    pub fn of(inspection: &Inspection) -> Self {
        let system = inspection.system.as_ref();
        let kernel = default_kernel(inspection);
        Self {
            system: system.map(|system| system.id.clone()),
            system_version: system.and_then(|system| system.version.clone()),
            architecture: system.and_then(|system| system.architecture.clone()),
            kernel: kernel.map(|kernel| kernel.version.clone()),
            drivers: kernel.map_or_else(Vec::new, |kernel| kernel.drivers.clone()),
            serials: serials(inspection),
        }
    }

    pub(super) fn serial(&self, disk: DiskIndex) -> Option<&str> {
        self.serials.get(&disk).map(String::as_str)
    }

    /// When a driver can be used.
    pub(super) fn driver(&self, name: &str) -> Use {
        let found = self.drivers.iter().find(|driver| driver.name == name);
        match found.map(|driver| driver.place) {
            Some(DriverPlace::BuiltIn | DriverPlace::InInitramfs) => Use::AtBoot,
            Some(DriverPlace::Module) => Use::Late,
            Some(DriverPlace::Absent) | None => Use::Never,
        }
    }

    /// When all of them can be used.
    pub(super) fn all(&self, names: &[&str]) -> Use {
        let uses = names.iter().map(|name| self.driver(name));
        uses.min().unwrap_or(Use::Never)
    }

    /// Whether it is a 32-bit system.
    pub(super) fn is_32_bit(&self) -> bool {
        self.architecture.as_deref() == Some("i386")
    }

    /// Whether its virtio drivers may know only devices with the old interface. Distributions gave the
    /// new one to some older kernels as well; those are as well off with a device that has both.
    pub(super) fn wants_old_virtio(&self) -> bool {
        let version = self.kernel.as_deref().unwrap_or_default();
        let major = version.split('.').next().unwrap_or_default().parse::<u32>();
        major.is_ok_and(|major| major < VIRTIO_1_KERNEL)
    }
}

/// By the names that the machine description and the image have for the disks.
fn serials(inspection: &Inspection) -> BTreeMap<DiskIndex, String> {
    let Some(machine) = &inspection.machine else {
        return BTreeMap::new();
    };
    let disks = inspection.disks.iter().filter_map(|facts| {
        let name = facts.name.as_deref()?;
        let known = machine.disks.iter().find(|disk| disk.name == name)?;
        Some((facts.index, known.serial.clone()?))
    });
    disks.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_old_virtio_interface_is_for_kernels_before_4() {
        for (kernel, expected) in [
            (Some("2.6.32-754.el6.x86_64"), true),
            (Some("3.10.0-1160.el7.x86_64"), true),
            (Some("4.19.0-27-amd64"), false),
            (Some("6.1.0-28-amd64"), false),
            (Some("built-by-hand"), false),
            (None, false),
        ] {
            let guest = GuestFacts {
                kernel: kernel.map(str::to_owned),
                ..GuestFacts::default()
            };
            assert_eq!(guest.wants_old_virtio(), expected, "{kernel:?}");
        }
    }
}

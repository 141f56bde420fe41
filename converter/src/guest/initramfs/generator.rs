// SPDX-License-Identifier: MIT OR Apache-2.0
//! The program that made an initramfs, told by what it leaves in it.

use std::fmt;

use super::Initramfs;

/// The program that made an initramfs: it decides how modules are loaded at boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Generator {
    /// Debian, Ubuntu: `conf/modules` is loaded, then udev.
    InitramfsTools,
    /// Fedora, RHEL from 6, SUSE from 12, and others: udev loads what the hardware asks for.
    Dracut,
    /// Arch Linux: `MODULES` of `/config` is loaded, then udev.
    Mkinitcpio,
    /// SUSE up to 11: `/run_all.sh` is all scripts in their order, udev among them.
    SuseMkinitrd,
    /// RHEL up to 5: `/init` is a script for nash with one `insmod` per module.
    Nash,
    /// Alpine Linux: nlplug-findfs loads what the hardware asks for.
    Mkinitfs,
    /// Gentoo.
    Genkernel,
    /// booster.
    Booster,
    /// None of these.
    Unknown,
}

impl Generator {
    /// True where we know how to make it load a module that is added.
    #[must_use]
    pub const fn is_extensible(self) -> bool {
        match self {
            Self::InitramfsTools
            | Self::Dracut
            | Self::Mkinitcpio
            | Self::SuseMkinitrd
            | Self::Nash
            | Self::Mkinitfs => true,
            Self::Genkernel | Self::Booster | Self::Unknown => false,
        }
    }

    /// True where it loads no module but those that its own script names, from one directory.
    #[must_use]
    pub const fn has_flat_modules(self) -> bool {
        matches!(self, Self::Nash)
    }

    /// True where drivers of network cards belong inside: it may bring up the network, and udev
    /// names the cards there.
    #[must_use]
    pub const fn has_network(self) -> bool {
        matches!(self, Self::InitramfsTools)
    }

    pub(super) fn of(initramfs: &Initramfs) -> Self {
        const MARKS: [(&str, Generator); 17] = [
            ("conf/arch.conf", Generator::InitramfsTools),
            ("conf/initramfs.conf", Generator::InitramfsTools),
            ("scripts/functions", Generator::InitramfsTools),
            ("etc/booster.init.yaml", Generator::Booster),
            ("usr/lib/dracut", Generator::Dracut),
            ("lib/dracut", Generator::Dracut),
            ("lib/dracut-lib.sh", Generator::Dracut),
            ("etc/dracut.conf.d", Generator::Dracut),
            ("init_functions", Generator::Mkinitcpio),
            ("hooks/udev", Generator::Mkinitcpio),
            // With systemd there are neither.
            ("buildconfig", Generator::Mkinitcpio),
            ("run_all.sh", Generator::SuseMkinitrd),
            ("mkinitrd.config", Generator::SuseMkinitrd),
            ("bin/nash", Generator::Nash),
            ("sbin/nash", Generator::Nash),
            ("sbin/nlplug-findfs", Generator::Mkinitfs),
            ("etc/initrd.defaults", Generator::Genkernel),
        ];
        MARKS
            .iter()
            .find(|(path, _)| initramfs.entry(path).is_some())
            .map_or(Self::Unknown, |(_, generator)| *generator)
    }
}

impl fmt::Display for Generator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::InitramfsTools => "initramfs-tools",
            Self::Dracut => "dracut",
            Self::Mkinitcpio => "mkinitcpio",
            Self::SuseMkinitrd => "mkinitrd of SUSE",
            Self::Nash => "mkinitrd with nash",
            Self::Mkinitfs => "mkinitfs",
            Self::Genkernel => "genkernel",
            Self::Booster => "booster",
            Self::Unknown => "an unknown generator",
        })
    }
}

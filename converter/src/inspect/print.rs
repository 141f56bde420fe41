// SPDX-License-Identifier: MIT OR Apache-2.0
//! An inspection as text for people.

use std::fmt::{self, Write};

use crate::inspect::inspection::{DriverPlace, Inspection, Kernel, VolumeContent};

const MIB: u64 = 1 << 20;

impl fmt::Display for Inspection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write_system(f)?;
        self.write_disks(f)?;
        for mount in &self.mounts {
            let spec = mount.spec.as_deref().unwrap_or("not in fstab");
            write!(f, "mount       {}", self.volumes().name(mount.volume))?;
            if !mount.directory.is_empty() {
                write!(f, " {}", mount.directory)?;
            }
            writeln!(f, " on {} ({spec})", mount.mount_point)?;
        }
        for kernel in &self.kernels {
            write_kernel(f, kernel)?;
        }
        self.write_cards(f)?;
        if !self.services.is_empty() {
            writeln!(f, "services    {}", self.services.join(" "))?;
        }
        self.write_findings(f)
    }
}

impl Inspection {
    fn write_system(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.system {
            Some(system) => {
                let hostname = system.hostname.as_deref().unwrap_or("-");
                let architecture = system.architecture.as_deref().unwrap_or("unknown");
                writeln!(
                    f,
                    "system      {} ({architecture}), host {hostname}",
                    system.name
                )?;
            }
            None => writeln!(f, "system      not known")?,
        }
        writeln!(
            f,
            "firmware    {}: {}",
            self.firmware, self.firmware_evidence
        )?;
        for bootloader in &self.bootloaders {
            writeln!(
                f,
                "boot loader {} ({})",
                bootloader.kind, bootloader.configuration.place
            )?;
        }
        for uki in &self.ukis {
            writeln!(
                f,
                "boot image  {} ({})",
                uki.kernel.version, uki.kernel.image
            )?;
        }
        Ok(())
    }

    fn write_disks(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for disk in &self.disks {
            let name = disk.name.as_deref().unwrap_or("-");
            let size = disk.size_bytes / MIB;
            let code = disk.boot_code_of.map(|code| format!(", starts {code}"));
            writeln!(
                f,
                "disk {:<6} {name}, {size} MiB, {}{}",
                disk.index.0,
                disk.table,
                code.unwrap_or_default()
            )?;
            for volume in &disk.volumes {
                let place = volume.id.to_string();
                let line = volume_line(&place, volume.size_bytes, volume.content.as_ref());
                writeln!(f, "  {line}")?;
            }
        }
        for volume in &self.assembled {
            let line = volume_line(&volume.name, volume.size_bytes, volume.content.as_ref());
            writeln!(f, "volume      {line}")?;
        }
        Ok(())
    }

    fn write_cards(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for card in &self.network.cards {
            let mac = card.mac.as_deref().unwrap_or("no MAC address known");
            let addresses = match card.addresses.as_slice() {
                [] => "no static address".to_owned(),
                addresses => addresses.join(", "),
            };
            writeln!(
                f,
                "network     {}: {mac}; {addresses} ({})",
                card.name, card.file
            )?;
        }
        Ok(())
    }

    fn write_findings(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for finding in &self.findings {
            let place = &finding.place;
            writeln!(
                f,
                "{:<11} {} {place}: {}",
                level(finding.level),
                finding.code,
                finding.problem
            )?;
        }
        Ok(())
    }
}

fn volume_line(place: &str, size_bytes: u64, content: Option<&VolumeContent>) -> String {
    let mut line = format!("{place}: {} MiB", size_bytes / MIB);
    match content {
        Some(content) => {
            let uuid = content.uuid.as_deref().unwrap_or("none");
            _ = write!(line, ", {}, UUID {uuid}", content.kind);
            if let Some(label) = &content.label {
                _ = write!(line, ", label {label}");
            }
            if content.journal_dirty {
                line.push_str(", journal to be replayed");
            }
        }
        None => line.push_str(", nothing that we know"),
    }
    line
}

fn write_kernel(f: &mut fmt::Formatter<'_>, kernel: &Kernel) -> fmt::Result {
    writeln!(f, "kernel      {} ({})", kernel.version, kernel.image)?;
    match &kernel.initramfs {
        Some(initramfs) => writeln!(
            f,
            "  {}: {}, {}, {} modules, {} KiB",
            initramfs.file,
            initramfs.generator,
            initramfs.compression,
            initramfs.module_count,
            initramfs.size_bytes / 1024
        )?,
        None => writeln!(f, "  no initramfs")?,
    }
    let places = [
        (DriverPlace::BuiltIn, "built in"),
        (DriverPlace::InInitramfs, "in initramfs"),
        (DriverPlace::Module, "module only"),
        (DriverPlace::Absent, "absent"),
    ];
    for (place, title) in places {
        let drivers: Vec<&str> = kernel
            .drivers
            .iter()
            .filter(|driver| driver.place == place)
            .map(|driver| driver.name.as_str())
            .collect();
        if !drivers.is_empty() {
            writeln!(f, "  {title}: {}", drivers.join(" "))?;
        }
    }
    Ok(())
}

/// A level as a word of a line.
pub(crate) fn level(level: disk::Level) -> &'static str {
    match level {
        disk::Level::Note => "note",
        disk::Level::Warning => "warning",
        disk::Level::Error => "error",
    }
}

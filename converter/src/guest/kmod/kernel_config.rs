// SPDX-License-Identifier: MIT OR Apache-2.0
//! `/boot/config-<version>`: what is linked into a kernel, where no `modules.builtin` says so
//! (before Linux 2.6.33).
//!
//! ```text
//! CONFIG_VIRTIO_BLK=m      # CONFIG_VIRTIO_NET is not set      CONFIG_BLK_DEV_SD=y
//! ```

use super::ModuleName;

/// The options of the drivers that matter, under all names that they had.
const OPTIONS: [(&str, &str); 23] = [
    ("virtio", "VIRTIO"),
    ("virtio_ring", "VIRTIO_RING"),
    ("virtio_pci", "VIRTIO_PCI"),
    ("virtio_blk", "VIRTIO_BLK"),
    ("virtio_scsi", "SCSI_VIRTIO"),
    ("virtio_net", "VIRTIO_NET"),
    ("scsi_mod", "SCSI"),
    ("sd_mod", "BLK_DEV_SD"),
    ("libata", "ATA"),
    ("libata", "SCSI_SATA"),
    ("ahci", "SATA_AHCI"),
    ("ahci", "SCSI_SATA_AHCI"),
    ("ata_piix", "ATA_PIIX"),
    ("ata_piix", "SCSI_ATA_PIIX"),
    ("sym53c8xx", "SCSI_SYM53C8XX_2"),
    ("ide_core", "IDE"),
    ("ide_disk", "BLK_DEV_IDEDISK"),
    ("ide_disk", "IDE_GD_ATA"),
    ("piix", "BLK_DEV_PIIX"),
    ("e1000e", "E1000E"),
    ("e1000", "E1000"),
    ("8139cp", "8139CP"),
    ("8139too", "8139TOO"),
];

/// The drivers that are linked into the kernel.
#[must_use]
pub fn builtin_drivers(config: &str) -> Vec<ModuleName> {
    let is_set = |option: &str| {
        let mut lines = config
            .lines()
            .filter_map(|line| line.strip_prefix("CONFIG_"));
        lines.any(|line| {
            line.strip_prefix(option)
                .is_some_and(|rest| rest.trim_end() == "=y")
        })
    };
    OPTIONS
        .iter()
        .filter(|(_, option)| is_set(option))
        .map(|(name, _)| ModuleName::new(name))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_linked_in_counts() {
        let config = "# CONFIG_VIRTIO_PCI is not set\nCONFIG_VIRTIO_BLK=m\nCONFIG_BLK_DEV_SD=y\n\
            CONFIG_SCSI=y\nCONFIG_SCSI_ATA_PIIX=y\nCONFIG_E1000=y\nCONFIG_E1000_NAPI=y\n";
        let names: Vec<String> = builtin_drivers(config)
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(names, ["scsi_mod", "sd_mod", "ata_piix", "e1000"]);
    }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! Every phony guest by its name. What must hold for all is tested for each of these, and
//! `runbooks/docs/supported.md` names them.

use super::racks::{debian, disorder, others, red_hat, refused, storage, suse, ubuntu};
use super::{PhonyGuest, generators, loaders, servers};
use super::{enterprise_servers as enterprise, old_servers as old};
use crate::guest::compression::Compression;

/// Makes a guest.
pub(crate) type Make = fn() -> PhonyGuest;

/// Guests whose golden plans are tested where what they are about is tested.
pub(crate) const OTHERS: &[(&str, Make)] = &[
    ("debian_bookworm", servers::debian_bookworm),
    ("debian_bullseye", servers::debian_bullseye),
    ("debian_trixie", servers::debian_trixie),
    ("ubuntu", servers::ubuntu),
    ("hardware_rhel_5", old::rhel_5),
    ("hardware_centos_6", old::centos_6),
    ("hardware_rhel_7_with_teams", enterprise::rhel_7_with_teams),
    ("hardware_rhel_9", enterprise::rhel_9),
    ("hardware_sles_10", old::sles_10),
    ("hardware_sles_11", old::sles_11),
    ("hardware_sles_15", enterprise::sles_15),
    ("hardware_ubuntu_trusty", old::ubuntu_trusty),
    ("hardware_ubuntu_bionic", enterprise::ubuntu_bionic),
    ("hardware_ubuntu_jammy", enterprise::ubuntu_jammy),
    (
        "hardware_debian_on_smart_array",
        enterprise::debian_on_smart_array,
    ),
    ("hardware_lvm_filtered", enterprise::lvm_filtered),
    ("hardware_dell_with_agents", enterprise::dell_with_agents),
    ("loader_rhel_5", loaders::rhel_5),
    ("loader_centos_6", loaders::centos_6),
    ("loader_centos_6_uefi", loaders::centos_6_uefi),
    ("loader_rhel_7", loaders::rhel_7),
    ("loader_rhel_8", loaders::rhel_8),
    ("loader_rhel_9", loaders::rhel_9),
    ("loader_rhel_9_uefi", loaders::rhel_9_uefi),
    ("loader_sles_11", loaders::sles_11),
    ("loader_sles_12", loaders::sles_12),
    ("loader_sles_15", loaders::sles_15),
    ("loader_debian_lilo", loaders::debian_lilo),
    ("loader_alpine", loaders::alpine),
    ("loader_arch", loaders::arch),
    ("loader_ubuntu_jammy", loaders::ubuntu_jammy),
    ("loader_fedora_uki", loaders::fedora_uki),
    ("loader_fedora_uki_by_device", loaders::fedora_uki_by_device),
    ("initramfs_rhel_4", generators::rhel_4),
    ("initramfs_rhel_5", generators::rhel_5),
    ("initramfs_centos_6", generators::centos_6),
    ("initramfs_rhel_7", generators::rhel_7),
    ("initramfs_rhel_9", generators::rhel_9),
    ("initramfs_fedora", generators::fedora),
    ("initramfs_sles_11", generators::sles_11),
    ("initramfs_sles_15", generators::sles_15),
    ("initramfs_arch", generators::arch),
    ("initramfs_alpine", generators::alpine),
    ("initramfs_ubuntu_16", || {
        generators::initramfs_tools("16.04", "4.4.0-210-generic", "", Compression::Gzip)
    }),
    ("initramfs_ubuntu_20", || {
        generators::initramfs_tools("20.04", "5.4.0-182-generic", "/usr", Compression::Lz4Legacy)
    }),
    ("initramfs_ubuntu_24", || {
        generators::initramfs_tools("24.04", "6.8.0-31-generic", "/usr", Compression::Zstd)
    }),
];

/// Whole servers, whose golden plans are those of this list.
pub(crate) const RACKS: &[(&str, Make)] = &[
    (
        "rhel_4_i386_on_smart_array",
        red_hat::rhel_4_i386_on_smart_array,
    ),
    ("centos_5_on_lvm", red_hat::centos_5_on_lvm),
    ("rhel_6_on_multipath", red_hat::rhel_6_on_multipath),
    ("centos_7_on_md", red_hat::centos_7_on_md),
    (
        "oracle_8_with_two_kernels",
        red_hat::oracle_8_with_two_kernels,
    ),
    ("alma_9_on_nvme", red_hat::alma_9_on_nvme),
    ("rocky_9_with_xfs_data", red_hat::rocky_9_with_xfs_data),
    ("rhel_10", red_hat::rhel_10),
    ("sles_12_on_lvm", suse::sles_12_on_lvm),
    ("sles_11_with_elilo", suse::sles_11_with_elilo),
    (
        "sles_15_with_data_on_multipath",
        suse::sles_15_with_data_on_multipath,
    ),
    (
        "tumbleweed_with_systemd_boot",
        suse::tumbleweed_with_systemd_boot,
    ),
    ("leap_with_snapshots", suse::leap_with_snapshots),
    ("debian_6_i386_on_ide", debian::debian_6_i386_on_ide),
    ("debian_7_on_md", debian::debian_7_on_md),
    (
        "debian_10_with_encrypted_data",
        debian::debian_10_with_encrypted_data,
    ),
    ("debian_11_on_lvm", debian::debian_11_on_lvm),
    (
        "debian_12_with_systemd_boot",
        debian::debian_12_with_systemd_boot,
    ),
    ("proxmox_8", debian::proxmox_8),
    ("ubuntu_16_of_a_provider", ubuntu::ubuntu_16_of_a_provider),
    ("ubuntu_18_without_a_disk", ubuntu::ubuntu_18_without_a_disk),
    ("ubuntu_22_on_btrfs", ubuntu::ubuntu_22_on_btrfs),
    ("ubuntu_24_on_nvme_and_md", ubuntu::ubuntu_24_on_nvme_and_md),
    ("arch_with_syslinux", others::arch_with_syslinux),
    ("slackware_with_lilo", others::slackware_with_lilo),
    ("alpine_with_grub", others::alpine_with_grub),
    ("moved_from_vmware", others::moved_from_vmware),
    ("firewall_with_many_cards", others::firewall_with_many_cards),
    ("proliant_with_agents", others::proliant_with_agents),
    ("cluster_node", others::cluster_node),
    ("two_systems", others::two_systems),
    ("own_kernel_linked_in", others::own_kernel_linked_in),
    ("rhel_3", refused::rhel_3),
    ("arm_server", refused::arm_server),
    ("signed_initramfs", refused::signed_initramfs),
    ("arch_with_booster", refused::arch_with_booster),
    ("gentoo_with_genkernel", refused::gentoo_with_genkernel),
    ("own_nash_script", refused::own_nash_script),
    ("damaged_initramfs", refused::damaged_initramfs),
    ("kernel_without_modules", refused::kernel_without_modules),
    ("kernel_without_drivers", refused::kernel_without_drivers),
    ("missing_module", refused::missing_module),
    ("windows_disk", refused::windows_disk),
    ("ubuntu_on_zfs", refused::ubuntu_on_zfs),
    ("fedora_coreos", refused::fedora_coreos),
    ("encrypted_root", refused::encrypted_root),
    ("lvm_without_its_disk", refused::lvm_without_its_disk),
    ("md_without_its_disks", refused::md_without_its_disks),
    ("usr_elsewhere", refused::usr_elsewhere),
    ("boot_elsewhere", refused::boot_elsewhere),
    (
        "debian_12_with_keys_elsewhere",
        storage::debian_12_with_keys_elsewhere,
    ),
    (
        "debian_12_on_two_disks_of_btrfs",
        storage::debian_12_on_two_disks_of_btrfs,
    ),
    (
        "damaged_partition_tables",
        storage::damaged_partition_tables,
    ),
    ("damaged_table", storage::damaged_table),
    ("blank_disk", storage::blank_disk),
    (
        "member_of_a_firmware_raid",
        storage::member_of_a_firmware_raid,
    ),
    ("mirrors_in_disorder", storage::mirrors_in_disorder),
    ("array_that_lacks_disks", storage::array_that_lacks_disks),
    ("damaged_volume_group", storage::damaged_volume_group),
    ("locked_data", storage::locked_data),
    ("locked_root", storage::locked_root),
    ("xfs_without_its_driver", storage::xfs_without_its_driver),
    ("xfs_on_32_bits", storage::xfs_on_32_bits),
    ("lilo_without_its_kernel", storage::lilo_without_its_kernel),
    ("rhel_8_without_room", storage::rhel_8_without_room),
    ("data_in_disorder", disorder::data_in_disorder),
    ("btrfs_in_disorder", disorder::btrfs_in_disorder),
    (
        "volume_group_with_an_older_disk",
        disorder::volume_group_with_an_older_disk,
    ),
    (
        "ubuntu_22_without_a_subvolume",
        disorder::ubuntu_22_without_a_subvolume,
    ),
    ("lilo_by_uuid", disorder::lilo_by_uuid),
    (
        "fedora_with_a_broken_image",
        disorder::fedora_with_a_broken_image,
    ),
    (
        "centos_6_with_a_copied_file",
        disorder::centos_6_with_a_copied_file,
    ),
    (
        "lvm_that_rejects_its_disk",
        disorder::lvm_that_rejects_its_disk,
    ),
];

/// All of them.
pub(crate) fn all() -> impl Iterator<Item = (&'static str, Make)> {
    OTHERS.iter().chain(RACKS).copied()
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! The operating system: release, kernels, how it starts, services that start by themselves.

use std::collections::BTreeSet;

use image_library::machine::OperatingSystem;

use crate::inventory::root::{Root, by_number};

/// The host name.
pub(crate) fn hostname(root: &Root) -> String {
    let running = root
        .is_this_server()
        .then(|| root.line("/proc/sys/kernel/hostname"))
        .flatten();
    running
        .or_else(|| root.line("/etc/hostname"))
        .or_else(|| root.line("/proc/sys/kernel/hostname"))
        .unwrap_or_else(|| "localhost".to_owned())
}

/// The operating system.
pub(crate) fn operating_system(root: &Root) -> OperatingSystem {
    let release = root
        .text("/etc/os-release")
        .or_else(|| root.text("/usr/lib/os-release"))
        .unwrap_or_default();
    let value = |key: &str| os_release_value(&release, key);
    let kernel = root.line("/proc/sys/kernel/osrelease").unwrap_or_default();
    OperatingSystem {
        id: value("ID").unwrap_or_else(|| "linux".to_owned()),
        version: value("VERSION_ID"),
        name: value("PRETTY_NAME")
            .or_else(|| root.line("/etc/redhat-release"))
            .unwrap_or_else(|| "Linux".to_owned()),
        kernel,
        kernels: kernels(root),
        initramfs_generator: initramfs_generator(root),
        bootloader: bootloader(root),
        kernel_command_line: root.line("/proc/cmdline").unwrap_or_default(),
    }
}

/// `KEY=value`, `KEY="value"` or `KEY='value'`.
fn os_release_value(text: &str, key: &str) -> Option<String> {
    let value = text
        .lines()
        .find_map(|line| line.trim().strip_prefix(key)?.strip_prefix('='))?;
    let value = value.trim().trim_matches(['"', '\'']);
    (!value.is_empty()).then(|| value.to_owned())
}

/// Releases that have modules and an image to start.
fn kernels(root: &Root) -> Vec<String> {
    let images: BTreeSet<String> = root
        .names("/boot")
        .iter()
        .filter_map(|name| {
            ["vmlinuz-", "vmlinux-", "kernel-"]
                .iter()
                .find_map(|prefix| name.strip_prefix(prefix))
                .map(str::to_owned)
        })
        .collect();
    let mut kernels: Vec<String> = ["/lib/modules", "/usr/lib/modules"]
        .iter()
        .flat_map(|directory| {
            root.names(directory)
                .into_iter()
                .map(move |n| (directory, n))
        })
        .filter(|(directory, release)| {
            images.contains(release) || root.exists(&format!("{directory}/{release}/vmlinuz"))
        })
        .map(|(_, release)| release)
        .collect();
    kernels.sort_by_key(|release| natural(release));
    kernels.dedup();
    kernels
}

/// `6.1.0-9` before `6.1.0-10`.
fn natural(text: &str) -> Vec<(String, u64)> {
    let mut parts = Vec::new();
    let mut rest = text.to_owned();
    while !rest.is_empty() && parts.len() < 64 {
        let (letters, number, after) = by_number(&rest);
        parts.push((letters, number));
        rest = after;
    }
    parts
}

fn initramfs_generator(root: &Root) -> Option<String> {
    let signs = [
        ("initramfs-tools", "/usr/sbin/update-initramfs"),
        ("dracut", "/usr/bin/dracut"),
        ("dracut", "/usr/sbin/dracut"),
        ("dracut", "/sbin/dracut"),
        ("mkinitcpio", "/usr/bin/mkinitcpio"),
        ("mkinitrd", "/sbin/mkinitrd"),
    ];
    first_sign(root, &signs)
}

fn bootloader(root: &Root) -> Option<String> {
    let signs = [
        ("systemd-boot", "/boot/efi/EFI/systemd/systemd-bootx64.efi"),
        ("systemd-boot", "/boot/EFI/systemd/systemd-bootx64.efi"),
        ("systemd-boot", "/efi/EFI/systemd/systemd-bootx64.efi"),
        ("grub2", "/boot/grub/grub.cfg"),
        ("grub2", "/boot/grub2/grub.cfg"),
        ("grub2", "/boot/grub/i386-pc/core.img"),
        ("grub-legacy", "/boot/grub/menu.lst"),
        ("grub-legacy", "/boot/grub/grub.conf"),
        ("extlinux", "/boot/extlinux/extlinux.conf"),
        ("extlinux", "/boot/syslinux/syslinux.cfg"),
        ("lilo", "/etc/lilo.conf"),
    ];
    first_sign(root, &signs)
}

fn first_sign(root: &Root, signs: &[(&str, &str)]) -> Option<String> {
    signs
        .iter()
        .find(|(_, path)| root.exists(path))
        .map(|(name, _)| (*name).to_owned())
}

/// Units that a target wants, and System V scripts of the usual run levels.
pub(crate) fn enabled_services(root: &Root) -> Vec<String> {
    let mut services = BTreeSet::new();
    let units = "/etc/systemd/system";
    for directory in root.names(units) {
        if directory.ends_with(".wants") || directory.ends_with(".requires") {
            let names = root.names(&format!("{units}/{directory}"));
            services.extend(names.into_iter().filter(|name| is_service(name)));
        }
    }
    for level in ["/etc/rc2.d", "/etc/rc3.d", "/etc/rc.d/rc3.d"] {
        for script in root.names(level) {
            let name = script.strip_prefix('S').and_then(|rest| rest.get(2..));
            if let Some(name) = name.filter(|name| !name.is_empty()) {
                let unit = format!("{name}.service");
                services.insert(unit);
            }
        }
    }
    services.into_iter().collect()
}

fn is_service(name: &str) -> bool {
    [".service", ".timer", ".socket", ".path"]
        .iter()
        .any(|suffix| name.ends_with(suffix))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inventory::phony::PhonyServer;

    #[test]
    fn a_debian_server_tells_its_release_kernels_and_boot_parts() {
        let server = PhonyServer::new();
        server.write(
            "/etc/os-release",
            "PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nVERSION_ID=\"12\"\nID=debian\n",
        );
        server.write("/proc/sys/kernel/osrelease", "6.1.0-10-amd64\n");
        for release in ["6.1.0-9-amd64", "6.1.0-10-amd64", "5.10.0-1-amd64"] {
            server.directory(&format!("/lib/modules/{release}"));
        }
        server.write("/boot/vmlinuz-6.1.0-10-amd64", "");
        server.write("/boot/vmlinuz-6.1.0-9-amd64", "");
        server.write("/usr/sbin/update-initramfs", "");
        server.write("/boot/grub/grub.cfg", "");
        let os = operating_system(&server.root());
        assert_eq!(
            (os.id.as_str(), os.version.as_deref()),
            ("debian", Some("12"))
        );
        assert_eq!(os.name, "Debian GNU/Linux 12 (bookworm)");
        assert_eq!(os.kernels, ["6.1.0-9-amd64", "6.1.0-10-amd64"]);
        assert_eq!(os.initramfs_generator.as_deref(), Some("initramfs-tools"));
        assert_eq!(os.bootloader.as_deref(), Some("grub2"));
    }

    #[test]
    fn services_are_what_targets_want_and_what_run_levels_start() {
        let server = PhonyServer::new();
        let wants = "/etc/systemd/system/multi-user.target.wants";
        server.link(
            &format!("{wants}/nginx.service"),
            "/lib/systemd/system/nginx.service",
        );
        server.link(
            &format!("{wants}/remote-fs.target"),
            "/lib/systemd/system/remote-fs.target",
        );
        server.link("/etc/systemd/system/sockets.target.wants/ssh.socket", "/x");
        server.link("/etc/rc3.d/S20oracle", "../init.d/oracle");
        server.link("/etc/rc3.d/K20old", "../init.d/old");
        assert_eq!(
            enabled_services(&server.root()),
            ["nginx.service", "oracle.service", "ssh.socket"]
        );
    }

    #[test]
    fn an_empty_tree_is_a_linux_that_tells_nothing() {
        let server = PhonyServer::new();
        let os = operating_system(&server.root());
        assert_eq!((os.id.as_str(), os.name.as_str()), ("linux", "Linux"));
        assert!(os.kernels.is_empty());
        assert_eq!(hostname(&server.root()), "localhost");
    }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! Subvolumes of btrfs in mounts: a filesystem is open at its top level here, and what is mounted is a
//! directory of it.
//!
//! | mount options | mounted |
//! |---|---|
//! | `subvol=@home`, `subvol=/@home` | the subvolume of that path from the top level |
//! | `subvolid=256` | the one with that number; 0 and 5 are the top level |
//! | neither | the default subvolume |
//!
//! Source: btrfs(5), "MOUNT OPTIONS".

use disk::filesystem::btrfs::Subvolume;

const TOP_LEVEL: u64 = 5;

/// The directory of the filesystem that is mounted: `""` is all of it, `/@home` a subvolume. `None` where
/// there is no such.
pub(crate) fn mounted<'a>(
    subvolumes: &[Subvolume],
    options: impl Iterator<Item = &'a str>,
) -> Option<String> {
    if subvolumes.is_empty() {
        return Some(String::new());
    }
    let mut wanted: Box<dyn Fn(&Subvolume) -> bool> = Box::new(|subvolume| subvolume.is_default);
    for option in options {
        let option = option.trim_matches(['"', '\'']);
        if let Some(path) = option.strip_prefix("subvol=") {
            let path = path.trim_matches('/');
            wanted = Box::new(move |subvolume| subvolume.path == path);
        } else if let Some(number) = option.strip_prefix("subvolid=") {
            let number = match number.parse().ok()? {
                0 => TOP_LEVEL,
                number => number,
            };
            wanted = Box::new(move |subvolume| subvolume.id == number);
        }
    }
    let mut subvolumes = subvolumes.iter();
    subvolumes
        .find(|subvolume| wanted(subvolume))
        .map(directory)
}

/// Where a subvolume is in its filesystem.
pub(crate) fn directory(subvolume: &Subvolume) -> String {
    match subvolume.path.as_str() {
        "" => String::new(),
        path => format!("/{path}"),
    }
}

/// Whether mount options choose a subvolume.
pub(crate) fn is_chosen(options: &str) -> bool {
    let mut options = options.split(',');
    options.any(|option| option.starts_with("subvol=") || option.starts_with("subvolid="))
}

#[cfg(test)]
mod tests {
    use disk::filesystem::FilesystemKind;
    use rstest::rstest;

    use super::*;
    use crate::inspect::TableKind;
    use crate::phony::{PhonyGuest, debian_bookworm, volume};
    use crate::plan::{PlanOptions, Verdict, plan};

    const ROOT_UUID: &str = "6f1cc2f4-8d5a-4f0e-9b6e-1f6f0a0b0c01";
    const SWAP_UUID: &str = "6f1cc2f4-8d5a-4f0e-9b6e-1f6f0a0b0c02";

    fn subvolume(id: u64, path: &str, is_default: bool) -> Subvolume {
        Subvolume {
            id,
            path: path.to_owned(),
            parent: None,
            is_default,
            read_only: false,
            uuid: None,
            parent_uuid: None,
        }
    }

    /// Debian as Ubuntu and SUSE lay it out, with a snapshot that is a root as well. It says that
    /// it is ext4, which can be written in place: all but the writing is as on btrfs.
    fn guest(fstab: &str, grub: &str, default: u64) -> PhonyGuest {
        let plain = debian_bookworm();
        let guest = PhonyGuest::new(
            TableKind::Mbr,
            vec![
                volume(FilesystemKind::Ext4, ROOT_UUID),
                volume(FilesystemKind::Swap, SWAP_UUID),
            ],
        );
        let root = guest.partition(1);
        for (id, path) in [(5, ""), (256, "@"), (257, "@home"), (258, "snapshots/1")] {
            root.subvolume(id, path, id == default);
        }
        for below in ["/@", "/snapshots/1"] {
            for (path, node) in plain.partition(1).entries() {
                root.put(&format!("{below}{}", path.trim_end_matches('/')), node);
            }
            root.file(&format!("{below}/etc/fstab"), fstab);
            let menu = plain.text(1, "/boot/grub/grub.cfg");
            let menu = menu
                .replace("/boot/", "/@/boot/")
                .replace(" ro ", &format!(" ro {grub} "));
            root.file(&format!("{below}/boot/grub/grub.cfg"), menu);
        }
        root.file("/@home/ana/notes", "");
        guest
    }

    #[rstest]
    #[case::by_fstab("subvol=@", "", 5)]
    #[case::by_number("subvolid=256", "", 5)]
    #[case::by_loader("defaults", "rootflags=subvol=@", 258)]
    #[case::by_default("defaults", "", 256)]
    fn a_root_is_the_subvolume_that_starts(
        #[case] options: &str,
        #[case] grub: &str,
        #[case] default: u64,
    ) {
        let fstab = format!(
            "UUID={ROOT_UUID} / btrfs {options} 0 1\nUUID={ROOT_UUID} /home btrfs subvol=/@home 0 2\n\
             UUID={ROOT_UUID} /srv btrfs subvol=@srv 0 2\n"
        );
        let guest = guest(&fstab, grub, default);
        let inspection = guest.inspect();
        let mounts: Vec<(&str, &str)> = inspection
            .mounts
            .iter()
            .map(|mount| (mount.mount_point.as_str(), mount.directory.as_str()))
            .collect();
        assert_eq!(mounts, [("/", "/@"), ("/home", "/@home")]);
        let text = inspection.to_string();
        assert!(text.contains("partition 1 /@home on /home ("), "{text}");
        let codes: Vec<&str> = inspection
            .findings
            .iter()
            .map(|f| f.code.as_str())
            .collect();
        assert!(codes.contains(&"fstab.subvolume.missing"), "{codes:?}");
        assert!(!codes.contains(&"guest.root.several"), "{codes:?}");
        let kernel = &inspection.kernels[0].image;
        assert!(
            kernel.path.starts_with("/@/boot/vmlinuz-"),
            "{}",
            kernel.path
        );
        assert!(kernel.guest_path.starts_with("/boot/vmlinuz-"));
        let loaded = &inspection.bootloaders[0].loaded;
        assert!(
            loaded.iter().any(|file| file.place == *kernel),
            "{loaded:?}"
        );

        // Whatever is changed or made is in the subvolume, and nothing is left to do.
        let plan = plan(&inspection, &PlanOptions::new("web01"));
        assert_eq!(plan.verdict, Verdict::ReadyWithChanges, "{plan}");
        for edit in &plan.edits {
            let place = &edit.place;
            assert_eq!(place.path, format!("/@{}", place.guest_path));
        }
        guest.apply(&plan).expect("memory can be written");
        let again = crate::plan::plan(&guest.inspect(), &PlanOptions::new("web01"));
        assert_eq!(again.edits, []);
    }

    #[test]
    fn options_choose_what_is_mounted() {
        let known = [
            subvolume(5, "", false),
            subvolume(256, "@", false),
            subvolume(257, "@/.snapshots/1/snapshot", true),
        ];
        let of = |options: &str| mounted(&known, options.split(','));
        let some = |path: &str| Some(path.to_owned());
        assert_eq!(of("defaults"), some("/@/.snapshots/1/snapshot"));
        assert_eq!(of("ssd,subvol=@,noatime"), some("/@"));
        assert_eq!(of("subvol=/@"), some("/@"));
        assert_eq!(of("subvol=/"), some(""));
        assert_eq!(of("subvolid=256"), some("/@"));
        assert_eq!(of("subvolid=0"), some(""));
        assert_eq!(of("subvolid=5,compress=zstd"), some(""));
        assert_eq!(of("subvol=@gone"), None);
        assert_eq!(of("subvolid=x"), None);
        assert_eq!(mounted(&[], ["subvol=@"].into_iter()), some(""));
        assert!(is_chosen("ssd,subvol=@") && !is_chosen("ssd"));
    }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a kernel wrote is read as the kernel shows it, with all devices and with too few of them.

use disk::filesystem::btrfs::{Btrfs, SubvolumeChoice};
use disk::filesystem::{Filesystem, open};
use disk::{Error, Finding};
use rstest::rstest;

use super::fixture::{Sparse, assert_same, devices, shared, shown, shown_below, walk};

const TOP_LEVEL: SubvolumeChoice<'_> = SubvolumeChoice::Id(5);

fn codes(findings: &[Finding]) -> Vec<&str> {
    findings
        .iter()
        .map(|finding| finding.code.as_str())
        .collect()
}

fn assert_shown(filesystem: &Btrfs, name: &str, context: &str) {
    let top = filesystem.open_subvolume(TOP_LEVEL).expect("it opens");
    assert_same(&walk(&top), &shown_below(name, "/"), context);
}

#[rstest]
#[case("files", 1)]
#[case("log", 1)]
#[case("raid1", 2)]
#[case("raid0", 4)]
#[case("raid10", 4)]
#[case("raid1c4", 4)]
fn everything_is_as_the_kernel_shows_it(#[case] name: &str, #[case] count: usize) {
    let mut devices = shared(&devices(name, count));
    let filesystem = Btrfs::open_devices(&devices).expect("it opens");
    assert_shown(&filesystem, name, name);
    assert_eq!(filesystem.findings(), []);
    assert_eq!(filesystem.has_log(), name == "log");
    devices.reverse();
    let again = Btrfs::open_devices(&devices).expect("it opens");
    assert_eq!(again.identity(), filesystem.identity());
}

#[test]
fn subvolumes_are_listed_as_the_kernel_lists_them() {
    let filesystem = Btrfs::open_devices(&shared(&devices("files", 1))).expect("it opens");
    let listed = filesystem.subvolumes().expect("readable");
    assert_eq!(
        (listed[0].id, listed[0].path.as_str(), listed[0].parent),
        (5, "", None)
    );
    let flag = |holds: bool| if holds { "yes" } else { "no" }.to_owned();
    let or_dash = |uuid: &Option<String>| uuid.clone().unwrap_or_else(|| "-".to_owned());
    let found: Vec<Vec<String>> = listed[1..]
        .iter()
        .map(|subvolume| {
            vec![
                subvolume.id.to_string(),
                subvolume.parent.unwrap_or(0).to_string(),
                subvolume.path.clone(),
                flag(subvolume.read_only),
                or_dash(&subvolume.uuid),
                or_dash(&subvolume.parent_uuid),
                flag(subvolume.is_default),
            ]
        })
        .collect();
    assert_same(&found, &shown("files", "subvolume"), "subvolumes");
}

#[test]
fn a_subvolume_is_opened_by_number_by_path_and_by_default() {
    let device = devices("files", 1).remove(0);
    let filesystem = Btrfs::open_devices(&[device.shared()]).expect("it opens");
    for subvolume in &filesystem.subvolumes().expect("readable")[1..] {
        let expected = shown_below("files", &format!("/{}", subvolume.path));
        let choices = [
            SubvolumeChoice::Id(subvolume.id),
            SubvolumeChoice::Path(&subvolume.path),
        ];
        for choice in choices {
            let opened = filesystem.open_subvolume(choice).expect("it opens");
            assert_eq!(opened.number(), subvolume.id);
            assert_same(&walk(&opened), &expected, &subvolume.path);
        }
    }
    let default = filesystem.open_subvolume(SubvolumeChoice::Default);
    let expected = shown_below("files", "/@");
    assert_same(&walk(&default.expect("it opens")), &expected, "default");
    let number = |choice| {
        filesystem
            .open_subvolume(choice)
            .map(|opened| opened.number())
    };
    assert_eq!(
        number(SubvolumeChoice::Path("/@home")).expect("a slash"),
        258
    );
    assert_eq!(number(SubvolumeChoice::Path("/")).expect("the top"), 5);
    assert_eq!(number(SubvolumeChoice::Id(0)).expect("the top"), 5);
    for absent in [
        SubvolumeChoice::Id(7),
        SubvolumeChoice::Id(259),
        SubvolumeChoice::Id(9999),
        SubvolumeChoice::Path("@/nothing"),
    ] {
        assert!(
            matches!(number(absent), Err(Error::NotFound { .. })),
            "{absent:?}"
        );
    }
    let folder = number(SubvolumeChoice::Path("@/etc")).expect_err("a folder");
    assert!(folder.to_string().contains("no subvolume"), "{folder}");
}

#[test]
fn attributes_and_paths_that_lead_nowhere() {
    let device = devices("files", 1).remove(0);
    let filesystem = Btrfs::open_devices(&[device.shared()]).expect("it opens");
    let root = filesystem
        .open_subvolume(SubvolumeChoice::Default)
        .expect("it opens");
    let attribute = |path, name| root.extended_attribute(path, name).expect("readable");
    assert_eq!(
        attribute("/etc/fstab", "security.selinux").as_deref(),
        Some(&b"system_u:object_r:etc_t:s0\0"[..])
    );
    assert_eq!(attribute("/etc/fstab", "user.long"), Some(vec![b'v'; 3000]));
    assert_eq!(attribute("/etc/fstab", "user.none"), None);
    assert_eq!(attribute("/plain", "security.selinux"), None);
    for path in ["/none", "/plain/none", "/link/none", "/etc/none/fstab"] {
        assert!(
            matches!(root.metadata(path), Err(Error::NotFound { .. })),
            "{path}"
        );
    }
    assert!(root.read("/etc", 100).is_err());
    assert!(root.read("/fifo", 100).is_err());
    assert!(root.read_link("/plain").is_err());
    assert!(root.read_directory("/plain").is_err());
    assert!(matches!(
        root.read("/plain", 100_000),
        Err(Error::Limit { .. })
    ));
    let snapshot = filesystem
        .open_subvolume(SubvolumeChoice::Path("snapshot"))
        .expect("it opens");
    assert_eq!(
        snapshot
            .read_directory("/var/machines")
            .expect("shown empty"),
        []
    );
    assert!(snapshot.metadata("/var/machines/inside").is_err());
}

/// Leaves out devices, by index.
fn without(devices: &[Sparse], left_out: &[usize]) -> Vec<Sparse> {
    let kept = devices
        .iter()
        .enumerate()
        .filter(|(index, _)| !left_out.contains(index));
    kept.map(|(_, device)| device.clone()).collect()
}

#[rstest]
#[case("raid1", 2, &[0])]
#[case("raid1", 2, &[1])]
#[case("raid10", 4, &[1])]
#[case("raid1c4", 4, &[0, 1, 3])]
fn a_device_that_is_missing_is_a_finding_where_others_have_its_copies(
    #[case] name: &str,
    #[case] count: usize,
    #[case] left_out: &[usize],
) {
    let devices = without(&devices(name, count), left_out);
    let filesystem = Btrfs::open_devices(&shared(&devices)).expect("it opens");
    assert_eq!(
        codes(&filesystem.findings()),
        vec!["disk.btrfs.device-missing"; left_out.len()]
    );
    assert_shown(&filesystem, name, name);
    // That it is missing is said once.
    assert_eq!(filesystem.findings().len(), left_out.len());
}

#[test]
fn what_is_only_on_a_missing_device_is_refused_and_the_rest_is_read() {
    let devices = without(&devices("raid0", 4), &[2]);
    let filesystem = Btrfs::open_devices(&shared(&devices)).expect("three copies of metadata");
    let top = filesystem.open_subvolume(TOP_LEVEL).expect("it opens");
    assert_eq!(top.read_directory("/folder").expect("metadata").len(), 40);
    top.read("/small", 1 << 20).expect("it is inline");
    let refused = top.read("/large", 1 << 24).expect_err("RAID0").to_string();
    assert_eq!(
        refused,
        "btrfs filesystem: reading without its device 3 is not supported"
    );
}

#[test]
fn a_device_that_was_away_for_a_while_does_not_give_what_is_old() {
    let later = Sparse::unpack("raid1.1-later");
    let old = Sparse::unpack("raid1.2");
    for devices in [[&later, &old], [&old, &later]] {
        let devices: Vec<_> = devices.into_iter().map(Sparse::shared).collect();
        let filesystem = Btrfs::open_devices(&devices).expect("it opens");
        assert_shown(&filesystem, "raid1-later", "raid1-later");
    }
    // The first device twice: as it was, and later.
    let first = Sparse::unpack("raid1.1");
    for devices in [[&later, &first, &old], [&first, &later, &old]] {
        let devices: Vec<_> = devices.into_iter().map(Sparse::shared).collect();
        let filesystem = Btrfs::open_devices(&devices).expect("it opens");
        assert!(codes(&filesystem.findings()).contains(&"disk.btrfs.device-twice"));
        assert_shown(&filesystem, "raid1-later", "raid1-later");
    }
}

#[test]
fn devices_of_other_filesystems_are_left_alone() {
    let mut all = devices("raid1", 2);
    all.extend(devices("raid10", 4));
    all.push(Sparse {
        length: 1 << 20,
        ..all[0].clone()
    });
    let filesystem = Btrfs::open_devices(&shared(&all)).expect("it opens");
    assert_shown(&filesystem, "raid1", "raid1");
    assert!(Btrfs::open_devices(&[]).is_err());
}

#[test]
fn parity_and_seeds_are_refused_by_name() {
    let filesystem = Btrfs::open_devices(&shared(&devices("raid5", 3))).expect("metadata is RAID1");
    let top = filesystem.open_subvolume(TOP_LEVEL).expect("it opens");
    top.read("/small", 1 << 20).expect("it is inline");
    let refused = top.read("/large", 1 << 24).expect_err("RAID5").to_string();
    assert_eq!(refused, "btrfs chunk: reading RAID5 is not supported");
    let seed = devices("seed", 2);
    let grown = [seed[1].shared(), seed[0].shared()];
    let refused = Btrfs::open_devices(&grown).expect_err("a seed").to_string();
    assert!(refused.contains("seed device"), "{refused}");
    // The seed itself is a filesystem as any other.
    let alone = open(seed[0].shared()).expect("it opens");
    assert_eq!(alone.read_directory("/").expect("a directory").len(), 1);
}

#[test]
fn damaged_copies_are_replaced_by_sound_ones() {
    let mut devices = devices("raid1", 2);
    // Everything but the superblocks of the first device.
    devices[0]
        .pages
        .retain(|page, _| [16, 16384].contains(page));
    let filesystem = Btrfs::open_devices(&shared(&devices)).expect("it opens");
    assert_shown(&filesystem, "raid1", "raid1");
    let findings = filesystem.findings();
    assert_eq!(codes(&findings), ["disk.btrfs.copy-used"]);
    assert!(findings[0].problem.contains("damaged"), "{findings:?}");
    // The first superblock too.
    devices[0].pages.entry(16).and_modify(|page| page[100] ^= 1);
    let filesystem = Btrfs::open_devices(&shared(&devices)).expect("it opens");
    assert_shown(&filesystem, "raid1", "raid1");
    assert!(codes(&filesystem.findings()).contains(&"disk.btrfs.superblock-copy-used"));
}

#[test]
fn data_without_a_sound_copy_are_an_error() {
    let mut devices = devices("raid0", 4);
    let needle = b"line 20000 of large";
    let mut struck = false;
    for device in &mut devices {
        for page in device.pages.values_mut() {
            let at = page.windows(needle.len()).position(|bytes| bytes == needle);
            if let Some(at) = at {
                page[at] ^= 1;
                struck = true;
            }
        }
    }
    assert!(struck);
    let filesystem = Btrfs::open_devices(&shared(&devices)).expect("it opens");
    let top = filesystem.open_subvolume(TOP_LEVEL).expect("it opens");
    let error = top
        .read("/large", 1 << 24)
        .expect_err("damaged")
        .to_string();
    assert!(error.starts_with("btrfs data at byte 0x"), "{error}");
    assert!(error.ends_with("its checksum does not match"), "{error}");
}

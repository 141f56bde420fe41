// SPDX-License-Identifier: MIT OR Apache-2.0
//! LUKS below LVM, on LVM and alone, opened and locked.

use std::io::Read as _;

use disk::block::MemoryDevice;
use disk::filesystem::detect;
use disk::{ReadAt as _, SectorSize};
use image_library::DiskIndex;

use super::*;
use crate::inspect::VolumeId;
use crate::phony::encrypted::{luks, secret, secrets};
use crate::secrets::{Secret, Secrets};
use crate::stack::{Stack, assemble};

const DISKS: &[u8] = include_bytes!("../../../../image-library/disk/fixtures/lvm2/disks.img.xz");
const DISK_BYTES: usize = 12 << 20;
const UUID: &str = "0f3a7c52-9f0e-4a5b-8a53-5e2f3c1d7b11";
/// Disks of a volume group that lie on LUKS here.
const ENCRYPTED: usize = 2;

fn part(number: u16, bytes: Vec<u8>) -> Part {
    Part {
        id: VolumeId::on_disk(DiskIndex(number), None),
        device: Arc::new(MemoryDevice::from(bytes)),
        sector_size: SectorSize::B512,
    }
}

/// The disks of a volume group that LVM's tools made.
fn group_disks() -> Vec<Vec<u8>> {
    let mut image = Vec::new();
    let mut reader = liblzma::read::XzDecoder::new(DISKS);
    reader
        .read_to_end(&mut image)
        .expect("the fixture is sound");
    image.chunks_exact(DISK_BYTES).map(<[u8]>::to_vec).collect()
}

fn parts(disks: Vec<Vec<u8>>) -> Vec<Part> {
    (0..).zip(disks).map(|(n, bytes)| part(n, bytes)).collect()
}

fn stack(parts: &[Part], secrets: &Secrets) -> Stack {
    assemble(parts, secrets).expect("memory can be read")
}

fn names(stack: &Stack, kind: AssembledKind) -> Vec<String> {
    let volumes = stack.volumes.iter().filter(|volume| volume.kind == kind);
    let mut names: Vec<String> = volumes.map(|volume| volume.name.clone()).collect();
    names.sort();
    names
}

fn uuid_of(number: usize) -> String {
    format!("0f3a7c52-9f0e-4a5b-8a53-5e2f3c1d7b{number:02}")
}

/// The volume group with some of its disks encrypted.
fn on_luks() -> Vec<Part> {
    let disks = group_disks().into_iter().enumerate();
    parts(
        disks
            .map(|(number, bytes)| match number < ENCRYPTED {
                true => luks(&uuid_of(number), &bytes),
                false => bytes,
            })
            .collect(),
    )
}

#[test]
fn lvm_on_luks_is_what_it_is_without() {
    let plain = stack(&parts(group_disks()), &Secrets::default());
    let disks = on_luks();
    let opened = stack(&disks, &secrets());
    let logical = AssembledKind::LogicalVolume;
    assert_eq!(names(&opened, logical), names(&plain, logical));
    assert!(!names(&opened, logical).is_empty());
    let luks = names(&opened, AssembledKind::Encrypted);
    assert_eq!(
        luks,
        [
            format!("luks-{}", uuid_of(0)),
            format!("luks-{}", uuid_of(1))
        ]
    );

    // What is written is encrypted, and there when it is opened again.
    let text = b"written through two layers, and long enough to be found";
    let volume = opened.volumes.iter().find(|volume| {
        let device = &volume.part.device;
        let mut found = [0; 55];
        // Elsewhere it would be written into what LVM keeps of itself.
        volume.kind == logical
            && device.write_all_at(8192, text).is_ok()
            && device.read_exact_at(8192, &mut found).is_ok()
            && found == *text
    });
    let volume = volume.expect("one can be written").part.id;
    for disk in disks.iter().take(ENCRYPTED) {
        let mut bytes = vec![0; disk.device.length_bytes() as usize];
        disk.device.read_exact_at(0, &mut bytes).expect("memory");
        assert!(!bytes.windows(text.len()).any(|window| window == text));
    }
    let again = stack(&disks, &secrets());
    let volume = again.volumes.iter().find(|found| found.part.id == volume);
    let mut found = [0; 55];
    let device = &volume.expect("it is there").part.device;
    device.read_exact_at(8192, &mut found).expect("inside");
    assert_eq!(found, *text);
}

#[test]
fn luks_on_lvm_is_opened_and_named() {
    let disks = parts(group_disks());
    let plain = stack(&disks, &Secrets::default());
    let mut swap = vec![0; 64 << 10];
    swap[4086..4096].copy_from_slice(b"SWAPSPACE2");
    swap[1024] = 1;
    swap[1028] = 15;
    let container = luks(UUID, &swap);
    let below = plain.volumes.iter().find(|volume| {
        let device = &volume.part.device;
        let mut found = vec![0; container.len()];
        device.write_all_at(0, &container).is_ok()
            && device.read_exact_at(0, &mut found).is_ok()
            && found == container
    });
    let below = below.expect("one is large enough").part.id;
    let opened = stack(&disks, &secrets());
    let mut volumes = opened.volumes.iter();
    let volume = volumes
        .find(|volume| volume.kind == AssembledKind::Encrypted && volume.parts == [below])
        .expect("it was opened");
    assert_eq!(
        volume.nodes,
        [
            format!("mapper/luks-{UUID}"),
            format!("disk/by-id/dm-name-luks-{UUID}"),
            format!(
                "disk/by-id/dm-uuid-CRYPT-LUKS1-{}-luks-{UUID}",
                UUID.replace('-', "")
            ),
        ]
    );
    let content = detect(&volume.part.device).expect("memory").expect("swap");
    assert_eq!(content.kind, FilesystemKind::Swap);
}

#[test]
fn what_no_secret_opens_is_told_and_the_rest_is_there() {
    let mut disks = parts(group_disks());
    disks.push(part(9, luks(UUID, &[7; 4096])));
    let wrong = Secrets::from_iter([secret("battery staple")]);
    let other = Secrets::from_iter([Secret::for_volume(
        uuid_of(1),
        zeroize::Zeroizing::new(b"correct horse".to_vec()),
    )]);
    let tries = [
        (Secrets::default(), "no passphrase or key file was given"),
        (other, "no passphrase or key file was given"),
        (
            wrong,
            "the one passphrase or key file that was given does not open it",
        ),
    ];
    let plain = stack(&parts(group_disks()), &Secrets::default());
    for (secrets, why) in tries {
        let locked = stack(&disks, &secrets);
        assert_eq!(locked.volumes.len(), plain.volumes.len());
        let mut findings = locked.findings.iter().map(|(_, found)| found);
        let found = findings.find(|found| found.code == LUKS_LOCKED);
        let found = found.expect("it is told");
        assert_eq!(found.place, "disk 9");
        assert!(found.problem.contains(why), "{}", found.problem);
        assert!(found.problem.contains(UUID), "{}", found.problem);
        let remedy = found.remedy.as_deref().expect("there is one");
        assert!(remedy.contains(&format!("--key {UUID}=FILE")), "{remedy}");
        assert!(!format!("{:?}", locked.findings).contains("battery"));
    }
}

#[test]
fn a_secret_with_the_end_of_its_line_opens_too() {
    let disks = [part(0, luks(UUID, &[7; 4096]))];
    let secrets = Secrets::from_iter([secret("battery staple"), secret("correct horse\n")]);
    for _ in 0..2 {
        let opened = stack(&disks, &secrets);
        assert_eq!(opened.volumes.len(), 1);
        let mut found = [0; 4096];
        let device = &opened.volumes[0].part.device;
        device.read_exact_at(0, &mut found).expect("inside");
        assert_eq!(found, [7; 4096]);
    }
}

#[test]
fn a_damaged_header_is_told() {
    let mut bytes = luks(UUID, &[7; 4096]);
    // A cipher that nobody knows, then a slot whose area is nowhere.
    bytes[8..11].copy_from_slice(b"rot");
    let unknown = stack(&[part(0, bytes.clone())], &secrets());
    bytes[8..11].copy_from_slice(b"aes");
    bytes[208 + 40..208 + 44].fill(0xff);
    let broken = stack(&[part(0, bytes)], &secrets());
    for stack in [unknown, broken] {
        assert_eq!(stack.volumes.len(), 0);
        assert_eq!(
            stack.findings[0].1.code, "storage.luks.unusable",
            "{:?}",
            stack.findings
        );
    }
}

fn token(kind: &str) -> Token {
    Token {
        number: 0,
        kind: kind.to_owned(),
        keyslots: vec![0],
    }
}

#[test]
fn what_only_the_server_has_is_told() {
    let holders = [
        ("systemd-tpm2", Some("the server's TPM")),
        ("clevis (tpm2)", Some("the server's TPM")),
        ("clevis (tang)", Some("a Tang server on its network")),
        ("clevis", Some("Clevis")),
        ("systemd-fido2", Some("a FIDO2 token")),
        ("systemd-pkcs11", Some("a smart card")),
        ("luks2-keyring", None),
        ("systemd-recovery", None),
    ];
    for (kind, expected) in holders {
        assert_eq!(holder(&token(kind)), expected, "{kind}");
    }
    let device: Arc<dyn WriteAt> = Arc::new(MemoryDevice::from(luks(UUID, &[7; 4096])));
    let mut luks = Luks::open(&device).expect("a header");
    assert_eq!(at_start(&luks, "p"), None);
    luks.tokens = vec![token("systemd-tpm2")];
    let found = at_start(&luks, "p").expect("it is told");
    assert_eq!(found.code, "storage.luks.token");
    assert!(found.remedy.expect("there is one").contains("luksAddKey"));
    let remedy = locked(&luks, "p", 0).remedy.expect("there is one");
    assert!(
        remedy.contains("only the server's TPM opens it"),
        "{remedy}"
    );
    // Where another slot is a person's, that is what is asked for.
    luks.tokens[0].keyslots = vec![5];
    let remedy = locked(&luks, "p", 0).remedy.expect("there is one");
    assert!(remedy.contains("--key"), "{remedy}");
    let found = at_start(&luks, "p").expect("it is told");
    assert!(
        found
            .remedy
            .expect("there is one")
            .contains("on the console")
    );
}

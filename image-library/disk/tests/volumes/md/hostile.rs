// SPDX-License-Identifier: MIT OR Apache-2.0
//! Damaged superblocks give errors, findings or other content, and never a panic or a hang.

use std::sync::Arc;

use disk::block::MemoryDevice;
use disk::volume::md::assemble;
use disk::{ReadAt, WriteAt};

use super::Members;
use super::fixture::named;

/// Everything is asked of the devices; any answer is fine.
fn ask_everything(devices: &[Arc<dyn WriteAt>]) {
    for array in assemble(devices).arrays {
        let _ = (array.mdadm_uuid(), array.is_degraded());
        let Ok(device) = array.open() else {
            continue;
        };
        let length = device.length_bytes();
        let mut bytes = vec![0; 20_000];
        for offset in [0, 5000, length / 2, length.saturating_sub(20_000), length] {
            let _ = device.read_exact_at(offset, &mut bytes);
            let _ = device.extent_at(offset);
            let _ = device.write_all_at(offset, &bytes[..9000]);
        }
        let _ = device.flush();
    }
}

/// The checksum of a version 1 superblock, written again.
fn seal(superblock: &mut [u8]) {
    superblock[216..220].fill(0);
    let entries = u32::from_le_bytes(superblock[220..224].try_into().expect("four"));
    let end = (256 + 2 * entries as usize).min(superblock.len());
    let words = superblock[..end].chunks(4).map(|word| {
        let mut bytes = [0; 4];
        bytes[..word.len()].copy_from_slice(word);
        u64::from(u32::from_le_bytes(bytes))
    });
    let sum: u64 = words.sum();
    let sum = (sum as u32).wrapping_add((sum >> 32) as u32);
    superblock[216..220].copy_from_slice(&sum.to_le_bytes());
}

#[test]
fn any_byte_of_a_superblock_may_be_anything() {
    for name in [
        "raid10-f2",
        "raid6-left-symmetric",
        "raid5-bad-blocks",
        "raid1-bitmap",
    ] {
        let fixture = named(name);
        for at in 0..272 {
            for value in [0x01, 0x80, 0xff] {
                let members = Members::of(&fixture);
                // With its own checksum for every member, so that the number itself is looked at.
                for device in &members.0 {
                    let mut superblock = vec![0; 4096];
                    device.read_exact_at(4096, &mut superblock).expect("1.2");
                    superblock[at] = value;
                    seal(&mut superblock);
                    device.write_all_at(4096, &superblock).expect("memory");
                }
                let left_out = if at % 2 == 0 { 0..0 } else { 1..2 };
                ask_everything(&members.without(&left_out.collect::<Vec<_>>()));
            }
        }
    }
}

#[test]
fn a_damaged_superblock_is_a_finding() {
    for name in ["raid1-1.2", "raid1-0.90"] {
        let members = Members::of(&named(name));
        let length = members.0[0].length_bytes();
        let place = match name {
            "raid1-1.2" => 4096 + 100,
            _ => (length & !0xffff) - 0x10000 + 100,
        };
        members.0[0].write_all_at(place, &[0x5a]).expect("memory");
        let assembly = assemble(&members.without(&[]));
        assert_eq!(assembly.findings.len(), 1, "{name}");
        assert_eq!(assembly.findings[0].code, "storage.md.member-damaged");
        assert!(assembly.findings[0].problem.contains("checksum"), "{name}");
        assert!(assembly.arrays[0].is_degraded());
    }
}

#[test]
fn members_may_end_anywhere() {
    for name in [
        "raid5-left-symmetric",
        "raid1-0.90",
        "raid10-n3",
        "raid5-journal-clean",
    ] {
        let fixture = named(name);
        for length in [0, 1, 512, 4095, 4096, 5000, 8192, 65536, 70_000, 300_000] {
            let devices: Vec<Arc<dyn WriteAt>> = fixture
                .members()
                .map(|bytes| bytes[..length.min(bytes.len())].to_vec())
                .map(|bytes| Arc::new(MemoryDevice::from(bytes)) as Arc<dyn WriteAt>)
                .collect();
            ask_everything(&devices);
        }
    }
}

#[test]
fn a_bitmap_that_makes_no_sense_is_an_error_of_the_write() {
    let members = Members::of(&named("raid1-stale-bitmap"));
    members.0[0].write_all_at(8192, b"none").expect("memory");
    let array = super::one_array(&members.without(&[]));
    let device = array.open().expect("readable");
    let error = device.write_all_at(0, &[1]).expect_err("no bitmap");
    assert_eq!(
        error.to_string(),
        "md write-intent bitmap at byte 0x2000: expected the magic `bitm`"
    );
}

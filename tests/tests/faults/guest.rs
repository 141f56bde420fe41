// SPDX-License-Identifier: MIT OR Apache-2.0
//! A server that starts in two seconds and never rests: what its one boot sector does is told in
//! `restless-guest.s`.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use e2e::{PROJECT_DIR, PhonyServer, Program, have_tool, noise, overwrite, raw_disk};

pub(crate) const MIB: u64 = 1 << 20;
/// What each disk has, and the guest reads as far as it was told.
pub(crate) const DATA_AT: u64 = 66 * MIB;
pub(crate) const DATA_BYTES: u64 = 20 * MIB;
/// Where the guest writes; there are zeros in the image.
pub(crate) const WRITE_AT: u64 = 88 * MIB;
const DISK_MIB: u64 = 128;
const SECTOR_BYTES: u64 = 512;

/// How much of its disks a guest uses, in blocks of 32 KiB.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Habits {
    pub(crate) disks: usize,
    /// Eight more than a multiple of sixteen, so that each of two disks has its turn everywhere.
    pub(crate) reads: u64,
    pub(crate) writes: u64,
}

impl Default for Habits {
    fn default() -> Self {
        Self {
            disks: 1,
            reads: 40,
            writes: 16,
        }
    }
}

/// The disks of a server with such a guest; `None`, and said so, where a tool is missing.
pub(crate) fn disks(folder: &Path, habits: Habits) -> Option<Vec<PathBuf>> {
    for tool in ["mke2fs", "as", "ld"] {
        if !have_tool(tool) {
            return None;
        }
    }
    let first = PhonyServer::with_drivers_built_in(folder).on_disk(folder);
    let mut disks = vec![first];
    for number in 1..habits.disks {
        disks.push(raw_disk(folder, &format!("data{number}.raw"), DISK_MIB));
    }
    for (seed, disk) in (1..).zip(&disks) {
        let file = File::options().write(true).open(disk).unwrap();
        file.set_len(DISK_MIB * MIB).unwrap();
        file.write_all_at(&noise(seed, DATA_BYTES), DATA_AT)
            .unwrap();
    }
    overwrite(&disks[0], 0, &boot_sector(folder, habits));
    Some(disks)
}

fn boot_sector(folder: &Path, habits: Habits) -> Vec<u8> {
    let source = Path::new(PROJECT_DIR).join("tests/fixtures/build/restless-guest.s");
    let (object, binary) = (folder.join("guest.o"), folder.join("guest.bin"));
    let numbers = [
        ("DISKS", habits.disks as u64),
        ("READ_SECTOR", DATA_AT / SECTOR_BYTES),
        ("READ_BLOCKS", habits.reads),
        ("WRITE_SECTOR", WRITE_AT / SECTOR_BYTES),
        ("WRITE_BLOCKS", habits.writes),
    ];
    let assemble = Program::tool("as").arg("--32").arg(source);
    let assemble = numbers.iter().fold(assemble, |program, (name, number)| {
        program.arg("--defsym").arg(format!("{name}={number}"))
    });
    assemble.arg("-o").arg(&object).succeeds();
    Program::tool("ld")
        .args("-m elf_i386 -Ttext 0x7c00 --oformat binary -o")
        .arg(&binary)
        .arg(&object)
        .succeeds();
    let code = std::fs::read(binary).unwrap();
    assert!(code.len() <= 440, "the partition table comes after it");
    code
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! Disks of bytes for phony guests: partition tables made by hand, members of arrays that a kernel made,
//! the disks of a volume group that LVM's tools made. A guest that gets them has everything that the
//! real inspection of these disks finds.

use std::io::Read as _;
use std::sync::{Arc, OnceLock};

use disk::SectorSize;
use disk::block::MemoryDevice;
use image_library::DiskIndex;

use super::PhonyGuest;
use crate::GuestDisk;
use crate::inspect::open_disks;
use crate::secrets::Secrets;

const ARRAYS: &[u8] = include_bytes!("../../../image-library/disk/fixtures/md-arrays.img.zst");
const LIST: &str = include_str!("../../../image-library/disk/fixtures/md-arrays.txt");
const GROUP: &[u8] = include_bytes!("../../../image-library/disk/fixtures/lvm2/disks.img.xz");
const GROUP_DISK_BYTES: usize = 12 << 20;
const SECTOR: usize = 512;
/// Of disks with a partition table.
const SECTORS: usize = 4096;

/// Adds disks with what is found on them; a guest has volumes of its own or on these, not both.
pub(crate) fn add(guest: &mut PhonyGuest, disks: Vec<Vec<u8>>) {
    let first = guest.disks.len();
    let disk = |(number, bytes): (usize, Vec<u8>)| GuestDisk {
        index: DiskIndex(u16::try_from(first + number).expect("a phony guest has few disks")),
        name: None,
        device: Arc::new(MemoryDevice::from(bytes)),
        sector_size: SectorSize::B512,
        secrets: Secrets::default(),
    };
    let disks: Vec<GuestDisk> = disks.into_iter().enumerate().map(disk).collect();
    let found = open_disks(&disks).expect("memory can be read");
    assert!(guest.assembled.is_empty() || found.assembled.is_empty());
    guest.disks.extend(found.disks);
    guest.assembled.extend(found.assembled);
    guest.noticed.extend(found.findings);
}

fn arrays() -> &'static [u8] {
    static IMAGE: OnceLock<Vec<u8>> = OnceLock::new();
    IMAGE.get_or_init(|| {
        let mut decoder = zstd::Decoder::new(ARRAYS).expect("the fixture is sound");
        decoder.window_log_max(27).expect("128 MiB");
        let mut image = Vec::new();
        decoder
            .read_to_end(&mut image)
            .expect("the fixture is sound");
        image
    })
}

fn group() -> &'static [u8] {
    static IMAGE: OnceLock<Vec<u8>> = OnceLock::new();
    IMAGE.get_or_init(|| {
        let mut image = Vec::new();
        let mut reader = liblzma::read::XzDecoder::new(GROUP);
        reader
            .read_to_end(&mut image)
            .expect("the fixture is sound");
        image
    })
}

/// The members of an array, each a disk.
pub(crate) fn array_members(name: &str) -> Vec<Vec<u8>> {
    let image = arrays();
    let is_it = |line: &&str| line.split_whitespace().nth(1) == Some(name);
    let lines = LIST.lines().skip_while(|line| !is_it(line)).skip(1);
    let members = lines.map_while(|line| {
        let (offset, length) = line.strip_prefix("member ")?.split_once(' ')?;
        let number = |text: &str| text.parse::<usize>().expect("a number");
        let start = number(offset);
        Some(image[start..start + number(length)].to_vec())
    });
    let members: Vec<Vec<u8>> = members.collect();
    assert!(!members.is_empty(), "no array {name}");
    members
}

/// The disks of a volume group.
pub(crate) fn group_disks() -> Vec<Vec<u8>> {
    let disks = group().chunks_exact(GROUP_DISK_BYTES);
    disks.map(<[u8]>::to_vec).collect()
}

/// Makes the metadata of a physical volume older than that of the others of its group.
pub(crate) fn with_older_metadata(disk: &mut [u8]) {
    // The header of the metadata area: sum, magic, version, start and size; then where the text is, how long,
    // and its sum (struct mda_header, raw_locn).
    const AREA: usize = 4096;
    let field = |disk: &[u8], at: usize| {
        let bytes = disk[AREA + at..AREA + at + 8].try_into();
        let number = u64::from_le_bytes(bytes.expect("eight bytes"));
        usize::try_from(number).expect("the disk is in memory")
    };
    let start = AREA + field(disk, 40);
    let text = start..start + field(disk, 48);
    let number = find(&disk[text.clone()], b"seqno = ") + b"seqno = ".len();
    disk[text.start + number] -= 1;
    let sum = lvm_sum(&disk[text]);
    disk[AREA + 56..AREA + 60].copy_from_slice(&sum.to_le_bytes());
    let sum = lvm_sum(&disk[AREA + 4..AREA + SECTOR]);
    disk[AREA..AREA + 4].copy_from_slice(&sum.to_le_bytes());
}

fn find(text: &[u8], words: &[u8]) -> usize {
    let place = text.windows(words.len()).position(|part| part == words);
    place.expect("it is there")
}

/// CRC-32 with LVM's first value, not inverted at the end (`calc_crc` in lib/misc/crc.c).
fn lvm_sum(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0xf597_a6cf, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| {
            (sum >> 1) ^ (0xedb8_8320 * (sum & 1))
        })
    })
}

/// A disk that a kernel wrote, of the `disk` package's tests. What was never written takes no memory.
pub(crate) fn filesystem(name: &str) -> Vec<u8> {
    const PIECE: usize = 64 << 10;
    let folder = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../image-library/disk/fixtures"
    );
    let packed = std::fs::File::open(format!("{folder}/{name}.img.zst")).expect("a fixture");
    let mut decoder = zstd::Decoder::new(packed).expect("the fixture is sound");
    decoder.window_log_max(27).expect("128 MiB");
    let mut bytes = vec![0; 128 << 20];
    let (mut length, mut piece) = (0, vec![0; PIECE]);
    loop {
        let read = decoder.read(&mut piece).expect("the fixture is sound");
        if read == 0 {
            break;
        }
        if piece[..read] != [0; PIECE][..read] {
            bytes[length..length + read].copy_from_slice(&piece[..read]);
        }
        length += read;
    }
    bytes.truncate(length);
    bytes
}

/// A superblock of ext4, and nothing behind it.
pub(crate) fn superblock_only() -> Vec<u8> {
    let mut bytes = vec![0; 1 << 20];
    let mut put = |offset: usize, value: &[u8]| {
        bytes[1024 + offset..][..value.len()].copy_from_slice(value);
    };
    put(0x00, &8_u32.to_le_bytes());
    put(0x04, &1024_u32.to_le_bytes());
    put(0x14, &1_u32.to_le_bytes());
    for per_group in [0x20, 0x24] {
        put(per_group, &8192_u32.to_le_bytes());
    }
    put(0x28, &8_u32.to_le_bytes());
    put(0x58, &128_u16.to_le_bytes());
    put(0x38, &[0x53, 0xef]);
    put(0x4c, &1_u32.to_le_bytes());
    put(0x5c, &0x04_u32.to_le_bytes());
    put(0x60, &(0x04_u32 | 0x40).to_le_bytes());
    bytes
}

/// A disk with a master boot record: type, first sector and sectors of each partition.
pub(crate) fn mbr(partitions: &[(u8, u32, u32)]) -> Vec<u8> {
    let mut bytes = vec![0; SECTORS * SECTOR];
    for (number, (kind, start, sectors)) in partitions.iter().enumerate() {
        let entry = &mut bytes[446 + 16 * number..462 + 16 * number];
        entry[4] = *kind;
        entry[8..12].copy_from_slice(&start.to_le_bytes());
        entry[12..16].copy_from_slice(&sectors.to_le_bytes());
    }
    bytes[510..512].copy_from_slice(&[0x55, 0xaa]);
    bytes
}

/// A disk with a GPT and its backup: first and last sector of each partition.
pub(crate) fn gpt(partitions: &[(u64, u64)]) -> Vec<u8> {
    let mut bytes = mbr(&[(0xee, 1, SECTORS as u32 - 1)]);
    let mut entries = vec![0; 128 * 128];
    for (entry, (first, last)) in entries.chunks_exact_mut(128).zip(partitions) {
        // Linux data.
        let kind = uuid::uuid!("0fc63daf-8483-4772-8e79-3d69d8477de4");
        entry[..16].copy_from_slice(&kind.to_bytes_le());
        entry[16..32].fill(first.to_le_bytes()[0] | 1);
        entry[32..40].copy_from_slice(&first.to_le_bytes());
        entry[40..48].copy_from_slice(&last.to_le_bytes());
    }
    let last = SECTORS as u64 - 1;
    for (own, other, entries_at) in [(1, last, 2), (last, 1, last - 32)] {
        let at = entries_at as usize * SECTOR;
        bytes[at..at + entries.len()].copy_from_slice(&entries);
        let header = header(own, other, entries_at, &entries);
        bytes[own as usize * SECTOR..][..92].copy_from_slice(&header);
    }
    bytes
}

fn header(own: u64, other: u64, entries_at: u64, entries: &[u8]) -> [u8; 92] {
    let mut header = [0; 92];
    header[..8].copy_from_slice(b"EFI PART");
    header[8..16].copy_from_slice(&[0, 0, 1, 0, 92, 0, 0, 0]);
    let last_usable = SECTORS as u64 - 34;
    for (at, value) in [
        (24, own),
        (32, other),
        (40, 34),
        (48, last_usable),
        (72, entries_at),
    ] {
        header[at..at + 8].copy_from_slice(&value.to_le_bytes());
    }
    header[56..72].fill(7);
    header[80..88].copy_from_slice(&[128, 0, 0, 0, 128, 0, 0, 0]);
    header[88..].copy_from_slice(&crc(entries).to_le_bytes());
    let sum = crc(&header);
    header[16..20].copy_from_slice(&sum.to_le_bytes());
    header
}

fn crc(bytes: &[u8]) -> u32 {
    let mut crc = flate2::Crc::new();
    crc.update(bytes);
    crc.sum()
}

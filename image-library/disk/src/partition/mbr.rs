// SPDX-License-Identifier: MIT OR Apache-2.0
//! DOS partition tables: four entries in sector 0, and a chain of records in an extended one.
//!
//! | byte | size | field |
//! |---|---|---|
//! | 0 | 440 | boot code |
//! | 440 | 4 | disk signature |
//! | 446 | 4 x 16 | entries: 0 active, 4 type, 8 first sector, 12 number of sectors |
//! | 510 | 2 | `55 aa` |
//!
//! A record of the chain has the same form: its first two entries are a logical partition
//! (relative to the record) and the next record (relative to the extended partition).
//!
//! Limits: the chain has at most [`LOGICAL_LIMIT`] records and none twice.

use std::collections::HashSet;

use super::{Parsed, Partition, PartitionNumber, PartitionType, Scheme, finding};
use crate::block::{ReadAt, SectorSize, array_at};
use crate::error::Result;
use crate::finding::{Finding, Level};

/// Where the boot code of sector 0 ends.
pub(super) const BOOT_CODE_BYTES: usize = 440;

/// Linux numbers at most 255 partitions.
const LOGICAL_LIMIT: u32 = 251;
const FIRST_LOGICAL: u32 = 5;
const TYPE_PROTECTIVE: u8 = 0xee;

/// One entry; sectors are logical ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    active: u8,
    kind: u8,
    start: u32,
    pub(super) sectors: u32,
}

impl Entry {
    fn is_extended(self) -> bool {
        self.sectors != 0 && PartitionType::Mbr(self.kind).is_extended()
    }

    fn is_data(self) -> bool {
        self.sectors != 0 && self.kind != 0 && !PartitionType::Mbr(self.kind).is_extended()
    }
}

/// Sector 0, or a record of the chain.
#[derive(Debug)]
pub(super) struct BootRecord {
    /// Whether it ends in `55 aa`.
    pub(super) signed: bool,
    disk_signature: u32,
    /// `None`: this is no partition table but, say, the boot sector of a filesystem.
    pub(super) entries: Option<[Entry; 4]>,
}

impl BootRecord {
    pub(super) fn from_bytes(sector: &[u8; 512]) -> Self {
        let signed = sector[510..] == [0x55, 0xaa];
        let entries = [446, 462, 478, 494].map(|at| Entry {
            active: sector[at],
            kind: sector[at + 4],
            start: u32::from_le_bytes(array_at(sector, at + 8)),
            sectors: u32::from_le_bytes(array_at(sector, at + 12)),
        });
        let sane = entries.iter().all(|entry| matches!(entry.active, 0 | 0x80));
        let empty = entries.iter().all(|entry| entry.sectors == 0);
        let is_table = signed && sane && !(empty && is_filesystem(sector));
        Self {
            signed,
            disk_signature: u32::from_le_bytes(array_at(sector, BOOT_CODE_BYTES)),
            entries: is_table.then_some(entries),
        }
    }

    /// Whether it says that the disk has a GPT, alone or beside other entries (hybrid).
    pub(super) fn is_protective(&self) -> bool {
        self.entries.is_some_and(|entries| {
            let protects = |entry: &Entry| entry.kind == TYPE_PROTECTIVE && entry.start == 1;
            entries.iter().any(protects)
        })
    }
}

/// Whether sector 0 is the boot sector of a FAT or NTFS filesystem on the whole disk.
fn is_filesystem(sector: &[u8; 512]) -> bool {
    let jumps = sector[0] == 0xe9 || (sector[0] == 0xeb && sector[2] == 0x90);
    let bytes_per_sector = u16::from_le_bytes(array_at(sector, 11));
    let media = sector[21];
    jumps
        && matches!(bytes_per_sector, 512 | 1024 | 2048 | 4096)
        && (media >= 0xf8 || media == 0xf0)
}

/// Reads the partitions of sector 0 and of its extended partitions.
pub(super) fn read(
    device: &dyn ReadAt,
    sector_size: SectorSize,
    record: &BootRecord,
) -> Result<Parsed> {
    let Some(entries) = record.entries else {
        return Ok(Parsed {
            scheme: Scheme::None,
            partitions: Vec::new(),
            findings: Vec::new(),
        });
    };
    let mut reader = Reader {
        device,
        sector_bytes: u64::from(sector_size.bytes()),
        disk_signature: record.disk_signature,
        next_logical: FIRST_LOGICAL,
        partitions: Vec::new(),
        findings: Vec::new(),
    };
    for (number, entry) in (1..).zip(entries) {
        if entry.is_data() || entry.is_extended() {
            reader.add(number, entry, u64::from(entry.start));
        }
    }
    for entry in entries.into_iter().filter(|entry| entry.is_extended()) {
        reader.chain(entry)?;
    }
    Ok(Parsed {
        scheme: Scheme::Mbr {
            disk_signature: record.disk_signature,
        },
        partitions: reader.partitions,
        findings: reader.findings,
    })
}

struct Reader<'a> {
    device: &'a dyn ReadAt,
    sector_bytes: u64,
    disk_signature: u32,
    next_logical: u32,
    partitions: Vec<Partition>,
    findings: Vec<Finding>,
}

impl Reader<'_> {
    fn add(&mut self, number: u32, entry: Entry, start_sector: u64) {
        // Sector numbers have at most 33 bits here, so nothing overflows.
        self.partitions.push(Partition {
            number: PartitionNumber::new(number),
            start_bytes: start_sector * self.sector_bytes,
            length_bytes: u64::from(entry.sectors) * self.sector_bytes,
            partition_type: PartitionType::Mbr(entry.kind),
            partuuid: format!("{:08x}-{number:02x}", self.disk_signature),
            name: String::new(),
            bootable: entry.active == 0x80,
        });
    }

    /// Follows the chain of records in an extended partition.
    fn chain(&mut self, extended: Entry) -> Result<()> {
        let mut seen = HashSet::new();
        let (mut record_sector, mut record_sectors) = (u64::from(extended.start), extended.sectors);
        loop {
            if !seen.insert(record_sector) {
                self.broken(record_sector, "it leads back to a record before it");
                return Ok(());
            }
            if seen.len() > LOGICAL_LIMIT as usize {
                self.broken(record_sector, "it has more records than Linux numbers");
                return Ok(());
            }
            let Some(entries) = self.record(record_sector, seen.len() == 1)? else {
                return Ok(());
            };
            for (index, entry) in entries.into_iter().enumerate() {
                let start = record_sector + u64::from(entry.start);
                if entry.is_data()
                    && (index < 2 || fits(entry, start, record_sectors, extended))
                    && self.next_logical < FIRST_LOGICAL + LOGICAL_LIMIT
                {
                    self.add(self.next_logical, entry, start);
                    self.next_logical += 1;
                }
            }
            let Some(next) = entries.into_iter().find(|entry| entry.is_extended()) else {
                return Ok(());
            };
            record_sector = u64::from(extended.start) + u64::from(next.start);
            record_sectors = next.sectors;
        }
    }

    /// The entries of the record at `sector`; `None`, and a finding, where there is none.
    fn record(&mut self, sector: u64, is_first: bool) -> Result<Option<[Entry; 4]>> {
        let offset = sector * self.sector_bytes;
        if offset.saturating_add(512) > self.device.length_bytes() {
            self.broken(sector, "it lies beyond the end of the disk");
            return Ok(None);
        }
        let mut bytes = [0; 512];
        self.device.read_exact_at(offset, &mut bytes)?;
        let record = BootRecord::from_bytes(&bytes);
        // Linux ends the chain at any record without `55 aa` and says nothing
        // (block/partitions/msdos.c). A blank first one is an extended partition that nobody put a
        // logical one into: `sfdisk` and `fdisk` write nothing there until then.
        let blank = is_first && bytes.iter().all(|&byte| byte == 0);
        if !record.signed && !blank {
            self.broken(sector, "it does not end in 55 aa");
        }
        Ok(record.signed.then_some(record.entries).flatten())
    }

    fn broken(&mut self, sector: u64, problem: &str) {
        self.findings.push(finding(
            Level::Error,
            "disk.mbr.chain-broken",
            format!("partition record at byte {:#x}", sector * self.sector_bytes),
            problem,
            Some("compare with `fdisk -l` on the server: logical partitions may be missing here"),
        ));
    }
}

/// Entries 3 and 4 of a record are unused; some tools left garbage there, which Linux takes for
/// partitions only where it lies within the record's part of the extended partition.
fn fits(entry: Entry, start: u64, record_sectors: u32, extended: Entry) -> bool {
    let end = start + u64::from(entry.sectors);
    let extended_end = u64::from(extended.start) + u64::from(extended.sectors);
    u64::from(entry.start) + u64::from(entry.sectors) <= u64::from(record_sectors)
        && start >= u64::from(extended.start)
        && end <= extended_end
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::MemoryDevice;

    /// A disk of 1 MiB of zeros with entries written into it.
    struct Disk(Vec<u8>);

    impl Disk {
        fn new() -> Self {
            let mut disk = Self(vec![0; 1 << 20]);
            disk.sign(0);
            disk.0[440..444].copy_from_slice(&[0x78, 0x56, 0x34, 0x12]);
            disk
        }

        fn sign(&mut self, sector: usize) {
            self.0[sector * 512 + 510..sector * 512 + 512].copy_from_slice(&[0x55, 0xaa]);
        }

        fn entry(&mut self, sector: usize, index: usize, kind: u8, start: u32, sectors: u32) {
            self.sign(sector);
            let at = sector * 512 + 446 + 16 * index;
            self.0[at + 4] = kind;
            self.0[at + 8..at + 12].copy_from_slice(&start.to_le_bytes());
            self.0[at + 12..at + 16].copy_from_slice(&sectors.to_le_bytes());
        }

        /// Numbers, first sectors and lengths; codes of the findings.
        fn read(self) -> (Vec<(u32, u64, u64)>, Vec<String>) {
            let record = BootRecord::from_bytes(self.0[..512].try_into().expect("a sector"));
            let device = MemoryDevice::from(self.0);
            let parsed = read(&device, SectorSize::B512, &record).expect("memory");
            let places = parsed.partitions.iter().map(|found| {
                let sectors = found.length_bytes / 512;
                (found.number.get(), found.start_bytes / 512, sectors)
            });
            let codes = parsed
                .findings
                .iter()
                .map(|found| format!("{} {}: {}", found.code, found.place, found.problem));
            (places.collect(), codes.collect())
        }
    }

    #[test]
    fn logical_partitions_count_from_5() {
        let mut disk = Disk::new();
        disk.entry(0, 1, 0x83, 10, 20);
        disk.entry(0, 3, 0x0f, 100, 500);
        disk.entry(100, 0, 0x83, 1, 9);
        disk.entry(100, 1, 0x05, 50, 60);
        disk.entry(150, 0, 0x82, 2, 58);
        let (partitions, findings) = disk.read();
        assert_eq!(
            partitions,
            [(2, 10, 20), (4, 100, 500), (5, 101, 9), (6, 152, 58)]
        );
        assert_eq!(findings, [""; 0]);
    }

    #[test]
    fn a_chain_that_leads_back_ends_with_a_finding() {
        let mut disk = Disk::new();
        disk.entry(0, 0, 0x05, 100, 500);
        disk.entry(100, 0, 0x83, 1, 9);
        disk.entry(100, 1, 0x05, 50, 60);
        disk.entry(150, 1, 0x05, 0, 60);
        let (partitions, findings) = disk.read();
        assert_eq!(partitions, [(1, 100, 500), (5, 101, 9)]);
        assert_eq!(
            findings,
            ["disk.mbr.chain-broken partition record at byte 0xc800: \
              it leads back to a record before it"]
        );
    }

    #[test]
    fn a_chain_that_leaves_the_disk_or_is_not_signed_ends_with_a_finding() {
        let mut disk = Disk::new();
        disk.entry(0, 0, 0x05, u32::MAX, u32::MAX);
        disk.entry(0, 1, 0x85, 200, 10);
        disk.0[200 * 512] = 1;
        let (partitions, findings) = disk.read();
        assert_eq!(partitions.len(), 2);
        assert_eq!(
            findings,
            [
                "disk.mbr.chain-broken partition record at byte 0x1fffffffe00: \
                 it lies beyond the end of the disk",
                "disk.mbr.chain-broken partition record at byte 0x19000: \
                 it does not end in 55 aa"
            ]
        );
    }

    #[test]
    fn an_extended_partition_without_logical_ones_is_sound() {
        let mut blank = Disk::new();
        blank.entry(0, 0, 0x05, 100, 500);
        assert_eq!(blank.read(), (vec![(1, 100, 500)], vec![]));
        let mut signed = Disk::new();
        signed.entry(0, 0, 0x05, 100, 500);
        signed.sign(100);
        assert_eq!(signed.read(), (vec![(1, 100, 500)], vec![]));
    }

    #[test]
    fn a_chain_that_leads_to_a_blank_record_is_broken() {
        let mut disk = Disk::new();
        disk.entry(0, 0, 0x05, 100, 500);
        disk.entry(100, 0, 0x83, 1, 9);
        disk.entry(100, 1, 0x05, 50, 60);
        let (partitions, findings) = disk.read();
        assert_eq!(partitions, [(1, 100, 500), (5, 101, 9)]);
        assert_eq!(findings.len(), 1);
        assert!(findings[0].ends_with("it does not end in 55 aa"));
    }

    #[test]
    fn a_chain_longer_than_linux_numbers_ends_with_a_finding() {
        let mut disk = Disk::new();
        disk.entry(0, 0, 0x05, 100, 1900);
        for index in 0..300 {
            let sector = 100 + index as usize;
            disk.entry(sector, 0, 0x83, 1000, 1);
            disk.entry(sector, 1, 0x05, index + 1, 1);
        }
        let (partitions, findings) = disk.read();
        assert_eq!(partitions.last(), Some(&(255, 1350, 1)));
        assert_eq!(partitions.len(), 252);
        assert_eq!(findings.len(), 1);
        assert!(findings[0].ends_with("it has more records than Linux numbers"));
    }

    #[test]
    fn garbage_in_the_unused_entries_of_a_record_is_left_out() {
        let mut disk = Disk::new();
        disk.entry(0, 0, 0x05, 100, 500);
        disk.entry(100, 0, 0x83, 1, 9);
        disk.entry(100, 2, 0x83, 7, 900);
        disk.entry(100, 3, 0x83, 20, 5);
        let (partitions, _) = disk.read();
        assert_eq!(partitions, [(1, 100, 500), (5, 101, 9), (6, 120, 5)]);
    }

    #[test]
    fn identity_type_and_active_mark_are_told() {
        let mut disk = Disk::new();
        disk.entry(0, 0, 0x07, 1, 2);
        disk.0[446] = 0x80;
        let record = BootRecord::from_bytes(disk.0[..512].try_into().expect("a sector"));
        let device = MemoryDevice::from(disk.0);
        let parsed = read(&device, SectorSize::B4096, &record).expect("memory");
        let expected = Partition {
            number: PartitionNumber::new(1),
            start_bytes: 4096,
            length_bytes: 8192,
            partition_type: PartitionType::Mbr(7),
            partuuid: "12345678-01".to_owned(),
            name: String::new(),
            bootable: true,
        };
        assert_eq!(parsed.partitions, [expected]);
        let signature = Scheme::Mbr {
            disk_signature: 0x1234_5678,
        };
        assert_eq!(parsed.scheme, signature);
    }

    #[test]
    fn a_filesystem_on_the_whole_disk_is_no_table() {
        let mut sector = [0; 512];
        sector[510..].copy_from_slice(&[0x55, 0xaa]);
        assert!(
            BootRecord::from_bytes(&sector).entries.is_some(),
            "an empty table"
        );
        sector[..3].copy_from_slice(&[0xeb, 0x3c, 0x90]);
        sector[11..13].copy_from_slice(&512_u16.to_le_bytes());
        sector[21] = 0xf8;
        assert!(BootRecord::from_bytes(&sector).entries.is_none(), "FAT");
        let mut text = [b' '; 512];
        text[510..].copy_from_slice(&[0x55, 0xaa]);
        assert!(
            BootRecord::from_bytes(&text).entries.is_none(),
            "not 0 or 0x80"
        );
        assert!(
            BootRecord::from_bytes(&[0; 512]).entries.is_none(),
            "no signature"
        );
    }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! GUID partition tables (UEFI specification, section 5.3).
//!
//! ```text
//! sector 0      protective MBR
//! sector 1      header: 0 `EFI PART`, 12 its length, 16 its CRC, 24 its own sector, 32 the other
//!               header's, 40 and 48 first and last usable sector, 56 disk GUID, 72 sector of the
//!               entries, 80 their number, 84 their size, 88 their CRC
//! sector 2 ..   entries: 0 type GUID, 16 GUID, 32 first and 40 last sector, 48 flags, 56 name
//! last sectors  the same again, entries before the header
//! ```
//!
//! Limit: the entries of one table have at most 1 MiB, 64 times what is usual.

use uuid::Uuid;

use super::{Parsed, Partition, PartitionNumber, PartitionType, Scheme, finding};
use crate::block::{ReadAt, SectorSize, array_at};
use crate::error::{Error, Result};
use crate::finding::{Finding, Level};

const ENTRIES_LIMIT_BYTES: u64 = 1 << 20;
const FLAG_LEGACY_BOOTABLE: u64 = 1 << 2;

/// A header whose checksum and place are right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Header {
    other_lba: u64,
    disk_guid: Uuid,
    entries_lba: u64,
    entry_count: u32,
    entry_size: u32,
    entries_crc: u32,
}

impl Header {
    /// Parses the sector at `lba`; the error says what is wrong.
    fn from_bytes(sector: &[u8], lba: u64) -> Result<Self, String> {
        if !sector.starts_with(b"EFI PART") {
            return Err("expected `EFI PART`, found none".to_owned());
        }
        let u32_at = |at| u32::from_le_bytes(array_at(sector, at));
        let u64_at = |at| u64::from_le_bytes(array_at(sector, at));
        let length = u32_at(12) as usize;
        if !(92..=sector.len()).contains(&length) {
            return Err(format!("expected a length of 92 or more, found {length}"));
        }
        let mut header = sector[..length].to_vec();
        header[16..20].fill(0);
        let (expected, found) = (u32_at(16), crc32(&header));
        if expected != found {
            return Err(format!(
                "expected the checksum {expected:#010x}, found {found:#010x}"
            ));
        }
        if u64_at(24) != lba {
            return Err(format!("expected sector {lba}, found {}", u64_at(24)));
        }
        let (entry_count, entry_size) = (u32_at(80), u32_at(84));
        if entry_size < 128 || entry_size % 8 != 0 {
            return Err(format!("expected entries of 128 bytes, found {entry_size}"));
        }
        if u64::from(entry_count) * u64::from(entry_size) > ENTRIES_LIMIT_BYTES {
            return Err(format!(
                "expected at most {ENTRIES_LIMIT_BYTES} bytes of entries, found {entry_count} of \
                 {entry_size}"
            ));
        }
        Ok(Self {
            other_lba: u64_at(32),
            disk_guid: Uuid::from_bytes_le(array_at(sector, 56)),
            entries_lba: u64_at(72),
            entry_count,
            entry_size,
            entries_crc: u32_at(88),
        })
    }
}

/// A header and its entries, both with right checksums.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Table {
    header: Header,
    entries: Vec<u8>,
}

/// Reads the table that a protective MBR promises: the first one or, where that is damaged, the
/// one at the end of the disk.
pub(super) fn read(device: &dyn ReadAt, sector_size: SectorSize) -> Result<Parsed> {
    let disk = Disk::new(device, sector_size);
    let problem = match disk.table(1)? {
        Ok(table) => return read_entries(device, sector_size, table),
        Err(problem) => problem,
    };
    let last = disk.last_lba();
    match disk.table(last)? {
        Ok(table) => {
            let (partitions, mut findings) = disk.partitions(&table);
            findings.push(finding(
                Level::Warning,
                "disk.gpt.backup-used",
                format!("GPT header at byte {:#x}", disk.sector_bytes),
                &format!("{problem}; the copy at the end of the disk was used"),
                Some("repair it on the server: gdisk DISK, then `w`"),
            ));
            Ok(parsed(&table, partitions, findings))
        }
        Err(backup) => Err(Error::corrupt(
            "GPT header",
            disk.sector_bytes,
            format!(
                "{problem}; the copy at byte {:#x}: {backup}",
                last * disk.sector_bytes
            ),
        )),
    }
}

/// The table in sector 1, where there is a sound one.
pub(super) fn find_primary(device: &dyn ReadAt, sector_size: SectorSize) -> Result<Option<Table>> {
    Ok(Disk::new(device, sector_size).table(1)?.ok())
}

/// The partitions of the first table, and whether its copy is sound.
pub(super) fn read_entries(
    device: &dyn ReadAt,
    sector_size: SectorSize,
    table: Table,
) -> Result<Parsed> {
    let disk = Disk::new(device, sector_size);
    let (partitions, mut findings) = disk.partitions(&table);
    let place = table.header.other_lba;
    if let Err(problem) = disk.table(place)? {
        findings.push(finding(
            Level::Note,
            "disk.gpt.backup-damaged",
            format!(
                "copy of the GPT header at byte {:#x}",
                place.saturating_mul(disk.sector_bytes)
            ),
            &problem,
            Some("repair it on the server: gdisk DISK, then `w`"),
        ));
    }
    Ok(parsed(&table, partitions, findings))
}

fn parsed(table: &Table, partitions: Vec<Partition>, findings: Vec<Finding>) -> Parsed {
    Parsed {
        scheme: Scheme::Gpt {
            disk_guid: table.header.disk_guid,
        },
        partitions,
        findings,
    }
}

struct Disk<'a> {
    device: &'a dyn ReadAt,
    sector_bytes: u64,
}

impl<'a> Disk<'a> {
    fn new(device: &'a dyn ReadAt, sector_size: SectorSize) -> Self {
        Self {
            device,
            sector_bytes: u64::from(sector_size.bytes()),
        }
    }

    fn last_lba(&self) -> u64 {
        (self.device.length_bytes() / self.sector_bytes).saturating_sub(1)
    }

    /// The table whose header is in sector `lba`; what is wrong with it is the inner error, what
    /// the device could not read the outer one.
    fn table(&self, lba: u64) -> Result<Result<Table, String>> {
        let Some(sector) = self.bytes(lba, self.sector_bytes)? else {
            return Ok(Err("it lies beyond the end of the disk".to_owned()));
        };
        let header = match Header::from_bytes(&sector, lba) {
            Ok(header) => header,
            Err(problem) => return Ok(Err(problem)),
        };
        let length = u64::from(header.entry_count) * u64::from(header.entry_size);
        let Some(entries) = self.bytes(header.entries_lba, length)? else {
            return Ok(Err(format!(
                "expected its entries on the disk, found them at sector {}",
                header.entries_lba
            )));
        };
        let found = crc32(&entries);
        if found != header.entries_crc {
            return Ok(Err(format!(
                "expected the checksum {:#010x} of its entries, found {found:#010x}",
                header.entries_crc
            )));
        }
        Ok(Ok(Table { header, entries }))
    }

    /// `length` bytes from sector `lba`; `None` where the disk ends before.
    fn bytes(&self, lba: u64, length: u64) -> Result<Option<Vec<u8>>> {
        let start = lba.checked_mul(self.sector_bytes);
        let end = start.and_then(|start| start.checked_add(length));
        let (Some(start), Some(end)) = (start, end) else {
            return Ok(None);
        };
        if end > self.device.length_bytes() {
            return Ok(None);
        }
        // At most a sector or the limit of entries.
        let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
        self.device.read_exact_at(start, &mut bytes)?;
        Ok(Some(bytes))
    }

    fn partitions(&self, table: &Table) -> (Vec<Partition>, Vec<Finding>) {
        let (mut partitions, mut findings) = (Vec::new(), Vec::new());
        let entries = table.entries.chunks_exact(table.header.entry_size as usize);
        for (number, entry) in (1..).map(PartitionNumber::new).zip(entries) {
            match self.partition(number, entry) {
                Ok(found) => partitions.extend(found),
                Err(problem) => findings.push(finding(
                    Level::Error,
                    "disk.partition.invalid",
                    format!("partition {number}"),
                    &problem,
                    None,
                )),
            }
        }
        (partitions, findings)
    }

    /// The partition of an entry; `None` where the entry is not used.
    fn partition(
        &self,
        number: PartitionNumber,
        entry: &[u8],
    ) -> Result<Option<Partition>, String> {
        let partition_type = Uuid::from_bytes_le(array_at(entry, 0));
        if partition_type.is_nil() {
            return Ok(None);
        }
        let u64_at = |at| u64::from_le_bytes(array_at(entry, at));
        let (first, last) = (u64_at(32), u64_at(40));
        let start = first.checked_mul(self.sector_bytes);
        let end = last
            .checked_add(1)
            .and_then(|end| end.checked_mul(self.sector_bytes));
        let (Some(start_bytes), Some(end_bytes), true) = (start, end, first <= last) else {
            return Err(format!(
                "expected its first sector before its last, found {first} and {last}"
            ));
        };
        Ok(Some(Partition {
            number,
            start_bytes,
            length_bytes: end_bytes - start_bytes,
            partition_type: PartitionType::Gpt(partition_type),
            partuuid: Uuid::from_bytes_le(array_at(entry, 16)).to_string(),
            name: name(&entry[56..128]),
            bootable: u64_at(48) & FLAG_LEGACY_BOOTABLE != 0,
        }))
    }
}

/// UTF-16 up to the first NUL.
fn name(bytes: &[u8]) -> String {
    let units = bytes
        .chunks_exact(2)
        .map(|unit| u16::from_le_bytes(array_at(unit, 0)))
        .take_while(|unit| *unit != 0);
    char::decode_utf16(units)
        .map(|decoded| decoded.unwrap_or(char::REPLACEMENT_CHARACTER))
        .collect()
}

fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = flate2::Crc::new();
    crc.update(bytes);
    crc.sum()
}

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
        if entry_size < 128 || !entry_size.is_multiple_of(8) {
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
        Ok(table) => return read_entries(device, sector_size, &table),
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
    table: &Table,
) -> Result<Parsed> {
    let disk = Disk::new(device, sector_size);
    let (partitions, mut findings) = disk.partitions(table);
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
    Ok(parsed(table, partitions, findings))
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

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::block::{MemoryDevice, WriteAt};
    use crate::partition::{PartitionTable, read_partition_table};
    use proptest::prelude::{any, prop, proptest};
    use rstest::rstest;
    use std::sync::Arc;

    const SECTORS: u64 = 2048;

    /// The layout of a table: 4 entries, of which number 2 is used, on a disk of 2048 sectors.
    pub(crate) fn disk(sector_size: SectorSize) -> Vec<u8> {
        let sector = sector_size.bytes() as usize;
        let mut bytes = vec![0; SECTORS as usize * sector];
        bytes[446 + 4] = 0xee;
        bytes[446 + 8..446 + 16].copy_from_slice(&[1, 0, 0, 0, 255, 255, 255, 255]);
        bytes[510..512].copy_from_slice(&[0x55, 0xaa]);
        let mut entries = [0; 512];
        let entry = &mut entries[128..256];
        entry[..16].copy_from_slice(&Uuid::from_u128(0xabcd).to_bytes_le());
        entry[16..32].copy_from_slice(
            &Uuid::from_u128(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef).to_bytes_le(),
        );
        entry[32..40].copy_from_slice(&64_u64.to_le_bytes());
        entry[40..48].copy_from_slice(&127_u64.to_le_bytes());
        entry[48] = 4;
        for (at, unit) in "Größe".encode_utf16().enumerate() {
            entry[56 + 2 * at..58 + 2 * at].copy_from_slice(&unit.to_le_bytes());
        }
        for (own, other, entries_lba) in [(1, SECTORS - 1, 2), (SECTORS - 1, 1, SECTORS - 3)] {
            let at = entries_lba as usize * sector;
            bytes[at..at + 512].copy_from_slice(&entries);
            let header = header(own, other, entries_lba, &entries);
            let at = own as usize * sector;
            bytes[at..at + 92].copy_from_slice(&header);
        }
        bytes
    }

    fn header(own: u64, other: u64, entries_lba: u64, entries: &[u8]) -> Vec<u8> {
        let mut header = b"EFI PART\0\0\x01\0".to_vec();
        header.extend(92_u32.to_le_bytes());
        header.extend([0; 8]);
        for number in [own, other, 34, SECTORS - 34] {
            header.extend(number.to_le_bytes());
        }
        header.extend(Uuid::from_u128(0xd15c).to_bytes_le());
        header.extend(entries_lba.to_le_bytes());
        header.extend(4_u32.to_le_bytes());
        header.extend(128_u32.to_le_bytes());
        header.extend(crc32(entries).to_le_bytes());
        sign(&mut header);
        header
    }

    /// Puts the checksum into a header that was changed.
    fn sign(header: &mut [u8]) {
        header[16..20].fill(0);
        let crc = crc32(&header[..92]);
        header[16..20].copy_from_slice(&crc.to_le_bytes());
    }

    fn read_table(bytes: Vec<u8>, sector_size: SectorSize) -> Result<PartitionTable> {
        let device: Arc<dyn ReadAt> = Arc::new(MemoryDevice::from(bytes));
        read_partition_table(&device, sector_size)
    }

    fn codes(table: &PartitionTable) -> Vec<&str> {
        table
            .findings
            .iter()
            .map(|found| found.code.as_str())
            .collect()
    }

    #[rstest]
    fn a_sound_table_is_read(#[values(SectorSize::B512, SectorSize::B4096)] size: SectorSize) {
        let table = read_table(disk(size), size).expect("sound");
        let sector = u64::from(size.bytes());
        let expected = Partition {
            number: PartitionNumber::new(2),
            start_bytes: 64 * sector,
            length_bytes: 64 * sector,
            partition_type: PartitionType::Gpt(Uuid::from_u128(0xabcd)),
            partuuid: "01234567-89ab-cdef-0123-456789abcdef".to_owned(),
            name: "Größe".to_owned(),
            bootable: true,
        };
        assert_eq!(table.partitions, [expected]);
        let disk_guid = Uuid::from_u128(0xd15c);
        assert_eq!(table.scheme, Scheme::Gpt { disk_guid });
        assert_eq!(table.findings, []);
        assert_eq!(table.boot_area_bytes, 64 * sector);
        assert!(!table.boot_code);
    }

    #[rstest]
    #[case::magic(512, "expected `EFI PART`, found none")]
    #[case::header(512 + 56, "expected the checksum")]
    #[case::entries(1024 + 130, "expected the checksum")]
    fn the_copy_is_used_when_the_first_table_is_damaged(#[case] at: usize, #[case] problem: &str) {
        let mut bytes = disk(SectorSize::B512);
        bytes[at] ^= 0xff;
        let table = read_table(bytes, SectorSize::B512).expect("the copy is sound");
        assert_eq!(table.partitions.len(), 1);
        assert_eq!(codes(&table), ["disk.gpt.backup-used"]);
        let told = &table.findings[0].problem;
        assert!(told.starts_with(problem), "{told}");
    }

    #[test]
    fn when_both_are_damaged_the_error_names_both() {
        let mut bytes = disk(SectorSize::B512);
        bytes[512] = 0;
        let last = bytes.len() - 512;
        bytes[last] = 0;
        let error = read_table(bytes, SectorSize::B512).expect_err("both are damaged");
        assert_eq!(
            error.to_string(),
            "GPT header at byte 0x200: expected `EFI PART`, found none; \
             the copy at byte 0xffe00: expected `EFI PART`, found none"
        );
        assert!(error.hint().is_some());
    }

    #[test]
    fn a_damaged_copy_is_a_finding() {
        let mut bytes = disk(SectorSize::B512);
        let last = bytes.len() - 512;
        bytes[last + 60] ^= 1;
        let table = read_table(bytes, SectorSize::B512).expect("the first is sound");
        assert_eq!(codes(&table), ["disk.gpt.backup-damaged"]);
    }

    #[rstest]
    #[case::length(12, &[0xff], "expected a length of 92 or more, found 255")]
    #[case::short(12, &[91], "expected a length of 92 or more, found 91")]
    #[case::place(24, &[9], "expected sector 1, found 9")]
    #[case::entry_size(84, &[96], "expected entries of 128 bytes, found 96")]
    #[case::many(80, &[1, 0x20], "expected at most 1048576 bytes of entries, found 8193 of 128")]
    #[case::entries_outside(79, &[0xff], "expected its entries on the disk, found them at sector 18374686479671623682")]
    fn a_header_with_wrong_values_is_damaged(
        #[case] at: usize,
        #[case] value: &[u8],
        #[case] problem: &str,
    ) {
        let mut bytes = disk(SectorSize::B512);
        let primary = &mut bytes[512..512 + 300];
        primary[at..at + value.len()].copy_from_slice(value);
        if at == 12 && value == [0xff] {
            // Longer than the sector.
            primary[13] = 2;
        }
        sign(primary);
        let table = read_table(bytes, SectorSize::B512).expect("the copy is sound");
        let told = &table.findings[0].problem;
        let problem = problem.replace("255", "767");
        assert!(told.starts_with(&problem), "{told}");
    }

    #[test]
    fn without_a_protective_mbr_the_table_is_used_and_that_is_a_finding() {
        let mut bytes = disk(SectorSize::B512);
        bytes[..512].fill(0);
        let table = read_table(bytes, SectorSize::B512).expect("sound");
        assert_eq!(table.partitions.len(), 1);
        assert_eq!(codes(&table), ["disk.gpt.no-protective-mbr"]);
    }

    #[test]
    fn a_hybrid_mbr_is_a_gpt_and_an_ordinary_one_is_not() {
        let mut bytes = disk(SectorSize::B512);
        bytes[462 + 4] = 0x83;
        bytes[462 + 8..462 + 16].copy_from_slice(&[64, 0, 0, 0, 64, 0, 0, 0]);
        let table = read_table(bytes.clone(), SectorSize::B512).expect("hybrid");
        assert_eq!(table.partitions[0].name, "Größe");
        bytes[446..462].fill(0);
        let table = read_table(bytes, SectorSize::B512).expect("MBR");
        assert_eq!(table.partitions[0].partition_type, PartitionType::Mbr(0x83));
        assert_eq!(codes(&table), ["disk.gpt.ignored"]);
    }

    #[test]
    fn a_partition_with_impossible_sectors_is_left_out() {
        let mut bytes = disk(SectorSize::B512);
        let entries = &mut bytes[1024..1536];
        entries[256..384].fill(0xff);
        let crc = crc32(&bytes[1024..1536]);
        let header = &mut bytes[512..604];
        header[88..92].copy_from_slice(&crc.to_le_bytes());
        sign(header);
        let device = MemoryDevice::from(bytes);
        device.flush().expect("memory");
        let parsed = read(&device, SectorSize::B512).expect("sound");
        assert_eq!(parsed.partitions.len(), 1);
        assert_eq!(parsed.findings[0].code, "disk.partition.invalid");
        assert_eq!(parsed.findings[0].place, "partition 3");
    }

    proptest! {
        /// Checksums are right here, so the values behind them are reached.
        #[test]
        fn no_signed_table_makes_the_parser_panic(
            header in prop::collection::vec((32..92_usize, any::<u8>()), 0..6),
            entries in prop::collection::vec((0..512_usize, any::<u8>()), 0..40),
        ) {
            let mut bytes = disk(SectorSize::B512);
            for (at, value) in entries {
                bytes[1024 + at] = value;
            }
            let crc = crc32(&bytes[1024..1536]);
            for (at, value) in header {
                bytes[512 + at] = value;
            }
            bytes[512 + 88..512 + 92].copy_from_slice(&crc.to_le_bytes());
            sign(&mut bytes[512..604]);
            let _ = read_table(bytes, SectorSize::B512);
        }
    }
}

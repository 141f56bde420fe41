// SPDX-License-Identifier: MIT OR Apache-2.0
//! Partition tables: MBR with logical partitions, GPT, or none at all.
//!
//! Read as Linux reads them, so that numbers and PARTUUIDs are those of the server: a GPT needs a
//! protective MBR, a hybrid MBR is a GPT, logical partitions count from 5. Where Linux would see
//! no table but a sound GPT is there, the GPT is taken and that is a finding.
//!
//! Invariants: partitions are in the table's order; none is empty; a partition may end beyond the
//! device (a finding), then [`partition`] refuses it. Not here: BSD, Sun, Apple and DASD labels,
//! dynamic disks (LDM), which appear as the partitions that their MBR or GPT shows.

mod gpt;
mod mbr;

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::block::{ReadAt, SectorSize, Slice, is_zero};
use crate::error::{Error, Result};
use crate::finding::{Finding, Level};

/// The number of a partition as Linux counts: the 3 of `/dev/sda3`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PartitionNumber(u32);

impl PartitionNumber {
    /// The partition that Linux counts as `number`, from 1.
    #[must_use]
    pub const fn new(number: u32) -> Self {
        Self(number)
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl fmt::Display for PartitionNumber {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// Which table a disk has, and the disk's identity in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "scheme", rename_all = "lowercase")]
pub enum Scheme {
    /// A DOS partition table.
    Mbr {
        /// The number that PARTUUIDs begin with.
        disk_signature: u32,
    },
    /// A GUID partition table.
    Gpt {
        /// The disk's GUID.
        disk_guid: Uuid,
    },
    /// No table: a filesystem on the whole disk, or a blank disk.
    None,
}

/// What a partition says that it is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PartitionType {
    /// The type byte of a DOS partition table.
    Mbr(u8),
    /// The type GUID of a GPT.
    Gpt(Uuid),
}

impl PartitionType {
    /// The EFI system partition of a GPT.
    pub const EFI_SYSTEM: Self = Self::Gpt(Uuid::from_u128(0xc12a7328_f81f_11d2_ba4b_00a0c93ec93b));
    /// Where GRUB keeps its core on a GPT disk that starts by BIOS.
    pub const BIOS_BOOT: Self = Self::Gpt(Uuid::from_u128(0x21686148_6449_6e6f_744e_656564454649));

    /// Whether it is an extended partition, which holds logical ones and no filesystem.
    #[must_use]
    pub const fn is_extended(self) -> bool {
        matches!(self, Self::Mbr(0x05 | 0x0f | 0x85))
    }
}

impl fmt::Display for PartitionType {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mbr(byte) => write!(formatter, "{byte:#04x}"),
            Self::Gpt(guid) => guid.fmt(formatter),
        }
    }
}

/// One partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Partition {
    /// Its number.
    pub number: PartitionNumber,
    /// Where it begins on the disk.
    pub start_bytes: u64,
    /// Its length.
    pub length_bytes: u64,
    /// What it is for.
    pub partition_type: PartitionType,
    /// The PARTUUID as Linux prints it: `5c9d8e2f-01`, or a GUID in lower case.
    pub partuuid: String,
    /// Its name in a GPT; empty where there is none.
    pub name: String,
    /// Marked as active (MBR), or as bootable by BIOS (GPT).
    pub bootable: bool,
}

impl Partition {
    /// The first byte behind it; saturates for a hostile table.
    #[must_use]
    pub fn end_bytes(&self) -> u64 {
        self.start_bytes.saturating_add(self.length_bytes)
    }
}

/// What the table of a disk says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionTable {
    /// Which table.
    #[serde(flatten)]
    pub scheme: Scheme,
    /// The partitions, in the order of the table; logical ones last. Extended ones are included.
    pub partitions: Vec<Partition>,
    /// Whether sector 0 holds code that a BIOS would run.
    pub boot_code: bool,
    /// How many bytes come before the first partition: boot sector, table and, on many BIOS
    /// disks, the rest of the boot loader. The whole disk where there is no partition.
    pub boot_area_bytes: u64,
    /// What is wrong with the table and did not prevent reading it.
    pub findings: Vec<Finding>,
}

/// What one of the two parsers found.
struct Parsed {
    scheme: Scheme,
    partitions: Vec<Partition>,
    findings: Vec<Finding>,
}

/// Reads the partition table of a disk.
///
/// A table of DOS type without any partition may stand over a filesystem on the whole disk whose
/// boot loader left its mark: look for one there too.
pub fn read_partition_table(
    device: &Arc<dyn ReadAt>,
    sector_size: SectorSize,
) -> Result<PartitionTable> {
    let mut sector = [0; 512];
    if device.length_bytes() < sector.len() as u64 {
        return Err(Error::corrupt(
            "disk",
            0,
            format!(
                "expected at least one sector of 512 bytes, found {}",
                device.length_bytes()
            ),
        ));
    }
    device.read_exact_at(0, &mut sector)?;
    let record = mbr::BootRecord::from_bytes(&sector);
    let mut parsed = parse(&**device, sector_size, &record)?;
    let more = check_layout(&parsed.partitions, device.length_bytes());
    parsed.findings.extend(more);
    let first = parsed
        .partitions
        .iter()
        .map(|found| found.start_bytes)
        .min();
    Ok(PartitionTable {
        scheme: parsed.scheme,
        partitions: parsed.partitions,
        boot_code: record.signed && !is_zero(&sector[..mbr::BOOT_CODE_BYTES]),
        boot_area_bytes: first.map_or(device.length_bytes(), |first| {
            first.min(device.length_bytes())
        }),
        findings: parsed.findings,
    })
}

/// The bytes of a partition as a device; an error where it ends beyond the disk.
pub fn partition(
    device: &Arc<dyn ReadAt>,
    partition: &Partition,
) -> Result<Slice<Arc<dyn ReadAt>>> {
    Slice::new(
        Arc::clone(device),
        partition.start_bytes,
        partition.length_bytes,
    )
}

fn parse(device: &dyn ReadAt, sector_size: SectorSize, record: &mbr::BootRecord) -> Result<Parsed> {
    if record.is_protective() {
        return gpt::read(device, sector_size);
    }
    let has_partitions = record
        .entries
        .is_some_and(|entries| entries.iter().any(|entry| entry.sectors != 0));
    if let Some(table) = gpt::find_primary(device, sector_size)? {
        if has_partitions {
            let mut parsed = mbr::read(device, sector_size, record)?;
            parsed.findings.push(finding(
                Level::Note,
                "disk.gpt.ignored",
                "GPT header at sector 1".to_owned(),
                "the disk has a GPT, but its MBR is not protective, so Linux uses the MBR",
                None,
            ));
            return Ok(parsed);
        }
        let mut parsed = gpt::read_entries(device, sector_size, &table)?;
        parsed.findings.push(finding(
            Level::Warning,
            "disk.gpt.no-protective-mbr",
            "sector 0".to_owned(),
            "the disk has a GPT, but no protective MBR: many systems will not see its partitions",
            Some("write one on the server: gdisk DISK, then `w`"),
        ));
        return Ok(parsed);
    }
    mbr::read(device, sector_size, record)
}

/// Partitions beyond the end of the disk, and partitions that overlap.
fn check_layout(partitions: &[Partition], device_length: u64) -> Vec<Finding> {
    let mut findings = Vec::new();
    for found in partitions {
        if found.end_bytes() > device_length {
            findings.push(finding(
                Level::Error,
                "disk.partition.beyond-end",
                format!("partition {}", found.number),
                &format!(
                    "it ends at byte {:#x}, the disk at {device_length:#x}",
                    found.end_bytes()
                ),
                Some("the image was cut off, or the table was made for a larger disk"),
            ));
        }
    }
    let mut sorted: Vec<&Partition> = partitions
        .iter()
        .filter(|found| !found.partition_type.is_extended())
        .collect();
    sorted.sort_by_key(|found| found.start_bytes);
    for pair in sorted.windows(2) {
        if let [first, second] = pair
            && first.end_bytes() > second.start_bytes
        {
            findings.push(finding(
                Level::Warning,
                "disk.partition.overlap",
                format!("partitions {} and {}", first.number, second.number),
                &format!(
                    "the first ends at byte {:#x}, the second begins at {:#x}",
                    first.end_bytes(),
                    second.start_bytes
                ),
                None,
            ));
        }
    }
    findings
}

fn finding(
    level: Level,
    code: &str,
    place: String,
    problem: &str,
    remedy: Option<&str>,
) -> Finding {
    Finding {
        level,
        code: code.to_owned(),
        place,
        problem: problem.to_owned(),
        remedy: remedy.map(str::to_owned),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::MemoryDevice;
    use proptest::prelude::{any, prop, proptest};

    fn read(bytes: Vec<u8>) -> Result<PartitionTable> {
        let device: Arc<dyn ReadAt> = Arc::new(MemoryDevice::from(bytes));
        read_partition_table(&device, SectorSize::B512)
    }

    /// A disk of 64 KiB whose MBR has the given entries: first sector and number of sectors.
    fn disk(entries: &[(u8, u8)]) -> Vec<u8> {
        let mut bytes = vec![0; 0x1_0000];
        bytes[510..512].copy_from_slice(&[0x55, 0xaa]);
        for (index, (start, sectors)) in entries.iter().enumerate() {
            let at = 446 + 16 * index;
            (bytes[at + 4], bytes[at + 8], bytes[at + 12]) = (0x83, *start, *sectors);
        }
        bytes
    }

    #[test]
    fn a_blank_disk_has_no_table_and_no_boot_code() {
        let table = read(vec![0; 4096]).expect("blank");
        let expected = PartitionTable {
            scheme: Scheme::None,
            partitions: Vec::new(),
            boot_code: false,
            boot_area_bytes: 4096,
            findings: Vec::new(),
        };
        assert_eq!(table, expected);
        let error = read(vec![0; 511]).expect_err("no sector");
        assert_eq!(
            error.to_string(),
            "disk at byte 0x0: expected at least one sector of 512 bytes, found 511"
        );
    }

    #[test]
    fn boot_code_and_the_area_before_the_first_partition_are_told() {
        let mut bytes = disk(&[(40, 10), (20, 10)]);
        bytes[439] = 1;
        let table = read(bytes).expect("sound");
        assert!(table.boot_code);
        assert_eq!(table.boot_area_bytes, 20 * 512);
        assert_eq!(table.findings, []);
    }

    #[test]
    fn overlapping_partitions_and_those_beyond_the_end_are_findings() {
        let device: Arc<dyn ReadAt> = Arc::new(MemoryDevice::from(disk(&[(20, 20), (30, 200)])));
        let table = read_partition_table(&device, SectorSize::B512).expect("readable");
        let told: Vec<String> = table
            .findings
            .iter()
            .map(|found| format!("{} {}: {}", found.code, found.place, found.problem))
            .collect();
        assert_eq!(
            told,
            [
                "disk.partition.beyond-end partition 2: it ends at byte 0x1cc00, the disk at \
                 0x10000",
                "disk.partition.overlap partitions 1 and 2: the first ends at byte 0x5000, the \
                 second begins at 0x3c00"
            ]
        );
        let slice = partition(&device, &table.partitions[0]).expect("it is on the disk");
        assert_eq!(
            (slice.start_bytes(), slice.length_bytes()),
            (20 * 512, 20 * 512)
        );
        assert!(partition(&device, &table.partitions[1]).is_err());
    }

    #[test]
    fn types_and_numbers_are_printed_as_tools_print_them() {
        let efi = PartitionType::EFI_SYSTEM;
        assert_eq!(efi.to_string(), "c12a7328-f81f-11d2-ba4b-00a0c93ec93b");
        let bios = PartitionType::BIOS_BOOT;
        assert_eq!(bios.to_string(), "21686148-6449-6e6f-744e-656564454649");
        assert_eq!(PartitionType::Mbr(5).to_string(), "0x05");
        assert!(PartitionType::Mbr(5).is_extended() && !efi.is_extended());
        assert_eq!(PartitionNumber::new(12).to_string(), "12");
    }

    proptest! {
        #[test]
        fn no_mbr_makes_the_parser_panic(
            head in prop::collection::vec(any::<u8>(), 66),
            chain in prop::collection::vec((0..128_usize, any::<[u8; 66]>()), 0..8),
        ) {
            let mut bytes = vec![0; 0x1_0000];
            for (sector, table) in [(0, &head[..])].into_iter().chain(
                chain.iter().map(|(sector, table)| (*sector, &table[..])),
            ) {
                bytes[sector * 512 + 446..sector * 512 + 512].copy_from_slice(table);
                for entry in 0..4 {
                    bytes[sector * 512 + 446 + 16 * entry] &= 0x80;
                    // Near enough to lead to other records.
                    bytes[sector * 512 + 446 + 16 * entry + 9..sector * 512 + 446 + 16 * entry + 12].fill(0);
                }
                bytes[sector * 512 + 510..sector * 512 + 512].copy_from_slice(&[0x55, 0xaa]);
            }
            let _ = read(bytes);
        }

        #[test]
        fn no_gpt_makes_the_parser_panic(
            changes in prop::collection::vec((440..1536_usize, any::<u8>()), 0..20),
            length in 512..0x10_0000_usize,
        ) {
            let mut bytes = gpt::tests::disk(SectorSize::B512);
            for (at, value) in changes {
                bytes[at] = value;
            }
            bytes.truncate(length);
            let _ = read(bytes);
        }
    }
}

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
    if let Some(header) = gpt::find_primary(device, sector_size)? {
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
        let mut parsed = gpt::read_entries(device, sector_size, header)?;
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

// SPDX-License-Identifier: MIT OR Apache-2.0
//! Partition tables of the usual tools are read as `partx` (libblkid) reads them.

mod outside;
#[path = "outside/testdata.rs"]
mod testdata;

use std::fmt::Write;
use std::path::Path;
use std::sync::Arc;

use disk::block::{MemoryDevice, OpenOptions, open_disk};
use disk::partition::{PartitionTable, Scheme, partition, read_partition_table};
use disk::{ReadAt, SectorSize};
use outside::{feed, have, run};
use rstest::rstest;
use testdata::testdata;

fn create(directory: &Path, megabytes: u64) {
    let file = std::fs::File::create(directory.join("disk.raw")).expect("a file");
    file.set_len(megabytes << 20).expect("it is sparse");
}

fn read(directory: &Path) -> (Arc<dyn ReadAt>, SectorSize, PartitionTable) {
    let path = directory.join("disk.raw");
    let disk = open_disk(&path, &OpenOptions::default()).expect("it is raw");
    let table = read_partition_table(&disk.device, disk.sector_size).expect("it is sound");
    (disk.device, disk.sector_size, table)
}

/// As `partx` prints it: number, start and length in sectors of 512 bytes, type, PARTUUID, name.
fn printed(table: &PartitionTable) -> String {
    let mut text = String::new();
    for found in &table.partitions {
        // An extended partition is to Linux only as long as its first record.
        let sectors = match found.partition_type.is_extended() {
            true => "extended".to_owned(),
            false => (found.length_bytes / 512).to_string(),
        };
        let kind = match found.partition_type {
            disk::partition::PartitionType::Mbr(byte) => format!("{byte:#x}"),
            guid @ disk::partition::PartitionType::Gpt(_) => guid.to_string(),
        };
        let (number, start) = (found.number, found.start_bytes / 512);
        let line = [
            &number.to_string(),
            &start.to_string(),
            &sectors,
            &kind,
            &found.partuuid,
            &found.name,
        ];
        let line = line.map(String::as_str).join(" ");
        writeln!(text, "{}", line.trim_end()).expect("a string");
    }
    text
}

fn partx(directory: &Path, sector_size: u32) -> String {
    let size = sector_size.to_string();
    let columns = "NR,START,SECTORS,TYPE,UUID,NAME";
    let arguments = [
        "--raw",
        "--noheadings",
        "--sector-size",
        &size,
        "-o",
        columns,
        "disk.raw",
    ];
    let mut text = String::new();
    for line in run(directory, "partx", &arguments).lines() {
        let mut fields: Vec<&str> = line.split_whitespace().collect();
        if matches!(fields.get(3), Some(&("0x5" | "0xf" | "0x85"))) {
            fields[2] = "extended";
        }
        let line = fields.join(" ").replace("\\x20", " ");
        writeln!(text, "{line}").expect("a string");
    }
    text
}

#[rstest]
#[case::primaries(
    "label: dos\nlabel-id: 0x5c9d8e2f\n2048,4096,83,*\n8192,4096,82\n12288,4096,c\n",
    false
)]
#[case::gap(
    "label: dos\n/dev/sda2 : start=2048, size=4096, type=83\n\
     /dev/sda4 : start=8192, size=4096, type=8e\n",
    false
)]
#[case::logical(
    "label: dos\nlabel-id: 0x00000007\n2048,4096,83\n8192,57344,5\n10240,4096,83\n16384,2048,82\n\
     20480,4096,83\n",
    false
)]
#[case::logical_lba(
    "label: dos\n/dev/sda1 : start=2048, size=4096, type=83\n\
     /dev/sda4 : start=8192, size=57344, type=f\n/dev/sda5 : start=10240, size=4096, type=83\n\
     /dev/sda6 : start=16384, size=2048, type=82\n",
    false
)]
#[case::gpt(
    "label: gpt\nlabel-id: A5C2D4E6-0000-4000-8000-0123456789AB\n\
     start=2048, size=4096, type=C12A7328-F81F-11D2-BA4B-00A0C93EC93B, name=\"EFI System\"\n\
     start=8192, size=4096, type=0FC63DAF-8483-4772-8E79-3D69D8477DE4, name=\"root\"\n",
    true
)]
#[case::mbr_empty_extended(
    "label: dos\nstart=2048, size=4096, type=83\nstart=8192, size=8192, type=5\n",
    false
)]
#[case::gpt_gap(
    "label: gpt\n\
     /dev/sda3 : start=2048, size=4096, type=0FC63DAF-8483-4772-8E79-3D69D8477DE4\n\
     /dev/sda100 : start=8192, size=4096, type=0657FD6D-A4AB-43C4-84E5-0933C84B4F4F\n",
    true
)]
fn a_table_of_sfdisk_reads_as_partx_reads_it(
    #[case] script: &str,
    #[case] is_gpt: bool,
    #[values(512, 4096)] sector_size: u32,
) {
    if !have(&["sfdisk", "fdisk", "partx"]) {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    create(directory.path(), 256);
    if sector_size == 512 {
        let arguments = ["-q", "--no-reread", "disk.raw"];
        feed(directory.path(), "sfdisk", &arguments, script);
    } else {
        // sfdisk knows no sector size, but fdisk knows sfdisk's scripts.
        std::fs::write(directory.path().join("script"), script).expect("there is room");
        let arguments = ["-b", "4096", "disk.raw"];
        feed(directory.path(), "fdisk", &arguments, "I\nscript\nw\n");
    }
    let path = directory.path().join("disk.raw");
    let options = OpenOptions {
        // Nothing in an MBR tells its sectors' size.
        sector_size: (!is_gpt).then(|| SectorSize::try_from(sector_size).expect("512 or 4096")),
        ..OpenOptions::default()
    };
    let disk = open_disk(&path, &options).expect("it is raw");
    assert_eq!(disk.sector_size.bytes(), sector_size);
    let table = read_partition_table(&disk.device, disk.sector_size).expect("it is sound");
    assert_eq!(matches!(table.scheme, Scheme::Gpt { .. }), is_gpt);
    assert_eq!(printed(&table), partx(directory.path(), sector_size));
    assert_eq!(table.findings, []);
    assert!(table.partitions.len() >= 2);
    assert_eq!(table.boot_area_bytes, 2048 * u64::from(sector_size));
    for found in &table.partitions {
        partition(&disk.device, found).expect("it is on the disk");
    }
}

#[test]
fn a_table_of_parted_reads_as_partx_reads_it() {
    if !have(&["parted", "partx"]) {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    create(directory.path(), 64);
    let script = "mklabel msdos mkpart primary 1MiB 9MiB set 1 boot on mkpart extended 10MiB 60MiB \
                  mkpart logical 11MiB 20MiB mkpart logical 21MiB 30MiB";
    let mut arguments = vec!["-s", "disk.raw"];
    arguments.extend(script.split_whitespace());
    run(directory.path(), "parted", &arguments);
    let (_, _, table) = read(directory.path());
    assert_eq!(printed(&table), partx(directory.path(), 512));
    let numbers: Vec<u32> = table
        .partitions
        .iter()
        .map(|found| found.number.get())
        .collect();
    assert_eq!(numbers, [1, 2, 5, 6]);
    assert!(table.partitions[0].bootable);
    // parted writes boot code that prints an error.
    assert!(table.boot_code);
}

#[test]
fn a_hybrid_table_of_sgdisk_is_read_as_gpt_and_survives_damage() {
    if !have(&["sgdisk", "partx"]) {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    create(directory.path(), 64);
    let script = "-n 1:2048:+1M -t 1:EF02 -n 2:8192:+8M -c 2:root -A 2:set:2 -h 2 disk.raw";
    let arguments: Vec<&str> = script.split_whitespace().collect();
    run(directory.path(), "sgdisk", &arguments);
    let (_, sector_size, table) = read(directory.path());
    assert_eq!(printed(&table), partx(directory.path(), 512));
    assert!(table.partitions[1].bootable);
    assert_eq!(
        table.partitions[0].partition_type,
        disk::partition::PartitionType::BIOS_BOOT
    );
    let mut bytes = std::fs::read(directory.path().join("disk.raw")).expect("it was made");
    bytes[512..1024].fill(0);
    let damaged: Arc<dyn ReadAt> = Arc::new(MemoryDevice::from(bytes));
    let again = read_partition_table(&damaged, sector_size).expect("the copy is sound");
    assert_eq!(again.partitions, table.partitions);
    assert_eq!(again.findings[0].code, "disk.gpt.backup-used");
}

#[rstest]
#[case::mbr("dfvfs-mbr.raw.gz", &["1 1 129 0x83 df7c7c37-01", "2 130 extended 0x5 df7c7c37-02", "5 131 129 0x83 df7c7c37-05"])]
#[case::gpt("dfvfs-gpt.raw.gz", &[
    "1 2048 128 0fc63daf-8483-4772-8e79-3d69d8477de4 1e25588c-27a9-4094-868c-2f257021f87b Linux filesystem",
    "2 4096 128 0fc63daf-8483-4772-8e79-3d69d8477de4 53d86ccf-3188-4b54-90d8-81866426b70a Linux filesystem",
])]
#[case::gpt_below_an_mbr("dfvfs-gpt_empty_with_mbr.raw.gz", &["1 48 257 0x83 00000000-01"])]
#[case::windows("plaso-multi_partition_image.vmdk.gz", &["1 128 10240 0x7 9940c61f-01", "2 10368 7680 0x7 9940c61f-02"])]
fn a_disk_of_the_test_data_has_its_partitions(#[case] name: &str, #[case] expected: &[&str]) {
    let Some(bytes) = testdata(&format!("disk/{name}")) else {
        return;
    };
    let device: Arc<dyn ReadAt> = Arc::new(MemoryDevice::from(bytes));
    let table = read_partition_table(&device, SectorSize::B512).expect("it is sound");
    assert_eq!(printed(&table).lines().collect::<Vec<_>>(), expected);
}

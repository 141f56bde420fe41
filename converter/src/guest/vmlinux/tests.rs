// SPDX-License-Identifier: MIT OR Apache-2.0
//! Programs made for the tests, whole, changed and cut.

use disk::ReadAt as _;
use disk::block::MemoryDevice;

use super::*;
use crate::guest::compression::compress;

const MIB: usize = 1 << 20;
const MEMORY_BYTES: usize = 3 * MIB;
const CODE_AT: usize = 4096;
const NOTES_AT: usize = CODE_AT + 100_000;
const DATA_AT: usize = CODE_AT + 200_000;

/// What a test changes of a program that can be started.
struct Sample {
    code_address: u64,
    data_memory_bytes: u64,
    entry: u64,
    note_kind: u32,
    machine: u16,
}

impl Default for Sample {
    fn default() -> Self {
        Self {
            code_address: MIB as u64,
            data_memory_bytes: 70_000,
            entry: MIB as u64 + 7,
            note_kind: XEN_PHYS32_ENTRY,
            machine: X86_64,
        }
    }
}

impl Sample {
    /// Code of 150 000 bytes with the notes inside, and data of 60 000, mostly zeros.
    fn program(&self) -> Vec<u8> {
        let mut file = vec![0; DATA_AT + 60_000];
        file[..6].copy_from_slice(b"\x7fELF\x02\x01");
        for (at, value) in [(16, EXECUTABLE), (18, self.machine), (54, 56), (56, 3)] {
            file[at..at + 2].copy_from_slice(&value.to_le_bytes());
        }
        file[32] = 64;
        let headers: [[u64; 5]; 3] = [
            [1, CODE_AT as u64, self.code_address, 150_000, 150_000],
            [
                1,
                DATA_AT as u64,
                2 * MIB as u64,
                60_000,
                self.data_memory_bytes,
            ],
            [4, NOTES_AT as u64, 0, 68, 68],
        ];
        for (number, values) in headers.iter().enumerate() {
            for (at, value) in [0, 8, 24, 32, 40].into_iter().zip(values) {
                let at = 64 + 56 * number + at;
                file[at..at + 8].copy_from_slice(&value.to_le_bytes());
            }
        }
        for (at, byte) in (0_u8..=250).cycle().take(150_000).enumerate() {
            file[CODE_AT + at] = byte;
        }
        let mut notes = Vec::new();
        for (name, kind, text) in [
            (b"Xen\0", 5, b"xen-3.0\0".as_slice()),
            (b"GNU\0", self.note_kind, &[1; 3]),
            (b"Xen\0", self.note_kind, &self.entry.to_le_bytes()),
        ] {
            for word in [4, text.len() as u32, kind] {
                notes.extend_from_slice(&word.to_le_bytes());
            }
            notes.extend_from_slice(name);
            notes.extend_from_slice(text);
            notes.resize(notes.len().next_multiple_of(4), 0);
        }
        file[NOTES_AT..NOTES_AT + notes.len()].copy_from_slice(&notes);
        file[DATA_AT + 59_999] = 9;
        file
    }
}

/// The image that holds a program, packed.
fn image(program: &[u8], compression: Compression) -> Vec<u8> {
    let packed = compress(program, compression).unwrap();
    let mut image = vec![0; 1024];
    image[0x1f1] = 1;
    image[0x202..0x208].copy_from_slice(b"HdrS\x0f\x02");
    image[0x20e] = 0x80;
    image[0x280..0x28e].copy_from_slice(b"6.1.0-50-amd64");
    image[0x24c..0x250].copy_from_slice(&(packed.len() as u32 + 4).to_le_bytes());
    image.extend(packed);
    image.extend((program.len() as u32).to_le_bytes());
    image
}

fn unpacked(image: &[u8]) -> Result<(u32, Vec<u8>)> {
    let memory = MemoryDevice::from(vec![0; MEMORY_BYTES]);
    let entry = unpack(image, &memory)?;
    assert_eq!(memory.length_bytes(), MEMORY_BYTES as u64);
    Ok((entry, memory.into_bytes()))
}

fn refused(sample: &Sample) -> String {
    let image = image(&sample.program(), Compression::Zstd);
    unpacked(&image).unwrap_err().to_string()
}

#[test]
fn every_segment_goes_to_its_address_and_the_note_tells_the_entry() {
    let program = Sample::default().program();
    for compression in [
        Compression::Zstd,
        Compression::Xz,
        Compression::Gzip,
        Compression::Lz4Legacy,
        Compression::None,
    ] {
        let (entry, memory) = unpacked(&image(&program, compression)).unwrap();
        assert_eq!(entry, MIB as u32 + 7, "{compression}");
        let mut expected = vec![0; MEMORY_BYTES];
        expected[MIB..MIB + 150_000].copy_from_slice(&program[CODE_AT..CODE_AT + 150_000]);
        expected[2 * MIB..2 * MIB + 60_000].copy_from_slice(&program[DATA_AT..]);
        assert!(memory == expected, "{compression}");
    }
}

#[test]
fn what_cannot_be_started_is_refused_with_the_reason() {
    let default = Sample::default;
    let cases = [
        (
            Sample {
                machine: 3,
                ..default()
            },
            "no program for x86-64",
        ),
        (
            Sample {
                note_kind: 17,
                ..default()
            },
            "with its loader only",
        ),
        (
            Sample {
                entry: 5,
                ..default()
            },
            "outside of itself",
        ),
        (
            Sample {
                code_address: 4096,
                ..default()
            },
            "no room",
        ),
        (
            Sample {
                code_address: u64::MAX,
                ..default()
            },
            "no room",
        ),
        (
            Sample {
                data_memory_bytes: 2 << 20,
                ..default()
            },
            "no room",
        ),
    ];
    for (sample, reason) in cases {
        let told = refused(&sample);
        assert!(told.contains(reason), "{told}");
    }
    let told = |image: &[u8]| unpacked(image).unwrap_err().to_string();
    assert!(told(b"not a kernel").contains("without a header"));
    let mut image = image(&default().program(), Compression::Zstd);
    image[0x206] = 7;
    assert!(told(&image).contains("does not say where"));
    image[0x280..0x286].copy_from_slice(b"4.19.0");
    assert!(told(&image).contains("older than Linux 5.0"));
}

#[test]
fn a_damaged_image_is_an_error_wherever_it_is_damaged() {
    let program = Sample::default().program();
    let whole = image(&program, Compression::None);
    // The last bytes behind the program tell its length to its loader, and nothing to us.
    for length in (0..whole.len() - 4).rev().step_by(997) {
        let mut cut = whole.clone();
        cut.truncate(length);
        if length > 0x290 {
            let left = (length.saturating_sub(1024) as u32).to_le_bytes();
            cut[0x24c..0x250].copy_from_slice(&left);
        }
        assert!(unpacked(&cut).is_err(), "{length}");
    }
    for place in 0..1024 + 64 + 3 * 56 {
        for value in [0, 0x7f, 0xff] {
            let mut changed = whole.clone();
            changed[place] = value;
            // Whatever comes of it: it ends, and writes nowhere else.
            let _ = unpacked(&changed);
        }
    }
    let mut packed = image(&program, Compression::Xz);
    packed[1024 + 200] ^= 1;
    assert!(unpacked(&packed).is_err());
}

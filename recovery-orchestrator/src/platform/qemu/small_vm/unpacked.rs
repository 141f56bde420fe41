// SPDX-License-Identifier: MIT OR Apache-2.0
//! A machine whose memory has the unpacked kernel in it before it starts.
//!
//! Its memory is a file, which QEMU maps as its own: what the machine writes there is not written to
//! the file, and of the kernel only what it touches takes memory. What QEMU itself is told to load is
//! an ELF program of one note, which says where the kernel begins. (QEMU reads it since 4.0,
//! `hw/i386/x86.c`, `load_elfboot`; memory from a file on the mainboard needs 5.0.)

use std::path::{Path, PathBuf};

use converter::guest::vmlinux;
use disk::block::WritableDiskFile;

use super::MIB;
use crate::error::Result;
use crate::file;

const ELF_HEADER_BYTES: u64 = 64;
const PROGRAM_HEADER_BYTES: u64 = 56;
/// Where the note comes to lie, which nobody reads there: below what a kernel is linked for.
const NOTE_ADDRESS: u64 = 1 << 20;

/// The files of such a machine.
#[derive(Debug)]
pub(super) struct Unpacked {
    /// Its memory.
    memory: PathBuf,
    memory_bytes: u64,
    /// What QEMU loads as its kernel.
    pub(super) entry: PathBuf,
}

impl Unpacked {
    /// Makes them in `directory`.
    ///
    /// # Errors
    ///
    /// Where the kernel has no such way to be started, or there is no room in the directory: the
    /// machine can be started with the kernel's own loader still.
    pub(super) fn new(kernel: &[u8], memory_bytes: u64, directory: &Path) -> Result<Self> {
        let memory = directory.join("memory");
        let memory_bytes = memory_bytes.next_multiple_of(MIB);
        let entry = vmlinux::unpack(kernel, &WritableDiskFile::create(&memory, memory_bytes)?)?;
        let unpacked = Self {
            memory,
            memory_bytes,
            entry: directory.join("entry.elf"),
        };
        file::write(&unpacked.entry, &entry_program(entry))?;
        Ok(unpacked)
    }

    /// QEMU's `-object`: the memory, called `memory`.
    pub(super) fn memory_object(&self) -> String {
        let (path, size) = (super::escaped(&self.memory), self.memory_bytes);
        format!("memory-backend-file,id=memory,share=off,size={size},mem-path={path}")
    }
}

/// An ELF program for x86-64 that is only a note: start at this physical address, in 32 bits.
fn entry_program(entry: u32) -> Vec<u8> {
    let mut note = Vec::new();
    // Lengths of name and text, `XEN_ELFNOTE_PHYS32_ENTRY`. QEMU reads eight bytes of the text.
    for word in [4_u32, 8, 18] {
        note.extend(word.to_le_bytes());
    }
    note.extend(b"Xen\0");
    note.extend(u64::from(entry).to_le_bytes());

    let mut program = b"\x7fELF\x02\x01\x01".to_vec();
    program.resize(16, 0);
    let halves = |program: &mut Vec<u8>, values: &[u16]| {
        program.extend(values.iter().flat_map(|value| value.to_le_bytes()));
    };
    let longs = |program: &mut Vec<u8>, values: &[u64]| {
        program.extend(values.iter().flat_map(|value| value.to_le_bytes()));
    };
    // Executable, x86-64, version 1.
    halves(&mut program, &[2, 62, 1, 0]);
    longs(&mut program, &[NOTE_ADDRESS, ELF_HEADER_BYTES, 0]);
    // No flags; length of this header, of the program headers, how many there are, no sections.
    halves(&mut program, &[0, 0, 64, 56, 2, 0, 0, 0]);
    let note_at = ELF_HEADER_BYTES + 2 * PROGRAM_HEADER_BYTES;
    let length = note.len() as u64;
    // Loaded, and the notes; both readable.
    for kind in [1_u16, 4] {
        halves(&mut program, &[kind, 0, 4, 0]);
        let place = [note_at, NOTE_ADDRESS, NOTE_ADDRESS, length, length, 4];
        longs(&mut program, &place);
    }
    program.extend(note);
    program
}

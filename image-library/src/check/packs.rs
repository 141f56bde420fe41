// SPDX-License-Identifier: MIT OR Apache-2.0
//! The first pass of `verify`: every pack, every record.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use disk::Unit;

use super::{Damage, Findings};
use crate::core::Core;
use crate::error::{Error, Result};
use crate::index::Location;
use crate::pack::{FooterEntry, OpenPack, PackId};
use crate::store::{ListedPack, names};

const REMEDY: &str = "take a new image of the servers concerned, or bring the pack back from a \
                      copy of the library";

/// How many packs are read at once: a bucket is slow to answer.
const PACKS_AT_ONCE: usize = 8;
/// How much of a pack is read at once, unless a record is longer. Neither a pack nor most of one is
/// ever in memory.
const PIECE_LENGTH: u64 = 1 << 20;

/// What a thread reads into, again and again.
#[derive(Debug, Default)]
struct Buffers {
    piece: Vec<u8>,
    plain: Vec<u8>,
}

/// Checks these packs, several at a time.
pub(super) fn check(core: &Core, packs: &[ListedPack], findings: &Findings<'_>) -> Result<Damage> {
    findings.monitor.stage("Reading packs");
    let total = packs.iter().map(|pack| pack.length).sum();
    findings.monitor.expect(total, Unit::Bytes);
    let next = AtomicUsize::new(0);
    let damage = Mutex::new(Damage::default());
    let work = || -> Result<()> {
        let mut buffers = Buffers::default();
        while let Some(pack) = packs.get(next.fetch_add(1, Ordering::Relaxed)) {
            let found = check_pack(core, pack, &mut buffers, findings)?;
            let mut damage = damage
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner);
            damage.packs.extend(found.packs);
            damage.records.extend(found.records);
            damage.salvaged.extend(found.salvaged);
            findings.monitor.advance(pack.length);
        }
        Ok(())
    };
    let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let threads = if core.store.is_shared() {
        PACKS_AT_ONCE
    } else {
        processors.min(PACKS_AT_ONCE)
    };
    std::thread::scope(|scope| -> Result<()> {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        for worker in workers {
            match worker.join() {
                Ok(result) => result?,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        Ok(())
    })?;
    Ok(damage
        .into_inner()
        .unwrap_or_else(std::sync::PoisonError::into_inner))
}

/// Checks one pack. Damage is found and noted; an error is a failure of the world.
fn check_pack(
    core: &Core,
    listed: &ListedPack,
    buffers: &mut Buffers,
    findings: &Findings<'_>,
) -> Result<Damage> {
    let mut damage = Damage::default();
    let id = listed.id;
    let object = match core.store.open(&names::pack(&id)) {
        // Removed since it was listed: what it held is missed by the second pass.
        Ok(None) => return Ok(damage),
        Ok(Some(object)) => object,
        Err(error @ Error::File { .. }) => {
            lose_pack(core, id, &error, findings, &mut damage);
            return Ok(damage);
        }
        Err(error) => return Err(error),
    };
    findings.losses().note_read(id);
    findings.update(|report| report.packs += 1);
    let checked = OpenPack::open(object, id, &core.key, *core.config.id.as_bytes())
        .and_then(|pack| check_bytes(core, &pack, buffers, findings, &mut damage));
    match checked {
        Ok(()) | Err(Error::PackMissing { .. }) => {}
        // A file of another length, a sector that cannot be read, a pack of another library.
        Err(error @ (Error::Corrupt { .. } | Error::Unsupported { .. } | Error::File { .. })) => {
            lose_pack(core, id, &error, findings, &mut damage);
        }
        Err(error) => return Err(error),
    }
    Ok(damage)
}

/// Reads a pack from its beginning to its end, each byte once, and checks its hash and its records.
fn check_bytes(
    core: &Core,
    pack: &OpenPack,
    buffers: &mut Buffers,
    findings: &Findings<'_>,
    damage: &mut Damage,
) -> Result<()> {
    let id = pack.id();
    let footer = match pack.footer() {
        Err(error) if !matches!(error, Error::Corrupt { .. }) => return Err(error),
        footer => footer,
    };
    let entries = footer.as_ref().map_or(&[][..], |footer| &footer.entries);
    let mut hasher = blake3::Hasher::new();
    // Told after what is wrong with the pack as a whole, which is known at its end.
    let mut problems = Vec::new();
    let mut start = 0;
    let mut unread = entries;
    while start < pack.length() {
        let (count, end) = piece(start, unread, pack.length());
        let (records, rest) = unread.split_at(count);
        buffers.piece.resize((end - start) as usize, 0);
        pack.read_raw(start, &mut buffers.piece)?;
        hasher.update(&buffers.piece);
        findings.update(|report| report.bytes_read += end - start);
        for entry in records {
            if let Err(problem) = check_entry(core, pack, entry, start, buffers, findings) {
                problems.push((*entry, problem));
            }
        }
        (start, unread) = (end, rest);
    }
    findings.update(|report| report.chunks += entries.len() as u64);
    if hasher.finalize().as_bytes() != id.as_bytes() {
        report_pack(findings, id, "its bytes do not have the hash in its name");
    }
    for (entry, problem) in problems {
        damage.records.insert((id, entry.id));
        core.note_damaged_record(id, entry.id);
        report_record(findings, id, &entry, &problem);
    }
    if let Err(error) = footer {
        lose_pack(core, id, &error, findings, damage);
        let salvaged = pack.scan(&core.key)?;
        findings.update(|report| report.chunks += salvaged.len() as u64);
        damage.salvaged = salvaged.iter().map(|entry| (id, entry.id)).collect();
    }
    Ok(())
}

/// How many of these records, and up to where, are read at once from `start` on. Records stand one
/// after the other, without gaps: the footer was checked for that.
fn piece(start: u64, unread: &[FooterEntry], length: u64) -> (usize, u64) {
    let longest = start + PIECE_LENGTH;
    let count = unread.partition_point(|entry| entry.extent.end() <= longest);
    match unread.get(..count.max(1)) {
        Some(records) => (records.len(), records[records.len() - 1].extent.end()),
        None => (0, longest.min(length)),
    }
}

fn lose_pack(core: &Core, id: PackId, error: &Error, findings: &Findings<'_>, damage: &mut Damage) {
    damage.packs.insert(id);
    core.note_damaged_pack(id);
    findings.losses().lose_pack(id);
    report_pack(findings, id, &problem_of(error));
}

/// Checks a record that stands in the piece that was read from `start` on.
fn check_entry(
    core: &Core,
    pack: &OpenPack,
    entry: &FooterEntry,
    start: u64,
    buffers: &mut Buffers,
    findings: &Findings<'_>,
) -> Result<(), String> {
    let checked = check_record(core, pack, entry, start, buffers);
    if checked.is_err() {
        findings.losses().lose_copy(pack.id(), entry.id);
    }
    checked.and_then(|()| check_index(core, pack, entry))
}

fn check_record(
    core: &Core,
    pack: &OpenPack,
    entry: &FooterEntry,
    start: u64,
    buffers: &mut Buffers,
) -> Result<(), String> {
    let extent = &entry.extent;
    let offset = (u64::from(extent.offset) - start) as usize;
    let record = &mut buffers.piece[offset..offset + extent.length as usize];
    buffers.plain.resize(extent.plain_length as usize, 0);
    let kind = pack
        .open_record(&core.key, &entry.id, extent, record, &mut buffers.plain)
        .map_err(|error| problem_of(&error))?;
    if kind != entry.kind {
        return Err(format!("expected a {:?}, found a {kind:?}", entry.kind));
    }
    Ok(())
}

/// The index is a cache, but readers go by it: it must know this copy.
fn check_index(core: &Core, pack: &OpenPack, entry: &FooterEntry) -> Result<(), String> {
    let found = core.find_all(&entry.id);
    let is_this = |found: &Location| found.pack == pack.id() && found.extent == entry.extent;
    if found.is_ok_and(|found| found.iter().any(is_this)) {
        Ok(())
    } else {
        Err("the index does not know it; delete the directory index/".to_owned())
    }
}

fn problem_of(error: &Error) -> String {
    match error {
        Error::File { source, .. } => format!("{error}: {source}"),
        other => other.to_string(),
    }
}

fn report_pack(findings: &Findings<'_>, id: PackId, problem: &str) {
    let place = format!("pack {id}");
    findings.add(
        "library.pack.damaged",
        place,
        problem.to_owned(),
        Some(REMEDY),
    );
}

fn report_record(findings: &Findings<'_>, pack: PackId, entry: &FooterEntry, problem: &str) {
    let (id, offset) = (entry.id, entry.extent.offset);
    let place = format!("chunk {id} in pack {pack} at byte {offset:#x}");
    findings.add(
        "library.chunk.damaged",
        place,
        problem.to_owned(),
        Some(REMEDY),
    );
}

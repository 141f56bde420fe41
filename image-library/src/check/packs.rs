// SPDX-License-Identifier: MIT OR Apache-2.0
//! The first pass of `verify`: every pack, every record.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use disk::Unit;

use super::{Damage, Findings};
use crate::core::Core;
use crate::error::{Error, Result};
use crate::index::Location;
use crate::pack::{FooterEntry, OpenPack, PACK_LENGTH_MAX, PackId};
use crate::store::{ListedPack, names};

const REMEDY: &str = "take a new image of the servers concerned, or bring the pack back from a \
                      copy of the library";

/// How many packs are in memory at once: each has 16 MiB.
const PACKS_AT_ONCE: usize = 2;

/// Checks these packs, several at a time.
pub(super) fn check(core: &Core, packs: &[ListedPack], findings: &Findings<'_>) -> Result<Damage> {
    findings.monitor.stage("Reading packs");
    let total = packs.iter().map(|pack| pack.length).sum();
    findings.monitor.expect(total, Unit::Bytes);
    let next = AtomicUsize::new(0);
    let damage = Mutex::new(Damage::default());
    let work = || -> Result<()> {
        while let Some(pack) = packs.get(next.fetch_add(1, Ordering::Relaxed)) {
            let found = check_pack(core, pack, findings)?;
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
    let threads = processors.min(PACKS_AT_ONCE);
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
fn check_pack(core: &Core, listed: &ListedPack, findings: &Findings<'_>) -> Result<Damage> {
    let mut damage = Damage::default();
    let id = listed.id;
    let name = names::pack(&id);
    let what = "the length of a pack in bytes";
    let bytes = match core.store.read(&name, PACK_LENGTH_MAX, what) {
        // Removed since it was listed: what it held is missed by the second pass.
        Ok(None) => return Ok(damage),
        Ok(Some(bytes)) => bytes,
        Err(error @ (Error::Limit { .. } | Error::File { .. })) => {
            lose_pack(core, id, &error, findings, &mut damage);
            return Ok(damage);
        }
        Err(error) => return Err(error),
    };
    findings.update(|report| {
        report.packs += 1;
        report.bytes_read += bytes.len() as u64;
    });
    let is_unchanged = blake3::hash(&bytes).as_bytes() == id.as_bytes();
    if !is_unchanged {
        report_pack(findings, id, "its bytes do not have the hash in its name");
    }
    let opened = core.store.open(&name).and_then(|object| {
        let object = object.ok_or_else(|| Error::PackMissing {
            place: core.store.place(&name),
        })?;
        OpenPack::open(object, id, &core.key, *core.config.id.as_bytes())
    });
    findings.losses().note_read(id);
    match opened {
        Ok(pack) => check_records(core, &pack, bytes, findings, &mut damage)?,
        // Where the hash is right, the pack was made wrong, or of another library.
        Err(error) => lose_pack(core, id, &error, findings, &mut damage),
    }
    Ok(damage)
}

fn lose_pack(core: &Core, id: PackId, error: &Error, findings: &Findings<'_>, damage: &mut Damage) {
    damage.packs.insert(id);
    core.note_damaged_pack(id);
    findings.losses().lose_pack(id);
    report_pack(findings, id, &problem_of(error));
}

fn check_records(
    core: &Core,
    pack: &OpenPack,
    mut bytes: Vec<u8>,
    findings: &Findings<'_>,
    damage: &mut Damage,
) -> Result<()> {
    let id = pack.id();
    let footer = match pack.footer() {
        Ok(footer) => footer,
        Err(error) => {
            lose_pack(core, id, &error, findings, damage);
            let salvaged = pack.scan(&core.key)?;
            findings.update(|report| report.chunks += salvaged.len() as u64);
            damage.salvaged = salvaged.iter().map(|entry| (id, entry.id)).collect();
            return Ok(());
        }
    };
    for entry in &footer.entries {
        let checked = check_record(core, pack, entry, &mut bytes);
        if checked.is_err() {
            findings.losses().lose_copy(id, entry.id);
        }
        if let Err(problem) = checked.and_then(|()| check_index(core, pack, entry)) {
            damage.records.insert((id, entry.id));
            core.note_damaged_record(id, entry.id);
            report_record(findings, id, entry, &problem);
        }
    }
    findings.update(|report| report.chunks += footer.entries.len() as u64);
    Ok(())
}

fn check_record(
    core: &Core,
    pack: &OpenPack,
    entry: &FooterEntry,
    bytes: &mut [u8],
) -> Result<(), String> {
    let extent = &entry.extent;
    let range = extent.offset as usize..extent.end() as usize;
    let record = bytes
        .get_mut(range)
        .ok_or_else(|| "its record is cut off".to_owned())?;
    let mut plain = vec![0; extent.plain_length as usize];
    let kind = pack
        .open_record(&core.key, &entry.id, extent, record, &mut plain)
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

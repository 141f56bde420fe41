// SPDX-License-Identifier: MIT OR Apache-2.0
//! Carries out a plan, in an overlay over each disk that it touches.
//!
//! In three passes: what every file will hold is made first (and checked against what was
//! inspected), then the room for it is checked, then it is written. An error drops the overlays, so
//! a conversion is done whole or not at all.
//!
//! ext and FAT are written natively. On XFS and btrfs the edits wait, and are done in the end by the
//! guest's own kernel in a small virtual machine, as the plan says.

mod deferred;
mod initramfs;
mod machine;
mod small_vm;

use std::collections::BTreeMap;
use std::sync::Arc;

use disk::block::{Overlay, OverlayOptions};
use disk::filesystem::{
    self, Attributes, Filesystem, FilesystemKind, WritableFilesystem, WriteOptions,
};
use disk::{Finding, Level, WriteAt};
use image_library::DiskIndex;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::guest_disk::{GuestDisk, secrets_of};
use crate::inspect::findings::finding;
use crate::inspect::tree::encode;
use crate::inspect::{FilePlace, VolumeId};
use crate::plan::{Change, Edit, Plan, SmallVm};
use crate::stack::{Devices, Part, filesystem_on};

use deferred::Deferred;
pub use machine::{NoMachine, Work, WriterDisk, WriterMachine, WriterOrder, WriterOutput};
use small_vm::Waiting;

const FILE_BYTES_MAX: u64 = 1 << 30;
/// Directory blocks, block maps and rounding, per file.
const OVERHEAD_BYTES: u64 = 16 << 10;

/// How a plan is applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApplyOptions {
    /// The time that written files get, in seconds since 1970: two conversions of the same image
    /// give the same bytes.
    pub now_unix_seconds: i64,
}

/// A plan that was carried out.
#[derive(Debug)]
pub struct Applied {
    /// What was written.
    pub summary: AppliedSummary,
    /// The changes of each disk that was touched.
    pub overlays: Vec<(DiskIndex, Arc<Overlay>)>,
}

/// What was written where.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct AppliedSummary {
    /// Every file that was changed or made.
    pub files: Vec<AppliedFile>,
    /// What was noticed on the way, such as a journal that was replayed.
    pub findings: Vec<Finding>,
}

/// A file that was changed or made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppliedFile {
    /// Which.
    pub place: FilePlace,
    /// BLAKE3 of the content before, in hexadecimal; `None` for a new file.
    pub before: Option<String>,
    /// BLAKE3 of the content after.
    pub after: String,
    /// Size after, in bytes.
    pub size_bytes: u64,
}

/// The filesystems of a guest during a conversion.
#[derive(Debug, Default)]
pub(crate) struct Volumes {
    /// Those with files to be written.
    pub(crate) writable: BTreeMap<VolumeId, Box<dyn WritableFilesystem>>,
    /// Those that are only read.
    pub(crate) readable: BTreeMap<VolumeId, Box<dyn Filesystem>>,
    /// Bytes free on those to be written, where that is known.
    pub(crate) free_bytes: BTreeMap<VolumeId, u64>,
}

/// Carries out a plan. The machine is only asked where the plan has a use for it.
pub fn apply(
    plan: &Plan,
    disks: &[GuestDisk],
    options: &ApplyOptions,
    work: Work<'_>,
) -> Result<Applied> {
    check_verdict(plan)?;
    let overlays = overlays(disks);
    let whole = overlays.iter().zip(disks).map(|((_, overlay), disk)| Part {
        id: VolumeId::on_disk(disk.index, None),
        device: Arc::clone(overlay) as Arc<dyn WriteAt>,
        sector_size: disk.sector_size,
    });
    let small_vm = plan.small_vm.as_ref();
    let is_stacked = plan.edits.iter().any(is_stacked) || small_vm.is_some();
    let devices = Devices::new(whole.collect(), &secrets_of(disks), is_stacked)?;
    let mut volumes = Volumes::default();
    let mut summary = AppliedSummary::default();
    let mut waiting = Vec::new();
    for edit in &plan.edits {
        let id = edit.place.volume;
        if volumes.writable.contains_key(&id) {
            continue;
        }
        let findings = &mut summary.findings;
        match small_vm.and_then(|small_vm| small_vm.writes(id)) {
            Some(kind) => {
                let parts = devices.filesystem_parts(id)?;
                waiting.push(open_deferred(id, parts, kind, &mut volumes, findings)?);
            }
            None => open_writable(id, &devices.open(id)?, options, &mut volumes, findings)?,
        }
    }
    let for_machine = small_vm.into_iter().flat_map(SmallVm::read_volumes);
    for id in plan.edits.iter().flat_map(read_volumes).chain(for_machine) {
        if !volumes.writable.contains_key(&id) && !volumes.readable.contains_key(&id) {
            volumes.readable.insert(id, devices.filesystem(id)?);
        }
    }
    summary.files = write_edits(&plan.edits, &mut volumes, options)?;
    if let Some(small_vm) = small_vm.filter(|_| !waiting.is_empty()) {
        small_vm::write(&waiting, small_vm, &volumes, options, work)?;
    }
    for (id, filesystem) in std::mem::take(&mut volumes.writable) {
        filesystem.finish().map_err(Error::guest(id.to_string()))?;
    }
    let changed = |(_, overlay): &(DiskIndex, Arc<Overlay>)| overlay.changed_bytes() > 0;
    Ok(Applied {
        summary,
        overlays: overlays.into_iter().filter(changed).collect(),
    })
}

fn check_verdict(plan: &Plan) -> Result<()> {
    if !plan.verdict.is_ready() {
        let errors = plan.findings.iter().filter(|f| f.level == Level::Error);
        let problems: Vec<String> = errors
            .map(|f| format!("{}: {}", f.code, f.problem))
            .collect();
        return Err(Error::NotConvertible {
            problem: problems.join("; "),
        });
    }
    Ok(())
}

fn overlays(disks: &[GuestDisk]) -> Vec<(DiskIndex, Arc<Overlay>)> {
    let overlay = |disk: &GuestDisk| {
        let base = Arc::clone(&disk.device);
        let overlay = Overlay::new(base, OverlayOptions::default());
        (disk.index, Arc::new(overlay))
    };
    disks.iter().map(overlay).collect()
}

/// Whether an edit needs a volume that is made of others.
fn is_stacked(edit: &Edit) -> bool {
    let mut volumes = read_volumes(edit);
    volumes.push(edit.place.volume);
    volumes.iter().any(|volume| volume.disk().is_none())
}

/// The volumes that an edit reads besides the one that it writes.
fn read_volumes(edit: &Edit) -> Vec<VolumeId> {
    match &edit.change {
        Change::AppendToInitramfs(append) => {
            let files = append.modules.iter().map(|module| module.file.volume);
            files
                .chain(append.module_directory.iter().map(|place| place.volume))
                .collect()
        }
        Change::Copy { from, .. } => vec![from.volume],
        Change::Rewrite { .. } | Change::Create { .. } => Vec::new(),
    }
}

fn open_writable(
    id: VolumeId,
    device: &Arc<dyn WriteAt>,
    options: &ApplyOptions,
    volumes: &mut Volumes,
    findings: &mut Vec<Finding>,
) -> Result<()> {
    let place = || id.to_string();
    let write_options = WriteOptions {
        now_unix_seconds: options.now_unix_seconds,
    };
    let opened = filesystem::open_writable(Arc::clone(device), write_options)
        .map_err(Error::guest(place()))?;
    // After the replay of a journal, which changes it.
    let free = opened.filesystem.free_bytes();
    if let Some(free) = free.map_err(Error::guest(place()))? {
        volumes.free_bytes.insert(id, free);
    }
    findings.extend(opened.findings);
    volumes.writable.insert(id, opened.filesystem);
    Ok(())
}

/// A filesystem that the small virtual machine writes.
fn open_deferred(
    id: VolumeId,
    parts: Vec<Part>,
    kind: FilesystemKind,
    volumes: &mut Volumes,
    findings: &mut Vec<Finding>,
) -> Result<Waiting> {
    let filesystem = filesystem_on(&parts)?;
    if filesystem.is_log_dirty() {
        findings.push(finding(
            Level::Note,
            "filesystem.log-replayed",
            id.to_string(),
            format!("this {kind} was in use; the guest's kernel replayed its log"),
        ));
    }
    let free = filesystem.free_bytes();
    if let Some(free) = free.map_err(Error::guest(id.to_string()))? {
        volumes.free_bytes.insert(id, free);
    }
    let (deferred, operations) = Deferred::new(filesystem);
    volumes.writable.insert(id, Box::new(deferred));
    Ok(Waiting {
        id,
        parts,
        kind,
        operations,
    })
}

/// What one file is to hold.
#[derive(Debug)]
struct Write<'a> {
    place: &'a FilePlace,
    before: Option<String>,
    after: String,
    size_bytes: u64,
    action: Action,
}

#[derive(Debug)]
enum Action {
    Replace(Vec<u8>),
    Append(Vec<u8>),
    Create(Vec<u8>, u32),
}

impl Action {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Replace(bytes) | Self::Append(bytes) | Self::Create(bytes, _) => bytes,
        }
    }
}

/// Makes, checks and writes all edits.
pub(crate) fn write_edits(
    edits: &[Edit],
    volumes: &mut Volumes,
    options: &ApplyOptions,
) -> Result<Vec<AppliedFile>> {
    let mut writes = Vec::new();
    for edit in edits {
        writes.push(make(edit, volumes, options)?);
    }
    check_space(&writes, volumes)?;
    let mut files = Vec::new();
    for write in writes {
        carry_out(&write, volumes)?;
        files.push(AppliedFile {
            place: write.place.clone(),
            before: write.before,
            after: write.after,
            size_bytes: write.size_bytes,
        });
    }
    Ok(files)
}

impl Volumes {
    /// A file's content.
    pub(crate) fn read(&self, place: &FilePlace, limit_bytes: u64) -> Result<Vec<u8>> {
        self.reader(place)?
            .read(&place.path, limit_bytes)
            .map_err(Error::guest(&place.guest_path))
    }

    fn reader(&self, place: &FilePlace) -> Result<&dyn Filesystem> {
        if let Some(filesystem) = self.writable.get(&place.volume) {
            return Ok(&**filesystem);
        }
        match self.readable.get(&place.volume) {
            Some(filesystem) => Ok(&**filesystem),
            None => Err(Error::Changed {
                place: place.volume.to_string(),
            }),
        }
    }

    fn writer(&mut self, place: &FilePlace) -> Result<&mut Box<dyn WritableFilesystem>> {
        self.writable
            .get_mut(&place.volume)
            .ok_or_else(|| Error::Changed {
                place: place.volume.to_string(),
            })
    }

    fn exists(&self, place: &FilePlace, path: &str) -> Result<bool> {
        match self.reader(place)?.metadata(path) {
            Ok(_) => Ok(true),
            Err(disk::Error::NotFound { .. }) => Ok(false),
            Err(source) => Err(Error::Guest {
                place: path.to_owned(),
                source,
            }),
        }
    }
}

fn make<'a>(edit: &'a Edit, volumes: &Volumes, options: &ApplyOptions) -> Result<Write<'a>> {
    let place = &edit.place;
    let changed = || Error::Changed {
        place: place.guest_path.clone(),
    };
    match &edit.change {
        Change::Rewrite {
            before,
            after,
            encoding,
        } => {
            let current = volumes.read(place, FILE_BYTES_MAX)?;
            if encode(*encoding, before).as_ref() != Some(&current) {
                return Err(changed());
            }
            let bytes = encode(*encoding, after).ok_or_else(|| Error::File {
                place: place.guest_path.clone(),
                problem: "the new text has characters that the file's encoding lacks".to_owned(),
            })?;
            Ok(Write {
                place,
                before: Some(hash(&current)),
                after: hash(&bytes),
                size_bytes: bytes.len() as u64,
                action: Action::Replace(bytes),
            })
        }
        Change::Create { content, mode } => {
            if volumes.exists(place, &place.path)? {
                return Err(changed());
            }
            let bytes = content.as_bytes().to_vec();
            Ok(Write {
                place,
                before: None,
                after: hash(&bytes),
                size_bytes: bytes.len() as u64,
                action: Action::Create(bytes, *mode),
            })
        }
        Change::Copy {
            from,
            hash: wanted,
            mode,
            ..
        } => {
            if volumes.exists(place, &place.path)? {
                return Err(changed());
            }
            copy(place, from, wanted, *mode, volumes)
        }
        Change::AppendToInitramfs(append) => {
            let file = volumes.read(place, FILE_BYTES_MAX)?;
            if hash(&file) != append.hash_before {
                return Err(changed());
            }
            let appended = initramfs::build(place, &file, append, volumes, options)?;
            let whole = appended.apply_to(&file);
            Ok(Write {
                place,
                before: Some(hash(&file)),
                after: hash(&whole),
                size_bytes: whole.len() as u64,
                action: if appended.keep == file.len() as u64 {
                    Action::Append(appended.bytes)
                } else {
                    Action::Replace(whole)
                },
            })
        }
    }
}

/// A new file with the bytes of another one, which must be what was inspected.
fn copy<'a>(
    place: &'a FilePlace,
    from: &FilePlace,
    wanted: &str,
    mode: u32,
    volumes: &Volumes,
) -> Result<Write<'a>> {
    let bytes = volumes.read(from, FILE_BYTES_MAX)?;
    let found = hash(&bytes);
    if found != wanted {
        return Err(Error::Changed {
            place: from.guest_path.clone(),
        });
    }
    Ok(Write {
        place,
        before: None,
        after: found,
        size_bytes: bytes.len() as u64,
        action: Action::Create(bytes, mode),
    })
}

/// Refuses before the first write what would not fit. A replaced file is counted whole, because
/// the old one is only removed after the new one is there.
fn check_space(writes: &[Write<'_>], volumes: &Volumes) -> Result<()> {
    for (id, free) in &volumes.free_bytes {
        let on_volume = writes.iter().filter(|write| write.place.volume == *id);
        let needed: u64 = on_volume
            .map(|write| write.action.bytes().len() as u64 + OVERHEAD_BYTES)
            .sum();
        if needed > *free {
            return Err(Error::NoSpace {
                place: id.to_string(),
                needed_bytes: needed,
                free_bytes: *free,
            });
        }
    }
    Ok(())
}

fn carry_out(write: &Write<'_>, volumes: &mut Volumes) -> Result<()> {
    let place = write.place;
    if let Action::Create(..) = write.action {
        make_directories(place, volumes)?;
    }
    let filesystem = volumes.writer(place)?;
    match &write.action {
        Action::Replace(bytes) => filesystem.write(&place.path, bytes, None),
        Action::Append(bytes) => filesystem.append(&place.path, bytes),
        Action::Create(bytes, mode) => {
            let label = label_of_parent(&**filesystem, &place.path)?;
            filesystem.write(&place.path, bytes, Some(&owned_by_root(*mode, label)))
        }
    }
    .map_err(Error::guest(&place.guest_path))
}

fn make_directories(place: &FilePlace, volumes: &mut Volumes) -> Result<()> {
    let ends: Vec<usize> = place
        .path
        .match_indices('/')
        .map(|(end, _)| end)
        .skip(1)
        .collect();
    for end in ends {
        let directory = &place.path[..end];
        if !volumes.exists(place, directory)? {
            let filesystem = volumes.writer(place)?;
            let label = label_of_parent(&**filesystem, directory)?;
            filesystem
                .create_directory(directory, &owned_by_root(0o755, label))
                .map_err(Error::guest(directory))?;
        }
    }
    Ok(())
}

/// What the guest's kernel would label a new file with: the context of its directory. Policies that
/// name single files are few, and none of what is made here is among them.
fn label_of_parent(filesystem: &dyn Filesystem, path: &str) -> Result<Option<String>> {
    let parent = match path.rsplit_once('/') {
        Some(("", _)) | None => "/",
        Some((parent, _)) => parent,
    };
    filesystem
        .selinux_context(parent)
        .map_err(Error::guest(parent))
}

fn owned_by_root(mode: u32, selinux: Option<String>) -> Attributes {
    Attributes {
        mode,
        uid: 0,
        gid: 0,
        selinux,
    }
}

/// BLAKE3 in hexadecimal.
pub(crate) fn hash(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_hex().to_string()
}

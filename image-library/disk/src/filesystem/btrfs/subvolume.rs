// SPDX-License-Identifier: MIT OR Apache-2.0
//! Subvolumes: what there is, where each lies, and which one is mounted when none is named.
//!
//! | item of the root tree | key | says |
//! |---|---|---|
//! | root | (subvolume, 132, ..) | where its tree is |
//! | back reference | (subvolume, 144, parent) | directory and name in the parent |
//! | reference | (parent, 156, subvolume) | the same |
//! | entry | (root tree directory, 84, hash of `default`) | the default subvolume |
//!
//! **Limits:** a path of more than 4096 bytes is left out, and so is whatever lies in a circle.

use std::collections::BTreeMap;

use super::super::path;
use super::STRUCTURE;
use super::inode;
use super::key::{Key, kind, object};
use super::reader::{Place, Reference, resolve};
use super::root::{self, Root};
use super::tree::Tree;
use super::volume::Volume;
use crate::error::{Error, Result};
use crate::fields::Fields;

const PATH_BYTES_MAX: usize = 4096;
const SUBVOLUMES_MAX: usize = 1 << 20;

/// A subvolume, or a snapshot, which is one too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subvolume {
    /// Its number: `subvolid=` in a guest's fstab. 5 is the top level.
    pub id: u64,
    /// Its path from the top level, which is `""` itself: `subvol=`.
    pub path: String,
    /// The subvolume that it lies in; `None` for the top level.
    pub parent: Option<u64>,
    /// Whether it is mounted when none is named.
    pub is_default: bool,
    /// Whether it cannot be written.
    pub read_only: bool,
    /// Its UUID; the top level of an old filesystem has none.
    pub uuid: Option<String>,
    /// For a snapshot, the UUID of what it was taken of.
    pub parent_uuid: Option<String>,
}

/// Which subvolume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SubvolumeChoice<'a> {
    /// The one that is mounted when none is named.
    Default,
    /// By its number; 0 is the top level, as for the kernel.
    Id(u64),
    /// By its path from the top level, with or without a `/` before it.
    Path(&'a str),
}

/// The subvolume that is mounted when none is named.
pub(super) fn default(volume: &Volume<'_>) -> Result<u64> {
    let directory = volume.superblock.root_directory;
    let tree = volume.root_tree();
    let entry = inode::look_up(&tree, directory, kind::DIRECTORY_ITEM, b"default")?;
    Ok(entry.map_or(object::TOP_LEVEL, |entry| entry.target.object))
}

/// The number and the root of a subvolume.
pub(super) fn choose(volume: &Volume<'static>, choice: SubvolumeChoice<'_>) -> Result<(u64, Root)> {
    let number = match choice {
        SubvolumeChoice::Default => default(volume)?,
        SubvolumeChoice::Id(0) => object::TOP_LEVEL,
        SubvolumeChoice::Id(number) => number,
        SubvolumeChoice::Path(path) => return choose_path(volume, path),
    };
    match root::find(volume, number)? {
        Some(root) if is_subvolume(number) && !root.deleted => Ok((number, root)),
        _ => Err(path::not_found(&format!("subvolume {number}"))),
    }
}

fn choose_path(volume: &Volume<'static>, path: &str) -> Result<(u64, Root)> {
    let (_, top) = choose(volume, SubvolumeChoice::Id(object::TOP_LEVEL))?;
    let absolute = format!("/{}", path.trim_start_matches('/'));
    let place = resolve(volume, Place::new(object::TOP_LEVEL, top), &absolute)?;
    match place.is_subvolume() {
        true => Ok((place.subvolume, place.into_root())),
        false => Err(Error::unsupported(
            STRUCTURE,
            format!("mounting {path}, which is no subvolume,"),
        )),
    }
}

/// All subvolumes that can be reached, by number.
pub(super) fn list(volume: &Volume<'_>) -> Result<Vec<Subvolume>> {
    let default = default(volume)?;
    let mut roots = BTreeMap::new();
    let mut places = BTreeMap::new();
    let first = Key::new(object::TOP_LEVEL, 0, 0);
    let last = Key::new(object::LAST_FREE, u8::MAX, u64::MAX);
    for item in volume.root_tree().range(first, last)? {
        let item = item?;
        let number = item.key.object;
        match item.key.kind {
            kind::ROOT if is_subvolume(number) => {
                roots.insert(number, Root::from_item(&item)?);
            }
            kind::ROOT_BACK_REFERENCE => {
                if let Some(reference) = Reference::from_bytes(item.data()) {
                    let name = reference.name.to_vec();
                    places.insert(number, (item.key.offset, reference.directory, name));
                }
            }
            _ => {}
        }
        if roots.len() > SUBVOLUMES_MAX {
            return Err(Error::Limit {
                what: "the subvolumes of a btrfs filesystem",
                limit: SUBVOLUMES_MAX as u64,
            });
        }
    }
    roots.retain(|_, root| !root.deleted);
    let mut found = Vec::new();
    for (&id, root) in &roots {
        let Some(path) = path_of(volume, &roots, &places, id)? else {
            continue;
        };
        found.push(Subvolume {
            id,
            path: String::from_utf8_lossy(&path).into_owned(),
            parent: places.get(&id).map(|(parent, _, _)| *parent),
            is_default: id == default,
            read_only: root.read_only,
            uuid: root.uuid.clone(),
            parent_uuid: root.parent_uuid.clone(),
        });
    }
    Ok(found)
}

fn is_subvolume(number: u64) -> bool {
    number == object::TOP_LEVEL || (object::FIRST_FREE..=object::LAST_FREE).contains(&number)
}

/// Subvolumes by number: the one each lies in, the directory there, the name.
type Places = BTreeMap<u64, (u64, u64, Vec<u8>)>;

/// The path of a subvolume from the top level; `None` where it leads nowhere.
fn path_of(
    volume: &Volume<'_>,
    roots: &BTreeMap<u64, Root>,
    places: &Places,
    number: u64,
) -> Result<Option<Vec<u8>>> {
    let mut names: Vec<Vec<u8>> = Vec::new();
    let mut length = 0;
    let mut subvolume = number;
    while subvolume != object::TOP_LEVEL {
        let Some((parent, directory, name)) = places.get(&subvolume) else {
            return Ok(None);
        };
        let Some(root) = roots.get(parent) else {
            return Ok(None);
        };
        length += name.len() + 1;
        names.push(name.clone());
        let tree = Tree::new(volume, root.pointer);
        let mut inode = *directory;
        while inode != root.directory {
            let Some((above, name)) = name_of(&tree, inode)? else {
                return Ok(None);
            };
            length += name.len() + 1;
            if length > PATH_BYTES_MAX {
                return Ok(None);
            }
            names.push(name);
            inode = above;
        }
        if length > PATH_BYTES_MAX {
            return Ok(None);
        }
        subvolume = *parent;
    }
    names.reverse();
    Ok(Some(names.join(&b'/')))
}

/// The parent of a directory, and its name there: number, length of the name, name.
fn name_of(tree: &Tree<'_, '_>, directory: u64) -> Result<Option<(u64, Vec<u8>)>> {
    let (first, last) = Key::all(directory, kind::INODE_REFERENCE);
    let item = tree.range(first, last)?.next().transpose()?;
    Ok(item.map(|item| {
        let fields = Fields(item.data());
        let name = fields.bytes(10, fields.u16(8).into()).to_vec();
        (item.key.offset, name)
    }))
}

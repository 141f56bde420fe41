// SPDX-License-Identifier: MIT OR Apache-2.0
//! The guest's tree of files: several filesystems composed by mount points, with symbolic links
//! resolved across them as the guest's kernel would (`/lib -> usr/lib`, `/etc/x -> /usr/x`). Of btrfs
//! a subvolume is mounted, and the place of a file is still told from the top level.
//!
//! Limits: 40 symbolic links per path, as in Linux; text files up to 4 MiB.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};

use disk::filesystem::btrfs::Subvolume;
use disk::filesystem::{DirectoryEntry, FileType, Filesystem, Metadata};

use crate::error::{Error, Result};
use crate::inspect::inspection::{Encoding, FilePlace, TextFile, VolumeId};

const LINKS_MAX: usize = 40;
const TEXT_BYTES_MAX: u64 = 4 << 20;

/// Filesystems by volume, and where each is mounted.
#[derive(Debug)]
pub(crate) struct GuestTree {
    filesystems: BTreeMap<VolumeId, Box<dyn Filesystem>>,
    mounts: Vec<Mount>,
    /// What was looked up since something was mounted last: every path begins with the same
    /// directories, and a filesystem looks each of them through for a name.
    looked_up: RefCell<BTreeMap<String, Found>>,
}

/// A directory of a filesystem, and where it is mounted.
#[derive(Debug)]
struct Mount {
    point: String,
    volume: VolumeId,
    /// `""` for all of it.
    directory: String,
}

type Found = Option<(FilePlace, Metadata)>;

impl GuestTree {
    /// A tree with nothing mounted.
    pub(crate) fn new(filesystems: BTreeMap<VolumeId, Box<dyn Filesystem>>) -> Self {
        Self {
            filesystems,
            mounts: Vec::new(),
            looked_up: RefCell::default(),
        }
    }

    /// The same filesystems with only `volume` mounted, as the root.
    pub(crate) fn set_root(&mut self, volume: VolumeId) {
        self.set_root_to(volume, "");
    }

    /// The same with a directory of that filesystem: a subvolume.
    pub(crate) fn set_root_to(&mut self, volume: VolumeId, directory: &str) {
        self.clear_mounts();
        self.mount_directory("/", volume, directory);
    }

    /// Nothing mounted: every path is absent.
    pub(crate) fn clear_mounts(&mut self) {
        self.mounts.clear();
        self.looked_up.take();
    }

    /// Mounts one more filesystem; false where there is none on that volume.
    pub(crate) fn mount(&mut self, mount_point: &str, volume: VolumeId) -> bool {
        self.mount_directory(mount_point, volume, "")
    }

    /// The same with a directory of that filesystem.
    pub(crate) fn mount_directory(
        &mut self,
        mount_point: &str,
        volume: VolumeId,
        directory: &str,
    ) -> bool {
        let known = self.filesystems.contains_key(&volume);
        if known {
            self.mounts.push(Mount {
                point: mount_point.to_owned(),
                volume,
                directory: directory.to_owned(),
            });
            self.looked_up.take();
        }
        known
    }

    /// The subvolumes of a volume's filesystem.
    pub(crate) fn subvolumes(&self, volume: VolumeId) -> Result<Vec<Subvolume>> {
        match self.filesystem(volume) {
            Some(filesystem) => filesystem
                .subvolumes()
                .map_err(Error::guest(volume.to_string())),
            None => Ok(Vec::new()),
        }
    }

    /// Paths in the guest of what a boot loader names from the top level of a filesystem with
    /// subvolumes: `/@/boot/vmlinuz` is `/boot/vmlinuz`.
    pub(crate) fn below_top_level(&self, path: &str) -> Vec<String> {
        let mounts = self
            .mounts
            .iter()
            .filter(|mount| !mount.directory.is_empty());
        let inside = mounts.filter_map(|mount| {
            let inner = inside(&mount.directory, path)?;
            Some(format!("{}{inner}", mount.point.trim_end_matches('/')))
        });
        inside.collect()
    }

    /// The volumes that hold a filesystem.
    pub(crate) fn volumes(&self) -> Vec<VolumeId> {
        self.filesystems.keys().copied().collect()
    }

    /// A filesystem by its volume.
    pub(crate) fn filesystem(&self, volume: VolumeId) -> Option<&dyn Filesystem> {
        self.filesystems.get(&volume).map(AsRef::as_ref)
    }

    /// Where a path really is, symbolic links followed; `None` when it does not exist.
    pub(crate) fn resolve(&self, path: &str) -> Result<Option<FilePlace>> {
        Ok(self.walk(path)?.map(|(place, _)| place))
    }

    /// What a path is, symbolic links followed.
    pub(crate) fn metadata(&self, path: &str) -> Result<Option<(FilePlace, Metadata)>> {
        self.walk(path)
    }

    /// Whether a path exists.
    pub(crate) fn exists(&self, path: &str) -> Result<bool> {
        Ok(self.walk(path)?.is_some())
    }

    /// A regular file's content; `None` when there is no such file.
    pub(crate) fn read(
        &self,
        path: &str,
        limit_bytes: u64,
    ) -> Result<Option<(FilePlace, Vec<u8>)>> {
        let Some((place, metadata)) = self.walk(path)? else {
            return Ok(None);
        };
        if metadata.file_type != FileType::File {
            return Ok(None);
        }
        let content = self.read_place(&place, limit_bytes)?;
        Ok(Some((place, content)))
    }

    /// A regular file's content by its place.
    pub(crate) fn read_place(&self, place: &FilePlace, limit_bytes: u64) -> Result<Vec<u8>> {
        let filesystem = self.filesystem(place.volume).ok_or_else(|| Error::File {
            place: place.guest_path.clone(),
            problem: format!("{} holds no filesystem", place.volume),
        })?;
        filesystem
            .read(&place.path, limit_bytes)
            .map_err(Error::guest(&place.guest_path))
    }

    /// A text file; `None` when there is no such file.
    pub(crate) fn text(&self, path: &str) -> Result<Option<TextFile>> {
        let Some((place, bytes)) = self.read(path, TEXT_BYTES_MAX)? else {
            return Ok(None);
        };
        let (encoding, text) = decode(bytes);
        Ok(Some(TextFile {
            place,
            encoding,
            text,
        }))
    }

    /// The names in a directory; none when there is no such directory.
    pub(crate) fn list(&self, path: &str) -> Result<Vec<DirectoryEntry>> {
        let Some((place, metadata)) = self.walk(path)? else {
            return Ok(Vec::new());
        };
        if metadata.file_type != FileType::Directory {
            return Ok(Vec::new());
        }
        match self.filesystem(place.volume) {
            Some(filesystem) => filesystem
                .read_directory(&place.path)
                .map_err(Error::guest(path)),
            None => Ok(Vec::new()),
        }
    }

    /// The SELinux context of a file or directory; `None` where it has none.
    pub(crate) fn selinux_context(&self, path: &str) -> Result<Option<String>> {
        let Some(place) = self.resolve(path)? else {
            return Ok(None);
        };
        match self.filesystem(place.volume) {
            Some(filesystem) => filesystem
                .selinux_context(&place.path)
                .map_err(Error::guest(path)),
            None => Ok(None),
        }
    }

    /// The text files of a directory whose name ends so, in the order of their names.
    pub(crate) fn texts(&self, directory: &str, suffix: &str) -> Result<Vec<TextFile>> {
        let mut found = Vec::new();
        for entry in self.list(directory)? {
            if entry.name.ends_with(suffix)
                && let Some(file) = self.text(&format!("{directory}/{}", entry.name))?
            {
                found.push(file);
            }
        }
        Ok(found)
    }

    fn walk(&self, path: &str) -> Result<Option<(FilePlace, Metadata)>> {
        let mut pending: VecDeque<String> = components(path);
        let mut done: Vec<String> = Vec::new();
        let mut links = 0;
        let Some(mut found) = self.look("/")? else {
            return Ok(None);
        };
        while let Some(component) = pending.pop_front() {
            if component == ".." {
                done.pop();
                match self.look(&join(&done))? {
                    Some(parent) => found = parent,
                    None => return Ok(None),
                }
                continue;
            }
            if found.1.file_type != FileType::Directory {
                return Ok(None);
            }
            done.push(component);
            let Some(next) = self.look(&join(&done))? else {
                return Ok(None);
            };
            if next.1.file_type != FileType::Symlink {
                found = next;
                continue;
            }
            links += 1;
            if links > LINKS_MAX {
                return Ok(None);
            }
            let target = self.link_target(&next.0)?;
            done.pop();
            if target.starts_with('/') {
                done.clear();
            }
            match self.look(&join(&done))? {
                Some(parent) => found = parent,
                None => return Ok(None),
            }
            let mut resolved = components(&target);
            resolved.append(&mut pending);
            pending = resolved;
        }
        Ok(Some(found))
    }

    /// One path without following a link in its last component.
    fn look(&self, path: &str) -> Result<Found> {
        if let Some(found) = self.looked_up.borrow().get(path) {
            return Ok(found.clone());
        }
        let found = self.look_up(path)?;
        let mut looked_up = self.looked_up.borrow_mut();
        looked_up.insert(path.to_owned(), found.clone());
        Ok(found)
    }

    fn look_up(&self, path: &str) -> Result<Found> {
        let Some((volume, inner)) = self.mounted(path) else {
            return Ok(None);
        };
        let Some(filesystem) = self.filesystem(volume) else {
            return Ok(None);
        };
        let place = FilePlace {
            volume,
            path: inner,
            guest_path: path.to_owned(),
        };
        match filesystem.metadata(&place.path) {
            Ok(metadata) => Ok(Some((place, metadata))),
            Err(disk::Error::NotFound { .. }) => Ok(None),
            Err(source) => Err(Error::Guest {
                place: path.to_owned(),
                source,
            }),
        }
    }

    fn link_target(&self, place: &FilePlace) -> Result<String> {
        match self.filesystem(place.volume) {
            Some(filesystem) => filesystem
                .read_link(&place.path)
                .map_err(Error::guest(&place.guest_path)),
            None => Ok(String::new()),
        }
    }

    /// The volume that a path without links is on, and the path inside it.
    fn mounted(&self, path: &str) -> Option<(VolumeId, String)> {
        self.mounts
            .iter()
            .filter_map(|mount| inside(&mount.point, path).map(|inner| (mount, inner)))
            .max_by_key(|(mount, _)| mount.point.len())
            .map(
                |(mount, inner)| match (mount.directory.as_str(), inner.as_str()) {
                    ("", _) => (mount.volume, inner),
                    (directory, "/") => (mount.volume, directory.to_owned()),
                    (directory, _) => (mount.volume, format!("{directory}{inner}")),
                },
            )
    }
}

/// The part of `path` below `mount_point`, as a path of its own.
fn inside(mount_point: &str, path: &str) -> Option<String> {
    if mount_point == "/" {
        return Some(path.to_owned());
    }
    let rest = path.strip_prefix(mount_point)?;
    match rest.chars().next() {
        None => Some("/".to_owned()),
        Some('/') => Some(rest.to_owned()),
        Some(_) => None,
    }
}

fn components(path: &str) -> VecDeque<String> {
    path.split('/')
        .filter(|part| !part.is_empty() && *part != ".")
        .map(str::to_owned)
        .collect()
}

fn join(parts: &[String]) -> String {
    format!("/{}", parts.join("/"))
}

/// Bytes as text, losing nothing.
pub(crate) fn decode(bytes: Vec<u8>) -> (Encoding, String) {
    match String::from_utf8(bytes) {
        Ok(text) => (Encoding::Utf8, text),
        Err(error) => {
            let text = error.into_bytes().into_iter().map(char::from).collect();
            (Encoding::Latin1, text)
        }
    }
}

/// Text as bytes again; `None` when a character does not exist in the file's encoding.
pub(crate) fn encode(encoding: Encoding, text: &str) -> Option<Vec<u8>> {
    match encoding {
        Encoding::Utf8 => Some(text.as_bytes().to_vec()),
        Encoding::Latin1 => text.chars().map(|c| u8::try_from(c).ok()).collect(),
    }
}

#[cfg(test)]
mod tests {
    use disk::filesystem::FilesystemKind;
    use image_library::DiskIndex;

    use super::*;
    use crate::phony::MemoryFilesystem;

    fn id(partition: u32) -> VolumeId {
        VolumeId::on_disk(DiskIndex(0), Some(partition))
    }

    /// A root and a /usr of its own.
    fn tree() -> (GuestTree, MemoryFilesystem, MemoryFilesystem) {
        let root = MemoryFilesystem::new(FilesystemKind::Ext4);
        let usr = MemoryFilesystem::new(FilesystemKind::Ext4);
        let filesystems: BTreeMap<VolumeId, Box<dyn Filesystem>> = BTreeMap::from([
            (id(1), Box::new(root.clone()) as Box<dyn Filesystem>),
            (id(2), Box::new(usr.clone()) as Box<dyn Filesystem>),
        ]);
        let mut tree = GuestTree::new(filesystems);
        tree.set_root(id(1));
        assert!(tree.mount("/usr", id(2)));
        (tree, root, usr)
    }

    #[test]
    fn links_are_followed_across_mounts() {
        let (tree, root, usr) = tree();
        root.link("/lib", "usr/lib");
        root.link("/etc/os-release", "../lib/os-release");
        usr.file("/lib/os-release", "ID=debian\n");
        let file = tree.text("/etc/os-release").unwrap().unwrap();
        assert_eq!(file.text, "ID=debian\n");
        assert_eq!(file.place.volume, id(2));
        assert_eq!(file.place.path, "/lib/os-release");
        assert_eq!(file.place.guest_path, "/usr/lib/os-release");
    }

    #[test]
    fn a_mount_hides_what_is_below_it() {
        let (tree, root, usr) = tree();
        root.file("/usr/hidden", "");
        usr.file("/seen", "");
        assert!(!tree.exists("/usr/hidden").unwrap());
        assert!(tree.exists("/usr/seen").unwrap());
        assert!(!tree.exists("/usrseen").unwrap());
    }

    #[test]
    fn links_in_a_circle_end() {
        let (tree, root, _usr) = tree();
        root.link("/a", "b");
        root.link("/b", "/a");
        assert_eq!(tree.resolve("/a").unwrap(), None);
        assert_eq!(tree.resolve("/a/b/c").unwrap(), None);
    }

    #[test]
    fn the_way_above_the_root_is_the_root() {
        let (tree, root, _usr) = tree();
        root.file("/etc/fstab", "x");
        root.link("/etc/link", "../../../etc/./fstab");
        assert!(tree.exists("/etc/link").unwrap());
        assert!(!tree.exists("/etc/fstab/below").unwrap());
    }

    #[test]
    fn bytes_in_any_encoding_come_back_as_they_were() {
        for bytes in [
            b"plain".to_vec(),
            "grün".into(),
            vec![b'g', 0xfc, b'n', 0x80],
        ] {
            let (encoding, text) = decode(bytes.clone());
            assert_eq!(encode(encoding, &text), Some(bytes));
        }
        assert_eq!(encode(Encoding::Latin1, "Ω"), None);
    }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the filesystem should hold, and whether it does.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use disk::filesystem::{Attributes, FileType, Filesystem, open};

use crate::edit::Edit;
use crate::random::Random;
use crate::volume::{ImageFile, attempt};

const KIB: usize = 1024;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Node {
    Directory {
        mode: u32,
        uid: u32,
        gid: u32,
    },
    File {
        content: Vec<u8>,
        mode: u32,
        uid: u32,
        gid: u32,
    },
    Symlink(String),
}

/// What the filesystem should hold.
#[derive(Debug, Clone, Default)]
pub(crate) struct Model {
    pub(crate) nodes: BTreeMap<String, Node>,
    pub(crate) contexts: BTreeMap<String, String>,
}

impl Model {
    pub(crate) fn apply(&mut self, edit: Edit) {
        match edit {
            Edit::Write(path, content, given) => {
                let old = match self.nodes.get(&path) {
                    Some(&Node::File { mode, uid, gid, .. }) => (mode, uid, gid),
                    _ => (0o644, 0, 0),
                };
                let (mode, uid, gid) = given
                    .as_ref()
                    .map_or(old, |given| (given.mode, given.uid, given.gid));
                self.label(&path, given);
                self.nodes.insert(
                    path,
                    Node::File {
                        content,
                        mode,
                        uid,
                        gid,
                    },
                );
            }
            Edit::Append(path, more) => {
                if let Some(Node::File { content, .. }) = self.nodes.get_mut(&path) {
                    content.extend(more);
                }
            }
            Edit::CreateDirectory(path, given) => {
                let Attributes { mode, uid, gid, .. } = given;
                self.label(&path, Some(given));
                self.nodes.insert(path, Node::Directory { mode, uid, gid });
            }
            Edit::Symlink(path, target) => {
                self.nodes.insert(path, Node::Symlink(target));
            }
            Edit::Remove(path) => {
                self.nodes.remove(&path);
                self.contexts.remove(&path);
            }
            Edit::Rename(from, to) if from != to => {
                let node = self
                    .nodes
                    .remove(&from)
                    .expect("only existing files are renamed");
                self.contexts.remove(&to);
                if let Some(context) = self.contexts.remove(&from) {
                    self.contexts.insert(to.clone(), context);
                }
                self.nodes.insert(to, node);
            }
            Edit::Rename(..) => {}
        }
    }

    fn label(&mut self, path: &str, given: Option<Attributes>) {
        if let Some(context) = given.and_then(|given| given.selinux) {
            self.contexts.insert(path.to_owned(), context);
        }
    }
}

/// A tree like a small server's, and the model of it.
pub(crate) fn first_tree(folder: &Path, random: &mut Random) -> Model {
    let mut model = Model::default();
    let add_directory = |model: &mut Model, path: &str| {
        let made = folder.join(&path[1..]);
        fs::create_dir(&made).expect("a new folder");
        let (mode, uid, gid) = attributes(&made);
        let node = Node::Directory { mode, uid, gid };
        model.nodes.insert(path.to_owned(), node);
    };
    for path in ["/etc", "/etc/default", "/boot", "/big", "/many"] {
        add_directory(&mut model, path);
    }
    let mut add_file = |model: &mut Model, path: String, length: usize| {
        let content = random.bytes(length);
        let made = folder.join(&path[1..]);
        fs::write(&made, &content).expect("a new file");
        let (mode, uid, gid) = attributes(&made);
        let node = Node::File {
            content,
            mode,
            uid,
            gid,
        };
        model.nodes.insert(path, node);
    };
    for index in 0..30 {
        add_file(&mut model, format!("/etc/conf-{index}"), index * 150);
    }
    add_file(&mut model, "/boot/initrd.img".to_owned(), 900 * KIB + 17);
    add_file(&mut model, "/boot/vmlinuz".to_owned(), 300 * KIB);
    for index in 0..900 {
        add_file(
            &mut model,
            format!("/big/an-entry-with-quite-a-long-name-{index:05}"),
            0,
        );
    }
    for index in 0..300 {
        add_file(&mut model, format!("/many/{index}"), 3000 + index * 20);
    }
    model
}

/// Mode, owner and group that a file got: those of whoever runs the test.
fn attributes(path: &Path) -> (u32, u32, u32) {
    let metadata = fs::metadata(path).expect("it was just made");
    (metadata.mode() & 0o7777, metadata.uid(), metadata.gid())
}

/// Everything the model says, read through the other implementation.
pub(crate) fn assert_same(image: &Path, model: &Model, context: &str) {
    let filesystem = open(ImageFile::open(image)).expect("it opens for reading");
    let mut seen = Vec::new();
    walk(&*filesystem, "", &mut seen);
    seen.retain(|path| path != "/lost+found");
    seen.sort();
    let expected: Vec<String> = model.nodes.keys().cloned().collect();
    assert_eq!(seen, expected, "{context}: the names");
    for (path, node) in &model.nodes {
        let metadata = filesystem.metadata(path).expect("it was listed");
        let found = match metadata.file_type {
            FileType::Directory => Node::Directory {
                mode: metadata.mode,
                uid: metadata.uid,
                gid: metadata.gid,
            },
            FileType::File => Node::File {
                content: filesystem.read(path, u64::MAX).expect("it was listed"),
                mode: metadata.mode,
                uid: metadata.uid,
                gid: metadata.gid,
            },
            FileType::Symlink => Node::Symlink(filesystem.read_link(path).expect("a link")),
            FileType::Special => panic!("{context}: {path} is a special file"),
        };
        assert!(found == *node, "{context}: {path} differs");
    }
    for (path, given) in &model.contexts {
        let label = filesystem.selinux_context(path).expect("it is there");
        assert_eq!(
            label.as_ref(),
            Some(given),
            "{context}: the label of {path}"
        );
    }
}

pub(crate) fn walk(filesystem: &dyn Filesystem, folder: &str, seen: &mut Vec<String>) {
    let listed = if folder.is_empty() { "/" } else { folder };
    for entry in filesystem.read_directory(listed).expect("a directory") {
        let path = format!("{folder}/{}", entry.name);
        if entry.file_type == FileType::Directory {
            walk(filesystem, &path, seen);
        }
        seen.push(path);
    }
}

pub(crate) fn assert_contexts(image: &Path, model: &Model, commands: &Path, context: &str) {
    let wanted: Vec<(&String, &String)> = model.contexts.iter().collect();
    let script: String = wanted
        .iter()
        .map(|(path, _)| format!("ea_get -V {path} security.selinux\n"))
        .collect();
    fs::write(commands, script).expect("a scratch file");
    let (_, output) = attempt(
        "debugfs",
        &["-f", &commands.to_string_lossy(), &image.to_string_lossy()],
    );
    for (path, value) in wanted {
        let line = format!("ea_get -V {path} security.selinux");
        let after = output.split(&line).nth(1).unwrap_or_default();
        let found = after.lines().nth(1).unwrap_or_default();
        assert_eq!(
            found.trim_end_matches('\0'),
            value,
            "{context}: the context of {path}"
        );
    }
}

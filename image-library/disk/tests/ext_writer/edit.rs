// SPDX-License-Identifier: MIT OR Apache-2.0
//! One edit, chosen by chance, as plans make them.

use disk::Result;
use disk::filesystem::{Attributes, WritableFilesystem};

use crate::model::{Model, Node};
use crate::random::Random;

const KIB: usize = 1024;
const INITRAMFS: &str = "/boot/initrd.img";

/// One edit; what the writer and the model both do.
#[derive(Debug)]
pub(crate) enum Edit {
    Write(String, Vec<u8>, Option<Attributes>),
    Append(String, Vec<u8>),
    CreateDirectory(String, Attributes),
    Symlink(String, String),
    Remove(String),
    Rename(String, String),
}

pub(crate) fn attributes(random: &mut Random) -> Attributes {
    let context = match random.below(3) {
        0 => Some("system_u:object_r:modules_conf_t:s0".to_owned()),
        1 => Some(format!(
            "system_u:object_r:{}_t:s0",
            "x".repeat(random.below(90) + 1)
        )),
        _ => None,
    };
    Attributes {
        mode: [0o644, 0o600, 0o755, 0o4755][random.below(4)],
        uid: [0, 1000, 70_000][random.below(3)],
        gid: [0, 1000, 70_001][random.below(3)],
        selinux: context,
    }
}

pub(crate) fn pick(
    model: &Model,
    random: &mut Random,
    wanted: fn(&Node) -> bool,
) -> Option<String> {
    let paths: Vec<&String> = model
        .nodes
        .iter()
        .filter(|(_, node)| wanted(node))
        .map(|(path, _)| path)
        .collect();
    (!paths.is_empty()).then(|| paths[random.below(paths.len())].clone())
}

pub(crate) fn is_file(node: &Node) -> bool {
    matches!(node, Node::File { .. })
}

pub(crate) fn is_directory(node: &Node) -> bool {
    matches!(node, Node::Directory { .. })
}

pub(crate) fn new_path(model: &Model, random: &mut Random) -> String {
    let parent = match random.below(3) {
        0 => Some("/big".to_owned()),
        1 => pick(model, random, is_directory),
        _ => Some("/etc".to_owned()),
    };
    let length = [3, 12, 60, 200][random.below(4)];
    let name = format!("{:x}{}", random.next(), "n".repeat(length));
    format!("{}/{name}", parent.unwrap_or_default())
}

pub(crate) fn length(random: &mut Random) -> usize {
    match random.below(10) {
        0 => 0,
        1..=4 => random.below(6 * KIB),
        5..=7 => random.below(200 * KIB),
        _ => random.below(3 * KIB * KIB),
    }
}

pub(crate) fn choose(model: &Model, random: &mut Random) -> Edit {
    let file = |random: &mut Random| pick(model, random, is_file).expect("never without files");
    match random.below(16) {
        0..=3 => {
            let length = length(random);
            let given = (random.below(2) == 0).then(|| attributes(random));
            Edit::Write(new_path(model, random), random.bytes(length), given)
        }
        4..=6 => {
            let length = length(random);
            let given = (random.below(3) == 0).then(|| attributes(random));
            Edit::Write(file(random), random.bytes(length), given)
        }
        7 | 8 => {
            let length = 100 * KIB + random.below(5 * KIB * KIB);
            // An earlier edit may have taken it away.
            let path = match model.nodes.contains_key(INITRAMFS) {
                true => INITRAMFS.to_owned(),
                false => file(random),
            };
            Edit::Append(path, random.bytes(length))
        }
        9 => {
            let length = length(random);
            Edit::Append(file(random), random.bytes(length))
        }
        10 => Edit::CreateDirectory(new_path(model, random), attributes(random)),
        11 => {
            let target = "t/".repeat(random.below(90) + 1);
            Edit::Symlink(new_path(model, random), target)
        }
        12 | 13 => Edit::Remove(file(random)),
        14 => Edit::Rename(file(random), new_path(model, random)),
        _ => {
            let (from, to) = (file(random), file(random));
            Edit::Rename(from, to)
        }
    }
}

pub(crate) fn apply(writer: &mut dyn WritableFilesystem, edit: &Edit) -> Result<()> {
    match edit {
        Edit::Write(path, content, given) => writer.write(path, content, given.as_ref()),
        Edit::Append(path, content) => writer.append(path, content),
        Edit::CreateDirectory(path, given) => writer.create_directory(path, given),
        Edit::Symlink(path, target) => writer.create_symlink(path, target),
        Edit::Remove(path) => writer.remove(path),
        Edit::Rename(from, to) => writer.rename(from, to),
    }
}

pub(crate) fn short(edit: &Edit) -> String {
    match edit {
        Edit::Write(path, content, given) => {
            format!("write {path}, {} bytes, {given:?}", content.len())
        }
        Edit::Append(path, content) => format!("append {path}, {} bytes", content.len()),
        other => format!("{other:?}"),
    }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! The ext writer against `e2fsck` and an independent reader: random sequences of the edits that
//! plans make, on what `mke2fs` made over fifteen years.
//!
//! Each sequence starts from a filesystem of `mke2fs`, edits it, finishes, and then `e2fsck -fn` must
//! find nothing, and every file, directory, link, mode, owner and SELinux context must be what a
//! model in memory says. An operation that is refused must have changed nothing.
//!
//! `EXT_WRITER_SEQUENCES` sets how many sequences run per feature set (default 2), and
//! `EXT_WRITER_SEED` the first seed; a failure prints the feature set and seed that repeat it.
#![expect(
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "tests say what they skip"
)]

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use disk::filesystem::{
    Attributes, FileType, Filesystem, Opened, WritableFilesystem, WriteOptions, open, open_writable,
};
use disk::{Error, ReadAt, Result, WriteAt};

const NOW: i64 = 1_760_000_000;
const KIB: usize = 1024;

/// What `mke2fs` is told, and how large the filesystem is.
struct FeatureSet {
    name: &'static str,
    arguments: &'static [&'static str],
    size_mib: u64,
}

const fn set(name: &'static str, size_mib: u64, arguments: &'static [&'static str]) -> FeatureSet {
    FeatureSet {
        name,
        arguments,
        size_mib,
    }
}

const FEATURE_SETS: &[FeatureSet] = &[
    set("ext2-1k", 40, &["-t", "ext2", "-b", "1024"]),
    set("ext2-4k", 48, &["-t", "ext2", "-b", "4096"]),
    set("ext3-1k", 40, &["-t", "ext3", "-b", "1024"]),
    set("ext3-4k", 48, &["-t", "ext3", "-b", "4096"]),
    set("ext4-4k", 64, &["-t", "ext4", "-b", "4096"]),
    set("ext4-1k", 40, &["-t", "ext4", "-b", "1024"]),
    set(
        "ext4-2k",
        40,
        &["-t", "ext4", "-b", "2048", "-O", "^metadata_csum"],
    ),
    set(
        "ext4-trixie",
        64,
        &[
            "-t",
            "ext4",
            "-b",
            "4096",
            "-O",
            "metadata_csum_seed,orphan_file",
        ],
    ),
    set(
        "ext4-2010",
        48,
        &[
            "-t",
            "ext4",
            "-b",
            "4096",
            "-O",
            "^metadata_csum,^64bit,uninit_bg",
        ],
    ),
    set(
        "ext4-32bit",
        48,
        &["-t", "ext4", "-b", "4096", "-O", "^64bit"],
    ),
    set(
        "ext4-nojournal",
        48,
        &["-t", "ext4", "-b", "4096", "-O", "^has_journal"],
    ),
    set(
        "ext4-noextents",
        48,
        &["-t", "ext4", "-b", "4096", "-O", "^extents,^64bit"],
    ),
    set(
        "ext4-inode128",
        48,
        &["-t", "ext4", "-b", "4096", "-I", "128"],
    ),
    set(
        "ext4-noflex",
        40,
        &["-t", "ext4", "-b", "1024", "-O", "^flex_bg"],
    ),
    set(
        "ext4-noindex",
        48,
        &["-t", "ext4", "-b", "4096", "-O", "^dir_index"],
    ),
    set(
        "ext4-sparse2",
        48,
        &[
            "-t",
            "ext4",
            "-b",
            "1024",
            "-O",
            "sparse_super2,^resize_inode",
        ],
    ),
    set(
        "ext4-fewinodes",
        40,
        &["-t", "ext4", "-b", "4096", "-N", "4096", "-J", "size=4"],
    ),
];

#[derive(Debug, Clone, PartialEq, Eq)]
enum Node {
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
struct Model {
    nodes: BTreeMap<String, Node>,
    contexts: BTreeMap<String, String>,
}

/// xorshift64*: the sequence depends on the seed alone.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() >> 11) as usize % limit
    }

    fn bytes(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(length + 8);
        while bytes.len() < length {
            bytes.extend_from_slice(&self.next().to_le_bytes());
        }
        bytes.truncate(length);
        bytes
    }
}

#[derive(Debug)]
struct ImageFile(File, u64);

impl ImageFile {
    fn open(path: &Path) -> Arc<Self> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(path)
            .expect("the image opens");
        let length = file.metadata().expect("the image has a size").len();
        Arc::new(Self(file, length))
    }
}

impl ReadAt for ImageFile {
    fn length_bytes(&self) -> u64 {
        self.1
    }

    fn read_exact_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        self.0
            .read_exact_at(buffer, offset)
            .expect("reads stay inside the image");
        Ok(())
    }
}

impl WriteAt for ImageFile {
    fn write_all_at(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        assert!(
            offset + bytes.len() as u64 <= self.1,
            "writes stay inside the image"
        );
        self.0
            .write_all_at(bytes, offset)
            .expect("the image is writable");
        Ok(())
    }

    fn flush(&self) -> Result<()> {
        Ok(())
    }
}

/// Says why a test does not run; where everything is required, that is a failure.
fn skip(reason: &str) {
    eprintln!("skipped: {reason}");
    assert!(
        std::env::var("E2E_REQUIRE").as_deref() != Ok("all"),
        "skipped although everything is required: {reason}"
    );
}

fn tool(name: &str) -> Option<PathBuf> {
    ["/usr/sbin", "/sbin", "/usr/bin"]
        .iter()
        .map(|folder| Path::new(folder).join(name))
        .find(|path| path.exists())
}

fn run(program: &str, arguments: &[&str]) -> (i32, String) {
    let program = tool(program).expect("its presence was checked");
    let output = Command::new(program)
        .args(arguments)
        .output()
        .expect("it starts");
    let text = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    (output.status.code().unwrap_or(-1), text)
}

/// A tree like a small server's, and the model of it.
fn first_tree(folder: &Path, random: &mut Random) -> Model {
    let mut model = Model::default();
    let add_directory = |model: &mut Model, path: &str| {
        fs::create_dir(folder.join(&path[1..])).expect("a new folder");
        let node = Node::Directory {
            mode: 0o755,
            uid: 0,
            gid: 0,
        };
        model.nodes.insert(path.to_owned(), node);
    };
    for path in ["/etc", "/etc/default", "/boot", "/big", "/many"] {
        add_directory(&mut model, path);
    }
    let mut add_file = |model: &mut Model, path: String, length: usize| {
        let content = random.bytes(length);
        fs::write(folder.join(&path[1..]), &content).expect("a new file");
        let node = Node::File {
            content,
            mode: 0o644,
            uid: 0,
            gid: 0,
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

fn make_image(set: &FeatureSet, folder: &Path) -> Option<(PathBuf, Model)> {
    let tree = folder.join(format!("{}.tree", set.name));
    fs::create_dir(&tree).expect("a new folder");
    let model = first_tree(&tree, &mut Random(42));
    let image = folder.join(format!("{}.img", set.name));
    let size = format!("{}M", set.size_mib);
    let (tree_text, image_text) = (tree.to_string_lossy(), image.to_string_lossy());
    let mut arguments = vec!["-q", "-F", "-E", "root_owner=0:0"];
    arguments.extend(set.arguments);
    arguments.extend(["-d", &*tree_text, &*image_text, &*size]);
    let (code, output) = run("mke2fs", &arguments);
    if code != 0 {
        skip(&format!("mke2fs makes no {}: {output}", set.name));
        return None;
    }
    Some((image, model))
}

/// One edit; what the writer and the model both do.
#[derive(Debug)]
enum Edit {
    Write(String, Vec<u8>, Option<Attributes>),
    Append(String, Vec<u8>),
    CreateDirectory(String, Attributes),
    Symlink(String, String),
    Remove(String),
    Rename(String, String),
}

fn attributes(random: &mut Random) -> Attributes {
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

fn pick(model: &Model, random: &mut Random, wanted: fn(&Node) -> bool) -> Option<String> {
    let paths: Vec<&String> = model
        .nodes
        .iter()
        .filter(|(_, node)| wanted(node))
        .map(|(path, _)| path)
        .collect();
    (!paths.is_empty()).then(|| paths[random.below(paths.len())].clone())
}

fn is_file(node: &Node) -> bool {
    matches!(node, Node::File { .. })
}

fn is_directory(node: &Node) -> bool {
    matches!(node, Node::Directory { .. })
}

fn new_path(model: &Model, random: &mut Random) -> String {
    let parent = match random.below(3) {
        0 => Some("/big".to_owned()),
        1 => pick(model, random, is_directory),
        _ => Some("/etc".to_owned()),
    };
    let length = [3, 12, 60, 200][random.below(4)];
    let name = format!("{:x}{}", random.next(), "n".repeat(length));
    format!("{}/{name}", parent.unwrap_or_default())
}

fn length(random: &mut Random) -> usize {
    match random.below(10) {
        0 => 0,
        1..=4 => random.below(6 * KIB),
        5..=7 => random.below(200 * KIB),
        _ => random.below(3 * KIB * KIB),
    }
}

fn choose(model: &Model, random: &mut Random) -> Edit {
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
            Edit::Append("/boot/initrd.img".to_owned(), random.bytes(length))
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

fn apply(writer: &mut dyn WritableFilesystem, edit: &Edit) -> Result<()> {
    match edit {
        Edit::Write(path, content, given) => writer.write(path, content, given.as_ref()),
        Edit::Append(path, content) => writer.append(path, content),
        Edit::CreateDirectory(path, given) => writer.create_directory(path, given),
        Edit::Symlink(path, target) => writer.create_symlink(path, target),
        Edit::Remove(path) => writer.remove(path),
        Edit::Rename(from, to) => writer.rename(from, to),
    }
}

impl Model {
    fn apply(&mut self, edit: Edit) {
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

/// How a sequence went.
#[derive(Debug, Default, Clone, Copy)]
struct Tally {
    done: u64,
    full: u64,
}

fn run_sequence(image: &Path, model: &mut Model, seed: u64, context: &str) -> Tally {
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let options = WriteOptions {
        now_unix_seconds: NOW,
    };
    let opened = open_writable(ImageFile::open(image), options);
    let Opened { mut filesystem, .. } = opened.unwrap_or_else(|error| panic!("{context}: {error}"));
    let mut tally = Tally::default();
    if seed % 4 == 1 {
        fragment(&mut *filesystem, model, &mut random, context);
    }
    for step in 0..30 {
        let edit = choose(model, &mut random);
        match apply(&mut *filesystem, &edit) {
            Ok(()) => {
                tally.done += 1;
                model.apply(edit);
            }
            Err(Error::Limit { .. }) => tally.full += 1,
            Err(error) => panic!("{context}, step {step}: {error}: {}", short(&edit)),
        }
    }
    filesystem
        .finish()
        .unwrap_or_else(|error| panic!("{context}: finish: {error}"));
    tally
}

/// Fills the volume, then takes every second small file away: free space in small pieces.
fn fragment(
    filesystem: &mut dyn WritableFilesystem,
    model: &mut Model,
    random: &mut Random,
    context: &str,
) {
    let mut left = random.bytes(40 * KIB * KIB);
    for index in 0.. {
        let edit = Edit::Write(format!("/boot/fill-{index}"), left.clone(), None);
        match apply(filesystem, &edit) {
            Ok(()) => model.apply(edit),
            Err(Error::Limit { .. }) if left.len() > 64 * KIB => {
                left.truncate(left.len() / 2);
            }
            Err(Error::Limit { .. }) => break,
            Err(error) => panic!("{context}: filling: {error}"),
        }
    }
    for index in (0..300).step_by(2) {
        let edit = Edit::Remove(format!("/many/{index}"));
        apply(filesystem, &edit).unwrap_or_else(|error| panic!("{context}: fragmenting: {error}"));
        model.apply(edit);
    }
}

fn short(edit: &Edit) -> String {
    match edit {
        Edit::Write(path, content, given) => {
            format!("write {path}, {} bytes, {given:?}", content.len())
        }
        Edit::Append(path, content) => format!("append {path}, {} bytes", content.len()),
        other => format!("{other:?}"),
    }
}

fn assert_clean(image: &Path, context: &str) {
    let (code, output) = run("e2fsck", &["-fn", &image.to_string_lossy()]);
    assert_eq!(code, 0, "{context}: e2fsck -fn\n{output}");
}

/// Everything the model says, read through the other implementation.
fn assert_same(image: &Path, model: &Model, context: &str) {
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
}

fn walk(filesystem: &dyn Filesystem, folder: &str, seen: &mut Vec<String>) {
    let listed = if folder.is_empty() { "/" } else { folder };
    for entry in filesystem.read_directory(listed).expect("a directory") {
        let path = format!("{folder}/{}", entry.name);
        if entry.file_type == FileType::Directory {
            walk(filesystem, &path, seen);
        }
        seen.push(path);
    }
}

fn assert_contexts(image: &Path, model: &Model, commands: &Path, context: &str) {
    let wanted: Vec<(&String, &String)> = model.contexts.iter().collect();
    let script: String = wanted
        .iter()
        .map(|(path, _)| format!("ea_get -V {path} security.selinux\n"))
        .collect();
    fs::write(commands, script).expect("a scratch file");
    let (_, output) = run(
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

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |text| text.parse().expect("a number"))
}

fn differential(sets: &[FeatureSet]) {
    if ["mke2fs", "e2fsck", "debugfs"]
        .iter()
        .any(|name| tool(name).is_none())
    {
        skip("mke2fs, e2fsck or debugfs is not installed");
        return;
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let sequences = number("EXT_WRITER_SEQUENCES", 2);
    let first_seed = number("EXT_WRITER_SEED", 0);
    for set in sets {
        let Some((base, first)) = make_image(set, folder.path()) else {
            continue;
        };
        let mut total = Tally::default();
        for seed in first_seed..first_seed + sequences {
            let context = format!("{} seed {seed}", set.name);
            let image = folder.path().join("work.img");
            fs::copy(&base, &image).expect("room for an image");
            let mut model = first.clone();
            let tally = run_sequence(&image, &mut model, seed, &context);
            assert_clean(&image, &context);
            assert_same(&image, &model, &context);
            assert_contexts(&image, &model, &folder.path().join("commands"), &context);
            total.done += tally.done;
            total.full += tally.full;
        }
        println!(
            "{}: {sequences} sequences, {} edits done, {} refused for space",
            set.name, total.done, total.full
        );
    }
}

#[test]
fn random_edits_leave_what_the_model_says_on_ext2_and_ext3() {
    differential(&FEATURE_SETS[..4]);
}

#[test]
fn random_edits_leave_what_the_model_says_on_ext4_of_today() {
    differential(&FEATURE_SETS[4..8]);
}

#[test]
fn random_edits_leave_what_the_model_says_on_ext4_of_other_years() {
    differential(&FEATURE_SETS[8..]);
}

#[test]
fn what_cannot_be_kept_consistent_is_refused_by_name_and_untouched() {
    if tool("mke2fs").is_none() {
        skip("mke2fs is not installed");
        return;
    }
    for (arguments, feature) in [
        (&["-b", "2048"][..], "metadata_csum and blocks of 2048"),
        (&["-b", "1024", "-O", "meta_bg,^resize_inode"], "meta_bg"),
        (&["-b", "4096", "-O", "inline_data"], "inline_data"),
        (&["-b", "4096", "-O", "mmp"], "mmp"),
    ] {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let image = folder.path().join("image").to_string_lossy().into_owned();
        let mut all = vec!["-q", "-F", "-t", "ext4"];
        all.extend(arguments);
        all.extend([&*image, "32M"]);
        assert_eq!(run("mke2fs", &all).0, 0, "{feature}");
        let before = fs::read(&image).expect("readable");
        let options = WriteOptions {
            now_unix_seconds: NOW,
        };
        let refused = open_writable(ImageFile::open(Path::new(&image)), options);
        let message = refused.expect_err("it is refused").to_string();
        assert!(message.contains(feature), "{message}");
        assert!(
            fs::read(&image).expect("readable") == before,
            "{feature}: written to"
        );
    }
}

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
#![expect(clippy::print_stdout, reason = "the figures go into a decision record")]

mod edit;
mod model;
#[path = "../outside/mod.rs"]
mod outside;
mod random;
mod sets;
#[path = "../outside/volume.rs"]
mod volume;

use std::fs;
use std::path::{Path, PathBuf};

use disk::Error;
use disk::filesystem::{Opened, WritableFilesystem, WriteOptions, open_writable};

use edit::{Edit, apply, choose, short};
use model::{Model, assert_contexts, assert_same, first_tree};
use outside::{have, run, skip};
use random::Random;
use sets::{FEATURE_SETS, FeatureSet};
use volume::{ImageFile, assert_clean, attempt};

const NOW: i64 = 1_760_000_000;
const KIB: usize = 1024;

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
    let (code, output) = attempt("mke2fs", &arguments);
    if code != 0 {
        skip(&format!("mke2fs makes no {}: {output}", set.name));
        return None;
    }
    Some((image, model))
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

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |text| text.parse().expect("a number"))
}

fn differential(sets: &[FeatureSet]) {
    if !have(&["mke2fs", "e2fsck", "debugfs"]) {
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
    if !have(&["mke2fs"]) {
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
        run(folder.path(), "mke2fs", &all);
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

// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the tools of each filesystem made, as this package sees it.

mod btrfs;
mod damage;
mod identities;
mod journal;
mod labels;
mod maps;
#[path = "../outside/mod.rs"]
mod outside;
#[path = "../outside/volume.rs"]
mod volume;

use std::fs;
use std::path::{Path, PathBuf};

use disk::filesystem::open;

use outside::{have, run};
use volume::ImageFile;

/// An empty image with a filesystem made by `program`.
fn make(folder: &Path, size_mib: u64, program: &str, arguments: &[&str]) -> Option<PathBuf> {
    if !have(&[program]) {
        return None;
    }
    let image = folder.join("image");
    let file = fs::File::create(&image).expect("a new file");
    file.set_len(size_mib << 20).expect("a sparse file");
    let mut all = arguments.to_vec();
    all.push("image");
    run(folder, program, &all);
    Some(image)
}

fn tree(folder: &Path) -> PathBuf {
    let tree = folder.join("tree");
    fs::create_dir_all(tree.join("etc")).expect("a new folder");
    for index in 0..60usize {
        let content = vec![index as u8 | 1; index * 7001];
        fs::write(tree.join(format!("etc/{index}")), content).expect("a new file");
    }
    tree
}

fn assert_tree(image: &Path, what: &str) {
    let filesystem = open(ImageFile::open(image)).expect("it opens");
    for index in 0..60usize {
        let content = filesystem
            .read(&format!("/etc/{index}"), 1 << 20)
            .expect("it is there");
        assert!(
            content == vec![index as u8 | 1; index * 7001],
            "{what}: file {index}"
        );
    }
}

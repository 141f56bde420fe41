// SPDX-License-Identifier: MIT OR Apache-2.0
//! What `mke2fs` made over fifteen years.

/// What `mke2fs` is told, and how large the filesystem is.
pub(crate) struct FeatureSet {
    pub(crate) name: &'static str,
    pub(crate) arguments: &'static [&'static str],
    pub(crate) size_mib: u64,
}

pub(crate) const fn set(
    name: &'static str,
    size_mib: u64,
    arguments: &'static [&'static str],
) -> FeatureSet {
    FeatureSet {
        name,
        arguments,
        size_mib,
    }
}

pub(crate) const FEATURE_SETS: &[FeatureSet] = &[
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

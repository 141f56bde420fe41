// SPDX-License-Identifier: MIT OR Apache-2.0
//! The members of all arrays, and what the kernel said about them.

use std::collections::HashMap;
use std::sync::OnceLock;

use sha2::{Digest, Sha256};

const IMAGE: &[u8] = include_bytes!("../../../fixtures/md-arrays.img.zst");
const LIST: &str = include_str!("../../../fixtures/md-arrays.txt");

/// One array.
pub(crate) struct Fixture {
    pub(crate) name: &'static str,
    facts: HashMap<&'static str, &'static str>,
    members: Vec<(usize, usize)>,
}

impl Fixture {
    pub(crate) fn fact(&self, name: &str) -> &'static str {
        self.facts.get(name).copied().unwrap_or_default()
    }

    pub(crate) fn number(&self, name: &str) -> i64 {
        let text = self.fact(name);
        text.parse()
            .unwrap_or_else(|_| panic!("{}: {name}={text}", self.name))
    }

    pub(crate) fn members(&self) -> impl Iterator<Item = &'static [u8]> {
        self.members
            .iter()
            .map(|(offset, length)| &image()[*offset..offset + length])
    }

    /// Made, written, and stopped, with nothing special about it.
    pub(crate) fn is_plain(&self) -> bool {
        let special = [
            "stale",
            "rebuilding",
            "replaced",
            "bad",
            "journal",
            "dirty",
            "reshaping",
            "firmware",
        ];
        special.iter().all(|fact| !self.facts.contains_key(fact))
    }
}

fn image() -> &'static [u8] {
    static IMAGE_BYTES: OnceLock<Vec<u8>> = OnceLock::new();
    IMAGE_BYTES.get_or_init(|| {
        let mut decoder = zstd::Decoder::new(IMAGE).expect("the fixture is sound");
        decoder.window_log_max(27).expect("128 MiB");
        let mut bytes = Vec::new();
        std::io::copy(&mut decoder, &mut bytes).expect("the fixture is sound");
        bytes
    })
}

pub(crate) fn all() -> Vec<Fixture> {
    let mut fixtures: Vec<Fixture> = Vec::new();
    for line in LIST.lines() {
        let mut words = line.split_whitespace();
        match words.next() {
            Some("array") => fixtures.push(Fixture {
                name: words.next().expect("a name"),
                facts: words
                    .map(|word| word.split_once('=').unwrap_or((word, "")))
                    .collect(),
                members: Vec::new(),
            }),
            Some("member") => {
                let mut number = || words.next().and_then(|word| word.parse().ok());
                let member = number().zip(number()).expect("offset and length");
                fixtures.last_mut().expect("an array").members.push(member);
            }
            _ => {}
        }
    }
    fixtures
}

pub(crate) fn named(name: &str) -> Fixture {
    let found = all().into_iter().find(|fixture| fixture.name == name);
    found.unwrap_or_else(|| panic!("no fixture {name}"))
}

/// The content of every array: sectors with their own number.
pub(crate) fn content(length: usize) -> Vec<u8> {
    let sectors = (0..length.div_ceil(512) as u64).flat_map(|sector| {
        let number = sector.to_le_bytes().repeat(8);
        number
            .into_iter()
            .chain((0..448).map(|at| (7 * at + 1) as u8))
    });
    let mut bytes: Vec<u8> = sectors.collect();
    bytes.truncate(length);
    bytes
}

#[test]
fn the_fixture_is_the_one_of_the_list() {
    let digest: String = Sha256::digest(IMAGE)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    assert!(LIST.contains(&format!("# sha256 {digest}")), "{digest}");
    assert!(all().len() > 50);
}

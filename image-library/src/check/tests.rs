// SPDX-License-Identifier: MIT OR Apache-2.0
//! Parts of a library are verified as well as the whole.

use std::fs;

use disk::Silent;

use super::{Share, VerifyOptions, VerifyScope, sample};
use crate::pack::PackId;
use crate::store::{ListedPack, list_packs, names};
use crate::tests::{TestLibrary, noise};
use crate::{Error, Image, VerifyReport};

/// Two images in packs of their own, and a damaged byte in the middle of the second one's.
fn one_of_two_damaged() -> (TestLibrary, Image, Image) {
    let test = TestLibrary::new();
    let first = test.store("one", &noise(1, 1 << 20));
    let packs = || list_packs(&*test.library.core().store).expect("lists");
    let before = packs();
    let second = test.store("two", &noise(2, 1 << 20));
    let new = packs().into_iter().find(|pack| !before.contains(pack));
    let new = new.expect("the second image has a pack of its own");
    let path = test.directory.path().join(names::pack(&new.id));
    let mut bytes = fs::read(&path).expect("reads");
    bytes[500_000] ^= 1;
    fs::write(&path, bytes).expect("writes");
    (test, first, second)
}

fn options(scope: &VerifyScope) -> VerifyOptions {
    VerifyOptions {
        scope: scope.clone(),
        dry_run: false,
    }
}

fn verify(test: &TestLibrary, scope: &VerifyScope) -> VerifyReport {
    test.library
        .verify_with(&options(scope), &Silent)
        .expect("verifies")
}

#[test]
fn an_image_is_verified_alone_down_to_the_chunk() {
    let (test, first, second) = one_of_two_damaged();
    let report = verify(&test, &VerifyScope::Images(vec![first.id]));
    assert!(report.is_sound(), "{report:?}");
    assert_eq!((report.images, report.bytes_read), (1, 1 << 20));
    let report = verify(&test, &VerifyScope::Images(vec![second.id, first.id]));
    assert_eq!(report.damaged_images, [second.id.to_string()]);
    assert_eq!(report.finding_count, 1);
    let finding = &report.findings[0];
    // Chunks of 16 KiB behind a header of 64 bytes, each with 28 bytes of its own.
    let place = format!(
        "image {}, disk \"sda\", bytes 0x78000 to 0x7c000",
        second.id
    );
    assert_eq!(finding.place, place);
    assert!(
        finding.problem.contains("chunk in pack "),
        "{}",
        finding.problem
    );
}

#[test]
fn an_image_that_does_not_exist_cannot_be_verified() {
    let test = TestLibrary::new();
    let image = test.store("one", b"bytes");
    let other = TestLibrary::new();
    let scope = VerifyScope::Images(vec![image.id]);
    let error = other.library.verify_with(&options(&scope), &Silent);
    assert!(matches!(error, Err(Error::NoSuchImage { .. })), "{error:?}");
}

#[test]
fn a_sample_reads_its_share_and_all_of_it_finds_everything() {
    let (test, _, second) = one_of_two_damaged();
    let half: Share = "50%".parse().expect("a share");
    let report = verify(&test, &VerifyScope::Sample(half));
    assert_eq!((report.packs, report.packs_in_library), (1, 2));
    assert_eq!(report.images, 2);
    let all: Share = "100%".parse().expect("a share");
    let report = verify(&test, &VerifyScope::Sample(all));
    assert_eq!(report, verify(&test, &VerifyScope::Everything));
    assert_eq!(report.damaged_images, [second.id.to_string()]);
}

#[test]
fn a_share_is_at_least_one_and_at_most_all() {
    let share = |text: &str| text.parse::<Share>();
    assert_eq!(share("5%").map(|share| share.of(100)), Ok(5));
    assert_eq!(share("0.1%").map(|share| share.of(100)), Ok(1));
    assert_eq!(share("100%").map(|share| share.of(7)), Ok(7));
    assert_eq!(share("5%").map(|share| share.of(0)), Ok(0));
    for wrong in ["", "5", "0%", "-1%", "101%", "NaN%", "inf%", "%"] {
        assert!(share(wrong).is_err(), "{wrong:?}");
    }
}

#[test]
fn a_sample_has_no_pack_twice_and_differs_each_time() {
    let pack = |number: u8| ListedPack {
        id: PackId::from_bytes([number; 32]),
        length: 1,
    };
    let packs: Vec<ListedPack> = (0..200).map(pack).collect();
    let half = Share(0.5);
    let chosen = sample(packs.clone(), half).expect("has random bytes");
    assert_eq!(chosen.len(), 100);
    assert!(chosen.windows(2).all(|pair| pair[0].id < pair[1].id));
    let other = sample(packs, half).expect("has random bytes");
    assert_ne!(chosen, other);
}

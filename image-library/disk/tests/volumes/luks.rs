// SPDX-License-Identifier: MIT OR Apache-2.0
//! Encrypted devices that `cryptsetup` made, read by us; written by us, decrypted by `cryptsetup`.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use disk::block::MemoryDevice;
use disk::filesystem::{FilesystemKind, detect};
use disk::volume::luks::Luks;
use disk::{Error, ReadAt, WriteAt};
use sha2::{Digest, Sha256};

use crate::next;
use crate::outside::{have, run};

const SECRET: &[u8] = b"correct horse";
const FIXTURES: [(&str, &[u8]); 2] = [
    (
        "luks1.img.zst",
        include_bytes!("../../fixtures/luks1.img.zst"),
    ),
    (
        "luks2.img.zst",
        include_bytes!("../../fixtures/luks2.img.zst"),
    ),
];
const MIB: usize = 1 << 20;
/// Cheap ways to make keys: tests open slots often.
const PBKDF2: [&str; 4] = ["--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000"];
const ARGON2ID: [&str; 8] = [
    "--pbkdf",
    "argon2id",
    "--pbkdf-memory",
    "64",
    "--pbkdf-force-iterations",
    "4",
    "--pbkdf-parallel",
    "2",
];

fn fixture(version: usize) -> Vec<u8> {
    zstd::decode_all(FIXTURES[version - 1].1).expect("the fixture is sound")
}

fn device(bytes: Vec<u8>) -> Arc<MemoryDevice> {
    Arc::new(MemoryDevice::from(bytes))
}

fn open(device: &Arc<MemoryDevice>) -> Luks {
    try_open(device).expect("a header")
}

fn try_open(device: &Arc<MemoryDevice>) -> disk::Result<Luks> {
    let device: Arc<dyn WriteAt> = Arc::clone(device) as _;
    Luks::open(&device)
}

fn unlock(device: &Arc<MemoryDevice>, secret: &[u8]) -> Arc<dyn WriteAt> {
    let opened = open(device).unlock(secret).expect("known ciphers");
    opened.expect("the right secret")
}

fn words(length: usize) -> Vec<u8> {
    (0..length as u64 / 8)
        .flat_map(|index| (8 * index).to_le_bytes())
        .collect()
}

fn read_all(device: &dyn ReadAt) -> Vec<u8> {
    let mut bytes = vec![0; device.length_bytes() as usize];
    device.read_exact_at(0, &mut bytes).expect("readable");
    bytes
}

/// Reads and writes here and there, whole units and parts; gives what the device holds then.
fn scribble(device: &dyn WriteAt) -> Vec<u8> {
    let mut model = read_all(device);
    let mut state = 7;
    for round in 0..30 {
        let length = 1 + next(&mut state) as usize % [5, 700, 9000][round % 3];
        let start = next(&mut state) as usize % (model.len() - length);
        let bytes: Vec<u8> = (0..length).map(|_| next(&mut state) as u8).collect();
        device.write_all_at(start as u64, &bytes).expect("writable");
        model[start..start + length].copy_from_slice(&bytes);
        let start = next(&mut state) as usize % (model.len() - length);
        let mut found = vec![0; length];
        device
            .read_exact_at(start as u64, &mut found)
            .expect("readable");
        assert_eq!(found, model[start..start + length]);
    }
    device.write_zeroes_at(8192, 4096).expect("writable");
    model[8192..12288].fill(0);
    assert!(device.write_all_at(model.len() as u64, &[1]).is_err());
    device.flush().expect("memory");
    model
}

#[test]
fn the_fixtures_are_those_of_the_list_and_hold_what_was_encrypted() {
    let list = include_str!("../../fixtures/luks.sha256");
    for (version, (name, packed)) in (1..).zip(FIXTURES) {
        let digest: String = Sha256::digest(packed)
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect();
        assert!(list.contains(&format!("{digest}  {name}")), "{name}");
        let device = device(fixture(version));
        let luks = open(&device);
        assert_eq!(usize::from(luks.version), version);
        assert_eq!(luks.obstacle, None);
        assert_eq!(luks.findings, []);
        let (cipher, bits, unit, derivation) = match version {
            1 => ("aes-cbc-essiv:sha256", 128, 512, "pbkdf2-sha1"),
            _ => ("aes-xts-plain64", 256, 4096, "argon2id"),
        };
        assert_eq!((luks.cipher.as_str(), luks.key_bits), (cipher, bits));
        assert_eq!(luks.sector_bytes, unit);
        let slots: Vec<_> = luks
            .keyslots
            .iter()
            .map(|s| (s.number, &*s.derivation))
            .collect();
        assert_eq!(slots, [(0, derivation)]);
        let plain = luks.unlock(SECRET).expect("known").expect("the secret");
        assert_eq!(read_all(&*plain), words(65536), "version {version}");
        let identity = detect(&device).expect("memory").expect("known");
        assert_eq!(
            (identity.kind, identity.uuid),
            (FilesystemKind::Luks, luks.uuid.clone())
        );
    }
}

#[test]
fn a_wrong_secret_opens_nothing_and_no_secret_is_ever_shown() {
    for version in [1, 2] {
        let device = device(fixture(version));
        let luks = open(&device);
        for secret in [b"".as_slice(), b"correct horse\n", b"incorrect horse"] {
            assert!(luks.unlock(secret).expect("no error").is_none());
        }
        let plain = luks.unlock(SECRET).expect("known").expect("the secret");
        let shown = format!("{plain:?} {luks:?}");
        assert!(
            !shown.contains("key:") && !shown.contains("secret"),
            "{shown}"
        );
    }
}

#[test]
fn what_is_written_is_encrypted_and_read_again() {
    for version in [1, 2] {
        let device = device(fixture(version));
        let model = scribble(&*unlock(&device, SECRET));
        assert_eq!(read_all(&*unlock(&device, SECRET)), model);
        let raw = read_all(&device);
        assert!(
            !raw.windows(64)
                .any(|window| window == &model[20_000..20_064])
        );
        assert_eq!(raw.len(), fixture(version).len());
    }
}

/// Data that `cryptsetup` encrypts in place, with a header before it.
fn encrypted(folder: &Path, data: &[u8], arguments: &[&str]) -> PathBuf {
    let path = folder.join("image");
    fs::write(folder.join("secret"), SECRET).expect("room");
    let mut bytes = data.to_vec();
    bytes.resize(data.len() + 32 * MIB, 0);
    fs::write(&path, bytes).expect("room");
    let fixed = [
        "reencrypt",
        "-q",
        "--encrypt",
        "--type",
        "luks2",
        "--reduce-device-size",
        "32M",
        "--key-file",
        "secret",
    ];
    run(
        folder,
        "cryptsetup",
        &[&fixed, arguments, &["image"]].concat(),
    );
    path
}

fn load(path: &Path) -> Arc<MemoryDevice> {
    device(fs::read(path).expect("readable"))
}

#[test]
fn what_cryptsetup_encrypts_is_decrypted() {
    if !have(&["cryptsetup"]) {
        return;
    }
    let aes = |cipher: &'static str, bits: &'static str| vec!["-c", cipher, "-s", bits];
    let cases: [(Vec<&str>, &[&str], bool); 8] = [
        (aes("aes-xts-plain64", "512"), &ARGON2ID, false),
        (aes("aes-xts-plain64", "256"), &PBKDF2, true),
        (
            [aes("aes-xts-plain64", "512"), vec!["--sector-size", "2048"]].concat(),
            &PBKDF2,
            false,
        ),
        (
            [aes("aes-xts-plain64", "256"), vec!["--hash", "sha512"]].concat(),
            &PBKDF2,
            true,
        ),
        (aes("aes-cbc-essiv:sha256", "256"), &PBKDF2, true),
        (aes("aes-cbc-plain64", "256"), &PBKDF2, false),
        (
            aes("aes-cbc-plain", "128"),
            &[
                "--pbkdf",
                "argon2i",
                "--pbkdf-memory",
                "32",
                "--pbkdf-force-iterations",
                "4",
            ],
            false,
        ),
        (
            [aes("aes-xts-plain", "256"), vec!["--hash", "ripemd160"]].concat(),
            &PBKDF2,
            true,
        ),
    ];
    let data = words(2 * MIB);
    for (cipher, derivation, old) in cases {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let arguments = [&cipher, derivation].concat();
        let path = encrypted(folder.path(), &data, &arguments);
        let plain = unlock(&load(&path), SECRET);
        assert_eq!(read_all(&*plain)[..data.len()], data, "{arguments:?}");
        if old {
            run(
                folder.path(),
                "cryptsetup",
                &["convert", "-q", "--type", "luks1", "image"],
            );
            let device = load(&path);
            assert_eq!(open(&device).version, 1);
            let plain = unlock(&device, SECRET);
            assert_eq!(read_all(&*plain)[..data.len()], data, "luks1 {arguments:?}");
        }
        let uuid = run(folder.path(), "cryptsetup", &["luksUUID", "image"]);
        assert_eq!(open(&load(&path)).uuid.as_deref(), Some(uuid.trim_end()));
    }
}

#[test]
fn what_we_encrypt_is_decrypted_by_cryptsetup() {
    if !have(&["cryptsetup"]) {
        return;
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    fs::write(folder.path().join("secret"), SECRET).expect("room");
    for arguments in [
        ["-c", "aes-xts-plain64", "--sector-size", "4096"],
        ["-c", "aes-cbc-essiv:sha256", "-s", "256"],
    ] {
        let path = encrypted(
            folder.path(),
            &words(MIB),
            &[&arguments, &PBKDF2[..]].concat(),
        );
        let device = load(&path);
        let model = scribble(&*unlock(&device, SECRET));
        fs::write(&path, read_all(&device)).expect("room");
        let header = folder.path().join("header");
        let _ = fs::remove_file(&header);
        let decrypt = [
            "reencrypt",
            "-q",
            "--decrypt",
            "--force-offline-reencrypt",
            "--header",
            "header",
            "--key-file",
            "secret",
            "image",
        ];
        run(folder.path(), "cryptsetup", &decrypt);
        let plain = fs::read(&path).expect("readable");
        assert_eq!(plain[..model.len()], model, "{arguments:?}");
    }
}

#[test]
fn every_slot_is_tried_and_tokens_are_listed() {
    if !have(&["cryptsetup"]) {
        return;
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = encrypted(folder.path(), &words(4096), &PBKDF2);
    fs::write(folder.path().join("other"), [0, 1, 2, 255]).expect("room");
    let add = ["luksAddKey", "-q", "--key-file", "secret"];
    run(
        folder.path(),
        "cryptsetup",
        &[&add, &ARGON2ID[..], &["image", "other"]].concat(),
    );
    let token =
        r#"{"type":"clevis","keyslots":["1"],"jwe":{"protected":{"clevis":{"pin":"tpm2"}}}}"#;
    fs::write(folder.path().join("token"), token).expect("room");
    let import = ["token", "import", "--json-file", "token", "image"];
    run(folder.path(), "cryptsetup", &import);
    let device = load(&path);
    let luks = open(&device);
    assert_eq!(luks.keyslots.len(), 2);
    assert_eq!(luks.tokens.len(), 1);
    assert_eq!(
        (luks.tokens[0].kind.as_str(), &luks.tokens[0].keyslots),
        ("clevis (tpm2)", &vec![1])
    );
    assert!(luks.tokens[0].is_tpm());
    for secret in [SECRET, &[0, 1, 2, 255]] {
        let plain = unlock(&device, secret);
        assert_eq!(read_all(&*plain)[..4096], words(4096));
    }
}

#[test]
fn a_device_that_is_just_being_encrypted_stays_shut() {
    if !have(&["cryptsetup"]) {
        return;
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = encrypted(
        folder.path(),
        &words(MIB),
        &[&["--init-only"], &PBKDF2[..]].concat(),
    );
    let luks = open(&load(&path));
    let error = luks
        .unlock(SECRET)
        .expect_err("half of it is not encrypted");
    assert_eq!(
        error.to_string(),
        "LUKS: a device that is just being encrypted, decrypted or encrypted anew is not supported"
    );
}

#[test]
fn one_sound_header_of_two_is_enough() {
    let bytes = fixture(2);
    for (at, problem) in [
        (100, "the first header is damaged"),
        (5000, "the first header is damaged"),
        (16384 + 100, "the second header is damaged"),
    ] {
        let mut damaged = bytes.clone();
        damaged[at] ^= 1;
        let device = device(damaged);
        let luks = open(&device);
        assert_eq!(luks.findings.len(), 1);
        assert_eq!(luks.findings[0].problem, problem);
        assert_eq!(read_all(&*unlock(&device, SECRET)), words(65536));
    }
    let mut both = bytes;
    both[100] ^= 1;
    both[16384 + 5000] ^= 1;
    let error = try_open(&device(both)).expect_err("both are damaged");
    assert!(matches!(error, Error::Corrupt { .. }), "{error}");
}

/// The first header again, with the JSON changed and its checksum right.
fn with_json(from: &str, to: &str) -> Vec<u8> {
    let mut bytes = fixture(2);
    let text = String::from_utf8_lossy(&bytes[4096..16384]).into_owned();
    assert!(text.contains(from), "{text}");
    let mut json = text.trim_end_matches('\0').replace(from, to).into_bytes();
    json.resize(16384 - 4096, 0);
    bytes[4096..16384].copy_from_slice(&json);
    bytes[448..512].fill(0);
    let sum = Sha256::digest(&bytes[..16384]);
    bytes[448..480].copy_from_slice(&sum);
    // The second one would count if it were sound and newer.
    bytes[16384..32768].fill(0);
    bytes
}

#[test]
fn what_is_not_supported_is_named() {
    let cases = [
        (
            r#""encryption":"aes-xts-plain64","sector_size""#,
            r#""encryption":"camellia-xts-plain64","sector_size""#,
            "the cipher camellia-xts-plain64",
        ),
        (
            r#""type":"crypt""#,
            r#""type":"linear""#,
            "a segment of the type linear",
        ),
        (
            r#""type":"crypt""#,
            r#""type":"crypt","integrity":{"type":"hmac(sha256)"}"#,
            "a device with checksums",
        ),
        (
            r#""type":"argon2id""#,
            r#""type":"scrypt""#,
            "the key derivation scrypt",
        ),
        (
            r#""memory":64"#,
            r#""memory":4294967295"#,
            "KiB of memory of a LUKS key slot",
        ),
        (
            r#""sector_size":4096"#,
            r#""sector_size":4097"#,
            "sectors of 4097 bytes",
        ),
        (
            r#""keyslots_size""#,
            r#""requirements":{"mandatory":["opal"]},"keyslots_size""#,
            "the requirement opal",
        ),
    ];
    for (from, to, expected) in cases {
        let device = device(with_json(from, to));
        let error = open(&device).unlock(SECRET).expect_err(expected);
        assert!(error.to_string().contains(expected), "{error}");
    }
    let mut sealed = with_json(
        r#""tokens":{}"#,
        r#""tokens":{"0":{"type":"systemd-tpm2","keyslots":["0"]}}"#,
    );
    assert!(open(&device(sealed.clone())).tokens[0].is_tpm());
    sealed.truncate(10_000_000);
    let truncated = open(&device(sealed));
    assert!(truncated.unlock(SECRET).is_err());
}

#[test]
fn any_byte_of_a_header_may_be_anything() {
    for version in [1, 2] {
        let bytes = fixture(version);
        let header = bytes[..256 * 1024].to_vec();
        let places: Vec<usize> = match version {
            1 => (0..592).collect(),
            _ => (0..512).step_by(3).chain((4096..5800).step_by(7)).collect(),
        };
        for at in places {
            for value in [0xff, bytes[at] ^ 1] {
                let mut damaged = header.clone();
                damaged[at] = value;
                if version == 2 {
                    damaged[448..512].fill(0);
                    let sum = Sha256::digest(&damaged[..16384]);
                    damaged[448..480].copy_from_slice(&sum);
                    damaged[16384..32768].fill(0);
                }
                // What is asked of key slots is bounded; here it has to be cheap as well.
                let is_cost =
                    version == 1 && ((164..168).contains(&at) || (212..216).contains(&at));
                if let Ok(luks) = try_open(&device(damaged))
                    && !is_cost
                {
                    let _ = luks.unlock(SECRET);
                }
            }
        }
    }
    for length in [0, 6, 100, 591, 592, 4096, 16384, 20_000, 100_000] {
        for version in [1, 2] {
            let cut = fixture(version)[..length].to_vec();
            if let Ok(luks) = try_open(&device(cut)) {
                assert!(
                    luks.unlock(SECRET).is_err(),
                    "version {version}, {length} bytes"
                );
            }
        }
    }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! Encrypted volumes for tests: a header that `cryptsetup` made, its data encrypted by us.

use std::sync::Arc;

use disk::block::MemoryDevice;
use disk::volume::luks::Luks;
use disk::{ReadAt, WriteAt};
use zeroize::Zeroizing;

use crate::secrets::{Secret, Secrets};

/// LUKS1 of the `disk` package's tests: slots of little work, data at 16 MiB.
const LUKS1: &[u8] = include_bytes!("../../../image-library/disk/fixtures/luks1.img.zst");
const SECRET: &str = "correct horse";
/// Behind the only slot that is used.
pub(crate) const HEADER_BYTES: usize = 128 << 10;

/// What opens the volumes of this module.
pub(crate) fn secrets() -> Secrets {
    Secrets::from_iter([secret(SECRET)])
}

/// A secret for all volumes.
pub(crate) fn secret(text: &str) -> Secret {
    Secret::for_all(Zeroizing::new(text.as_bytes().to_vec()))
}

/// A LUKS volume with that UUID and content.
pub(crate) fn luks(uuid: &str, content: &[u8]) -> Vec<u8> {
    let mut bytes = zstd::decode_all(LUKS1).expect("the fixture is sound");
    bytes.truncate(HEADER_BYTES);
    // Where data begins, in sectors; version 1 has no checksum of its header.
    let start = u32::try_from(HEADER_BYTES / 512).expect("it is small");
    bytes[104..108].copy_from_slice(&start.to_be_bytes());
    bytes[168..168 + uuid.len()].copy_from_slice(uuid.as_bytes());
    bytes.resize(HEADER_BYTES + content.len(), 0);
    let memory = Arc::new(MemoryDevice::from(bytes));
    let device: Arc<dyn WriteAt> = Arc::clone(&memory) as _;
    let luks = Luks::open(&device).expect("the header is sound");
    let opened = luks
        .unlock(SECRET.as_bytes())
        .expect("its ciphers are known");
    let opened = opened.expect("the secret is right");
    opened.write_all_at(0, content).expect("it is as long");
    let mut bytes = vec![0; HEADER_BYTES + content.len()];
    memory
        .read_exact_at(0, &mut bytes)
        .expect("it is in memory");
    bytes
}

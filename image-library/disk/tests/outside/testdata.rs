// SPDX-License-Identifier: MIT OR Apache-2.0
//! Files from outside that tests read where they are.

use std::path::Path;

use crate::outside::skip;

/// The bytes of a file of the shared test data, unpacked; `None`, and a skip, where it is absent.
pub(crate) fn testdata(name: &str) -> Option<Vec<u8>> {
    use std::io::Read;
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../../shared/testdata")
        .join(name);
    let Ok(file) = std::fs::File::open(&path) else {
        skip(&format!("the test data has no {name}"));
        return None;
    };
    let mut bytes = Vec::new();
    let mut reader: Box<dyn Read> = match path.extension().and_then(|end| end.to_str()) {
        Some("gz") => Box::new(flate2::read::GzDecoder::new(file)),
        Some("xz") => Box::new(liblzma::read::XzDecoder::new(file)),
        _ => Box::new(file),
    };
    reader
        .read_to_end(&mut bytes)
        .expect("the test data is sound");
    Some(bytes)
}

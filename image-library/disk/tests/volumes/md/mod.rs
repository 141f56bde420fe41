// SPDX-License-Identifier: MIT OR Apache-2.0
//! Software RAIDs that the kernel's md driver made (`tests/fixtures/build/md-arrays.sh`).

mod examine;
pub(crate) mod fixture;
mod hostile;
mod states;
mod whole;

use std::sync::Arc;

use disk::block::MemoryDevice;
use disk::volume::md::{Array, assemble};
use disk::{ReadAt, WriteAt};

use fixture::{Fixture, content};

/// Members in memory; one that is left out is not there at all.
pub(crate) struct Members(Vec<Arc<MemoryDevice>>);

impl Members {
    pub(crate) fn of(fixture: &Fixture) -> Self {
        let devices = fixture
            .members()
            .map(|bytes| MemoryDevice::from(bytes.to_vec()));
        Self(devices.map(Arc::new).collect())
    }

    pub(crate) fn without(&self, left_out: &[usize]) -> Vec<Arc<dyn WriteAt>> {
        let kept = (0..self.0.len()).filter(|index| !left_out.contains(index));
        kept.map(|index| Arc::clone(&self.0[index]) as Arc<dyn WriteAt>)
            .collect()
    }
}

/// The only array of these devices.
pub(crate) fn one_array(devices: &[Arc<dyn WriteAt>]) -> Array {
    let mut assembly = assemble(devices);
    assert_eq!(assembly.arrays.len(), 1, "{assembly:?}");
    assembly.arrays.remove(0)
}

pub(crate) fn read_all(device: &dyn ReadAt) -> Vec<u8> {
    let mut bytes = vec![0; device.length_bytes() as usize];
    device.read_exact_at(0, &mut bytes).expect("readable");
    bytes
}

/// The first difference, which is easier to read than two arrays.
fn assert_same(found: &[u8], expected: &[u8], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}: the length");
    let difference = found.iter().zip(expected).position(|(a, b)| a != b);
    assert_eq!(difference, None, "{what}: first difference");
}

fn assert_pattern(array: &Array, what: &str) {
    let device = array
        .open()
        .unwrap_or_else(|error| panic!("{what}: {error}"));
    let bytes = read_all(&*device);
    assert_same(&bytes, &content(bytes.len()), what);
}

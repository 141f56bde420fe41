// SPDX-License-Identifier: MIT OR Apache-2.0
//! `WRITE`, `WRITE_ZEROES`, `TRIM` and `FLUSH`, and which number tells what went wrong.

use std::io::ErrorKind;

use disk::WriteAt;
use disk::block::fill_with_zeros;

use super::protocol::{
    CMD_FLAG_FAST_ZERO, CMD_FLAG_FUA, CMD_FLAG_NO_HOLE, EIO, ENOSPC, ENOTSUP, EPERM, Request,
};

/// Writes a part of a request's payload, at an offset of the device.
pub(super) fn write(device: &dyn WriteAt, offset: u64, payload: &[u8]) -> Result<(), u32> {
    numbered(device.write_all_at(offset, payload), offset)
}

/// Zeros. Without a hole they are written as bytes, as far as the device keeps bytes apart from
/// holes; an [`disk::block::Overlay`] never does. That is not fast.
pub(super) fn write_zeroes(device: &dyn WriteAt, request: &Request) -> Result<(), u32> {
    let (offset, length) = (request.offset, u64::from(request.length));
    let as_bytes = request.has(CMD_FLAG_NO_HOLE);
    if request.has(CMD_FLAG_FAST_ZERO) && (as_bytes || !device.has_cheap_zeros(offset, length)) {
        return Err(ENOTSUP);
    }
    let written = if as_bytes {
        fill_with_zeros(device, offset, length)
    } else {
        device.write_zeroes_at(offset, length)
    };
    numbered(written, offset)?;
    persist(device, request)
}

/// A hint, of which the device makes what it can.
pub(super) fn trim(device: &dyn WriteAt, request: &Request) -> Result<(), u32> {
    let discarded = device.discard_at(request.offset, u64::from(request.length));
    numbered(discarded, request.offset)?;
    persist(device, request)
}

/// Makes durable what was written before.
pub(super) fn flush(device: &dyn WriteAt) -> Result<(), u32> {
    numbered(device.flush(), 0)
}

/// What a request with "force unit access" wants before its reply.
pub(super) fn persist(device: &dyn WriteAt, request: &Request) -> Result<(), u32> {
    if request.has(CMD_FLAG_FUA) {
        flush(device)
    } else {
        Ok(())
    }
}

fn numbered(result: disk::Result<()>, offset: u64) -> Result<(), u32> {
    result.map_err(|error| {
        let number = number_of(&error);
        if number == EIO {
            let error = image_library::terminal::chain_text(&error);
            tracing::error!(error, offset, "a served disk cannot be written");
        }
        number
    })
}

/// The number by which a client knows an error.
fn number_of(error: &disk::Error) -> u32 {
    match error {
        disk::Error::Limit { .. } => ENOSPC,
        disk::Error::File { source, .. } => match source.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => ENOSPC,
            ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => EPERM,
            _ => EIO,
        },
        _ => EIO,
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn a_full_disk_is_told_as_such() {
        let file = |kind: ErrorKind| disk::Error::File {
            action: "write",
            path: "/x".into(),
            source: io::Error::from(kind),
        };
        let limit = disk::Error::Limit {
            what: "x",
            limit: 1,
        };
        assert_eq!(number_of(&limit), 28);
        assert_eq!(number_of(&file(ErrorKind::StorageFull)), 28);
        assert_eq!(number_of(&file(ErrorKind::ReadOnlyFilesystem)), 1);
        assert_eq!(number_of(&file(ErrorKind::UnexpectedEof)), 5);
    }
}

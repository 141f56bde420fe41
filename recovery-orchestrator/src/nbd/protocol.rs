// SPDX-License-Identifier: MIT OR Apache-2.0
//! Numbers and messages of the NBD protocol, all big-endian, as `doc/proto.md` of
//! <https://github.com/NetworkBlockDevice/nbd> has them.
//!
//! ```text
//! option  : IHAVEOPT u64, option u32, length u32, data
//! reply   : 0x3e889045565a9 u64, option u32, type u32, length u32, data
//! request : 0x25609513 u32, flags u16, type u16, cookie u64, offset u64, length u32
//! simple  : 0x67446698 u32, error u32, cookie u64, data
//! chunk   : 0x668e33ef u32, flags u16, type u16, cookie u64, length u32, data
//! ```

use std::io::{self, Read};
use std::time::Duration;

pub(super) const NBD_MAGIC: u64 = 0x4e42_444d_4147_4943;
pub(super) const OPTION_MAGIC: u64 = 0x4948_4156_454f_5054;
pub(super) const OPTION_REPLY_MAGIC: u64 = 0x0003_e889_0455_65a9;
pub(super) const REQUEST_MAGIC: u32 = 0x2560_9513;
pub(super) const SIMPLE_REPLY_MAGIC: u32 = 0x6744_6698;
pub(super) const CHUNK_MAGIC: u32 = 0x668e_33ef;

pub(super) const FLAG_FIXED_NEWSTYLE: u16 = 1;
pub(super) const FLAG_NO_ZEROES: u16 = 2;

pub(super) const OPT_EXPORT_NAME: u32 = 1;
pub(super) const OPT_ABORT: u32 = 2;
pub(super) const OPT_LIST: u32 = 3;
pub(super) const OPT_STARTTLS: u32 = 5;
pub(super) const OPT_INFO: u32 = 6;
pub(super) const OPT_GO: u32 = 7;
pub(super) const OPT_STRUCTURED_REPLY: u32 = 8;
pub(super) const OPT_LIST_META_CONTEXT: u32 = 9;
pub(super) const OPT_SET_META_CONTEXT: u32 = 10;

pub(super) const REP_ACK: u32 = 1;
pub(super) const REP_SERVER: u32 = 2;
pub(super) const REP_INFO: u32 = 3;
pub(super) const REP_META_CONTEXT: u32 = 4;
pub(super) const REP_ERR_UNSUP: u32 = (1 << 31) + 1;
pub(super) const REP_ERR_INVALID: u32 = (1 << 31) + 3;
pub(super) const REP_ERR_TLS_REQD: u32 = (1 << 31) + 5;
pub(super) const REP_ERR_UNKNOWN: u32 = (1 << 31) + 6;

pub(super) const INFO_EXPORT: u16 = 0;
pub(super) const INFO_BLOCK_SIZE: u16 = 3;

/// Transmission flags of every export. `CAN_MULTI_CONN` holds for writable ones too: a device is
/// one for all connections, and a flush of it covers what any of them wrote.
pub(super) const EXPORT_FLAGS: u16 = EXPORT_HAS_FLAGS
    | (1 << 2) // SEND_FLUSH
    | (1 << 8) // CAN_MULTI_CONN
    | (1 << 10); // SEND_CACHE
const EXPORT_HAS_FLAGS: u16 = 1;
pub(super) const EXPORT_READ_ONLY: u16 = 1 << 1;
/// What only a writable export has.
pub(super) const EXPORT_WRITABLE: u16 = (1 << 3) // SEND_FUA
    | (1 << 5) // SEND_TRIM
    | (1 << 6) // SEND_WRITE_ZEROES
    | (1 << 11); // SEND_FAST_ZERO
/// `SEND_DF`: only where structured replies were agreed on.
pub(super) const EXPORT_SEND_DF: u16 = 1 << 7;

pub(super) const CMD_READ: u16 = 0;
pub(super) const CMD_WRITE: u16 = 1;
pub(super) const CMD_DISC: u16 = 2;
pub(super) const CMD_FLUSH: u16 = 3;
pub(super) const CMD_TRIM: u16 = 4;
pub(super) const CMD_CACHE: u16 = 5;
pub(super) const CMD_WRITE_ZEROES: u16 = 6;
pub(super) const CMD_BLOCK_STATUS: u16 = 7;
pub(super) const CMD_FLAG_FUA: u16 = 1;
pub(super) const CMD_FLAG_NO_HOLE: u16 = 1 << 1;
pub(super) const CMD_FLAG_DF: u16 = 1 << 2;
pub(super) const CMD_FLAG_REQ_ONE: u16 = 1 << 3;
pub(super) const CMD_FLAG_FAST_ZERO: u16 = 1 << 4;

pub(super) const CHUNK_FLAG_DONE: u16 = 1;
pub(super) const CHUNK_NONE: u16 = 0;
pub(super) const CHUNK_OFFSET_DATA: u16 = 1;
pub(super) const CHUNK_OFFSET_HOLE: u16 = 2;
pub(super) const CHUNK_BLOCK_STATUS: u16 = 5;
pub(super) const CHUNK_ERROR: u16 = (1 << 15) + 1;
pub(super) const CHUNK_ERROR_OFFSET: u16 = (1 << 15) + 2;

pub(super) const EPERM: u32 = 1;
pub(super) const EIO: u32 = 5;
pub(super) const EINVAL: u32 = 22;
pub(super) const ENOSPC: u32 = 28;
pub(super) const ENOTSUP: u32 = 95;

/// The one context that is served, and the number that stands for it.
pub(super) const ALLOCATION_CONTEXT: &str = "base:allocation";
pub(super) const ALLOCATION_CONTEXT_ID: u32 = 1;
/// A hole that reads as zeros.
pub(super) const STATE_HOLE_ZERO: u32 = 1 | 2;

/// The longest read or write, in bytes; what every client may rely on.
pub(super) const PAYLOAD_BYTES_MAX: u32 = 32 << 20;
/// What is read or written at a time, in bytes: the memory that a request takes.
pub(super) const PIECE_BYTES: u32 = 1 << 20;
/// The longest option data.
pub(super) const OPTION_BYTES_MAX: u32 = 64 << 10;
/// Options in one negotiation.
pub(super) const OPTION_COUNT_MAX: usize = 64;
/// Extents in one block status reply.
pub(super) const EXTENT_COUNT_MAX: usize = 4096;
/// How long a client may not take what is sent.
pub(super) const WRITE_TIMEOUT: Duration = Duration::from_secs(600);

/// Reads exactly `N` bytes.
pub(super) fn read_array<const N: usize>(reader: &mut impl Read) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    reader.read_exact(&mut bytes)?;
    Ok(bytes)
}

pub(super) fn read_u16(reader: &mut impl Read) -> io::Result<u16> {
    Ok(u16::from_be_bytes(read_array(reader)?))
}

pub(super) fn read_u32(reader: &mut impl Read) -> io::Result<u32> {
    Ok(u32::from_be_bytes(read_array(reader)?))
}

pub(super) fn read_u64(reader: &mut impl Read) -> io::Result<u64> {
    Ok(u64::from_be_bytes(read_array(reader)?))
}

/// The client broke the protocol.
pub(super) fn broken(problem: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, problem)
}

/// A request as it comes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) flags: u16,
    pub(super) command: u16,
    pub(super) cookie: u64,
    pub(super) offset: u64,
    pub(super) length: u32,
}

impl Request {
    /// The length of a request without its payload, in bytes.
    pub(super) const HEAD_BYTES: usize = 28;

    pub(super) fn read(reader: &mut impl Read) -> io::Result<Self> {
        if read_u32(reader)? != REQUEST_MAGIC {
            return Err(broken("a request without its magic number"));
        }
        Ok(Self {
            flags: read_u16(reader)?,
            command: read_u16(reader)?,
            cookie: read_u64(reader)?,
            offset: read_u64(reader)?,
            length: read_u32(reader)?,
        })
    }

    pub(super) const fn has(&self, flag: u16) -> bool {
        self.flags & flag != 0
    }

    /// Whether it lies on a device of that many bytes.
    pub(super) fn is_within(&self, device_bytes: u64) -> bool {
        let end = self.offset.checked_add(u64::from(self.length));
        end.is_some_and(|end| end <= device_bytes)
    }
}

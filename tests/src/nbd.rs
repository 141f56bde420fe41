// SPDX-License-Identifier: MIT OR Apache-2.0
//! An NBD client for measurements: one request at a time over a unix socket, nothing read ahead,
//! whoever serves.
//!
//! Fixed newstyle negotiation with `NBD_OPT_GO`, simple replies
//! (<https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md>).

use std::io::{self, Error, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

const SERVER_MAGIC: u64 = 0x4e42_444d_4147_4943;
const OPTION_MAGIC: u64 = 0x4948_4156_454f_5054;
const OPTION_REPLY_MAGIC: u64 = 0x0003_e889_0455_65a9;
const REQUEST_MAGIC: u32 = 0x2560_9513;
const REPLY_MAGIC: u32 = 0x6744_6698;
/// Fixed newstyle, no zeroes after the negotiation.
const CLIENT_FLAGS: u32 = 3;
const OPTION_GO: u32 = 7;
const REPLY_ACKNOWLEDGED: u32 = 1;
const REPLY_INFORMATION: u32 = 3;
const COMMAND_READ: u16 = 0;
const COMMAND_DISCONNECT: u16 = 2;
/// No reply to an option is longer.
const OPTION_BYTES_MAX: u32 = 4096;
/// A server that says nothing for so long has failed.
const PATIENCE: Duration = Duration::from_secs(60);

/// A connection to one export.
#[derive(Debug)]
pub struct NbdClient {
    stream: UnixStream,
    cookie: u64,
}

impl NbdClient {
    /// Connects and chooses an export.
    ///
    /// # Errors
    /// When nobody listens, or the other side does not speak so.
    pub fn connect(socket: &Path, export: &str) -> io::Result<Self> {
        let stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut client = Self { stream, cookie: 0 };
        client.expect_u64(SERVER_MAGIC)?;
        client.expect_u64(OPTION_MAGIC)?;
        let _flags: [u8; 2] = client.bytes()?;
        client.go(export)?;
        Ok(client)
    }

    fn go(&mut self, export: &str) -> io::Result<()> {
        let name_length = u32::try_from(export.len()).map_err(Error::other)?;
        let mut message = CLIENT_FLAGS.to_be_bytes().to_vec();
        message.extend(OPTION_MAGIC.to_be_bytes());
        message.extend(OPTION_GO.to_be_bytes());
        message.extend((4 + name_length + 2).to_be_bytes());
        message.extend(name_length.to_be_bytes());
        message.extend(export.as_bytes());
        // No questions.
        message.extend([0, 0]);
        self.stream.write_all(&message)?;
        loop {
            self.expect_u64(OPTION_REPLY_MAGIC)?;
            let _option: [u8; 4] = self.bytes()?;
            let reply = u32::from_be_bytes(self.bytes()?);
            let length = u32::from_be_bytes(self.bytes()?).min(OPTION_BYTES_MAX);
            let mut content = vec![0; length as usize];
            self.stream.read_exact(&mut content)?;
            match reply {
                REPLY_INFORMATION => {}
                REPLY_ACKNOWLEDGED => return Ok(()),
                other => return Err(Error::other(format!("refused with {other:#x}"))),
            }
        }
    }

    /// Reads bytes of the disk; returns when they are there.
    ///
    /// # Errors
    /// When the connection ends, or the server reports an error.
    pub fn read(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let length = u32::try_from(buffer.len()).map_err(Error::other)?;
        self.request(COMMAND_READ, offset, length)?;
        let magic = u32::from_be_bytes(self.bytes()?);
        let error = u32::from_be_bytes(self.bytes()?);
        let cookie = u64::from_be_bytes(self.bytes()?);
        if (magic, cookie) != (REPLY_MAGIC, self.cookie) {
            return Err(Error::other(format!("{magic:#x} begins no reply to this")));
        }
        if error != 0 {
            return Err(Error::from_raw_os_error(error.cast_signed()));
        }
        self.stream.read_exact(buffer)
    }

    fn request(&mut self, command: u16, offset: u64, length: u32) -> io::Result<()> {
        self.cookie += 1;
        let mut message = REQUEST_MAGIC.to_be_bytes().to_vec();
        message.extend([0, 0]);
        message.extend(command.to_be_bytes());
        message.extend(self.cookie.to_be_bytes());
        message.extend(offset.to_be_bytes());
        message.extend(length.to_be_bytes());
        self.stream.write_all(&message)
    }

    fn bytes<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.stream.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    fn expect_u64(&mut self, expected: u64) -> io::Result<()> {
        let found = u64::from_be_bytes(self.bytes()?);
        if found == expected {
            return Ok(());
        }
        Err(Error::other(format!(
            "expected {expected:#x}, found {found:#x}"
        )))
    }
}

impl Drop for NbdClient {
    fn drop(&mut self) {
        // A server that is gone needs no farewell.
        let _ = self.request(COMMAND_DISCONNECT, 0, 0);
    }
}

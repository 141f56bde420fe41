// SPDX-License-Identifier: MIT OR Apache-2.0
//! The first half of a connection: which export, and which extras.

use std::io::{self, Read, Write};

use super::Export;
use super::protocol::{
    ALLOCATION_CONTEXT, ALLOCATION_CONTEXT_ID, EXPORT_FLAG_SEND_DF, EXPORT_FLAGS,
    FLAG_FIXED_NEWSTYLE, FLAG_NO_ZEROES, INFO_BLOCK_SIZE, INFO_EXPORT, NBD_MAGIC, OPT_ABORT,
    OPT_EXPORT_NAME, OPT_GO, OPT_INFO, OPT_LIST, OPT_LIST_META_CONTEXT, OPT_SET_META_CONTEXT,
    OPT_STRUCTURED_REPLY, OPTION_BYTES_MAX, OPTION_COUNT_MAX, OPTION_MAGIC, OPTION_REPLY_MAGIC,
    READ_BYTES_MAX, REP_ACK, REP_ERR_INVALID, REP_ERR_UNKNOWN, REP_ERR_UNSUP, REP_INFO,
    REP_META_CONTEXT, REP_SERVER, broken, read_u16, read_u32, read_u64,
};

/// What was agreed on.
#[derive(Debug)]
pub(super) struct Session<'a> {
    pub(super) export: &'a Export,
    pub(super) structured: bool,
    pub(super) block_status: bool,
}

/// Talks until the client has chosen an export; `None` when it left.
pub(super) fn negotiate<'a, S: Read + Write>(
    stream: &mut S,
    exports: &'a [Export],
) -> io::Result<Option<Session<'a>>> {
    stream.write_all(&NBD_MAGIC.to_be_bytes())?;
    stream.write_all(&OPTION_MAGIC.to_be_bytes())?;
    stream.write_all(&(FLAG_FIXED_NEWSTYLE | FLAG_NO_ZEROES).to_be_bytes())?;
    let client_flags = read_u32(stream)?;
    if client_flags & !u32::from(FLAG_FIXED_NEWSTYLE | FLAG_NO_ZEROES) != 0 {
        return Err(broken("client flags that nobody defined"));
    }
    let mut negotiation = Negotiation {
        stream,
        exports,
        no_zeroes: client_flags & u32::from(FLAG_NO_ZEROES) != 0,
        structured: false,
        context_export: None,
    };
    for _ in 0..OPTION_COUNT_MAX {
        match negotiation.option()? {
            Progress::More => {}
            Progress::Chosen(session) => return Ok(Some(session)),
            Progress::Left => return Ok(None),
        }
    }
    Err(broken("too many options"))
}

enum Progress<'a> {
    More,
    Chosen(Session<'a>),
    Left,
}

struct Negotiation<'a, 's, S> {
    stream: &'s mut S,
    exports: &'a [Export],
    no_zeroes: bool,
    structured: bool,
    /// For which export the client chose the allocation context.
    context_export: Option<String>,
}

impl<'a, S: Read + Write> Negotiation<'a, '_, S> {
    fn option(&mut self) -> io::Result<Progress<'a>> {
        if read_u64(self.stream)? != OPTION_MAGIC {
            return Err(broken("an option without its magic number"));
        }
        let option = read_u32(self.stream)?;
        let length = read_u32(self.stream)?;
        if length > OPTION_BYTES_MAX {
            return Err(broken("an option that is too long"));
        }
        let mut data = vec![0; usize::try_from(length).map_err(|_| broken("length"))?];
        self.stream.read_exact(&mut data)?;
        match option {
            OPT_EXPORT_NAME => self.export_name(&data),
            OPT_ABORT => {
                self.reply(option, REP_ACK, &[])?;
                Ok(Progress::Left)
            }
            OPT_LIST => self.list(&data),
            OPT_INFO | OPT_GO => self.info(option, &data),
            OPT_STRUCTURED_REPLY if data.is_empty() => {
                self.structured = true;
                self.more(option, REP_ACK, &[])
            }
            OPT_STRUCTURED_REPLY => self.more(option, REP_ERR_INVALID, &[]),
            OPT_LIST_META_CONTEXT | OPT_SET_META_CONTEXT => self.meta_context(option, &data),
            _ => self.more(option, REP_ERR_UNSUP, &[]),
        }
    }

    /// The old way to choose: no error can be told, only the connection cut.
    fn export_name(&mut self, data: &[u8]) -> io::Result<Progress<'a>> {
        let export = self.find(data).ok_or_else(|| broken("no such export"))?;
        self.stream
            .write_all(&export.device.length_bytes().to_be_bytes())?;
        self.stream.write_all(&self.flags().to_be_bytes())?;
        if !self.no_zeroes {
            self.stream.write_all(&[0; 124])?;
        }
        Ok(Progress::Chosen(self.session(export)))
    }

    fn list(&mut self, data: &[u8]) -> io::Result<Progress<'a>> {
        if !data.is_empty() {
            return self.more(OPT_LIST, REP_ERR_INVALID, &[]);
        }
        for export in self.exports {
            let mut reply = length_of(export.name.as_bytes()).to_be_bytes().to_vec();
            reply.extend_from_slice(export.name.as_bytes());
            self.reply(OPT_LIST, REP_SERVER, &reply)?;
        }
        self.more(OPT_LIST, REP_ACK, &[])
    }

    fn info(&mut self, option: u32, data: &[u8]) -> io::Result<Progress<'a>> {
        let Some(name) = info_request(data) else {
            return self.more(option, REP_ERR_INVALID, &[]);
        };
        let Some(export) = self.find(name) else {
            return self.more(option, REP_ERR_UNKNOWN, b"no such export");
        };
        let mut description = INFO_EXPORT.to_be_bytes().to_vec();
        description.extend(export.device.length_bytes().to_be_bytes());
        description.extend(self.flags().to_be_bytes());
        self.reply(option, REP_INFO, &description)?;
        let mut sizes = INFO_BLOCK_SIZE.to_be_bytes().to_vec();
        // Any offset is answered; whole chunks are what is read from the library anyway.
        for size in [1, 64 << 10, READ_BYTES_MAX] {
            sizes.extend(size.to_be_bytes());
        }
        self.reply(option, REP_INFO, &sizes)?;
        self.reply(option, REP_ACK, &[])?;
        if option == OPT_GO {
            Ok(Progress::Chosen(self.session(export)))
        } else {
            Ok(Progress::More)
        }
    }

    fn meta_context(&mut self, option: u32, data: &[u8]) -> io::Result<Progress<'a>> {
        let queries = match meta_context_request(data) {
            Some((name, queries)) if self.structured => {
                let Some(export) = self.find(name) else {
                    return self.more(option, REP_ERR_UNKNOWN, b"no such export");
                };
                if option == OPT_SET_META_CONTEXT {
                    let chosen = queries
                        .iter()
                        .any(|query| *query == ALLOCATION_CONTEXT.as_bytes());
                    self.context_export = chosen.then(|| export.name.clone());
                }
                queries
            }
            _ => return self.more(option, REP_ERR_INVALID, &[]),
        };
        let all = option == OPT_LIST_META_CONTEXT && queries.is_empty();
        let wanted = |query: &&[u8]| {
            *query == ALLOCATION_CONTEXT.as_bytes()
                || (option == OPT_LIST_META_CONTEXT && *query == b"base:")
        };
        if all || queries.iter().any(wanted) {
            let id = if option == OPT_SET_META_CONTEXT {
                ALLOCATION_CONTEXT_ID
            } else {
                0
            };
            let mut reply = id.to_be_bytes().to_vec();
            reply.extend_from_slice(ALLOCATION_CONTEXT.as_bytes());
            self.reply(option, REP_META_CONTEXT, &reply)?;
        }
        self.more(option, REP_ACK, &[])
    }

    /// An empty name is the first export.
    fn find(&self, name: &[u8]) -> Option<&'a Export> {
        if name.is_empty() {
            return self.exports.first();
        }
        self.exports
            .iter()
            .find(|export| export.name.as_bytes() == name)
    }

    fn session(&self, export: &'a Export) -> Session<'a> {
        Session {
            export,
            structured: self.structured,
            block_status: self.structured && self.context_export.as_ref() == Some(&export.name),
        }
    }

    fn flags(&self) -> u16 {
        if self.structured {
            EXPORT_FLAGS | EXPORT_FLAG_SEND_DF
        } else {
            EXPORT_FLAGS
        }
    }

    fn more(&mut self, option: u32, kind: u32, data: &[u8]) -> io::Result<Progress<'a>> {
        self.reply(option, kind, data)?;
        Ok(Progress::More)
    }

    fn reply(&mut self, option: u32, kind: u32, data: &[u8]) -> io::Result<()> {
        let mut reply = OPTION_REPLY_MAGIC.to_be_bytes().to_vec();
        reply.extend(option.to_be_bytes());
        reply.extend(kind.to_be_bytes());
        reply.extend(length_of(data).to_be_bytes());
        reply.extend_from_slice(data);
        self.stream.write_all(&reply)
    }
}

/// Our own texts: a few bytes.
fn length_of(data: &[u8]) -> u32 {
    u32::try_from(data.len()).unwrap_or(0)
}

/// `NBD_OPT_INFO` and `GO`: name, then a list of things to tell that is only checked for its length.
fn info_request(data: &[u8]) -> Option<&[u8]> {
    let (name, rest) = take_string(data)?;
    let mut rest = rest;
    let count = read_u16(&mut rest).ok()?;
    (rest.len() == usize::from(count) * 2).then_some(name)
}

/// `NBD_OPT_*_META_CONTEXT`: name, then a list of queries.
fn meta_context_request(data: &[u8]) -> Option<(&[u8], Vec<&[u8]>)> {
    let (name, mut rest) = take_string(data)?;
    let count = read_u32(&mut rest).ok()?;
    let mut queries = Vec::new();
    for _ in 0..count {
        let (query, left) = take_string(rest)?;
        queries.push(query);
        rest = left;
    }
    rest.is_empty().then_some((name, queries))
}

fn take_string(mut data: &[u8]) -> Option<(&[u8], &[u8])> {
    let length = usize::try_from(read_u32(&mut data).ok()?).ok()?;
    data.split_at_checked(length)
}

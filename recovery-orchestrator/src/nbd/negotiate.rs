// SPDX-License-Identifier: MIT OR Apache-2.0
//! The first half of a connection: TLS, which export, and which extras.
//!
//! A stream is read only as far as the option goes that is being answered: what comes after
//! `NBD_OPT_STARTTLS` is left for the TLS handshake.

use std::io::{self, Read, Write};

use super::Export;
use super::protocol::{
    ALLOCATION_CONTEXT, ALLOCATION_CONTEXT_ID, EXPORT_FLAGS, EXPORT_READ_ONLY, EXPORT_SEND_DF,
    EXPORT_WRITABLE, FLAG_FIXED_NEWSTYLE, FLAG_NO_ZEROES, INFO_BLOCK_SIZE, INFO_EXPORT, NBD_MAGIC,
    OPT_ABORT, OPT_EXPORT_NAME, OPT_GO, OPT_INFO, OPT_LIST, OPT_LIST_META_CONTEXT,
    OPT_SET_META_CONTEXT, OPT_STARTTLS, OPT_STRUCTURED_REPLY, OPTION_BYTES_MAX, OPTION_COUNT_MAX,
    OPTION_MAGIC, OPTION_REPLY_MAGIC, PAYLOAD_BYTES_MAX, REP_ACK, REP_ERR_INVALID,
    REP_ERR_TLS_REQD, REP_ERR_UNKNOWN, REP_ERR_UNSUP, REP_INFO, REP_META_CONTEXT, REP_SERVER,
    broken, read_u16, read_u32, read_u64,
};

/// The size of requests that a client should prefer, in bytes: whole chunks are what is read from
/// a library anyway.
const PREFERRED_BYTES: u32 = 64 << 10;

/// What was agreed on.
#[derive(Debug)]
pub(super) struct Session<'a> {
    pub(super) export: &'a Export,
    pub(super) structured: bool,
    pub(super) block_status: bool,
}

/// How a negotiation ended.
#[derive(Debug)]
pub(super) enum Outcome<'a> {
    /// With an export.
    Chosen(Session<'a>),
    /// The client speaks TLS from the next byte on.
    StartTls,
    /// The client left.
    Left,
}

/// What a client said of itself in its greeting.
#[derive(Debug, Clone, Copy)]
pub(super) struct ClientFlags {
    fixed_newstyle: bool,
    no_zeroes: bool,
}

/// What a negotiation begins with.
#[derive(Debug, Clone, Copy)]
pub(super) struct Terms<'a> {
    exports: &'a [Export],
    tls: Tls,
    client: ClientFlags,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tls {
    Absent,
    /// Nothing is told without it.
    Required,
    Spoken,
}

impl<'a> Terms<'a> {
    pub(super) fn new(exports: &'a [Export], tls: bool, client: ClientFlags) -> Self {
        let tls = if tls { Tls::Required } else { Tls::Absent };
        Self {
            exports,
            tls,
            client,
        }
    }

    /// The same after the TLS handshake.
    pub(super) const fn within_tls(self) -> Self {
        Self {
            tls: Tls::Spoken,
            ..self
        }
    }
}

/// The greetings of both sides.
pub(super) fn greet<S: Read + Write>(stream: &mut S) -> io::Result<ClientFlags> {
    let mut greeting = NBD_MAGIC.to_be_bytes().to_vec();
    greeting.extend(OPTION_MAGIC.to_be_bytes());
    greeting.extend((FLAG_FIXED_NEWSTYLE | FLAG_NO_ZEROES).to_be_bytes());
    stream.write_all(&greeting)?;
    let flags = read_u32(stream)?;
    if flags & !u32::from(FLAG_FIXED_NEWSTYLE | FLAG_NO_ZEROES) != 0 {
        return Err(broken("client flags that nobody defined"));
    }
    Ok(ClientFlags {
        fixed_newstyle: flags & u32::from(FLAG_FIXED_NEWSTYLE) != 0,
        no_zeroes: flags & u32::from(FLAG_NO_ZEROES) != 0,
    })
}

/// Talks until the client has chosen an export, wants TLS, or leaves.
pub(super) fn negotiate<'a, S: Read + Write>(
    stream: &mut S,
    terms: Terms<'a>,
) -> io::Result<Outcome<'a>> {
    let mut negotiation = Negotiation {
        stream,
        terms,
        structured: false,
        context_export: None,
    };
    for _ in 0..OPTION_COUNT_MAX {
        if let Some(outcome) = negotiation.option()? {
            return Ok(outcome);
        }
    }
    Err(broken("too many options"))
}

struct Negotiation<'a, 's, S> {
    stream: &'s mut S,
    terms: Terms<'a>,
    structured: bool,
    /// For which export the client chose the allocation context.
    context_export: Option<String>,
}

/// `None`: it goes on.
type Progress<'a> = io::Result<Option<Outcome<'a>>>;

impl<'a, S: Read + Write> Negotiation<'a, '_, S> {
    fn option(&mut self) -> Progress<'a> {
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
        if self.terms.tls == Tls::Required {
            return self.option_before_tls(option, &data);
        }
        match option {
            OPT_EXPORT_NAME => self.export_name(&data),
            OPT_ABORT => self.abort(),
            OPT_LIST => self.list(&data),
            // It is spoken already, or there is none.
            OPT_STARTTLS if self.terms.tls == Tls::Spoken => {
                self.more(option, REP_ERR_INVALID, b"TLS is spoken already")
            }
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

    /// The protocol's "FORCEDTLS mode": nothing is told and nothing is kept.
    fn option_before_tls(&mut self, option: u32, data: &[u8]) -> Progress<'a> {
        match option {
            OPT_EXPORT_NAME => Err(broken("an export is chosen without TLS")),
            OPT_ABORT => self.abort(),
            OPT_STARTTLS if !data.is_empty() => self.more(option, REP_ERR_INVALID, &[]),
            OPT_STARTTLS if self.terms.client.fixed_newstyle => {
                self.reply(option, REP_ACK, &[])?;
                Ok(Some(Outcome::StartTls))
            }
            _ => self.more(option, REP_ERR_TLS_REQD, b"this server speaks TLS only"),
        }
    }

    fn abort(&mut self) -> Progress<'a> {
        self.reply(OPT_ABORT, REP_ACK, &[])?;
        Ok(Some(Outcome::Left))
    }

    /// The old way to choose: no error can be told, only the connection cut.
    fn export_name(&mut self, data: &[u8]) -> Progress<'a> {
        let export = self.find(data).ok_or_else(|| broken("no such export"))?;
        self.stream
            .write_all(&export.access.device().length_bytes().to_be_bytes())?;
        self.stream.write_all(&self.flags(export).to_be_bytes())?;
        if !self.terms.client.no_zeroes {
            self.stream.write_all(&[0; 124])?;
        }
        Ok(Some(Outcome::Chosen(self.session(export))))
    }

    fn list(&mut self, data: &[u8]) -> Progress<'a> {
        if !data.is_empty() {
            return self.more(OPT_LIST, REP_ERR_INVALID, &[]);
        }
        for export in self.terms.exports {
            let mut reply = length_of(export.name.as_bytes()).to_be_bytes().to_vec();
            reply.extend_from_slice(export.name.as_bytes());
            self.reply(OPT_LIST, REP_SERVER, &reply)?;
        }
        self.more(OPT_LIST, REP_ACK, &[])
    }

    fn info(&mut self, option: u32, data: &[u8]) -> Progress<'a> {
        let Some(name) = info_request(data) else {
            return self.more(option, REP_ERR_INVALID, &[]);
        };
        let Some(export) = self.find(name) else {
            return self.more(option, REP_ERR_UNKNOWN, b"no such export");
        };
        let mut description = INFO_EXPORT.to_be_bytes().to_vec();
        description.extend(export.access.device().length_bytes().to_be_bytes());
        description.extend(self.flags(export).to_be_bytes());
        self.reply(option, REP_INFO, &description)?;
        let mut sizes = INFO_BLOCK_SIZE.to_be_bytes().to_vec();
        for size in [minimum_bytes(export), PREFERRED_BYTES, PAYLOAD_BYTES_MAX] {
            sizes.extend(size.to_be_bytes());
        }
        self.reply(option, REP_INFO, &sizes)?;
        self.reply(option, REP_ACK, &[])?;
        let chosen = option == OPT_GO;
        Ok(chosen.then(|| Outcome::Chosen(self.session(export))))
    }

    fn meta_context(&mut self, option: u32, data: &[u8]) -> Progress<'a> {
        if option == OPT_SET_META_CONTEXT {
            // What was chosen before is forgotten, also when this fails.
            self.context_export = None;
        }
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
            return self.terms.exports.first();
        }
        let mut exports = self.terms.exports.iter();
        exports.find(|export| export.name.as_bytes() == name)
    }

    fn session(&self, export: &'a Export) -> Session<'a> {
        Session {
            export,
            structured: self.structured,
            block_status: self.structured && self.context_export.as_ref() == Some(&export.name),
        }
    }

    fn flags(&self, export: &Export) -> u16 {
        let access = match export.access.writable() {
            Some(_) => EXPORT_WRITABLE,
            None => EXPORT_READ_ONLY,
        };
        let structured = if self.structured { EXPORT_SEND_DF } else { 0 };
        EXPORT_FLAGS | access | structured
    }

    fn more(&mut self, option: u32, kind: u32, data: &[u8]) -> Progress<'a> {
        self.reply(option, kind, data)?;
        Ok(None)
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

/// The smallest request. Any is answered; a client that makes a block device of the export takes
/// this for its sectors. It has to divide the device's length.
fn minimum_bytes(export: &Export) -> u32 {
    let size = export.block_size_bytes;
    let length = export.access.device().length_bytes();
    let fits =
        size.is_power_of_two() && size <= PREFERRED_BYTES && length.is_multiple_of(u64::from(size));
    if fits { size } else { 1 }
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

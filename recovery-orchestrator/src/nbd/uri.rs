// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a client is given to find an export, as `doc/uri.md` of the NBD protocol has it.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

/// `nbd+unix:///disk0?socket=/run/x`
pub(super) fn unix(socket: &Path, export: &str) -> String {
    format!(
        "nbd+unix:///{}?socket={}",
        escaped(export.as_bytes()),
        escaped(socket.as_os_str().as_bytes())
    )
}

/// `nbds://192.0.2.1:10809/disk0`, without TLS `nbd://`. Where all addresses are listened on, it
/// is this computer's name that others reach.
pub(super) fn tcp(address: SocketAddr, tls: bool, export: &str) -> String {
    let scheme = if tls { "nbds" } else { "nbd" };
    let place = if address.ip().is_unspecified() {
        let name = rustix::system::uname();
        let name = escaped(name.nodename().to_bytes());
        format!("{name}:{}", address.port())
    } else {
        address.to_string()
    };
    format!("{scheme}://{place}/{}", escaped(export.as_bytes()))
}

/// Everything but what may stand in a path and in a query by RFC 3986, as `%XX`.
fn escaped(bytes: &[u8]) -> String {
    let mut text = String::new();
    for byte in bytes {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => {
                text.push(char::from(*byte));
            }
            // Writing to a string does not fail.
            _ => drop(write!(text, "%{byte:02X}")),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_end_a_part_of_the_uri_is_escaped() {
        assert_eq!(
            unix(Path::new("/run/a b&c%/x.sock"), "disk0"),
            "nbd+unix:///disk0?socket=/run/a%20b%26c%25/x.sock"
        );
        let address = |text: &str| text.parse().unwrap();
        assert_eq!(
            tcp(address("[::1]:10809"), true, "disk0"),
            "nbds://[::1]:10809/disk0"
        );
        assert_eq!(
            tcp(address("127.0.0.1:1"), false, "a?b"),
            "nbd://127.0.0.1:1/a%3Fb"
        );
        let anywhere = tcp(address("0.0.0.0:7"), true, "d");
        assert!(anywhere.ends_with(":7/d") && !anywhere.contains("0.0.0.0"));
    }
}

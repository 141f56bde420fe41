// SPDX-License-Identifier: MIT OR Apache-2.0
//! TCP and TLS: nothing without it, nothing kept from before it, nothing slipped in under it.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use image_library::TlsFiles;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use super::client::{self, ACK, Client, ERR_INVALID, ERR_TLS_REQD, READ, info_data, option};
use super::{Endpoint, MIB, export, overlay, pattern, writable};
use crate::nbd::Server;

/// An authority's certificate, and one of its own for a server and for a client, as PEM files.
struct Authority {
    directory: tempfile::TempDir,
}

impl Authority {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let key = KeyPair::generate().unwrap();
        let mut parameters = CertificateParams::default();
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let write = |name: &str, text: String| {
            std::fs::write(directory.path().join(name), text).unwrap();
        };
        write("ca.pem", parameters.self_signed(&key).unwrap().pem());
        let issuer = Issuer::new(parameters, key);
        for name in ["localhost", "client"] {
            let key = KeyPair::generate().unwrap();
            let parameters = CertificateParams::new([name.to_owned()]).unwrap();
            let certificate = parameters.signed_by(&key, &issuer).unwrap();
            write(&format!("{name}.pem"), certificate.pem());
            write(&format!("{name}.key"), key.serialize_pem());
        }
        Self { directory }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn serve(&self, clients: Option<&Path>) -> (Server, SocketAddr) {
        let config = TlsFiles {
            certificate: &self.path("localhost.pem"),
            private_key: &self.path("localhost.key"),
            client_authorities: clients,
        }
        .server_config()
        .unwrap();
        let exports = vec![export(writable(overlay(u64::MAX)))];
        let server = Server::start_tcp(loopback(), Some(config), exports).unwrap();
        let Endpoint::Tcp { address, tls: true } = *server.endpoint() else {
            panic!("{:?}", server.endpoint());
        };
        (server, address)
    }

    fn handshake(
        &self,
        stream: TcpStream,
        with_certificate: bool,
    ) -> StreamOwned<ClientConnection, TcpStream> {
        let mut roots = RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_file(self.path("ca.pem")).unwrap())
            .unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let config = if with_certificate {
            let chain = vec![CertificateDer::from_pem_file(self.path("client.pem")).unwrap()];
            let key = PrivateKeyDer::from_pem_file(self.path("client.key")).unwrap();
            config.with_client_auth_cert(chain, key).unwrap()
        } else {
            config.with_no_client_auth()
        };
        let name = "localhost".try_into().unwrap();
        let connection = ClientConnection::new(Arc::new(config), name).unwrap();
        StreamOwned::new(connection, stream)
    }
}

fn loopback() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

/// Up to the reply to `STARTTLS`.
fn start_tls(address: SocketAddr, before: &[u8]) -> TcpStream {
    let stream = client::tcp(address);
    let mut client = Client::new(stream.try_clone().unwrap());
    client.send(&[&option(5, &[]), before].concat());
    assert_eq!(client.reply(), (ACK, vec![]));
    stream
}

#[test]
fn without_tls_nothing_is_told() {
    let authority = Authority::new();
    let (_server, address) = authority.serve(None);
    let mut client = Client::new(client::tcp(address));
    for (number, data) in [
        (3, vec![]),
        (6, info_data("disk0")),
        (7, info_data("disk0")),
        (7, info_data("no such")),
        (8, vec![]),
        (9, vec![]),
        (10, vec![]),
        (77, vec![1]),
    ] {
        assert_eq!(client.option(number, &data).0, ERR_TLS_REQD, "{number}");
    }
    assert_eq!(client.option(5, b"?").0, ERR_INVALID);
    assert_eq!(client.option(2, &[]).0, ACK);
    let mut client = Client::new(client::tcp(address));
    client.send(&option(1, b"disk0"));
    assert!(client.is_cut(), "that option knows no error");
}

#[test]
fn within_tls_everything_works_and_it_is_started_once() {
    let authority = Authority::new();
    let (_server, address) = authority.serve(None);
    let stream = authority.handshake(start_tls(address, &[]), false);
    let mut client = Client::within(stream);
    assert_eq!(client.option(5, &[]).0, ERR_INVALID);
    client.go_structured("disk0");
    let written: Vec<u8> = (0..2 * MIB).map(|at| (at % 249) as u8).collect();
    client.request(0, client::WRITE, 77, 2 << 20);
    client.send(&written);
    assert_eq!(client.chunks()[0].kind, 0);
    client.request(0, READ, 77, 2 << 20);
    let read: Vec<u8> = client
        .chunks()
        .iter()
        .flat_map(|chunk| chunk.data[8..].to_vec())
        .collect();
    assert!(read == written);
    client.request(0, client::DISC, 0, 0);
    let mut rest = Vec::new();
    client
        .stream
        .read_to_end(&mut rest)
        .expect("the server says goodbye before it closes");
    assert!(rest.is_empty(), "{rest:?}");
}

#[test]
fn what_is_sent_behind_the_wish_for_tls_is_not_obeyed_after_it() {
    let authority = Authority::new();
    let (_server, address) = authority.serve(None);
    let injected = [option(8, &[]), option(3, &[])].concat();
    let mut stream = start_tls(address, &injected);
    // The real client's handshake comes too late: the server took the options for it.
    let mut rest = Vec::new();
    let _ = stream.write_all(&[0x16, 3, 1, 0, 5, 1, 0, 0, 1, 0]);
    let _ = stream.read_to_end(&mut rest);
    // At most a TLS alert (0x15), no reply to any option.
    assert!(rest.is_empty() || rest[0] == 0x15, "{rest:?}");
    assert!(rest.len() < 20, "{rest:?}");

    let stream = start_tls(address, &injected);
    let mut tls = authority.handshake(stream, false);
    assert!(
        tls.write_all(&option(3, &[]))
            .and_then(|()| tls.read_exact(&mut [0; 1]))
            .is_err()
    );
}

#[test]
fn bytes_that_are_no_handshake_end_the_connection() {
    let authority = Authority::new();
    let (_server, address) = authority.serve(None);
    let mut client = Client::within(start_tls(address, &[]));
    client.send(&[0xff; 600]);
    assert!(client.is_cut());
    // Within TLS, and then no longer.
    let stream = start_tls(address, &[]);
    let mut raw = stream.try_clone().unwrap();
    let mut client = Client::within(authority.handshake(stream, false));
    client.go("disk0");
    raw.write_all(&request_in_the_clear()).unwrap();
    assert!(client.is_cut());
}

fn request_in_the_clear() -> Vec<u8> {
    client::request(0, READ, 0, 512)
}

#[test]
fn where_clients_need_a_certificate_those_without_are_refused() {
    let authority = Authority::new();
    let authorities = authority.path("ca.pem");
    let (_server, address) = authority.serve(Some(&authorities));
    let mut without = authority.handshake(start_tls(address, &[]), false);
    let asked = without
        .write_all(&option(3, &[]))
        .and_then(|()| without.read_exact(&mut [0; 1]));
    assert!(asked.is_err());
    let stream = authority.handshake(start_tls(address, &[]), true);
    assert_eq!(Client::within(stream).go("disk0").0, 4 * MIB);
}

#[test]
fn plain_tcp_is_for_loopback_addresses_only() {
    let server = Server::start_tcp(loopback(), None, vec![export(pattern())]).unwrap();
    let Endpoint::Tcp {
        address,
        tls: false,
    } = *server.endpoint()
    else {
        panic!("{:?}", server.endpoint());
    };
    assert_eq!(
        server.endpoint().uri("disk0"),
        format!("nbd://{address}/disk0")
    );
    let mut client = Client::new(client::tcp(address));
    client.go("disk0");
    assert_eq!(client.reads(0, 1), [1]);

    for outside in ["0.0.0.0:0", "192.0.2.1:10809", "[::]:0"] {
        let address = outside.parse().unwrap();
        let error = Server::start_tcp(address, None, vec![]).unwrap_err();
        assert!(error.to_string().contains("without TLS"), "{error}");
        assert!(error.hint().is_some());
    }
    let taken = Server::start_tcp(address, None, vec![]).unwrap_err();
    assert!(taken.to_string().contains("cannot listen"), "{taken}");
}

#[test]
fn files_that_are_no_certificate_are_named() {
    let authority = Authority::new();
    let config = |certificate: &str, private_key: &str| {
        TlsFiles {
            certificate: &authority.path(certificate),
            private_key: &authority.path(private_key),
            client_authorities: None,
        }
        .server_config()
        .unwrap_err()
        .to_string()
    };
    assert!(config("none.pem", "localhost.key").contains("none.pem"));
    assert!(config("localhost.key", "localhost.key").contains("it holds none"));
    assert!(config("client.pem", "localhost.key").contains("not that of the certificate"));
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! `image-library serve` with a certificate of the operator's own: who trusts it, and what is said
//! of files that do not do.
#![cfg(feature = "server")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use image_library::client::{Patience, RemoteLibrary, ServerAccess, TokenSource};
use image_library::{
    Authority, Error, Grant, ImageReader, InitOptions, LocalLibrary, Result, Token,
};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair,
};
use tempfile::TempDir;

/// An authority of the operator's own, and its certificate as PEM.
struct Company {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Company {
    fn new(name: &str) -> Self {
        let mut parameters = CertificateParams::default();
        parameters.distinguished_name = DistinguishedName::new();
        parameters.distinguished_name.push(DnType::CommonName, name);
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = parameters.self_signed(&key).unwrap().pem();
        let issuer = Issuer::new(parameters, key);
        Self { issuer, pem }
    }

    /// A certificate for a server and its private key, both PEM.
    fn issue(&self, host: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let parameters = CertificateParams::new([host.to_owned()]).unwrap();
        let certificate = parameters.signed_by(&key, &self.issuer).unwrap();
        (certificate.pem(), key.serialize_pem())
    }
}

/// A library, and files beside it.
struct Site {
    directory: TempDir,
    library: LocalLibrary,
    company: Company,
}

impl Site {
    fn new() -> Self {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("library");
        let library = LocalLibrary::init(&path, &InitOptions::default()).unwrap();
        let company = Company::new("A company");
        let site = Self {
            directory,
            library,
            company,
        };
        site.write("company.pem", &site.company.pem);
        site
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn write(&self, name: &str, content: &str) {
        fs::write(self.file(name), content).unwrap();
    }

    /// Writes `server.pem` and `server.key`.
    fn issue(&self, host: &str) {
        let (certificate, key) = self.company.issue(host);
        self.write("server.pem", &(certificate + &self.company.pem));
        self.write("server.key", &key);
    }

    fn serve(&self, certificate: &str, private_key: &str) -> Command {
        let mut command = program();
        command
            .arg("serve")
            .arg(self.file("library"))
            .args(["--listen", "127.0.0.1:0", "--certificate"])
            .arg(self.file(certificate))
            .arg("--private-key")
            .arg(self.file(private_key));
        command
    }

    /// What is said of files that cannot be served with.
    fn refused(&self, certificate: &str, private_key: &str) -> String {
        let mut command = self.serve(certificate, private_key);
        said(&command.output().unwrap())
    }

    /// An operator's token that names no authority.
    fn token(&self) -> Token {
        self.library.add_token(Grant::Operator, None, None).unwrap()
    }
}

fn program() -> Command {
    Command::new(env!("CARGO_BIN_EXE_image-library"))
}

/// The error of a program that could not do it.
fn said(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(output.stdout.is_empty(), "{output:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A server as a process of its own, ended with the value.
struct Serving {
    child: Child,
    url: String,
}

impl Serving {
    fn start(mut command: Command) -> Self {
        let command = command.stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let mut url = String::new();
        let stdout = child.stdout.take().unwrap();
        BufReader::new(stdout).read_line(&mut url).unwrap();
        let url = url.trim().to_owned();
        Self { child, url }
    }

    fn connect(&self, token: Token, ca_file: Option<&Path>) -> Result<RemoteLibrary> {
        let access = ServerAccess {
            token: TokenSource::Given(token),
            ca_file: ca_file.map(Path::to_owned),
        };
        let patience = Patience {
            give_up_after: Duration::from_millis(300),
            ..Patience::default()
        };
        RemoteLibrary::connect_with(&self.url, &access, patience)
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        // Fails when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_certificate_of_the_operators_own_is_trusted_for_its_authority_alone() {
    let site = Site::new();
    site.issue("127.0.0.1");
    let server = Serving::start(site.serve("server.pem", "server.key"));
    assert!(
        server.url.starts_with("https://127.0.0.1:"),
        "{}",
        server.url
    );

    let company = site.file("company.pem");
    let library = server.connect(site.token(), Some(&company)).unwrap();
    assert!(library.images().unwrap().is_empty());

    let stranger = Company::new("Another company");
    site.write("stranger.pem", &stranger.pem);
    let own = Authority::of(&site.library).unwrap().fingerprint();
    let pinned = site.library.add_token(Grant::Operator, None, Some(own));
    let untrusted = [
        server.connect(site.token(), Some(&site.file("stranger.pem"))),
        server.connect(site.token(), None),
        // The library's own authority is not that of this server.
        server.connect(pinned.unwrap(), None),
    ];
    for refused in untrusted {
        let error = refused.unwrap_err();
        assert!(matches!(error, Error::Untrusted { .. }), "{error}");
        assert!(error.hint().unwrap().contains("--ca-file"), "{error}");
    }
}

#[test]
fn a_program_trusts_the_authorities_of_the_file_that_it_is_given() {
    let site = Site::new();
    site.issue("127.0.0.1");
    let server = Serving::start(site.serve("server.pem", "server.key"));
    let token = site.file("token");
    fs::write(&token, &*site.token().reveal()).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    fs::set_permissions(&token, mode).unwrap();
    let heal = |ca_file: Option<&str>| {
        let mut command = program();
        command
            .args(["heal", "--dry-run", "--from", &server.url])
            .arg("--from-token-file")
            .arg(&token)
            .args(ca_file.map(|_| "--from-ca-file"))
            .args(ca_file.map(|name| site.file(name)))
            .arg(site.file("library"));
        command.output().unwrap()
    };
    let healed = heal(Some("company.pem"));
    assert_eq!(healed.status.code(), Some(0), "{healed:?}");
    let text = said(&heal(None));
    assert!(
        text.contains(&server.url) && text.contains("\n\nhint: "),
        "{text}"
    );
    let text = said(&heal(Some("nowhere.pem")));
    assert!(text.contains("nowhere.pem"), "{text}");
    let text = said(&heal(Some("server.key")));
    assert!(text.contains("server.key holds none"), "{text}");
}

#[test]
fn a_certificate_for_another_host_is_served_and_not_trusted() {
    let site = Site::new();
    site.issue("library.example");
    let server = Serving::start(site.serve("server.pem", "server.key"));
    let company = site.file("company.pem");
    let error = server.connect(site.token(), Some(&company)).unwrap_err();
    assert!(matches!(error, Error::Untrusted { .. }), "{error}");
}

#[test]
fn a_private_key_of_another_certificate_is_refused() {
    let site = Site::new();
    site.issue("127.0.0.1");
    let (_, other) = site.company.issue("127.0.0.1");
    site.write("other.key", &other);
    let text = site.refused("server.pem", "other.key");
    assert!(
        text.contains("the private key is not that of the certificate"),
        "{text}"
    );
    for name in ["server.pem", "other.key"] {
        assert!(text.contains(name), "{name} is not named: {text}");
    }
}

#[test]
fn files_that_are_missing_or_hold_something_else_are_named() {
    let site = Site::new();
    site.issue("127.0.0.1");
    site.write("empty", "");
    site.write("notes", "call the electrician\n");
    let cut = fs::read_to_string(site.file("server.pem")).unwrap();
    site.write("cut", &cut[..200]);
    for name in ["nowhere", "empty", "notes", "cut", "library", "server.key"] {
        let text = site.refused(name, "server.key");
        let path = site.file(name).display().to_string();
        assert!(
            text.starts_with("error: ") && text.contains(&path),
            "{text}"
        );
    }
    for name in ["nowhere", "empty", "notes", "cut", "library", "server.pem"] {
        let text = site.refused("server.pem", name);
        let path = site.file(name).display().to_string();
        assert!(
            text.starts_with("error: ") && text.contains(&path),
            "{text}"
        );
    }
}

#[test]
fn one_of_the_two_files_alone_is_refused() {
    let site = Site::new();
    site.issue("127.0.0.1");
    for (given, missing) in [
        ("--certificate", "--private-key"),
        ("--private-key", "--certificate"),
    ] {
        let mut command = program();
        let command = command.arg("serve").arg(site.file("library"));
        let text = said(
            &command
                .arg(given)
                .arg(site.file("server.pem"))
                .output()
                .unwrap(),
        );
        assert!(text.contains(missing), "{text}");
    }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! The same within TLS, with an authority of the tests' own.

use std::fs;
use std::path::{Path, PathBuf};

use e2e::{Program, free_port, have_tool, noise};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

use crate::site::{Site, json};
use crate::{MIB, have_tools};

/// Certificates as QEMU and libnbd look for them in a directory.
struct Certificates {
    directory: PathBuf,
}

impl Certificates {
    fn new(directory: PathBuf) -> Self {
        fs::create_dir(&directory).expect("the test's folder can be used");
        let named = |name: &str, names: Vec<String>| {
            let mut parameters = CertificateParams::new(names).expect("the parameters are sound");
            parameters.distinguished_name.push(DnType::CommonName, name);
            parameters
        };
        let write = |name: &str, text: String| {
            fs::write(directory.join(name), text).expect("the test's folder can be used");
        };
        let key = KeyPair::generate().expect("the parameters are sound");
        let mut parameters = named("An authority of the tests", vec![]);
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        write(
            "ca-cert.pem",
            parameters
                .self_signed(&key)
                .expect("the parameters are sound")
                .pem(),
        );
        let issuer = Issuer::new(parameters, key);
        for name in ["server", "client"] {
            let key = KeyPair::generate().expect("the parameters are sound");
            let parameters = named(name, vec!["localhost".to_owned()]);
            let certificate = parameters
                .signed_by(&key, &issuer)
                .expect("the parameters are sound");
            write(&format!("{name}-cert.pem"), certificate.pem());
            write(&format!("{name}-key.pem"), key.serialize_pem());
        }
        Self { directory }
    }

    /// A directory without the client's certificate.
    fn for_anybody(&self) -> PathBuf {
        let directory = self.directory.with_extension("anybody");
        fs::create_dir_all(&directory).expect("the test's folder can be used");
        fs::copy(
            self.directory.join("ca-cert.pem"),
            directory.join("ca-cert.pem"),
        )
        .expect("the test's folder can be used");
        directory
    }

    fn given_to(&self, program: Program) -> Program {
        program
            .arg("--certificate")
            .arg(self.directory.join("server-cert.pem"))
            .arg("--private-key")
            .arg(self.directory.join("server-key.pem"))
    }
}

fn tls_uri(port: u16, certificates: &Path) -> String {
    let certificates = certificates.display();
    format!("nbds://localhost:{port}/disk0?tls-certificates={certificates}")
}

#[test]
fn nbdcopy_copies_both_ways_within_tls() {
    if !have_tools(&["nbdcopy", "nbdinfo"]) {
        return;
    }
    let site = Site::new();
    let certificates = Certificates::new(site.path("tls"));
    let port = free_port();
    let _served = site.serve_tcp(port, |program| {
        certificates.given_to(program.arg("--writable"))
    });
    let uri = tls_uri(port, &certificates.for_anybody());
    let copy = site.path("copy.raw");
    let nbdcopy = Program::tool("nbdcopy").arg("--connections=4").arg(&uri);
    nbdcopy.arg(&copy).succeeds();
    assert!(site.is_disk(&copy));

    let bytes = noise(3, 40 * MIB);
    let other = site.path("other.raw");
    fs::write(&other, &bytes).unwrap();
    let nbdcopy = Program::tool("nbdcopy").args("--connections=4 --flush");
    nbdcopy.arg(&other).arg(&uri).succeeds();
    let back = site.path("back.raw");
    Program::tool("nbdcopy").arg(&uri).arg(&back).succeeds();
    assert!(fs::read(back).unwrap() == bytes);

    let info = Program::tool("nbdinfo").arg("--json").arg(&uri);
    assert_eq!(json(&info.succeeds())["TLS"], true);
    // Without TLS, and with an authority that did not issue the certificate.
    let plain = format!("nbd://localhost:{port}/disk0");
    assert_ne!(Program::tool("nbdinfo").arg(plain).run().code, Some(0));
    let stranger = Certificates::new(site.path("stranger"));
    let uri = tls_uri(port, &stranger.for_anybody());
    assert_ne!(Program::tool("nbdinfo").arg(uri).run().code, Some(0));
}

#[test]
fn clients_without_a_certificate_can_be_refused() {
    if !have_tool("nbdinfo") {
        return;
    }
    let site = Site::new();
    let certificates = Certificates::new(site.path("tls"));
    let port = free_port();
    let _served = site.serve_tcp(port, |program| {
        let authority = certificates.directory.join("ca-cert.pem");
        certificates
            .given_to(program)
            .arg("--client-ca")
            .arg(authority)
    });
    let size = |directory: &Path| {
        let nbdinfo = Program::tool("nbdinfo").arg("--size");
        nbdinfo.arg(tls_uri(port, directory)).run()
    };
    let known = size(&certificates.directory);
    assert_eq!(known.stdout.trim(), (40 * MIB).to_string(), "{known}");
    assert_ne!(size(&certificates.for_anybody()).code, Some(0));
}

#[test]
fn qemu_img_speaks_tls_with_it() {
    if !have_tool("qemu-img") {
        return;
    }
    let site = Site::new();
    let certificates = Certificates::new(site.path("tls"));
    let port = free_port();
    let _served = site.serve_tcp(port, |program| certificates.given_to(program));
    let directory = certificates.for_anybody();
    let credentials = format!(
        "tls-creds-x509,id=tls,endpoint=client,verify-peer=yes,dir={}",
        directory.display()
    );
    let export = format!(
        "driver=raw,file.driver=nbd,file.server.type=inet,file.server.host=localhost,\
         file.server.port={port},file.export=disk0,file.tls-creds=tls"
    );
    let copy = site.path("copy.raw");
    let convert = Program::tool("qemu-img").args("convert --object");
    let convert = convert.arg(credentials).arg("--image-opts").arg(export);
    convert.args("-O raw").arg(&copy).succeeds();
    assert!(site.is_disk(&copy));
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! TLS as all programs speak it: with ring, which seals the packs too, and with certificates and
//! keys from PEM files.

use std::path::Path;
use std::sync::Arc;

use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{RootCertStore, ServerConfig};

use crate::error::{Error, Result};
use crate::store::file;

/// Longest file with certificates or a key, in bytes.
const PEM_LENGTH_MAX: u64 = 1 << 20;

/// Chooses ring for the process; the first choice stands. Whoever builds an HTTP client calls this
/// before.
pub fn use_ring() {
    // An error says that it was made already.
    let _ = ring::default_provider().install_default();
}

/// PEM files of a server that speaks TLS.
#[derive(Debug, Clone, Copy)]
pub struct TlsFiles<'a> {
    /// Its certificate, with those above it.
    pub certificate: &'a Path,
    /// The private key of that certificate.
    pub private_key: &'a Path,
    /// The authorities of its clients' certificates; without them no client needs one.
    pub client_authorities: Option<&'a Path>,
}

impl TlsFiles<'_> {
    /// How such a server takes connections: TLS 1.2 and 1.3.
    ///
    /// # Errors
    ///
    /// [`Error::File`], or [`Error::Certificate`] when the files do not hold what they should.
    pub fn server_config(&self) -> Result<ServerConfig> {
        let place = place_of(self.certificate, self.private_key);
        let chain = read_chain(self.certificate)?;
        let key = certified_key(chain, read_key(self.private_key)?, &place)?;
        let provider = Arc::new(ring::default_provider());
        let config = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| failed("set up TLS", error.to_string()))?;
        let config = match self.client_authorities {
            None => config.with_no_client_auth(),
            Some(path) => {
                let roots = Arc::new(read_authorities(path)?);
                let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider)
                    .build()
                    .map_err(|error| in_file("use authorities", path, &error.to_string()))?;
                config.with_client_cert_verifier(verifier)
            }
        };
        Ok(config.with_cert_resolver(Arc::new(SingleCertAndKey::from(key))))
    }
}

/// The files in a message, before what is wrong with them.
pub(crate) fn place_of(certificate: &Path, private_key: &Path) -> String {
    format!("{}, {}: ", certificate.display(), private_key.display())
}

/// A certificate with its key; an error unless they belong together.
pub(crate) fn certified_key(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    place: &str,
) -> Result<CertifiedKey> {
    CertifiedKey::from_der(chain, key, &ring::default_provider()).map_err(|error| {
        let problem = match error {
            rustls::Error::InconsistentKeys(_) => {
                "the private key is not that of the certificate".to_owned()
            }
            error => error.to_string(),
        };
        let problem = format!("{place}{problem}");
        failed("use the certificate and its private key", problem)
    })
}

/// The certificates of a PEM file, at least one.
pub(crate) fn read_chain(path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let pem = read_pem(path)?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let chain = chain.map_err(|error| in_file("read certificates", path, &error.to_string()))?;
    if chain.is_empty() {
        return Err(in_file("read certificates", path, "it holds none"));
    }
    Ok(chain)
}

/// The private key of a PEM file.
pub(crate) fn read_key(path: &Path) -> Result<PrivateKeyDer<'static>> {
    PrivateKeyDer::from_pem_slice(&read_pem(path)?)
        .map_err(|error| in_file("read a private key", path, &error.to_string()))
}

fn read_authorities(path: &Path) -> Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    for certificate in read_chain(path)? {
        roots
            .add(certificate)
            .map_err(|error| in_file("read authorities", path, &error.to_string()))?;
    }
    Ok(roots)
}

fn read_pem(path: &Path) -> Result<Vec<u8>> {
    let what = "the length of a PEM file in bytes";
    file::read(path, PEM_LENGTH_MAX, what)?
        .ok_or_else(|| in_file("read a PEM file", path, "there is none"))
}

fn in_file(action: &'static str, path: &Path, problem: &str) -> Error {
    failed(action, format!("{}: {problem}", path.display()))
}

/// An [`Error::Certificate`] in fewer words.
pub(crate) fn failed(action: &'static str, problem: String) -> Error {
    Error::Certificate { action, problem }
}

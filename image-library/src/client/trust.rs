// SPDX-License-Identifier: MIT OR Apache-2.0
//! Whom a client trusts: the authorities of a file, or the one whose fingerprint its token
//! carries, or those of the system. There is no way to trust just anybody.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, ConfigBuilder, DigitallySignedStruct, RootCertStore,
    SignatureScheme, WantsVerifier,
};

use crate::error::{Error, Result};
use crate::store::file;
use crate::token::{Fingerprint, Token};

/// Longest file of authorities, in bytes.
const CA_FILE_LENGTH_MAX: u64 = 16 << 20;

/// What a client shows a server, and whom it trusts.
#[derive(Debug, Clone, Default)]
pub struct ServerAccess {
    /// Where its token is.
    pub token: TokenSource,
    /// Certificates of authorities as PEM: these and no others are trusted.
    pub ca_file: Option<PathBuf>,
}

/// Where a token is.
#[derive(Debug, Clone, Default)]
pub enum TokenSource {
    /// There is none.
    #[default]
    None,
    /// It is known.
    Given(Token),
    /// In a file, read when it is needed.
    File(PathBuf),
}

impl ServerAccess {
    /// With a token, and the trust that it carries.
    #[must_use]
    pub const fn with_token(token: Token) -> Self {
        Self {
            token: TokenSource::Given(token),
            ca_file: None,
        }
    }

    pub(super) fn token(&self) -> Result<Option<Token>> {
        match &self.token {
            TokenSource::None => Ok(None),
            TokenSource::Given(token) => Ok(Some(token.clone())),
            TokenSource::File(path) => Token::read(path).map(Some),
        }
    }

    /// How this client speaks TLS.
    pub(super) fn tls(&self, token: Option<&Token>) -> Result<ClientConfig> {
        if let Some(path) = &self.ca_file {
            return Ok(trusting(roots_of(path)?)?.with_no_client_auth());
        }
        if let Some(authority) = token.and_then(Token::authority) {
            let verifier = PinnedAuthority {
                authority,
                provider: Arc::new(ring::default_provider()),
            };
            let config = builder()?
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(verifier));
            return Ok(config.with_no_client_auth());
        }
        Ok(trusting(system_roots())?.with_no_client_auth())
    }
}

fn builder() -> Result<ConfigBuilder<ClientConfig, WantsVerifier>> {
    ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| certificate("set up TLS", error.to_string()))
}

fn trusting(
    roots: RootCertStore,
) -> Result<ConfigBuilder<ClientConfig, rustls::client::WantsClientCert>> {
    Ok(builder()?.with_root_certificates(roots))
}

fn roots_of(path: &Path) -> Result<RootCertStore> {
    let what = "the length of a file of certificates in bytes";
    let pem = file::read(path, CA_FILE_LENGTH_MAX, what)?.ok_or_else(|| {
        Error::file("open", path)(std::io::Error::from(std::io::ErrorKind::NotFound))
    })?;
    let problem = |problem: String| certificate("read certificates", problem);
    let mut roots = RootCertStore::empty();
    for found in CertificateDer::pem_slice_iter(&pem) {
        let found = found.map_err(|error| problem(format!("{}: {error}", path.display())))?;
        roots
            .add(found)
            .map_err(|error| problem(format!("{}: {error}", path.display())))?;
    }
    if roots.is_empty() {
        return Err(problem(format!("{} holds none", path.display())));
    }
    Ok(roots)
}

/// What cannot be read there is not trusted.
fn system_roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        tracing::debug!(%error, "authorities of the system");
    }
    roots.add_parsable_certificates(found.certs);
    roots
}

fn certificate(action: &'static str, problem: String) -> Error {
    Error::Certificate { action, problem }
}

/// Trusts one authority, known by its fingerprint: servers show its certificate after their own.
#[derive(Debug)]
struct PinnedAuthority {
    authority: Fingerprint,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for PinnedAuthority {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let authority = intermediates
            .iter()
            .find(|shown| Fingerprint::of(shown) == self.authority)
            .ok_or(CertificateError::UnknownIssuer)?;
        let mut roots = RootCertStore::empty();
        roots.add(authority.clone().into_owned())?;
        // From here on it is the ordinary check: chain, names, times, usage.
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&self.provider))
            .build()
            .map_err(|error| rustls::Error::General(error.to_string()))?
            .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let algorithms = &self.provider.signature_verification_algorithms;
        algorithms.supported_schemes()
    }
}

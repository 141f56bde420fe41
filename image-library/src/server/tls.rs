// SPDX-License-Identifier: MIT OR Apache-2.0
//! The certificate that a server shows: one that it issues itself and renews in time, or one from
//! files, which are read again every hour.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use jiff::Timestamp;
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use crate::authority::{Authority, LEAF_DAYS, Leaf};
use crate::error::Result;
use crate::tls::{certified_key, failed, place_of, read_chain, read_key};

/// How often the certificate is looked at.
const RENEWAL_INTERVAL: Duration = Duration::from_secs(3600);
/// An issued certificate is replaced when half of its time is over.
const RENEW_AFTER: Duration = Duration::from_secs(LEAF_DAYS as u64 / 2 * 24 * 3600);

/// Who a server is, to its clients.
#[derive(Debug)]
pub struct TlsIdentity {
    source: Source,
    shown: Arc<Shown>,
    /// The authority's certificate as PEM, where the server issues its own.
    authority_pem: Option<String>,
}

#[derive(Debug)]
enum Source {
    Issued {
        authority: Box<Authority>,
        names: Vec<String>,
    },
    Files {
        certificate: PathBuf,
        private_key: PathBuf,
    },
}

/// The certificate of now, and since when.
#[derive(Debug)]
struct Shown(RwLock<(Arc<CertifiedKey>, Timestamp)>);

impl ResolvesServerCert for Shown {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let shown = self.0.read().unwrap_or_else(PoisonError::into_inner);
        Some(Arc::clone(&shown.0))
    }
}

impl TlsIdentity {
    /// A certificate of the library's authority for these names, DNS names or addresses.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Certificate`] when a name cannot stand in a certificate.
    pub fn issued(authority: Authority, names: Vec<String>) -> Result<Self> {
        let pem = authority.certificate_pem().to_owned();
        let authority = Box::new(authority);
        Self::of(Source::Issued { authority, names }, Some(pem))
    }

    /// A given certificate (with those above it) and its private key, as PEM files.
    ///
    /// # Errors
    ///
    /// [`crate::Error::File`], or [`crate::Error::Certificate`] when they do not hold what they should.
    pub fn from_files(certificate: &Path, private_key: &Path) -> Result<Self> {
        let source = Source::Files {
            certificate: certificate.to_owned(),
            private_key: private_key.to_owned(),
        };
        Self::of(source, None)
    }

    fn of(source: Source, authority_pem: Option<String>) -> Result<Self> {
        let now = Timestamp::now();
        let shown = Shown(RwLock::new((Arc::new(source.load(now)?), now)));
        Ok(Self {
            source,
            shown: Arc::new(shown),
            authority_pem,
        })
    }

    /// The certificate of the authority, for clients that keep it in a file.
    pub(super) fn authority_pem(&self) -> Option<&str> {
        self.authority_pem.as_deref()
    }

    /// How connections are taken.
    pub(super) fn config(&self) -> Result<ServerConfig> {
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| failed("set up TLS", error.to_string()))?;
        let shown = Arc::clone(&self.shown);
        let mut config = config.with_no_client_auth().with_cert_resolver(shown);
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(config)
    }

    /// Renews the certificate in time, for ever.
    pub(super) async fn keep_fresh(self: Arc<Self>) {
        loop {
            tokio::time::sleep(RENEWAL_INTERVAL).await;
            let identity = Arc::clone(&self);
            let renewed = tokio::task::spawn_blocking(move || identity.renew(Timestamp::now()));
            match renewed.await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::error!(%error, "the certificate stays the old one"),
                Err(panicked) => tracing::error!(%panicked, "the certificate stays the old one"),
            }
        }
    }

    fn renew(&self, now: Timestamp) -> Result<()> {
        let shown = &self.shown.0;
        let since = shown.read().unwrap_or_else(PoisonError::into_inner).1;
        let age = Duration::try_from(now.duration_since(since)).unwrap_or_default();
        if matches!(self.source, Source::Issued { .. }) && age < RENEW_AFTER {
            return Ok(());
        }
        let fresh = Arc::new(self.source.load(now)?);
        *shown.write().unwrap_or_else(PoisonError::into_inner) = (fresh, now);
        Ok(())
    }
}

impl Source {
    fn load(&self, now: Timestamp) -> Result<CertifiedKey> {
        let Leaf { chain, key } = match self {
            Self::Issued { authority, names } => authority.issue(names, now)?,
            Self::Files {
                certificate,
                private_key,
            } => Leaf {
                chain: read_chain(certificate)?,
                key: read_key(private_key)?,
            },
        };
        certified_key(chain, key, &self.place())
    }

    /// Where it is, for messages.
    fn place(&self) -> String {
        match self {
            Self::Issued { .. } => String::new(),
            Self::Files {
                certificate,
                private_key,
            } => place_of(certificate, private_key),
        }
    }
}

#[cfg(test)]
mod tests {
    use jiff::Span;

    use super::*;
    use crate::config::InitOptions;
    use crate::local::LocalLibrary;

    #[test]
    fn an_issued_certificate_is_replaced_when_half_of_its_time_is_over() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("library");
        let library = LocalLibrary::init(&path, &InitOptions::default()).unwrap();
        let authority = Authority::of(&library).unwrap();
        let identity = TlsIdentity::issued(authority, vec!["library".to_owned()]).unwrap();
        let shown = || identity.shown.0.read().unwrap().0.cert[0].clone();
        let first = shown();
        let after = |hours: i64| Timestamp::now() + Span::new().hours(hours);
        identity.renew(after(14 * 24)).unwrap();
        assert_eq!(shown(), first);
        identity.renew(after(16 * 24)).unwrap();
        assert_ne!(shown(), first);
    }

    #[test]
    fn a_certificate_from_files_is_read_again_and_stays_while_they_do_not_fit() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let write = |name: &str| {
            let key = rcgen::KeyPair::generate().unwrap();
            let parameters = rcgen::CertificateParams::new([name.to_owned()]).unwrap();
            let certificate = parameters.self_signed(&key).unwrap();
            std::fs::write(path("pem"), certificate.pem()).unwrap();
            std::fs::write(path("key"), key.serialize_pem()).unwrap();
            certificate.der().clone()
        };
        let first = write("first.example");
        let identity = TlsIdentity::from_files(&path("pem"), &path("key")).unwrap();
        let shown = || identity.shown.0.read().unwrap().0.cert[0].clone();
        assert_eq!(shown(), first);

        let second = write("second.example");
        identity.renew(Timestamp::now()).unwrap();
        assert_eq!(shown(), second);

        // Between the two writes of whoever replaces them.
        let kept = std::fs::read(path("key")).unwrap();
        write("third.example");
        std::fs::write(path("key"), kept).unwrap();
        identity.renew(Timestamp::now()).unwrap_err();
        assert_eq!(shown(), second);
    }
}

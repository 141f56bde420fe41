// SPDX-License-Identifier: MIT OR Apache-2.0
//! The library's own certificate authority, and the certificates that its servers give themselves.
//!
//! Certificate and private key are one sealed record, `tls/authority` (FORMAT.md, section 8), so
//! every server of the same library shares them. A server's own key and certificate live in memory
//! only and for weeks only; the authority lives as long as the library.

use jiff::{Span, Timestamp, tz::TimeZone};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::error::{Error, Result};
use crate::local::LocalLibrary;
use crate::store::names;
use crate::token::Fingerprint;

/// Longest record of an authority, in bytes.
const RECORD_LENGTH_MAX: u64 = 64 << 10;
/// For how long an authority is good.
const AUTHORITY_DAYS: i64 = 20 * 365;
/// For how long a server's certificate is good.
pub(crate) const LEAF_DAYS: i64 = 30;
/// Clocks of servers are wrong by less.
const SKEW_DAYS: i64 = 1;

/// A certificate authority.
#[derive(Debug)]
pub struct Authority {
    certificate: CertificateDer<'static>,
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// What the record holds.
#[derive(Serialize, Deserialize)]
struct Stored {
    certificate: String,
    private_key: Zeroizing<String>,
}

/// A server's certificate with those above it, and its private key.
#[derive(Debug)]
pub(crate) struct Leaf {
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) key: PrivateKeyDer<'static>,
}

impl Authority {
    /// The authority of a library; one that has none yet gets it.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`] when its record is damaged, [`Error::File`] when the store fails.
    pub fn of(library: &LocalLibrary) -> Result<Self> {
        let core = library.core();
        if core.record(names::AUTHORITY, RECORD_LENGTH_MAX)?.is_none() {
            let stored = create(library)?;
            let json = serde_json::to_vec(&stored).map(Zeroizing::new);
            let json = json.map_err(|source| Error::Encode {
                what: "authority",
                source,
            })?;
            // Another program may have been first: what is there counts.
            core.create_record(names::AUTHORITY, &json)?;
        }
        let json = core.record(names::AUTHORITY, RECORD_LENGTH_MAX)?;
        let json = Zeroizing::new(json.unwrap_or_default());
        let corrupt = |problem: String| Error::corrupt("authority", names::AUTHORITY, 64, problem);
        let stored: Stored =
            serde_json::from_slice(&json).map_err(|error| corrupt(error.to_string()))?;
        let certificate = CertificateDer::from_pem_slice(stored.certificate.as_bytes())
            .map_err(|error| corrupt(error.to_string()))?;
        let key =
            KeyPair::from_pem(&stored.private_key).map_err(|error| corrupt(error.to_string()))?;
        Ok(Self {
            certificate,
            pem: stored.certificate,
            issuer: Issuer::new(authority_parameters(library), key),
        })
    }

    /// What tokens carry of it.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(&self.certificate)
    }

    /// Its certificate as PEM.
    #[must_use]
    pub fn certificate_pem(&self) -> &str {
        &self.pem
    }

    /// A new certificate for a server of these names, DNS names or addresses.
    pub(crate) fn issue(&self, server_names: &[String], now: Timestamp) -> Result<Leaf> {
        let mut parameters =
            CertificateParams::new(server_names).map_err(failed("issue a certificate"))?;
        parameters.distinguished_name = named("Relevo library server");
        parameters.is_ca = IsCa::ExplicitNoCa;
        parameters.use_authority_key_identifier_extension = true;
        parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        set_validity(&mut parameters, now, LEAF_DAYS);
        let key = KeyPair::generate().map_err(failed("make a private key"))?;
        let certificate = parameters
            .signed_by(&key, &self.issuer)
            .map_err(failed("issue a certificate"))?;
        let key = PrivateKeyDer::try_from(key.serialize_der())
            .map_err(|problem| failed("make a private key")(problem))?;
        Ok(Leaf {
            chain: vec![certificate.der().clone(), self.certificate.clone()],
            key,
        })
    }
}

fn create(library: &LocalLibrary) -> Result<Stored> {
    let key = KeyPair::generate().map_err(failed("make a private key"))?;
    let mut parameters = authority_parameters(library);
    set_validity(&mut parameters, library.now(), AUTHORITY_DAYS);
    let certificate = parameters
        .self_signed(&key)
        .map_err(failed("make the authority's certificate"))?;
    Ok(Stored {
        certificate: certificate.pem(),
        private_key: Zeroizing::new(key.serialize_pem()),
    })
}

/// The same whenever they are made: certificates are issued with them, not with the certificate.
fn authority_parameters(library: &LocalLibrary) -> CertificateParams {
    let mut parameters = CertificateParams::default();
    let id = library.core().config.id;
    parameters.distinguished_name = named(&format!("Relevo image library {id}"));
    parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    parameters
}

fn named(name: &str) -> DistinguishedName {
    let mut names = DistinguishedName::new();
    names.push(DnType::CommonName, name);
    names
}

fn set_validity(parameters: &mut CertificateParams, now: Timestamp, days: i64) {
    let date = |days: i64| {
        let shifted = now
            .to_zoned(TimeZone::UTC)
            .saturating_add(Span::new().days(days));
        // Years and days of a calendar: months are 1 to 12, days 1 to 31.
        let part = |number: i8| u8::try_from(number).unwrap_or(1);
        rcgen::date_time_ymd(
            i32::from(shifted.year()),
            part(shifted.month()),
            part(shifted.day()),
        )
    };
    parameters.not_before = date(-SKEW_DAYS);
    parameters.not_after = date(days);
}

fn failed<E: std::fmt::Display>(action: &'static str) -> impl FnOnce(E) -> Error {
    move |problem| Error::Certificate {
        action,
        problem: problem.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::InitOptions;

    #[test]
    fn every_program_that_opens_the_library_has_the_same_authority() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("library");
        let library = LocalLibrary::init(&path, &InitOptions::default()).unwrap();
        let first = Authority::of(&library).unwrap();
        let again = Authority::of(&LocalLibrary::open(&path).unwrap()).unwrap();
        assert_eq!(first.fingerprint(), again.fingerprint());
        assert!(
            first
                .certificate_pem()
                .starts_with("-----BEGIN CERTIFICATE-----")
        );
        let stored = std::fs::read(path.join("tls/authority")).unwrap();
        let marker = b"PRIVATE KEY";
        assert!(!stored.windows(marker.len()).any(|bytes| bytes == marker));
    }
}

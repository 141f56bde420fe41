// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which bucket, and how it is reached: the URL names the place, the settings name endpoint,
//! region and credentials. Credentials never come from a URL, which ends in logs and lists.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use object_store::aws::{AmazonS3, AmazonS3Builder, AmazonS3ConfigKey};
use object_store::{Certificate, ClientOptions, RetryConfig};

use crate::error::{BucketFailure, Error, Result};
use crate::store::file;

const SCHEME: &str = "s3://";
/// A bundle of certificates is a few hundred KiB.
const CERTIFICATES_LENGTH_MAX: u64 = 16 << 20;

/// A bucket and the prefix of a library in it: `s3://BUCKET[/PREFIX]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BucketAddress {
    bucket: String,
    /// Empty, or without a slash at either end.
    prefix: String,
}

impl BucketAddress {
    pub(crate) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Whether a text is meant to be such an address.
    pub(crate) fn is_meant(text: &str) -> bool {
        text.starts_with(SCHEME)
    }
}

impl fmt::Display for BucketAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}", self.bucket)?;
        if !self.prefix.is_empty() {
            write!(f, "/{}", self.prefix)?;
        }
        Ok(())
    }
}

impl FromStr for BucketAddress {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let refuse = |problem: &str| Error::Location {
            // Whatever stands before an @ may be a secret that somebody put there.
            location: text.rsplit_once('@').map_or_else(
                || text.to_owned(),
                |(_, shown)| format!("{SCHEME}...@{shown}"),
            ),
            problem: problem.to_owned(),
        };
        let rest = text
            .strip_prefix(SCHEME)
            .ok_or_else(|| refuse("expected s3://BUCKET[/PREFIX]"))?;
        if rest.contains('@') {
            return Err(refuse(
                "credentials are not taken from a URL: set AWS_ACCESS_KEY_ID and \
                 AWS_SECRET_ACCESS_KEY",
            ));
        }
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let prefix = prefix.trim_end_matches('/');
        let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        if bucket.is_empty() || bucket.len() > 255 || !bucket.chars().all(legal) {
            return Err(refuse(
                "expected a bucket's name of letters, digits, dots, dashes and underscores",
            ));
        }
        let is_part =
            |part: &str| !part.is_empty() && !matches!(part, "." | "..") && part.chars().all(legal);
        if prefix.len() > 512 || (!prefix.is_empty() && !prefix.split('/').all(is_part)) {
            return Err(refuse(
                "expected a prefix of letters, digits, dots, dashes, underscores and slashes",
            ));
        }
        Ok(Self {
            bucket: bucket.to_owned(),
            prefix: prefix.to_owned(),
        })
    }
}

/// How buckets are reached: endpoint, region, credentials, patience.
#[derive(Clone)]
pub struct BucketAccess {
    /// Settings by the names of the usual variables: `AWS_ACCESS_KEY_ID`, `AWS_REGION`,
    /// `AWS_ENDPOINT_URL`, and so on. Those that are not known are ignored.
    pub settings: Vec<(String, String)>,
    /// Certificates to trust besides the system's, as a file in PEM.
    pub certificates: Option<PathBuf>,
    /// After how long one request is given up and made again.
    pub request_timeout: Duration,
    /// After how long an operation is given up, with all its repetitions.
    pub time_limit: Duration,
}

impl Default for BucketAccess {
    fn default() -> Self {
        Self {
            settings: Vec::new(),
            certificates: None,
            request_timeout: Duration::from_secs(60),
            time_limit: Duration::from_secs(180),
        }
    }
}

impl fmt::Debug for BucketAccess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.settings.iter().map(|(name, _)| &**name).collect();
        f.debug_struct("BucketAccess")
            .field("settings", &names)
            .field("certificates", &self.certificates)
            .field("request_timeout", &self.request_timeout)
            .field("time_limit", &self.time_limit)
            .finish()
    }
}

impl BucketAccess {
    /// The client of a bucket. It makes each request once: what is repeated, and for how long, is
    /// decided in one place, by the bucket itself.
    pub(super) fn connect(&self, address: &BucketAddress) -> Result<Arc<AmazonS3>> {
        crate::tls::use_ring();
        let wrong = |source: object_store::Error| Error::Bucket {
            action: "reach",
            place: address.to_string(),
            failure: BucketFailure::Settings,
            source: Box::new(source),
        };
        let mut builder = AmazonS3Builder::new();
        let mut is_plain = false;
        for (name, value) in &self.settings {
            let Ok(key) = AmazonS3ConfigKey::from_str(&name.to_ascii_lowercase()) else {
                continue;
            };
            if matches!(
                key,
                AmazonS3ConfigKey::Endpoint | AmazonS3ConfigKey::S3Endpoint
            ) {
                is_plain |= value.starts_with("http://");
            }
            builder = builder.with_config(key, value);
        }
        let mut options = ClientOptions::new()
            .with_timeout(self.request_timeout)
            .with_connect_timeout(self.request_timeout.min(Duration::from_secs(5)))
            // Who gives an endpoint with http:// means it; there is no other way to it.
            .with_allow_http(is_plain);
        for certificate in self.read_certificates()? {
            options = options.with_root_certificate(certificate);
        }
        let retry = RetryConfig {
            max_retries: 0,
            retry_timeout: Duration::ZERO,
            ..RetryConfig::default()
        };
        let client = builder
            .with_bucket_name(&address.bucket)
            .with_client_options(options)
            .with_retry(retry)
            // The bulk form is not known everywhere, and here objects go one by one.
            .with_disable_bulk_delete(true)
            .build()
            .map_err(wrong)?;
        Ok(Arc::new(client))
    }

    fn read_certificates(&self) -> Result<Vec<Certificate>> {
        let Some(path) = &self.certificates else {
            return Ok(Vec::new());
        };
        let what = "the length of a file of certificates in bytes";
        let missing = || std::io::Error::from(std::io::ErrorKind::NotFound);
        let bytes = file::read(path, CERTIFICATES_LENGTH_MAX, what)?
            .ok_or_else(|| Error::file("open", path)(missing()))?;
        Certificate::from_pem_bundle(&bytes).map_err(|source| Error::Bucket {
            action: "read the certificates",
            place: path.display().to_string(),
            failure: BucketFailure::Settings,
            source: Box::new(source),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_names_bucket_and_prefix() {
        for (text, bucket, prefix) in [
            ("s3://images", "images", ""),
            ("s3://images/", "images", ""),
            ("s3://images/site-a/servers/", "images", "site-a/servers"),
        ] {
            let address: BucketAddress = text.parse().expect("is one");
            assert_eq!((&*address.bucket, address.prefix()), (bucket, prefix));
            assert_eq!(address.to_string(), text.trim_end_matches('/'));
        }
    }

    #[test]
    fn an_address_with_anything_else_in_it_is_refused() {
        for text in [
            "s3://",
            "s3:///x",
            "s3://a/../b",
            "s3://a//b",
            "s3://a?x=1",
            "s3://a/b c",
        ] {
            assert!(text.parse::<BucketAddress>().is_err(), "{text}");
        }
    }

    #[test]
    fn credentials_in_an_address_are_refused_and_not_repeated() {
        let error = "s3://key:geheim@images/a"
            .parse::<BucketAddress>()
            .unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("credentials are not taken from a URL"),
            "{text}"
        );
        assert!(!text.contains("geheim"), "{text}");
    }

    #[test]
    fn settings_are_never_printed() {
        let access = BucketAccess {
            settings: vec![("AWS_SECRET_ACCESS_KEY".to_owned(), "geheim".to_owned())],
            ..BucketAccess::default()
        };
        let text = format!("{access:?}");
        assert!(
            text.contains("AWS_SECRET_ACCESS_KEY") && !text.contains("geheim"),
            "{text}"
        );
    }
}

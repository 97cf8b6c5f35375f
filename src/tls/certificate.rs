//! A certificate with its key, and the names it is good for.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use time::OffsetDateTime;

/// Ready to serve, shared by all handshakes.
#[derive(Debug, Clone)]
pub struct Certificate {
    pub key: Arc<CertifiedKey>,
    /// Lower-case DNS names (wildcards as `*.name`) and IP addresses from the leaf.
    pub names: Vec<String>,
    /// Tags that connection policies select by.
    pub tags: Vec<String>,
    pub validity: Validity,
}

/// From when and until when a certificate is good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    pub not_before: OffsetDateTime,
    pub not_after: OffsetDateTime,
}

impl Validity {
    #[must_use]
    pub fn is_expired(&self, now: OffsetDateTime) -> bool {
        now >= self.not_after
    }

    /// When so small a share of the life is left that the certificate should be renewed.
    #[must_use]
    pub fn renewal(&self, ratio: f64) -> OffsetDateTime {
        let life = (self.not_after - self.not_before).as_seconds_f64();
        self.not_after - time::Duration::seconds_f64(life * ratio)
    }
}

/// Why a certificate cannot be used. Names files, never key material.
#[derive(Debug)]
pub struct LoadError(pub String);

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for LoadError {}

impl Certificate {
    /// What the names and the validity are of.
    #[must_use]
    pub fn leaf(&self) -> Option<&CertificateDer<'static>> {
        self.key.cert.first()
    }

    /// Reads a PEM chain and its PEM key.
    pub fn load(chain: &Path, key: &Path, tags: Vec<String>) -> Result<Self, LoadError> {
        let read = |path: &Path, what: &str| {
            std::fs::read(path).map_err(|e| LoadError(format!("cannot read {what} file {}: {e}", path.display())))
        };
        let chain_pem = read(chain, "certificate")?;
        let key_pem = read(key, "key")?;
        Self::from_pem(&chain_pem, &key_pem, tags).map_err(|e| LoadError(format!("{}: {e}", chain.display())))
    }

    pub fn from_pem(chain: &[u8], key: &[u8], tags: Vec<String>) -> Result<Self, LoadError> {
        let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(chain)
            .collect::<Result<_, _>>()
            .map_err(|e| LoadError(format!("certificate is not valid PEM: {e}")))?;
        let Some(leaf) = chain.first() else {
            return Err(LoadError("the file holds no certificate".into()));
        };
        let (names, validity) = read(leaf)?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| LoadError("the key is not a valid PEM key".into()))?;
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        let certified = CertifiedKey::from_der(chain, key, &provider).map_err(|e| {
            LoadError(format!("certificate and key do not belong together, or the key is of an unknown kind: {e}"))
        })?;
        Ok(Self { key: Arc::new(certified), names, tags, validity })
    }
}

/// Subject alternative names, else the common name; and the validity.
fn read(leaf: &CertificateDer<'_>) -> Result<(Vec<String>, Validity), LoadError> {
    use x509_parser::extensions::GeneralName;
    let (_, cert) = x509_parser::parse_x509_certificate(leaf)
        .map_err(|_| LoadError("the certificate is not valid X.509".into()))?;
    let mut names = Vec::new();
    if let Ok(Some(san)) = cert.subject_alternative_name() {
        for name in &san.value.general_names {
            match name {
                GeneralName::DNSName(dns) => names.push(dns.to_ascii_lowercase()),
                GeneralName::IPAddress(bytes) => {
                    let ip = match **bytes {
                        [a, b, c, d] => Some(std::net::IpAddr::from([a, b, c, d])),
                        _ => <[u8; 16]>::try_from(*bytes).ok().map(std::net::IpAddr::from),
                    };
                    names.extend(ip.map(|ip| ip.to_string()));
                }
                _ => {}
            }
        }
    }
    if names.is_empty() {
        let common = cert.subject().iter_common_name().next().and_then(|c| c.as_str().ok());
        names.extend(common.map(str::to_ascii_lowercase));
    }
    let time = |t: x509_parser::time::ASN1Time| {
        OffsetDateTime::from_unix_timestamp(t.timestamp())
            .map_err(|_| LoadError("the certificate's validity is not a time".into()))
    };
    let validity = cert.validity();
    Ok((names, Validity { not_before: time(validity.not_before)?, not_after: time(validity.not_after)? }))
}

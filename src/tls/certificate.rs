//! A certificate with its key, and what it is good for.

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use time::OffsetDateTime;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::oid_registry::OID_SIG_ED25519;
use x509_parser::public_key::PublicKey;
use zeroize::Zeroizing;

/// Ready to serve, shared by all handshakes.
#[derive(Debug, Clone)]
pub struct Certificate {
    /// As it was loaded; handshakes get [`Certificate::served`].
    pub key: Arc<CertifiedKey>,
    /// Lower-case DNS names (wildcards as `*.name`) and IP addresses from the leaf.
    pub names: Vec<String>,
    /// Tags that connection policies select by.
    pub tags: Vec<String>,
    pub validity: Validity,
    /// Big-endian, no leading zeros.
    pub serial: Vec<u8>,
    /// Organisations of the subject.
    pub organizations: Vec<String>,
    pub algorithm: KeyAlgorithm,
    /// Where it was read, when that was a file.
    pub file: Option<PathBuf>,
    /// Shared by all clones.
    stapled: Arc<RwLock<Option<Stapled>>>,
}

/// The certificate with an OCSP answer, and until when that is good.
#[derive(Debug)]
struct Stapled {
    key: Arc<CertifiedKey>,
    until: OffsetDateTime,
}

/// Kind of a public key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyAlgorithm {
    Rsa,
    Ecdsa,
    Ed25519,
    Other,
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
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadError {
    pub kind: LoadErrorKind,
    pub message: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoadErrorKind {
    Unreadable,
    /// Not PEM, empty, or of an unknown kind.
    NotUsable,
    /// The key has a passphrase.
    KeyEncrypted,
    /// The key is that of another certificate.
    WrongKey,
}

impl LoadError {
    fn new(kind: LoadErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    fn not_usable(message: impl Into<String>) -> Self {
        Self::new(LoadErrorKind::NotUsable, message)
    }

    fn within(mut self, file: &Path) -> Self {
        self.message = format!("{}: {}", file.display(), self.message);
        self
    }
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for LoadError {}

impl Certificate {
    /// What the names and the validity are of.
    #[must_use]
    pub fn leaf(&self) -> Option<&CertificateDer<'static>> {
        self.key.cert.first()
    }

    /// What a handshake gets: with the OCSP answer, when there is one.
    #[must_use]
    pub fn served(&self) -> Arc<CertifiedKey> {
        let stapled = self.stapled.read().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(stapled.as_ref().map_or(&self.key, |stapled| &stapled.key))
    }

    /// Staples an OCSP answer (DER) from now on, in all clones.
    pub fn staple(&self, answer: &[u8], until: OffsetDateTime) {
        let key = CertifiedKey { ocsp: Some(answer.to_vec()), ..CertifiedKey::clone(&self.key) };
        *self.stapled.write().unwrap_or_else(PoisonError::into_inner) = Some(Stapled { key: Arc::new(key), until });
    }

    pub fn unstaple(&self) {
        *self.stapled.write().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Until when the stapled answer is good.
    #[must_use]
    pub fn stapled_until(&self) -> Option<OffsetDateTime> {
        self.stapled.read().unwrap_or_else(PoisonError::into_inner).as_ref().map(|stapled| stapled.until)
    }

    /// Reads a PEM chain and its PEM key.
    pub fn load(chain: &Path, key: &Path, tags: Vec<String>) -> Result<Self, LoadError> {
        let chain_pem = read_file(chain, "certificate")?;
        let key_pem = Zeroizing::new(read_file(key, "key")?);
        let chain_der = parse_chain(&chain_pem).map_err(|e| e.within(chain))?;
        let key_der = parse_key(&key_pem).map_err(|e| e.within(key))?;
        let made = Self::from_der(chain_der, key_der, tags).map_err(|e| match e.kind {
            LoadErrorKind::WrongKey => LoadError::new(
                e.kind,
                format!("the key {} is not that of the certificate {}", key.display(), chain.display()),
            ),
            _ => e.within(chain),
        });
        Ok(Self { file: Some(chain.to_owned()), ..made? })
    }

    /// Reads one PEM file with a chain and its key, in any order.
    pub fn load_both(file: &Path, tags: Vec<String>) -> Result<Self, LoadError> {
        let pem = Zeroizing::new(read_file(file, "certificate")?);
        let made = Self::from_pem(&pem, &pem, tags).map_err(|e| e.within(file))?;
        Ok(Self { file: Some(file.to_owned()), ..made })
    }

    pub fn from_pem(chain: &[u8], key: &[u8], tags: Vec<String>) -> Result<Self, LoadError> {
        Self::from_der(parse_chain(chain)?, parse_key(key)?, tags)
    }

    fn from_der(
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
        tags: Vec<String>,
    ) -> Result<Self, LoadError> {
        let Some(leaf) = chain.first() else {
            return Err(LoadError::not_usable("the file holds no certificate"));
        };
        let leaf = read_leaf(leaf)?;
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        let signing = provider
            .key_provider
            .load_private_key(key)
            .map_err(|_| LoadError::not_usable("the key is of a kind that cannot be used"))?;
        let certified = CertifiedKey::new(chain, signing);
        match certified.keys_match() {
            Ok(()) | Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => {}
            Err(rustls::Error::InconsistentKeys(_)) => {
                let message = "certificate and key do not belong together";
                return Err(LoadError::new(LoadErrorKind::WrongKey, message));
            }
            Err(e) => return Err(LoadError::not_usable(format!("the certificate cannot be used: {e}"))),
        }
        let Leaf { names, validity, serial, organizations, algorithm } = leaf;
        Ok(Self {
            key: Arc::new(certified),
            names,
            tags,
            validity,
            serial,
            organizations,
            algorithm,
            file: None,
            stapled: Arc::default(),
        })
    }

    /// Whether it is good for a name, or is the very wildcard asked for.
    #[must_use]
    pub fn covers(&self, name: &str) -> bool {
        let name = name.trim_start_matches('[').trim_end_matches(']');
        self.names.iter().any(|own| super::subject::matches(own, name))
    }
}

fn read_file(path: &Path, what: &str) -> Result<Vec<u8>, LoadError> {
    std::fs::read(path).map_err(|e| {
        LoadError::new(LoadErrorKind::Unreadable, format!("cannot read {what} file {}: {e}", path.display()))
    })
}

/// All certificates of a PEM text, the leaf first.
fn parse_chain(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, LoadError> {
    let chain: Vec<_> = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|_| LoadError::not_usable("the certificate is not valid PEM"))?;
    if chain.is_empty() {
        let message = if pem.trim_ascii().is_empty() { "the file is empty" } else { "the file holds no certificate" };
        return Err(LoadError::not_usable(message));
    }
    Ok(chain)
}

/// The first key of a PEM text: PKCS 8, PKCS 1 (`RSA PRIVATE KEY`) or SEC 1 (`EC PRIVATE KEY`).
fn parse_key(text: &[u8]) -> Result<PrivateKeyDer<'static>, LoadError> {
    let encrypted = memchr::memmem::find(text, b"BEGIN ENCRYPTED PRIVATE KEY").is_some()
        || memchr::memmem::find(text, b"Proc-Type: 4,ENCRYPTED").is_some();
    if encrypted {
        return Err(LoadError::new(LoadErrorKind::KeyEncrypted, "the key is encrypted with a passphrase"));
    }
    PrivateKeyDer::from_pem_slice(text).map_err(|error| {
        LoadError::not_usable(match error {
            pem::Error::NoItemsFound if text.trim_ascii().is_empty() => "the key file is empty",
            pem::Error::NoItemsFound => "there is no PEM private key",
            _ => "the key is not a valid PEM key",
        })
    })
}

/// What a leaf says of itself.
struct Leaf {
    names: Vec<String>,
    validity: Validity,
    serial: Vec<u8>,
    organizations: Vec<String>,
    algorithm: KeyAlgorithm,
}

fn read_leaf(leaf: &CertificateDer<'_>) -> Result<Leaf, LoadError> {
    let (_, cert) = x509_parser::parse_x509_certificate(leaf)
        .map_err(|_| LoadError::not_usable("the certificate is not valid X.509"))?;
    let time = |t: x509_parser::time::ASN1Time| {
        OffsetDateTime::from_unix_timestamp(t.timestamp())
            .map_err(|_| LoadError::not_usable("the certificate's validity is not a time"))
    };
    let (not_before, not_after) = (time(cert.validity().not_before)?, time(cert.validity().not_after)?);
    let serial = cert.raw_serial();
    let organizations = cert.subject().iter_organization().filter_map(|o| o.as_str().ok()).map(str::to_owned);
    let algorithm = match cert.public_key().parsed() {
        Ok(PublicKey::RSA(_)) => KeyAlgorithm::Rsa,
        Ok(PublicKey::EC(_)) => KeyAlgorithm::Ecdsa,
        _ if cert.public_key().algorithm.algorithm == OID_SIG_ED25519 => KeyAlgorithm::Ed25519,
        _ => KeyAlgorithm::Other,
    };
    Ok(Leaf {
        names: names(&cert),
        validity: Validity { not_before, not_after },
        serial: serial.iter().copied().skip_while(|byte| *byte == 0).collect(),
        organizations: organizations.collect(),
        algorithm,
    })
}

/// Subject alternative names, else the common name.
fn names(cert: &X509Certificate<'_>) -> Vec<String> {
    let mut names = Vec::new();
    if let Ok(Some(san)) = cert.subject_alternative_name() {
        for name in &san.value.general_names {
            match name {
                GeneralName::DNSName(dns) => names.push(dns.to_ascii_lowercase()),
                GeneralName::IPAddress(bytes) => {
                    let ip = match **bytes {
                        [a, b, c, d] => Some(IpAddr::from([a, b, c, d])),
                        _ => <[u8; 16]>::try_from(*bytes).ok().map(IpAddr::from),
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
    names
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{KeyPair, generate_simple_self_signed};

    fn kind(chain: &[u8], key: &[u8]) -> LoadErrorKind {
        Certificate::from_pem(chain, key, vec![]).unwrap_err().kind
    }

    #[test]
    fn what_cannot_be_used_is_told_apart() {
        let made = generate_simple_self_signed(vec!["a.test".to_owned()]).unwrap();
        let (chain, key) = (made.cert.pem().into_bytes(), made.signing_key.serialize_pem().into_bytes());
        let other = KeyPair::generate().unwrap().serialize_pem().into_bytes();
        assert_eq!(kind(&chain, &other), LoadErrorKind::WrongKey);
        assert_eq!(kind(b"", &key), LoadErrorKind::NotUsable);
        assert_eq!(kind(&chain, b"  "), LoadErrorKind::NotUsable);
        assert_eq!(kind(&chain, &chain), LoadErrorKind::NotUsable);
        assert_eq!(kind(&key, &key), LoadErrorKind::NotUsable);
        assert_eq!(kind(&chain[..chain.len() / 2], &key), LoadErrorKind::NotUsable);
        assert_eq!(kind(&chain, &key[..key.len() / 2]), LoadErrorKind::NotUsable);
        let encrypted = String::from_utf8(key.clone()).unwrap().replace("PRIVATE", "ENCRYPTED PRIVATE");
        assert_eq!(kind(&chain, encrypted.as_bytes()), LoadErrorKind::KeyEncrypted);
        let old = b"-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\nAAAA\n";
        assert_eq!(kind(&chain, old), LoadErrorKind::KeyEncrypted);
    }

    #[test]
    fn one_file_may_hold_both_in_any_order() {
        let made = generate_simple_self_signed(vec!["A.test".to_owned(), "*.b.test".to_owned()]).unwrap();
        let (chain, key) = (made.cert.pem(), made.signing_key.serialize_pem());
        for text in [format!("{chain}{key}"), format!("{key}{chain}")] {
            let read = Certificate::from_pem(text.as_bytes(), text.as_bytes(), vec![]).unwrap();
            assert_eq!(read.names, ["a.test", "*.b.test"]);
            assert_eq!(read.algorithm, KeyAlgorithm::Ecdsa);
            assert!(read.covers("a.test") && read.covers("x.b.test") && read.covers("*.b.test"));
            assert!(!read.covers("b.test") && !read.covers("x.y.b.test"));
        }
    }

    #[test]
    fn errors_name_the_file_and_never_the_key() {
        let folder = tempfile::tempdir().unwrap();
        let (chain, key) = (folder.path().join("a.crt"), folder.path().join("a.key"));
        let made = generate_simple_self_signed(vec!["a.test".to_owned()]).unwrap();
        std::fs::write(&chain, made.cert.pem()).unwrap();
        let error = Certificate::load(&chain, &key, vec![]).unwrap_err();
        assert_eq!(error.kind, LoadErrorKind::Unreadable);
        assert!(error.message.contains("a.key"), "{error}");
        let other = KeyPair::generate().unwrap().serialize_pem();
        std::fs::write(&key, &other).unwrap();
        let error = Certificate::load(&chain, &key, vec![]).unwrap_err();
        assert!(error.message.contains("a.key") && error.message.contains("a.crt"), "{error}");
        assert!(!error.message.contains(other.lines().nth(1).unwrap()));
    }
}

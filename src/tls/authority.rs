//! A certificate authority of our own: a root of ten years, an intermediate of a week, leaves of hours; kept where Caddy
//! keeps its own, so that one already trusted goes on.

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SanType, SerialNumber, SubjectPublicKeyInfo,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use time::OffsetDateTime;

use super::key_type::KeyType;
use super::subject::parse_ip;
use crate::config::tls_types::CertificateAuthority;
use crate::storage::FileStorage;

const ROOT_LIFETIME: time::Duration = time::Duration::days(3600);
const INTERMEDIATE_LIFETIME: time::Duration = time::Duration::days(7);
/// The intermediate is renewed when this share of its life is left (Caddy's default).
const RENEWAL_RATIO: f64 = 0.2;
/// Clocks of clients may be slow.
const BACKDATE: time::Duration = time::Duration::minutes(1);

/// What the `pki` option says of an authority.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct AuthoritySettings {
    /// Empty = `llmproxy Local Authority`.
    pub name: String,
    pub root_common_name: String,
    pub intermediate_common_name: String,
    /// Zero = a week.
    pub intermediate_lifetime: Duration,
    /// Root given as files: certificate, key.
    pub root_files: Option<(String, String)>,
}

impl From<&CertificateAuthority> for AuthoritySettings {
    fn from(ca: &CertificateAuthority) -> Self {
        let files = ca.root.as_ref().map(|pair| (pair.certificate.clone(), pair.private_key.clone()));
        Self {
            name: ca.name.clone(),
            root_common_name: ca.root_common_name.clone(),
            intermediate_common_name: ca.intermediate_common_name.clone(),
            intermediate_lifetime: ca.intermediate_lifetime.positive().unwrap_or_default(),
            root_files: files,
        }
    }
}

/// Why an authority cannot be opened or cannot sign. Names files, never key material.
#[derive(Debug)]
pub struct AuthorityError(String);

impl fmt::Display for AuthorityError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for AuthorityError {}

/// A chain and its key, PEM.
pub struct Issued {
    pub chain: String,
    /// Secret: no `Debug`.
    pub key: String,
}

/// What is to be signed for a key that somebody else holds.
#[derive(Debug, Clone)]
pub struct Wanted<'a> {
    /// DNS names and IP addresses; all of them are in the certificate.
    pub names: &'a [String],
    /// SubjectPublicKeyInfo, DER.
    pub public_key: &'a [u8],
    /// Cut to the signer's own life.
    pub not_before: OffsetDateTime,
    pub not_after: OffsetDateTime,
    pub sign_with_root: bool,
}

/// A certificate for such a key.
#[derive(Debug, Clone)]
pub struct Signed {
    /// PEM, leaf first, without the root.
    pub chain: String,
    pub serial: Vec<u8>,
    /// The key identifier of the signer.
    pub authority_key: Vec<u8>,
    pub not_before: OffsetDateTime,
    pub not_after: OffsetDateTime,
}

/// An open authority.
pub struct Authority {
    root: Signer,
    intermediate: Signer,
}

struct Signer {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
    not_before: OffsetDateTime,
    not_after: OffsetDateTime,
}

impl Authority {
    /// Opens the authority `id`, making what is not there and renewing an intermediate that is near its end. Blocks on
    /// the file system.
    ///
    /// # Errors
    /// When what is kept cannot be read as a CA, or nothing can be kept.
    pub fn open(
        storage: &FileStorage,
        id: &str,
        settings: &AuthoritySettings,
        now: OffsetDateTime,
    ) -> Result<Self, AuthorityError> {
        /// Two that make or renew a signer at the same time could keep the key of one with the certificate of the other.
        static OPENING: Mutex<()> = Mutex::new(());
        let _turn = OPENING.lock().unwrap_or_else(PoisonError::into_inner);
        let key = |file: &str| format!("pki/authorities/{}/{file}", crate::storage::key::safe(id));
        let name = if settings.name.is_empty() { "llmproxy Local Authority" } else { &settings.name };
        let root = match &settings.root_files {
            Some((certificate, private)) => Signer::from_files(certificate, private)?,
            None => match Signer::load(storage, &key("root"))? {
                Some(root) => root,
                None => {
                    let common =
                        common_name(&settings.root_common_name, || format!("{name} - {} ECC Root", now.year()));
                    let made = Signer::make(&common, ROOT_LIFETIME, 1, None, now)?;
                    let root = made.store(storage, &key("root"))?;
                    tracing::info!(
                        authority = id,
                        "made a root certificate; `llmproxy trust`, run as root, has this machine trust it"
                    );
                    root
                }
            },
        };
        let intermediate = match Signer::load(storage, &key("intermediate"))? {
            Some(kept) if !kept.is_due(now) => kept,
            _ => {
                let common = common_name(&settings.intermediate_common_name, || format!("{name} - ECC Intermediate"));
                let lifetime = match settings.intermediate_lifetime {
                    Duration::ZERO => INTERMEDIATE_LIFETIME,
                    told => time::Duration::try_from(told).unwrap_or(INTERMEDIATE_LIFETIME),
                };
                Signer::make(&common, lifetime, 0, Some(&root), now)?.store(storage, &key("intermediate"))?
            }
        };
        Ok(Self { root, intermediate })
    }

    /// The root certificate, PEM: what clients are to trust.
    #[must_use]
    pub fn root_pem(&self) -> &str {
        &self.root.pem
    }

    /// Whether the intermediate is near its end, so that the authority should be opened anew.
    #[must_use]
    pub fn is_due(&self, now: OffsetDateTime) -> bool {
        self.intermediate.is_due(now)
    }

    /// A certificate for a name, no longer than its signer is good for. The chain has the intermediate, not the root.
    pub fn issue(
        &self,
        name: &str,
        lifetime: Duration,
        key_type: KeyType,
        sign_with_root: bool,
        now: OffsetDateTime,
    ) -> Result<Issued, AuthorityError> {
        let signer = if sign_with_root { &self.root } else { &self.intermediate };
        let key = key_type.generate().map_err(|e| failed("making a key", e))?;
        let lifetime = time::Duration::try_from(lifetime).unwrap_or(time::Duration::HOUR);
        let mut params = leaf(&[name.to_owned()])?;
        params.not_before = (now - BACKDATE).max(signer.not_before);
        params.not_after = (now + lifetime).min(signer.not_after);
        let leaf = params.signed_by(&key, &signer.issuer).map_err(|e| failed("signing", e))?;
        let mut chain = leaf.pem();
        if !sign_with_root {
            chain.push_str(&signer.pem);
        }
        Ok(Issued { chain, key: key.serialize_pem() })
    }

    /// A certificate for a key that another holds, as for [`issue`](Self::issue). Who calls has seen that the key and the
    /// names are theirs.
    pub fn sign(&self, wanted: &Wanted<'_>) -> Result<Signed, AuthorityError> {
        let signer = if wanted.sign_with_root { &self.root } else { &self.intermediate };
        let public_key = SubjectPublicKeyInfo::from_der(wanted.public_key).map_err(|e| failed("the key", e))?;
        let mut params = leaf(wanted.names)?;
        let mut serial = [0; 16];
        getrandom::fill(&mut serial).map_err(|e| failed("randomness", e))?;
        // Positive and of full length (RFC 5280 section 4.1.2.2).
        serial[0] = serial[0] & 0x7f | 0x40;
        params.serial_number = Some(SerialNumber::from_slice(&serial));
        params.not_before = wanted.not_before.max(signer.not_before);
        params.not_after = wanted.not_after.min(signer.not_after);
        if params.not_before >= params.not_after {
            return Err(AuthorityError("the certificate would not be good at any time".into()));
        }
        let (not_before, not_after) = (params.not_before, params.not_after);
        let leaf = params.signed_by(&public_key, &signer.issuer).map_err(|e| failed("signing", e))?;
        let mut chain = leaf.pem();
        if !wanted.sign_with_root {
            chain.push_str(&signer.pem);
        }
        Ok(Signed { chain, serial: serial.to_vec(), authority_key: authority_key(leaf.der())?, not_before, not_after })
    }
}

/// What all leaves have.
fn leaf(names: &[String]) -> Result<CertificateParams, AuthorityError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = names.iter().map(|name| subject(name)).collect::<Result<_, _>>()?;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

fn authority_key(leaf: &CertificateDer<'_>) -> Result<Vec<u8>, AuthorityError> {
    use x509_parser::extensions::ParsedExtension;
    let (_, leaf) = x509_parser::parse_x509_certificate(leaf).map_err(|e| failed("the new certificate", e))?;
    let identifier = leaf.extensions().iter().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::AuthorityKeyIdentifier(id) => id.key_identifier.as_ref().map(|id| id.0.to_vec()),
        _ => None,
    });
    identifier.ok_or_else(|| AuthorityError("the new certificate does not name its signer".into()))
}

fn common_name(told: &str, default: impl FnOnce() -> String) -> String {
    if told.is_empty() { default() } else { told.to_owned() }
}

fn subject(name: &str) -> Result<SanType, AuthorityError> {
    match parse_ip(name) {
        Some(ip) => Ok(SanType::IpAddress(ip)),
        None => name.try_into().map(SanType::DnsName).map_err(|e| failed("the name", e)),
    }
}

impl Signer {
    fn make(
        common_name: &str,
        lifetime: time::Duration,
        path_length: u8,
        by: Option<&Self>,
        now: OffsetDateTime,
    ) -> Result<(Self, String), AuthorityError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(|e| failed("making a key", e))?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(path_length));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.use_authority_key_identifier_extension = by.is_some();
        params.not_before = now - BACKDATE;
        params.not_after = by.map_or(now + lifetime, |signer| (now + lifetime).min(signer.not_after));
        let made = match by {
            None => params.self_signed(&key),
            Some(signer) => params.signed_by(&key, &signer.issuer),
        };
        let pem = made.map_err(|e| failed("signing", e))?.pem();
        let key_pem = key.serialize_pem();
        Ok((Self::read(&pem, key)?, key_pem))
    }

    fn read(pem: &str, key: KeyPair) -> Result<Self, AuthorityError> {
        let der = CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|e| failed("the CA certificate", e))?;
        let (_, x509) = x509_parser::parse_x509_certificate(&der).map_err(|e| failed("the CA certificate", e))?;
        let time = |t: x509_parser::time::ASN1Time| {
            OffsetDateTime::from_unix_timestamp(t.timestamp()).map_err(|e| failed("the CA certificate", e))
        };
        let (not_before, not_after) = (time(x509.validity().not_before)?, time(x509.validity().not_after)?);
        if !x509.is_ca() {
            return Err(AuthorityError("the CA certificate is not one of a CA".into()));
        }
        if x509.public_key().subject_public_key.data.as_ref() != key.public_key_raw() {
            return Err(AuthorityError("certificate and key of the CA do not belong together".into()));
        }
        let issuer = Issuer::from_ca_cert_der(&der, key).map_err(|e| failed("the CA certificate", e))?;
        Ok(Self { pem: pem.to_owned(), issuer, not_before, not_after })
    }

    fn from_pem(pem: &str, key: &[u8]) -> Result<Self, AuthorityError> {
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| AuthorityError("the CA key is not PEM".into()))?;
        let key = KeyPair::try_from(&key).map_err(|_| AuthorityError("the CA key is of an unknown kind".into()))?;
        Self::read(pem, key)
    }

    fn from_files(certificate: &str, key: &str) -> Result<Self, AuthorityError> {
        let read = |path: &str| std::fs::read(path).map_err(|e| AuthorityError(format!("cannot read {path}: {e}")));
        let (certificate, key) = (read(certificate)?, read(key)?);
        Self::from_pem(&String::from_utf8_lossy(&certificate), &key)
    }

    fn load(storage: &FileStorage, stem: &str) -> Result<Option<Self>, AuthorityError> {
        let read = |end: &str| {
            storage.load(&format!("{stem}.{end}")).map_err(|e| AuthorityError(format!("cannot read {stem}.{end}: {e}")))
        };
        let (Some(certificate), Some(key)) = (read("crt")?, read("key")?) else { return Ok(None) };
        let signer = Self::from_pem(&String::from_utf8_lossy(&certificate), &key);
        signer.map(Some).map_err(|e| AuthorityError(format!("{stem}: {e}")))
    }

    fn is_due(&self, now: OffsetDateTime) -> bool {
        let life = (self.not_after - self.not_before).as_seconds_f64();
        (self.not_after - now).as_seconds_f64() < life * RENEWAL_RATIO
    }
}

/// A new signer with its key, to be kept.
trait Store {
    fn store(self, storage: &FileStorage, stem: &str) -> Result<Signer, AuthorityError>;
}

impl Store for (Signer, String) {
    fn store(self, storage: &FileStorage, stem: &str) -> Result<Signer, AuthorityError> {
        let (signer, key) = self;
        let keep = |end: &str, value: &str| {
            let key = format!("{stem}.{end}");
            storage.store(&key, value.as_bytes()).map_err(|e| AuthorityError(format!("cannot keep {key}: {e}")))
        };
        // The key first: a certificate without one would be taken for lost.
        keep("key", &key)?;
        keep("crt", &signer.pem)?;
        Ok(signer)
    }
}

fn failed(what: &str, error: impl fmt::Display) -> AuthorityError {
    AuthorityError(format!("{what}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::Certificate;

    fn now() -> OffsetDateTime {
        OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap()
    }

    fn issue(authority: &Authority, name: &str, now: OffsetDateTime) -> Issued {
        authority.issue(name, Duration::from_hours(12), KeyType::P256, false, now).unwrap()
    }

    /// Verifies as a client that trusts the root alone.
    fn verify(authority: &Authority, issued: &Issued, name: &str, at: OffsetDateTime) -> Result<(), rustls::Error> {
        use rustls::client::danger::ServerCertVerifier;
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(authority.root_pem().as_bytes()).unwrap()).unwrap();
        let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier =
            rustls::client::WebPkiServerVerifier::builder_with_provider(std::sync::Arc::new(roots), provider).build();
        let chain: Vec<_> = CertificateDer::pem_slice_iter(issued.chain.as_bytes()).collect::<Result<_, _>>().unwrap();
        let at = std::time::Duration::from_secs(at.unix_timestamp().unsigned_abs());
        let at = rustls::pki_types::UnixTime::since_unix_epoch(at);
        let name = name.to_owned().try_into().unwrap();
        verifier.unwrap().verify_server_cert(&chain[0], &chain[1..], &name, &[], at).map(|_| ())
    }

    #[test]
    fn leaves_verify_by_the_root_for_their_name_and_time() {
        let folder = tempfile::tempdir().unwrap();
        let storage = FileStorage::new(folder.path());
        let authority = Authority::open(&storage, "local", &AuthoritySettings::default(), now()).unwrap();
        for name in ["a.localhost", "127.0.0.1", "::1"] {
            let issued = issue(&authority, name, now());
            verify(&authority, &issued, name, now()).unwrap();
            assert!(verify(&authority, &issued, "b.localhost", now()).is_err());
            assert!(verify(&authority, &issued, name, now() + time::Duration::hours(13)).is_err());
            Certificate::from_pem(issued.chain.as_bytes(), issued.key.as_bytes(), vec![]).unwrap();
        }
        let wildcard = issue(&authority, "*.a.localhost", now());
        verify(&authority, &wildcard, "x.a.localhost", now()).unwrap();
    }

    #[test]
    fn the_root_is_kept_and_the_intermediate_renewed_in_time() {
        let folder = tempfile::tempdir().unwrap();
        let storage = FileStorage::new(folder.path());
        let settings = AuthoritySettings { name: "Test".into(), ..AuthoritySettings::default() };
        let first = Authority::open(&storage, "local", &settings, now()).unwrap();
        let again = Authority::open(&storage, "local", &settings, now() + time::Duration::days(5)).unwrap();
        assert_eq!((first.root_pem(), &first.intermediate.pem), (again.root_pem(), &again.intermediate.pem));
        let late = now() + time::Duration::days(6);
        assert!(again.is_due(late));
        let renewed = Authority::open(&storage, "local", &settings, late).unwrap();
        assert_eq!(first.root_pem(), renewed.root_pem());
        assert_ne!(first.intermediate.pem, renewed.intermediate.pem);
        verify(&renewed, &issue(&renewed, "a.localhost", late), "a.localhost", late).unwrap();
        assert!(first.intermediate.not_after < renewed.intermediate.not_after);
    }

    #[test]
    fn keys_of_others_are_signed_for_all_names_within_the_life_of_the_signer() {
        let folder = tempfile::tempdir().unwrap();
        let storage = FileStorage::new(folder.path());
        let authority = Authority::open(&storage, "local", &AuthoritySettings::default(), now()).unwrap();
        let names = ["a.localhost".to_owned(), "*.b.localhost".to_owned(), "10.0.0.1".to_owned()];
        for key_type in [KeyType::P256, KeyType::P384, KeyType::Ed25519, KeyType::Rsa2048] {
            let public_key = rcgen::PublicKeyData::subject_public_key_info(&key_type.generate().unwrap());
            let wanted = Wanted {
                names: &names,
                public_key: &public_key,
                not_before: now(),
                not_after: now() + time::Duration::days(90),
                sign_with_root: false,
            };
            let signed = authority.sign(&wanted).unwrap();
            assert_eq!(signed.not_after, authority.intermediate.not_after);
            assert_eq!((signed.serial.len(), signed.serial[0] & 0xc0), (16, 0x40));
            let issued = Issued { chain: signed.chain, key: String::new() };
            for name in ["a.localhost", "x.b.localhost", "10.0.0.1"] {
                verify(&authority, &issued, name, now()).unwrap();
            }
            assert!(verify(&authority, &issued, "c.localhost", now()).is_err());
            let never = Wanted { not_before: now() + time::Duration::days(9), ..wanted };
            assert!(authority.sign(&never).is_err());
        }
    }

    #[test]
    fn what_is_no_ca_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let storage = FileStorage::new(folder.path());
        let made = rcgen::generate_simple_self_signed(vec!["a".to_owned()]).unwrap();
        storage.store("pki/authorities/local/root.crt", made.cert.pem().as_bytes()).unwrap();
        storage.store("pki/authorities/local/root.key", made.signing_key.serialize_pem().as_bytes()).unwrap();
        let error = Authority::open(&storage, "local", &AuthoritySettings::default(), now()).err().unwrap();
        assert!(error.to_string().contains("not one of a CA"), "{error}");
    }
}

//! A certificate authority of our own: a root of ten years, an intermediate of a week, leaves of hours; kept where Caddy
//! keeps its own, so that one already trusted goes on.

mod signer;

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rcgen::{
    CertificateParams, DistinguishedName, ExtendedKeyUsagePurpose, KeyUsagePurpose, SanType, SerialNumber,
    SubjectPublicKeyInfo,
};
use rustls::pki_types::CertificateDer;
use time::OffsetDateTime;

pub use signer::pem;
use signer::{CaCertificate, Signer, Unfit};

use super::key_type::KeyType;
use super::subject::parse_ip;
use crate::config::tls_types::{CertificateAuthority, KeyPair};
use crate::storage::FileStorage;

const ROOT_LIFETIME: time::Duration = time::Duration::days(3600);
const INTERMEDIATE_LIFETIME: time::Duration = time::Duration::days(7);
/// The intermediate is renewed when this share of its life is left (Caddy's default).
const RENEWAL_RATIO: f64 = 0.2;
/// Who looks at the log should know so long before a root is gone: it has to be taken to every client.
const ROOT_WARNING: time::Duration = time::Duration::days(60);
/// Clocks of clients may be slow: certificates are good from this long before they are made.
pub const BACKDATE: time::Duration = time::Duration::minutes(1);
/// Two that make or renew a signer at the same time could keep the key of one with the certificate of the other.
static OPENING: Mutex<()> = Mutex::new(());

/// What the `pki` option says of an authority.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct AuthoritySettings {
    /// Empty = `llmproxy Local Authority`.
    pub name: String,
    pub root_common_name: String,
    pub intermediate_common_name: String,
    /// Zero = a week.
    pub intermediate_lifetime: Duration,
    /// Root given as files: certificate, key. No key is needed where the intermediate is given too.
    pub root_files: Option<(String, String)>,
    /// Intermediate given as files: certificate (with what is between it and the root), key. Nobody renews it.
    pub intermediate_files: Option<(String, String)>,
    /// Share of its life that is left when the intermediate is renewed; zero = a fifth.
    pub renewal_ratio: f64,
    /// Where it is kept; `None` = with the certificates.
    pub storage: Option<FileStorage>,
}

impl From<&CertificateAuthority> for AuthoritySettings {
    fn from(ca: &CertificateAuthority) -> Self {
        let files = |pair: &Option<KeyPair>| pair.as_ref().map(|p| (p.certificate.clone(), p.private_key.clone()));
        let folder = ca.storage.as_ref().and_then(|module| module.get("root")?.as_str());
        Self {
            name: ca.name.clone(),
            root_common_name: ca.root_common_name.clone(),
            intermediate_common_name: ca.intermediate_common_name.clone(),
            intermediate_lifetime: ca.intermediate_lifetime.positive().unwrap_or_default(),
            root_files: files(&ca.root),
            intermediate_files: files(&ca.intermediate),
            renewal_ratio: ca.renewal_window_ratio,
            storage: folder.map(FileStorage::new),
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
    root: CaCertificate,
    /// `None` where the root's key is kept elsewhere.
    root_signer: Option<Arc<Signer>>,
    /// The root is of the storage, not of files of the admin's.
    is_kept: bool,
    intermediate: Signer,
    /// `None` = nobody renews the intermediate.
    renewal_ratio: Option<f64>,
}

impl Authority {
    /// Opens the authority `id`, making what is not there and renewing an intermediate that is near its end. Blocks on
    /// the file system.
    ///
    /// # Errors
    /// When what is kept cannot be read as a CA, or no root can be kept.
    pub fn open(
        storage: &FileStorage,
        id: &str,
        settings: &AuthoritySettings,
        now: OffsetDateTime,
    ) -> Result<Self, AuthorityError> {
        Self::open_in(storage, id, settings, now, false)
    }

    /// The same for a storage that cannot be written: what has to be made is in memory only.
    ///
    /// # Errors
    /// When what is kept cannot be read as a CA.
    pub fn open_in_memory(
        storage: &FileStorage,
        id: &str,
        settings: &AuthoritySettings,
        now: OffsetDateTime,
    ) -> Result<Self, AuthorityError> {
        Self::open_in(storage, id, settings, now, true)
    }

    /// The same authority with another intermediate, in memory only.
    ///
    /// # Errors
    /// When the key of the root is not here.
    pub fn renewed_in_memory(
        &self,
        storage: &FileStorage,
        id: &str,
        settings: &AuthoritySettings,
        now: OffsetDateTime,
    ) -> Result<Self, AuthorityError> {
        let place = Place { storage, id, settings, now, in_memory: true };
        let (intermediate, _) = place.make_intermediate(self.root_signer.as_deref())?;
        let (root, root_signer) = (self.root.clone(), self.root_signer.clone());
        let is_kept = self.is_kept;
        Ok(Self { root, root_signer, is_kept, intermediate, renewal_ratio: Some(place.ratio()) })
    }

    fn open_in(
        storage: &FileStorage,
        id: &str,
        settings: &AuthoritySettings,
        now: OffsetDateTime,
        in_memory: bool,
    ) -> Result<Self, AuthorityError> {
        let _turn = OPENING.lock().unwrap_or_else(PoisonError::into_inner);
        let place = Place { storage: settings.storage.as_ref().unwrap_or(storage), id, settings, now, in_memory };
        let (root, root_signer) = place.root()?;
        if root.not_after - now < ROOT_WARNING {
            tracing::warn!(authority = id, not_after = %root.not_after, "the root certificate ends soon: make another, and have clients trust it");
        }
        let (intermediate, renewal_ratio) = match &settings.intermediate_files {
            Some((certificate, key)) => (Signer::from_files(certificate, key)?, None),
            None => (place.intermediate(&root, root_signer.as_deref())?, Some(place.ratio())),
        };
        let is_kept = settings.root_files.is_none();
        Ok(Self { root, root_signer, is_kept, intermediate, renewal_ratio })
    }

    /// Keeps the root, and the intermediate, where the storage has lost them; true when it had. Another root that is
    /// kept there stands. Blocks on the file system.
    ///
    /// # Errors
    /// When the storage cannot be read or written.
    pub fn put_back(
        &self,
        storage: &FileStorage,
        id: &str,
        settings: &AuthoritySettings,
    ) -> Result<bool, AuthorityError> {
        let Some(root) = self.root_signer.as_ref().filter(|_| self.is_kept && settings.root_files.is_none()) else {
            return Ok(false);
        };
        let _turn = OPENING.lock().unwrap_or_else(PoisonError::into_inner);
        let place = Place {
            storage: settings.storage.as_ref().unwrap_or(storage),
            id,
            settings,
            now: OffsetDateTime::now_utc(),
            in_memory: false,
        };
        if !place.has_lost(root)? {
            return Ok(false);
        }
        let _turn = place.turn().map_err(|e| failed("the certificate storage", e))?;
        // Another process may have put its own there meanwhile.
        if !place.has_lost(root)? {
            return Ok(false);
        }
        if self.renewal_ratio.is_some() && settings.intermediate_files.is_none() {
            self.intermediate.put_back(place.storage, &place.stem("intermediate"))?;
        }
        // Last: what is there is whole.
        root.put_back(place.storage, &place.stem("root"))?;
        Ok(true)
    }

    /// What is wrong with the files that the settings name, without making or keeping anything; `Ok` has what will be
    /// wrong soon.
    ///
    /// # Errors
    /// When certificates could not be signed, or clients that trust the root would not take them.
    pub fn check(settings: &AuthoritySettings, now: OffsetDateTime) -> Result<Vec<String>, AuthorityError> {
        let mut advice = Vec::new();
        let mut check = |file: &str, certificate: &CaCertificate, notice: time::Duration| {
            let end = certificate.not_after.date();
            if certificate.not_after <= now {
                return Err(AuthorityError(format!("{file} expired on {end}")));
            }
            if certificate.not_after - now < notice {
                advice.push(format!("{file} expires on {end}, and what is given as a file is not renewed"));
            }
            Ok(())
        };
        let root = match &settings.root_files {
            None => None,
            Some((certificate, key)) if key.is_empty() => Some((certificate, CaCertificate::from_file(certificate)?)),
            Some((certificate, key)) => Some((certificate, Signer::from_files(certificate, key)?.certificate)),
        };
        if let Some((file, root)) = &root {
            check(file, root, ROOT_WARNING)?;
        }
        let Some((certificate, key)) = &settings.intermediate_files else {
            return match &settings.root_files {
                Some((file, key)) if key.is_empty() => {
                    Err(AuthorityError(format!("{file} without its key cannot sign an intermediate")))
                }
                _ => Ok(advice),
            };
        };
        let intermediate = Signer::from_files(certificate, key)?;
        let life = intermediate.certificate.not_after - intermediate.certificate.not_before;
        check(certificate, &intermediate.certificate, life * RENEWAL_RATIO)?;
        match root.map(|(file, root)| (file, intermediate.try_under(&root, now))) {
            Some((file, Err(Unfit::NotSigned))) => {
                Err(AuthorityError(format!("{certificate} is not signed by the root {file}")))
            }
            Some((file, Err(Unfit::Otherwise(why)))) => {
                Err(AuthorityError(format!("{certificate} under {file}: {why}")))
            }
            Some((_, Ok(()))) | None => Ok(advice),
        }
    }

    /// The root certificate, PEM: what clients are to trust.
    #[must_use]
    pub fn root_pem(&self) -> String {
        self.root.own_pem()
    }

    /// Whether the intermediate is near its end, so that the authority should be opened anew.
    #[must_use]
    pub fn is_due(&self, now: OffsetDateTime) -> bool {
        self.renewal_ratio.is_some_and(|ratio| self.intermediate.is_due(ratio, now))
    }

    fn signer(&self, with_root: bool) -> Result<&Signer, AuthorityError> {
        match &self.root_signer {
            _ if !with_root => Ok(&self.intermediate),
            Some(root) => Ok(root),
            None => Err(AuthorityError("the key of the root is not here: only the intermediate can sign".into())),
        }
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
        let signer = self.signer(sign_with_root)?;
        if signer.certificate.not_after - now < BACKDATE {
            return Err(AuthorityError(format!("the CA certificate ends on {}", signer.certificate.not_after)));
        }
        let key = key_type.generate().map_err(|e| failed("making a key", e))?;
        let lifetime = time::Duration::try_from(lifetime).unwrap_or(time::Duration::HOUR);
        let mut params = leaf(&[name.to_owned()])?;
        params.not_before = (now - BACKDATE).max(signer.certificate.not_before);
        params.not_after = (now + lifetime).min(signer.certificate.not_after);
        let leaf = params.signed_by(&key, &signer.issuer).map_err(|e| failed("signing", e))?;
        let mut chain = leaf.pem();
        if !sign_with_root {
            chain.push_str(&signer.certificate.chain_pem());
        }
        Ok(Issued { chain, key: key.serialize_pem() })
    }

    /// A certificate for a key that another holds, as for [`issue`](Self::issue). Who calls has seen that the key and the
    /// names are theirs.
    pub fn sign(&self, wanted: &Wanted<'_>) -> Result<Signed, AuthorityError> {
        let signer = self.signer(wanted.sign_with_root)?;
        let public_key = SubjectPublicKeyInfo::from_der(wanted.public_key).map_err(|e| failed("the key", e))?;
        let mut params = leaf(wanted.names)?;
        let mut serial = [0; 16];
        getrandom::fill(&mut serial).map_err(|e| failed("randomness", e))?;
        // Positive and of full length (RFC 5280 section 4.1.2.2).
        serial[0] = serial[0] & 0x7f | 0x40;
        params.serial_number = Some(SerialNumber::from_slice(&serial));
        params.not_before = wanted.not_before.max(signer.certificate.not_before);
        params.not_after = wanted.not_after.min(signer.certificate.not_after);
        if params.not_before >= params.not_after {
            return Err(AuthorityError("the certificate would not be good at any time".into()));
        }
        let (not_before, not_after) = (params.not_before, params.not_after);
        let leaf = params.signed_by(&public_key, &signer.issuer).map_err(|e| failed("signing", e))?;
        let mut chain = leaf.pem();
        if !wanted.sign_with_root {
            chain.push_str(&signer.certificate.chain_pem());
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

/// Where the signers of one authority are kept, and what is told of them.
struct Place<'a> {
    storage: &'a FileStorage,
    id: &'a str,
    settings: &'a AuthoritySettings,
    now: OffsetDateTime,
    /// Nothing is kept.
    in_memory: bool,
}

impl Place<'_> {
    fn root(&self) -> Result<(CaCertificate, Option<Arc<Signer>>), AuthorityError> {
        let signer = match &self.settings.root_files {
            Some((certificate, key)) if key.is_empty() => return Ok((CaCertificate::from_file(certificate)?, None)),
            Some((certificate, key)) => Signer::from_files(certificate, key)?,
            None => self.kept_root()?,
        };
        Ok((signer.certificate.clone(), Some(Arc::new(signer))))
    }

    fn kept_root(&self) -> Result<Signer, AuthorityError> {
        let stem = self.stem("root");
        // A folder that cannot even be looked into has nothing for us.
        let hidden = self.in_memory && self.storage.modified(&format!("{stem}.key")).is_err();
        if !hidden && let Some(kept) = Signer::load(self.storage, &stem)? {
            return Ok(kept);
        }
        if self.in_memory {
            return self.make_root().map(|(root, _)| root);
        }
        let _turn = self.turn().map_err(|e| failed("the certificate storage", e))?;
        // Another process may have made it meanwhile.
        if let Some(kept) = Signer::load(self.storage, &stem)? {
            return Ok(kept);
        }
        let (root, key) = self.make_root()?;
        root.keep(&key, self.storage, &stem)?;
        tracing::info!(
            authority = self.id,
            "made a root certificate; `llmproxy trust`, run as root, has this machine trust it"
        );
        Ok(root)
    }

    /// Whether the certificate or the key of this root is not there any more, and no other root stands in its place.
    fn has_lost(&self, root: &Signer) -> Result<bool, AuthorityError> {
        let stem = self.stem("root");
        let read = |end: &str| {
            self.storage.load(&format!("{stem}.{end}")).map_err(|e| failed(&format!("cannot read {stem}.{end}"), e))
        };
        Ok(match (read("crt")?, read("key")?) {
            (Some(_), Some(_)) => false,
            (Some(certificate), None) => {
                CaCertificate::from_pem(&certificate).is_ok_and(|kept| kept.own_pem() == root.certificate.own_pem())
            }
            (None, _) => true,
        })
    }

    fn make_root(&self) -> Result<(Signer, String), AuthorityError> {
        let name =
            common_name(&self.settings.root_common_name, || format!("{} - {} ECC Root", self.name(), self.now.year()));
        Signer::make(&name, ROOT_LIFETIME, 1, None, self.now)
    }

    fn intermediate(&self, root: &CaCertificate, by: Option<&Signer>) -> Result<Signer, AuthorityError> {
        let stem = self.stem("intermediate");
        let usable = |kept: &Signer| {
            !kept.is_due(self.ratio(), self.now) && kept.try_under(root, self.now) != Err(Unfit::NotSigned)
        };
        if let Some(kept) = self.kept_intermediate(&stem).filter(usable) {
            return Ok(kept);
        }
        // Without a lock, another process may make one too: each has what it needs, and one is kept.
        let _turn = self.turn();
        if let Some(kept) = self.kept_intermediate(&stem).filter(usable) {
            return Ok(kept);
        }
        let (made, key) = self.make_intermediate(by)?;
        if !self.in_memory
            && let Err(error) = made.keep(&key, self.storage, &stem)
        {
            // Clients trust the root: one that only this process has is as good.
            tracing::error!(authority = self.id, %error, "the new intermediate is in memory only");
        }
        Ok(made)
    }

    fn make_intermediate(&self, by: Option<&Signer>) -> Result<(Signer, String), AuthorityError> {
        let Some(by) = by else {
            return Err(AuthorityError("the key of the root is not here: no intermediate can be signed".into()));
        };
        let name =
            common_name(&self.settings.intermediate_common_name, || format!("{} - ECC Intermediate", self.name()));
        let lifetime = match self.settings.intermediate_lifetime {
            Duration::ZERO => INTERMEDIATE_LIFETIME,
            told => time::Duration::try_from(told).unwrap_or(INTERMEDIATE_LIFETIME),
        };
        Signer::make(&name, lifetime, 0, Some(by), self.now)
    }

    /// What cannot be read is made anew, as what is due is.
    fn kept_intermediate(&self, stem: &str) -> Option<Signer> {
        Signer::load(self.storage, stem).unwrap_or_else(|error| {
            tracing::warn!(authority = self.id, %error, "the intermediate that is kept is of no use");
            None
        })
    }

    fn turn(&self) -> std::io::Result<crate::storage::BriefLock> {
        self.storage.lock_briefly(&format!("pki_{}", self.id))
    }

    fn stem(&self, file: &str) -> String {
        format!("pki/authorities/{}/{file}", crate::storage::key::safe(self.id))
    }

    fn name(&self) -> &str {
        if self.settings.name.is_empty() { "llmproxy Local Authority" } else { &self.settings.name }
    }

    fn ratio(&self) -> f64 {
        if self.settings.renewal_ratio > 0.0 { self.settings.renewal_ratio } else { RENEWAL_RATIO }
    }
}

fn failed(what: &str, error: impl fmt::Display) -> AuthorityError {
    AuthorityError(format!("{what}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::Certificate;
    use rustls::pki_types::pem::PemObject;

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
        assert_eq!(
            (first.root_pem(), first.intermediate.certificate.chain_pem()),
            (again.root_pem(), again.intermediate.certificate.chain_pem())
        );
        let late = now() + time::Duration::days(6);
        assert!(again.is_due(late));
        let renewed = Authority::open(&storage, "local", &settings, late).unwrap();
        assert_eq!(first.root_pem(), renewed.root_pem());
        assert_ne!(first.intermediate.certificate.chain_pem(), renewed.intermediate.certificate.chain_pem());
        verify(&renewed, &issue(&renewed, "a.localhost", late), "a.localhost", late).unwrap();
        assert!(first.intermediate.certificate.not_after < renewed.intermediate.certificate.not_after);
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
            assert_eq!(signed.not_after, authority.intermediate.certificate.not_after);
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

    /// Keeps signers as files, as an admin has them; their names.
    fn files(folder: &std::path::Path, name: &str, made: &(Signer, String)) -> (String, String) {
        let path = |end: &str| folder.join(format!("{name}.{end}")).display().to_string();
        // A file may hold the key beside the certificate.
        std::fs::write(path("crt"), made.1.clone() + &made.0.certificate.chain_pem()).unwrap();
        std::fs::write(path("key"), &made.1).unwrap();
        (path("crt"), path("key"))
    }

    fn year() -> time::Duration {
        time::Duration::days(365)
    }

    #[test]
    fn an_intermediate_given_as_files_signs_under_a_root_whose_key_is_elsewhere() {
        let folder = tempfile::tempdir().unwrap();
        let root = Signer::make("Root", year(), 1, None, now()).unwrap();
        let intermediate = Signer::make("Issuing", year(), 0, Some(&root.0), now()).unwrap();
        let (root_file, _) = files(folder.path(), "root", &root);
        let settings = AuthoritySettings {
            root_files: Some((root_file, String::new())),
            intermediate_files: Some(files(folder.path(), "issuing", &intermediate)),
            ..AuthoritySettings::default()
        };
        assert_eq!(Authority::check(&settings, now()).unwrap(), Vec::<String>::new());
        let storage = FileStorage::new(folder.path().join("storage"));
        let authority = Authority::open(&storage, "local", &settings, now()).unwrap();
        let issued = issue(&authority, "a.localhost", now());
        verify(&authority, &issued, "a.localhost", now()).unwrap();
        assert!(!issued.chain.contains("PRIVATE") && !authority.root_pem().contains("PRIVATE"));
        assert!(!storage.root().exists(), "nothing is made beside the files");
        let with_root = authority.issue("a.localhost", Duration::from_hours(1), KeyType::P256, true, now());
        assert!(with_root.err().unwrap().to_string().contains("key of the root is not here"));

        let late = now() + time::Duration::days(350);
        let advice = Authority::check(&settings, late).unwrap();
        assert_eq!(advice.len(), 2, "{advice:?}");
        let after = now() + time::Duration::days(366);
        assert!(Authority::check(&settings, after).unwrap_err().to_string().contains("expired on"));
        // A signer at its end fails, rather than making certificates that are due at once.
        let ended = authority.issue("a.localhost", Duration::from_hours(1), KeyType::P256, false, after);
        assert!(ended.err().unwrap().to_string().contains("ends on"));
    }

    #[test]
    fn files_that_do_not_belong_together_are_told() {
        let folder = tempfile::tempdir().unwrap();
        let (root, other) = (
            Signer::make("Root", year(), 1, None, now()).unwrap(),
            // The same name, another key.
            Signer::make("Root", year(), 1, None, now()).unwrap(),
        );
        let intermediate = Signer::make("Issuing", year(), 0, Some(&root.0), now()).unwrap();
        let (root, other) = (files(folder.path(), "root", &root), files(folder.path(), "other", &other));
        let intermediate = files(folder.path(), "issuing", &intermediate);
        let refused = |root: (&String, &str), intermediate: Option<(&String, &String)>| {
            let settings = AuthoritySettings {
                root_files: Some((root.0.clone(), root.1.to_owned())),
                intermediate_files: intermediate.map(|(c, k)| (c.clone(), k.clone())),
                ..AuthoritySettings::default()
            };
            Authority::check(&settings, now()).unwrap_err().to_string()
        };
        let mixed = refused((&root.0, &other.1), None);
        assert!(mixed.contains("do not belong together") && mixed.contains("root.crt"), "{mixed}");
        let unsigned = refused((&other.0, &other.1), Some((&intermediate.0, &intermediate.1)));
        assert!(
            unsigned.contains("issuing.crt is not signed by the root") && unsigned.contains("other.crt"),
            "{unsigned}"
        );
        assert!(refused((&root.0, ""), None).contains("without its key"));
        assert!(refused((&root.0, &root.1), Some((&intermediate.0, &root.1))).contains("do not belong together"));
        assert!(refused((&"gone.crt".to_owned(), ""), None).contains("cannot read gone.crt"));
        assert!(refused((&root.1, ""), None).contains("no PEM certificate"));
    }

    #[test]
    fn an_authority_may_have_a_folder_and_times_of_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let (general, own) = (folder.path().join("general"), folder.path().join("own"));
        let settings = AuthoritySettings {
            storage: Some(FileStorage::new(&own)),
            renewal_ratio: 0.9,
            intermediate_lifetime: Duration::from_hours(240),
            ..AuthoritySettings::default()
        };
        let open = |at| Authority::open(&FileStorage::new(&general), "local", &settings, at).unwrap();
        let first = open(now());
        assert!(own.join("pki/authorities/local/root.key").exists() && !general.exists());
        assert!(!first.is_due(now()) && first.is_due(now() + time::Duration::hours(25)));
        // A root put in the place of the old one: the intermediate of the old is of no use.
        let root = Signer::make("New", year(), 1, None, now()).unwrap();
        root.0.keep(&root.1, &FileStorage::new(&own), "pki/authorities/local/root").unwrap();
        let second = open(now());
        assert_ne!(first.root_pem(), second.root_pem());
        verify(&second, &issue(&second, "a.localhost", now()), "a.localhost", now()).unwrap();
    }

    #[test]
    fn a_new_intermediate_that_cannot_be_kept_is_used_all_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let storage = FileStorage::new(folder.path());
        let settings = AuthoritySettings::default();
        let first = Authority::open(&storage, "local", &settings, now()).unwrap();
        let ca = folder.path().join("pki/authorities/local");
        let kept = |file: &str| std::fs::read(ca.join(file)).unwrap();
        let (root, key) = (kept("root.crt"), kept("root.key"));
        // Folders stand where the files of the intermediate should, and where locks should be.
        for file in ["intermediate.crt", "intermediate.key"] {
            std::fs::remove_file(ca.join(file)).unwrap();
        }
        std::fs::create_dir(ca.join("intermediate.key")).unwrap();
        std::fs::remove_dir_all(folder.path().join("locks")).unwrap();
        std::fs::write(folder.path().join("locks"), "in the way").unwrap();
        let again = Authority::open(&storage, "local", &settings, now()).unwrap();
        verify(&first, &issue(&again, "a.localhost", now()), "a.localhost", now()).unwrap();
        assert_eq!((kept("root.crt"), kept("root.key")), (root, key));
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

//! A CA certificate with its key: made, read from PEM, kept.

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256,
};
use rustls::client::danger::ServerCertVerifier;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::{CertificateError, RootCertStore};
use time::OffsetDateTime;

use super::{AuthorityError, BACKDATE, failed, leaf};
use crate::storage::FileStorage;

/// A CA's certificate.
#[derive(Clone)]
pub(super) struct CaCertificate {
    /// The certificate, and those between it and the root, if its file has them. Certificates only, whatever else stood
    /// in the file.
    chain: Vec<CertificateDer<'static>>,
    pub not_before: OffsetDateTime,
    pub not_after: OffsetDateTime,
}

/// A CA's certificate with its key.
pub(super) struct Signer {
    pub certificate: CaCertificate,
    pub issuer: Issuer<'static, KeyPair>,
}

/// Why clients that trust a root would not take what an intermediate signs.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Unfit {
    /// The root did not sign it.
    NotSigned,
    Otherwise(String),
}

impl CaCertificate {
    /// Reads all certificates of a PEM text; the first is the CA's.
    pub fn from_pem(pem: &[u8]) -> Result<Self, AuthorityError> {
        let chain: Vec<_> = CertificateDer::pem_slice_iter(pem)
            .collect::<Result<_, _>>()
            .map_err(|e| failed("the CA certificate", e))?;
        let Some(first) = chain.first() else { return Err(AuthorityError("there is no PEM certificate".into())) };
        let (_, x509) = x509_parser::parse_x509_certificate(first).map_err(|e| failed("the CA certificate", e))?;
        let time = |t: x509_parser::time::ASN1Time| {
            OffsetDateTime::from_unix_timestamp(t.timestamp()).map_err(|e| failed("the CA certificate", e))
        };
        let (not_before, not_after) = (time(x509.validity().not_before)?, time(x509.validity().not_after)?);
        if !x509.is_ca() {
            return Err(AuthorityError("the CA certificate is not one of a CA".into()));
        }
        Ok(Self { chain, not_before, not_after })
    }

    pub fn from_file(path: &str) -> Result<Self, AuthorityError> {
        Self::from_pem(&read_file(path)?).map_err(|e| AuthorityError(format!("{path}: {e}")))
    }

    /// The CA's own certificate, PEM.
    pub fn own_pem(&self) -> String {
        self.chain.first().map(|der| pem(der)).unwrap_or_default()
    }

    /// The whole chain, PEM.
    pub fn chain_pem(&self) -> String {
        self.chain.iter().map(|der| pem(der)).collect()
    }
}

impl Signer {
    /// A new one, with its key in PEM: signed `by` another, or by itself.
    pub fn make(
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
        params.not_after = by.map_or(now + lifetime, |signer| (now + lifetime).min(signer.certificate.not_after));
        let made = match by {
            None => params.self_signed(&key),
            Some(signer) => params.signed_by(&key, &signer.issuer),
        };
        let pem = made.map_err(|e| failed("signing", e))?.pem();
        let key_pem = key.serialize_pem();
        Ok((Self::of(CaCertificate::from_pem(pem.as_bytes())?, key)?, key_pem))
    }

    fn of(certificate: CaCertificate, key: KeyPair) -> Result<Self, AuthorityError> {
        let Some(der) = certificate.chain.first() else { return Err(AuthorityError("there is no certificate".into())) };
        let (_, x509) = x509_parser::parse_x509_certificate(der).map_err(|e| failed("the CA certificate", e))?;
        if x509.public_key().subject_public_key.data.as_ref() != key.public_key_raw() {
            return Err(AuthorityError("certificate and key of the CA do not belong together".into()));
        }
        let issuer = Issuer::from_ca_cert_der(der, key).map_err(|e| failed("the CA certificate", e))?;
        Ok(Self { certificate, issuer })
    }

    fn from_pem(certificate: &[u8], key: &[u8]) -> Result<Self, AuthorityError> {
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| AuthorityError("the CA key is not PEM".into()))?;
        let key = KeyPair::try_from(&key).map_err(|_| AuthorityError("the CA key is of an unknown kind".into()))?;
        Self::of(CaCertificate::from_pem(certificate)?, key)
    }

    pub fn from_files(certificate: &str, key: &str) -> Result<Self, AuthorityError> {
        let (chain, private) = (read_file(certificate)?, read_file(key)?);
        Self::from_pem(&chain, &private).map_err(|e| AuthorityError(format!("{certificate}, {key}: {e}")))
    }

    pub fn load(storage: &FileStorage, stem: &str) -> Result<Option<Self>, AuthorityError> {
        let read = |end: &str| {
            storage.load(&format!("{stem}.{end}")).map_err(|e| AuthorityError(format!("cannot read {stem}.{end}: {e}")))
        };
        let (Some(certificate), Some(key)) = (read("crt")?, read("key")?) else { return Ok(None) };
        Self::from_pem(&certificate, &key).map(Some).map_err(|e| AuthorityError(format!("{stem}: {e}")))
    }

    pub fn keep(&self, key_pem: &str, storage: &FileStorage, stem: &str) -> Result<(), AuthorityError> {
        let keep = |end: &str, value: &str| {
            let key = format!("{stem}.{end}");
            storage.store(&key, value.as_bytes()).map_err(|e| AuthorityError(format!("cannot keep {key}: {e}")))
        };
        // The key first: a certificate without one would be taken for lost.
        keep("key", key_pem)?;
        keep("crt", &self.certificate.chain_pem())
    }

    /// Keeps it anew.
    pub fn put_back(&self, storage: &FileStorage, stem: &str) -> Result<(), AuthorityError> {
        self.keep(&self.issuer.key().serialize_pem(), storage, stem)
    }

    /// Whether less of its life is left than this share.
    pub fn is_due(&self, ratio: f64, now: OffsetDateTime) -> bool {
        let CaCertificate { not_before, not_after, .. } = self.certificate;
        (not_after - now).as_seconds_f64() < (not_after - not_before).as_seconds_f64() * ratio
    }

    /// Signs a leaf that nobody gets, and looks at it as a client does that trusts `root` alone.
    pub fn try_under(&self, root: &CaCertificate, now: OffsetDateTime) -> Result<(), Unfit> {
        const NAME: &str = "check.internal";
        let otherwise = |e: &dyn std::fmt::Display| Unfit::Otherwise(e.to_string());
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(|e| otherwise(&e))?;
        let mut params = leaf(&[NAME.to_owned()]).map_err(|e| otherwise(&e))?;
        (params.not_before, params.not_after) = (now - BACKDATE, now + BACKDATE);
        let signed = params.signed_by(&key, &self.issuer).map_err(|e| otherwise(&e))?;
        let mut roots = RootCertStore::empty();
        for der in root.chain.iter().take(1) {
            roots.add(der.clone()).map_err(|e| otherwise(&e))?;
        }
        let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier = rustls::client::WebPkiServerVerifier::builder_with_provider(roots.into(), provider)
            .build()
            .map_err(|e| otherwise(&e))?;
        let name = NAME.try_into().map_err(|e| otherwise(&e))?;
        let at = std::time::Duration::from_secs(u64::try_from(now.unix_timestamp()).unwrap_or_default());
        let at = UnixTime::since_unix_epoch(at);
        match verifier.verify_server_cert(signed.der(), &self.certificate.chain, &name, &[], at) {
            Ok(_) => Ok(()),
            Err(rustls::Error::InvalidCertificate(
                CertificateError::UnknownIssuer | CertificateError::BadSignature,
            )) => Err(Unfit::NotSigned),
            // A CA for some names only: the made-up one is not among them, and the verifier's own type is not ours to see.
            Err(error) if format!("{error:?}").contains("NameConstraintViolation") => Ok(()),
            Err(error) => Err(otherwise(&error)),
        }
    }
}

fn read_file(path: &str) -> Result<Vec<u8>, AuthorityError> {
    std::fs::read(path).map_err(|e| AuthorityError(format!("cannot read {path}: {e}")))
}

/// One certificate as PEM.
#[must_use]
pub fn pem(certificate: &[u8]) -> String {
    use base64::Engine;
    let text = base64::engine::general_purpose::STANDARD.encode(certificate);
    let mut out = String::from("-----BEGIN CERTIFICATE-----\n");
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let (line, more) = rest.split_at(rest.len().min(64));
        out.push_str(line);
        out.push('\n');
        rest = more;
    }
    out.push_str("-----END CERTIFICATE-----\n");
    out
}

//! Whether a certificate is still good in its CA's eyes (OCSP, RFC 6960): asked by us, so that clients need not ask.
//!
//! ```text
//! chain ─▶ Query{responder, id} ─ask─▶ answer, DER ─read─▶ signature, id, times ─▶ Response{status, until}
//! ```

mod der;
mod response;

use std::fmt;

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use bytes::Bytes;
use http::{Request, header};
use rustls::pki_types::CertificateDer;
use time::OffsetDateTime;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::oid_registry::OID_PKIX_ACCESS_DESCRIPTOR_OCSP;

pub use response::{Response, Status, is_of_use};

use super::acme::Http;
use crate::config::tls_types::AcmeIssuer;

/// Why there is no answer to be used.
#[derive(Debug)]
pub struct OcspError(String);

impl fmt::Display for OcspError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for OcspError {}

/// What to ask about one certificate.
#[derive(Debug, Clone)]
pub struct Query {
    /// The URL that the certificate names.
    pub responder: String,
    id: CertId,
    issuer: CertificateDer<'static>,
}

/// A certificate as responders name it: with SHA-1, which all of them know.
#[derive(Debug, Clone, PartialEq, Eq)]
struct CertId {
    name_hash: Vec<u8>,
    key_hash: Vec<u8>,
    serial: Vec<u8>,
}

impl Query {
    /// `None` when the leaf names no responder, or the chain has no issuer.
    #[must_use]
    pub fn of(chain: &[CertificateDer<'static>]) -> Option<Self> {
        let [leaf, issuer, ..] = chain else { return None };
        let (_, read_leaf) = x509_parser::parse_x509_certificate(leaf).ok()?;
        let responder = responder(&read_leaf)?;
        let (_, read_issuer) = x509_parser::parse_x509_certificate(issuer).ok()?;
        let hash = |bytes: &[u8]| digest(&SHA1_FOR_LEGACY_USE_ONLY, bytes).as_ref().to_vec();
        let id = CertId {
            name_hash: hash(read_leaf.issuer().as_raw()),
            key_hash: hash(&read_issuer.public_key().subject_public_key.data),
            serial: read_leaf.raw_serial().to_vec(),
        };
        Some(Self { responder, id, issuer: issuer.clone() })
    }

    /// Asks a responder, which need not be the one that the certificate names. The answer is DER, to be stapled as it
    /// is.
    pub async fn ask(&self, responder: &str, now: OffsetDateTime) -> Result<(Bytes, Response), OcspError> {
        let failed = |e: String| OcspError(format!("the OCSP responder: {e}"));
        let http = Http::new(&AcmeIssuer::default()).map_err(|e| failed(e.to_string()))?;
        let request = Request::post(responder)
            .header(header::CONTENT_TYPE, "application/ocsp-request")
            .body(Bytes::from(self.request()))
            .map_err(|e| failed(e.to_string()))?;
        let answer = http.send(request).await.map_err(failed)?;
        if !answer.status().is_success() {
            return Err(failed(format!("status {}", answer.status().as_u16())));
        }
        let der = answer.into_body();
        let read = self.read(&der, now)?;
        Ok((der, read))
    }

    /// Reads an answer: it must be about this certificate, signed by its issuer or for it, and of now.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read(&self, der: &[u8], now: OffsetDateTime) -> Result<Response, OcspError> {
        response::read(der, &self.id, &self.issuer, now)
    }

    fn request(&self) -> Vec<u8> {
        // OCSPRequest { TBSRequest { requestList { Request { CertID } } } }
        let request = der::sequence(&[&self.id.der()]);
        der::sequence(&[&der::sequence(&[&der::sequence(&[&request])])])
    }
}

impl CertId {
    fn der(&self) -> Vec<u8> {
        /// SHA-1 with its empty parameters.
        const SHA1: [u8; 9] = [0x06, 0x05, 0x2b, 0x0e, 0x03, 0x02, 0x1a, 0x05, 0x00];
        der::sequence(&[
            &der::sequence(&[&SHA1]),
            &der::item(der::OCTETS, &self.name_hash),
            &der::item(der::OCTETS, &self.key_hash),
            &der::item(der::INTEGER, &self.serial),
        ])
    }
}

/// The first responder over HTTP that the certificate names.
fn responder(leaf: &X509Certificate<'_>) -> Option<String> {
    leaf.iter_extensions().find_map(|extension| {
        let ParsedExtension::AuthorityInfoAccess(access) = extension.parsed_extension() else { return None };
        access.accessdescs.iter().find_map(|description| match &description.access_location {
            GeneralName::URI(url)
                if description.access_method == OID_PKIX_ACCESS_DESCRIPTOR_OCSP && url.starts_with("http") =>
            {
                Some((*url).to_owned())
            }
            _ => None,
        })
    })
}

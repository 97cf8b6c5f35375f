//! Certificates from a CA that speaks ACME (RFC 8555): account, order, challenge, certificate.
//!
//! `instant-acme` speaks the protocol; here is what surrounds it: accounts and orders in the storage (Caddy's layout), the
//! challenges answered by our own listeners, and what is tried in which order.
//!
//! ```text
//! account (kept, else made) ─▶ order (kept, else made) ─▶ challenge on the board ─▶ CA asks us ─▶ CSR ─▶ chain
//! ```

mod account;
mod challenge;
mod eab;
mod http;
mod order;

use std::fmt;

pub use challenge::{ACME_TLS, Board, Kind};

use super::authority::Issued;
use super::key_type::KeyType;
use crate::config::tls_types::AcmeIssuer;
use crate::storage::{FileStorage, key};

/// Let's Encrypt, unless another directory is named.
pub const LETS_ENCRYPT: &str = "https://acme-v02.api.letsencrypt.org/directory";
/// Its staging environment: failures there cost nothing.
const LETS_ENCRYPT_STAGING: &str = "https://acme-staging-v02.api.letsencrypt.org/directory";
/// The second choice when an e-mail address is given.
pub const ZEROSSL: &str = "https://acme.zerossl.com/v2/DV90";

/// Why a certificate was not to be had. Holds the CA's own words.
#[derive(Debug)]
pub struct AcmeError(String);

impl fmt::Display for AcmeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for AcmeError {}

impl AcmeError {
    fn new(what: &str, error: impl fmt::Display) -> Self {
        Self(format!("{what}: {error}"))
    }
}

/// What an order needs of its surroundings.
pub struct Surroundings<'a> {
    pub storage: &'a FileStorage,
    pub key_type: KeyType,
    /// Challenges that our listeners can answer.
    pub kinds: &'a [Kind],
    /// How often it has failed before: after a failure a test CA is asked first, where there is one.
    pub failures: usize,
}

/// The directory of an issuer.
#[must_use]
pub fn directory(issuer: &AcmeIssuer) -> &str {
    if issuer.ca.is_empty() { LETS_ENCRYPT } else { &issuer.ca }
}

fn test_directory(issuer: &AcmeIssuer) -> Option<&str> {
    match issuer.test_ca.as_str() {
        "" if directory(issuer) == LETS_ENCRYPT => Some(LETS_ENCRYPT_STAGING),
        "" => None,
        told => Some(told),
    }
}

/// Obtains a certificate for one name. Dropping the future gives the attempt up; an order that was made is resumed by
/// the next one.
///
/// # Errors
/// What the CA said, or what kept us from asking it.
pub async fn obtain(issuer: &AcmeIssuer, name: &str, around: &Surroundings<'_>) -> Result<Issued, AcmeError> {
    if around.failures > 0
        && let Some(test) = test_directory(issuer)
    {
        // What fails there would fail here, at the cost of a rate limit.
        let issuer = AcmeIssuer { ca: test.to_owned(), ..issuer.clone() };
        from_directory(&issuer, name, around).await?;
    }
    from_directory(issuer, name, around).await
}

async fn from_directory(issuer: &AcmeIssuer, name: &str, around: &Surroundings<'_>) -> Result<Issued, AcmeError> {
    let issuer_key = key::issuer(directory(issuer));
    let http = http::Http::new(&issuer.trusted_roots_pem_files)?;
    let account = account::open(issuer, &issuer_key, around.storage, http).await?;
    let mut kinds: Vec<Kind> = around.kinds.iter().copied().filter(|kind| kind.is_enabled(issuer)).collect();
    fastrand::shuffle(&mut kinds);
    if kinds.is_empty() {
        return Err(AcmeError("no challenge can be answered: neither the HTTP nor the HTTPS port is listened on, or both challenges are disabled".into()));
    }
    let mut last = None;
    for kind in kinds {
        let order = order::Order { account: &account, issuer, issuer_key: &issuer_key, name, around };
        match order.run(kind).await {
            Ok(issued) => return Ok(issued),
            Err(error) => {
                tracing::warn!(name, challenge = kind.name(), %error, "certificate order failed");
                last = Some(error);
            }
        }
    }
    Err(last.unwrap_or_else(|| AcmeError("no challenge was tried".into())))
}

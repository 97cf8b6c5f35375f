//! Certificates from a CA that speaks ACME (RFC 8555): account, order, challenge, certificate.
//!
//! `instant-acme` speaks the protocol; here is what surrounds it: accounts and orders in the storage (Caddy's layout), the
//! challenges answered by our own listeners, and what is tried in which order.
//!
//! ```text
//! account (kept, else made) ─▶ order (kept, else made) ─▶ challenge on the board ─▶ CA asks us ─▶ CSR ─▶ chain
//! ```

mod account;
mod chains;
mod challenge;
mod directory;
pub mod dns;
mod eab;
mod http;
mod order;
pub mod renewal_info;
mod signed;
mod throttle;

use std::fmt;
use std::time::Duration;

pub use account::is_usable as is_usable_account_key;
pub use challenge::{ACME_TLS, Board, Kind};
pub use http::{Http, check_url, proxy};

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

/// Longest that one attempt may take, unless the issuer says otherwise (Caddy's default, too).
const LIMIT: Duration = Duration::from_mins(5);

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
    /// In these words.
    #[must_use]
    pub fn told(error: impl fmt::Display) -> Self {
        Self(error.to_string())
    }

    fn new(what: &str, error: impl fmt::Display) -> Self {
        Self(format!("{what}: {error}"))
    }
}

/// A certificate that was not to be had.
#[derive(Debug)]
pub struct Failed {
    pub error: AcmeError,
    /// How long the CA wants to be left alone, when it said so.
    pub retry_after: Option<Duration>,
}

impl From<AcmeError> for Failed {
    fn from(error: AcmeError) -> Self {
        Self { error, retry_after: None }
    }
}

/// What an order needs of its surroundings.
pub struct Surroundings<'a> {
    pub storage: &'a FileStorage,
    pub key_type: KeyType,
    /// PEM: a key to be used instead of a new one.
    pub key: Option<String>,
    pub must_staple: bool,
    /// Challenges that our listeners can answer.
    pub kinds: &'a [Kind],
    /// How often it has failed before: after a failure a test CA is asked first, where there is one.
    pub failures: usize,
    /// The certificate that is to be renewed, as a CA with renewal information names it.
    pub replaces: Option<String>,
}

/// The directory of an issuer.
#[must_use]
pub fn directory(issuer: &AcmeIssuer) -> &str {
    if issuer.ca.is_empty() { LETS_ENCRYPT } else { &issuer.ca }
}

/// Longest that [`obtain`] may take.
#[must_use]
pub fn limit(issuer: &AcmeIssuer) -> Duration {
    let wait = dns::of(issuer).map(dns::longest_wait).unwrap_or_default();
    issuer.acme_timeout.positive().unwrap_or(LIMIT.saturating_add(wait))
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
pub async fn obtain(issuer: &AcmeIssuer, name: &str, around: &Surroundings<'_>) -> Result<Issued, Failed> {
    if around.failures > 0
        && let Some(test) = test_directory(issuer)
    {
        // What fails there would fail here, at the cost of a rate limit.
        let issuer = AcmeIssuer { ca: test.to_owned(), ..issuer.clone() };
        // The test CA has not seen the certificate that is to be replaced.
        let around = Surroundings { key: around.key.clone(), replaces: None, ..*around };
        from_directory(&issuer, name, &around).await?;
    }
    throttle::Throttle::shared().turn(&format!("{} {}", directory(issuer), issuer.email)).await;
    from_directory(issuer, name, around).await
}

/// One attempt, bounded in time.
async fn from_directory(issuer: &AcmeIssuer, name: &str, around: &Surroundings<'_>) -> Result<Issued, Failed> {
    let http = http::Http::new(issuer)?;
    let limit = limit(issuer);
    let result = match tokio::time::timeout(limit, with_account(issuer, name, around, &http)).await {
        Ok(result) => result,
        Err(_) => Err(AcmeError(format!("the CA did not give a certificate within {} s", limit.as_secs()))),
    };
    result.map_err(|error| Failed { error, retry_after: http.retry_after() })
}

async fn with_account(
    issuer: &AcmeIssuer,
    name: &str,
    around: &Surroundings<'_>,
    http: &http::Http,
) -> Result<Issued, AcmeError> {
    let kinds = kinds(issuer, name, around)?;
    let issuer_key = key::issuer(directory(issuer));
    let account = account::open(issuer, &issuer_key, around.storage, http.clone()).await?;
    let result = ordered(issuer, &issuer_key, name, around, &kinds, &account, http).await;
    if result.is_ok() || !http.was_refused_as("accountDoesNotExist") {
        return result;
    }
    // The CA was set up anew: so is the account, once.
    tracing::warn!(issuer = issuer_key, "the CA does not know the ACME account any more: another is made");
    account::forget(&account, issuer, &issuer_key, around.storage);
    let account = account::open(issuer, &issuer_key, around.storage, http.clone()).await?;
    ordered(issuer, &issuer_key, name, around, &kinds, &account, http).await
}

async fn ordered(
    issuer: &AcmeIssuer,
    issuer_key: &str,
    name: &str,
    around: &Surroundings<'_>,
    kinds: &[Kind],
    account: &account::Opened,
    http: &http::Http,
) -> Result<Issued, AcmeError> {
    let mut last = None;
    for &kind in kinds {
        let order = order::Order { account, issuer, issuer_key, name, around, http };
        match order.run(kind).await {
            Ok(issued) => return Ok(issued),
            Err(error) => {
                tracing::warn!(name, challenge = kind.name(), %error, "certificate order failed");
                last = Some(error);
                // Another challenge would only cost another order.
                if http.retry_after().is_some() || http.was_refused_as("accountDoesNotExist") {
                    break;
                }
            }
        }
    }
    Err(last.unwrap_or_else(|| AcmeError("no challenge was tried".into())))
}

/// What to try, in this order: the DNS challenge alone where it is configured, as in Caddy; else those of our ports.
fn kinds(issuer: &AcmeIssuer, name: &str, around: &Surroundings<'_>) -> Result<Vec<Kind>, AcmeError> {
    if dns::of(issuer).is_some() {
        return Ok(vec![Kind::Dns]);
    }
    if name.starts_with("*.") {
        return Err(AcmeError("a wildcard is proved over DNS alone, and this issuer has no `dns` provider".into()));
    }
    let mut kinds: Vec<Kind> = around.kinds.iter().copied().filter(|kind| kind.is_enabled(issuer)).collect();
    fastrand::shuffle(&mut kinds);
    if kinds.is_empty() {
        return Err(AcmeError("no challenge can be answered: neither the HTTP nor the HTTPS port is listened on, or both challenges are disabled".into()));
    }
    Ok(kinds)
}

//! The DNS challenge (RFC 8555 section 8.4): a TXT record that a provider sets for the time of the order, and that is
//! waited for before the CA is told to look.
//!
//! ```text
//! provider sets the record ─▶ delay ─▶ seen at its servers ─▶ CA looks ─▶ provider clears the record
//! ```
//!
//! The record is cleared whatever happens in between, as far as that can be: when the order fails, and when it is given
//! up because the configuration changed.

mod cloudflare;
mod exec;
mod masked;
mod propagation;

use std::sync::Arc;
use std::time::Duration;

use super::AcmeError;
use crate::config::dns_provider::DnsProvider;
use crate::config::tls_types::{AcmeIssuer, DnsChallenge};
use crate::config::types::Module;
use crate::http::placeholder::{Key, Template};

pub use exec::find_program;
pub use propagation::Server;

/// How long a record is waited for unless told otherwise (Caddy's default).
const PROPAGATION: Duration = Duration::from_mins(2);

/// The DNS challenge of an issuer, if it is to be used. Then no other one is.
#[must_use]
pub fn of(issuer: &AcmeIssuer) -> Option<&DnsChallenge> {
    issuer.challenges.as_ref()?.dns.as_ref()
}

/// How long one order may wait for the record besides everything else.
#[must_use]
pub fn longest_wait(dns: &DnsChallenge) -> Duration {
    let wait = if dns.propagation_timeout.0 == -1 { Duration::ZERO } else { timeout(dns) };
    dns.propagation_delay.positive().unwrap_or_default().saturating_add(wait)
}

fn timeout(dns: &DnsChallenge) -> Duration {
    dns.propagation_timeout.positive().unwrap_or(PROPAGATION)
}

/// What sets and clears records.
pub enum Provider {
    Exec(exec::Exec),
    Cloudflare(cloudflare::Cloudflare),
}

/// A record to set: `_acme-challenge.example.com`, without the final dot.
#[derive(Debug, Clone)]
pub struct Record {
    pub name: String,
    pub value: String,
    /// None = the provider's choice.
    pub ttl: Option<Duration>,
}

impl Provider {
    /// Ready to be used: placeholders filled in, the program found, the tokens there.
    ///
    /// # Errors
    /// What is missing; no value from the environment or a file is named.
    pub fn of(module: &Module) -> Result<Self, String> {
        Ok(match DnsProvider::read(module)? {
            DnsProvider::Exec(exec) => Self::Exec(exec::Exec::of(&exec)?),
            DnsProvider::Cloudflare(cloudflare) => Self::Cloudflare(cloudflare::Cloudflare::of(&cloudflare)?),
        })
    }

    async fn set(&self, record: &Record) -> Result<(), String> {
        match self {
            Self::Exec(exec) => exec.set(record).await,
            Self::Cloudflare(cloudflare) => cloudflare.set(record).await,
        }
    }

    async fn clear(&self, record: &Record) -> Result<(), String> {
        match self {
            Self::Exec(exec) => exec.clear(record).await,
            Self::Cloudflare(cloudflare) => cloudflare.clear(record).await,
        }
    }
}

/// The name of the record for a name to be proved; for a wildcard that of its parent.
#[must_use]
pub fn record_name(name: &str, override_domain: &str) -> String {
    if override_domain.is_empty() {
        format!("_acme-challenge.{}", name.strip_prefix("*.").unwrap_or(name))
    } else {
        // The admin points `_acme-challenge.NAME` there (CNAME).
        override_domain.trim_end_matches('.').to_owned()
    }
}

/// Sets the record and returns when it can be seen.
///
/// # Errors
/// What the provider said, or who does not see the record; it is cleared then.
pub async fn present(dns: &DnsChallenge, name: &str, value: String) -> Result<Standing, AcmeError> {
    let failed = |why: String| AcmeError::new("dns-01", why);
    let module = dns.provider.as_ref().ok_or_else(|| failed("no DNS provider is configured".into()))?;
    let provider = Arc::new(Provider::of(module).map_err(failed)?);
    let name = record_name(name, &dns.override_domain);
    let record = Record { name, value, ttl: dns.ttl.positive() };
    // From here on: what failed half-way may have left a record.
    let standing = Standing { held: Some((provider, record)) };
    match standing.set_up(dns).await {
        Ok(()) => Ok(standing),
        Err(why) => {
            standing.clear().await;
            Err(failed(why))
        }
    }
}

/// A record that is there until it is cleared; dropped uncleared, it is cleared in the background.
#[must_use]
pub struct Standing {
    held: Option<(Arc<Provider>, Record)>,
}

impl Standing {
    async fn set_up(&self, dns: &DnsChallenge) -> Result<(), String> {
        let Some((provider, record)) = &self.held else { return Ok(()) };
        provider.set(record).await.map_err(|why| format!("setting the record {}: {why}", record.name))?;
        tracing::info!(record = record.name, "DNS record set");
        if let Some(delay) = dns.propagation_delay.positive() {
            tokio::time::sleep(delay).await;
        }
        if dns.propagation_timeout.0 == -1 {
            return Ok(());
        }
        propagation::wait(record, &dns.resolvers, timeout(dns)).await
    }

    /// Clears the record; what fails is logged. Dropped half-way, it goes on in the background.
    pub async fn clear(mut self) {
        if let Some((provider, record)) = self.held.clone() {
            clear(&provider, &record).await;
            self.held = None;
        }
    }
}

impl Drop for Standing {
    fn drop(&mut self) {
        let Some((provider, record)) = self.held.take() else { return };
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn(async move { clear(&provider, &record).await })),
            Err(_) => tracing::warn!(record = record.name, "the DNS record is left behind"),
        }
    }
}

async fn clear(provider: &Provider, record: &Record) {
    match provider.clear(record).await {
        Ok(()) => tracing::info!(record = record.name, "DNS record cleared"),
        Err(error) => tracing::warn!(record = record.name, error, "the DNS record is left behind"),
    }
}

/// The text of a setting with `{env.NAME}` and `{file.PATH}` filled in.
fn filled(text: &str) -> Result<String, String> {
    let template = Template::parse(text);
    match (template.as_static(), template.as_key()) {
        (Some(text), _) => Ok(text.to_owned()),
        (None, Some(Key::File(path))) => std::fs::read_to_string(path)
            .map(|text| text.trim().to_owned())
            .map_err(|e| format!("{}: {e}", path.display())),
        (None, _) => Err("a setting of a DNS provider cannot come from a request".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::nanos::Nanos;

    #[test]
    fn a_wildcard_is_proved_at_its_parent() {
        assert_eq!(record_name("*.a.test", ""), "_acme-challenge.a.test");
        assert_eq!(record_name("x.a.test", ""), "_acme-challenge.x.a.test");
        assert_eq!(record_name("x.a.test", "delegated.example."), "delegated.example");
    }

    #[test]
    fn waits_add_up_and_can_be_turned_off() {
        let dns = |delay, timeout| DnsChallenge {
            propagation_delay: Nanos(delay),
            propagation_timeout: Nanos(timeout),
            ..DnsChallenge::default()
        };
        assert_eq!(longest_wait(&dns(0, 0)), PROPAGATION);
        assert_eq!(longest_wait(&dns(1_000_000_000, 2_000_000_000)), Duration::from_secs(3));
        assert_eq!(longest_wait(&dns(1_000_000_000, -1)), Duration::from_secs(1));
    }
}

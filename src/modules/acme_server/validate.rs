//! Challenges asked: whether who ordered really holds a name (RFC 8555 section 8). Asks once, from this machine, within
//! bounds of time, size and number.

mod http;
mod names;
mod tls_alpn;

use std::sync::Arc;
use std::time::Duration;

use time::OffsetDateTime;

pub use self::names::Names;
use super::ca::{Ca, Validating};
use super::identifier::Identifier;
use super::order::Method;
use super::problem::{Kind, Problem};

/// Longest that one validation may take.
const LIMIT: Duration = Duration::from_secs(10);

/// One challenge to ask.
pub struct Job {
    pub order: String,
    pub account: String,
    /// Number of the authorisation.
    pub n: usize,
    pub method: Method,
    /// Without the `*.` of a wildcard.
    pub identifier: Identifier,
    pub token: String,
    pub key_authorization: String,
    pub _validating: Validating,
}

/// From where challenges are asked.
pub struct Validator {
    pub names: Names,
    pub http_port: u16,
    pub https_port: u16,
}

impl Validator {
    /// Asks a challenge in its turn, and notes what was found.
    pub async fn run(self: Arc<Self>, ca: Arc<Ca>, job: Job) {
        let Ok(_permit) = Arc::clone(&ca.state.validations).acquire_owned().await else { return };
        let result = tokio::time::timeout(LIMIT, self.ask(&job)).await.unwrap_or_else(|_| {
            Err(Problem::new(Kind::Connection, format!("no answer within {} seconds", LIMIT.as_secs())))
        });
        let (name, method) = (&job.identifier.value, job.method.name());
        match &result {
            Ok(()) => tracing::debug!(name, method, "ACME challenge proved"),
            Err(problem) => tracing::info!(name, method, why = %problem.detail, "ACME challenge failed"),
        }
        let settled = tokio::task::spawn_blocking(move || ca.settle(&job, result, OffsetDateTime::now_utc()));
        // A fault of the storage is in the log by now; the client asks again, and so is the challenge.
        let _ = settled.await;
    }

    async fn ask(&self, job: &Job) -> Result<(), Problem> {
        match job.method {
            Method::Http => http::ask(self, job).await,
            Method::TlsAlpn => tls_alpn::ask(self, job).await,
            Method::Dns => self.names.ask(job).await,
        }
    }
}

//! Where the certificate of a name comes from: the storage, else its issuers in turn.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::{CertificateState, States};
use crate::config::tls_types::{InternalIssuer, Issuer};
use crate::storage::key;
use crate::tls::acme::{self, Surroundings};
use crate::tls::authority::{Authority, Issued};
use crate::tls::automation::{Automation, INTERNAL_LIFETIME, LOCAL, Plan};
use crate::tls::certificate::Certificate;
use crate::tls::managed::ManagedStore;

/// Longest that an ACME order may take (Caddy's default is five minutes too).
const ACME_LIMIT: Duration = Duration::from_mins(5);

/// Everything that obtaining a certificate needs.
pub struct Source {
    pub plan: Arc<Plan>,
    pub automation: Arc<Automation>,
    pub store: Arc<ManagedStore>,
    pub states: States,
}

/// The metadata file beside a certificate, as Caddy writes it.
#[derive(Serialize)]
struct Metadata<'a> {
    sans: [&'a str; 1],
    issuer_data: Value,
}

impl Source {
    /// When the certificate in use should be renewed; `None` when there is none.
    pub fn due(&self, name: &str) -> Option<OffsetDateTime> {
        let certificate = self.store.certificate(name)?;
        Some(certificate.validity.renewal(self.automation.renewal_ratio))
    }

    /// Has what can be had without asking anybody: what is kept, or what the internal CA makes.
    pub async fn prepare(&self, name: &str) {
        let now = OffsetDateTime::now_utc();
        if self.load_kept(name, now) {
            return;
        }
        if matches!(self.automation.issuers.first(), Some(Issuer::Internal(_))) {
            self.obtain(name, 0).await;
        }
    }

    /// Obtains a certificate from the first issuer that gives one; true when there is a good one then. One process at a
    /// time does so for a name: another may have kept one meanwhile, which is then used.
    pub async fn obtain(&self, name: &str, failures: usize) -> bool {
        // A storage that cannot be written must not stop a certificate that can be had without it.
        let _lock = match self.plan.storage.lock(&format!("issue_cert_{name}")).await {
            Ok(lock) => Some(lock),
            Err(error) => {
                tracing::warn!(name, %error, "no lock in the certificate storage: going on without");
                None
            }
        };
        let now = OffsetDateTime::now_utc();
        if self.load_kept(name, now) && self.due(name).is_some_and(|due| due > now) {
            return true;
        }
        let mut why = String::new();
        for issuer in &self.automation.issuers {
            match self.issue(name, issuer, failures, now).await {
                Ok(issued) => {
                    if self.take(name, &issuer_key(issuer), &issued) {
                        return true;
                    }
                }
                Err(error) => {
                    tracing::error!(name, issuer = issuer_key(issuer), error, "no certificate");
                    why = error;
                }
            }
        }
        self.note(name, |state| state.error.clone_from(&why));
        false
    }

    async fn issue(&self, name: &str, issuer: &Issuer, failures: usize, now: OffsetDateTime) -> Result<Issued, String> {
        match issuer {
            Issuer::Internal(internal) => self.issue_internal(name, internal, now),
            Issuer::Acme(acme) => {
                let around = Surroundings {
                    storage: &self.plan.storage,
                    key_type: self.automation.key_type,
                    kinds: &self.plan.challenges,
                    failures,
                };
                let limit = acme.acme_timeout.positive().unwrap_or(ACME_LIMIT);
                match tokio::time::timeout(limit, acme::obtain(acme, name, &around)).await {
                    Ok(result) => result.map_err(|e| e.to_string()),
                    Err(_) => Err(format!("the CA did not give a certificate within {} s", limit.as_secs())),
                }
            }
            // Refused when the configuration is compiled.
            Issuer::Zerossl(_) => Err("ZeroSSL's own API is not supported".into()),
        }
    }

    fn issue_internal(&self, name: &str, internal: &InternalIssuer, now: OffsetDateTime) -> Result<Issued, String> {
        let id = if internal.ca.is_empty() { LOCAL } else { &internal.ca };
        let settings = self.plan.authorities.get(id).cloned().unwrap_or_default();
        let authority = Authority::open(&self.plan.storage, id, &settings, now).map_err(|e| e.to_string())?;
        let lifetime = internal.lifetime.positive().unwrap_or(INTERNAL_LIFETIME);
        authority
            .issue(name, lifetime, self.automation.key_type, internal.sign_with_root, now)
            .map_err(|e| e.to_string())
    }

    /// Serves a new certificate from now on, and keeps it.
    fn take(&self, name: &str, issuer: &str, issued: &Issued) -> bool {
        let certificate = match Certificate::from_pem(issued.chain.as_bytes(), issued.key.as_bytes(), Vec::new()) {
            Ok(certificate) => certificate,
            Err(error) => {
                tracing::error!(name, issuer, %error, "the issued certificate is not usable");
                self.note(name, |state| state.error = error.to_string());
                return false;
            }
        };
        tracing::info!(name, issuer, not_after = %text(certificate.validity.not_after), "certificate obtained");
        self.serve(name, issuer, certificate);
        if let Err(error) = self.keep(name, issuer, issued) {
            // It is served from memory all the same.
            tracing::error!(name, %error, "the certificate cannot be kept: it will be obtained anew after a restart");
        }
        true
    }

    fn keep(&self, name: &str, issuer: &str, issued: &Issued) -> std::io::Result<()> {
        let keys = key::certificate(issuer, name);
        let metadata = Metadata { sans: [name], issuer_data: Value::Null };
        let storage = &self.plan.storage;
        storage.store(&keys.private_key, issued.key.as_bytes())?;
        storage.store(&keys.chain, issued.chain.as_bytes())?;
        storage.store(&keys.metadata, &serde_json::to_vec_pretty(&metadata)?)
    }

    /// Uses a certificate of the storage that is not expired, of any of the issuers; true when there is one.
    fn load_kept(&self, name: &str, now: OffsetDateTime) -> bool {
        for issuer in &self.automation.issuers {
            let issuer = issuer_key(issuer);
            let keys = key::certificate(&issuer, name);
            let read = |key: &str| match self.plan.storage.load(key) {
                Ok(value) => value,
                Err(error) => {
                    tracing::warn!(name, %error, "cannot read the certificate storage");
                    None
                }
            };
            let (Some(chain), Some(private_key)) = (read(&keys.chain), read(&keys.private_key)) else { continue };
            match Certificate::from_pem(&chain, &private_key, Vec::new()) {
                Ok(certificate) if certificate.validity.is_expired(now) => {}
                Ok(certificate) => {
                    self.serve(name, &issuer, certificate);
                    return true;
                }
                Err(error) => tracing::warn!(name, issuer, %error, "the certificate kept is not usable"),
            }
        }
        false
    }

    fn serve(&self, name: &str, issuer: &str, certificate: Certificate) {
        let not_after = text(certificate.validity.not_after);
        self.store.put(name, certificate);
        self.note(name, |state| {
            issuer.clone_into(&mut state.issuer);
            state.not_after = not_after;
            state.error.clear();
        });
    }

    fn note(&self, name: &str, change: impl FnOnce(&mut CertificateState)) {
        let mut states = self.states.lock().unwrap_or_else(PoisonError::into_inner);
        let state = states
            .entry(name.to_owned())
            .or_insert_with(|| CertificateState { name: name.to_owned(), ..CertificateState::default() });
        change(state);
    }
}

/// The segment under which an issuer's certificates are kept.
pub fn issuer_key(issuer: &Issuer) -> String {
    match issuer {
        Issuer::Internal(internal) if internal.ca.is_empty() => LOCAL.to_owned(),
        Issuer::Internal(internal) => key::safe(&internal.ca),
        Issuer::Acme(acme) => key::issuer(acme::directory(acme)),
        Issuer::Zerossl(_) => "zerossl".to_owned(),
    }
}

fn text(time: OffsetDateTime) -> String {
    time.format(&Rfc3339).unwrap_or_default()
}

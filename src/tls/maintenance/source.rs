//! Where the certificate of a name comes from: the storage, else its issuers in turn.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use serde::Serialize;
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::sync::Notify;

use super::{CertificateState, States, note, renewal, staple};
use crate::config::tls_types::{AcmeIssuer, InternalIssuer, Issuer};
use crate::storage::key;
use crate::tls::acme::renewal_info::{self, RenewalInfo};
use crate::tls::acme::{self, AcmeError, Failed, Surroundings};
use crate::tls::authorities::Authorities;
use crate::tls::authority::Issued;
use crate::tls::automation::{Automation, INTERNAL_LIFETIME, LOCAL, Plan};
use crate::tls::certificate::Certificate;
use crate::tls::managed::ManagedStore;

/// Longest that a CA may take to tell when it wants a certificate to be renewed.
const WINDOW_LIMIT: Duration = Duration::from_secs(30);
/// When to ask again after it did not tell.
const WINDOW_RETRY: time::Duration = time::Duration::HOUR;
/// When to ask again whether it has come to tell such things.
const WINDOW_UNKNOWN: time::Duration = time::Duration::DAY;
/// The try in which a CA is not told what is replaced: perhaps that is what it stumbles over (Caddy does so, too).
const WITHOUT_REPLACES: usize = 2;

/// Everything that obtaining a certificate needs.
pub struct Source {
    pub plan: Arc<Plan>,
    pub automation: Arc<Automation>,
    pub store: Arc<ManagedStore>,
    pub states: States,
    pub window: Mutex<Asked>,
    /// Wakes who staples: another certificate is served.
    pub served_another: Notify,
    /// Wakes who renews: the certificate in use was revoked.
    pub revocation: Notify,
    /// The leaf, DER.
    pub revoked: Mutex<Option<Vec<u8>>>,
}

/// What the CA told about the certificate in use.
#[derive(Default)]
pub struct Asked {
    /// Whether it was looked for beside the certificate.
    is_read: bool,
    told: Option<RenewalInfo>,
    /// Not to be asked before.
    not_before: Option<OffsetDateTime>,
}

/// No issuer gave a certificate.
pub struct Failure {
    /// How long they want to be left alone, when they said so.
    pub retry_after: Option<Duration>,
}

/// The metadata file beside a certificate, as Caddy writes it.
#[derive(Serialize)]
struct Metadata<'a> {
    sans: [&'a str; 1],
    issuer_data: Value,
}

impl Source {
    pub fn new(plan: &Arc<Plan>, automation: &Arc<Automation>, store: &Arc<ManagedStore>, states: &States) -> Self {
        Self {
            plan: Arc::clone(plan),
            automation: Arc::clone(automation),
            store: Arc::clone(store),
            states: Arc::clone(states),
            window: Mutex::default(),
            served_another: Notify::default(),
            revocation: Notify::default(),
            revoked: Mutex::default(),
        }
    }

    /// When the certificate in use should be renewed; `None` when there is none.
    pub fn due(&self, name: &str) -> Option<OffsetDateTime> {
        let certificate = self.store.certificate(name)?;
        if self.is_revoked(&certificate) {
            return Some(OffsetDateTime::UNIX_EPOCH);
        }
        let told = self.told_about(certificate.leaf()?);
        let validity = certificate.validity;
        let life = if self.is_internal(name) { renewal::real_life(validity) } else { validity };
        Some(renewal::due(&life, self.automation.renewal_ratio, told.as_ref()))
    }

    /// Has another certificate obtained at once.
    pub fn replace_revoked(&self, name: &str, certificate: &Certificate) {
        if !self.is_revoked(certificate) {
            tracing::error!(name, "the CA has revoked the certificate: it is replaced");
            *self.revoked.lock().unwrap_or_else(PoisonError::into_inner) = certificate.leaf().map(|leaf| leaf.to_vec());
            self.revocation.notify_one();
        }
    }

    fn is_revoked(&self, certificate: &Certificate) -> bool {
        let revoked = self.revoked.lock().unwrap_or_else(PoisonError::into_inner);
        revoked.as_deref().is_some_and(|revoked| certificate.leaf().is_some_and(|leaf| **leaf == *revoked))
    }

    /// Asks the CA when it wants the certificate in use to be renewed, if it is time to ask.
    pub async fn ask_for_window(&self, name: &str) {
        let now = OffsetDateTime::now_utc();
        let Some(certificate) = self.store.certificate(name) else { return };
        let (Some(leaf), Some((key, issuer))) = (certificate.leaf(), self.acme_issuer_in_use(name)) else { return };
        if !self.window().is_read {
            // Another source has loaded the certificate.
            let metadata = self.plan.storage.load(&key::certificate(&key, name).metadata).ok().flatten();
            *self.window() = Asked { is_read: true, told: metadata.as_deref().and_then(told), not_before: None };
        }
        let before = self.told_about(leaf);
        let not_before = before.as_ref().map(|b| b.ask_again).max(self.window().not_before);
        if certificate.validity.is_expired(now) || not_before.is_some_and(|t| t > now) {
            return;
        }
        let asked = renewal_info::ask(issuer, leaf, before.as_ref());
        let (told, not_before) = match tokio::time::timeout(WINDOW_LIMIT, asked).await {
            Ok(Ok(Some(told))) => {
                if before.as_ref().is_none_or(|before| before.window != told.window) {
                    let (selected, why) = (text(told.selected), &told.explanation_url);
                    tracing::info!(name, issuer = key, selected, why, "the CA told when to renew");
                }
                self.keep_window(name, &key, &told);
                (Some(told), None)
            }
            Ok(Ok(None)) => (None, Some(now + WINDOW_UNKNOWN)),
            Ok(Err(error)) => {
                tracing::debug!(name, issuer = key, %error, "the CA does not tell when to renew");
                (before, Some(now + WINDOW_RETRY))
            }
            Err(_) => (before, Some(now + WINDOW_RETRY)),
        };
        *self.window() = Asked { is_read: true, told, not_before };
    }

    fn window(&self) -> std::sync::MutexGuard<'_, Asked> {
        self.window.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was told about this very certificate.
    fn told_about(&self, leaf: &CertificateDer<'_>) -> Option<RenewalInfo> {
        let told = self.window().told.clone()?;
        renewal_info::identifier(leaf).is_some_and(|id| id == told.identifier).then_some(told)
    }

    /// The issuer of the certificate in use, with its key.
    fn issuer_in_use(&self, name: &str) -> Option<(String, &Issuer)> {
        let in_use = self.states.lock().unwrap_or_else(PoisonError::into_inner).get(name)?.issuer.clone();
        let issuer = self.automation.issuers.iter().find(|issuer| issuer_key(issuer) == in_use)?;
        Some((in_use, issuer))
    }

    /// As [`Self::issuer_in_use`], when it speaks ACME.
    fn acme_issuer_in_use(&self, name: &str) -> Option<(String, &AcmeIssuer)> {
        let (in_use, issuer) = self.issuer_in_use(name)?;
        Some((in_use, issuer.acme()?))
    }

    fn is_internal(&self, name: &str) -> bool {
        matches!(self.issuer_in_use(name), Some((_, Issuer::Internal(_))))
    }

    /// Beside the certificate, as Caddy does.
    fn keep_window(&self, name: &str, issuer: &str, told: &RenewalInfo) {
        let (storage, key) = (&self.plan.storage, key::certificate(issuer, name).metadata);
        let kept = || -> std::io::Result<()> {
            let mut metadata: Value = serde_json::from_slice(&storage.load(&key)?.unwrap_or_default())?;
            if !metadata.get("issuer_data").is_some_and(Value::is_object) {
                metadata["issuer_data"] = json!({});
            }
            metadata["issuer_data"]["renewal_info"] = serde_json::to_value(told)?;
            storage.store(&key, &serde_json::to_vec_pretty(&metadata)?)
        };
        if let Err(error) = kept() {
            tracing::debug!(name, %error, "what the CA told is not kept: it will be asked again after a restart");
        }
    }

    /// What is kept, if it is good and not yet to be renewed; else as `obtain`.
    pub async fn load_or_obtain(&self, name: &str, failures: usize) -> Result<(), Failure> {
        let now = OffsetDateTime::now_utc();
        if self.load_kept(name, now) && self.due(name).is_some_and(|due| due > now) {
            return Ok(());
        }
        self.obtain(name, failures).await
    }

    /// A certificate of the internal CA that is served and not kept.
    pub fn issue_in_memory(&self, name: &str) -> Result<(), Failure> {
        let none = Failure { retry_after: None };
        let Some(issuer @ Issuer::Internal(internal)) = self.automation.issuers.first() else { return Err(none) };
        let issued =
            self.issue_internal(name, internal, OffsetDateTime::now_utc()).map_err(|failed| failed.error.to_string());
        let certificate = issued.and_then(|issued| {
            Certificate::from_pem(issued.chain.as_bytes(), issued.key.as_bytes(), Vec::new()).map_err(|e| e.to_string())
        });
        match certificate {
            Ok(certificate) => {
                self.serve(name, &issuer_key(issuer), certificate, None);
                Ok(())
            }
            Err(error) => {
                tracing::error!(name, error, "no certificate");
                Err(none)
            }
        }
    }

    /// Has what can be had without asking anybody: what is kept, or what the internal CA makes.
    pub async fn prepare(&self, name: &str) {
        let now = OffsetDateTime::now_utc();
        if self.load_kept(name, now) {
            return;
        }
        if matches!(self.automation.issuers.first(), Some(Issuer::Internal(_))) {
            let _ = self.obtain(name, 0).await;
        }
    }

    /// Obtains a certificate from the first issuer that gives one. One process at a time does so for a name: another may
    /// have kept one meanwhile, which is then used.
    pub async fn obtain(&self, name: &str, failures: usize) -> Result<(), Failure> {
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
            return Ok(());
        }
        let (mut why, mut retry_after) = (String::new(), None);
        for issuer in &self.automation.issuers {
            let key = issuer_key(issuer);
            let result = self.issue(name, issuer, &key, failures, now).await;
            let taken = match result {
                Ok(issued) => self.take(name, &key, issuer, &issued, now).await,
                Err(failed) => Err(failed),
            };
            match taken {
                Ok(()) => return Ok(()),
                Err(failed) => {
                    why = failed.error.to_string();
                    retry_after = retry_after.max(failed.retry_after);
                    tracing::error!(name, issuer = key, error = why, "no certificate");
                }
            }
        }
        self.note(name, |state| state.error.clone_from(&why));
        Err(Failure { retry_after })
    }

    async fn issue(
        &self,
        name: &str,
        issuer: &Issuer,
        key: &str,
        failures: usize,
        now: OffsetDateTime,
    ) -> Result<Issued, Failed> {
        match issuer {
            Issuer::Internal(internal) => self.issue_internal(name, internal, now),
            Issuer::Acme(acme) => {
                let around = Surroundings {
                    storage: &self.plan.storage,
                    key_type: self.automation.key_type,
                    key: self.automation.reuse_private_keys.then(|| self.kept_key(name, key)).flatten(),
                    must_staple: self.automation.must_staple,
                    kinds: &self.plan.challenges,
                    failures,
                    replaces: self.replaced(name, key).filter(|_| failures != WITHOUT_REPLACES),
                };
                acme::obtain(acme, name, &around).await
            }
            // Refused when the configuration is compiled.
            Issuer::Zerossl(_) => Err(AcmeError::told("ZeroSSL's own API is not supported").into()),
        }
    }

    /// Not that of a revoked certificate, which somebody else may have.
    fn kept_key(&self, name: &str, issuer: &str) -> Option<String> {
        if self.store.certificate(name).is_some_and(|certificate| self.is_revoked(&certificate)) {
            return None;
        }
        let kept = self.plan.storage.load(&key::certificate(issuer, name).private_key).ok()??;
        String::from_utf8(kept).ok()
    }

    /// The certificate in use, for a CA that told when it is to be renewed.
    fn replaced(&self, name: &str, issuer: &str) -> Option<String> {
        let (in_use, _) = self.acme_issuer_in_use(name)?;
        let certificate = self.store.certificate(name).filter(|_| in_use == issuer)?;
        self.told_about(certificate.leaf()?).map(|told| told.identifier)
    }

    fn issue_internal(&self, name: &str, internal: &InternalIssuer, now: OffsetDateTime) -> Result<Issued, Failed> {
        let id = if internal.ca.is_empty() { LOCAL } else { &internal.ca };
        let settings = self.plan.authorities.get(id).cloned().unwrap_or_default();
        let authority = Authorities::shared().open(&self.plan.storage, id, &settings, now);
        let lifetime = internal.lifetime.positive().unwrap_or(INTERNAL_LIFETIME);
        let key_type = self.automation.key_type;
        let issued = authority.and_then(|a| a.issue(name, lifetime, key_type, internal.sign_with_root, now));
        issued.map_err(|e| AcmeError::told(e).into())
    }

    /// Serves a new certificate from now on, and keeps it.
    async fn take(
        &self,
        name: &str,
        key: &str,
        issuer: &Issuer,
        issued: &Issued,
        now: OffsetDateTime,
    ) -> Result<(), Failed> {
        let unusable = |e: String| Failed::from(AcmeError::told(format!("the issued certificate is not usable: {e}")));
        let certificate = Certificate::from_pem(issued.chain.as_bytes(), issued.key.as_bytes(), Vec::new())
            .map_err(|e| unusable(e.to_string()))?;
        renewal::check_issued(&certificate, name, now).map_err(unusable)?;
        if self.automation.must_staple
            && let Some(stapling) = &self.automation.stapling
        {
            // It is no good without.
            staple::refresh(&certificate, stapling, &self.plan.storage).await;
        }
        tracing::info!(name, issuer = key, not_after = %text(certificate.validity.not_after), "certificate obtained");
        self.serve(name, key, certificate, None);
        if let Err(error) = self.keep(name, key, issuer, issued) {
            // It is served from memory all the same.
            tracing::error!(name, %error, "the certificate cannot be kept: it will be obtained anew after a restart");
            let why = format!("served from memory: it cannot be kept in the certificate storage: {error}");
            self.note(name, |state| state.error = why);
        }
        Ok(())
    }

    fn keep(&self, name: &str, key: &str, issuer: &Issuer, issued: &Issued) -> std::io::Result<()> {
        let keys = key::certificate(key, name);
        let issuer_data = issuer.acme().map_or(Value::Null, |issuer| json!({ "ca": acme::directory(issuer) }));
        let metadata = Metadata { sans: [name], issuer_data };
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
                Ok(certificate) if certificate.validity.is_expired(now) || self.is_revoked(&certificate) => {}
                Ok(certificate) => {
                    self.serve(name, &issuer, certificate, read(&keys.metadata).as_deref().and_then(told));
                    return true;
                }
                Err(error) => tracing::warn!(name, issuer, %error, "the certificate kept is not usable"),
            }
        }
        false
    }

    /// Serves a certificate from now on.
    pub fn serve(&self, name: &str, issuer: &str, certificate: Certificate, told: Option<RenewalInfo>) {
        *self.window() = Asked { is_read: true, told, not_before: None };
        let not_after = text(certificate.validity.not_after);
        if self.automation.stapling.is_some() {
            staple::staple_kept(&certificate, &self.plan.storage);
        }
        self.store.put(name, certificate);
        self.served_another.notify_one();
        self.note(name, |state| {
            issuer.clone_into(&mut state.issuer);
            state.not_after = not_after;
            state.error.clear();
        });
    }

    fn note(&self, name: &str, change: impl FnOnce(&mut CertificateState)) {
        note(&self.states, name, change);
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

/// What a CA told, from the metadata beside a certificate.
fn told(metadata: &[u8]) -> Option<RenewalInfo> {
    let metadata: Value = serde_json::from_slice(metadata).ok()?;
    serde_json::from_value(metadata.get("issuer_data")?.get("renewal_info")?.clone()).ok()
}

fn text(time: OffsetDateTime) -> String {
    time.format(&Rfc3339).unwrap_or_default()
}

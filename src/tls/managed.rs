//! Certificates that are looked after: put here when obtained or renewed, looked up at each handshake.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use rustls::sign::CertifiedKey;

use super::certificate::Certificate;

/// By name, exact or wildcard. Readers wait only while a certificate is put in.
#[derive(Debug, Default)]
pub struct ManagedStore {
    by_name: RwLock<HashMap<String, Certificate>>,
}

impl ManagedStore {
    /// The one of this process: certificates outlive reloads.
    #[must_use]
    pub fn shared() -> &'static Arc<Self> {
        static SHARED: OnceLock<Arc<ManagedStore>> = OnceLock::new();
        SHARED.get_or_init(Arc::default)
    }

    /// The certificate for a server name, else that of the wildcard one label up.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Arc<CertifiedKey>> {
        let by_name = self.by_name.read().unwrap_or_else(PoisonError::into_inner);
        if by_name.is_empty() {
            return None;
        }
        let found = by_name.get(name).or_else(|| {
            let (_, parent) = name.split_once('.')?;
            by_name.get(&format!("*.{parent}"))
        });
        found.map(Certificate::served)
    }

    /// What is kept for exactly this name.
    #[must_use]
    pub fn certificate(&self, name: &str) -> Option<Certificate> {
        self.by_name.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    pub fn put(&self, name: &str, certificate: Certificate) {
        self.by_name.write().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), certificate);
    }

    pub fn remove(&self, names: &[Arc<str>]) {
        let mut by_name = self.by_name.write().unwrap_or_else(PoisonError::into_inner);
        for name in names {
            by_name.remove(&**name);
        }
    }

    /// Forgets what is not among the names.
    pub fn keep_only(&self, wanted: impl Fn(&str) -> bool) {
        self.by_name.write().unwrap_or_else(PoisonError::into_inner).retain(|name, _| wanted(name));
    }
}

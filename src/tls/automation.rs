//! What to look after: names, and how the certificate of each is to be had. Made from a configuration.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::acme::Kind;
use super::authority::AuthoritySettings;
use super::key_type::KeyType;
use crate::config::tls_types::Issuer;
use crate::storage::FileStorage;

/// Everything of one configuration.
#[derive(Debug, Clone)]
pub struct Plan {
    pub storage: FileStorage,
    /// Name, lower case, exact or wildcard → policy.
    pub names: BTreeMap<String, Arc<Automation>>,
    /// Internal authorities by id; those not named have the defaults.
    pub authorities: BTreeMap<String, AuthoritySettings>,
    /// Challenges that the configuration's listeners can answer.
    pub challenges: Vec<Kind>,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            storage: FileStorage::new(""),
            names: BTreeMap::new(),
            authorities: BTreeMap::new(),
            challenges: Vec::new(),
        }
    }
}

/// How certificates are to be had.
#[derive(Debug, Clone, PartialEq)]
pub struct Automation {
    /// In order of preference.
    pub issuers: Vec<Issuer>,
    pub key_type: KeyType,
    /// Share of its life that is left when a certificate is renewed.
    pub renewal_ratio: f64,
}

/// Renew when a third of the life is left (Caddy's default).
pub const RENEWAL_RATIO: f64 = 1.0 / 3.0;
/// Life of an internal leaf (Caddy's default).
pub const INTERNAL_LIFETIME: Duration = Duration::from_hours(12);
/// The authority that is used when none is named.
pub const LOCAL: &str = "local";

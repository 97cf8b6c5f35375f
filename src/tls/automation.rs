//! What to look after: names, and how the certificate of each is to be had. Made from a configuration.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::acme::Kind;
use super::authority::AuthoritySettings;
use super::certificate::Certificate;
use super::cleaning;
use super::key_type::KeyType;
use super::on_demand::Demand;
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
    /// How often it is looked at whether a certificate is to be renewed.
    pub renew_interval: Duration,
    /// Names that get a certificate when a client asks for them; `None` = none do.
    pub on_demand: Option<Arc<Demand>>,
    /// How often the storage is cleaned; `None` = never.
    pub clean_interval: Option<Duration>,
    /// How often it is looked at whether an OCSP answer is to be renewed.
    pub ocsp_interval: Duration,
    /// Certificates of the admin's whose CA tells their standing over OCSP.
    pub stapled: Vec<Certificate>,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            storage: FileStorage::new(""),
            names: BTreeMap::new(),
            authorities: BTreeMap::new(),
            challenges: Vec::new(),
            renew_interval: RENEW_INTERVAL,
            on_demand: None,
            clean_interval: Some(cleaning::INTERVAL),
            ocsp_interval: OCSP_INTERVAL,
            stapled: Vec::new(),
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
    /// A renewed certificate keeps its key.
    pub reuse_private_keys: bool,
    /// Certificates that are good with a stapled OCSP response alone.
    pub must_staple: bool,
    /// `None`: no OCSP answers are stapled.
    pub stapling: Option<Stapling>,
}

/// How OCSP answers are had.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stapling {
    /// Responder that a certificate names → the one asked in its place; empty = none.
    pub overrides: BTreeMap<String, String>,
}

/// Renew when a third of the life is left (Caddy's default).
pub const RENEWAL_RATIO: f64 = 1.0 / 3.0;
/// How often to look (Caddy's default).
pub const RENEW_INTERVAL: Duration = Duration::from_mins(10);
/// How often to look for OCSP (Caddy's default).
pub const OCSP_INTERVAL: Duration = Duration::from_hours(1);
/// Life of an internal leaf (Caddy's default).
pub const INTERNAL_LIFETIME: Duration = Duration::from_hours(12);
/// The authority that is used when none is named.
pub const LOCAL: &str = "local";

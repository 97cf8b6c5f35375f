//! TLS in its typed form: connection policies, automation policies, certificate issuers, as they stand in
//! `apps.http.servers.*.tls_connection_policies` and `apps.tls`.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::nanos::Nanos;
use super::types::{Module, is_false, is_zero};

/// `tls_connection_policies[]`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ConnectionPolicy {
    /// By kind: `sni`, `remote_ip`, ….
    #[serde(rename = "match", skip_serializing_if = "Map::is_empty")]
    pub matchers: Map<String, Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate_selection: Option<CertificateSelection>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cipher_suites: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub curves: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub alpn: Vec<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub protocol_min: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub protocol_max: String,
    #[serde(skip_serializing_if = "is_false")]
    pub drop: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_authentication: Option<ClientAuthentication>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub default_sni: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub fallback_sni: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub insecure_secrets_log: String,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CertificateSelection {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub serial_number: Vec<Value>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub subject_organization: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub public_key_algorithm: Option<Value>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub any_tag: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub all_tags: Vec<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ClientAuthentication {
    /// `{"provider": …}`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca: Option<Module>,
    /// Base64 of DER; the old spelling of `ca`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub trusted_ca_certs: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub trusted_ca_certs_pem_files: Vec<String>,
    /// Base64 of DER.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub trusted_leaf_certs: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub verifiers: Vec<Module>,
    /// `request`, `require`, `verify_if_given` or `require_and_verify`; empty = the last when there are CAs, else
    /// `require`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub mode: String,
}

/// `apps.tls.automation`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Automation {
    /// The first one that is for a name counts.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub policies: Vec<AutomationPolicy>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_demand: Option<OnDemand>,
    #[serde(skip_serializing_if = "Nanos::is_zero")]
    pub ocsp_interval: Nanos,
    #[serde(skip_serializing_if = "Nanos::is_zero")]
    pub renew_interval: Nanos,
    #[serde(skip_serializing_if = "Nanos::is_zero")]
    pub storage_clean_interval: Nanos,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AutomationPolicy {
    /// Empty = every name.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub subjects: Vec<String>,
    /// In order of preference; empty = the public CAs, or the internal one for names that are not public.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub issuers: Vec<Issuer>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub get_certificate: Vec<Module>,
    #[serde(skip_serializing_if = "is_false")]
    pub must_staple: bool,
    /// Zero = a third.
    #[serde(skip_serializing_if = "is_zero_float")]
    pub renewal_window_ratio: f64,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub key_type: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub storage: Option<Module>,
    #[serde(skip_serializing_if = "is_false")]
    pub on_demand: bool,
    #[serde(skip_serializing_if = "is_false")]
    pub disable_ocsp_stapling: bool,
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub ocsp_overrides: Map<String, Value>,
    #[serde(skip_serializing_if = "is_false")]
    pub reuse_private_keys: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OnDemand {
    /// `{"module": "http", "endpoint": …}`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub permission: Option<Module>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "module", rename_all = "snake_case")]
pub enum Issuer {
    Acme(Box<AcmeIssuer>),
    Internal(InternalIssuer),
    Zerossl(ZeroSslIssuer),
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AcmeIssuer {
    /// Directory URL; empty = Let's Encrypt.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub ca: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub test_ca: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub email: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub profile: String,
    /// PEM.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub account_key: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub external_account: Option<ExternalAccount>,
    #[serde(skip_serializing_if = "Nanos::is_zero")]
    pub acme_timeout: Nanos,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub challenges: Option<Challenges>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub trusted_roots_pem_files: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preferred_chains: Option<ChainPreference>,
    #[serde(skip_serializing_if = "Nanos::is_zero")]
    pub certificate_lifetime: Nanos,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network_proxy: Option<Module>,
}

/// External account binding: how an ACME account is tied to one at the CA.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExternalAccount {
    pub key_id: String,
    pub mac_key: String,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Challenges {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http: Option<PortChallenge>,
    #[serde(rename = "tls-alpn", skip_serializing_if = "Option::is_none")]
    pub tls_alpn: Option<PortChallenge>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dns: Option<DnsChallenge>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub bind_host: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub distributed: Option<bool>,
}

/// A challenge that is answered on a port of this machine.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PortChallenge {
    #[serde(skip_serializing_if = "is_false")]
    pub disabled: bool,
    /// Zero = the standard port.
    #[serde(skip_serializing_if = "is_zero")]
    pub alternate_port: i64,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DnsChallenge {
    /// `{"name": …}`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provider: Option<Module>,
    #[serde(skip_serializing_if = "Nanos::is_zero")]
    pub ttl: Nanos,
    #[serde(skip_serializing_if = "Nanos::is_zero")]
    pub propagation_delay: Nanos,
    /// -1 = do not wait for propagation.
    #[serde(skip_serializing_if = "Nanos::is_zero")]
    pub propagation_timeout: Nanos,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub resolvers: Vec<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub override_domain: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ChainPreference {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub smallest: Option<bool>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub root_common_name: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub any_common_name: Vec<String>,
}

/// A CA of our own.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct InternalIssuer {
    /// Empty = `local`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub ca: String,
    /// Zero = 12 h.
    #[serde(skip_serializing_if = "Nanos::is_zero")]
    pub lifetime: Nanos,
    #[serde(skip_serializing_if = "is_false")]
    pub sign_with_root: bool,
}

/// ZeroSSL's own interface; its ACME endpoint is an [`AcmeIssuer`].
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ZeroSslIssuer {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub api_key: String,
    #[serde(skip_serializing_if = "is_zero")]
    pub validity_days: i64,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub listen_host: String,
    #[serde(skip_serializing_if = "is_zero")]
    pub alternate_http_port: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cname_validation: Option<DnsChallenge>,
}

/// `apps.pki`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Pki {
    #[serde(skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    pub certificate_authorities: std::collections::BTreeMap<String, CertificateAuthority>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CertificateAuthority {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub root_common_name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub intermediate_common_name: String,
    /// Zero = 7 days.
    #[serde(skip_serializing_if = "Nanos::is_zero")]
    pub intermediate_lifetime: Nanos,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub install_trust: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub root: Option<KeyPair>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub intermediate: Option<KeyPair>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub storage: Option<Module>,
    #[serde(skip_serializing_if = "Nanos::is_zero")]
    pub maintenance_interval: Nanos,
    #[serde(skip_serializing_if = "is_zero_float")]
    pub renewal_window_ratio: f64,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct KeyPair {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub certificate: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub private_key: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub format: String,
}

impl Default for Issuer {
    fn default() -> Self {
        Self::Acme(Box::default())
    }
}

impl Issuer {
    #[must_use]
    pub fn acme(&self) -> Option<&AcmeIssuer> {
        match self {
            Self::Acme(acme) => Some(acme),
            _ => None,
        }
    }
}

impl From<AcmeIssuer> for Issuer {
    fn from(acme: AcmeIssuer) -> Self {
        Self::Acme(Box::new(acme))
    }
}

impl AcmeIssuer {
    /// The DNS challenge, turned on if it is not yet.
    pub fn dns(&mut self) -> &mut DnsChallenge {
        self.challenges().dns.get_or_insert_default()
    }

    pub fn challenges(&mut self) -> &mut Challenges {
        self.challenges.get_or_insert_default()
    }
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde's signature
fn is_zero_float(n: &f64) -> bool {
    *n == 0.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_json_is_caddys() {
        let policy = json!({
            "subjects": ["a"], "renewal_window_ratio": 0.5,
            "issuers": [
                {"module": "acme", "ca": "x", "challenges": {"tls-alpn": {"alternate_port": 444}, "dns": {}}},
                {"module": "internal", "sign_with_root": true},
                {"module": "zerossl", "api_key": "k"},
            ],
        });
        let read: AutomationPolicy = serde_json::from_value(policy.clone()).unwrap();
        assert_eq!(serde_json::to_value(read).unwrap(), policy);
        assert!(serde_json::from_value::<Issuer>(json!({"module": "internal", "email": "a"})).is_err());
    }
}

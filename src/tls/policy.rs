//! Connection policies: the TLS settings of a listener, by server name.

use std::sync::{Arc, OnceLock};

use rustls::crypto::{CryptoProvider, SupportedKxGroup, aws_lc_rs};
use rustls::server::{ProducesTickets, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig, SupportedCipherSuite, SupportedProtocolVersion};

use super::resolver::{CertStore, Resolver, Selection};

/// Mutual TLS.
#[derive(Debug, Clone)]
pub struct ClientAuth {
    pub roots: Arc<RootCertStore>,
    /// False: a client without a certificate is let in (`verify_if_given`).
    pub required: bool,
}

/// One connection policy, resolved to rustls terms.
#[derive(Debug, Clone, Default)]
pub struct Policy {
    /// Server names it is for (wildcards by label); empty = all.
    pub sni: Vec<String>,
    pub selection: Selection,
    /// ALPN protocols in order of preference; empty = `h2`, `http/1.1`.
    pub alpn: Vec<String>,
    /// Empty = TLS 1.2 and 1.3.
    pub versions: Vec<&'static SupportedProtocolVersion>,
    /// Empty = the provider's. TLS 1.3 suites are always kept, as in Go.
    pub suites: Vec<SupportedCipherSuite>,
    /// Empty = the provider's, post-quantum X25519MLKEM768 first.
    pub curves: Vec<&'static dyn SupportedKxGroup>,
    pub client_auth: Option<ClientAuth>,
}

impl Policy {
    fn build(&self, store: &Arc<CertStore>) -> Result<Arc<ServerConfig>, rustls::Error> {
        let mut provider = aws_lc_rs::default_provider();
        if !self.suites.is_empty() {
            let tls13 = provider.cipher_suites.iter().filter(|s| s.tls13().is_some()).copied();
            provider.cipher_suites = tls13.chain(self.suites.iter().filter(|s| s.tls13().is_none()).copied()).collect();
        }
        if !self.curves.is_empty() {
            provider.kx_groups.clone_from(&self.curves);
        }
        let provider: Arc<CryptoProvider> = Arc::new(provider);
        let versions = if self.versions.is_empty() { rustls::ALL_VERSIONS } else { &self.versions };
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider)).with_protocol_versions(versions)?;
        let builder = match &self.client_auth {
            None => builder.with_no_client_auth(),
            Some(auth) => {
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::clone(&auth.roots), provider);
                let verifier = if auth.required { verifier } else { verifier.allow_unauthenticated() };
                builder.with_client_cert_verifier(verifier.build().map_err(|e| rustls::Error::General(e.to_string()))?)
            }
        };
        let resolver = Resolver { store: Arc::clone(store), selection: self.selection.clone() };
        let mut config = builder.with_cert_resolver(Arc::new(resolver));
        config.alpn_protocols = if self.alpn.is_empty() {
            vec![b"h2".to_vec(), b"http/1.1".to_vec()]
        } else {
            self.alpn.iter().map(|p| p.clone().into_bytes()).collect()
        };
        if let Some(ticketer) = ticketer() {
            config.ticketer = ticketer;
        }
        config.ignore_client_order = true;
        Ok(Arc::new(config))
    }
}

/// Session tickets outlive reloads: one rotating ticketer for the process (rustls rotates its keys).
fn ticketer() -> Option<Arc<dyn ProducesTickets>> {
    static TICKETER: OnceLock<Option<Arc<dyn ProducesTickets>>> = OnceLock::new();
    TICKETER.get_or_init(|| aws_lc_rs::Ticketer::new().ok()).clone()
}

/// TLS of one server: chooses the settings for a client hello.
#[derive(Debug, Clone)]
pub struct ServerTls {
    policies: Vec<(Vec<String>, Arc<ServerConfig>)>,
    /// For a name that no policy is for: a policy without certificates of its own would fail anyway.
    last: Arc<ServerConfig>,
}

impl ServerTls {
    /// `policies` in order; the first whose names match a hello applies. At least one is needed.
    pub fn new(policies: &[Policy], store: &Arc<CertStore>) -> Result<Self, rustls::Error> {
        let mut built = Vec::with_capacity(policies.len());
        for policy in policies {
            built.push((policy.sni.clone(), policy.build(store)?));
        }
        let last = match built.last() {
            Some((_, config)) => Arc::clone(config),
            None => Policy::default().build(store)?,
        };
        Ok(Self { policies: built, last })
    }

    /// The settings for a server name (SNI).
    #[must_use]
    pub fn choose(&self, server_name: Option<&str>) -> Arc<ServerConfig> {
        let name = server_name.unwrap_or("");
        let found = self.policies.iter().find(|(sni, _)| sni.is_empty() || sni.iter().any(|p| name_matches(p, name)));
        Arc::clone(found.map_or(&self.last, |(_, config)| config))
    }
}

/// Labels compare one by one; `*` stands for one label.
fn name_matches(pattern: &str, name: &str) -> bool {
    let (mut p, mut n) = (pattern.split('.'), name.split('.'));
    loop {
        match (p.next(), n.next()) {
            (None, None) => return true,
            (Some(p), Some(n)) if p == "*" || p.eq_ignore_ascii_case(n) => {}
            _ => return false,
        }
    }
}

/// A cipher suite by its IANA name, as in `tls { ciphers … }`; `None` when rustls has none of that name.
#[must_use]
pub fn suite_by_name(name: &str) -> Option<SupportedCipherSuite> {
    aws_lc_rs::ALL_CIPHER_SUITES.iter().find(|s| s.suite().as_str() == Some(name)).copied()
}

/// A key exchange group by Caddy's name (`x25519`, `secp256r1`, `x25519mlkem768`, …).
#[must_use]
pub fn curve_by_name(name: &str) -> Option<&'static dyn SupportedKxGroup> {
    Some(match name {
        "x25519mlkem768" => aws_lc_rs::kx_group::X25519MLKEM768,
        "x25519" => aws_lc_rs::kx_group::X25519,
        "secp256r1" => aws_lc_rs::kx_group::SECP256R1,
        "secp384r1" => aws_lc_rs::kx_group::SECP384R1,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_compare_by_label() {
        assert!(name_matches("*.a.test", "x.a.test"));
        assert!(!name_matches("*.a.test", "x.y.a.test"));
        assert!(name_matches("A.test", "a.TEST"));
        assert!(!name_matches("a.test", "a.test.evil"));
    }

    #[test]
    fn suites_are_known_by_the_names_that_go_uses() {
        assert!(suite_by_name("TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256").is_some());
        assert!(suite_by_name("TLS_RSA_WITH_AES_128_CBC_SHA").is_none());
    }
}

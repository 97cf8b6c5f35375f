//! Connection policies: the TLS settings of a listener, by what its clients say first.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use regex::Regex;
use rustls::crypto::{CryptoProvider, SupportedKxGroup, aws_lc_rs};
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use rustls::{ServerConfig, SupportedCipherSuite, SupportedProtocolVersion};

use super::client_auth::ClientAuth;
use super::resolver::{CertStore, Resolver, Selection};
use super::tickets::{TicketSettings, Tickets};

/// What is known of a connection when its policy is chosen.
#[derive(Debug, Clone, Copy, Default)]
pub struct Hello<'a> {
    /// The name that the client asks for (SNI); `None` when it asks for none, as for an IP address.
    pub server_name: Option<&'a str>,
    /// Both are `None` on a unix socket.
    pub remote: Option<IpAddr>,
    pub local: Option<IpAddr>,
}

/// A condition of a policy.
#[derive(Debug, Clone)]
pub enum Matcher {
    /// One of these names; `*` stands for one label.
    ServerName(Vec<String>),
    ServerNameRegexp(Regex),
    /// Within one of the first, when there are any, and in none of the second.
    Remote {
        within: Vec<IpNet>,
        without: Vec<IpNet>,
    },
    Local(Vec<IpNet>),
}

impl Matcher {
    fn admits(&self, hello: &Hello<'_>) -> bool {
        let among = |ranges: &[IpNet], ip: &IpAddr| ranges.iter().any(|range| range.contains(ip));
        let name = hello.server_name.unwrap_or("");
        match self {
            Self::ServerName(names) => names.iter().any(|pattern| name_matches(pattern, name)),
            Self::ServerNameRegexp(pattern) => pattern.is_match(name),
            Self::Remote { within, without } => {
                hello.remote.is_some_and(|ip| (within.is_empty() || among(within, &ip)) && !among(without, &ip))
            }
            Self::Local(ranges) => hello.local.is_some_and(|ip| ranges.is_empty() || among(ranges, &ip)),
        }
    }
}

/// One connection policy, resolved to rustls terms.
#[derive(Debug, Clone, Default)]
pub struct Policy {
    /// All must hold; empty = for every connection.
    pub matchers: Vec<Matcher>,
    /// Connections that it is for are refused.
    pub drop: bool,
    pub selection: Selection,
    /// ALPN protocols in order of preference; empty = none is settled.
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
    fn build(&self, store: &Arc<CertStore>, tickets: &TicketSettings) -> Result<Built, rustls::Error> {
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
        let clients = self.client_auth.as_ref().map(|auth| auth.verifier(&provider)).transpose()?;
        let builder = match &clients {
            None => builder.with_no_client_auth(),
            Some(verifier) => builder.with_client_cert_verifier(Arc::clone(verifier)),
        };
        let resolver = Resolver { store: Arc::clone(store), selection: self.selection.clone(), local: None };
        let mut config = builder.with_cert_resolver(Arc::new(resolver.clone()));
        config.alpn_protocols = self.alpn.iter().map(|p| p.clone().into_bytes()).collect();
        config.ignore_client_order = true;
        if tickets.disabled {
            config.send_tls13_tickets = 0;
            config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
        } else {
            // A ticket stands for the client certificate that was checked when it was made: one made under other rules
            // must not open this policy, neither after a reload nor from a neighbour policy.
            let scope = self.client_auth.as_ref().map(ClientAuth::digest).unwrap_or_default();
            config.ticketer = Tickets::shared(scope, tickets)?;
            // As Go does: clients that open several connections at once resume with one ticket or shake hands in full.
            config.send_tls13_tickets = 1;
        }
        Ok(Built { matchers: self.matchers.clone(), drop: self.drop, config: Arc::new(config), resolver, clients })
    }
}

#[derive(Debug, Clone)]
struct Built {
    matchers: Vec<Matcher>,
    drop: bool,
    config: Arc<ServerConfig>,
    /// That of `config`, for variants of it.
    resolver: Resolver,
    /// Who is let in; `None` = everybody.
    clients: Option<Arc<dyn ClientCertVerifier>>,
}

/// TLS of one server: chooses the settings for a client hello.
#[derive(Debug, Clone)]
pub struct ServerTls {
    policies: Vec<Built>,
}

impl ServerTls {
    /// `policies` in order; the first that is for a hello applies.
    pub fn new(policies: &[Policy], store: &Arc<CertStore>, tickets: &TicketSettings) -> Result<Self, rustls::Error> {
        let policies = policies.iter().map(|policy| policy.build(store, tickets)).collect::<Result<_, _>>()?;
        Ok(Self { policies })
    }

    /// The name, in lower case, that a certificate must be had for; `None` when one given by file serves the client
    /// anyway, or when it is to be refused.
    #[must_use]
    pub fn name_to_have(&self, hello: &Hello<'_>) -> Option<String> {
        let chosen = self.policies.iter().find(|p| p.matchers.iter().all(|m| m.admits(hello)))?;
        if chosen.drop { None } else { chosen.resolver.name_to_have(hello.server_name, hello.local) }
    }

    /// Whether a client that shook hands under other settings is let in by these too, with the certificates that it
    /// showed then.
    #[must_use]
    pub fn admits(&self, hello: &Hello<'_>, shown: &[Vec<u8>]) -> bool {
        let chosen = self.policies.iter().find(|p| p.matchers.iter().all(|m| m.admits(hello)));
        let Some(clients) = chosen.and_then(|chosen| chosen.clients.as_ref()) else { return true };
        let mut shown = shown.iter().map(|der| CertificateDer::from(der.as_slice()));
        match shown.next() {
            None => !clients.client_auth_mandatory(),
            Some(leaf) => clients.verify_client_cert(&leaf, &shown.collect::<Vec<_>>(), UnixTime::now()).is_ok(),
        }
    }

    /// The settings for a connection; `None` when it is to be refused.
    #[must_use]
    pub fn choose(&self, hello: &Hello<'_>) -> Option<Arc<ServerConfig>> {
        let chosen = self.policies.iter().find(|p| p.matchers.iter().all(|m| m.admits(hello)))?;
        if chosen.drop {
            return None;
        }
        match (hello.server_name, hello.local) {
            // Clients ask for no name when they connect to an address: then the address is the name.
            (None, Some(local)) => {
                let mut config = ServerConfig::clone(&chosen.config);
                config.cert_resolver = Arc::new(Resolver { local: Some(local), ..chosen.resolver.clone() });
                Some(Arc::new(config))
            }
            _ => Some(Arc::clone(&chosen.config)),
        }
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
    let ours = |suite: &SupportedCipherSuite| match suite.suite().as_str() {
        // rustls writes TLS13_AES_128_GCM_SHA256 where the registry has TLS_AES_128_GCM_SHA256.
        Some(own) => {
            own == name || own.strip_prefix("TLS13_").is_some_and(|own| name.strip_prefix("TLS_") == Some(own))
        }
        None => false,
    };
    aws_lc_rs::ALL_CIPHER_SUITES.iter().find(|suite| ours(suite)).copied()
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
        assert!(suite_by_name("TLS_AES_128_GCM_SHA256").is_some());
        assert!(suite_by_name("TLS_RSA_WITH_AES_128_CBC_SHA").is_none());
    }

    fn nets(texts: &[&str]) -> Vec<IpNet> {
        texts.iter().map(|t| t.parse().unwrap()).collect()
    }

    #[test]
    fn all_conditions_of_a_policy_must_hold_and_the_first_policy_counts() {
        let policy = |matchers, drop| Policy { matchers, drop, ..Policy::default() };
        let policies = [
            policy(vec![Matcher::Remote { within: nets(&["192.0.2.0/24"]), without: nets(&["192.0.2.7/32"]) }], true),
            policy(
                vec![
                    Matcher::ServerName(vec!["*.a.test".into()]),
                    Matcher::ServerNameRegexp(Regex::new("^x").unwrap()),
                    Matcher::Local(nets(&["10.0.0.1/32"])),
                ],
                false,
            ),
        ];
        let tls = ServerTls::new(&policies, &Arc::default(), &TicketSettings::default()).unwrap();
        let chosen = |name: Option<&str>, remote: &str, local: &str| {
            let hello =
                Hello { server_name: name, remote: Some(remote.parse().unwrap()), local: Some(local.parse().unwrap()) };
            tls.choose(&hello).is_some()
        };
        assert!(chosen(Some("x.a.test"), "198.51.100.1", "10.0.0.1"));
        assert!(chosen(Some("x.a.test"), "192.0.2.7", "10.0.0.1"));
        assert!(!chosen(Some("x.a.test"), "192.0.2.8", "10.0.0.1"), "dropped");
        assert!(!chosen(Some("y.a.test"), "198.51.100.1", "10.0.0.1"), "no policy is for it");
        assert!(!chosen(Some("x.a.test"), "198.51.100.1", "10.0.0.2"));
        assert!(!chosen(None, "198.51.100.1", "10.0.0.1"));
        assert!(tls.choose(&Hello { server_name: Some("x.a.test"), ..Hello::default() }).is_none(), "unix socket");
    }
}

//! Which certificate a client hello gets.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use time::OffsetDateTime;

use super::certificate::{Certificate, KeyAlgorithm};
use super::managed::ManagedStore;

/// All loaded certificates, by name, with those that are managed behind them.
#[derive(Debug, Default)]
pub struct CertStore {
    certificates: Vec<Certificate>,
    by_name: HashMap<String, Vec<usize>>,
    /// Those with a wildcard name, by what follows its `*.`.
    by_parent: HashMap<String, Vec<usize>>,
    managed: Arc<ManagedStore>,
}

impl CertStore {
    #[must_use]
    pub fn new(certificates: Vec<Certificate>, managed: Arc<ManagedStore>) -> Self {
        let (mut by_name, mut by_parent) = (HashMap::<String, Vec<usize>>::new(), HashMap::<String, Vec<usize>>::new());
        let mut order: Vec<usize> = (0..certificates.len()).collect();
        // Of several that a client can use the first is taken: an RSA key costs ten times the CPU of an elliptic one.
        order.sort_by_key(|index| certificates.get(*index).is_some_and(|c| c.algorithm == KeyAlgorithm::Rsa));
        for index in order {
            for name in certificates.get(index).map_or(&[][..], |c| &c.names) {
                by_name.entry(name.clone()).or_default().push(index);
                if let Some(parent) = name.strip_prefix("*.") {
                    by_parent.entry(parent.to_owned()).or_default().push(index);
                }
            }
        }
        Self { certificates, by_name, by_parent, managed }
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.certificates.is_empty()
    }

    /// Whether some certificate is good for the name, or is the very wildcard asked for.
    #[must_use]
    pub fn covers(&self, name: &str) -> bool {
        !self.matching(name).is_empty()
    }

    /// Certificates that a policy may serve.
    pub fn selected<'a>(&'a self, selection: &'a Selection) -> impl Iterator<Item = &'a Certificate> {
        self.certificates.iter().filter(|certificate| selection.admits(certificate))
    }

    /// Those loaded from files.
    pub fn loaded(&self) -> impl Iterator<Item = &Certificate> {
        self.certificates.iter()
    }

    /// Certificates good for a name: exact ones, else those of the wildcard one label up.
    fn matching(&self, name: &str) -> &[usize] {
        let found = self.by_name.get(name).or_else(|| self.by_parent.get(name.split_once('.')?.1));
        found.map_or(&[], Vec::as_slice)
    }
}

/// How a policy narrows the choice: all that is set must hold.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    /// Only certificates with one of these tags; empty = any.
    pub any_tag: Vec<String>,
    /// Only certificates with all of these tags.
    pub all_tags: Vec<String>,
    /// Only certificates with one of these serial numbers (big-endian, no leading zeros); empty = any.
    pub serials: Vec<Vec<u8>>,
    /// Only certificates of one of these organisations; empty = any.
    pub organizations: Vec<String>,
    pub algorithm: Option<KeyAlgorithm>,
    /// Name assumed when the client sends none.
    pub default_sni: Option<String>,
    /// Name assumed when nothing is good for the client's.
    pub fallback_sni: Option<String>,
}

impl Selection {
    /// Whether it chooses by tag: then only certificates given by the admin are meant.
    #[must_use]
    pub fn by_tag(&self) -> bool {
        !self.any_tag.is_empty() || !self.all_tags.is_empty()
    }

    fn narrows(&self) -> bool {
        self.by_tag() || !self.serials.is_empty() || !self.organizations.is_empty() || self.algorithm.is_some()
    }

    fn admits(&self, certificate: &Certificate) -> bool {
        let any = |wanted: &[String], has: &[String]| wanted.is_empty() || wanted.iter().any(|w| has.contains(w));
        any(&self.any_tag, &certificate.tags)
            && self.all_tags.iter().all(|t| certificate.tags.contains(t))
            && (self.serials.is_empty() || self.serials.contains(&certificate.serial))
            && any(&self.organizations, &certificate.organizations)
            && self.algorithm.is_none_or(|wanted| wanted == certificate.algorithm)
    }
}

#[derive(Debug, Clone)]
pub struct Resolver {
    pub store: Arc<CertStore>,
    pub selection: Selection,
    /// The address that was connected to, for clients that send no name.
    pub local: Option<IpAddr>,
}

impl Resolver {
    /// The name that a certificate must be had for; `None` when one given by file serves the client anyway.
    pub fn name_to_have(&self, server_name: Option<&str>, local: Option<IpAddr>) -> Option<String> {
        if self.selection.narrows() {
            return None;
        }
        let name = match (server_name, &self.selection.default_sni) {
            (Some(name), _) => name.to_ascii_lowercase(),
            (None, Some(default)) => default.clone(),
            (None, None) => local?.to_string(),
        };
        (!self.store.covers(&name)).then_some(name)
    }

    /// The certificate for a server name. A policy that selects serves its certificate for any name, as Caddy does: the
    /// admin gave that file for that site.
    fn find(&self, name: Option<&str>, supports: impl Fn(&CertifiedKey) -> bool) -> Option<Arc<CertifiedKey>> {
        let (store, selection) = (&*self.store, &self.selection);
        let named = |name: &str| {
            // Given by file before obtained: the admin chose that one.
            let given = store.matching(name).iter().filter_map(|i| store.certificates.get(*i));
            best(given.filter(|c| selection.admits(c)), &supports).or_else(|| {
                if selection.narrows() {
                    store.managed.certificate(name).filter(|c| selection.admits(c)).map(|c| c.served())
                } else {
                    store.managed.get(name)
                }
            })
        };
        let found = match name {
            Some(name) if name.bytes().any(|b| b.is_ascii_uppercase()) => named(&name.to_ascii_lowercase()),
            Some(name) => named(name),
            None => self
                .local
                .and_then(|ip| named(&ip.to_string()))
                .or_else(|| selection.default_sni.as_deref().and_then(named)),
        };
        // Without a name only when nothing at all is for the address, as in Caddy.
        let any_name = selection.narrows()
            && (name.is_some() || self.local.is_none_or(|ip| store.matching(&ip.to_string()).is_empty()));
        found
            .or_else(|| any_name.then(|| best(store.selected(selection), &supports)).flatten())
            .or_else(|| selection.fallback_sni.as_deref().and_then(named))
    }
}

/// The first that the client can use and that is not expired; else the first that it can use; else the first.
fn best<'a>(
    candidates: impl Iterator<Item = &'a Certificate>,
    supports: impl Fn(&CertifiedKey) -> bool,
) -> Option<Arc<CertifiedKey>> {
    let mut candidates = candidates.peekable();
    let mut found = *candidates.peek()?;
    if candidates.size_hint().1 != Some(1) {
        let now = OffsetDateTime::now_utc();
        let mut usable = candidates.filter(|c| supports(&c.key)).peekable();
        if let Some(first) = usable.peek() {
            found = first;
        }
        if let Some(good) = usable.find(|c| c.validity.not_before <= now && !c.validity.is_expired(now)) {
            found = good;
        }
    }
    Some(found.served())
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        // With several certificates for a name (RSA and ECDSA) the client's signature schemes decide.
        let schemes = hello.signature_schemes();
        self.find(hello.server_name(), |key| key.key.choose_scheme(schemes).is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn certificate(names: &[&str], tag: &str) -> Certificate {
        let names: Vec<String> = names.iter().map(|s| (*s).to_owned()).collect();
        let made = rcgen::generate_simple_self_signed(names).unwrap();
        let (chain, key) = (made.cert.pem(), made.signing_key.serialize_pem());
        Certificate::from_pem(chain.as_bytes(), key.as_bytes(), vec![tag.to_owned()]).unwrap()
    }

    fn store(certificates: Vec<Certificate>) -> CertStore {
        CertStore::new(certificates, Arc::default())
    }

    fn resolver(store: Arc<CertStore>, selection: Selection) -> Resolver {
        Resolver { store, selection, local: None }
    }

    fn found(resolver: &Resolver, name: Option<&str>) -> Option<usize> {
        let key = resolver.find(name, |_| true)?;
        resolver.store.certificates.iter().position(|c| Arc::ptr_eq(&c.key, &key))
    }

    #[test]
    fn exact_before_wildcard_and_one_label_only() {
        let store = store(vec![certificate(&["*.a.test"], "w"), certificate(&["x.a.test"], "x")]);
        let resolver = resolver(Arc::new(store), Selection::default());
        assert_eq!(found(&resolver, Some("X.a.test")), Some(1));
        assert_eq!(found(&resolver, Some("y.a.test")), Some(0));
        assert_eq!(found(&resolver, Some("z.y.a.test")), None);
        assert_eq!(found(&resolver, None), None);
    }

    #[test]
    fn a_tagged_policy_serves_its_certificate_for_any_name() {
        let store = Arc::new(store(vec![certificate(&["a.test"], "cert0"), certificate(&["b.test"], "cert1")]));
        let selection = Selection { any_tag: vec!["cert1".into()], ..Selection::default() };
        let resolver = resolver(store, selection);
        assert_eq!(found(&resolver, Some("a.test")), Some(1));
        assert_eq!(found(&resolver, None), Some(1));
    }

    #[test]
    fn default_and_fallback_names_apply() {
        let store = Arc::new(store(vec![certificate(&["a.test"], ""), certificate(&["b.test"], "")]));
        let selection = Selection {
            default_sni: Some("a.test".into()),
            fallback_sni: Some("b.test".into()),
            ..Selection::default()
        };
        let resolver = resolver(store, selection);
        assert_eq!(found(&resolver, None), Some(0));
        assert_eq!(found(&resolver, Some("unknown")), Some(1));
    }

    #[test]
    fn a_client_that_sends_no_name_gets_the_certificate_of_the_address() {
        let store = Arc::new(store(vec![certificate(&["a.test"], ""), certificate(&["192.0.2.1", "::1"], "")]));
        let selection = Selection { default_sni: Some("a.test".into()), ..Selection::default() };
        let mut resolver = resolver(store, selection);
        for (local, index) in [("192.0.2.1", 1), ("::1", 1), ("192.0.2.2", 0)] {
            resolver.local = Some(local.parse().unwrap());
            assert_eq!(found(&resolver, None), Some(index), "{local}");
        }
    }

    fn made(algorithm: &'static rcgen::SignatureAlgorithm, serial: u64, organization: &str, days: i64) -> Certificate {
        let key = rcgen::KeyPair::generate_for(algorithm).unwrap();
        let mut params = rcgen::CertificateParams::new(vec!["a.test".to_owned()]).unwrap();
        params.serial_number = Some(serial.into());
        params.distinguished_name.push(rcgen::DnType::OrganizationName, organization);
        params.not_after = OffsetDateTime::now_utc() + time::Duration::days(days);
        let chain = params.self_signed(&key).unwrap().pem();
        Certificate::from_pem(chain.as_bytes(), key.serialize_pem().as_bytes(), vec![]).unwrap()
    }

    #[test]
    fn serial_organisation_and_algorithm_select() {
        let store = Arc::new(store(vec![
            made(&rcgen::PKCS_RSA_SHA256, 300, "One", 1),
            made(&rcgen::PKCS_ECDSA_P256_SHA256, 7, "Two", 1),
            made(&rcgen::PKCS_ED25519, 8, "Two", 1),
        ]));
        let cases = [
            (Selection::default(), 1),
            (Selection { serials: vec![vec![1, 44]], ..Selection::default() }, 0),
            (Selection { organizations: vec!["One".into()], ..Selection::default() }, 0),
            (Selection { algorithm: Some(KeyAlgorithm::Rsa), ..Selection::default() }, 0),
            (Selection { algorithm: Some(KeyAlgorithm::Ed25519), ..Selection::default() }, 2),
            (
                Selection {
                    organizations: vec!["Two".into()],
                    algorithm: Some(KeyAlgorithm::Ecdsa),
                    ..Selection::default()
                },
                1,
            ),
        ];
        for (selection, index) in cases {
            let resolver = resolver(Arc::clone(&store), selection);
            assert_eq!(found(&resolver, Some("a.test")), Some(index), "{:?}", resolver.selection);
        }
        let nothing = Selection { organizations: vec!["Three".into()], ..Selection::default() };
        assert_eq!(found(&resolver(store, nothing), Some("a.test")), None);
    }

    #[test]
    fn what_is_expired_is_served_only_when_there_is_nothing_else() {
        let expired = || made(&rcgen::PKCS_ECDSA_P256_SHA256, 1, "", -1);
        let both = Arc::new(store(vec![expired(), made(&rcgen::PKCS_ECDSA_P256_SHA256, 2, "", 1)]));
        assert_eq!(found(&resolver(both, Selection::default()), Some("a.test")), Some(1));
        let alone = Arc::new(store(vec![expired()]));
        assert_eq!(found(&resolver(alone, Selection::default()), Some("a.test")), Some(0));
    }
}

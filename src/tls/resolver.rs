//! Which certificate a client hello gets.

use std::collections::HashMap;
use std::sync::Arc;

use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::certificate::Certificate;
use super::managed::ManagedStore;

/// All loaded certificates, by name, with those that are managed behind them.
#[derive(Debug, Default)]
pub struct CertStore {
    certificates: Vec<Certificate>,
    by_name: HashMap<String, Vec<usize>>,
    managed: Arc<ManagedStore>,
}

impl CertStore {
    #[must_use]
    pub fn new(certificates: Vec<Certificate>, managed: Arc<ManagedStore>) -> Self {
        let mut by_name: HashMap<String, Vec<usize>> = HashMap::new();
        for (index, certificate) in certificates.iter().enumerate() {
            for name in &certificate.names {
                by_name.entry(name.clone()).or_default().push(index);
            }
        }
        Self { certificates, by_name, managed }
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

    /// Certificates good for a name: exact ones, else those of the wildcard one label up.
    fn matching(&self, name: &str) -> &[usize] {
        if let Some(found) = self.by_name.get(name) {
            return found;
        }
        let wildcard = name.split_once('.').map(|(_, parent)| format!("*.{parent}"));
        wildcard.and_then(|w| self.by_name.get(&w)).map_or(&[], Vec::as_slice)
    }
}

/// How a policy narrows the choice.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    /// Only certificates with one of these tags; empty = any.
    pub any_tag: Vec<String>,
    /// Only certificates with all of these tags.
    pub all_tags: Vec<String>,
    /// Name assumed when the client sends none.
    pub default_sni: Option<String>,
    /// Name assumed when nothing is good for the client's.
    pub fallback_sni: Option<String>,
}

impl Selection {
    fn narrows(&self) -> bool {
        !self.any_tag.is_empty() || !self.all_tags.is_empty()
    }

    fn admits(&self, certificate: &Certificate) -> bool {
        (self.any_tag.is_empty() || self.any_tag.iter().any(|t| certificate.tags.contains(t)))
            && self.all_tags.iter().all(|t| certificate.tags.contains(t))
    }
}

#[derive(Debug)]
pub struct Resolver {
    pub store: Arc<CertStore>,
    pub selection: Selection,
}

impl Resolver {
    /// The certificate for a server name. A policy that selects by tag serves its certificate for any name, as Caddy
    /// does: the admin gave that file for that site.
    fn find(&self, name: Option<&str>, supports: impl Fn(&CertifiedKey) -> bool) -> Option<Arc<CertifiedKey>> {
        let name = name.map(str::to_ascii_lowercase).or_else(|| self.selection.default_sni.clone());
        let pick = |indexes: &mut dyn Iterator<Item = usize>| {
            let admitted = indexes.filter_map(|i| self.store.certificates.get(i)).filter(|c| self.selection.admits(c));
            let mut first = None;
            for certificate in admitted {
                if supports(&certificate.key) {
                    return Some(Arc::clone(&certificate.key));
                }
                first.get_or_insert_with(|| Arc::clone(&certificate.key));
            }
            first
        };
        // Given by file before obtained: the admin chose that one.
        let named = |name: &str| {
            let given = pick(&mut self.store.matching(name).iter().copied());
            given.or_else(|| if self.selection.narrows() { None } else { self.store.managed.get(name) })
        };
        name.as_deref()
            .and_then(named)
            .or_else(|| self.selection.narrows().then(|| pick(&mut (0..self.store.certificates.len()))).flatten())
            .or_else(|| self.selection.fallback_sni.as_deref().and_then(named))
    }
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

    fn found(resolver: &Resolver, name: Option<&str>) -> Option<usize> {
        let key = resolver.find(name, |_| true)?;
        resolver.store.certificates.iter().position(|c| Arc::ptr_eq(&c.key, &key))
    }

    #[test]
    fn exact_before_wildcard_and_one_label_only() {
        let store = store(vec![certificate(&["*.a.test"], "w"), certificate(&["x.a.test"], "x")]);
        let resolver = Resolver { store: Arc::new(store), selection: Selection::default() };
        assert_eq!(found(&resolver, Some("X.a.test")), Some(1));
        assert_eq!(found(&resolver, Some("y.a.test")), Some(0));
        assert_eq!(found(&resolver, Some("z.y.a.test")), None);
        assert_eq!(found(&resolver, None), None);
    }

    #[test]
    fn a_tagged_policy_serves_its_certificate_for_any_name() {
        let store = Arc::new(store(vec![certificate(&["a.test"], "cert0"), certificate(&["b.test"], "cert1")]));
        let selection = Selection { any_tag: vec!["cert1".into()], ..Selection::default() };
        let resolver = Resolver { store, selection };
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
        let resolver = Resolver { store, selection };
        assert_eq!(found(&resolver, None), Some(0));
        assert_eq!(found(&resolver, Some("unknown")), Some(1));
    }

    #[test]
    fn a_key_of_another_certificate_is_refused_without_showing_it() {
        let a = rcgen::generate_simple_self_signed(vec!["a".to_owned()]).unwrap();
        let b = rcgen::generate_simple_self_signed(vec!["b".to_owned()]).unwrap();
        let key = b.signing_key.serialize_pem();
        let error = Certificate::from_pem(a.cert.pem().as_bytes(), key.as_bytes(), vec![]).unwrap_err();
        assert!(error.to_string().contains("do not belong together"), "{error}");
    }
}

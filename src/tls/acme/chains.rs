//! Which of several chains of one certificate is taken (`preferred_chains`).

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use crate::config::tls_types::ChainPreference;

/// The preferred one of the chains, each in PEM; the first, which the CA prefers, when none is. By size chains are put
/// in order; by name the first that has a name wins, names in the order of the configuration.
#[must_use]
pub fn preferred(mut chains: Vec<String>, preference: &ChainPreference) -> Option<String> {
    match preference.smallest {
        Some(true) => chains.sort_by_key(String::len),
        Some(false) => chains.sort_by_key(|chain| std::cmp::Reverse(chain.len())),
        None => {}
    }
    let names: Vec<Vec<String>> = chains.iter().map(|chain| issuers(chain)).collect();
    let any = preference
        .any_common_name
        .iter()
        .find_map(|wanted| names.iter().position(|issuers| issuers.iter().any(|name| name == wanted)));
    let root = || {
        let mut wanted = preference.root_common_name.iter();
        wanted.find_map(|wanted| names.iter().position(|issuers| issuers.last() == Some(wanted)))
    };
    let is_named = !preference.any_common_name.is_empty() || !preference.root_common_name.is_empty();
    let chosen = any.or_else(root);
    if is_named && chosen.is_none() {
        tracing::warn!("the CA offers no chain with a preferred common name: its first is taken");
    }
    let chosen = chosen.unwrap_or(0);
    (chosen < chains.len()).then(|| chains.swap_remove(chosen))
}

/// Common names of the issuers, from the leaf's upwards; nothing for what cannot be read.
fn issuers(chain: &str) -> Vec<String> {
    let certificates = CertificateDer::pem_slice_iter(chain.as_bytes()).map_while(Result::ok);
    certificates
        .filter_map(|der| {
            let (_, certificate) = x509_parser::parse_x509_certificate(&der).ok()?;
            let name = certificate.issuer().iter_common_name().next().and_then(|c| c.as_str().ok());
            Some(name.unwrap_or_default().to_owned())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A chain whose issuers have these names, the leaf's first.
    fn chain(issuers: &[&str]) -> String {
        let key = rcgen::KeyPair::generate().unwrap();
        let one = |issuer: &str| {
            let mut ca = rcgen::CertificateParams::default();
            ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
            ca.distinguished_name = rcgen::DistinguishedName::new();
            ca.distinguished_name.push(rcgen::DnType::CommonName, issuer);
            let ca = rcgen::CertifiedIssuer::self_signed(ca, rcgen::KeyPair::generate().unwrap()).unwrap();
            rcgen::CertificateParams::new(vec!["a.test".to_owned()]).unwrap().signed_by(&key, &ca).unwrap().pem()
        };
        issuers.iter().map(|issuer| one(issuer)).collect()
    }

    #[test]
    fn chains_are_chosen_by_size_or_name() {
        let chains = vec![chain(&["R3", "X1", "Old"]), chain(&["R3", "X2"]), chain(&["R3", "X1"])];
        let pick = |json: serde_json::Value| {
            let preference: ChainPreference = serde_json::from_value(json).unwrap();
            let taken = preferred(chains.clone(), &preference).unwrap();
            chains.iter().position(|chain| *chain == taken).unwrap()
        };
        assert_eq!(pick(serde_json::json!({"smallest": false})), 0);
        assert_ne!(pick(serde_json::json!({"smallest": true})), 0);
        assert_eq!(pick(serde_json::json!({"root_common_name": ["None", "X1", "X2"]})), 2);
        assert_eq!(pick(serde_json::json!({"any_common_name": ["X2", "X1"]})), 1);
        assert_eq!(pick(serde_json::json!({"any_common_name": ["X1"]})), 0);
        assert_eq!(pick(serde_json::json!({"root_common_name": ["None"]})), 0);
        assert_eq!(preferred(vec![], &ChainPreference::default()), None);
        assert_eq!(preferred(vec!["garbage".into()], &ChainPreference::default()).as_deref(), Some("garbage"));
    }
}

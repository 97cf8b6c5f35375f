//! How the certificates of a configuration are to be had: policies, issuers, storage and authorities, from its `tls`,
//! `pki` and `storage` parts.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use serde_json::Value;

use super::acme_issuer;
use super::auto_https::Additions;
use super::client_names;
use super::dns_challenge;
use super::on_demand;
use super::{authorities, storage as storage_part};
use crate::config::compile_cx::{CompileCx, CompileError, read_value};
use crate::config::tls_types::{AcmeIssuer, Automation as Policies, AutomationPolicy, InternalIssuer, Issuer};
use crate::config::types::Config;
use crate::storage::FileStorage;
pub use crate::storage::default_folder;
use crate::tls::acme;
use crate::tls::automation::{Automation, OCSP_INTERVAL, Plan, RENEW_INTERVAL, RENEWAL_RATIO, Stapling};
use crate::tls::cleaning;
use crate::tls::ocsp::Query;
use crate::tls::{CertStore, KeyType, subject};

/// Makes the plan for the names of the sites, and for those that the `tls` part names itself.
pub fn plan(config: &Config, store: &CertStore, auto: &Additions, cx: &mut CompileCx<'_>) -> Plan {
    let storage = storage(config.storage.as_ref());
    let clean_interval = config.apps.tls.as_ref().map_or(Some(cleaning::INTERVAL), storage_part::clean_interval);
    let mut plan = Plan { storage, clean_interval, challenges: auto.challenges.clone(), ..Plan::default() };
    let names = &auto.names;
    cx.at("apps", |cx| {
        cx.at("pki", |cx| plan.authorities = authorities::authorities(config.apps.pki.as_ref(), cx));
        // For `acme_server`, which issues from the same authorities.
        cx.storage.clone_from(&plan.storage);
        let read = cx.at("tls", |cx| cx.at("automation", |cx| policies(config, cx)));
        plan.renew_interval = read.renew_interval.positive().unwrap_or(RENEW_INTERVAL);
        plan.ocsp_interval = read.ocsp_interval.positive().unwrap_or(OCSP_INTERVAL);
        if !config.apps.tls.as_ref().is_some_and(|tls| tls.disable_ocsp_stapling) {
            plan.stapled = store.loaded().filter(|c| Query::of(&c.key.cert).is_some()).cloned().collect();
        }
        let mut demand = cx.at("tls", |cx| {
            cx.at("automation", |cx| on_demand::demand(&read, |i| Arc::new(automation(&read.policies, i)), cx))
        });
        let policies = read.policies;
        let mut wanted: BTreeMap<String, Option<&String>> =
            names.iter().map(|(name, server)| (name.clone(), Some(server))).collect();
        let named: BTreeSet<String> = named_by_tls(config).collect();
        wanted.extend(named.iter().filter(|n| !names.contains_key(*n) && !store.covers(n)).map(|n| (n.clone(), None)));
        // Before wildcards are looked at: one that is on demand is no certificate for others to share.
        wanted.retain(|name, _| {
            let waits = policies.get(choose(&policies, name)).is_some_and(on_demand::is_on_demand);
            demand.iter_mut().filter(|_| waits).for_each(|demand| demand.written.extend([name.clone()]));
            !waits
        });
        // One message for all names that share a fault.
        let mut refused: BTreeMap<Option<&String>, Vec<String>> = BTreeMap::new();
        let mut made: BTreeMap<usize, Arc<Automation>> = BTreeMap::new();
        for (name, server) in wanted.clone() {
            // `force_automate` and its kin ask for one all the same.
            if has_wildcard(&name, &wanted) && !named.contains(&name) {
                continue;
            }
            let chosen = choose(&policies, &name);
            let automation = made.entry(chosen).or_insert_with(|| Arc::new(automation(&policies, chosen)));
            if name.starts_with("*.") && !automation.issuers.iter().any(gives_wildcards) {
                refused.entry(server).or_default().push(name);
            } else {
                plan.names.insert(name, Arc::clone(automation));
            }
        }
        plan.on_demand = demand.map(Arc::new);
        for (server, names) in refused {
            refuse(server, &names, cx);
        }
    });
    plan
}

fn refuse(server: Option<&String>, names: &[String], cx: &mut CompileCx<'_>) {
    let message = format!(
        "no certificate for `{}`: a CA gives those for wildcards over the DNS challenge alone, and none is configured",
        names.join("`, `")
    );
    let error = CompileError::new("no-certificate", message)
        .help("set a provider with `tls { dns … }` or the option `acme_dns`, name the hosts one by one, give certificate files with `tls CERT KEY`, or use the internal CA with `tls internal`");
    match server {
        Some(server) => cx.at("http", |cx| cx.at("servers", |cx| cx.at(server, |cx| cx.report(error)))),
        None => cx.at("tls", |cx| cx.at("certificates", |cx| cx.at("automate", |cx| cx.report(error)))),
    }
}

/// A wildcard is proved over DNS alone (RFC 8555 section 7.1.3, the CAs' rules).
fn gives_wildcards(issuer: &Issuer) -> bool {
    match issuer {
        Issuer::Internal(_) => true,
        Issuer::Acme(acme) => acme::dns::of(acme).is_some(),
        Issuer::Zerossl(_) => false,
    }
}

/// Whether the certificate of a wildcard that is wanted too is good for the name (Caddy's rule).
fn has_wildcard(name: &str, wanted: &BTreeMap<String, Option<&String>>) -> bool {
    let parent = name.split_once('.').filter(|_| subject::parse_ip(name).is_none());
    parent.is_some_and(|(label, parent)| label != "*" && wanted.contains_key(&format!("*.{parent}")))
}

/// Names that the configuration asks for whether or not a site serves them: of the `tls` part, and of clients of upstreams.
fn named_by_tls(config: &Config) -> impl Iterator<Item = String> {
    let named = config.apps.tls.as_ref().and_then(|tls| tls.certificates.get("automate")).and_then(Value::as_array);
    let named = named.into_iter().flatten().filter_map(Value::as_str).map(str::to_ascii_lowercase);
    named.chain(client_names::of(config))
}

fn policies(config: &Config, cx: &mut CompileCx<'_>) -> Policies {
    let Some(value) = config.apps.tls.as_ref().and_then(|tls| tls.automation.as_ref()) else {
        return Policies::default();
    };
    let mut read: Policies = match read_value(value) {
        Ok(read) => read,
        Err(error) => {
            cx.report(error);
            return Policies::default();
        }
    };
    if let Some(app) = &config.apps.tls {
        cx.at("policies", |cx| dns_challenge::complete(&mut read.policies, app, cx));
    }
    for (i, policy) in read.policies.iter().enumerate() {
        if KeyType::named(&policy.key_type).is_none() {
            let error = CompileError::not_supported(format_args!("key type `{}`", policy.key_type));
            cx.at("policies", |cx| cx.at(i, |cx| cx.report(error)));
        }
        for (j, issuer) in policy.issuers.iter().enumerate() {
            let error = |what: &str| CompileError::not_supported(what);
            let mut report = |what| {
                cx.at("policies", |cx| cx.at(i, |cx| cx.at("issuers", |cx| cx.at(j, |cx| cx.report(error(what))))));
            };
            match issuer {
                Issuer::Internal(_) => {}
                Issuer::Zerossl(_) => report("ZeroSSL's own API (its ACME directory runs)"),
                Issuer::Acme(acme) => {
                    unsupported_acme(acme).into_iter().for_each(&mut report);
                    let at =
                        |cx: &mut CompileCx<'_>| cx.at("issuers", |cx| cx.at(j, |cx| acme_issuer::check(acme, cx)));
                    cx.at("policies", |cx| cx.at(i, at));
                }
            }
        }
        if policy.storage.is_some() {
            let error = CompileError::not_supported("a storage of one policy's own");
            cx.at("policies", |cx| cx.at(i, |cx| cx.report(error)));
        }
    }
    read
}

/// What an ACME issuer asks for and cannot have yet.
fn unsupported_acme(acme: &AcmeIssuer) -> Vec<&'static str> {
    let mut found = Vec::new();
    if acme::proxy(acme).is_err() {
        found.push("this proxy of an issuer's own");
    }
    if !acme.account_key.is_empty() && !acme::is_usable_account_key(&acme.account_key) {
        found.push("an `account_key` that is not a private key of the curve P-256 in PEM");
    }
    // ZeroSSL wants an external account, and gives one unasked.
    let is_external = acme.external_account.is_some() || acme::directory(acme) == acme::ZEROSSL;
    if !acme.account_key.is_empty() && is_external {
        found.push("an `account_key` for an account that is bound to an external one (`eab`, and always with ZeroSSL)");
    }
    found
}

/// Numbers that stand for policies that a configuration does not write.
const DEFAULT: usize = usize::MAX;
const INTERNAL: usize = usize::MAX - 1;

/// The policy for a name: the first that has it among its subjects; else the internal CA for what no public one would
/// sign; else the first that is for all names.
fn choose(policies: &[AutomationPolicy], name: &str) -> usize {
    let named = |p: &AutomationPolicy| p.subjects.iter().any(|s| subject::matches(&s.to_ascii_lowercase(), name));
    if let Some(found) = policies.iter().position(named) {
        return found;
    }
    if !subject::qualifies_for_public(name) {
        return INTERNAL;
    }
    policies.iter().position(|p| p.subjects.is_empty()).unwrap_or(DEFAULT)
}

fn automation(policies: &[AutomationPolicy], chosen: usize) -> Automation {
    let policy = policies.get(chosen);
    let internal = || vec![Issuer::Internal(InternalIssuer::default())];
    let public = || vec![Issuer::from(AcmeIssuer::default())];
    let issuers = match policy {
        Some(policy) if !policy.issuers.is_empty() => policy.issuers.clone(),
        Some(policy)
            if !policy.subjects.is_empty() && policy.subjects.iter().all(|s| !subject::qualifies_for_public(s)) =>
        {
            internal()
        }
        Some(_) => public(),
        None if chosen == INTERNAL => internal(),
        None => public(),
    };
    let told = policy.map_or(0.0, |p| p.renewal_window_ratio);
    Automation {
        issuers,
        key_type: policy.and_then(|p| KeyType::named(&p.key_type)).unwrap_or_default(),
        renewal_ratio: if told > 0.0 { told } else { RENEWAL_RATIO },
        reuse_private_keys: policy.is_some_and(|p| p.reuse_private_keys),
        must_staple: policy.is_some_and(|p| p.must_staple),
        stapling: (!policy.is_some_and(|p| p.disable_ocsp_stapling))
            .then(|| Stapling { overrides: policy.map(|p| overrides(&p.ocsp_overrides)).unwrap_or_default() }),
    }
}

/// Responders to be asked in place of others.
fn overrides(told: &serde_json::Map<String, Value>) -> BTreeMap<String, String> {
    told.iter().filter_map(|(from, to)| Some((from.clone(), to.as_str()?.to_owned()))).collect()
}

/// The folder of the `storage` option, else the default one.
fn storage(module: Option<&Value>) -> FileStorage {
    let root = module.and_then(|m| m.get("root")).and_then(Value::as_str).filter(|root| !root.is_empty());
    FileStorage::new(root.map_or_else(default_folder, PathBuf::from))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn chosen(policies: Value, name: &str) -> Automation {
        let policies: Vec<AutomationPolicy> = serde_json::from_value(policies).unwrap();
        automation(&policies, choose(&policies, name))
    }

    fn is_internal(automation: &Automation) -> bool {
        matches!(automation.issuers[..], [Issuer::Internal(_)])
    }

    #[test]
    fn names_that_no_public_ca_signs_get_the_internal_one() {
        for name in ["localhost", "127.0.0.1", "a.internal"] {
            assert!(is_internal(&chosen(json!([]), name)), "{name}");
            assert!(is_internal(&chosen(json!([{"key_type": "p384"}]), name)), "{name}");
            assert!(is_internal(&chosen(json!([{"subjects": [name], "key_type": "p384"}]), name)), "{name}");
        }
        assert!(!is_internal(&chosen(json!([]), "a.test")));
    }

    #[test]
    fn account_keys_that_no_order_could_use_are_told() {
        let key = |algorithm| rcgen::KeyPair::generate_for(algorithm).unwrap().serialize_pem();
        let (good, other) = (key(&rcgen::PKCS_ECDSA_P256_SHA256), key(&rcgen::PKCS_ECDSA_P384_SHA384));
        let told = |issuer: Value| unsupported_acme(&serde_json::from_value(issuer).unwrap()).join("; ");
        let external = json!({"key_id": "id", "mac_key": "c2VjcmV0"});
        assert_eq!(told(json!({"account_key": good})), "");
        assert_eq!(told(json!({"external_account": external})), "");
        assert!(told(json!({"account_key": good, "external_account": external})).contains("external one"));
        assert!(told(json!({"account_key": good, "ca": acme::ZEROSSL})).contains("external one"));
        assert!(told(json!({"account_key": other})).contains("curve P-256"));
    }

    #[test]
    fn a_policy_for_the_name_comes_before_the_general_one() {
        let policies = json!([
            {"subjects": ["*.a.test"], "issuers": [{"module": "internal"}], "key_type": "p384", "renewal_window_ratio": 0.5},
            {"issuers": [{"module": "acme"}]},
        ]);
        let own = chosen(policies.clone(), "x.a.test");
        assert_eq!((is_internal(&own), own.key_type, own.renewal_ratio), (true, KeyType::P384, 0.5));
        assert!(!is_internal(&chosen(policies.clone(), "b.test")));
        // What is told for all names is not for local ones, as in Caddy.
        assert!(is_internal(&chosen(policies, "localhost")));
    }
}

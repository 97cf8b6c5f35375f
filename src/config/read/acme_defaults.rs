//! ACME issuers that nobody wrote: the public CAs, and what global options add to an issuer.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::config::tls_types::{AcmeIssuer, Challenges, DnsChallenge, Issuer, PortChallenge};

const ZEROSSL: &str = "https://acme.zerossl.com/v2/DV90";

/// Let's Encrypt; and ZeroSSL, which wants an address to write to.
#[must_use]
pub fn default_issuers(email: &str) -> Vec<AcmeIssuer> {
    let mut issuers = vec![AcmeIssuer::default()];
    if !email.is_empty() {
        issuers.push(AcmeIssuer { ca: ZEROSSL.to_owned(), email: email.to_owned(), ..AcmeIssuer::default() });
    }
    issuers
}

/// The issuers that lines such as `ca`, `ca_root` or an address in `tls` stand for: those of the option `cert_issuer`,
/// else the public CAs, each with the site's own settings over it.
#[must_use]
pub fn implicit_issuers(options: &BTreeMap<String, Value>, own: &AcmeIssuer) -> Vec<Issuer> {
    let global: Vec<Issuer> =
        options.get("cert_issuer").and_then(|v| serde_json::from_value(v.clone()).ok()).unwrap_or_default();
    let mut bases: Vec<AcmeIssuer> = global.iter().filter_map(Issuer::acme).cloned().collect();
    if bases.is_empty() {
        // An own CA takes the place of all public ones.
        bases = if own.ca.is_empty() { default_issuers(&own.email) } else { vec![AcmeIssuer::default()] };
    }
    bases.into_iter().map(|base| Issuer::from(merged(base, own))).collect()
}

/// What global options say about every ACME issuer, as far as the issuer does not say it itself.
pub fn fill_in(issuer: &mut AcmeIssuer, options: &BTreeMap<String, Value>) {
    let text = |name: &str| options.get(name).and_then(Value::as_str);
    let number = |name: &str| options.get(name).and_then(Value::as_i64);
    if let (Some(email), true) = (text("email"), issuer.email.is_empty()) {
        email.clone_into(&mut issuer.email);
    }
    if let (Some(ca), true) = (text("acme_ca"), issuer.ca.is_empty()) {
        ca.clone_into(&mut issuer.ca);
    }
    if let Some(root) = text("acme_ca_root")
        && !issuer.trusted_roots_pem_files.iter().any(|file| file == root)
    {
        issuer.trusted_roots_pem_files.push(root.to_owned());
    }
    if let Some(global) = options.get("acme_dns") {
        let dns = issuer.dns();
        if let (Some(global), None) = (global.as_object(), &dns.provider) {
            dns.provider = Some(global.clone());
        }
    }
    if let (Some(account), None) = (options.get("acme_eab"), &issuer.external_account) {
        issuer.external_account = serde_json::from_value(account.clone()).ok();
    }
    if let (Some(chains), None) = (options.get("preferred_chains"), &issuer.preferred_chains) {
        issuer.preferred_chains = serde_json::from_value(chains.clone()).ok();
    }

    // The DNS challenge needs no port of this machine.
    let has_dns = issuer.challenges.as_ref().is_some_and(|c| c.dns.is_some());
    if !has_dns {
        if let Some(port) = number("http_port") {
            set_port(&mut issuer.challenges().http, port);
        }
        if let Some(port) = number("https_port") {
            set_port(&mut issuer.challenges().tls_alpn, port);
        }
        if let Some(host) = default_bind(options)
            && issuer.challenges.as_ref().is_none_or(|c| c.bind_host.is_empty())
        {
            issuer.challenges().bind_host = host;
        }
    }
    if let (Some(lifetime), true) = (number("cert_lifetime"), issuer.certificate_lifetime.is_zero()) {
        issuer.certificate_lifetime.0 = lifetime;
    }
    let resolvers = options.get("tls_resolvers").and_then(Value::as_array);
    if let (Some(resolvers), Some(dns)) = (resolvers, issuer.challenges.as_mut().and_then(|c| c.dns.as_mut()))
        && (options.contains_key("acme_dns") || dns.provider.is_some())
        && dns.resolvers.is_empty()
    {
        dns.resolvers = resolvers.iter().filter_map(Value::as_str).map(str::to_owned).collect();
    }
}

fn set_port(challenge: &mut Option<PortChallenge>, port: i64) {
    let challenge = challenge.get_or_insert_default();
    if challenge.alternate_port == 0 {
        challenge.alternate_port = port;
    }
}

fn default_bind(options: &BTreeMap<String, Value>) -> Option<String> {
    let first = options.get("default_bind")?.as_array()?.first()?;
    Some(first.get("addresses")?.as_array()?.first()?.as_str()?.to_owned())
}

/// `own` over `base`.
fn merged(mut base: AcmeIssuer, own: &AcmeIssuer) -> AcmeIssuer {
    take(&mut base.ca, &own.ca);
    take(&mut base.test_ca, &own.test_ca);
    take(&mut base.email, &own.email);
    take(&mut base.profile, &own.profile);
    take(&mut base.account_key, &own.account_key);
    take(&mut base.external_account, &own.external_account);
    take(&mut base.acme_timeout, &own.acme_timeout);
    for file in &own.trusted_roots_pem_files {
        if !base.trusted_roots_pem_files.contains(file) {
            base.trusted_roots_pem_files.push(file.clone());
        }
    }
    take(&mut base.preferred_chains, &own.preferred_chains);
    take(&mut base.certificate_lifetime, &own.certificate_lifetime);
    take(&mut base.network_proxy, &own.network_proxy);
    if let Some(own) = &own.challenges {
        merge_challenges(base.challenges(), own);
    }
    base
}

fn merge_challenges(base: &mut Challenges, own: &Challenges) {
    for (base, own) in [(&mut base.http, &own.http), (&mut base.tls_alpn, &own.tls_alpn)] {
        if let Some(own) = own {
            let base = base.get_or_insert_default();
            base.disabled |= own.disabled;
            take(&mut base.alternate_port, &own.alternate_port);
        }
    }
    if let Some(own) = &own.dns {
        merge_dns(base.dns.get_or_insert_default(), own);
    }
    take(&mut base.bind_host, &own.bind_host);
    take(&mut base.distributed, &own.distributed);
}

fn merge_dns(base: &mut DnsChallenge, own: &DnsChallenge) {
    take(&mut base.provider, &own.provider);
    take(&mut base.ttl, &own.ttl);
    take(&mut base.propagation_delay, &own.propagation_delay);
    take(&mut base.propagation_timeout, &own.propagation_timeout);
    take(&mut base.resolvers, &own.resolvers);
    take(&mut base.override_domain, &own.override_domain);
}

/// A value that is not the empty one replaces the other.
fn take<T: Default + PartialEq + Clone>(base: &mut T, own: &T) {
    if *own != T::default() {
        base.clone_from(own);
    }
}

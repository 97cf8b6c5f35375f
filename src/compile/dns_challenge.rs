//! DNS challenges of issuers: completed with what holds for all of them, and checked, so that a missing program or token
//! is told before a certificate is due.

use serde_json::Value;

use crate::config::compile_cx::{CompileCx, CompileError};
use crate::config::dns_provider::{DnsProvider, NAMES};
use crate::config::tls_types::{AutomationPolicy, DnsChallenge, Issuer};
use crate::config::types::{Module, TlsApp};
use crate::tls::acme::dns::{Provider, Server};

/// The provider for challenges that name none; what cannot be used is reported.
pub fn provider_of_app(app: &TlsApp, cx: &mut CompileCx<'_>) {
    if let Some(provider) = app.dns.as_ref().filter(|provider| !provider.is_null()) {
        cx.at("dns", |cx| match provider.as_object() {
            Some(module) => check_provider(module, cx),
            None => cx.report(unusable("a DNS provider is an object with a `name`")),
        });
    }
    cx.at("resolvers", |cx| check_resolvers(&app.resolvers, cx));
}

/// Adds provider and resolvers of the app where an issuer has none of its own, and reports what cannot be used. Called at
/// the place of the policies.
pub fn complete(policies: &mut [AutomationPolicy], app: &TlsApp, cx: &mut CompileCx<'_>) {
    for (i, policy) in policies.iter_mut().enumerate() {
        for (j, issuer) in policy.issuers.iter_mut().enumerate() {
            let Issuer::Acme(acme) = issuer else { continue };
            let Some(dns) = acme.challenges.as_mut().and_then(|c| c.dns.as_mut()) else { continue };
            let at = |cx: &mut CompileCx<'_>| cx.at("challenges", |cx| cx.at("dns", |cx| one(dns, app, cx)));
            cx.at(i, |cx| cx.at("issuers", |cx| cx.at(j, at)));
        }
    }
}

fn one(dns: &mut DnsChallenge, app: &TlsApp, cx: &mut CompileCx<'_>) {
    if dns.resolvers.is_empty() {
        dns.resolvers.clone_from(&app.resolvers);
    } else {
        cx.at("resolvers", |cx| check_resolvers(&dns.resolvers, cx));
    }
    match &dns.provider {
        Some(provider) => cx.at("provider", |cx| check_provider(provider, cx)),
        // Checked at its own place.
        None => dns.provider = app.dns.as_ref().and_then(Value::as_object).cloned(),
    }
    if dns.provider.is_none() {
        cx.report(unusable("the DNS challenge has no provider").help("name one here or with the option `acme_dns`"));
    }
    if dns.propagation_timeout.0 < 0 && dns.propagation_timeout.0 != -1 {
        cx.at("propagation_timeout", |cx| {
            let message = "a wait cannot be negative; only -1 is allowed, which turns the check off";
            cx.report(CompileError::new("invalid-duration", message));
        });
    }
}

fn check_provider(module: &Module, cx: &mut CompileCx<'_>) {
    let name = module.get("name").and_then(Value::as_str).unwrap_or_default();
    if !NAMES.contains(&name) {
        let error = CompileError::not_supported(format_args!("the DNS provider `{name}`"))
            .help("`dns exec PROGRAM` runs a program of yours that sets and clears the record with any provider");
        cx.report(error);
    } else if let Err(why) = DnsProvider::read(module).and_then(|_| Provider::of(module).map(drop)) {
        cx.report(unusable(format!("the DNS provider `{name}` cannot be used: {why}")));
    }
}

fn check_resolvers(resolvers: &[String], cx: &mut CompileCx<'_>) {
    for (i, text) in resolvers.iter().enumerate().filter(|(_, text)| text.parse::<Server>().is_err()) {
        let error = CompileError::new("invalid-resolver", format!("`{text}` is not a DNS server")).help(
            "write an address or a name, and a port where it is not 53: `1.1.1.1`, `[::1]:5353`, `dns.example.com`",
        );
        cx.at(i, |cx| cx.report(error));
    }
}

fn unusable(message: impl Into<String>) -> CompileError {
    CompileError::new("dns-provider-not-usable", message)
}

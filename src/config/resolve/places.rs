//! Places of what is not a route: servers, TLS policies and certificates, logs, global options.

use std::collections::BTreeMap;

use serde_json::Value;

use super::site::SiteInfo;
use super::spans::escape;
use crate::base::span::Span;
use crate::config::directive_cx::TlsValue;
use crate::config::types::{Config, Server};
use crate::syntax::tree::Node;

/// Global options by what they make. Several options may make one thing; the first that is given is its place.
const OPTIONS: [(&str, &[&str]); 16] = [
    ("/admin", &["admin", "persist_config"]),
    ("/admin/config", &["persist_config"]),
    ("/storage", &["storage"]),
    ("/logging", &["log"]),
    ("/apps/events", &["events"]),
    ("/apps/pki", &["pki", "skip_install_trust"]),
    ("/apps/http/metrics", &["metrics"]),
    ("/apps/http/usage", &["usage"]),
    ("/apps/http/prices", &["price", "usage"]),
    ("/apps/http/grace_period", &["grace_period"]),
    ("/apps/http/shutdown_delay", &["shutdown_delay"]),
    ("/apps/http/http_port", &["http_port"]),
    ("/apps/http/https_port", &["https_port"]),
    ("/apps/tls/automation/on_demand", &["on_demand_tls"]),
    ("/apps/tls/dns", &["dns", "acme_dns"]),
    ("/apps/tls", &["acme_ca", "acme_dns", "email", "cert_issuer", "on_demand_tls", "local_certs", "ech"]),
];

/// Fields of a server that only the `servers` option sets.
const SERVER_OPTIONS: [&str; 20] = [
    "listener_wrappers",
    "packet_conn_wrappers",
    "read_timeout",
    "read_header_timeout",
    "write_timeout",
    "idle_timeout",
    "keepalive_interval",
    "keepalive_idle",
    "keepalive_count",
    "max_header_bytes",
    "enable_full_duplex",
    "strict_sni_host",
    "trusted_proxies",
    "client_ip_headers",
    "trusted_proxies_strict",
    "trusted_proxies_unix",
    "protocols",
    "metrics",
    "trace",
    "allow_0rtt",
];

/// Adds the places to the table. `served` tells for each server, in order, the sites that it serves.
pub fn record(
    spans: &mut BTreeMap<String, Span>,
    config: &Config,
    globals: &[Node],
    sites: &[SiteInfo],
    served: &BTreeMap<String, Vec<usize>>,
) {
    let option = |name: &str| globals.iter().find(|node| node.name() == name).map(Node::span);
    for (pointer, names) in OPTIONS {
        if let Some(span) = names.iter().find_map(|name| option(name)) {
            spans.entry(pointer.to_owned()).or_insert(span);
        }
    }
    for (name, server) in config.apps.http.iter().flat_map(|http| &http.servers) {
        let pointer = format!("/apps/http/servers/{}", escape(name));
        let of_server: Vec<&SiteInfo> = served.get(name).into_iter().flatten().filter_map(|i| sites.get(*i)).collect();
        if let Some(key) = of_server.iter().find_map(|site| site.keys.first()) {
            spans.insert(pointer.clone(), key.span);
        }
        if let Some(span) = option("servers") {
            spans.extend(SERVER_OPTIONS.iter().map(|field| (format!("{pointer}/{field}"), span)));
        }
        policies(spans, &pointer, server, &of_server);
    }
    certificates(spans, config, sites);
    automation(spans, config, sites, option("acme_dns"));
    logs(spans, config, globals, sites);
}

/// A policy stands where the `tls` line of the site of its first host does.
fn policies(spans: &mut BTreeMap<String, Span>, server_pointer: &str, server: &Server, sites: &[&SiteInfo]) {
    for (i, policy) in server.tls_connection_policies.iter().enumerate() {
        let hosts = policy.pointer("/match/sni").and_then(Value::as_array);
        let is_for = |site: &SiteInfo| match hosts {
            None => true,
            Some(hosts) => site.keys.iter().any(|key| hosts.iter().any(|host| *host == *key.address.host)),
        };
        let span = sites.iter().filter(|site| is_for(site)).find_map(|site| site.tls.first().map(|(_, span)| *span));
        if let Some(span) = span {
            spans.insert(format!("{server_pointer}/tls_connection_policies/{i}"), span);
        }
    }
}

/// An automation policy stands where the `tls` line of a site that it is for does, if there is one; a DNS challenge
/// otherwise where `acme_dns` does.
fn automation(spans: &mut BTreeMap<String, Span>, config: &Config, sites: &[SiteInfo], acme_dns: Option<Span>) {
    let policies = config.apps.tls.as_ref().and_then(|tls| tls.automation.as_ref()?.get("policies")?.as_array());
    for (i, policy) in policies.into_iter().flatten().enumerate() {
        let pointer = format!("/apps/tls/automation/policies/{i}");
        let subjects: Vec<&str> =
            policy.get("subjects").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
        let is_for = |site: &&SiteInfo| site.keys.iter().any(|key| subjects.contains(&key.address.host.as_str()));
        if let Some((_, span)) = sites.iter().filter(is_for).find_map(|site| site.tls.first()) {
            spans.entry(pointer).or_insert(*span);
        } else if let Some(span) = acme_dns {
            let issuers = policy.get("issuers").and_then(Value::as_array).map_or(0, Vec::len);
            spans.extend((0..issuers).map(|j| (format!("{pointer}/issuers/{j}/challenges/dns"), span)));
        }
    }
}

/// A certificate to load stands where the line that names it does.
fn certificates(spans: &mut BTreeMap<String, Span>, config: &Config, sites: &[SiteInfo]) {
    let lines = sites.iter().flat_map(|site| &site.tls).filter_map(|(value, span)| match value {
        TlsValue::Loader { id, value } => Some((*id, value, *span)),
        _ => None,
    });
    let Some(tls) = &config.apps.tls else { return };
    for (loader, made, span) in lines {
        let Some(loaded) = tls.certificates.get(loader).and_then(Value::as_array) else { continue };
        let made = made.as_array().map_or(std::slice::from_ref(made), Vec::as_slice);
        for (i, _) in loaded.iter().enumerate().filter(|(_, item)| made.contains(item)) {
            spans.entry(format!("/apps/tls/certificates/{}/{i}", escape(loader))).or_insert(span);
        }
    }
}

fn logs(spans: &mut BTreeMap<String, Span>, config: &Config, globals: &[Node], sites: &[SiteInfo]) {
    let of_options = globals.iter().filter(|node| node.name() == "log");
    let of_options = of_options.map(|node| (node.args.first().map_or("default", |name| name.text()), node.span()));
    let of_sites = sites.iter().flat_map(|site| &site.access_logs);
    let of_sites = of_sites.map(|(access, span)| (access.name.as_str(), *span));
    for (name, span) in of_options.chain(of_sites) {
        if config.logging.as_ref().is_some_and(|logging| logging.logs.contains_key(name)) {
            spans.entry(format!("/logging/logs/{}", escape(name))).or_insert(span);
        }
    }
}

//! Servers from pairings: one server per set of listeners, its sites most specific first, each a route of its own.

use std::collections::{BTreeMap, HashMap};

use serde_json::{Value, json};

use super::address::specificity;
use super::listen::NetworkAddress;
use super::logs;
use super::options;
use super::policies::{self, Policy};
use super::ports::Ports;
use super::site::{Pairing, ServerBlock, SiteInfo};
use super::stable_sort::stable_sort_by;
use super::subroute;
use crate::base::diagnostic::Diagnostic;
use crate::config::directive_cx::{FileCx, TlsValue};
use crate::config::types::{AutoHttps, ErrorRoutes, MatcherSet, Route, Server, ServerLogs, Subroute};

/// Builds `srv0`, `srv1`, … in the order of the pairings, whose blocks it sorts.
pub fn build(
    pairings: &mut [Pairing],
    sites: &mut [SiteInfo],
    named_routes: &BTreeMap<String, Route>,
    ports: &Ports,
    cx: &mut FileCx<'_>,
) -> BTreeMap<String, Server> {
    let mut servers = BTreeMap::new();
    for (number, pairing) in pairings.iter_mut().enumerate() {
        report_ambiguous(pairing, sites, &mut cx.diagnostics);
        sort_blocks(&mut pairing.blocks, sites);
        let server = Builder { pairing, ports, cx, server: Server::default() }.build(sites, named_routes);
        servers.insert(format!("srv{number}"), server);
    }
    servers
}

struct Builder<'b, 'f> {
    pairing: &'b Pairing,
    ports: &'b Ports,
    cx: &'b mut FileCx<'f>,
    server: Server,
}

/// What the server's sites say together about TLS.
struct TlsFacts {
    policies: Vec<Policy>,
    /// The policy added last is for every host.
    has_catch_all: bool,
    /// Some address is served with TLS.
    qualifies: bool,
    /// Automatic HTTPS will add the policy that is needed.
    automatic_adds: bool,
}

impl Builder<'_, '_> {
    fn build(mut self, sites: &mut [SiteInfo], named_routes: &BTreeMap<String, Route>) -> Server {
        let blocks = &self.pairing.blocks;
        self.listeners();
        self.auto_https();
        if blocks.iter().any(|b| sites.get(b.site).is_some_and(|s| !s.access_logs.is_empty())) {
            self.server.logs = Some(ServerLogs::default());
        }
        let invoked = blocks.iter().filter_map(|b| sites.get(b.site)).flat_map(|site| &site.invoked);
        for (name, _) in invoked {
            if let Some(route) = named_routes.get(name) {
                self.server.named_routes.insert(name.clone(), route.clone());
            }
        }

        let disabled = self.server.automatic_https.as_ref().is_some_and(|auto| auto.disable);
        let mut tls =
            TlsFacts { policies: Vec::new(), has_catch_all: false, qualifies: false, automatic_adds: !disabled };
        for block in blocks {
            self.tls_of_block(block, sites, &mut tls);
            self.routes_of_block(block, sites);
            if let Some(server_logs) = &mut self.server.logs {
                logs::associate(block, sites, server_logs);
            }
        }
        if let Some(server_logs) = &mut self.server.logs {
            server_logs.skip_hosts.sort();
        }

        self.report_mixed_schemes(sites, !tls.policies.is_empty());
        self.finish_policies(tls, sites);
        self.server.routes = subroute::merge_equal(std::mem::take(&mut self.server.routes));
        self.server
    }

    fn listeners(&mut self) {
        let own = |protocols: &Vec<String>| protocols.iter().any(|p| !p.is_empty()).then(|| protocols.clone());
        let listeners = &self.pairing.listeners;
        self.server.listen = self.pairing.addresses();
        let protocols: Vec<_> = listeners.iter().map(|(_, protocols)| own(protocols)).collect();
        if protocols.iter().any(Option::is_some) {
            self.server.listen_protocols = protocols;
        }
    }

    fn auto_https(&mut self) {
        let modes = self.cx.options.get("auto_https").and_then(Value::as_array).into_iter().flatten();
        for mode in modes.filter_map(Value::as_str) {
            let auto = self.server.automatic_https.get_or_insert_with(AutoHttps::default);
            match mode {
                "off" => auto.disable = true,
                "disable_redirects" => auto.disable_redirects = true,
                "disable_certs" => auto.disable_certificates = true,
                "ignore_loaded_certs" => auto.ignore_loaded_certificates = true,
                _ => {}
            }
        }
    }

    fn tls_of_block(&mut self, block: &ServerBlock, sites: &[SiteInfo], tls: &mut TlsFacts) {
        let Some(site) = sites.get(block.site) else { return };
        let mut hosts = block.hosts(sites);
        let forced = site.tls.iter().any(|(value, _)| matches!(value, TlsValue::Other("tls.force_automate", _)));
        // Whether a host of the block, not the empty name that may be added below, is forced.
        let forced = forced && !hosts.is_empty();
        let (default_sni, fallback_sni) = self.default_names();

        let site_policies = site.tls.iter().filter_map(|(value, _)| match value {
            TlsValue::ConnectionPolicy(policy) => policy.as_object(),
            _ => None,
        });
        for policy in site_policies {
            let mut policy = policy.clone();
            let named = |host: &&String| !host.is_empty() && (**host == default_sni || **host == fallback_sni);
            if let Some(host) = hosts.iter().find(named).cloned() {
                let field = if host == default_sni { "default_sni" } else { "fallback_sni" };
                policy.insert(field.to_owned(), Value::String(host));
                // The policy is for clients that name no host, too.
                if !hosts.iter().any(String::is_empty) {
                    hosts.push(String::new());
                }
            }
            if hosts.is_empty() {
                set_names(&mut policy, &default_sni, &fallback_sni);
            } else {
                hosts.sort();
                policies::match_hosts(&mut policy, &hosts);
            }
            if forced || !policies::settings_empty(&policy) {
                tls.policies.push(policy);
                tls.has_catch_all = hosts.is_empty();
            }
        }

        let has_policy = site.tls.iter().any(|(value, _)| matches!(value, TlsValue::ConnectionPolicy(_)));
        let only_http_port = self.server.listen.iter().all(|listen| self.is_on_http_port(listen));
        for address in block.addresses(sites) {
            if !only_http_port && address.scheme == "http" && !address.host.is_empty() {
                let auto = self.server.automatic_https.get_or_insert_with(AutoHttps::default);
                if !auto.skip.contains(&address.host) {
                    auto.skip.push(address.host.clone());
                }
            }
            let skipped = self.server.automatic_https.as_ref().is_some_and(|auto| auto.skip.contains(&address.host));
            let enabled = has_policy || (!address.host.is_empty() && !skipped);
            let is_http = address.scheme == "http" || address.port == self.ports.http;
            if address.scheme == "https" || (!is_http && enabled) {
                tls.qualifies = true;
            }
            tls.automatic_adds &=
                address.port == self.ports.https || (address.port != self.ports.http && !address.host.is_empty());
        }
    }

    fn routes_of_block(&mut self, block: &ServerBlock, sites: &mut [SiteInfo]) {
        let matchers = matcher_sets(block, sites);
        let span = block.site_keys(sites).next().map(|key| key.span);
        let alone = self.pairing.blocks.len() == 1;
        let Some(site) = sites.get_mut(block.site) else { return };

        let built = subroute::build(&mut site.routes, self.cx, true);
        subroute::append_site(&mut self.server.routes, built, &matchers, alone, span);

        if !site.error_routes.is_empty() {
            // Those with a matcher go before those without; Caddy's comparison also turns equal ones round.
            stable_sort_by(&mut site.error_routes, |a, b| has_matcher(a) || !has_matcher(b));
            let all = Subroute {
                routes: site.error_routes.iter().flat_map(|s| s.routes.iter().cloned()).collect(),
                errors: None,
            };
            let errors = self.server.errors.get_or_insert_with(ErrorRoutes::default);
            subroute::append_site(&mut errors.routes, all, &matchers, alone, span);
        }
    }

    /// A catch-all policy where TLS must be on for hosts that no policy names; then the tidying.
    fn finish_policies(&mut self, mut tls: TlsFacts, sites: &[SiteInfo]) {
        let (default_sni, fallback_sni) = self.default_names();
        let named = !default_sni.is_empty() || !fallback_sni.is_empty();
        if tls.qualifies && !tls.has_catch_all && (!tls.policies.is_empty() || !tls.automatic_adds || named) {
            let mut policy = Policy::new();
            set_names(&mut policy, &default_sni, &fallback_sni);
            tls.policies.push(policy);
        }
        match policies::consolidate(tls.policies) {
            Ok(list) => self.server.tls_connection_policies = list.into_iter().map(Value::Object).collect(),
            Err(message) => {
                let mut d = Diagnostic::error("conflicting-tls-policies", message);
                if let Some(key) = self.pairing.blocks.iter().find_map(|b| b.site_keys(sites).next()) {
                    d = d.at(key.span, "on the listeners of this site");
                }
                self.cx.diagnostics.push(d);
            }
        }
    }

    /// One server speaks either HTTP or HTTPS.
    fn report_mixed_schemes(&mut self, sites: &[SiteInfo], has_policies: bool) {
        let mut seen: Option<(bool, crate::base::span::Span)> = None;
        for key in self.pairing.blocks.iter().flat_map(|block| block.site_keys(sites)) {
            let address = &key.address;
            let secure = if address.scheme == "http" || address.port == self.ports.http {
                false
            } else if address.scheme == "https" || address.port == self.ports.https || has_policies {
                true
            } else if address.host.is_empty() {
                false
            } else {
                continue;
            };
            let listen = self.server.listen.join(", ");
            match seen {
                Some((other, at)) if other != secure => {
                    let (this, other) = if secure { ("HTTPS", "HTTP") } else { ("HTTP", "HTTPS") };
                    let mut d = Diagnostic::error(
                        "mixed-schemes",
                        format!("the listener {listen} serves {other} and cannot serve {this} as well"),
                    )
                    .at(key.span, format!("{this} here"))
                    .also(at, format!("{other} here"));
                    if !secure && address.scheme.is_empty() && address.host.is_empty() {
                        d = d.help("write https:// before the address");
                    }
                    self.cx.diagnostics.push(d);
                    return;
                }
                None if !secure && has_policies => {
                    self.cx.diagnostics.push(
                        Diagnostic::error(
                            "mixed-schemes",
                            format!("the listener {listen} serves HTTP, yet a site on it configures TLS"),
                        )
                        .at(key.span, "HTTP here"),
                    );
                    return;
                }
                _ => seen = Some((secure, key.span)),
            }
        }
    }

    fn default_names(&self) -> (String, String) {
        let name = |option| options::string(&self.cx.options, option).to_owned();
        (name("default_sni"), name("fallback_sni"))
    }

    fn is_on_http_port(&self, listen: &str) -> bool {
        let Ok(port) = self.ports.http.parse() else { return true };
        NetworkAddress::parse(listen).is_ok_and(|address| address.has_port(port))
    }
}

fn set_names(policy: &mut Policy, default_sni: &str, fallback_sni: &str) {
    for (field, name) in [("default_sni", default_sni), ("fallback_sni", fallback_sni)] {
        if !name.is_empty() {
            policy.insert(field.to_owned(), Value::String(name.to_owned()));
        }
    }
}

fn has_matcher(errors: &Subroute) -> bool {
    errors.routes.first().is_some_and(|route| !route.matcher_sets.is_empty())
}

/// Two sites of one server with the same key.
fn report_ambiguous(pairing: &Pairing, sites: &[SiteInfo], diagnostics: &mut Vec<Diagnostic>) {
    let mut first: HashMap<&str, (usize, crate::base::span::Span)> = HashMap::new();
    for block in &pairing.blocks {
        for key in block.site_keys(sites) {
            match first.get(key.text.as_str()) {
                Some((site, at)) if *site != block.site => diagnostics.push(
                    Diagnostic::error("ambiguous-site", format!("the site `{}` is defined twice", key.text))
                        .at(key.span, "defined again here")
                        .also(*at, "first defined here")
                        .help("put all its lines in one block"),
                ),
                Some(_) => {}
                None => {
                    first.insert(&key.text, (block.site, key.span));
                }
            }
        }
    }
}

/// Most specific site first, as only the first that matches runs: longest host, then longest path; wildcards after
/// plain hosts, catch-alls last.
fn sort_blocks(blocks: &mut Vec<ServerBlock>, sites: &[SiteInfo]) {
    struct Rank {
        wildcard: bool,
        host: usize,
        path: usize,
    }
    let rank = |block: &ServerBlock| {
        let mut rank = Rank { wildcard: false, host: 0, path: 0 };
        let mut most_specific_path = 0;
        for address in block.addresses(sites) {
            rank.wildcard |= address.host.contains('*') || address.host.is_empty();
            rank.host = rank.host.max(specificity(&address.host));
            let path = specificity(&address.path);
            if path > most_specific_path {
                most_specific_path = path;
                rank.path = address.path.len();
            }
        }
        rank
    };
    let mut ranked: Vec<(Rank, ServerBlock)> = blocks.drain(..).map(|block| (rank(&block), block)).collect();
    stable_sort_by(&mut ranked, |(a, _), (b, _)| {
        if a.host == 0 {
            false
        } else if b.host == 0 {
            true
        } else if a.wildcard != b.wildcard {
            b.wildcard
        } else if a.host == b.host {
            a.path > b.path
        } else {
            a.host > b.host
        }
    });
    blocks.extend(ranked.into_iter().map(|(_, block)| block));
}

/// The hosts and paths of a block's keys as matcher sets, keys with the same path together.
fn matcher_sets(block: &ServerBlock, sites: &[SiteInfo]) -> Vec<MatcherSet> {
    let mut sets: Vec<(&str, Vec<&str>)> = Vec::new();
    let mut catch_all = false;
    for address in block.addresses(sites) {
        let at = sets.iter().position(|(path, _)| *path == address.path).unwrap_or_else(|| {
            sets.push((&address.path, Vec::new()));
            sets.len() - 1
        });
        let hosts = &mut sets[at].1;
        // A key without a host takes the host matcher away, as every host is meant then.
        if address.host.is_empty() && !catch_all {
            hosts.clear();
            catch_all = true;
        }
        if !catch_all && !hosts.contains(&address.host.as_str()) {
            hosts.push(&address.host);
        }
    }
    let set = |(path, hosts): (&str, Vec<&str>)| {
        let mut set = MatcherSet::new();
        if !hosts.is_empty() {
            set.insert("host".to_owned(), json!(hosts));
        }
        if !path.is_empty() {
            set.insert("path".to_owned(), json!([path]));
        }
        set
    };
    sets.into_iter().map(set).filter(|set| !set.is_empty()).collect()
}

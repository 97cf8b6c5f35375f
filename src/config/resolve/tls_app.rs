//! The TLS app: certificate loaders and automation policies of all sites and of the global options (Caddy's
//! `buildTLSApp`).
//!
//! ```text
//! options ─▶ catch-all policy ┐
//! sites ───▶ a policy each ───┴─▶ defaults filled in ─▶ tls_policies::consolidate ─▶ apps.tls.automation
//! ```

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::listen::NetworkAddress;
use super::options::string;
use super::options_tls;
use super::ports::Ports;
use super::site::{Pairing, ServerBlock, SiteInfo};
use super::tls_policies::{self, IssuerId, Policies, Policy, PolicyId};
use super::tls_subjects::{can_have_certificate, is_public, is_public_for_policy, is_tailscale};
use crate::base::diagnostic::Diagnostic;
use crate::base::span::Span;
use crate::config::directive_cx::{FileCx, TlsValue};
use crate::config::nanos::Nanos;
use crate::config::read::acme_defaults::{default_issuers, fill_in};
use crate::config::tls_types::{AcmeIssuer, Automation, InternalIssuer, Issuer};
use crate::config::types::TlsApp;

/// Built after the servers, so that the blocks of each pairing are in their final order.
pub fn build(pairings: &[Pairing], sites: &[SiteInfo], cx: &mut FileCx<'_>) -> TlsApp {
    let ports = Ports::from_options(&cx.options);
    let mut builder = Builder {
        sites,
        http_port: ports.http,
        all: Policies::default(),
        global_issuers: Vec::new(),
        site_issuers: BTreeMap::new(),
        catch_all: None,
        forced: BTreeSet::new(),
        loaders: Map::new(),
        cx,
    };
    builder.build(pairings)
}

struct Builder<'b, 'f> {
    sites: &'b [SiteInfo],
    http_port: String,
    all: Policies,
    /// Issuers of the options `cert_issuer` and `local_certs`: every policy that has them shares them.
    global_issuers: Vec<IssuerId>,
    /// Issuers of a site's `tls` lines, shared by the servers that the site is part of.
    site_issuers: BTreeMap<usize, Vec<IssuerId>>,
    /// The policy for names that no other is for.
    catch_all: Option<PolicyId>,
    /// Names to manage even where a wildcard covers them.
    forced: BTreeSet<String>,
    loaders: Map<String, Value>,
    cx: &'b mut FileCx<'f>,
}

impl Builder<'_, '_> {
    fn build(&mut self, pairings: &[Pairing]) -> TlsApp {
        let issuers = match options_tls::issuers(self.cx) {
            none if none.is_empty() && self.is_set("local_certs") => vec![Issuer::Internal(InternalIssuer::default())],
            some => some,
        };
        self.global_issuers = issuers.into_iter().map(|issuer| self.all.add_issuer(issuer)).collect();

        if self.has_automation_options() {
            let id = self.base_policy();
            self.all.order.push(id);
            self.catch_all = Some(id);
        }
        for pairing in pairings {
            if self.serves_tls(pairing) {
                pairing.blocks.iter().for_each(|block| self.site_policy(block));
            }
        }

        let mut app = TlsApp { certificates: std::mem::take(&mut self.loaders), ..TlsApp::default() };
        self.public_names_of_ech(&mut app);
        let managed = self.managed_names(pairings);
        if !managed.is_empty() {
            app.certificates.insert("automate".to_owned(), json!(managed));
        }
        self.default_issuers_of_policies();
        self.fill_in_issuers();
        let automation = self.automation(pairings);
        app.automation = (automation != Automation::default()).then(|| json!(automation));
        self.app_options(&mut app);
        app
    }

    fn is_set(&self, option: &str) -> bool {
        self.cx.options.contains_key(option)
    }

    fn has_acme_options(&self) -> bool {
        ["acme_ca", "acme_ca_root", "acme_dns", "acme_eab", "preferred_chains"].iter().any(|name| self.is_set(name))
    }

    /// Whether the options give a policy anything to say.
    fn has_automation_options(&self) -> bool {
        let own = ["cert_issuer", "local_certs", "key_type", "ocsp_stapling", "renewal_window_ratio"];
        own.iter().any(|name| self.is_set(name)) || self.has_acme_options()
    }

    /// A new policy that says what the global options say.
    fn base_policy(&mut self) -> PolicyId {
        // Global settings go before what a site's `bind` says, but only when there are any for ACME.
        if self.has_acme_options() {
            for id in &self.global_issuers {
                if let Some(acme) = self.all.acme(*id) {
                    fill_in(acme, &self.cx.options);
                }
            }
        }
        let policy = Policy {
            issuers: self.global_issuers.clone(),
            key_type: string(&self.cx.options, "key_type").to_owned(),
            disable_ocsp_stapling: self.is_set("ocsp_stapling"),
            renewal_window_ratio: self.renewal_window_ratio(),
            ..Policy::default()
        };
        self.all.add(policy)
    }

    fn renewal_window_ratio(&self) -> f64 {
        self.cx.options.get("renewal_window_ratio").and_then(Value::as_f64).unwrap_or(0.0)
    }

    /// Some listener is on another port than the HTTP port.
    fn serves_tls(&self, pairing: &Pairing) -> bool {
        let Ok(http_port) = self.http_port.parse::<u16>() else { return false };
        let addresses = pairing.listeners.iter().filter_map(|(address, _)| NetworkAddress::parse(address).ok());
        addresses.into_iter().any(|address| !address.has_port(http_port))
    }

    /// The policy of one server block; none when it serves HTTP only.
    fn site_policy(&mut self, block: &ServerBlock) {
        let Some(site) = self.sites.get(block.site).filter(|_| !block.is_all_http(self.sites)) else { return };
        let hosts = block.hosts(self.sites);
        let base = self.base_policy();
        let id = self.catch_all.filter(|_| hosts.is_empty()).unwrap_or(base);

        for (value, _) in &site.tls {
            match value {
                TlsValue::OnDemand => self.all.get(id).on_demand = true,
                TlsValue::Other("tls.force_automate", _) => self.forced.extend(hosts.iter().cloned()),
                TlsValue::Other("tls.reuse_private_keys", _) => self.all.get(id).reuse_private_keys = true,
                TlsValue::Manager(manager) => self.all.get(id).managers.push(manager.clone()),
                TlsValue::Loader { id, value } => self.add_loader(id, value),
                _ => {}
            }
        }
        // Of several lines the first one counts.
        let mut values = site.tls.iter().map(|(value, _)| value);
        if let Some(TlsValue::KeyType(key_type)) = values.clone().find(|value| matches!(value, TlsValue::KeyType(_))) {
            self.all.get(id).key_type.clone_from(key_type);
        }
        let own_ratio = values.find_map(|value| match value {
            TlsValue::Other("tls.renewal_window_ratio", ratio) => ratio.as_f64(),
            _ => None,
        });
        if let Some(ratio) = own_ratio {
            self.all.get(id).renewal_window_ratio = ratio;
        }

        let own_issuers = self.issuers_of_site(block.site);
        if !own_issuers.is_empty() {
            if self.catch_all == Some(id) && !self.all.same_issuers(&self.all.policy(id).issuers, &own_issuers) {
                self.report(
                    block,
                    "conflicting-tls-policies",
                    "this site is for every host, and its certificate issuers are not those of another such site or of \
                     the global options",
                );
            }
            self.all.get(id).issuers = own_issuers;
        }
        if let Some(bind) = site.binds.first() {
            let host = bind.addresses.first().cloned().unwrap_or_default();
            for issuer in self.all.policy(id).issuers.clone() {
                if let Some(acme) = self.all.acme(issuer) {
                    let challenges = acme.challenges();
                    if challenges.bind_host.is_empty() {
                        challenges.bind_host.clone_from(&host);
                    }
                }
            }
        }
        if hosts.is_empty() && self.catch_all.is_none() {
            self.catch_all = Some(id);
        }

        let mut subjects = block.hosts_not_http(self.sites, &self.http_port);
        subjects.sort();
        self.all.get(id).subjects = subjects;
        let internal = self.split_internal(id, block);
        self.all.order.push(id);
        self.all.order.extend(internal);
    }

    /// Where public and internal names stand together without an issuer, the internal ones get a policy of their own.
    fn split_internal(&mut self, id: PolicyId, block: &ServerBlock) -> Option<PolicyId> {
        let policy = self.all.policy(id).clone();
        if !policy.issuers.is_empty() {
            return None;
        }
        let names = policy.subjects.iter().filter(|name| !is_tailscale(name));
        for name in names.clone().filter(|name| !can_have_certificate(name)) {
            let message = format!("there can be no certificate for `{name}`");
            self.report(block, "bad-site-address", &message);
        }
        let (external, internal): (Vec<String>, Vec<String>) =
            names.cloned().partition(|name| is_public_for_policy(name, policy.on_demand));
        if external.is_empty() || internal.is_empty() {
            return None;
        }
        self.all.get(id).subjects = external;
        let raw = Some(vec![Issuer::Internal(InternalIssuer::default())]);
        Some(self.all.add(Policy { subjects: internal, raw_issuers: raw, ..policy }))
    }

    fn issuers_of_site(&mut self, site: usize) -> Vec<IssuerId> {
        if let Some(known) = self.site_issuers.get(&site) {
            return known.clone();
        }
        let mut ids = Vec::new();
        for (value, _) in self.sites.get(site).into_iter().flat_map(|site| &site.tls) {
            if let TlsValue::Issuer(issuer) = value {
                ids.push(self.all.add_issuer(issuer.clone()));
            }
        }
        self.site_issuers.insert(site, ids.clone());
        ids
    }

    fn add_loader(&mut self, id: &str, value: &Value) {
        let all = self.loaders.entry(id).or_insert_with(|| json!([]));
        if let (Value::Array(all), Value::Array(more)) = (all, value) {
            all.extend(more.iter().cloned());
        }
    }

    /// The public names of Encrypted `ClientHello` need certificates too.
    fn public_names_of_ech(&mut self, app: &mut TlsApp) {
        let Some(ech) = self.cx.options.get("ech").cloned() else { return };
        let configs = ech.get("configs").and_then(Value::as_array).into_iter().flatten();
        let names = configs.filter_map(|config| config.get("public_name")?.as_str()).filter(|name| !name.is_empty());
        let subjects = names.map(str::to_owned).collect();
        let id = self.base_policy();
        self.all.get(id).subjects = subjects;
        self.all.order.push(id);
        app.encrypted_client_hello = Some(ech);
    }

    /// Names whose certificates are managed although no route tells of them.
    fn managed_names(&mut self, pairings: &[Pairing]) -> Vec<String> {
        let modes: Vec<&str> = self
            .cx
            .options
            .get("auto_https")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        let mut managed = BTreeSet::new();
        let mut internal = Vec::new();
        if !modes.contains(&"off") && !modes.contains(&"disable_certs") {
            for name in self.hosts_beside_hostless_keys(pairings) {
                if !is_public(&name) {
                    internal.push(name.clone());
                }
                managed.insert(name);
            }
        }
        managed.append(&mut self.forced);
        let asked = self.cx.options.get("tls_automate_names").and_then(Value::as_array).into_iter().flatten();
        let asked: Vec<String> = asked.filter_map(Value::as_str).map(str::to_owned).collect();
        let mut public = Vec::new();
        for name in asked {
            if managed.insert(name.clone()) && !self.all.has_subject(&name) {
                if is_public(&name) { public.push(name) } else { internal.push(name) }
            }
        }
        if !public.is_empty() && (self.has_automation_options() || self.has_acme_defaults()) {
            let id = self.base_policy();
            self.all.get(id).subjects = public;
            self.all.order.push(id);
        }
        if !internal.is_empty() {
            let raw = Some(vec![Issuer::Internal(InternalIssuer::default())]);
            let id = self.all.add(Policy { subjects: internal, raw_issuers: raw, ..Policy::default() });
            self.all.order.push(id);
        }
        managed.into_iter().collect()
    }

    /// Hosts that share a site with a key without a host: no matcher names them, so automatic HTTPS would not see them.
    fn hosts_beside_hostless_keys(&self, pairings: &[Pairing]) -> BTreeSet<String> {
        let blocks = pairings.iter().flat_map(|pairing| &pairing.blocks);
        let hostless = blocks.filter(|block| block.has_catch_all_key(self.sites));
        hostless.flat_map(|block| block.hosts_not_http(self.sites, &self.http_port)).collect()
    }

    fn has_acme_defaults(&self) -> bool {
        self.is_set("email") || self.has_acme_options()
    }

    /// Policies of public names without an issuer get the default ones, for the global options to be filled in.
    fn default_issuers_of_policies(&mut self) {
        if !self.has_acme_defaults() {
            return;
        }
        let own_ca = self.is_set("acme_ca");
        let email = string(&self.cx.options, "email").to_owned();
        for id in self.all.order.clone() {
            let policy = self.all.policy(id);
            let all_public =
                policy.subjects.iter().all(|name| is_public_for_policy(name, policy.on_demand) && !is_tailscale(name));
            if policy.issuers.is_empty() && all_public {
                let issuers = if own_ca { vec![AcmeIssuer::default()] } else { default_issuers(&email) };
                self.all.get(id).issuers =
                    issuers.into_iter().map(|issuer| self.all.add_issuer(issuer.into())).collect();
            }
        }
    }

    fn fill_in_issuers(&mut self) {
        let used: BTreeSet<IssuerId> =
            self.all.order.iter().flat_map(|id| self.all.policy(*id).issuers.clone()).collect();
        for id in used {
            if let Some(acme) = self.all.acme(id) {
                fill_in(acme, &self.cx.options);
            }
        }
    }

    fn automation(&mut self, pairings: &[Pairing]) -> Automation {
        let policies = tls_policies::consolidate(&mut self.all);
        let mut seen = BTreeSet::new();
        for name in policies.iter().flat_map(|policy| &policy.subjects) {
            if !seen.insert(name.as_str()) {
                let message = format!("`{name}` stands in sites that want its certificate managed in different ways");
                let mut d = Diagnostic::error("conflicting-tls-policies", message);
                if let Some(span) = self.place_of(name, pairings) {
                    d = d.at(span, "");
                }
                self.cx.diagnostics.push(d);
            }
        }
        let nanos = |name: &str| Nanos(self.cx.options.get(name).and_then(Value::as_i64).unwrap_or(0));
        Automation {
            policies,
            on_demand: self.cx.options.get("on_demand_tls").and_then(|v| serde_json::from_value(v.clone()).ok()),
            ocsp_interval: nanos("ocsp_interval"),
            renew_interval: nanos("renew_interval"),
            storage_clean_interval: nanos("storage_clean_interval"),
        }
    }

    fn app_options(&self, app: &mut TlsApp) {
        let option = |name: &str| self.cx.options.get(name);
        app.disable_ocsp_stapling = self.is_set("ocsp_stapling");
        app.disable_storage_check = self.is_set("storage_check");
        app.disable_storage_clean = option("storage_clean_interval") == Some(&Value::Bool(false));
        let resolvers = option("tls_resolvers").and_then(Value::as_array).into_iter().flatten();
        app.resolvers = resolvers.filter_map(Value::as_str).map(str::to_owned).collect();
        app.dns = option("dns").cloned();
    }

    fn report(&mut self, block: &ServerBlock, code: &'static str, message: &str) {
        let mut d = Diagnostic::error(code, message);
        if let Some(key) = block.site_keys(self.sites).next() {
            d = d.at(key.span, "");
        }
        self.cx.diagnostics.push(d);
    }

    /// The last key with this host.
    fn place_of(&self, host: &str, pairings: &[Pairing]) -> Option<Span> {
        let blocks = pairings.iter().flat_map(|pairing| &pairing.blocks);
        let keys = blocks.flat_map(|block| block.site_keys(self.sites));
        keys.filter(|key| key.address.host == host).map(|key| key.span).last()
    }
}

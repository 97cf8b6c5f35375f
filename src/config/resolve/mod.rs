//! The adapter: a file's lines into the typed configuration, as Caddy's `httpcaddyfile` does it.
//!
//! ```text
//! tree::File ─options─▶ FileCx ─lines (per site)─▶ SiteInfo ─pairing─▶ Pairing ─servers─▶ http app
//!                                                      └──────────────────────▶ tls app, pki app, logging
//! ```
//!
//! Every step goes on after an error and reports, so that one run shows all errors of the file.

pub mod address;
mod lines;
mod listen;
mod logs;
mod matchers;
mod options;
mod options_tls;
mod order;
mod order_option;
mod pairing;
mod pki;
mod places;
mod policies;
pub mod ports;
mod servers;
mod servers_options;
pub mod site;
pub mod spans;
mod stable_sort;
pub mod subroute;
mod tls_app;
mod tls_policies;
mod tls_subjects;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use self::address::Address;
use self::lines::Scope;
use self::ports::Ports;
use self::site::{Bind, SiteInfo, SiteKey};
use super::directive_cx::{ConfigValue, FileCx};
use super::registry::Registry;
use super::types::{Admin, Config, HttpApp, MatcherSet, Route, Server, TlsApp, handler};
use crate::base::diagnostic::{Diagnostic, without_repeats};
use crate::base::span::{FileId, SourceMap, Span};
use crate::syntax::token::Token;
use crate::syntax::tree::{File, NamedRoute, Node, SiteBlock};

/// A file's configuration and what there is to say about it. With errors among the diagnostics the configuration is
/// only what could be understood.
#[derive(Debug)]
pub struct Resolved {
    pub config: Config,
    /// JSON pointer → place in the file; see [`spans::nearest`].
    pub spans: BTreeMap<String, Span>,
    pub diagnostics: Vec<Diagnostic>,
    /// Places of secrets in the file, for messages that come later.
    pub secrets: Vec<Span>,
}

/// Adapts a file. `sources` are the files that the tree's spans point into.
#[must_use]
pub fn resolve(file: &File, sources: &SourceMap, registry: &'static Registry) -> Resolved {
    let mut cx = FileCx::new(registry);
    cx.build_subroute = lines::nested;
    if let Some(nodes) = &file.globals {
        options::parse(nodes, &mut cx);
    }
    let ports = Ports::from_options(&cx.options);

    let defined = file.named_routes.iter().filter(|route| !route.nodes.is_empty());
    cx.named_routes = defined.map(|route| route.name.text().to_owned()).collect();
    let named_routes = named_routes(&file.named_routes, sources, &mut cx);

    let mut log_counter = 0;
    let mut sites: Vec<SiteInfo> =
        file.sites.iter().map(|block| read_site(block, sources, &mut log_counter, &mut cx)).collect();

    let default_bind = default_bind(&cx.options);
    let mut pairings = pairing::pair(&sites, &default_bind, &ports, &mut cx.diagnostics);
    let mut servers = servers::build(&mut pairings, &mut sites, &named_routes, &ports, &mut cx);
    // By listeners, as the options may rename a server.
    let by_listeners: BTreeMap<Vec<String>, Vec<usize>> =
        pairings.iter().map(|p| (p.addresses(), p.blocks.iter().map(|block| block.site).collect())).collect();
    options::apply_servers(&mut servers, &mut cx);
    let served =
        servers.iter().filter_map(|(name, server)| Some((name.clone(), by_listeners.get(&server.listen)?.clone())));
    let served: BTreeMap<String, Vec<usize>> = served.collect();
    let metrics = hoist_metrics(&mut servers, &cx.options);

    let tls = tls_app::build(&pairings, &sites, &mut cx);
    let pki = pki::build(&sites, &mut cx);
    let mut config = Config { logging: logs::section(&pairings, &sites, &cx), ..Config::default() };
    global_sections(&mut config, &cx.options);
    config.apps.pki = pki;
    config.apps.tls = (tls != TlsApp::default()).then_some(tls);
    if !servers.is_empty() {
        let option = |name: &str| cx.options.get(name).cloned();
        let port = |name: &str| option(name).and_then(|v| v.as_u64()).and_then(|n| u16::try_from(n).ok());
        config.apps.http = Some(HttpApp {
            http_port: port("http_port").unwrap_or(0),
            https_port: port("https_port").unwrap_or(0),
            grace_period: option("grace_period"),
            shutdown_delay: option("shutdown_delay"),
            metrics,
            servers,
            usage: option("usage").and_then(|usage| serde_json::from_value(usage).ok()),
            prices: option("price").and_then(|prices| serde_json::from_value(prices).ok()).unwrap_or_default(),
        });
    }
    let mut spans = spans::take(&mut config);
    places::record(&mut spans, &config, file.globals.as_deref().unwrap_or_default(), &sites, &served);
    let mut diagnostics = without_repeats(cx.diagnostics);
    for diagnostic in &mut diagnostics {
        diagnostic.secret.extend(&cx.secrets);
    }
    Resolved { config, spans, diagnostics, secrets: cx.secrets }
}

/// Named routes, each built as a subroute with its own group numbers, as they are shared by all sites.
fn named_routes(routes: &[NamedRoute], sources: &SourceMap, cx: &mut FileCx<'_>) -> BTreeMap<String, Route> {
    let mut out = BTreeMap::new();
    for route in routes.iter().filter(|route| !route.nodes.is_empty()) {
        let files = files_of(&route.nodes, sources);
        let scope = Scope { parent: "", site_keys: &[], site_files: &files, braces: true };
        let matchers = matchers::define(&route.nodes, &BTreeMap::new(), cx, &scope);
        let mut built = lines::block(&route.nodes, &matchers, cx, &scope, true);
        let handlers = match built.routes.as_mut_slice() {
            [only] if only.matcher_sets.is_empty() => {
                if only.handlers.len() > 1 {
                    cx.diagnostics.push(only_first_runs(route));
                }
                only.handlers.drain(..).take(1).collect()
            }
            _ => {
                let mut module = handler("subroute", &built);
                spans::mark(&mut module, route.name.span);
                vec![module]
            }
        };
        out.insert(route.name.text().to_owned(), Route { handlers, ..Route::default() });
    }
    // The sites count their groups from the start again; what a named route invokes is not the site's own.
    cx.groups = 0;
    cx.invoked.clear();
    out
}

/// Caddy keeps one handler of a named route whose lines have no matchers, and so do we: the file means what it meant.
fn only_first_runs(route: &NamedRoute) -> Diagnostic {
    Diagnostic::warning(
        "named-route-cut-short",
        format!(
            "of the lines of the named route `{}` only the first in running order has an effect",
            route.name.shown()
        ),
    )
    .at(route.name.span, "without matchers Caddy keeps one handler of it")
    .help("put the lines in a `route { … }` block inside the named route")
}

fn read_site(block: &SiteBlock, sources: &SourceMap, log_counter: &mut usize, cx: &mut FileCx<'_>) -> SiteInfo {
    let mut site = SiteInfo::default();
    for token in &block.keys {
        match site_key(token, cx) {
            Ok(key) => site.keys.push(key),
            Err(diagnostic) => cx.diagnostics.push(diagnostic),
        }
    }
    let keys: Vec<String> = block.keys.iter().map(|token| token.text().to_owned()).collect();
    let files = files_of(&block.nodes, sources);
    let scope = Scope { parent: "", site_keys: &keys, site_files: &files, braces: block.braces };
    let matchers: BTreeMap<String, MatcherSet> = matchers::define(&block.nodes, &BTreeMap::new(), cx, &scope);
    for node in block.nodes.iter().filter(|node| !matchers::is_definition(node)) {
        let (directive, values) = lines::read(node, &matchers, cx, &scope);
        for value in values {
            match lines::place(directive, value, node) {
                Ok(placed) => site.routes.push(placed),
                Err(ConfigValue::ErrorRoute(subroute)) => site.error_routes.push(subroute),
                Err(ConfigValue::Bind { addresses, protocols }) => site.binds.push(Bind { addresses, protocols }),
                Err(ConfigValue::AccessLog(mut access)) => {
                    logs::name(&mut access, log_counter);
                    site.access_logs.push((access, node.span()));
                }
                Err(ConfigValue::Tls(value)) => site.tls.push((value, node.span())),
                Err(ConfigValue::Route(_) | ConfigValue::RouteBefore(..) | ConfigValue::Routes(_)) => {}
            }
        }
        site.invoked.append(&mut cx.invoked);
    }
    site
}

fn site_key(token: &Token, cx: &mut FileCx<'_>) -> Result<SiteKey, Diagnostic> {
    let address = Address::parse(token.text()).map_err(|message| {
        let message = if token.from_env { "the address from the environment is not valid".to_owned() } else { message };
        Diagnostic::error("bad-site-address", message).at(token.span, "")
    })?;
    if !address.path.is_empty() {
        cx.diagnostics.push(
            Diagnostic::warning("path-in-site-address", "a path in a site address is deprecated")
                .at(token.span, "")
                .help("use `handle` in a site of the bare host"),
        );
    }
    if address.host == "0.0.0.0" || address.host == "::" {
        cx.diagnostics.push(
            Diagnostic::warning(
                "unspecified-site-address",
                format!("this site is for requests whose Host header is {}", address.host),
            )
            .at(token.span, "")
            .help("to choose the address to listen on, use `bind`"),
        );
    }
    Ok(SiteKey { text: token.text().to_owned(), span: token.span, address })
}

/// The configuration files that hold the lines of a block, sorted.
fn files_of(nodes: &[Node], sources: &SourceMap) -> Vec<String> {
    fn gather(nodes: &[Node], ids: &mut BTreeSet<FileId>) {
        for node in nodes {
            ids.insert(node.name.span.file);
            ids.extend(node.args.iter().map(|token| token.span.file));
            if let Some(block) = &node.block {
                gather(&block.nodes, ids);
            }
        }
    }
    let mut ids = BTreeSet::new();
    gather(nodes, &mut ids);
    // The file itself by the name it was given, an import by its path, as Caddy does.
    let name = |id: FileId| {
        let file = sources.get(id)?;
        let path = file.path.as_ref().filter(|_| id != FileId(0));
        Some(path.map_or_else(|| file.name.clone(), |path| path.display().to_string()))
    };
    let mut names: Vec<String> = ids.into_iter().filter_map(name).collect();
    names.sort();
    names
}

fn default_bind(options: &BTreeMap<String, Value>) -> Vec<Bind> {
    let words = |value: Option<&Value>| {
        value.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let binds = options.get("default_bind").and_then(Value::as_array).into_iter().flatten();
    binds.map(|b| Bind { addresses: words(b.get("addresses")), protocols: words(b.get("protocols")) }).collect()
}

/// Metrics are a matter of the whole app; what a server says about them moves there. As in Caddy, only `per_host` of
/// the global option outlives that.
fn hoist_metrics(servers: &mut BTreeMap<String, Server>, options: &BTreeMap<String, Value>) -> Option<Value> {
    let mut metrics = options.get("metrics").cloned();
    for own in servers.values_mut().filter_map(|server| server.metrics.take()) {
        let per_host = |value: &Value| value.get("per_host").is_some_and(|v| v == true);
        let either = per_host(&own) || metrics.as_ref().is_some_and(per_host);
        metrics = Some(if either { json!({ "per_host": true }) } else { json!({}) });
    }
    metrics
}

fn global_sections(config: &mut Config, options: &BTreeMap<String, Value>) {
    config.storage = options.get("storage").cloned();
    config.admin = options.get("admin").and_then(|admin| serde_json::from_value(admin.clone()).ok());
    if options.get("persist_config").and_then(Value::as_str) == Some("off") {
        let admin = config.admin.get_or_insert_with(Admin::default);
        let settings = admin.config.get_or_insert_with(|| json!({}));
        if let Value::Object(settings) = settings {
            settings.insert("persist".to_owned(), Value::Bool(false));
        }
    }
    for (name, app) in options.iter().filter_map(|(name, app)| Some((name.strip_prefix("app:")?, app))) {
        match name {
            "events" => config.apps.events = Some(app.clone()),
            _ => {
                config.apps.other.insert(name.to_owned(), app.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests;

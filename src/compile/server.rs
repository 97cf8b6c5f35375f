//! Config → Runtime: servers, listeners, and what cannot run.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;
use ipnet::IpNet;
use serde_json::Value;

use super::address::ListenAddr;
use super::admin;
use super::auto_https::{self, Additions, REDIRECT_SERVER};
use super::keep_alive::keep_alive;
use super::runtime::{Limits, ListenerSpec, Protocols, Runtime, ServerRuntime};
use super::wrappers::wrappers;
use super::{automation, certificates, host_index, logs, storage, tls};
use crate::config::compile_cx::{CompileCx, CompileError, read, read_value};
use crate::config::duration::duration_or;
use crate::config::registry::Registry;
use crate::config::types::{Config, HttpApp, Module, Server, module_id};
use crate::config::usage_types::{Usage, prices};
use crate::http::exchange::ServerFacts;
use crate::http::matcher::MatcherSets;
use crate::http::route::{Handler, Route, RouteList, Subroute};

/// Go's and Caddy's default for the largest request head.
const MAX_HEAD: usize = 1 << 20;
const READ_HEADER: Duration = Duration::from_mins(1);
const IDLE: Duration = Duration::from_mins(5);

/// Why a configuration cannot run.
#[derive(Debug)]
pub struct Refused {
    pub errors: Vec<CompileError>,
    /// Files that were read: a change of one of them may mend it.
    pub watched: Vec<PathBuf>,
}

/// Makes the whole runtime, or gives all errors at once, each with the JSON pointer of its place.
///
/// Reads certificate and key files; touches nothing that runs.
pub fn compile(config: &Config, registry: &Registry) -> Result<Runtime, Refused> {
    let mut cx = CompileCx::new(registry);
    refuse_unsupported(config, &mut cx);
    let mut runtime =
        Runtime { logs: cx.at("logging", |cx| logs::logs(config.logging.as_ref(), cx)), ..Runtime::default() };
    let (store, tickets) = cx.at("apps", |cx| {
        cx.at("tls", |cx| {
            let app = config.apps.tls.as_ref();
            let store = cx.at("certificates", |cx| certificates::certificates(app, cx));
            if let Some(app) = &config.apps.tls {
                tls::refuse_unsupported(app, cx);
            }
            (Arc::new(store), tls::tickets(app, cx))
        })
    });
    if let Some(http) = &config.apps.http {
        cx.http_port = if http.http_port == 0 { 80 } else { http.http_port };
        cx.https_port = if http.https_port == 0 { 443 } else { http.https_port };
        let auto = auto_https::additions(http, &store, cx.http_port, cx.https_port);
        runtime.certificates = Arc::new(automation::plan(config, &store, &auto, &mut cx));
        let shared = tls::Shared { store, storage: runtime.certificates.storage.clone(), tickets };
        cx.at("apps", |cx| cx.at("http", |cx| compile_http(http, &auto, &shared, &mut runtime, cx)));
    }
    runtime.admin = admin::admin(config.admin.as_ref(), &mut cx);
    if let Some(admin) = runtime.admin.as_ref().filter(|admin| runtime.listeners.contains_key(&admin.listen)) {
        let message = format!("{} is listened on by a server of this configuration", admin.listen);
        let error = CompileError::new("address-used-twice", message).within("listen");
        cx.at("admin", |cx| cx.report(error));
    }
    if !cx.errors.is_empty() {
        return Err(Refused { errors: cx.errors, watched: cx.watched });
    }
    runtime.watched = std::mem::take(&mut cx.watched);
    runtime.advice = std::mem::take(&mut cx.advice);
    runtime.background = std::mem::take(&mut cx.background);
    runtime.go_live = std::mem::take(&mut cx.go_live);
    Ok(runtime)
}

/// What Caddy has and we adapt, but cannot do yet, outside of handlers and matchers (which refuse themselves).
fn refuse_unsupported(config: &Config, cx: &mut CompileCx<'_>) {
    if let Some(module) = &config.storage
        && let Err(error) = read_value::<Module>(module).and_then(|module| storage::refuse(&module, false))
    {
        cx.at("storage", |cx| cx.report(error));
    }
    cx.at("apps", |cx| {
        for name in config.apps.other.keys() {
            cx.at(name, |cx| cx.report(CompileError::not_supported(format_args!("app `{name}`"))));
        }
        if config.apps.events.is_some() {
            cx.at("events", |cx| cx.report(CompileError::not_supported("the `events` option")));
        }
        if config.apps.http.as_ref().is_some_and(|h| h.metrics.is_some()) {
            cx.at("http", |cx| cx.at("metrics", |cx| cx.report(CompileError::not_supported("the `metrics` option"))));
        }
    });
}

fn compile_http(http: &HttpApp, auto: &Additions, shared: &tls::Shared, runtime: &mut Runtime, cx: &mut CompileCx<'_>) {
    runtime.grace_period = or_report("grace_period", cx, duration_or(http.grace_period.as_ref(), None));
    runtime.shutdown_delay = or_report("shutdown_delay", cx, duration_or(http.shutdown_delay.as_ref(), None));
    usage(http, cx);
    cx.at("servers", |cx| {
        let added = auto.server.as_ref().map(|server| (REDIRECT_SERVER, server));
        for (name, server) in http.servers.iter().map(|(name, server)| (name.as_str(), server)).chain(added) {
            cx.at(name, |cx| compile_server(name, server, auto, shared, http.usage.as_ref(), runtime, cx));
        }
    });
}

fn compile_server(
    name: &str,
    server: &Server,
    auto: &Additions,
    shared: &tls::Shared,
    first: Option<&Module>,
    runtime: &mut Runtime,
    cx: &mut CompileCx<'_>,
) {
    refuse_server_options(server, cx);
    let index = runtime.servers.len();
    let facts = facts(name, server, cx);
    cx.at("named_routes", |cx| cx.compile_named_routes(&server.named_routes));
    let routes = behind(first, routes(name, server, auto, cx), cx);
    let errors =
        server.errors.as_ref().map(|e| cx.at("errors", |cx| cx.at("routes", |cx| cx.compile_routes(&e.routes))));

    let addresses = listen_addresses(server, cx);
    let protocols = protocols(server, cx);
    let keep_alive = keep_alive(server, cx);
    let wants_tls = auto.tls.contains(name);
    let mut tls = None;
    let mut strict_sni_host = server.strict_sni_host.unwrap_or(false);
    if wants_tls {
        let policies = if server.tls_connection_policies.is_empty() {
            vec![Value::Object(serde_json::Map::new())]
        } else {
            server.tls_connection_policies.clone()
        };
        if let Some((built, strict)) =
            cx.at("tls_connection_policies", |cx| tls::server_tls(&policies, shared, protocols, cx))
        {
            tls = Some(built);
            // With client certificates the host must be the one the handshake was for, unless told otherwise.
            strict_sni_host = server.strict_sni_host.unwrap_or(strict);
        }
    }
    for address in addresses {
        let plain_port = matches!(&address, ListenAddr::Tcp { port, .. } if *port == cx.http_port);
        let spec = ListenerSpec { server: index, tls: wants_tls && !plain_port, protocols, keep_alive };
        if runtime.listeners.insert(address.clone(), spec).is_some() {
            let message = format!("{address} is listened on by two servers of this configuration");
            cx.at("listen", |cx| cx.report(CompileError::new("address-used-twice", message)));
        }
    }
    let logs = cx.at("logs", |cx| logs::access(server.logs.as_ref(), &runtime.logs, cx));
    runtime.servers.push(ServerRuntime {
        facts,
        routes,
        errors,
        tls,
        strict_sni_host,
        limits: limits(server, cx),
        wrappers: wrappers(server, wants_tls, cx),
        logs,
    });
}

/// The server's routes, with the redirects that automatic HTTPS puts among them.
fn routes(name: &str, server: &Server, auto: &Additions, cx: &mut CompileCx<'_>) -> RouteList {
    let mut list = cx.at("routes", |cx| cx.compile_routes(&server.routes));
    let Some(added) = auto.redirects.get(name) else {
        list.index = host_index::build(&server.routes);
        return list;
    };
    // Compiled apart, so that the places of the written routes stay what they are.
    let mut compile = |routes| cx.at("automatic_https", |cx| cx.compile_routes(routes).routes.into_vec());
    let (named, last) = (compile(&added.named), compile(&added.last));
    let mut compiled = list.routes.into_vec();
    let mut written = server.routes.clone();
    let at = added.at.min(written.len());
    compiled.splice(at..at, named);
    compiled.extend(last);
    written.splice(at..at, added.named.iter().cloned());
    written.extend(added.last.iter().cloned());
    RouteList { routes: compiled.into_boxed_slice(), index: host_index::build(&written) }
}

/// What the global options say of counting calls, before anything that refers to it is compiled.
fn usage(http: &HttpApp, cx: &mut CompileCx<'_>) {
    match prices(&http.prices) {
        Ok(lines) if lines.is_empty() => {}
        Ok(lines) => cx.prices = Arc::new(cx.prices.with(lines)),
        Err(error) => cx.at("prices", |cx| cx.report(error)),
    }
    let Some(module) = &http.usage else { return };
    cx.at("usage", |cx| match read::<Usage>(module, "handler") {
        Ok(usage) => match usage.settings() {
            Ok(_) => cx.usage = usage,
            Err(error) => cx.report(error),
        },
        Err(error) => cx.report(error),
    });
}

/// The routes behind a handler that all requests pass first. They stay a list of their own, for its index is theirs.
fn behind(first: Option<&Module>, routes: RouteList, cx: &mut CompileCx<'_>) -> RouteList {
    let Some(module) = first else { return routes };
    // The ledger is named there already: here it is the one of the whole file.
    let module = module.iter().filter(|(key, _)| !["ledger", "retention", "flush"].contains(&key.as_str()));
    let module: Module = module.map(|(key, value)| (key.clone(), value.clone())).collect();
    let mut handlers = cx.at("usage", |cx| cx.compile_handlers(&[module])).into_vec();
    handlers.push(Handler::Subroute(Subroute { routes, errors: None }));
    let all = Route { matchers: MatcherSets::default(), handlers: handlers.into(), group: None, terminal: false };
    RouteList { routes: Box::new([all]), index: None }
}

fn refuse_server_options(server: &Server, cx: &mut CompileCx<'_>) {
    let unsupported = [
        ("packet_conn_wrappers", !server.packet_conn_wrappers.is_empty()),
        ("read_timeout", server.read_timeout.is_some()),
        ("write_timeout", server.write_timeout.is_some()),
        ("metrics", server.metrics.is_some()),
        ("listen_protocols", server.listen_protocols.iter().flatten().next().is_some()),
    ];
    for (name, present) in unsupported {
        if present {
            cx.at(name, |cx| cx.report(CompileError::not_supported(format_args!("server option `{name}`"))));
        }
    }
}

fn facts(name: &str, server: &Server, cx: &mut CompileCx<'_>) -> ServerFacts {
    let trusted_proxies = match &server.trusted_proxies {
        None => Vec::new(),
        Some(source) => cx.at("trusted_proxies", |cx| ranges(source, cx)),
    };
    let client_ip_headers = header_names("client_ip_headers", &server.client_ip_headers, cx);
    let underscored_headers = header_names("expected_underscore_headers", &server.expected_underscore_headers, cx);
    ServerFacts {
        name: name.to_owned(),
        trusted_proxies,
        trusted_proxies_strict: server.trusted_proxies_strict > 0,
        trusted_proxies_unix: server.trusted_proxies_unix,
        client_ip_headers,
        underscored_headers,
        http_port: cx.http_port,
        https_port: cx.https_port,
        log_credentials: server.logs.as_ref().is_some_and(|l| l.should_log_credentials),
    }
}

fn header_names(field: &str, names: &[String], cx: &mut CompileCx<'_>) -> Vec<HeaderName> {
    let mut out = Vec::with_capacity(names.len());
    for name in names {
        match HeaderName::try_from(name.as_str()) {
            Ok(name) => out.push(name),
            Err(_) => {
                let error = CompileError::new("invalid-header-name", format!("`{name}` is not a header name"));
                cx.at(field, |cx| cx.report(error));
            }
        }
    }
    out
}

/// `{"source": "static", "ranges": [...]}`.
fn ranges(source: &Module, cx: &mut CompileCx<'_>) -> Vec<IpNet> {
    let id = module_id(source, "source");
    if id != "static" {
        cx.report(CompileError::not_supported(format_args!("trusted proxies from `{id}`")));
        return Vec::new();
    }
    let texts = source.get("ranges").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let mut out = Vec::with_capacity(texts.len());
    for text in texts.iter().filter_map(Value::as_str) {
        let parsed = text.parse::<IpNet>().ok().or_else(|| text.parse::<std::net::IpAddr>().ok().map(IpNet::from));
        match parsed {
            Some(net) => out.push(net),
            None => cx.report(CompileError::new("invalid-ip-range", format!("`{text}` is not an IP address or range"))),
        }
    }
    out
}

fn listen_addresses(server: &Server, cx: &mut CompileCx<'_>) -> Vec<ListenAddr> {
    let mut out = Vec::new();
    for (i, text) in server.listen.iter().enumerate() {
        match ListenAddr::parse(text) {
            Ok(addresses) => out.extend(addresses),
            Err(message) => {
                let error =
                    CompileError::new("invalid-listen-address", format!("cannot listen on `{text}`: {message}"));
                cx.at("listen", |cx| cx.at(i, |cx| cx.report(error)));
            }
        }
    }
    out
}

fn protocols(server: &Server, cx: &mut CompileCx<'_>) -> Protocols {
    if server.protocols.is_empty() {
        return Protocols { h1: true, h2: true, h2c: false };
    }
    let has = |p: &str| server.protocols.iter().any(|x| x == p);
    if server.protocols.iter().all(|p| p == "h3") {
        cx.at("protocols", |cx| cx.report(CompileError::not_supported("HTTP/3")));
    }
    Protocols { h1: has("h1"), h2: has("h2"), h2c: has("h2c") }
}

fn limits(server: &Server, cx: &mut CompileCx<'_>) -> Limits {
    let read_header = duration_or(server.read_header_timeout.as_ref(), Some(READ_HEADER));
    let idle = duration_or(server.idle_timeout.as_ref(), Some(IDLE));
    Limits {
        read_header: or_report("read_header_timeout", cx, read_header),
        idle: or_report("idle_timeout", cx, idle),
        max_head: usize::try_from(server.max_header_bytes).ok().filter(|n| *n > 0).unwrap_or(MAX_HEAD),
    }
}

fn or_report<T>(field: &str, cx: &mut CompileCx<'_>, result: Result<Option<T>, CompileError>) -> Option<T> {
    result.unwrap_or_else(|error| {
        cx.at(field, |cx| cx.report(error));
        None
    })
}

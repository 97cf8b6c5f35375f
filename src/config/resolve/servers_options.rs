//! The option `servers [address] { … }`: settings of all servers, or of those on one listener.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::options::push;
use crate::base::diagnostic::Diagnostic;
use crate::config::directive_cx::{FileCx, Parsed};
use crate::config::read::Line;
use crate::config::read::line::suggest;
use crate::config::types::{Module, Server, ServerLogs};
use crate::http::ip_range::PRIVATE_RANGES;
use crate::syntax::token::Token;

const OPTIONS: &[&str] = &[
    "name",
    "listener_wrappers",
    "packet_conn_wrappers",
    "timeouts",
    "keepalive_interval",
    "keepalive_idle",
    "keepalive_count",
    "max_header_size",
    "enable_full_duplex",
    "log_credentials",
    "protocols",
    "strict_sni_host",
    "0rtt",
    "trusted_proxies",
    "trusted_proxies_strict",
    "trusted_proxies_unix",
    "client_ip_headers",
    "expected_underscore_headers",
    "metrics",
    "trace",
];
const PROTOCOLS: &[&str] = &["h1", "h2", "h2c", "h3"];

/// One `servers` block.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct ServerOptions {
    /// Listener address; empty = every server that no other block is for.
    pub listener: String,
    /// Name that the server gets.
    pub name: String,
    /// Only the fields that the option sets.
    pub settings: Server,
}

/// Reads one block into the array `servers`.
pub(super) fn read(line: &Line<'_>, cx: &mut FileCx<'_>) -> Parsed<()> {
    let listener = line.none_or_one()?.map(|token| token.text().to_owned()).unwrap_or_default();
    let mut out = ServerOptions { listener, ..ServerOptions::default() };
    let blocks = cx.options.get("servers").and_then(Value::as_array).into_iter().flatten();
    if blocks.filter_map(|block| block.get("listener")?.as_str()).any(|address| address == out.listener) {
        let message = match line.args.first() {
            Some(address) => format!("there are two `servers` options for `{}`", address.shown()),
            None => "there are two `servers` options for all servers".to_owned(),
        };
        return Err(line.error("duplicate-option", message));
    }
    let taken: Vec<String> = self::blocks(cx).into_iter().map(|block| block.name).collect();
    line.each(&mut cx.diagnostics, |option, diagnostics| {
        if option.name() == "name" && option.args.first().is_some_and(|name| taken.iter().any(|t| t == name.text())) {
            return Err(option.error("duplicate-option", "another `servers` option gives this name"));
        }
        server_option(&option, &mut out, diagnostics)
    });
    push(cx, "servers", json!(out));
    Ok(())
}

/// Puts the blocks in the order in which they are tried.
pub(super) fn finish(cx: &mut FileCx<'_>) {
    let mut blocks = blocks(cx);
    blocks.sort_by_key(|block| std::cmp::Reverse(block.listener.len()));
    if !blocks.is_empty() {
        cx.options.insert("servers".to_owned(), json!(blocks));
    }
}

/// Applies to each server the first block that is for it.
pub(super) fn apply(servers: &mut BTreeMap<String, Server>, cx: &FileCx<'_>) {
    let blocks = blocks(cx);
    if blocks.is_empty() {
        return;
    }
    let mut renamed = BTreeMap::new();
    for (key, mut server) in std::mem::take(servers) {
        let is_for = |block: &&ServerOptions| block.listener.is_empty() || server.listen.contains(&block.listener);
        let block = blocks.iter().find(is_for);
        if let Some(block) = block {
            apply_to(&mut server, &block.settings);
        }
        let name = block.map(|block| block.name.clone()).filter(|name| !name.is_empty()).unwrap_or(key);
        renamed.insert(name, server);
    }
    *servers = renamed;
}

fn apply_to(server: &mut Server, settings: &Server) {
    let set = settings.clone();
    server.listener_wrappers = set.listener_wrappers;
    server.read_timeout = set.read_timeout;
    server.read_header_timeout = set.read_header_timeout;
    server.write_timeout = set.write_timeout;
    server.idle_timeout = set.idle_timeout;
    server.keepalive_interval = set.keepalive_interval;
    server.keepalive_idle = set.keepalive_idle;
    server.keepalive_count = set.keepalive_count;
    server.max_header_bytes = set.max_header_bytes;
    server.enable_full_duplex = set.enable_full_duplex;
    server.protocols = set.protocols;
    server.strict_sni_host = set.strict_sni_host;
    server.trusted_proxies = set.trusted_proxies;
    server.trusted_proxies_strict = set.trusted_proxies_strict;
    server.trusted_proxies_unix = set.trusted_proxies_unix;
    server.client_ip_headers = set.client_ip_headers;
    server.expected_underscore_headers = set.expected_underscore_headers;
    server.allow_0rtt = set.allow_0rtt;
    server.metrics = set.metrics;
    if let Some(logs) = set.logs {
        let own = server.logs.get_or_insert_with(ServerLogs::default);
        own.should_log_credentials |= logs.should_log_credentials;
        own.trace |= logs.trace;
    }
}

fn blocks(cx: &FileCx<'_>) -> Vec<ServerOptions> {
    cx.options.get("servers").and_then(|value| serde_json::from_value(value.clone()).ok()).unwrap_or_default()
}

fn server_option(line: &Line<'_>, out: &mut ServerOptions, diagnostics: &mut Vec<Diagnostic>) -> Parsed<()> {
    let server = &mut out.settings;
    match line.name() {
        "name" if out.listener.is_empty() => {
            let d = line.error("contradicting-options", "a name needs the address of the server that it is for");
            return Err(Box::new(d.help("as in `servers :443 { name … }`")));
        }
        "name" => out.name = line.text()?,
        "listener_wrappers" => {
            let mut wrappers = Vec::new();
            line.each(diagnostics, |wrapper, diagnostics| {
                wrappers.push(listener_wrapper(&wrapper, diagnostics)?);
                Ok(())
            });
            server.listener_wrappers.append(&mut wrappers);
        }
        "packet_conn_wrappers" => {
            // All are plugins, in Caddy too.
            line.each(diagnostics, |wrapper, _| Err(wrapper.unknown_module("packet connection wrapper", &[])));
        }
        "timeouts" => line.each(diagnostics, |option, _| timeout(&option, server)),
        "keepalive_interval" => server.keepalive_interval = nanos(line)?,
        "keepalive_idle" => server.keepalive_idle = nanos(line)?,
        "keepalive_count" => server.keepalive_count = line.integer()?,
        "max_header_size" => server.max_header_bytes = line.size()?,
        "enable_full_duplex" => {
            line.none()?;
            server.enable_full_duplex = true;
        }
        "log_credentials" => {
            line.none()?;
            server.logs.get_or_insert_with(ServerLogs::default).should_log_credentials = true;
        }
        "trace" => {
            line.none()?;
            server.logs.get_or_insert_with(ServerLogs::default).trace = true;
        }
        "protocols" => protocols(line, server)?,
        "strict_sni_host" => {
            server.strict_sni_host = Some(match line.none_or_one()?.map(Token::text) {
                None | Some("on") => true,
                Some("insecure_off") => false,
                Some(_) => return Err(line.error("invalid-value", "`strict_sni_host` is `on` or `insecure_off`")),
            });
        }
        "0rtt" => {
            if line.one()?.text() != "off" {
                return Err(line.error("invalid-value", "`0rtt` takes only `off`"));
            }
            server.allow_0rtt = Some(false);
        }
        "trusted_proxies" => server.trusted_proxies = Some(ip_source(&line.module()?, diagnostics)?),
        "trusted_proxies_strict" => {
            line.none()?;
            server.trusted_proxies_strict = 1;
        }
        "trusted_proxies_unix" => {
            line.none()?;
            server.trusted_proxies_unix = true;
        }
        "client_ip_headers" => {
            for token in line.args {
                if server.client_ip_headers.iter().any(|header| header == token.text()) {
                    let d = Diagnostic::error("duplicate-option", "this header is named twice").at(token.span, "");
                    return Err(Box::new(d));
                }
                server.client_ip_headers.push(token.text().to_owned());
            }
            line.no_block()?;
        }
        "expected_underscore_headers" => server.expected_underscore_headers = line.some()?,
        "metrics" => {
            let mut metrics = Map::new();
            line.each(diagnostics, |option, _| {
                if option.name() != "per_host" {
                    return Err(option.unknown("metrics", &["per_host"]));
                }
                metrics.insert("per_host".to_owned(), Value::Bool(true));
                Ok(())
            });
            server.metrics = Some(Value::Object(metrics));
        }
        _ => return Err(line.unknown("servers", OPTIONS)),
    }
    Ok(())
}

/// `None` for zero, which is the default.
fn nanos(line: &Line<'_>) -> Parsed<Option<Value>> {
    let nanos = line.duration()?;
    Ok((nanos != 0).then(|| Value::from(nanos)))
}

fn timeout(line: &Line<'_>, server: &mut Server) -> Parsed<()> {
    match line.name() {
        "read_body" => server.read_timeout = nanos(line)?,
        "read_header" => server.read_header_timeout = nanos(line)?,
        "write" => server.write_timeout = nanos(line)?,
        "idle" => server.idle_timeout = nanos(line)?,
        _ => return Err(line.unknown("timeouts", &["read_body", "read_header", "write", "idle"])),
    }
    Ok(())
}

fn protocols(line: &Line<'_>, server: &mut Server) -> Parsed<()> {
    for token in line.args {
        let wrong = |code, message: String| Err(Box::new(suggest(Diagnostic::error(code, message), token, PROTOCOLS)));
        if !PROTOCOLS.contains(&token.text()) {
            return wrong("invalid-value", format!("`{}` is not one of the protocols h1, h2, h2c, h3", token.shown()));
        }
        if server.protocols.iter().any(|protocol| protocol == token.text()) {
            let d = Diagnostic::error("duplicate-option", "this protocol is named twice").at(token.span, "");
            return Err(Box::new(d));
        }
        server.protocols.push(token.text().to_owned());
    }
    line.no_block()
}

/// `static RANGES…`, with `private_ranges` written out.
fn ip_source(line: &Line<'_>, diagnostics: &mut Vec<Diagnostic>) -> Parsed<Module> {
    if line.name() != "static" {
        return Err(line.unknown_module("source of address ranges", &["static"]));
    }
    line.warn_ignored(line.args.len(), true, diagnostics);
    let mut ranges = Vec::new();
    for token in line.args {
        match token.text() {
            "private_ranges" => ranges.extend(PRIVATE_RANGES.map(str::to_owned)),
            range => ranges.push(range.to_owned()),
        }
    }
    let mut module = Module::from_iter([("source".to_owned(), Value::from("static"))]);
    if !ranges.is_empty() {
        module.insert("ranges".to_owned(), json!(ranges));
    }
    Ok(module)
}

fn listener_wrapper(line: &Line<'_>, diagnostics: &mut Vec<Diagnostic>) -> Parsed<Module> {
    const POLICIES: &[&str] = &["IGNORE", "USE", "REJECT", "REQUIRE", "SKIP"];
    let mut module = Module::new();
    match line.name() {
        "tls" | "http_redirect" => line.warn_ignored(0, true, diagnostics),
        "proxy_protocol" => {
            line.none()?;
            let mut lists: BTreeMap<&str, Vec<String>> = BTreeMap::new();
            line.each(diagnostics, |option, _| {
                match option.name() {
                    "timeout" => {
                        module.insert("timeout".to_owned(), option.duration()?.into());
                    }
                    "allow" => lists.entry("allow").or_default().extend(option.words()),
                    "deny" => lists.entry("deny").or_default().extend(option.words()),
                    "fallback_policy" => {
                        let policy = option.one()?.text().to_ascii_uppercase();
                        if !POLICIES.contains(&policy.as_str()) {
                            let message = "`fallback_policy` is ignore, use, reject, require or skip";
                            return Err(option.error("invalid-value", message));
                        }
                        module.insert("fallback_policy".to_owned(), policy.into());
                    }
                    _ => {
                        return Err(option.unknown("proxy_protocol", &["timeout", "allow", "deny", "fallback_policy"]));
                    }
                }
                Ok(())
            });
            let lists = lists.into_iter().filter(|(_, list)| !list.is_empty());
            module.extend(lists.map(|(name, list)| (name.to_owned(), json!(list))));
        }
        _ => return Err(line.unknown_module("listener wrapper", &["http_redirect", "proxy_protocol", "tls"])),
    }
    module.insert("wrapper".to_owned(), Value::from(line.name()));
    Ok(module)
}

//! Global options: the lines of the options block into `FileCx::options`.
//!
//! The parsed forms that the rest of the adapter reads, by option name:
//!
//! | option | form |
//! |---|---|
//! | `http_port`, `https_port` | number |
//! | `auto_https` | array of strings |
//! | `default_sni`, `fallback_sni` | string |
//! | `default_bind` | array of `{"addresses": [..], "protocols": [..]}` |
//! | `log` | array of `{"name": NAME, "log": types::Log}`; `log` absent when the block is empty |
//! | `debug` | `true` |
//! | `grace_period`, `shutdown_delay` | nanoseconds |
//! | `metrics` | object |
//! | `admin` | `types::Admin` |
//! | `persist_config` | `"off"` |
//! | `storage` | module object |
//! | `app:NAME` | a whole app, put under `apps.NAME` |
//! | `servers` | array of [`servers_options::ServerOptions`], longest address first |
//! | `pki` | `tls_types::Pki` |
//! | `usage` | the handler `usage`, without its prices |
//! | `price` | array of the options' words |
//!
//! Those about certificates stand in [`options_tls`].
//!
//!
//! `order` changes `FileCx::order` at once.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::{options_tls, order_option, pki, servers_options};
use crate::base::diagnostic::Diagnostic;
use crate::config::directive_cx::{FileCx, Parsed};
use crate::config::read::line::{duration, suggest};
use crate::config::read::log::{self, Place};
use crate::config::read::{self, Line, storage};
use crate::config::types::{Admin, Server, handler};
use crate::syntax::token::Token;
use crate::syntax::tree::Node;

/// Reads the line of an option into `FileCx::options`.
pub(super) type Reader = fn(&Line<'_>, &mut FileCx<'_>) -> Parsed<()>;

const GENERAL: &[(&str, Reader)] = &[
    ("debug", flag),
    ("http_port", port),
    ("https_port", port),
    ("default_bind", default_bind),
    ("grace_period", duration_option),
    ("shutdown_delay", duration_option),
    ("storage", storage_option),
    ("admin", admin),
    ("persist_config", only_off),
    ("log", log_option),
    ("metrics", metrics),
    ("servers", servers_options::read),
    ("filesystem", filesystem),
    ("events", events),
    ("pki", pki::read),
    ("usage", usage),
    ("price", price),
];

/// Reads all lines of the options block; every wrong line is reported.
pub fn parse(nodes: &[Node], cx: &mut FileCx<'_>) {
    for node in nodes {
        let line = Line::of(node);
        if line.name() == "order" {
            if let Err(diagnostic) = order_option::apply(node, cx) {
                cx.diagnostics.push(*diagnostic);
            }
            continue;
        }
        let reader = GENERAL.iter().chain(options_tls::OPTIONS).find(|(name, _)| *name == line.name());
        let result = match reader {
            Some((_, read)) => read(&line, cx),
            None => Err(unknown(&line)),
        };
        if let Err(diagnostic) = result {
            cx.diagnostics.push(*diagnostic);
        }
    }
    servers_options::finish(cx);
    options_tls::check(nodes, cx);
}

/// Applies the `servers` options to the finished servers.
pub fn apply_servers(servers: &mut BTreeMap<String, Server>, cx: &mut FileCx<'_>) {
    servers_options::apply(servers, cx);
}

/// The string value of an option; empty when it is not set.
#[must_use]
pub fn string<'o>(options: &'o BTreeMap<String, Value>, name: &str) -> &'o str {
    options.get(name).and_then(Value::as_str).unwrap_or("")
}

pub(super) fn set(cx: &mut FileCx<'_>, line: &Line<'_>, value: impl Into<Value>) {
    cx.options.insert(line.name().to_owned(), value.into());
}

/// Adds to the array that the option's lines make together.
pub(super) fn push(cx: &mut FileCx<'_>, name: &str, value: Value) {
    if let Value::Array(list) = cx.options.entry(name.to_owned()).or_insert_with(|| json!([])) {
        list.push(value);
    }
}

/// An option that its name alone turns on.
#[allow(clippy::unnecessary_wraps)] // the signature of all readers
pub(super) fn flag(line: &Line<'_>, cx: &mut FileCx<'_>) -> Parsed<()> {
    line.warn_ignored(0, true, &mut cx.diagnostics);
    set(cx, line, true);
    Ok(())
}

pub(super) fn text(line: &Line<'_>, cx: &mut FileCx<'_>) -> Parsed<()> {
    line.no_block()?;
    set(cx, line, line.text()?);
    Ok(())
}

/// The only value is `off`.
pub(super) fn only_off(line: &Line<'_>, cx: &mut FileCx<'_>) -> Parsed<()> {
    line.no_block()?;
    let token = line.one()?;
    if token.text() != "off" {
        return Err(not_off(line, token));
    }
    set(cx, line, "off");
    Ok(())
}

fn not_off(line: &Line<'_>, token: &Token) -> Box<Diagnostic> {
    let message = format!("`{}` takes only `off`", line.name());
    Box::new(Diagnostic::error("invalid-value", message).at(token.span, "").replace(token.span, "off"))
}

pub(super) fn duration_option(line: &Line<'_>, cx: &mut FileCx<'_>) -> Parsed<()> {
    let first = line.args.first().ok_or_else(|| line.wrong_count())?;
    line.warn_ignored(1, true, &mut cx.diagnostics);
    // Zero is the default, which Caddy leaves out.
    match duration(first)? {
        0 => cx.options.remove(line.name()),
        nanos => cx.options.insert(line.name().to_owned(), nanos.into()),
    };
    Ok(())
}

fn unknown(line: &Line<'_>) -> Box<Diagnostic> {
    let readers = GENERAL.iter().chain(options_tls::OPTIONS).map(|(name, _)| *name);
    let names: Vec<&str> = readers.chain(["order"]).collect();
    let d = Diagnostic::error("unknown-option", format!("there is no global option `{}`", line.name.shown()));
    Box::new(suggest(d, line.name, &names))
}

fn port(line: &Line<'_>, cx: &mut FileCx<'_>) -> Parsed<()> {
    line.no_block()?;
    let port = u16::try_from(line.integer()?)
        .map_err(|_| line.error("invalid-number", "a port is a number between 1 and 65535"))?;
    set(cx, line, port);
    Ok(())
}

#[allow(clippy::unnecessary_wraps)] // the signature of all readers
fn default_bind(line: &Line<'_>, cx: &mut FileCx<'_>) -> Parsed<()> {
    let mut addresses = line.words();
    if addresses.is_empty() {
        addresses.push(String::new());
    }
    let mut protocols = Vec::new();
    line.each(&mut cx.diagnostics, |option, _| {
        match option.name() {
            "protocols" => protocols = option.some()?,
            _ => return Err(option.unknown("default_bind", &["protocols"])),
        }
        Ok(())
    });
    push(cx, "default_bind", json!({ "addresses": addresses, "protocols": protocols }));
    Ok(())
}

fn storage_option(line: &Line<'_>, cx: &mut FileCx<'_>) -> Parsed<()> {
    set(cx, line, Value::Object(storage::read(&line.module()?)?));
    Ok(())
}

fn admin(line: &Line<'_>, cx: &mut FileCx<'_>) -> Parsed<()> {
    let mut out = Admin::default();
    match line.none_or_one()? {
        Some(word) if word.text() == "off" => {
            line.no_block()?;
            out.disabled = true;
        }
        Some(address) => address.text().clone_into(&mut out.listen),
        None => "localhost:2019".clone_into(&mut out.listen),
    }
    line.each(&mut cx.diagnostics, |option, _| {
        match option.name() {
            "enforce_origin" => {
                option.none()?;
                out.enforce_origin = true;
            }
            "origins" => out.origins = option.words(),
            _ => return Err(option.unknown("admin", &["enforce_origin", "origins"])),
        }
        Ok(())
    });
    set(cx, line, serde_json::to_value(out).unwrap_or_default());
    Ok(())
}

fn log_option(line: &Line<'_>, cx: &mut FileCx<'_>) -> Parsed<()> {
    let mut read = log::read(line, Place::Options, &mut cx.diagnostics)?;
    if read.name.is_empty() {
        "default".clone_into(&mut read.name);
    }
    let logs = cx.options.get("log").and_then(Value::as_array).into_iter().flatten();
    if logs.filter_map(|log| log.get("name")?.as_str()).any(|name| name == read.name) {
        let message = match line.args.first() {
            Some(name) => format!("the log `{}` is configured twice", name.shown()),
            None => "the default log is configured twice".to_owned(),
        };
        return Err(line.error("duplicate-option", message));
    }
    let mut entry = Map::from_iter([("name".to_owned(), Value::from(read.name))]);
    if let Some(log) = read.log.and_then(|log| serde_json::to_value(log).ok()) {
        entry.insert("log".to_owned(), log);
    }
    push(cx, "log", Value::Object(entry));
    Ok(())
}

#[allow(clippy::unnecessary_wraps)] // the signature of all readers
fn metrics(line: &Line<'_>, cx: &mut FileCx<'_>) -> Parsed<()> {
    const KNOWN: &[&str] = &["per_host", "observe_catchall_hosts", "otlp"];
    let mut out = Map::new();
    if line.args.is_empty() {
        line.each(&mut cx.diagnostics, |option, _| {
            if !KNOWN.contains(&option.name()) {
                return Err(option.unknown("metrics", KNOWN));
            }
            option.none()?;
            out.insert(option.name().to_owned(), Value::Bool(true));
            Ok(())
        });
    } else {
        // Words on the line hide the block from Caddy.
        line.warn_ignored(0, true, &mut cx.diagnostics);
    }
    set(cx, line, out);
    Ok(())
}

/// Its prices are those of the whole file.
fn usage(line: &Line<'_>, cx: &mut FileCx<'_>) -> Parsed<()> {
    if cx.options.contains_key("usage") {
        return Err(line.duplicate());
    }
    let mut usage = read::usage::read(line, &mut cx.diagnostics)?;
    for words in std::mem::take(&mut usage.prices) {
        push(cx, "price", Value::from(words));
    }
    set(cx, line, handler("usage", &usage));
    Ok(())
}

fn price(line: &Line<'_>, cx: &mut FileCx<'_>) -> Parsed<()> {
    let words = read::usage::price(line)?;
    push(cx, "price", Value::from(words));
    Ok(())
}

/// File systems other than the machine's own are plugins, in Caddy too.
fn filesystem(line: &Line<'_>, _cx: &mut FileCx<'_>) -> Parsed<()> {
    let backend = line.module()?.module()?;
    Err(backend.unknown_module("file system", &[]))
}

#[allow(clippy::unnecessary_wraps)] // the signature of all readers
fn events(line: &Line<'_>, cx: &mut FileCx<'_>) -> Parsed<()> {
    line.warn_ignored(0, false, &mut cx.diagnostics);
    line.each(&mut cx.diagnostics, |option, _| match option.name() {
        // Handlers of events are plugins, in Caddy too.
        "on" => Err(option.module()?.module()?.unknown_module("event handler", &[])),
        _ => Err(option.unknown("events", &["on"])),
    });
    cx.options.insert("app:events".to_owned(), json!({}));
    Ok(())
}

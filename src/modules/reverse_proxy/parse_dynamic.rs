//! `dynamic a|srv|multi …`.

use serde_json::{Map, Value, json};

use super::words::{duration, each_line, invalid, texts, unknown_module};
use crate::config::directive_cx::{DirectiveCx, Parsed};
use crate::config::types::Module;
use crate::syntax::token::Token;
use crate::syntax::tree::Node;

const SOURCES: &[&str] = &["a", "srv", "multi"];

/// `dynamic SOURCE …`.
pub fn dynamic(cx: &mut DirectiveCx<'_, '_>, line: &Node) -> Parsed<Module> {
    let Some((name, args)) = line.args.split_first() else { return Err(cx.arg_err(line)) };
    source(cx, line, name, args)
}

fn source(cx: &mut DirectiveCx<'_, '_>, line: &Node, name: &Token, args: &[Token]) -> Parsed<Module> {
    let mut out: Map<String, Value> = Map::new();
    match (name.text(), args) {
        ("a", [] | [_] | [_, _]) => {
            for (key, value) in ["name", "port"].iter().zip(args) {
                out.insert((*key).to_owned(), value.text().into());
            }
            each_line(cx, line.lines(), |cx, node| {
                const KNOWN: &[&str] =
                    &["name", "port", "refresh", "resolvers", "dial_timeout", "dial_fallback_delay", "versions"];
                match node.name() {
                    "name" | "port" => once(cx, &mut out, node),
                    "versions" => versions(cx, &mut out, node),
                    _ => lookup_line(cx, &mut out, node, KNOWN),
                }
            })?;
        }
        ("srv", [] | [_]) => {
            if let [service] = args {
                out.insert("name".into(), service.text().into());
            }
            each_line(cx, line.lines(), |cx, node| {
                const KNOWN: &[&str] = &[
                    "service",
                    "proto",
                    "name",
                    "refresh",
                    "resolvers",
                    "dial_timeout",
                    "dial_fallback_delay",
                    "grace_period",
                ];
                match node.name() {
                    "service" | "proto" | "name" => once(cx, &mut out, node),
                    "grace_period" => time(cx, &mut out, node),
                    _ => lookup_line(cx, &mut out, node, KNOWN),
                }
            })?;
        }
        ("multi", []) => {
            let mut sources = Vec::new();
            each_line(cx, line.lines(), |cx, node| {
                sources.push(Value::Object(source(cx, node, &node.name, &node.args)?));
                Ok(())
            })?;
            if !sources.is_empty() {
                out.insert("sources".into(), Value::Array(sources));
            }
        }
        ("a" | "srv" | "multi", _) => return Err(cx.arg_err(line)),
        _ => return Err(unknown_module(name, "source of dynamic upstreams", SOURCES)),
    }
    out.insert("source".into(), name.text().into());
    Ok(out)
}

fn once(cx: &DirectiveCx<'_, '_>, out: &mut Map<String, Value>, node: &Node) -> Parsed<()> {
    let value = cx.value(node)?;
    if out.contains_key(node.name()) {
        return Err(cx.duplicate(node));
    }
    out.insert(node.name().to_owned(), value.text().into());
    Ok(())
}

fn time(cx: &DirectiveCx<'_, '_>, out: &mut Map<String, Value>, node: &Node) -> Parsed<()> {
    let value = duration(cx.value(node)?)?;
    if !value.is_zero() {
        out.insert(node.name().to_owned(), value.0.into());
    }
    Ok(())
}

/// The options that both kinds of DNS lookup have.
fn lookup_line(cx: &DirectiveCx<'_, '_>, out: &mut Map<String, Value>, node: &Node, known: &[&str]) -> Parsed<()> {
    match node.name() {
        "refresh" | "dial_timeout" | "dial_fallback_delay" => time(cx, out, node),
        "resolvers" => {
            out.insert("resolver".into(), json!({ "addresses": texts(cx.values(node)?) }));
            Ok(())
        }
        _ => Err(cx.unknown(node, known)),
    }
}

fn versions(cx: &DirectiveCx<'_, '_>, out: &mut Map<String, Value>, node: &Node) -> Parsed<()> {
    for value in cx.values(node)? {
        if !matches!(value.text(), "ipv4" | "ipv6") {
            return Err(invalid(value, "`ipv4` or `ipv6`"));
        }
        if let Value::Object(map) = out.entry("versions").or_insert_with(|| json!({})) {
            map.insert(value.text().to_owned(), true.into());
        }
    }
    Ok(())
}

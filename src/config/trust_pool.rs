//! Sources of trusted CA certificates (`tls_trust_pool`, `trust_pool`): the words and their JSON.
//!
//! Which of them run is decided where TLS is compiled.

use serde_json::{Map, Value};

use super::directive_cx::{DirectiveCx, Parsed};
use super::read::Line;
use super::types::Module;
use crate::base::diagnostic::Diagnostic;
use crate::syntax::token::Token;
use crate::syntax::tree::Node;

const PROVIDERS: &[&str] = &["file", "inline", "pki_root", "pki_intermediate", "storage", "http", "combined", "system"];

/// `OPTION PROVIDER args… { … }` to `{"provider": …}`.
pub fn parse(cx: &mut DirectiveCx<'_, '_>, line: &Node) -> Parsed<Module> {
    let Some((provider, args)) = line.args.split_first() else { return Err(cx.arg_err(line)) };
    let mut out = Module::new();
    match provider.text() {
        "file" => list(cx, line, args, "pem_file", "pem_files", &mut out)?,
        "inline" => {
            if !args.is_empty() {
                return Err(cx.arg_err(line));
            }
            list(cx, line, args, "trust_der", "trusted_ca_certs", &mut out)?;
        }
        "pki_root" | "pki_intermediate" => list(cx, line, args, "authority", "authority", &mut out)?,
        "storage" => storage(cx, line, args, &mut out)?,
        "http" => http(cx, line, args, &mut out)?,
        "system" if args.is_empty() => {}
        "system" => return Err(cx.arg_err(line)),
        "combined" => {
            if !args.is_empty() {
                return Err(cx.arg_err(line));
            }
            let mut sources = Vec::new();
            for node in line.lines() {
                if node.name() != "source" {
                    return Err(cx.unknown(node, &["source"]));
                }
                sources.push(Value::Object(parse(cx, node)?));
            }
            if sources.is_empty() {
                return Err(cx.arg_err(line));
            }
            out.insert("sources".into(), Value::Array(sources));
        }
        other => {
            let mut d = Diagnostic::error(
                "unknown-module",
                format!("there is no source of trusted certificates `{}`", provider.shown()),
            )
            .at(provider.span, "");
            if let Some(near) = crate::base::diagnostic::nearest(other, PROVIDERS.iter().copied()) {
                d = d.help(format!("did you mean `{near}`?")).replace(provider.span, near);
            }
            return Err(Box::new(d));
        }
    }
    out.insert("provider".into(), provider.text().into());
    Ok(out)
}

/// Words on the line, then lines `option words…` in the block, all into one list.
fn list(
    cx: &DirectiveCx<'_, '_>,
    line: &Node,
    args: &[Token],
    option: &str,
    key: &str,
    out: &mut Module,
) -> Parsed<()> {
    let mut words: Vec<Value> = args.iter().map(|t| t.text().into()).collect();
    for node in line.lines() {
        if node.name() != option {
            return Err(cx.unknown(node, &[option]));
        }
        if node.args.is_empty() {
            return Err(cx.arg_err(node));
        }
        words.extend(node.args.iter().map(|t| Value::from(t.text())));
    }
    if words.is_empty() {
        return Err(cx.arg_err(line));
    }
    out.insert(key.to_owned(), Value::Array(words));
    Ok(())
}

fn storage(cx: &DirectiveCx<'_, '_>, line: &Node, args: &[Token], out: &mut Module) -> Parsed<()> {
    let mut keys: Vec<Value> = args.iter().map(|t| t.text().into()).collect();
    for node in line.lines() {
        match node.name() {
            "keys" => keys.extend(node.args.iter().map(|t| Value::from(t.text()))),
            "storage" if out.contains_key("storage") => return Err(cx.duplicate(node)),
            "storage" => {
                out.insert("storage".into(), Value::Object(super::read::storage::read(&Line::of(node).module()?)?));
            }
            _ => return Err(cx.unknown(node, &["keys", "storage"])),
        }
    }
    if !keys.is_empty() {
        out.insert("pem_keys".into(), Value::Array(keys));
    }
    Ok(())
}

fn http(cx: &mut DirectiveCx<'_, '_>, line: &Node, args: &[Token], out: &mut Module) -> Parsed<()> {
    let mut endpoints: Vec<Value> = args.iter().map(|t| t.text().into()).collect();
    for node in line.lines() {
        match node.name() {
            "endpoints" if !node.args.is_empty() => endpoints.extend(node.args.iter().map(|t| Value::from(t.text()))),
            "endpoints" => return Err(cx.arg_err(node)),
            "tls" => {
                let mut tls: Map<String, Value> = Map::new();
                for option in node.lines() {
                    match (option.name(), option.args.as_slice()) {
                        ("ca", [_, ..]) => {
                            let pool = parse(cx, option)?;
                            tls.insert("ca".into(), Value::Object(pool));
                        }
                        ("insecure_skip_verify", []) => {
                            tls.insert("insecure_skip_verify".into(), true.into());
                        }
                        ("handshake_timeout", [text]) => match crate::base::units::parse_duration(text.text()) {
                            Some(nanos) => {
                                tls.insert("handshake_timeout".into(), nanos.into());
                            }
                            None => {
                                let message = format!("`{}` is not a duration", text.shown());
                                return Err(cx.err(text.span, "invalid-value", message));
                            }
                        },
                        (key @ ("server_name" | "renegotiation"), [text]) => {
                            tls.insert(key.to_owned(), text.text().into());
                        }
                        ("ca" | "insecure_skip_verify" | "handshake_timeout" | "server_name" | "renegotiation", _) => {
                            return Err(cx.arg_err(option));
                        }
                        _ => {
                            return Err(cx.unknown(
                                option,
                                &["ca", "insecure_skip_verify", "handshake_timeout", "server_name", "renegotiation"],
                            ));
                        }
                    }
                }
                out.insert("tls".into(), Value::Object(tls));
            }
            _ => return Err(cx.unknown(node, &["endpoints", "tls"])),
        }
    }
    if !endpoints.is_empty() {
        out.insert("endpoints".into(), Value::Array(endpoints));
    }
    Ok(())
}

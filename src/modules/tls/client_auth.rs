//! `client_auth` in `tls`: certificates that clients must show.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::{Map, Value, json};

use crate::base::diagnostic::Diagnostic;
use crate::config::directive_cx::{DirectiveCx, Parsed};
use crate::config::read::Line;
use crate::config::tls_types::ClientAuthentication;
use crate::config::trust_pool;
use crate::config::types::Module;
use crate::syntax::token::Token;
use crate::syntax::tree::Node;

const OPTIONS: &[&str] = &[
    "mode",
    "trust_pool",
    "verifier",
    "trusted_ca_cert",
    "trusted_ca_cert_file",
    "trusted_leaf_cert",
    "trusted_leaf_cert_file",
];

/// Wrong lines of the block are reported and left out.
pub fn parse(cx: &mut DirectiveCx<'_, '_>, node: &Node) -> ClientAuthentication {
    Line::of(node).warn_ignored(0, false, &mut cx.file.diagnostics);
    let mut out = ClientAuthentication::default();
    let mut pool = Pool::default();
    for option in node.lines() {
        if let Err(diagnostic) = parse_option(cx, option, &mut out, &mut pool) {
            cx.warn(*diagnostic);
        }
    }
    out.ca = match pool {
        Pool { module: Some(module), .. } => Some(module),
        Pool { inline, .. } if inline.is_empty() => None,
        Pool { inline, .. } => {
            Some(Module::from_iter([("provider".into(), "inline".into()), ("trusted_ca_certs".into(), inline.into())]))
        }
    };
    out
}

/// Where the trusted CAs come from: a module, or certificates given one by one in the old way.
#[derive(Default)]
struct Pool {
    module: Option<Module>,
    inline: Vec<String>,
}

fn parse_option(
    cx: &mut DirectiveCx<'_, '_>,
    node: &Node,
    out: &mut ClientAuthentication,
    pool: &mut Pool,
) -> Parsed<()> {
    let line = Line::of(node);
    match line.name() {
        "mode" => out.mode = line.text()?,
        "trust_pool" => {
            if !pool.inline.is_empty() {
                return Err(two_sources(&line));
            }
            pool.module = Some(trust_pool::parse(cx, node)?);
        }
        "trusted_ca_cert" | "trusted_ca_cert_file" => {
            warn_old(cx, node);
            if pool.module.is_some() {
                return Err(two_sources(&line));
            }
            let token = line.one()?;
            let from_file = line.name() == "trusted_ca_cert_file";
            pool.inline.push(if from_file { certificate_of(token)? } else { token.text().to_owned() });
        }
        "trusted_leaf_cert" => out.trusted_leaf_certs.push(line.text()?),
        "trusted_leaf_cert_file" => out.trusted_leaf_certs.push(certificate_of(line.one()?)?),
        "verifier" => out.verifiers.push(verifier(&line.module()?, &mut cx.file.diagnostics)?),
        _ => return Err(line.unknown("client_auth", OPTIONS)),
    }
    Ok(())
}

fn two_sources(line: &Line<'_>) -> Box<Diagnostic> {
    line.error(
        "contradicting-options",
        "`trust_pool` and `trusted_ca_cert` or `trusted_ca_cert_file` cannot stand together",
    )
}

fn warn_old(cx: &mut DirectiveCx<'_, '_>, node: &Node) {
    let new = if node.name() == "trusted_ca_cert" { "trust_pool inline" } else { "trust_pool file" };
    let message = format!("`{}` is now written `{new}`", node.name());
    cx.warn(Diagnostic::warning("renamed-option", message).at(node.name.span, "old spelling"));
}

/// The first certificate of a PEM file, in base64 of DER.
fn certificate_of(token: &Token) -> Parsed<String> {
    let wrong = |message: String| Box::new(Diagnostic::error("certificate-not-usable", message).at(token.span, ""));
    match CertificateDer::from_pem_file(token.text()) {
        Ok(der) => Ok(BASE64_STANDARD.encode(&der)),
        Err(rustls::pki_types::pem::Error::Io(e)) => Err(wrong(format!("cannot read `{}`: {e}", token.shown()))),
        Err(_) => Err(wrong(format!("there is no PEM certificate in `{}`", token.shown()))),
    }
}

/// `verifier leaf LOADER …`, the loaders on the line or in a block.
fn verifier(line: &Line<'_>, diagnostics: &mut Vec<Diagnostic>) -> Parsed<Module> {
    if line.name() != "leaf" {
        return Err(line.unknown_module("certificate verifier", &["leaf"]));
    }
    let mut loaders = Vec::new();
    match line.args {
        [] => line.each(diagnostics, |option, diagnostics| {
            loaders.push(loader(&option, diagnostics)?);
            Ok(())
        }),
        // Caddy reads past a loader without arguments.
        [_] => line.warn_ignored(0, true, diagnostics),
        [..] => {
            loaders.push(loader(&Line { block: None, ..line.module()? }, diagnostics)?);
            line.warn_ignored(line.args.len(), true, diagnostics);
        }
    }
    let mut module = Module::from_iter([("verifier".to_owned(), Value::from("leaf"))]);
    if !loaders.is_empty() {
        module.insert("leaf_certs_loaders".to_owned(), Value::Array(loaders));
    }
    Ok(module)
}

fn loader(line: &Line<'_>, diagnostics: &mut Vec<Diagnostic>) -> Parsed<Value> {
    let key = match line.name() {
        "file" => "files",
        "folder" => "folders",
        "pem" => "certificates",
        "storage" => {
            return Err(line.error("unknown-module", "the loader `storage` cannot be written in this language"));
        }
        _ => return Err(line.unknown_module("loader of leaf certificates", &["file", "folder", "pem"])),
    };
    line.warn_ignored(line.args.len(), true, diagnostics);
    let mut loader = Map::from_iter([("loader".to_owned(), json!(line.name()))]);
    if !line.args.is_empty() {
        loader.insert(key.to_owned(), json!(line.words()));
    }
    Ok(Value::Object(loader))
}

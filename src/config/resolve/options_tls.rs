//! Global options about certificates, in the form that the TLS app is built from:
//!
//! | option | form |
//! |---|---|
//! | `email`, `acme_ca`, `acme_ca_root`, `key_type`, `default_sni`, `fallback_sni` | string |
//! | `acme_dns` | `{"name": …}`; null: the DNS challenge with the provider of `dns` |
//! | `dns` | `{"name": …}` |
//! | `acme_eab` | `tls_types::ExternalAccount` |
//! | `cert_issuer` | array of `tls_types::Issuer` |
//! | `local_certs`, `skip_install_trust` | `true` |
//! | `preferred_chains` | `tls_types::ChainPreference` |
//! | `on_demand_tls` | `tls_types::OnDemand` |
//! | `cert_lifetime`, `renew_interval`, `ocsp_interval` | nanoseconds |
//! | `storage_clean_interval` | nanoseconds, or `false` |
//! | `storage_check`, `ocsp_stapling` | `"off"` |
//! | `renewal_window_ratio` | number |
//! | `auto_https`, `tls_resolvers`, `tls_automate_names` | array of strings |
//! | `ech` | `encrypted_client_hello` of the TLS app |

use serde_json::{Value, json};

use super::options::{Reader, duration_option, flag, only_off, push, set, text};
use crate::base::diagnostic::Diagnostic;
use crate::config::directive_cx::{FileCx, Parsed};
use crate::config::read::line::{duration, suggest};
use crate::config::read::{Line, dns_provider, issuer};
use crate::config::tls_types::{ExternalAccount, Issuer, OnDemand};
use crate::config::types::Module;
use crate::syntax::tree::Node;

pub(super) const OPTIONS: &[(&str, Reader)] = &[
    ("auto_https", auto_https),
    ("email", text),
    ("default_sni", text),
    ("fallback_sni", text),
    ("local_certs", flag),
    ("skip_install_trust", flag),
    ("acme_ca", text),
    ("acme_ca_root", text),
    ("acme_eab", acme_eab),
    ("acme_dns", acme_dns),
    ("dns", dns),
    ("ech", ech),
    ("tls_resolvers", words),
    ("tls_automate_names", automate_names),
    ("on_demand_tls", on_demand_tls),
    ("key_type", text),
    ("cert_issuer", cert_issuer),
    ("cert_lifetime", duration_option),
    ("renew_interval", duration_option),
    ("renewal_window_ratio", ratio),
    ("ocsp_interval", duration_option),
    ("ocsp_stapling", only_off),
    ("storage_check", only_off),
    ("storage_clean_interval", storage_clean_interval),
    ("preferred_chains", preferred_chains),
];

const MODES: &[&str] = &["off", "disable_redirects", "disable_certs", "ignore_loaded_certs"];

/// Options that contradict one another.
pub(super) fn check(nodes: &[Node], cx: &mut FileCx<'_>) {
    let line = |name: &str| nodes.iter().find(|node| node.name() == name).map(Line::of);
    let local_certs = line("local_certs");
    if let (Some(local), Some(issuer)) = (local_certs, line("cert_issuer").filter(|_| has_issuers(cx))) {
        let message = "`local_certs` and `cert_issuer` cannot stand together, as `local_certs` is an issuer too";
        let d = Diagnostic::error("contradicting-options", message).at(issuer.span(), "");
        cx.diagnostics.push(d.also(local.span(), "given here").help("write `cert_issuer internal` for the own CA"));
    }
    if let Some(dns) = line("acme_dns").filter(|_| cx.options.get("acme_dns").is_some_and(Value::is_null))
        && !cx.options.contains_key("dns")
        && local_certs.is_none()
        && (!has_issuers(cx) || issuers(cx).iter().any(|issuer| issuer.acme().is_some()))
    {
        let message = "`acme_dns` names no DNS provider, and there is no `dns` option that does";
        let d = Diagnostic::error("contradicting-options", message).at(dns.span(), "");
        cx.diagnostics.push(d.help("write `acme_dns cloudflare {env.CF_API_TOKEN}`, or `acme_dns exec PROGRAM`"));
    }
}

/// Those of `cert_issuer`.
pub(super) fn issuers(cx: &FileCx<'_>) -> Vec<Issuer> {
    cx.options.get("cert_issuer").and_then(|value| serde_json::from_value(value.clone()).ok()).unwrap_or_default()
}

fn has_issuers(cx: &FileCx<'_>) -> bool {
    cx.options.contains_key("cert_issuer")
}

fn auto_https(line: &Line<'_>, cx: &mut FileCx<'_>) -> Parsed<()> {
    line.no_block()?;
    if let Some(word) = line.args.iter().find(|word| !MODES.contains(&word.text())) {
        let message = format!("`auto_https` has no mode `{}`", word.shown());
        return Err(Box::new(suggest(Diagnostic::error("invalid-value", message), word, MODES)));
    }
    words(line, cx)
}

fn words(line: &Line<'_>, cx: &mut FileCx<'_>) -> Parsed<()> {
    line.no_block()?;
    set(cx, line, line.some()?);
    Ok(())
}

/// Several lines add up.
fn automate_names(line: &Line<'_>, cx: &mut FileCx<'_>) -> Parsed<()> {
    line.no_block()?;
    line.some()?.into_iter().for_each(|name| push(cx, line.name(), name.into()));
    Ok(())
}

fn ratio(line: &Line<'_>, cx: &mut FileCx<'_>) -> Parsed<()> {
    set(cx, line, line.ratio()?);
    Ok(())
}

fn acme_eab(line: &Line<'_>, cx: &mut FileCx<'_>) -> Parsed<()> {
    line.none()?;
    let mut out = ExternalAccount::default();
    line.each(&mut cx.diagnostics, |option, _| {
        match option.name() {
            "key_id" => out.key_id = option.text()?,
            "mac_key" => out.mac_key = option.text()?,
            _ => return Err(option.unknown("acme_eab", &["key_id", "mac_key"])),
        }
        Ok(())
    });
    set(cx, line, json!(out));
    Ok(())
}

fn acme_dns(line: &Line<'_>, cx: &mut FileCx<'_>) -> Parsed<()> {
    let provider = if line.args.is_empty() { Value::Null } else { dns_provider::read(&line.module()?)?.into() };
    set(cx, line, provider);
    Ok(())
}

fn dns(line: &Line<'_>, cx: &mut FileCx<'_>) -> Parsed<()> {
    let provider = dns_provider::read(&line.module()?)?;
    set(cx, line, provider);
    Ok(())
}

/// `ech NAMES… { dns PROVIDER }`: the public names of Encrypted `ClientHello`.
fn ech(line: &Line<'_>, cx: &mut FileCx<'_>) -> Parsed<()> {
    let names = line.some()?;
    line.each(&mut cx.diagnostics, |option, _| match option.name() {
        "dns" => dns_provider::read(&option.module()?).map(drop),
        _ => Err(option.unknown("ech", &["dns"])),
    });
    let configs: Vec<Value> = names.iter().map(|name| json!({ "public_name": name })).collect();
    set(cx, line, json!({ "configs": configs }));
    Ok(())
}

fn on_demand_tls(line: &Line<'_>, cx: &mut FileCx<'_>) -> Parsed<()> {
    line.none()?;
    let mut out = OnDemand::default();
    let mut lines = 0;
    line.each(&mut cx.diagnostics, |option, diagnostics| {
        lines += 1;
        let endpoint = match option.name() {
            "ask" => option.text()?,
            "permission" => permission(&option.module()?, diagnostics)?,
            "interval" | "burst" => {
                let message = format!("`{}` is no longer there, in Caddy either", option.name());
                return Err(Box::new(
                    Diagnostic::error("unknown-subdirective", message).at(option.span(), "").help("remove the line"),
                ));
            }
            _ => return Err(option.unknown("on_demand_tls", &["ask", "permission"])),
        };
        if out.permission.is_some() {
            return Err(option.error("duplicate-option", "there can be one `ask` or `permission`"));
        }
        let module = [("module".to_owned(), Value::from("http")), ("endpoint".to_owned(), Value::from(endpoint))];
        out.permission = Some(Module::from_iter(module));
        Ok(())
    });
    if lines == 0 {
        return Err(line.error("wrong-argument-count", "`on_demand_tls` needs a block with `ask` or `permission`"));
    }
    set(cx, line, json!(out));
    Ok(())
}

/// `http URL`.
fn permission(line: &Line<'_>, diagnostics: &mut Vec<Diagnostic>) -> Parsed<String> {
    if line.name() != "http" {
        return Err(line.unknown_module("permission module", &["http"]));
    }
    line.warn_ignored(1, true, diagnostics);
    line.text()
}

fn cert_issuer(line: &Line<'_>, cx: &mut FileCx<'_>) -> Parsed<()> {
    let issuer = issuer::read(&line.module()?, &mut cx.diagnostics)?;
    push(cx, "cert_issuer", json!(issuer));
    Ok(())
}

fn storage_clean_interval(line: &Line<'_>, cx: &mut FileCx<'_>) -> Parsed<()> {
    line.no_block()?;
    let token = line.one()?;
    let value = if token.text() == "off" { Value::Bool(false) } else { Value::from(duration(token)?) };
    set(cx, line, value);
    Ok(())
}

fn preferred_chains(line: &Line<'_>, cx: &mut FileCx<'_>) -> Parsed<()> {
    let chains = issuer::preferred_chains(line)?;
    set(cx, line, json!(chains));
    Ok(())
}

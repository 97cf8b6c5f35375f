//! `tls`: certificates and TLS settings of a site.
//!
//! ```text
//! tls /etc/ssl/site.crt /etc/ssl/site.key
//! tls admin@example.com
//! tls internal
//! tls {
//!     protocols tls1.3
//!     client_auth {
//!         mode require_and_verify
//!         trust_pool file /etc/ssl/clients.pem
//!     }
//! }
//! ```
//!
//! One word is `internal` (a CA of our own), `force_automate` or the address for an ACME account; two are a certificate and
//! its key. `issuer` names certificate issuers; the lines `ca`, `ca_root`, `eab`, `dns`, … adapt the default ones.
//!
//! **The DNS challenge** proves a name by a TXT record `_acme-challenge.NAME`, which a *provider* sets and clears. It is the
//! only way to a wildcard certificate of a public CA, and needs no open port. Where it is configured no other challenge is used.
//!
//! ```text
//! *.example.com {
//!     tls {
//!         dns cloudflare {env.CF_API_TOKEN}
//!     }
//! }
//! ```
//!
//! - `dns cloudflare TOKEN`: an API token with the permissions Zone:Read and DNS:Edit. In a block: `api_token`, `zone_token` (reads
//!   the zones, where the other may not), `endpoint` (another URL of the API).
//! - `dns exec PROGRAM [ARGS…]`: a program of yours, for any provider. It is run as `PROGRAM ARGS… set NAME VALUE` and later as
//!   `PROGRAM ARGS… clear NAME VALUE`, such as `set _acme-challenge.example.com gfj9Xq…Rg85nM`, in the environment of llmproxy (with
//!   `--envfile`) and `LLMPROXY_DNS_TTL` in seconds when `dns_ttl` is set. Exit status 0 means done. *set* must succeed when
//!   the record is there already, *clear* when it is not; several values of one name may be set at a time, and each is cleared
//!   alone. After a minute, or the `timeout` in its block, it is killed with everything it started. What it wrote to standard error
//!   is told when it fails, up to 300 signs, without its arguments and without values of the environment. Under the packaged
//!   systemd unit it lives in llmproxy's sandbox: its user, a file system to be read only, no runtime that makes code while it runs.
//! - `propagation_delay` waits before the first check; `propagation_timeout` (2m) is how long the record may take to appear at the
//!   servers of its zone, `-1` turns the check off; `resolvers` are asked in place of the zone's servers; `dns_ttl` is the
//!   record's life; `dns_challenge_override_domain` sets the record at another name, to which a CNAME of yours points.
//!
//! The record is cleared when the order is done, has failed or is given up; one that a stopped process left is cleared by the
//! next, which resumes the order. The option `acme_dns PROVIDER …` does all this for
//! every site, `tls_resolvers` names resolvers for all. A site whose name a managed wildcard covers shares its certificate,
//! unless it says `tls force_automate`.
//!
//! `on_demand` has the certificate made when the first client asks for the name, which waits meanwhile. So a site can be for
//! names that nobody wrote down, such as those of customers. Somebody must say which names these are: the global option
//! `on_demand_tls` names a URL that is asked with `?domain=NAME`, and any 2xx answer is a yes.
//!
//! ```text
//! {
//!     on_demand_tls {
//!         ask http://localhost:5555/check
//!     }
//! }
//! https:// {
//!     tls {
//!         on_demand
//!     }
//!     reverse_proxy localhost:8000
//! }
//! ```
//!
//! `get_certificate http URL` asks another program for the certificate, with `server_name`, `signature_schemes`,
//! `cipher_suites` and `local_ip` in the query: 200 with the chain and its key as PEM, or 204 when it has none and the issuers
//! are to be asked.

mod client_auth;

use serde_json::{Map, Value, json};

use crate::base::diagnostic::Diagnostic;
use crate::base::span::Span;
use crate::config::directive_cx::{ConfigValue, DirectiveCx, Parsed, TlsValue};
use crate::config::read::issuer::{self, dns_setting};
use crate::config::read::line::suggest;
use crate::config::read::{Line, acme_defaults, dns_provider};
use crate::config::registry::{Directive, Doc};
use crate::config::tls_types::{
    AcmeIssuer, CertificateSelection, ConnectionPolicy, ExternalAccount, InternalIssuer, Issuer,
};
use crate::config::types::Module;
use crate::syntax::token::Token;
use crate::syntax::tree::Node;

pub const DIRECTIVE: Directive = Directive {
    name: "tls",
    renamed_to: None,
    ordered: false,
    matcher: false,
    parse,
    doc: &Doc {
        summary: "Sets certificates and TLS settings of the site.",
        syntax: "tls [internal|force_automate|<email>] | [<cert> <key>] [{ … }]",
        examples: &[
            "tls internal",
            "tls admin@example.com {\n\tca https://acme.example.com/directory\n\tkey_type p384\n}",
            "tls {\n\tprotocols tls1.2 tls1.3\n\tcurves x25519 secp256r1\n\talpn h2 http/1.1\n}",
            "tls {\n\tdns cloudflare {env.CF_API_TOKEN}\n\tresolvers 1.1.1.1\n}",
            "tls {\n\tdns exec /usr/local/bin/dns-record --zone example.com {\n\t\ttimeout 30s\n\t}\n\tpropagation_timeout 5m\n}",
            "tls internal {\n\ton_demand\n}",
            "tls {\n\tget_certificate http http://localhost:5555/certificate\n}",
            "tls {\n\tissuer acme {\n\t\tdir https://acme.example.com/directory\n\t\tdisable_http_challenge\n\t}\n\tissuer internal\n}",
        ],
        rejected: &[
            ("tls", "wrong-argument-count"),
            ("tls a b c", "wrong-argument-count"),
            ("tls nobody", "invalid-value"),
            ("tls {\n\tprotocols tls1.1\n}", "invalid-value"),
            ("tls {\n\tciphers TLS_RSA_WITH_RC4_128_SHA\n}", "invalid-value"),
            ("tls {\n\tissuer acne\n}", "unknown-module"),
            ("tls {\n\tdns route53\n}", "unknown-module"),
            ("tls {\n\tdns cloudflare\n}", "dns-provider-not-usable"),
            ("tls {\n\tdns exec\n}", "wrong-argument-count"),
            ("tls {\n\tresolvers 1.1.1.1\n}", "contradicting-options"),
            ("tls internal {\n\tca https://acme.example.com\n}", "contradicting-options"),
            ("tls {\n\tprotocol tls1.3\n}", "unknown-subdirective"),
            ("tls {\n\tget_certificate vault\n}", "unknown-module"),
            ("tls {\n\trenewal_window_ratio 2\n}", "invalid-number"),
        ],
        adapt_only: false,
    },
};

const PROTOCOLS: &[&str] = &["tls1.2", "tls1.3"];
const CURVES: &[&str] = &["x25519mlkem768", "x25519", "secp256r1", "secp384r1", "secp521r1"];
const CIPHERS: &[&str] = &[
    "TLS_AES_128_GCM_SHA256",
    "TLS_AES_256_GCM_SHA384",
    "TLS_CHACHA20_POLY1305_SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
];
const OPTIONS: &[&str] = &[
    "protocols",
    "ciphers",
    "curves",
    "client_auth",
    "alpn",
    "load",
    "ca",
    "ca_root",
    "key_type",
    "eab",
    "issuer",
    "get_certificate",
    "dns",
    "resolvers",
    "propagation_delay",
    "propagation_timeout",
    "dns_ttl",
    "dns_challenge_override_domain",
    "on_demand",
    "reuse_private_keys",
    "insecure_secrets_log",
    "renewal_window_ratio",
];

/// What the line and its block say, before it is split into the pieces that the adapter wants.
#[derive(Default)]
struct Read {
    policy: ConnectionPolicy,
    files: Vec<Value>,
    folders: Vec<String>,
    /// Issuer that lines such as `ca` make by the way.
    acme: Option<AcmeIssuer>,
    internal: bool,
    issuers: Vec<Issuer>,
    managers: Vec<Module>,
    key_type: String,
    on_demand: bool,
    reuse_private_keys: bool,
    force_automate: bool,
    renewal_window_ratio: Option<f64>,
    /// Lines of the DNS challenge that need a provider.
    dns_settings: Vec<(String, Span)>,
}

fn parse(cx: &mut DirectiveCx<'_, '_>) -> Parsed<Vec<ConfigValue>> {
    let mut read = Read::default();
    first_line(cx, &mut read)?;
    for node in cx.node.lines() {
        if let Err(diagnostic) = option(cx, node, &mut read) {
            cx.warn(*diagnostic);
        }
    }
    check(cx, &read)?;
    Ok(values(cx, read))
}

fn first_line(cx: &mut DirectiveCx<'_, '_>, read: &mut Read) -> Parsed<()> {
    match cx.args {
        [] if cx.node.block.as_ref().is_none_or(|block| block.nodes.is_empty()) => return Err(cx.arg_err(cx.node)),
        [] => {}
        [one] => match one.text() {
            "internal" => read.internal = true,
            "force_automate" => read.force_automate = true,
            email if email.contains('@') => {
                read.acme = Some(AcmeIssuer { email: email.to_owned(), ..AcmeIssuer::default() });
            }
            _ => {
                let message = format!("`{}` is not an address for an ACME account", one.shown());
                let d = Diagnostic::error("invalid-value", message).at(one.span, "");
                return Err(Box::new(d.help(
                    "one word is `internal`, `force_automate` or an e-mail address; two are a certificate and its key",
                )));
            }
        },
        [certificate, key] => {
            let (tag, is_new) = tag_of(cx, certificate.text());
            if is_new {
                read.files.push(json!({"certificate": certificate.text(), "key": key.text(), "tags": [tag]}));
            }
            let selection = CertificateSelection { any_tag: vec![tag], ..CertificateSelection::default() };
            read.policy.certificate_selection = Some(selection);
        }
        _ => return Err(cx.arg_err(cx.node)),
    }
    Ok(())
}

/// The tag of a certificate file, the same for all sites that name it; each file is loaded once.
fn tag_of(cx: &mut DirectiveCx<'_, '_>, file: &str) -> (String, bool) {
    let state = cx.file.state.entry("tls_certificate_tags").or_insert_with(|| Value::Object(Map::new()));
    let Value::Object(tags) = state else { return (String::new(), true) };
    if let Some(tag) = tags.get(file).and_then(Value::as_str) {
        return (tag.to_owned(), false);
    }
    let tag = format!("cert{}", tags.len());
    tags.insert(file.to_owned(), Value::from(tag.as_str()));
    (tag, true)
}

fn option(cx: &mut DirectiveCx<'_, '_>, node: &Node, read: &mut Read) -> Parsed<()> {
    let line = Line::of(node);
    match line.name() {
        "protocols" => {
            let [min, rest @ ..] = line.args else { return Err(line.wrong_count()) };
            read.policy.protocol_min = known("TLS version", min, PROTOCOLS)?;
            if let Some(max) = rest.first() {
                read.policy.protocol_max = known("TLS version", max, PROTOCOLS)?;
            }
            line.warn_ignored(2, false, &mut cx.file.diagnostics);
            line.no_block()?;
        }
        "ciphers" => {
            for name in line.args {
                read.policy.cipher_suites.push(known("cipher suite", name, CIPHERS)?);
            }
        }
        "curves" => {
            for name in line.args {
                read.policy.curves.push(known("curve", name, CURVES)?);
            }
        }
        "client_auth" => read.policy.client_authentication = Some(client_auth::parse(cx, node)),
        "alpn" => read.policy.alpn = line.some()?,
        "insecure_secrets_log" => read.policy.insecure_secrets_log = line.text()?,
        "load" => read.folders.extend(line.words()),
        "key_type" => read.key_type = line.text()?,
        "issuer" => read.issuers.push(issuer::read(&line.module()?, &mut cx.file.diagnostics)?),
        "get_certificate" => read.managers.push(manager(&line.module()?)?),
        "on_demand" => {
            line.none()?;
            read.on_demand = true;
        }
        "reuse_private_keys" => {
            line.none()?;
            read.reuse_private_keys = true;
        }
        "renewal_window_ratio" => read.renewal_window_ratio = Some(line.ratio()?),
        _ => return acme_option(&line, read),
    }
    Ok(())
}

/// Lines that adapt the default ACME issuers.
fn acme_option(line: &Line<'_>, read: &mut Read) -> Parsed<()> {
    match line.name() {
        "ca" => {
            let ca = line.text()?;
            read.acme.get_or_insert_default().ca = ca;
        }
        "ca_root" => {
            let file = line.text()?;
            read.acme.get_or_insert_default().trusted_roots_pem_files.push(file);
        }
        "eab" => {
            let (key_id, mac_key) = line.two()?;
            let account = ExternalAccount { key_id: key_id.text().to_owned(), mac_key: mac_key.text().to_owned() };
            read.acme.get_or_insert_default().external_account = Some(account);
        }
        "dns" => {
            let provider = dns_provider::read(&line.module()?)?;
            read.acme.get_or_insert_default().dns().provider = Some(provider);
        }
        "dns_challenge_override_domain" => {
            let domain = line.text()?;
            read.acme.get_or_insert_default().dns().override_domain = domain;
            read.dns_settings.push((line.name().to_owned(), line.span()));
        }
        _ => {
            let acme = &mut read.acme;
            if !dns_setting(line, || acme.get_or_insert_default().dns())? {
                return Err(line.unknown("tls", OPTIONS));
            }
            read.dns_settings.push((line.name().to_owned(), line.span()));
        }
    }
    Ok(())
}

/// `get_certificate`: a source that is asked during the handshake.
fn manager(line: &Line<'_>) -> Parsed<Module> {
    let mut module = Module::new();
    match line.name() {
        "tailscale" => line.none()?,
        "http" => {
            module.insert("url".to_owned(), Value::from(line.text()?));
        }
        _ => return Err(line.unknown_module("source of certificates", &["http", "tailscale"])),
    }
    line.no_block()?;
    module.insert("via".to_owned(), Value::from(line.name()));
    Ok(module)
}

fn known(what: &str, token: &Token, names: &[&str]) -> Parsed<String> {
    if names.contains(&token.text()) {
        return Ok(token.text().to_owned());
    }
    let d = Diagnostic::error("invalid-value", format!("`{}` is not a {what} that can be used", token.shown()));
    Err(Box::new(suggest(d, token, names)))
}

/// Lines that do not go together.
fn check(cx: &DirectiveCx<'_, '_>, read: &Read) -> Parsed<()> {
    let has_provider = read.acme.as_ref().and_then(|acme| acme.challenges.as_ref()?.dns.as_ref()?.provider.as_ref());
    let global_provider = cx.file.options.get("acme_dns").or_else(|| cx.file.options.get("dns"));
    if let ([(name, span), ..], None, None) =
        (read.dns_settings.as_slice(), has_provider, global_provider.filter(|provider| !provider.is_null()))
    {
        let message = format!("`{name}` is for the DNS challenge, which has no provider");
        let d = Diagnostic::error("contradicting-options", message).at(*span, "");
        return Err(Box::new(d.help("set one with `dns` here or with the global option `acme_dns`")));
    }
    let wrong = |message: &str| Err(cx.err(cx.node.span(), "contradicting-options", message));
    if !read.issuers.is_empty() && (read.acme.is_some() || read.internal) {
        return wrong("`issuer` cannot stand beside words or lines that make an issuer of their own");
    }
    if read.acme.is_some() && read.internal {
        return wrong("`internal` cannot stand beside lines about an ACME issuer");
    }
    Ok(())
}

fn values(cx: &DirectiveCx<'_, '_>, read: Read) -> Vec<ConfigValue> {
    let mut out = Vec::new();
    if !read.files.is_empty() {
        out.push(TlsValue::Loader { id: "load_files", value: Value::Array(read.files) });
    }
    if !read.folders.is_empty() {
        out.push(TlsValue::Loader { id: "load_folders", value: json!(read.folders) });
    }
    if !read.issuers.is_empty() {
        out.extend(read.issuers.into_iter().map(TlsValue::Issuer));
    } else if let Some(acme) = &read.acme {
        out.extend(acme_defaults::implicit_issuers(&cx.file.options, acme).into_iter().map(TlsValue::Issuer));
    } else if read.internal {
        out.push(TlsValue::Issuer(Issuer::Internal(InternalIssuer::default())));
    }
    if !read.key_type.is_empty() {
        out.push(TlsValue::KeyType(read.key_type));
    }
    if read.on_demand {
        out.push(TlsValue::OnDemand);
    }
    out.extend(read.managers.into_iter().map(TlsValue::Manager));
    if read.reuse_private_keys {
        out.push(TlsValue::Other("tls.reuse_private_keys", Value::Bool(true)));
    }
    if let Some(ratio) = read.renewal_window_ratio {
        out.push(TlsValue::Other("tls.renewal_window_ratio", json!(ratio)));
    }
    if read.force_automate {
        out.push(TlsValue::Other("tls.force_automate", Value::Bool(true)));
    }
    // Always one, as the line alone turns TLS on.
    out.push(TlsValue::ConnectionPolicy(serde_json::to_value(read.policy).unwrap_or_else(|_| json!({}))));
    out.into_iter().map(ConfigValue::Tls).collect()
}

//! `acme_server`: the internal CA gives certificates over ACME (RFC 8555), to the machines inside.
//!
//! Clients are given `https://HOST/acme/local/directory` (`acme_ca` here and in Caddy, `--server` of certbot); the last but
//! one word is the authority, another one with `ca ID`. They must trust the root, which is under `pki/authorities/ID/root.crt` in
//! the certificate storage. Requests to other paths go on to the next directive. It stands last in the running order: where another
//! directive answers every request, put both into a `route`.
//!
//! ```text
//! ca.internal {
//!     tls internal
//!     acme_server {
//!         lifetime 24h
//!         allow {
//!             domains *.internal *.svc.internal
//!             ip_ranges 10.0.0.0/8
//!         }
//!         eab team-a {$TEAM_A_KEY}
//!     }
//! }
//! ```
//!
//! - `lifetime`: how long certificates are good, `12h` by default; never longer than what signs them (the intermediate is good
//!   for a week, see the option `pki`). `sign_with_root` lets the root sign them itself. A client may ask for less.
//! - `challenges`: how names are proved, by default in any way: `http-01`, `tls-alpn-01` and, which alone proves wildcards,
//!   `dns-01`. They are asked from this machine, on port 80 and 443 of the name or address, within 10 seconds, following up to 10
//!   redirects to these ports; `validation_ports HTTP HTTPS` names others.
//! - `resolvers`: IP addresses of DNS servers that are asked for the records of `dns-01` and for the addresses of names. The system
//!   is asked for names that they do not know, and for all without `resolvers`.
//! - `allow` and `deny`: which names are signed; by default all but wildcards. `*.name` stands for one label. Where `allow` stands, nothing
//!   else is signed: with `domains` alone no address. What `deny` names is never signed, nor a wildcard that covers it.
//!   `allow_wildcard_names` permits wildcards.
//! - `eab ID KEY`, repeatable: only who holds such a key (16 bytes or more in base64url, as `openssl rand -base64 32 | tr
//!   '+/' '-_'` makes it) may have an account: external account binding. A key may make several accounts. An account whose key is
//!   no longer there, or that was made without one, can do nothing more. Without `eab`, everybody who reaches the CA may ask it, and who is
//!   behind a name gets a certificate for it: as for every internal CA, the network is what guards it. Restrict who
//!   reaches it with a matcher (`acme_server @inside`).
//!
//! Clients can ask when to renew (ARI, RFC 9773) and revoke. There are neither CRL nor OCSP: a revoked certificate is good
//! until it ends, and its holder is told to renew at once; keep lifetimes short.
//!
//! Accounts, orders and certificates are kept in the certificate storage under `acme_server/ID`, and survive a restart. One process
//! at a time should serve an authority: nonces are known to the one that gave them. Bounds: 10,000 accounts, 10,000 open orders,
//! 300 of an account, 100 names in an order, 8 hours for an order.

mod account;
mod binding;
mod ca;
mod certificate;
pub mod csr;
mod finalize;
mod gate;
mod identifier;
mod jwk;
pub mod jws;
mod nonce;
mod order;
mod ordering;
mod policy;
mod problem;
mod request;
mod store;
mod validate;

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use self::binding::ExternalKeys;
use self::ca::{Ca, Settings, State};
use self::gate::Gate;
use self::order::Method;
use self::policy::Names as PolicyNames;
use self::validate::{Names, Validator};
use crate::base::diagnostic::Diagnostic;
use crate::base::units::parse_duration;
use crate::config::compile_cx::{CompileCx, CompileError, read};
use crate::config::directive_cx::{ConfigValue, DirectiveCx, Parsed};
use crate::config::dns_servers;
use crate::config::nanos::Nanos;
use crate::config::registry::{Directive, Doc, HandlerModule};
use crate::config::tls_types::ExternalAccount;
use crate::config::types::{self, Module, is_false};
use crate::http::ip_range;
use crate::http::placeholder::{Key as Placeholder, Template};
use crate::http::route::Handler;
use crate::syntax::token::Token;
use crate::syntax::tree::Node;
use crate::tls::authority::AuthoritySettings;
use crate::tls::automation::{INTERNAL_LIFETIME, LOCAL};

pub const DIRECTIVE: Directive = Directive {
    name: "acme_server",
    renamed_to: None,
    ordered: true,
    matcher: true,
    parse,
    doc: &Doc {
        summary: "Issues certificates over ACME.",
        syntax: "acme_server [matcher] { ca <id>  lifetime <duration>  resolvers <addresses…>  challenges <names…>  allow_wildcard_names  allow|deny { domains <names…>  ip_ranges <ranges…> }  sign_with_root  eab <id> <key>  validation_ports <http> <https> }",
        examples: &[
            "acme_server",
            "acme_server {\n\tca staff\n\tlifetime 24h\n\tchallenges http-01 dns-01\n\tresolvers 10.0.0.53\n\tallow_wildcard_names\n\tallow {\n\t\tdomains *.internal\n\t\tip_ranges 10.0.0.0/8\n\t}\n\tdeny {\n\t\tdomains secret.internal\n\t}\n}",
            "acme_server {\n\teab team-a MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY\n\tvalidation_ports 8080 8443\n\tsign_with_root\n}",
        ],
        rejected: &[
            ("acme_server now", "wrong-argument-count"),
            ("acme_server {\n\tlifetime long\n}", "invalid-duration"),
            ("acme_server {\n\tallow {\n\t\tnames a\n\t}\n}", "unknown-subdirective"),
            ("acme_server {\n\tallow {\n\t\tip_ranges 10.0.0\n\t}\n}", "invalid-ip-range"),
            ("acme_server {\n\tresolvers dns.internal\n}", "invalid-value"),
            ("acme_server {\n\tchallenges http-02\n}", "invalid-value"),
            ("acme_server {\n\teab team-a short\n}", "weak-secret"),
            ("acme_server {\n\teab team-a {header.X-Key}\n}", "token-not-fixed"),
            ("acme_server {\n\tvalidation_ports 80 https\n}", "invalid-value"),
        ],
        adapt_only: false,
    },
};

pub const HANDLER: HandlerModule = HandlerModule { id: "acme_server", compile };

/// Where the authorities that such servers name are gathered, an array of their ids: the `pki` app must have them.
pub const AUTHORITIES: &str = "pki.ca";

/// No `Debug`: it holds secrets.
#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct AcmeServer {
    #[serde(skip_serializing_if = "String::is_empty")]
    ca: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    lifetime: Option<Nanos>,
    #[serde(skip_serializing_if = "String::is_empty")]
    host: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    path_prefix: String,
    #[serde(skip_serializing_if = "is_false")]
    sign_with_root: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    resolvers: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    challenges: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    policy: Option<Policy>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    external_accounts: Vec<ExternalAccount>,
    #[serde(skip_serializing_if = "Option::is_none")]
    validation_ports: Option<Ports>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Ports {
    http: u16,
    https: u16,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Policy {
    #[serde(skip_serializing_if = "Option::is_none")]
    allow: Option<Rules>,
    #[serde(skip_serializing_if = "Option::is_none")]
    deny: Option<Rules>,
    #[serde(skip_serializing_if = "is_false")]
    allow_wildcard_names: bool,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Rules {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    domains: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    ip_ranges: Vec<String>,
}

const OPTIONS: [&str; 10] = [
    "ca",
    "lifetime",
    "resolvers",
    "challenges",
    "allow_wildcard_names",
    "allow",
    "deny",
    "sign_with_root",
    "eab",
    "validation_ports",
];
/// What is before the authority in the path, unless JSON says otherwise (Caddy's default).
const PREFIX: &str = "/acme/";

fn parse(cx: &mut DirectiveCx<'_, '_>) -> Parsed<Vec<ConfigValue>> {
    let mut out = AcmeServer::default();
    if !cx.args.is_empty() {
        return Err(cx.arg_err(cx.node));
    }
    let node = cx.node;
    let secrets: Vec<_> =
        node.lines().filter(|l| l.name() == "eab").flat_map(|l| l.args.iter().skip(1).map(|t| t.span)).collect();
    cx.file.secrets.extend(&secrets);
    // Whatever is wrong: keys are not shown with it.
    let masked = |d: Box<Diagnostic>| Box::new(secrets.iter().fold(*d, |d, span| d.secret(*span)));
    for line in node.lines() {
        option(cx, &mut out, line).map_err(masked)?;
    }
    if !out.ca.is_empty()
        && let Value::Array(ids) = cx.file.state.entry(AUTHORITIES).or_insert_with(|| Value::Array(Vec::new()))
    {
        ids.push(Value::String(out.ca.clone()));
    }
    Ok(cx.route(types::handler(HANDLER.id, &out)))
}

fn option(cx: &DirectiveCx<'_, '_>, out: &mut AcmeServer, line: &Node) -> Parsed<()> {
    let words = || line.args.iter().map(|t| t.text().to_owned());
    match line.name() {
        "ca" => cx.one(line)?.text().clone_into(&mut out.ca),
        "lifetime" => {
            let lifetime = cx.one(line)?;
            let nanos = parse_duration(lifetime.text()).ok_or_else(|| {
                let message = format!("`{}` is not a duration", lifetime.shown());
                Box::new(cx.err(lifetime.span, "invalid-duration", message).help("for example `12h` or `7d`"))
            })?;
            out.lifetime = (nanos != 0).then_some(Nanos(nanos));
        }
        "resolvers" if line.args.is_empty() => return Err(cx.arg_err(line)),
        "resolvers" => out.resolvers = words().collect(),
        "challenges" => out.challenges.extend(words()),
        "allow_wildcard_names" | "sign_with_root" if !line.args.is_empty() => return Err(cx.arg_err(line)),
        "allow_wildcard_names" => out.policy.get_or_insert_default().allow_wildcard_names = true,
        "sign_with_root" => out.sign_with_root = true,
        "allow" => out.policy.get_or_insert_default().allow = Some(rules(cx, line)?),
        "deny" => out.policy.get_or_insert_default().deny = Some(rules(cx, line)?),
        "eab" => match line.args.as_slice() {
            [id, key] => {
                let account = ExternalAccount { key_id: id.text().to_owned(), mac_key: key.text().to_owned() };
                out.external_accounts.push(account);
            }
            _ => return Err(cx.arg_err(line)),
        },
        "validation_ports" => match line.args.as_slice() {
            [http, https] => out.validation_ports = Some(Ports { http: port(cx, http)?, https: port(cx, https)? }),
            _ => return Err(cx.arg_err(line)),
        },
        _ => return Err(cx.unknown(line, &OPTIONS)),
    }
    Ok(())
}

fn rules(cx: &DirectiveCx<'_, '_>, node: &Node) -> Parsed<Rules> {
    let mut out = Rules::default();
    for line in node.lines() {
        let list = match line.name() {
            _ if line.args.is_empty() => return Err(cx.arg_err(line)),
            "domains" => &mut out.domains,
            "ip_ranges" => &mut out.ip_ranges,
            _ => return Err(cx.unknown(line, &["domains", "ip_ranges"])),
        };
        list.extend(line.args.iter().map(|t| t.text().to_owned()));
    }
    Ok(out)
}

fn port(cx: &DirectiveCx<'_, '_>, word: &Token) -> Parsed<u16> {
    let port = word.text().parse().ok().filter(|port| *port > 0);
    port.ok_or_else(|| {
        let message = format!("`{}` is not a port", word.shown());
        Box::new(cx.err(word.span, "invalid-value", message).help("a number from 1 to 65535"))
    })
}

fn compile(module: &Module, cx: &mut CompileCx<'_>) -> Result<Handler, CompileError> {
    let config: AcmeServer = read(module, "handler")?;
    if !config.host.is_empty() {
        return Err(CompileError::not_supported("a host of the ACME server's own (`host`)"));
    }
    let id = if config.ca.is_empty() { LOCAL } else { &config.ca };
    let settings = Settings {
        ca: id.to_owned(),
        authority: cx.authorities.get(id).map(AuthoritySettings::from).unwrap_or_default(),
        lifetime: lifetime(config.lifetime)?,
        sign_with_root: config.sign_with_root,
        methods: methods(&config.challenges)?,
        policy: policy(config.policy.as_ref())?,
        external: external(&config.external_accounts, cx)?,
    };
    let state = State::of(&cx.storage, id)
        .map_err(|e| CompileError::new("invalid-value", format!("the system gives no randomness: {e}")))?;
    let names = Names { resolvers: dns_servers::parse(&config.resolvers).map_err(|e| e.within("resolvers"))? };
    let ports = config.validation_ports.unwrap_or(Ports { http: 80, https: 443 });
    let prefix = if config.path_prefix.is_empty() { PREFIX } else { &config.path_prefix };
    Ok(Handler::Async(Box::new(Gate {
        prefix: format!("/{}/{id}/", prefix.trim_matches('/')).replace("//", "/"),
        ca: Arc::new(Ca { settings, state }),
        validator: Arc::new(Validator { names, http_port: ports.http, https_port: ports.https }),
    })))
}

fn lifetime(told: Option<Nanos>) -> Result<Duration, CompileError> {
    match told {
        None => Ok(INTERNAL_LIFETIME),
        Some(nanos) => nanos
            .positive()
            .filter(|lifetime| *lifetime >= Duration::from_secs(1))
            .ok_or_else(|| CompileError::new("invalid-duration", "certificates are good for a second at least")),
    }
}

fn methods(told: &[String]) -> Result<Vec<Method>, CompileError> {
    if told.is_empty() {
        return Ok(Method::ALL.map(|(_, method)| method).to_vec());
    }
    let mut methods = Vec::new();
    for name in told {
        let method = Method::named(name).ok_or_else(|| {
            CompileError::new("invalid-value", format!("`{name}` is not a challenge"))
                .help("there are `http-01`, `tls-alpn-01` and `dns-01`")
        })?;
        if !methods.contains(&method) {
            methods.push(method);
        }
    }
    Ok(methods)
}

fn policy(told: Option<&Policy>) -> Result<policy::Policy, CompileError> {
    let names = |rules: Option<&Rules>| rules.map(policy_names).transpose();
    Ok(policy::Policy {
        allow_wildcards: told.is_some_and(|p| p.allow_wildcard_names),
        allow: names(told.and_then(|p| p.allow.as_ref()))?,
        deny: names(told.and_then(|p| p.deny.as_ref()))?,
    })
}

fn policy_names(rules: &Rules) -> Result<PolicyNames, CompileError> {
    let range = |text: &String| {
        ip_range::parse(text).ok_or_else(|| {
            CompileError::new("invalid-ip-range", format!("`{text}` is neither an IP address nor a network"))
        })
    };
    Ok(PolicyNames {
        domains: rules.domains.iter().map(|domain| domain.to_ascii_lowercase()).collect(),
        ranges: rules.ip_ranges.iter().map(range).collect::<Result<_, _>>()?,
    })
}

fn external(told: &[ExternalAccount], cx: &mut CompileCx<'_>) -> Result<ExternalKeys, CompileError> {
    let mut keys = ExternalKeys::default();
    for account in told {
        let template = Template::parse(&account.mac_key);
        let key = match (template.as_static(), template.as_key()) {
            (Some(text), _) => text.to_owned(),
            (None, Some(Placeholder::File(path))) => {
                cx.watched.push(path.clone());
                std::fs::read_to_string(path)
                    .map_err(|e| CompileError::new("unreadable-file", format!("{}: {e}", path.display())))?
            }
            (None, _) => {
                return Err(CompileError::new("token-not-fixed", "a secret cannot be made from the request"));
            }
        };
        keys.add(&account.key_id, key.trim()).map_err(|why| {
            CompileError::new("weak-secret", format!("external account `{}`: {why}", account.key_id))
                .help("make one with `openssl rand -base64 32 | tr '+/' '-_'`")
        })?;
    }
    Ok(keys)
}

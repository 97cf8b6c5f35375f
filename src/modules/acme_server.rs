//! `acme_server`: an ACME server for the machines inside. Read and adapted as Caddy does; not run by this version.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::base::units::parse_duration;
use crate::config::compile_cx::{CompileCx, CompileError, read};
use crate::config::directive_cx::{ConfigValue, DirectiveCx, Parsed};
use crate::config::registry::{Directive, Doc, HandlerModule};
use crate::config::types::{self, Module, is_false};
use crate::http::route::Handler;
use crate::syntax::tree::Node;

pub const DIRECTIVE: Directive = Directive {
    name: "acme_server",
    renamed_to: None,
    ordered: true,
    matcher: true,
    parse,
    doc: &Doc {
        summary: "Issues certificates over ACME.",
        syntax: "acme_server [matcher] { ca <id>  lifetime <duration>  resolvers <addresses…>  challenges <names…>  allow_wildcard_names  allow|deny { domains <names…>  ip_ranges <ranges…> }  sign_with_root }",
        examples: &["acme_server", "acme_server {\n\tlifetime 12h\n\tallow {\n\t\tdomains *.internal\n\t}\n}"],
        rejected: &[
            ("acme_server now", "wrong-argument-count"),
            ("acme_server {\n\tlifetime long\n}", "invalid-duration"),
            ("acme_server {\n\tallow {\n\t\tnames a\n\t}\n}", "unknown-subdirective"),
        ],
        adapt_only: true,
    },
};

pub const HANDLER: HandlerModule = HandlerModule { id: "acme_server", compile };

/// Where the authorities that such servers name are gathered, an array of their ids: the `pki` app must have them.
pub const AUTHORITIES: &str = "pki.ca";

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct AcmeServer {
    #[serde(skip_serializing_if = "String::is_empty")]
    ca: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    lifetime: Option<Value>,
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
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Policy {
    #[serde(skip_serializing_if = "Option::is_none")]
    allow: Option<Rules>,
    #[serde(skip_serializing_if = "Option::is_none")]
    deny: Option<Rules>,
    #[serde(skip_serializing_if = "is_false")]
    allow_wildcard_names: bool,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Rules {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    domains: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    ip_ranges: Vec<String>,
}

const OPTIONS: [&str; 8] =
    ["ca", "lifetime", "resolvers", "challenges", "allow_wildcard_names", "allow", "deny", "sign_with_root"];

fn parse(cx: &mut DirectiveCx<'_, '_>) -> Parsed<Vec<ConfigValue>> {
    let mut out = AcmeServer::default();
    if !cx.args.is_empty() {
        return Err(cx.arg_err(cx.node));
    }
    for line in cx.node.lines() {
        option(cx, &mut out, line)?;
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
            out.lifetime = (nanos != 0).then(|| Value::from(nanos));
        }
        "resolvers" if line.args.is_empty() => return Err(cx.arg_err(line)),
        "resolvers" => out.resolvers = words().collect(),
        "challenges" => out.challenges.extend(words()),
        "allow_wildcard_names" | "sign_with_root" if !line.args.is_empty() => return Err(cx.arg_err(line)),
        "allow_wildcard_names" => out.policy.get_or_insert_default().allow_wildcard_names = true,
        "sign_with_root" => out.sign_with_root = true,
        "allow" => out.policy.get_or_insert_default().allow = Some(rules(cx, line)?),
        "deny" => out.policy.get_or_insert_default().deny = Some(rules(cx, line)?),
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

fn compile(module: &Module, _cx: &mut CompileCx<'_>) -> Result<Handler, CompileError> {
    read::<AcmeServer>(module, "handler")?;
    Err(CompileError::not_supported("`acme_server`"))
}

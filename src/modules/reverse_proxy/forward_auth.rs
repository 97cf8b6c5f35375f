//! `forward_auth`: asks another service whether a request may go on.
//!
//! The service gets a GET with the request's headers, `X-Forwarded-Method` and `X-Forwarded-Uri`, and no body. If it
//! answers 2xx the request goes on, with the headers named by `copy_headers` taken from that answer (`A>B` renames);
//! any other answer is the client's. Whatever the client itself sent in those headers is removed first. All options of
//! `reverse_proxy` may stand beside `uri` and `copy_headers`.

use std::collections::BTreeMap;

use serde_json::json;

use super::config::Config;
use super::parse;
use crate::config::directive_cx::{ConfigValue, DirectiveCx, Parsed};
use crate::config::registry::{Directive, Doc};
use crate::config::response_handler::ResponseHandler;
use crate::config::types::{self, MatcherSet, Module, Route};
use crate::http::headers::{HeaderOps, HeadersConfig, canonical_name};
use crate::http::response_matcher::ResponseMatcher;
use crate::http::rewrite::RewriteConfig;
use crate::syntax::tree::Node;

pub const DIRECTIVE: Directive = Directive {
    name: "forward_auth",
    renamed_to: None,
    ordered: true,
    matcher: true,
    parse: parse_directive,
    doc: &Doc {
        summary: "Lets another service decide whether a request may go on.",
        syntax: "forward_auth [matcher] <upstreams…> { uri <to>  copy_headers <fields…>  … }",
        examples: &[
            "forward_auth 127.0.0.1:9100 {\n\turi /check\n\tcopy_headers Remote-User Remote-Email>X-Email\n}",
            "forward_auth /private/* https://auth.example.com {\n\turi /verify\n\tcopy_headers {\n\t\tRemote-User\n\t}\n}",
        ],
        rejected: &[
            ("forward_auth 127.0.0.1:9100", "missing-option"),
            ("forward_auth 127.0.0.1:9100 {\n\turi /a\n\turi /b\n}", "duplicate-option"),
            ("forward_auth 127.0.0.1:9100 {\n\turi /a\n\tcopy_headers\n}", "wrong-argument-count"),
        ],
        adapt_only: false,
    },
};

fn parse_directive(cx: &mut DirectiveCx<'_, '_>) -> Parsed<Vec<ConfigValue>> {
    let node = cx.node;
    let mut uri = String::new();
    // By the name in the answer; sorted, as Caddy sorts them.
    let mut copied: BTreeMap<String, String> = BTreeMap::new();
    let mut rest: Vec<&Node> = Vec::new();
    for line in node.lines() {
        match line.name() {
            "uri" if !uri.is_empty() => return Err(cx.duplicate(line)),
            "uri" => uri = cx.value(line)?.text().to_owned(),
            "copy_headers" => {
                let fields = line.args.iter().chain(line.lines().map(|l| &l.name));
                for field in fields {
                    let mut parts = field.text().split('>');
                    let from = parts.next().unwrap_or_default();
                    let to = parts.next().unwrap_or(from);
                    copied.insert(from.to_owned(), to.to_owned());
                }
                if copied.is_empty() {
                    return Err(cx.arg_err(line));
                }
            }
            _ => rest.push(line),
        }
    }
    if uri.is_empty() {
        let d = cx.err(node.span(), "missing-option", "`forward_auth` needs `uri`: where to ask");
        return Err(Box::new(d.help("add `uri /path` to its block")));
    }
    let config = parse::parse(cx, base(uri, &copied), cx.args, rest.into_iter())?;
    Ok(cx.route(types::handler(super::HANDLER.id, &config)))
}

/// What the shorthand stands for, before the user's own options.
fn base(uri: String, copied: &BTreeMap<String, String>) -> Config {
    let mut request = HeaderOps::default();
    request.set.insert("X-Forwarded-Method".into(), vec!["{http.request.method}".into()]);
    request.set.insert("X-Forwarded-Uri".into(), vec!["{http.request.uri}".into()]);
    // A route that does nothing: without any the answer would go to the client.
    let mut routes = vec![route(types::handler("vars", &json!({})), None)];
    for (from, to) in copied {
        let placeholder = format!("{{http.reverse_proxy.header.{}}}", canonical_name(from));
        let to = canonical_name(to);
        let delete = HeaderOps { delete: vec![to.clone()], ..HeaderOps::default() };
        routes.push(route(headers(delete), None));
        let mut set = HeaderOps::default();
        set.set.insert(to, vec![placeholder.clone()]);
        let empty = json!({ "vars": { placeholder: [""] } });
        let given = json!([empty]);
        routes.push(route(headers(set), Some(MatcherSet::from_iter([("not".to_owned(), given)]))));
    }
    let good = ResponseHandler {
        matcher: Some(ResponseMatcher { status_code: Some(vec![2]), headers: None }),
        routes,
        ..ResponseHandler::default()
    };
    Config {
        headers: Some(HeadersConfig { request: Some(request), response: None }),
        rewrite: Some(RewriteConfig { method: "GET".into(), uri, ..RewriteConfig::default() }),
        handle_response: vec![good],
        ..Config::default()
    }
}

fn headers(request: HeaderOps) -> Module {
    types::handler("headers", &HeadersConfig { request: Some(request), response: None })
}

fn route(handler: Module, matcher: Option<MatcherSet>) -> Route {
    Route { matcher_sets: matcher.into_iter().collect(), handlers: vec![handler], ..Route::default() }
}

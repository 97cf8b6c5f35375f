//! `php_fastcgi`: serves a PHP application by FastCGI.
//!
//! A shorthand for three routes: directories get their trailing slash, a path without a file goes to the index file, and
//! PHP files go to the FastCGI upstream. All options of `reverse_proxy` may stand beside its own.

use serde_json::{Value, json};

use super::config::{Config, FastcgiTransport};
use super::parse;
use super::parse_transport::{FASTCGI_OPTIONS, fastcgi_line};
use super::words::texts;
use crate::config::directive_cx::{ConfigValue, DirectiveCx, Parsed};
use crate::config::registry::{Directive, Doc};
use crate::config::types::{self, MatcherSet, Module, Route};
use crate::syntax::tree::Node;

pub const DIRECTIVE: Directive = Directive {
    name: "php_fastcgi",
    renamed_to: None,
    ordered: true,
    matcher: true,
    parse: parse_directive,
    doc: &Doc {
        summary: "Serves a PHP application by FastCGI.",
        syntax: "php_fastcgi [matcher] <upstreams…> { root <path>  split <suffixes…>  index <file>|off  try_files <files…>  env <key> <value>  … }",
        examples: &[
            "php_fastcgi 127.0.0.1:9000",
            "php_fastcgi unix//run/php.sock {\n\troot /srv\n\tindex off\n\tenv APP_ENV production\n}",
        ],
        rejected: &[
            ("php_fastcgi 127.0.0.1:9000 {\n\tindex\n}", "wrong-argument-count"),
            ("php_fastcgi 127.0.0.1:9000 {\n\tenv KEY\n}", "wrong-argument-count"),
            ("php_fastcgi 127.0.0.1:9000 {\n\tread_timeout soon\n}", "invalid-value"),
        ],
        adapt_only: true,
    },
};

fn parse_directive(cx: &mut DirectiveCx<'_, '_>) -> Parsed<Vec<ConfigValue>> {
    let node = cx.node;
    let mut transport = FastcgiTransport { split_path: vec![".php".into()], ..FastcgiTransport::default() };
    let mut index = "index.php".to_owned();
    let mut try_files: Vec<String> = Vec::new();
    let mut rest: Vec<&Node> = Vec::new();
    for line in node.lines() {
        match line.name() {
            "index" => index = cx.value(line)?.text().to_owned(),
            "try_files" => try_files = texts(cx.values(line)?),
            name if FASTCGI_OPTIONS.contains(&name) => fastcgi_line(cx, &mut transport, line)?,
            _ => rest.push(line),
        }
    }
    let mut routes = Vec::new();
    if index != "off" {
        index_routes(&mut routes, &index, try_files, &transport.split_path);
    }
    let suffixes: Value = transport.split_path.iter().map(|s| format!("*{s}")).collect();
    let base = Config { transport: Some(parse::protocol("fastcgi", &transport)), ..Config::default() };
    let config = parse::parse(cx, base, cx.args, rest.into_iter())?;
    routes.push(route([("path", suffixes)], types::handler(super::HANDLER.id, &config)));
    if cx.matcher.is_some() {
        let subroute = types::Subroute { routes, errors: None };
        return Ok(cx.route(types::handler("subroute", &subroute)));
    }
    Ok(vec![ConfigValue::Routes(routes)])
}

/// The redirect to a directory's trailing slash and the rewrite to the index file.
fn index_routes(routes: &mut Vec<Route>, index: &str, mut try_files: Vec<String>, split: &[String]) {
    let in_directory = format!("{{http.request.uri.path}}/{index}");
    let mut policy = "first_exist_fallback";
    let redirect = if try_files.is_empty() {
        try_files = vec!["{http.request.uri.path}".into(), in_directory.clone(), index.to_owned()];
        true
    } else {
        // Only a PHP file is worth assuming to exist; by its exact suffix, as in Caddy.
        if !try_files.last().is_some_and(|f| f.as_bytes().ends_with(b".php")) {
            policy = "";
        }
        try_files.contains(&in_directory)
    };
    if redirect {
        let to = "{http.request.orig_uri.path}/{http.request.orig_uri.prefixed_query}";
        let handler =
            types::handler("static_response", &json!({ "status_code": 308, "headers": { "Location": [to] } }));
        let matcher = [("file", json!({ "try_files": [in_directory] })), ("not", json!([{ "path": ["*/"] }]))];
        routes.push(route(matcher, handler));
    }
    let mut file = json!({ "try_files": try_files, "split_path": split });
    if !policy.is_empty() {
        file["try_policy"] = policy.into();
    }
    routes.push(route([("file", file)], types::handler("rewrite", &json!({ "uri": "{http.matchers.file.relative}" }))));
}

fn route<const N: usize>(matchers: [(&str, Value); N], handler: Module) -> Route {
    let set: MatcherSet = matchers.into_iter().map(|(id, value)| (id.to_owned(), value)).collect();
    Route { matcher_sets: vec![set], handlers: vec![handler], ..Route::default() }
}

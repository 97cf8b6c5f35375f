//! `handle_path`: like `handle` for one path, which is taken off the front of the request's path before the block runs:
//! in `handle_path /api/* { … }` a request for `/api/x` is seen as `/x`.

use serde_json::json;

use crate::config::directive_cx::{ConfigValue, DirectiveCx, Parsed};
use crate::config::registry::{Directive, Doc};
use crate::config::types::{self, MatcherSet, Route};

pub const DIRECTIVE: Directive = Directive {
    name: "handle_path",
    renamed_to: None,
    ordered: true,
    matcher: false,
    parse,
    doc: &Doc {
        summary: "Like handle, with the path prefix taken off.",
        syntax: "handle_path <path> { <directives> }",
        examples: &["handle_path /api/* {\n\trespond \"{path}\"\n}"],
        rejected: &[
            ("handle_path {\n}", "wrong-argument-count"),
            ("handle_path @api {\n}", "path-required"),
            ("handle_path /a /b {\n}", "wrong-argument-count"),
        ],
        adapt_only: false,
    },
};

fn parse(cx: &mut DirectiveCx<'_, '_>) -> Parsed<Vec<ConfigValue>> {
    let [path] = cx.args else { return Err(cx.arg_err(cx.node)) };
    if !path.text().starts_with('/') {
        let d = cx.err(path.span, "path-required", "`handle_path` needs a path that begins with `/`");
        return Err(Box::new(d.help("use `handle` with `uri strip_prefix` for other matchers")));
    }
    let prefix = path.text().strip_suffix('*').map_or(path.text(), |p| p.strip_suffix('/').unwrap_or(p));
    let strip = if prefix.is_empty() { json!({}) } else { json!({ "strip_path_prefix": prefix }) };
    let strip = Route { handlers: vec![types::handler("rewrite", &strip)], ..Route::default() };

    let nodes = cx.node.block.as_ref().map_or(&[][..], |b| &b.nodes);
    let mut subroute = cx.subroute(nodes, true)?;
    subroute.routes.insert(0, strip);

    let mut matcher = MatcherSet::new();
    matcher.insert("path".into(), json!([path.text()]));
    Ok(cx.route_with(Some(matcher), types::handler("subroute", &subroute)))
}

//! `method`: changes the request's method.

use crate::config::directive_cx::{ConfigValue, DirectiveCx, Parsed};
use crate::config::registry::{Directive, Doc};
use crate::config::types;
use crate::http::rewrite::RewriteConfig;

pub const DIRECTIVE: Directive = Directive {
    name: "method",
    renamed_to: None,
    ordered: true,
    matcher: true,
    parse,
    doc: &Doc {
        summary: "Changes the request's method.",
        syntax: "method [matcher] <method>",
        examples: &["method GET", "method /hook POST"],
        rejected: &[("method", "wrong-argument-count"), ("method GET POST", "wrong-argument-count")],
        adapt_only: false,
    },
};

fn parse(cx: &mut DirectiveCx<'_, '_>) -> Parsed<Vec<ConfigValue>> {
    let [method] = cx.args else { return Err(cx.arg_err(cx.node)) };
    cx.warn_ignored_block();
    let config = RewriteConfig { method: method.text().to_owned(), ..RewriteConfig::default() };
    Ok(cx.route(types::handler("rewrite", &config)))
}

//! `handle`: a group of directives for some requests. Of the `handle` blocks beside each other only the first that
//! matches runs: the most specific path first, a block without a matcher last.

use crate::config::directive_cx::{ConfigValue, DirectiveCx, Parsed};
use crate::config::registry::{Directive, Doc};
use crate::config::types;

pub const DIRECTIVE: Directive = Directive {
    name: "handle",
    renamed_to: None,
    ordered: true,
    matcher: true,
    parse,
    doc: &Doc {
        summary: "Directives for matching requests, to the exclusion of sibling handle blocks.",
        syntax: "handle [matcher] { <directives> }",
        examples: &["handle /v1/* {\n\trespond \"v1\"\n}\nhandle {\n\trespond \"other\" 404\n}"],
        rejected: &[("handle /a /b {\n}", "wrong-argument-count")],
        adapt_only: false,
    },
};

fn parse(cx: &mut DirectiveCx<'_, '_>) -> Parsed<Vec<ConfigValue>> {
    if !cx.args.is_empty() {
        return Err(cx.arg_err(cx.node));
    }
    let nodes = cx.node.block.as_ref().map_or(&[][..], |b| &b.nodes);
    let subroute = cx.subroute(nodes, true)?;
    Ok(cx.route(types::handler("subroute", &subroute)))
}

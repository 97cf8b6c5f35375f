//! `route`: directives that run in the order in which they are written, instead of the order of the directives' list.

use crate::config::directive_cx::{ConfigValue, DirectiveCx, Parsed};
use crate::config::registry::{Directive, Doc};
use crate::config::types;

pub const DIRECTIVE: Directive = Directive {
    name: "route",
    renamed_to: None,
    ordered: true,
    matcher: true,
    parse,
    doc: &Doc {
        summary: "Directives in the order they are written.",
        syntax: "route [matcher] { <directives> }",
        examples: &["route {\n\trespond /a \"first\"\n\trespond \"second\"\n}"],
        rejected: &[("route a {\n}", "wrong-argument-count")],
        adapt_only: false,
    },
};

fn parse(cx: &mut DirectiveCx<'_, '_>) -> Parsed<Vec<ConfigValue>> {
    if !cx.args.is_empty() {
        return Err(cx.arg_err(cx.node));
    }
    let nodes = cx.node.block.as_ref().map_or(&[][..], |b| &b.nodes);
    let subroute = cx.subroute(nodes, false)?;
    Ok(cx.route(types::handler("subroute", &subroute)))
}

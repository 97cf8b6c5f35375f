//! `abort`: closes the connection without answering.

use serde_json::json;

use crate::config::directive_cx::{ConfigValue, DirectiveCx, Parsed};
use crate::config::registry::{Directive, Doc};
use crate::config::types;

pub const DIRECTIVE: Directive = Directive {
    name: "abort",
    renamed_to: None,
    ordered: true,
    matcher: true,
    parse,
    doc: &Doc {
        summary: "Closes the connection without an answer.",
        syntax: "abort [matcher]",
        examples: &["abort", "abort /wp-admin/*"],
        rejected: &[("abort now", "wrong-argument-count"), ("abort {\n\tx\n}", "unexpected-block")],
        adapt_only: false,
    },
};

fn parse(cx: &mut DirectiveCx<'_, '_>) -> Parsed<Vec<ConfigValue>> {
    if !cx.args.is_empty() {
        return Err(cx.arg_err(cx.node));
    }
    cx.no_block(cx.node)?;
    Ok(cx.route(types::handler("static_response", &json!({ "abort": true }))))
}

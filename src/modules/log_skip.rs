//! `log_skip`: leaves matching requests out of the access log. The old spelling is `skip_log`.

use serde_json::json;

use crate::config::directive_cx::{ConfigValue, DirectiveCx, Parsed};
use crate::config::registry::{Directive, Doc};
use crate::config::types;

pub const DIRECTIVE: Directive = Directive {
    name: "log_skip",
    renamed_to: None,
    ordered: true,
    matcher: true,
    parse,
    doc: &Doc {
        summary: "Leaves requests out of the access log.",
        syntax: "log_skip [matcher]",
        examples: &["log_skip /health", "log_skip"],
        rejected: &[("log_skip health", "wrong-argument-count")],
        adapt_only: false,
    },
};

pub const OLD_SPELLING: Directive = Directive { name: "skip_log", renamed_to: Some("log_skip"), ..DIRECTIVE };

fn parse(cx: &mut DirectiveCx<'_, '_>) -> Parsed<Vec<ConfigValue>> {
    if !cx.args.is_empty() {
        return Err(cx.arg_err(cx.node));
    }
    cx.no_block(cx.node)?;
    Ok(cx.route(types::handler("vars", &json!({ "log_skip": true }))))
}

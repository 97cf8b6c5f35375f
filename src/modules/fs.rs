//! `fs`: which of the global `filesystem` definitions `file_server` reads from. The name is kept in the variable `fs`.

use serde_json::json;

use crate::config::directive_cx::{ConfigValue, DirectiveCx, Parsed};
use crate::config::registry::{Directive, Doc};
use crate::config::types;

pub const DIRECTIVE: Directive = Directive {
    name: "fs",
    renamed_to: None,
    ordered: true,
    matcher: true,
    parse,
    doc: &Doc {
        summary: "Selects a named file system.",
        syntax: "fs [matcher] <name>",
        examples: &["fs assets"],
        rejected: &[("fs", "wrong-argument-count"), ("fs a b", "wrong-argument-count")],
        adapt_only: false,
    },
};

fn parse(cx: &mut DirectiveCx<'_, '_>) -> Parsed<Vec<ConfigValue>> {
    let [name] = cx.args else { return Err(cx.arg_err(cx.node)) };
    cx.warn_ignored_block();
    Ok(cx.route(types::handler("vars", &json!({ "fs": name.text() }))))
}

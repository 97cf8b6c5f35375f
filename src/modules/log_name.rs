//! `log_name`: sends matching requests to the named access loggers instead of the site's own.

use serde_json::{Value, json};

use crate::config::directive_cx::{ConfigValue, DirectiveCx, Parsed};
use crate::config::registry::{Directive, Doc};
use crate::config::types;
use crate::syntax::token::Token;

pub const DIRECTIVE: Directive = Directive {
    name: "log_name",
    renamed_to: None,
    ordered: true,
    matcher: true,
    parse,
    doc: &Doc {
        summary: "Chooses the access logger.",
        syntax: "log_name [matcher] <names…>",
        examples: &["log_name audit", "log_name /admin/* audit admin"],
        rejected: &[],
        adapt_only: false,
    },
};

#[allow(clippy::unnecessary_wraps)] // the registry's signature
fn parse(cx: &mut DirectiveCx<'_, '_>) -> Parsed<Vec<ConfigValue>> {
    cx.warn_ignored_block();
    // Without a name Caddy writes null, which changes nothing.
    let names = match cx.args {
        [] => {
            cx.warn_ignored(cx.node.span());
            Value::Null
        }
        names => names.iter().map(Token::text).collect(),
    };
    Ok(cx.route(types::handler("vars", &json!({ "access_logger_names": names }))))
}

//! `root`: the folder that `file_server` and the `file` matcher look in.
//!
//! `root /srv/www` sets it for the whole site, `root @app /srv/app` for matching requests. Of several lines, only the
//! most specific one that matches counts. The folder is kept in the variable `root` (`{vars.root}`).

use serde_json::json;

use crate::config::directive_cx::{ConfigValue, DirectiveCx, Parsed};
use crate::config::registry::{Directive, Doc};
use crate::config::types;

pub const DIRECTIVE: Directive = Directive {
    name: "root",
    renamed_to: None,
    ordered: true,
    // A single argument is the folder even when it looks like a matcher, so the token is told apart here.
    matcher: false,
    parse,
    doc: &Doc {
        summary: "Sets the folder that files are served from.",
        syntax: "root [matcher] <path>",
        examples: &["root /srv/www", "root * /srv/www", "root /app/* /srv/app"],
        rejected: &[("root", "wrong-argument-count"), ("root /a /b /c", "wrong-argument-count")],
        adapt_only: false,
    },
};

fn parse(cx: &mut DirectiveCx<'_, '_>) -> Parsed<Vec<ConfigValue>> {
    let (matcher, root) = match cx.args {
        [root] => (None, root),
        // Caddy takes the first word for the folder when it is no matcher, and drops the second.
        [first, second] => match cx.matcher_token(first) {
            Some(matcher) => (matcher?, second),
            None => {
                cx.warn_ignored(second.span);
                (None, first)
            }
        },
        _ => return Err(cx.arg_err(cx.node)),
    };
    cx.warn_ignored_block();
    let handler = types::handler("vars", &json!({ "root": root.text() }));
    Ok(cx.route_with(matcher, handler))
}

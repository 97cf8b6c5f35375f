//! `request_header`: changes headers of the request before the handlers that follow see it.
//!
//! `request_header X-Tenant acme` sets, `+Field` adds a value, `-Field` deletes (also `-X-*`), `Field FIND REPLACEMENT`
//! replaces in the value. Several lines run as they are written.

use crate::config::directive_cx::{ConfigValue, DirectiveCx, Parsed};
use crate::config::registry::{Directive, Doc};
use crate::config::types;
use crate::http::headers::{DefaultOnRequest, HeaderOps, HeadersConfig};

pub const DIRECTIVE: Directive = Directive {
    name: "request_header",
    renamed_to: None,
    ordered: true,
    matcher: true,
    parse,
    doc: &Doc {
        summary: "Changes headers of the request.",
        syntax: "request_header [matcher] [+|-]<field> [<value>|<find>] [<replacement>]",
        examples: &[
            "request_header X-Tenant acme",
            "request_header -Cookie",
            "request_header X-Api-Key {header.Authorization}",
            "request_header Authorization \"^Bearer (.*)$\" \"Token $1\"",
        ],
        rejected: &[
            ("request_header", "wrong-argument-count"),
            ("request_header a b c d", "wrong-argument-count"),
            ("request_header ?X-A b", "default-on-request-header"),
        ],
        adapt_only: false,
    },
};

fn parse(cx: &mut DirectiveCx<'_, '_>) -> Parsed<Vec<ConfigValue>> {
    let (field, value, replacement) = match cx.args {
        [field] => (field, "", None),
        [field, value] => (field, value.text(), None),
        [field, value, replacement] => (field, value.text(), Some(replacement.text())),
        _ => return Err(cx.arg_err(cx.node)),
    };
    cx.warn_ignored_block();
    // Many write the colon that follows a field on the wire.
    let name = field.text().strip_suffix(':').unwrap_or(field.text());
    let mut ops = HeaderOps::default();
    ops.add_line(name, value, replacement).map_err(|_| {
        let d = cx.err(field.span, DefaultOnRequest::CODE, DefaultOnRequest::MESSAGE);
        Box::new(d.help("use a matcher, such as `@none header !Field`"))
    })?;
    let config = HeadersConfig { request: Some(ops), ..HeadersConfig::default() };
    Ok(cx.route(types::handler("headers", &config)))
}

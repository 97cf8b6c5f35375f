//! `bind`: the addresses that a site listens on, instead of all of this machine.
//!
//! ```text
//! bind 127.0.0.1 [::1]
//! bind unix//run/llmproxy.sock
//! bind 10.0.0.1 {
//!     protocols h1 h2
//! }
//! ```
//!
//! The port comes from the site's address. Sites that listen on one address and port share a server.

use crate::config::directive_cx::{ConfigValue, DirectiveCx, Parsed};
use crate::config::read::Line;
use crate::config::registry::{Directive, Doc};

pub const DIRECTIVE: Directive = Directive {
    name: "bind",
    renamed_to: None,
    ordered: false,
    matcher: false,
    parse,
    doc: &Doc {
        summary: "Chooses the addresses that the site listens on.",
        syntax: "bind <addresses…> [{ protocols <h1|h2|h2c|h3…> }]",
        examples: &["bind 127.0.0.1 [::1]", "bind 127.0.0.1 {\n\tprotocols h1 h2\n}"],
        rejected: &[
            ("bind 127.0.0.1 {\n\tprotocols\n}", "wrong-argument-count"),
            ("bind 127.0.0.1 {\n\tprotocol h1\n}", "unknown-subdirective"),
        ],
        adapt_only: false,
    },
};

#[allow(clippy::unnecessary_wraps)] // the signature of all directives
fn parse(cx: &mut DirectiveCx<'_, '_>) -> Parsed<Vec<ConfigValue>> {
    let line = Line::of(cx.node);
    let mut protocols = Vec::new();
    line.each(&mut cx.file.diagnostics, |option, _| {
        match option.name() {
            "protocols" => protocols = option.some()?,
            _ => return Err(option.unknown("bind", &["protocols"])),
        }
        Ok(())
    });
    Ok(vec![ConfigValue::Bind { addresses: line.words(), protocols }])
}

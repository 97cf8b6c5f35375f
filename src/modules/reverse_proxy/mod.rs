//! `reverse_proxy`: sends requests to upstreams and their answers back.
//!
//! `reverse_proxy 127.0.0.1:9001` is enough for one HTTP upstream; `https://api.example.com` speaks TLS to it and sends
//! its name as `Host`; `h2c://`, `unix//path`, port ranges and placeholders work too. Several upstreams are balanced
//! (`lb_policy`, by default at random); `lb_retries` and `lb_try_duration` try again when one fails, and `fail_duration`
//! leaves a failing one alone for a while. `header_up` and `header_down` change headers on the way, `handle_response`
//! answers differently when an upstream's response matches, `transport http { … }` holds timeouts, TLS and connection
//! options. Answers are streamed: every byte goes to the client when it comes.
//!
//! `forward_auth` and `php_fastcgi` are shorthands that write a `reverse_proxy` and live in this folder.

mod address;
mod compile;
mod compile_transport;
mod config;
pub mod forward_auth;
mod parse;
mod parse_dynamic;
mod parse_health;
mod parse_policy;
mod parse_transport;
pub mod php_fastcgi;
mod words;

use crate::config::directive_cx::{ConfigValue, DirectiveCx, Parsed};
use crate::config::registry::{Directive, Doc, HandlerModule};
use crate::config::types;

pub const DIRECTIVE: Directive = Directive {
    name: "reverse_proxy",
    renamed_to: None,
    ordered: true,
    matcher: true,
    parse: parse_directive,
    doc: &Doc {
        summary: "Sends requests to upstreams.",
        syntax: "reverse_proxy [matcher] [<upstreams…>] { to <upstreams…>  lb_policy <name> [<options…>]  header_up [+|-]<field> [<value> [<replacement>]]  transport http { … }  … }",
        examples: &[
            "reverse_proxy 127.0.0.1:9001",
            "reverse_proxy /v1/* https://api.example.com",
            "reverse_proxy a.example:80 b.example:80 {\n\tlb_policy least_conn\n\tlb_retries 2\n\tfail_duration 10s\n}",
            "reverse_proxy unix//run/app.sock {\n\theader_up -Authorization\n\theader_down -Server\n}",
            "reverse_proxy 127.0.0.1:9001 {\n\ttransport http {\n\t\tdial_timeout 2s\n\t\tresponse_header_timeout 60s\n\t}\n}",
            "reverse_proxy 127.0.0.1:9001 {\n\t@down status 5xx\n\thandle_response @down {\n\t\trespond \"try later\" 503\n\t}\n}",
        ],
        rejected: &[
            ("reverse_proxy http://a.example/v1", "invalid-upstream-address"),
            ("reverse_proxy http://a.example https://b.example", "mixed-upstream-schemes"),
            ("reverse_proxy a:1 {\n\tlb_polcy first\n}", "unknown-subdirective"),
            ("reverse_proxy a:1 {\n\tlb_policy frist\n}", "unknown-module"),
            ("reverse_proxy a:1 {\n\tlb_retries many\n}", "invalid-value"),
            ("reverse_proxy a:1 {\n\tlb_policy first\n\tlb_policy first\n}", "duplicate-option"),
            ("reverse_proxy a:1 {\n\tto\n}", "wrong-argument-count"),
            ("reverse_proxy a:1 {\n\theader_up ?X v\n}", "default-on-request-header"),
            ("reverse_proxy a:1 {\n\thandle_response @x {\n\t}\n}", "undefined-matcher"),
            ("reverse_proxy a:1 {\n\thealth_upstream b:2\n\thealth_port 3\n}", "contradicting-options"),
        ],
        adapt_only: false,
    },
};

pub const HANDLER: HandlerModule = HandlerModule { id: "reverse_proxy", compile: compile::compile };

fn parse_directive(cx: &mut DirectiveCx<'_, '_>) -> Parsed<Vec<ConfigValue>> {
    let node = cx.node;
    let config = parse::parse(cx, config::Config::default(), cx.args, node.lines())?;
    Ok(cx.route(types::handler(HANDLER.id, &config)))
}

#[cfg(test)]
mod tests;

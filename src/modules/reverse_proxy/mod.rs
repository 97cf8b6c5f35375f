//! `reverse_proxy`: sends requests to upstreams and their answers back.
//!
//! `reverse_proxy 127.0.0.1:9001` is enough for one HTTP upstream; `https://api.example.com` speaks TLS to it and sends
//! its name as `Host`; `h2c://`, `unix//path`, port ranges and placeholders work too. Several upstreams are balanced
//! (`lb_policy`, by default at random); `lb_retries` and `lb_try_duration` try again when one fails, and `fail_duration`
//! leaves a failing one alone for a while. `header_up` and `header_down` change headers on the way, `handle_response`
//! answers differently when an upstream's response matches, `transport http { … }` holds timeouts, TLS and connection
//! options. Answers are streamed: every byte goes to the client when it comes.
//!
//! An upstream may have settings of its own, in a block after `to`:
//!
//! ```text
//! reverse_proxy {
//!     to https://api.openai.com {
//!         header_up Authorization "Bearer {env.KEY_A}"
//!         weight 3
//!         max_requests 64
//!         models gpt-* o4-*
//!     }
//!     to https://api.openai.com {
//!         header_up Authorization "Bearer {env.KEY_B}"
//!     }
//!     to http://127.0.0.1:11434 {
//!         models llama*
//!     }
//!     lb_retries 2
//! }
//! ```
//!
//! `header_up` changes what goes to that upstream alone, after the `header_up` of the directive: one key for each account.
//! `weight` (1 to 10000, by default 1) is its share of the turns; with one, upstreams take turns by weight, and `lb_policy`
//! cannot stand beside it. `max_requests` is how many requests it gets at once. `models` keeps it for requests for these
//! models (patterns as in the matcher `model`, which also tells how the model is found); upstreams without `models` take
//! any request. A request that no upstream is there for is told so: 404 `model_not_found`, or that it names no model. Two
//! `to` lines with one address and different headers are two accounts: failures and requests are counted for each. Once
//! an upstream has a block, the schemes of upstreams may differ, and a retry goes to another upstream than the one that
//! failed while one is free (`retry_exclude_failed`).
//!
//! Streams of LLM APIs are known by their `Content-Type` and the path that the upstream was asked for. `sse_keepalive 15s`
//! tells a client that its stream lives when the upstream, after its head, has said nothing for so long: with a comment
//! (`: keepalive`) for OpenAI's dialects and unknown streams of events, with `event: ping` for Anthropic, with nothing for
//! lines of JSON (Ollama's own API), whose readers would take it for a broken line; always between events, never inside one.
//! An upstream that dies, or stalls for longer than `read_timeout`, within such a stream is told to the client as the error event
//! of its API, and the response ends cleanly behind it without `[DONE]`: official clients raise it as an error. `sse_errors off`
//! cuts the connection instead, as happens to every other answer that breaks off: it never looks complete. Neither touches a
//! stream that is compressed or has a `Content-Length`.
//!
//! `flush_interval` and `stream_buffer_size` are read and have nothing to do: what comes is passed on at once. `request_buffers`
//! and `response_buffers` read that much (`unlimited`: all) before anything goes on; a request body that fits leaves with a
//! `Content-Length` and can be sent again. `stream_timeout` ends upgraded connections (WebSockets) after so long;
//! `stream_close_delay` has nothing to do, since a reload closes none.
//!
//! `forward_auth` and `php_fastcgi` are shorthands that write a `reverse_proxy` and live in this folder.

mod address;
mod compile;
mod compile_health;
mod compile_stream;
mod compile_transport;
mod compile_upstreams;
mod config;
pub mod forward_auth;
mod parse;
mod parse_dynamic;
mod parse_health;
mod parse_policy;
mod parse_stream;
mod parse_to;
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
        syntax: "reverse_proxy [matcher] [<upstreams…>] { to <upstreams…> [{ header_up …  weight <n>  max_requests <n>  models <patterns…> }]  lb_policy <name> [<options…>]  header_up [+|-]<field> [<value> [<replacement>]]  transport http { … }  … }",
        examples: &[
            "reverse_proxy 127.0.0.1:9001",
            "reverse_proxy /v1/* https://api.example.com",
            "reverse_proxy a.example:80 b.example:80 {\n\tlb_policy least_conn\n\tlb_retries 2\n\tfail_duration 10s\n}",
            "reverse_proxy https://api.example.com {\n\tsse_keepalive 15s\n\tsse_errors off\n}",
            "reverse_proxy unix//run/app.sock {\n\theader_up -Authorization\n\theader_down -Server\n}",
            "reverse_proxy 127.0.0.1:9001 {\n\ttransport http {\n\t\tdial_timeout 2s\n\t\tresponse_header_timeout 60s\n\t}\n}",
            "reverse_proxy {\n\tto https://api.example.com {\n\t\theader_up Authorization \"Bearer {env.KEY_A}\"\n\t\tweight 3\n\t\tmax_requests 64\n\t}\n\tto https://api.example.com {\n\t\theader_up Authorization \"Bearer {env.KEY_B}\"\n\t}\n\tlb_retries 1\n}",
            "reverse_proxy {\n\tto https://api.example.com {\n\t\tmodels gpt-* o4-*\n\t}\n\tto 127.0.0.1:11434 {\n\t\tmodels *:latest llama*\n\t}\n}",
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
            ("reverse_proxy {\n\tto a:1 {\n\t\tweight 0\n\t}\n}", "invalid-value"),
            ("reverse_proxy {\n\tto a:1 {\n\t\twight 2\n\t}\n}", "unknown-subdirective"),
            ("reverse_proxy {\n\tto a:1 {\n\t\tmax_requests 1\n\t\tmax_requests 2\n\t}\n}", "duplicate-option"),
            ("reverse_proxy {\n\tto a:1 {\n\t\tweight 2\n\t}\n\tlb_policy first\n}", "contradicting-options"),
            ("reverse_proxy a:1 {\n\tsse_keepalive often\n}", "invalid-value"),
            ("reverse_proxy a:1 {\n\tsse_errors maybe\n}", "invalid-value"),
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

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
//! `weight` (1 to 10000, by default 1) is its share of the requests: without `lb_policy` upstreams take turns by weight;
//! `first`, `round_robin` and `weighted_round_robin` have no use for it. `max_requests` is how many requests it gets at once. `models` keeps it for requests for these
//! models (patterns as in the matcher `model`, which also tells how the model is found); upstreams without `models` take
//! any request. `include_usage off` is for an upstream that refuses to be asked for the token counts of a stream (see
//! [`usage`](#usage)). A request that no upstream is there for is told so: 404 `model_not_found`, or that it names no model. Two
//! `to` lines with one address and different headers are two accounts: failures and requests are counted for each. Once
//! an upstream has a block, the schemes of upstreams may differ, and a retry goes to another upstream than the one that
//! failed while one is free (`retry_exclude_failed`).
//!
//! **Balancing.** `lb_policy` is one of Caddy's, whose keyed policies choose the same upstream as Caddy does: `random` (the
//! default), `random_choose <n>`, `first`, `round_robin`, `weighted_round_robin <weights…>`, `least_conn`, `ip_hash`,
//! `client_ip_hash`, `uri_hash`, `query <key>`, `header <field>`, `cookie [<name> [<secret>]]`; or one of these:
//!
//! - `least_conn`, as in Caddy, counts a request until the last byte of its answer: what is open are streams.
//! - `peak_ewma`: of two drawn at random the one that answers sooner, by the time to the heads of its answers (a moving
//!   average that jumps up at once and sinks in ten seconds) times the requests under way. Failures, 429 and 5xx count as
//!   five seconds, so that quick refusals do not look like speed.
//! - `sticky`: a conversation stays with one upstream, where the prompt cache has its beginning. The key is the prompt up to
//!   the first message of the user, at most `bytes` of it (64 KiB), or the request's `prompt_cache_key`, or what `key` gives.
//!   Where an upstream has more than `max_load` (1.25) times its share of the requests under way, and at least four, the
//!   next one in line has the request. Requests without a prompt go by `fallback` (`least_conn`). Up to 1 MiB of the body is
//!   read before an upstream is chosen.
//!
//! ```text
//! lb_policy sticky {
//!     bytes 4KiB
//!     key {header.X-Session-Id}
//!     max_load 1.5
//!     fallback random
//! }
//! ```
//!
//! **Retries.** `lb_retries`, `lb_try_duration` and `lb_try_interval` as in Caddy: a request that no upstream has seen is
//! tried again; one that may have been seen only when it is a GET, or when `lb_retry_match` says so. `retry_on <statuses…>`
//! (400 to 599) adds answers: a request of any method that is answered so is tried elsewhere, by default at every other
//! upstream once. `retry_on 429 500 502 503 504 529` suits most providers of models. Mind that 500, 502 and 504 say that
//! something failed, not that nothing was done: a provider may bill a request that is then sent again; 429, 503 and 529
//! are refusals. When no attempt does better, the client gets the last answer with its body. Nothing is tried again
//! once a byte of the answer has gone to the client.
//!
//! A request body is kept for another attempt up to 1 MiB, while one is possible, or up to `request_buffers` where that is
//! more. A longer one goes to one upstream alone.
//!
//! `retry_exclude_failed on` keeps a request from an upstream that failed it while another is free (`off` as in Caddy; on by
//! itself with `retry_on` or an upstream with a block).
//!
//! **Cooldown.** With `retry_on` or an upstream with a block, an upstream that answers 429, 503 or 529 with `Retry-After` (seconds
//! or a date) or `retry-after-ms` is left alone until then, at most ten minutes; `cooldown <longest>` sets another bound, or
//! turns this on in other places, and `cooldown off` turns it off. It holds for each account, and over reloads. Where all are
//! in cooldown, the one that is free soonest is asked, and the client gets its answer: a provider's limit is often for one
//! model only. A 429 that waiting does not help (`insufficient_quota`, `x-should-retry: false`) is not tried again with the same
//! key, and reaches the client if no other key takes the request.
//!
//! ### Health
//!
//! An upstream that is not healthy gets no requests. Three ways to find out, alone or together:
//!
//! - **Asking** (`health_uri` or `health_port`): each upstream is asked at start and then every `health_interval` (30s,
//!   give or take a tenth). Any 2xx within `health_timeout` (5s) is a good answer, or what `health_status` and
//!   `health_body` (a regular expression) say. `health_fails` bad ones in a row take it out, `health_passes` good ones
//!   bring it back (1 each). `health_method`, `health_headers`, `health_request_body`, `health_upstream` and
//!   `health_follow_redirects` change what is asked, and whom.
//! - **Watching** (`fail_duration`): an upstream with `max_fails` (1) failures within that time is left alone. A failure
//!   is no answer, a status of `unhealthy_status`, or a head that took `unhealthy_latency`. `unhealthy_request_count`
//!   is how many requests at once are too many.
//! - **A circuit breaker** (`circuit_breaker`), which lets an upstream recover:
//!
//! ```text
//! circuit_breaker {
//!     failures 5         # in a row within the window (5, or none where there is a ratio)
//!     ratio 50%          # or this part of the window's requests (off)
//!     min_requests 10    # of which there must be as many (10)
//!     window 10s
//!     open 30s           # then it gets no requests for so long (30s)
//!     probes 1           # then so many at once; as many good answers close it, a bad one opens it again (1)
//!     status 5xx         # what counts as a failure beside no answer (5xx)
//! }
//! ```
//!
//! A reload forgets none of it, as long as the options of a check or breaker stay the same. `llmproxy status` and, with
//! the global option `admin localhost:2019`, `GET /reverse_proxy/upstreams` show how each upstream stands.
//!
//! ### Looked up
//!
//! Upstreams may be looked up while requests come:
//!
//! - `dynamic a NAME PORT { versions ipv4|ipv6…; refresh; resolvers; dial_timeout }`: the addresses of a name, one upstream each.
//! - `dynamic srv NAME { service; proto; refresh; grace_period; resolvers; dial_timeout }`: the places of a service, by priority and,
//!   within one, at random by weight (`lb_policy first` keeps to that order; other policies choose among all).
//! - `dynamic multi { a …; srv …; … }`: several such lists, one after the other.
//!
//! Names and ports may have placeholders. An answer is used for `refresh` (by default 1m), or for its TTL where that is shorter, but
//! at least for a second; shortly before its end the next one is asked for while requests go on with it. A request waits only
//! where there is no answer yet; all that need one wait for one lookup. Before a retry the name is looked up again, at most once a
//! second. Without an answer the upstreams of the directive itself (`to`) serve, or 503 is answered; with `grace_period` the
//! last answer serves on, and is asked for again after that time. `resolvers` are IP addresses of DNS servers; without them the hosts
//! file and servers of the system are asked, with its search domains. `dial_timeout` is how long one server may take (3s).
//!
//! ### Streams
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
//! ### Transport
//!
//! `transport http { … }` says how upstreams are reached. None of its time limits cuts a model that thinks for long, unless
//! you set it:
//!
//! | option | what it bounds | default |
//! |---|---|---|
//! | `dial_timeout` | finding the address and connecting | 3 s |
//! | `tls_timeout` | the TLS handshake, and the dialogue with a proxy in between | 10 s |
//! | `response_header_timeout` | from the last byte of the request to the head of the answer | none |
//! | `read_timeout` | each silence of the upstream, before its answer and within it | none |
//! | `write_timeout` | how long a write may find the connection full | none |
//! | `total_timeout` | a whole attempt, from dialling to the last byte of the answer | none |
//! | `keepalive` | how long an unused connection is kept (`off`: each serves one request) | 2 min |
//!
//! `proxy_protocol v1|v2` tells the upstream by the PROXY protocol whom each connection is for; such a connection serves one
//! request. `max_conns_per_host` is how many connections there are to an upstream at once: further requests wait.
//! `local_address` is where connections come from. `network_proxy url URL` goes through a proxy (`http`, `https`, `socks5`;
//! without the option, as `HTTPS_PROXY` and its kin say), `network_proxy none` through none.
//!
//! `tls_server_name` is the name that is asked for and checked, with placeholders if need be. `tls_trust_pool` takes `file`,
//! `inline`, `pki_root`, `pki_intermediate`, `storage`, `system` and `combined`. `tls_client_auth CERT KEY` shows a client
//! certificate, `tls_client_auth NAME` one that is obtained and renewed for that name as for a site. `tls_except_ports` are
//! ports of upstreams that get plain HTTP.
//!
//! `versions` is what may be spoken: `1.1 2` unless said otherwise, where TLS settles which; `h2c` speaks HTTP/2 without TLS. Over
//! HTTP/2 a worker has one connection to an upstream, and more when the upstream's limit on streams is reached; a request that the
//! upstream says it did not process is sent again. Of interim answers (1xx) only 101 is passed on. `read_buffer`, `write_buffer`
//! and `expect_continue_timeout` are read and have nothing to do: buffers are shared, and `Expect` is answered by the proxy itself.
//! `resolvers` are IP addresses of DNS servers that are asked for the addresses of upstreams, after the hosts file.
//!
//! ### Answers
//!
//! `@name status 404 5xx` and `@name header Field value` (`!Field`: without it), or a block of such lines that must all hold, name
//! answers. `replace_status [@name] <code>` sends one on with another status. `handle_response [@name] { … }` runs directives in
//! its place: the first in the file that matches, one without a name last. Inside, `copy_response` sends the answer after all,
//! `copy_response_headers` takes headers from it. Where nothing answers, the request goes on to what comes after the proxy; its
//! body has gone with the upstream, unless `request_buffers` held all of it.
//!
//! Placeholders tell what the proxy knows, in `header_up` and `header_down`, in these blocks and in what runs later, also in the
//! log (`log_append`) and in `handle_errors`: `{rp.upstream.address}` (`tcp/host:port`), `{rp.upstream.hostport}`,
//! `{rp.upstream.host}`, `{rp.upstream.port}`, `{rp.upstream.requests}` (under way), `{rp.upstream.max_requests}`,
//! `{rp.upstream.fails}`, `{rp.upstream.latency}` and `{rp.upstream.latency_ms}` (until the answer's head) of the upstream that was
//! chosen last; `{rp.status_code}`, `{rp.status_text}` and `{rp.header.NAME}` of its answer; `{rp.retries}`, `{rp.duration}` and
//! `{rp.duration_ms}` of the whole; `{rp.is_transport_error}`, `true` where no answer came.
//!
//! `forward_auth` and `php_fastcgi` are shorthands that write a `reverse_proxy` and live in this folder.

mod address;
mod automated_client;
mod compile;
mod compile_breaker;
mod compile_dynamic;
mod compile_health;
mod compile_retry;
mod compile_stream;
mod compile_transport;
mod compile_upstreams;
mod config;
pub mod forward_auth;
mod parse;
mod parse_breaker;
mod parse_dynamic;
mod parse_health;
mod parse_policy;
mod parse_retry;
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
        syntax: "reverse_proxy [matcher] [<upstreams…>] { to <upstreams…> [{ header_up …  weight <n>  max_requests <n>  models <patterns…>  include_usage on|off }]  lb_policy <name> [<options…>]  lb_retries <n>  retry_on <statuses…>  retry_exclude_failed on|off  cooldown off|<longest>  header_up [+|-]<field> [<value> [<replacement>]]  transport http { … }  … }",
        examples: &[
            "reverse_proxy 127.0.0.1:9001",
            "reverse_proxy /v1/* https://api.example.com",
            "reverse_proxy a.example:80 b.example:80 {\n\tlb_policy least_conn\n\tlb_retries 2\n\tfail_duration 10s\n}",
            "reverse_proxy a.example:80 b.example:80 {\n\tlb_policy peak_ewma\n\tretry_on 429 500 502 503 504 529\n\tcooldown 5m\n}",
            "reverse_proxy a.example:80 b.example:80 {\n\tlb_policy sticky {\n\t\tbytes 4KiB\n\t\tkey {header.X-Session-Id}\n\t}\n\tlb_retries 1\n\tretry_exclude_failed on\n}",
            "reverse_proxy a.example:80 b.example:80 {\n\thealth_uri /health\n\thealth_interval 10s\n\thealth_fails 2\n}",
            "reverse_proxy a.example:80 b.example:80 {\n\tlb_retries 1\n\tcircuit_breaker {\n\t\tratio 50%\n\t\topen 20s\n\t}\n}",
            "reverse_proxy https://api.example.com {\n\tsse_keepalive 15s\n\tsse_errors off\n}",
            "reverse_proxy https://10.0.0.7 {\n\ttransport http {\n\t\ttls_server_name {host}\n\t\tproxy_protocol v2\n\t\ttotal_timeout 30m\n\t}\n}",
            "reverse_proxy unix//run/app.sock {\n\theader_up -Authorization\n\theader_down -Server\n}",
            "reverse_proxy 127.0.0.1:9001 {\n\ttransport http {\n\t\tdial_timeout 2s\n\t\tresponse_header_timeout 60s\n\t}\n}",
            "reverse_proxy {\n\tto https://api.example.com {\n\t\theader_up Authorization \"Bearer {env.KEY_A}\"\n\t\tweight 3\n\t\tmax_requests 64\n\t}\n\tto https://api.example.com {\n\t\theader_up Authorization \"Bearer {env.KEY_B}\"\n\t}\n\tlb_retries 1\n}",
            "reverse_proxy {\n\tto https://api.example.com {\n\t\tmodels gpt-* o4-*\n\t}\n\tto 127.0.0.1:11434 {\n\t\tmodels *:latest llama*\n\t\tinclude_usage off\n\t}\n}",
            "reverse_proxy {\n\tdynamic srv _api._tcp.example.com {\n\t\trefresh 30s\n\t\tgrace_period 5m\n\t\tresolvers 10.0.0.53\n\t}\n}",
            "reverse_proxy 127.0.0.1:9001 {\n\tdynamic multi {\n\t\ta backend.internal 9000 {\n\t\t\tversions ipv4\n\t\t}\n\t\tsrv _api._tcp.example.com\n\t}\n}",
            "reverse_proxy 127.0.0.1:9001 {\n\t@down status 5xx\n\thandle_response @down {\n\t\trespond \"try later\" 503\n\t}\n}",
        ],
        rejected: &[
            ("reverse_proxy http://a.example/v1", "invalid-upstream-address"),
            ("reverse_proxy http://a.example https://b.example", "mixed-upstream-schemes"),
            ("reverse_proxy a:1 {\n\tlb_polcy first\n}", "unknown-subdirective"),
            ("reverse_proxy a:1 {\n\tlb_policy frist\n}", "unknown-module"),
            ("reverse_proxy a:1 {\n\tlb_retries many\n}", "invalid-value"),
            ("reverse_proxy a:1 {\n\tlb_policy first\n\tlb_policy first\n}", "duplicate-option"),
            ("reverse_proxy a:1 {\n\tretry_on 200\n}", "invalid-value"),
            ("reverse_proxy a:1 {\n\tretry_exclude_failed yes\n}", "invalid-value"),
            ("reverse_proxy a:1 {\n\tcooldown 0s\n}", "invalid-value"),
            ("reverse_proxy a:1 {\n\tlb_policy sticky {\n\t\tmax_load 0.5\n\t}\n}", "invalid-value"),
            ("reverse_proxy a:1 {\n\tlb_policy peak_ewma {\n\t\tbytes 5\n\t}\n}", "unexpected-block"),
            ("reverse_proxy a:1 {\n\tto\n}", "wrong-argument-count"),
            ("reverse_proxy {\n\tto a:1 {\n\t\tweight 0\n\t}\n}", "invalid-value"),
            ("reverse_proxy {\n\tto a:1 {\n\t\twight 2\n\t}\n}", "unknown-subdirective"),
            ("reverse_proxy {\n\tto a:1 {\n\t\tmax_requests 1\n\t\tmax_requests 2\n\t}\n}", "duplicate-option"),
            ("reverse_proxy {\n\tto a:1 {\n\t\tinclude_usage never\n\t}\n}", "invalid-value"),
            ("reverse_proxy {\n\tto a:1 {\n\t\tweight 2\n\t}\n\tlb_policy first\n}", "contradicting-options"),
            ("reverse_proxy a:1 {\n\tsse_keepalive often\n}", "invalid-value"),
            ("reverse_proxy a:1 {\n\ttransport http {\n\t\tproxy_protocol v3\n\t}\n}", "invalid-value"),
            ("reverse_proxy a:1 {\n\ttransport http {\n\t\ttotal_timeout long\n\t}\n}", "invalid-value"),
            ("reverse_proxy a:1 {\n\tsse_errors maybe\n}", "invalid-value"),
            ("reverse_proxy a:1 {\n\theader_up ?X v\n}", "default-on-request-header"),
            ("reverse_proxy a:1 {\n\thandle_response @x {\n\t}\n}", "undefined-matcher"),
            ("reverse_proxy a:1 {\n\tcircuit_breaker {\n\t\tratio 150%\n\t}\n}", "invalid-value"),
            ("reverse_proxy a:1 {\n\tcircuit_breaker {\n\t\tfailure 5\n\t}\n}", "unknown-subdirective"),
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

//! `rate_limit`: bounds how many requests, LLM tokens and open requests a caller may have. It reads and counts as Caddy's
//! plugin of this name (mholt/caddy-ratelimit) does, and does more for LLM APIs.
//!
//! ```text
//! rate_limit [matcher] {
//!     zone NAME {
//!         match { … }            # only these requests; several blocks are alternatives
//!         key {client_ip}        # who is counted; one count for all when there is no placeholder in it
//!         window 1m              # a sliding window …
//!         events 100             # … of so many requests
//!         tokens 50000           # … of so many LLM tokens
//!         concurrent 10          # so many requests open at a time, streams included
//!         rate 10r/s burst 20 nodelay
//!         ipv4_prefix 24         # addresses of one network are one key
//!         ipv6_prefix 64
//!         headers on             # tell callers how much is left
//!         max_keys 1000000       # keys that are counted one by one
//!     }
//!     jitter 0.2
//!     log_key
//! }
//! ```
//!
//! A request must be within the limits of **every** zone that it matches. Of several zones the one with the highest rate is asked
//! first, and counts the request even if a later one refuses it. Within a zone all limits are asked together, and a request
//! that one of them refuses is not counted by any. Zones are known by their **name** in the whole process: zones of one name,
//! as from an imported snippet, share their counts, and a reload keeps them while new limits apply at once.
//!
//! - `window` and `events`: exact. A request passes when fewer than `events` came in the `window` before it. (In a window
//!   that holds more than 4,096 requests of one key, moments are kept to 1/4096 of the window, on the strict side.)
//! - `window` and `tokens`: before the call the tokens of the prompt are estimated, and the longest answer that the request allows
//!   (`max_tokens` and the like; 1,000 where it sets no bound) is added; so much must be left, and is set aside. After the call what it
//!   really took takes the place of that. A prompt that alone is larger than the limit never passes. Requests that are no
//!   calls of an LLM API take none.
//! - `concurrent`: from the request's arrival to the end of its answer, of a stream or of an upgraded connection, also when the
//!   client leaves.
//! - `rate`: as nginx's `limit_req`: requests evenly spread, at most `burst` ahead of their time. Those wait for their time;
//!   with `nodelay` they go on at once, with `delay N` the first N of them do. Units are `r/s`, `r/m`, `r/h`.
//!
//! **Keys** are any placeholders: `{client_ip}`, `{auth.id}`, `{auth.team}`, `{auth.claim.NAME}`, `{llm.model}`, `{header.X-Tenant}`,
//! several in one word. Choose what the client cannot choose, or it has as many counts as it has ideas. A client with IPv6
//! has at least a /64 of addresses: set `ipv6_prefix 64`.
//!
//! **Where it runs**: ahead of all access control, so that guessing is limited too. A zone whose key or matcher asks who the caller
//! is (`{auth.…}`, `{http.auth.user.…}`) or for which model (`{llm.model}`, the matcher `model`), and one with `tokens`, runs
//! behind access control by itself; the model is the one that the client names. An `order rate_limit …` in the global options, and `route`,
//! are obeyed instead.
//!
//! **The answer** is 429 with `Retry-After` in seconds, through `handle_errors` where there is one; `{http.rate_limit.exceeded.name}`
//! is the zone. On paths of LLM APIs it is told in the caller's dialect. Zones with `tokens`, `concurrent` or `rate`, and
//! those with `headers on`, also tell `retry-after-ms` and `x-should-retry` (`false` when waiting would take longer than a
//! client waits, a minute, or would not help), and on every answer `x-ratelimit-limit-requests`, `-remaining-requests`, `-reset-requests` and the same with
//! `tokens`, of the zone with the least left; `headers off` stops that. `jitter 0.2` adds up to a fifth to the wait that is told, by chance.
//! Refusals are logged with zone and address; `log_key` adds the key, which may be personal.
//!
//! **Memory** is bounded. A key that says nothing any more is forgotten when others come. One that counts is never forgotten
//! for another's sake: when `max_keys` of those are there, new keys share counts (256 in all) until there is room,
//! so that strangers who make up keys limit each other and nobody else. A million keys take about 80 MB. A key of any length takes
//! 16 bytes.
//!
//! `sweep_interval` and `disable_metrics` are accepted and have nothing to do. `distributed` and `storage` are refused: counts are
//! those of this machine.

mod answer;
mod config;
mod gate;
mod open;
mod parse;
mod reserved;
mod speed;

use crate::config::registry::{Directive, Doc, HandlerModule};

pub const DIRECTIVE: Directive = Directive {
    name: "rate_limit",
    renamed_to: None,
    ordered: true,
    matcher: true,
    parse: parse::parse,
    doc: &Doc {
        summary: "Limits requests, LLM tokens and open requests per caller.",
        syntax: "rate_limit [matcher] { zone <name> { match { <matchers> } | key <text> | window <duration> | events <n> | tokens <n> | concurrent <n> | rate <n>r/s [burst <n>] [nodelay | delay <n>] | ipv4_prefix <bits> | ipv6_prefix <bits> | headers on|off | max_keys <n> } | jitter <share> | log_key | sweep_interval <duration> | disable_metrics }",
        examples: &[
            "rate_limit {\n\tzone by_address {\n\t\tkey {client_ip}\n\t\twindow 1m\n\t\tevents 100\n\t\tipv6_prefix 64\n\t}\n}",
            "rate_limit /v1/* {\n\tzone posts {\n\t\tmatch {\n\t\t\tmethod POST\n\t\t}\n\t\tkey static\n\t\twindow 5s\n\t\tevents 20\n\t}\n\tjitter 0.2\n\tsweep_interval 1m\n\tlog_key\n\tdisable_metrics\n}",
            "rate_limit {\n\tzone callers {\n\t\tkey {auth.id}\n\t\twindow 1m\n\t\tevents 60\n\t\ttokens 100000\n\t\tconcurrent 8\n\t}\n\tzone burst {\n\t\tkey {client_ip}\n\t\trate 10r/s burst 20 nodelay\n\t\theaders off\n\t}\n}",
        ],
        rejected: &[
            ("rate_limit zone", "wrong-argument-count"),
            ("rate_limit {\n}", "incomplete-zone"),
            ("rate_limit {\n\tzone a {\n\t\tkey x\n\t}\n}", "incomplete-zone"),
            ("rate_limit {\n\tzone a {\n\t\tevents 1\n\t}\n}", "incomplete-zone"),
            ("rate_limit {\n\tzone a {\n\t\twindow 1m\n\t\tconcurrent 1\n\t}\n}", "incomplete-zone"),
            ("rate_limit {\n\tzone a {\n\t\tconcurrent 1\n\t\tburst 5\n\t}\n}", "unknown-subdirective"),
            ("rate_limit {\n\tzone a {\n\t\twindow 0s\n\t\tevents 1\n\t}\n}", "invalid-limit"),
            ("rate_limit {\n\tzone a {\n\t\twindow -1m\n\t\tevents 1\n\t}\n}", "invalid-limit"),
            ("rate_limit {\n\tzone a {\n\t\twindow 1m\n\t\tevents 0\n\t}\n}", "invalid-limit"),
            ("rate_limit {\n\tzone a {\n\t\twindow 1m\n\t\tevents -5\n\t}\n}", "invalid-limit"),
            ("rate_limit {\n\tzone a {\n\t\twindow 1m\n\t\tevents 99999999999999\n\t}\n}", "invalid-limit"),
            ("rate_limit {\n\tzone a {\n\t\twindow 90000h\n\t\tevents 1\n\t}\n}", "invalid-limit"),
            ("rate_limit {\n\tzone a {\n\t\twindow 1m\n\t\tevents many\n\t}\n}", "invalid-number"),
            ("rate_limit {\n\tzone a {\n\t\twindow soon\n\t\tevents 1\n\t}\n}", "invalid-duration"),
            ("rate_limit {\n\tzone a {\n\t\trate 10\n\t}\n}", "invalid-rate"),
            ("rate_limit {\n\tzone a {\n\t\trate 0r/s\n\t}\n}", "invalid-rate"),
            ("rate_limit {\n\tzone a {\n\t\trate 10r/s nodelay\n\t}\n}", "invalid-rate"),
            ("rate_limit {\n\tzone a {\n\t\tconcurrent 1\n\t\tipv4_prefix 33\n\t}\n}", "invalid-limit"),
            ("rate_limit {\n\tzone a {\n\t\tconcurrent 1\n\t\tconcurrent 2\n\t}\n}", "duplicate-option"),
            (
                "rate_limit {\n\tzone a {\n\t\tconcurrent 1\n\t}\n\tzone a {\n\t\tconcurrent 1\n\t}\n}",
                "duplicate-option",
            ),
            ("rate_limit {\n\tzone a {\n\t\tconcurrent 1\n\t}\n\tjitter -1\n}", "invalid-limit"),
            ("rate_limit {\n\tzone a {\n\t\tconcurrent 1\n\t}\n\tdistributed\n}", "not-supported-yet"),
            ("rate_limit {\n\tzone a {\n\t\tconcurrent 1\n\t}\n\tstorage file_system /x\n}", "not-supported-yet"),
            ("rate_limit {\n\tzone a {\n\t\tconcurent 1\n\t}\n}", "unknown-subdirective"),
        ],
        adapt_only: false,
    },
};

pub const HANDLER: HandlerModule = HandlerModule { id: "rate_limit", compile: config::compile };

#[cfg(test)]
mod tests;

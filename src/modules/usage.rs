//! `usage`: counts the calls to LLM APIs, what they cost, and keeps them in a ledger.
//!
//! As a global option it counts the calls of all sites, in a site those of its requests, or of those that a matcher
//! takes:
//!
//! ```text
//! {
//!     usage {
//!         ledger /var/lib/llmproxy/usage.db   # a SQLite file; usage.db in the data folder without it
//!         retention 90d                       # how long single calls are kept, or `forever`
//!         flush 1s                            # how often calls are written: what a crash loses at most
//!         price house-* in 0.2 out 0.8        # dollars for a million tokens, before the embedded table
//!     }
//! }
//! api.example.com {
//!     usage {
//!         tag project {header.X-Project}      # a label of the calls; also `tag team …` and `tag app …`
//!         route chat                          # name of the route in the ledger, in place of the host
//!         include_usage off                   # do not ask upstreams for counts where clients do not
//!     }
//!     reverse_proxy https://api.openai.com
//! }
//! ```
//!
//! What a site says comes on top of the global option; `usage off` leaves requests uncounted (a `budget` counts what it has
//! to all the same). `llmproxy usage` shows sums by user, model, day and so on. What is counted, how sure the counts are, the
//! prices, the tables of the ledger and what may be lost are on [a page of their own](usage.md).

use std::sync::Arc;

use crate::config::compile_cx::{CompileCx, CompileError, read};
use crate::config::directive_cx::{ConfigValue, DirectiveCx, Parsed};
use crate::config::read::{self, Line};
use crate::config::registry::{Directive, Doc, HandlerModule};
use crate::config::types::{self, Module};
use crate::config::usage_types::{Usage, prices};
use crate::http::exchange::Exchange;
use crate::http::handler::{Flow, Step};
use crate::http::metering::{Labels, Sink};
use crate::http::route::Handler;
use crate::llm::price::Prices;

pub const DIRECTIVE: Directive = Directive {
    name: "usage",
    renamed_to: None,
    ordered: true,
    matcher: true,
    parse,
    doc: &Doc {
        summary: "Counts calls to LLM APIs and keeps them, with their cost, in a ledger.",
        syntax: "usage [matcher] [off] { ledger <file>  retention <duration|forever>  flush <duration>  include_usage <on|off>  route <name>  tag <name> <text>  price <model> in <dollars> … }",
        examples: &[
            "usage",
            "usage off",
            "usage /v1/* {\n\tledger /var/lib/llmproxy/usage.db\n\tretention 30d\n\tflush 5s\n}",
            "usage {\n\tinclude_usage off\n\troute chat\n\ttag project {header.X-Project}\n\ttag team blue\n\tprice house-* in 0.2 out 0.8\n\tprice house-* above 200000 in 0.4 out 1.6\n\tprice local* in 0 out 0\n}",
        ],
        rejected: &[
            ("usage on", "invalid-value"),
            ("usage off {\n\troute chat\n}", "unexpected-block"),
            ("usage {\n\tflush 0s\n}", "invalid-duration"),
            ("usage {\n\tledger u.db\n\tretention 1m\n}", "invalid-duration"),
            ("usage {\n\tretention 30d\n}", "contradicting-options"),
            ("usage {\n\tinclude_usage maybe\n}", "invalid-value"),
            ("usage {\n\ttag \"a b\" c\n}", "invalid-value"),
            ("usage {\n\ttag project\n}", "wrong-argument-count"),
            ("usage {\n\tprice gpt-4o\n}", "invalid-price"),
            ("usage {\n\tprice gpt-4o in -1\n}", "invalid-price"),
            ("usage {\n\tprice gpt-4o in 1 out\n}", "invalid-price"),
            ("usage {\n\tledger a\n\tledger b\n}", "duplicate-option"),
            ("usage {\n\tledgers a\n}", "unknown-subdirective"),
        ],
        adapt_only: false,
    },
};

pub const HANDLER: HandlerModule = HandlerModule { id: "usage", compile };

fn parse(cx: &mut DirectiveCx<'_, '_>) -> Parsed<Vec<ConfigValue>> {
    let line = Line { args: cx.args, ..Line::of(cx.node) };
    let usage = read::usage::read(&line, &mut cx.file.diagnostics)?;
    Ok(cx.route(types::handler(HANDLER.id, &usage)))
}

fn compile(module: &Module, cx: &mut CompileCx<'_>) -> Result<Handler, CompileError> {
    let usage: Usage = read(module, "handler")?;
    if usage.off {
        return Ok(Handler::Step(Box::new(Off)));
    }
    if let Some(i) = usage.tags.iter().position(|tag| !read::usage::is_tag(&tag.name)) {
        let message = "a tag's name is 1 to 64 letters, digits, `-`, `_` and `.`";
        return Err(CompileError::new("invalid-value", message).within(i).within("tags"));
    }
    let own = prices(&usage.prices).map_err(|error| error.within("prices"))?;
    let prices = if own.is_empty() { Arc::clone(&cx.prices) } else { Arc::new(cx.prices.with(own)) };
    let labels = usage.tags.iter().map(|tag| (tag.name.as_str(), tag.value.as_str()));
    Ok(Handler::Step(Box::new(Count {
        ledger: cx.ledger(&usage)?,
        prices,
        labels: (!usage.tags.is_empty()).then(|| Labels::new(labels)),
        route: usage.route,
        include_usage: usage.include_usage,
    })))
}

struct Count {
    ledger: Arc<dyn Sink>,
    prices: Arc<Prices>,
    labels: Option<Arc<Labels>>,
    route: String,
    include_usage: Option<bool>,
}

impl Step for Count {
    fn run(&self, ex: &mut Exchange) -> Flow {
        let meter = ex.meter();
        meter.ledger = Some(Arc::clone(&self.ledger));
        meter.prices = Arc::clone(&self.prices);
        meter.late_labels.extend(self.labels.iter().cloned());
        if !self.route.is_empty() {
            self.route.clone_into(&mut meter.route);
        }
        if let Some(include_usage) = self.include_usage {
            meter.include_usage = include_usage;
        }
        Flow::Next
    }
}

struct Off;

impl Step for Off {
    fn run(&self, ex: &mut Exchange) -> Flow {
        if let Some(meter) = &mut ex.meter {
            meter.ledger = None;
            if meter.is_idle() {
                ex.meter = None;
            }
        }
        Flow::Next
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::modules::testing::{exchange, step};
    use serde_json::json;

    #[test]
    fn the_latest_says_where_calls_are_kept() {
        let mut ex = exchange("POST", "/v1/chat/completions");
        step(json!({"handler": "usage", "ledger": "/a/usage.db", "include_usage": false})).run(&mut ex);
        let first = ex.meter().ledger.clone().unwrap();
        step(json!({"handler": "usage", "ledger": "/b/usage.db", "route": "chat", "prices": ["m in 1"]})).run(&mut ex);
        let meter = ex.meter();
        assert!(!Arc::ptr_eq(&first, meter.ledger.as_ref().unwrap()));
        assert_eq!((meter.include_usage, meter.route.as_str(), meter.prices.knows("m")), (false, "chat", true));
        step(json!({"handler": "usage", "off": true})).run(&mut ex);
        assert!(ex.meter.is_none());
    }
}

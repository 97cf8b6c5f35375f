//! `metrics`: serves metrics for Prometheus on a path of the site. Read and adapted as Caddy does; not run by this
//! version.

use serde::{Deserialize, Serialize};

use crate::config::compile_cx::{CompileCx, CompileError, read};
use crate::config::directive_cx::{ConfigValue, DirectiveCx, Parsed};
use crate::config::registry::{Directive, Doc, HandlerModule};
use crate::config::types::{self, Module, is_false};
use crate::http::route::Handler;

pub const DIRECTIVE: Directive = Directive {
    name: "metrics",
    renamed_to: None,
    ordered: true,
    matcher: true,
    parse,
    doc: &Doc {
        summary: "Serves metrics.",
        syntax: "metrics [matcher] { disable_openmetrics }",
        examples: &["metrics /metrics", "metrics {\n\tdisable_openmetrics\n}"],
        rejected: &[("metrics now", "wrong-argument-count"), ("metrics {\n\tfoo\n}", "unknown-subdirective")],
        adapt_only: true,
    },
};

pub const HANDLER: HandlerModule = HandlerModule { id: "metrics", compile };

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Metrics {
    #[serde(skip_serializing_if = "is_false")]
    disable_openmetrics: bool,
}

fn parse(cx: &mut DirectiveCx<'_, '_>) -> Parsed<Vec<ConfigValue>> {
    let mut out = Metrics::default();
    if !cx.args.is_empty() {
        return Err(cx.arg_err(cx.node));
    }
    for line in cx.node.lines() {
        match (line.name(), line.args.as_slice()) {
            ("disable_openmetrics", []) => out.disable_openmetrics = true,
            ("disable_openmetrics", _) => return Err(cx.arg_err(line)),
            _ => return Err(cx.unknown(line, &["disable_openmetrics"])),
        }
    }
    Ok(cx.route(types::handler(HANDLER.id, &out)))
}

fn compile(module: &Module, _cx: &mut CompileCx<'_>) -> Result<Handler, CompileError> {
    read::<Metrics>(module, "handler")?;
    Err(CompileError::not_supported("`metrics`"))
}

//! `tracing`: OpenTelemetry traces. Read and adapted as Caddy does; not run by this version.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

use crate::config::compile_cx::{CompileCx, CompileError, read};
use crate::config::directive_cx::{ConfigValue, DirectiveCx, Parsed};
use crate::config::registry::{Directive, Doc, HandlerModule};
use crate::config::types::{self, Module};
use crate::http::route::Handler;

pub const DIRECTIVE: Directive = Directive {
    name: "tracing",
    renamed_to: None,
    ordered: true,
    matcher: true,
    parse,
    doc: &Doc {
        summary: "Sends traces.",
        syntax: "tracing [matcher] { span <name>  span_attributes { <name> <value> } }",
        examples: &["tracing", "tracing {\n\tspan api\n\tspan_attributes {\n\t\ttenant {header.X-Tenant}\n\t}\n}"],
        rejected: &[
            ("tracing on", "wrong-argument-count"),
            ("tracing {\n\tspan\n}", "wrong-argument-count"),
            ("tracing {\n\tspans a\n}", "unknown-subdirective"),
        ],
        adapt_only: true,
    },
};

pub const HANDLER: HandlerModule = HandlerModule { id: "tracing", compile };

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Tracing {
    // Written even when empty, as Caddy does.
    span: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    span_attributes: BTreeMap<String, String>,
}

fn parse(cx: &mut DirectiveCx<'_, '_>) -> Parsed<Vec<ConfigValue>> {
    let mut out = Tracing::default();
    if !cx.args.is_empty() {
        return Err(cx.arg_err(cx.node));
    }
    for line in cx.node.lines() {
        match line.name() {
            "span" => cx.one(line)?.text().clone_into(&mut out.span),
            "span_attributes" => {
                if !line.args.is_empty() {
                    return Err(cx.arg_err(line));
                }
                for attribute in line.lines() {
                    let value = cx.one(attribute)?.text().to_owned();
                    out.span_attributes.insert(attribute.name().to_owned(), value);
                }
            }
            _ => return Err(cx.unknown(line, &["span", "span_attributes"])),
        }
    }
    Ok(cx.route(types::handler(HANDLER.id, &out)))
}

fn compile(module: &Module, _cx: &mut CompileCx<'_>) -> Result<Handler, CompileError> {
    read::<Tracing>(module, "handler")?;
    Err(CompileError::not_supported("`tracing`"))
}

//! `timeouts`: bounds on reading a request and writing its answer. Read and adapted as Caddy does; not run by this version.

use serde::{Deserialize, Serialize};

use crate::base::units::{parse_duration, parse_size};
use crate::config::compile_cx::{CompileCx, CompileError, read};
use crate::config::directive_cx::{ConfigValue, DirectiveCx, Parsed};
use crate::config::registry::{Directive, Doc, HandlerModule};
use crate::config::types::{self, Module, is_zero};
use crate::http::route::Handler;
use crate::syntax::tree::Node;

pub const DIRECTIVE: Directive = Directive {
    name: "timeouts",
    renamed_to: None,
    ordered: true,
    matcher: true,
    parse,
    doc: &Doc {
        summary: "Bounds reading the request and writing the answer.",
        syntax: "timeouts [matcher] { read_timeout <duration> [<bytes per second>]  write_timeout <duration> [<bytes per second>]  max_write_chunk <size> }",
        examples: &["timeouts {\n\tread_timeout 10s\n\twrite_timeout 1m 1000\n\tmax_write_chunk 64KiB\n}"],
        rejected: &[
            ("timeouts {\n\tread_timeout\n}", "wrong-argument-count"),
            ("timeouts {\n\tread_timeout soon\n}", "invalid-duration"),
            ("timeouts {\n\twrite_timeout 1s fast\n}", "invalid-number"),
            ("timeouts {\n\tidle 1s\n}", "unknown-subdirective"),
        ],
        adapt_only: true,
    },
};

pub const HANDLER: HandlerModule = HandlerModule { id: "timeouts", compile };

/// Durations in nanoseconds, rates in bytes per second.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Timeouts {
    #[serde(skip_serializing_if = "is_zero")]
    read_timeout: i64,
    #[serde(skip_serializing_if = "is_zero")]
    read_min_rate: i64,
    #[serde(skip_serializing_if = "is_zero")]
    write_timeout: i64,
    #[serde(skip_serializing_if = "is_zero")]
    write_min_rate: i64,
    #[serde(skip_serializing_if = "is_zero")]
    max_write_chunk: i64,
}

fn parse(cx: &mut DirectiveCx<'_, '_>) -> Parsed<Vec<ConfigValue>> {
    let mut out = Timeouts::default();
    if let Some(extra) = cx.args.first() {
        cx.warn_ignored(extra.span);
    }
    for line in cx.node.lines() {
        match line.name() {
            "read_timeout" => timeout(cx, line, &mut out.read_timeout, &mut out.read_min_rate)?,
            "write_timeout" => timeout(cx, line, &mut out.write_timeout, &mut out.write_min_rate)?,
            "max_write_chunk" => {
                let size = cx.one(line)?;
                let bytes = parse_size(size.text()).and_then(|n| i64::try_from(n).ok());
                out.max_write_chunk = bytes
                    .ok_or_else(|| cx.err(size.span, "invalid-size", format!("`{}` is not a size", size.shown())))?;
            }
            _ => return Err(cx.unknown(line, &["read_timeout", "write_timeout", "max_write_chunk"])),
        }
    }
    Ok(cx.route(types::handler(HANDLER.id, &out)))
}

fn timeout(cx: &DirectiveCx<'_, '_>, line: &Node, timeout: &mut i64, rate: &mut i64) -> Parsed<()> {
    let (duration, least) = match line.args.as_slice() {
        [duration] => (duration, None),
        [duration, least] => (duration, Some(least)),
        _ => return Err(cx.arg_err(line)),
    };
    *timeout = parse_duration(duration.text()).ok_or_else(|| {
        let message = format!("`{}` is not a duration", duration.shown());
        Box::new(cx.err(duration.span, "invalid-duration", message).help("for example `10s` or `2m`"))
    })?;
    if let Some(least) = least {
        let message = || format!("`{}` is not a whole number", least.shown());
        *rate = least.text().parse().map_err(|_| cx.err(least.span, "invalid-number", message()))?;
    }
    Ok(())
}

fn compile(module: &Module, _cx: &mut CompileCx<'_>) -> Result<Handler, CompileError> {
    read::<Timeouts>(module, "handler")?;
    Err(CompileError::not_supported("`timeouts`"))
}

//! `sse_keepalive` and `sse_errors`: what is said within streams of LLM APIs.

use super::config::Config;
use super::words::{duration, invalid};
use crate::config::directive_cx::{DirectiveCx, Parsed};
use crate::syntax::tree::Node;

pub fn line(cx: &DirectiveCx<'_, '_>, config: &mut Config, node: &Node) -> Parsed<()> {
    let value = cx.value(node)?;
    match (node.name(), value.text()) {
        ("sse_keepalive", _) => config.sse_keepalive = duration(value)?,
        (_, "on") => config.sse_errors = Some(true),
        (_, "off") => config.sse_errors = Some(false),
        _ => return Err(invalid(value, "`on` or `off`")),
    }
    Ok(())
}

//! `circuit_breaker { failures 5; ratio 0.5; … }`.

use super::config::CircuitBreaker;
use super::words::{duration, each_line, integer, invalid, status};
use crate::config::directive_cx::{DirectiveCx, Parsed};
use crate::config::types::{Module, module};
use crate::syntax::token::Token;
use crate::syntax::tree::Node;

/// The one kind there is, in JSON.
pub const TYPE: &str = "window";

const OPTIONS: &[&str] = &["failures", "ratio", "min_requests", "window", "open", "probes", "status"];

pub fn circuit_breaker(cx: &mut DirectiveCx<'_, '_>, line: &Node) -> Parsed<Module> {
    if !line.args.is_empty() {
        return Err(cx.arg_err(line));
    }
    let mut breaker = CircuitBreaker::default();
    each_line(cx, line.lines(), |cx, node| {
        match node.name() {
            "failures" => breaker.failures = Some(count(cx.value(node)?)?),
            "ratio" => breaker.ratio = ratio(cx.value(node)?)?,
            "min_requests" => breaker.min_requests = count(cx.value(node)?)?,
            "window" => breaker.window = duration(cx.value(node)?)?,
            "open" => breaker.open = duration(cx.value(node)?)?,
            "probes" => breaker.probes = count(cx.value(node)?)?,
            "status" => {
                for value in cx.values(node)? {
                    breaker.status.push(status(value)?);
                }
            }
            _ => return Err(cx.unknown(node, OPTIONS)),
        }
        Ok(())
    })?;
    Ok(module("type", TYPE, &breaker))
}

fn count(token: &Token) -> Parsed<i64> {
    match integer(token)? {
        n if n > 0 => Ok(n),
        _ => Err(invalid(token, "a whole number above zero")),
    }
}

/// `0.5` or `50%`.
fn ratio(token: &Token) -> Parsed<f64> {
    let text = token.text();
    let (number, scale) = text.strip_suffix('%').map_or((text, 1.0), |number| (number, 100.0));
    match number.parse::<f64>() {
        Ok(n) if n > 0.0 && n <= scale => Ok(n / scale),
        _ => Err(invalid(token, "a part of the requests such as `0.5` or `50%`")),
    }
}

//! `to URL… { header_up …; weight N; max_requests N; models GLOB…; include_usage on|off }`: upstreams with settings of their own.

use super::config::{Config, Upstream, UpstreamHeaders};
use super::parse::{header_op, warn_unneeded_header};
use super::words::{each_line, integer, invalid, texts};
use crate::config::directive_cx::{DirectiveCx, Parsed};
use crate::config::types::{Module, module_id};
use crate::syntax::token::Token;
use crate::syntax::tree::Node;

const OPTIONS: &[&str] = &["header_up", "weight", "max_requests", "models", "include_usage"];

/// More than this says nothing that less does not.
const MAX_WEIGHT: i64 = 10_000;

/// The settings of one `to` line, which hold for each of its upstreams.
pub struct Settings(Upstream);

impl Settings {
    pub fn give(&self, upstream: &mut Upstream) {
        let dial = std::mem::take(&mut upstream.dial);
        *upstream = Upstream { dial, ..self.0.clone() };
    }
}

/// `None` for the form without a block.
pub fn settings(cx: &mut DirectiveCx<'_, '_>, line: &Node) -> Parsed<Option<Settings>> {
    if line.args.is_empty() {
        return Err(cx.arg_err(line));
    }
    if line.block.is_none() {
        return Ok(None);
    }
    let mut own = Upstream::default();
    each_line(cx, line.lines(), |cx, node| {
        match node.name() {
            "header_up" => {
                cx.no_block(node)?;
                warn_unneeded_header(cx, node);
                let headers = own.headers.get_or_insert_with(UpstreamHeaders::default);
                header_op(cx, &mut headers.request, node)?;
            }
            "weight" if own.weight != 0 => return Err(cx.duplicate(node)),
            "weight" => own.weight = within(cx.value(node)?, MAX_WEIGHT, "a weight from 1 to 10000")?,
            "max_requests" if own.max_requests != 0 => return Err(cx.duplicate(node)),
            "max_requests" => own.max_requests = within(cx.value(node)?, i64::from(u32::MAX), "a number above zero")?,
            "include_usage" if own.include_usage.is_some() => return Err(cx.duplicate(node)),
            "include_usage" => {
                let word = cx.value(node)?;
                own.include_usage = Some(match word.text() {
                    "on" => true,
                    "off" => false,
                    _ => return Err(invalid(word, "`on` or `off`")),
                });
            }
            "models" => own.models.extend(texts(cx.values(node)?)),
            _ => return Err(cx.unknown(node, OPTIONS)),
        }
        Ok(())
    })?;
    Ok(Some(Settings(own)))
}

/// What settings of single upstreams cannot stand beside.
pub fn check(cx: &DirectiveCx<'_, '_>, config: &Config) -> Parsed<()> {
    let policy = config.load_balancing.as_ref().and_then(|lb| lb.selection_policy.as_ref());
    let weighted = config.upstreams.iter().any(|upstream| upstream.weight != 0);
    if !weighted || policy.is_none_or(knows_weights) {
        return Ok(());
    }
    let line = cx.node.lines().find(|line| line.name() == "lb_policy").unwrap_or(cx.node);
    Err(cx.err(line.span(), "contradicting-options", "this policy has no use for the `weight` of an upstream"))
}

/// Whether shares of upstreams mean something to this policy.
pub fn knows_weights(policy: &Module) -> bool {
    !matches!(module_id(policy, "policy"), "first" | "round_robin" | "weighted_round_robin")
}

fn within(token: &Token, most: i64, wanted: &str) -> Parsed<i64> {
    match integer(token)? {
        n if (1..=most).contains(&n) => Ok(n),
        _ => Err(invalid(token, wanted)),
    }
}

//! `lb_retries`, `lb_try_duration`, `lb_try_interval`, `lb_retry_match`, `retry_on`, `retry_exclude_failed`, `cooldown`.

use super::config::LoadBalancing;
use super::words::{duration, integer, invalid};
use crate::config::directive_cx::{DirectiveCx, Parsed};
use crate::config::nanos::Nanos;
use crate::config::types;
use crate::syntax::token::Token;
use crate::syntax::tree::Node;

pub const OPTIONS: &[&str] = &[
    "lb_retries",
    "lb_try_duration",
    "lb_try_interval",
    "lb_retry_match",
    "retry_on",
    "retry_exclude_failed",
    "cooldown",
];

pub fn line(cx: &mut DirectiveCx<'_, '_>, config: &mut Option<LoadBalancing>, node: &Node) -> Parsed<()> {
    match node.name() {
        "lb_retries" => {
            let retries = integer(cx.value(node)?)?;
            config.get_or_insert_default().retries = retries;
        }
        "lb_try_duration" => {
            let limit = duration(cx.value(node)?)?;
            config.get_or_insert_default().try_duration = limit;
        }
        "lb_try_interval" => {
            let pause = duration(cx.value(node)?)?;
            config.get_or_insert_default().try_interval = pause;
        }
        "lb_retry_match" => {
            let set = nested_matcher_set(cx, node)?;
            config.get_or_insert_default().retry_match.push(set);
        }
        "retry_on" => {
            for word in cx.values(node)? {
                let status = error_status(word)?;
                config.get_or_insert_default().retry_on.push(status);
            }
        }
        "retry_exclude_failed" => {
            let on = on_or_off(cx.value(node)?)?;
            config.get_or_insert_default().retry_exclude_failed = Some(on);
        }
        "cooldown" => {
            let word = cx.value(node)?;
            let longest = if word.text() == "off" {
                Nanos(0)
            } else {
                duration(word)
                    .ok()
                    .filter(|d| d.0 > 0)
                    .ok_or_else(|| invalid(word, "`off`, or the longest time to wait such as `10m`"))?
            };
            config.get_or_insert_default().cooldown = Some(longest);
        }
        _ => return Err(cx.unknown(node, OPTIONS)),
    }
    Ok(())
}

fn error_status(word: &Token) -> Parsed<u16> {
    let status = word.text().parse().ok().filter(|status| (400..600).contains(status));
    status.ok_or_else(|| invalid(word, "a status from 400 to 599"))
}

fn on_or_off(word: &Token) -> Parsed<bool> {
    match word.text() {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err(invalid(word, "`on` or `off`")),
    }
}

/// `lb_retry_match KIND …` or a block of such lines.
fn nested_matcher_set(cx: &mut DirectiveCx<'_, '_>, node: &Node) -> Parsed<types::MatcherSet> {
    match (node.args.split_first(), &node.block) {
        (None, Some(block)) => cx.matcher_set(&block.nodes),
        (Some((name, args)), block) => {
            let line = Node { name: name.clone(), args: args.to_vec(), block: block.clone() };
            cx.matcher_set(std::slice::from_ref(&line))
        }
        (None, None) => Err(cx.arg_err(node)),
    }
}

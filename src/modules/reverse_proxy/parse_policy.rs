//! `lb_policy NAME … { fallback …; max_age …; bytes …; key …; max_load … }`.

use super::config::Policy;
use super::words::{duration, each_line, integer, invalid, size, unknown_module};
use crate::config::directive_cx::{DirectiveCx, Parsed};
use crate::config::types::{Module, module};
use crate::syntax::token::Token;
use crate::syntax::tree::Node;

pub const POLICIES: &[&str] = &[
    "random",
    "random_choose",
    "first",
    "round_robin",
    "weighted_round_robin",
    "least_conn",
    "peak_ewma",
    "sticky",
    "ip_hash",
    "client_ip_hash",
    "uri_hash",
    "query",
    "header",
    "cookie",
];

/// The words after `lb_policy` or `fallback`.
pub fn policy(cx: &mut DirectiveCx<'_, '_>, line: &Node) -> Parsed<Module> {
    let Some((name, args)) = line.args.split_first() else { return Err(cx.arg_err(line)) };
    let id = name.text();
    if !POLICIES.contains(&id) {
        return Err(unknown_module(name, "load balancing policy", POLICIES));
    }
    let mut policy = Policy::default();
    match (id, args) {
        (
            "random" | "first" | "round_robin" | "least_conn" | "peak_ewma" | "sticky" | "ip_hash" | "client_ip_hash"
            | "uri_hash" | "cookie",
            [],
        ) => {}
        ("weighted_round_robin", [_, ..]) => policy.weights = args.iter().map(weight).collect::<Parsed<_>>()?,
        ("random_choose", [n]) => policy.choose = integer(n)?,
        ("query", [key]) => policy.key = key.text().to_owned(),
        ("header", [field]) => policy.field = field.text().to_owned(),
        ("cookie", [name]) => policy.name = name.text().to_owned(),
        ("cookie", [name, secret]) => {
            policy.name = name.text().to_owned();
            policy.secret = secret.text().to_owned();
        }
        _ => return Err(cx.arg_err(line)),
    }
    if !matches!(id, "query" | "header" | "cookie" | "sticky") {
        cx.no_block(line)?;
    }
    each_line(cx, line.lines(), |cx, node| match node.name() {
        "fallback" if policy.fallback.is_some() => Err(cx.duplicate(node)),
        "fallback" => {
            policy.fallback = Some(self::policy(cx, node)?);
            Ok(())
        }
        "max_age" if id == "cookie" => {
            if !policy.max_age.is_zero() {
                return Err(cx.duplicate(node));
            }
            let value = cx.value(node)?;
            policy.max_age = duration(value)?;
            if policy.max_age.0 > 0 { Ok(()) } else { Err(invalid(value, "a duration above zero")) }
        }
        "bytes" if id == "sticky" => {
            policy.bytes = size(cx.value(node)?)?;
            Ok(())
        }
        "key" if id == "sticky" => {
            policy.key = cx.value(node)?.text().to_owned();
            Ok(())
        }
        "max_load" if id == "sticky" => {
            let value = cx.value(node)?;
            let load = value.text().parse().ok().filter(|load| (1.0..=100.0).contains(load));
            policy.max_load = Some(load.ok_or_else(|| invalid(value, "a factor from 1 to 100, such as `1.25`"))?);
            Ok(())
        }
        _ => Err(cx.unknown(node, options(id))),
    })?;
    Ok(module("policy", id, &policy))
}

fn options(policy: &str) -> &'static [&'static str] {
    match policy {
        "cookie" => &["fallback", "max_age"],
        "sticky" => &["bytes", "fallback", "key", "max_load"],
        _ => &["fallback"],
    }
}

fn weight(token: &Token) -> Parsed<i64> {
    match integer(token)? {
        n if n >= 0 => Ok(n),
        _ => Err(invalid(token, "a weight of zero or more")),
    }
}

//! The words. What the plugin reads past without a message (an unknown word, a second value) is an error here.

use serde_json::{Map, Value};

use super::HANDLER;
use super::config::{RateLimit, Zone};
use crate::base::units::parse_duration;
use crate::config::directive_cx::{ConfigValue, DirectiveCx, Parsed};
use crate::config::nanos::Nanos;
use crate::config::types::{self, Module};
use crate::syntax::token::Token;
use crate::syntax::tree::Node;

const OPTIONS: [&str; 7] = ["zone", "jitter", "log_key", "sweep_interval", "disable_metrics", "distributed", "storage"];
const ZONE_OPTIONS: [&str; 11] = [
    "match",
    "key",
    "window",
    "events",
    "tokens",
    "concurrent",
    "rate",
    "ipv4_prefix",
    "ipv6_prefix",
    "headers",
    "max_keys",
];

/// The directive that zones run before which must know who asks: the first behind access control.
const BEHIND_ACCESS: &str = "cursor_compat";
/// The directives around this one unless `order` has moved it.
const AROUND: [&str; 2] = ["try_files", "auth_token"];

pub fn parse(cx: &mut DirectiveCx<'_, '_>) -> Parsed<Vec<ConfigValue>> {
    if !cx.args.is_empty() {
        return Err(cx.arg_err(cx.node));
    }
    let mut out = RateLimit::default();
    let node = cx.node;
    for line in node.lines() {
        match line.name() {
            "zone" => {
                let name = cx.one(line)?.text().to_owned();
                let zone = zone(cx, line)?;
                if out.rate_limits.insert(name, zone).is_some() {
                    return Err(cx.duplicate(line));
                }
            }
            "distributed" if out.distributed.is_some() => return Err(cx.duplicate(line)),
            "distributed" => out.distributed = Some(distributed(cx, line)?),
            "storage" if out.storage.is_some() => return Err(cx.duplicate(line)),
            "storage" => out.storage = Some(storage(cx, line)?),
            _ => plain_option(cx, line, &mut out)?,
        }
    }
    Ok(placed(cx, out))
}

fn plain_option(cx: &DirectiveCx<'_, '_>, line: &Node, out: &mut RateLimit) -> Parsed<()> {
    cx.no_block(line)?;
    match line.name() {
        "jitter" if out.jitter != 0.0 => Err(cx.duplicate(line)),
        "jitter" => {
            let word = cx.one(line)?;
            let share = word.text().parse().ok().filter(|share: &f64| share.is_finite());
            out.jitter = share.ok_or_else(|| {
                let message = format!("`{}` is not a share such as `0.2`", word.shown());
                cx.err(word.span, "invalid-number", message)
            })?;
            Ok(())
        }
        "sweep_interval" if !out.sweep_interval.is_zero() => Err(cx.duplicate(line)),
        "sweep_interval" => {
            out.sweep_interval = duration(cx, cx.one(line)?)?;
            Ok(())
        }
        "log_key" | "disable_metrics" => {
            if !line.args.is_empty() {
                return Err(cx.arg_err(line));
            }
            let flag = if line.name() == "log_key" { &mut out.log_key } else { &mut out.disable_metrics };
            *flag = true;
            Ok(())
        }
        _ => Err(cx.unknown(line, &OPTIONS)),
    }
}

fn zone(cx: &mut DirectiveCx<'_, '_>, node: &Node) -> Parsed<Zone> {
    let mut zone = Zone::default();
    let mut seen: Vec<&str> = Vec::new();
    for line in node.lines() {
        let name = line.name();
        if name == "match" {
            let nodes = line.block.as_ref().map_or(&[][..], |block| &block.nodes);
            if !line.args.is_empty() || nodes.is_empty() {
                return Err(cx.arg_err(line));
            }
            zone.matcher_sets.push(cx.matcher_set(nodes)?);
            continue;
        }
        cx.no_block(line)?;
        if seen.contains(&name) {
            return Err(cx.duplicate(line));
        }
        seen.push(name);
        if name == "rate" {
            rate(cx, line, &mut zone)?;
            continue;
        }
        if !ZONE_OPTIONS.contains(&name) {
            return Err(cx.unknown(line, &ZONE_OPTIONS));
        }
        let word = cx.one(line)?;
        match name {
            "key" => zone.key = word.text().to_owned(),
            "window" => {
                zone.window = duration(cx, word)?;
                // Zero is absent in JSON, and a window of nothing is a mistake of its own.
                if zone.window.is_zero() {
                    return Err(cx.err(word.span, "invalid-limit", "a window must be longer than nothing"));
                }
            }
            "events" => zone.max_events = Some(number(cx, word)?),
            "tokens" => zone.max_tokens = Some(number(cx, word)?),
            "concurrent" => zone.max_concurrent = Some(number(cx, word)?),
            "ipv4_prefix" => zone.ipv4_prefix = Some(number(cx, word)?),
            "ipv6_prefix" => zone.ipv6_prefix = Some(number(cx, word)?),
            "max_keys" => zone.max_keys = Some(number(cx, word)?),
            _ => {
                zone.headers = Some(match word.text() {
                    "on" => true,
                    "off" => false,
                    _ => return Err(cx.err(word.span, "invalid-value", "`headers` is `on` or `off`")),
                });
            }
        }
    }
    if let Some((message, help)) = zone.lacks() {
        return Err(Box::new(cx.err(node.span(), "incomplete-zone", message).help(help)));
    }
    Ok(zone)
}

/// `rate 10r/s [burst 20] [nodelay | delay 8]`.
fn rate(cx: &DirectiveCx<'_, '_>, line: &Node, zone: &mut Zone) -> Parsed<()> {
    let Some((speed, mut rest)) = line.args.split_first() else { return Err(cx.arg_err(line)) };
    if super::speed::interval(speed.text()).is_none() {
        let d = cx.err(speed.span, "invalid-rate", format!("`{}` is not a rate", speed.shown()));
        return Err(Box::new(d.help("a whole number of requests by second, minute or hour: `10r/s`, `30r/m`")));
    }
    speed.text().clone_into(&mut zone.rate);
    while let Some((word, more)) = rest.split_first() {
        rest = match (word.text(), more) {
            ("nodelay", more) => {
                zone.nodelay = true;
                more
            }
            ("burst", [n, more @ ..]) if zone.burst.is_none() => {
                zone.burst = Some(number(cx, n)?);
                more
            }
            ("delay", [n, more @ ..]) if zone.delay.is_none() => {
                zone.delay = Some(number(cx, n)?);
                more
            }
            _ => return Err(cx.arg_err(line)),
        };
    }
    Ok(())
}

fn distributed(cx: &DirectiveCx<'_, '_>, node: &Node) -> Parsed<Value> {
    if !node.args.is_empty() {
        return Err(cx.arg_err(node));
    }
    let mut out = Map::new();
    for line in node.lines() {
        cx.no_block(line)?;
        let known = ["read_interval", "write_interval", "purge_age"];
        if !known.contains(&line.name()) {
            return Err(cx.unknown(line, &known));
        }
        let value = Value::from(duration(cx, cx.one(line)?)?.0);
        if out.insert(line.name().to_owned(), value).is_some() {
            return Err(cx.duplicate(line));
        }
    }
    Ok(Value::Object(out))
}

/// Refused when it is to run, so its options are not read further.
fn storage(cx: &DirectiveCx<'_, '_>, line: &Node) -> Parsed<Value> {
    let Some(module) = line.args.first() else { return Err(cx.arg_err(line)) };
    Ok(serde_json::json!({ "module": module.text() }))
}

fn number(cx: &DirectiveCx<'_, '_>, word: &Token) -> Parsed<i64> {
    let message = || format!("`{}` is not a whole number", word.shown());
    word.text().parse().map_err(|_| cx.err(word.span, "invalid-number", message()))
}

fn duration(cx: &DirectiveCx<'_, '_>, word: &Token) -> Parsed<Nanos> {
    let message = || format!("`{}` is not a duration", word.shown());
    let nanos = parse_duration(word.text());
    nanos.map(Nanos).ok_or_else(|| {
        Box::new(cx.err(word.span, "invalid-duration", message()).help("a number with a unit: `30s`, `1m`, `24h`"))
    })
}

/// One route for zones that need not know who asks, and one behind access control for those that do.
fn placed(cx: &DirectiveCx<'_, '_>, config: RateLimit) -> Vec<ConfigValue> {
    let route = |config: &RateLimit| cx.route_of(vec![module(cx, config)]);
    let names: Vec<&str> = cx.file.order.iter().map(String::as_str).collect();
    let [before, after] = AROUND;
    // Others may have been moved in between, on one side.
    let moved = !names.windows(2).any(|two| two == [before, HANDLER.id] || two == [HANDLER.id, after]);
    let (late, early): (Vec<_>, Vec<_>) =
        config.rate_limits.iter().map(|(name, zone)| (name.clone(), zone.clone())).partition(|(_, z)| z.asks_who());
    if moved || late.is_empty() {
        return vec![ConfigValue::Route(route(&config))];
    }
    let mut out = Vec::with_capacity(2);
    if !early.is_empty() {
        out.push(ConfigValue::Route(route(&RateLimit { rate_limits: early.into_iter().collect(), ..config.clone() })));
    }
    let late = RateLimit { rate_limits: late.into_iter().collect(), ..config };
    out.push(ConfigValue::RouteBefore(BEHIND_ACCESS, route(&late)));
    out
}

/// What is wrong with a zone is told at its line.
fn module(cx: &DirectiveCx<'_, '_>, config: &RateLimit) -> Module {
    let mut module = types::handler(HANDLER.id, config);
    if let Some(zones) = module.get_mut("rate_limits").and_then(Value::as_object_mut) {
        for line in cx.node.lines().filter(|line| line.name() == "zone") {
            let zone = line.args.first().and_then(|name| zones.get_mut(name.text()));
            if let Some(zone) = zone.and_then(Value::as_object_mut) {
                cx.mark(zone, line.span());
            }
        }
    }
    module
}

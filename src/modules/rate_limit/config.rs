//! The JSON form, which is the plugin's with our own words beside it, and what it is checked for.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::gate::{Gate, ZoneGate};
use super::speed;
use crate::config::compile_cx::{CompileCx, CompileError, read};
use crate::config::nanos::Nanos;
use crate::config::types::{MatcherSet, Module};
use crate::http::placeholder::Template;
use crate::http::route::Handler;
use crate::state::key::Key;
use crate::state::limit::Limits;

/// Keys that are counted one by one, unless the zone says another number.
const KEYS: u32 = 1_000_000;
const MOST_KEYS: i64 = 50_000_000;
/// A year and a bit; what somebody means by more is a budget.
const LONGEST_WINDOW: i64 = 400 * 24 * 3600 * 1_000_000_000;
const MOST_EVENTS: i64 = 1_000_000_000;
const MOST_TOKENS: i64 = 1_000_000_000_000;
const MOST_OPEN: i64 = 1_000_000;
const MOST_BURST: i64 = 1_000_000;

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RateLimit {
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub rate_limits: BTreeMap<String, Zone>,
    #[serde(skip_serializing_if = "is_zero")]
    pub jitter: f64,
    #[serde(skip_serializing_if = "Nanos::is_zero")]
    pub sweep_interval: Nanos,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub distributed: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub storage: Option<Value>,
    #[serde(skip_serializing_if = "is_false")]
    pub log_key: bool,
    #[serde(skip_serializing_if = "is_false")]
    pub disable_metrics: bool,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Zone {
    #[serde(rename = "match", skip_serializing_if = "Vec::is_empty")]
    pub matcher_sets: Vec<MatcherSet>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub key: String,
    #[serde(skip_serializing_if = "Nanos::is_zero")]
    pub window: Nanos,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_events: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ipv4_prefix: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ipv6_prefix: Option<i64>,
    // Our own words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_tokens: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_concurrent: Option<i64>,
    /// Such as `10r/s`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub rate: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub burst: Option<i64>,
    #[serde(skip_serializing_if = "is_false")]
    pub nodelay: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delay: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub headers: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_keys: Option<i64>,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde's signature
fn is_zero(n: &f64) -> bool {
    *n == 0.0
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde's signature
fn is_false(b: &bool) -> bool {
    !*b
}

impl Zone {
    /// Whether it depends on who the caller is or what is asked of which model: known behind access control only.
    pub fn asks_who(&self) -> bool {
        self.max_tokens.is_some()
            || ["{http.auth.", "{auth.", "{llm."].iter().any(|name| self.key.contains(name))
            || self.matcher_sets.iter().any(matches_caller)
    }

    fn is_windowed(&self) -> bool {
        self.max_events.is_some() || self.max_tokens.is_some()
    }

    /// What is missing for it to count anything, and what to do about it.
    pub fn lacks(&self) -> Option<(&'static str, &'static str)> {
        let windowed = self.is_windowed();
        if !windowed && self.max_concurrent.is_none() && self.rate.is_empty() && self.window.is_zero() {
            Some(("the zone limits nothing", "give it `window` and `events`, or `tokens`, `concurrent`, `rate`"))
        } else if windowed && self.window.is_zero() {
            Some(("the zone has no window to count in", "write `window 1m`, or another duration"))
        } else if !windowed && !self.window.is_zero() {
            Some(("nothing is counted in the zone's window", "add `events` or `tokens`, or leave `window` out"))
        } else {
            None
        }
    }

    /// Beyond what the plugin has.
    fn is_ours(&self) -> bool {
        self.max_tokens.is_some() || self.max_concurrent.is_some() || !self.rate.is_empty()
    }
}

fn matches_caller(set: &MatcherSet) -> bool {
    set.iter().any(|(kind, value)| {
        let text = || value.to_string();
        matches!(kind.as_str(), "model")
            || matches!(kind.as_str(), "vars" | "not" | "expression") && {
                let text = text();
                ["\"model\"", "http.auth.", "{auth.", "llm.model"].iter().any(|name| text.contains(name))
            }
    })
}

pub fn compile(module: &Module, cx: &mut CompileCx<'_>) -> Result<Handler, CompileError> {
    let config: RateLimit = read(module, "handler")?;
    for (name, value) in [("distributed", &config.distributed), ("storage", &config.storage)] {
        if value.is_some() {
            let error = CompileError::not_supported(format_args!("`{name}` of `rate_limit`"));
            return Err(error.within(name).help("each machine counts for itself: divide the limits by their number"));
        }
    }
    if !(0.0..=100.0).contains(&config.jitter) {
        return Err(invalid("`jitter` is a share from 0 on, such as 0.2").within("jitter"));
    }
    if config.sweep_interval.0 < 0 {
        return Err(invalid("`sweep_interval` cannot be negative").within("sweep_interval"));
    }
    if config.rate_limits.is_empty() {
        let error = CompileError::new("incomplete-zone", "`rate_limit` has no zone");
        return Err(error.help("write a `zone NAME { … }` with what it allows"));
    }
    let mut zones = Vec::with_capacity(config.rate_limits.len());
    let mut first = None;
    for (name, zone) in &config.rate_limits {
        match cx.at("rate_limits", |cx| cx.at(name, |cx| compile_zone(name, zone, cx))) {
            Ok(zone) => zones.push(zone),
            Err(error) => {
                let error = error.within(name).within("rate_limits");
                if let Some(earlier) = first.replace(error) {
                    cx.report(earlier);
                }
            }
        }
    }
    if let Some(error) = first {
        return Err(error);
    }
    // As the plugin sorts them; it leaves open what comes first of equal ones.
    zones.sort_by(|a, b| b.permissiveness().total_cmp(&a.permissiveness()));
    let gate = Gate { zones: zones.into(), jitter: config.jitter, log_key: config.log_key };
    Ok(if cx.store.waits() || gate.waits() { Handler::Async(Box::new(gate)) } else { Handler::Step(Box::new(gate)) })
}

fn compile_zone(name: &str, zone: &Zone, cx: &mut CompileCx<'_>) -> Result<ZoneGate, CompileError> {
    let limits = limits(zone)?;
    let key = Template::parse(&zone.key);
    let prefixes = prefixes(zone)?;
    let matchers = cx.at("match", |cx| cx.compile_matcher_sets(&zone.matcher_sets));
    Ok(ZoneGate {
        name: Arc::from(name),
        matchers,
        fixed_key: key.as_static().filter(|_| prefixes == [None; 2]).map(Key::of),
        key,
        prefixes,
        looks_at_model: zone.key.contains("{llm.model}"),
        limits: Arc::new(limits),
        tells: zone.headers.unwrap_or_else(|| zone.is_ours()),
        zone: cx.store.zone(name),
    })
}

fn limits(zone: &Zone) -> Result<Limits, CompileError> {
    if let Some((message, help)) = zone.lacks() {
        return Err(CompileError::new("incomplete-zone", message).help(help));
    }
    let windowed = zone.is_windowed();
    Ok(Limits {
        window: if windowed { in_range("window", zone.window.0, 1, LONGEST_WINDOW)? } else { 0 },
        events: optional("max_events", zone.max_events, MOST_EVENTS)?,
        tokens: optional("max_tokens", zone.max_tokens, MOST_TOKENS)?,
        concurrent: optional("max_concurrent", zone.max_concurrent, MOST_OPEN)?,
        rate: rate(zone)?,
        keys: optional("max_keys", zone.max_keys, MOST_KEYS)?.unwrap_or(KEYS),
    })
}

fn rate(zone: &Zone) -> Result<Option<crate::state::limit::Rate>, CompileError> {
    let wrong = |message: &str| CompileError::new("invalid-rate", message);
    let spread = zone.burst.is_some() || zone.nodelay || zone.delay.is_some();
    if zone.rate.is_empty() {
        return if spread { Err(wrong("`burst`, `nodelay` and `delay` belong to a `rate`")) } else { Ok(None) };
    }
    let interval = speed::interval(&zone.rate).ok_or_else(|| {
        wrong("not a rate")
            .help("a whole number of requests by second, minute or hour: `10r/s`, `30r/m`")
            .within("rate")
    })?;
    let burst: u32 = optional("burst", zone.burst, MOST_BURST)?.unwrap_or(0);
    let delay = zone.delay.map(|n| in_range("delay", n, 1, MOST_BURST)).transpose()?;
    if burst == 0 && (zone.nodelay || delay.is_some()) {
        return Err(wrong("without a `burst` there is nothing to let pass at once or later"));
    }
    if zone.nodelay && delay.is_some() {
        return Err(wrong("`nodelay` and `delay` contradict each other"));
    }
    let at_once = if zone.nodelay { burst } else { delay.unwrap_or(0) };
    Ok(Some(speed::rate(interval, burst, at_once)))
}

fn prefixes(zone: &Zone) -> Result<[Option<u8>; 2], CompileError> {
    // Zero is the plugin's word for none.
    let bits = |name: &str, bits: Option<i64>, most: i64| {
        bits.filter(|bits| *bits != 0).map(|bits| in_range(name, bits, 1, most)).transpose()
    };
    Ok([bits("ipv4_prefix", zone.ipv4_prefix, 32)?, bits("ipv6_prefix", zone.ipv6_prefix, 128)?])
}

fn optional<T: TryFrom<i64>>(name: &str, value: Option<i64>, most: i64) -> Result<Option<T>, CompileError> {
    value.map(|value| in_range(name, value, 1, most)).transpose()
}

fn in_range<T: TryFrom<i64>>(name: &str, value: i64, least: i64, most: i64) -> Result<T, CompileError> {
    let shown = |n: i64| {
        if name == "window" { crate::base::units::format_duration(n) } else { n.to_string() }
    };
    let read = (least..=most).contains(&value).then(|| T::try_from(value).ok()).flatten();
    read.ok_or_else(|| {
        let word = name.strip_prefix("max_").filter(|_| name != "max_keys").unwrap_or(name);
        let (least, most) = (shown(least), shown(most));
        invalid(format!("`{word}` is {}, and must be from {least} to {most}", shown(value))).within(name)
    })
}

fn invalid(message: impl Into<String>) -> CompileError {
    CompileError::new("invalid-limit", message)
}

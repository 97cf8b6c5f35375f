//! From the JSON of a `reverse_proxy` to the engine that runs it. What cannot run yet is refused by name.

use std::sync::Arc;

use http::HeaderName;
use ipnet::IpNet;

use super::config::{Config, PassiveHealth, Policy as PolicyConfig};
use super::parse_policy::POLICIES;
use super::{
    compile_breaker, compile_dynamic, compile_health, compile_retry, compile_stream, compile_transport,
    compile_upstreams,
};
use crate::client::Scheme;
use crate::config::compile_cx::{CompileCx, CompileError, read};
use crate::config::response_handler;
use crate::config::types::{Module, module_id};
use crate::http::headers::{CompiledHeaderOps, HeaderOps, HeadersConfig};
use crate::http::placeholder::Template;
use crate::http::response_matcher::{CompiledResponseMatcher, ResponseMatcher};
use crate::http::rewrite::Rewrite;
use crate::http::route::Handler;
use crate::proxy::dynamic::Found;
use crate::proxy::policy::Cookie;
use crate::proxy::state::Turn;
use crate::proxy::sticky::{self, Sticky};
use crate::proxy::{Buffer, Engine, Passive, Policy};

pub fn compile(module: &Module, cx: &mut CompileCx<'_>) -> Result<Handler, CompileError> {
    let config: Config = read(module, "handler")?;
    let health = config.health_checks.clone().unwrap_or_default();
    let transport = compile_transport::compile(config.transport.as_ref(), cx).map_err(|e| e.within("transport"))?;
    let max_requests = health.passive.as_ref().map_or(0, |p| p.unhealthy_request_count);
    let headers = config.headers.clone().unwrap_or_default();
    let names_host = !says_host(headers.request.as_ref());
    let mut upstreams = compile_upstreams::compile(&config, &transport, max_requests, names_host)?;
    if let Some(active) = &health.active {
        compile_health::active(active, &mut upstreams, cx).map_err(|e| e.within("active").within("health_checks"))?;
    }
    let breaker = config.circuit_breaker.as_ref().map(compile_breaker::breaker).transpose();
    let breaker = breaker.map_err(|e| e.within("circuit_breaker"))?;
    if let Some(settings) = &breaker {
        for upstream in &mut upstreams {
            upstream.protect(settings);
        }
    }
    let dynamic = match &config.dynamic_upstreams {
        None => None,
        Some(module) => {
            let found = Found {
                transport: Arc::clone(&transport.template),
                names_host: names_host && transport.template.scheme == Scheme::Https,
                max_requests: usize::try_from(max_requests).ok().filter(|n| *n > 0),
                breaker,
            };
            Some(compile_dynamic::compile(module, found).map_err(|e| e.within("dynamic_upstreams"))?)
        }
    };
    let balancing = config.load_balancing.clone().unwrap_or_default();
    let turns = turns_of(&config);
    let policy = match &balancing.selection_policy {
        Some(module) => policy(module, &turns).map_err(|e| e.within("selection_policy").within("load_balancing"))?,
        None => compile_upstreams::by_weights(&config.upstreams, &turns).unwrap_or(Policy::Random),
    };
    let rewrite = config
        .rewrite
        .as_ref()
        .map(Rewrite::compile)
        .transpose()
        .map_err(|(field, why)| CompileError::new("invalid-rewrite", why).within(field).within("rewrite"))?;
    Ok(Handler::Async(Box::new(Engine {
        retry: compile_retry::rules(&balancing, &config.upstreams, cx)?,
        cooldown: compile_retry::cooldown(&balancing),
        passive: health.passive.as_ref().map(passive),
        header_up: header_up(&headers)?,
        header_down: header_down(&headers)?,
        trusted_proxies: trusted(&config.trusted_proxies)?,
        compression: transport.compression,
        request_buffer: buffer(config.request_buffers),
        response_buffer: buffer(config.response_buffers),
        handle_response: response_handler::compile(&config.handle_response, cx)?,
        stream_rules: compile_stream::rules(&config)?,
        stream_timeout: config.stream_timeout.positive(),
        upstreams,
        dynamic,
        policy,
        rewrite,
    })))
}

fn passive(config: &PassiveHealth) -> Passive {
    Passive {
        fail_duration: config.fail_duration.positive().unwrap_or_default(),
        max_fails: usize::try_from(config.max_fails).ok().filter(|n| *n > 0).unwrap_or(1),
        statuses: config.unhealthy_status.clone().into(),
        latency: config.unhealthy_latency.positive(),
    }
}

/// What tells one list of upstreams from another: a round robin goes on where it was before a reload.
fn turns_of(config: &Config) -> String {
    let mut identity = config.upstreams.iter().map(|u| u.dial.as_str()).collect::<Vec<_>>().join(" ");
    if let Some(source) = &config.dynamic_upstreams {
        identity.push_str(&serde_json::to_string(source).unwrap_or_default());
    }
    identity
}

/// `dials` names the list whose turns a round robin counts.
fn policy(module: &Module, dials: &str) -> Result<Policy, CompileError> {
    let id = module_id(module, "policy");
    let config: PolicyConfig = read(module, "policy")?;
    let fallback = || match &config.fallback {
        Some(module) => policy(module, dials).map(Box::new).map_err(|e| e.within("fallback")),
        None => Ok(Box::new(Policy::Random)),
    };
    let missing = |field: &str| Err(CompileError::new("missing-option", format!("policy `{id}` needs `{field}`")));
    Ok(match id {
        "random" => Policy::Random,
        "random_choose" => match usize::try_from(config.choose) {
            Ok(0) => Policy::RandomChoose(2),
            Ok(n) if n >= 2 => Policy::RandomChoose(n),
            _ => return Err(CompileError::new("invalid-value", "`random_choose` needs at least 2").within("choose")),
        },
        "first" => Policy::First,
        "round_robin" => Policy::RoundRobin(Turn::adopt(dials)),
        "weighted_round_robin" => {
            let weights: Vec<u32> = config.weights.iter().filter_map(|w| u32::try_from(*w).ok()).collect();
            if weights.len() != config.weights.len() || (weights.len() > 1 && weights.iter().all(|w| *w == 0)) {
                return Err(CompileError::new("invalid-value", "weights are zero or more, one of them above zero")
                    .within("weights"));
            }
            Policy::WeightedRoundRobin { weights: weights.into(), turn: Turn::adopt(dials) }
        }
        "least_conn" => Policy::LeastConn,
        "peak_ewma" => Policy::PeakEwma,
        "sticky" => {
            let max_load = config.max_load.unwrap_or(sticky::DEFAULT_MAX_LOAD);
            if !(1.0..=100.0).contains(&max_load) {
                return Err(
                    CompileError::new("invalid-value", "`max_load` is a factor from 1 to 100").within("max_load")
                );
            }
            Policy::Sticky(Box::new(Sticky {
                bytes: usize::try_from(config.bytes).ok().filter(|n| *n > 0).unwrap_or(sticky::DEFAULT_BYTES),
                key: (!config.key.is_empty()).then(|| Template::parse(&config.key)),
                max_load,
                fallback: if config.fallback.is_some() { *fallback()? } else { Policy::LeastConn },
            }))
        }
        "ip_hash" => Policy::IpHash,
        "client_ip_hash" => Policy::ClientIpHash,
        "uri_hash" => Policy::UriHash,
        "query" if config.key.is_empty() => return missing("key"),
        "query" => Policy::Query { key: config.key.as_str().into(), fallback: fallback()? },
        "header" if config.field.is_empty() => return missing("field"),
        "header" => {
            let field = HeaderName::from_bytes(config.field.as_bytes()).map_err(|_| {
                CompileError::new("invalid-value", format!("`{}` is not a header field", config.field)).within("field")
            })?;
            Policy::Header { field, fallback: fallback()? }
        }
        "cookie" => {
            let name = if config.name.is_empty() { "lb".to_owned() } else { config.name.clone() };
            if !name.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b)) {
                return Err(CompileError::new("invalid-value", "this is not a cookie's name").within("name"));
            }
            let max_age = config.max_age.positive().map(|d| d.as_secs());
            Policy::Cookie(Box::new(Cookie { name, secret: config.secret.clone(), max_age, fallback: *fallback()? }))
        }
        other => {
            let error = CompileError::new("unknown-module", format!("there is no load balancing policy `{other}`"));
            return Err(error.help(format!("known: {}", POLICIES.join(", "))));
        }
    })
}

/// Whether operations settle what `Host` is.
pub(super) fn says_host(ops: Option<&HeaderOps>) -> bool {
    let Some(ops) = ops else { return false };
    ops.add.keys().chain(ops.set.keys()).chain(ops.replace.keys()).any(|name| name.eq_ignore_ascii_case("host"))
}

fn header_up(config: &HeadersConfig) -> Result<Option<CompiledHeaderOps>, CompileError> {
    let Some(ops) = &config.request else { return Ok(None) };
    let compiled = compile_ops(ops, "request")?;
    Ok((!compiled.is_empty()).then_some(compiled))
}

type HeaderDown = (CompiledHeaderOps, Option<CompiledResponseMatcher>);

fn header_down(config: &HeadersConfig) -> Result<Option<HeaderDown>, CompileError> {
    let Some(response) = &config.response else { return Ok(None) };
    let compiled = compile_ops(&response.ops, "response")?;
    let require = response.require.as_ref().map(ResponseMatcher::compile).transpose().map_err(|why| {
        CompileError::new("invalid-value", why.to_string()).within("require").within("response").within("headers")
    })?;
    Ok((!compiled.is_empty()).then_some((compiled, require)))
}

pub(super) fn compile_ops(ops: &HeaderOps, side: &str) -> Result<CompiledHeaderOps, CompileError> {
    ops.compile().map_err(|e| {
        let mut error = CompileError::new(e.code, e.message);
        error.pointer = e.pointer;
        error.within(side).within("headers")
    })
}

fn trusted(ranges: &[String]) -> Result<Box<[IpNet]>, CompileError> {
    ranges
        .iter()
        .enumerate()
        .map(|(i, text)| {
            let net = if text.contains('/') {
                text.parse().ok()
            } else {
                text.parse::<std::net::IpAddr>().ok().map(IpNet::from)
            };
            net.ok_or_else(|| {
                CompileError::new("invalid-value", format!("`{text}` is not an address or a range of addresses"))
                    .within(i)
                    .within("trusted_proxies")
            })
        })
        .collect()
}

fn buffer(size: i64) -> Option<Buffer> {
    match size {
        0 => None,
        n => Some(u64::try_from(n).map_or(Buffer::All, Buffer::Bytes)),
    }
}

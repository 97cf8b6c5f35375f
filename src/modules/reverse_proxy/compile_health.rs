//! Active health checks: from their options to one check for each upstream.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, Method, Uri};

use super::config::ActiveHealth as Config;
use crate::config::compile_cx::{CompileCx, CompileError};
use crate::http::placeholder::Template;
use crate::proxy::active_check::{ActiveCheck, Question};
use crate::proxy::health::{ActiveHealth, Rules};
use crate::proxy::{TransportTemplate, Upstream};

const INTERVAL: Duration = Duration::from_secs(30);
/// Shorter is a busy loop, not a check.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(10);
const TIMEOUT: Duration = Duration::from_secs(5);
/// Of a body that is looked at.
const MAX_BODY: usize = 1 << 20;
/// The upstream's address in `health_headers`.
const TARGET: &str = "{http.reverse_proxy.active.target_upstream}";
const NOT_MADE: &str = "health-check-not-made";

/// Gives every upstream its check, as far as it can be checked.
pub fn active(config: &Config, upstreams: &mut [Upstream], cx: &mut CompileCx<'_>) -> Result<(), CompileError> {
    if config.uri.is_empty() && config.path.is_empty() && config.port == 0 {
        let advice = CompileError::new(NOT_MADE, "without `health_uri` or `health_port` no health check is made")
            .help("add `health_uri /path`");
        cx.at("health_checks", |cx| cx.at("active", |cx| cx.advise(advice)));
        return Ok(());
    }
    let rules = Rules { passes: at_least_one(config.passes), fails: at_least_one(config.fails) };
    let interval = config.interval.positive().unwrap_or(INTERVAL).max(SHORTEST_INTERVAL);
    for (i, upstream) in upstreams.iter_mut().enumerate() {
        let Some(dial) = Template::parse(&upstream.name).as_static().map(str::to_owned) else {
            let message = format!("`{}` is not checked: its address is known only with a request", upstream.name);
            cx.at("upstreams", |cx| cx.at(i, |cx| cx.advise(CompileError::new(NOT_MADE, message))));
            continue;
        };
        let transport = Arc::clone(&upstream.transport);
        let address = checked_address(config, &dial)?;
        let place = transport
            .reach(&address)
            .map_err(|why| CompileError::new("invalid-upstream-address", format!("cannot check `{address}`: {why}")))?;
        // Headers may name the upstream, so each has a question of its own.
        let question = Question { own: upstream.own.header_up.clone(), ..question(config, &dial)? };
        let asked = identity(config, &transport, &upstream.identity, &address, &question);
        let state = ActiveHealth::adopt(&asked);
        let identity = format!(
            "{asked}\n{:?} {interval:?} {:?} {rules:?} {} {} {:?}",
            place.target.pool_id(),
            question.timeout,
            question.max_body,
            question.follow_redirects,
            transport.options.timeouts,
        );
        cx.background.push(Arc::new(ActiveCheck {
            upstream: upstream.name.clone(),
            place,
            transport,
            question: Arc::new(question),
            interval,
            rules,
            state: Arc::clone(&state),
            identity: identity.into(),
        }));
        upstream.state.tell_of_check(&state);
        upstream.active = Some(state);
    }
    Ok(())
}

fn at_least_one(n: i64) -> u32 {
    u32::try_from(n).unwrap_or(0).max(1)
}

/// Where the check of an upstream goes.
fn checked_address(config: &Config, dial: &str) -> Result<String, CompileError> {
    if !config.upstream.is_empty() {
        return Template::parse(&config.upstream).as_static().map(str::to_owned).ok_or_else(|| {
            CompileError::not_supported("a placeholder of the request in `health_upstream`").within("upstream")
        });
    }
    if config.port == 0 {
        return Ok(dial.to_owned());
    }
    if dial.starts_with("unix") {
        let message = format!("`{dial}` is a socket file and has no port to check");
        return Err(CompileError::new("invalid-upstream-address", message)
            .help("write `health_upstream host:port`")
            .within("port"));
    }
    let host = dial.rsplit_once(':').map_or(dial, |(host, _)| host);
    Ok(format!("{host}:{}", config.port))
}

fn question(config: &Config, dial: &str) -> Result<Question, CompileError> {
    let invalid = |field: &str, what: &str| CompileError::new("invalid-value", what.to_owned()).within(field);
    let method = if config.method.is_empty() { "GET" } else { &config.method };
    let headers = config.headers.iter().flat_map(|(name, values)| values.iter().map(move |value| (name, value)));
    Ok(Question {
        method: Method::from_bytes(method.as_bytes()).map_err(|_| invalid("method", "this is not a method"))?,
        uri: uri(config)?,
        own: None,
        headers: headers
            .map(|(name, value)| {
                let field = HeaderName::from_bytes(name.as_bytes())
                    .map_err(|_| invalid("headers", &format!("`{name}` is not a header field")))?;
                Ok((field, Template::parse(&value.replace(TARGET, dial))))
            })
            .collect::<Result<_, CompileError>>()?,
        body: Template::parse(&config.body),
        status: u16::try_from(config.expect_status).ok().filter(|status| *status > 0),
        pattern: (!config.expect_body.is_empty())
            .then(|| crate::http::regexp::compile(&config.expect_body))
            .transpose()
            .map_err(|e| CompileError::invalid_regexp(e).within("expect_body"))?,
        max_body: usize::try_from(config.max_size).ok().filter(|size| *size > 0).unwrap_or(MAX_BODY),
        follow_redirects: config.follow_redirects,
        timeout: config.timeout.positive().unwrap_or(TIMEOUT),
    })
}

/// Path and query; of a whole URL, these alone count.
fn uri(config: &Config) -> Result<Uri, CompileError> {
    let (text, field) = if config.uri.is_empty() { (&config.path, "path") } else { (&config.uri, "uri") };
    let text = text.split('#').next().unwrap_or_default();
    let absolute = text.starts_with('/') || text.contains("://");
    let text = if absolute { text.to_owned() } else { format!("/{text}") };
    let parsed = text.parse::<Uri>().ok().and_then(|uri| uri.into_parts().path_and_query);
    parsed
        .map(Uri::from)
        .ok_or_else(|| CompileError::new("invalid-value", "this is not a path with a query").within(field))
}

/// What is asked of whom: two checks with the same of it come to the same verdict.
fn identity(config: &Config, transport: &TransportTemplate, name: &str, address: &str, question: &Question) -> String {
    let mut out = format!(
        "{:?}://{name} {address} {} {} {} {}",
        transport.scheme, question.method, question.uri, config.expect_status, config.expect_body
    );
    let texts = question.headers.iter().map(|(name, value)| (name.as_str(), value)).chain([("", &question.body)]);
    for (field, value) in texts {
        let _ = write!(out, "\n{field}: {}", value.as_static().unwrap_or_else(|| value.source()));
    }
    out
}

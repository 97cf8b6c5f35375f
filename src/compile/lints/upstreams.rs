//! Advice about one `reverse_proxy`.

use serde_json::Value;

use crate::base::diagnostic::Diagnostic;
use crate::base::span::Span;

/// Header fields that carry an API key.
pub const KEY_HEADERS: [&str; 5] = ["authorization", "x-api-key", "api-key", "x-goog-api-key", "proxy-authorization"];

/// APIs that answer only to their own name.
const KNOWN_HOSTS: [&str; 12] = [
    "api.openai.com",
    "api.anthropic.com",
    "openrouter.ai",
    "generativelanguage.googleapis.com",
    "api.mistral.ai",
    "api.groq.com",
    "api.deepseek.com",
    "api.x.ai",
    "api.together.xyz",
    "api.fireworks.ai",
    "api.cohere.com",
    "api.perplexity.ai",
];

/// A reasoning model may think this long before its first byte, or between two.
const SLOW_MODEL_NANOS: i64 = 120_000_000_000;

/// `open`: callers from outside reach it without any check.
pub fn check(handler: &Value, open: bool, place: Option<Span>) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    let at = |d: Diagnostic| match place {
        Some(span) => d.at(span, ""),
        None => d,
    };
    let transport = handler.get("transport");
    let tls = transport.is_some_and(|t| t.get("tls").is_some());
    let dials = || {
        upstreams(handler).filter_map(move |u| {
            let scheme = u.get("scheme").and_then(Value::as_str);
            Some((u.get("dial")?.as_str()?, scheme.map_or(tls, |scheme| scheme == "https"), sets(u, "host")))
        })
    };
    let known = dials().map(|(dial, ..)| host_of(dial)).any(|host| is_known(&host));

    if let Some((dial, ..)) = dials().find(|(dial, tls, _)| !tls && dial.ends_with(":443")) {
        found.push(at(Diagnostic::warning("plain-port-443", format!("upstream `{dial}` is spoken to without TLS"))
            .help(format!("write `https://{}`, or `transport http {{ tls }}`; without a scheme the connection is plain, as in Caddy", host_of(dial)))));
    }
    if open && injects_key(handler) {
        found.push(at(Diagnostic::warning(
            "open-upstream-key",
            "anybody who reaches this site uses the upstream key it adds",
        )
        .help("put `auth_token {$TOKEN}` (or another access check) before it, or bind the site to 127.0.0.1")));
    }
    // Over TLS the proxy sends the upstream's name by itself.
    if !sets(handler, "host")
        && let Some(host) =
            dials().filter(|(_, tls, named)| !tls && !named).map(|(dial, ..)| host_of(dial)).find(|host| is_known(host))
    {
        found.push(at(Diagnostic::warning(
            "upstream-needs-host",
            format!("`{host}` answers only to its own name, and this sends the client's Host"),
        )
        .help(format!("add `header_up Host {host}`"))));
    }
    if tls || known || dials().any(|(d, ..)| d.ends_with(":443")) {
        for field in ["read_timeout", "response_header_timeout"] {
            let nanos = transport.and_then(|t| t.get(field)).and_then(Value::as_i64).unwrap_or(0);
            if nanos > 0 && nanos < SLOW_MODEL_NANOS {
                let seconds = nanos / 1_000_000_000;
                found.push(at(Diagnostic::warning(
                    "timeout-cuts-slow-models",
                    format!("`{field}` of {seconds} s cuts models that think longer than that before they answer"),
                )
                .help("leave it out: a client that leaves, or a connection that breaks, ends the request anyway")));
            }
        }
    }
    found
}

fn host_of(dial: &str) -> String {
    dial.rsplit_once(':').map_or(dial, |(host, _)| host).to_ascii_lowercase()
}

fn is_known(host: &str) -> bool {
    KNOWN_HOSTS.contains(&host) || host.ends_with(".openai.azure.com")
}

fn upstreams(handler: &Value) -> impl Iterator<Item = &Value> {
    handler.get("upstreams").and_then(Value::as_array).into_iter().flatten()
}

/// What a handler, or one upstream of it, sets in requests.
fn request_set(handler: &Value) -> impl Iterator<Item = (String, &Value)> {
    let request = handler.pointer("/headers/request");
    ["set", "add"]
        .into_iter()
        .filter_map(move |op| request.and_then(|r| r.get(op)).and_then(Value::as_object))
        .flatten()
        .map(|(name, value)| (name.to_ascii_lowercase(), value))
}

fn sets(handler: &Value, field: &str) -> bool {
    request_set(handler).any(|(name, _)| name == field)
}

/// A key of ours is added: a key field is set to something that is not the client's own.
fn injects_key(handler: &Value) -> bool {
    [handler].into_iter().chain(upstreams(handler)).flat_map(request_set).any(|(name, value)| {
        KEY_HEADERS.contains(&name.as_str())
            && value.as_array().into_iter().flatten().filter_map(Value::as_str).any(|v| !v.contains("{http.request."))
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::codes;
    use serde_json::{Value, json};

    fn warned(handler: Value) -> Vec<&'static str> {
        codes("127.0.0.1:80", json!([{"handle": [handler]}]))
    }

    #[test]
    fn port_443_without_tls_and_a_missing_host_are_told() {
        let handler = json!({"handler": "reverse_proxy", "upstreams": [{"dial": "api.openai.com:443"}]});
        assert_eq!(warned(handler), ["plain-port-443", "upstream-needs-host"]);
        let mended = json!({"handler": "reverse_proxy", "upstreams": [{"dial": "api.openai.com:443"}],
            "transport": {"protocol": "http", "tls": {}}, "headers": {"request": {"set": {"Host": ["api.openai.com"]}}}});
        assert!(warned(mended).is_empty());
        let named_by_itself = json!({"handler": "reverse_proxy", "upstreams": [{"dial": "api.openai.com:443"}],
            "transport": {"protocol": "http", "tls": {}}});
        assert!(warned(named_by_itself).is_empty());
    }

    #[test]
    fn short_timeouts_are_told_for_apis_only() {
        let handler = |dial: &str, nanos: i64| {
            json!({"handler": "reverse_proxy", "upstreams": [{"dial": dial}],
                   "headers": {"request": {"set": {"Host": ["x"]}}},
                   "transport": {"protocol": "http", "tls": {}, "read_timeout": nanos}})
        };
        assert_eq!(warned(handler("api.openai.com:443", 60_000_000_000)), ["timeout-cuts-slow-models"]);
        assert!(warned(handler("api.openai.com:443", 600_000_000_000)).is_empty());
        let plain = json!({"handler": "reverse_proxy", "upstreams": [{"dial": "app:3000"}],
                           "transport": {"protocol": "http", "read_timeout": 60_000_000_000_i64}});
        assert!(warned(plain).is_empty());
    }

    #[test]
    fn an_upstream_is_looked_at_with_its_own_settings() {
        let handler = |upstream: Value| json!({"handler": "reverse_proxy", "upstreams": [upstream]});
        let plain = json!({"dial": "api.openai.com:443", "scheme": "http"});
        assert_eq!(warned(handler(plain)), ["plain-port-443", "upstream-needs-host"]);
        assert!(warned(handler(json!({"dial": "api.openai.com:443", "scheme": "https"}))).is_empty());
        let key = json!({"dial": "app:80", "headers": {"request": {"set": {"Authorization": ["Bearer {env.K}"]}}}});
        assert_eq!(codes(":80", json!([{"handle": [handler(key)]}])), ["open-upstream-key"]);
    }

    #[test]
    fn the_clients_own_key_passed_on_is_not_a_key_of_ours() {
        let handler = json!({"handler": "reverse_proxy", "upstreams": [{"dial": "app:80"}],
            "headers": {"request": {"set": {"X-Api-Key": ["{http.request.header.Authorization}"]}}}});
        assert!(codes(":80", json!([{"handle": [handler]}])).is_empty());
    }
}

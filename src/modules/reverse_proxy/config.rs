//! The typed form of the `reverse_proxy` handler; its serde form is Caddy's JSON.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::config::nanos::Nanos;
use crate::config::response_handler::ResponseHandler;
use crate::config::types::{MatcherSet, Module, is_false, is_zero};
use crate::http::headers::{HeaderOps, HeadersConfig};
use crate::http::rewrite::RewriteConfig;

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// `{"protocol": "http", …}`; absent = plain HTTP with defaults.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub transport: Option<Module>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub circuit_breaker: Option<Module>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub load_balancing: Option<LoadBalancing>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health_checks: Option<HealthChecks>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub upstreams: Vec<Upstream>,
    /// `{"source": "a" | "srv" | "multi", …}`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dynamic_upstreams: Option<Module>,
    #[serde(skip_serializing_if = "Nanos::is_zero")]
    pub flush_interval: Nanos,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub trusted_proxies: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub headers: Option<HeadersConfig>,
    /// Bytes; -1 = all.
    #[serde(skip_serializing_if = "is_zero")]
    pub request_buffers: i64,
    /// Bytes; -1 = all.
    #[serde(skip_serializing_if = "is_zero")]
    pub response_buffers: i64,
    #[serde(skip_serializing_if = "Nanos::is_zero")]
    pub stream_timeout: Nanos,
    #[serde(skip_serializing_if = "Nanos::is_zero")]
    pub stream_close_delay: Nanos,
    #[serde(skip_serializing_if = "is_zero")]
    pub stream_buffer_size: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rewrite: Option<RewriteConfig>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub handle_response: Vec<ResponseHandler>,
    #[serde(skip_serializing_if = "is_false")]
    pub verbose_logs: bool,
    /// Our own: a silent stream of events is kept alive after so long.
    #[serde(skip_serializing_if = "Nanos::is_zero")]
    pub sse_keepalive: Nanos,
    /// Our own: false = a stream that breaks off is cut, and not ended by an error event.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sse_errors: Option<bool>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Upstream {
    /// `host:port`, `network/host:port` or `unix/path`, perhaps with placeholders.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub dial: String,
    #[serde(skip_serializing_if = "is_zero")]
    pub max_requests: i64,
    /// `http`, `https` or `h2c` where the upstreams differ; empty = as the transport says. Not Caddy's, as all below.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub scheme: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub headers: Option<UpstreamHeaders>,
    /// Its share of the turns; 0 = 1.
    #[serde(skip_serializing_if = "is_zero")]
    pub weight: i64,
    /// Patterns of the models it is there for; none = all requests.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub models: Vec<String>,
    /// false = it refuses to be asked for the counts of a stream.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub include_usage: Option<bool>,
}

/// Operations on what goes to one upstream, after the handler's own.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UpstreamHeaders {
    pub request: HeaderOps,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LoadBalancing {
    /// `{"policy": …}`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selection_policy: Option<Module>,
    #[serde(skip_serializing_if = "is_zero")]
    pub retries: i64,
    #[serde(skip_serializing_if = "Nanos::is_zero")]
    pub try_duration: Nanos,
    #[serde(skip_serializing_if = "Nanos::is_zero")]
    pub try_interval: Nanos,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub retry_match: Vec<MatcherSet>,
    /// Ours: statuses after which a request of any method is tried again.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub retry_on: Vec<u16>,
    /// Ours: absent = on with `retry_on` or an upstream in block form.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_exclude_failed: Option<bool>,
    /// Ours: the longest time that an upstream is left alone; zero = never. Absent: see `retry_exclude_failed`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cooldown: Option<Nanos>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HealthChecks {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub active: Option<ActiveHealth>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub passive: Option<PassiveHealth>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ActiveHealth {
    /// Old name of `uri`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub path: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub uri: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub upstream: String,
    #[serde(skip_serializing_if = "is_zero")]
    pub port: i64,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, Vec<String>>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub method: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub body: String,
    #[serde(skip_serializing_if = "is_false")]
    pub follow_redirects: bool,
    #[serde(skip_serializing_if = "Nanos::is_zero")]
    pub interval: Nanos,
    #[serde(skip_serializing_if = "Nanos::is_zero")]
    pub timeout: Nanos,
    #[serde(skip_serializing_if = "is_zero")]
    pub passes: i64,
    #[serde(skip_serializing_if = "is_zero")]
    pub fails: i64,
    #[serde(skip_serializing_if = "is_zero")]
    pub max_size: i64,
    #[serde(skip_serializing_if = "is_zero")]
    pub expect_status: i64,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub expect_body: String,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PassiveHealth {
    #[serde(skip_serializing_if = "Nanos::is_zero")]
    pub fail_duration: Nanos,
    #[serde(skip_serializing_if = "is_zero")]
    pub max_fails: i64,
    #[serde(skip_serializing_if = "is_zero")]
    pub unhealthy_request_count: i64,
    /// Codes, or a single digit for a class.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unhealthy_status: Vec<u16>,
    #[serde(skip_serializing_if = "Nanos::is_zero")]
    pub unhealthy_latency: Nanos,
}

/// `{"type": "window", …}`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CircuitBreaker {
    /// Failures in a row; absent = 5, or none where there is a ratio.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failures: Option<i64>,
    /// Part of the requests, up to 1.
    #[serde(skip_serializing_if = "is_no_part")]
    pub ratio: f64,
    #[serde(skip_serializing_if = "is_zero")]
    pub min_requests: i64,
    #[serde(skip_serializing_if = "Nanos::is_zero")]
    pub window: Nanos,
    #[serde(skip_serializing_if = "Nanos::is_zero")]
    pub open: Nanos,
    #[serde(skip_serializing_if = "is_zero")]
    pub probes: i64,
    /// Codes, or a single digit for a class.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub status: Vec<u16>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_no_part(ratio: &f64) -> bool {
    *ratio == 0.0
}

/// `{"protocol": "http", …}`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HttpTransport {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resolver: Option<Resolver>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsOptions>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep_alive: Option<KeepAlive>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compression: Option<bool>,
    #[serde(skip_serializing_if = "is_zero")]
    pub max_conns_per_host: i64,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub proxy_protocol: String,
    /// Old name of `network_proxy url`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub forward_proxy_url: String,
    #[serde(skip_serializing_if = "Nanos::is_zero")]
    pub dial_timeout: Nanos,
    #[serde(skip_serializing_if = "Nanos::is_zero")]
    pub dial_fallback_delay: Nanos,
    #[serde(skip_serializing_if = "Nanos::is_zero")]
    pub response_header_timeout: Nanos,
    #[serde(skip_serializing_if = "Nanos::is_zero")]
    pub expect_continue_timeout: Nanos,
    #[serde(skip_serializing_if = "is_zero")]
    pub max_response_header_size: i64,
    #[serde(skip_serializing_if = "is_zero")]
    pub write_buffer_size: i64,
    #[serde(skip_serializing_if = "is_zero")]
    pub read_buffer_size: i64,
    #[serde(skip_serializing_if = "Nanos::is_zero")]
    pub read_timeout: Nanos,
    #[serde(skip_serializing_if = "Nanos::is_zero")]
    pub write_timeout: Nanos,
    /// Absent = 1.1 and 2.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub versions: Vec<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub local_address: String,
    /// `{"from": "url", "url": …}` or `{"from": "none"}`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network_proxy: Option<Module>,
    /// Our own: from the call to the last byte of the response.
    #[serde(skip_serializing_if = "Nanos::is_zero")]
    pub total_timeout: Nanos,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Resolver {
    pub addresses: Vec<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct KeepAlive {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    #[serde(skip_serializing_if = "Nanos::is_zero")]
    pub probe_interval: Nanos,
    #[serde(skip_serializing_if = "is_zero")]
    pub max_idle_conns: i64,
    #[serde(skip_serializing_if = "is_zero")]
    pub max_idle_conns_per_host: i64,
    #[serde(skip_serializing_if = "Nanos::is_zero")]
    pub idle_timeout: Nanos,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TlsOptions {
    /// `{"provider": "file", …}`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca: Option<Module>,
    /// Old form: base64 DER certificates.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub root_ca_pool: Vec<String>,
    /// Old form of `ca` with provider `file`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub root_ca_pem_files: Vec<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub client_certificate_file: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub client_certificate_key_file: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub client_certificate_automate: String,
    #[serde(skip_serializing_if = "is_false")]
    pub insecure_skip_verify: bool,
    #[serde(skip_serializing_if = "Nanos::is_zero")]
    pub handshake_timeout: Nanos,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub server_name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub renegotiation: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub except_ports: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub curves: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub encrypted_client_hello: Option<Value>,
}

/// `{"protocol": "fastcgi", …}`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FastcgiTransport {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub root: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub split_path: Vec<String>,
    #[serde(skip_serializing_if = "is_false")]
    pub resolve_root_symlink: bool,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Nanos::is_zero")]
    pub dial_timeout: Nanos,
    #[serde(skip_serializing_if = "Nanos::is_zero")]
    pub read_timeout: Nanos,
    #[serde(skip_serializing_if = "Nanos::is_zero")]
    pub write_timeout: Nanos,
    #[serde(skip_serializing_if = "is_false")]
    pub capture_stderr: bool,
}

/// `{"policy": …}` of any kind; which fields mean something depends on the policy.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Policy {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub weights: Vec<i64>,
    #[serde(skip_serializing_if = "is_zero")]
    pub choose: i64,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub key: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub field: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub secret: String,
    #[serde(skip_serializing_if = "Nanos::is_zero")]
    pub max_age: Nanos,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fallback: Option<Module>,
    /// Of `sticky`: bytes of the prompt that count; 0 = the default.
    #[serde(skip_serializing_if = "is_zero")]
    pub bytes: i64,
    /// Of `sticky`: load above the mean that an upstream may have, as a factor.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_load: Option<f64>,
}

//! The typed configuration. Its serde form is Caddy's JSON; field order is that of Caddy's structs, so that `adapt`
//! prints what `caddy adapt` prints.
//!
//! Handlers, matchers and other modules are kept as JSON objects (`Module`, `MatcherSet`): the feature's own file owns
//! their type, makes the object when a directive is parsed and reads it back, refusing unknown fields, when it is
//! compiled. `Option` is used wherever absent and zero differ.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// A module object such as `{"handler": "static_response", …}`; keys sorted, as Caddy prints them.
pub type Module = Map<String, Value>;

/// Matchers by kind; all must match.
pub type MatcherSet = Map<String, Value>;

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub admin: Option<Admin>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logging: Option<Logging>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub storage: Option<Value>,
    #[serde(skip_serializing_if = "Apps::is_empty")]
    pub apps: Apps,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Apps {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub events: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpApp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pki: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsApp>,
    /// Apps we do not know: kept, so that they can be refused by name.
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

impl Apps {
    fn is_empty(&self) -> bool {
        self == &Self::default()
    }
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Admin {
    #[serde(skip_serializing_if = "is_false")]
    pub disabled: bool,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub listen: String,
    #[serde(skip_serializing_if = "is_false")]
    pub enforce_origin: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub origins: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub identity: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remote: Option<Value>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Logging {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sink: Option<Value>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub logs: BTreeMap<String, Log>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// `{"output": "file", …}`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub writer: Option<Module>,
    /// `{"format": "json", …}`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub encoder: Option<Module>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub core: Option<Module>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub level: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sampling: Option<Value>,
    #[serde(skip_serializing_if = "is_false")]
    pub with_caller: bool,
    #[serde(skip_serializing_if = "is_zero")]
    pub with_caller_skip: i64,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub with_stacktrace: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub include: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub exclude: Vec<String>,
}

/// Durations are nanoseconds in JSON (integers), or Go duration strings on input.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HttpApp {
    #[serde(skip_serializing_if = "is_zero_u16")]
    pub http_port: u16,
    #[serde(skip_serializing_if = "is_zero_u16")]
    pub https_port: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grace_period: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shutdown_delay: Option<Value>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub servers: BTreeMap<String, Server>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metrics: Option<Value>,
    /// Our own: the handler `usage` in front of all sites.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage: Option<Module>,
    /// Our own: lines of prices, for all sites.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub prices: Vec<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Server {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub listen: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub listener_wrappers: Vec<Module>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub packet_conn_wrappers: Vec<Module>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub read_timeout: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub read_header_timeout: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub write_timeout: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle_timeout: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keepalive_interval: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keepalive_idle: Option<Value>,
    #[serde(skip_serializing_if = "is_zero")]
    pub keepalive_count: i64,
    #[serde(skip_serializing_if = "is_zero")]
    pub max_header_bytes: i64,
    #[serde(skip_serializing_if = "is_false")]
    pub enable_full_duplex: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<Route>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub errors: Option<ErrorRoutes>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub named_routes: BTreeMap<String, Route>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tls_connection_policies: Vec<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub automatic_https: Option<AutoHttps>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub strict_sni_host: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trusted_proxies: Option<Module>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub client_ip_headers: Vec<String>,
    /// Request headers with an underscore in their name that are let through (all others are dropped).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub expected_underscore_headers: Vec<String>,
    #[serde(skip_serializing_if = "is_zero")]
    pub trusted_proxies_strict: i64,
    #[serde(skip_serializing_if = "is_false")]
    pub trusted_proxies_unix: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logs: Option<ServerLogs>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub protocols: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub listen_protocols: Vec<Option<Vec<String>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metrics: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trace: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allow_0rtt: Option<bool>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ErrorRoutes {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<Route>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AutoHttps {
    #[serde(skip_serializing_if = "is_false")]
    pub disable: bool,
    #[serde(skip_serializing_if = "is_false")]
    pub disable_redirects: bool,
    #[serde(skip_serializing_if = "is_false")]
    pub disable_certificates: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub skip: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub skip_certificates: Vec<String>,
    #[serde(skip_serializing_if = "is_false")]
    pub ignore_loaded_certificates: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ServerLogs {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub default_logger_name: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub logger_names: BTreeMap<String, Value>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub skip_hosts: Vec<String>,
    #[serde(skip_serializing_if = "is_false")]
    pub skip_unmapped_hosts: bool,
    #[serde(skip_serializing_if = "is_false")]
    pub should_log_credentials: bool,
    #[serde(skip_serializing_if = "is_false")]
    pub trace: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Route {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub group: String,
    #[serde(rename = "match", skip_serializing_if = "Vec::is_empty")]
    pub matcher_sets: Vec<MatcherSet>,
    #[serde(rename = "handle", skip_serializing_if = "Vec::is_empty")]
    pub handlers: Vec<Module>,
    #[serde(skip_serializing_if = "is_false")]
    pub terminal: bool,
}

/// `{"handler": "subroute"}`: the one handler that the language itself makes everywhere.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Subroute {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<Route>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub errors: Option<ErrorRoutes>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TlsApp {
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub certificates: Map<String, Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub automation: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session_tickets: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache: Option<Value>,
    #[serde(skip_serializing_if = "is_false")]
    pub disable_ocsp_stapling: bool,
    #[serde(skip_serializing_if = "is_false")]
    pub disable_storage_check: bool,
    #[serde(skip_serializing_if = "is_false")]
    pub disable_storage_clean: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dns: Option<Value>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub resolvers: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub encrypted_client_hello: Option<Value>,
}

/// Makes a module object from its typed form, with its id under `key` (`handler`, `output`, `protocol`, …).
#[must_use]
pub fn module(key: &str, id: &str, typed: &impl Serialize) -> Module {
    let mut map = match serde_json::to_value(typed) {
        Ok(Value::Object(map)) => map,
        _ => Map::new(),
    };
    map.insert(key.to_owned(), Value::String(id.to_owned()));
    map
}

/// A handler object.
#[must_use]
pub fn handler(id: &str, typed: &impl Serialize) -> Module {
    module("handler", id, typed)
}

/// The id of a module object, under `key`.
#[must_use]
pub fn module_id<'a>(module: &'a Module, key: &str) -> &'a str {
    module.get(key).and_then(Value::as_str).unwrap_or("")
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde's signature
pub fn is_false(b: &bool) -> bool {
    !*b
}

#[allow(clippy::trivially_copy_pass_by_ref)]
pub fn is_zero(n: &i64) -> bool {
    *n == 0
}

#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_zero_u16(n: &u16) -> bool {
    *n == 0
}

//! Providers of the DNS challenge, as they stand in `challenges.dns.provider` and in `apps.tls.dns`: `{"name": …}`.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::nanos::Nanos;
use super::types::Module;

/// Every provider's name.
pub const NAMES: &[&str] = &["exec", "cloudflare"];

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "snake_case")]
pub enum DnsProvider {
    Exec(ExecProvider),
    Cloudflare(CloudflareProvider),
}

/// A program that sets and clears the record.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ExecProvider {
    /// A path, or a name that is looked for in `PATH`.
    pub command: String,
    /// What it is given before its own arguments; placeholders are filled in.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
    /// How long one run may take; zero = a minute.
    #[serde(skip_serializing_if = "Nanos::is_zero")]
    pub timeout: Nanos,
}

/// Cloudflare's API, version 4. The names are those of Caddy's plugin; `endpoint` is ours.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CloudflareProvider {
    /// May edit the zone's records; a placeholder such as `{env.CF_API_TOKEN}` is filled in.
    pub api_token: String,
    /// May read the zones, where `api_token` may not.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub zone_token: String,
    /// Where the API is; empty = Cloudflare's.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub endpoint: String,
}

/// Tokens are not shown.
impl fmt::Debug for CloudflareProvider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CloudflareProvider").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

impl DnsProvider {
    /// # Errors
    /// What is wrong with the object; no value of it is named.
    pub fn read(module: &Module) -> Result<Self, String> {
        let value = serde_json::Value::Object(module.clone());
        // The library's own text could show a value.
        serde_json::from_value(value).map_err(|_| {
            let name = module.get("name").and_then(serde_json::Value::as_str).unwrap_or_default();
            match name {
                "exec" => "the provider `exec` has the fields `command`, `args` and `timeout`".to_owned(),
                "cloudflare" => {
                    "the provider `cloudflare` has the fields `api_token`, `zone_token` and `endpoint`".to_owned()
                }
                other => format!("there is no DNS provider `{other}`"),
            }
        })
    }

    #[must_use]
    pub fn to_module(&self) -> Module {
        match serde_json::to_value(self) {
            Ok(serde_json::Value::Object(module)) => module,
            _ => Module::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn module(value: Value) -> Module {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn the_json_is_that_of_the_plugin() {
        let cloudflare = module(json!({"name": "cloudflare", "api_token": "t", "zone_token": "z"}));
        let read = DnsProvider::read(&cloudflare).unwrap();
        assert_eq!(read.to_module(), cloudflare);
        assert!(!format!("{read:?}").contains("\"t\""), "{read:?}");
        let exec = module(json!({"name": "exec", "command": "/bin/dns", "args": ["a"]}));
        assert_eq!(DnsProvider::read(&exec).unwrap().to_module(), exec);
    }

    #[test]
    fn what_does_not_fit_is_refused_without_its_values() {
        for (value, part) in [
            (json!({"name": "cloudflare", "api_tokn": "secret"}), "api_token"),
            (json!({"name": "exec", "command": 5}), "command"),
            (json!({"name": "route53"}), "route53"),
        ] {
            let error = DnsProvider::read(&module(value)).unwrap_err();
            assert!(error.contains(part) && !error.contains("secret"), "{error}");
        }
    }
}

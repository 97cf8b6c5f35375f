//! The HTTP and HTTPS ports of the file, as words, since keys are compared with them as written.

use std::collections::BTreeMap;

use serde_json::Value;

#[derive(Debug, Clone)]
pub struct Ports {
    pub http: String,
    pub https: String,
}

impl Default for Ports {
    fn default() -> Self {
        Self { http: "80".to_owned(), https: "443".to_owned() }
    }
}

impl Ports {
    #[must_use]
    pub fn from_options(options: &BTreeMap<String, Value>) -> Self {
        let port = |name: &str| options.get(name).and_then(Value::as_u64).map(|n| n.to_string());
        let default = Self::default();
        Self { http: port("http_port").unwrap_or(default.http), https: port("https_port").unwrap_or(default.https) }
    }
}

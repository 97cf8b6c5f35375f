//! Global options: the lines of the options block into `FileCx::options`.
//!
//! The parsed forms that the rest of the adapter reads, by option name:
//!
//! | option | form |
//! |---|---|
//! | `http_port`, `https_port` | number |
//! | `auto_https` | array of strings |
//! | `default_sni`, `fallback_sni` | string |
//! | `default_bind` | array of `{"addresses": [..], "protocols": [..]}` |
//! | `log` | array of `{"name": NAME, "log": types::Log}`; `log` absent when the block is empty |
//! | `debug` | `true` |
//! | `grace_period`, `shutdown_delay` | nanoseconds |
//! | `metrics` | object |
//! | `admin` | `types::Admin` |
//! | `persist_config` | `"off"` |
//! | `storage` | module object |
//! | `app:NAME` | a whole app, put under `apps.NAME` |
//!
//! `order` changes `FileCx::order` at once.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::base::diagnostic::Diagnostic;
use crate::config::directive_cx::FileCx;
use crate::config::types::Server;
use crate::syntax::tree::Node;

/// Reads all lines of the options block; every wrong line is reported.
pub fn parse(nodes: &[Node], cx: &mut FileCx<'_>) {
    for node in nodes {
        if node.name() == "order" {
            if let Err(diagnostic) = super::order_option::apply(node, cx) {
                cx.diagnostics.push(*diagnostic);
            }
            continue;
        }
        cx.diagnostics.push(
            Diagnostic::error("unknown-option", format!("there is no global option `{}`", node.name.shown()))
                .at(node.name.span, ""),
        );
    }
}

/// Applies the `servers` options to the finished servers.
pub fn apply_servers(_servers: &mut BTreeMap<String, Server>, _cx: &mut FileCx<'_>) {}

/// The string value of an option; empty when it is not set.
#[must_use]
pub fn string<'o>(options: &'o BTreeMap<String, Value>, name: &str) -> &'o str {
    options.get(name).and_then(Value::as_str).unwrap_or("")
}

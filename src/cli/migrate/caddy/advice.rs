//! What is to be known about a directive or option that runs, and the nearest way for one that does not.

use crate::base::diagnostic::Diagnostic;
use crate::syntax::tree::Node;

/// Directives and options whose blocks hold lines of known names. Other blocks hold user names, hashes, header values.
const HOLD_LINES: &[&str] = &[
    "abort",
    "acme_server",
    "admin",
    "bind",
    "client_auth",
    "copy_response",
    "copy_response_headers",
    "default_bind",
    "dynamic",
    "encode",
    "file_server",
    "format",
    "forward_auth",
    "get_certificate",
    "handle_response",
    "intercept",
    "issuer",
    "keepalive",
    "listener_wrappers",
    "log",
    "on_demand_tls",
    "output",
    "php_fastcgi",
    "pki",
    "rate_limit",
    "request_body",
    "reverse_proxy",
    "sampling",
    "servers",
    "storage",
    "timeouts",
    "tls",
    "transport",
    "trust_pool",
    "zone",
];

/// Directives whose blocks hold directives.
const HOLD_ROUTES: &[&str] = &["handle", "handle_path", "handle_errors", "handle_response", "route"];

/// What changes no answer when it is left out.
const DISPENSABLE: &[(&[&str], &str)] = &[
    (&["admin"], "the control socket takes the place of the admin API: `llmproxy reload`, `stop`, `status`"),
    (&["push"], "no client takes pushes any more"),
    (&["tracing"], "no traces are sent"),
    (&["metrics"], "no metrics are gathered"),
    (&["servers", "metrics"], "no metrics are gathered"),
];

/// Plugins that are met often, and what comes nearest.
const PLUGINS: &[(&[&str], &str)] = &[
    (&["cache", "http_cache", "souin"], "answers are not cached in this version"),
    (
        &["authenticate", "authorize", "authp", "security", "jwtauth", "jwt", "oauth2"],
        "`jwt_auth` checks tokens of an issuer, `forward_auth` asks a login service (Authelia, Authentik, oauth2-proxy)",
    ),
    (
        &["crowdsec", "coraza_waf", "appsec", "waf", "defender"],
        "not in this version: keep it in front, or refuse addresses with the matcher `remote_ip`",
    ),
    (
        &["php", "php_server", "frankenphp", "mercure", "vulcain"],
        "leave it to the program that runs it, and send requests there with `reverse_proxy`",
    ),
    (&["forward_proxy"], "llmproxy is no forward proxy: keep Caddy for it, on a port of its own"),
    (&["layer4"], "llmproxy speaks HTTP alone: keep Caddy or haproxy for other protocols"),
    (&["dynamic_dns"], "leave the address records to a program of their own (ddclient, a cron job)"),
    (&["replace", "replace_response", "transform"], "bodies are not rewritten in this version"),
    (
        &["webdav", "cgi", "exec", "git", "upload", "s3proxy"],
        "serve it by a program of its own, behind `reverse_proxy`",
    ),
    (&["geoip", "maxmind_geolocation", "geo"], "not in this version: the matcher `remote_ip` knows addresses"),
];

/// What a refusal speaks of, and what comes nearest.
const WAYS: &[(&str, &str)] = &[
    ("`file_server`", "serve files by a program of their own, behind `reverse_proxy`, or a short text with `respond`"),
    ("`templates`", "`respond` takes placeholders"),
    ("`push`", "leave it out: no client takes pushes any more"),
    ("`metrics`", "not in this version; the access log counts, and `llmproxy status` tells what runs"),
    ("`tracing`", "leave it out; the access log has the request id"),
    ("`php_fastcgi`", "leave PHP to a program that speaks HTTP, behind `reverse_proxy`"),
    ("FastCGI", "leave PHP to a program that speaks HTTP, behind `reverse_proxy`"),
    ("active health check", "`fail_duration` and `max_fails` take an upstream that fails out of turn"),
    ("dynamic upstreams", "name the upstreams; a name is resolved anew for each connection"),
    ("`expression`", "write it with the other matchers: `path`, `method`, `header`, `not` and the rest"),
    ("`url_pattern`", "`path` and `path_regexp`"),
    ("HTTP/3", "`protocols h1 h2`"),
    ("the `events` option", "leave it out, and watch the log"),
    ("log output `net`", "write a file or standard error, and let journald, vector or the like carry it on"),
    ("journald", "`output stderr`: systemd hands it to the journal"),
    ("storage module", "one folder on a network file system, `storage file_system DIR`"),
    ("certificate format", "`tls CERT KEY`, both PEM"),
    ("roll_local_time", "leave it out: rolled files are named by UTC"),
    ("a lifetime asked of the CA", "leave it out: the CA's own is taken"),
    ("an intermediate given as files", "leave it out: the intermediate is made from the root"),
    ("ech", "leave it out: the server's name is seen in the handshake"),
    ("DNS provider", "`dns exec PROGRAM` runs a program that sets and clears the record"),
];

/// Whether the block of a directive or option holds lines whose names may be told.
pub fn holds_lines(name: &str) -> bool {
    HOLD_LINES.contains(&name) || holds_routes(name)
}

/// Whether the block of a directive holds directives.
pub fn holds_routes(name: &str) -> bool {
    HOLD_ROUTES.contains(&name)
}

/// Why a refused line can be left out without changing an answer; `None` where it cannot.
pub fn dispensable(names: &[&str]) -> Option<&'static str> {
    let inner = names.last().filter(|name| matches!(**name, "push" | "tracing"));
    let named = |path: &[&str]| path == names || inner.is_some_and(|name| path == [*name]);
    DISPENSABLE.iter().find(|(path, _)| named(path)).map(|(_, why)| *why)
}

/// What there is to know about a line that runs.
pub fn note(names: &[&str], node: &Node) -> Option<&'static str> {
    let has = |words: &[&str]| node.args.iter().any(|word| words.contains(&word.text()));
    Some(match names {
        ["admin"] if !node.args.is_empty() && !has(&["off"]) => {
            "it answers `GET /reverse_proxy/upstreams` and `GET /metrics`, and nothing else; `llmproxy reload`, `stop` and `status` speak over \
             the control socket"
        }
        ["persist_config"] => "nothing is kept beside the file anyway: what runs is what the file says",
        ["storage"] => {
            "the same folder in the same layout: the user that runs llmproxy must be able to read and write it"
        }
        ["servers", "protocols"] if has(&["h3"]) => "HTTP/3 is not offered; HTTP/1.1 and HTTP/2 are",
        ["tls", "protocols"] if has(&["tls1.0", "tls1.1"]) => "TLS 1.2 is the least that is spoken",
        ["tls", ..] if names.len() == 1 && files(node) => {
            "the user that runs llmproxy must be able to read both files; a change of them is taken over at once"
        }
        [.., "log", "output"] if has(&["file"]) => {
            "the user that runs llmproxy must be able to write there; the systemd unit lets it write /var/log/llmproxy"
        }
        [.., "rate_limit"] => {
            "counted as the plugin counts, by this machine alone; without an `order` it runs ahead of access control, and \
             zones that ask who the caller is behind it"
        }
        [.., "flush_interval"] => "nothing is left for it to do: every piece is passed on as it comes",
        [.., "keepalive_idle_conns_per_host"] => "counted for each worker, of which there is one per core",
        _ => return None,
    })
}

/// `tls CERT KEY`.
fn files(node: &Node) -> bool {
    node.args.len() == 2
}

/// The nearest way for what is refused.
pub fn way(refused: &Diagnostic) -> Option<&'static str> {
    if matches!(refused.code, "unknown-directive" | "unknown-option") {
        // The message names it, also where another line (`order`) speaks of it.
        let name = refused.message.split('`').nth(1).unwrap_or_default();
        let plugin = PLUGINS.iter().find(|(names, _)| names.contains(&name)).map(|(_, way)| *way);
        let unknown = "neither Caddy's nor ours: a plugin's, and llmproxy has no plugins";
        return plugin.or_else(|| refused.replacement.is_none().then_some(unknown));
    }
    if refused.code == "unknown-module" && refused.message.contains("DNS") {
        return Some("`dns exec PROGRAM` runs a program that sets and clears the record");
    }
    if !matches!(refused.code, "not-supported-yet" | "no-certificate") || refused.help.is_some() {
        return None;
    }
    WAYS.iter().find(|(what, _)| refused.message.contains(what)).map(|(_, way)| *way)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::modules::REGISTRY;

    /// A directive that llmproxy learns must leave the table of plugins.
    #[test]
    fn no_plugin_of_the_table_is_a_directive_of_ours() {
        let known: Vec<&str> =
            PLUGINS.iter().flat_map(|(names, _)| *names).copied().filter(|n| REGISTRY.directive(n).is_some()).collect();
        assert!(known.is_empty(), "{known:?}");
    }

    #[test]
    fn only_what_changes_no_answer_is_left_out() {
        assert!(dispensable(&["admin"]).is_some() && dispensable(&["handle", "push"]).is_some());
        for names in [&["handle", "admin"][..], &["file_server"], &["rate_limit"], &["handle", "metrics"], &[]] {
            assert!(dispensable(names).is_none(), "{names:?}");
        }
    }
}

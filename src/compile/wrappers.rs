//! What stands between a listening socket and HTTP: the `listener_wrappers` of a server, in their order around TLS.

use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use serde::Deserialize;
use serde_json::Value;

use crate::config::compile_cx::{CompileCx, CompileError, read};
use crate::config::duration::duration_or;
use crate::config::types::{Module, Server, module_id};
use crate::http::ip_range::PRIVATE_RANGES;

/// Longest that a PROXY header is waited for, unless told otherwise (Caddy's).
const TIMEOUT: Duration = Duration::from_secs(5);

/// The wrappers of a server. Both lists are empty for nearly all.
#[derive(Debug, Clone, Default)]
pub struct Wrappers {
    /// On the bare connection.
    pub before_tls: Vec<Wrapper>,
    /// On what TLS carries, or on the bare connection where there is no TLS.
    pub after_tls: Vec<Wrapper>,
}

#[derive(Debug, Clone)]
pub enum Wrapper {
    ProxyProtocol(ProxyProtocol),
    HttpRedirect {
        /// Longest request head in bytes; `None` = the server's limit.
        max_head: Option<usize>,
    },
}

/// Whose PROXY header is believed.
#[derive(Debug, Clone, Default)]
pub struct ProxyProtocol {
    /// Longest that the header is waited for; `None` = as long as the first request may take.
    pub timeout: Option<Duration>,
    /// Peers whose header is used.
    pub allow: Vec<IpNet>,
    /// Peers that may not send one; goes before `allow`.
    pub deny: Vec<IpNet>,
    /// For all others.
    pub fallback: Policy,
}

/// What to do with the PROXY header of a peer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Policy {
    /// Read it, do not believe it.
    #[default]
    Ignore,
    /// Believe it if there is one.
    Use,
    /// Close the connection if there is one.
    Reject,
    /// Close the connection if there is none.
    Require,
    /// Do not look for one.
    Skip,
}

impl ProxyProtocol {
    /// The policy for a peer; `None` = one on a unix socket, which is trusted as in Caddy.
    #[must_use]
    pub fn policy(&self, peer: Option<IpAddr>) -> Policy {
        let Some(peer) = peer else { return Policy::Use };
        let is_in = |ranges: &[IpNet]| ranges.iter().any(|range| range.contains(&peer));
        if is_in(&self.deny) {
            Policy::Reject
        } else if is_in(&self.allow) {
            Policy::Use
        } else {
            self.fallback
        }
    }
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct ProxyProtocolModule {
    timeout: Option<Value>,
    allow: Vec<String>,
    deny: Vec<String>,
    fallback_policy: Policy,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct HttpRedirectModule {
    max_header_bytes: i64,
}

/// Reads the wrappers of a server. Without `tls` among them all come after the handshake, as in Caddy.
pub fn wrappers(server: &Server, wants_tls: bool, cx: &mut CompileCx<'_>) -> Wrappers {
    let modules = &server.listener_wrappers;
    let is_tls = |module: &Module| module_id(module, "wrapper") == "tls";
    let tls_at = modules.iter().position(is_tls);
    let mut out = Wrappers::default();
    cx.at("listener_wrappers", |cx| {
        for (i, module) in modules.iter().enumerate() {
            let before = tls_at.is_some_and(|at| i < at);
            cx.at(i, |cx| {
                if is_tls(module) {
                    if tls_at != Some(i) {
                        let message = "there is one TLS handshake, and `tls` stands twice among the wrappers";
                        cx.report(CompileError::new("wrapper-after-tls", message));
                    }
                } else if let Some(wrapper) = wrapper(module, before, wants_tls, cx) {
                    if before { &mut out.before_tls } else { &mut out.after_tls }.push(wrapper);
                }
            });
        }
    });
    out
}

fn wrapper(module: &Module, before_tls: bool, wants_tls: bool, cx: &mut CompileCx<'_>) -> Option<Wrapper> {
    const BELOW: &str = "write `tls` on a line below it";
    let id = module_id(module, "wrapper");
    let read = match id {
        "proxy_protocol" => proxy_protocol(module, cx).map(Wrapper::ProxyProtocol),
        // It would send every request back to where it came from.
        "http_redirect" if !before_tls && wants_tls => Err(CompileError::new(
            "wrapper-after-tls",
            "`http_redirect` comes after the TLS handshake here, where nothing is plain HTTP",
        )
        .help(BELOW)),
        "http_redirect" => read::<HttpRedirectModule>(module, "wrapper").map(|read| Wrapper::HttpRedirect {
            max_head: usize::try_from(read.max_header_bytes).ok().filter(|n| *n > 0),
        }),
        other => Err(CompileError::not_supported(format_args!("listener wrapper `{other}`"))),
    };
    if id == "proxy_protocol" && !before_tls && wants_tls && read.is_ok() {
        let message = "`proxy_protocol` comes after the TLS handshake here, where no load balancer writes its header";
        cx.advise(CompileError::new("wrapper-after-tls", message).help(BELOW));
    }
    read.map_err(|error| cx.report(error)).ok()
}

fn proxy_protocol(module: &Module, cx: &mut CompileCx<'_>) -> Result<ProxyProtocol, CompileError> {
    let told: ProxyProtocolModule = read(module, "wrapper")?;
    Ok(ProxyProtocol {
        timeout: duration_or(told.timeout.as_ref(), Some(TIMEOUT)).map_err(|e| e.within("timeout"))?,
        allow: cx.at("allow", |cx| ranges(&told.allow, cx)),
        deny: cx.at("deny", |cx| ranges(&told.deny, cx)),
        fallback: told.fallback_policy,
    })
}

fn ranges(texts: &[String], cx: &mut CompileCx<'_>) -> Vec<IpNet> {
    let mut out = Vec::with_capacity(texts.len());
    for text in texts {
        if text == "private_ranges" {
            out.extend(PRIVATE_RANGES.iter().filter_map(|range| range.parse::<IpNet>().ok()));
            continue;
        }
        match text.parse::<IpNet>().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from)) {
            Some(range) => out.push(range),
            None => cx.report(CompileError::new("invalid-ip-range", format!("`{text}` is not an IP address or range"))),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::modules::REGISTRY;
    use serde_json::json;

    fn made(wrappers_json: Value, wants_tls: bool) -> (Wrappers, Vec<&'static str>, usize) {
        let server: Server = serde_json::from_value(json!({"listener_wrappers": wrappers_json})).unwrap();
        let mut cx = CompileCx::new(&REGISTRY);
        let made = wrappers(&server, wants_tls, &mut cx);
        (made, cx.errors.iter().map(|e| e.code).collect(), cx.advice.len())
    }

    #[test]
    fn their_place_around_tls_is_kept() {
        let order = |list, tls| {
            let (made, errors, advice) = made(list, tls);
            (made.before_tls.len(), made.after_tls.len(), errors.len(), advice)
        };
        let (proxy, tls) = (json!({"wrapper": "proxy_protocol"}), json!({"wrapper": "tls"}));
        let redirect = json!({"wrapper": "http_redirect"});
        assert_eq!(order(json!([redirect, proxy, tls]), true), (2, 0, 0, 0));
        assert_eq!(order(json!([tls, proxy]), true), (0, 1, 0, 1));
        assert_eq!(order(json!([proxy]), true), (0, 1, 0, 1));
        assert_eq!(order(json!([proxy]), false), (0, 1, 0, 0));
        assert_eq!(order(json!([redirect]), true), (0, 0, 1, 0));
        assert_eq!(order(json!([tls, tls]), true), (0, 0, 1, 0));
        assert_eq!(made(json!([{"wrapper": "layer4"}]), true).1, ["not-supported-yet"]);
        assert_eq!(made(json!([{"wrapper": "proxy_protocol", "allow": ["x"]}]), true).1, ["invalid-ip-range"]);
    }

    #[test]
    fn deny_goes_before_allow_and_a_unix_socket_is_trusted() {
        let list = json!([
            {"wrapper": "proxy_protocol", "allow": ["10.0.0.0/8"], "deny": ["10.0.0.1"], "fallback_policy": "SKIP"},
            {"wrapper": "tls"},
        ]);
        let (made, ..) = made(list, true);
        let Wrapper::ProxyProtocol(proxy) = &made.before_tls[0] else { panic!() };
        let policy = |ip: &str| proxy.policy(Some(ip.parse().unwrap()));
        assert_eq!(proxy.policy(None), Policy::Use);
        assert_eq!((policy("10.0.0.1"), policy("10.0.0.2")), (Policy::Reject, Policy::Use));
        assert_eq!((policy("11.0.0.1"), policy("::1")), (Policy::Skip, Policy::Skip));
        assert_eq!(proxy.timeout, Some(TIMEOUT));
    }
}

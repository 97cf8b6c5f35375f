//! Heads on their way: what of a request goes to the upstream and what of a response to the client.
//!
//! Both are made in one pass that leaves hop-by-hop fields behind (RFC 9110 section 7.6.1). The request's own headers
//! stay as they are: logs, error routes and further attempts need them.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Version};
use ipnet::IpNet;
use smallvec::SmallVec;

use crate::base::field_list;
use crate::http::exchange::{Exchange, Peer, contains};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
/// Fields that we add to a request.
pub const ADDED: usize = 6;
// Made by the compiler: `from_static` looks at every byte.
const HTTP: HeaderValue = HeaderValue::from_static("http");
const HTTPS: HeaderValue = HeaderValue::from_static("https");
const VIA_HTTP_11: HeaderValue = HeaderValue::from_static("1.1 llmproxy");

/// Adds the headers for the upstream, before configured operations; at most [`ADDED`] more than the client's.
pub fn request(ex: &Exchange, trusted: &[IpNet], out: &mut HeaderMap) {
    let connection = ex.headers.contains_key(header::CONNECTION);
    let named = if connection { Named::by_connection(&ex.headers) } else { Named::default() };
    let mut te_trailers = false;
    for (name, value) in &ex.headers {
        match name.as_str() {
            "te" => te_trailers |= field_list::has(value.as_bytes(), "trailers"),
            n if is_hop_by_hop(n) || named.has(name) => {}
            // Answered by the server; asking the upstream too would wait for a second answer.
            "expect" => {}
            "x-forwarded-for" | "x-forwarded-proto" | "x-forwarded-host" => {}
            _ => {
                out.append(name, value.clone());
            }
        }
    }
    if te_trailers {
        out.insert(header::TE, HeaderValue::from_static("trailers"));
    }
    if connection && let Some(protocol) = upgrade_of(&ex.headers) {
        out.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        out.insert(header::UPGRADE, protocol);
    }
    out.append(header::VIA, via(ex.version));
    forwarded(ex, trusted, out);
}

/// `X-Forwarded-For`, `-Proto` and `-Host`: the client's own are believed only from a trusted proxy.
fn forwarded(ex: &Exchange, trusted: &[IpNet], out: &mut HeaderMap) {
    let Peer::Ip(_) = &ex.conn.peer else {
        // A unix socket has no address to add; what it says is kept only when it is trusted.
        if ex.server.trusted_proxies_unix {
            for name in [X_FORWARDED_FOR, X_FORWARDED_PROTO, X_FORWARDED_HOST] {
                for value in ex.headers.get_all(&name) {
                    out.append(&name, value.clone());
                }
            }
        }
        return;
    };
    let believed = ex.peer_is_trusted() || ex.peer_ip().is_some_and(|ip| contains(trusted, ip));
    let last = |name: &HeaderName| {
        let value = if believed { ex.headers.get_all(name).iter().next_back() } else { None };
        value.filter(|v| !v.is_empty()).cloned()
    };
    out.insert(X_FORWARDED_FOR, forwarded_for(ex, believed));
    let scheme = || if ex.is_tls() { HTTPS } else { HTTP };
    out.insert(X_FORWARDED_PROTO, last(&X_FORWARDED_PROTO).unwrap_or_else(scheme));
    if let Some(host) = last(&X_FORWARDED_HOST).or_else(|| ex.headers.get(header::HOST).cloned()) {
        out.insert(X_FORWARDED_HOST, host);
    }
}

fn forwarded_for(ex: &Exchange, believed: bool) -> HeaderValue {
    let own = &ex.conn.peer_ip_value;
    if !believed || !ex.headers.contains_key(X_FORWARDED_FOR) {
        return own.clone();
    }
    let mut text: Vec<u8> = Vec::with_capacity(64);
    for value in ex.headers.get_all(X_FORWARDED_FOR).iter().filter(|v| !v.is_empty()) {
        text.extend_from_slice(value.as_bytes());
        text.extend_from_slice(b", ");
    }
    text.extend_from_slice(own.as_bytes());
    HeaderValue::from_bytes(&text).unwrap_or_else(|_| own.clone())
}

/// Whether to ask for gzip on the client's behalf (and so to undo it): Go's transport does, unless the client said
/// what it takes, wants a part, or will get no body.
pub fn wants_gzip(method: &Method, headers: &HeaderMap) -> bool {
    *method != Method::HEAD && !headers.contains_key(header::ACCEPT_ENCODING) && !headers.contains_key(header::RANGE)
}

/// Removes hop-by-hop fields of a response.
pub fn strip_response(headers: &mut HeaderMap) {
    let mut gone: SmallVec<[HeaderName; 4]> = SmallVec::new();
    gone.extend(headers.keys().filter(|name| is_hop_by_hop(name.as_str()) || *name == header::TE).cloned());
    if gone.contains(&header::CONNECTION) {
        let named = Named::by_connection(headers);
        gone.extend(headers.keys().filter(|name| named.has(name)).cloned());
    }
    for name in gone {
        headers.remove(name);
    }
}

/// The protocol a request asks to change to, in lower case. Not `h2c`: behind a change to HTTP/2 further requests would
/// reach the upstream that we never see, past every check (and RFC 9113 section 3.1 has withdrawn it).
pub fn upgrade_of(headers: &HeaderMap) -> Option<HeaderValue> {
    if !field_list::says(headers, &header::CONNECTION, "upgrade") {
        return None;
    }
    let protocol = headers.get(header::UPGRADE)?;
    if protocol.is_empty() || protocol.as_bytes().eq_ignore_ascii_case(b"h2c") {
        return None;
    }
    HeaderValue::from_bytes(&protocol.as_bytes().to_ascii_lowercase()).ok()
}

/// `trailer` is not among them here although Go removes it: Go announces trailers anew, we pass the announcement on.
fn is_hop_by_hop(name: &str) -> bool {
    matches!(
        name,
        "connection"
            | "keep-alive"
            | "proxy-connection"
            | "proxy-authenticate"
            | "proxy-authorization"
            | "transfer-encoding"
            | "upgrade"
            | "alt-svc"
    )
}

/// Fields that `connection` declares to be for one hop only.
#[derive(Default)]
struct Named(SmallVec<[HeaderName; 2]>);

impl Named {
    fn by_connection(headers: &HeaderMap) -> Self {
        let mut names = SmallVec::new();
        for value in headers.get_all(header::CONNECTION) {
            for word in value.as_bytes().split(|b| *b == b',') {
                let word = word.trim_ascii();
                // The usual words need no name.
                if word.is_empty() || word.eq_ignore_ascii_case(b"keep-alive") || word.eq_ignore_ascii_case(b"close") {
                    continue;
                }
                if let Ok(name) = HeaderName::from_bytes(word) {
                    names.push(name);
                }
            }
        }
        Self(names)
    }

    fn has(&self, name: &HeaderName) -> bool {
        // A client cannot take away what routing and framing stand on.
        self.0.contains(name) && !matches!(name.as_str(), "host" | "content-length")
    }
}

/// Our entry in `via`; `version` is that of the message as received.
pub fn via(version: Version) -> HeaderValue {
    match version {
        Version::HTTP_10 => HeaderValue::from_static("1.0 llmproxy"),
        Version::HTTP_2 => HeaderValue::from_static("2.0 llmproxy"),
        Version::HTTP_3 => HeaderValue::from_static("3.0 llmproxy"),
        _ => VIA_HTTP_11,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::testing::exchange;

    fn sent(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        sent_by(&with(pairs), &[])
    }

    fn sent_by(ex: &Exchange, trusted: &[IpNet]) -> HeaderMap {
        let mut out = HeaderMap::new();
        request(ex, trusted, &mut out);
        out
    }

    fn with(pairs: &[(&'static str, &'static str)]) -> Exchange {
        let mut ex = exchange("GET", "/");
        for (name, value) in pairs {
            ex.headers.append(*name, HeaderValue::from_static(value));
        }
        ex
    }

    fn all(headers: &HeaderMap, name: &str) -> Vec<String> {
        headers.get_all(name).iter().map(|v| v.to_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn a_plain_request_gains_what_caddy_adds() {
        let out =
            sent(&[("x-forwarded-for", "6.6.6.6"), ("x-forwarded-proto", "https"), ("x-forwarded-host", "front")]);
        assert_eq!(all(&out, "host"), ["a.test"]);
        assert_eq!(all(&out, "x-forwarded-for"), ["192.0.2.1"]);
        assert_eq!(all(&out, "x-forwarded-proto"), ["http"]);
        assert_eq!(all(&out, "x-forwarded-host"), ["a.test"]);
        assert_eq!(all(&out, "via"), ["1.1 llmproxy"]);
        assert!(!out.contains_key("user-agent"));
    }

    #[test]
    fn a_trusted_proxy_is_believed() {
        let ex = with(&[
            ("x-forwarded-for", "6.6.6.6"),
            ("x-forwarded-for", "7.7.7.7"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "front"),
        ]);
        let out = sent_by(&ex, &["192.0.2.0/24".parse().unwrap()]);
        assert_eq!(all(&out, "x-forwarded-for"), ["6.6.6.6, 7.7.7.7, 192.0.2.1"]);
        assert_eq!(all(&out, "x-forwarded-proto"), ["https"]);
        assert_eq!(all(&out, "x-forwarded-host"), ["front"]);
    }

    #[test]
    fn hop_by_hop_fields_stay_behind() {
        let out = sent(&[
            ("connection", "X-Drop, keep-alive, Host"),
            ("x-drop", "1"),
            ("keep-alive", "5"),
            ("proxy-authorization", "secret"),
            ("te", "trailers, gzip"),
            ("expect", "100-continue"),
            ("upgrade", "h2c"),
            ("via", "1.0 fred"),
        ]);
        for gone in ["connection", "x-drop", "keep-alive", "proxy-authorization", "expect", "upgrade"] {
            assert!(!out.contains_key(gone), "{gone}");
        }
        assert_eq!(all(&out, "te"), ["trailers"]);
        assert_eq!(all(&out, "host"), ["a.test"]);
        assert_eq!(all(&out, "via"), ["1.0 fred", "1.1 llmproxy"]);
    }

    #[test]
    fn an_upgrade_to_http2_is_not() {
        let out = sent(&[
            ("connection", "Upgrade, HTTP2-Settings"),
            ("upgrade", "H2C"),
            ("http2-settings", "AAMAAABkAAQCAAAAAAIAAAAA"),
        ]);
        for gone in ["connection", "upgrade", "http2-settings"] {
            assert!(!out.contains_key(gone), "{gone}");
        }
    }

    #[test]
    fn an_upgrade_is_asked_for_again() {
        let out = sent(&[("connection", "keep-alive, Upgrade"), ("upgrade", "WebSocket")]);
        assert_eq!(all(&out, "connection"), ["Upgrade"]);
        assert_eq!(all(&out, "upgrade"), ["websocket"]);
    }

    #[test]
    fn responses_lose_their_hop_by_hop_fields() {
        let mut headers =
            with(&[("connection", "X-Hop"), ("x-hop", "1"), ("keep-alive", "5"), ("server", "u")]).headers;
        strip_response(&mut headers);
        assert!(!headers.contains_key("x-hop") && !headers.contains_key("keep-alive"));
        assert_eq!(all(&headers, "server"), ["u"]);
    }

    #[test]
    fn gzip_is_asked_for_only_on_the_clients_behalf() {
        let plain = HeaderMap::new();
        assert!(wants_gzip(&Method::GET, &plain));
        assert!(!wants_gzip(&Method::HEAD, &plain));
        for name in [header::RANGE, header::ACCEPT_ENCODING] {
            let mut headers = HeaderMap::new();
            headers.insert(name, HeaderValue::from_static("x"));
            assert!(!wants_gzip(&Method::GET, &headers));
        }
    }
}

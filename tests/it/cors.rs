//! `cors` before `auth_token` and an upstream: preflights need no token, errors can be read, nothing is said twice.

use crate::harness::client::{self, Response};
use crate::harness::process::{Proxy, Which, free_port};
use crate::harness::upstream::Upstream;

fn start(upstream: &Upstream) -> (Proxy, u16) {
    let port = free_port();
    let file = format!(
        "http://:{port} {{\n\tbind 127.0.0.1\n\tauth_token first\n\tcors https://*.example.com {{\n\t\texpose X-Request-Id\n\t}}\n\treverse_proxy {}\n}}\n",
        upstream.address()
    );
    (Proxy::start(Which::Llmproxy, &file, port), port)
}

fn ask(port: u16, method: &str, headers: &str) -> Response {
    client::request(port, format!("{method} /v1/models HTTP/1.1\r\nHost: a.test\r\n{headers}\r\n")).unwrap()
}

#[test]
fn a_preflight_needs_no_token_and_never_goes_up() {
    let upstream = Upstream::start("U");
    let (_proxy, port) = start(&upstream);
    for (origin, allowed) in [("https://app.example.com", true), ("https://evil.example", false)] {
        let headers = format!("Origin: {origin}\r\nAccess-Control-Request-Method: POST\r\n");
        let response = ask(port, "OPTIONS", &headers);
        assert_eq!(response.status(), 204, "{origin}");
        assert_eq!(response.header("access-control-allow-origin"), allowed.then_some(origin));
        assert!(response.header("vary").unwrap().contains("Origin"));
    }
    assert_eq!(ask(port, "OPTIONS", "Origin: https://app.example.com\r\n").status(), 401, "no preflight");
    assert!(upstream.events().is_empty(), "{:?}", upstream.events());
}

#[test]
fn answers_and_errors_can_be_read_by_the_page() {
    let upstream = Upstream::start("U");
    let (_proxy, port) = start(&upstream);
    for (token, status) in [("Authorization: Bearer first\r\n", 200), ("", 401)] {
        let response = ask(port, "GET", &format!("Origin: https://app.example.com\r\n{token}"));
        assert_eq!(response.status(), status);
        assert_eq!(response.header("access-control-allow-origin"), Some("https://app.example.com"));
        assert_eq!(response.header("access-control-expose-headers"), Some("X-Request-Id"));
        assert_eq!(response.header("vary"), Some("Origin"));
    }
}

//! Hostile requests, byte by byte: each is refused with a 4xx and the connection closed, before anything reaches an
//! upstream; nothing that two parsers could read in two ways is ever forwarded; the proxy goes on serving.

use crate::harness::client::{self, Connection, NoResponse};
use crate::harness::in_parallel;
use crate::harness::process::{Proxy, Which, free_port};
use crate::harness::upstream::{Event, Upstream};
use std::time::Duration;

struct Site {
    upstream: Upstream,
    port: u16,
    _proxy: Proxy,
}

fn site() -> Site {
    let upstream = Upstream::start("U");
    let port = free_port();
    let address = upstream.address();
    let file = format!(
        "{{\n\tadmin off\n\tauto_https off\n}}\n\nhttp://:{port} {{\n\tbind 127.0.0.1\n\trespond /static \"static\"\n\treverse_proxy {address}\n}}\n"
    );
    Site { upstream, port, _proxy: Proxy::start(Which::Llmproxy, &file, port) }
}

/// Sends each; every one must be answered with a 4xx (or 501, 505: RFC 9112 names them) and a close, unforwarded.
fn all_refused(requests: &[(&str, Vec<u8>)]) {
    let site = site();
    let problems: Vec<String> = in_parallel(requests, |(name, bytes)| {
        let mut connection = Connection::open(site.port);
        connection.set_patience(Duration::from_secs(10));
        connection.send(bytes);
        match connection.response() {
            Ok(response) if !matches!(response.status(), 400..=499 | 501 | 505) => {
                Some(format!("{name}: answered {} {}", response.status(), response.text()))
            }
            Ok(_) if !connection.closes() => Some(format!("{name}: refused, but the connection stays open")),
            Ok(_) => None,
            Err(why) => Some(format!("{name}: no answer: {why:?}")),
        }
    })
    .into_iter()
    .flatten()
    .collect();
    let forwarded: Vec<Event> = site.upstream.events();
    assert!(problems.is_empty(), "{} of {}:\n{}", problems.len(), requests.len(), problems.join("\n"));
    assert!(forwarded.is_empty(), "reached the upstream: {forwarded:?}");
    assert_eq!(client::get(site.port, "/after").status(), 200, "the proxy goes on");
}

fn with_header(line: &[u8]) -> Vec<u8> {
    [b"GET /h HTTP/1.1\r\nHost: api.test\r\n", line, b"\r\n\r\n"].concat()
}

fn with_body(headers: &str, body: &str) -> Vec<u8> {
    format!("POST /b HTTP/1.1\r\nHost: api.test\r\n{headers}\r\n\r\n{body}").into_bytes()
}

#[test]
fn request_lines() {
    let line = |line: &str| format!("{line}\r\nHost: api.test\r\n\r\n").into_bytes();
    all_refused(&[
        ("authority-form", line("GET api.test:80 HTTP/1.1")),
        ("connect", b"CONNECT api.test:443 HTTP/1.1\r\nHost: api.test:443\r\n\r\n".to_vec()),
        ("asterisk with GET", line("GET * HTTP/1.1")),
        ("no slash", line("GET path HTTP/1.1")),
        ("a space in the target", line("GET /a b HTTP/1.1")),
        ("a tab in the target", line("GET /a\tb HTTP/1.1")),
        ("a NUL in the target", line("GET /a\0b HTTP/1.1")),
        ("two spaces", line("GET  / HTTP/1.1")),
        ("no version", line("GET /")),
        ("version 0.9", line("GET / HTTP/0.9")),
        ("version 2.0 in text", line("GET / HTTP/2.0")),
        ("version 1.7", line("GET / HTTP/1.7")),
        ("lower-case version", line("GET / http/1.1")),
        ("a method with a bracket", line("G(T / HTTP/1.1")),
        ("a method with a NUL", line("G\0T / HTTP/1.1")),
        ("no method", line(" / HTTP/1.1")),
        ("absolute-form, other scheme", line("GET ftp://api.test/ HTTP/1.1")),
        ("absolute-form, user information", line("GET http://user@api.test/ HTTP/1.1")),
        ("absolute-form, no host", line("GET http:///x HTTP/1.1")),
        ("TLS on a plain port", vec![0x16, 3, 1, 0, 0xa5, 1, 0, 0, 0xa1, 3, 3, 0x55, 0x0d, 0x0a, 0x0d, 0x0a]),
        ("binary", (0..=255_u8).cycle().take(4096).collect()),
    ]);
}

#[test]
fn oversized_heads() {
    all_refused(&[
        ("a target of 2 MB", format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(2 << 20)).into_bytes()),
        ("a header of 2 MB", with_header(format!("X-Big: {}", "a".repeat(2 << 20)).as_bytes())),
        ("a name of 2 MB", with_header(format!("{}: a", "a".repeat(2 << 20)).as_bytes())),
        ("100,000 headers", with_header("X-Many: 1\r\n".repeat(100_000).trim_end().as_bytes())),
        ("a head that never ends", [b"GET / HTTP/1.1\r\n".to_vec(), b"X-A: b\r\n".repeat(300_000)].concat()),
    ]);
}

#[test]
fn header_lines() {
    all_refused(&[
        ("NUL in a value", with_header(b"X-A: a\0b")),
        ("CR in a value", with_header(b"X-A: a\rb")),
        ("DEL in a name", with_header(b"X-\x7f: a")),
        ("control in a value", with_header(b"X-A: a\x01b")),
        ("NUL in a name", with_header(b"X-\0A: b")),
        ("space before the colon", with_header(b"X-A : b")),
        ("space in a name", with_header(b"X A: b")),
        ("no name", with_header(b": b")),
        ("no colon", with_header(b"X-A")),
        ("folded line", with_header(b"X-A: b\r\n c")),
        ("folded with a tab", with_header(b"X-A: b\r\n\tTransfer-Encoding: chunked")),
        ("first line folded", b"GET / HTTP/1.1\r\n X-A: b\r\nHost: api.test\r\n\r\n".to_vec()),
        ("no Host", b"GET / HTTP/1.1\r\n\r\n".to_vec()),
        ("no Host, absolute-form", b"GET http://api.test/ HTTP/1.1\r\n\r\n".to_vec()),
        ("two Hosts", with_header(b"Host: other.test")),
        ("two equal Hosts", with_header(b"Host: api.test")),
        ("space in Host", b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n".to_vec()),
        ("slash in Host", b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n".to_vec()),
        ("user in Host", b"GET / HTTP/1.1\r\nHost: user@api.test\r\n\r\n".to_vec()),
        ("quote in Host", b"GET / HTTP/1.1\r\nHost: a\"b\r\n\r\n".to_vec()),
    ]);
}

#[test]
fn framing() {
    all_refused(&[
        ("both lengths", with_body("Content-Length: 4\r\nTransfer-Encoding: chunked", "0\r\n\r\n")),
        ("both, other order", with_body("Transfer-Encoding: chunked\r\nContent-Length: 4", "0\r\n\r\n")),
        ("two lengths", with_body("Content-Length: 4\r\nContent-Length: 5", "abcde")),
        ("a list of lengths", with_body("Content-Length: 4, 5", "abcde")),
        ("a signed length", with_body("Content-Length: +4", "abcd")),
        ("a negative length", with_body("Content-Length: -1", "")),
        ("a hexadecimal length", with_body("Content-Length: 0x4", "abcd")),
        ("an empty length", with_body("Content-Length:", "")),
        ("a length beyond 64 bits", with_body("Content-Length: 99999999999999999999999", "")),
        ("a length with a letter", with_body("Content-Length: 4a", "abcd")),
        ("a length with a space", with_body("Content-Length: 4 4", "abcd")),
        ("unknown coding", with_body("Transfer-Encoding: xchunked", "0\r\n\r\n")),
        ("identity coding", with_body("Transfer-Encoding: identity", "0\r\n\r\n")),
        ("gzip alone", with_body("Transfer-Encoding: gzip", "0\r\n\r\n")),
        ("chunked is not last", with_body("Transfer-Encoding: chunked, identity", "0\r\n\r\n")),
        ("chunked twice", with_body("Transfer-Encoding: chunked, chunked", "0\r\n\r\n")),
        (
            "chunked twice, two lines",
            with_body("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", "0\r\n\r\n"),
        ),
        ("a vertical tab", with_body("Transfer-Encoding: \x0bchunked", "0\r\n\r\n")),
        ("quoted", with_body("Transfer-Encoding: \"chunked\"", "0\r\n\r\n")),
        ("a space before the colon", with_body("Transfer-Encoding : chunked", "0\r\n\r\n")),
        ("chunked in 1.0", b"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".to_vec()),
    ]);
}

/// A body is forwarded as it comes, so its head may be upstream when its framing turns out bad: then the client gets a
/// 4xx and a close, and the upstream's request is broken off, never ended as if it were whole.
#[test]
fn bad_chunks() {
    let bad: &[(&str, &str)] = &[
        ("no size", "zz\r\nhello\r\n0\r\n\r\n"),
        ("negative", "-5\r\nhello\r\n0\r\n\r\n"),
        ("prefixed", "0x5\r\nhello\r\n0\r\n\r\n"),
        ("beyond 64 bits", "fffffffffffffffff\r\nhello\r\n0\r\n\r\n"),
        ("longer than said", "3\r\nhello\r\n0\r\n\r\n"),
        ("space in front", " 5\r\nhello\r\n0\r\n\r\n"),
        ("empty size", "\r\nhello\r\n0\r\n\r\n"),
        ("endless extension", &format!("5;{}\r\nhello\r\n0\r\n\r\n", "e".repeat(1 << 20))),
        ("bare LF after the size", "5\nhello\r\n0\r\n\r\n"),
        ("bare LF after the data", "5\r\nhello\n0\r\n\r\n"),
    ];
    let problems: Vec<String> = in_parallel(bad, |(name, body)| {
        let site = site();
        let mut connection = Connection::open(site.port);
        connection.set_patience(Duration::from_secs(10));
        connection.send(with_body("Transfer-Encoding: chunked", body));
        let answer = connection.response().map(|response| response.status());
        let whole = site.upstream.wait_for(Duration::from_millis(50), |event| matches!(event, Event::Finished(_)));
        match answer {
            _ if whole.is_some() => Some(format!("{name}: forwarded as a whole request")),
            Ok(400..=499) if connection.closes() => None,
            Ok(status) => Some(format!("{name}: {status}, or the connection stays open")),
            Err(NoResponse::Closed) => Some(format!("{name}: closed without an answer")),
            Err(NoResponse::Silent) => Some(format!("{name}: no answer")),
        }
    })
    .into_iter()
    .flatten()
    .collect();
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

/// What follows a refused or a finished request on its connection is never read as a request of its own when the body's
/// end is in doubt.
#[test]
fn nothing_is_smuggled_behind_a_body() {
    let site = site();
    let smuggled = "GET /smuggled HTTP/1.1\r\nHost: api.test\r\n\r\n";
    for framing in
        ["Content-Length: 0\r\nTransfer-Encoding: chunked", "Transfer-Encoding: chunked\r\nTransfer-Encoding: x"]
    {
        let mut connection = Connection::open(site.port);
        connection.send(with_body(framing, &format!("0\r\n\r\n{smuggled}")));
        let _ = connection.response();
        assert!(connection.closes(), "{framing}");
    }
    // A static answer that ignores the body: the body is still a body.
    let mut connection = Connection::open(site.port);
    let length = smuggled.len();
    connection.send(format!("POST /static HTTP/1.1\r\nHost: api.test\r\nContent-Length: {length}\r\n\r\n{smuggled}"));
    assert_eq!(connection.response().unwrap().text(), "static");
    connection.send("GET /static HTTP/1.1\r\nHost: api.test\r\nConnection: close\r\n\r\n");
    assert!(connection.closes());
    assert!(site.upstream.events().is_empty(), "{:?}", site.upstream.events());
}

/// A trailer may not carry what frames, routes or authenticates a message (RFC 9110 section 6.5.1).
#[test]
fn trailers_do_not_become_headers() {
    let site = site();
    let body = "5\r\nhello\r\n0\r\nX-Ok: 1\r\nContent-Length: 3\r\nHost: evil\r\nTransfer-Encoding: x\r\n\r\n";
    let response = client::request(site.port, with_body("Trailer: X-Ok\r\nTransfer-Encoding: chunked", body));
    // Refusing is fine too.
    let Ok(response) = response else { return };
    if response.status() == 200 {
        let seen = response.json();
        let text = format!("{} {}", seen["headers"], seen["trailers"]).to_ascii_lowercase();
        assert!(!text.contains("evil") && !text.contains("content-length"), "{text}");
    } else {
        assert!(matches!(response.status(), 400..=499), "{}", response.status());
    }
}

#[test]
fn absolute_form_is_forwarded_in_origin_form() {
    let site = site();
    let seen =
        client::request(site.port, "GET http://abs.test/x?y=z HTTP/1.1\r\nHost: other.test\r\n\r\n").unwrap().json();
    assert_eq!(seen["target"], "/x?y=z");
    let hosts: Vec<&serde_json::Value> = seen["headers"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|h| h[0].as_str().unwrap().eq_ignore_ascii_case("host"))
        .collect();
    assert_eq!(hosts.len(), 1, "{hosts:?}");
    assert_eq!(hosts[0][1], "abs.test");
}

#[test]
fn a_byte_at_a_time_is_still_a_request() {
    let site = site();
    let mut connection = Connection::open(site.port);
    for byte in with_body("Transfer-Encoding: chunked\r\nX-A: b", "5\r\nhello\r\n0\r\n\r\n") {
        connection.send([byte]);
    }
    assert_eq!(connection.response().unwrap().json()["body"], "hello");
}

#[test]
fn clients_that_vanish_leave_nothing_behind() {
    let site = site();
    for part in ["", "G", "GET / HTTP/1.1\r\nHos", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc"] {
        for _ in 0..20 {
            Connection::open(site.port).send(part);
        }
    }
    assert_eq!(client::get(site.port, "/after").status(), 200);
}

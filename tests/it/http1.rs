//! The server's side of HTTP/1: connections that stay and that end, bodies nobody reads, answers that break off.

use crate::harness::client::Connection;
use crate::harness::process::{Proxy, Which, free_port};
use crate::harness::upstream::Upstream;
use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::time::{Duration, Instant};

fn start(upstream: &Upstream) -> (Proxy, u16) {
    let port = free_port();
    let address = upstream.address();
    let file = format!(
        "{{\n\tadmin off\n\tauto_https off\n}}\n\nhttp://:{port} {{\n\tbind 127.0.0.1\n\trespond /own \"own\"\n\trespond /refused 413\n\theader /bye Connection close\n\trespond /bye \"bye\"\n\treverse_proxy {address}\n}}\n"
    );
    (Proxy::start(Which::Llmproxy, &file, port), port)
}

fn status_of(connection: &mut Connection, request: &str) -> u16 {
    connection.send(request);
    connection.response().expect("an answer").status()
}

const OWN: &str = "GET /own HTTP/1.1\r\nHost: a\r\n\r\n";

#[test]
fn a_small_body_that_nobody_reads_is_passed_over() {
    let upstream = Upstream::start("U");
    let (_proxy, port) = start(&upstream);
    let mut connection = Connection::open(port);
    let body = "x".repeat(200_000);
    let unread = format!("POST /refused HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    assert_eq!(status_of(&mut connection, &unread), 413);
    assert_eq!(status_of(&mut connection, OWN), 200);
    let chunked = "POST /refused HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
    assert_eq!(status_of(&mut connection, chunked), 413);
    assert_eq!(status_of(&mut connection, OWN), 200);
}

#[test]
fn a_large_body_that_nobody_reads_ends_the_connection_and_the_answer_arrives() {
    let upstream = Upstream::start("U");
    let (_proxy, port) = start(&upstream);
    let mut connection = Connection::open(port);
    connection.send("POST /refused HTTP/1.1\r\nHost: a\r\nContent-Length: 3000000\r\n\r\n");
    connection.send(vec![b'x'; 500_000]);
    let response = connection.response().expect("an answer");
    assert_eq!((response.status(), response.header("connection")), (413, Some("close")));
    assert!(connection.closes());
}

#[test]
fn a_body_is_asked_for_only_when_somebody_wants_it() {
    let upstream = Upstream::start("U");
    let (_proxy, port) = start(&upstream);
    let head =
        |path: &str| format!("POST {path} HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n");
    let mut connection = Connection::open(port);
    connection.send(head("/echo"));
    assert_eq!(connection.any_head().expect("an interim answer").status, 100);
    connection.send("body");
    assert_eq!(connection.response().unwrap().json()["body"], "body");
    // Refused without a look at the body: no 100, and the connection ends, for the body may come or not.
    let mut connection = Connection::open(port);
    connection.send(head("/refused"));
    let response = connection.any_head().expect("an answer");
    assert_eq!((response.status, response.header("connection")), (413, Some("close")));
}

#[test]
fn connections_end_when_either_side_says_so() {
    let upstream = Upstream::start("U");
    let (_proxy, port) = start(&upstream);
    for (request, version, connection_field) in [
        ("GET /own HTTP/1.1\r\nHost: a\r\nConnection: x, CLOSE\r\n\r\n", "HTTP/1.1", Some("close")),
        ("GET /bye HTTP/1.1\r\nHost: a\r\n\r\n", "HTTP/1.1", Some("close")),
        ("GET /own HTTP/1.0\r\n\r\n", "HTTP/1.0", None),
    ] {
        let mut connection = Connection::open(port);
        connection.send(request);
        let response = connection.response().unwrap();
        assert_eq!((response.head.version.as_str(), response.header("connection")), (version, connection_field));
        assert!(connection.closes(), "{request}");
    }
    let mut connection = Connection::open(port);
    for _ in 0..3 {
        connection.send("GET /own HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
        assert_eq!(connection.response().unwrap().header("connection"), Some("keep-alive"));
    }
}

/// HTTP/1.0 knows the end of such a body by the connection's alone: a cut must be seen as one.
#[test]
fn a_cut_body_is_seen_as_cut_in_http_1_0_too() {
    let upstream = Upstream::start("U");
    let (_proxy, port) = start(&upstream);
    for (path, whole) in [("/chunked?n=2&ms=20", true), ("/cut?n=2&ms=50", false)] {
        let mut connection = Connection::open(port);
        connection.send(format!("GET {path} HTTP/1.0\r\nHost: a\r\n\r\n"));
        let mut text = Vec::new();
        let ended = connection.stream.read_to_end(&mut text);
        assert_eq!(ended.is_ok(), whole, "{path}: {ended:?}");
        if let Err(error) = ended {
            assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{path}");
        }
    }
}

/// What came right before an upstream's end belongs to the client as much as the rest.
#[test]
fn the_last_piece_before_a_cut_arrives() {
    let upstream = Upstream::start("U");
    let (_proxy, port) = start(&upstream);
    let mut connection = Connection::open(port);
    connection.send("GET /cut?n=3&ms=0 HTTP/1.1\r\nHost: a\r\n\r\n");
    let response = connection.response().unwrap();
    assert!(!response.complete && response.text().contains("piece 2;"), "{:?}", response.text());
}

#[test]
fn a_body_in_many_pieces_and_a_next_request_behind_it_are_told_apart() {
    let upstream = Upstream::start("U");
    let (_proxy, port) = start(&upstream);
    let mut connection = Connection::open(port);
    let bytes = format!(
        "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5;x=y\r\nhello\r\n6\r\n world\r\n0\r\n\r\n\r\n{OWN}"
    );
    for byte in bytes.as_bytes() {
        connection.stream.write_all(&[*byte]).unwrap();
    }
    assert_eq!(connection.response().unwrap().json()["body"], "hello world");
    assert_eq!(connection.response().unwrap().text(), "own");
}

#[test]
fn a_client_that_only_closes_its_side_between_requests_gets_no_answer_and_is_closed() {
    let upstream = Upstream::start("U");
    let (_proxy, port) = start(&upstream);
    let mut connection = Connection::open(port);
    assert_eq!(status_of(&mut connection, OWN), 200);
    connection.stream.shutdown(Shutdown::Write).unwrap();
    let since = Instant::now();
    assert!(connection.closes() && since.elapsed() < Duration::from_secs(3));
}

/// TLS, binary protocols: told at once rather than when the time for a head is over.
#[test]
fn what_cannot_become_a_request_is_refused_at_once() {
    let upstream = Upstream::start("U");
    let (_proxy, port) = start(&upstream);
    for bytes in [&b"\x16\x03\x01\x02\x00"[..], b"\0\0\0\0"] {
        let mut connection = Connection::open(port);
        connection.send(bytes);
        assert_eq!(connection.response().expect("an answer").status(), 400);
    }
}

//! `transport http`, buffers and time limits of `reverse_proxy`, against upstreams that see what arrives; what Caddy has is
//! checked on both.

use crate::harness::client::{self, Connection};
use crate::harness::process::{Proxy, Which, caddy_or_skip, free_port};
use crate::harness::upstream::{Upstream, spawn};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

fn site(which: Which, upstream: &str, options: &str) -> (Proxy, u16) {
    let port = free_port();
    let file = format!(
        "{{\n\tadmin off\n\tauto_https off\n\tpersist_config off\n}}\n\nhttp://:{port} {{\n\tbind 127.0.0.1\n\treverse_proxy {upstream} {{\n{options}\n\t}}\n}}\n"
    );
    (Proxy::start(which, &file, port), port)
}

/// Runs a test body on llmproxy and, where it is present, on the real Caddy.
fn on_both(options: &str, body: impl Fn(Which, u16, &Upstream)) {
    for which in [Which::Llmproxy, Which::Caddy] {
        if which == Which::Llmproxy || caddy_or_skip() {
            let upstream = Upstream::start("U");
            let (_proxy, port) = site(which, &upstream.address(), options);
            body(which, port, &upstream);
        }
    }
}

fn transport(lines: &str) -> String {
    format!("\t\ttransport http {{\n\t\t\t{lines}\n\t\t}}")
}

/// Answers every connection once, leaves it open, and tells what came on it, and from where.
fn witness(answer: &'static [u8]) -> (String, Receiver<(SocketAddr, Vec<u8>)>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, (tell, told)) = (listener.local_addr().unwrap().to_string(), channel());
    spawn(move || {
        // A second request over one of them would never be answered.
        let mut open = Vec::new();
        while let Ok((mut stream, peer)) = listener.accept() {
            let _ = stream.set_read_timeout(Some(Duration::from_secs(10)));
            let (mut seen, mut chunk) = (Vec::new(), [0; 4096]);
            // A binary header of the PROXY protocol has an empty line of its own in front.
            while !seen.ends_with(b"\r\n\r\n") || seen.len() < 20 {
                match stream.read(&mut chunk) {
                    Ok(n) if n > 0 => seen.extend_from_slice(&chunk[..n]),
                    _ => break,
                }
            }
            let _ = stream.write_all(answer);
            open.push(stream);
            if tell.send((peer, seen)).is_err() {
                return;
            }
        }
    });
    (address, told)
}

const EMPTY: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";

fn ask(connection: &mut Connection<TcpStream>, path: &str) -> u16 {
    connection.send(format!("GET {path} HTTP/1.1\r\nHost: api.test\r\n\r\n"));
    connection.response().unwrap().status()
}

#[test]
fn the_proxy_protocol_tells_each_upstream_connection_whom_it_is_for() {
    for which in [Which::Llmproxy, Which::Caddy] {
        if which == Which::Caddy && !caddy_or_skip() {
            continue;
        }
        for version in ["v1", "v2"] {
            let (upstream, seen) = witness(EMPTY);
            let (_proxy, port) = site(which, &upstream, &transport(&format!("proxy_protocol {version}")));
            let mut clients = [Connection::open(port), Connection::open(port)];
            // Caddy uses a connection again for the same client's address.
            let turns = if which == Which::Llmproxy { 4 } else { 1 };
            for turn in 0..turns {
                let client = &mut clients[turn % 2];
                let from = client.stream.local_addr().unwrap().port();
                // Caddy does not tell the port.
                let from = if which == Which::Llmproxy { from } else { 0 };
                assert_eq!(ask(client, "/"), 200, "{which:?} {version}");
                // No connection of another client, nor of an earlier request, is used again.
                let (_, said) = seen.recv_timeout(Duration::from_secs(5)).expect("a connection of its own");
                if version == "v1" {
                    let said = String::from_utf8(said).unwrap();
                    let line = said.split_once("\r\n").unwrap().0;
                    let words: Vec<&str> = line.split(' ').collect();
                    assert_eq!((&words[..3], words[4]), (&["PROXY", "TCP4", "127.0.0.1"][..], &*from.to_string()));
                    if which == Which::Llmproxy {
                        assert_eq!((words[3], words[5]), ("127.0.0.1", &*port.to_string()), "where it was accepted");
                    }
                } else {
                    assert!(said.starts_with(b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\x7f\0\0\x01"), "{which:?} {said:?}");
                    assert_eq!(said[24..26], from.to_be_bytes(), "{which:?}");
                    assert!(said[28..].starts_with(b"GET / "), "{which:?}");
                }
            }
        }
    }
}

#[test]
fn connections_come_from_the_address_told() {
    for which in [Which::Llmproxy, Which::Caddy] {
        if which == Which::Caddy && !caddy_or_skip() {
            continue;
        }
        for address in ["127.0.0.9", "127.0.0.9:0", "tcp/127.0.0.9"] {
            let (upstream, seen) = witness(EMPTY);
            let (_proxy, port) = site(which, &upstream, &transport(&format!("local_address {address}")));
            assert_eq!(client::get(port, "/").status(), 200, "{which:?} {address}");
            let (peer, _) = seen.recv_timeout(Duration::from_secs(5)).unwrap();
            assert_eq!(peer.ip().to_string(), "127.0.0.9", "{which:?} {address}");
        }
    }
}

#[test]
fn without_keepalive_each_request_has_a_connection() {
    on_both(&transport("keepalive off"), |which, port, upstream| {
        for _ in 0..3 {
            assert_eq!(client::get(port, "/").status(), 200);
        }
        assert_eq!(upstream.connections(), 3, "{which:?}");
    });
}

#[test]
fn requests_wait_for_their_turn_where_connections_are_limited() {
    on_both(&transport("max_conns_per_host 1"), |which, port, upstream| {
        let since = Instant::now();
        let asked = [0, 1, 2].map(|_| std::thread::spawn(move || client::get(port, "/hang?ms=200").status()));
        assert_eq!(asked.map(|asked| asked.join().unwrap()), [200; 3], "{which:?}");
        assert!(since.elapsed() >= Duration::from_millis(590), "{which:?}: {:?}", since.elapsed());
        // Caddy closes some, to open them again.
        assert!(which == Which::Caddy || upstream.connections() <= 3, "{}", upstream.connections());
    });
}

#[test]
fn a_request_body_that_fits_the_buffer_leaves_with_its_length() {
    let chunked =
        "POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n5\r\nworld\r\n0\r\n\r\n";
    for (size, fits) in [("1KiB", true), ("unlimited", true), ("6B", false), ("10B", false)] {
        on_both(&format!("\t\trequest_buffers {size}"), |which, port, _| {
            let seen = client::request(port, chunked).unwrap().json();
            assert_eq!(seen["body"], "helloworld", "{which:?} {size}");
            // Caddy means to tell the length, and sends chunks all the same.
            let told = !fits || which == Which::Caddy || seen["framing"] == "length";
            assert!(told, "{size}: {}", seen["framing"]);
        });
    }
}

#[test]
fn a_response_that_fits_the_buffer_is_read_first() {
    for (size, held) in [("1KiB", true), ("unlimited", true), ("10B", false)] {
        on_both(&format!("\t\tresponse_buffers {size}"), |which, port, _| {
            let mut connection = Connection::open(port);
            connection.send("GET /sse?n=4&ms=150 HTTP/1.1\r\nHost: a\r\n\r\n");
            let since = Instant::now();
            connection.head(false).unwrap();
            let took = since.elapsed();
            assert_eq!(took >= Duration::from_millis(440), held, "{which:?} {size}: {took:?}");
            let mut all = Vec::new();
            while let Some(piece) = connection.piece() {
                all.extend(piece);
            }
            assert!(connection.ended_cleanly());
            assert_eq!(all, b"data: 0\n\ndata: 1\n\ndata: 2\n\ndata: 3\n\n", "{which:?} {size}");
        });
    }
}

#[test]
fn a_stream_timeout_ends_upgraded_connections_alone() {
    on_both("\t\tstream_timeout 400ms", |which, port, _| {
        let streamed = std::thread::spawn(move || client::get(port, "/sse?n=7&ms=100"));
        let mut connection = Connection::open(port);
        connection.send("GET /upgrade HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
        assert_eq!(connection.head(false).unwrap().status, 101, "{which:?}");
        let since = Instant::now();
        assert!(connection.closes(), "{which:?} goes on");
        let took = since.elapsed();
        assert!(took > Duration::from_millis(300) && took < Duration::from_secs(3), "{which:?}: {took:?}");
        let streamed = streamed.join().unwrap();
        assert!(streamed.complete && streamed.text().ends_with("data: 6\n\n"), "{which:?}");
    });
}

#[test]
fn a_silent_body_is_cut_after_the_read_timeout() {
    on_both(&transport("read_timeout 300ms"), |which, port, _| {
        let response = client::get(port, "/chunked?n=3&ms=1500");
        assert!(response.text().starts_with("piece 0;") && !response.complete, "{which:?}: {}", response.text());
        assert!(client::get(port, "/chunked?n=4&ms=150").complete, "{which:?} cuts a body that comes in time");
    });
}

#[test]
fn a_total_timeout_bounds_the_whole_exchange() {
    let upstream = Upstream::start("U");
    let (_proxy, port) = site(Which::Llmproxy, &upstream.address(), &transport("total_timeout 600ms"));
    assert_eq!(client::get(port, "/hang?ms=5000").status(), 504);
    let since = Instant::now();
    let cut = client::get(port, "/sse?n=0&ms=100");
    let took = since.elapsed();
    assert!(!cut.complete && cut.text().starts_with("data: 0\n\n"), "{}", cut.text());
    assert!(took >= Duration::from_millis(600) && took < Duration::from_secs(3), "{took:?}");
    assert!(client::get(port, "/sse?n=3&ms=50").complete);
    let left = |event: &crate::harness::upstream::Event| matches!(event, crate::harness::upstream::Event::Left { .. });
    assert!(upstream.wait_for(Duration::from_secs(5), left).is_some(), "the upstream goes on");
}

#[test]
fn interim_answers_of_upstreams_are_passed_over() {
    let early = b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    let (upstream, _seen) = witness(early);
    let (_proxy, port) = site(Which::Llmproxy, &upstream, "");
    let mut connection = Connection::open(port);
    connection.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let head = connection.any_head().unwrap();
    assert_eq!((head.status, head.header("link")), (200, None));
}

//! Time and connections: what reaches whom at once, what is cut, who notices that the other left. Numbers in names are
//! rows of the list of observed Caddy behaviours; what a test says of both proxies is checked on both.

use crate::harness::client::{self, Connection};
use crate::harness::process::{Proxy, Which, caddy_or_skip, free_port};
use crate::harness::upstream::{Event, Upstream};
use std::time::{Duration, Instant};

/// Runs a test body on llmproxy and, where it is present, on the real Caddy.
fn on_both(proxy_options: &str, body: impl Fn(Which, u16, &Upstream)) {
    for which in [Which::Llmproxy, Which::Caddy] {
        if which == Which::Llmproxy || caddy_or_skip() {
            let upstream = Upstream::start("U");
            let (_proxy, port) = start(which, &upstream, proxy_options);
            body(which, port, &upstream);
        }
    }
}

fn start(which: Which, upstream: &Upstream, options: &str) -> (Proxy, u16) {
    start_with(which, &upstream.address(), options)
}

fn start_with(which: Which, upstreams: &str, options: &str) -> (Proxy, u16) {
    let port = free_port();
    let file = format!(
        "{{\n\tadmin off\n\tauto_https off\n\tpersist_config off\n}}\n\nhttp://:{port} {{\n\tbind 127.0.0.1\n\treverse_proxy {upstreams} {{\n\t\t{options}\n\t}}\n}}\n"
    );
    (Proxy::start(which, &file, port), port)
}

fn ask(port: u16, path: &str) -> Connection {
    let mut connection = Connection::open(port);
    connection.send(format!("GET {path} HTTP/1.1\r\nHost: api.test\r\n\r\n"));
    connection
}

/// The pieces of a body as they arrived, and how long after the head the last came.
fn pieces(port: u16, path: &str) -> (Vec<String>, Duration) {
    let mut connection = ask(port, path);
    assert_eq!(connection.head(false).unwrap().status, 200);
    let since = Instant::now();
    let mut pieces = Vec::new();
    while let Some(piece) = connection.piece() {
        pieces.push(String::from_utf8(piece).unwrap());
    }
    assert!(connection.ended_cleanly());
    (pieces, since.elapsed())
}

#[test]
fn row_39_trying_again_waits_in_between_and_ends() {
    for which in [Which::Llmproxy, Which::Caddy] {
        if which == Which::Caddy && !caddy_or_skip() {
            return;
        }
        let (_proxy, port) = start_with(which, "127.0.0.1:1", "lb_try_duration 1s\n\t\tlb_try_interval 300ms");
        let since = Instant::now();
        assert_eq!(client::get(port, "/").status(), 502, "{which:?}");
        let took = since.elapsed();
        // The fourth pause ends after the time for trying.
        assert!(took >= Duration::from_millis(1200) && took < Duration::from_millis(2500), "{which:?} {took:?}");
    }
}

#[test]
fn row_44_an_active_check_finds_the_dead_upstream() {
    on_both_with("lb_policy first\n\t\thealth_uri /status/200\n\t\thealth_interval 200ms", |which, port| {
        let until = Instant::now() + Duration::from_secs(5);
        while client::get(port, "/").status() != 200 {
            assert!(Instant::now() < until, "{which:?} still asks the dead one");
            std::thread::sleep(Duration::from_millis(20));
        }
        for _ in 0..5 {
            assert_eq!(client::get(port, "/").status(), 200, "{which:?}");
        }
    });
}

/// On both, with a dead upstream before the one that lives.
fn on_both_with(options: &str, body: impl Fn(Which, u16)) {
    for which in [Which::Llmproxy, Which::Caddy] {
        if which == Which::Llmproxy || caddy_or_skip() {
            let upstream = Upstream::start("U");
            let (_proxy, port) = start_with(which, &format!("127.0.0.1:1 {}", upstream.address()), options);
            body(which, port);
        }
    }
}

#[test]
fn row_69_server_sent_events_arrive_one_by_one() {
    on_both("", |which, port, _| {
        let (pieces, took) = pieces(port, "/sse?n=4&ms=120");
        assert_eq!(pieces, ["data: 0\n\n", "data: 1\n\n", "data: 2\n\n", "data: 3\n\n"], "{which:?}");
        assert!(took >= Duration::from_millis(330), "{which:?} {took:?}");
    });
}

#[test]
fn row_70_a_body_of_unknown_length_arrives_piece_by_piece() {
    on_both("", |which, port, _| {
        let (pieces, _) = pieces(port, "/chunked?n=3&ms=120");
        assert_eq!(pieces, ["piece 0;", "piece 1;", "piece 2;"], "{which:?}");
    });
}

#[test]
fn row_71_a_body_of_known_length_is_held_by_caddy_and_flushed_by_us() {
    on_both("", |which, port, _| {
        let since = Instant::now();
        let (pieces, after_head) = pieces(port, "/slow?n=3&ms=120");
        assert_eq!(pieces.concat(), "slow 00;slow 01;slow 02;", "{which:?}");
        match which {
            Which::Llmproxy => assert_eq!(pieces.len(), 3, "held: {pieces:?}"),
            Which::Caddy => {
                assert_eq!(pieces.len(), 1, "{pieces:?}");
                assert!(since.elapsed() >= Duration::from_millis(220) && after_head < Duration::from_millis(110));
            }
        }
    });
}

#[test]
fn row_72_flush_interval_minus_one_flushes_every_piece() {
    on_both("flush_interval -1", |which, port, _| {
        let (pieces, _) = pieces(port, "/slow?n=3&ms=120");
        assert_eq!(pieces, ["slow 00;", "slow 01;", "slow 02;"], "{which:?}");
    });
}

#[test]
fn row_74_a_client_that_leaves_ends_the_upstream_request() {
    for options in ["", "flush_interval -1"] {
        on_both(options, |which, port, upstream| {
            let mut streaming = ask(port, "/sse?n=0&ms=3000");
            streaming.head(false).unwrap();
            streaming.piece().unwrap();
            let waiting = ask(port, "/hang?ms=15000");
            let asked = |event: &Event| *event == Event::Asked("GET /hang?ms=15000".to_owned());
            upstream.wait_for(Duration::from_secs(5), asked).expect("the upstream is asked");
            for (connection, path) in [(streaming, "/sse"), (waiting, "/hang")] {
                let left = Instant::now();
                drop(connection);
                let noticed = upstream.wait_for(
                    Duration::from_secs(5),
                    |event| matches!(event, Event::Left { target, .. } if target.starts_with(path)),
                );
                let (at, _) = noticed.unwrap_or_else(|| panic!("{which:?} keeps asking for {path} ({options})"));
                assert!(at - left < Duration::from_secs(1), "{which:?} {path}: {:?}", at - left);
            }
        });
    }
}

/// Unread bytes behind a request must not hide that the client left: the upstream would go on and be paid for.
#[test]
fn a_client_that_pipelines_and_leaves_ends_the_upstream_request() {
    let upstream = Upstream::start("U");
    let (_proxy, port) = start(Which::Llmproxy, &upstream, "");
    let mut connection = ask(port, "/hang?ms=15000");
    connection.send("GET /never HTTP/1.1\r\nHost: api.test\r\n\r\n");
    upstream.wait_for(Duration::from_secs(5), |event| matches!(event, Event::Asked(_))).unwrap();
    drop(connection);
    let noticed = upstream.wait_for(Duration::from_secs(3), |event| matches!(event, Event::Left { .. }));
    assert!(noticed.is_some(), "the upstream request goes on");
    assert!(!upstream.events().contains(&Event::Asked("GET /never".to_owned())));
}

#[test]
fn an_upstream_that_dies_in_its_body_is_no_clean_end() {
    on_both("", |which, port, _| {
        let response = client::get(port, "/cut?n=2&ms=30");
        assert_eq!(response.status(), 200);
        assert!(response.text().starts_with("piece 0;"), "{which:?}");
        assert!(!response.complete, "{which:?} hides that the body was cut");
    });
}

#[test]
fn an_upstream_that_closes_without_a_reply_is_a_502() {
    on_both("", |which, port, _| assert_eq!(client::get(port, "/close").status(), 502, "{which:?}"));
}

#[test]
fn an_upgraded_connection_carries_bytes_both_ways() {
    on_both("", |which, port, _| {
        let mut connection = Connection::open(port);
        connection.send("GET /upgrade HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
        assert_eq!(connection.head(false).unwrap().status, 101, "{which:?}");
        for message in ["first", "\x00\u{1}second", "third"] {
            connection.send(message);
            let mut received = connection.take_buffer();
            while received.len() < message.len() {
                let mut chunk = [0; 64];
                let read = std::io::Read::read(&mut connection.stream, &mut chunk).unwrap();
                assert!(read > 0, "{which:?} closed");
                received.extend_from_slice(&chunk[..read]);
            }
            assert_eq!(received, message.as_bytes(), "{which:?}");
        }
    });
}

#[test]
fn a_kept_alive_client_and_a_reused_upstream_connection() {
    on_both("", |which, port, upstream| {
        let mut connection = Connection::open(port);
        for i in 0..20 {
            connection.send(format!("GET /r/{i} HTTP/1.1\r\nHost: api.test\r\n\r\n"));
            assert_eq!(connection.response().unwrap().json()["target"], format!("/r/{i}"), "{which:?}");
        }
        assert_eq!(upstream.connections(), 1, "{which:?}");
    });
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    on_both("", |which, port, _| {
        let mut connection = Connection::open(port);
        let requests: String = (0..5).map(|i| format!("GET /p/{i} HTTP/1.1\r\nHost: api.test\r\n\r\n")).collect();
        connection.send(requests);
        for i in 0..5 {
            assert_eq!(connection.response().unwrap().json()["target"], format!("/p/{i}"), "{which:?}");
        }
    });
}

#[test]
fn a_large_body_passes_whole_in_both_directions() {
    on_both("", |which, port, _| {
        let body = "0123456789abcdef".repeat(256 * 1024);
        let head = format!("POST /big HTTP/1.1\r\nHost: api.test\r\nContent-Length: {}\r\n\r\n", body.len());
        let seen = client::request(port, head + &body).unwrap().json();
        assert!(seen["body"] == body.as_str(), "{which:?} changed the body");
    });
}

/// Caddy waits for the rest of the body here.
#[test]
fn an_early_answer_does_not_wait_for_the_request_body() {
    let upstream = Upstream::start("U");
    let (_proxy, port) = start(Which::Llmproxy, &upstream, "");
    let mut connection = Connection::open(port);
    connection.set_patience(Duration::from_secs(5));
    connection.send("POST /early HTTP/1.1\r\nHost: api.test\r\nContent-Length: 100000\r\n\r\nonly the beginning");
    let response = connection.response().expect("an answer");
    assert_eq!((response.status(), response.text().as_str()), (413, "early"));
}

//! `rate_limit` on real sockets: who is counted, what is told, what a reload keeps, when an open request ends; and beside
//! nginx, whose `limit_req` and `limit_conn` the same configurations come from.

use crate::harness::client::{self, Connection, Response};
use crate::harness::llm_upstream::LlmUpstream;
use crate::harness::process::{Proxy, Which, command, free_port, run_within};
use crate::harness::upstream::Upstream;
use crate::listener_wrappers::{Balancer, is_there};
use std::time::{Duration, Instant};

/// For what takes an instant, on a machine that is busy.
const LIMIT: Duration = Duration::from_secs(15);

fn site(port: u16, lines: &str, upstream: &Upstream) -> String {
    format!("http://:{port} {{\n\tbind 127.0.0.1\n{lines}\n\treverse_proxy {}\n}}\n", upstream.address())
}

fn start(lines: &str, upstream: &Upstream) -> (Proxy, u16) {
    let port = free_port();
    (Proxy::start(Which::Llmproxy, &site(port, lines, upstream), port), port)
}

fn zone(name: &str, lines: &str) -> String {
    let lines = lines.replace('\n', "\n\t\t\t");
    format!("\trate_limit {{\n\t\tzone {name} {{\n\t\t\t{lines}\n\t\t}}\n\t}}")
}

fn statuses(port: u16, count: usize) -> Vec<u16> {
    (0..count).map(|_| client::get(port, "/").status()).collect()
}

/// Asks from another address of this machine.
fn get_from(address: &str, port: u16, path: &str) -> Response {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&format!("{address}:0").parse::<std::net::SocketAddr>().unwrap().into()).unwrap();
    socket.connect(&std::net::SocketAddr::from(([127, 0, 0, 1], port)).into()).unwrap();
    let stream = std::net::TcpStream::from(socket);
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    let mut connection = Connection::over(stream);
    connection.send(format!("GET {path} HTTP/1.1\r\nHost: api.test\r\n\r\n"));
    connection.response().unwrap()
}

/// A request whose answer goes on until the connection is dropped; its status.
fn hold(port: u16, path: &str) -> (Connection, u16) {
    let mut connection = Connection::open(port);
    connection.send(format!("GET {path} HTTP/1.1\r\nHost: api.test\r\n\r\n"));
    let status = connection.head(false).unwrap().status;
    (connection, status)
}

/// Tries until it is let in.
fn hold_at_last(port: u16, path: &str) -> Connection {
    let until = Instant::now() + LIMIT;
    loop {
        match hold(port, path) {
            (connection, 200) => return connection,
            (_, status) => assert!(status == 429 && Instant::now() < until, "{status}"),
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn addresses_are_counted_and_refusals_go_to_the_error_routes() {
    let upstream = Upstream::start("U");
    let lines = zone("by_address", "key {client_ip}\nwindow 3s\nevents 2")
        + "\n\thandle_errors {\n\t\trespond \"{http.rate_limit.exceeded.name} {err.status_code}\"\n\t}";
    let (_proxy, port) = start(&lines, &upstream);
    let begun = Instant::now();
    assert_eq!(statuses(port, 2), [200, 200]);
    let refused = client::get(port, "/");
    if begun.elapsed() < Duration::from_secs(3) {
        assert_eq!((refused.status(), refused.text()), (429, "by_address 429".to_owned()));
        assert!(refused.header("retry-after").is_some_and(|seconds| ["1", "2", "3"].contains(&seconds)));
    }
    assert_eq!(get_from("127.0.0.8", port, "/").status(), 200, "another address has its own count");
    // It may come again when it was told.
    while client::get(port, "/").status() == 429 {
        assert!(begun.elapsed() < LIMIT);
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(begun.elapsed() >= Duration::from_secs(3));
}

#[test]
fn what_makes_no_sense_is_shown_where_it_stands() {
    let directory = tempfile::tempdir().unwrap();
    let zones = "\trate_limit {\n\t\tzone good {\n\t\t\tconcurrent 1\n\t\t}\n\t\tzone bad {\n\t\t\twindow 1m\n\t\t\tevents 0\n\t\t}\n\t}\n\trespond ok";
    std::fs::write(directory.path().join("Proxyfile"), format!("http://:8080 {{\n{zones}\n}}\n")).unwrap();
    let mut validate = command(Which::Llmproxy, directory.path());
    let output = run_within(validate.args(["validate", "--config", "Proxyfile"]), LIMIT);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("error[invalid-limit]: `events` is 0"), "{said}");
    assert!(said.contains("Proxyfile:6:3") && said.contains("zone bad {"), "{said}");
}

#[test]
fn plain_zones_tell_when_to_come_again_and_no_more() {
    let upstream = Upstream::start("U");
    let (_proxy, port) = start(&zone("plain", "window 1h\nevents 1"), &upstream);
    let first = client::get(port, "/");
    assert_eq!((first.status(), first.header("x-ratelimit-limit-requests")), (200, None));
    let refused = client::get(port, "/");
    assert_eq!((refused.status(), refused.header("retry-after"), &*refused.text()), (429, Some("3600"), ""));
    assert_eq!((refused.header("retry-after-ms"), refused.header("x-should-retry")), (None, None));
}

#[test]
fn the_caller_is_told_in_the_words_of_its_api() {
    let upstream = Upstream::start("U");
    let (_proxy, port) = start(&zone("told", "key {client_ip}\nwindow 30s\nevents 1\nheaders on"), &upstream);
    let first = client::get(port, "/v1/models");
    assert_eq!(first.header("x-ratelimit-remaining-requests"), Some("0"));
    let openai = client::get(port, "/v1/models");
    assert_eq!(
        (openai.status(), openai.header("retry-after"), openai.header("x-should-retry")),
        (429, Some("30"), Some("true"))
    );
    assert_eq!(openai.json()["error"]["code"], "rate_limit_exceeded");
    let anthropic =
        client::request(port, "POST /v1/messages HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n").unwrap();
    assert_eq!(anthropic.json()["error"]["type"], "rate_limit_error");
    let ms: u64 = anthropic.header("retry-after-ms").unwrap().parse().unwrap();
    assert!((25_000..=30_000).contains(&ms), "{ms}");
}

#[test]
fn a_reload_keeps_counts_and_changes_limits() {
    let upstream = Upstream::start("U");
    let lines =
        |events: u32| zone("kept", &format!("window 1h\nevents {events}")) + &format!("\n\theader X-Gen {events}");
    let port = free_port();
    let proxy = Proxy::start(Which::Llmproxy, &site(port, &lines(3), &upstream), port);
    assert_eq!(statuses(port, 4), [200, 200, 200, 429]);
    for (events, expected) in [(5, vec![200, 200, 429]), (2, vec![429, 429])] {
        std::fs::write(&proxy.config, site(port, &lines(events), &upstream)).unwrap();
        let output = run_within(proxy.command(Which::Llmproxy).arg("reload"), LIMIT);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let seen = statuses(port, expected.len());
        assert_eq!(seen, expected, "{events}");
    }
}

#[test]
fn open_streams_and_upgrades_count_until_they_end() {
    let upstream = Upstream::start("U");
    let (proxy, port) = start(&zone("open", "key {client_ip}\nconcurrent 2"), &upstream);
    let (first, one) = hold(port, "/sse?n=0&ms=20");
    let (second, two) = hold(port, "/sse?n=0&ms=20");
    assert_eq!((one, two, client::get(port, "/").status()), (200, 200, 429));
    let told = client::get(port, "/");
    assert_eq!((told.header("retry-after"), told.header("x-should-retry")), (Some("1"), Some("true")));
    // A client that leaves makes room, and so does an answer that ends.
    drop(first);
    let third = hold_at_last(port, "/sse?n=0&ms=20");
    assert_eq!(client::get(port, "/").status(), 429);
    drop((second, third));
    let until = Instant::now() + LIMIT;
    let mut passed = 0;
    while passed < 20 {
        match client::get(port, "/").status() {
            200 => passed += 1,
            status => assert!(status == 429 && Instant::now() < until, "{status}: {}", proxy.log()),
        }
    }
    // An upgraded connection is open for as long as it lasts.
    let upgraded: Vec<Connection> = (0..2)
        .map(|_| {
            let mut connection = Connection::open(port);
            let ask = "GET /upgrade HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
            connection.send(ask);
            assert_eq!(connection.any_head().unwrap().status, 101);
            connection
        })
        .collect();
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(client::get(port, "/").status(), 429);
    drop(upgraded);
    drop(hold_at_last(port, "/sse?n=0&ms=20"));
}

const KEYED: &str = "\theader_up Authorization \"Bearer sk-upstream-key-that-no-client-may-see\"";

fn post(port: u16, path: &str, body: &str) -> Response {
    let length = body.len();
    let head = format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: {length}");
    client::request(port, format!("{head}\r\n\r\n{body}")).unwrap()
}

/// What is set aside before a call is what it took once it has ended, in each way that it can end.
#[test]
fn tokens_count_as_the_calls_took_them() {
    let (upstream, port) = (LlmUpstream::start(), free_port());
    let zone = zone("tokens", "window 1h\ntokens 100000");
    let file = format!(
        "http://:{port} {{\n\tbind 127.0.0.1\n{zone}\n\treverse_proxy {} {{\n\t{KEYED}\n\t}}\n}}\n",
        upstream.address()
    );
    let _proxy = Proxy::start(Which::Llmproxy, &file, port);
    // Lists of models take none, and tell what is left.
    let left = || {
        let told = client::get(port, "/v1/models");
        told.header("x-ratelimit-remaining-tokens").unwrap().parse::<u64>().unwrap()
    };
    let mut used = 0;
    let mut took = |tokens: u64, what: &str| {
        let until = Instant::now() + LIMIT;
        while left() != 100_000 - used - tokens {
            assert!(Instant::now() < until, "{what}: {} used, and not {} more than {used}", 100_000 - left(), tokens);
            std::thread::sleep(Duration::from_millis(5));
        }
        used += tokens;
    };
    let chat = |model: &str, more: &str| format!(r#"{{"model":"{model}","max_tokens":5000,"messages":[]{more}}}"#);
    let stream = r#","stream":true"#;
    assert_eq!(post(port, "/v1/chat/completions", &chat("mock-chat", "")).status(), 200);
    took(18, "a whole answer");
    let streamed = post(port, "/v1/chat/completions", &chat("mock-chat", stream));
    assert!(streamed.text().contains("[DONE]") && !streamed.text().contains("prompt_tokens"), "{}", streamed.text());
    took(18, "a stream whose client did not ask for counts");
    assert_eq!(post(port, "/v1/messages", &chat("mock-chat", stream)).status(), 200);
    took(18, "a stream of messages");
    assert_eq!(post(port, "/v1/chat/completions", &chat("mock-500", "")).status(), 500);
    assert_eq!(post(port, "/v1/chat/completions", &chat("mock-429", "")).status(), 429);
    took(0, "calls that the upstream refused");
    // While a stream is open, what it may take at most is set aside; once its client has left, what came of it counts.
    let mut leaving = Connection::open(port);
    let body = chat("mock-slow", stream);
    leaving.send(format!(
        "POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    ));
    assert_eq!(leaving.head(false).unwrap().status, 200);
    assert!(leaving.piece().is_some());
    assert!(left() <= 100_000 - 54 - 5000, "{}", left());
    drop(leaving);
    let until = Instant::now() + LIMIT;
    while left() < 94_000 {
        assert!(Instant::now() < until, "{}", left());
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!((94_000..100_000 - 54).contains(&left()), "{}", left());
}

/// nginx with these lines in its `http` and `location` blocks, in front of the upstream.
fn nginx(http: &str, location: &str, upstream: &Upstream) -> (Balancer, u16) {
    let port = free_port();
    let paths: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .iter()
        .map(|name| format!("{name}_temp_path DIRECTORY/{name};\n"))
        .collect();
    let text = format!(
        "daemon off;\nmaster_process off;\npid DIRECTORY/pid;\nerror_log /dev/null;\nevents {{}}\nhttp {{\naccess_log off;\n{paths}limit_req_status 429;\nlimit_conn_status 429;\n{http}\nserver {{\nlisten 127.0.0.1:{port};\nlocation / {{\n{location}\nproxy_buffering off;\nproxy_pass http://{};\n}}\n}}\n}}\n",
        upstream.address()
    );
    (Balancer::start("nginx", &["-p", "/nonexistent", "-e", "/dev/null", "-c"], &text, port), port)
}

/// `limit_req_zone … rate=30r/m; limit_req zone=z burst=2 nodelay` and the same without `nodelay`.
#[test]
fn rates_are_counted_as_nginx_counts_them() {
    if !is_there("nginx") {
        return;
    }
    let upstream = Upstream::start("U");
    let zone_of = |rate: &str| format!("limit_req_zone $binary_remote_addr zone=z:1m rate={rate};");

    let (_nginx, theirs) = nginx(&zone_of("30r/m"), "limit_req zone=z burst=2 nodelay;", &upstream);
    let (_proxy, ours) = start(&zone("z", "key {remote_host}\nrate 30r/m burst 2 nodelay"), &upstream);
    for port in [theirs, ours] {
        assert_eq!(statuses(port, 5), [200, 200, 200, 429, 429], "{port}");
    }
    // One and a half requests further on: one passes.
    std::thread::sleep(Duration::from_secs(3));
    for port in [theirs, ours] {
        assert_eq!(statuses(port, 3), [200, 429, 429], "{port}");
    }

    let (_nginx, theirs) = nginx(&zone_of("5r/s"), "limit_req zone=z burst=2;", &upstream);
    let (_proxy, ours) = start(&zone("delayed", "key {remote_host}\nrate 5r/s burst 2"), &upstream);
    for port in [theirs, ours] {
        let begun = Instant::now();
        let threads: Vec<_> =
            (0..5).map(|_| std::thread::spawn(move || (client::get(port, "/").status(), begun.elapsed()))).collect();
        let mut told: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
        told.sort();
        let passed: Vec<_> = told.iter().filter(|(status, _)| *status == 200).map(|(_, after)| *after).collect();
        // All five come within 0.2 s, unless the machine stood still.
        if told.iter().filter(|(status, _)| *status == 429).all(|(_, after)| *after < Duration::from_millis(150)) {
            assert_eq!(passed.len(), 3, "{port}: {told:?}");
        }
        let late = passed.iter().filter(|after| **after >= Duration::from_millis(190)).count();
        assert!(late >= 2 && passed.iter().any(|after| *after >= Duration::from_millis(390)), "{port}: {told:?}");
    }
}

/// `limit_conn_zone …; limit_conn c 2`.
#[test]
fn open_requests_are_counted_as_nginx_counts_them() {
    if !is_there("nginx") {
        return;
    }
    let upstream = Upstream::start("U");
    let (_nginx, theirs) = nginx("limit_conn_zone $binary_remote_addr zone=c:1m;", "limit_conn c 2;", &upstream);
    let (_proxy, ours) = start(&zone("c", "key {remote_host}\nconcurrent 2"), &upstream);
    for port in [theirs, ours] {
        let held = [hold(port, "/sse?n=0&ms=20"), hold(port, "/sse?n=0&ms=20")];
        assert_eq!(held.iter().map(|(_, status)| *status).collect::<Vec<_>>(), [200, 200], "{port}");
        assert_eq!(statuses(port, 2), [429, 429], "{port}");
        drop(held);
        drop(hold_at_last(port, "/sse?n=0&ms=20"));
    }
}

//! Health of upstreams with real sockets: active checks, the circuit breaker, what a reload keeps, and where it can all
//! be seen.

use std::io::{BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::client::{self, Connection};
use crate::harness::process::{Proxy, Which, caddy_or_skip, free_port, run_within};
use crate::harness::upstream::{Upstream, read_head, spawn};

const SOON: Duration = Duration::from_secs(10);

/// An upstream that answers `/health` with a status that the test sets, `/work` likewise, and all else with its name.
struct Patient {
    port: u16,
    health: Arc<AtomicU16>,
    work: Arc<AtomicU16>,
    seen: Arc<Mutex<Vec<Asked>>>,
}

#[derive(Clone, Debug)]
struct Asked {
    line: String,
    headers: Vec<(String, String)>,
    body: String,
}

impl Patient {
    fn start(name: &'static str) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let (health, work) = (Arc::new(AtomicU16::new(200)), Arc::new(AtomicU16::new(200)));
        let seen: Arc<Mutex<Vec<Asked>>> = Arc::default();
        let shared = (Arc::clone(&health), Arc::clone(&work), Arc::clone(&seen));
        spawn(move || {
            for stream in listener.incoming().flatten() {
                let (health, work, seen) = (Arc::clone(&shared.0), Arc::clone(&shared.1), Arc::clone(&shared.2));
                spawn(move || {
                    let _ = serve(&stream, name, &health, &work, &seen);
                });
            }
        });
        Self { port, health, work, seen }
    }

    fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    fn set_health(&self, status: u16) {
        self.health.store(status, Ordering::SeqCst);
    }

    /// What came for a path.
    fn asked(&self, path: &str) -> Vec<Asked> {
        let seen = self.seen.lock().unwrap();
        seen.iter().filter(|asked| asked.line.split(' ').nth(1).is_some_and(|t| t.starts_with(path))).cloned().collect()
    }
}

fn serve(
    mut stream: &TcpStream,
    name: &str,
    health: &AtomicU16,
    work: &AtomicU16,
    seen: &Mutex<Vec<Asked>>,
) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    while let Some(request) = read_head(&mut reader)? {
        let length = request.header("content-length").and_then(|n| n.parse().ok()).unwrap_or(0);
        let mut body = vec![0; length];
        reader.read_exact(&mut body)?;
        let line = format!("{} {}", request.method, request.target);
        let (status, text, location) = match request.path() {
            "/health" => (health.load(Ordering::SeqCst), format!("state {}", health.load(Ordering::SeqCst)), ""),
            "/moved" => (302, String::new(), "Location: /health\r\n"),
            "/work" => (work.load(Ordering::SeqCst), name.to_owned(), ""),
            _ => (200, name.to_owned(), ""),
        };
        seen.lock().unwrap().push(Asked {
            line,
            headers: request.headers.clone(),
            body: String::from_utf8_lossy(&body).into_owned(),
        });
        let head = format!("HTTP/1.1 {status} x\r\n{location}Content-Length: {}\r\n\r\n", text.len());
        let text = if request.method == "HEAD" { "" } else { &text };
        stream.write_all(format!("{head}{text}").as_bytes())?;
    }
    Ok(())
}

fn file(port: u16, globals: &str, generation: &str, proxy: &str) -> String {
    format!(
        "{{\n\tauto_https off\n\t{globals}\n}}\n\nhttp://:{port} {{\n\tbind 127.0.0.1\n\trespond /generation \"{generation}\"\n\t{proxy}\n}}\n"
    )
}

fn wait_until(what: &str, proxy: &Proxy, mut done: impl FnMut() -> bool) {
    let until = Instant::now() + SOON;
    while !done() {
        assert!(Instant::now() < until, "never: {what}; the log:\n{}", proxy.log());
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Who answers.
fn who(port: u16) -> String {
    let answer = client::get(port, "/who");
    if answer.status() == 200 { answer.text() } else { answer.status().to_string() }
}

#[test]
fn requests_follow_the_checks() {
    let (a, b) = (Patient::start("A"), Patient::start("B"));
    let port = free_port();
    let options = "lb_policy first\nhealth_uri /health\nhealth_interval 50ms\nhealth_fails 2\nhealth_passes 2";
    let site = format!("reverse_proxy {} {} {{\n{options}\n}}", a.address(), b.address());
    let proxy = Proxy::start(Which::Llmproxy, &file(port, "admin off", "1", &site), port);
    assert_eq!(who(port), "A");
    a.set_health(503);
    wait_until("A is left alone", &proxy, || who(port) == "B");
    b.set_health(500);
    wait_until("nobody is left", &proxy, || who(port) == "503");
    a.set_health(204);
    wait_until("A is back", &proxy, || who(port) == "A");
    let log = proxy.log();
    assert!(log.contains("host is down: status 503") && log.contains("host is up"), "{log}");
    // The checks end with the configuration that asked for them.
    let plain = file(port, "admin off", "2", &format!("reverse_proxy {}", a.address()));
    std::fs::write(&proxy.config, plain).unwrap();
    wait_until("the new file is live", &proxy, || client::get(port, "/generation").text() == "2");
    wait_until("the checks end", &proxy, || {
        let before = a.asked("/health").len();
        std::thread::sleep(Duration::from_millis(300));
        a.asked("/health").len() == before
    });
}

#[test]
fn a_reload_does_not_forget_that_an_upstream_is_down() {
    let a = Patient::start("A");
    a.set_health(500);
    let port = free_port();
    let site =
        |extra: &str| format!("reverse_proxy {} {{\nhealth_uri /health\nhealth_interval 1h\n{extra}\n}}", a.address());
    let proxy = Proxy::start(Which::Llmproxy, &file(port, "admin off", "1", &site("")), port);
    wait_until("A is down", &proxy, || who(port) == "503");
    assert_eq!(a.asked("/health").len(), 1, "the first check comes at once");
    a.set_health(200);
    std::fs::write(&proxy.config, file(port, "admin off", "2", &site("header_up X-A b"))).unwrap();
    wait_until("the new file is live", &proxy, || client::get(port, "/generation").text() == "2");
    assert_eq!(who(port), "503", "known to be down");
    assert_eq!(a.asked("/health").len(), 1, "the check that runs goes on as it was");
    // Another interval is another check of the same thing: it begins anew, and at once.
    std::fs::write(&proxy.config, file(port, "admin off", "3", &site("health_timeout 3s"))).unwrap();
    wait_until("the next file is live", &proxy, || client::get(port, "/generation").text() == "3");
    wait_until("A is up", &proxy, || who(port) == "A");
}

/// The request that a check sends, beside the one of Caddy.
#[test]
fn a_check_asks_as_caddy_asks() {
    let options = "health_uri /health?deep=1\nhealth_method POST\nhealth_request_body \"ping {$NAME:pong}\"\n\
        health_interval 100ms\nhealth_headers {\nHost he.alth\nX-Target {http.reverse_proxy.active.target_upstream}\n\
        X-Two one\nX-Two two\n}\nhealth_body ^state\\s2\nhealth_status 2xx";
    let mut all = Vec::new();
    for which in [Which::Llmproxy, Which::Caddy] {
        if which == Which::Caddy && !caddy_or_skip() {
            continue;
        }
        let a = Patient::start("A");
        let port = free_port();
        let site = format!("reverse_proxy {} {{\n{options}\n}}", a.address());
        let proxy = Proxy::start(which, &file(port, "admin off", "1", &site), port);
        wait_until("it is checked", &proxy, || !a.asked("/health").is_empty());
        assert_eq!(who(port), "A");
        let asked = a.asked("/health").remove(0);
        let mut headers: Vec<(String, String)> = asked
            .headers
            .into_iter()
            .map(|(name, value)| (name.to_lowercase(), value.replace(&a.address(), "A")))
            .filter(|(name, _)| !matches!(name.as_str(), "user-agent" | "accept-encoding"))
            .collect();
        headers.sort();
        all.push((asked.line, headers, asked.body));
        a.set_health(500);
        wait_until("it is down", &proxy, || who(port) == "503");
        a.set_health(201);
        wait_until("it is up again", &proxy, || who(port) == "A");
    }
    assert_eq!(all[0].0, "POST /health?deep=1");
    assert_eq!(all[0].2, "ping pong");
    if let [ours, caddys] = &all[..] {
        assert_eq!(ours, caddys);
    }
}

#[test]
fn a_check_follows_redirects_only_when_told() {
    for (option, wanted) in [("", "503"), ("health_follow_redirects", "A")] {
        let a = Patient::start("A");
        let port = free_port();
        let site = format!("reverse_proxy {} {{\nhealth_uri /moved\nhealth_interval 50ms\n{option}\n}}", a.address());
        let proxy = Proxy::start(Which::Llmproxy, &file(port, "admin off", "1", &site), port);
        wait_until("it is checked twice", &proxy, || a.asked("/moved").len() > 1);
        wait_until(option, &proxy, || who(port) == wanted);
    }
}

#[test]
fn another_port_can_answer_for_an_upstream() {
    let (a, keeper) = (Patient::start("A"), Patient::start("keeper"));
    keeper.set_health(500);
    for option in [format!("health_port {}", keeper.port), format!("health_upstream {}", keeper.address())] {
        let port = free_port();
        let site = format!("reverse_proxy {} {{\nhealth_uri /health\nhealth_interval 50ms\n{option}\n}}", a.address());
        let proxy = Proxy::start(Which::Llmproxy, &file(port, "admin off", "1", &site), port);
        wait_until("A is down by another's word", &proxy, || who(port) == "503");
    }
    assert!(a.asked("/health").is_empty());
}

#[test]
fn a_broken_circuit_spares_the_upstream_and_closes_again() {
    let a = Patient::start("A");
    let port = free_port();
    let breaker = "circuit_breaker {\nfailures 3\nopen 500ms\nstatus 500 503\n}";
    let site = format!("reverse_proxy {} {{\n{breaker}\n}}", a.address());
    let proxy = Proxy::start(Which::Llmproxy, &file(port, "admin off", "1", &site), port);
    let work = || client::get(port, "/work").status();
    a.work.store(503, Ordering::SeqCst);
    let began = Instant::now();
    for _ in 0..3 {
        assert_eq!(work(), 503);
    }
    let reached = a.asked("/work").len();
    assert_eq!(reached, 3);
    assert_eq!(work(), 503);
    assert!(a.asked("/work").len() == reached || began.elapsed() > Duration::from_millis(500), "open, yet asked");
    // A reload changes nothing about it.
    std::fs::write(&proxy.config, file(port, "admin off", "2", &site)).unwrap();
    wait_until("the new file is live", &proxy, || client::get(port, "/generation").text() == "2");
    a.work.store(200, Ordering::SeqCst);
    wait_until("a probe closes it", &proxy, || work() == 200);
    assert!(began.elapsed() >= Duration::from_millis(500), "closed too soon");
    wait_until("both are logged", &proxy, || {
        let log = proxy.log();
        log.contains("circuit opened") && log.contains("circuit closed")
    });
}

fn upstreams(admin: u16) -> Vec<Value> {
    let answer = client::get_of(admin, &format!("localhost:{admin}"), "/reverse_proxy/upstreams");
    assert_eq!(answer.status(), 200, "{}", answer.text());
    assert_eq!(answer.header("content-type"), Some("application/json"));
    serde_json::from_value(answer.json()).unwrap()
}

/// The endpoint's answers beside Caddy's, while a stream runs, an upgrade is open, and failures count.
#[test]
fn the_admin_endpoint_tells_what_caddys_tells() {
    for which in [Which::Llmproxy, Which::Caddy] {
        if which == Which::Caddy && !caddy_or_skip() {
            continue;
        }
        let u = Upstream::start("U");
        let (port, admin) = (free_port(), free_port());
        let dead = format!("127.0.0.1:{}", free_port());
        let site =
            format!("reverse_proxy /dead {dead} {{\nfail_duration 1m\nmax_fails 9\n}}\nreverse_proxy {}", u.address());
        let proxy = Proxy::start(which, &file(port, &format!("admin localhost:{admin}"), "1", &site), port);
        let count = |address: &str, field: &str| {
            let all = upstreams(admin);
            let one = all.iter().find(|one| one["address"] == json!(address)).cloned();
            one.unwrap_or_else(|| panic!("{which:?}: no {address} in {all:?}"))[field].as_u64().unwrap()
        };
        assert_eq!((count(&u.address(), "num_requests"), count(&u.address(), "fails")), (0, 0));
        let mut stream = Connection::open(port);
        stream.send("GET /sse?n=0&ms=50 HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(stream.head(false).unwrap().status, 200);
        assert!(stream.piece().is_some());
        assert_eq!(count(&u.address(), "num_requests"), 1, "{which:?}: a stream counts");
        let mut upgraded = Connection::open(port);
        upgraded.send("GET /upgrade HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n");
        assert_eq!(upgraded.head(false).unwrap().status, 101);
        assert_eq!(count(&u.address(), "num_requests"), 2, "{which:?}: so does an upgraded connection");
        drop((stream, upgraded));
        wait_until("both are over", &proxy, || count(&u.address(), "num_requests") == 0);
        for _ in 0..2 {
            assert_eq!(client::get(port, "/dead").status(), 502);
        }
        assert_eq!((count(&dead, "num_requests"), count(&dead, "fails")), (0, 2), "{which:?}");
        let status = |request: &str| client::request(admin, request).unwrap().status();
        let host = format!("Host: localhost:{admin}\r\n\r\n");
        assert_eq!(status(&format!("POST /reverse_proxy/upstreams HTTP/1.1\r\nContent-Length: 0\r\n{host}")), 405);
        assert_eq!(status(&format!("GET /nothing HTTP/1.1\r\n{host}")), 404);
        assert_eq!(status("GET /reverse_proxy/upstreams HTTP/1.1\r\nHost: evil.test\r\n\r\n"), 403);
    }
}

#[test]
fn status_and_endpoint_tell_more_of_an_upstream() {
    let a = Patient::start("A");
    let (port, admin) = (free_port(), free_port());
    let dead = format!("127.0.0.1:{}", free_port());
    let site = format!(
        "reverse_proxy {dead} {} {{\nlb_policy round_robin\nlb_retries 3\nhealth_uri /health\nhealth_interval 50ms\ncircuit_breaker\n}}",
        a.address()
    );
    let globals = |admin: &str| file(port, admin, "1", &site);
    let proxy = Proxy::start(Which::Llmproxy, &globals(&format!("admin 127.0.0.1:{admin}")), port);
    wait_until("the dead one is found out", &proxy, || {
        upstreams(admin).iter().any(|one| one["address"] == json!(dead) && one["healthy"] == json!(false))
    });
    assert_eq!(who(port), "A");
    let one = upstreams(admin).into_iter().find(|one| one["address"] == json!(a.address())).unwrap();
    assert_eq!((&one["healthy"], &one["circuit"], &one["scheme"]), (&json!(true), &json!("closed"), &json!("http")));
    assert!(one["requests"].as_u64().unwrap() >= 1, "{one}");
    assert_eq!(
        one["failures"],
        json!({ "connect": 0, "tls": 0, "timeout": 0, "broken": 0, "rate_limited": 0, "server_error": 0 })
    );
    let told = run_within(proxy.command(Which::Llmproxy).args(["status", "--json"]), SOON);
    let told: Value = serde_json::from_slice(&told.stdout).unwrap();
    assert_eq!(told["upstreams"].as_array().map(Vec::len), Some(2), "{told}");
    let told = run_within(proxy.command(Which::Llmproxy).arg("status"), SOON);
    let told = String::from_utf8(told.stdout).unwrap();
    assert!(told.contains(&format!("upstream     {dead} (http) is down")), "{told}");
    // An address that goes is closed, another one opened, also as a socket file.
    let socket = proxy.directory.path().join("a.sock");
    std::fs::write(&proxy.config, globals(&format!("admin unix/{}", socket.display()))).unwrap();
    wait_until("the socket file is there", &proxy, || socket.exists());
    wait_until("the port is closed", &proxy, || TcpStream::connect((Ipv4Addr::LOCALHOST, admin)).is_err());
    let mut stream = UnixStream::connect(&socket).unwrap();
    stream.write_all(b"GET /reverse_proxy/upstreams HTTP/1.1\r\nHost: \r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains(&dead), "{answer}");
}

/// Behaviour 44 of Caddy: an upstream that does not answer its checks is passed over without a retry.
#[test]
fn a_dead_upstream_is_passed_over_as_in_caddy() {
    for which in [Which::Llmproxy, Which::Caddy] {
        if which == Which::Caddy && !caddy_or_skip() {
            continue;
        }
        let u = Upstream::start("U");
        let (port, dead) = (free_port(), free_port());
        let site = format!(
            "reverse_proxy 127.0.0.1:{dead} {} {{\nhealth_uri /status/200\nhealth_interval 200ms\nlb_policy first\n}}",
            u.address()
        );
        let proxy = Proxy::start(which, &file(port, "admin off", "1", &site), port);
        wait_until("requests go to U", &proxy, || client::get(port, "/who").status() == 200);
    }
}

/// A stream counts against `unhealthy_request_count` until it ends, in both.
#[test]
fn a_stream_is_a_request_under_way() {
    for which in [Which::Llmproxy, Which::Caddy] {
        if which == Which::Caddy && !caddy_or_skip() {
            continue;
        }
        let u = Upstream::start("U");
        let port = free_port();
        let site = format!("reverse_proxy {} {{\nunhealthy_request_count 1\n}}", u.address());
        let proxy = Proxy::start(which, &file(port, "admin off", "1", &site), port);
        let mut stream = Connection::open(port);
        stream.send("GET /sse?n=0&ms=50 HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(stream.head(false).unwrap().status, 200);
        assert_eq!(client::get(port, "/x").status(), 503, "{which:?}");
        drop(stream);
        wait_until("there is room again", &proxy, || client::get(port, "/x").status() == 200);
    }
}

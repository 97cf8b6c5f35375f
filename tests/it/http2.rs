//! HTTP/2 downstream, over TLS and in clear text: every MUST of RFC 9113 that binds a server, floods, ends of
//! connections, and load. The clients are scripts in `tests/h2` that send frames by hand; h2load and curl are the
//! ordinary ones.

use crate::harness::process::{Proxy, Which, free_port, run_within};
use crate::harness::repository;
use crate::harness::upstream::{Event, Upstream, spawn};
use serde_json::{Value, json};
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::process::Command;
use std::time::Duration;

struct Site {
    upstream: Upstream,
    proxy: Proxy,
    plain: u16,
    tls: u16,
    _stuck: TcpListener,
}

/// Answers every request with a body without end.
fn firehose() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    spawn(move || {
        for mut stream in listener.incoming().flatten() {
            spawn(move || {
                let _ = stream.read(&mut [0; 4096]);
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n");
                while stream.write_all(&[b'x'; 32 << 10]).is_ok() {}
            });
        }
    });
    address
}

impl Site {
    fn start(options: &str) -> Self {
        let (upstream, plain, tls) = (Upstream::start("U"), free_port(), free_port());
        // Accepts into its queue, and never reads.
        let stuck = TcpListener::bind("127.0.0.1:0").unwrap();
        let routes = format!(
            "\trespond /local \"hello, hello\"\n\treverse_proxy /stuck {}\n\treverse_proxy /firehose {}\n\treverse_proxy {}\n",
            stuck.local_addr().unwrap(),
            firehose(),
            upstream.address()
        );
        let file = format!(
            "{{\n\tadmin off\n\tskip_install_trust\n\tauto_https disable_redirects\n\tservers {{\n\t\tprotocols h1 h2 h2c\n{options}\t}}\n}}\n\
             http://localhost:{plain} {{\n{routes}}}\nhttps://localhost:{tls} {{\n\ttls internal\n{routes}}}\n"
        );
        let proxy = Proxy::start(Which::Llmproxy, &file, plain);
        Self { upstream, proxy, plain, tls, _stuck: stuck }
    }

    fn ports(&self) -> [(u16, &'static str); 2] {
        [(self.plain, "plain"), (self.tls, "tls")]
    }
}

/// What a script of `tests/h2` prints, line by line; `None`, with a message, where its libraries are not installed.
fn script(name: &str, arguments: &[String], limit: Duration) -> Option<Vec<Value>> {
    let venv = repository().join(".tools/venv");
    if !venv.join("done").exists() {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "./test installs h2, hpack and hyperframe");
        eprintln!("skipped: hpack and hyperframe are not installed (./test --install)");
        return None;
    }
    let mut command = Command::new(venv.join("bin/python"));
    command.arg(repository().join("tests/h2").join(name)).args(arguments).env("PYTHONDONTWRITEBYTECODE", "1");
    let output = run_within(&mut command, limit);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name} {arguments:?}: {said}");
    Some(String::from_utf8_lossy(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect())
}

fn transfer(case: &str, site: &Site, port: u16, kind: &str) -> Option<Value> {
    let arguments = [case.to_owned(), port.to_string(), kind.to_owned(), site.proxy.pid().to_string()];
    script("transfer.py", &arguments, Duration::from_secs(60)).map(|mut lines| lines.remove(0))
}

/// Requests that are malformed reach no upstream, and of those that go wrong in their body none the end.
fn nothing_malformed_got_through(site: &Site) {
    let wrong: Vec<Event> = site
        .upstream
        .events()
        .into_iter()
        .filter(|event| match event {
            Event::Asked(request) => request.contains("/malformed"),
            Event::Finished(target) => target.starts_with("/cut-off"),
            Event::Left { .. } => false,
        })
        .collect();
    assert!(wrong.is_empty(), "{wrong:?}");
}

#[test]
fn every_must_of_the_rfc() {
    let site = Site::start("");
    for (port, kind) in site.ports() {
        let Some(mut said) = script("conformance.py", &[port.to_string(), kind.to_owned()], Duration::from_secs(90))
        else {
            return;
        };
        let summary = said.pop().unwrap();
        assert!(said.is_empty(), "{kind}: {said:#?}");
        assert!(summary["cases"].as_u64().unwrap() > 160, "{summary}");
    }
    nothing_malformed_got_through(&site);
}

#[test]
fn floods_end_the_connection() {
    let site = Site::start("");
    let arguments = [site.plain.to_string(), "plain".to_owned(), site.proxy.pid().to_string()];
    let Some(said) = script("floods.py", &arguments, Duration::from_secs(120)) else { return };
    let said = &said[0];
    // The budget of 2000 grows while a slow machine sends, and by the answers; 400 resets likewise.
    for (name, most) in [
        ("ping", 5000),
        ("settings", 4000),
        ("settings acknowledged unasked", 50),
        ("priority", 4000),
        ("window updates", 4000),
        ("unknown frames", 4000),
        ("empty data", 200),
        ("data of padding", 200),
        ("resets of no stream", 800),
        ("rapid reset", 800),
        ("rapid reset at once", 6000),
        ("rapid reset of bodies", 800),
        ("made to reset", 600),
        ("malformed requests", 600),
        ("continuation without end", 6000),
        ("continuation of fields without end", 6000),
    ] {
        assert!(said[name]["sent"].as_u64().unwrap() <= most, "{name}: {said:#}");
        assert_ne!(said[name]["ended"], "open", "{name}: {said:#}");
    }
    for (name, outcome) in [
        ("header bomb", "connection ENHANCE_YOUR_CALM"),
        ("300 fields", "status 431"),
        ("1.2 MB of fields", "status 431"),
        ("continuation without end", "connection ENHANCE_YOUR_CALM"),
    ] {
        let ended = said[name].get("ended").unwrap_or(&said[name]);
        assert_eq!(ended, outcome, "{name}: {said:#}");
    }
    for name in ["never reading, KiB", "no window, KiB"] {
        assert!(said[name].as_u64().unwrap() < 200 * 128, "{name}: {said:#}");
    }
    let rapid = |event: &Event| matches!(event, Event::Asked(request) if request.contains("/rapid"));
    let asked = site.upstream.events().iter().filter(|event| rapid(event)).count();
    assert!(asked < 3000, "{asked} cancelled requests reached the upstream");
    nothing_malformed_got_through(&site);
    assert_eq!(crate::harness::client::get_of(site.plain, "localhost", "/ok").status(), 200, "the proxy goes on");
}

#[test]
fn bodies_trailers_and_cancelling() {
    let site = Site::start("");
    for (port, kind) in site.ports() {
        let Some(bodies) = transfer("bodies", &site, port, kind) else { return };
        assert_eq!(bodies, json!({"status": 200, "same": true, "framing": "length"}), "{kind}");
        let trailers = transfer("trailers", &site, port, kind).unwrap();
        assert_eq!(trailers["up"], json!([["x-sum", "7"]]), "{kind}: {trailers}");
        assert_eq!(trailers["down"], json!({"x-sum": "42", "x-other": "o"}), "{kind}: {trailers}");
        assert_eq!(trailers["body"], "with trailers");
        assert_eq!(transfer("cancel", &site, port, kind).unwrap(), json!({"after": 200}), "{kind}");
        let stuck = transfer("window_kept", &site, port, kind).unwrap();
        assert_eq!(stuck["ended"], "stream FLOW_CONTROL_ERROR", "{kind}: {stuck}");
    }
    for target in ["/hang?ms=8000", "/sse?n=0&ms=20"] {
        let left = |event: &Event| matches!(event, Event::Left { target: t, after } if t == target && *after < Duration::from_secs(6));
        assert!(
            site.upstream.wait_for(Duration::from_secs(5), left).is_some(),
            "{target}: {:?}",
            site.upstream.events()
        );
    }
    nothing_malformed_got_through(&site);
}

#[test]
fn time_limits_act_as_over_http1() {
    let site = Site::start("\t\ttimeouts {\n\t\t\tread_header 1s\n\t\t\tidle 2s\n\t\t}\n");
    let Some(said) = transfer("limits", &site, site.plain, "plain") else { return };
    assert!((0.9..4.0).contains(&said["block"].as_f64().unwrap()), "{said}");
    assert!((1.9..5.0).contains(&said["idle"].as_f64().unwrap()), "{said}");
    assert_eq!(said["open"], 200, "a request outlives the idle time: {said}");
    let codes: Vec<&Value> = said["goaways"].as_array().unwrap().iter().map(|goaway| &goaway[1]).collect();
    assert!(!codes.is_empty() && codes.iter().all(|code| *code == "NO_ERROR"), "{said}");
}

#[test]
fn a_drain_finishes_what_is_open() {
    let mut site = Site::start("");
    let Some(said) = transfer("drain", &site, site.tls, "tls") else { return };
    assert_eq!(said["statuses"], json!([200, 200]), "{said}");
    assert_eq!(said["goaways"], json!([[0x7fff_ffff, "NO_ERROR"], [3, "NO_ERROR"]]), "{said}");
    assert_eq!((&said["clean"], &said["mute closed"]), (&json!(true), &json!(true)), "{said}");
    assert!(said["after"].as_f64().unwrap() < 12.0, "a client that never answers holds up the stop: {said}");
    assert!(site.proxy.ends_within(Duration::from_secs(10)).is_some_and(|status| status.success()));
}

#[test]
fn clear_text_http2_alone_leaves_http1_unanswered() {
    let port = free_port();
    let file = format!(
        "{{\n\tadmin off\n\tauto_https off\n\tservers {{\n\t\tprotocols h2c\n\t}}\n}}\nhttp://:{port} {{\n\trespond ok\n}}\n"
    );
    let _proxy = Proxy::start(Which::Llmproxy, &file, port);
    let answer = crate::harness::client::request(port, "GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(answer.err(), Some(crate::harness::client::NoResponse::Closed));
}

#[test]
fn ordinary_clients_under_load() {
    let site = Site::start("");
    for program in ["h2load", "curl"] {
        if Command::new(program).arg("--version").output().is_err() {
            assert!(std::env::var("CI").as_deref() != Ok("true"), "./test installs {program}");
            eprintln!("skipped: no {program}");
            return;
        }
    }
    for (count, clients, streams, path) in [("4000", "10", "100", "/local"), ("500", "5", "10", "/ok")] {
        for base in [format!("http://localhost:{}", site.plain), format!("https://localhost:{}", site.tls)] {
            let mut load = Command::new("h2load");
            load.args(["-n", count, "-c", clients, "-m", streams, &format!("{base}{path}")]);
            let output = run_within(&mut load, Duration::from_secs(60));
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            let all = format!(
                "{count} total, {count} started, {count} done, {count} succeeded, 0 failed, 0 errored, 0 timeout"
            );
            assert!(
                said.contains(&all) && said.contains(&format!("status codes: {count} 2xx")),
                "{base}{path}: {said}"
            );
        }
    }
    for (option, port, scheme, version) in [
        ("--http2", site.tls, "https", "2"),
        ("--http1.1", site.tls, "https", "1.1"),
        ("--http2-prior-knowledge", site.plain, "http", "2"),
        // Asks for a change to h2c by `Upgrade`, which nobody offers any more.
        ("--http2", site.plain, "http", "1.1"),
        ("--http1.1", site.plain, "http", "1.1"),
    ] {
        let mut curl = Command::new("curl");
        curl.args(["-ks", "--max-time", "20", option, "-w", "\n%{http_version} %{http_code}"]);
        let output = run_within(curl.arg(format!("{scheme}://localhost:{port}/ok")), Duration::from_secs(30));
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let (body, outcome) = said.rsplit_once('\n').unwrap();
        assert_eq!(outcome, format!("{version} 200"), "{option} {scheme}: {said}");
        assert!(!body.to_ascii_lowercase().contains("h2c"), "the upstream is asked to change to h2c: {body}");
    }
}

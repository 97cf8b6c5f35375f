//! Reload: nothing is cut, nothing fails, a bad file changes nothing, and every way a file changes on disk is noticed.
//!
//! `LLMPROXY_TEST_LONG=1` (`./test --long`) runs the proof at full size: 1,000 streams across 50 reloads.

use crate::harness::client::{self, Connection};
use crate::harness::process::{Proxy, Which, free_port, run_within};
use crate::harness::upstream::Upstream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// How long a change on disk may take to be live.
const LIVE_WITHIN: Duration = Duration::from_secs(10);

fn file(port: u16, upstream: &str, generation: &str) -> String {
    format!(
        "{{\n\tadmin off\n\tauto_https off\n}}\n\nhttp://:{port} {{\n\tbind 127.0.0.1\n\theader X-Gen {generation}\n\trespond /static \"{generation}\"\n\treverse_proxy {upstream}\n}}\n"
    )
}

fn generation(port: u16) -> String {
    client::get(port, "/static").text()
}

/// Waits until new requests are answered by `wanted`.
fn wait_live(proxy: &Proxy, port: u16, wanted: &str) {
    let until = Instant::now() + LIVE_WITHIN;
    while generation(port) != wanted {
        assert!(Instant::now() < until, "{wanted} is not live; the log:\n{}", proxy.log());
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn start(upstream: &Upstream) -> (Proxy, u16) {
    let port = free_port();
    (Proxy::start(Which::Llmproxy, &file(port, &upstream.address(), "first"), port), port)
}

#[test]
fn streams_and_load_survive_reloads() {
    let (streams, reloads) = if crate::harness::long() { (1000, 50) } else { (100, 10) };
    let upstream = Upstream::start("U");
    let (proxy, port) = start(&upstream);
    let over = Arc::new(AtomicBool::new(false));
    let begun = Arc::new(AtomicUsize::new(0));
    let live = Arc::new(AtomicU64::new(0));

    let listening: Vec<_> = (0..streams)
        .map(|_| {
            let (over, begun) = (Arc::clone(&over), Arc::clone(&begun));
            let work = move || one_stream(port, &over, &begun);
            std::thread::Builder::new().stack_size(256 * 1024).spawn(work).unwrap()
        })
        .collect();
    let until = Instant::now() + Duration::from_secs(60);
    while begun.load(Ordering::Relaxed) < streams && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(begun.load(Ordering::Relaxed), streams, "streams that began");

    let loading: Vec<_> = (0..4)
        .map(|n| {
            let (over, live) = (Arc::clone(&over), Arc::clone(&live));
            std::thread::spawn(move || busy_load(port, n % 2 == 0, &over, &live))
        })
        .collect();

    for number in 1..=reloads {
        std::fs::write(&proxy.config, file(port, &upstream.address(), &number.to_string())).unwrap();
        wait_live(&proxy, port, &number.to_string());
        live.store(number, Ordering::Relaxed);
    }
    over.store(true, Ordering::Relaxed);

    let failed: Vec<String> = listening.into_iter().filter_map(|stream| stream.join().unwrap().err()).collect();
    assert!(failed.is_empty(), "{} of {streams} streams failed, such as: {}", failed.len(), failed[0]);
    let mut answered = 0;
    for load in loading {
        answered += load.join().unwrap();
    }
    assert!(answered > reloads as usize, "the load did not run: {answered}");
    println!("{streams} streams, {reloads} reloads, {answered} requests beside them, none failed");
}

/// Reads events until told that the last reload is live, and then one more; every event in order, none missing.
fn one_stream(port: u16, over: &AtomicBool, begun: &AtomicUsize) -> Result<(), String> {
    let mut connection = Connection::open(port);
    connection.send("GET /sse?n=0&ms=200 HTTP/1.1\r\nHost: api.test\r\n\r\n");
    let head = connection.head(false).map_err(|why| format!("no head: {why:?}"))?;
    if head.status != 200 {
        return Err(format!("status {}", head.status));
    }
    let (mut next, mut text) = (0, String::new());
    loop {
        let last = over.load(Ordering::Relaxed);
        let piece = connection.piece().ok_or(format!("cut after {next} events"))?;
        text += &String::from_utf8_lossy(&piece);
        while let Some(end) = text.find("\n\n") {
            if text[..end] != format!("data: {next}") {
                return Err(format!("event {next} is {:?}", &text[..end]));
            }
            text.drain(..end + 2);
            if next == 0 {
                begun.fetch_add(1, Ordering::Relaxed);
            }
            next += 1;
        }
        if last {
            return Ok(());
        }
    }
}

/// Asks without pause, on one kept connection or a new one each time; every answer is a whole 200, and never of a
/// generation older than what was live when it was asked.
fn busy_load(port: u16, keep: bool, over: &AtomicBool, live: &AtomicU64) -> usize {
    let mut kept = Connection::open(port);
    let mut answered = 0;
    while !over.load(Ordering::Relaxed) {
        let oldest = live.load(Ordering::Relaxed);
        if !keep {
            kept = Connection::open(port);
        }
        kept.send("POST /load HTTP/1.1\r\nHost: api.test\r\nContent-Length: 5\r\n\r\nhello");
        let response = kept.response().unwrap_or_else(|why| panic!("request {answered} failed: {why:?}"));
        assert_eq!(response.status(), 200, "request {answered}");
        assert!(response.complete && response.json()["body"] == "hello", "request {answered}");
        let generation: u64 = response.header("x-gen").unwrap().parse().unwrap_or(0);
        assert!(generation >= oldest, "generation {generation} answers when {oldest} is live");
        answered += 1;
    }
    answered
}

#[test]
fn a_bad_file_keeps_the_old_runtime() {
    let upstream = Upstream::start("U");
    let (proxy, port) = start(&upstream);
    for bad in ["http://:1 {\n\treverse_prox x\n}\n", "{", ":\0"] {
        std::fs::write(&proxy.config, bad).unwrap();
        let mut command = proxy.command(Which::Llmproxy);
        let output = run_within(command.args(["reload", "--config"]).arg(&proxy.config), Duration::from_secs(10));
        assert!(!output.status.success(), "reload accepts {bad:?}");
        assert!(!output.stderr.is_empty(), "reload says nothing about {bad:?}");
        assert_eq!(generation(port), "first", "after {bad:?}");
    }
    std::fs::write(&proxy.config, file(port, &upstream.address(), "second")).unwrap();
    wait_live(&proxy, port, "second");
}

#[test]
fn the_reload_command_waits_until_the_new_file_is_live() {
    let upstream = Upstream::start("U");
    let (proxy, port) = start(&upstream);
    for number in 0..5 {
        let name = format!("command-{number}");
        std::fs::write(&proxy.config, file(port, &upstream.address(), &name)).unwrap();
        let mut command = proxy.command(Which::Llmproxy);
        let output = run_within(command.args(["reload", "--config"]).arg(&proxy.config), Duration::from_secs(10));
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(generation(port), name);
    }
}

#[test]
fn signals_reload() {
    let upstream = Upstream::start("U");
    let (proxy, port) = start(&upstream);
    for signal in ["HUP", "USR1"] {
        std::fs::write(&proxy.config, file(port, &upstream.address(), signal)).unwrap();
        let killed =
            std::process::Command::new("kill").args(["-s", signal, &proxy.pid().to_string()]).status().unwrap();
        assert!(killed.success());
        wait_live(&proxy, port, signal);
    }
}

#[test]
fn every_way_a_file_changes_is_noticed() {
    let upstream = Upstream::start("U");
    let (proxy, port) = start(&upstream);
    let text = |generation: &str| file(port, &upstream.address(), generation);
    let folder = proxy.directory.path();

    std::fs::write(&proxy.config, text("written")).unwrap();
    wait_live(&proxy, port, "written");

    std::fs::write(folder.join("new"), text("renamed")).unwrap();
    std::fs::rename(folder.join("new"), &proxy.config).unwrap();
    wait_live(&proxy, port, "renamed");

    std::fs::remove_file(&proxy.config).unwrap();
    assert_eq!(generation(port), "renamed", "a missing file changes nothing");
    std::fs::write(&proxy.config, text("recreated")).unwrap();
    wait_live(&proxy, port, "recreated");

    for target in ["linked-1", "linked-2"] {
        std::fs::write(folder.join(target), text(target)).unwrap();
        std::os::unix::fs::symlink(target, folder.join("link")).unwrap();
        std::fs::rename(folder.join("link"), &proxy.config).unwrap();
        wait_live(&proxy, port, target);
    }
    std::fs::write(folder.join("linked-2"), text("behind-the-link")).unwrap();
    wait_live(&proxy, port, "behind-the-link");
}

#[test]
fn imported_files_and_folders_are_watched() {
    let port = free_port();
    let main = |import: &str| {
        format!("{{\n\tadmin off\n\tauto_https off\n}}\n\nhttp://:{port} {{\n\tbind 127.0.0.1\n\t{import}\n}}\n")
    };
    let outside = tempfile::tempdir().unwrap();
    let folder = outside.path().join("parts");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("a.conf"), "respond /static \"one\"\n").unwrap();
    let text = main(&format!("import {}/*.conf", folder.display()));
    let proxy = Proxy::start(Which::Llmproxy, &text, port);
    assert_eq!(generation(port), "one");

    std::fs::write(folder.join("a.conf"), "respond /static \"two\"\n").unwrap();
    wait_live(&proxy, port, "two");

    std::fs::write(folder.join("0.conf"), "handle /static {\n\trespond \"three\"\n}\n").unwrap();
    wait_live(&proxy, port, "three");

    std::fs::remove_file(folder.join("0.conf")).unwrap();
    wait_live(&proxy, port, "two");
}

#[test]
fn connections_uploads_and_upgrades_are_not_cut() {
    let upstream = Upstream::start("U");
    let (proxy, port) = start(&upstream);
    let mut kept = Connection::open(port);
    kept.send("GET /a HTTP/1.1\r\nHost: api.test\r\n\r\n");
    assert_eq!(kept.response().unwrap().header("x-gen"), Some("first"));
    let mut upload = Connection::open(port);
    upload.send("POST /up HTTP/1.1\r\nHost: api.test\r\nContent-Length: 10\r\n\r\n01234");
    let mut upgraded = Connection::open(port);
    upgraded.send("GET /upgrade HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
    assert_eq!(upgraded.head(false).unwrap().status, 101);
    let mut waiting = Connection::open(port);
    waiting.send("GET /hang?ms=1500 HTTP/1.1\r\nHost: api.test\r\n\r\n");
    upstream.wait_for(Duration::from_secs(5), |event| format!("{event:?}").contains("/hang")).unwrap();

    std::fs::write(&proxy.config, file(port, &upstream.address(), "second")).unwrap();
    wait_live(&proxy, port, "second");

    upload.send("56789");
    let uploaded = upload.response().unwrap();
    assert_eq!(uploaded.json()["body"], "0123456789");
    assert_eq!(uploaded.header("x-gen"), Some("first"), "a request keeps the runtime it started with");
    assert_eq!(waiting.response().unwrap().text(), "late");
    upgraded.send("still here");
    let mut echoed = upgraded.take_buffer();
    while echoed.len() < 10 {
        let mut chunk = [0; 64];
        let read = std::io::Read::read(&mut upgraded.stream, &mut chunk).unwrap();
        assert!(read > 0, "the upgraded connection was cut");
        echoed.extend_from_slice(&chunk[..read]);
    }
    assert_eq!(echoed, b"still here");
    kept.send("GET /b HTTP/1.1\r\nHost: api.test\r\n\r\n");
    let again = kept.response().expect("a kept connection goes on");
    assert_eq!(again.header("x-gen"), Some("second"), "and its next request meets the new file");
}

#[test]
fn listeners_come_and_go() {
    let upstream = Upstream::start("U");
    let (proxy, port) = start(&upstream);
    let other = free_port();
    let mut both = file(port, &upstream.address(), "both");
    both.push_str(
        file(other, &upstream.address(), "both")
            .split_once(
                "}

",
            )
            .unwrap()
            .1,
    );
    std::fs::write(&proxy.config, both).unwrap();
    wait_live(&proxy, port, "both");
    assert_eq!(generation(other), "both");
    let mut kept = Connection::open(other);
    kept.send("GET /sse?n=6&ms=100 HTTP/1.1\r\nHost: api.test\r\n\r\n");
    kept.head(false).unwrap();

    std::fs::write(&proxy.config, file(port, &upstream.address(), "one")).unwrap();
    wait_live(&proxy, port, "one");
    let mut events = 0;
    while kept.piece().is_some() {
        events += 1;
    }
    assert!(events == 6 && kept.ended_cleanly(), "the stream of a removed listener ends well: {events}");
    let until = Instant::now() + Duration::from_secs(5);
    while std::net::TcpStream::connect(("127.0.0.1", other)).is_ok() {
        assert!(Instant::now() < until, "the removed address is still listened on");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn an_address_in_use_is_refused_and_changes_nothing() {
    let upstream = Upstream::start("U");
    let (proxy, port) = start(&upstream);
    let held = std::net::TcpListener::bind(("127.0.0.1", free_port())).unwrap();
    let held_port = held.local_addr().unwrap().port();
    std::fs::write(&proxy.config, file(held_port, &upstream.address(), "held")).unwrap();
    let mut command = proxy.command(Which::Llmproxy);
    let output = run_within(command.args(["reload", "--config"]).arg(&proxy.config), Duration::from_secs(10));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains(&held_port.to_string()), "{said}");
    assert_eq!(generation(port), "first");
}

#[test]
fn a_second_instance_on_a_held_address_is_refused() {
    let upstream = Upstream::start("U");
    let (_first, port) = start(&upstream);
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("Proxyfile");
    std::fs::write(&config, file(port, &upstream.address(), "second")).unwrap();
    let mut command = crate::harness::process::command(Which::Llmproxy, directory.path());
    let output = run_within(command.args(["run", "--config"]).arg(&config), Duration::from_secs(10));
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains(&port.to_string()), "{said}");
    assert_eq!(generation(port), "first");
}

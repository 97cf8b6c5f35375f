//! The commands, as a person or a service manager uses them: exit codes, default files, signals, the control socket.

use crate::harness::client::{self, Connection};
use crate::harness::process::{Proxy, Which, command, free_port, run_within};
use crate::harness::upstream::Upstream;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(20);

fn llmproxy(directory: &Path, arguments: &[&str]) -> Output {
    run_within(command(Which::Llmproxy, directory).args(arguments), LIMIT)
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn site(port: u16, body: &str) -> String {
    format!("http://:{port} {{\n\tbind 127.0.0.1\n\t{body}\n}}\n")
}

#[test]
fn version_and_completions() {
    let directory = tempfile::tempdir().unwrap();
    let version = llmproxy(directory.path(), &["version"]);
    assert!(version.status.success() && stdout(&version).contains(env!("CARGO_PKG_VERSION")), "{}", stdout(&version));
    for shell in ["bash", "zsh", "fish"] {
        let script = llmproxy(directory.path(), &["completion", shell]);
        assert!(script.status.success() && stdout(&script).contains("validate"), "{shell}");
    }
    assert!(!llmproxy(directory.path(), &["nonsense"]).status.success());
}

#[test]
fn adapt_prints_json_and_nothing_else() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("Proxyfile"), site(8080, "respond \"x\"")).unwrap();
    let plain = llmproxy(directory.path(), &["adapt"]);
    let pretty = llmproxy(directory.path(), &["adapt", "--pretty"]);
    let parse = |output: &Output| serde_json::from_slice::<serde_json::Value>(&output.stdout).unwrap();
    assert_eq!(parse(&plain), parse(&pretty));
    assert!(stdout(&pretty).contains("\n\t\"apps\""), "{}", stdout(&pretty));
    std::fs::write(directory.path().join("Proxyfile"), site(8080, "nonsense")).unwrap();
    let bad = llmproxy(directory.path(), &["adapt"]);
    assert_eq!((bad.status.code(), stdout(&bad).as_str()), (Some(1), ""));
}

#[test]
fn validate_tells_and_explain_explains() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("Proxyfile");
    std::fs::write(&file, site(8080, "respond \"x\"")).unwrap();
    assert!(llmproxy(directory.path(), &["validate"]).status.success());
    std::fs::write(&file, site(8080, "respnd \"x\"")).unwrap();
    let bad = llmproxy(directory.path(), &["validate", "--json"]);
    assert_eq!(bad.status.code(), Some(1));
    let text = if stdout(&bad).trim().is_empty() { stderr(&bad) } else { stdout(&bad) };
    let diagnostics: serde_json::Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
    let code = diagnostics[0]["code"].as_str().unwrap().to_owned();
    assert_eq!(code, "unknown-directive");
    let explained = llmproxy(directory.path(), &["explain", &code]);
    assert!(explained.status.success() && stdout(&explained).len() > 100, "{}", stdout(&explained));
    assert!(!llmproxy(directory.path(), &["explain", "no-such-code"]).status.success());
}

#[test]
fn what_run_cannot_do_adapts_and_is_refused_by_name() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(
        directory.path().join("Proxyfile"),
        site(free_port(), "@e expression {method}.matches(\"GET\")\n\trespond @e \"x\""),
    )
    .unwrap();
    assert!(llmproxy(directory.path(), &["adapt"]).status.success());
    for command in ["validate", "run"] {
        let refused = llmproxy(directory.path(), &[command]);
        assert_eq!(refused.status.code(), Some(1), "{command}");
        assert!(stderr(&refused).contains("expression"), "{command}: {}", stderr(&refused));
    }
}

#[test]
fn default_files_in_order() {
    let directory = tempfile::tempdir().unwrap();
    let none = llmproxy(directory.path(), &["adapt"]);
    // A machine may have /etc/llmproxy/Proxyfile.
    assert!(none.status.code() == Some(1) || Path::new("/etc/llmproxy/Proxyfile").exists());
    std::fs::write(directory.path().join("Caddyfile"), site(8080, "respond \"caddyfile\"")).unwrap();
    assert!(stdout(&llmproxy(directory.path(), &["adapt"])).contains("\"caddyfile\""));
    std::fs::write(directory.path().join("Proxyfile"), site(8080, "respond \"proxyfile\"")).unwrap();
    assert!(stdout(&llmproxy(directory.path(), &["adapt"])).contains("\"proxyfile\""));
}

#[test]
fn stop_lets_open_requests_finish() {
    for how in ["stop", "TERM", "INT"] {
        let (upstream, port) = (Upstream::start("U"), free_port());
        let mut proxy =
            Proxy::start(Which::Llmproxy, &site(port, &format!("reverse_proxy {}", upstream.address())), port);
        let mut open = Connection::open(port);
        open.send("GET /sse?n=4&ms=150 HTTP/1.1\r\nHost: api.test\r\n\r\n");
        assert_eq!(open.head(false).unwrap().status, 200);
        if how == "stop" {
            let output = run_within(proxy.command(Which::Llmproxy).arg("stop"), LIMIT);
            assert!(output.status.success(), "{}", stderr(&output));
        } else {
            kill(how, proxy.pid());
        }
        let mut events = 0;
        while open.piece().is_some() {
            events += 1;
        }
        assert!(events == 4 && open.ended_cleanly(), "{how} cut a stream after {events} events");
        let status = proxy.ends_within(LIMIT).unwrap_or_else(|| panic!("{how} does not end it:\n{}", proxy.log()));
        assert_eq!(status.code(), Some(0), "{how}");
    }
}

#[test]
fn a_second_signal_does_not_wait() {
    let (upstream, port) = (Upstream::start("U"), free_port());
    let mut proxy = Proxy::start(Which::Llmproxy, &site(port, &format!("reverse_proxy {}", upstream.address())), port);
    let mut open = Connection::open(port);
    open.send("GET /sse?n=0&ms=100 HTTP/1.1\r\nHost: api.test\r\n\r\n");
    open.head(false).unwrap();
    kill("INT", proxy.pid());
    std::thread::sleep(Duration::from_millis(300));
    kill("INT", proxy.pid());
    let status = proxy.ends_within(Duration::from_secs(5)).expect("the second signal ends it");
    assert_eq!(status.code(), Some(2), "forced, as Caddy says it");
}

#[test]
fn start_returns_once_it_serves_and_status_tells() {
    let directory = tempfile::tempdir().unwrap();
    let port = free_port();
    std::fs::write(directory.path().join("Proxyfile"), site(port, "respond \"up\"")).unwrap();
    // What runs in the background keeps stderr, so it may not be a pipe that we read to its end.
    let log = std::fs::File::create(directory.path().join("log")).unwrap();
    let mut start = command(Which::Llmproxy, directory.path());
    let started = start.arg("start").stderr(log).stdout(Stdio::null()).stdin(Stdio::null()).status().unwrap();
    assert!(started.success(), "{}", std::fs::read_to_string(directory.path().join("log")).unwrap());
    let answer = client::get(port, "/").text();
    let status = llmproxy(directory.path(), &["status", "--json"]);
    let socket = find_socket(directory.path());
    let stopped = llmproxy(directory.path(), &["stop"]);
    assert_eq!(answer, "up");
    assert!(
        serde_json::from_slice::<serde_json::Value>(&status.stdout).is_ok(),
        "{} {}",
        stdout(&status),
        stderr(&status)
    );
    assert_eq!(socket, Some(0o600), "the control socket is for its owner alone");
    assert!(stopped.status.success(), "{}", stderr(&stopped));
    let until = Instant::now() + LIMIT;
    while std::net::TcpStream::connect(("127.0.0.1", port)).is_ok() {
        assert!(Instant::now() < until, "still listening after stop");
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(!llmproxy(directory.path(), &["status"]).status.success(), "status of nothing");
    assert!(!llmproxy(directory.path(), &["reload"]).status.success(), "reload of nothing");
}

#[test]
fn start_of_a_bad_file_fails_and_tells() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("Proxyfile"), site(free_port(), "nonsense")).unwrap();
    let started = llmproxy(directory.path(), &["start"]);
    assert_eq!(started.status.code(), Some(1));
    assert!(stderr(&started).contains("nonsense"), "{}", stderr(&started));
}

#[test]
fn a_rotated_key_in_an_envfile_takes_effect() {
    let (upstream, port) = (Upstream::start("U"), free_port());
    let keys = tempfile::tempdir().unwrap();
    let envfile = keys.path().join("keys.env");
    std::fs::write(&envfile, "API_KEY=first\n").unwrap();
    let body = format!(
        "reverse_proxy {} {{\n\t\theader_up A {{$API_KEY}}\n\t\theader_up B {{env.API_KEY}}\n\t}}",
        upstream.address()
    );
    let proxy = Proxy::start_with(Which::Llmproxy, "Proxyfile", &site(port, &body), port, |command| {
        command.arg("--envfile").arg(&envfile);
    });
    let seen = || {
        let headers = client::get(port, "/").json()["headers"].to_string().to_lowercase();
        ["first", "second"].map(|key| {
            headers.contains(&format!("[\"a\",\"{key}\"]")) && headers.contains(&format!("[\"b\",\"{key}\"]"))
        })
    };
    assert_eq!(seen(), [true, false]);
    std::fs::write(&envfile, "API_KEY=second\n").unwrap();
    let until = Instant::now() + LIMIT;
    while seen() != [false, true] {
        assert!(Instant::now() < until, "the new key is not used; log:\n{}", proxy.log());
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn secrets_from_files_and_credentials() {
    let (upstream, port) = (Upstream::start("U"), free_port());
    let secrets = tempfile::tempdir().unwrap();
    std::fs::write(secrets.path().join("key"), "from-a-file\n").unwrap();
    let path = secrets.path().join("key");
    let body = format!("reverse_proxy {} {{\n\t\theader_up A {{file.{}}}\n\t}}", upstream.address(), path.display());
    let _proxy = Proxy::start(Which::Llmproxy, &site(port, &body), port);
    let headers = client::get(port, "/").json()["headers"].to_string();
    assert!(headers.contains("\"from-a-file\""), "{headers}");
}

fn kill(signal: &str, pid: u32) {
    assert!(Command::new("kill").args(["-s", signal, &pid.to_string()]).status().unwrap().success());
}

/// The mode of the one socket somewhere under `folder`.
fn find_socket(folder: &Path) -> Option<u32> {
    use std::os::unix::fs::FileTypeExt as _;
    for entry in std::fs::read_dir(folder).ok()?.flatten() {
        let metadata = entry.metadata().ok()?;
        if metadata.file_type().is_socket() {
            return Some(metadata.permissions().mode() & 0o777);
        }
        if metadata.is_dir()
            && let Some(mode) = find_socket(&entry.path())
        {
            return Some(mode);
        }
    }
    None
}

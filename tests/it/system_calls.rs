//! How many system calls a request and a chunk of a stream cost: a count, so that it can be a test where a time cannot.
//! The floor between two sockets is four a request (receive, send, receive, send) and two a chunk.

use std::collections::HashMap;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::harness::client::Connection;
use crate::harness::process::{Proxy, Which, free_port};
use crate::harness::upstream::Upstream;

/// Counts the calls of a running process that move bytes, from now until it is asked.
struct Counting {
    strace: Child,
    out: tempfile::NamedTempFile,
}

impl Counting {
    /// `None` where strace is missing or may not look.
    fn start(pid: u32) -> Option<Self> {
        let out = tempfile::NamedTempFile::new().unwrap();
        let calls = "trace=read,readv,recvfrom,recvmsg,write,writev,sendto,sendmsg";
        let strace = Command::new("strace")
            .args(["-f", "-c", "-U", "calls,name", "-e", calls, "-p", &pid.to_string(), "-o"])
            .arg(out.path())
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let Ok(mut strace) = strace else {
            assert!(std::env::var_os("CI").is_none(), "strace is not installed");
            println!("skipped: strace is not installed");
            return None;
        };
        let until = Instant::now() + Duration::from_secs(10);
        let traced = || {
            let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            status.lines().any(|l| l.strip_prefix("TracerPid:").is_some_and(|p| p.trim() != "0"))
        };
        while !traced() {
            if strace.try_wait().unwrap().is_some() || Instant::now() > until {
                println!("skipped: strace may not look at a process here");
                let _ = strace.kill();
                return None;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Some(Self { strace, out })
    }

    fn end(mut self) -> HashMap<String, f64> {
        let interrupted = Command::new("kill").args(["-INT", &self.strace.id().to_string()]).status().unwrap();
        assert!(interrupted.success());
        self.strace.wait().unwrap();
        let text = std::fs::read_to_string(self.out.path()).unwrap();
        let line = |l: &str| {
            let (count, name) = l.trim().split_once(char::is_whitespace)?;
            Some((name.trim().to_owned(), count.parse().ok()?))
        };
        text.lines().filter_map(line).filter(|(name, _)| name != "total").collect()
    }
}

fn start(upstream: &Upstream) -> (Proxy, u16) {
    let port = free_port();
    let file = format!(
        "{{\n\tadmin off\n\tauto_https off\n}}\nhttp://127.0.0.1:{port} {{\n\tlog {{\n\t\toutput file access.log\n\t}}\n\treverse_proxy {}\n}}\n",
        upstream.address()
    );
    let proxy = Proxy::start_with(Which::Llmproxy, "Proxyfile", &file, port, |command| {
        command.args(["--no-watch", "--workers", "1"]);
    });
    (proxy, port)
}

#[test]
fn a_post_costs_four_calls_and_a_chunk_two() {
    const POSTS: usize = 400;
    const CHUNKS: usize = 200;
    let upstream = Upstream::start("U");
    let (proxy, port) = start(&upstream);
    let mut connection = Connection::open(port);
    let body = "y".repeat(1024);
    let post = format!("POST /p HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1024\r\n\r\n{body}");
    let mut ask = || {
        connection.send(&post);
        assert_eq!(connection.response().unwrap().status(), 200);
    };
    ask();
    let Some(counting) = Counting::start(proxy.pid()) else { return };
    (0..POSTS).for_each(|_| ask());
    let calls = counting.end();
    let each = calls.values().sum::<f64>() / POSTS as f64;
    assert!((3.9..=4.1).contains(&each), "{each} calls a POST: {calls:?}");

    let mut stream = Connection::open(port);
    stream.send(format!("GET /sse?n={}&ms=2 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", CHUNKS + 5));
    assert_eq!(stream.head(false).unwrap().status, 200);
    stream.piece().unwrap();
    let Some(counting) = Counting::start(proxy.pid()) else { return };
    let mut events = 0;
    while let Some(piece) = stream.piece() {
        events += String::from_utf8_lossy(&piece).matches("data:").count();
    }
    let calls = counting.end();
    let each = calls.values().sum::<f64>() / events as f64;
    assert!(events > CHUNKS / 2 && each <= 2.1, "{each} calls a chunk of {events}: {calls:?}");
}

//! A thousand streams while upstreams die and recover: a minute in `./test`, an hour with `LLMPROXY_TEST_LONG=1`.
//!
//! Waves of streams, with silence between them, in which the proxy's descriptors and memory must be back where they were.
//! Every stream is either whole, with all its events and its end, or can be told from a whole one. Some clients leave.

use crate::harness::process::{Proxy, Which, free_port};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

const STREAMS: usize = 1000;
/// One event a second.
const PACE: Duration = Duration::from_secs(1);
/// A client that gets nothing for so long hangs.
const HANGS: Duration = Duration::from_secs(20);

#[test]
fn streams_while_upstreams_die_and_recover() {
    allow_descriptors();
    let (waves, length) = if crate::harness::long() { (6, 590) } else { (2, 22) };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, soak(waves, Duration::from_secs(length)));
}

/// A thousand clients and as many connections of upstreams are in this process.
fn allow_descriptors() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
}

async fn soak(waves: usize, length: Duration) {
    let upstreams: Vec<Upstream> = (0..3).map(|_| Upstream::start()).collect();
    let port = free_port();
    let addresses: Vec<String> = upstreams.iter().map(|upstream| format!("127.0.0.1:{}", upstream.port)).collect();
    let file = format!(
        "{{\n\tadmin off\n\tauto_https off\n}}\nhttp://:{port} {{\n\tbind 127.0.0.1\n\treverse_proxy {} {{\n\t\tlb_policy round_robin\n\t\tlb_retries 4\n\t\tfail_duration 2s\n\t\ttransport http {{\n\t\t\tkeepalive 1s\n\t\t}}\n\t}}\n}}\n",
        addresses.join(" ")
    );
    let proxy = Proxy::start(Which::Llmproxy, &file, port);
    let seen = Rc::new(Seen::default());
    Box::pin(client(port, true, Instant::now(), Rc::clone(&seen))).await;
    let start = quiet(&proxy, None).await;

    let mut after_waves = Vec::new();
    for _ in 0..waves {
        let until = Instant::now() + length;
        let clients: Vec<_> = (0..STREAMS)
            .map(|n| {
                let seen = Rc::clone(&seen);
                tokio::task::spawn_local(async move {
                    sleep(Duration::from_millis(n as u64 * 2)).await;
                    client(port, n % 10 != 0, until, seen).await;
                })
            })
            .collect();
        let killing =
            tokio::task::spawn_local(kill_in_turn(upstreams.iter().map(|u| u.alive.clone()).collect(), until));
        for client in clients {
            client.await.expect("a client's assertion");
        }
        killing.await.unwrap();
        after_waves.push(quiet(&proxy, Some(start.descriptors)).await);
    }

    let ends = seen.ends.borrow().clone();
    let of = |end: &str| ends.get(end).copied().unwrap_or(0);
    println!("{ends:?}; descriptors and memory (KiB) at the start {start:?}, after each wave {after_waves:?}");
    assert!(of("whole") >= STREAMS && of("cut") > 0 && of("left") > 0, "{ends:?}");
    assert!(of("refused") <= of("whole") / 20, "an upstream that is down is not asked again: {ends:?}");
    let (first, last) = (after_waves[0], after_waves[waves - 1]);
    assert!(first.memory <= start.memory + 64 * 1024, "after a thousand streams: {start:?} {first:?}");
    assert!(last.memory <= first.memory + 8 * 1024, "memory grows from wave to wave: {after_waves:?}");
}

#[derive(Clone, Copy, Debug)]
struct Held {
    descriptors: usize,
    /// KiB.
    memory: u64,
}

/// What the proxy holds once nothing is under way; fails when descriptors do not come back.
async fn quiet(proxy: &Proxy, wanted: Option<usize>) -> Held {
    let until = Instant::now() + Duration::from_secs(15);
    loop {
        sleep(Duration::from_millis(1500)).await;
        let descriptors = std::fs::read_dir(format!("/proc/{}/fd", proxy.pid())).unwrap().count();
        let status = std::fs::read_to_string(format!("/proc/{}/status", proxy.pid())).unwrap();
        let memory = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        let memory = memory.trim().trim_end_matches(" kB").parse().unwrap();
        if wanted.is_none_or(|wanted| descriptors <= wanted) {
            return Held { descriptors, memory };
        }
        assert!(Instant::now() < until, "{descriptors} descriptors are open, {wanted:?} were at the start");
    }
}

/// One upstream after the other dies for two seconds, its streams with it.
async fn kill_in_turn(upstreams: Vec<watch::Sender<bool>>, until: Instant) {
    for upstream in upstreams.iter().cycle() {
        sleep(Duration::from_secs(4)).await;
        if Instant::now() + Duration::from_secs(4) > until {
            return;
        }
        upstream.send_replace(false);
        sleep(Duration::from_secs(2)).await;
        upstream.send_replace(true);
    }
}

/// How streams ended, counted.
#[derive(Default)]
struct Seen {
    ends: RefCell<BTreeMap<&'static str, usize>>,
    leaves: Cell<usize>,
}

/// One stream after the other until the time is over; one that is not `patient` leaves in the middle.
async fn client(port: u16, patient: bool, until: Instant, seen: Rc<Seen>) {
    loop {
        let end = timeout(HANGS * 3, one_stream(port, patient, &seen)).await.expect("a stream hangs");
        *seen.ends.borrow_mut().entry(end).or_default() += 1;
        if Instant::now() >= until {
            return;
        }
    }
}

async fn one_stream(port: u16, patient: bool, seen: &Seen) -> &'static str {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.expect("the proxy accepts");
    let body = "{\"model\":\"m\",\"stream\":true}";
    let request = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nHost: soak.test\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await.expect("the proxy reads");
    seen.leaves.set(seen.leaves.get() + 1);
    let leaves_after = if patient { usize::MAX } else { 200 + seen.leaves.get() % 5 * 60 };
    let mut bytes = Vec::new();
    loop {
        let mut part = [0; 2048];
        match timeout(HANGS, stream.read(&mut part)).await.expect("a stream is silent") {
            Ok(0) | Err(_) => break,
            Ok(read) => bytes.extend_from_slice(&part[..read]),
        }
        if bytes.len() > leaves_after {
            return "left";
        }
    }
    judge(&String::from_utf8_lossy(&bytes))
}

/// A stream that ended is whole with all its events, or it is seen to be none.
fn judge(text: &str) -> &'static str {
    let Some((head, body)) = text.split_once("\r\n\r\n") else {
        assert!(text.is_empty(), "half a head: {text:?}");
        return "closed";
    };
    if !head.starts_with("HTTP/1.1 200 ") {
        assert!(head.starts_with("HTTP/1.1 502 ") || head.starts_with("HTTP/1.1 503 "), "{head}");
        return "refused";
    }
    let (events, complete) = dechunked(body);
    let numbers: Vec<usize> = events
        .split("\n\n")
        .filter_map(|event| event.strip_prefix("data: {\"n\":")?.strip_suffix('}')?.parse().ok())
        .collect();
    assert!(numbers.iter().copied().eq(0..numbers.len()), "an event is missing or twice: {events:?}");
    let done = events.contains("data: [DONE]\n\n");
    let said = events.contains("\"error\"");
    match (done, complete) {
        (true, true) => {
            assert!(!said && events.contains(&format!("data: {{\"last\":{}}}\n\n", numbers.len())), "{events:?}");
            "whole"
        }
        // An error event of the protocol in place of the rest.
        (false, true) => {
            assert!(said, "looks complete and is not: {events:?}");
            "cut"
        }
        // Between the last event and the last chunk.
        (true, false) => "nearly whole",
        (false, false) => "cut",
    }
}

/// The body, and whether its last chunk came.
fn dechunked(mut text: &str) -> (String, bool) {
    let mut body = String::new();
    while let Some((size, rest)) = text.split_once("\r\n") {
        let Ok(size) = usize::from_str_radix(size, 16) else { break };
        if size == 0 {
            return (body, rest == "\r\n");
        }
        body.push_str(&rest[..size.min(rest.len())]);
        let Some(next) = rest.get(size + 2..) else { break };
        text = next;
    }
    (body, false)
}

/// An upstream of event streams, dead or alive.
struct Upstream {
    port: u16,
    alive: watch::Sender<bool>,
}

impl Upstream {
    fn start() -> Self {
        let port = free_port();
        let (alive, life) = watch::channel(true);
        tokio::task::spawn_local(live(port, life));
        Self { port, alive }
    }
}

async fn live(port: u16, mut life: watch::Receiver<bool>) {
    while life.wait_for(|alive| *alive).await.is_ok() {
        let listener = listen(port);
        let of_streams = life.clone();
        let accepting = async {
            for number in 1.. {
                if let Ok((stream, _)) = listener.accept().await {
                    tokio::task::spawn_local(serve(stream, number, of_streams.clone()));
                }
            }
        };
        tokio::select! {
            () = accepting => {}
            _ = life.wait_for(|alive| !*alive) => {}
        }
    }
}

fn listen(port: u16) -> TcpListener {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.bind(([127, 0, 0, 1], port).into()).unwrap();
    socket.listen(1024).unwrap()
}

/// Dies with its upstream: every other connection by a reset, the rest as a process ends.
async fn serve(mut stream: TcpStream, number: usize, mut life: watch::Receiver<bool>) {
    tokio::select! {
        _ = answers(&mut stream, number) => {}
        _ = life.wait_for(|alive| !*alive) => {
            if number.is_multiple_of(2) {
                let _ = socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO));
            }
        }
    }
}

async fn answers(stream: &mut TcpStream, number: usize) -> std::io::Result<()> {
    loop {
        let mut request = Vec::new();
        while !request.ends_with(b"true}") {
            if stream.read_buf(&mut request).await? == 0 {
                return Ok(());
            }
        }
        let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
        stream.write_all(head.as_bytes()).await?;
        let events = 3 + number % 8;
        for n in 0..events {
            stream.write_all(chunk(&format!("data: {{\"n\":{n}}}\n\n")).as_bytes()).await?;
            sleep(PACE).await;
        }
        let end = chunk(&format!("data: {{\"last\":{events}}}\n\ndata: [DONE]\n\n"));
        stream.write_all(format!("{end}0\r\n\r\n").as_bytes()).await?;
    }
}

fn chunk(text: &str) -> String {
    format!("{:x}\r\n{text}\r\n", text.len())
}

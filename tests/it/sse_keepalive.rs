//! What is said within a stream, and when a stream is over: signs of life while the upstream is silent, its death told in
//! the words of the API, and cuts that never look complete. The official clients meet the same in `clients`.

use crate::harness::client::{self, Connection};
use crate::harness::process::{Proxy, Which, caddy_or_skip, free_port, run_within};
use crate::harness::upstream::{read_body, read_head, spawn};
use socket2::SockRef;
use std::io::{BufReader, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

const EVENTS: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";

/// A line of what an upstream does with every request.
#[derive(Clone, Copy)]
enum Step {
    Says(&'static str),
    /// In a chunk of its own.
    Sends(&'static str),
    Waits(u64),
    /// Closes as a process that dies: with a reset.
    Dies,
}
use Step::{Dies, Says, Sends, Waits};

/// Serves until its process ends; closes after the last step.
fn scripted(steps: &[Step]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let steps: Arc<[Step]> = steps.into();
    spawn(move || {
        for stream in listener.incoming().flatten() {
            let steps = Arc::clone(&steps);
            spawn(move || drop(perform(&stream, &steps)));
        }
    });
    address
}

fn perform(stream: &TcpStream, steps: &[Step]) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream);
    let Some(request) = read_head(&mut reader)? else { return Ok(()) };
    read_body(&request, &mut reader, |_, _| Ok(()))?;
    let mut out = stream;
    for step in steps {
        match *step {
            Says(text) => out.write_all(text.as_bytes())?,
            Sends(text) => out.write_all(format!("{:x}\r\n{text}\r\n", text.len()).as_bytes())?,
            Waits(ms) => std::thread::sleep(Duration::from_millis(ms)),
            Dies => {
                // What was sent is to arrive first.
                std::thread::sleep(Duration::from_millis(50));
                return SockRef::from(stream).set_linger(Some(Duration::ZERO));
            }
        }
    }
    stream.shutdown(Shutdown::Both)
}

fn site(which: Which, upstream: &str, options: &str) -> (Proxy, u16) {
    let port = free_port();
    let versions = if which == Which::Llmproxy { "protocols h1 h2c" } else { "protocols h1 h2 h2c" };
    let file = format!(
        "{{\n\tadmin off\n\tauto_https off\n\tpersist_config off\n\tservers {{\n\t\t{versions}\n\t}}\n}}\n\nhttp://:{port} {{\n\tbind 127.0.0.1\n\treverse_proxy {upstream} {{\n\t\t{options}\n\t}}\n}}\n"
    );
    (Proxy::start(which, &file, port), port)
}

/// What a client reads of an answer, and whether it ended well.
fn read(port: u16, path: &str) -> (String, bool) {
    let response = client::get(port, path);
    (response.text(), response.complete)
}

#[test]
fn a_silent_stream_is_kept_alive_between_its_events_alone() {
    let steps = [
        Says(EVENTS),
        Waits(2500),
        Sends("data: 1\n\n"),
        Sends("data: "),
        Waits(1500),
        Sends("2\n\n"),
        Sends("data: [DONE]\n\n"),
        Says("0\r\n\r\n"),
    ];
    let upstream = scripted(&steps);
    let (_proxy, port) = site(Which::Llmproxy, &upstream, "sse_keepalive 1s");
    let asked = ["/v1/chat/completions", "/v1/messages"].map(|path| std::thread::spawn(move || read(port, path)));
    for (asked, sign) in asked.into_iter().zip([": keepalive\n\n", "event: ping\ndata: {\"type\":\"ping\"}\n\n"]) {
        let expected = format!("{sign}{sign}data: 1\n\ndata: 2\n\ndata: [DONE]\n\n");
        assert_eq!(asked.join().unwrap(), (expected, true));
    }
}

#[test]
fn a_sign_of_life_is_sent_when_it_is_due() {
    let upstream = scripted(&[Says(EVENTS), Waits(20_000)]);
    let (_proxy, port) = site(Which::Llmproxy, &upstream, "sse_keepalive 1s");
    let mut connection = Connection::open(port);
    connection.send("GET /events HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(connection.head(false).unwrap().status, 200);
    let since = std::time::Instant::now();
    for n in 1..=2 {
        assert_eq!(connection.piece().unwrap(), b": keepalive\n\n");
        let took = since.elapsed();
        assert!(took > Duration::from_millis(900 * n) && took < Duration::from_millis(1600 * n), "{n}: {took:?}");
    }
}

#[test]
fn nothing_is_said_where_a_reader_would_not_take_it() {
    let lines = "HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n";
    let text = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n";
    let told = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: 8\r\n\r\n";
    let checks =
        [(lines, "/api/chat"), (text, "/v1/chat/completions"), (told, "/v1/chat/completions")].map(|(head, path)| {
            std::thread::spawn(move || {
                let chunked = head != told;
                let end = if chunked { "2\r\n{}\r\n0\r\n\r\n" } else { "data: 1\n" };
                let upstream = scripted(&[Says(head), Waits(1600), Says(end)]);
                let (_proxy, port) = site(Which::Llmproxy, &upstream, "sse_keepalive 1s");
                let expected = if chunked { "{}" } else { "data: 1\n" };
                assert_eq!(read(port, path), (expected.to_owned(), true), "{path}");
            })
        });
    checks.into_iter().for_each(|check| check.join().unwrap());
}

#[test]
fn an_upstream_that_dies_is_told_in_the_words_of_the_api() {
    for how in [&[Sends("data: {}\n\n")][..], &[Sends("data: {}\n\n"), Dies]] {
        let upstream = scripted(&[&[Says(EVENTS)], how].concat());
        let (proxy, port) = site(Which::Llmproxy, &upstream, "");
        let (text, complete) = read(port, "/v1/chat/completions");
        let error: serde_json::Value =
            serde_json::from_str(text.strip_prefix("data: {}\n\ndata: ").expect(&text).trim_end()).unwrap();
        assert_eq!(error["error"]["code"], "upstream_body_error", "{text}");
        assert!(complete && text.ends_with("\n\n") && !text.contains("[DONE]"), "{text}");
        let (text, _) = read(port, "/v1/responses");
        assert!(text.contains("\n\nevent: error\ndata: {\"type\":\"error\","), "{text}");
        let (text, _) = read(port, "/v1/messages");
        assert!(
            text.contains("\n\nevent: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"api_error\","),
            "{text}"
        );
        assert!(!text.contains("127.0.0.1"), "the client is told where the upstream is: {text}");
        assert!(proxy.log().contains("a response is cut"), "the log does not tell: {}", proxy.log());
    }
    let lines = "HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n";
    let (_proxy, port) = site(Which::Llmproxy, &scripted(&[Says(lines), Sends("{\"a\":1}\n")]), "");
    let told = "{\"a\":1}\n{\"error\":\"The upstream broke off before the answer was complete.\"}\n";
    assert_eq!(read(port, "/api/chat"), (told.to_owned(), true));
}

#[test]
fn a_stall_within_a_stream_is_told_as_one() {
    let upstream = scripted(&[Says(EVENTS), Sends("data: {}\n\n"), Waits(10_000)]);
    let (_proxy, port) = site(Which::Llmproxy, &upstream, "transport http {\n\t\t\tread_timeout 300ms\n\t\t}");
    let (text, complete) = read(port, "/v1/messages");
    assert!(
        complete && text.contains("{\"type\":\"timeout_error\",\"message\":\"The upstream stopped sending"),
        "{text}"
    );
}

/// Every framing of the upstream's, on every protocol of the client's.
#[test]
fn a_cut_never_looks_complete() {
    let length = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 100\r\n\r\nhalf";
    let chunked = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n";
    let closing = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\nhalf";
    let cases = [
        ("a length that is not reached", vec![Says(length)], ""),
        ("a reset within a length", vec![Says(length), Dies], ""),
        ("no last chunk", vec![Says(chunked)], ""),
        ("a chunk not whole", vec![Says(chunked), Says("64\r\nmore")], ""),
        ("a reset within chunks", vec![Says(chunked), Dies], ""),
        ("a reset of a body that ends with the connection", vec![Says(closing), Dies], ""),
        ("a stream that is told to be cut", vec![Says(EVENTS), Sends("data: {}\n\n")], "sse_errors off"),
    ];
    for (case, steps, options) in cases {
        let upstream = scripted(&steps);
        for which in [Which::Llmproxy, Which::Caddy] {
            if which == Which::Caddy && (!options.is_empty() || !caddy_or_skip()) {
                continue;
            }
            let (_proxy, port) = site(which, &upstream, options);
            let (text, complete) = read(port, "/v1/chat/completions");
            assert!(!complete, "{which:?}, {case}: {text}");
            let mut curl = Command::new("curl");
            curl.args(["-s", "--max-time", "10", "--http2-prior-knowledge"]);
            let output =
                run_within(curl.arg(format!("http://127.0.0.1:{port}/v1/chat/completions")), Duration::from_secs(15));
            assert!(!output.status.success(), "{which:?} over HTTP/2, {case}: {output:?}");
            assert!(output.status.code() != Some(28), "{which:?} over HTTP/2, {case}: no end");
        }
    }
}

/// The length of a body to an HTTP/1.0 client is told by the end of the connection alone: a reset says that it is short.
#[test]
fn a_cut_does_not_look_complete_to_an_old_client() {
    use std::io::Read as _;
    let chunked = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n";
    let (_proxy, port) = site(Which::Llmproxy, &scripted(&[Says(chunked), Waits(100)]), "");
    let mut connection = Connection::open(port);
    connection.send("GET / HTTP/1.0\r\nHost: a\r\n\r\n");
    let mut said = Vec::new();
    let ended = connection.stream.read_to_end(&mut said);
    assert!(String::from_utf8_lossy(&said).ends_with("half"));
    assert!(ended.is_err(), "it ended as if it were complete");
}

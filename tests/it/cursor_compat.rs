//! `cursor_compat` over real sockets: what goes up for each shape that Cursor sends, and what comes down, however the
//! upstream cuts its answer.

use crate::harness::client::{self, Connection, Response};
use crate::harness::process::{Proxy, Which, free_port};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(10);

/// An upstream that says what it is told to, and shows what it was asked.
struct Scripted {
    port: u16,
    /// Head and body of each request.
    asked: Receiver<(String, Vec<u8>)>,
    /// Lets a `Step::Wait` go on.
    go_on: Sender<()>,
    /// The proxy closed its connection while the script was waiting.
    left: Receiver<()>,
}

#[derive(Clone)]
enum Step {
    Send(Vec<u8>),
    /// Byte by byte.
    Trickle(Vec<u8>),
    Wait,
    /// Until the proxy closes the connection.
    Linger,
}

impl Scripted {
    /// Every connection gets one request and this answer, then it is closed.
    fn start(script: Vec<Step>) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let ((tell, asked), (go_on, wait), (tell_left, left)) = (channel(), channel(), channel());
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                stream.set_nodelay(true).unwrap();
                let Some(request) = read_request(&mut stream) else { continue };
                let _ = tell.send(request);
                for step in &script {
                    let sent = match step {
                        Step::Send(bytes) => stream.write_all(bytes),
                        Step::Trickle(bytes) => bytes.iter().try_for_each(|b| stream.write_all(&[*b])),
                        Step::Wait => {
                            let _ = wait.recv_timeout(PATIENCE);
                            Ok(())
                        }
                        Step::Linger => {
                            if matches!(stream.read(&mut [0; 64]), Ok(0)) {
                                let _ = tell_left.send(());
                            }
                            Ok(())
                        }
                    };
                    if sent.is_err() {
                        break;
                    }
                }
            }
        });
        Self { port, asked, go_on, left }
    }

    /// An answer of this type and with this body, its length told.
    fn answering(kind: &str, body: &[u8]) -> Self {
        let head = format!("HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n", body.len());
        Self::start(vec![Step::Send([head.as_bytes(), body].concat())])
    }

    /// The body of the next request, and its head in lower case.
    fn next(&self) -> (String, Vec<u8>) {
        self.asked.recv_timeout(PATIENCE).expect("the upstream is asked")
    }
}

fn read_request(stream: &mut TcpStream) -> Option<(String, Vec<u8>)> {
    let mut bytes = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        let end = bytes.windows(4).position(|w| w == b"\r\n\r\n");
        if let Some(end) = end {
            let head = String::from_utf8_lossy(&bytes[..end]).to_lowercase();
            let length = head.lines().find_map(|l| l.strip_prefix("content-length:")?.trim().parse().ok()).unwrap_or(0);
            if bytes.len() >= end + 4 + length {
                return Some((head, bytes[end + 4..].to_vec()));
            }
        }
        match stream.read(&mut chunk) {
            Ok(n) if n > 0 => bytes.extend_from_slice(&chunk[..n]),
            _ => return None,
        }
    }
}

const CHUNKED: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";

/// One piece of a body in chunked coding.
fn chunk(text: impl AsRef<[u8]>) -> Vec<u8> {
    let text = text.as_ref();
    [format!("{:x}\r\n", text.len()).as_bytes(), text, b"\r\n"].concat()
}

fn start(upstream: &Scripted, lines: &str) -> (Proxy, u16) {
    let port = free_port();
    let file =
        format!("http://:{port} {{\n\tbind 127.0.0.1\n\t{lines}\n\treverse_proxy 127.0.0.1:{}\n}}\n", upstream.port);
    (Proxy::start(Which::Llmproxy, &file, port), port)
}

fn post(path: &str, body: &str) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nHost: api.test\r\nContent-Type: application/json\r\nAccept-Encoding: gzip\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

fn chat(port: u16, body: &str) -> Response {
    client::request(port, post("/v1/chat/completions", body)).unwrap()
}

const CHAT: &str = r#"{ "model":"gpt-4o", "messages":[{"role":"user","content":"hi"}], "stream":true }"#;

#[test]
fn each_shape_goes_up_as_chat() {
    let upstream = Scripted::answering("application/json", br#"{"choices":[],"usage":null}"#);
    let (_proxy, port) = start(&upstream, "cursor_compat {\n\t\treasoning think\n\t}");
    for (sent, expected) in [
        (CHAT, None),
        (
            r#"{"model":"gpt-5-thinking-high","input":[{"role":"user","content":[{"type":"input_text","text":"hi"}]}],"tools":[{"type":"custom","name":"ApplyPatch"}],"max_output_tokens":5}"#,
            Some(json!({"model": "gpt-5", "messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}]}],
                "max_completion_tokens": 5, "reasoning_effort": "high"})),
        ),
        (
            r#"{"model":"claude","system":"s","messages":[{"role":"user","content":[{"type":"tool_result","tool_use_id":"t","content":"r"}]},{"role":"assistant","content":"<think>x</think>y"}],"tool_choice":{"type":"any"}}"#,
            Some(json!({"model": "claude", "messages": [{"role": "system", "content": "s"},
                {"role": "tool", "tool_call_id": "t", "content": "r"}, {"role": "assistant", "content": "y"}], "tool_choice": "required"})),
        ),
    ] {
        let response = chat(port, sent);
        assert_eq!((response.status(), response.text().as_str()), (200, r#"{"choices":[]}"#));
        assert_eq!(response.header("content-length"), Some("14"));
        let (head, body) = upstream.next();
        assert!(head.contains("accept-encoding: identity"), "{head}");
        assert!(head.contains(&format!("content-length: {}", body.len())), "{head}");
        match expected {
            None => assert_eq!(String::from_utf8(body).unwrap(), sent),
            Some(expected) => {
                let mut read: Value = serde_json::from_slice(&body).unwrap();
                if let Some(tools) = read.as_object_mut().unwrap().remove("tools") {
                    assert_eq!(tools[0]["function"]["name"], "ApplyPatch");
                }
                assert_eq!(read, expected);
            }
        }
    }
    // Other paths are nobody's business here.
    let body = r#"{"model":"gpt-5-fast","input":"hi"}"#;
    let response = client::request(port, post("/v1/responses", body)).unwrap();
    assert_eq!(response.text(), r#"{"choices":[],"usage":null}"#);
    let (head, sent) = upstream.next();
    assert_eq!(String::from_utf8(sent).unwrap(), body);
    assert!(head.contains("accept-encoding: gzip"), "{head}");
}

#[test]
fn events_pass_one_by_one_and_lose_their_null_fields() {
    let event = |delta: &str, rest: &str| {
        format!("data: {{\"id\":\"c\",\"choices\":[{{\"index\":0,\"delta\":{delta}{rest}}}]}}\n\n")
    };
    let null = r#","finish_reason":null"#;
    let first = event(r#"{"content":"grün"}"#, null);
    let second = event(r#"{"content":" \"finish_reason\":null"}"#, null);
    let finish = event("{}", r#","finish_reason":"stop""#);
    let upstream = Scripted::start(vec![
        Step::Send([CHUNKED, &chunk(&first)].concat()),
        Step::Wait,
        Step::Trickle(chunk(&second)),
        Step::Send(chunk(format!("{finish}{finish}"))),
        Step::Send(b"0\r\n\r\n".to_vec()),
    ]);
    let (_proxy, port) = start(&upstream, "cursor_compat");
    let mut connection = Connection::open(port);
    connection.send(post("/v1/chat/completions", CHAT));
    let head = connection.head(false).unwrap();
    assert_eq!((head.status, head.header("content-type")), (200, Some("text/event-stream")));
    // The upstream has sent no more than this.
    assert_eq!(connection.piece().unwrap(), first.replace(null, "").as_bytes());
    upstream.go_on.send(()).unwrap();
    let mut rest = Vec::new();
    while let Some(piece) = connection.piece() {
        rest.extend_from_slice(&piece);
    }
    assert!(connection.ended_cleanly());
    let expected = format!("{}{finish}data: [DONE]\n\n", event(r#"{"content":" \"finish_reason\":null"}"#, ""));
    assert_eq!(String::from_utf8(rest).unwrap(), expected);
}

#[test]
fn a_stream_without_faults_comes_down_as_it_is() {
    let stream = ": hi\r\n\r\ndata: {\"choices\":[{\"delta\":{\"content\":\"ü\"}}]}\r\n\r\nevent: x\ndata: ?\n\ndata: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}],\"usage\":{}}\n\ndata: [DONE]\n\n";
    let upstream = Scripted::start(vec![
        Step::Send(CHUNKED.to_vec()),
        Step::Trickle(chunk(stream)),
        Step::Send(b"0\r\n\r\n".to_vec()),
    ]);
    let (_proxy, port) = start(&upstream, "cursor_compat");
    let response = chat(port, CHAT);
    assert!(response.complete);
    assert_eq!(response.text(), stream);
}

#[test]
fn an_upstream_that_breaks_off_is_told_in_the_stream() {
    let first = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"a\"}}]}\n\n";
    for (sent, begins) in [(first.to_owned(), first), (format!("{first}data: {{\"cho"), first), (String::new(), "")] {
        // Closed in the middle of a chunk.
        let mut cut = chunk(format!("{sent}more of it"));
        cut.truncate(cut.len() - "more of it\r\n".len());
        let upstream = Scripted::start(vec![Step::Send([CHUNKED, &cut].concat())]);
        let (_proxy, port) = start(&upstream, "cursor_compat");
        let response = chat(port, CHAT);
        assert!(response.complete, "a clean end of the body");
        let text = response.text();
        let error = text.strip_prefix(begins).unwrap().strip_prefix("data: ").unwrap_or_else(|| panic!("{text}"));
        let error: Value = serde_json::from_str(error).unwrap();
        assert_eq!(error["error"]["type"], "server_error", "{text}");
    }
}

#[test]
fn a_compressed_answer_is_read_all_the_same() {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder
        .write_all(br#"{"choices":[{"message":{"content":"b","reasoning":"a"},"finish_reason":"stop"}],"usage":null}"#)
        .unwrap();
    let body = encoder.finish().unwrap();
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Encoding: gzip\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    let upstream = Scripted::start(vec![Step::Send([head.as_bytes(), &body].concat())]);
    let (_proxy, port) = start(&upstream, "cursor_compat {\n\t\treasoning think\n\t}");
    let response = chat(port, CHAT);
    assert_eq!(response.header("content-encoding"), None);
    let expected = r#"{"choices":[{"message":{"content":"<think>a</think>b"},"finish_reason":"stop"}]}"#;
    assert_eq!(response.text(), expected);
}

#[test]
fn a_client_that_leaves_ends_the_upstream_request() {
    let first = "data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\n";
    let upstream = Scripted::start(vec![Step::Send([CHUNKED, &chunk(first)].concat()), Step::Linger]);
    let (_proxy, port) = start(&upstream, "cursor_compat");
    let mut connection = Connection::open(port);
    connection.send(post("/v1/chat/completions", CHAT));
    connection.head(false).unwrap();
    assert_eq!(connection.piece().unwrap(), first.as_bytes());
    drop(connection);
    upstream.left.recv_timeout(Duration::from_secs(5)).expect("the upstream request goes on");
}

#[test]
fn the_key_check_and_preflights_work_beside_it() {
    let upstream = Scripted::answering("application/json", br#"{"object":"list","data":[]}"#);
    let (_proxy, port) = start(&upstream, "cors *\n\tauth_token s3cret-of-the-test\n\tcursor_compat");
    let preflight = "OPTIONS /v1/chat/completions HTTP/1.1\r\nHost: a\r\nOrigin: vscode-file://x\r\nAccess-Control-Request-Method: POST\r\nAccess-Control-Request-Headers: authorization\r\n\r\n";
    let response = client::request(port, preflight).unwrap();
    assert!(matches!(response.status(), 200 | 204), "{}", response.status());
    assert!(response.header("access-control-allow-origin").is_some());
    for (path, body) in [("/v1/models", ""), ("/v1/chat/completions", CHAT)] {
        let response = client::request(port, post(path, body)).unwrap();
        assert_eq!(response.status(), 401);
        assert_eq!(response.json()["error"]["code"], "invalid_api_key");
    }
    assert!(upstream.asked.try_recv().is_err(), "the upstream was asked without a key");
    let models = "GET /v1/models HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer s3cret-of-the-test\r\n\r\n";
    assert_eq!(client::request(port, models).unwrap().json()["object"], "list");
    assert!(!upstream.next().0.contains("s3cret"));
}

#[test]
fn bad_bodies_pass_or_are_refused_and_never_hang() {
    let upstream = Scripted::answering("application/json", b"{}");
    let (_proxy, port) = start(&upstream, "cursor_compat");
    let deep = format!("{{\"messages\":{}", "[".repeat(100_000));
    let large =
        format!("{{\"model\":\"m\",\"messages\":[{{\"role\":\"user\",\"content\":\"{}\"}}]}}", "x".repeat(8 << 20));
    for body in ["", "not json", "[1,2]", "{\"messages\":5}", "{\"model\":\"\u{0}\"}", &deep, &large] {
        assert_eq!(chat(port, body).status(), 200);
        assert_eq!(upstream.next().1, body.as_bytes());
    }
    for (body, param) in [
        (r#"{"messages":[{"role":"user"}],"Messages":[]}"#, Value::Null),
        (r#"{"input":"a","previous_response_id":"resp_1"}"#, json!("previous_response_id")),
    ] {
        let response = chat(port, body);
        assert_eq!(response.status(), 400);
        assert_eq!(response.json()["error"]["param"], param);
        assert!(response.header("x-request-id").is_some());
    }
    assert!(upstream.asked.try_recv().is_err());
}

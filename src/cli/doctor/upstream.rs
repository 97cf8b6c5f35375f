//! The doctor in the upstream's place: answers as an OpenAI-compatible API would, with what careless gateways damage, and
//! keeps what came up.
//!
//! What it does is chosen by a word in the question (`doctor-429`), which survives translation.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// Of one request; what is larger is not examined.
const MAX_REQUEST: usize = 8 << 20;

/// The text of every answer: characters of several bytes, and what looks like the fields that a filter may remove.
pub const TEXT: [&str; 4] =
    ["caf\u{e9} \u{2713}", " {\"a\":1,\"finish_reason\":null,\"usage\":null}", " \u{1f44b}", " end"];

/// Between the parts of a stream that is split at awkward places.
const PAUSE: Duration = Duration::from_millis(40);

pub const RETRY_AFTER: &str = "7";

#[derive(Clone)]
pub struct Seen {
    pub connection: usize,
    pub method: String,
    pub target: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Seen {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str())
    }

    /// The name of the header that holds `text`, or `the path` or `the body`.
    pub fn place_of(&self, text: &str) -> Option<String> {
        if let Some((name, _)) = self.headers.iter().find(|(_, value)| value.contains(text)) {
            return Some(format!("the header `{name}`"));
        }
        if self.target.contains(text) {
            return Some("the path".to_owned());
        }
        let body = String::from_utf8_lossy(&self.body);
        body.contains(text).then(|| "the body".to_owned())
    }
}

/// Listens until dropped, or [closed](Self::close).
pub struct Upstream {
    pub port: u16,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    model: Mutex<String>,
    seen: Mutex<Vec<Seen>>,
    open: Mutex<Vec<TcpStream>>,
    closed: AtomicBool,
    listening: AtomicBool,
    left: AtomicUsize,
}

impl Upstream {
    pub fn start(address: &str) -> Result<Self, String> {
        let failed = |e: std::io::Error| format!("cannot listen on {address}: {e}");
        let listener = TcpListener::bind(address).map_err(failed)?;
        let port = listener.local_addr().map_err(failed)?.port();
        listener.set_nonblocking(true).map_err(failed)?;
        let shared = Arc::new(Shared::default());
        shared.listening.store(true, Ordering::SeqCst);
        let serving = Arc::clone(&shared);
        std::thread::spawn(move || accept(listener, &serving));
        Ok(Self { port, shared })
    }

    pub fn serve_model(&self, name: &str) {
        if let Ok(mut model) = self.shared.model.lock() {
            name.clone_into(&mut model);
        }
    }

    /// A place in the list of requests, to ask later what came after it.
    pub fn mark(&self) -> usize {
        self.shared.seen.lock().map_or(0, |seen| seen.len())
    }

    pub fn since(&self, mark: usize) -> Vec<Seen> {
        self.shared.seen.lock().map(|seen| seen[mark.min(seen.len())..].to_vec()).unwrap_or_default()
    }

    /// Endless streams that the gateway has left.
    pub fn left(&self) -> usize {
        self.shared.left.load(Ordering::SeqCst)
    }

    /// From now on connecting to it is refused.
    pub async fn close(&self) {
        self.shared.closed.store(true, Ordering::SeqCst);
        let until = Instant::now() + Duration::from_secs(2);
        while self.shared.listening.load(Ordering::SeqCst) && Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        if let Ok(open) = self.shared.open.lock() {
            for stream in &*open {
                let _ = stream.shutdown(Shutdown::Both);
            }
        }
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.shared.closed.store(true, Ordering::SeqCst);
    }
}

fn accept(listener: TcpListener, shared: &Arc<Shared>) {
    let mut count = 0;
    while !shared.closed.load(Ordering::SeqCst) {
        match listener.accept() {
            Ok((stream, _)) => {
                let number = count;
                count += 1;
                if let (Ok(mut open), Ok(clone)) = (shared.open.lock(), stream.try_clone()) {
                    open.push(clone);
                }
                let shared = Arc::clone(shared);
                std::thread::spawn(move || {
                    let _ = serve(&stream, number, &shared);
                    let _ = stream.shutdown(Shutdown::Both);
                });
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => std::thread::sleep(Duration::from_millis(5)),
            Err(_) => break,
        }
    }
    drop(listener);
    shared.listening.store(false, Ordering::SeqCst);
}

fn serve(mut stream: &TcpStream, connection: usize, shared: &Shared) -> std::io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_mins(2)))?;
    let mut buffer = Vec::new();
    while let Some(request) = read_request(stream, &mut buffer, connection)? {
        if let Ok(mut seen) = shared.seen.lock() {
            seen.push(request.clone());
        }
        let answer = answer(&request, shared);
        match answer {
            Answer::Whole(status, headers, body) => {
                let kind = if body.is_empty() { "" } else { "Content-Type: application/json\r\n" };
                let length = body.len();
                let head = format!("HTTP/1.1 {status} Doctor\r\n{kind}{headers}Content-Length: {length}\r\n\r\n");
                let body = if request.method == "HEAD" { String::new() } else { body };
                stream.write_all((head + &body).as_bytes())?;
            }
            Answer::Stream(parts) => {
                begin_stream(stream)?;
                for part in parts {
                    write_chunk(stream, &part)?;
                    std::thread::sleep(PAUSE);
                }
                stream.write_all(b"0\r\n\r\n")?;
            }
            Answer::Endless(part) => {
                begin_stream(stream)?;
                for _ in 0..400 {
                    if write_chunk(stream, part.as_bytes()).is_err() || has_left(stream, PAUSE) {
                        shared.left.fetch_add(1, Ordering::SeqCst);
                        break;
                    }
                }
                return Ok(());
            }
        }
    }
    Ok(())
}

enum Answer {
    /// Status, further header lines, body.
    Whole(u16, String, String),
    /// Event stream in these parts, [`PAUSE`] apart.
    Stream(Vec<Vec<u8>>),
    /// The same event until the peer leaves.
    Endless(String),
}

fn answer(request: &Seen, shared: &Shared) -> Answer {
    let model = shared.model.lock().map(|m| m.clone()).unwrap_or_default();
    let path = request.target.split('?').next().unwrap_or_default();
    if request.method == "OPTIONS" {
        return Answer::Whole(204, "Access-Control-Allow-Origin: *\r\n".to_owned(), String::new());
    }
    let entry = json!({"id": model, "object": "model", "created": 1_700_000_000, "owned_by": "doctor"});
    if path.ends_with("/models") {
        return Answer::Whole(200, String::new(), json!({"object": "list", "data": [entry]}).to_string());
    }
    if path.ends_with(&format!("/models/{model}")) {
        return Answer::Whole(200, String::new(), entry.to_string());
    }
    if !path.ends_with("/chat/completions") {
        return failure(404, "", "invalid_request_error", "the doctor has no such route");
    }
    let body = String::from_utf8_lossy(&request.body);
    if body.contains("doctor-429") {
        return failure(429, &format!("Retry-After: {RETRY_AFTER}\r\n"), "rate_limit_error", "slow down");
    }
    let asked: Value = serde_json::from_slice(&request.body).unwrap_or_default();
    let model = asked["model"].as_str().unwrap_or(&model);
    if body.contains("doctor-endless") {
        return Answer::Endless(event(model, &json!({"content": "x"}), &Value::Null));
    }
    if asked["stream"] != true {
        return Answer::Whole(200, String::new(), whole(model).to_string());
    }
    let usage_wanted = asked["stream_options"]["include_usage"] == true;
    Answer::Stream(stream_parts(model, usage_wanted))
}

fn failure(status: u16, headers: &str, kind: &str, message: &str) -> Answer {
    let body = json!({"error": {"message": message, "type": kind, "param": null, "code": null}});
    Answer::Whole(status, headers.to_owned(), body.to_string())
}

fn usage() -> Value {
    json!({"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7})
}

/// With an object that nobody knows, which looks like what a filter may remove.
fn whole(model: &str) -> Value {
    let message = json!({"role": "assistant", "content": TEXT.concat(), "x_doctor": unknown_object()});
    json!({
        "id": "chatcmpl-doctor", "object": "chat.completion", "created": 1_700_000_000, "model": model,
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}], "usage": usage(),
    })
}

pub fn unknown_object() -> Value {
    json!({"a": 1, "finish_reason": null, "usage": null})
}

fn event(model: &str, delta: &Value, finish: &Value) -> String {
    let chunk = json!({
        "id": "chatcmpl-doctor", "object": "chat.completion.chunk", "created": 1_700_000_000, "model": model,
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish}],
    });
    format!("data: {chunk}\n\n")
}

/// The events of an answer, cut within a character of several bytes and within `"finish_reason":null`.
fn stream_parts(model: &str, usage_wanted: bool) -> Vec<Vec<u8>> {
    let mut events = vec![event(model, &json!({"role": "assistant", "content": ""}), &Value::Null)];
    events.extend(TEXT.iter().map(|text| event(model, &json!({"content": text}), &Value::Null)));
    events.push(event(model, &json!({}), &json!("stop")));
    if usage_wanted {
        let chunk = json!({
            "id": "chatcmpl-doctor", "object": "chat.completion.chunk", "created": 1_700_000_000, "model": model,
            "choices": [], "usage": usage(),
        });
        events.push(format!("data: {chunk}\n\n"));
    }
    events.push("data: [DONE]\n\n".to_owned());
    let mut parts = Vec::new();
    for event in events {
        let in_character = event.find('\u{e9}').or_else(|| event.find('\u{1f44b}')).map(|at| at + 1);
        let in_field = event.find("_reason\":null").filter(|_| in_character.is_none());
        match in_character.or(in_field) {
            Some(at) => {
                let (first, second) = event.as_bytes().split_at(at);
                parts.extend([first.to_vec(), second.to_vec()]);
            }
            None => parts.push(event.into_bytes()),
        }
    }
    parts
}

fn begin_stream(mut stream: &TcpStream) -> std::io::Result<()> {
    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
}

fn write_chunk(mut stream: &TcpStream, part: &[u8]) -> std::io::Result<()> {
    let mut chunk = format!("{:x}\r\n", part.len()).into_bytes();
    chunk.extend_from_slice(part);
    chunk.extend_from_slice(b"\r\n");
    stream.write_all(&chunk)
}

/// Waits; `true` as soon as the peer closes its side.
fn has_left(stream: &TcpStream, wait: Duration) -> bool {
    let _ = stream.set_read_timeout(Some(wait));
    match stream.peek(&mut [0]) {
        Err(error) => !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
        Ok(read) => read == 0,
    }
}

/// The next request of a connection; `None` at its end.
fn read_request(mut stream: &TcpStream, buffer: &mut Vec<u8>, connection: usize) -> std::io::Result<Option<Seen>> {
    loop {
        let mut fields = [httparse::EMPTY_HEADER; 128];
        let mut head = httparse::Request::new(&mut fields);
        if let httparse::Status::Complete(end) = head.parse(buffer).map_err(std::io::Error::other)? {
            let headers: Vec<(String, String)> = head
                .headers
                .iter()
                .map(|h| (h.name.to_owned(), String::from_utf8_lossy(h.value).into_owned()))
                .collect();
            let (method, target) =
                (head.method.unwrap_or_default().to_owned(), head.path.unwrap_or_default().to_owned());
            buffer.drain(..end);
            let mut seen = Seen { connection, method, target, headers, body: Vec::new() };
            seen.body = read_body(stream, buffer, &seen)?;
            return Ok(Some(seen));
        }
        if !more(stream, buffer)? {
            return Ok(None);
        }
        if buffer.len() > MAX_REQUEST {
            return Err(std::io::Error::other("head too large"));
        }
        let _ = stream.flush();
    }
}

fn read_body(stream: &TcpStream, buffer: &mut Vec<u8>, request: &Seen) -> std::io::Result<Vec<u8>> {
    let too_large = || std::io::Error::other("body too large");
    if request.header("transfer-encoding").is_some() {
        let mut body = Vec::new();
        loop {
            let line = line(stream, buffer)?;
            let size = usize::from_str_radix(line.split(';').next().unwrap_or_default().trim(), 16);
            let size = size.map_err(std::io::Error::other)?;
            if body.len().saturating_add(size) > MAX_REQUEST {
                return Err(too_large());
            }
            if size == 0 {
                while !self::line(stream, buffer)?.is_empty() {}
                return Ok(body);
            }
            body.extend(exactly(stream, buffer, size)?);
            self::line(stream, buffer)?;
        }
    }
    let length: usize = request.header("content-length").and_then(|v| v.parse().ok()).unwrap_or(0);
    if length > MAX_REQUEST { Err(too_large()) } else { exactly(stream, buffer, length) }
}

fn line(stream: &TcpStream, buffer: &mut Vec<u8>) -> std::io::Result<String> {
    loop {
        if let Some(end) = memchr::memchr(b'\n', buffer) {
            let line: Vec<u8> = buffer.drain(..=end).collect();
            return Ok(String::from_utf8_lossy(&line).trim_end().to_owned());
        }
        if buffer.len() > MAX_REQUEST || !more(stream, buffer)? {
            return Err(ErrorKind::UnexpectedEof.into());
        }
    }
}

fn exactly(stream: &TcpStream, buffer: &mut Vec<u8>, count: usize) -> std::io::Result<Vec<u8>> {
    while buffer.len() < count {
        if !more(stream, buffer)? {
            return Err(ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(buffer.drain(..count).collect())
}

fn more(mut stream: &TcpStream, buffer: &mut Vec<u8>) -> std::io::Result<bool> {
    let mut chunk = [0; 16 * 1024];
    let read = stream.read(&mut chunk)?;
    buffer.extend_from_slice(&chunk[..read]);
    Ok(read > 0)
}

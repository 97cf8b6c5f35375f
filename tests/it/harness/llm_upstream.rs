//! An LLM API of the real shapes, without a model: OpenAI's chat, responses, completions, embeddings and models, and
//! Anthropic's messages. It asks for [`KEY`], and keeps every request as it came, so that a test can say what went up.
//!
//! What it does is chosen by the model's name, which survives translation by a proxy:
//!
//! - `mock-chat` answers; with tools it calls them (two at once), with an image it tells its type; `mock-reason` thinks first
//! - `mock-embed` embeds
//! - `mock-429` always answers 429; `mock-429-once` the first time only; `mock-500` and `mock-overloaded` fail
//! - `mock-inband` fails with an event in the stream, `mock-cut` closes the connection within an event
//! - `mock-broken` closes the connection between two events; `mock-silent` says nothing for a while, before its first event
//!   and behind it
//! - `mock-slow` streams without end, an event each 30 ms; [`LlmUpstream::left`] tells when the proxy has gone
//! - any other model is unknown: 404 `model_not_found`

use super::llm_answers as answers;
use super::upstream::{Request, read_body, read_head, spawn};
use serde_json::{Value, json};
use std::io::{BufReader, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// The key that this upstream asks for. A planted secret: no client may ever see it.
pub const KEY: &str = "sk-upstream-key-that-no-client-may-see";

/// What is sent with 429; seconds as OpenAI says them.
pub const RETRY_AFTER: u64 = 1;

/// How long `mock-silent` says nothing.
pub const SILENCE: Duration = Duration::from_millis(1400);

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Counted from 0; requests over one connection share it.
    pub connection: usize,
    pub method: String,
    pub target: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Seen {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// Head and body as one text, to look for what must not be there.
    pub fn text(&self) -> String {
        let headers: String = self.headers.iter().map(|(name, value)| format!("{name}: {value}\n")).collect();
        format!("{} {}\n{headers}\n{}", self.method, self.target, String::from_utf8_lossy(&self.body))
    }
}

/// Serves on a loopback port until its process ends.
pub struct LlmUpstream {
    pub port: u16,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    seen: Mutex<Vec<Seen>>,
    left: AtomicUsize,
    refused_once: AtomicUsize,
}

impl LlmUpstream {
    pub fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared::default());
        let serving = Arc::clone(&shared);
        spawn(move || {
            for (number, stream) in listener.incoming().flatten().enumerate() {
                let shared = Arc::clone(&serving);
                spawn(move || {
                    let _ = serve(&stream, number, &shared);
                    let _ = stream.shutdown(Shutdown::Both);
                });
            }
        });
        Self { port, shared }
    }

    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Every request so far, in the order of arrival.
    pub fn seen(&self) -> Vec<Seen> {
        self.shared.seen.lock().unwrap().clone()
    }

    pub fn last(&self) -> Seen {
        self.seen().pop().expect("a request reached the upstream")
    }

    /// Streams that the proxy left before their end.
    pub fn left(&self) -> usize {
        self.shared.left.load(Ordering::SeqCst)
    }

    /// Waits, at most `limit`, until so many streams have been left.
    pub fn wait_for_left(&self, count: usize, limit: Duration) -> bool {
        let until = Instant::now() + limit;
        while self.left() < count {
            if Instant::now() > until {
                return false;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        true
    }
}

fn serve(stream: &TcpStream, connection: usize, shared: &Shared) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream);
    let mut out = stream;
    while let Some(request) = read_head(&mut reader)? {
        let body = read_body(&request, &mut reader, |_, bytes| (&*stream).write_all(bytes))?.bytes;
        shared.seen.lock().unwrap().push(Seen {
            connection,
            method: request.method.clone(),
            target: request.target.clone(),
            headers: request.headers.clone(),
            body: body.clone(),
        });
        if !answer(&request, &body, &mut out, shared)? {
            return Ok(());
        }
    }
    Ok(())
}

/// Answers one request; `false` when the connection is over.
fn answer(request: &Request, body: &[u8], out: &mut &TcpStream, shared: &Shared) -> std::io::Result<bool> {
    let path = request.path();
    let anthropic = path.ends_with("/v1/messages") || path.ends_with("/v1/messages/count_tokens");
    let bearer = request.header("authorization").and_then(|value| value.strip_prefix("Bearer "));
    if bearer.or_else(|| request.header("x-api-key")) != Some(KEY) {
        let message = "Incorrect API key provided: ***. You can find your API key at https://platform.openai.com/account/api-keys.";
        return failure(out, anthropic, 401, "invalid_request_error", Some("invalid_api_key"), message, "");
    }
    let asked: Value = serde_json::from_slice(body).unwrap_or_default();
    let stream = asked["stream"] == true;
    let at = |end: &str| path.ends_with(end);
    if request.method == "GET" && at("/v1/models") {
        return whole(out, &answers::models());
    }
    if let Some((_, id)) = path.split_once("/v1/models/") {
        let id = percent_encoding::percent_decode_str(id).decode_utf8_lossy();
        let known = answers::MODELS.contains(&&*id);
        return if known { whole(out, &answers::model(&id)) } else { unknown(out, anthropic, &id) };
    }
    if request.method != "POST" {
        let message = format!("Invalid URL ({} {path})", request.method);
        return failure(out, false, 404, "invalid_request_error", None, &message, "");
    }
    let Some(model) = asked["model"].as_str() else {
        return failure(out, anthropic, 400, "invalid_request_error", None, "you must provide a model parameter", "");
    };
    let limits = format!(
        "retry-after: {RETRY_AFTER}\r\nretry-after-ms: {}\r\nx-ratelimit-limit-requests: 60\r\nx-ratelimit-remaining-requests: 0\r\nx-ratelimit-reset-requests: 1s\r\n",
        RETRY_AFTER * 1000
    );
    match model {
        "mock-429-once" if shared.refused_once.fetch_add(1, Ordering::SeqCst) > 0 => {}
        "mock-429" | "mock-429-once" => {
            let message = "Rate limit reached for requests";
            return failure(out, anthropic, 429, "requests", Some("rate_limit_exceeded"), message, &limits);
        }
        "mock-500" => {
            let message = "The server had an error while processing your request.";
            return failure(out, anthropic, 500, "server_error", None, message, "");
        }
        "mock-overloaded" => return failure(out, anthropic, 529, "overloaded_error", None, "Overloaded", ""),
        "mock-broken" | "mock-silent" => {}
        _ if !answers::MODELS.contains(&model) => return unknown(out, anthropic, model),
        _ => {}
    }
    let events = match () {
        () if at("/chat/completions") && !stream => return whole(out, &answers::chat(&asked)),
        () if at("/chat/completions") => answers::chat_events(&asked),
        () if at("/v1/responses") && !stream => return whole(out, &answers::response(&asked)),
        () if at("/v1/responses") => answers::response_events(&asked),
        () if at("/v1/messages/count_tokens") => return whole(out, &json!({"input_tokens": 5})),
        () if at("/v1/messages") && !stream => return whole(out, &answers::message(&asked)),
        () if at("/v1/messages") => answers::message_events(&asked),
        () if at("/v1/embeddings") => return whole(out, &answers::embeddings(&asked)),
        () if at("/v1/completions") => return whole(out, &answers::completion(&asked)),
        () => {
            let message = format!("Invalid URL (POST {path})");
            return failure(out, anthropic, 404, "invalid_request_error", None, &message, "");
        }
    };
    streamed(out, model, &events, shared)
}

fn streamed(out: &mut &TcpStream, model: &str, events: &[String], shared: &Shared) -> std::io::Result<bool> {
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nX-Request-Id: req_mock\r\nopenai-processing-ms: 5\r\nTransfer-Encoding: chunked\r\n\r\n";
    out.write_all(head.as_bytes())?;
    match model {
        "mock-slow" => {
            out.write_all(chunk(&events[0]).as_bytes())?;
            // The second event until the peer goes; a minute at most.
            for _ in 0..2000 {
                let piece = &events[1];
                if out.write_all(chunk(piece).as_bytes()).is_err() || has_left(out, Duration::from_millis(30)) {
                    shared.left.fetch_add(1, Ordering::SeqCst);
                    return Ok(false);
                }
            }
            return Ok(false);
        }
        "mock-cut" => {
            out.write_all(chunk(&events[0]).as_bytes())?;
            out.write_all(chunk(&events[1][..events[1].len() / 2]).as_bytes())?;
            return Ok(false);
        }
        "mock-broken" => {
            out.write_all(chunk(&events[..2].concat()).as_bytes())?;
            return Ok(false);
        }
        "mock-silent" => {
            for piece in [&events[..1], &events[1..]] {
                std::thread::sleep(SILENCE);
                out.write_all(chunk(&piece.concat()).as_bytes())?;
            }
        }
        "mock-inband" => {
            let error = json!({"error": {"message": "The model failed midway", "type": "server_error", "param": null, "code": null}});
            out.write_all(chunk(&events[0]).as_bytes())?;
            out.write_all(chunk(&events[1]).as_bytes())?;
            out.write_all(chunk(&format!("data: {error}\n\n")).as_bytes())?;
        }
        _ => {
            for event in events {
                // In two pieces that part within a character where there is a long one.
                let at = event.find('é').map_or(event.len() / 2, |i| i + 1);
                let (first, second) = event.as_bytes().split_at(at);
                for piece in [first, second] {
                    out.write_all(format!("{:x}\r\n", piece.len()).as_bytes())?;
                    out.write_all(piece)?;
                    out.write_all(b"\r\n")?;
                }
                std::thread::sleep(Duration::from_millis(2));
            }
        }
    }
    out.write_all(b"0\r\n\r\n")?;
    Ok(true)
}

/// Waits; `true` as soon as the peer closes its side.
fn has_left(stream: &TcpStream, wait: Duration) -> bool {
    let _ = stream.set_read_timeout(Some(wait));
    let left = match stream.peek(&mut [0]) {
        Err(error) => !matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut),
        Ok(read) => read == 0,
    };
    let _ = stream.set_read_timeout(None);
    left
}

fn whole(out: &mut &TcpStream, body: &Value) -> std::io::Result<bool> {
    reply(out, 200, "x-ratelimit-remaining-requests: 59\r\nopenai-processing-ms: 5\r\n", &body.to_string())
}

fn unknown(out: &mut &TcpStream, anthropic: bool, model: &str) -> std::io::Result<bool> {
    let message = format!("The model `{model}` does not exist or you do not have access to it.");
    let kind = if anthropic { "not_found_error" } else { "invalid_request_error" };
    failure(out, anthropic, 404, kind, Some("model_not_found"), &message, "")
}

fn failure(
    out: &mut &TcpStream,
    anthropic: bool,
    status: u16,
    kind: &str,
    code: Option<&str>,
    message: &str,
    headers: &str,
) -> std::io::Result<bool> {
    let body = if anthropic {
        let kind = match status {
            401 => "authentication_error",
            429 => "rate_limit_error",
            500 => "api_error",
            _ => kind,
        };
        json!({"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_mock"})
    } else {
        json!({"error": {"message": message, "type": kind, "param": null, "code": code}})
    };
    reply(out, status, headers, &body.to_string())
}

fn reply(out: &mut &TcpStream, status: u16, headers: &str, body: &str) -> std::io::Result<bool> {
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {status} Said\r\nContent-Type: application/json\r\nX-Request-Id: req_mock\r\n{headers}Content-Length: {length}\r\n\r\n"
    );
    out.write_all((head + body).as_bytes())?;
    Ok(true)
}

fn chunk(text: &str) -> String {
    format!("{:x}\r\n{text}\r\n", text.len())
}

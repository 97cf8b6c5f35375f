//! An LLM API that bills: it answers in the format of the path with as many tokens as the field `x-make` says (10 without it),
//! and keeps its own count of what it made. `x-status` makes it fail, `x-pause` waits so many milliseconds between tokens.

use super::upstream::{Request, read_body, read_head, spawn};
use serde_json::{Value, json};
use std::io::{BufReader, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

pub struct BillingUpstream {
    pub port: u16,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    calls: AtomicU64,
    tokens: AtomicU64,
}

impl BillingUpstream {
    pub fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared::default());
        let serving = Arc::clone(&shared);
        spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = Arc::clone(&serving);
                spawn(move || {
                    let _ = serve(&stream, &shared);
                    let _ = stream.shutdown(Shutdown::Both);
                });
            }
        });
        Self { port, shared }
    }

    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Calls that came here.
    pub fn calls(&self) -> u64 {
        self.shared.calls.load(Ordering::SeqCst)
    }

    /// Tokens that were made.
    pub fn tokens(&self) -> u64 {
        self.shared.tokens.load(Ordering::SeqCst)
    }
}

fn serve(stream: &TcpStream, shared: &Shared) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream);
    let mut out = stream;
    while let Some(request) = read_head(&mut reader)? {
        let body = read_body(&request, &mut reader, |_, bytes| (&*stream).write_all(bytes))?.bytes;
        shared.calls.fetch_add(1, Ordering::SeqCst);
        let asked: Value = serde_json::from_slice(&body).unwrap_or_default();
        answer(&request, &asked, &mut out, shared)?;
    }
    Ok(())
}

fn number(request: &Request, name: &str, otherwise: u64) -> u64 {
    request.header(name).and_then(|value| value.parse().ok()).unwrap_or(otherwise)
}

fn answer(request: &Request, asked: &Value, out: &mut &TcpStream, shared: &Shared) -> std::io::Result<()> {
    let status = number(request, "x-status", 200);
    if status != 200 {
        return whole(out, status, &json!({"error": {"message": "as asked", "type": "server_error"}}));
    }
    let make = number(request, "x-make", 10);
    let path = request.path();
    let stream = asked["stream"] == true;
    if stream && path.ends_with("/chat/completions") {
        return streamed(request, out, shared, make, &Chat(asked["stream_options"]["include_usage"] == true));
    }
    if stream && path.ends_with("/messages") {
        return streamed(request, out, shared, make, &Messages);
    }
    shared.tokens.fetch_add(make, Ordering::SeqCst);
    let openai = json!({"prompt_tokens": 0, "completion_tokens": make, "total_tokens": make});
    let body = match () {
        () if path.ends_with("/chat/completions") => {
            let message = json!({"role": "assistant", "content": "tok"});
            let choice = json!({"index": 0, "message": message, "finish_reason": "stop"});
            json!({"id": "c", "object": "chat.completion", "created": 1, "model": "mock", "choices": [choice], "usage": openai})
        }
        () if path.ends_with("/completions") => {
            let choice = json!({"index": 0, "text": "tok", "finish_reason": "stop"});
            json!({"id": "c", "object": "text_completion", "created": 1, "model": "mock", "choices": [choice], "usage": openai})
        }
        () if path.ends_with("/responses") => {
            let usage = json!({"input_tokens": 0, "output_tokens": make, "total_tokens": make});
            json!({"id": "r", "object": "response", "status": "completed", "model": "mock", "output": [], "usage": usage})
        }
        () if path.ends_with("/embeddings") && !path.contains("/api/") => {
            let usage = json!({"prompt_tokens": make, "total_tokens": make});
            json!({"object": "list", "data": [{"object": "embedding", "index": 0, "embedding": [0.5]}], "model": "mock", "usage": usage})
        }
        () if path.ends_with("/messages") => {
            let usage = json!({"input_tokens": 0, "output_tokens": make});
            json!({"id": "m", "type": "message", "role": "assistant", "model": "mock", "content": [], "stop_reason": "end_turn", "usage": usage})
        }
        () if path.ends_with("/api/chat") => {
            json!({"model": "mock", "created_at": "2026-01-01T00:00:00Z", "message": {"role": "assistant", "content": "tok"}, "done": true,
                "done_reason": "stop", "prompt_eval_count": 0, "eval_count": make})
        }
        () if path.ends_with("/api/generate") => {
            json!({"model": "mock", "created_at": "2026-01-01T00:00:00Z", "response": "tok", "done": true, "prompt_eval_count": 0, "eval_count": make})
        }
        () if path.ends_with("/api/embed") => {
            json!({"model": "mock", "embeddings": [[0.5]], "prompt_eval_count": make})
        }
        () if path.ends_with(":generateContent") => {
            let usage = json!({"promptTokenCount": 0, "candidatesTokenCount": make, "totalTokenCount": make});
            json!({"candidates": [{"content": {"parts": [{"text": "tok"}]}}], "usageMetadata": usage, "modelVersion": "mock"})
        }
        () => json!({"model": "mock", "choices": [], "usage": openai}),
    };
    whole(out, 200, &body)
}

/// How a stream is written.
trait Format {
    fn begin(&self) -> String;
    fn token(&self) -> String;
    fn end(&self, made: u64) -> String;
}

/// With a last count where it is asked for.
struct Chat(bool);

impl Chat {
    fn chunk(choices: Value, usage: Value) -> String {
        let mut chunk =
            json!({"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "mock", "choices": choices});
        if !usage.is_null() {
            chunk["usage"] = usage;
        }
        format!("data: {chunk}\n\n")
    }
}

impl Format for Chat {
    fn begin(&self) -> String {
        Self::chunk(
            json!([{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": null}]),
            Value::Null,
        )
    }

    fn token(&self) -> String {
        Self::chunk(json!([{"index": 0, "delta": {"content": " word"}, "finish_reason": null}]), Value::Null)
    }

    fn end(&self, made: u64) -> String {
        let mut text = Self::chunk(json!([{"index": 0, "delta": {}, "finish_reason": "stop"}]), Value::Null);
        if self.0 {
            let usage = json!({"prompt_tokens": 0, "completion_tokens": made, "total_tokens": made});
            text += &Self::chunk(json!([]), usage);
        }
        text + "data: [DONE]\n\n"
    }
}

struct Messages;

fn event(name: &str, mut data: Value) -> String {
    data["type"] = name.into();
    format!("event: {name}\ndata: {data}\n\n")
}

impl Format for Messages {
    fn begin(&self) -> String {
        let message = json!({"id": "m", "type": "message", "role": "assistant", "model": "mock", "content": [], "stop_reason": null,
            "stop_sequence": null, "usage": {"input_tokens": 0, "output_tokens": 1}});
        event("message_start", json!({"message": message}))
            + &event("content_block_start", json!({"index": 0, "content_block": {"type": "text", "text": ""}}))
    }

    fn token(&self) -> String {
        event("content_block_delta", json!({"index": 0, "delta": {"type": "text_delta", "text": " word"}}))
    }

    fn end(&self, made: u64) -> String {
        event("content_block_stop", json!({"index": 0}))
            + &event(
                "message_delta",
                json!({"delta": {"stop_reason": "end_turn", "stop_sequence": null}, "usage": {"output_tokens": made}}),
            )
            + &event("message_stop", json!({}))
    }
}

fn streamed(
    request: &Request,
    out: &mut &TcpStream,
    shared: &Shared,
    make: u64,
    format: &dyn Format,
) -> std::io::Result<()> {
    let pause = Duration::from_millis(number(request, "x-pause", 0));
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
    out.write_all(format!("{head}{}", chunk(&format.begin())).as_bytes())?;
    for _ in 0..make {
        // Made before it is known whether anybody takes it.
        shared.tokens.fetch_add(1, Ordering::SeqCst);
        out.write_all(chunk(&format.token()).as_bytes())?;
        if !pause.is_zero() {
            std::thread::sleep(pause);
        }
    }
    out.write_all(format!("{}0\r\n\r\n", chunk(&format.end(make))).as_bytes())
}

fn whole(out: &mut &TcpStream, status: u64, body: &Value) -> std::io::Result<()> {
    let body = body.to_string();
    let length = body.len();
    let head = format!("HTTP/1.1 {status} Said\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n");
    out.write_all((head + &body).as_bytes())
}

fn chunk(text: &str) -> String {
    format!("{:x}\r\n{text}\r\n", text.len())
}

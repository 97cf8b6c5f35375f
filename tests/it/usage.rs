//! What `usage` counts of calls to an upstream, beside what that upstream counted itself: a thousand of them in every
//! dialect, some without a word about tokens, some cut in the middle.

use std::collections::HashMap;
use std::io::{BufReader, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::process::{Proxy, Which, free_port};
use crate::harness::upstream::{read_body, read_head, spawn};
use llmproxy::llm::usage::tokenizer;

const CALLS: usize = 1000;
const CLIENTS: usize = 16;
const PATIENCE: Duration = Duration::from_secs(60);

/// What answers are made of, English and code by turns.
const TEXTS: [&str; 4] = [
    include_str!("../../README.md"),
    include_str!("../../src/http/walker.rs"),
    include_str!("../../CONTRIBUTING.md"),
    include_str!("../../src/llm/sse.rs"),
];

/// How the upstream behaves, by the number of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Told,
    Untold,
    /// Untold, and the client leaves in the middle.
    Cut,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Api {
    Chat,
    ChatAsked,
    ChatWhole,
    Completions,
    Responses,
    Messages,
    Gemini,
    OllamaChat,
    OllamaGenerate,
    Embeddings,
}

const APIS: [Api; 10] = [
    Api::Chat,
    Api::ChatAsked,
    Api::ChatWhole,
    Api::Completions,
    Api::Responses,
    Api::Messages,
    Api::Gemini,
    Api::OllamaChat,
    Api::OllamaGenerate,
    Api::Embeddings,
];

#[derive(Clone, Debug)]
struct Case {
    api: Api,
    kind: Kind,
    prompt: String,
    answer: String,
}

impl Case {
    /// The same case for the same number.
    fn of(n: usize) -> Self {
        let mut random = fastrand::Rng::with_seed(n as u64);
        let api = APIS[n % APIS.len()];
        let kind = match n / APIS.len() % 10 {
            0 => Kind::Cut,
            1..=3 => Kind::Untold,
            _ => Kind::Told,
        };
        // What is not a stream cannot be left in its middle.
        let whole = matches!(api, Api::ChatWhole | Api::Embeddings);
        let kind = if whole && kind == Kind::Cut { Kind::Untold } else { kind };
        Self { api, kind, prompt: some_text(&mut random, 12_000), answer: some_text(&mut random, 6_000) }
    }

    fn path(&self, n: usize) -> String {
        match self.api {
            Api::Chat | Api::ChatAsked | Api::ChatWhole => "/v1/chat/completions".into(),
            Api::Completions => "/v1/completions".into(),
            Api::Responses => "/v1/responses".into(),
            Api::Messages => "/v1/messages".into(),
            Api::Gemini => format!("/v1beta/models/case-{n}:streamGenerateContent?alt=sse"),
            Api::OllamaChat => "/api/chat".into(),
            Api::OllamaGenerate => "/api/generate".into(),
            Api::Embeddings => "/v1/embeddings".into(),
        }
    }

    fn request(&self, n: usize) -> Value {
        let model = format!("case-{n}");
        let messages = json!([{"role": "user", "content": self.prompt}]);
        match self.api {
            Api::Chat => json!({"model": model, "stream": true, "messages": messages}),
            Api::ChatAsked => {
                json!({"model": model, "stream": true, "messages": messages, "stream_options": {"include_usage": true}})
            }
            Api::ChatWhole => json!({"model": model, "messages": messages}),
            Api::Completions => json!({"model": model, "stream": true, "prompt": self.prompt}),
            Api::Responses => json!({"model": model, "stream": true, "input": self.prompt}),
            Api::Messages => json!({"model": model, "stream": true, "max_tokens": 99, "messages": messages}),
            Api::Gemini => json!({"contents": [{"role": "user", "parts": [{"text": self.prompt}]}]}),
            Api::OllamaChat => json!({"model": model, "messages": messages}),
            Api::OllamaGenerate => json!({"model": model, "prompt": self.prompt}),
            Api::Embeddings => json!({"model": model, "input": self.prompt}),
        }
    }

    /// Tokens that are there beside the text.
    fn around(&self) -> u64 {
        match self.api {
            Api::Chat | Api::ChatAsked | Api::ChatWhole | Api::Messages | Api::OllamaChat => 6,
            _ => 0,
        }
    }
}

fn some_text(random: &mut fastrand::Rng, longest: usize) -> String {
    let text = TEXTS[random.usize(..TEXTS.len())];
    let length = random.usize(200..longest.min(text.len() / 2));
    let mut start = random.usize(..text.len() - length);
    while !text.is_char_boundary(start) {
        start -= 1;
    }
    let mut end = start + length;
    while !text.is_char_boundary(end) {
        end += 1;
    }
    text[start..end].to_owned()
}

fn tokens(text: &str) -> u64 {
    tokenizer::load();
    tokenizer::exact(text).unwrap()
}

/// What the upstream counted, outside of any stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Counted {
    input: u64,
    cached: u64,
    output: u64,
    reasoning: u64,
}

#[derive(Default)]
struct Mock {
    counted: Mutex<HashMap<usize, Counted>>,
    /// Calls whose stream was asked for its counts.
    asked: Mutex<HashMap<usize, bool>>,
    calls: AtomicUsize,
}

impl Mock {
    fn start() -> (Arc<Self>, u16) {
        let (mock, listener) = (Arc::new(Self::default()), TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap());
        let (serving, port) = (Arc::clone(&mock), listener.local_addr().unwrap().port());
        spawn(move || {
            for stream in listener.incoming().flatten() {
                let mock = Arc::clone(&serving);
                std::thread::spawn(move || {
                    let _ = mock.serve(&stream);
                    let _ = stream.shutdown(Shutdown::Both);
                });
            }
        });
        (mock, port)
    }

    fn serve(&self, stream: &TcpStream) -> std::io::Result<()> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut reader = BufReader::new(stream);
        while let Some(request) = read_head(&mut reader)? {
            let body = read_body(&request, &mut reader, |_, _| Ok(()))?;
            let body: Value = serde_json::from_slice(&body.bytes)?;
            let model = body["model"].as_str().map_or_else(|| request.path().to_owned(), str::to_owned);
            let digits: String =
                model.split("case-").nth(1).unwrap().chars().take_while(char::is_ascii_digit).collect();
            let n: usize = digits.parse().unwrap();
            assert_eq!(request.header("accept-encoding"), Some("identity"));
            self.calls.fetch_add(1, Ordering::Relaxed);
            let asked = body["stream_options"]["include_usage"] == true;
            self.asked.lock().unwrap().insert(n, asked);
            if !self.answer(n, asked, stream)? {
                return Ok(());
            }
        }
        Ok(())
    }

    /// False when the client left.
    fn answer(&self, n: usize, asked: bool, mut stream: &TcpStream) -> std::io::Result<bool> {
        let case = Case::of(n);
        let mut random = fastrand::Rng::with_seed(n as u64 ^ 0xfeed);
        let counted = match case.kind {
            Kind::Told => Counted {
                input: random.u64(100..100_000),
                cached: random.u64(..100),
                output: if case.api == Api::Embeddings { 0 } else { random.u64(20..9_000) },
                reasoning: random.u64(..20),
            },
            _ => Counted {
                input: tokens(&case.prompt) + case.around(),
                cached: 0,
                output: tokens(&case.answer),
                reasoning: 0,
            },
        };
        let tells = case.kind == Kind::Told && (asked || !matches!(case.api, Api::Chat | Api::Completions));
        let (kind, body) = body(&case, n, tells.then_some(counted), asked, &mut random);
        let sent = if case.kind == Kind::Cut { body.len() / 2 } else { body.len() };
        let mut counted = counted;
        if case.kind == Kind::Cut {
            // At the end of an event, so that what was sent is known to a token.
            counted.output = tokens(&said(&body[..sent].concat(), case.api));
        }
        self.counted.lock().unwrap().insert(n, counted);
        let bytes = body[..sent].concat().into_bytes();
        if matches!(case.api, Api::ChatWhole | Api::Embeddings) {
            write!(stream, "HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n", bytes.len())?;
            stream.write_all(&bytes)?;
            return Ok(true);
        }
        write!(stream, "HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nTransfer-Encoding: chunked\r\n\r\n")?;
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            // Cut anywhere, within characters too.
            let (piece, after) = rest.split_at(random.usize(1..=rest.len().min(900)));
            let mut chunk = format!("{:x}\r\n", piece.len()).into_bytes();
            chunk.extend_from_slice(piece);
            chunk.extend_from_slice(b"\r\n");
            stream.write_all(&chunk)?;
            rest = after;
        }
        if case.kind == Kind::Cut {
            let mut one = [0];
            let _ = stream.read(&mut one);
            return Ok(false);
        }
        stream.write_all(b"0\r\n\r\n")?;
        Ok(true)
    }
}

/// The answer in events, lines or one piece, with its type.
fn body(
    case: &Case,
    n: usize,
    tells: Option<Counted>,
    asked: bool,
    random: &mut fastrand::Rng,
) -> (&'static str, Vec<String>) {
    let model = format!("case-{n}");
    let mut pieces: Vec<&str> = Vec::new();
    let mut rest = case.answer.as_str();
    while !rest.is_empty() {
        let mut at = random.usize(1..=rest.len().min(60));
        while !rest.is_char_boundary(at) {
            at += 1;
        }
        let (piece, after) = rest.split_at(at);
        pieces.push(piece);
        rest = after;
    }
    let event = |value: Value| format!("data: {value}\n\n");
    let named = |value: Value| format!("event: {}\r\ndata: {value}\r\n\r\n", value["type"].as_str().unwrap());
    let line = |value: Value| format!("{value}\n");
    let openai = |c: Counted| {
        json!({"prompt_tokens": c.input, "completion_tokens": c.output, "total_tokens": c.input + c.output,
            "prompt_tokens_details": {"cached_tokens": c.cached}, "completion_tokens_details": {"reasoning_tokens": c.reasoning}})
    };
    let with_null = |mut value: Value| {
        if asked {
            value["usage"] = Value::Null;
        }
        event(value)
    };
    match case.api {
        Api::Chat | Api::ChatAsked | Api::Completions => {
            let chat = case.api != Api::Completions;
            let chunk = |piece: &str| {
                let choice = if chat {
                    json!({"index": 0, "delta": {"content": piece}})
                } else {
                    json!({"index": 0, "text": piece})
                };
                with_null(json!({"id": "c", "model": model, "choices": [choice]}))
            };
            let mut all: Vec<String> = pieces.iter().map(|piece| chunk(piece)).collect();
            all.push(with_null(
                json!({"id": "c", "model": model, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}),
            ));
            if let Some(counted) = tells {
                all.push(event(json!({"id": "c", "model": model, "choices": [], "usage": openai(counted)})));
            }
            all.push("data: [DONE]\n\n".into());
            ("text/event-stream", all)
        }
        Api::ChatWhole => {
            let mut answer =
                json!({"model": model, "choices": [{"message": {"content": case.answer}, "finish_reason": "stop"}]});
            if let Some(counted) = tells {
                answer["usage"] = openai(counted);
            }
            ("application/json", vec![answer.to_string()])
        }
        Api::Responses => {
            let mut all = vec![named(
                json!({"type": "response.created", "response": {"id": "r", "model": model, "usage": null}}),
            )];
            all.extend(pieces.iter().map(|p| named(json!({"type": "response.output_text.delta", "delta": p}))));
            all.push(named(json!({"type": "response.output_text.done", "text": case.answer})));
            let usage = tells.map(|c| {
                json!({"input_tokens": c.input, "input_tokens_details": {"cached_tokens": c.cached},
                "output_tokens": c.output, "output_tokens_details": {"reasoning_tokens": c.reasoning}})
            });
            let output = json!([{"type": "message", "content": [{"type": "output_text", "text": case.answer}]}]);
            all.push(named(json!({"type": "response.completed", "response": {"id": "r", "model": model, "output": output, "usage": usage}})));
            ("text/event-stream; charset=utf-8", all)
        }
        Api::Messages => {
            let mut message = json!({"id": "m", "type": "message", "model": model, "content": [], "stop_reason": null});
            let mut delta = json!({"type": "message_delta", "delta": {"stop_reason": "end_turn"}});
            if let Some(c) = tells {
                message["usage"] = json!({"input_tokens": c.input - c.cached, "cache_read_input_tokens": c.cached,
                    "cache_creation_input_tokens": 0, "output_tokens": 1});
                delta["usage"] =
                    json!({"output_tokens": c.output, "output_tokens_details": {"reasoning_tokens": c.reasoning}});
            }
            let mut all = vec![named(json!({"type": "message_start", "message": message}))];
            all.push(named(
                json!({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}),
            ));
            all.extend(pieces.iter().map(|p| {
                named(json!({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": p}}))
            }));
            all.push(named(json!({"type": "content_block_stop", "index": 0})));
            all.push(named(delta));
            all.push(named(json!({"type": "message_stop"})));
            ("text/event-stream", all)
        }
        Api::Gemini => {
            let mut all: Vec<String> = Vec::new();
            for (i, piece) in pieces.iter().enumerate() {
                let mut chunk = json!({"candidates": [{"content": {"parts": [{"text": piece}], "role": "model"}}], "modelVersion": model});
                if i + 1 == pieces.len() {
                    chunk["candidates"][0]["finishReason"] = "STOP".into();
                }
                if let Some(c) = tells {
                    chunk["usageMetadata"] = json!({"promptTokenCount": c.input, "cachedContentTokenCount": c.cached,
                        "candidatesTokenCount": c.output - c.reasoning, "thoughtsTokenCount": c.reasoning, "totalTokenCount": c.input + c.output});
                }
                all.push(event(chunk));
            }
            ("text/event-stream", all)
        }
        Api::OllamaChat | Api::OllamaGenerate => {
            let said = |piece: &str| match case.api {
                Api::OllamaChat => {
                    json!({"model": model, "message": {"role": "assistant", "content": piece}, "done": false})
                }
                _ => json!({"model": model, "response": piece, "done": false}),
            };
            let mut all: Vec<String> = pieces.iter().map(|piece| line(said(piece))).collect();
            let mut last = said("");
            last["done"] = true.into();
            if let Some(c) = tells {
                last["prompt_eval_count"] = c.input.into();
                last["eval_count"] = c.output.into();
            }
            all.push(line(last));
            ("application/x-ndjson", all)
        }
        Api::Embeddings => {
            let vector: Vec<f64> = (0..500).map(f64::from).collect();
            let mut answer = json!({"object": "list", "model": model, "data": [{"index": 0, "embedding": vector}]});
            if let Some(c) = tells {
                answer["usage"] = json!({"prompt_tokens": c.input, "total_tokens": c.input, "prompt_tokens_details": {"cached_tokens": c.cached}});
            }
            ("application/json", vec![answer.to_string()])
        }
    }
}

/// The text that the events of a stream say together.
fn said(stream: &str, api: Api) -> String {
    let datas = stream.lines().filter_map(|l| l.strip_prefix("data: ").or(l.starts_with('{').then_some(l)));
    let values = datas.filter_map(|data| serde_json::from_str::<Value>(data).ok());
    values
        .map(|value| {
            let text = match api {
                Api::Chat | Api::ChatAsked | Api::ChatWhole => &value["choices"][0]["delta"]["content"],
                Api::Completions => &value["choices"][0]["text"],
                Api::Responses => &value["delta"],
                Api::Messages => &value["delta"]["text"],
                Api::Gemini => &value["candidates"][0]["content"]["parts"][0]["text"],
                Api::OllamaChat => &value["message"]["content"],
                Api::OllamaGenerate => &value["response"],
                Api::Embeddings => &Value::Null,
            };
            text.as_str().unwrap_or_default().to_owned()
        })
        .collect()
}

/// Calls the proxy; the raw answer, as far as the client read it.
fn call(port: u16, n: usize) -> String {
    let case = Case::of(n);
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let body = case.request(n).to_string();
    let path = case.path(n);
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: api.test\r\nConnection: close\r\nContent-Type: application/json\r\nAccept-Encoding: gzip\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(format!("{head}{body}").as_bytes()).unwrap();
    let mut answer = Vec::new();
    if case.kind == Kind::Cut {
        // It leaves once all that was sent has come.
        let last = last_event(n);
        let mut piece = [0; 4096];
        while !unchunked(&answer).ends_with(&last) {
            let n = stream.read(&mut piece).unwrap();
            assert!(n > 0, "ended: {}", String::from_utf8_lossy(&answer));
            answer.extend_from_slice(&piece[..n]);
        }
    } else {
        stream.read_to_end(&mut answer).unwrap();
    }
    unchunked(&answer)
}

/// The last event that is sent of a stream that the client leaves, as the client gets it.
fn last_event(n: usize) -> String {
    let case = Case::of(n);
    let mut random = fastrand::Rng::with_seed(n as u64 ^ 0xfeed);
    let asked = case.api == Api::ChatAsked;
    let (_, body) = body(&case, n, None, asked, &mut random);
    body[body.len() / 2 - 1].clone()
}

/// Head and body of an answer, without the sizes of chunks.
fn unchunked(answer: &[u8]) -> String {
    let Some(end) = memchr::memmem::find(answer, b"\r\n\r\n") else { return String::new() };
    let (head, mut rest) = answer.split_at(end + 4);
    let mut out = head.to_vec();
    if !String::from_utf8_lossy(head).to_ascii_lowercase().contains("transfer-encoding: chunked") {
        out.extend_from_slice(rest);
        return String::from_utf8_lossy(&out).into_owned();
    }
    while let Some(line) = memchr::memmem::find(rest, b"\r\n") {
        let size =
            std::str::from_utf8(&rest[..line]).ok().and_then(|s| usize::from_str_radix(s.trim(), 16).ok()).unwrap_or(0);
        let piece = &rest[line + 2..];
        out.extend_from_slice(&piece[..size.min(piece.len())]);
        rest = piece.get(size + 2..).unwrap_or_default();
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[derive(Debug)]
struct Row {
    certainty: String,
    counted: Counted,
    stream: bool,
    status: i64,
    served: Option<String>,
}

/// Rows of the ledger by the number of their case, once there are `wanted`.
fn rows(ledger: &Path, wanted: usize) -> HashMap<usize, Vec<Row>> {
    let until = Instant::now() + PATIENCE;
    loop {
        let mut all: HashMap<usize, Vec<Row>> = HashMap::new();
        if let Ok(connection) =
            rusqlite::Connection::open_with_flags(ledger, rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY)
        {
            let question =
                "SELECT model, certainty, input, cached, output, reasoning, stream, status, served FROM calls";
            if let Ok(mut statement) = connection.prepare(question) {
                let mut found = statement.query([]).unwrap();
                while let Ok(Some(row)) = found.next() {
                    let model: String = row.get(0).unwrap();
                    let counted = |i| row.get::<_, i64>(i).unwrap().unsigned_abs();
                    let counted =
                        Counted { input: counted(2), cached: counted(3), output: counted(4), reasoning: counted(5) };
                    let (certainty, stream, status, served) =
                        (row.get(1).unwrap(), row.get(6).unwrap(), row.get(7).unwrap(), row.get(8).unwrap());
                    let n = model.strip_prefix("case-").unwrap().parse().unwrap();
                    all.entry(n).or_default().push(Row { certainty, counted, stream, status, served });
                }
            }
        }
        if all.values().map(Vec::len).sum::<usize>() >= wanted || Instant::now() > until {
            return all;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn near(estimate: u64, counted: u64) -> bool {
    // Within 3 %; of a few words a token or two.
    estimate.abs_diff(counted) * 100 <= counted * 3 + 200
}

#[test]
fn a_thousand_calls_are_counted_as_their_upstream_counted_them() {
    let (mock, upstream) = Mock::start();
    let folder = tempfile::tempdir().unwrap();
    let ledger = folder.path().join("usage.db");
    let port = free_port();
    let file = format!(
        "{{\n\tusage {{\n\t\tledger {}\n\t\tflush 50ms\n\t}}\n}}\nhttp://:{port} {{\n\tbind 127.0.0.1\n\treverse_proxy 127.0.0.1:{upstream}\n}}\n",
        ledger.display()
    );
    let proxy = Proxy::start(Which::Llmproxy, &file, port);
    // Until the vocabulary is there, counts are rough.
    let untold = (0..).find(|n| Case::of(*n).kind == Kind::Untold && Case::of(*n).api == Api::Chat).unwrap();
    let begun = Instant::now();
    for asked in 1.. {
        call(port, untold);
        let exact = mock.counted.lock().unwrap()[&untold].output;
        if rows(&ledger, asked)[&untold].last().unwrap().counted.output == exact {
            break;
        }
        assert!(begun.elapsed() < PATIENCE, "no estimate is exact");
    }
    let before = mock.calls.load(Ordering::Relaxed);
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    if n >= CALLS {
                        return;
                    }
                    let (case, seen) = (Case::of(n), call(port, n));
                    let asked = matches!(case.api, Api::ChatAsked);
                    if matches!(case.api, Api::Chat | Api::Completions) {
                        assert!(!seen.contains("\"usage\""), "{n}: {seen}");
                    }
                    if asked && case.kind == Kind::Told {
                        assert!(seen.contains("\"usage\":{"), "{n}: {seen}");
                    }
                    if case.kind != Kind::Cut && !matches!(case.api, Api::ChatWhole | Api::Embeddings) {
                        assert!(said(&seen, case.api) == case.answer, "{n} {case:?}: {seen}");
                    }
                }
            });
        }
    });
    let rows = rows(&ledger, before + CALLS);
    let counted = mock.counted.lock().unwrap();
    let asked = mock.asked.lock().unwrap();
    for n in 0..CALLS {
        let (case, all) = (Case::of(n), &rows[&n]);
        if n != untold {
            assert_eq!(all.len(), 1, "{n}: {all:?}");
        }
        let (row, counted) = (all.last().unwrap(), counted[&n]);
        let tell = format!("{n} {:?} {:?}: {row:?}, not {counted:?}", case.api, case.kind);
        assert_eq!(asked[&n], matches!(case.api, Api::Chat | Api::ChatAsked | Api::Completions), "{tell}");
        assert_eq!(row.status, 200, "{tell}");
        assert_eq!(row.stream, !matches!(case.api, Api::ChatWhole | Api::Embeddings), "{tell}");
        assert_eq!(row.served.as_deref(), Some(format!("case-{n}").as_str()), "{tell}");
        if case.kind == Kind::Told {
            let ollama = matches!(case.api, Api::OllamaChat | Api::OllamaGenerate);
            let mut expected = counted;
            if ollama {
                (expected.cached, expected.reasoning) = (0, 0);
            }
            if case.api == Api::Embeddings {
                expected.reasoning = 0;
            }
            assert_eq!((row.certainty.as_str(), row.counted), ("exact", expected), "{tell}");
        } else {
            let word = if case.kind == Kind::Cut { "aborted" } else { "estimated" };
            assert_eq!(row.certainty, word, "{tell}");
            assert!(near(row.counted.input, counted.input), "{tell}");
            let output = if case.api == Api::Embeddings { 0 } else { counted.output };
            assert!(near(row.counted.output, output), "{tell}");
        }
    }
    drop(proxy);
}

#[test]
fn clients_that_leave_before_an_answer_and_refusals_are_told() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let upstream = listener.local_addr().unwrap().port();
    let (came, arrived) = std::sync::mpsc::channel();
    spawn(move || {
        for stream in listener.incoming().flatten() {
            let came = came.clone();
            spawn(move || {
                let mut reader = BufReader::new(&stream);
                let Ok(Some(request)) = read_head(&mut reader) else { return };
                let Ok(body) = read_body(&request, &mut reader, |_, _| Ok(())) else { return };
                let _ = came.send(());
                if memchr::memmem::find(&body.bytes, b"case-2").is_some() {
                    let _ = (&stream).write_all(
                        b"HTTP/1.1 429 Too Many\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}",
                    );
                }
                let _ = reader.read(&mut [0]);
            });
        }
    });
    let folder = tempfile::tempdir().unwrap();
    let ledger = folder.path().join("usage.db");
    let port = free_port();
    let file = format!(
        "{{\n\tusage {{\n\t\tledger {}\n\t\tflush 50ms\n\t}}\n}}\nhttp://:{port} {{\n\tbind 127.0.0.1\n\treverse_proxy 127.0.0.1:{upstream}\n}}\n",
        ledger.display()
    );
    let _proxy = Proxy::start(Which::Llmproxy, &file, port);
    let ask = |n: usize| {
        let body =
            format!(r#"{{"model":"case-{n}","messages":[{{"role":"user","content":"Hello, how are you today?"}}]}}"#);
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let head = format!("POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", body.len());
        stream.write_all(format!("{head}{body}").as_bytes()).unwrap();
        arrived.recv_timeout(PATIENCE).unwrap();
        stream
    };
    drop(ask(1));
    let mut head = [0; 12];
    ask(2).read_exact(&mut head).unwrap();
    assert_eq!(&head, b"HTTP/1.1 429");
    let rows = rows(&ledger, 2);
    let (left, refused) = (&rows[&1][0], &rows[&2][0]);
    assert_eq!((left.status, left.certainty.as_str(), left.counted.output), (499, "aborted", 0));
    assert!((9..20).contains(&left.counted.input), "{left:?}");
    assert_eq!((refused.status, refused.counted.input, refused.counted.output), (429, 0, 0));
}

//! What becomes of calls: each is told once, however it ends.

use std::cell::{Cell, RefCell};
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use http::header;

use super::super::body_filter::testing::{broken, byte_chunks, next, read};
use super::super::exchange::testing::exchange;
use super::super::exchange::{Exchange, Response};
use super::*;
use crate::base::body::Body;
use crate::base::error::{Kind, ProxyError, Retry};
use crate::llm::usage::tokenizer;

/// What is kept of a call: sinks are on any thread, the name of a model is not.
#[derive(Clone, Debug)]
struct Seen {
    status: u16,
    tokens: Tokens,
    certainty: Certainty,
    cost: Option<Nano>,
    model: Option<String>,
    served: Option<String>,
    upstream: String,
    route: String,
    stream: bool,
    first_byte: Option<Duration>,
}

#[derive(Default)]
struct Log(Mutex<Vec<Seen>>);

impl Sink for Log {
    fn record(&self, call: &Call) {
        let call = call.clone();
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(Seen {
            status: call.status,
            tokens: call.tokens,
            certainty: call.certainty,
            cost: call.cost,
            model: call.model.map(|m| m.to_string()),
            served: call.served,
            upstream: call.upstream.to_string(),
            route: call.route,
            stream: call.stream,
            first_byte: call.first_byte,
        });
    }
}

impl Log {
    fn calls(&self) -> Vec<Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The one call there is.
    fn call(&self) -> Seen {
        let calls = self.calls();
        assert_eq!(calls.len(), 1, "{calls:?}");
        calls[0].clone()
    }
}

/// Notes what becomes of it.
struct Reserved(Rc<RefCell<Vec<&'static str>>>, Rc<Cell<u64>>);

impl Reservation for Reserved {
    fn settle(self: Box<Self>, _: &mut Call) {
        self.0.borrow_mut().push("settled");
    }
    fn release(self: Box<Self>) {
        self.0.borrow_mut().push("released");
    }
    fn spent(&mut self, _: &mut Call) {
        self.0.borrow_mut().push("spent");
    }
    fn running(&mut self, output_so_far: u64) -> Running {
        if output_so_far >= self.1.get() { Running::Cut } else { Running::GoOn }
    }
}

struct Setting {
    ex: Exchange,
    log: Arc<Log>,
    ends: Rc<RefCell<Vec<&'static str>>>,
    cut_at: Rc<Cell<u64>>,
}

/// A request whose calls are counted, ready to be sent.
fn asking(path: &str, body: &str) -> Setting {
    let mut ex = exchange("POST", path, &[("content-type", "application/json"), ("host", "api.test")]);
    ex.body = Body::from(body.to_owned());
    let log = Arc::new(Log::default());
    let sink: Arc<dyn Sink> = Arc::clone(&log) as Arc<dyn Sink>;
    let (ends, cut_at) = (Rc::default(), Rc::new(Cell::new(u64::MAX)));
    ex.meter().tell(&sink);
    ex.meter().tell(&sink);
    ex.meter().reserve(Box::new(Reserved(Rc::clone(&ends), Rc::clone(&cut_at))));
    let (method, uri) = (ex.method.clone(), ex.uri.clone());
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(prepare(&mut ex, &method, &uri)).unwrap();
    Setting { ex, log, ends, cut_at }
}

impl Setting {
    fn sends(&mut self) {
        let sent = self.ex.body.spare().unwrap();
        let meter = self.ex.meter();
        meter.sends("up:1".into(), 0);
        if let Some(body) = meter.ask_for_usage(&sent) {
            self.ex.body = body;
        }
    }

    fn answered(&mut self, status: u16, kind: &str, body: Body) -> Response {
        let path = self.ex.uri.path().to_owned();
        let response = http::Response::builder().status(status).header(header::CONTENT_TYPE, kind);
        let mut response = response.body(body).unwrap();
        follow(self.ex.meter.take().unwrap(), &mut response, &path);
        response
    }

    fn ends(&self) -> Vec<&'static str> {
        self.ends.borrow().clone()
    }
}

const CHAT: &str = "/v1/chat/completions";
const JSON: &str = "application/json";
const SSE: &str = "text/event-stream";
const ASK: &str = r#"{"model":"gpt-4o","messages":[{"role":"user","content":"Hello, how are you today?"}]}"#;
const STREAM: &str =
    r#"{"model":"gpt-4o","stream":true,"messages":[{"role":"user","content":"Hello, how are you today?"}]}"#;

fn pieces(parts: &[&str]) -> Vec<Bytes> {
    parts.iter().map(|p| Bytes::copy_from_slice(p.as_bytes())).collect()
}

fn chunk(text: &str) -> String {
    format!(
        "data: {{\"id\":\"c\",\"model\":\"gpt-4o-2024-08-06\",\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"{text}\"}}}}],\"usage\":null}}\n\n"
    )
}

const USAGE: &str =
    "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":13,\"completion_tokens\":40,\"total_tokens\":53}}\n\n";
const FINISH: &str = "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n";
const DONE: &str = "data: [DONE]\n\n";

#[test]
fn a_request_that_makes_no_call_gives_back_what_was_reserved() {
    let setting = asking(CHAT, ASK);
    drop(setting.ex);
    assert_eq!((*setting.ends.borrow()).as_slice(), ["released"]);
    assert!(setting.log.calls().is_empty());
}

#[test]
fn an_answer_that_tells_its_counts_is_recorded_as_it_says() {
    let mut setting = asking(CHAT, ASK);
    setting.sends();
    let answer = r#"{"model":"gpt-4o-2024-08-06","choices":[{"message":{"content":"x"},"finish_reason":"stop"}],"usage":{"prompt_tokens":1000,"completion_tokens":100}}"#;
    let response = setting.answered(200, JSON, Body::from(answer));
    let call = setting.log.call();
    assert_eq!((call.tokens.input, call.tokens.output, call.certainty), (1000, 100, Certainty::Exact));
    assert_eq!((call.model.as_deref(), call.served.as_deref()), (Some("gpt-4o"), Some("gpt-4o-2024-08-06")));
    assert_eq!(
        (call.status, call.upstream.as_str(), call.route.as_str(), call.stream),
        (200, "up:1", "api.test", false)
    );
    // 1,000 at 2.50 and 100 at 10 dollars a million.
    assert_eq!(call.cost, Some(Nano(3_500_000)));
    assert_eq!(read(response.into_body()).0, answer.as_bytes());
    drop(setting.ex);
    assert_eq!((*setting.ends.borrow()).as_slice(), ["settled"]);
}

#[test]
fn a_stream_is_asked_for_its_counts_and_they_are_hidden() {
    let mut setting = asking(CHAT, STREAM);
    setting.sends();
    let Body::Full(sent) = &setting.ex.body else { panic!("not whole") };
    assert!(sent.starts_with(br#"{"stream_options":{"include_usage":true},"model""#));
    let parts = [&chunk("a"), FINISH, USAGE, DONE];
    let response = setting.answered(200, SSE, byte_chunks(pieces(&parts)));
    assert!(setting.log.calls().is_empty());
    let (seen, whole) = read(response.into_body());
    let expected = [chunk("a").replace(",\"usage\":null", ""), FINISH.into(), DONE.into()].concat();
    assert_eq!((String::from_utf8(seen).unwrap(), whole), (expected, true));
    let call = setting.log.call();
    assert_eq!((call.tokens.total(), call.certainty, call.stream), (53, Certainty::Exact, true));
    assert!(call.first_byte.is_some());
    assert_eq!(setting.ends(), ["settled"]);
}

#[test]
fn a_client_that_asks_gets_what_it_asked_for() {
    let asked = STREAM.replace("\"stream\":true", "\"stream\":true,\"stream_options\":{\"include_usage\":true}");
    let mut setting = asking(CHAT, &asked);
    setting.sends();
    let parts = [&chunk("a"), FINISH, USAGE, DONE];
    let response = setting.answered(200, SSE, byte_chunks(pieces(&parts)));
    assert_eq!(read(response.into_body()).0, parts.concat().as_bytes());
    assert_eq!(setting.log.call().tokens.total(), 53);
}

#[test]
fn what_is_not_told_is_estimated() {
    tokenizer::load();
    let mut setting = asking(CHAT, STREAM);
    setting.sends();
    let parts = [&chunk("Hello, how are you"), &chunk(" today?"), FINISH, DONE];
    read(setting.answered(200, SSE, byte_chunks(pieces(&parts))).into_body());
    let call = setting.log.call();
    assert_eq!((call.tokens.input, call.tokens.output, call.certainty), (13, 7, Certainty::Estimated));
    assert!(call.cost.is_some());
}

#[test]
fn a_stream_that_breaks_off_or_is_left_is_counted_as_far_as_it_came() {
    tokenizer::load();
    for leaves in [false, true] {
        let mut setting = asking(CHAT, STREAM);
        setting.sends();
        let all = [chunk("Hello, how are you"), chunk(" today?"), chunk("never")];
        let parts: Vec<&str> = all.iter().map(String::as_str).collect();
        let body = if leaves { byte_chunks(pieces(&parts)) } else { broken(pieces(&parts[..2])) };
        let mut response = setting.answered(200, SSE, body);
        next(response.body_mut());
        next(response.body_mut());
        if !leaves {
            assert!(next(response.body_mut()).unwrap().is_err());
        }
        drop(response);
        let call = setting.log.call();
        assert_eq!((call.tokens.input, call.tokens.output, call.certainty), (13, 7, Certainty::Aborted), "{leaves}");
        assert_eq!(setting.ends(), ["settled"]);
    }
}

#[test]
fn counts_that_came_before_the_client_left_are_exact() {
    let mut setting = asking(CHAT, STREAM);
    setting.sends();
    let parts = [&chunk("a"), FINISH, USAGE, DONE];
    let mut response = setting.answered(200, SSE, byte_chunks(pieces(&parts)));
    // The chunk with the counts is not for the client: with the last event it has passed.
    for _ in 0..3 {
        next(response.body_mut());
    }
    drop(response);
    assert_eq!(setting.log.call().certainty, Certainty::Exact);
}

#[test]
fn a_client_that_leaves_while_the_model_thinks_has_paid_for_its_prompt() {
    tokenizer::load();
    let mut setting = asking(CHAT, ASK);
    setting.sends();
    drop(setting.ex);
    let call = setting.log.call();
    assert_eq!((call.status, call.tokens.input, call.tokens.output), (499, 13, 0));
    assert_eq!(call.certainty, Certainty::Aborted);
    assert_eq!((*setting.ends.borrow()).as_slice(), ["settled"]);
}

#[test]
fn refusals_take_nothing_and_give_back_what_was_reserved() {
    let mut setting = asking(CHAT, ASK);
    setting.sends();
    setting.answered(429, JSON, Body::from(r#"{"error":{"message":"no"}}"#));
    let call = setting.log.call();
    assert_eq!((call.status, call.tokens.total(), call.cost), (429, 0, Some(Nano(0))));
    assert_eq!(setting.ends(), ["released"]);
}

#[test]
fn attempts_count_by_what_may_be_paid_for() {
    let closed = |retry| ProxyError::new(Kind::UpstreamClosed, retry, "closed");
    let mut setting = asking(CHAT, ASK);
    // Never reached anybody.
    setting.sends();
    setting.ex.meter().failed(&closed(Retry::Safe));
    // Refused, and tried elsewhere.
    setting.sends();
    setting.ex.meter().answered(503);
    // May have been read.
    setting.sends();
    setting.ex.meter().failed(&closed(Retry::IfIdempotent));
    setting.sends();
    setting.answered(200, JSON, Body::from(r#"{"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":2}}"#));
    let calls = setting.log.calls();
    let told: Vec<_> = calls.iter().map(|call| (call.status, call.certainty)).collect();
    assert_eq!(told, [(502, Certainty::Aborted), (200, Certainty::Exact)]);
    assert_eq!(setting.ends(), ["spent", "settled"]);
}

#[test]
fn a_call_that_fails_at_last_is_told_when_nothing_follows() {
    let mut setting = asking(CHAT, ASK);
    setting.sends();
    setting.ex.meter().failed(&ProxyError::new(Kind::ResponseTimeout, Retry::IfIdempotent, "late"));
    assert!(setting.log.calls().is_empty());
    drop(setting.ex);
    assert_eq!(setting.log.call().status, 504);
    assert_eq!((*setting.ends.borrow()).as_slice(), ["settled"]);
}

#[test]
fn paths_of_no_known_api_count_when_the_answer_does() {
    for (path, answer, calls, end) in [
        ("/my/llm", r#"{"usage":{"prompt_tokens":1,"completion_tokens":2}}"#, 1, "settled"),
        ("/my/page", r#"{"ok":true}"#, 0, "released"),
        ("/v1/files", r#"{"usage":{"prompt_tokens":1,"completion_tokens":2}}"#, 0, "released"),
    ] {
        let mut setting = asking(path, "{}");
        setting.sends();
        setting.answered(200, JSON, Body::from(answer));
        assert_eq!((setting.log.calls().len(), setting.ends()), (calls, vec![end]), "{path}");
    }
}

#[test]
fn embeddings_have_no_output() {
    let mut setting = asking("/v1/embeddings", r#"{"model":"text-embedding-3-small","input":"x"}"#);
    setting.sends();
    setting.answered(200, JSON, Body::from(r#"{"data":[],"usage":{"prompt_tokens":8,"total_tokens":8}}"#));
    let call = setting.log.call();
    assert_eq!((call.tokens.input, call.tokens.output, call.certainty), (8, 0, Certainty::Exact));
}

#[test]
fn gzip_that_comes_all_the_same_is_read() {
    use std::io::Write;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(br#"{"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":2}}"#).unwrap();
    let packed = Bytes::from(encoder.finish().unwrap());
    let mut setting = asking(CHAT, ASK);
    setting.sends();
    let mut response = http::Response::new(byte_chunks(vec![packed.slice(..7), packed.slice(7..)]));
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(JSON));
    response.headers_mut().insert(header::CONTENT_ENCODING, header::HeaderValue::from_static("gzip"));
    follow(setting.ex.meter.take().unwrap(), &mut response, CHAT);
    assert_eq!(read(response.into_body()).0, packed);
    assert_eq!(setting.log.call().tokens.total(), 3);
}

#[test]
fn a_stream_that_has_spent_enough_is_ended_in_its_own_words() {
    let many: Vec<String> = (0..50).map(|_| chunk("one two three four ")).collect();
    let whole = many.concat();
    for size in [whole.len(), 40, 333] {
        let mut setting = asking(CHAT, STREAM);
        setting.ex.meter().include_usage = false;
        setting.cut_at.set(60);
        setting.sends();
        let parts: Vec<Bytes> = whole.as_bytes().chunks(size).map(Bytes::copy_from_slice).collect();
        let response = setting.answered(200, SSE, byte_chunks(parts));
        let (seen, well) = read(response.into_body());
        let seen = String::from_utf8(seen).unwrap();
        assert!(well && seen.ends_with("data: [DONE]\n\n") && seen.contains("\"finish_reason\":\"length\""), "{seen}");
        let passed = seen.matches("one two").count();
        assert!(if size == whole.len() { passed == 50 } else { (15..30).contains(&passed) }, "{size}: {passed}");
        for event in seen.split_terminator("\n\n") {
            let data = event.strip_prefix("data: ").unwrap();
            assert!(data == "[DONE]" || serde_json::from_str::<serde_json::Value>(data).is_ok(), "{data}");
        }
        assert_eq!((setting.log.call().certainty, setting.ends()), (Certainty::Aborted, vec!["settled"]));
    }
}

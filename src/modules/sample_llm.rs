//! `sample_llm`: answers as an OpenAI-compatible API would, without any model.
//!
//! For trying a Proxyfile offline and for tests: `llmproxy sample-llm` serves it on a port of its own, to be used as the
//! upstream of another site. It lists two models, answers chat completions (streamed and not) and embeddings, and says in
//! every answer that no model made it. `delay` is the time between the events of a stream; `require_key` makes it answer
//! 401 in the API's own words when no key comes.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::{HeaderValue, Method, StatusCode, header};
use http_body::{Body as HttpBody, Frame};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::base::body::Body;
use crate::base::error::ProxyError;
use crate::base::units::parse_duration;
use crate::config::compile_cx::{CompileCx, CompileError, read};
use crate::config::directive_cx::{ConfigValue, DirectiveCx, Parsed};
use crate::config::registry::{Directive, Doc, HandlerModule};
use crate::config::types::{self, Module, is_false, is_zero};
use crate::http::exchange::{Exchange, Response};
use crate::http::handler::{AsyncHandler, Flow, LocalFuture};
use crate::http::hold::hold_body;
use crate::http::route::Handler;
use crate::llm::sample::{self, ChatRequest, EmbeddingsRequest};

pub const DIRECTIVE: Directive = Directive {
    name: "sample_llm",
    renamed_to: None,
    ordered: true,
    matcher: true,
    parse,
    doc: &Doc {
        summary: "Answers as an OpenAI-compatible API would, without any model, for trying things offline.",
        syntax: "sample_llm [matcher] { delay <duration>  require_key }",
        examples: &["sample_llm", "sample_llm /v1/* {\n\tdelay 20ms\n\trequire_key\n}"],
        rejected: &[
            ("sample_llm x", "wrong-argument-count"),
            ("sample_llm {\n\tdelay soon\n}", "invalid-duration"),
            ("sample_llm {\n\tdelai 1s\n}", "unknown-subdirective"),
        ],
        adapt_only: false,
    },
};

pub const HANDLER: HandlerModule = HandlerModule { id: "sample_llm", compile };

/// Largest request held in memory.
const MAX_BODY: usize = 10 << 20;

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct SampleLlm {
    /// Between the events of a stream, in nanoseconds.
    #[serde(skip_serializing_if = "is_zero")]
    delay: i64,
    #[serde(skip_serializing_if = "is_false")]
    require_key: bool,
}

fn parse(cx: &mut DirectiveCx<'_, '_>) -> Parsed<Vec<ConfigValue>> {
    if !cx.args.is_empty() {
        return Err(cx.arg_err(cx.node));
    }
    let mut out = SampleLlm::default();
    for line in cx.node.lines() {
        match line.name() {
            "delay" => {
                let word = cx.one(line)?;
                out.delay = parse_duration(word.text()).filter(|d| *d >= 0).ok_or_else(|| {
                    cx.err(
                        word.span,
                        "invalid-duration",
                        format!("`{}` is not a duration such as `20ms`", word.shown()),
                    )
                })?;
            }
            "require_key" if line.args.is_empty() => out.require_key = true,
            "require_key" => return Err(cx.arg_err(line)),
            _ => return Err(cx.unknown(line, &["delay", "require_key"])),
        }
    }
    Ok(cx.route(types::handler(HANDLER.id, &out)))
}

fn compile(module: &Module, _: &mut CompileCx<'_>) -> Result<Handler, CompileError> {
    let config: SampleLlm = read(module, "handler")?;
    let delay = Duration::from_nanos(u64::try_from(config.delay).unwrap_or(0));
    Ok(Handler::Async(Box::new(Sample { delay, require_key: config.require_key })))
}

struct Sample {
    delay: Duration,
    require_key: bool,
}

impl AsyncHandler for Sample {
    fn call<'a>(&'a self, ex: &'a mut Exchange) -> LocalFuture<'a, Flow> {
        Box::pin(async move { Flow::Respond(self.answer(ex).await) })
    }
}

impl Sample {
    async fn answer(&self, ex: &mut Exchange) -> Response {
        if self.require_key && !ex.headers.contains_key(header::AUTHORIZATION) {
            // The words of the real API.
            return failure(
                StatusCode::UNAUTHORIZED,
                "invalid_request_error",
                None,
                "You didn't provide an API key. You need to provide your API key in an Authorization header using Bearer auth (i.e. Authorization: Bearer YOUR_KEY).",
            );
        }
        let path = ex.uri.path().to_owned();
        let created = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
        match (ex.method.clone(), path.as_str()) {
            (Method::GET, "/v1/models") => json_response(StatusCode::OK, &sample::model_list(created)),
            (Method::GET, path) if path.starts_with("/v1/models/") => {
                let id = &path["/v1/models/".len()..];
                if sample::MODELS.contains(&id) {
                    json_response(StatusCode::OK, &sample::model(id, created))
                } else {
                    let message = format!("The model '{id}' does not exist");
                    failure(StatusCode::NOT_FOUND, "invalid_request_error", Some("model_not_found"), &message)
                }
            }
            (Method::POST, "/v1/chat/completions") => match body::<ChatRequest>(ex).await {
                Ok(request) => self.chat(&request, ex, created),
                Err(response) => response,
            },
            (Method::POST, "/v1/embeddings") => match body::<EmbeddingsRequest>(ex).await {
                Ok(request) => json_response(StatusCode::OK, &request.answer()),
                Err(response) => response,
            },
            (method, path) => {
                let message = format!("Invalid URL ({method} {path})");
                failure(StatusCode::NOT_FOUND, "invalid_request_error", None, &message)
            }
        }
    }

    fn chat(&self, request: &ChatRequest, ex: &Exchange, created: u64) -> Response {
        let id = format!("chatcmpl-sample-{}", &ex.request_id()[..8]);
        if !request.stream {
            return json_response(StatusCode::OK, &request.completion(&id, created));
        }
        let events = request.events(&id, created).into_iter().map(Bytes::from).collect();
        let stream = Events { left: events, delay: self.delay, sleep: None };
        let mut response = Response::new(Body::stream(stream));
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream; charset=utf-8"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        response
    }
}

async fn body<T: serde::de::DeserializeOwned>(ex: &mut Exchange) -> Result<T, Response> {
    if let Err(error) = hold_body(ex, MAX_BODY).await {
        let status = StatusCode::from_u16(error.status).unwrap_or(StatusCode::BAD_REQUEST);
        return Err(failure(status, "invalid_request_error", None, &error.message));
    }
    let bytes = match &ex.body {
        Body::Full(bytes) => bytes.clone(),
        _ => Bytes::new(),
    };
    serde_json::from_slice(&bytes).map_err(|error| {
        let message = format!("We could not parse the JSON body of your request: {error}");
        failure(StatusCode::BAD_REQUEST, "invalid_request_error", None, &message)
    })
}

fn json_response(status: StatusCode, value: &Value) -> Response {
    let mut response = Response::new(Body::from(value.to_string()));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn failure(status: StatusCode, kind: &str, code: Option<&str>, message: &str) -> Response {
    json_response(status, &json!({"error": {"message": message, "type": kind, "param": null, "code": code}}))
}

/// Events one by one, with a pause between them.
struct Events {
    left: VecDeque<Bytes>,
    delay: Duration,
    sleep: Option<Pin<Box<tokio::time::Sleep>>>,
}

impl HttpBody for Events {
    type Data = Bytes;
    type Error = ProxyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ProxyError>>> {
        if let Some(sleep) = &mut self.sleep {
            std::task::ready!(sleep.as_mut().poll(cx));
            self.sleep = None;
        }
        let next = self.left.pop_front();
        if next.is_some() && !self.delay.is_zero() {
            self.sleep = Some(Box::pin(tokio::time::sleep(self.delay)));
        }
        Poll::Ready(next.map(|event| Ok(Frame::data(event))))
    }

    fn is_end_stream(&self) -> bool {
        self.left.is_empty()
    }
}

//! `cursor_compat`: serves Cursor's "Override OpenAI Base URL" from any upstream that speaks chat completions.
//!
//! Cursor sends three kinds of body to `/chat/completions` and is particular about what comes back. This line makes all of
//! them chat completions on the way up, and puts answers, streamed or not, into the form that Cursor reads. Other paths
//! pass untouched, and so does what needs no change: other clients may use the same site.
//!
//! Up: a body of the Responses API (`input` in place of `messages`) becomes a chat body; Anthropic's blocks, `system`,
//! `cache_control` and tool choices become those of chat; `reasoning` becomes `reasoning_effort`; custom tools such as
//! `ApplyPatch` become functions that take one text, with their grammar in the description. Models named gpt-5, o1, o3 and
//! o4 get `max_completion_tokens` for `max_tokens`, and no temperature but 1. A name that ends in `-thinking-LEVEL` (`none`,
//! `minimal`, `low`, `medium`, `high`, `xhigh`, `max`) or `-fast` (low) loses the ending and gets that effort, as in
//! `gpt-5-thinking-high`; `suffixes off` leaves names alone, `literal GLOB…` those of some models. `grok-…-fast` and
//! `@cf/…-fast` are names of models and stay.
//!
//! Down: each choice has exactly one finish reason, behind it come at most one usage chunk and `[DONE]`; null
//! `finish_reason` and `usage` fields go; the text of a custom tool's call is in the `arguments` of a function call. Where
//! the upstream breaks off, the stream ends in an error event and without `[DONE]`. `reasoning think` shows what a model
//! thinks as `<think>…</think>` in front of its answer, and takes it off again when Cursor sends the answer back;
//! `reasoning hide` drops it; `reasoning keep`, the default, leaves the fields of the upstream.
//!
//! Cursor's servers must reach the site over HTTPS at a public name. With `https://llm.example.com/v1` as base URL it checks
//! the key at `/v1/models` and chats at `/v1/chat/completions`; older versions ask from the application itself, for which
//! [`cors`](#cors) answers the preflights:
//!
//! ```text
//! llm.example.com {
//!     cors *
//!     auth_token {$CURSOR_TOKEN}
//!     cursor_compat {
//!         reasoning think
//!     }
//!     reverse_proxy https://api.openai.com {
//!         header_up Authorization "Bearer {$OPENAI_API_KEY}"
//!     }
//! }
//! ```
//!
//! Bodies of up to 64 MiB are read whole to be looked at. What is kept at a provider (`previous_response_id`, references to
//! items) cannot be had in chat completions and is refused with 400. A token's rights are rights to the name that the client
//! uses, with its ending.

use http::{HeaderValue, Method, StatusCode, header};
use serde::{Deserialize, Serialize};

use crate::base::body::Body;
use crate::base::error::ProxyError;
use crate::config::compile_cx::{CompileCx, CompileError, read};
use crate::config::directive_cx::{ConfigValue, DirectiveCx, Parsed};
use crate::config::registry::{Directive, Doc, HandlerModule};
use crate::config::types::{self, Module, is_false};
use crate::http::body_filter::{self, Out, Transform};
use crate::http::error::{HandlerError, Refusal};
use crate::http::exchange::{Exchange, Response};
use crate::http::handler::{AsyncHandler, Flow, LocalFuture};
use crate::http::hold::hold_body;
use crate::http::requested_model::DEFAULT_LIMIT;
use crate::http::route::Handler;
use crate::http::stage::{AsyncStage, Stage};
use crate::llm::cursor::request::{Refused, convert};
use crate::llm::cursor::stream::Stream;
use crate::llm::cursor::{Options, Plan, Reasoning, answer};
use crate::llm::dialect::Dialect;
use crate::llm::model_glob::ModelGlobs;
use crate::llm::sse::{self, Decoder};

pub const DIRECTIVE: Directive = Directive {
    name: "cursor_compat",
    renamed_to: None,
    ordered: true,
    matcher: true,
    parse,
    doc: &Doc {
        summary: "Serves Cursor from any upstream that speaks chat completions.",
        syntax: "cursor_compat [matcher] { reasoning think|hide|keep  suffixes on|off  literal <models…> }",
        examples: &[
            "cursor_compat",
            "cursor_compat /cursor/* {\n\treasoning think\n\tsuffixes off\n}",
            "cursor_compat {\n\tliteral my-model-fast other-*-fast\n}",
        ],
        rejected: &[
            ("cursor_compat on", "wrong-argument-count"),
            ("cursor_compat {\n\treasoning show\n}", "invalid-value"),
            ("cursor_compat {\n\tsuffixes no\n}", "invalid-value"),
            ("cursor_compat {\n\tliteral\n}", "wrong-argument-count"),
            ("cursor_compat {\n\tthink\n}", "unknown-subdirective"),
        ],
        adapt_only: false,
    },
};

pub const HANDLER: HandlerModule = HandlerModule { id: "cursor_compat", compile };

/// An answer that is no stream is held up to this many bytes: completions with audio inside reach some megabytes.
const MAX_ANSWER: usize = 32 << 20;

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Config {
    /// `think`, `hide` or `keep`; empty = `keep`.
    #[serde(skip_serializing_if = "String::is_empty")]
    reasoning: String,
    #[serde(skip_serializing_if = "is_false")]
    suffixes_off: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    literal: Vec<String>,
}

fn parse(cx: &mut DirectiveCx<'_, '_>) -> Parsed<Vec<ConfigValue>> {
    if !cx.args.is_empty() {
        return Err(cx.arg_err(cx.node));
    }
    let mut out = Config::default();
    for line in cx.node.lines() {
        match line.name() {
            "reasoning" => {
                let word = cx.one(line)?;
                if reasoning(word.text()).is_none() {
                    let d =
                        cx.err(word.span, "invalid-value", format!("`{}` is no way to show reasoning", word.shown()));
                    return Err(Box::new(d.help("one of `think`, `hide`, `keep`")));
                }
                word.text().clone_into(&mut out.reasoning);
            }
            "suffixes" => {
                let word = cx.one(line)?;
                out.suffixes_off = match word.text() {
                    "on" => false,
                    "off" => true,
                    _ => {
                        let d =
                            cx.err(word.span, "invalid-value", format!("`{}` is neither `on` nor `off`", word.shown()));
                        return Err(d);
                    }
                };
            }
            "literal" if line.args.is_empty() => return Err(cx.arg_err(line)),
            "literal" => out.literal.extend(line.args.iter().map(|t| t.text().to_owned())),
            _ => return Err(cx.unknown(line, &["reasoning", "suffixes", "literal"])),
        }
    }
    Ok(cx.route(types::handler(HANDLER.id, &out)))
}

fn reasoning(word: &str) -> Option<Reasoning> {
    Some(match word {
        "think" => Reasoning::Think,
        "hide" => Reasoning::Hide,
        "keep" | "" => Reasoning::Keep,
        _ => return None,
    })
}

fn compile(module: &Module, _: &mut CompileCx<'_>) -> Result<Handler, CompileError> {
    let config: Config = read(module, "handler")?;
    let reasoning = reasoning(&config.reasoning).ok_or_else(|| {
        CompileError::new("invalid-value", "`reasoning` is `think`, `hide` or `keep`").within("reasoning")
    })?;
    let literal = ModelGlobs::new(&config.literal);
    Ok(Handler::Async(Box::new(CursorCompat(Options { reasoning, suffixes: !config.suffixes_off, literal }))))
}

struct CursorCompat(Options);

impl AsyncHandler for CursorCompat {
    fn call<'a>(&'a self, ex: &'a mut Exchange) -> LocalFuture<'a, Flow> {
        Box::pin(async move {
            if ex.method != Method::POST || !ex.uri.path().ends_with("/chat/completions") {
                return Flow::Next;
            }
            ex.dialect.get_or_insert(Dialect::OpenAi);
            match self.adapt(ex).await {
                Ok(plan) => {
                    // The answer is going to be read.
                    body_filter::ask_identity(ex);
                    ex.tells_broken_streams = true;
                    ex.stages.push(Stage::Async(Box::new(Answer(plan))));
                    Flow::Next
                }
                Err(error) => Flow::Fail(error),
            }
        })
    }
}

impl CursorCompat {
    /// Makes the body one of chat completions.
    async fn adapt(&self, ex: &mut Exchange) -> Result<Plan, HandlerError> {
        let untouched = Plan { reasoning: self.0.reasoning, ..Plan::default() };
        if body_filter::is_encoded(&ex.headers) {
            return Ok(untouched);
        }
        hold_body(ex, DEFAULT_LIMIT).await?;
        let Body::Full(body) = &ex.body else { return Ok(untouched) };
        let (edited, plan) = convert(body, &self.0).map_err(refuse)?;
        if let Some(edited) = edited {
            ex.replace_body(edited.into());
        }
        Ok(plan)
    }
}

fn refuse(why: Refused) -> HandlerError {
    let refusal = Refusal { message: why.message().into(), param: why.param(), ..Refusal::default() };
    HandlerError::refusal(400, HANDLER.id, refusal)
}

/// Puts the answer into the form that Cursor reads.
struct Answer(Plan);

impl AsyncStage for Answer {
    fn apply(
        self: Box<Self>,
        _: &mut Exchange,
        mut response: Response,
    ) -> LocalFuture<'_, Result<Response, HandlerError>> {
        Box::pin(async move {
            // Errors are in OpenAI's form already, or the upstream's own.
            if response.status() != StatusCode::OK || response.body().is_empty() || !body_filter::decode(&mut response)
            {
                return Ok(response);
            }
            let kind = response.headers().get(header::CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
            if sse::is_event_stream(kind) {
                body_filter::transform(
                    &mut response,
                    Events { decoder: Decoder::new(sse::MAX_EVENT), stream: Stream::new(self.0) },
                );
            } else if kind.to_ascii_lowercase().starts_with(b"application/json") {
                let body = response.body_mut().take();
                let held = body_filter::hold(body, MAX_ANSWER).await?;
                let edited = answer::whole(&held, &self.0);
                if let Some(edited) = &edited {
                    body_filter::forget_body(response.headers_mut());
                    response.headers_mut().insert(header::CONTENT_LENGTH, edited.len().into());
                }
                *response.body_mut() = edited.map_or(held, Into::into).into();
            }
            Ok(response)
        })
    }
}

struct Events {
    decoder: Decoder,
    stream: Stream,
}

impl Transform for Events {
    fn data(&mut self, chunk: bytes::Bytes, out: &mut Out) -> Result<(), ProxyError> {
        self.decoder.feed(chunk);
        while let Some(event) = self.decoder.next() {
            match event {
                Ok(event) => self.stream.event(event, |bytes| out.push(bytes)),
                Err(_) => {
                    let message = "An event of the answer is larger than may be held.";
                    self.stream.fail(message, "upstream_protocol_error", |bytes| out.push(bytes));
                    out.finish();
                }
            }
        }
        Ok(())
    }

    fn end(&mut self, how: Result<(), ProxyError>, out: &mut Out) -> Result<(), ProxyError> {
        if let Some(event) = self.decoder.finish() {
            self.stream.event(event, |bytes| out.push(bytes));
        }
        self.stream.end(how.map_err(|error| error.kind.facts().code), |bytes| out.push(bytes));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::walker::{self, Outcome};
    use crate::modules::testing::{block_on, exchange, handlers};
    use serde_json::{Value, json};

    /// Status, headers and body of the answer when the upstream answers so.
    fn answered(body: &'static str, up: Value, path: &str) -> (Exchange, Response) {
        let routes = handlers(vec![json!({"handler":"cursor_compat","reasoning":"think"}), up]);
        let mut ex = exchange("POST", path);
        ex.body = Body::from(body);
        match block_on(walker::run(&routes, None, &mut ex)) {
            Outcome::Response(response) => (ex, response),
            Outcome::Abort => panic!("aborted"),
        }
    }

    fn text(response: Response) -> String {
        let held = block_on(body_filter::hold(response.into_body(), 1 << 20)).unwrap();
        String::from_utf8(held.to_vec()).unwrap()
    }

    const RESPONSES: &str = r#"{"model":"gpt-5-fast","input":"hi"}"#;

    #[test]
    fn only_chat_is_touched() {
        let up = || json!({"handler":"static_response","body":"{\"choices\":[],\"usage\":null}","headers":{"Content-Type":["application/json"]}});
        let (ex, response) = answered(RESPONSES, up(), "/v1/responses");
        assert!(matches!(&ex.body, Body::Full(body) if body == RESPONSES));
        assert_eq!(text(response), r#"{"choices":[],"usage":null}"#);
        let (ex, response) = answered(RESPONSES, up(), "/v1/chat/completions");
        let expected = r#"{"model":"gpt-5","messages":[{"role":"user","content":"hi"}],"reasoning_effort":"low"}"#;
        assert!(matches!(&ex.body, Body::Full(body) if body == expected));
        assert_eq!(ex.headers["content-length"], expected.len().to_string());
        assert_eq!(ex.headers["accept-encoding"], "identity");
        assert_eq!(response.headers()["content-length"], "14");
        assert_eq!(text(response), r#"{"choices":[]}"#);
    }

    #[test]
    fn a_stream_is_edited_and_errors_pass() {
        let events = "data: {\"choices\":[{\"delta\":{\"reasoning\":\"r\"},\"finish_reason\":null}]}\n\ndata: {\"choices\":[{\"delta\":{\"content\":\"a\"},\"finish_reason\":\"stop\"}]}\n\n";
        let up = json!({"handler":"static_response","body":events,"headers":{"Content-Type":["text/event-stream; charset=utf-8"]}});
        let (_, response) = answered(RESPONSES, up, "/chat/completions");
        assert!(!response.headers().contains_key("content-length"));
        let expected = "data: {\"choices\":[{\"delta\":{\"content\":\"<think>r\"}}]}\n\ndata: {\"choices\":[{\"delta\":{\"content\":\"</think>a\"},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n";
        assert_eq!(text(response), expected);
        let body = r#"{"error":{"message":"no"},"usage":null}"#;
        let up = json!({"handler":"static_response","status_code":429,"body":body,"headers":{"Content-Type":["application/json"]}});
        let (_, response) = answered(RESPONSES, up, "/chat/completions");
        assert_eq!((response.status().as_u16(), text(response)), (429, body.to_owned()));
    }

    #[test]
    fn what_cannot_go_up_is_told_in_openais_words() {
        let up = json!({"handler":"static_response","body":"x"});
        let (_, response) = answered(r#"{"input":"a","previous_response_id":"r"}"#, up, "/x/chat/completions");
        assert_eq!(response.status(), 400);
        let error: Value = serde_json::from_str(&text(response)).unwrap();
        assert_eq!(error["error"]["param"], "previous_response_id");
        assert_eq!(error["error"]["type"], "invalid_request_error");
    }
}

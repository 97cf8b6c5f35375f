//! `respond`: answers with a fixed text, a status, or both.
//!
//! `respond "hello"` answers 200, `respond 404` an empty 404, `respond "gone" 410` both. A single argument of three
//! digits is a status, everything else is a body. Status and body may hold placeholders; placeholders that do not exist
//! stay in the body as they are. A body that is JSON is sent as `application/json`, any other as plain text, unless a
//! `header` line before it set another type. Inside `handle_errors` the status is the error's unless one is given.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

use crate::base::body::Body;
use crate::config::compile_cx::{CompileCx, CompileError, read};
use crate::config::directive_cx::{ConfigValue, DirectiveCx, Parsed};
use crate::config::registry::{Directive, Doc, HandlerModule};
use crate::config::types::{self, Module, is_false};
use crate::config::weak_string::WeakString;
use crate::http::exchange::{Exchange, Response};
use crate::http::handler::{Flow, Step};
use crate::http::headers::safe_value;
use crate::http::placeholder::{Template, Unknown};
use crate::http::route::Handler;
use crate::http::status::StatusSource;

pub const DIRECTIVE: Directive = Directive {
    name: "respond",
    renamed_to: None,
    ordered: true,
    matcher: true,
    parse,
    doc: &Doc {
        summary: "Answers with a fixed text or status.",
        syntax: "respond [matcher] <status>|<body> [<status>] { body <text>  close }",
        examples: &[
            "respond \"hello\"",
            "respond 404",
            "respond /health \"ok\" 200",
            "respond 202 {\n\tbody \"later\"\n\tclose\n}",
            "respond \"you asked for {path}\"",
        ],
        rejected: &[
            ("respond", "wrong-argument-count"),
            ("respond \"a\" 200 b", "wrong-argument-count"),
            ("respond \"a\" {\n\tbody \"b\"\n}", "duplicate-option"),
            ("respond 200 {\n\tbdy \"b\"\n}", "unknown-subdirective"),
        ],
        adapt_only: false,
    },
};

pub const HANDLER: HandlerModule = HandlerModule { id: "static_response", compile };

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct StaticResponse {
    #[serde(skip_serializing_if = "WeakString::is_empty")]
    status_code: WeakString,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    headers: BTreeMap<String, Vec<String>>,
    #[serde(skip_serializing_if = "String::is_empty")]
    body: String,
    #[serde(skip_serializing_if = "is_false")]
    close: bool,
    /// Close the connection without answering (`abort`).
    #[serde(skip_serializing_if = "is_false")]
    abort: bool,
}

fn parse(cx: &mut DirectiveCx<'_, '_>) -> Parsed<Vec<ConfigValue>> {
    let mut out = StaticResponse::default();
    match cx.args {
        [one] if is_status(one.text()) => out.status_code = one.text().into(),
        [one] => one.text().clone_into(&mut out.body),
        [body, status] => {
            body.text().clone_into(&mut out.body);
            out.status_code = status.text().into();
        }
        _ => return Err(cx.arg_err(cx.node)),
    }
    for line in cx.node.lines() {
        match line.name() {
            "body" if !out.body.is_empty() => return Err(cx.duplicate(line)),
            "body" => cx.one(line)?.text().clone_into(&mut out.body),
            "close" if out.close => return Err(cx.duplicate(line)),
            "close" => out.close = true,
            _ => return Err(cx.unknown(line, &["body", "close"])),
        }
    }
    Ok(cx.route(types::handler(HANDLER.id, &out)))
}

fn is_status(word: &str) -> bool {
    word.len() == 3 && word.parse::<i32>().is_ok_and(|n| n > 0)
}

fn compile(module: &Module, _cx: &mut CompileCx<'_>) -> Result<Handler, CompileError> {
    let config: StaticResponse = read(module, "handler")?;
    let status = StatusSource::parse(config.status_code.as_str())
        .map_err(|why| CompileError::new("invalid-status", why).within("status_code"))?;
    let headers = config.headers.iter().map(|(name, values)| HeaderLine::compile(name, values)).collect();
    let body = Template::parse(&config.body);
    let ready = body
        .as_static()
        .filter(|text| !text.is_empty())
        .map(|text| Ready { content_type: content_type_of(text), bytes: Bytes::copy_from_slice(text.as_bytes()) });
    Ok(Handler::Step(Box::new(Respond { status, headers, body, ready, close: config.close, abort: config.abort })))
}

struct Respond {
    status: StatusSource,
    headers: Box<[HeaderLine]>,
    body: Template,
    /// The body when it holds no placeholder.
    ready: Option<Ready>,
    close: bool,
    abort: bool,
}

struct Ready {
    content_type: HeaderValue,
    bytes: Bytes,
}

/// One configured header with its values.
struct HeaderLine {
    name: NameSource,
    values: Box<[Template]>,
}

enum NameSource {
    Fixed(HeaderName),
    Rendered(Template),
}

impl HeaderLine {
    fn compile(name: &str, values: &[String]) -> Self {
        let name = match HeaderName::from_bytes(name.as_bytes()) {
            Ok(fixed) => NameSource::Fixed(fixed),
            Err(_) => NameSource::Rendered(Template::parse(name)),
        };
        Self { name, values: values.iter().map(|v| Template::parse(v)).collect() }
    }

    /// A name that is no header name once rendered is left out.
    fn write(&self, ex: &mut Exchange, out: &mut HeaderMap) {
        let name = match &self.name {
            NameSource::Fixed(name) => name.clone(),
            NameSource::Rendered(t) => match HeaderName::from_bytes(t.render(ex, Unknown::Empty).as_bytes()) {
                Ok(name) => name,
                Err(_) => return,
            },
        };
        // A handler's own header takes the place of one set before it.
        ex.early_headers.remove(&name);
        out.remove(&name);
        for value in &self.values {
            out.append(name.clone(), safe_value(&value.render(ex, Unknown::Empty)));
        }
    }
}

impl Step for Respond {
    fn run(&self, ex: &mut Exchange) -> Flow {
        if self.abort {
            return Flow::Abort;
        }
        let status = match self.status.get(ex, HANDLER.id) {
            Ok(Some(status)) => status,
            Ok(None) => default_status(ex),
            Err(error) => return Flow::Fail(error),
        };
        let mut response = Response::new(Body::Empty);
        for line in &self.headers {
            line.write(ex, response.headers_mut());
        }
        let (content_type, bytes) = if let Some(ready) = &self.ready {
            (Some(ready.content_type.clone()), ready.bytes.clone())
        } else {
            let text = self.body.render(ex, Unknown::Literal);
            let kind = (!text.is_empty()).then(|| content_type_of(&text));
            (kind, Bytes::from(text.into_owned()))
        };
        let typed = response.headers().contains_key(header::CONTENT_TYPE)
            || ex.early_headers.contains_key(header::CONTENT_TYPE);
        if let (Some(kind), false) = (content_type, typed) {
            response.headers_mut().insert(header::CONTENT_TYPE, kind);
        }
        if self.close {
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        if status == StatusCode::from_u16(103).unwrap_or_default() {
            // Early hints are not the answer; the server cannot send them, so only the walk goes on.
            return Flow::Next;
        }
        *response.status_mut() = status;
        if may_have_body(status) {
            *response.body_mut() = Body::from(bytes);
        }
        Flow::Respond(response)
    }
}

fn default_status(ex: &Exchange) -> StatusCode {
    ex.error.as_ref().and_then(|e| StatusCode::from_u16(e.status).ok()).unwrap_or(StatusCode::OK)
}

fn may_have_body(status: StatusCode) -> bool {
    !status.is_informational() && status != StatusCode::NO_CONTENT && status != StatusCode::NOT_MODIFIED
}

/// JSON objects and arrays are told apart from plain text.
fn content_type_of(text: &str) -> HeaderValue {
    let trimmed = text.trim();
    let braced = trimmed.len() > 2
        && ((trimmed.starts_with('{') && trimmed.ends_with('}'))
            || (trimmed.starts_with('[') && trimmed.ends_with(']')));
    if braced && serde_json::from_str::<serde::de::IgnoredAny>(trimmed).is_ok() {
        HeaderValue::from_static("application/json")
    } else {
        HeaderValue::from_static("text/plain; charset=utf-8")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::error::HandlerError;
    use crate::modules::testing::{exchange, step};
    use http_body_util::BodyExt;
    use serde_json::json;

    fn answer(config: serde_json::Value, ex: &mut Exchange) -> Response {
        match step(config).run(ex) {
            Flow::Respond(response) => response,
            _ => panic!("no answer"),
        }
    }

    fn body(response: Response) -> Bytes {
        tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap()
            .block_on(response.into_body().collect())
            .unwrap()
            .to_bytes()
    }

    #[test]
    fn text_and_json_are_told_apart() {
        let mut ex = exchange("GET", "/");
        let text = answer(json!({"handler":"static_response","body":"hi {"}), &mut ex);
        assert_eq!(text.headers()[header::CONTENT_TYPE], "text/plain; charset=utf-8");
        let object = answer(json!({"handler":"static_response","body":" {\"a\":1}\n"}), &mut ex);
        assert_eq!(object.headers()[header::CONTENT_TYPE], "application/json");
        assert_eq!(body(object), " {\"a\":1}\n");
    }

    #[test]
    fn an_error_gives_its_status_unless_one_is_configured() {
        let mut ex = exchange("GET", "/");
        ex.error = Some(HandlerError::new(502, "test", ""));
        assert_eq!(answer(json!({"handler":"static_response","body":"x"}), &mut ex).status(), 502);
        assert_eq!(answer(json!({"handler":"static_response","status_code":503}), &mut ex).status(), 503);
    }

    #[test]
    fn a_type_set_earlier_is_kept_and_own_headers_replace_earlier_ones() {
        let mut ex = exchange("GET", "/");
        ex.early_headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html"));
        ex.early_headers.insert("location", HeaderValue::from_static("/old"));
        let config =
            json!({"handler":"static_response","body":"x","status_code":"302","headers":{"Location":["/new"]}});
        let response = answer(config, &mut ex);
        assert!(!response.headers().contains_key(header::CONTENT_TYPE));
        assert!(!ex.early_headers.contains_key("location"));
        assert_eq!(response.headers()["location"], "/new");
    }

    #[test]
    fn no_body_where_http_allows_none_and_close_is_said() {
        let mut ex = exchange("GET", "/");
        let response = answer(json!({"handler":"static_response","body":"x","status_code":204,"close":true}), &mut ex);
        assert_eq!(response.headers()["connection"], "close");
        assert!(response.body().is_empty());
    }

    #[test]
    fn abort_sends_nothing() {
        let mut ex = exchange("GET", "/");
        assert!(matches!(step(json!({"handler":"static_response","abort":true})).run(&mut ex), Flow::Abort));
    }
}

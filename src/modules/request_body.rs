//! `request_body`: bounds or replaces the body that the client sends.
//!
//! `max_size 10MB` answers 413 once more than that has come, also while the body is being passed on. `set TEXT` puts
//! another body, which may hold placeholders, in the place of the client's.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderValue, header};
use http_body::{Body as HttpBody, Frame, SizeHint};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::base::body::Body;
use crate::base::error::{Kind, ProxyError, Retry};
use crate::base::units::parse_size;
use crate::config::compile_cx::{CompileCx, CompileError, read};
use crate::config::directive_cx::{ConfigValue, DirectiveCx, Parsed};
use crate::config::registry::{Directive, Doc, HandlerModule};
use crate::config::types::{self, Module, is_zero};
use crate::http::exchange::Exchange;
use crate::http::handler::{Flow, Step};
use crate::http::placeholder::{Template, Unknown};
use crate::http::route::Handler;

pub const DIRECTIVE: Directive = Directive {
    name: "request_body",
    renamed_to: None,
    ordered: true,
    matcher: true,
    parse,
    doc: &Doc {
        summary: "Bounds or replaces the request body.",
        syntax: "request_body [matcher] { max_size <size>  set <text> }",
        examples: &["request_body {\n\tmax_size 10MB\n}", "request_body /hook {\n\tset \"{http.request.uuid}\"\n}"],
        rejected: &[
            ("request_body {\n\tmax_size\n}", "wrong-argument-count"),
            ("request_body {\n\tmax_size lots\n}", "invalid-size"),
            ("request_body {\n\tmaxsize 1MB\n}", "unknown-subdirective"),
        ],
        adapt_only: false,
    },
};

pub const HANDLER: HandlerModule = HandlerModule { id: "request_body", compile };

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RequestBody {
    /// Bytes; zero = no bound.
    #[serde(skip_serializing_if = "is_zero")]
    max_size: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    read_timeout: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    write_timeout: Option<Value>,
    #[serde(skip_serializing_if = "String::is_empty")]
    set: String,
}

fn parse(cx: &mut DirectiveCx<'_, '_>) -> Parsed<Vec<ConfigValue>> {
    let mut out = RequestBody::default();
    if let Some(extra) = cx.args.first() {
        cx.warn_ignored(extra.span);
    }
    for line in cx.node.lines() {
        match line.name() {
            "max_size" => {
                let size = cx.one(line)?;
                let bytes = parse_size(size.text()).and_then(|n| i64::try_from(n).ok());
                out.max_size = bytes.ok_or_else(|| {
                    let d = cx.err(size.span, "invalid-size", format!("`{}` is not a size", size.shown()));
                    Box::new(d.help("for example `10MB` or `512KiB`"))
                })?;
            }
            "set" => cx.one(line)?.text().clone_into(&mut out.set),
            _ => return Err(cx.unknown(line, &["max_size", "set"])),
        }
    }
    Ok(cx.route(types::handler(HANDLER.id, &out)))
}

fn compile(module: &Module, _cx: &mut CompileCx<'_>) -> Result<Handler, CompileError> {
    let config: RequestBody = read(module, "handler")?;
    for (name, timeout) in [("read_timeout", &config.read_timeout), ("write_timeout", &config.write_timeout)] {
        if timeout.is_some() {
            return Err(CompileError::not_supported(format_args!("`{name}` of `request_body`")).within(name));
        }
    }
    let set = (!config.set.is_empty()).then(|| Template::parse(&config.set));
    let max = u64::try_from(config.max_size).ok().filter(|n| *n > 0);
    Ok(Handler::Step(Box::new(BodyRules { set, max })))
}

struct BodyRules {
    set: Option<Template>,
    /// Bytes.
    max: Option<u64>,
}

impl Step for BodyRules {
    fn run(&self, ex: &mut Exchange) -> Flow {
        if let Some(template) = &self.set {
            let body = Bytes::from(template.render(ex, Unknown::Empty).into_owned());
            ex.headers.remove(header::TRANSFER_ENCODING);
            ex.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
            ex.body = Body::from(body);
        }
        if let Some(max) = self.max
            && !ex.body.is_empty()
        {
            let inner = ex.body.take();
            ex.body = match inner {
                Body::Full(bytes) if bytes.len() as u64 <= max => Body::Full(bytes),
                inner => Body::stream(BoundedBody { inner, left: max }),
            };
        }
        Flow::Next
    }
}

/// Breaks off with [`Kind::BodyTooLarge`]: at once when the length is known to be too much, else when it turns out so.
struct BoundedBody {
    inner: Body,
    left: u64,
}

impl HttpBody for BoundedBody {
    type Data = Bytes;
    type Error = ProxyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ProxyError>>> {
        if self.inner.size_hint().lower() > self.left {
            return Poll::Ready(Some(Err(too_large())));
        }
        let polled = Pin::new(&mut self.inner).poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &polled
            && let Some(data) = frame.data_ref()
        {
            match self.left.checked_sub(data.len() as u64) {
                Some(left) => self.left = left,
                None => return Poll::Ready(Some(Err(too_large()))),
            }
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

fn too_large() -> ProxyError {
    ProxyError::new(Kind::BodyTooLarge, Retry::No, "request body is larger than request_body max_size")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::modules::testing::{block_on, exchange, step};
    use http_body_util::BodyExt;
    use serde_json::json;

    fn bounded(body: Body) -> Result<Bytes, ProxyError> {
        let mut ex = exchange("POST", "/");
        ex.body = body;
        assert!(matches!(step(json!({"handler":"request_body","max_size":10})).run(&mut ex), Flow::Next));
        block_on(ex.body.collect()).map(http_body_util::Collected::to_bytes)
    }

    /// Chunks of unknown total length.
    struct Chunks(Vec<&'static str>);

    impl HttpBody for Chunks {
        type Data = Bytes;
        type Error = ProxyError;

        fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ProxyError>>> {
            let next = (!self.0.is_empty()).then(|| self.0.remove(0));
            Poll::Ready(next.map(|c| Ok(Frame::data(Bytes::from_static(c.as_bytes())))))
        }
    }

    #[test]
    fn within_the_bound_nothing_changes() {
        assert_eq!(bounded(Body::from("0123456789")).unwrap(), "0123456789");
        assert_eq!(bounded(Body::stream(Chunks(vec!["01234", "56789"]))).unwrap(), "0123456789");
    }

    #[test]
    fn beyond_it_the_body_breaks_off_as_413() {
        for body in [Body::from("01234567890"), Body::stream(Chunks(vec!["01234", "56789", "0"]))] {
            assert_eq!(bounded(body).unwrap_err().status(), 413);
        }
    }

    #[test]
    fn a_set_body_has_its_own_length() {
        let mut ex = exchange("POST", "/");
        ex.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(99));
        step(json!({"handler":"request_body","set":"abc"})).run(&mut ex);
        assert_eq!(ex.headers[header::CONTENT_LENGTH], "3");
    }
}

//! `copy_response` and `copy_response_headers`: inside `handle_response`, use the upstream's answer after all.
//!
//! `copy_response` sends it as it is, or with another status, and with what `header_down` makes of its headers.
//! `copy_response_headers` takes only headers from it, as the upstream sent them: all but those `exclude` names or only those
//! `include` names, for whatever is answered afterwards. What speaks of the body (its length, its encoding) is not among them.

use http::{HeaderMap, HeaderName};
use serde::{Deserialize, Serialize};

use crate::config::compile_cx::{CompileCx, CompileError, read};
use crate::config::directive_cx::{ConfigValue, DirectiveCx, Parsed};
use crate::config::registry::{Directive, Doc, HandlerModule};
use crate::config::types::{self, Module};
use crate::config::weak_string::WeakString;
use crate::http::error::HandlerError;
use crate::http::exchange::Exchange;
use crate::http::handler::{Flow, Step};
use crate::http::response_handler::{received_headers, set_status, take_held};
use crate::http::route::Handler;
use crate::http::status::StatusSource;

pub const DIRECTIVE: Directive = Directive {
    name: "copy_response",
    renamed_to: None,
    ordered: true,
    matcher: true,
    parse: parse_response,
    doc: &Doc {
        summary: "Sends the upstream's response, inside handle_response.",
        syntax: "copy_response [matcher] [<status>] { status <status> }",
        examples: &[
            "reverse_proxy a:1 {\n\thandle_response {\n\t\tcopy_response 202\n\t}\n}",
            "reverse_proxy a:1 {\n\thandle_response {\n\t\tcopy_response {\n\t\t\tstatus 202\n\t\t}\n\t}\n}",
        ],
        rejected: &[("copy_response {\n\tstats 200\n}", "unknown-subdirective")],
        adapt_only: false,
    },
};

pub const HEADERS_DIRECTIVE: Directive = Directive {
    name: "copy_response_headers",
    renamed_to: None,
    ordered: true,
    matcher: true,
    parse: parse_headers,
    doc: &Doc {
        summary: "Copies headers of the upstream's response, inside handle_response.",
        syntax: "copy_response_headers [matcher] { include <fields…>  exclude <fields…> }",
        examples: &[
            "reverse_proxy a:1 {\n\thandle_response {\n\t\tcopy_response_headers {\n\t\t\tinclude Retry-After\n\t\t}\n\t\trespond 503\n\t}\n}",
        ],
        rejected: &[
            ("copy_response_headers a", "wrong-argument-count"),
            ("copy_response_headers {\n\tomit a\n}", "unknown-subdirective"),
        ],
        adapt_only: false,
    },
};

pub const HANDLER: HandlerModule = HandlerModule { id: "copy_response", compile: compile_response };
pub const HEADERS_HANDLER: HandlerModule = HandlerModule { id: "copy_response_headers", compile: compile_headers };

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Config {
    #[serde(skip_serializing_if = "WeakString::is_empty")]
    status_code: WeakString,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct HeadersConfig {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    include: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    exclude: Vec<String>,
}

fn parse_response(cx: &mut DirectiveCx<'_, '_>) -> Parsed<Vec<ConfigValue>> {
    let mut config = Config::default();
    match cx.args {
        [] => {}
        [status] if status.text().parse::<u32>().is_ok_and(|n| n > 0) => config.status_code = status.text().into(),
        _ => return Err(cx.arg_err(cx.node)),
    }
    for line in cx.node.lines() {
        match line.name() {
            "status" => config.status_code = cx.one(line)?.text().into(),
            _ => return Err(cx.unknown(line, &["status"])),
        }
    }
    Ok(cx.route(types::handler(HANDLER.id, &config)))
}

fn parse_headers(cx: &mut DirectiveCx<'_, '_>) -> Parsed<Vec<ConfigValue>> {
    if !cx.args.is_empty() {
        return Err(cx.arg_err(cx.node));
    }
    let mut config = HeadersConfig::default();
    for line in cx.node.lines() {
        let list = match line.name() {
            "include" => &mut config.include,
            "exclude" => &mut config.exclude,
            _ => return Err(cx.unknown(line, &["include", "exclude"])),
        };
        list.extend(line.args.iter().map(|t| t.text().to_owned()));
    }
    Ok(cx.route(types::handler(HEADERS_HANDLER.id, &config)))
}

fn compile_response(module: &Module, _: &mut CompileCx<'_>) -> Result<Handler, CompileError> {
    let config: Config = read(module, "handler")?;
    let status = StatusSource::parse(config.status_code.as_str())
        .map_err(|why| CompileError::new("invalid-status", why).within("status_code"))?;
    Ok(Handler::Step(Box::new(CopyResponse(status))))
}

fn compile_headers(module: &Module, _: &mut CompileCx<'_>) -> Result<Handler, CompileError> {
    let config: HeadersConfig = read(module, "handler")?;
    if !config.include.is_empty() && !config.exclude.is_empty() {
        return Err(CompileError::new("contradicting-options", "`include` and `exclude` cannot stand together"));
    }
    let names = |list: &[String], field: &str| -> Result<Box<[HeaderName]>, CompileError> {
        list.iter()
            .map(|name| {
                HeaderName::from_bytes(name.as_bytes()).map_err(|_| {
                    CompileError::new("invalid-value", format!("`{name}` is not a header field")).within(field)
                })
            })
            .collect()
    };
    let include = names(&config.include, "include")?;
    let exclude = names(&config.exclude, "exclude")?;
    Ok(Handler::Step(Box::new(CopyHeaders { include, exclude })))
}

struct CopyResponse(StatusSource);

impl Step for CopyResponse {
    fn run(&self, ex: &mut Exchange) -> Flow {
        let status = match self.0.get(ex, HANDLER.id) {
            Ok(status) => status,
            Err(error) => return Flow::Fail(error),
        };
        let Some(mut response) = take_held(ex) else { return outside(HANDLER.id) };
        if let Some(status) = status {
            set_status(&mut response, status);
        }
        ex.server_header = false;
        Flow::Respond(response)
    }
}

struct CopyHeaders {
    include: Box<[HeaderName]>,
    exclude: Box<[HeaderName]>,
}

impl Step for CopyHeaders {
    fn run(&self, ex: &mut Exchange) -> Flow {
        let Some(received) = received_headers(ex) else { return outside(HEADERS_HANDLER.id) };
        let mut copied = HeaderMap::new();
        for (name, value) in received {
            let wanted =
                if self.include.is_empty() { !self.exclude.contains(name) } else { self.include.contains(name) };
            // Length and encoding belong to the body, which is not copied; `via` is added when a response is sent.
            let ours = matches!(name.as_str(), "content-length" | "content-encoding" | "via");
            if wanted && !ours {
                copied.append(name, value.clone());
            }
        }
        for (name, value) in &copied {
            ex.early_headers.append(name, value.clone());
        }
        Flow::Next
    }
}

fn outside(origin: &'static str) -> Flow {
    Flow::Fail(HandlerError::internal(origin, "only possible inside `handle_response`"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::exchange::Response;
    use crate::modules::testing::{exchange, step};
    use serde_json::json;

    fn held() -> Response {
        let mut response = Response::default();
        for (name, value) in [("x-up", "1"), ("x-up", "2"), ("x-other", "3"), ("content-length", "9")] {
            response.headers_mut().append(name, value.parse().unwrap());
        }
        response
    }

    #[test]
    fn the_held_response_is_sent_with_another_status() {
        let mut ex = exchange("GET", "/");
        ex.held_response = Some(held());
        let copy = step(json!({ "handler": "copy_response", "status_code": 202 }));
        let Flow::Respond(response) = copy.run(&mut ex) else { panic!("no response") };
        assert_eq!(response.status(), 202);
        assert_eq!(response.headers().get_all("x-up").iter().count(), 2);
        assert!(matches!(copy.run(&mut ex), Flow::Fail(e) if e.status == 500));
    }

    #[test]
    fn headers_are_chosen_by_name() {
        let early = |config| {
            let mut ex = exchange("GET", "/");
            ex.held_response = Some(held());
            assert!(matches!(step(config).run(&mut ex), Flow::Next));
            ex.early_headers.keys().map(|n| n.as_str().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(early(json!({ "handler": "copy_response_headers", "include": ["X-Up"] })), ["x-up"]);
        assert_eq!(early(json!({ "handler": "copy_response_headers", "exclude": ["X-Up"] })), ["x-other"]);
    }
}

//! `header`: changes headers of the response.
//!
//! `header X-Frame-Options DENY` sets a field, `+Field` adds another value, `-Field` deletes it (also `-X-*`), `?Field`
//! sets it where the response has none, `Field FIND REPLACEMENT` replaces in its value. Several lines may stand in a
//! block; whatever their order, adding comes first, then setting, deleting, replacing.
//!
//! A field is set before the handlers that follow run, so that theirs is added to it; with `>Field`, or `defer` in the
//! block, it is changed when the response is written, over what the handlers said. Deleting is always deferred. `match`
//! in the block bounds it to some responses: `match status 2xx`, `match header Content-Type text/*`.

use std::sync::Arc;

use http::{HeaderValue, header};

use crate::config::compile_cx::{CompileCx, CompileError, read};
use crate::config::directive_cx::{ConfigValue, DirectiveCx, Parsed};
use crate::config::registry::{Directive, Doc, HandlerModule};
use crate::config::types::{self, Module};
use crate::http::exchange::{Exchange, Response};
use crate::http::handler::{Flow, Step};
use crate::http::headers::{CompiledHeaderOps, HeaderOps, HeadersConfig, ResponseHeaderOps};
use crate::http::response_matcher::{CompiledResponseMatcher, ResponseMatcher};
use crate::http::route::Handler;
use crate::http::stage::{Stage, SyncStage};
use crate::syntax::token::Token;

pub const DIRECTIVE: Directive = Directive {
    name: "header",
    renamed_to: None,
    ordered: true,
    matcher: true,
    parse,
    doc: &Doc {
        summary: "Changes headers of the response.",
        syntax: "header [matcher] [[+|-|?|>]<field> [<value>|<find>] [<replacement>]] { <lines as before>  defer  match <response matcher> }",
        examples: &[
            "header X-Frame-Options DENY",
            "header -Server",
            "header ?Cache-Control \"max-age=60\"",
            "header /v1/* >X-Served-By llmproxy",
            "header Location http:// https://",
            "header {\n\tX-A 1\n\t+X-B 2\n\t-X-C\n\tdefer\n\tmatch status 2xx\n}",
        ],
        rejected: &[
            ("header X-A 1 {\n\tX-B 2\n}", "unexpected-block"),
            ("header {\n\tdefer now\n}", "wrong-argument-count"),
            ("header {\n\tmatch foo\n}", "unknown-response-matcher"),
            ("header X-A ( b", "invalid-regexp"),
        ],
        adapt_only: false,
    },
};

pub const HANDLER: HandlerModule = HandlerModule { id: "headers", compile };

fn parse(cx: &mut DirectiveCx<'_, '_>) -> Parsed<Vec<ConfigValue>> {
    let mut always = ResponseHeaderOps::default();
    // Defaults (`?`) have a condition of their own and so are a handler of their own.
    let mut defaults = ResponseHeaderOps::default();
    if let Some((field, rest)) = cx.args.split_first() {
        add(cx, &mut always, field.text(), rest);
    }
    let node = cx.node;
    for line in node.lines() {
        match line.name() {
            "defer" => {
                cx.no_block(line)?;
                if !line.args.is_empty() {
                    return Err(cx.arg_err(line));
                }
                always.deferred = true;
            }
            "match" => always.require = Some(ResponseMatcher::parse(line)?),
            _ if !cx.args.is_empty() => {
                let message = "headers stand either on the line or in a block";
                return Err(cx.err(line.span(), "unexpected-block", message));
            }
            name => {
                cx.no_block(line)?;
                // Many write the colon that follows a field on the wire.
                let field = name.strip_suffix(':').unwrap_or(name);
                let ops = if field.starts_with('?') { &mut defaults } else { &mut always };
                add(cx, ops, field, &line.args);
            }
        }
    }
    let mut routes = Vec::new();
    for ops in [always, defaults] {
        if ops != ResponseHeaderOps::default() {
            let config = HeadersConfig { response: Some(ops), ..HeadersConfig::default() };
            routes.extend(cx.route(types::handler(HANDLER.id, &config)));
        }
    }
    Ok(routes)
}

fn add(cx: &mut DirectiveCx<'_, '_>, ops: &mut ResponseHeaderOps, field: &str, args: &[Token]) {
    if let Some(extra) = args.get(2) {
        cx.warn_ignored(extra.span);
    }
    let value = args.first().map_or("", |t| t.text());
    ops.add_line(field, value, args.get(1).map(Token::text));
}

fn compile(module: &Module, _cx: &mut CompileCx<'_>) -> Result<Handler, CompileError> {
    let config: HeadersConfig = read(module, "handler")?;
    let request = config.request.map(|ops| compile_ops(&ops, "request")).transpose()?;
    let response = match config.response {
        None => None,
        Some(response) => {
            let require = response.require.map(|r| r.compile()).transpose().map_err(|e| {
                CompileError::new("invalid-header-field", e.to_string()).within("require").within("response")
            })?;
            let ops = compile_ops(&response.ops, "response")?;
            Some(if response.deferred || require.is_some() {
                ResponseOps::Deferred(Arc::new(Deferred { ops, require }))
            } else {
                ResponseOps::Early { ops, server: speaks_of_server(&response.ops) }
            })
        }
    };
    Ok(Handler::Step(Box::new(Headers { request, response })))
}

fn compile_ops(ops: &HeaderOps, side: &'static str) -> Result<CompiledHeaderOps, CompileError> {
    ops.compile().map_err(|e| {
        let mut error = CompileError::new(e.code, e.message);
        error.pointer = e.pointer;
        error.within(side)
    })
}

fn speaks_of_server(ops: &HeaderOps) -> bool {
    let server = |name: &String| name.eq_ignore_ascii_case("server") || name.contains(['{', '*']);
    ops.add.keys().any(server)
        || ops.set.keys().any(server)
        || ops.delete.iter().any(server)
        || ops.replace.keys().any(server)
}

struct Headers {
    request: Option<CompiledHeaderOps>,
    response: Option<ResponseOps>,
}

enum ResponseOps {
    Early {
        ops: CompiledHeaderOps,
        /// May change the `Server` field, which must then be there for it.
        server: bool,
    },
    Deferred(Arc<Deferred>),
}

struct Deferred {
    ops: CompiledHeaderOps,
    require: Option<CompiledResponseMatcher>,
}

impl Step for Headers {
    fn run(&self, ex: &mut Exchange) -> Flow {
        if let Some(ops) = &self.request {
            ops.apply_request(ex);
        }
        match &self.response {
            None => {}
            Some(ResponseOps::Early { ops, server }) => {
                if *server && ex.server_header {
                    ex.server_header = false;
                    ex.early_headers.insert(header::SERVER, HeaderValue::from_static("llmproxy"));
                }
                ops.apply_early(ex);
            }
            Some(ResponseOps::Deferred(deferred)) => {
                ex.stages.push(Stage::Sync(Box::new(HeaderStage(Arc::clone(deferred)))));
            }
        }
        Flow::Next
    }
}

struct HeaderStage(Arc<Deferred>);

impl SyncStage for HeaderStage {
    fn apply(self: Box<Self>, ex: &mut Exchange, response: &mut Response) {
        let Deferred { ops, require } = &*self.0;
        if require.as_ref().is_none_or(|r| r.matches(response.status().as_u16(), response.headers())) {
            ops.apply_response(response.headers_mut(), ex);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::walker::{self, Outcome};
    use crate::modules::testing::{block_on, exchange, handlers};
    use serde_json::{Value, json};

    /// The head of the answer when these handlers run before one that answers `x-up: up` and `server: up`.
    fn answered(configs: &[Value]) -> http::HeaderMap {
        let mut all = configs.to_vec();
        all.push(json!({"handler":"static_response","body":"x","headers":{"X-Up":["up"]}}));
        let mut ex = exchange("GET", "/");
        match block_on(walker::run(&handlers(all), None, &mut ex)) {
            Outcome::Response(response) => response.headers().clone(),
            Outcome::Abort => panic!("aborted"),
        }
    }

    fn values(headers: &http::HeaderMap, name: &str) -> Vec<String> {
        headers.get_all(name).iter().map(|v| v.to_str().unwrap().to_owned()).collect()
    }

    fn response(ops: Value) -> Value {
        json!({"handler":"headers","response":ops})
    }

    #[test]
    fn adding_before_setting_before_deleting() {
        let headers = answered(&[response(json!({"add":{"X-A":["2"]},"set":{"X-A":["1"]}}))]);
        assert_eq!(values(&headers, "x-a"), ["1"]);
    }

    #[test]
    fn defaults_leave_what_is_there() {
        let default = |name: &str| response(json!({"require":{"headers":{name:null}},"set":{name:["d"]}}));
        let headers = answered(&[default("X-Up"), default("X-Other")]);
        assert_eq!(values(&headers, "x-up"), ["up"]);
        assert_eq!(values(&headers, "x-other"), ["d"]);
    }

    #[test]
    fn deferred_operations_see_the_answer_later_lines_first() {
        let headers = answered(&[
            response(json!({"deferred":true,"set":{"X-Up":["first line"]}})),
            response(json!({"deferred":true,"set":{"X-Up":["second line"]}})),
            response(json!({"deferred":true,"delete":["Server"]})),
        ]);
        assert_eq!(values(&headers, "x-up"), ["first line"]);
        assert_eq!(values(&headers, "server"), Vec::<String>::new());
    }

    #[test]
    fn the_server_field_can_be_set_and_added_to() {
        assert_eq!(values(&answered(&[]), "server"), ["llmproxy"]);
        assert_eq!(values(&answered(&[response(json!({"set":{"Server":["x"]}}))]), "server"), ["x"]);
        let added = answered(&[response(json!({"add":{"server":["x"]}}))]);
        assert_eq!(values(&added, "server"), ["llmproxy", "x"]);
    }

    #[test]
    fn only_responses_that_match() {
        let set = |status: u16| response(json!({"require":{"status_code":[status]},"set":{"X-A":["1"]}}));
        assert_eq!(values(&answered(&[set(2)]), "x-a"), ["1"]);
        assert!(values(&answered(&[set(404)]), "x-a").is_empty());
    }

    #[test]
    fn request_headers_change_for_those_that_follow() {
        let mut ex = exchange("GET", "/");
        ex.headers.insert("authorization", HeaderValue::from_static("Bearer x"));
        let swap = json!({"handler":"headers","request":{"set":{"X-Key":["{http.request.header.Authorization}"]}}});
        let delete = json!({"handler":"headers","request":{"delete":["Authorization"]}});
        block_on(walker::run(&handlers(vec![swap, delete]), None, &mut ex));
        assert_eq!(ex.headers["x-key"], "Bearer x");
        assert!(!ex.headers.contains_key("authorization"));
    }
}

//! `intercept`: answers differently when the response that any later handler made matches.
//!
//! `@name status 5xx` and `@name header Field value` define response matchers; `replace_status` changes the status and
//! lets the response go on, `handle_response` runs directives instead of it (`{resp.status_code}` is what it was).

use serde::{Deserialize, Serialize};

use crate::config::compile_cx::{CompileCx, CompileError, read};
use crate::config::directive_cx::{ConfigValue, DirectiveCx, Parsed};
use crate::config::registry::{Directive, Doc, HandlerModule};
use crate::config::response_handler::{self as handlers, ResponseHandler, Responses};
use crate::config::types::{self, Module};
use crate::http::error::HandlerError;
use crate::http::exchange::{Exchange, Response};
use crate::http::handler::{Flow, LocalFuture, Step};
use crate::http::response_handler::{self, Reaction};
use crate::http::route::Handler;
use crate::http::stage::{AsyncStage, Stage};
use std::sync::Arc;

pub const DIRECTIVE: Directive = Directive {
    name: "intercept",
    renamed_to: None,
    ordered: true,
    matcher: true,
    parse,
    doc: &Doc {
        summary: "Answers differently when a response matches.",
        syntax: "intercept [matcher] { @name status|header …  replace_status [@name] <code>  handle_response [@name] { … } }",
        examples: &[
            "intercept {\n\t@down status 5xx\n\thandle_response @down {\n\t\trespond \"was {resp.status_code}\"\n\t}\n}\nrespond 503",
            "intercept {\n\treplace_status 200\n}\nrespond 404",
        ],
        rejected: &[
            ("intercept a", "wrong-argument-count"),
            ("intercept {\n\treplace_status\n}", "wrong-argument-count"),
            ("intercept {\n\treplace_status @no 200\n}", "undefined-matcher"),
            ("intercept {\n\thandle_respons {\n\t}\n}", "unknown-subdirective"),
        ],
        adapt_only: false,
    },
};

pub const HANDLER: HandlerModule = HandlerModule { id: "intercept", compile };

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Config {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    handle_response: Vec<ResponseHandler>,
}

fn parse(cx: &mut DirectiveCx<'_, '_>) -> Parsed<Vec<ConfigValue>> {
    if !cx.args.is_empty() {
        return Err(cx.arg_err(cx.node));
    }
    let node = cx.node;
    let mut responses = Responses::default();
    for line in node.lines() {
        match responses.line(cx, line) {
            Some(done) => done?,
            None => return Err(cx.unknown(line, &["replace_status", "handle_response"])),
        }
    }
    let mut config = Config::default();
    responses.finish(cx, &mut config.handle_response)?;
    Ok(cx.route(types::handler(HANDLER.id, &config)))
}

fn compile(module: &Module, cx: &mut CompileCx<'_>) -> Result<Handler, CompileError> {
    let config: Config = read(module, "handler")?;
    let handlers = handlers::compile(&config.handle_response, cx)?;
    Ok(Handler::Step(Box::new(Intercept(Arc::from(handlers)))))
}

struct Intercept(Arc<[response_handler::ResponseHandler]>);

impl Step for Intercept {
    fn run(&self, ex: &mut Exchange) -> Flow {
        ex.stages.push(Stage::Async(Box::new(Interception(Arc::clone(&self.0)))));
        Flow::Next
    }
}

struct Interception(Arc<[response_handler::ResponseHandler]>);

impl AsyncStage for Interception {
    fn apply(
        self: Box<Self>,
        ex: &mut Exchange,
        mut response: Response,
    ) -> LocalFuture<'_, Result<Response, HandlerError>> {
        Box::pin(async move {
            let Reaction::Routes(routes) = response_handler::react(&self.0, ex, &mut response)? else {
                return Ok(response);
            };
            let (flow, unused) = response_handler::run_over(routes, ex, response).await;
            match (flow, unused) {
                (Flow::Respond(response), _) | (Flow::Next, Some(response)) => Ok(response),
                (Flow::Next, None) => Ok(Response::default()),
                (Flow::Fail(error), _) => Err(error),
                (Flow::Abort, _) => Err(HandlerError::new(499, HANDLER.id, "the connection is closed unanswered")),
            }
        })
    }
}

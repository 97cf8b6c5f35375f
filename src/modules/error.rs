//! `error`: raises an error, as a handler that fails would; `handle_errors` may answer it.
//!
//! `error "no such tenant" 404` has a message (`{err.message}`) and a status (`{err.status_code}`); a single argument of
//! three digits is the status. Without a status it is 500.

use serde::{Deserialize, Serialize};

use crate::config::compile_cx::{CompileCx, CompileError, read};
use crate::config::directive_cx::{ConfigValue, DirectiveCx, Parsed};
use crate::config::registry::{Directive, Doc, HandlerModule};
use crate::config::types::{self, Module};
use crate::config::weak_string::WeakString;
use crate::http::error::HandlerError;
use crate::http::exchange::Exchange;
use crate::http::handler::{Flow, Step};
use crate::http::placeholder::{Template, Unknown};
use crate::http::route::Handler;
use crate::http::status::StatusSource;

pub const DIRECTIVE: Directive = Directive {
    name: "error",
    renamed_to: None,
    ordered: true,
    matcher: true,
    parse,
    doc: &Doc {
        summary: "Raises an error for handle_errors.",
        syntax: "error [matcher] <status>|<message> [<status>] { message <text> }",
        examples: &[
            "error 404",
            "error /private* \"not here\" 403",
            "error 503 {\n\tmessage \"down for the night\"\n}",
        ],
        rejected: &[
            ("error", "wrong-argument-count"),
            ("error a b c", "wrong-argument-count"),
            ("error \"x\" {\n\tmessage \"y\"\n}", "duplicate-option"),
            ("error 404 {\n\tmesage \"y\"\n}", "unknown-subdirective"),
        ],
        adapt_only: false,
    },
};

pub const HANDLER: HandlerModule = HandlerModule { id: "error", compile };

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct StaticError {
    #[serde(skip_serializing_if = "String::is_empty")]
    error: String,
    #[serde(skip_serializing_if = "WeakString::is_empty")]
    status_code: WeakString,
}

fn parse(cx: &mut DirectiveCx<'_, '_>) -> Parsed<Vec<ConfigValue>> {
    let mut out = StaticError::default();
    match cx.args {
        [one] if is_status(one.text()) => out.status_code = one.text().into(),
        [one] => one.text().clone_into(&mut out.error),
        [message, status] => {
            message.text().clone_into(&mut out.error);
            out.status_code = status.text().into();
        }
        _ => return Err(cx.arg_err(cx.node)),
    }
    for line in cx.node.lines() {
        match line.name() {
            "message" if !out.error.is_empty() => return Err(cx.duplicate(line)),
            "message" => cx.one(line)?.text().clone_into(&mut out.error),
            _ => return Err(cx.unknown(line, &["message"])),
        }
    }
    Ok(cx.route(types::handler(HANDLER.id, &out)))
}

fn is_status(word: &str) -> bool {
    word.len() == 3 && word.parse::<i32>().is_ok_and(|n| n > 0)
}

fn compile(module: &Module, _cx: &mut CompileCx<'_>) -> Result<Handler, CompileError> {
    let config: StaticError = read(module, "handler")?;
    let status = StatusSource::parse(config.status_code.as_str())
        .map_err(|why| CompileError::new("invalid-status", why).within("status_code"))?;
    Ok(Handler::Step(Box::new(RaiseError { status, message: Template::parse(&config.error) })))
}

struct RaiseError {
    status: StatusSource,
    message: Template,
}

impl Step for RaiseError {
    fn run(&self, ex: &mut Exchange) -> Flow {
        let status = match self.status.get(ex, HANDLER.id) {
            Ok(status) => status.map_or(500, |s| s.as_u16()),
            Err(error) => return Flow::Fail(error),
        };
        let message = self.message.render(ex, Unknown::Literal).into_owned();
        Flow::Fail(HandlerError::new(status, HANDLER.id, message))
    }
}

#[cfg(test)]
mod tests {
    use crate::http::handler::Flow;
    use crate::modules::testing::{exchange, step};
    use serde_json::json;

    #[test]
    fn raises_status_and_message() {
        let mut ex = exchange("GET", "/");
        let Flow::Fail(error) = step(json!({"handler":"error","error":"boom","status_code":418})).run(&mut ex) else {
            panic!("no error")
        };
        assert_eq!((error.status, &*error.message), (418, "boom"));
        let Flow::Fail(error) = step(json!({"handler":"error"})).run(&mut ex) else { panic!("no error") };
        assert_eq!(error.status, 500);
    }
}

//! `push`: HTTP/2 server push, which no current client accepts. Read and adapted as Caddy does; not run by this version.

use serde::{Deserialize, Serialize};

use crate::config::compile_cx::{CompileCx, CompileError, read};
use crate::config::directive_cx::{ConfigValue, DirectiveCx, Parsed};
use crate::config::registry::{Directive, Doc, HandlerModule};
use crate::config::types::{self, Module};
use crate::http::headers::{DefaultOnRequest, HeaderOps};
use crate::http::route::Handler;

pub const DIRECTIVE: Directive = Directive {
    name: "push",
    renamed_to: None,
    ordered: true,
    matcher: true,
    parse,
    doc: &Doc {
        summary: "HTTP/2 server push.",
        syntax: "push [matcher] [<resource>] { [GET|HEAD] <resource>  headers { <as header> } }",
        examples: &["push", "push / /style.css", "push {\n\tGET /a.css\n\t/b.js\n\theaders {\n\t\tX-A b\n\t}\n}"],
        rejected: &[("push {\n\tGET\n}", "wrong-argument-count"), ("push {\n\theaders x\n}", "wrong-argument-count")],
        adapt_only: true,
    },
};

pub const HANDLER: HandlerModule = HandlerModule { id: "push", compile };

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Push {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    resources: Vec<Resource>,
    #[serde(skip_serializing_if = "Option::is_none")]
    headers: Option<HeaderOps>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Resource {
    #[serde(skip_serializing_if = "String::is_empty")]
    method: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    target: String,
}

fn parse(cx: &mut DirectiveCx<'_, '_>) -> Parsed<Vec<ConfigValue>> {
    let mut out = Push::default();
    let resource = |method: &str, target: &str| Resource { method: method.to_owned(), target: target.to_owned() };
    if let Some((first, rest)) = cx.args.split_first() {
        out.resources.push(resource("", first.text()));
        if let Some(extra) = rest.first() {
            cx.warn_ignored(extra.span);
        }
    }
    for line in cx.node.lines() {
        match (line.name(), line.args.as_slice()) {
            ("headers", []) => {
                for header in line.lines() {
                    let (value, replacement) = match header.args.as_slice() {
                        [] => ("", None),
                        [value] => (value.text(), None),
                        [value, replacement] => (value.text(), Some(replacement.text())),
                        _ => return Err(cx.arg_err(header)),
                    };
                    out.headers
                        .get_or_insert_default()
                        .add_line(header.name(), value, replacement)
                        .map_err(|_| cx.err(header.span(), DefaultOnRequest::CODE, DefaultOnRequest::MESSAGE))?;
                }
            }
            ("GET" | "HEAD", []) | ("headers", _) => return Err(cx.arg_err(line)),
            (method @ ("GET" | "HEAD"), [first, more @ ..]) => {
                out.resources.push(resource(method, first.text()));
                out.resources.extend(more.iter().map(|t| resource("", t.text())));
            }
            (target, more) => {
                out.resources.push(resource("", target));
                out.resources.extend(more.iter().map(|t| resource("", t.text())));
            }
        }
    }
    Ok(cx.route(types::handler(HANDLER.id, &out)))
}

fn compile(module: &Module, _cx: &mut CompileCx<'_>) -> Result<Handler, CompileError> {
    read::<Push>(module, "handler")?;
    Err(CompileError::not_supported("`push`"))
}

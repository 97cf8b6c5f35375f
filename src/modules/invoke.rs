//! `invoke`: runs a named route, which is defined once at the top of the file as `&(name) { … }`.
//!
//! The route is compiled once per server however often it is invoked, where a snippet would be copied.

use serde::{Deserialize, Serialize};

use crate::base::diagnostic::nearest;
use crate::config::compile_cx::{CompileCx, CompileError, read};
use crate::config::directive_cx::{ConfigValue, DirectiveCx, Parsed};
use crate::config::registry::{Directive, Doc, HandlerModule};
use crate::config::types::{self, Module};
use crate::http::route::Handler;

pub const DIRECTIVE: Directive = Directive {
    name: "invoke",
    renamed_to: None,
    ordered: true,
    matcher: true,
    parse,
    doc: &Doc {
        summary: "Runs a named route.",
        syntax: "invoke [matcher] <name>",
        examples: &[],
        rejected: &[("invoke", "wrong-argument-count"), ("invoke nowhere", "undefined-named-route")],
        adapt_only: false,
    },
};

pub const HANDLER: HandlerModule = HandlerModule { id: "invoke", compile };

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Invoke {
    #[serde(skip_serializing_if = "String::is_empty")]
    name: String,
}

fn parse(cx: &mut DirectiveCx<'_, '_>) -> Parsed<Vec<ConfigValue>> {
    let [name] = cx.args else { return Err(cx.arg_err(cx.node)) };
    cx.warn_ignored_block();
    let known = &cx.file.named_routes;
    if !known.iter().any(|n| n == name.text()) {
        let mut d =
            cx.err(name.span, "undefined-named-route", format!("named route `{}` is not defined", name.shown()));
        if let Some(near) = nearest(name.text(), known.iter().map(String::as_str)) {
            d = Box::new(d.help(format!("did you mean `{near}`?")).replace(name.span, near));
        }
        return Err(d);
    }
    // The adapter gives the site's server the route.
    cx.file.invoked.push((name.text().to_owned(), name.span));
    Ok(cx.route(types::handler(HANDLER.id, &Invoke { name: name.text().to_owned() })))
}

fn compile(module: &Module, cx: &mut CompileCx<'_>) -> Result<Handler, CompileError> {
    let config: Invoke = read(module, "handler")?;
    cx.named_route(&config.name).map(Handler::Invoke).ok_or_else(|| {
        CompileError::new("undefined-named-route", format!("named route `{}` is not defined", config.name))
            .within("name")
    })
}

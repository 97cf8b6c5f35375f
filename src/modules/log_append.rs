//! `log_append`: adds a field to the request's entry in the access log.
//!
//! The value is a placeholder, the name of a variable, or a text. It is worked out when the entry is written, or at once
//! when the field is written with `<` before it, as in `log_append <first_path {path}`.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::config::compile_cx::{CompileCx, CompileError, read};
use crate::config::directive_cx::{ConfigValue, DirectiveCx, Parsed};
use crate::config::registry::{Directive, Doc, HandlerModule};
use crate::config::types::{self, Module, is_false};
use crate::http::exchange::{Exchange, LogField};
use crate::http::handler::{Flow, Step};
use crate::http::placeholder::{Template, Unknown};
use crate::http::route::Handler;

pub const DIRECTIVE: Directive = Directive {
    name: "log_append",
    renamed_to: None,
    ordered: true,
    matcher: true,
    parse,
    doc: &Doc {
        summary: "Adds a field to the access log entry.",
        syntax: "log_append [matcher] [<]<field> <value>",
        examples: &["log_append tenant {header.X-Tenant}", "log_append <first_path {path}", "log_append site main"],
        rejected: &[("log_append a", "wrong-argument-count")],
        adapt_only: false,
    },
};

pub const HANDLER: HandlerModule = HandlerModule { id: "log_append", compile };

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct LogAppend {
    #[serde(skip_serializing_if = "String::is_empty")]
    key: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    value: String,
    #[serde(skip_serializing_if = "is_false")]
    early: bool,
}

fn parse(cx: &mut DirectiveCx<'_, '_>) -> Parsed<Vec<ConfigValue>> {
    let [key, value, rest @ ..] = cx.args else { return Err(cx.arg_err(cx.node)) };
    if let Some(extra) = rest.first() {
        cx.warn_ignored(extra.span);
    }
    cx.warn_ignored_block();
    let early = key.text().starts_with('<');
    let key = key.text().strip_prefix('<').unwrap_or(key.text()).to_owned();
    Ok(cx.route(types::handler(HANDLER.id, &LogAppend { key, value: value.text().to_owned(), early })))
}

fn compile(module: &Module, _cx: &mut CompileCx<'_>) -> Result<Handler, CompileError> {
    let config: LogAppend = read(module, "handler")?;
    if matches!(config.value.as_str(), "{http.response.body}" | "{http.response.body_base64}") {
        return Err(CompileError::not_supported("`log_append` with the response body").within("value"));
    }
    let value = if is_placeholder(&config.value) {
        Value::Placeholder(Arc::new(Template::parse(&config.value)))
    } else {
        Value::Variable(config.value.as_str().into())
    };
    // The request body is gone by the time the entry is written.
    let early = config.early || config.value.starts_with("{http.request.body");
    Ok(Handler::Step(Box::new(Append { key: config.key.as_str().into(), value, early })))
}

/// One placeholder and nothing else.
fn is_placeholder(value: &str) -> bool {
    value.starts_with('{') && value.ends_with('}') && value.matches('{').count() == 1
}

struct Append {
    key: Arc<str>,
    value: Value,
    early: bool,
}

enum Value {
    Placeholder(Arc<Template>),
    /// The name of a variable, or a text when no such variable is set.
    Variable(Arc<str>),
}

impl Step for Append {
    fn run(&self, ex: &mut Exchange) -> Flow {
        let field = match (&self.value, self.early) {
            (Value::Placeholder(t), false) => LogField::Deferred(Arc::clone(t)),
            (Value::Placeholder(t), true) => LogField::Text(t.render(ex, Unknown::Empty).into_owned()),
            (Value::Variable(name), false) => LogField::Variable(Arc::clone(name)),
            (Value::Variable(name), true) => LogField::Text(ex.var(name).unwrap_or(name).to_owned()),
        };
        ex.log.fields.push((Arc::clone(&self.key), field));
        Flow::Next
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::modules::testing::{exchange, step};
    use serde_json::json;

    #[test]
    fn early_values_are_settled_at_once() {
        let mut ex = exchange("GET", "/");
        ex.set_var(&Arc::from("tenant"), "acme".into());
        step(json!({"handler":"log_append","key":"k","value":"tenant","early":true})).run(&mut ex);
        step(json!({"handler":"log_append","key":"late","value":"tenant"})).run(&mut ex);
        let fields: Vec<_> = ex.log.fields.iter().map(|(k, v)| (&**k, v)).collect();
        assert!(matches!(&fields[0], ("k", LogField::Text(t)) if t == "acme"));
        assert!(matches!(&fields[1], ("late", LogField::Variable(n)) if &**n == "tenant"));
    }
}

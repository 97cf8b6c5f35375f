//! `vars`: sets variables for the rest of the request, read back as `{vars.NAME}` and by the matchers `vars` and
//! `vars_regexp`.
//!
//! `vars tenant acme`, or a block of such lines. Names and values may hold placeholders. Where several lines set one
//! variable, the line with the most specific matcher wins. Some variables have a meaning of their own: `root` (the folder
//! of `file_server`), `log_skip` and `access_logger_names` (the access log), `http.auth.user.id` (who is shown there).

use std::sync::Arc;

use serde_json::{Map, Value};

use crate::config::compile_cx::{CompileCx, CompileError};
use crate::config::directive_cx::{ConfigValue, DirectiveCx, Parsed};
use crate::config::registry::{Directive, Doc, HandlerModule};
use crate::config::scalar::{scalar, text_of};
use crate::config::types::{self, Module};
use crate::http::exchange::Exchange;
use crate::http::handler::{Flow, Step};
use crate::http::placeholder::{Template, Unknown};
use crate::http::route::Handler;
use crate::syntax::token::Token;

pub const DIRECTIVE: Directive = Directive {
    name: "vars",
    renamed_to: None,
    ordered: true,
    matcher: true,
    parse,
    doc: &Doc {
        summary: "Sets variables.",
        syntax: "vars [matcher] [<name> <value>] { <name> <value> … }",
        examples: &["vars tenant acme", "vars /beta/* tier beta", "vars {\n\ttenant acme\n\tseats 5\n}"],
        rejected: &[
            ("vars tenant", "wrong-argument-count"),
            ("vars a b c", "wrong-argument-count"),
            ("vars {\n\ta\n}", "wrong-argument-count"),
            ("vars a inf", "invalid-number"),
        ],
        adapt_only: false,
    },
};

pub const HANDLER: HandlerModule = HandlerModule { id: "vars", compile };

fn parse(cx: &mut DirectiveCx<'_, '_>) -> Parsed<Vec<ConfigValue>> {
    let mut out = Map::new();
    match cx.args {
        [] => {}
        [name, value] => set(cx, &mut out, name, value)?,
        _ => return Err(cx.arg_err(cx.node)),
    }
    for line in cx.node.lines() {
        let value = cx.one(line)?;
        set(cx, &mut out, &line.name, value)?;
    }
    Ok(cx.route(types::handler(HANDLER.id, &out)))
}

fn set(cx: &DirectiveCx<'_, '_>, out: &mut Map<String, Value>, name: &Token, value: &Token) -> Parsed<()> {
    let Some(value) = scalar(value) else {
        let d = cx.err(value.span, "invalid-number", "not a number that JSON can hold");
        return Err(Box::new(d.help("quote it to set a text")));
    };
    out.insert(name.text().to_owned(), value);
    Ok(())
}

#[allow(clippy::unnecessary_wraps)] // the registry's signature
fn compile(module: &Module, _cx: &mut CompileCx<'_>) -> Result<Handler, CompileError> {
    let mut out = Vars::default();
    for (name, value) in module.iter().filter(|(name, _)| *name != "handler") {
        match (name.as_str(), value) {
            ("log_skip", Value::Bool(skip)) => out.log_skip = *skip,
            ("access_logger_names", Value::Array(names)) => {
                out.loggers = names.iter().filter_map(Value::as_str).map(str::to_owned).collect();
            }
            ("access_logger_names", Value::Null) => {}
            _ => out.assignments.push(Assignment::compile(name, value)),
        }
    }
    Ok(Handler::Step(Box::new(out)))
}

#[derive(Default)]
struct Vars {
    assignments: Vec<Assignment>,
    log_skip: bool,
    loggers: Vec<String>,
}

struct Assignment {
    /// The name as written, used when it holds no placeholder.
    name: Arc<str>,
    rendered_name: Option<Template>,
    value: AssignedValue,
}

enum AssignedValue {
    Fixed(String),
    Rendered(Template),
}

impl Assignment {
    fn compile(name: &str, value: &Value) -> Self {
        let name_template = Template::parse(name);
        let rendered_name = name_template.as_static().is_none().then_some(name_template);
        let value = match value {
            Value::String(text) => {
                let template = Template::parse(text);
                match template.as_static() {
                    Some(fixed) => AssignedValue::Fixed(fixed.to_owned()),
                    None => AssignedValue::Rendered(template),
                }
            }
            other => AssignedValue::Fixed(text_of(other)),
        };
        Self { name: name.into(), rendered_name, value }
    }
}

impl Step for Vars {
    fn run(&self, ex: &mut Exchange) -> Flow {
        for Assignment { name, rendered_name, value } in &self.assignments {
            let name = match rendered_name {
                Some(template) => Arc::from(&*template.render(ex, Unknown::Empty)),
                None => Arc::clone(name),
            };
            let value = match value {
                AssignedValue::Fixed(text) => text.clone(),
                AssignedValue::Rendered(template) => template.render(ex, Unknown::Empty).into_owned(),
            };
            if &*name == "http.auth.user.id" {
                ex.user.get_or_insert_default().id.clone_from(&value);
            }
            ex.set_var(&name, value);
        }
        ex.log.skip |= self.log_skip;
        if !self.loggers.is_empty() {
            ex.log.loggers.clone_from(&self.loggers);
        }
        Flow::Next
    }
}

#[cfg(test)]
mod tests {
    use crate::http::handler::Flow;
    use crate::modules::testing::{exchange, step};
    use serde_json::json;

    #[test]
    fn the_latest_value_of_a_name_wins() {
        let mut ex = exchange("GET", "/");
        for value in [json!("v1"), json!(2)] {
            assert!(matches!(step(json!({"handler":"vars","k":value})).run(&mut ex), Flow::Next));
        }
        assert_eq!(ex.var("k"), Some("2"));
    }

    #[test]
    fn some_names_speak_to_the_access_log() {
        let mut ex = exchange("GET", "/");
        step(json!({"handler":"vars","log_skip":true,"access_logger_names":["a","b"],"http.auth.user.id":"bob"}))
            .run(&mut ex);
        assert!(ex.log.skip);
        assert_eq!(ex.log.loggers, ["a", "b"]);
        assert_eq!(ex.user.map(|u| u.id).as_deref(), Some("bob"));
    }
}

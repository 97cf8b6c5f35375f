//! `map`: placeholders that follow from the value of another.
//!
//! ```text
//! map {header.X-Tier} {upstream} {limit} {
//!     gold      10.0.0.1:8000  100
//!     ~^beta-   10.0.0.2:8000  -
//!     default   10.0.0.3:8000  10
//! }
//! ```
//!
//! The first line whose input fits gives the outputs, one per destination; `~` makes the input a regular expression, whose
//! captures the outputs may use as `${1}`. `-` or a missing output leaves it to the lines that follow and at last to
//! `default`. The value is worked out when it is used, from the request as it is then.

use std::sync::Arc;

use regex::Regex;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::config::compile_cx::{CompileCx, CompileError, read};
use crate::config::directive_cx::{ConfigValue, DirectiveCx, Parsed};
use crate::config::registry::{Directive, Doc, HandlerModule};
use crate::config::scalar::{scalar, text_of};
use crate::config::types::{self, Module};
use crate::http::exchange::{Exchange, Lookup};
use crate::http::handler::{Flow, Step};
use crate::http::placeholder::{Template, Unknown};
use crate::http::route::Handler;
use crate::syntax::tree::Node;

pub const DIRECTIVE: Directive = Directive {
    name: "map",
    renamed_to: None,
    ordered: true,
    matcher: true,
    parse,
    doc: &Doc {
        summary: "Sets placeholders from the value of another.",
        syntax: "map [matcher] <source> <destinations…> { [~]<input> <outputs…>  default <outputs…> }",
        examples: &[
            "map {path} {backend} {\n\t/a 10.0.0.1:80\n\tdefault 10.0.0.2:80\n}\nrespond {backend}",
            "map {host} {name} {kind} {\n\t~^(.*)\\.example\\.com$ ${1} sub\n\texample.com main -\n\tdefault other none\n}",
        ],
        rejected: &[
            ("map", "wrong-argument-count"),
            ("map {path}", "wrong-argument-count"),
            ("map {path} {a} {\n\t/x 1 2\n}", "too-many-outputs"),
            ("map {path} {a} {\n\tdefault x\n\tdefault y\n}", "duplicate-option"),
            ("map {path} a {\n\t/x 1\n}", "placeholder-required"),
            ("map {path} {a} {\n\t/x 1\n\t/x 2\n}", "duplicate-input"),
            ("map {path} {a} {\n\t/x {a}\n}", "endless-map"),
        ],
        adapt_only: false,
    },
};

pub const HANDLER: HandlerModule = HandlerModule { id: "map", compile };

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct MapConfig {
    #[serde(skip_serializing_if = "String::is_empty")]
    source: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    destinations: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    mappings: Vec<Mapping>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    defaults: Vec<String>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Mapping {
    #[serde(skip_serializing_if = "String::is_empty")]
    input: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    input_regexp: String,
    /// Null = none from this line.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    outputs: Vec<Value>,
}

fn parse(cx: &mut DirectiveCx<'_, '_>) -> Parsed<Vec<ConfigValue>> {
    let Some((source, destinations)) = cx.args.split_first().filter(|(_, d)| !d.is_empty()) else {
        return Err(cx.arg_err(cx.node));
    };
    let mut out = MapConfig {
        source: source.text().to_owned(),
        destinations: destinations.iter().map(|t| t.text().to_owned()).collect(),
        ..MapConfig::default()
    };
    for line in cx.node.lines() {
        if line.name() == "default" {
            if !out.defaults.is_empty() {
                return Err(cx.duplicate(line));
            }
            out.defaults = line.args.iter().map(|t| t.text().to_owned()).collect();
            let wanted = out.destinations.len().max(out.defaults.len());
            out.defaults.resize(wanted, String::new());
        } else {
            let mapping = parse_line(cx, line, out.destinations.len())?;
            out.mappings.push(mapping);
        }
    }
    Ok(cx.route(types::handler(HANDLER.id, &out)))
}

fn parse_line(cx: &DirectiveCx<'_, '_>, line: &Node, destinations: usize) -> Parsed<Mapping> {
    if let Some(extra) = line.args.get(destinations) {
        return Err(cx.err(extra.span, "too-many-outputs", "there are more outputs than destinations"));
    }
    let mut outputs = Vec::with_capacity(destinations);
    for token in &line.args {
        outputs.push(match token.text() {
            "-" => Value::Null,
            _ => {
                scalar(token).ok_or_else(|| cx.err(token.span, "invalid-number", "not a number that JSON can hold"))?
            }
        });
    }
    outputs.resize(destinations, Value::Null);
    Ok(match line.name().strip_prefix('~') {
        Some(pattern) => Mapping { input_regexp: pattern.to_owned(), outputs, ..Mapping::default() },
        None => Mapping { input: line.name().to_owned(), outputs, ..Mapping::default() },
    })
}

fn compile(module: &Module, _cx: &mut CompileCx<'_>) -> Result<Handler, CompileError> {
    let config: MapConfig = read(module, "handler")?;
    let destinations = destinations(&config)?;
    if !config.defaults.is_empty() && config.defaults.len() != destinations.len() {
        let e = CompileError::new("wrong-output-count", "there must be one default for each destination");
        return Err(e.within("defaults"));
    }
    let mut rows = Vec::with_capacity(config.mappings.len());
    let mut seen = std::collections::HashSet::new();
    for (i, mapping) in config.mappings.iter().enumerate() {
        let row = row(mapping, &destinations).map_err(|e| e.within(i).within("mappings"))?;
        let input = if mapping.input_regexp.is_empty() { &mapping.input } else { &mapping.input_regexp };
        if !seen.insert(input) {
            let e = CompileError::new("duplicate-input", format!("input `{input}` stands in this map already"));
            return Err(e.within(i).within("mappings"));
        }
        rows.push(row);
    }
    let defaults = config.defaults.iter().map(|d| Template::parse(d)).collect();
    let table = Table { source: Template::parse(&config.source), destinations, rows, defaults };
    Ok(Handler::Step(Box::new(MapStep(Arc::new(table)))))
}

/// Their names without braces.
fn destinations(config: &MapConfig) -> Result<Vec<Box<str>>, CompileError> {
    let name = |(i, text): (usize, &String)| {
        let name = text.strip_prefix('{').and_then(|t| t.strip_suffix('}')).filter(|t| !t.contains(['{', '}']));
        name.map(Box::from).ok_or_else(|| {
            CompileError::new("placeholder-required", format!("destination `{text}` must be one placeholder"))
                .help(format!("write `{{{}}}`", text.trim_matches(['{', '}'])))
                .within(i)
                .within("destinations")
        })
    };
    config.destinations.iter().enumerate().map(name).collect()
}

fn row(mapping: &Mapping, destinations: &[Box<str>]) -> Result<Row, CompileError> {
    let input = match (mapping.input.is_empty(), mapping.input_regexp.as_str()) {
        (_, "") => Input::Exact(mapping.input.as_str().into()),
        (true, pattern) => Input::Pattern(
            crate::http::regexp::compile(pattern)
                .map_err(|e| CompileError::new("invalid-regexp", e.to_string()).within("input_regexp"))?,
        ),
        (false, _) => {
            return Err(CompileError::new("duplicate-input", "a mapping has either `input` or `input_regexp`"));
        }
    };
    if mapping.outputs.len() != destinations.len() {
        let e = CompileError::new("wrong-output-count", "there must be one output for each destination");
        return Err(e.within("outputs"));
    }
    let outputs: Vec<Option<Template>> =
        mapping.outputs.iter().map(|output| (!output.is_null()).then(|| Template::parse(&text_of(output)))).collect();
    let own = |text: &str| destinations.iter().find(|d| text.contains(&format!("{{{d}}}")));
    if let Some(name) = outputs.iter().flatten().find_map(|t| own(t.source())).or_else(|| own(&mapping.input)) {
        let e = CompileError::new("endless-map", format!("the value of `{{{name}}}` would need itself"));
        return Err(e.within("outputs"));
    }
    Ok(Row { input, outputs })
}

struct MapStep(Arc<Table>);

struct Table {
    source: Template,
    destinations: Vec<Box<str>>,
    rows: Vec<Row>,
    /// One per destination, or none.
    defaults: Vec<Template>,
}

struct Row {
    input: Input,
    outputs: Vec<Option<Template>>,
}

enum Input {
    Exact(Box<str>),
    Pattern(Regex),
}

impl Step for MapStep {
    fn run(&self, ex: &mut Exchange) -> Flow {
        ex.lookups.push(Arc::clone(&self.0) as Arc<dyn Lookup>);
        Flow::Next
    }
}

impl Lookup for Table {
    fn lookup(&self, name: &str, ex: &Exchange) -> Option<String> {
        let index = self.destinations.iter().position(|d| **d == *name)?;
        let input = self.source.render(ex, Unknown::Empty);
        for row in &self.rows {
            let Some(output) = &row.outputs[index] else { continue };
            match &row.input {
                Input::Exact(text) if **text == *input => return Some(output.render(ex, Unknown::Empty).into_owned()),
                Input::Exact(_) => {}
                Input::Pattern(pattern) => {
                    if let Some(captures) = pattern.captures(&input) {
                        let mut value = String::new();
                        // What a client sent is in the captures: placeholders in it stay text.
                        captures.expand(output.source(), &mut value);
                        return Some(value);
                    }
                }
            }
        }
        Some(self.defaults.get(index).map(|d| d.render(ex, Unknown::Empty).into_owned()).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::modules::testing::{compile, exchange, step};
    use serde_json::json;

    fn show(config: Value, target: &str, text: &str) -> String {
        let mut ex = exchange("GET", target);
        assert!(matches!(step(config).run(&mut ex), Flow::Next));
        Template::parse(text).render(&ex, Unknown::Literal).into_owned()
    }

    fn table() -> Value {
        json!({"handler":"map","source":"{http.request.uri.path}","destinations":["{be}","{st}"],"mappings":[
            {"input":"/x","outputs":["one",201]},
            {"input_regexp":"^/y(.*)$","outputs":["${1}-y",null]},
            {"input":"/m","outputs":["{http.request.method}", null]},
        ],"defaults":["d","404"]})
    }

    #[test]
    fn first_fitting_line_else_default() {
        assert_eq!(show(table(), "/x", "{be} {st}"), "one 201");
        assert_eq!(show(table(), "/yab", "{be} {st}"), "ab-y 404");
        assert_eq!(show(table(), "/m", "{be}"), "GET");
        assert_eq!(show(table(), "/", "{be} {st} {other}"), "d 404 {other}");
    }

    #[test]
    fn worked_out_from_the_request_as_it_is_when_used() {
        let mut ex = exchange("GET", "/x");
        step(table()).run(&mut ex);
        ex.uri = http::Uri::from_static("/later");
        assert_eq!(Template::parse("{be}").render(&ex, Unknown::Literal), "d");
    }

    #[test]
    fn maps_that_need_each_other_end() {
        let mut ex = exchange("GET", "/");
        for (source, destination) in [("{a}", "{b}"), ("{b}", "{a}")] {
            step(json!({"handler":"map","source":source,"destinations":[destination],"defaults":["x"]})).run(&mut ex);
        }
        assert_eq!(Template::parse("{a}").render(&ex, Unknown::Literal), "x");
    }

    #[test]
    fn what_cannot_work_is_refused() {
        let code = |v: Value| compile(v).err().unwrap().code;
        let with = |mapping: Value| json!({"handler":"map","source":"{x}","destinations":["{a}"],"mappings":[mapping]});
        assert_eq!(code(with(json!({"input":"1","outputs":["{a}"]}))), "endless-map");
        assert_eq!(code(with(json!({"input":"1","outputs":[1, 2]}))), "wrong-output-count");
        assert_eq!(code(with(json!({"input_regexp":"(","outputs":[1]}))), "invalid-regexp");
        assert_eq!(code(json!({"handler":"map","destinations":["a"]})), "placeholder-required");
    }
}

//! From JSON pointers back into the file: handlers carry the place of their line while the config is built, and leave
//! it in a side table at the end.
//!
//! The place travels inside the handler object because features nest routes in their own JSON in ways that only they
//! know; nothing else would follow a handler through sorting, merging and nesting.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::base::span::{FileId, Span};
use crate::config::types::{Config, Module, Route};

/// Key of the mark in a handler object; no real field begins with NUL.
const MARK: &str = "\0span";

/// Marks a handler with its place unless an inner line has marked it already.
pub fn mark(module: &mut Module, span: Span) {
    if !module.contains_key(MARK) {
        module.insert(MARK.to_owned(), Value::from(vec![span.file.0, span.start, span.end]));
    }
}

/// Takes all marks out of a finished config. A route's place is that of its first handler.
pub fn take(config: &mut Config) -> BTreeMap<String, Span> {
    let mut table = Table { pointer: String::new(), spans: BTreeMap::new() };
    let servers = config.apps.http.as_mut().map(|http| &mut http.servers).into_iter().flatten();
    for (name, server) in servers {
        table.pointer = format!("/apps/http/servers/{}", escape(name));
        table.at("routes", |t| t.routes(&mut server.routes));
        if let Some(errors) = &mut server.errors {
            table.at("errors", |t| t.at("routes", |t| t.routes(&mut errors.routes)));
        }
        table.at("named_routes", |t| {
            for (name, route) in &mut server.named_routes {
                t.at(&escape(name), |t| t.route(route));
            }
        });
    }
    table.spans
}

/// The place of the nearest enclosing thing that has one.
#[must_use]
pub fn nearest(spans: &BTreeMap<String, Span>, pointer: &str) -> Option<Span> {
    let mut pointer = pointer;
    loop {
        if let Some(span) = spans.get(pointer) {
            return Some(*span);
        }
        pointer = &pointer[..pointer.rfind('/')?];
    }
}

struct Table {
    pointer: String,
    spans: BTreeMap<String, Span>,
}

impl Table {
    fn at(&mut self, step: &str, f: impl FnOnce(&mut Self)) {
        let length = self.pointer.len();
        self.pointer.push('/');
        self.pointer.push_str(step);
        f(self);
        self.pointer.truncate(length);
    }

    fn routes(&mut self, routes: &mut [Route]) {
        for (i, route) in routes.iter_mut().enumerate() {
            self.at(&i.to_string(), |t| t.route(route));
        }
    }

    fn route(&mut self, route: &mut Route) {
        self.at("handle", |t| {
            for (i, module) in route.handlers.iter_mut().enumerate() {
                t.at(&i.to_string(), |t| t.object(module));
            }
        });
        self.adopt_first_handler();
    }

    /// In an object of the shape of a route, handlers lie under `handle`.
    fn adopt_first_handler(&mut self) {
        if let Some(span) = self.spans.get(&format!("{}/handle/0", self.pointer)).copied() {
            self.spans.insert(self.pointer.clone(), span);
        }
    }

    fn object(&mut self, object: &mut Module) {
        if let Some(span) = object.remove(MARK).as_ref().and_then(read_mark) {
            self.spans.insert(self.pointer.clone(), span);
        }
        for (key, value) in object.iter_mut() {
            if value.is_object() || value.is_array() {
                self.at(&escape(key), |t| t.value(value));
            }
        }
        if object.contains_key("handle") {
            self.adopt_first_handler();
        }
    }

    fn value(&mut self, value: &mut Value) {
        match value {
            Value::Object(object) => self.object(object),
            Value::Array(items) => {
                for (i, item) in items.iter_mut().enumerate() {
                    if item.is_object() || item.is_array() {
                        self.at(&i.to_string(), |t| t.value(item));
                    }
                }
            }
            _ => {}
        }
    }
}

fn read_mark(value: &Value) -> Option<Span> {
    let number = |i: usize| value.get(i)?.as_u64().and_then(|n| u32::try_from(n).ok());
    Some(Span { file: FileId(number(0)?), start: number(1)?, end: number(2)? })
}

/// A step of a JSON pointer.
#[must_use]
pub fn escape(step: &str) -> String {
    step.replace('~', "~0").replace('/', "~1")
}

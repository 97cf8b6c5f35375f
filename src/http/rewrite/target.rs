//! The target of a rewrite: a text with a path, a query, or both, each with placeholders.

use super::{Parts, decode_path, escape_path, query_escape};
use crate::http::exchange::Exchange;
use crate::http::path::escaped_path;
use crate::http::placeholder::{Key, Template, Unknown, UriPart};

/// Only the parts that the text has are changed. A fragment is never sent, so it is not kept.
pub(super) struct Target {
    path: Option<Template>,
    /// `None` when the text has no question mark; empty when it ends in one (which clears the query).
    query: Option<QueryText>,
}

/// Components of a query, alternating key and value as its `=` and `&` say.
struct QueryText(Vec<Component>);

struct Component {
    text: Template,
    /// Stands after a `=`.
    value: bool,
}

impl Target {
    pub(super) fn compile(text: &str) -> Self {
        let text = text.split('#').next().unwrap_or("");
        let (path, query) = match text.split_once('?') {
            Some((path, query)) => (path, Some(QueryText::compile(query))),
            None => (text, None),
        };
        Self { path: (!path.is_empty()).then(|| Template::parse(path)), query }
    }

    pub(super) fn apply(&self, ex: &Exchange, parts: &mut Parts<'_>) {
        // All parts read the request as it was.
        let mut injected = None;
        let path = self.path.as_ref().map(|template| {
            let rendered = render_path(template, ex);
            let rendered = rendered.split('#').next().unwrap_or("");
            let path = match rendered.split_once('?') {
                Some((path, query)) => {
                    injected = Some(query.to_owned());
                    path
                }
                None => rendered,
            };
            escape_path(&decode_path(path))
        });
        let query = match (&self.query, injected) {
            (Some(query), _) if !query.0.is_empty() => Some(query.render(ex)),
            // The value of a placeholder in the path brought a query along (`{uri}`).
            (_, Some(query)) => Some(QueryText::rejoin(&query)),
            (Some(_), None) => Some(String::new()),
            (None, None) => None,
        };
        if let Some(path) = path {
            parts.path = path.into();
        }
        if let Some(query) = query {
            parts.query = query.into();
        }
    }
}

/// Path-valued placeholders keep their escapes, as the rendered text is decoded once.
fn render_path(template: &Template, ex: &Exchange) -> String {
    template.render_each(ex.into(), Unknown::Empty, |key, value, out| match key {
        Key::Uri(UriPart::Path) => out.push_str(&escaped_path(ex.uri.path())),
        Key::Other(name) if &**name == "http.matchers.file.relative" => out.push_str(&escape_path(&value)),
        _ => out.push_str(&value),
    })
}

impl QueryText {
    fn compile(query: &str) -> Self {
        Self(components(query).map(|(text, value)| Component { text: Template::parse(text), value }).collect())
    }

    fn render(&self, ex: &Exchange) -> String {
        let mut out = String::new();
        for Component { text, value } in &self.0 {
            let rendered = text.render_each(ex.into(), Unknown::Empty, |key, val, out| match key {
                // A whole query is escaped already.
                Key::Uri(UriPart::Query) if !value => out.push_str(&val),
                _ => out.push_str(&query_escape(&val)),
            });
            push(&mut out, &rendered, *value);
        }
        out
    }

    /// A query that came with a placeholder's value: braces in it are the client's and stay text.
    fn rejoin(query: &str) -> String {
        let query = query.replace('{', "%7B").replace('}', "%7D");
        let mut out = String::new();
        for (text, value) in components(&query) {
            push(&mut out, text, value);
        }
        out
    }
}

/// Empty keys vanish with their `&`.
fn push(out: &mut String, component: &str, value: bool) {
    if value {
        out.push('=');
    } else if !out.is_empty() && !component.is_empty() {
        out.push('&');
    }
    out.push_str(component);
}

/// Keys and values with whether they are values; further `=` belong to the value.
fn components(query: &str) -> impl Iterator<Item = (&str, bool)> {
    query
        .split('&')
        .flat_map(|pair| match pair.split_once('=') {
            Some((key, value)) => [Some((key, false)), Some((value, true))],
            None => [Some((pair, false)), None],
        })
        .flatten()
        .filter(|(text, value)| *value || !text.is_empty())
}

//! `host NAME…`: the request's host (without port, whatever its case) is one of the names.
//!
//! `*` as a whole label matches one label. Names beyond ASCII match their `xn--` form. Several lines are one list.

use std::collections::HashSet;

use serde_json::Value;

use crate::config::compile_cx::{CompileCx, CompileError, read_value};
use crate::config::directive_cx::{DirectiveCx, Parsed};
use crate::config::registry::MatcherModule;
use crate::http::exchange::Exchange;
use crate::http::host;
use crate::http::matcher::{Matcher, Verdict};
use crate::http::placeholder::{Template, Unknown};
use crate::syntax::tree::Node;

pub const MATCHER: MatcherModule = MatcherModule { id: "host", parse, compile };

/// Lists up to this length are compared one by one, which is faster than hashing.
const SHORT_LIST: usize = 8;

fn parse(lines: &[&Node], cx: &mut DirectiveCx<'_, '_>) -> Parsed<Value> {
    cx.word_list(lines)
}

fn compile(value: &Value, _: &mut CompileCx<'_>) -> Result<Box<dyn Matcher>, CompileError> {
    let names: Option<Vec<String>> = read_value(value)?;
    let mut seen = HashSet::new();
    let mut matcher = MatchHost::default();
    for name in names.iter().flatten() {
        let ascii = host::to_ascii(name).to_ascii_lowercase();
        if !seen.insert(ascii.clone()) {
            return Err(CompileError::new("duplicate-host", format!("host `{name}` is listed twice")));
        }
        let template = Template::parse(&ascii);
        match template.as_static() {
            None => matcher.rendered.push(template),
            Some(fixed) if fixed.contains('*') => matcher.wildcards.push(fixed.into()),
            Some(fixed) => matcher.exact.push(fixed.into()),
        }
    }
    if matcher.exact.len() > SHORT_LIST {
        matcher.set = matcher.exact.drain(..).collect();
    }
    Ok(Box::new(matcher))
}

#[derive(Default)]
struct MatchHost {
    exact: Vec<Box<str>>,
    /// Exact names of a long list, in lower case.
    set: HashSet<Box<str>>,
    wildcards: Vec<Box<str>>,
    rendered: Vec<Template>,
}

impl Matcher for MatchHost {
    fn matches(&self, ex: &mut Exchange) -> Verdict {
        let ex = &*ex;
        let host = ex.host();
        let found = self.exact.iter().any(|name| name.eq_ignore_ascii_case(host))
            || self.set_holds(host)
            || self.wildcards.iter().any(|pattern| wildcard_matches(pattern, host))
            || self.rendered.iter().any(|template| {
                let name = template.render(ex, Unknown::Empty);
                wildcard_matches(&name, host)
            });
        found.into()
    }
}

impl MatchHost {
    fn set_holds(&self, host: &str) -> bool {
        if self.set.is_empty() {
            false
        } else if host.bytes().any(|b| b.is_ascii_uppercase()) {
            self.set.contains(host.to_ascii_lowercase().as_str())
        } else {
            self.set.contains(host)
        }
    }
}

fn wildcard_matches(pattern: &str, host: &str) -> bool {
    let mut wanted = pattern.split('.');
    let mut labels = host.split('.');
    loop {
        match (wanted.next(), labels.next()) {
            (None, None) => return true,
            (Some("*"), Some(_)) => {}
            (Some(w), Some(l)) if w.eq_ignore_ascii_case(l) => {}
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::modules::testing::{compile_matcher, exchange, matches};
    use serde_json::{Value, json};

    fn host(names: Value, host: &str) -> bool {
        let mut ex = exchange("GET", "/");
        ex.headers.insert("host", host.parse().unwrap());
        matches("host", names, &mut ex)
    }

    #[test]
    fn names_and_wildcards() {
        assert!(host(json!(["a.test"]), "A.TEST:99") && !host(json!(["a.test"]), "b.test"));
        assert!(host(json!(["*.site"]), "b.site") && !host(json!(["*.site"]), "x.y.site"));
        assert!(host(json!(["münchen.de"]), "xn--mnchen-3ya.de"));
        assert!(host(json!(["::1"]), "[::1]:80") && host(json!(["{http.request.header.host}x", "::1"]), "[::1]"));
        assert!(!host(json!(null), "a.test") && !host(json!([]), "a.test"));
    }

    #[test]
    fn long_lists_and_repeats() {
        let names: Vec<String> = (0..200).map(|i| format!("H{i}.test")).collect();
        assert!(host(json!(names), "h150.TEST") && !host(json!(names), "h200.test"));
        let twice = compile_matcher("host", json!(["a.test", "A.test"]));
        assert_eq!(twice.err().unwrap().code, "duplicate-host");
    }
}

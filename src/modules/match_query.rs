//! `query KEY=VALUE…`: the query has the keys with one of their values.
//!
//! `*` means any value, nothing after `=` an empty one. The same key given twice is an alternative; different keys must
//! all match. A malformed query matches nothing. Without keys: the query is empty.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::config::compile_cx::{CompileCx, CompileError, read_value};
use crate::config::directive_cx::{DirectiveCx, Parsed};
use crate::config::registry::MatcherModule;
use crate::http::exchange::Exchange;
use crate::http::matcher::{Matcher, Verdict};
use crate::http::path::{self, query_pairs};
use crate::http::placeholder::{Template, Unknown};
use crate::syntax::tree::Node;

pub const MATCHER: MatcherModule = MatcherModule { id: "query", parse, compile };

fn parse(lines: &[&Node], cx: &mut DirectiveCx<'_, '_>) -> Parsed<Value> {
    let mut out: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for line in lines {
        for arg in line.args.iter().filter(|a| !a.text().is_empty()) {
            let Some((key, value)) = arg.text().split_once('=') else {
                let message = format!("`{}` is not of the form `key=value`", arg.shown());
                return Err(cx.err(arg.span, "malformed-matcher", message));
            };
            out.entry(key.to_owned()).or_default().push(value.to_owned());
        }
        cx.no_lines(line)?;
    }
    Ok(serde_json::to_value(out).unwrap_or_default())
}

fn compile(value: &Value, _: &mut CompileCx<'_>) -> Result<Box<dyn Matcher>, CompileError> {
    let keys: Option<BTreeMap<String, Option<Vec<String>>>> = read_value(value)?;
    let keys = keys.unwrap_or_default().into_iter().map(|(key, values)| {
        let values = values.unwrap_or_default().iter().map(|v| Template::parse(v)).collect();
        (Template::parse(&key), values)
    });
    Ok(Box::new(MatchQuery { keys: keys.collect() }))
}

struct MatchQuery {
    keys: Box<[(Template, Box<[Template]>)]>,
}

impl Matcher for MatchQuery {
    fn matches(&self, ex: &mut Exchange) -> Verdict {
        let ex = &*ex;
        let raw = ex.uri.query().unwrap_or("");
        if self.keys.is_empty() {
            return query_pairs(raw).next().is_none().into();
        }
        // Parsers disagree about what a malformed query means, so it must not pass for a good one.
        if raw.contains(';') || !path::is_valid_escaped(raw) {
            return Verdict::No;
        }
        let all = self.keys.iter().all(|(key, wanted)| {
            let key = key.render(ex, Unknown::Empty);
            query_pairs(raw).filter(|(k, _)| *k == key).any(|(_, value)| {
                wanted.iter().any(|w| {
                    let w = w.render(ex, Unknown::Empty);
                    w == "*" || w == value
                })
            })
        });
        all.into()
    }
}

#[cfg(test)]
mod tests {
    use crate::modules::testing::{exchange, matches};
    use serde_json::{Value, json};

    fn query(keys: Value, target: &str) -> bool {
        matches("query", keys, &mut exchange("GET", target))
    }

    #[test]
    fn keys_are_all_needed_and_values_alternatives() {
        assert!(query(json!({"stream": ["true"]}), "/?stream=true") && !query(json!({"k": ["*"]}), "/?z=1"));
        assert!(query(json!({"k": ["*"]}), "/?k") && query(json!({"k": [""]}), "/?k="));
        assert!(query(json!({"a": ["b", "d"], "c": ["x y"]}), "/?c=x+y&a=z&a=d"));
        assert!(!query(json!({"a": ["b"], "c": ["*"]}), "/?a=b"));
        assert!(query(json!({"m": ["{http.request.method}"]}), "/?m=GET"));
    }

    #[test]
    fn malformed_queries_match_nothing_and_no_keys_mean_no_query() {
        assert!(!query(json!({"a": ["*"]}), "/?a=1&b=%zz") && !query(json!({"a": ["*"]}), "/?a=1;b=2&a=3"));
        assert!(query(json!({}), "/?") && query(json!({}), "/?;") && !query(json!({}), "/?a"));
    }
}

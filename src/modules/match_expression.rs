//! `expression CEL`, or a quoted expression as a named matcher: a condition in the Common Expression Language.
//!
//! Adapted only, except for one shape: the conditions on the error's status that `handle_errors 404 5xx` itself is
//! adapted to. Those run.

use std::ops::RangeInclusive;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::config::compile_cx::{CompileCx, CompileError, read_value};
use crate::config::directive_cx::{DirectiveCx, Parsed};
use crate::config::registry::MatcherModule;
use crate::http::exchange::Exchange;
use crate::http::matcher::{Matcher, Verdict};
use crate::syntax::token::{Quote, Token};
use crate::syntax::tree::Node;

pub const MATCHER: MatcherModule = MatcherModule { id: "expression", parse, compile };

fn parse(lines: &[&Node], cx: &mut DirectiveCx<'_, '_>) -> Parsed<Value> {
    let [line, others @ ..] = lines else { return Ok(Value::Null) };
    // Caddy reads the first line only.
    for other in others {
        cx.warn_ignored(other.span());
    }
    Ok(match line.args.as_slice() {
        [] => return Err(cx.arg_err(line)),
        // One word: its quotes are those of the Proxyfile. The matcher's name is for regular expressions inside.
        [one] if cx.matcher_name.is_empty() => Value::String(one.text().to_owned()),
        [one] => json!({"expr": one.text(), "name": cx.matcher_name}),
        // Several words: their quotes belong to the expression.
        words => Value::String(words.iter().map(raw).collect::<Vec<_>>().join(" ")),
    })
}

fn raw(word: &Token) -> String {
    let quote = match word.quote {
        Quote::None => "",
        Quote::Double => "\"",
        Quote::Backtick => "`",
        Quote::Heredoc => "<",
    };
    format!("{quote}{}{quote}", word.text())
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Config {
    Text(String),
    Named(Named),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Named {
    expr: String,
    #[serde(default, rename = "name")]
    _name: String,
}

fn compile(value: &Value, _: &mut CompileCx<'_>) -> Result<Box<dyn Matcher>, CompileError> {
    let expression = match read_value(value)? {
        Config::Text(text) => text,
        Config::Named(named) => named.expr,
    };
    match error_statuses(&expression) {
        Some(statuses) => Ok(Box::new(MatchErrorStatus { statuses })),
        None => Err(CompileError::not_supported("the matcher `expression`")
            .help("write the condition with other matchers (`path`, `header`, `method`, `vars`, `not`, …)")),
    }
}

/// Reads what `handle_errors` writes: `{http.error.status_code} in [404, 410]` and
/// `{http.error.status_code} >= 500 && {http.error.status_code} <= 599`, joined by ` || `. Such text comes back in JSON
/// made by Caddy's adapter too, which is why it is recognised here and not passed by another way.
fn error_statuses(expression: &str) -> Option<Box<[RangeInclusive<u16>]>> {
    const STATUS: &str = "{http.error.status_code} ";
    let mut out = Vec::new();
    for part in expression.split(" || ") {
        let condition = part.strip_prefix(STATUS)?;
        if let Some(list) = condition.strip_prefix("in [").and_then(|c| c.strip_suffix(']')) {
            for code in list.split(", ") {
                let code: u16 = code.parse().ok()?;
                out.push(code..=code);
            }
        } else {
            let (low, high) = condition.strip_prefix(">= ")?.split_once(" && ")?;
            let high = high.strip_prefix(STATUS)?.strip_prefix("<= ")?;
            out.push(low.parse().ok()?..=high.parse().ok()?);
        }
    }
    Some(out.into())
}

struct MatchErrorStatus {
    statuses: Box<[RangeInclusive<u16>]>,
}

impl Matcher for MatchErrorStatus {
    fn matches(&self, ex: &mut Exchange) -> Verdict {
        ex.error.as_ref().is_some_and(|e| self.statuses.iter().any(|range| range.contains(&e.status))).into()
    }
}

#[cfg(test)]
mod tests {
    use crate::http::error::HandlerError;
    use crate::modules::testing::{compile_matcher, exchange, matches};
    use serde_json::json;

    #[test]
    fn conditions_on_the_error_status_run() {
        let text = "{http.error.status_code} >= 500 && {http.error.status_code} <= 599 || \
                    {http.error.status_code} in [404, 403]";
        let mut ex = exchange("GET", "/");
        assert!(!matches("expression", json!(text), &mut ex), "no error, no status");
        for (status, want) in [(404, true), (403, true), (502, true), (410, false), (600, false)] {
            ex.error = Some(HandlerError::new(status, "test", ""));
            assert_eq!(matches("expression", json!({"expr": text, "name": "m"}), &mut ex), want, "{status}");
        }
    }

    #[test]
    fn others_are_refused_by_name() {
        for text in ["{http.request.method} == \"GET\"", "{http.error.status_code} in [404", "true || false", ""] {
            assert_eq!(compile_matcher("expression", json!(text)).err().unwrap().code, "not-supported-yet", "{text}");
        }
        assert_eq!(
            compile_matcher("expression", json!({"expr": "x", "no": 1})).err().unwrap().code,
            "invalid-json-config"
        );
    }
}

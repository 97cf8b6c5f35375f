//! `expression CEL`, or a quoted expression as a named matcher: a condition in the Common Expression Language.
//!
//! Adapted as in Caddy. What runs is the part that decides about errors and answers: `{rp.status_code}` and
//! `{http.error.status_code}` compared with numbers (`==`, `!=`, `<`, `<=`, `>`, `>=`, `in [502, 503]`), method, host,
//! path, headers of the request and of the upstream's answer (`{rp.header.X-Retry}`) and query parameters compared with texts
//! (`==`, `!=`, `in`, `.contains("…")`, `.startsWith("…")`, `.endsWith("…")`), `{rp.is_transport_error}`; joined by `&&`,
//! `||`, `!` and parentheses. Anything else is refused by name.

use serde::Deserialize;
use serde_json::{Value, json};

use crate::config::compile_cx::{CompileCx, CompileError, read_value};
use crate::config::directive_cx::{DirectiveCx, Parsed};
use crate::config::registry::MatcherModule;
use crate::http::condition::{Condition, Unsupported};
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
    match Condition::parse(&expression) {
        Ok(condition) => Ok(Box::new(MatchExpression { condition })),
        Err(Unsupported) => Err(CompileError::not_supported("this condition in the matcher `expression`")
            .help("compare status codes, methods, paths and headers, or use other matchers (`path`, `header`, `method`, `vars`, `not`, …)")),
    }
}

struct MatchExpression {
    condition: Condition,
}

impl Matcher for MatchExpression {
    fn matches(&self, ex: &mut Exchange) -> Verdict {
        self.condition.holds(ex).into()
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
    fn texts_are_compared_and_joined() {
        let mut ex = exchange("POST", "/v1/chat?model=gpt");
        ex.headers.insert("x-tier", "gold".parse().unwrap());
        for (text, want) in [
            (r#"{http.request.method} == "POST" && {http.request.uri.path}.startsWith('/v1/')"#, true),
            (r#"{http.request.method} in ["GET", "HEAD"] || !({http.request.header.X-Tier} != "gold")"#, true),
            (r#"{http.request.uri.query.model}.contains("gem") || {http.request.host}.endsWith(".test")"#, true),
            (r#"{http.request.header.X-None} == "" && !false"#, true),
            (r#"{http.request.header.X-None} != "" || true && false"#, false),
            ("{http.reverse_proxy.status_code} != 200 || {http.reverse_proxy.is_transport_error}", false),
            ("{http.reverse_proxy.is_transport_error}==false", true),
        ] {
            assert_eq!(matches("expression", json!(text), &mut ex), want, "{text}");
        }
    }

    #[test]
    fn conditions_on_an_answer_run() {
        let mut ex = exchange("POST", "/");
        let facts = crate::http::exchange::UpstreamFacts { status: Some(503), ..Default::default() };
        ex.upstream = Some(Box::new(facts));
        for (text, want) in [
            ("in [502, 503]", true),
            ("in [502]", false),
            (">= 500", true),
            ("> 503", false),
            ("<= 503", true),
            ("< 503", false),
            ("==503", true),
            ("!= 503", false),
        ] {
            let text = format!("{{http.reverse_proxy.status_code}} {text}");
            assert_eq!(matches("expression", json!(text), &mut ex), want, "{text}");
        }
    }

    #[test]
    fn others_are_refused_by_name() {
        for text in [
            "{http.error.status_code} in [404",
            "{http.error.status_code} in []",
            "{http.error.status_code} == \"404\"",
            "{http.error.status_code} + 1 == 405",
            "{http.request.method} == 5",
            "{http.request.method} < \"B\"",
            "{http.request.method} == \"\\n\"",
            "{http.request.method}.matches(\"G.T\")",
            "{http.vars.x} == \"a\"",
            "path('/x')",
            "true ? true : false",
            "trueish",
            "true || ",
            "",
            &"(".repeat(1000),
            &"!".repeat(1000),
        ] {
            assert_eq!(compile_matcher("expression", json!(text)).err().unwrap().code, "not-supported-yet", "{text}");
        }
        assert_eq!(
            compile_matcher("expression", json!({"expr": "x", "no": 1})).err().unwrap().code,
            "invalid-json-config"
        );
    }
}

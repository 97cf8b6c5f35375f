//! `header FIELD VALUE` and `header !FIELD`: a request header has one of the values, or is absent.
//!
//! `*` at the start or end of a value is a wildcard; `*` alone asks that the field be present. Lines of the same field
//! are alternatives; different fields must all match.

use serde_json::Value;

use crate::config::compile_cx::{CompileCx, CompileError, read_value};
use crate::config::directive_cx::{DirectiveCx, Parsed};
use crate::config::registry::MatcherModule;
use crate::http::exchange::Exchange;
use crate::http::matcher::{Matcher, Verdict};
use crate::http::response_matcher::{CompiledHeaderConditions, HeaderConditions, add_header_condition};
use crate::syntax::tree::Node;

pub const MATCHER: MatcherModule = MatcherModule { id: "header", parse, compile };

fn parse(lines: &[&Node], cx: &mut DirectiveCx<'_, '_>) -> Parsed<Value> {
    let mut conditions = HeaderConditions::new();
    for line in lines {
        add_header_condition(&mut conditions, &line.name, &line.args)?;
        cx.no_lines(line)?;
    }
    Ok(serde_json::to_value(conditions).unwrap_or_default())
}

fn compile(value: &Value, _: &mut CompileCx<'_>) -> Result<Box<dyn Matcher>, CompileError> {
    let conditions: Option<HeaderConditions> = read_value(value)?;
    let compiled = CompiledHeaderConditions::compile(&conditions.unwrap_or_default(), true)
        .map_err(|e| CompileError::new("invalid-header-field", e.to_string()))?;
    Ok(Box::new(MatchHeader(compiled)))
}

struct MatchHeader(CompiledHeaderConditions);

impl Matcher for MatchHeader {
    fn matches(&self, ex: &mut Exchange) -> Verdict {
        self.0.match_request(ex).into()
    }
}

#[cfg(test)]
mod tests {
    use crate::modules::testing::{exchange, matches};
    use serde_json::json;

    #[test]
    fn fields_are_all_needed_and_values_alternatives() {
        let mut ex = exchange("GET", "/");
        ex.headers.insert("x-a", "2".parse().unwrap());
        let both = json!({"X-A": ["1", "2"], "X-C": ["3"]});
        assert!(!matches("header", both.clone(), &mut ex));
        ex.headers.insert("x-c", "3".parse().unwrap());
        assert!(matches("header", both, &mut ex));
        assert!(matches("header", json!({"Authorization": null, "Host": ["a.*"]}), &mut ex));
        assert!(matches("header", json!({}), &mut ex));
    }
}

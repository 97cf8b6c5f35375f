//! `method NAME…`: the request's method is one of the names, letter by letter. Several lines are one list.

use http::Method;
use serde_json::Value;

use crate::config::compile_cx::{CompileCx, CompileError, read_value};
use crate::config::directive_cx::{DirectiveCx, Parsed};
use crate::config::registry::MatcherModule;
use crate::http::exchange::Exchange;
use crate::http::matcher::{Matcher, Verdict};
use crate::syntax::tree::Node;

pub const MATCHER: MatcherModule = MatcherModule { id: "method", parse, compile };

fn parse(lines: &[&Node], cx: &mut DirectiveCx<'_, '_>) -> Parsed<Value> {
    cx.word_list(lines)
}

fn compile(value: &Value, _: &mut CompileCx<'_>) -> Result<Box<dyn Matcher>, CompileError> {
    let names: Option<Vec<String>> = read_value(value)?;
    // A text that can be no method matches no request.
    let methods = names.unwrap_or_default().iter().filter_map(|n| n.parse().ok()).collect();
    Ok(Box::new(MatchMethod { methods }))
}

struct MatchMethod {
    methods: Box<[Method]>,
}

impl Matcher for MatchMethod {
    fn matches(&self, ex: &mut Exchange) -> Verdict {
        self.methods.contains(&ex.method).into()
    }
}

#[cfg(test)]
mod tests {
    use crate::modules::testing::{exchange, matches};
    use serde_json::json;

    #[test]
    fn one_of_the_names_in_their_case() {
        let mut ex = exchange("POST", "/");
        assert!(matches("method", json!(["GET", "POST"]), &mut ex));
        assert!(!matches("method", json!(["post"]), &mut ex) && !matches("method", json!(null), &mut ex));
        assert!(matches("method", json!(["PURGE", "a b"]), &mut exchange("PURGE", "/")));
    }
}

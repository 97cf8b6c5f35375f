//! `vars NAME VALUE…`: a variable, or a placeholder written in braces, has one of the values. Of several names one is
//! enough, as in Caddy.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::config::compile_cx::{CompileCx, CompileError, read_value};
use crate::config::directive_cx::{DirectiveCx, Parsed};
use crate::config::registry::MatcherModule;
use crate::http::exchange::Exchange;
use crate::http::matcher::{Matcher, Verdict};
use crate::http::placeholder::{Template, Unknown};
use crate::http::vars::Variable;
use crate::syntax::tree::Node;

pub const MATCHER: MatcherModule = MatcherModule { id: "vars", parse, compile };

fn parse(lines: &[&Node], cx: &mut DirectiveCx<'_, '_>) -> Parsed<Value> {
    let mut out: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for line in lines {
        let [name, values @ ..] = line.args.as_slice() else {
            return Err(cx.err(line.span(), "malformed-matcher", "`vars` needs the name of a variable"));
        };
        if values.is_empty() {
            return Err(cx.err(line.span(), "malformed-matcher", "`vars` needs a value to compare with"));
        }
        cx.no_lines(line)?;
        let known = out.entry(name.text().to_owned()).or_default();
        known.extend(values.iter().map(|v| v.text().to_owned()));
    }
    Ok(serde_json::to_value(out).unwrap_or_default())
}

fn compile(value: &Value, _: &mut CompileCx<'_>) -> Result<Box<dyn Matcher>, CompileError> {
    let vars: Option<BTreeMap<String, Option<Vec<String>>>> = read_value(value)?;
    let vars = vars.unwrap_or_default().into_iter().map(|(name, values)| {
        let values = values.unwrap_or_default().iter().map(|v| Template::parse(v)).collect();
        (Variable::new(&name), values)
    });
    Ok(Box::new(MatchVars { vars: vars.collect() }))
}

struct MatchVars {
    vars: Box<[(Variable, Box<[Template]>)]>,
}

impl Matcher for MatchVars {
    fn matches(&self, ex: &mut Exchange) -> Verdict {
        let ex = &*ex;
        if self.vars.is_empty() {
            return Verdict::Yes;
        }
        let one = self.vars.iter().any(|(variable, wanted)| {
            let value = variable.value(ex);
            wanted.iter().any(|w| w.render(ex, Unknown::Empty) == value)
        });
        one.into()
    }
}

#[cfg(test)]
mod tests {
    use crate::modules::testing::{exchange, matches};
    use serde_json::json;

    #[test]
    fn variables_and_placeholders() {
        let mut ex = exchange("GET", "/x");
        ex.set_var(&"a".into(), "1".to_owned());
        assert!(matches("vars", json!({"a": ["0", "1"]}), &mut ex) && !matches("vars", json!({"a": ["0"]}), &mut ex));
        assert!(matches("vars", json!({"{http.request.uri}": ["/x"]}), &mut ex));
        assert!(matches("vars", json!({"a": ["1"], "b": ["2"]}), &mut ex), "one name is enough");
        assert!(matches("vars", json!({"unset": [""]}), &mut ex) && matches("vars", json!({}), &mut ex));
    }

    #[test]
    fn a_value_is_not_expanded_again() {
        let mut ex = exchange("GET", "/x");
        ex.set_var(&"a".into(), "{http.request.method}".to_owned());
        assert!(!matches("vars", json!({"a": ["GET"]}), &mut ex));
    }
}

//! `vars_regexp [NAME] VARIABLE PATTERN`: a variable, or a placeholder written in braces, matches the regular
//! expression (RE2).
//!
//! Its groups are `{re.NAME.1}` and `{re.1}`; the name is the matcher's when none is given. Of several variables one is
//! enough; of several lines for one variable the last counts.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::config::compile_cx::{CompileCx, CompileError, read_value};
use crate::config::directive_cx::{DirectiveCx, Parsed};
use crate::config::registry::MatcherModule;
use crate::http::exchange::Exchange;
use crate::http::matcher::{Matcher, Verdict};
use crate::http::regexp::{self, CapturingRegexp, NamedPattern};
use crate::http::vars::Variable;
use crate::syntax::tree::Node;

pub const MATCHER: MatcherModule = MatcherModule { id: "vars_regexp", parse, compile };

fn parse(lines: &[&Node], cx: &mut DirectiveCx<'_, '_>) -> Parsed<Value> {
    let mut out: BTreeMap<String, NamedPattern> = BTreeMap::new();
    for line in lines {
        let (name, variable, pattern) = match line.args.as_slice() {
            [variable, pattern] => ("", variable, pattern),
            [name, variable, pattern] => (name.text(), variable, pattern),
            _ => return Err(cx.arg_err(line)),
        };
        cx.no_lines(line)?;
        let name = if name.is_empty() { cx.matcher_name } else { name };
        let pattern = NamedPattern { name: name.to_owned(), pattern: pattern.text().to_owned() };
        out.insert(variable.text().to_owned(), pattern);
    }
    Ok(serde_json::to_value(out).unwrap_or_default())
}

fn compile(value: &Value, _: &mut CompileCx<'_>) -> Result<Box<dyn Matcher>, CompileError> {
    let vars: BTreeMap<String, NamedPattern> = read_value(value)?;
    let compiled: Result<Vec<_>, CompileError> = vars
        .iter()
        .map(|(name, pattern)| {
            let regexp = pattern.compile().map_err(|e| CompileError::invalid_regexp(e).within(name))?;
            Ok((Variable::new(name), regexp))
        })
        .collect();
    Ok(Box::new(MatchVarsRegexp { vars: compiled?.into() }))
}

struct MatchVarsRegexp {
    vars: Box<[(Variable, CapturingRegexp)]>,
}

impl Matcher for MatchVarsRegexp {
    fn matches(&self, ex: &mut Exchange) -> Verdict {
        let found = self.vars.iter().find_map(|(variable, regexp)| regexp.capture(&variable.value(ex)));
        match found {
            Some(captures) => {
                regexp::keep(captures, ex);
                Verdict::Yes
            }
            None => Verdict::No,
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::modules::testing::{exchange, matches};
    use serde_json::json;

    #[test]
    fn groups_are_kept() {
        let mut ex = exchange("GET", "/x");
        ex.set_var(&"a".into(), "model-7".to_owned());
        let wanted = json!({"a": {"name": "m", "pattern": r"^model-(\d)$"}, "b": {"pattern": "x"}});
        assert!(matches("vars_regexp", wanted, &mut ex));
        assert_eq!(ex.captures[0].groups[1], "7");
        assert!(matches("vars_regexp", json!({"{http.request.uri}": {"pattern": "^/x$"}}), &mut ex));
    }
}

//! `path_regexp [NAME] PATTERN`: the cleaned path matches the regular expression (RE2).
//!
//! Its groups are `{re.NAME.1}` and `{re.1}`; the name is the matcher's when none is given. Once per named matcher.

use serde_json::Value;

use crate::config::compile_cx::{CompileCx, CompileError, read_value};
use crate::config::directive_cx::{DirectiveCx, Parsed};
use crate::config::registry::MatcherModule;
use crate::http::exchange::Exchange;
use crate::http::matcher::{Matcher, Verdict};
use crate::http::path;
use crate::http::regexp::{self, CapturingRegexp, NamedPattern};
use crate::syntax::tree::Node;

pub const MATCHER: MatcherModule = MatcherModule { id: "path_regexp", parse, compile };

fn parse(lines: &[&Node], cx: &mut DirectiveCx<'_, '_>) -> Parsed<Value> {
    if let [_, second, ..] = lines {
        return Err(cx.err(second.span(), "duplicate-matcher", "`path_regexp` can be used once in a named matcher"));
    }
    let mut out = NamedPattern::default();
    for line in lines {
        let (name, pattern) = match line.args.as_slice() {
            [pattern] => ("", pattern),
            [name, pattern] => (name.text(), pattern),
            _ => return Err(cx.arg_err(line)),
        };
        cx.no_lines(line)?;
        let name = if name.is_empty() { cx.matcher_name } else { name };
        out = NamedPattern { name: name.to_owned(), pattern: pattern.text().to_owned() };
    }
    Ok(serde_json::to_value(out).unwrap_or_default())
}

fn compile(value: &Value, _: &mut CompileCx<'_>) -> Result<Box<dyn Matcher>, CompileError> {
    let pattern: NamedPattern = read_value(value)?;
    let regexp = pattern.compile().map_err(CompileError::invalid_regexp)?;
    Ok(Box::new(MatchPathRegexp { regexp }))
}

struct MatchPathRegexp {
    regexp: CapturingRegexp,
}

impl Matcher for MatchPathRegexp {
    fn matches(&self, ex: &mut Exchange) -> Verdict {
        let decoded = path::decode_path(ex.uri.path());
        match self.regexp.capture(&path::clean_path(&decoded, true)) {
            Some(captures) => {
                drop(decoded);
                regexp::keep(captures, ex);
                Verdict::Yes
            }
            None => Verdict::No,
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::modules::testing::{compile_matcher, exchange, matches};
    use serde_json::json;

    #[test]
    fn groups_are_kept() {
        let mut ex = exchange("GET", "//v2/x/../models?x=1");
        assert!(matches("path_regexp", json!({"name": "ver", "pattern": r"^/v(\d+)/(.*)$"}), &mut ex));
        assert_eq!(ex.captures[0].groups, ["/v2/models", "2", "models"]);
        assert!(!matches("path_regexp", json!({"pattern": "^/V"}), &mut ex), "case counts");
        assert_eq!(compile_matcher("path_regexp", json!({"pattern": "("})).err().unwrap().code, "invalid-regexp");
    }
}

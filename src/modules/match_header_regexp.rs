//! `header_regexp [NAME] FIELD PATTERN`: a value of the request header matches the regular expression (RE2).
//!
//! Its groups are `{re.NAME.1}` and `{re.1}`; the name is the matcher's when none is given. Different fields must all
//! match; a field may be given once.

use std::collections::BTreeMap;

use http::HeaderName;
use serde_json::Value;

use crate::config::compile_cx::{CompileCx, CompileError, read_value};
use crate::config::directive_cx::{DirectiveCx, Parsed};
use crate::config::registry::MatcherModule;
use crate::http::exchange::Exchange;
use crate::http::matcher::{Matcher, Verdict};
use crate::http::regexp::{self, CapturingRegexp, NamedPattern};
use crate::syntax::tree::Node;

pub const MATCHER: MatcherModule = MatcherModule { id: "header_regexp", parse, compile };

fn parse(lines: &[&Node], cx: &mut DirectiveCx<'_, '_>) -> Parsed<Value> {
    let mut out: BTreeMap<String, NamedPattern> = BTreeMap::new();
    for line in lines {
        let (name, field, pattern) = match line.args.as_slice() {
            [field, pattern] => ("", field, pattern),
            [name, field, pattern] => (name.text(), field, pattern),
            _ => return Err(cx.arg_err(line)),
        };
        cx.no_lines(line)?;
        if out.contains_key(field.text()) {
            let message = format!("`header_regexp` for `{}` can be used once in a named matcher", field.shown());
            return Err(cx.err(line.span(), "duplicate-matcher", message));
        }
        let name = if name.is_empty() { cx.matcher_name } else { name };
        let pattern = NamedPattern { name: name.to_owned(), pattern: pattern.text().to_owned() };
        out.insert(field.text().to_owned(), pattern);
    }
    Ok(serde_json::to_value(out).unwrap_or_default())
}

fn compile(value: &Value, _: &mut CompileCx<'_>) -> Result<Box<dyn Matcher>, CompileError> {
    let fields: BTreeMap<String, NamedPattern> = read_value(value)?;
    let mut compiled = Vec::with_capacity(fields.len());
    for (field, pattern) in &fields {
        let name: HeaderName = field.parse().map_err(|_| {
            CompileError::new("invalid-header-field", format!("`{field}` is not a valid header field name"))
        })?;
        let regexp = pattern.compile().map_err(|e| CompileError::invalid_regexp(e).within(field))?;
        compiled.push((name, regexp));
    }
    Ok(Box::new(MatchHeaderRegexp { fields: compiled.into() }))
}

struct MatchHeaderRegexp {
    fields: Box<[(HeaderName, CapturingRegexp)]>,
}

impl Matcher for MatchHeaderRegexp {
    fn matches(&self, ex: &mut Exchange) -> Verdict {
        for (name, regexp) in &self.fields {
            let mut values = ex.headers.get_all(name).iter();
            match values.find_map(|v| regexp.capture(&String::from_utf8_lossy(v.as_bytes()))) {
                Some(captures) => regexp::keep(captures, ex),
                None => return Verdict::No,
            }
        }
        Verdict::Yes
    }
}

#[cfg(test)]
mod tests {
    use crate::modules::testing::{exchange, matches};
    use serde_json::json;

    #[test]
    fn every_field_needs_a_matching_value() {
        let mut ex = exchange("GET", "/");
        ex.headers.append("authorization", "Basic x".parse().unwrap());
        ex.headers.append("authorization", "Bearer sk-1".parse().unwrap());
        let tok = json!({"Authorization": {"name": "tok", "pattern": r"^Bearer\s+(sk-.*)$"}});
        assert!(matches("header_regexp", tok, &mut ex));
        assert_eq!(ex.captures[0].groups[1], "sk-1");
        assert!(matches("header_regexp", json!({"host": {"pattern": "^a"}}), &mut ex));
        let both = json!({"authorization": {"pattern": "x"}, "x-none": {"pattern": ".*"}});
        assert!(!matches("header_regexp", both, &mut ex));
    }
}

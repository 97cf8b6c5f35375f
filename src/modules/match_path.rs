//! `path PATTERN…`: the request's path is one of the patterns.
//!
//! Matching ignores case and works on the decoded, cleaned path (`//` and `..` resolved; a pattern with `//` keeps
//! double slashes). `*` at the end matches a prefix, at the start a suffix, at both a part; elsewhere it matches within
//! one segment. Percent sequences in a pattern are compared with the path as it was sent. Several lines are one list.

use serde_json::Value;

use crate::config::compile_cx::{CompileCx, CompileError, read_value};
use crate::config::directive_cx::{DirectiveCx, Parsed};
use crate::config::registry::MatcherModule;
use crate::http::exchange::Exchange;
use crate::http::matcher::{Matcher, Verdict};
use crate::http::path_pattern::{PathPattern, RequestPath};
use crate::http::placeholder::{Template, Unknown};
use crate::syntax::tree::Node;

pub const MATCHER: MatcherModule = MatcherModule { id: "path", parse, compile };

fn parse(lines: &[&Node], cx: &mut DirectiveCx<'_, '_>) -> Parsed<Value> {
    cx.word_list(lines)
}

fn compile(value: &Value, _: &mut CompileCx<'_>) -> Result<Box<dyn Matcher>, CompileError> {
    let patterns: Option<Vec<String>> = read_value(value)?;
    let patterns = patterns.unwrap_or_default();
    let compiled = patterns.iter().map(|p| {
        let template = Template::parse(&p.to_lowercase());
        match template.as_static() {
            Some(fixed) => Pattern::Fixed(PathPattern::new(fixed)),
            None => Pattern::Rendered(template),
        }
    });
    Ok(Box::new(MatchPath { patterns: compiled.collect() }))
}

struct MatchPath {
    patterns: Box<[Pattern]>,
}

enum Pattern {
    Fixed(PathPattern),
    Rendered(Template),
}

impl Matcher for MatchPath {
    fn matches(&self, ex: &mut Exchange) -> Verdict {
        let ex = &*ex;
        let path = RequestPath::new(ex.uri.path());
        let found = self.patterns.iter().any(|pattern| match pattern {
            Pattern::Fixed(pattern) => pattern.matches(&path),
            Pattern::Rendered(template) => PathPattern::new(&template.render(ex, Unknown::Empty)).matches(&path),
        });
        found.into()
    }
}

#[cfg(test)]
mod tests {
    use crate::modules::testing::{exchange, matches};
    use serde_json::json;

    fn path(patterns: &[&str], target: &str) -> bool {
        matches("path", json!(patterns), &mut exchange("GET", target))
    }

    #[test]
    fn exact_prefix_suffix_and_part() {
        for target in ["/foo", "/FOO", "//foo", "/%66oo", "/x/../foo", "/foo?q"] {
            assert!(path(&["/foo"], target), "{target}");
        }
        assert!(!path(&["/foo"], "/foo/") && !path(&["/foo"], "/foobar"));
        assert!(path(&["/bar*"], "/barbaz") && path(&["/Mix"], "/mix"));
        assert!(path(&["*.php"], "/a/b.PHP") && path(&["*/mid/*"], "/a/mid/c"));
        assert!(path(&["/u/*/info"], "/u/1/info") && !path(&["/u/*/info"], "/u/1/2/info"));
        assert!(path(&["/a", "/b"], "/b") && path(&["*"], "/x") && !path(&[], "/x") && !path(&["a", ""], "/a"));
        assert!(path(&["/api/*"], "/api/") && !path(&["/api/*"], "/api"));
    }

    #[test]
    fn a_pattern_with_two_slashes_keeps_them() {
        assert!(path(&["/a//b"], "/a//b") && !path(&["/a//b"], "/a/b"));
        assert!(path(&["/a/b"], "/a//b"));
        assert!(path(&["/a//*"], "/b/../a//c"), "dots are still resolved");
    }

    #[test]
    fn percent_sequences_are_compared_as_sent() {
        assert!(path(&["/x%2Fy"], "/x%2fy") && !path(&["/x%2Fy"], "/x/y") && !path(&["/x%2Fy"], "/x%2Fy/"));
        assert!(path(&["/Esc%2Fx"], "/%45SC%2fX") && !path(&["/%41b"], "/Ab"));
        assert!(path(&["/z%*"], "/z%41") && path(&["/a/%*/c"], "/a/b%2fb/c") && !path(&["/a/%*/c"], "/a/b/b/c"));
        assert!(path(&["/bands/%*/%*"], "/bands/AC%2FDC/T.N.T") && !path(&["/bands/*/x"], "/bands/AC%2FDC/x"));
    }

    #[test]
    fn placeholders_in_patterns_are_rendered() {
        let mut ex = exchange("GET", "/ph");
        ex.headers.insert("p", "/p*".parse().unwrap());
        assert!(matches("path", json!(["{http.request.header.P}"]), &mut ex));
        ex.headers.insert("p", "/PH".parse().unwrap());
        assert!(!matches("path", json!(["{http.request.header.P}"]), &mut ex), "a value keeps its case, as in Caddy");
    }
}

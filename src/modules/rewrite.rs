//! `rewrite`: changes the request's path, query, or both, before the handlers that follow see it.
//!
//! What the target has is replaced: `/new` the path, `?a=b` the query, `/new?a=b` both, and a lone `?` clears the query.
//! Placeholders read the request as it came: `/v1{uri}` puts a prefix before path and query, `?{query}&a=b` adds to the
//! query. Of several `rewrite` lines beside each other only the first that matches runs.

use crate::config::compile_cx::{CompileCx, CompileError, read};
use crate::config::directive_cx::{ConfigValue, DirectiveCx, Parsed};
use crate::config::registry::{Directive, Doc, HandlerModule};
use crate::config::types::{self, Module};
use crate::http::exchange::Exchange;
use crate::http::handler::{Flow, Step};
use crate::http::rewrite::{Rewrite, RewriteConfig};
use crate::http::route::Handler;

pub const DIRECTIVE: Directive = Directive {
    name: "rewrite",
    renamed_to: None,
    ordered: true,
    // A single argument is the target even when it looks like a matcher, so the token is told apart here.
    matcher: false,
    parse,
    doc: &Doc {
        summary: "Replaces the request's path and query.",
        syntax: "rewrite [matcher] <to>",
        examples: &["rewrite /index.html", "rewrite /old/* /new{path}", "rewrite * ?{query}&via=proxy"],
        rejected: &[("rewrite", "wrong-argument-count"), ("rewrite /a /b /c", "wrong-argument-count")],
        adapt_only: false,
    },
};

pub const HANDLER: HandlerModule = HandlerModule { id: "rewrite", compile };

fn parse(cx: &mut DirectiveCx<'_, '_>) -> Parsed<Vec<ConfigValue>> {
    let (matcher, to) = match cx.args {
        [to] => (None, to),
        // Caddy takes the first word for the target when it is no matcher, and drops the second.
        [first, second] => match cx.matcher_token(first) {
            Some(matcher) => (matcher?, second),
            None => {
                cx.warn_ignored(second.span);
                (None, first)
            }
        },
        _ => return Err(cx.arg_err(cx.node)),
    };
    cx.warn_ignored_block();
    let config = RewriteConfig { uri: to.text().to_owned(), ..RewriteConfig::default() };
    Ok(cx.route_with(matcher, types::handler(HANDLER.id, &config)))
}

fn compile(module: &Module, _cx: &mut CompileCx<'_>) -> Result<Handler, CompileError> {
    let config: RewriteConfig = read(module, "handler")?;
    let rewrite =
        Rewrite::compile(&config).map_err(|(field, why)| CompileError::new("invalid-regexp", why).within(field))?;
    Ok(Handler::Step(Box::new(RewriteStep(rewrite))))
}

struct RewriteStep(Rewrite);

impl Step for RewriteStep {
    fn run(&self, ex: &mut Exchange) -> Flow {
        match self.0.apply(ex) {
            Ok(()) => Flow::Next,
            Err(error) => Flow::Fail(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::modules::testing::{exchange, step};
    use serde_json::{Value, json};

    /// The URI that a request has after a rewrite; checked against Caddy 2.11.7.
    fn rewritten(mut config: Value, target: &str, x: &str) -> String {
        config["handler"] = "rewrite".into();
        let mut ex = exchange("GET", target);
        ex.headers.insert("x", x.parse().unwrap());
        assert!(matches!(step(config).run(&mut ex), Flow::Next));
        ex.uri.to_string()
    }

    #[test]
    fn targets() {
        for (to, target, x, expected) in [
            ("/b?z=1", "/a?q=1", "", "/b?z=1"),
            ("/b", "/a?q=1", "", "/b?q=1"),
            ("?", "/a?b=c", "", "/a"),
            ("/x#frag", "/a?b=c", "", "/x?b=c"),
            ("foo", "/a?b=c", "", "/foo?b=c"),
            ("?z=1&{http.request.uri.query}", "/a?q=1", "", "/a?z=1&q=1"),
            ("?z=1&{http.request.uri.query}", "/a", "", "/a?z=1"),
            ("?{http.request.uri.query}&z={http.request.uri.path}", "/a%20b/c?q=1", "", "/a%20b/c?q=1&z=%2Fa+b%2Fc"),
            ("/pre{http.request.uri}", "/a?b=c", "", "/pre/a?b=c"),
            ("/pre{http.request.uri}", "/a%20b", "", "/pre/a%20b"),
            ("/pre{http.request.uri}", "/a%2Fb", "", "/pre/a/b"),
            ("/pre{http.request.uri.path}", "/a%3Fb", "", "/pre/a%3Fb"),
            ("{http.request.header.X}", "/a?b=c", "/new?x={env.HOME}", "/new?x=%7Benv.HOME%7D"),
            ("{http.request.header.X}", "/a?b=c", "/n w", "/n%20w?b=c"),
            ("{http.request.header.X}", "/a?b=c", "/n#frag?x=1", "/n?b=c"),
            ("{http.request.header.X}", "/a?b=c", "/%zz", "/%25zz?b=c"),
            (
                "/a?x={http.request.header.X}&{http.request.header.X}=1",
                "/",
                "a b&c=d",
                "/a?x=a+b%26c%3Dd&a+b%26c%3Dd=1",
            ),
            ("/a?x=a=b=c&&d", "/", "", "/a?x=a=b=c&d"),
            ("/a?x={http.request.header.X}", "/", "\u{e9}\"", "/a?x=%C3%A9%22"),
        ] {
            assert_eq!(rewritten(json!({ "uri": to }), target, x), expected, "{to} for {target}");
        }
    }

    #[test]
    fn stripping() {
        for (prefix, target, expected) in [
            ("/api", "/apifoo", "/foo"),
            ("/api", "/api?a", "/?a"),
            ("/api", "/API/x", "/x"),
            ("/api", "/api/../api/x", "/x"),
            ("/api", "/%61pi/x%2fy", "/x%2fy"),
            ("a", "/a/b", "/b"),
            ("/api", "/api..%2f..%2fetc", "/etc"),
        ] {
            assert_eq!(rewritten(json!({ "strip_path_prefix": prefix }), target, ""), expected, "{prefix} {target}");
        }
        for (target, expected) in
            [("/m/END?x=1", "/m?x=1"), ("/end", "/"), ("/m%2Fend", "/m"), ("/a//b/end", "/a/b"), ("/mend", "/mend")]
        {
            assert_eq!(rewritten(json!({ "strip_path_suffix": "/end" }), target, ""), expected, "{target}");
        }
    }

    #[test]
    fn replacing() {
        let all = json!({ "uri_substring": [{"find": "/x", "replace": "/y"}] });
        assert_eq!(rewritten(all.clone(), "/x/x?q=/x", ""), "/y/y?q=/y");
        assert_eq!(rewritten(all, "/a//x", ""), "/a/y");
        let one = json!({ "uri_substring": [{"find": "/x", "replace": "/y", "limit": 1}] });
        assert_eq!(rewritten(one, "/x/x?q=/x", ""), "/y/x?q=/y");
        let regexp = json!({ "path_regexp": [{"find": "^/(a+)/", "replace": "/$1$1/"}] });
        assert_eq!(rewritten(regexp.clone(), "/aa/b?c", ""), "/aaaa/b?c");
        assert_eq!(rewritten(regexp, "//aa/b", ""), "//aa/b");
    }

    #[test]
    fn query_operations() {
        let ops = json!({ "query": {
            "add": [{"key": "a", "val": "1"}], "set": [{"key": "b", "val": "2"}], "delete": ["c"],
            "rename": [{"key": "d", "val": "e"}],
            "replace": [{"key": "f", "search_regexp": "o", "replace": "0"}, {"key": "*", "search_regexp": "x", "replace": "Y"}]
        } });
        for (target, expected) in [
            ("/?b=0&c=9&d=4&f=foo&z=xx", "/?a=1&b=2&e=4&f=f00&z=YY"),
            ("/", "/?a=1&b=2"),
            ("/?a=%20+&a&=b", "/?=b&a=++&a=&a=1&b=2"),
        ] {
            assert_eq!(rewritten(ops.clone(), target, ""), expected);
        }
    }

    #[test]
    fn methods() {
        let method = |text: &str, x: &str| {
            let mut ex = exchange("POST", "/");
            ex.headers.insert("x", x.parse().unwrap());
            let flow = step(json!({"handler":"rewrite","method":text})).run(&mut ex);
            (flow, ex.method)
        };
        assert_eq!(method("put", "").1, "PUT");
        assert_eq!(method("{http.request.header.X}", "").1, "GET");
        assert!(matches!(method("{http.request.header.X}", "b ad").0, Flow::Fail(e) if e.status == 502));
    }
}

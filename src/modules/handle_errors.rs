//! `handle_errors`: what answers when something failed: an upstream that cannot be reached, a body that is too large, a
//! line `error …`. An upstream's own error answer is passed on and does not come here.
//!
//! `handle_errors 404 5xx { … }` runs for those statuses only. Inside, `{err.status_code}`, `{err.status_text}` and
//! `{err.message}` tell what happened; the request is as the client sent it; an answer without a status gets the error's.

use serde_json::Value;

use crate::config::directive_cx::{ConfigValue, DirectiveCx, Parsed};
use crate::config::registry::{Directive, Doc};
use crate::config::types::{self, MatcherSet, Route};

pub const DIRECTIVE: Directive = Directive {
    name: "handle_errors",
    renamed_to: None,
    ordered: false,
    matcher: false,
    parse,
    doc: &Doc {
        summary: "Answers requests that failed.",
        syntax: "handle_errors [<status>|<n>xx …] { <directives> }",
        examples: &[
            "handle_errors {\n\trespond \"{err.status_code} {err.status_text}\"\n}",
            "handle_errors 404 5xx {\n\trespond \"sorry\"\n}",
        ],
        rejected: &[("handle_errors abc {\n}", "invalid-status"), ("handle_errors 40 {\n}", "invalid-status")],
        adapt_only: false,
    },
};

fn parse(cx: &mut DirectiveCx<'_, '_>) -> Parsed<Vec<ConfigValue>> {
    let expression = status_expression(cx)?;
    let nodes = cx.node.block.as_ref().map_or(&[][..], |b| &b.nodes);
    let inner = cx.subroute(nodes, true)?;
    let mut route = Route { handlers: vec![types::handler("subroute", &inner)], ..Route::default() };
    if let Some(expression) = expression {
        let mut matcher = MatcherSet::new();
        matcher.insert("expression".into(), Value::String(expression));
        route.matcher_sets.push(matcher);
    }
    Ok(vec![ConfigValue::ErrorRoute(types::Subroute { routes: vec![route], errors: None })])
}

/// The statuses as the expression that Caddy's adapter writes: classes first, then the single codes as one list.
fn status_expression(cx: &DirectiveCx<'_, '_>) -> Parsed<Option<String>> {
    let mut terms = Vec::new();
    let mut codes = Vec::new();
    for token in cx.args {
        let bad = || {
            let d = cx.err(token.span, "invalid-status", format!("`{}` is not a status", token.shown()));
            Box::new(d.help("a status such as `404`, or a class such as `5xx`"))
        };
        let word = token.text();
        if word.len() != 3 || !word.is_ascii() {
            return Err(bad());
        }
        if let Some(class) = word.strip_suffix("xx") {
            let class: u8 = class.parse().map_err(|_| bad())?;
            terms.push(format!("{{http.error.status_code}} >= {class}00 && {{http.error.status_code}} <= {class}99"));
        } else {
            word.parse::<i32>().map_err(|_| bad())?;
            codes.push(word);
        }
    }
    if !codes.is_empty() {
        terms.push(format!("{{http.error.status_code}} in [{}]", codes.join(", ")));
    }
    Ok((!terms.is_empty()).then(|| terms.join(" || ")))
}

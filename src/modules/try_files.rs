//! `try_files`: rewrites to the first of the given files that exists.
//!
//! `try_files {path} /index.html` serves a single-page application. A file with a query (`/index.php?{query}&p={path}`)
//! sets the query too. `=404` as the last one raises that error. `policy` chooses otherwise than the first.

use serde::Serialize;
use serde_json::Value;

use crate::config::directive_cx::{ConfigValue, DirectiveCx, Parsed};
use crate::config::registry::{Directive, Doc};
use crate::config::types::{self, MatcherSet};
use crate::http::rewrite::RewriteConfig;

pub const DIRECTIVE: Directive = Directive {
    name: "try_files",
    renamed_to: None,
    ordered: true,
    matcher: false,
    parse,
    doc: &Doc {
        summary: "Rewrites to the first file that exists.",
        syntax: "try_files <files…> { policy first_exist|first_exist_fallback|smallest_size|largest_size|most_recently_modified }",
        examples: &[
            "try_files {path} /index.html",
            "try_files {path} /index.php?{query}&p={path} =404",
            "try_files /a /b {\n\tpolicy smallest_size\n}",
        ],
        rejected: &[
            ("try_files", "wrong-argument-count"),
            ("try_files /a {\n\tpolicy best\n}", "unknown-try-policy"),
            ("try_files /a {\n\tpolicy\n}", "wrong-argument-count"),
        ],
        adapt_only: false,
    },
};

const POLICIES: [&str; 5] =
    ["first_exist", "first_exist_fallback", "smallest_size", "largest_size", "most_recently_modified"];

/// The `file` matcher's JSON as far as this directive writes it.
#[derive(Serialize)]
struct FileMatcher<'a> {
    try_files: Vec<&'a str>,
    #[serde(skip_serializing_if = "str::is_empty")]
    try_policy: &'a str,
}

fn parse(cx: &mut DirectiveCx<'_, '_>) -> Parsed<Vec<ConfigValue>> {
    if cx.args.is_empty() {
        return Err(cx.arg_err(cx.node));
    }
    let policy = policy(cx)?;
    let mut routes = Vec::new();
    // Files without a query share a route; each with a query has its own, as the rewrite differs.
    let mut together = Vec::new();
    for file in cx.args {
        let file = file.text();
        if let Some(at) = file.find('?') {
            if !together.is_empty() {
                routes.extend(route(cx, std::mem::take(&mut together), "", policy));
            }
            routes.extend(route(cx, vec![&file[..at]], &file[at..], policy));
        } else {
            together.push(file);
        }
    }
    if !together.is_empty() {
        routes.extend(route(cx, together, "", policy));
    }
    if routes.len() > 1 {
        let group = cx.next_group();
        for value in &mut routes {
            if let ConfigValue::Route(route) = value {
                route.group.clone_from(&group);
            }
        }
    }
    Ok(routes)
}

fn policy<'a>(cx: &mut DirectiveCx<'a, '_>) -> Parsed<&'a str> {
    let mut policy = "";
    let node = cx.node;
    for line in node.lines() {
        if line.name() != "policy" {
            cx.warn_ignored(line.span());
            continue;
        }
        if !policy.is_empty() {
            return Err(cx.duplicate(line));
        }
        let Some(name) = line.args.first() else { return Err(cx.arg_err(line)) };
        if let Some(extra) = line.args.get(1) {
            cx.warn_ignored(extra.span);
        }
        if !POLICIES.contains(&name.text()) {
            let d = cx.err(name.span, "unknown-try-policy", format!("there is no policy `{}`", name.shown()));
            return Err(Box::new(d.help(format!("one of {}", POLICIES.join(", ")))));
        }
        policy = name.text();
    }
    Ok(policy)
}

fn route(cx: &DirectiveCx<'_, '_>, try_files: Vec<&str>, query: &str, try_policy: &str) -> Vec<ConfigValue> {
    let mut matcher = MatcherSet::new();
    let file = serde_json::to_value(FileMatcher { try_files, try_policy }).unwrap_or(Value::Null);
    matcher.insert("file".into(), file);
    let config = RewriteConfig { uri: format!("{{http.matchers.file.relative}}{query}"), ..RewriteConfig::default() };
    cx.route_with(Some(matcher), types::handler("rewrite", &config))
}

//! `uri`: changes a part of the request's path or query.
//!
//! `strip_prefix` and `strip_suffix` take something off the path, `replace` replaces a text in path and query (at most
//! LIMIT times each), `path_regexp` replaces what an expression finds in the path, and `query` changes the query:
//! `query k v` sets, `query +k v` adds, `query -k` deletes, `query a>b` renames, `query k find replacement` replaces in
//! the values of `k`; several of these may stand in a block.

use crate::config::directive_cx::{ConfigValue, DirectiveCx, Parsed};
use crate::config::registry::{Directive, Doc};
use crate::config::types;
use crate::http::rewrite::{PathRegexp, QueryArgument, QueryOps, QueryReplacement, RewriteConfig, Substring};
use crate::syntax::token::Token;

pub const DIRECTIVE: Directive = Directive {
    name: "uri",
    renamed_to: None,
    ordered: true,
    matcher: true,
    parse,
    doc: &Doc {
        summary: "Changes a part of the path or query.",
        syntax: "uri [matcher] strip_prefix|strip_suffix|replace|path_regexp|query <arguments…>",
        examples: &[
            "uri strip_prefix /api",
            "uri /old/* replace /old /new 1",
            "uri path_regexp /v[0-9]+/ /",
            "uri query -debug",
            "uri query {\n\t+tag new\n\tlang en\n\tq>search\n}",
        ],
        rejected: &[
            ("uri", "wrong-argument-count"),
            ("uri strip_prefix", "wrong-argument-count"),
            ("uri replace /a /b many", "invalid-number"),
            ("uri path_regexp ( x", "invalid-regexp"),
            ("uri query -a b", "wrong-argument-count"),
            ("uri query a 1 {\n\tb 2\n}", "unexpected-block"),
            ("uri strip /a", "unknown-operation"),
        ],
        adapt_only: false,
    },
};

const OPERATIONS: [&str; 5] = ["strip_prefix", "strip_suffix", "replace", "path_regexp", "query"];

fn parse(cx: &mut DirectiveCx<'_, '_>) -> Parsed<Vec<ConfigValue>> {
    let Some((operation, args)) = cx.args.split_first() else { return Err(cx.arg_err(cx.node)) };
    let mut out = RewriteConfig::default();
    match (operation.text(), args) {
        ("strip_prefix", [prefix]) => prefix.text().clone_into(&mut out.strip_path_prefix),
        ("strip_suffix", [suffix]) => suffix.text().clone_into(&mut out.strip_path_suffix),
        ("replace", [find, replace, limit @ ..]) if limit.len() <= 1 => {
            let limit = match limit.first() {
                None => 0,
                Some(t) => {
                    t.text().parse().map_err(|_| cx.err(t.span, "invalid-number", "the limit is not a number"))?
                }
            };
            let (find, replace) = (find.text().to_owned(), replace.text().to_owned());
            out.uri_substring.push(Substring { find, replace, limit });
        }
        ("path_regexp", [find, replace]) => {
            let (find, replace) = (find.text().to_owned(), replace.text().to_owned());
            out.path_regexp.push(PathRegexp { find, replace });
        }
        ("query", args) => {
            let mut ops = QueryOps::default();
            if !args.is_empty() {
                if let Some(block) = cx.node.block.as_ref().filter(|b| !b.nodes.is_empty()) {
                    let message = "query operations stand either on the line or in a block";
                    return Err(cx.err(block.open.to(block.close), "unexpected-block", message));
                }
                query(cx, &mut ops, args)?;
            }
            for line in cx.node.lines() {
                let words: Vec<Token> = std::iter::once(&line.name).chain(&line.args).cloned().collect();
                query(cx, &mut ops, &words)?;
            }
            out.query = Some(ops);
            return Ok(cx.route(types::handler("rewrite", &out)));
        }
        (known, _) if OPERATIONS.contains(&known) => return Err(cx.arg_err(cx.node)),
        (other, _) => {
            let message = format!("`uri` has no operation `{}`", operation.shown());
            let mut d = cx.err(operation.span, "unknown-operation", message);
            if let Some(near) = crate::base::diagnostic::nearest(other, OPERATIONS) {
                d = Box::new(d.help(format!("did you mean `{near}`?")).replace(operation.span, near));
            }
            return Err(d);
        }
    }
    cx.warn_ignored_block();
    Ok(cx.route(types::handler("rewrite", &out)))
}

/// One operation: the words of a line, its first the key with its sign.
fn query(cx: &DirectiveCx<'_, '_>, ops: &mut QueryOps, words: &[Token]) -> Parsed<()> {
    let wrong = || cx.arg_err(cx.node);
    let (key, rest) = words.split_first().ok_or_else(wrong)?;
    let key = key.text();
    let argument = |key: &str, val: &str| QueryArgument { key: key.to_owned(), val: val.to_owned() };
    match rest {
        [] if key.starts_with('-') => ops.delete.push(key.trim_start_matches('-').to_owned()),
        [value] if key.starts_with('+') => ops.add.push(argument(key.trim_start_matches('+'), value.text())),
        _ if key.starts_with(['-', '+']) => return Err(wrong()),
        [] if key.contains('>') => {
            let mut names = key.split('>');
            let (from, to) = (names.next().unwrap_or(""), names.next().unwrap_or(""));
            ops.rename.push(argument(from, to));
        }
        _ if key.contains('>') => return Err(wrong()),
        [value] => ops.set.push(argument(key, value.text())),
        [find, replace] => ops.replace.push(QueryReplacement {
            key: key.to_owned(),
            search_regexp: find.text().to_owned(),
            replace: replace.text().to_owned(),
            ..QueryReplacement::default()
        }),
        _ => return Err(wrong()),
    }
    Ok(())
}

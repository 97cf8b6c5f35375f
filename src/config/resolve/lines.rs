//! Lines of a site or of a nested block: each is handed to its directive, and what comes back is collected.

use std::collections::BTreeMap;

use super::matchers;
use super::spans;
use super::subroute::{self, Placed, RouteValue};
use crate::base::diagnostic::{Diagnostic, nearest};
use crate::config::directive_cx::{ConfigValue, DirectiveCx, FileCx, Parsed};
use crate::config::registry::Directive;
use crate::config::types::{MatcherSet, Route, Subroute};
use crate::syntax::tree::Node;

/// What the lines of one block see.
#[derive(Clone, Copy)]
pub struct Scope<'a> {
    /// Directive that holds the block; empty at site level.
    pub parent: &'a str,
    pub site_keys: &'a [String],
    pub site_files: &'a [String],
    /// False for the one site of a file without braces.
    pub braces: bool,
}

/// Reads one line. A failure is reported and gives no values.
pub fn read(
    node: &Node,
    matchers: &BTreeMap<String, MatcherSet>,
    file: &mut FileCx<'_>,
    scope: &Scope<'_>,
) -> (&'static str, Vec<ConfigValue>) {
    let Some(directive) = file.registry.directive(node.name()) else {
        let diagnostic = unknown(node, file, scope);
        file.diagnostics.push(diagnostic);
        return ("", Vec::new());
    };
    if let Some(new) = directive.renamed_to {
        file.diagnostics.push(
            Diagnostic::warning("renamed-directive", format!("`{}` is now called `{new}`", directive.name))
                .at(node.name.span, "old spelling")
                .replace(node.name.span, new),
        );
    }
    match parse(directive, node, matchers, file, scope) {
        Ok(mut values) => {
            mark_places(&mut values, node);
            (order_name(directive.name), values)
        }
        Err(diagnostic) => {
            file.diagnostics.push(*diagnostic);
            (order_name(directive.name), Vec::new())
        }
    }
}

/// The lines of a nested block as a subroute; `FileCx::build_subroute`.
#[allow(clippy::unnecessary_wraps)] // the type of the hook
pub fn nested(cx: &mut DirectiveCx<'_, '_>, nodes: &[Node], sort: bool) -> Parsed<Subroute> {
    let scope = Scope { parent: cx.directive.name, site_keys: cx.site_keys, site_files: cx.site_files, braces: true };
    let own;
    let visible = if nodes.iter().any(matchers::is_definition) {
        own = matchers::define(nodes, cx.matchers, cx.file, &scope);
        &own
    } else {
        cx.matchers
    };
    Ok(block(nodes, visible, cx.file, &scope, sort))
}

/// The lines of a block, whose definitions have been read, as a subroute.
pub fn block(
    nodes: &[Node],
    visible: &BTreeMap<String, MatcherSet>,
    file: &mut FileCx<'_>,
    scope: &Scope<'_>,
    sort: bool,
) -> Subroute {
    let mut placed = Vec::with_capacity(nodes.len());
    for node in nodes.iter().filter(|node| !matchers::is_definition(node)) {
        let (directive, values) = read(node, visible, file, scope);
        for value in values {
            match place(directive, value, node) {
                Ok(item) => placed.push(item),
                Err(_) => file.diagnostics.push(
                    Diagnostic::error(
                        "directive-not-allowed-here",
                        format!("`{}` cannot stand inside `{}`", node.name.shown(), scope.parent),
                    )
                    .at(node.span(), "")
                    .help("it configures the site as a whole: move it to the site's own lines"),
                ),
            }
        }
    }
    subroute::build(&mut placed, file, sort)
}

/// A route value with what sorting needs; gives back a value of another class.
pub fn place(directive: &'static str, value: ConfigValue, node: &Node) -> Result<Placed, ConfigValue> {
    let (value, before) = match value {
        ConfigValue::Route(route) => (RouteValue::One(route), None),
        ConfigValue::RouteBefore(other, route) => (RouteValue::One(route), Some(other)),
        ConfigValue::Routes(routes) => (RouteValue::Kept(routes), None),
        other => return Err(other),
    };
    Ok(Placed { directive, before, position: 0, value, span: Some(node.span()) })
}

fn parse(
    directive: &'static Directive,
    node: &Node,
    matchers: &BTreeMap<String, MatcherSet>,
    file: &mut FileCx<'_>,
    scope: &Scope<'_>,
) -> Parsed<Vec<ConfigValue>> {
    let mut cx = DirectiveCx {
        file,
        directive,
        node,
        args: &node.args,
        matcher: None,
        has_matcher_token: false,
        matchers,
        parent: scope.parent,
        matcher_name: "",
        site_keys: scope.site_keys,
        site_files: scope.site_files,
    };
    if directive.matcher
        && let Some((first, rest)) = node.args.split_first()
        && let Some(found) = cx.matcher_token(first)
    {
        cx.matcher = found?;
        cx.has_matcher_token = true;
        cx.args = rest;
    }
    (directive.parse)(&mut cx)
}

fn mark_places(values: &mut [ConfigValue], node: &Node) {
    let span = node.span();
    let mark = |route: &mut Route| route.handlers.iter_mut().for_each(|handler| spans::mark(handler, span));
    for value in values {
        match value {
            ConfigValue::Route(route) | ConfigValue::RouteBefore(_, route) => mark(route),
            ConfigValue::Routes(routes) => routes.iter_mut().for_each(mark),
            ConfigValue::ErrorRoute(subroute) => subroute.routes.iter_mut().for_each(mark),
            ConfigValue::Bind { .. } | ConfigValue::AccessLog(_) | ConfigValue::Tls(_) => {}
        }
    }
}

/// `handle_path` is sorted among the `handle` lines and excludes them.
fn order_name(name: &'static str) -> &'static str {
    if name == "handle_path" { "handle" } else { name }
}

fn unknown(node: &Node, file: &FileCx<'_>, scope: &Scope<'_>) -> Diagnostic {
    let mut d = Diagnostic::error("unknown-directive", format!("there is no directive `{}`", node.name.shown()))
        .at(node.name.span, "");
    let known = file.registry.directives.iter().filter(|d| d.renamed_to.is_none()).map(|d| d.name);
    if let Some(near) = nearest(node.name(), known) {
        d = d.help(format!("did you mean `{near}`?")).replace(node.name.span, near);
    } else if !scope.braces {
        d = d.help("to define a second site, put braces around the lines of each site");
    }
    d
}

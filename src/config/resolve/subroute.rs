//! Routes of one block made into a list: sorted, grouped where directives exclude one another, merged where equal.

use super::order::sort_routes;
use super::spans;
use crate::base::diagnostic::Diagnostic;
use crate::base::span::Span;
use crate::config::directive_cx::FileCx;
use crate::config::types::{MatcherSet, Route, Subroute, handler};

/// What a line gave to the route list, with what sorting needs.
#[derive(Debug, Clone)]
pub struct Placed {
    /// Name that counts for order and exclusion (`handle` for `handle_path`).
    pub directive: &'static str,
    /// The directive that it runs before, instead of where its own stands.
    pub before: Option<&'static str>,
    /// Place in the directive order; set before sorting.
    pub position: usize,
    pub value: RouteValue,
    /// Place of the line.
    pub span: Option<Span>,
}

#[derive(Debug, Clone)]
pub enum RouteValue {
    One(Route),
    /// Kept together in this order.
    Kept(Vec<Route>),
}

/// Of these directives only the first matching line of a block runs. In the order in which group numbers are given.
const EXCLUSIVE: [&str; 3] = ["handle", "rewrite", "root"];

/// Builds the list; with `sort`, directives without a place in the order are reported. `routes` stays sorted.
pub fn build(routes: &mut [Placed], cx: &mut FileCx<'_>, sort: bool) -> Subroute {
    if sort {
        for item in routes.iter_mut() {
            let name = item.before.unwrap_or(item.directive);
            match cx.order.iter().position(|n| n == name) {
                // Doubled, so that there is a place before each.
                Some(position) => item.position = 2 * position + usize::from(item.before.is_none()),
                None => cx.diagnostics.push(unordered(item.directive, item.span)),
            }
        }
        sort_routes(routes);
    }

    let mut groups: [Option<String>; 3] = [const { None }; 3];
    for (name, group) in EXCLUSIVE.iter().zip(&mut groups) {
        let several = routes.iter().filter(|item| item.directive == *name).nth(1).is_some();
        // A `rewrite` always has a group of its own, so that it is never merged into a neighbour with the same
        // matcher: after it the request may no longer match.
        if several || *name == "rewrite" {
            *group = Some(format!("group{}", cx.groups));
            cx.groups += 1;
        }
    }

    let mut list = Vec::with_capacity(routes.len());
    for item in routes.iter() {
        match &item.value {
            RouteValue::One(route) => {
                let mut route = route.clone();
                if let Some(at) = EXCLUSIVE.iter().position(|name| *name == item.directive) {
                    route.group = groups[at].clone().unwrap_or_default();
                }
                list.push(route);
            }
            RouteValue::Kept(routes) => list.extend(routes.iter().cloned()),
        }
    }
    Subroute { routes: merge_equal(list), errors: None }
}

/// Merges neighbours with the same matchers, group and finality into one route.
#[must_use]
pub fn merge_equal(routes: Vec<Route>) -> Vec<Route> {
    let mut out: Vec<Route> = Vec::with_capacity(routes.len());
    for route in routes {
        match out.last_mut() {
            Some(last)
                if last.terminal == route.terminal
                    && last.group == route.group
                    && last.matcher_sets == route.matcher_sets =>
            {
                last.handlers.extend(route.handlers);
            }
            _ => out.push(route),
        }
    }
    out
}

/// Adds a site's routes to its server's list: as they are when the site is alone and matches everything, else as one
/// final route. A host matcher inside such a site still asks for the wrapping, as at the top level it would name hosts
/// to be managed.
pub fn append_site(
    list: &mut Vec<Route>,
    subroute: Subroute,
    matchers: &[MatcherSet],
    alone: bool,
    site_span: Option<Span>,
) {
    let empty = subroute.routes.is_empty();
    if matchers.is_empty() && empty {
        return;
    }
    let names_host = || subroute.routes.iter().flat_map(|r| &r.matcher_sets).any(|set| set.contains_key("host"));
    if matchers.is_empty() && alone && !names_host() {
        list.extend(subroute.routes);
        return;
    }
    let mut handlers = Vec::new();
    if !empty {
        let mut module = handler("subroute", &subroute);
        if let Some(span) = site_span {
            spans::mark(&mut module, span);
        }
        handlers.push(module);
    }
    list.push(Route { matcher_sets: matchers.to_vec(), handlers, terminal: true, ..Route::default() });
}

fn unordered(name: &str, span: Option<Span>) -> Diagnostic {
    let mut d = Diagnostic::error("unordered-directive", format!("`{name}` cannot be used here: it is not ordered"))
        .help("put it in a `route` block, or give it a place with the global option `order`");
    if let Some(span) = span {
        d = d.at(span, "");
    }
    d
}

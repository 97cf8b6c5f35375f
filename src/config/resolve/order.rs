//! The running order of a block's routes (Caddy's `sortRoutes`): by directive order, then most specific matcher first.

use serde_json::Value;

use super::stable_sort::stable_sort_by;
use super::subroute::{Placed, RouteValue};
use crate::config::types::Route;

/// Sorts in place. `position` of every item must be set.
pub fn sort_routes(items: &mut [Placed]) {
    stable_sort_by(items, |a, b| {
        if a.position != b.position {
            return a.position < b.position;
        }
        let (RouteValue::One(route_a), RouteValue::One(route_b)) = (&a.value, &b.value) else { return false };
        let first = more_specific(route_a, route_b);
        // Values of `vars` overwrite one another, so the least specific goes first and the last match wins.
        if a.directive == "vars" { !first } else { first }
    });
}

fn more_specific(a: &Route, b: &Route) -> bool {
    if let (Some(a), Some(b)) = (single_path(a), single_path(b)) {
        let (stem_a, stem_b) = (a.strip_suffix('*').unwrap_or(a), b.strip_suffix('*').unwrap_or(b));
        if stem_a == stem_b {
            return a.len() < b.len();
        }
        return if stem_a.len() == stem_b.len() { stem_a < stem_b } else { stem_a.len() > stem_b.len() };
    }
    !a.matcher_sets.is_empty() && b.matcher_sets.is_empty()
}

/// The path of a route that has one matcher set with one non-empty path in it.
fn single_path(route: &Route) -> Option<&str> {
    let [set] = route.matcher_sets.as_slice() else { return None };
    match set.get("path").and_then(Value::as_array)?.as_slice() {
        [Value::String(path)] if !path.is_empty() => Some(path),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::config::types::MatcherSet;

    fn placed(directive: &'static str, position: usize, paths: &[&str], tag: &str) -> Placed {
        let mut route = Route { group: tag.to_owned(), ..Route::default() };
        if !paths.is_empty() {
            route.matcher_sets = vec![MatcherSet::from_iter([("path".to_owned(), json!(paths))])];
        }
        Placed { directive, before: None, position, value: RouteValue::One(route), span: None }
    }

    fn order(mut items: Vec<Placed>) -> String {
        sort_routes(&mut items);
        let tags = items.iter().map(|p| match &p.value {
            RouteValue::One(route) => route.group.clone(),
            RouteValue::Kept(_) => "kept".to_owned(),
        });
        tags.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn directive_order_first_then_exact_then_longer_then_lexical() {
        let items = vec![
            placed("respond", 9, &[], "bare"),
            placed("respond", 9, &["/a*"], "a*"),
            placed("respond", 9, &["/b"], "b"),
            placed("respond", 9, &["/abc"], "abc"),
            placed("respond", 9, &["/a"], "a"),
            placed("header", 1, &[], "header"),
        ];
        assert_eq!(order(items), "header abc a a* b bare");
    }

    #[test]
    fn several_paths_keep_text_order_among_matchers() {
        let items = vec![placed("respond", 9, &["/x", "/y"], "many"), placed("respond", 9, &["/longer"], "longer")];
        assert_eq!(order(items), "many longer");
    }

    #[test]
    fn vars_run_in_reverse() {
        let items = vec![placed("vars", 2, &[], "1"), placed("vars", 2, &[], "2"), placed("vars", 2, &["/p"], "p")];
        assert_eq!(order(items), "2 1 p");
    }
}

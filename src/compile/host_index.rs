//! Finds the sites of a request without asking each: so that cost per request does not grow with the number of sites.
//!
//! Only for lists whose routes are all terminal, which is what sites are: then no earlier route can have changed the
//! host before a later one is reached, and skipping routes that cannot match changes nothing.

use std::collections::HashMap;

use serde_json::Value;

use crate::config::types;
use crate::http::route::HostIndex;

/// Below this many routes a linear look is as fast.
const MIN_ROUTES: usize = 8;

/// The index of a list of sites, when it pays and is sound.
pub fn build(routes: &[types::Route]) -> Option<HostIndex> {
    if routes.len() < MIN_ROUTES || !routes.iter().all(|r| r.terminal) {
        return None;
    }
    let mut exact: HashMap<String, Vec<u32>> = HashMap::new();
    let mut general = Vec::new();
    for (index, route) in (0_u32..).zip(routes) {
        match exact_hosts(route) {
            Some(hosts) => {
                for host in hosts {
                    let list = exact.entry(host).or_default();
                    if list.last() != Some(&index) {
                        list.push(index);
                    }
                }
            }
            None => general.push(index),
        }
    }
    for list in exact.values_mut() {
        list.extend_from_slice(&general);
        list.sort_unstable();
    }
    let exact = exact.into_iter().map(|(host, list)| (host.into_boxed_str(), list.into_boxed_slice())).collect();
    Some(HostIndex { exact, general: general.into_boxed_slice() })
}

/// The hosts a route is limited to, when all its matcher sets name plain hosts; `None` = it may match any host.
fn exact_hosts(route: &types::Route) -> Option<Vec<String>> {
    if route.matcher_sets.is_empty() {
        return None;
    }
    let mut hosts = Vec::new();
    for set in &route.matcher_sets {
        for host in set.get("host")?.as_array()? {
            let Value::String(host) = host else { return None };
            if host.contains(['*', '{']) {
                return None;
            }
            hosts.push(crate::http::host::to_ascii(host).to_ascii_lowercase());
        }
    }
    Some(hosts)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn site(hosts: &[&str]) -> types::Route {
        let mut set = types::MatcherSet::new();
        set.insert("host".into(), hosts.iter().map(|h| Value::from(*h)).collect());
        types::Route { matcher_sets: vec![set], terminal: true, ..types::Route::default() }
    }

    #[test]
    fn exact_sites_and_general_ones_keep_their_order() {
        let mut routes: Vec<_> = (0..9).map(|i| site(&[&format!("h{i}.test")])).collect();
        routes.insert(4, site(&["*.test"]));
        routes.push(types::Route { terminal: true, ..types::Route::default() });
        let index = build(&routes).unwrap();
        assert_eq!(index.candidates("h7.test"), &[4, 8, 10]);
        assert_eq!(index.candidates("H0.Test"), &[0, 4, 10]);
        assert_eq!(index.candidates("other"), &[4, 10]);
    }

    #[test]
    fn a_list_with_a_route_that_falls_through_has_no_index() {
        let mut routes: Vec<_> = (0..9).map(|i| site(&[&format!("h{i}.test")])).collect();
        routes[3].terminal = false;
        assert!(build(&routes).is_none());
    }
}

//! The compiled route tree: immutable, shared by all workers.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use super::handler::{AsyncHandler, Step};
use super::matcher::MatcherSets;

#[derive(Default)]
pub struct RouteList {
    pub routes: Box<[Route]>,
    /// Which routes can match which host, for long lists of sites.
    pub index: Option<HostIndex>,
}

/// Routes by exact host. Sound only when every route of the list is terminal.
#[derive(Default)]
pub struct HostIndex {
    /// Lower-case host to the routes that may match it, general ones included, in order.
    pub exact: HashMap<Box<str>, Box<[u32]>>,
    /// Routes that may match any host.
    pub general: Box<[u32]>,
}

impl HostIndex {
    #[must_use]
    pub fn candidates(&self, host: &str) -> &[u32] {
        let found = if host.bytes().any(|b| b.is_ascii_uppercase()) {
            self.exact.get(host.to_ascii_lowercase().as_str())
        } else {
            self.exact.get(host)
        };
        found.unwrap_or(&self.general)
    }
}

pub struct Route {
    pub matchers: MatcherSets,
    pub handlers: Box<[Handler]>,
    /// Of the routes of one list that share a group, only the first that matches runs.
    pub group: Option<u32>,
    /// Nothing after this route's handlers runs, in this list or outside it.
    pub terminal: bool,
}

pub enum Handler {
    Step(Box<dyn Step>),
    Async(Box<dyn AsyncHandler>),
    Subroute(Subroute),
    /// A named route; set once all routes of the server are compiled, as named routes may invoke one another.
    Invoke(Arc<OnceLock<RouteList>>),
}

pub struct Subroute {
    pub routes: RouteList,
    /// Routes for errors raised inside, or after it in the same chain.
    pub errors: Option<RouteList>,
}

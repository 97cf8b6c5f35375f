//! The compiled route tree: immutable, shared by all workers.

use std::sync::{Arc, OnceLock};

use super::handler::{AsyncHandler, Step};
use super::matcher::MatcherSets;

#[derive(Default)]
pub struct RouteList {
    pub routes: Box<[Route]>,
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

//! What the unit tests of the features share: an exchange without a network, a compiled handler.

use std::rc::Rc;
use std::time::Instant;

use http::{HeaderValue, Request};
use serde_json::Value;

use super::REGISTRY;
use crate::base::body::Body;
use crate::config::compile_cx::{CompileCx, CompileError};
use crate::http::exchange::{Conn, Exchange, Peer, ServerFacts};
use crate::http::handler::Step;
use crate::http::matcher::{Matcher, MatcherSets, Verdict};
use crate::http::route::{Handler, Route, RouteList};

/// A request from 192.0.2.1 to `a.test`.
pub fn exchange(method: &str, target: &str) -> Exchange {
    let (head, ()) =
        Request::builder().method(method).uri(target).header("host", "a.test").body(()).unwrap().into_parts();
    let conn = Conn {
        peer: Peer::Ip("192.0.2.1:4444".parse().unwrap()),
        local: Some("127.0.0.1:80".parse().unwrap()),
        peer_ip_value: HeaderValue::from_static("192.0.2.1"),
        tls: None,
    };
    Exchange::new(head, Body::Empty, Rc::new(conn), Rc::new(ServerFacts::default()), Instant::now())
}

pub fn compile(config: Value) -> Result<Handler, CompileError> {
    let Value::Object(module) = config else { panic!("not an object") };
    let id = module["handler"].as_str().unwrap();
    let known = REGISTRY.handler(id).unwrap_or_else(|| panic!("no handler {id}"));
    (known.compile)(&module, &mut CompileCx::new(&REGISTRY))
}

/// A handler that is a step.
pub fn step(config: Value) -> Box<dyn Step> {
    match compile(config).unwrap() {
        Handler::Step(step) => step,
        _ => panic!("not a step"),
    }
}

/// One route without a matcher and with these handlers.
pub fn handlers(configs: Vec<Value>) -> RouteList {
    let handlers = configs.into_iter().map(|c| compile(c).unwrap()).collect();
    RouteList {
        routes: Box::new([Route { matchers: MatcherSets::default(), handlers, group: None, terminal: false }]),
        index: None,
    }
}

/// Runs a future to its end.
pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

pub fn compile_matcher(id: &str, config: Value) -> Result<Box<dyn Matcher>, CompileError> {
    let known = REGISTRY.matcher(id).unwrap_or_else(|| panic!("no matcher {id}"));
    (known.compile)(&config, &mut CompileCx::new(&REGISTRY))
}

/// Whether a matcher says yes.
pub fn matches(id: &str, config: Value, ex: &mut Exchange) -> bool {
    matches!(compile_matcher(id, config).unwrap().matches(ex), Verdict::Yes)
}

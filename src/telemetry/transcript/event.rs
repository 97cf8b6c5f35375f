//! What can happen to a request, as it is handed to the writer: no text is made before that.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, StatusCode, Version};

#[derive(Debug)]
pub struct Event {
    /// Since the request came.
    pub at: Duration,
    pub leg: Leg,
    pub what: What,
}

/// Between which two the event happened.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Leg {
    /// The client and the proxy.
    Client,
    /// The proxy and the upstream.
    Upstream,
}

#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Direction {
    Request,
    Response,
}

/// Fields without credentials.
pub type Head = Vec<(HeaderName, HeaderValue)>;

#[derive(Debug)]
pub enum What {
    Request {
        method: Method,
        /// Path and query, without credentials.
        target: String,
        version: Version,
        headers: Head,
        /// The client's address, or the upstream's.
        peer: Arc<str>,
    },
    Response {
        status: StatusCode,
        headers: Head,
        /// The upstream packed the body with gzip on our behalf: the record shows it unpacked.
        unpacked: bool,
    },
    Data(Direction, Bytes),
    /// A body's end; `bytes` counts all of it, recorded or not.
    End {
        direction: Direction,
        how: End,
        bytes: u64,
    },
    /// The authenticated caller.
    User(String),
    Error(String),
}

/// How a body ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    Complete,
    /// Its producer failed.
    Failed(String),
    /// Nobody wanted the rest: the client left.
    Gone,
}

impl Event {
    /// Bytes that it keeps in memory, about.
    #[must_use]
    pub fn weight(&self) -> usize {
        const FIXED: usize = 128;
        let headers = |h: &Head| h.iter().map(|(n, v)| n.as_str().len() + v.len() + 64).sum::<usize>();
        FIXED
            + match &self.what {
                What::Request { target, headers: h, .. } => target.len() + headers(h),
                What::Response { headers: h, .. } => headers(h),
                What::Data(_, data) => data.len(),
                What::User(text) | What::Error(text) => text.len(),
                What::End { .. } => 0,
            }
    }
}

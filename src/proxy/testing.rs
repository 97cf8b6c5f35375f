//! What the unit tests of this room share.

use std::rc::Rc;
use std::time::Instant;

use bytes::Bytes;
use http::{HeaderValue, Request};

use crate::base::body::Body;
use crate::http::body_filter::testing::byte_chunks;
use crate::http::exchange::{Conn, Exchange, Peer, ServerFacts};

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

pub fn chunks(parts: &[&'static str]) -> Body {
    byte_chunks(parts.iter().map(|p| Bytes::from_static(p.as_bytes())).collect())
}

/// Runs a future to its end on a local runtime.
pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build_local(tokio::runtime::LocalOptions::default())
        .unwrap()
        .block_on(future)
}

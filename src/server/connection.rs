//! One downstream connection from accept to close: TLS, protocol, then `h1` or `h2`.

use std::cell::RefCell;
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;

use http::HeaderValue;
use hyper_util::rt::TokioIo;
use tokio::io::AsyncReadExt;

use super::conn_state::ConnState;
use super::h1;
use super::h2;
use super::handshake;
use super::socket::{Plain, Socket, Transport};
use super::worker::{Live, Worker};
use super::wrappers;
use crate::compile::address::ListenAddr;
use crate::compile::runtime::Protocols;
use crate::http::exchange::{Conn, Peer};

/// Most header fields in a request. Go has no such limit.
pub const MAX_HEADERS: usize = 100;
/// What an HTTP/2 client says first (RFC 9113 section 3.4).
const H2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What requests of one connection share.
pub struct ConnCx {
    pub worker: Rc<Worker>,
    pub facts: Rc<Conn>,
    pub state: Rc<ConnState>,
    pub listener: ListenAddr,
    /// The runtime last used and the server found in it, so that a request need not look it up.
    pub server: RefCell<Option<(Rc<Live>, usize)>>,
}

/// Serves the connection until it ends, or is told to.
pub async fn serve(worker: Rc<Worker>, stream: Plain, listener: ListenAddr, state: Rc<ConnState>) {
    let orders = Rc::clone(&state);
    let mut connection = pin!(open(worker, stream, listener, state));
    poll_fn(|cx| match orders.poll_killed(cx) {
        Poll::Ready(()) => Poll::Ready(()),
        Poll::Pending => connection.as_mut().poll(cx),
    })
    .await;
}

async fn open(worker: Rc<Worker>, mut stream: Plain, listener: ListenAddr, state: Rc<ConnState>) {
    let live = worker.live();
    // An address just removed by a reload has no server any more: nothing can answer here.
    let Some(spec) = Worker::listener_spec(&live, &listener) else { return };
    // Gone already when its ends are not known.
    let (Some(server), Ok(mut ends)) = (live.runtime.servers.get(spec.server), stream.ends()) else { return };
    let (wrappers, max_head) = (&server.wrappers, server.limits.max_head);
    let Some(seen) = wrappers::pass(&wrappers.before_tls, &mut stream, &mut ends, max_head).await else { return };
    stream.give_back(seen);
    let (transport, tls, protocols, prefix) = if spec.tls {
        let accepted = handshake::accept(&worker, &live, &spec, stream, &state, &ends).await;
        let Some((mut stream, facts)) = accepted else { return };
        let Some(seen) = wrappers::pass(&wrappers.after_tls, &mut stream, &mut ends, max_head).await else { return };
        let h2 = facts.alpn.as_deref() == Some("h2");
        let protocols = Protocols { h1: !h2, h2, h2c: false };
        (Transport::Tls(Box::new(stream)), Some(facts), protocols, seen)
    } else {
        let Some(seen) = wrappers::pass(&wrappers.after_tls, &mut stream, &mut ends, max_head).await else { return };
        stream.give_back(seen);
        let (h2, prefix) = if spec.protocols.h2c { sniff(&mut stream).await } else { (false, Vec::new()) };
        if spec.protocols.h2c && !h2 && !spec.protocols.h1 {
            // `protocols h2c` alone: as Caddy, nothing is said to those who speak something else.
            return;
        }
        (Transport::Plain(stream), None, Protocols { h1: !h2, h2, h2c: h2 }, prefix)
    };
    let (peer, local) = ends;
    let facts = Rc::new(Conn { peer_ip_value: peer_value(&peer), peer, local, tls });
    let socket = Socket::new(transport, Rc::clone(&state), protocols.h2, prefix);
    // Known from the handshake on: when another configuration comes before the first request, that is noticed.
    let server = RefCell::new(Some((live, spec.server)));
    let cx = Rc::new(ConnCx { worker, facts, state, listener, server });
    if protocols.h2 {
        h2::serve(cx, TokioIo::new(socket), max_head).await;
    } else {
        h1::serve(cx, socket, max_head).await;
    }
}

/// Connection errors are the client's business: a broken pipe, a malformed head. Never above debug.
pub fn note(ended: hyper::Result<()>) {
    if let Err(error) = ended {
        tracing::debug!(%error, "connection ended");
    }
}

/// Reads the first bytes of a plain connection as far as they agree with the HTTP/2 preface.
async fn sniff(stream: &mut Plain) -> (bool, Vec<u8>) {
    let mut seen = Vec::new();
    let mut buf = [0_u8; 24];
    while seen.len() < H2_PREFACE.len() {
        match stream.read(&mut buf[..H2_PREFACE.len() - seen.len()]).await {
            Ok(0) | Err(_) => return (false, seen),
            Ok(n) => seen.extend_from_slice(&buf[..n]),
        }
        if !H2_PREFACE.starts_with(&seen) {
            return (false, seen);
        }
    }
    (true, seen)
}

fn peer_value(peer: &Peer) -> HeaderValue {
    match peer {
        Peer::Ip(addr) => HeaderValue::from_str(&addr.ip().to_string()).unwrap_or(HeaderValue::from_static("")),
        Peer::Unix => HeaderValue::from_static(""),
    }
}

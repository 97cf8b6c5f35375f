//! The TLS handshake of a connection, bounded: in time, in bytes, in how many are open at once, and in how long one
//! keeps a worker from its streams.
//!
//! A worker does one handshake's expensive step (a signature, a key exchange), then serves everything else that is
//! ready, then does the next: a stream waits for one signature, however many clients knock.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use rustls::ServerConfig;
use rustls::server::{Accepted, Acceptor};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_rustls::StartHandshake;
use tokio_rustls::server::TlsStream;

use super::awaited_certificate;
use super::conn_state::ConnState;
use super::socket::Plain;
use super::worker::{Live, Worker};
use crate::compile::runtime::ListenerSpec;
use crate::http::exchange::{Peer, TlsFacts};
use crate::tls::{Hello, acme};

/// Longest that a client may take for its hello, and again for the rest; `read_header` when that is shorter.
const LIMIT: Duration = Duration::from_secs(10);
/// Handshakes open at once in a worker. Each may hold 64 KiB of a hello that is not complete.
const MOST_OPEN: usize = 2048;
/// As Go answers, so that whoever forgot the `s` of `https` learns it.
const PLAIN_HTTP: &[u8] = b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n";
/// What a request in clear begins with, as far as it can be told from the five bytes of a record's head.
const METHODS: [&[u8; 5]; 8] = [b"GET /", b"HEAD ", b"POST ", b"PUT /", b"OPTIO", b"PATCH", b"DELET", b"CONNE"];
/// A fatal alert, `internal_error`: what Go sends when no policy is for a hello.
const REFUSAL: &[u8] = &[21, 3, 3, 0, 2, 2, 80];

/// The handshakes of one worker.
pub struct Handshakes {
    /// By age.
    open: RefCell<BTreeMap<u64, Weak<ConnState>>>,
    next: Cell<u64>,
    /// Who may do the next expensive step.
    turn: Semaphore,
    most: usize,
}

impl Default for Handshakes {
    fn default() -> Self {
        Self::at_most(MOST_OPEN)
    }
}

impl Handshakes {
    fn at_most(most: usize) -> Self {
        Self { open: RefCell::default(), next: Cell::new(0), turn: Semaphore::new(1), most }
    }

    /// Counts a handshake until dropped. When there are too many the oldest is ended: a client that means it is done
    /// in a round trip, so what is old is slow or does not mean it.
    fn enter(&self, state: &Rc<ConnState>) -> Entered<'_> {
        let mut open = self.open.borrow_mut();
        if open.len() >= self.most
            && let Some((_, oldest)) = open.pop_first()
            && let Some(oldest) = oldest.upgrade()
        {
            tracing::debug!("too many TLS handshakes at once: the oldest is closed");
            oldest.kill();
        }
        let number = self.next.replace(self.next.get().wrapping_add(1));
        open.insert(number, Rc::downgrade(state));
        Entered { handshakes: self, number }
    }
}

struct Entered<'a> {
    handshakes: &'a Handshakes,
    number: u64,
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        self.handshakes.open.borrow_mut().remove(&self.number);
    }
}

/// Shakes hands; `None` when the connection is to be closed, with everything said to the client that there is to say.
pub async fn accept(
    worker: &Worker,
    live: &Live,
    spec: &ListenerSpec,
    mut stream: Plain,
    state: &Rc<ConnState>,
    (peer, local): &(Peer, Option<SocketAddr>),
) -> Option<(TlsStream<Plain>, TlsFacts)> {
    let server = live.runtime.servers.get(spec.server)?;
    let tls = server.tls.as_ref()?;
    let limit = server.limits.read_header.map_or(LIMIT, |told| told.min(LIMIT));
    let mut entered = worker.handshakes.enter(state);
    let accepted = noted(timeout(limit, read_hello(&mut stream)).await)?;
    let hello = accepted.client_hello();
    if asks_for_challenge(&hello) {
        let _ = timeout(limit, answer_challenge(StartHandshake::from_parts(accepted, stream))).await;
        return None;
    }
    let about = Hello { server_name: hello.server_name(), remote: ip_of(peer), local: local.map(|l| l.ip()) };
    if let Some(waiting) = awaited_certificate::look(live, tls, &hello, &about) {
        // Who waits for a certificate is bounded elsewhere.
        drop(entered);
        if !awaited_certificate::wait(waiting, state).await {
            return None;
        }
        entered = worker.handshakes.enter(state);
    }
    let Some(config) = tls.choose(&about) else {
        tracing::debug!(server_name = about.server_name, "no TLS for this client");
        let _ = timeout(limit, stream.write_all(REFUSAL)).await;
        return None;
    };
    let start = StartHandshake::from_parts(accepted, stream);
    let stream = noted(timeout(limit, finish(worker, start, config)).await)?;
    drop(entered);
    let facts = tls_facts(stream.get_ref().1);
    Some((stream, facts))
}

/// Failed handshakes are the client's business: never above debug.
fn noted<T>(result: Result<io::Result<T>, tokio::time::error::Elapsed>) -> Option<T> {
    match result {
        Ok(Ok(done)) => Some(done),
        Ok(Err(error)) => {
            tracing::debug!(%error, "TLS handshake failed");
            None
        }
        Err(_) => {
            tracing::debug!("TLS handshake took too long");
            None
        }
    }
}

/// Reads until the client hello is complete. What is none is answered, with an alert or as HTTP.
async fn read_hello(stream: &mut Plain) -> io::Result<Accepted> {
    let mut acceptor = Acceptor::default();
    let mut buf = vec![0; 4096];
    let mut first: Vec<u8> = Vec::with_capacity(5);
    loop {
        let n = stream.read(&mut buf).await?;
        let mut rest = buf.get(..n).unwrap_or_default();
        if rest.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        first.extend(rest.iter().take(5 - first.len()));
        while !rest.is_empty() {
            acceptor.read_tls(&mut rest)?;
        }
        match acceptor.accept() {
            Ok(Some(accepted)) => return Ok(accepted),
            Ok(None) => {}
            Err((error, mut alert)) => {
                if METHODS.iter().any(|method| first == method.as_slice()) {
                    stream.write_all(PLAIN_HTTP).await?;
                    stream.shutdown().await?;
                    return Err(io::Error::other("an HTTP request in clear"));
                }
                let mut bytes = Vec::new();
                while alert.write(&mut bytes)? > 0 {}
                stream.write_all(&bytes).await?;
                return Err(io::Error::other(error));
            }
        }
    }
}

async fn finish(
    worker: &Worker,
    start: StartHandshake<Plain>,
    config: Arc<ServerConfig>,
) -> io::Result<TlsStream<Plain>> {
    let turn = worker.handshakes.turn.acquire().await.map_err(io::Error::other)?;
    let mut rest = pin!(start.into_stream(config));
    // Signs and makes the keys; then only the client's answer is waited for.
    let first = std::future::poll_fn(|cx| Poll::Ready(rest.as_mut().poll(cx))).await;
    // Comes back when everything that was ready has run and sockets were looked at.
    tokio::task::yield_now().await;
    drop(turn);
    match first {
        Poll::Ready(done) => done,
        Poll::Pending => rest.await,
    }
}

/// Whether a CA asks for the proof of a name (RFC 8737): then nothing else is spoken.
fn asks_for_challenge(hello: &rustls::server::ClientHello<'_>) -> bool {
    hello.alpn().is_some_and(|mut offered| offered.any(|protocol| protocol == acme::ACME_TLS))
}

async fn answer_challenge(start: StartHandshake<Plain>) {
    let config = start.client_hello().server_name().and_then(|name| acme::Board::shared().tls_answer(name));
    let Some(config) = config else { return };
    match start.into_stream(config).await {
        Ok(mut stream) => {
            let _ = stream.shutdown().await;
        }
        Err(error) => tracing::debug!(%error, "TLS challenge handshake failed"),
    }
}

fn ip_of(peer: &Peer) -> Option<IpAddr> {
    match peer {
        Peer::Ip(address) => Some(address.ip()),
        Peer::Unix => None,
    }
}

fn tls_facts(session: &rustls::ServerConnection) -> TlsFacts {
    TlsFacts {
        version: match session.protocol_version() {
            Some(rustls::ProtocolVersion::TLSv1_2) => "tls1.2",
            Some(rustls::ProtocolVersion::TLSv1_3) => "tls1.3",
            _ => "",
        },
        cipher: session.negotiated_cipher_suite().map_or("", |s| cipher_name(s.suite())),
        server_name: session.server_name().map(str::to_owned),
        alpn: session.alpn_protocol().map(|p| String::from_utf8_lossy(p).into_owned()),
        resumed: session.handshake_kind() == Some(rustls::HandshakeKind::Resumed),
        client_certs: session.peer_certificates().unwrap_or(&[]).iter().map(|c| c.to_vec()).collect(),
    }
}

/// The IANA name, as Go and Caddy show it.
fn cipher_name(suite: rustls::CipherSuite) -> &'static str {
    use rustls::CipherSuite as S;
    match suite {
        S::TLS13_AES_128_GCM_SHA256 => "TLS_AES_128_GCM_SHA256",
        S::TLS13_AES_256_GCM_SHA384 => "TLS_AES_256_GCM_SHA384",
        S::TLS13_CHACHA20_POLY1305_SHA256 => "TLS_CHACHA20_POLY1305_SHA256",
        other => other.as_str().unwrap_or(""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::task::{Context, Waker};

    #[test]
    fn when_too_many_are_open_the_oldest_ends() {
        let handshakes = Handshakes::at_most(2);
        let states: Vec<_> = (0..4).map(|fd| Rc::new(ConnState::new(fd, 0, Rc::default()))).collect();
        let told = |i: usize| states[i].poll_killed(&Context::from_waker(Waker::noop())).is_ready();
        let first = handshakes.enter(&states[0]);
        let second = handshakes.enter(&states[1]);
        drop(second);
        let third = handshakes.enter(&states[2]);
        assert!(!told(0) && !told(1) && !told(2));
        let fourth = handshakes.enter(&states[3]);
        assert!(told(0) && !told(2) && !told(3));
        drop((first, third, fourth));
        assert!(handshakes.open.borrow().is_empty());
    }
}

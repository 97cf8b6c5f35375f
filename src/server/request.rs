//! One request: its head is checked, becomes an exchange, walks the route tree, and its outcome becomes a response.

use std::cell::Cell;
use std::fmt;
use std::rc::Rc;
use std::time::Instant;

use http::{HeaderValue, Method, Response, StatusCode, Uri, Version, header};

use super::access_log::Pending;
use super::conn_state::ConnState;
use super::connection::ConnCx;
use super::h2_message;
use super::response_body::{self, End, OnEnd, ResponseBody};
use super::worker::{Live, current_tick};
use crate::base::body::Body;
use crate::http::exchange::{Conn, Exchange, Peer, PendingUpgrade};
use crate::http::walker::{self, Outcome};
use crate::tls::acme::Board;

/// The connection is closed (over HTTP/2: the stream reset) without an answer.
#[derive(Debug)]
pub struct Aborted;

impl fmt::Display for Aborted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("aborted by the configuration")
    }
}

impl std::error::Error for Aborted {}

/// A request as its connection read it.
pub struct Incoming {
    pub head: http::request::Parts,
    pub body: Body,
    /// Counts what is read of the body.
    pub bytes_read: Rc<Cell<u64>>,
    /// There when the client asks for another protocol.
    pub upgrade: Option<Box<dyn PendingUpgrade>>,
}

/// Answers one request.
pub async fn serve(cx: Rc<ConnCx>, incoming: Incoming) -> Result<Response<ResponseBody>, Aborted> {
    let started = Instant::now();
    let mut active = Active::new(&cx.state);
    let Incoming { mut head, body, bytes_read, upgrade } = incoming;
    if head.version == Version::HTTP_2 && !active.hold(&head) {
        return Ok(refuse(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE));
    }
    if let Err(status) = normalise(&mut head) {
        return Ok(refuse(status));
    }
    if head.method == Method::OPTIONS && head.uri.path() == "*" {
        // About the server as a whole (RFC 9110 §9.3.7); answered as Go's server does.
        return Ok(Response::new(ResponseBody::new(Body::Empty, Some(Box::new(active)))));
    }
    let (live, index) = match find_server(&cx) {
        Ok(found) => found,
        Err(NoServer::Gone) => return Err(Aborted),
        Err(NoServer::OtherClients) => {
            // A client that is let in now shakes hands anew.
            cx.state.finish();
            return Ok(refuse(StatusCode::MISDIRECTED_REQUEST));
        }
    };
    let (Some(server), Some(facts)) = (live.runtime.servers.get(index), live.facts.get(index)) else {
        return Err(Aborted);
    };
    if head.uri.path().starts_with(CHALLENGES)
        && let Some(answer) = challenge_answer(&head)
    {
        return Ok(Response::new(ResponseBody::new(Body::from(answer), Some(Box::new(active)))));
    }
    drop_underscored(&mut head.headers, &facts.underscored_headers);
    if server.strict_sni_host && !host_is_handshake_name(&head, &cx.facts) {
        return Ok(refuse(StatusCode::MISDIRECTED_REQUEST));
    }

    let head_only = head.method == Method::HEAD;
    let mut pending = {
        let mut ex = Exchange::new(head, body, Rc::clone(&cx.facts), Rc::clone(facts), started);
        ex.bytes_read = bytes_read;
        ex.upgrade = upgrade;
        Pending::new(&live, index, ex)
    };
    let Some(ex) = pending.exchange() else { return Err(Aborted) };
    let mut outcome = walker::run(&server.routes, server.errors.as_ref(), ex).await;
    if let Some(transcript) = ex.transcript.take() {
        transcript.answered(ex, &mut outcome);
    }
    let (response, aborted) = match outcome {
        Outcome::Response(response) => (response, false),
        Outcome::Abort => (Response::new(Body::Empty), true),
    };
    let on_end = pending.respond(&response, aborted, active);
    if aborted {
        on_end.ended(End::ClientGone, 0);
        return Err(Aborted);
    }
    let (mut head, body) = response.into_parts();
    let body = response_body::fitting(head_only, &mut head, body);
    if head.status == StatusCode::NOT_MODIFIED {
        // What it would describe is not sent (RFC 9110 §15.4.5); Go's server removes it too.
        head.headers.remove(header::CONTENT_TYPE);
    }
    Ok(Response::from_parts(head, ResponseBody::new(body, Some(on_end))))
}

/// Where a CA asks for the answers of challenges over HTTP (RFC 8555 section 8.3).
const CHALLENGES: &str = "/.well-known/acme-challenge/";

/// The answer to a challenge that is open for this host; before any route, as in Caddy: no site may hide it.
fn challenge_answer(head: &http::request::Parts) -> Option<String> {
    let host = head.headers.get(header::HOST).and_then(|v| v.to_str().ok())?;
    let (host, _) = crate::http::exchange::split_host_port(host);
    (head.method == Method::GET).then(|| Board::shared().http_answer(host, head.uri.path())).flatten()
}

/// Marks the connection as serving until dropped.
pub struct Active {
    state: Rc<ConnState>,
    /// Room taken for the head.
    head: usize,
}

impl Active {
    fn new(state: &Rc<ConnState>) -> Self {
        state.request_started(current_tick());
        Self { state: Rc::clone(state), head: 0 }
    }

    /// False when the head is more than the streams of its connection may have us hold together.
    fn hold(&mut self, head: &http::request::Parts) -> bool {
        let held = self.state.hold_head(h2_message::head_size(head));
        self.head = held.unwrap_or(0);
        held.is_some()
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        self.state.head_dropped(self.head);
        self.state.request_ended(current_tick());
    }
}

impl OnEnd for Active {
    fn ended(self: Box<Self>, _: End, _: u64) {}
}

/// The server for this connection in the runtime of this moment.
fn find_server(cx: &ConnCx) -> Result<(Rc<Live>, usize), NoServer> {
    let live = cx.worker.live();
    if let Some((known, index)) = &*cx.server.borrow()
        && Rc::ptr_eq(known, &live)
    {
        return Ok((live, *index));
    }
    let index = match live.runtime.listeners.get(&cx.listener) {
        Some(spec) => spec.server,
        // The address is gone from the new configuration: its open connections finish on the old one.
        None => return cx.server.borrow().clone().ok_or(NoServer::Gone),
    };
    if !lets_client_in(&live, index, &cx.facts) {
        return Err(NoServer::OtherClients);
    }
    *cx.server.borrow_mut() = Some((Rc::clone(&live), index));
    Ok((live, index))
}

enum NoServer {
    Gone,
    /// The configuration came after the handshake, and asks for a client certificate that this one did not show.
    OtherClients,
}

/// Sites that ask for client certificates rely on the handshake having done so.
fn lets_client_in(live: &Live, index: usize, conn: &Conn) -> bool {
    let server = live.runtime.servers.get(index).and_then(|server| server.tls.as_ref());
    let (Some(server), Some(shaken)) = (server, &conn.tls) else { return true };
    let remote = match &conn.peer {
        Peer::Ip(address) => Some(address.ip()),
        Peer::Unix => None,
    };
    let local = conn.local.map(|local| local.ip());
    let hello = crate::tls::Hello { server_name: shaken.server_name.as_deref(), remote, local };
    server.admits(&hello, &shaken.client_certs)
}

/// Brings the head into the one form that handlers know: origin-form target and exactly one `host` field.
/// What two parsers could read in two ways is refused with the status given (RFC 9112 §3.2).
fn normalise(head: &mut http::request::Parts) -> Result<(), StatusCode> {
    const BAD: StatusCode = StatusCode::BAD_REQUEST;
    if head.method == Method::CONNECT {
        // A tunnel through us is never meant; extended CONNECT (RFC 8441) is not offered.
        return Err(BAD);
    }
    if head.version == Version::HTTP_2 {
        h2_message::receive(head)?;
    }
    let mut hosts = head.headers.get_all(header::HOST).iter();
    let host = hosts.next();
    if hosts.next().is_some() {
        return Err(BAD);
    }
    match head.uri.authority() {
        // Absolute form, or HTTP/2: the target's authority is the host, whatever the field says (RFC 9112 §3.2.2).
        Some(authority) => {
            // Without a scheme it is the authority form, which is for CONNECT alone; other schemes are not proxied.
            let ours = matches!(head.uri.scheme_str(), Some("http" | "https"));
            if !ours || authority.as_str().contains('@') || host.is_none() && head.version == Version::HTTP_11 {
                return Err(BAD);
            }
            let value = HeaderValue::from_str(authority.as_str()).map_err(|_| BAD)?;
            head.headers.insert(header::HOST, value);
            let origin =
                head.uri.path_and_query().map_or("/", |p| if p.as_str().is_empty() { "/" } else { p.as_str() });
            head.uri = Uri::try_from(origin).map_err(|_| BAD)?;
        }
        None => match host {
            None if head.version > Version::HTTP_10 => return Err(BAD),
            None => {
                head.headers.insert(header::HOST, HeaderValue::from_static(""));
            }
            Some(host) if !valid_host(host.as_bytes()) => return Err(BAD),
            Some(_) => {}
        },
    }
    // Authority form (`example.com:80`) and asterisk form other than OPTIONS have no meaning here.
    let path = head.uri.path();
    if !(path.starts_with('/') || path == "*" && head.method == Method::OPTIONS) {
        return Err(BAD);
    }
    Ok(())
}

/// `X_Api_Key` and `X-Api-Key` are one name to CGI-like applications, so a field with an underscore could pass for one
/// that we check or remove. Dropped before anything looks, as Caddy 2.11.7 does (nginx too, by default).
fn drop_underscored(headers: &mut http::HeaderMap, expected: &[http::HeaderName]) {
    let unwanted =
        |n: &&http::HeaderName| memchr::memchr(b'_', n.as_str().as_bytes()).is_some() && !expected.contains(n);
    while let Some(name) = headers.keys().find(unwanted).cloned() {
        headers.remove(&name);
    }
}

/// Whether the request is for the name that the TLS handshake chose its policy by: otherwise a site that asks for
/// client certificates could be reached through the handshake of one that does not.
fn host_is_handshake_name(head: &http::request::Parts, conn: &Conn) -> bool {
    let Some(tls) = &conn.tls else { return true };
    let host = head.headers.get(header::HOST).and_then(|v| v.to_str().ok()).unwrap_or("");
    let (host, _) = crate::http::exchange::split_host_port(host);
    host.eq_ignore_ascii_case(tls.server_name.as_deref().unwrap_or(""))
}

/// `uri-host [":" port]` (RFC 9110 §7.2): nothing that could end the field, name a user or a path.
fn valid_host(host: &[u8]) -> bool {
    (1..=255 + 6).contains(&host.len())
        && host.iter().all(|b| {
            b.is_ascii_alphanumeric()
                || matches!(b, b'-' | b'.' | b'_' | b'~' | b':' | b'[' | b']' | b'%' | b'!' | b'$')
                || matches!(b, b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'=')
        })
}

/// An answer before any route: the request cannot be understood, so the connection ends with it.
fn refuse(status: StatusCode) -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::new(Body::Empty, None));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;

    fn head(request: http::request::Builder) -> http::request::Parts {
        request.body(()).unwrap().into_parts().0
    }

    #[test]
    fn fields_with_an_underscore_are_dropped() {
        let mut parts = head(
            Request::get("/").header("host", "a").header("x_api_key", "k").header("x_let_in", "1").header("x-b", "1"),
        );
        drop_underscored(&mut parts.headers, &[http::HeaderName::from_static("x_let_in")]);
        let mut names: Vec<&str> = parts.headers.keys().map(http::HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["host", "x-b", "x_let_in"]);
    }

    #[test]
    fn the_absolute_form_becomes_the_origin_form_of_its_own_host() {
        let mut parts = head(Request::get("http://abs.test/x?y").header("host", "other"));
        assert_eq!(normalise(&mut parts), Ok(()));
        assert_eq!(
            (parts.uri.to_string().as_str(), &parts.headers["host"]),
            ("/x?y", &HeaderValue::from_static("abs.test"))
        );
    }

    #[test]
    fn hosts_that_say_two_things_or_nothing_are_refused() {
        for hosts in [&[][..], &["a", "b"], &["a/b"], &["a b"], &[""]] {
            let mut request = Request::get("/");
            for host in hosts {
                request = request.header("host", *host);
            }
            assert_eq!(normalise(&mut head(request)), Err(StatusCode::BAD_REQUEST), "{hosts:?}");
        }
    }
}

//! Tells the access log how each request ended, and the error log why.
//!
//! What the client sent is copied before handlers may change it, without credentials, into one flat buffer: no header
//! map is cloned and the connection's read buffer is not kept alive by a long stream. Nothing is formatted until the
//! response has ended.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::net::IpAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderName, Method, Uri, Version, header};

use super::request::Active;
use super::response_body::{End, OnEnd};
use super::worker::Live;
use crate::base::body::Body;
use crate::http::error::HandlerError;
use crate::http::exchange::{Conn, Exchange, LogField, LogNote, Peer, Response, TlsFacts};
use crate::http::placeholder::{Scope, Unknown};
use crate::http::walker::{DefaultErrorAnswer, Unhandled};
use crate::telemetry::access::AccessLogs;
use crate::telemetry::credentials::without_credentials;
use crate::telemetry::encoder::{Entry, now};
use crate::telemetry::level::Level;
use crate::telemetry::line::{Line, Value};
use crate::telemetry::query;

/// Status shown for a request whose client left before a response was there (nginx's number, as in Caddy).
const CLIENT_GONE: u16 = 499;
/// Most bytes of the headers of one side that an entry shows; the lines beyond are left out.
const MAX_HEADERS: usize = 32 << 10;

/// A request that handlers are at work on. Dropped before it has a response, it is logged as left by its client.
pub struct Pending {
    live: Rc<Live>,
    server: usize,
    /// `None` when the host has no access log.
    head: Option<RequestHead>,
    /// Taken when the response is there.
    ex: Option<Exchange>,
}

impl Pending {
    pub fn new(live: &Rc<Live>, server: usize, ex: Exchange) -> Self {
        let logged = live.runtime.servers.get(server).is_some_and(|s| s.logs.logs_host(ex.host()));
        let head = logged.then(|| RequestHead::copy(&ex));
        Self { live: Rc::clone(live), server, head, ex: Some(ex) }
    }

    /// The exchange, until a response is there.
    pub fn exchange(&mut self) -> Option<&mut Exchange> {
        self.ex.as_mut()
    }

    /// Goes on with the response's head. `aborted`: the connection is closed without one.
    pub fn respond(mut self, response: &Response, aborted: bool, active: Active) -> Box<dyn OnEnd> {
        let entry = self.ex.take().and_then(|mut ex| {
            let head = self.head.take();
            self.log_error(&mut ex, head.as_ref(), response);
            let head = head.filter(|_| !ex.log.skip)?;
            let unhandled = response.extensions().get::<Unhandled>().is_some();
            let status = if aborted || unhandled { 0 } else { response.status().as_u16() };
            let mut record = Record::new(head, ex, status);
            record.unhandled = unhandled;
            if !aborted {
                record.head.add_response(response.headers(), record.credentials);
            }
            if record.deferred.is_some() {
                record.response_headers = Some(response.headers().clone());
            }
            Some(record)
        });
        match entry {
            None => Box::new(Quiet { _live: Rc::clone(&self.live), _active: active }),
            Some(record) => {
                Box::new(LogOnEnd { live: Rc::clone(&self.live), server: self.server, record, _active: active })
            }
        }
    }

    fn log_error(&self, ex: &mut Exchange, head: Option<&RequestHead>, response: &Response) {
        let Some(error) = ex.error.take() else { return };
        let Some(server) = self.live.runtime.servers.get(self.server) else { return };
        // An error that error routes answered is no more than a note.
        let unanswered = response.extensions().get::<DefaultErrorAnswer>().is_some();
        let level = if unanswered && error.status >= 500 { Level::Error } else { Level::Debug };
        let elapsed = ex.started.elapsed();
        for logger in server.logs.loggers(ex.host()) {
            for log in logger.errors.iter().filter(|log| log.takes(level)) {
                let message = if error.message.is_empty() { error.status_text() } else { &error.message };
                let entry = Entry { level, unix_nanos: now(), logger: &logger.error_name, message };
                log.write(&entry, |line| write_error(line, ex, head, &error, elapsed));
            }
        }
        ex.error = Some(error);
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        let Some(mut ex) = self.ex.take() else { return };
        if let Some(transcript) = ex.transcript.take() {
            transcript.abandoned(&ex);
        }
        let Some(head) = self.head.take() else { return };
        if !ex.log.skip
            && let Some(server) = self.live.runtime.servers.get(self.server)
        {
            Record::new(head, ex, CLIENT_GONE).write(&server.logs, 0);
        }
    }
}

/// Keeps the runtime and the mark of activity, and logs nothing.
struct Quiet {
    _live: Rc<Live>,
    _active: Active,
}

impl OnEnd for Quiet {
    fn ended(self: Box<Self>, _: End, _: u64) {}
}

/// Writes the entry once the response has ended.
struct LogOnEnd {
    live: Rc<Live>,
    server: usize,
    record: Record,
    _active: Active,
}

impl OnEnd for LogOnEnd {
    fn ended(self: Box<Self>, _: End, bytes: u64) {
        if let Some(server) = self.live.runtime.servers.get(self.server) {
            self.record.write(&server.logs, bytes);
        }
    }
}

/// What the entry of a request is made of.
struct Record {
    head: RequestHead,
    method: Method,
    uri: Uri,
    version: Version,
    conn: Rc<Conn>,
    client_ip: Option<IpAddr>,
    credentials: bool,
    started: Instant,
    bytes_read: Rc<Cell<u64>>,
    user_id: String,
    note: LogNote,
    status: u16,
    /// No handler answered.
    unhandled: bool,
    /// Kept when fields are worked out at the end, with the response's headers.
    deferred: Option<Box<Exchange>>,
    response_headers: Option<HeaderMap>,
}

impl Record {
    fn new(head: RequestHead, mut ex: Exchange, status: u16) -> Self {
        let note = std::mem::take(&mut ex.log);
        // What the request still holds of the connection goes now, whatever the entry needs of the rest.
        ex.body = Body::Empty;
        ex.upgrade = None;
        ex.held_response = None;
        ex.stages.clear();
        Self {
            head,
            method: ex.original.method.clone(),
            uri: ex.original.uri.clone(),
            version: ex.version,
            conn: Rc::clone(&ex.conn),
            client_ip: ex.client_ip(),
            credentials: ex.server.log_credentials,
            started: ex.started,
            bytes_read: Rc::clone(&ex.bytes_read),
            // Cloned, as fields worked out at the end may show it too.
            user_id: ex.user.as_ref().map(|u| u.id.clone()).unwrap_or_default(),
            deferred: note.fields.iter().any(|(_, f)| !matches!(f, LogField::Text(_))).then(|| Box::new(ex)),
            note,
            status,
            unhandled: false,
            response_headers: None,
        }
    }

    fn write(self, logs: &AccessLogs, size: u64) {
        let level = if self.status >= 500 { Level::Error } else { Level::Info };
        let message = if self.unhandled { "NOP" } else { "handled request" };
        let elapsed = self.started.elapsed();
        let time = now();
        let write = |logger: &crate::telemetry::access::Logger| {
            for log in logger.access.iter().filter(|log| log.takes(level)) {
                let entry = Entry { level, unix_nanos: time, logger: &logger.access_name, message };
                log.write(&entry, |line| self.write_fields(line, elapsed, size));
            }
        };
        if self.note.loggers.is_empty() {
            logs.loggers(self.head.host_name()).iter().for_each(|logger| write(logger));
        } else {
            self.note.loggers.iter().for_each(|name| write(&logs.named(name)));
        }
    }

    fn write_fields(&self, line: &mut Line<'_>, elapsed: Duration, size: u64) {
        let request = RequestLine {
            conn: &self.conn,
            client_ip: self.client_ip,
            version: self.version,
            method: &self.method,
            uri: &self.uri,
            credentials: self.credentials,
            hidden: &self.note.secret_headers,
        };
        line.object("request", |line| request.write(line, &self.head));
        line.number("bytes_read", self.bytes_read.get());
        line.text("user_id", &self.user_id);
        line.duration("duration", elapsed);
        line.number("size", size);
        line.number("status", self.status.into());
        line.object("resp_headers", |line| self.head.write_headers(line, Side::Response, &[]));
        self.write_added(line);
    }

    /// `log_append`: what was settled at once comes first; of the rest the inner handlers come before the outer ones.
    fn write_added(&self, line: &mut Line<'_>) {
        for (key, field) in &self.note.fields {
            if let LogField::Text(text) = field {
                line.text(key, text);
            }
        }
        let Some(ex) = self.deferred.as_deref() else { return };
        let scope = Scope { exchange: ex, response_headers: self.response_headers.as_ref() };
        for (key, field) in self.note.fields.iter().rev() {
            match field {
                LogField::Text(_) => {}
                LogField::Deferred(template) => line.text(key, &template.render_in(scope, Unknown::Empty)),
                LogField::Variable(name) => line.text(key, ex.var(name).unwrap_or(name)),
            }
        }
    }
}

fn write_error(
    line: &mut Line<'_>,
    ex: &Exchange,
    head: Option<&RequestHead>,
    error: &HandlerError,
    elapsed: Duration,
) {
    let request = RequestLine {
        conn: &ex.conn,
        client_ip: ex.client_ip(),
        version: ex.version,
        method: &ex.original.method,
        uri: &ex.original.uri,
        credentials: ex.server.log_credentials,
        hidden: &ex.log.secret_headers,
    };
    match head {
        Some(head) => line.object("request", |line| request.write(line, head)),
        // Without access log nothing was copied, and handlers may have put secrets into the headers since.
        None => line.object("request", |line| request.write_start(line, ex.host_port().as_bytes())),
    }
    line.duration("duration", elapsed);
    line.number("status", error.status.into());
    line.text("err_id", &error_id());
    // The client was told this one.
    if let Some(id) = ex.id.get() {
        line.text("request_id", id);
    }
    line.text("err_trace", error.origin);
}

/// Nine letters and digits that are hard to mistake for each other, as Caddy's.
fn error_id() -> String {
    const LETTERS: &[u8] = b"abcdefghijkmnpqrstuvwxyz0123456789";
    (0..9).filter_map(|_| LETTERS.get(fastrand::usize(..LETTERS.len()))).map(|b| char::from(*b)).collect()
}

/// What an entry shows of a request beside its headers.
struct RequestLine<'r> {
    conn: &'r Conn,
    client_ip: Option<IpAddr>,
    version: Version,
    method: &'r Method,
    uri: &'r Uri,
    credentials: bool,
    /// Headers that a handler found to hold credentials.
    hidden: &'r [HeaderName],
}

impl RequestLine<'_> {
    fn write(&self, line: &mut Line<'_>, head: &RequestHead) {
        self.write_start(line, head.host());
        let hidden = if self.credentials { &[] } else { self.hidden };
        line.object("headers", |line| head.write_headers(line, Side::Request, hidden));
        if head.chunked {
            line.field("transfer_encoding", Value::List(&[b"chunked"]));
        }
        if let Some(tls) = &self.conn.tls {
            line.object("tls", |line| write_tls(line, tls));
        }
    }

    fn write_start(&self, line: &mut Line<'_>, host: &[u8]) {
        match &self.conn.peer {
            Peer::Ip(addr) => {
                line.field("remote_ip", Value::Text(self.conn.peer_ip_value.as_bytes()));
                line.number_text("remote_port", addr.port().into());
            }
            // As Go names the peer of a unix socket.
            Peer::Unix => {
                line.text("remote_ip", "@");
                line.text("remote_port", "");
            }
        }
        match (self.client_ip, &self.conn.peer) {
            // Formatted once a connection.
            (Some(ip), Peer::Ip(peer)) if ip == peer.ip() => {
                line.field("client_ip", Value::Text(self.conn.peer_ip_value.as_bytes()));
            }
            (Some(ip), _) => line.text("client_ip", &ip.to_string()),
            (None, _) => line.text("client_ip", ""),
        }
        line.text("proto", if self.version == Version::HTTP_2 { "HTTP/2.0" } else { proto(self.version) });
        line.text("method", self.method.as_str());
        line.field("host", Value::Text(host));
        let mut target = String::new();
        let target = match (self.uri.query(), self.uri.path_and_query()) {
            (None, Some(path)) => path.as_str(),
            (_, Some(all)) if self.credentials => all.as_str(),
            (_, Some(all)) => {
                target.push_str(&query::redact(all.as_str()));
                &target
            }
            (_, None) => "",
        };
        line.text("uri", target);
    }
}

fn proto(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "HTTP/1.0",
        _ => "HTTP/1.1",
    }
}

fn write_tls(line: &mut Line<'_>, tls: &TlsFacts) {
    line.bool("resumed", tls.resumed);
    line.number("version", if tls.version == "tls1.2" { 0x0303 } else { 0x0304 });
    line.number("cipher_suite", cipher_number(tls.cipher).into());
    line.text("proto", tls.alpn.as_deref().unwrap_or(""));
    line.text("server_name", tls.server_name.as_deref().unwrap_or(""));
    line.bool("ech", false);
    let Some(der) = tls.client_certs.first() else { return };
    if let Ok((_, certificate)) = x509_parser::parse_x509_certificate(der) {
        let name = certificate.subject().iter_common_name().last().and_then(|n| n.as_str().ok()).unwrap_or("");
        line.text("client_common_name", name);
        line.text("client_serial", &certificate.serial.to_string());
    }
}

/// IANA's number of a cipher suite that rustls speaks; 0 for another.
fn cipher_number(name: &str) -> u16 {
    match name {
        "TLS_AES_128_GCM_SHA256" => 0x1301,
        "TLS_AES_256_GCM_SHA384" => 0x1302,
        "TLS_CHACHA20_POLY1305_SHA256" => 0x1303,
        "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256" => 0xc02b,
        "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384" => 0xc02c,
        "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256" => 0xc02f,
        "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384" => 0xc030,
        "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256" => 0xcca8,
        "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256" => 0xcca9,
        _ => 0,
    }
}

thread_local! {
    /// Buffers of ended requests, for those to come.
    static SPARE: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

const MOST_SPARE: usize = 64;
const LARGEST_SPARE: usize = 4 << 10;

enum Side {
    Request,
    Response,
}

/// Host and headers as they came, and later the response's: `name length, value length, name, value` one after the
/// other. Names are in Go's form, values of credentials replaced.
struct RequestHead {
    bytes: Vec<u8>,
    host: usize,
    /// Where the response's headers begin.
    response: usize,
    chunked: bool,
}

impl RequestHead {
    fn copy(ex: &Exchange) -> Self {
        let mut bytes = SPARE.with(|spare| spare.borrow_mut().pop()).unwrap_or_default();
        bytes.clear();
        let host = ex.headers.get(header::HOST).map_or(&b""[..], |h| h.as_bytes());
        bytes.extend_from_slice(host);
        let mut head = Self { host: host.len(), response: 0, chunked: false, bytes };
        // Worked out now: handlers may change the headers that say it.
        ex.client_ip();
        head.add(&ex.headers, ex.server.log_credentials, |name| *name != header::HOST);
        head.chunked = ex.headers.contains_key(header::TRANSFER_ENCODING);
        head.response = head.bytes.len();
        head
    }

    fn add_response(&mut self, headers: &HeaderMap, credentials: bool) {
        self.add(headers, credentials, |_| true);
    }

    fn add(&mut self, headers: &HeaderMap, credentials: bool, shown: impl Fn(&HeaderName) -> bool) {
        let start = self.bytes.len();
        for (name, value) in headers {
            if !shown(name) || *name == header::TRANSFER_ENCODING {
                continue;
            }
            let safe = if credentials { Cow::Borrowed(value.as_bytes()) } else { without_credentials(name, value) };
            let value: &[u8] = &safe;
            let name = name.as_str();
            let (Ok(name_length), Ok(value_length)) = (u16::try_from(name.len()), u32::try_from(value.len())) else {
                continue;
            };
            if self.bytes.len() - start + name.len() + value.len() > MAX_HEADERS {
                break;
            }
            self.bytes.extend_from_slice(&name_length.to_ne_bytes());
            self.bytes.extend_from_slice(&value_length.to_ne_bytes());
            let mut upper = true;
            self.bytes.extend(name.bytes().map(|b| {
                let shown = if upper { b.to_ascii_uppercase() } else { b };
                upper = b == b'-';
                shown
            }));
            self.bytes.extend_from_slice(value);
        }
    }

    fn host(&self) -> &[u8] {
        self.bytes.get(..self.host).unwrap_or(b"")
    }

    /// Without port.
    fn host_name(&self) -> &str {
        crate::http::exchange::split_host_port(std::str::from_utf8(self.host()).unwrap_or("")).0
    }

    /// `hidden`: headers whose values are not shown.
    fn write_headers(&self, line: &mut Line<'_>, side: Side, hidden: &[HeaderName]) {
        let bytes = match side {
            Side::Request => self.bytes.get(self.host..self.response),
            Side::Response => self.bytes.get(self.response..),
        };
        let is_hidden = |name| hidden.iter().any(|h| h.as_str().as_bytes().eq_ignore_ascii_case(name));
        let shown = |(name, value)| (name, if is_hidden(name) { query::REDACTED.as_bytes() } else { value });
        let mut lines = HeaderLines(bytes.unwrap_or(b"")).map(shown).peekable();
        while let Some((name, value)) = lines.next() {
            let name = std::str::from_utf8(name).unwrap_or("");
            if lines.peek().is_none_or(|(next, _)| *next != name.as_bytes()) {
                line.field(name, Value::List(&[value]));
                continue;
            }
            let mut values = smallvec::SmallVec::<[&[u8]; 8]>::new();
            values.push(value);
            while let Some((_, value)) = lines.next_if(|(next, _)| *next == name.as_bytes()) {
                // Of a credential in several lines one mark is enough, as in Caddy.
                if value != query::REDACTED.as_bytes() {
                    values.push(value);
                }
            }
            line.field(name, Value::List(&values));
        }
    }
}

impl Drop for RequestHead {
    fn drop(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        if bytes.capacity() <= LARGEST_SPARE {
            let _ = SPARE.try_with(|spare| {
                let mut spare = spare.borrow_mut();
                if spare.len() < MOST_SPARE {
                    spare.push(bytes);
                }
            });
        }
    }
}

struct HeaderLines<'b>(&'b [u8]);

impl<'b> Iterator for HeaderLines<'b> {
    type Item = (&'b [u8], &'b [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (name_length, rest) = self.0.split_first_chunk::<2>()?;
        let (value_length, rest) = rest.split_first_chunk::<4>()?;
        let (name, rest) = rest.split_at_checked(u16::from_ne_bytes(*name_length).into())?;
        let (value, rest) = rest.split_at_checked(usize::try_from(u32::from_ne_bytes(*value_length)).ok()?)?;
        self.0 = rest;
        Some((name, value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::exchange::testing::exchange;
    use crate::telemetry::encoder::Encoder;
    use http::HeaderValue;

    fn shown(head: &RequestHead, side: Side) -> serde_json::Value {
        let mut out = Vec::new();
        let entry = Entry { level: Level::Info, unix_nanos: 0, logger: "", message: "" };
        Encoder::default().encode(
            &entry,
            |line| line.object("h", |line| head.write_headers(line, side, &[])),
            &mut out,
        );
        serde_json::from_slice::<serde_json::Value>(&out).unwrap()["h"].take()
    }

    #[test]
    fn headers_are_copied_in_gos_form_without_credentials() {
        let mut ex = exchange(
            "GET",
            "/",
            &[
                ("host", "a.test:80"),
                ("x-many", "1"),
                ("x-many", "2"),
                ("authorization", "Bearer s"),
                ("cookie", "a=1"),
                ("cookie", "b=2"),
                ("x-api-key", "s"),
                ("x-goog-api-key", "s"),
                ("transfer-encoding", "chunked"),
                ("referer", "https://x/?a=1&key=s"),
                ("sec-websocket-protocol", "realtime, openai-insecure-api-key.s"),
            ],
        );
        let mut head = RequestHead::copy(&ex);
        ex.headers.clear();
        head.add_response(&HeaderMap::from_iter([(header::SET_COOKIE, HeaderValue::from_static("a=1"))]), false);
        assert_eq!((head.host(), head.host_name(), head.chunked), (&b"a.test:80"[..], "a.test", true));
        let redacted = serde_json::json!(["REDACTED"]);
        assert_eq!(
            shown(&head, Side::Request),
            serde_json::json!({
                "X-Many": ["1", "2"], "Authorization": redacted, "Cookie": redacted, "X-Api-Key": redacted,
                "X-Goog-Api-Key": redacted, "Referer": ["https://x/?a=1&key=REDACTED"],
                "Sec-Websocket-Protocol": redacted,
            })
        );
        assert_eq!(shown(&head, Side::Response), serde_json::json!({"Set-Cookie": redacted}));
    }

    #[test]
    fn what_is_copied_is_bounded() {
        let large = "x".repeat(20_000);
        let head = RequestHead::copy(&exchange("GET", "/", &[("a", &large), ("b", &large), ("c", "1")]));
        assert!(head.bytes.len() <= MAX_HEADERS + 100);
        assert!(shown(&head, Side::Request)["A"].is_array());
    }

    #[test]
    fn log_credentials_shows_them() {
        let mut ex = exchange("GET", "/", &[("authorization", "Bearer s")]);
        let facts = crate::http::exchange::ServerFacts { log_credentials: true, ..Default::default() };
        ex.server = Rc::new(facts);
        assert_eq!(shown(&RequestHead::copy(&ex), Side::Request)["Authorization"][0], "Bearer s");
    }
}

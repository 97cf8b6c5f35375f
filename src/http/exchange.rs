//! One request on its way: head, original head, body, connection, variables, what the response will carry.
//!
//! Named fields, no type map. Lives on one worker; never shared between threads.

use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, Version};
use ipnet::IpNet;
use smallvec::SmallVec;

use super::error::HandlerError;
use super::metering::Meter;
use super::model_not_found::ModelMatch;
use super::requested_model::Peeked;
use super::stage::Stage;
use super::transcript::Transcript;
use crate::base::body::Body;
use crate::base::hex;
use crate::llm::dialect::Dialect;
use crate::llm::model_alias::Aliases;
use crate::llm::model_glob::ModelGlobs;

pub type Response = http::Response<Body>;

/// The peer of a downstream connection.
#[derive(Clone, Debug)]
pub enum Peer {
    Ip(SocketAddr),
    Unix,
}

/// Facts of a downstream connection, made once when it is accepted.
#[derive(Debug)]
pub struct Conn {
    pub peer: Peer,
    /// The listener's own address; `None` for a unix socket.
    pub local: Option<SocketAddr>,
    /// The peer's IP as a header value, for `X-Forwarded-For`; empty for a unix socket.
    pub peer_ip_value: HeaderValue,
    pub tls: Option<TlsFacts>,
}

/// What a TLS handshake settled.
#[derive(Debug, Clone, Default)]
pub struct TlsFacts {
    /// `tls1.2` or `tls1.3`.
    pub version: &'static str,
    pub cipher: &'static str,
    pub server_name: Option<String>,
    pub alpn: Option<String>,
    pub resumed: bool,
    /// The client's certificate chain, DER, leaf first.
    pub client_certs: Vec<Vec<u8>>,
}

/// Facts of the server (group of sites on one listener set) that requests ask about.
#[derive(Debug, Clone, Default)]
pub struct ServerFacts {
    /// Name in the configuration, such as `srv0`.
    pub name: String,
    /// Peers whose forwarding headers are believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Walk the header from the right to the first untrusted address instead of taking the leftmost.
    pub trusted_proxies_strict: bool,
    pub trusted_proxies_unix: bool,
    /// Headers that may carry the client's address; `X-Forwarded-For` when empty.
    pub client_ip_headers: Vec<HeaderName>,
    pub http_port: u16,
    pub https_port: u16,
    /// Request fields with an underscore that are let through.
    pub underscored_headers: Vec<HeaderName>,
    /// Do not redact credentials in logs (`log_credentials`).
    pub log_credentials: bool,
}

/// The request line as it came, before any handler changed it.
#[derive(Debug, Clone)]
pub struct Original {
    pub method: Method,
    pub uri: Uri,
}

/// The authenticated caller (`{http.auth.user.*}`).
#[derive(Debug, Clone, Default)]
pub struct User {
    pub id: String,
    /// `{http.auth.user.NAME}`: team, app, tags, claims.
    pub metadata: Vec<(String, String)>,
    /// Models that the caller may use; `None` = all.
    pub models: Option<Arc<ModelGlobs>>,
}

impl User {
    /// The id, or a thing known about the caller.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        match name {
            "id" => Some(&self.id),
            name => self.metadata.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str()),
        }
    }
}

/// Captures of a regular expression: `{http.regexp.NAME.N}` and, for the latest match, `{http.regexp.N}`.
#[derive(Debug, Clone)]
pub struct Captures {
    /// The matcher's name; empty when it has none.
    pub name: Arc<str>,
    pub groups: Vec<String>,
    pub named: Vec<(String, String)>,
}

/// What the reverse proxy learned, for `{http.reverse_proxy.*}`.
#[derive(Debug, Clone, Default)]
pub struct UpstreamFacts {
    /// `network/host:port`.
    pub address: Arc<str>,
    pub hostport: Arc<str>,
    pub host: Arc<str>,
    pub port: Arc<str>,
    pub requests: usize,
    pub max_requests: usize,
    pub fails: u32,
    /// Time from sending the request to the response head.
    pub latency: Option<std::time::Duration>,
    /// Time spent in the handler so far.
    pub duration: Option<std::time::Duration>,
    pub retries: u32,
    pub status: Option<u16>,
    /// The upstream's response headers, from when `handle_response` routes ran for it.
    pub headers: Option<Arc<HeaderMap>>,
    pub transport_error: bool,
}

/// What the access log does with this request.
#[derive(Debug, Default)]
pub struct LogNote {
    pub skip: bool,
    /// Loggers to write to instead of the default of the host.
    pub loggers: Vec<String>,
    /// Additional fields (`log_append`), in the order the entry shows them.
    pub fields: Vec<(Arc<str>, LogField)>,
    /// Headers that carried a credential under a name of the site's own: shown without their values.
    pub secret_headers: Vec<HeaderName>,
}

#[derive(Debug, Clone)]
pub enum LogField {
    /// Known when the handler ran.
    Text(String),
    /// Rendered when the entry is written.
    Deferred(Arc<super::placeholder::Template>),
    /// When the entry is written: the variable of this name, or the text itself when there is none.
    Variable(Arc<str>),
}

/// Placeholders whose value is worked out when they are used, not when the handler ran (`map`).
pub trait Lookup: Send + Sync {
    /// `None` when the name is not one of these; a known name without a value is an empty text.
    fn lookup(&self, name: &str, ex: &Exchange) -> Option<String>;
}

pub struct Exchange {
    pub method: Method,
    /// Origin form: path and query. Handlers replace it to rewrite.
    pub uri: Uri,
    pub version: Version,
    /// Request headers. `host` is always present (from `:authority` under HTTP/2).
    pub headers: HeaderMap,
    pub body: Body,
    /// The body went to an upstream and did not come back: whoever sends the request again must not send it without.
    pub body_spent: bool,
    pub original: Original,
    pub conn: Rc<Conn>,
    pub server: Rc<ServerFacts>,
    pub started: Instant,
    /// `{http.vars.*}`, in the order they were set; the latest of a name wins.
    pub vars: SmallVec<[(Arc<str>, String); 4]>,
    pub captures: SmallVec<[Captures; 1]>,
    pub user: Option<User>,
    /// Name of the token that a secret path stands for: access control takes it as presented.
    pub vouched: Option<Arc<str>>,
    /// The mount of an API (`ollama_compat`) that the request came in by; its path is taken off.
    pub mounted: Option<u32>,
    /// The dialect that the caller speaks, where a handler knows it; else the path tells.
    pub dialect: Option<Dialect>,
    /// Set by handlers that are only for LLM traffic: errors are then told in a dialect on any path.
    pub llm: bool,
    /// A handler reads the answer's stream and tells itself, in its own words, when it breaks off.
    pub tells_broken_streams: bool,
    /// The model that the body names, once it has been looked for.
    pub(crate) peeked: Option<Peeked>,
    /// What `model` matchers said so far.
    pub model_match: ModelMatch,
    /// Aliases of the handlers that ran, for lists of models.
    pub aliases: SmallVec<[Arc<Aliases>; 1]>,
    /// The model that the caller named, when an alias has put another in its place.
    pub aliased: Option<Rc<str>>,
    /// Headers set on the response before a handler writes it (`header` without defer). They come first; a handler's
    /// own headers are appended, as in Caddy (behaviour 10).
    pub early_headers: HeaderMap,
    /// Whether `Server: llmproxy` is added; cleared by `header -Server` and by proxied responses.
    pub server_header: bool,
    /// Response stages, run in reverse order of registration.
    pub stages: Vec<Stage>,
    /// The error being handled, while error routes run.
    pub error: Option<HandlerError>,
    pub upstream: Option<Box<UpstreamFacts>>,
    /// The upstream's response while `handle_response` or `intercept` routes run, for `copy_response`.
    pub held_response: Option<Response>,
    /// Placeholders set by features by their full name (`http.matchers.file.relative`, map destinations, …).
    pub extra: SmallVec<[(Rc<str>, String); 2]>,
    /// Computed placeholders, asked after every other source of a name.
    pub lookups: SmallVec<[Arc<dyn Lookup>; 1]>,
    /// How many lookups are being worked out at this moment: bounds destinations that refer to each other.
    pub(crate) lookup_depth: std::cell::Cell<u8>,
    pub log: LogNote,
    /// The record being made of this request (`record`).
    pub transcript: Option<Rc<Transcript>>,
    /// What counts the calls made for this request; `None` = nobody asked for it.
    pub meter: Option<Box<Meter>>,
    /// Set once the client wants a protocol upgrade; taken by the terminal that answers 101.
    pub upgrade: Option<Box<dyn PendingUpgrade>>,
    pub(crate) client_ip: std::cell::Cell<Option<IpAddr>>,
    pub(crate) id: std::cell::OnceCell<String>,
    /// Bytes of request body read so far, shared with the body's counter.
    pub bytes_read: Rc<std::cell::Cell<u64>>,
}

/// A byte stream both ways, after an upgrade.
pub trait Duplex: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin {}
impl<T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin> Duplex for T {}

/// The downstream side of an upgrade: resolves once the 101 answer has been written.
pub trait PendingUpgrade {
    fn upgraded(
        self: Box<Self>,
    ) -> std::pin::Pin<Box<dyn Future<Output = Result<Box<dyn Duplex>, crate::base::error::ProxyError>>>>;
}

impl Exchange {
    #[must_use]
    pub fn new(
        head: http::request::Parts,
        body: Body,
        conn: Rc<Conn>,
        server: Rc<ServerFacts>,
        started: Instant,
    ) -> Self {
        let original = Original { method: head.method.clone(), uri: head.uri.clone() };
        Self {
            method: head.method,
            uri: head.uri,
            version: head.version,
            headers: head.headers,
            body,
            body_spent: false,
            original,
            conn,
            server,
            started,
            vars: SmallVec::new(),
            captures: SmallVec::new(),
            user: None,
            vouched: None,
            mounted: None,
            dialect: None,
            llm: false,
            tells_broken_streams: false,
            peeked: None,
            model_match: ModelMatch::default(),
            aliases: SmallVec::new(),
            aliased: None,
            early_headers: HeaderMap::new(),
            server_header: true,
            stages: Vec::new(),
            error: None,
            upstream: None,
            held_response: None,
            extra: SmallVec::new(),
            lookups: SmallVec::new(),
            lookup_depth: std::cell::Cell::new(0),
            log: LogNote::default(),
            transcript: None,
            meter: None,
            upgrade: None,
            client_ip: std::cell::Cell::new(None),
            id: std::cell::OnceCell::new(),
            bytes_read: Rc::default(),
        }
    }

    /// The meter of this request, made when it is first asked for: from then on its calls are counted.
    pub fn meter(&mut self) -> &mut Meter {
        self.meter.get_or_insert_default()
    }

    /// The request's host with its port, as sent (`{http.request.hostport}`).
    #[must_use]
    pub fn host_port(&self) -> &str {
        self.headers.get(http::header::HOST).and_then(|v| v.to_str().ok()).unwrap_or("")
    }

    /// The request's host without port; IPv6 without brackets (`{http.request.host}`).
    #[must_use]
    pub fn host(&self) -> &str {
        split_host_port(self.host_port()).0
    }

    #[must_use]
    pub fn is_tls(&self) -> bool {
        self.conn.tls.is_some()
    }

    #[must_use]
    pub fn scheme(&self) -> &'static str {
        if self.is_tls() { "https" } else { "http" }
    }

    #[must_use]
    pub fn peer_ip(&self) -> Option<IpAddr> {
        match &self.conn.peer {
            Peer::Ip(addr) => Some(addr.ip().to_canonical()),
            Peer::Unix => None,
        }
    }

    /// True when the peer is one of the server's trusted proxies.
    #[must_use]
    pub fn peer_is_trusted(&self) -> bool {
        match self.peer_ip() {
            Some(ip) => contains(&self.server.trusted_proxies, ip),
            None => self.server.trusted_proxies_unix,
        }
    }

    /// The client's address: the peer's, or what trusted proxies say it is (Caddy's rules, behaviour 3).
    pub fn client_ip(&self) -> Option<IpAddr> {
        if self.client_ip.get().is_none() {
            self.client_ip.set(self.find_client_ip());
        }
        self.client_ip.get()
    }

    fn find_client_ip(&self) -> Option<IpAddr> {
        let peer = self.peer_ip();
        if !self.peer_is_trusted() {
            return peer;
        }
        let default = [HeaderName::from_static("x-forwarded-for")];
        let names: &[HeaderName] =
            if self.server.client_ip_headers.is_empty() { &default } else { &self.server.client_ip_headers };
        for name in names {
            // Several lines of one field are one list.
            let values = || {
                self.headers
                    .get_all(name)
                    .iter()
                    .filter_map(|v| v.to_str().ok())
                    .flat_map(|v| v.split(','))
                    .map(parse_ip)
            };
            let found = if self.server.trusted_proxies_strict {
                let all: SmallVec<[Option<IpAddr>; 4]> = values().collect();
                all.iter().rev().flatten().find(|ip| !contains(&self.server.trusted_proxies, **ip)).copied()
            } else {
                values().flatten().next()
            };
            if found.is_some() {
                return found;
            }
        }
        peer
    }

    /// The latest value of a variable.
    #[must_use]
    pub fn var(&self, name: &str) -> Option<&str> {
        self.vars.iter().rev().find(|(n, _)| &**n == name).map(|(_, v)| v.as_str())
    }

    pub fn set_var(&mut self, name: &Arc<str>, value: String) {
        match self.vars.iter_mut().find(|(n, _)| n == name) {
            Some(slot) => slot.1 = value,
            None => self.vars.push((Arc::clone(name), value)),
        }
    }

    /// A computed placeholder; `None` when no lookup knows the name.
    #[must_use]
    pub fn lookup(&self, name: &str) -> Option<String> {
        const MAX_DEPTH: u8 = 8;
        let depth = self.lookup_depth.get();
        if self.lookups.is_empty() || depth >= MAX_DEPTH {
            return None;
        }
        self.lookup_depth.set(depth + 1);
        let found = self.lookups.iter().find_map(|l| l.lookup(name, self));
        self.lookup_depth.set(depth);
        found
    }

    pub fn set_extra(&mut self, name: &str, value: String) {
        match self.extra.iter_mut().find(|(n, _)| &**n == name) {
            Some(slot) => slot.1 = value,
            None => self.extra.push((Rc::from(name), value)),
        }
    }

    /// The dialect that errors are told in; `None` where the request is no LLM traffic (errors are then as in Caddy).
    ///
    /// A path under `/api/` alone does not make LLM traffic: other applications have such paths too.
    #[must_use]
    pub fn error_dialect(&self) -> Option<Dialect> {
        if self.dialect.is_some() {
            return self.dialect;
        }
        let anthropic = || self.headers.contains_key("anthropic-version");
        match Dialect::of_path(self.original.uri.path()) {
            Some(Dialect::OpenAi) if anthropic() => Some(Dialect::Anthropic),
            Some(Dialect::Ollama) if !self.llm => None,
            None if self.llm => Some(if anthropic() { Dialect::Anthropic } else { Dialect::OpenAi }),
            told => told,
        }
    }

    /// The request's id (`{http.request.uuid}`), a random version 4 UUID made when first asked for.
    pub fn request_id(&self) -> &str {
        self.id.get_or_init(|| {
            let mut b = [0_u8; 16];
            fastrand::fill(&mut b);
            b[6] = (b[6] & 0x0f) | 0x40;
            b[8] = (b[8] & 0x3f) | 0x80;
            let mut id = String::with_capacity(36);
            for (part, between) in [(&b[..4], "-"), (&b[4..6], "-"), (&b[6..8], "-"), (&b[8..10], "-"), (&b[10..], "")]
            {
                hex::push(part, &mut id);
                id.push_str(between);
            }
            id
        })
    }
}

/// True when one of the ranges holds the address.
#[must_use]
pub fn contains(ranges: &[IpNet], ip: IpAddr) -> bool {
    ranges.iter().any(|r| r.contains(&ip))
}

/// Splits `host:port`, `[v6]:port`, `host`, `[v6]`; the port is empty when absent.
#[must_use]
pub fn split_host_port(s: &str) -> (&str, &str) {
    if let Some(rest) = s.strip_prefix('[') {
        return match rest.split_once(']') {
            Some((host, tail)) => (host, tail.strip_prefix(':').unwrap_or("")),
            None => (s, ""),
        };
    }
    let colon = |text: &str| text.bytes().rposition(|b| b == b':');
    match colon(s).and_then(|at| s.split_at_checked(at)) {
        // Two colons without brackets: a bare IPv6 address.
        Some((host, port)) if colon(host).is_none() => (host, port.get(1..).unwrap_or("")),
        _ => (s, ""),
    }
}

/// An element of a forwarding header: an address, perhaps with a port or a zone.
fn parse_ip(s: &str) -> Option<IpAddr> {
    let s = s.trim();
    let ip = |t: &str| t.split('%').next().and_then(|t| t.parse::<IpAddr>().ok()).map(|ip| ip.to_canonical());
    ip(s).or_else(|| ip(split_host_port(s).0))
}

/// Exchanges for unit tests of any room.
#[cfg(test)]
pub(crate) mod testing {
    use super::*;

    /// A request over plain HTTP/1.1 from 192.0.2.7:5000 to 192.0.2.1:80.
    pub(crate) fn exchange(method: &str, uri: &str, headers: &[(&str, &str)]) -> Exchange {
        let mut request = http::Request::builder().method(method).uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let conn = Conn {
            peer: Peer::Ip(SocketAddr::from(([192, 0, 2, 7], 5000))),
            local: Some(SocketAddr::from(([192, 0, 2, 1], 80))),
            peer_ip_value: HeaderValue::from_static("192.0.2.7"),
            tls: None,
        };
        let (head, ()) = request.body(()).unwrap().into_parts();
        Exchange::new(head, Body::Empty, Rc::new(conn), Rc::default(), Instant::now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_and_port_are_split_as_in_an_authority() {
        assert_eq!(split_host_port("a.test:99"), ("a.test", "99"));
        assert_eq!(split_host_port("a.test"), ("a.test", ""));
        assert_eq!(split_host_port("[::1]:80"), ("::1", "80"));
        assert_eq!(split_host_port("[::1]"), ("::1", ""));
        assert_eq!(split_host_port("::1"), ("::1", ""));
    }

    #[test]
    fn forwarded_elements_may_carry_ports_and_zones() {
        assert_eq!(parse_ip(" 8.8.8.8:123 "), "8.8.8.8".parse().ok());
        assert_eq!(parse_ip("[2001:db8::1]:9"), "2001:db8::1".parse().ok());
        assert_eq!(parse_ip("fe80::1%eth0"), "fe80::1".parse().ok());
        assert_eq!(parse_ip("unknown"), None);
    }
}

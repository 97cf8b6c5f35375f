//! `cors`: lets the pages of other origins call the API from a browser (Fetch standard, "HTTP-CORS protocol").
//!
//! ```text
//! cors https://app.example.com https://*.example.com {
//!     methods GET POST
//!     headers Authorization Content-Type
//!     expose X-Request-Id
//!     credentials
//!     max_age 10m
//! }
//! ```
//!
//! `cors` alone opens the site to the pages of every origin, which is safe where each request must carry a token. Origins
//! stand on the line or after `origins`: a scheme and a host, perhaps a port, no path. `https://*.example.com` means every
//! name below `example.com` but not `example.com` itself, `http://localhost:*` every port, `vscode-webview://*` every host
//! of that scheme. `null`, which sandboxed pages and files send, is allowed only where it is written.
//!
//! A preflight (`OPTIONS` with `Origin` and `Access-Control-Request-Method`) is answered here with 204, before any token is
//! asked for, and never goes up; to an origin that is not allowed the answer gives no permission. Every other request goes on,
//! and what it is answered, errors too, carries the permission; what the upstream says on the matter is replaced.
//!
//! `methods` defaults to GET, HEAD, POST, PUT, PATCH, DELETE and OPTIONS, `headers` to whatever the preflight asks for;
//! `expose` names response headers that scripts may read. `credentials` lets pages send cookies: then the origins must be
//! named. `max_age` is how long a browser may remember a preflight, `private_network` lets public pages reach an
//! address of a private network. An upstream that judges `Origin` itself, as Ollama does, is kept out of it with
//! `request_header -Origin`.

use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use serde::{Deserialize, Serialize};

use crate::base::body::Body;
use crate::base::units::parse_duration;
use crate::config::compile_cx::{CompileCx, CompileError, read};
use crate::config::directive_cx::{ConfigValue, DirectiveCx, Parsed};
use crate::config::nanos::Nanos;
use crate::config::registry::{Directive, Doc, HandlerModule};
use crate::config::types::{self, Module};
use crate::http::exchange::{Exchange, Response};
use crate::http::handler::{Flow, Step};
use crate::http::route::Handler;
use crate::http::stage::{Stage, SyncStage};
use crate::syntax::token::Token;
use crate::syntax::tree::Node;

pub const DIRECTIVE: Directive = Directive {
    name: "cors",
    renamed_to: None,
    ordered: true,
    matcher: true,
    parse,
    doc: &Doc {
        summary: "Lets pages of other origins call the API from a browser.",
        syntax: "cors [matcher] [<origins…>] { origins <origins…>  methods <methods…>  headers <fields…>  expose <fields…>  credentials  max_age <duration>  private_network }",
        examples: &[
            "cors",
            "cors /v1/* https://app.example.com https://*.example.com",
            "cors http://localhost:* vscode-webview://* {\n\texpose X-Request-Id\n\tmax_age 10m\n}",
            "cors {\n\torigins https://app.example.com\n\tmethods GET POST\n\theaders Authorization Content-Type\n\tcredentials\n\tprivate_network\n}",
        ],
        rejected: &[
            ("cors app.example.com", "invalid-origin"),
            ("cors https://app.example.com/", "invalid-origin"),
            ("cors https://app.*.com", "invalid-origin"),
            ("cors {\n\tcredentials\n}", "cors-credentials-for-all"),
            ("cors https://* {\n\tcredentials\n}", "cors-credentials-for-all"),
            ("cors {\n\tmethods \"GET,POST\"\n}", "invalid-method"),
            ("cors {\n\theaders \"X A\"\n}", "invalid-header-field"),
            ("cors {\n\tmax_age soon\n}", "invalid-duration"),
            ("cors {\n\tmax-age 10m\n}", "unknown-subdirective"),
            ("cors {\n\tcredentials\n\tcredentials\n}", "duplicate-option"),
            ("cors {\n\torigins\n}", "wrong-argument-count"),
        ],
        adapt_only: false,
    },
};

pub const HANDLER: HandlerModule = HandlerModule { id: "cors", compile };

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Cors {
    /// Empty = every origin.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    origins: Vec<String>,
    /// Empty = [`METHODS`].
    #[serde(skip_serializing_if = "Vec::is_empty")]
    methods: Vec<String>,
    /// Empty = what the preflight asks for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    headers: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    expose: Vec<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    credentials: bool,
    /// Absent: the browser's own default (5 s).
    #[serde(skip_serializing_if = "Option::is_none")]
    max_age: Option<Nanos>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    private_network: bool,
}

const OPTIONS: [&str; 7] = ["origins", "methods", "headers", "expose", "credentials", "max_age", "private_network"];
const METHODS: &str = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";

fn parse(cx: &mut DirectiveCx<'_, '_>) -> Parsed<Vec<ConfigValue>> {
    let mut out = Cors::default();
    add_origins(cx, &mut out, cx.args)?;
    for line in cx.node.lines() {
        cx.no_block(line)?;
        match line.name() {
            "origins" if line.args.is_empty() => return Err(cx.arg_err(line)),
            "origins" => add_origins(cx, &mut out, &line.args)?,
            "methods" => add_words(cx, &mut out.methods, line, method)?,
            "headers" => add_words(cx, &mut out.headers, line, field)?,
            "expose" => add_words(cx, &mut out.expose, line, field)?,
            "credentials" => flag(cx, &mut out.credentials, line)?,
            "private_network" => flag(cx, &mut out.private_network, line)?,
            "max_age" if out.max_age.is_some() => return Err(cx.duplicate(line)),
            "max_age" => {
                let age = cx.one(line)?;
                let nanos = parse_duration(age.text()).filter(|n| *n >= 0).ok_or_else(|| {
                    let d = cx.err(age.span, "invalid-duration", format!("`{}` is not a duration", age.shown()));
                    Box::new(d.help("for example `10m` or `24h`"))
                })?;
                out.max_age = Some(Nanos(nanos));
            }
            _ => return Err(cx.unknown(line, &OPTIONS)),
        }
    }
    Ok(cx.route(types::handler(HANDLER.id, &out)))
}

fn add_origins(cx: &DirectiveCx<'_, '_>, out: &mut Cors, tokens: &[Token]) -> Parsed<()> {
    for token in tokens {
        Origin::parse(token.text()).map_err(|why| {
            let message = format!("`{}` is not an origin: {why}", token.shown());
            Box::new(cx.err(token.span, "invalid-origin", message).help(ORIGIN_HELP))
        })?;
        out.origins.push(token.text().to_owned());
    }
    Ok(())
}

fn add_words(
    cx: &DirectiveCx<'_, '_>,
    to: &mut Vec<String>,
    line: &Node,
    check: fn(&str) -> Result<(), CompileError>,
) -> Parsed<()> {
    if line.args.is_empty() {
        return Err(cx.arg_err(line));
    }
    for token in &line.args {
        check(token.text()).map_err(|e| cx.err(token.span, e.code, format!("{}: `{}`", e.message, token.shown())))?;
        to.push(token.text().to_owned());
    }
    Ok(())
}

fn flag(cx: &DirectiveCx<'_, '_>, to: &mut bool, line: &Node) -> Parsed<()> {
    match (line.args.is_empty(), *to) {
        (false, _) => Err(cx.arg_err(line)),
        (true, true) => Err(cx.duplicate(line)),
        (true, false) => {
            *to = true;
            Ok(())
        }
    }
}

fn method(text: &str) -> Result<(), CompileError> {
    let known = text == "*" || Method::from_bytes(text.as_bytes()).is_ok();
    if known { Ok(()) } else { Err(CompileError::new("invalid-method", "not a method")) }
}

fn field(text: &str) -> Result<(), CompileError> {
    let known = text == "*" || HeaderName::from_bytes(text.as_bytes()).is_ok();
    if known { Ok(()) } else { Err(CompileError::new("invalid-header-field", "not the name of a header")) }
}

fn compile(module: &Module, _cx: &mut CompileCx<'_>) -> Result<Handler, CompileError> {
    let config: Cors = read(module, "handler")?;
    let mut origins = Vec::with_capacity(config.origins.len());
    for (i, text) in config.origins.iter().enumerate() {
        let bad = |why| CompileError::new("invalid-origin", format!("not an origin: {why}")).help(ORIGIN_HELP);
        origins.push(Origin::parse(text).map_err(|why| bad(why).within(i).within("origins"))?);
    }
    if origins.is_empty() {
        origins.push(Origin::Any);
    }
    if config.credentials && origins.iter().any(Origin::is_unbounded) {
        let message = "with `credentials`, the pages of every origin could act in the name of whoever is logged in";
        return Err(CompileError::new("cors-credentials-for-all", message)
            .help("name the origins")
            .within("credentials"));
    }
    for (i, text) in config.methods.iter().enumerate() {
        method(text).map_err(|e| e.within(i).within("methods"))?;
    }
    let fields = [("headers", &config.headers), ("expose", &config.expose)];
    for (i, text, list) in
        fields.iter().flat_map(|(list, words)| words.iter().enumerate().map(move |(i, w)| (i, w, list)))
    {
        field(text).map_err(|e| e.within(i).within(list))?;
    }
    let age = config.max_age.map(|age| HeaderValue::from(u64::try_from(age.0).unwrap_or(0) / 1_000_000_000));
    let policy = Policy {
        any: origins.iter().any(|o| matches!(o, Origin::Any)),
        origins,
        credentials: config.credentials,
        private_network: config.private_network,
        methods: listed(&config.methods, Some(METHODS)),
        headers: listed(&config.headers, None),
        expose: if config.expose.is_empty() { None } else { HeaderValue::from_str(&config.expose.join(", ")).ok() },
        max_age: age,
    };
    Ok(Handler::Step(Box::new(CorsStep(Arc::new(policy)))))
}

/// `None` when the answer says what the preflight asks for.
fn listed(words: &[String], default: Option<&'static str>) -> Option<HeaderValue> {
    match words {
        [] => default.map(HeaderValue::from_static),
        words if words.iter().any(|w| w == "*") => None,
        words => HeaderValue::from_str(&words.join(", ")).ok(),
    }
}

const ORIGIN_HELP: &str = "write scheme and host, as in `https://app.example.com` or `http://localhost:3000`";

/// An allowed origin, in the form that browsers send (RFC 6454 §6.2: lower case, no default port).
#[derive(Debug, PartialEq, Eq)]
enum Origin {
    Any,
    /// Also `null`.
    Exact(Box<str>),
    /// `scheme://` and the end of the host; in between at least one character of a host name. Any port when the port is
    /// `None`.
    Pattern {
        scheme: Box<str>,
        suffix: Box<str>,
        wildcard: bool,
        port: Option<Box<str>>,
    },
}

impl Origin {
    fn parse(text: &str) -> Result<Self, &'static str> {
        let text = text.to_ascii_lowercase();
        match text.as_str() {
            "*" => return Ok(Self::Any),
            "null" => return Ok(Self::Exact("null".into())),
            _ => {}
        }
        let (scheme, authority) = text.split_once("://").ok_or("it has no scheme")?;
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.');
        if scheme.is_empty() || !scheme.bytes().all(plain) {
            return Err("its scheme is not one");
        }
        if authority.contains(['/', '?', '#']) {
            return Err("it ends with the host, without a path or a slash");
        }
        let (host, port) = split_port(authority);
        if !port.is_empty() && port != "*" && port.parse::<u16>().is_err() {
            return Err("its port is not a number");
        }
        let (wildcard, suffix) = match host.strip_prefix('*') {
            Some(rest) if rest.is_empty() || rest.starts_with('.') => (true, rest),
            _ => (false, host),
        };
        if suffix.contains('*') {
            return Err("`*` stands for whole names at the beginning of the host, or for the port");
        }
        let named = suffix.bytes().all(|b| is_host_byte(b) || matches!(b, b'[' | b']' | b':'));
        if (suffix.is_empty() && !wildcard) || suffix == "." || !named {
            return Err("its host is not one");
        }
        let port = match (scheme, port) {
            ("https", "443") | ("http", "80") => "",
            (_, port) => port,
        };
        if !wildcard && port != "*" {
            let port = if port.is_empty() { String::new() } else { format!(":{port}") };
            return Ok(Self::Exact(format!("{scheme}://{host}{port}").into()));
        }
        let port = (port != "*").then(|| port.into());
        Ok(Self::Pattern { scheme: scheme.into(), suffix: suffix.into(), wildcard, port })
    }

    fn allows(&self, origin: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Exact(text) => **text == *origin,
            Self::Pattern { scheme, suffix, wildcard, port } => {
                let Some((given, authority)) = origin.split_once("://") else { return false };
                let (host, given_port) = split_port(authority);
                let host_fits = match host.strip_suffix(&**suffix) {
                    Some(front) if *wildcard => !front.is_empty() && front.bytes().all(is_host_byte),
                    Some(front) => front.is_empty(),
                    None => false,
                };
                let port_fits = match port {
                    Some(port) => **port == *given_port,
                    None => given_port.bytes().all(|b| b.is_ascii_digit()),
                };
                **scheme == *given && host_fits && port_fits
            }
        }
    }

    /// Whether anybody can have a page of such an origin.
    fn is_unbounded(&self) -> bool {
        match self {
            Self::Any => true,
            Self::Exact(text) => **text == *"null",
            Self::Pattern { wildcard, suffix, .. } => *wildcard && suffix.is_empty(),
        }
    }
}

fn is_host_byte(b: u8) -> bool {
    b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_')
}

/// Host (IPv6 with its brackets) and port; the port is empty when there is none.
fn split_port(authority: &str) -> (&str, &str) {
    match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, port),
        _ => (authority, ""),
    }
}

struct Policy {
    origins: Vec<Origin>,
    /// One of the origins is `*`.
    any: bool,
    credentials: bool,
    private_network: bool,
    methods: Option<HeaderValue>,
    headers: Option<HeaderValue>,
    expose: Option<HeaderValue>,
    max_age: Option<HeaderValue>,
}

const ALLOW_PRIVATE_NETWORK: HeaderName = HeaderName::from_static("access-control-allow-private-network");
const REQUEST_PRIVATE_NETWORK: HeaderName = HeaderName::from_static("access-control-request-private-network");

/// Whatever speaks of permissions in an answer.
const ANSWER_FIELDS: [HeaderName; 7] = [
    header::ACCESS_CONTROL_ALLOW_ORIGIN,
    header::ACCESS_CONTROL_ALLOW_CREDENTIALS,
    header::ACCESS_CONTROL_ALLOW_METHODS,
    header::ACCESS_CONTROL_ALLOW_HEADERS,
    header::ACCESS_CONTROL_EXPOSE_HEADERS,
    header::ACCESS_CONTROL_MAX_AGE,
    ALLOW_PRIVATE_NETWORK,
];

/// What a preflight may ask for, in bytes, and have said back to it.
const MAX_ECHO: usize = 4096;

struct CorsStep(Arc<Policy>);

impl Step for CorsStep {
    fn run(&self, ex: &mut Exchange) -> Flow {
        let policy = &self.0;
        let origin = policy.permission(&ex.headers);
        let asked = ex.headers.get(header::ACCESS_CONTROL_REQUEST_METHOD);
        if let (&Method::OPTIONS, Some(asked), true) = (&ex.method, asked, ex.headers.contains_key(header::ORIGIN)) {
            return Flow::Respond(policy.preflight(origin, asked, &ex.headers));
        }
        // Early, so that errors carry it too; the stage puts the answer's own words on the matter aside.
        policy.permit(origin.clone(), &mut ex.early_headers);
        if !policy.any {
            ex.early_headers.append(header::VARY, HeaderValue::from_static("Origin"));
        }
        ex.stages.push(Stage::Sync(Box::new(CorsStage { policy: Arc::clone(policy), origin })));
        Flow::Next
    }
}

impl Policy {
    /// The value of `Access-Control-Allow-Origin` for this request, if it may have one.
    fn permission(&self, headers: &HeaderMap) -> Option<HeaderValue> {
        // The same for everybody, also for requests without an origin: caches may keep one answer for all.
        if self.any {
            return Some(HeaderValue::from_static("*"));
        }
        let origin = headers.get(header::ORIGIN)?;
        let text = origin.to_str().ok()?;
        self.origins.iter().any(|o| o.allows(text)).then(|| origin.clone())
    }

    fn permit(&self, origin: Option<HeaderValue>, to: &mut HeaderMap) {
        let Some(origin) = origin else { return };
        to.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        if self.credentials {
            to.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        }
        if let Some(expose) = &self.expose {
            to.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, expose.clone());
        }
    }

    fn preflight(&self, origin: Option<HeaderValue>, asked: &HeaderValue, request: &HeaderMap) -> Response {
        let mut response = Response::new(Body::Empty);
        *response.status_mut() = StatusCode::NO_CONTENT;
        let headers = response.headers_mut();
        let vary = "Origin, Access-Control-Request-Method, Access-Control-Request-Headers";
        headers.insert(header::VARY, HeaderValue::from_static(vary));
        let Some(origin) = origin else { return response };
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        if self.credentials {
            headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        }
        if let Some(methods) = self.methods.clone().or_else(|| said_back(asked)) {
            headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, methods);
        }
        let asked = request.get(header::ACCESS_CONTROL_REQUEST_HEADERS);
        if let Some(fields) = self.headers.clone().or_else(|| asked.and_then(said_back)) {
            headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, fields);
        }
        if let Some(age) = &self.max_age {
            headers.insert(header::ACCESS_CONTROL_MAX_AGE, age.clone());
        }
        if self.private_network && request.get(REQUEST_PRIVATE_NETWORK).is_some_and(|v| v == "true") {
            headers.insert(ALLOW_PRIVATE_NETWORK, HeaderValue::from_static("true"));
        }
        response
    }
}

/// A list of tokens (RFC 9110 §5.6.1), and not a long one.
fn said_back(value: &HeaderValue) -> Option<HeaderValue> {
    let token = |b: &u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~, \t".contains(b);
    let bytes = value.as_bytes();
    (bytes.len() <= MAX_ECHO && bytes.iter().all(token)).then(|| value.clone())
}

struct CorsStage {
    policy: Arc<Policy>,
    origin: Option<HeaderValue>,
}

impl SyncStage for CorsStage {
    fn apply(self: Box<Self>, _: &mut Exchange, response: &mut Response) {
        let headers = response.headers_mut();
        for name in &ANSWER_FIELDS {
            headers.remove(name);
        }
        self.policy.permit(self.origin, headers);
        if !self.policy.any {
            vary_by_origin(headers);
        }
    }
}

/// Adds `Origin` to what the answer depends on already. A handler may have set a `Vary` of its own over the early one.
fn vary_by_origin(headers: &mut HeaderMap) {
    let mut names: Vec<&str> = vec!["Origin"];
    for value in headers.get_all(header::VARY) {
        let Ok(text) = value.to_str() else { continue };
        for name in text.split(',').map(str::trim).filter(|n| !n.is_empty()) {
            if !names.iter().any(|known| known.eq_ignore_ascii_case(name)) {
                names.push(name);
            }
        }
    }
    if let Ok(joined) = HeaderValue::from_str(&names.join(", ")) {
        headers.insert(header::VARY, joined);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::walker::{self, Outcome};
    use crate::modules::testing::{block_on, compile, exchange, handlers};
    use serde_json::{Value, json};

    /// The answer to a request with these headers; behind `cors` an upstream permits something of its own.
    fn answered(config: Value, method: &str, headers: &[(&'static str, &str)]) -> Response {
        let up = json!({"handler":"static_response","body":"up","headers":{
            "Access-Control-Allow-Origin":["https://of-the-upstream.example"],"Access-Control-Max-Age":["1"],
            "Vary":["Accept-Encoding","origin"]}});
        run(config, up, method, headers)
    }

    fn run(mut config: Value, then: Value, method: &str, headers: &[(&'static str, &str)]) -> Response {
        config["handler"] = "cors".into();
        let mut ex = exchange(method, "/v1/models");
        for (name, value) in headers {
            ex.headers.insert(*name, value.parse().unwrap());
        }
        match block_on(walker::run(&handlers(vec![config, then]), None, &mut ex)) {
            Outcome::Response(response) => response,
            Outcome::Abort => panic!("aborted"),
        }
    }

    fn all(response: &Response, name: &str) -> Vec<String> {
        response.headers().get_all(name).iter().map(|v| v.to_str().unwrap().to_owned()).collect()
    }

    const PREFLIGHT: [(&str, &str); 3] = [
        ("origin", "https://app.example.com"),
        ("access-control-request-method", "POST"),
        ("access-control-request-headers", "authorization,x-stainless-os"),
    ];

    #[test]
    fn a_preflight_is_answered_here_with_what_it_asks_for() {
        let response = answered(json!({"max_age":"10m"}), "OPTIONS", &PREFLIGHT);
        assert_eq!(response.status(), 204);
        assert_eq!(all(&response, "access-control-allow-origin"), ["*"]);
        assert_eq!(all(&response, "access-control-allow-methods"), [METHODS]);
        assert_eq!(all(&response, "access-control-allow-headers"), ["authorization,x-stainless-os"]);
        assert_eq!(all(&response, "access-control-max-age"), ["600"]);
        assert_eq!(all(&response, "vary"), ["Origin, Access-Control-Request-Method, Access-Control-Request-Headers"]);
        assert!(all(&response, "access-control-allow-credentials").is_empty());
    }

    #[test]
    fn a_preflight_of_a_stranger_gets_no_permission_and_does_not_go_on() {
        let config = json!({"origins":["https://other.example.com"],"private_network":true});
        let response = answered(config, "OPTIONS", &PREFLIGHT);
        assert_eq!(response.status(), 204);
        assert!(ANSWER_FIELDS.iter().all(|name| !response.headers().contains_key(name)), "{response:?}");
        assert!(response.headers().contains_key("vary"));
    }

    #[test]
    fn only_lists_of_tokens_are_said_back() {
        for asked in ["x\u{e9}", "<script>", &"a,".repeat(3000)] {
            let mut headers = PREFLIGHT.to_vec();
            headers[2].1 = asked;
            let response = answered(json!({"methods":["*"]}), "OPTIONS", &headers);
            assert!(all(&response, "access-control-allow-headers").is_empty(), "{asked}");
            assert_eq!(all(&response, "access-control-allow-methods"), ["POST"]);
        }
    }

    #[test]
    fn named_methods_headers_and_private_networks() {
        let config = json!({"origins":["https://app.example.com"],"methods":["GET","POST"],"headers":["X-A","X-B"],
            "credentials":true,"private_network":true});
        let mut headers = PREFLIGHT.to_vec();
        headers.push(("access-control-request-private-network", "true"));
        let response = answered(config, "OPTIONS", &headers);
        assert_eq!(all(&response, "access-control-allow-origin"), ["https://app.example.com"]);
        assert_eq!(all(&response, "access-control-allow-credentials"), ["true"]);
        assert_eq!(all(&response, "access-control-allow-methods"), ["GET, POST"]);
        assert_eq!(all(&response, "access-control-allow-headers"), ["X-A, X-B"]);
        assert_eq!(all(&response, "access-control-allow-private-network"), ["true"]);
    }

    #[test]
    fn options_that_is_no_preflight_goes_on() {
        for headers in [&PREFLIGHT[..1], &PREFLIGHT[1..], &[]] {
            assert_eq!(answered(json!({}), "OPTIONS", headers).status(), 200);
        }
        assert_eq!(answered(json!({}), "POST", &PREFLIGHT).status(), 200);
    }

    #[test]
    fn what_the_upstream_permits_is_replaced_and_vary_completed() {
        let config = || json!({"origins":["https://app.example.com"],"expose":["X-Request-Id"],"credentials":true});
        let response = answered(config(), "GET", &PREFLIGHT[..1]);
        assert_eq!(all(&response, "access-control-allow-origin"), ["https://app.example.com"]);
        assert_eq!(all(&response, "access-control-allow-credentials"), ["true"]);
        assert_eq!(all(&response, "access-control-expose-headers"), ["X-Request-Id"]);
        assert!(all(&response, "access-control-max-age").is_empty());
        assert_eq!(all(&response, "vary"), ["Origin, Accept-Encoding"]);
        // Nobody else is permitted anything, and caches are told.
        for headers in [&[][..], &[("origin", "https://evil.example")]] {
            let response = answered(config(), "GET", headers);
            assert!(ANSWER_FIELDS.iter().all(|name| !response.headers().contains_key(name)), "{response:?}");
            assert_eq!(all(&response, "vary"), ["Origin, Accept-Encoding"]);
        }
        let response = answered(json!({}), "GET", &[]);
        assert_eq!(all(&response, "access-control-allow-origin"), ["*"]);
        assert_eq!(all(&response, "vary"), ["Accept-Encoding", "origin"], "the same for every origin");
    }

    #[test]
    fn errors_can_be_read_by_the_page() {
        let config = json!({"origins":["https://app.example.com"]});
        let failing = json!({"handler":"error","status_code":429});
        let response = run(config, failing, "POST", &PREFLIGHT[..1]);
        assert_eq!(response.status(), 429);
        assert_eq!(all(&response, "access-control-allow-origin"), ["https://app.example.com"]);
        assert_eq!(all(&response, "vary"), ["Origin"]);
    }

    #[test]
    fn origins_are_compared_whole() {
        for (pattern, allowed, not) in [
            ("https://A.example:443", &["https://a.example"][..], &["http://a.example", "https://a.example:444"][..]),
            (
                "https://*.example.com",
                &["https://a.example.com", "https://a.b.example.com"],
                &[
                    "https://example.com",
                    "https://.example.com",
                    "https://evilexample.com",
                    "https://a.example.com.evil.test",
                    "https://evil.test/.example.com",
                    "https://evil.test#.example.com",
                    "https://a.example.com:8443",
                    "http://a.example.com",
                    "null",
                ],
            ),
            (
                "http://localhost:*",
                &["http://localhost", "http://localhost:3000"],
                &["http://localhost.evil.test:1", "http://xlocalhost:1", "http://localhost:x", "https://localhost:1"],
            ),
            ("http://[::1]:3000", &["http://[::1]:3000"], &["http://[::1]"]),
            ("http://[::1]:*", &["http://[::1]:3000", "http://[::1]"], &["http://[::2]:3000"]),
            ("vscode-webview://*", &["vscode-webview://1a2b"], &["vscode-webview://", "https://1a2b"]),
            ("null", &["null"], &["", "https://null"]),
        ] {
            let origin = Origin::parse(pattern).unwrap();
            for text in allowed {
                assert!(origin.allows(text), "{pattern} does not allow {text}");
            }
            for text in not {
                assert!(!origin.allows(text), "{pattern} allows {text}");
            }
        }
    }

    #[test]
    fn null_is_allowed_only_where_it_is_written() {
        let null = &[("origin", "null")];
        let closed = answered(json!({"origins":["https://*","http://*:*"]}), "GET", null);
        assert!(all(&closed, "access-control-allow-origin").is_empty());
        assert_eq!(all(&answered(json!({"origins":["null"]}), "GET", null), "access-control-allow-origin"), ["null"]);
    }

    #[test]
    fn what_is_no_policy_is_refused() {
        let code = |config: Value| compile(config).err().unwrap().code;
        for origin in ["", "a.test", "https://", "https://a/b", "https://a:b", "https://*a", "https://a b", "://a"] {
            assert_eq!(code(json!({"handler":"cors","origins":[origin]})), "invalid-origin", "{origin}");
        }
        for origin in ["*", "https://*", "null"] {
            let config = json!({"handler":"cors","origins":["https://a.test", origin],"credentials":true});
            assert_eq!(code(config), "cors-credentials-for-all", "{origin}");
        }
        assert_eq!(code(json!({"handler":"cors","credentials":true})), "cors-credentials-for-all");
        assert_eq!(code(json!({"handler":"cors","methods":["A B"]})), "invalid-method");
        assert_eq!(code(json!({"handler":"cors","expose":["a:b"]})), "invalid-header-field");
    }
}

//! Which model a request asks for: from its path, its query, or its body, read within a bound.
//!
//! What rights, limits and routes are decided by must be what the upstream will act on: a name that could be read in
//! two ways is refused, not guessed.

use std::borrow::Cow;
use std::ops::Range;
use std::rc::Rc;

use bytes::Bytes;
use http::{Method, header};

use super::error::{HandlerError, Refusal};
use super::exchange::Exchange;
use super::path::query_unescape;
use crate::base::body::Body;
use crate::llm::dialect::Dialect;
use crate::llm::multipart;
use crate::llm::peek::{self, Flaw};

/// Bytes of a body that are read to find its model, unless something else is said. Providers take up to 50 MB with
/// files inside the JSON.
pub const DEFAULT_LIMIT: usize = 64 << 20;

/// Longest model name that is taken for one.
const MAX_NAME: usize = 512;

/// Longest list of models to fall back on, in bytes.
const MAX_FALLBACKS: usize = 16 << 10;

/// The answer to "which model?".
#[derive(Debug)]
pub enum ModelOf {
    Named(Rc<str>),
    /// The request names none, or not in a way that is understood.
    NotTold,
    /// The body must be held first ([`super::hold::hold_body`]), at most this many bytes; then ask again.
    NeedBody(usize),
    /// Cannot be told for sure: a refusal in the caller's dialect.
    Bad(HandlerError),
}

/// What the body said, kept with the body it is true for.
#[derive(Debug, Clone)]
pub struct Peeked {
    body: Bytes,
    found: Option<Rc<str>>,
}

impl Peeked {
    /// What is known of a body without looking.
    pub(super) fn known(body: Bytes, model: &str) -> Self {
        Self { body, found: Some(model.into()) }
    }
}

/// Where the body names the model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A JSON value, quotes included.
    Json(Range<usize>),
    /// The content of a multipart part.
    Part(Range<usize>),
}

impl Exchange {
    /// The model that the request asks for. `limit`: bytes of body to read for it.
    pub fn requested_model(&mut self, limit: usize) -> ModelOf {
        if leaves_its_segments(self.uri.path()) {
            return ModelOf::Bad(refuse(Why::Dots));
        }
        if is_disguised(self.uri.path()) {
            return ModelOf::Bad(refuse(Why::Disguised));
        }
        if is_realtime(self.uri.path()) && self.uri.query().is_some_and(names_twice) {
            return ModelOf::Bad(refuse(Why::Twice));
        }
        match model_in_uri(&self.uri) {
            Some(name) => return ModelOf::Named(name.as_ref().into()),
            None if !may_have_model(&self.method) => return ModelOf::NotTold,
            None => {}
        }
        let form = Form::of(self);
        if form == Form::Opaque {
            return ModelOf::NotTold;
        }
        let body = match &self.body {
            Body::Empty => return ModelOf::NotTold,
            Body::Stream(_) => return ModelOf::NeedBody(limit),
            Body::Full(body) => body,
        };
        // The same bytes are the same allocation: it is kept alive here.
        if let Some(peeked) = &self.peeked
            && std::ptr::eq(peeked.body.as_ref(), body.as_ref())
        {
            return peeked.found.clone().map_or(ModelOf::NotTold, ModelOf::Named);
        }
        let found = match locate(body, &form, self.uri.path()) {
            Ok(None) => None,
            Ok(Some(place)) => match text(body, &place) {
                Ok(name) => name.map(|n| Rc::from(n.as_ref())),
                Err(why) => return ModelOf::Bad(refuse(why)),
            },
            Err(why) => return ModelOf::Bad(refuse(why)),
        };
        self.peeked = Some(Peeked { body: body.clone(), found: found.clone() });
        found.map_or(ModelOf::NotTold, ModelOf::Named)
    }

    /// The model as far as it is known without reading anything.
    #[must_use]
    pub fn known_model(&self) -> Option<Cow<'_, str>> {
        model_in_uri(&self.uri).or_else(|| self.peeked.as_ref()?.found.as_deref().map(Cow::Borrowed))
    }

    /// Where the held body names the model; `None` when it does not, or is not held.
    #[must_use]
    pub fn model_place(&self) -> Option<Place> {
        let Body::Full(body) = &self.body else { return None };
        locate(body, &Form::of(self), self.uri.path()).ok().flatten()
    }

    /// Models that the held body names beside `model`, for an upstream to fall back on: OpenRouter's `models`, LiteLLM's
    /// `fallbacks`.
    ///
    /// # Errors
    /// 400 when they cannot be read as a list of names.
    pub fn fallback_models(&self) -> Result<Vec<String>, HandlerError> {
        let (Body::Full(body), Form::Json | Form::Unsaid) = (&self.body, Form::of(self)) else { return Ok(Vec::new()) };
        let lists = match peek::top_level(body, ["models", "fallbacks"]) {
            Ok(lists) => lists,
            Err(Flaw::Duplicate) => return Err(refuse(Why::Twice)),
            Err(_) => return Ok(Vec::new()),
        };
        let mut names = Vec::new();
        for list in lists.into_iter().flatten().filter_map(|range| body.get(range)).filter(|list| *list != b"null") {
            let short = Some(list).filter(|list| list.len() <= MAX_FALLBACKS);
            let read = short.and_then(|list| serde_json::from_slice::<Vec<String>>(list).ok());
            names.extend(read.ok_or_else(|| refuse(Why::NotNames))?);
        }
        Ok(names)
    }

    /// Whether a request that does not tell its model may still name one to an upstream that looks closer: its body is
    /// compressed, of another type, or JSON only as far as lenient parsers read.
    #[must_use]
    pub fn may_hide_model(&self) -> bool {
        if !may_have_model(&self.method) || self.body.is_empty() {
            return false;
        }
        match (Form::of(self), &self.body) {
            (Form::Opaque, _) => true,
            (Form::Unsaid, Body::Full(body)) => {
                peek::top_level(body, ["model"]).is_err_and(|flaw| flaw != Flaw::NotAnObject)
            }
            _ => false,
        }
    }

    /// Whether the body is JSON as far as can be told without looking at it.
    #[must_use]
    pub fn may_tell_in_json(&self) -> bool {
        may_have_model(&self.method) && matches!(Form::of(self), Form::Json | Form::Unsaid)
    }

    /// Puts another body in the place of the client's, with its length.
    pub fn replace_body(&mut self, body: Bytes) {
        self.headers.remove(header::TRANSFER_ENCODING);
        self.headers.insert(header::CONTENT_LENGTH, body.len().into());
        self.peeked = None;
        self.body = Body::Full(body);
    }
}

/// Methods whose body may name a model.
fn may_have_model(method: &Method) -> bool {
    matches!(*method, Method::POST | Method::PUT | Method::PATCH)
}

/// How a body is written.
#[derive(Debug, PartialEq, Eq)]
enum Form {
    Json,
    /// Taken for JSON if it is: what curl and scripts send without thinking of the type.
    Unsaid,
    Multipart(String),
    /// Compressed, or of a type that names no model.
    Opaque,
}

impl Form {
    fn of(ex: &Exchange) -> Self {
        let encoding = ex.headers.get(header::CONTENT_ENCODING);
        if encoding.is_some_and(|v| !v.as_bytes().eq_ignore_ascii_case(b"identity")) {
            return Self::Opaque;
        }
        let mut types = ex.headers.get_all(header::CONTENT_TYPE).iter();
        let Some(content_type) = types.next().and_then(|v| v.to_str().ok()) else { return Self::Unsaid };
        if types.next().is_some() {
            return Self::Unsaid;
        }
        let kind = content_type.split(';').next().unwrap_or("").trim();
        if is_json(kind) {
            return Self::Json;
        }
        if let Some(boundary) = multipart::boundary(content_type) {
            return Self::Multipart(boundary.to_owned());
        }
        let plain = ["", "text/plain", "application/x-www-form-urlencoded", "*/*"];
        if plain.iter().any(|p| kind.eq_ignore_ascii_case(p)) { Self::Unsaid } else { Self::Opaque }
    }
}

fn is_json(kind: &str) -> bool {
    let suffix = kind.len().checked_sub(5).and_then(|at| kind.get(at..));
    kind.eq_ignore_ascii_case("application/json")
        || kind.eq_ignore_ascii_case("text/json")
        || suffix.is_some_and(|s| s.eq_ignore_ascii_case("+json"))
}

/// Why a body's model cannot be told.
enum Why {
    NotJson,
    Twice,
    TooDeep,
    NotText,
    BadForm,
    Dots,
    Disguised,
    NotNames,
}

fn locate(body: &[u8], form: &Form, path: &str) -> Result<Option<Place>, Why> {
    if body.is_empty() {
        return Ok(None);
    }
    let flaw = |flaw| match flaw {
        Flaw::Duplicate => Err(Why::Twice),
        Flaw::TooDeep => Err(Why::TooDeep),
        // Upstreams may read it all the same, and then not as JSON.
        Flaw::Malformed(_) | Flaw::NotAnObject if *form == Form::Unsaid => Ok(None),
        Flaw::Malformed(_) => Err(Why::NotJson),
        Flaw::NotAnObject => Ok(None),
    };
    match form {
        Form::Opaque => Ok(None),
        Form::Multipart(boundary) => match multipart::part(body, boundary, "model") {
            Ok(range) => Ok(range.map(Place::Part)),
            Err(Flaw::Duplicate) => Err(Why::Twice),
            Err(_) => Err(Why::BadForm),
        },
        // Older Ollama clients say `name`; `model` counts when both are there.
        Form::Json | Form::Unsaid if names_by_name(path) => match peek::top_level(body, ["model", "name"]) {
            Ok([model, name]) => Ok(model.or(name).map(Place::Json)),
            Err(f) => flaw(f),
        },
        Form::Json | Form::Unsaid => match peek::top_level(body, ["model"]) {
            Ok([model]) => Ok(model.map(Place::Json)),
            Err(f) => flaw(f),
        },
    }
}

fn names_by_name(path: &str) -> bool {
    ["/api/show", "/api/delete", "/api/pull", "/api/push", "/api/create"].iter().any(|end| path.ends_with(end))
}

fn text<'b>(body: &'b [u8], place: &Place) -> Result<Option<Cow<'b, str>>, Why> {
    let name = match place {
        Place::Part(range) => Cow::Borrowed(std::str::from_utf8(&body[range.clone()]).map_err(|_| Why::NotText)?),
        Place::Json(range) => match &body[range.clone()] {
            b"null" => return Ok(None),
            value @ [b'"', inner @ .., _] => match std::str::from_utf8(inner) {
                Ok(plain) if !plain.contains('\\') => Cow::Borrowed(plain),
                _ => Cow::Owned(serde_json::from_slice::<String>(value).map_err(|_| Why::NotText)?),
            },
            _ => return Err(Why::NotText),
        },
    };
    if name.len() > MAX_NAME { Err(Why::NotText) } else { Ok(Some(name)) }
}

fn refuse(why: Why) -> HandlerError {
    let (message, param) = match why {
        Why::NotJson => ("We could not parse the JSON body of your request. The API expects a JSON payload.", None),
        Why::Twice => ("The request names its model more than once.", Some("model")),
        Why::TooDeep => ("The JSON body of your request is nested too deeply.", None),
        Why::NotText => ("`model` must be a string of at most 512 bytes.", Some("model")),
        Why::Dots => ("The path of your request has `.` or `..` in it.", None),
        Why::Disguised => ("The path of your request is not written as the API's paths are.", None),
        Why::NotNames => ("`models` and `fallbacks` must be lists of names.", Some("models")),
        Why::BadForm => ("We could not read the multipart body of your request.", None),
    };
    HandlerError::refusal(400, "model", Refusal { message: message.into(), param, ..Refusal::default() })
}

/// Whether a path of an LLM API has dot segments, plain or escaped: an upstream that resolves them would serve another
/// path than the one that was judged here.
fn leaves_its_segments(path: &str) -> bool {
    // Nearly every path is done with here.
    if !path.contains("/.") && !path.contains(['%', '\\']) {
        return false;
    }
    let decoded = percent_encoding::percent_decode_str(path).decode_utf8_lossy();
    let dots = decoded.split(['/', '\\']).any(|segment| segment == "." || segment == "..");
    dots && (Dialect::of_path(&decoded).is_some() || decoded.contains("/v1beta/models/"))
}

/// What stands before a model's name in a path.
const MARKERS: [&str; 3] = ["/openai/deployments/", "/v1beta/models/", "/v1/models/"];

/// Whether a path names a model only to an upstream that reads it more leniently: escaped, in other letter case, with
/// slashes doubled. What is looked at here instead, the body, would not be what counts there.
fn is_disguised(path: &str) -> bool {
    // Nearly every path is done with here.
    if !path.bytes().any(|b| b == b'%' || b.is_ascii_uppercase()) && !path.contains("//") {
        return false;
    }
    let mut plain = percent_encoding::percent_decode_str(path).decode_utf8_lossy().to_ascii_lowercase();
    while plain.contains("//") {
        plain = plain.replace("//", "/");
    }
    let ends = |method: &&str| !path.ends_with(method) && plain.ends_with(&method.to_ascii_lowercase());
    MARKERS.iter().any(|marker| plain.contains(marker) && !path.contains(marker))
        || GEMINI_METHODS.iter().any(ends)
        || is_realtime(&plain) && !is_realtime(path)
}

fn is_realtime(path: &str) -> bool {
    path.trim_end_matches('/').ends_with("/realtime")
}

/// Parameters that name the model of a realtime session: OpenAI's, Azure's.
const REALTIME: [&str; 2] = ["model=", "deployment="];

/// Whether a query could name one model to us and another to an upstream.
fn names_twice(query: &str) -> bool {
    let names = |pair: &&str| {
        let name = query_unescape(pair.split('=').next().unwrap_or_default());
        name.is_none_or(|name| ["model", "deployment"].iter().any(|known| name.eq_ignore_ascii_case(known)))
    };
    let mut naming = query.split('&').filter(names);
    let first = naming.next();
    naming.next().is_some() || first.is_some_and(|pair| !REALTIME.iter().any(|name| pair.starts_with(name)))
}

/// The model that a path or a query names.
fn model_in_uri(uri: &http::Uri) -> Option<Cow<'_, str>> {
    let raw = uri.path_and_query()?.as_str().get(place_in_uri(uri)?)?;
    let name = percent_encoding::percent_decode_str(raw).decode_utf8().ok()?;
    (!name.is_empty() && name.len() <= MAX_NAME).then_some(name)
}

/// Ends of paths such as `/v1/models/gemini-2.5-pro:generateContent`.
const GEMINI_METHODS: [&str; 5] =
    [":generateContent", ":streamGenerateContent", ":countTokens", ":embedContent", ":batchEmbedContents"];

/// Where path and query name it: `/v1/models/ID`, Azure's deployments, Gemini's `models/ID:method` under any version, and
/// `?model=` or `?deployment=` of realtime connections.
pub(super) fn place_in_uri(uri: &http::Uri) -> Option<Range<usize>> {
    let path = uri.path();
    // Asked several times for each request: the searcher of `str::find` takes longer to make than a path to read.
    let behind = |marker: &str| memchr::memmem::find(path.as_bytes(), marker.as_bytes()).map(|at| at + marker.len());
    let until = |start: usize, end: char| start..path[start..].find(end).map_or(path.len(), |at| start + at);
    if let Some(start) = behind("/openai/deployments/") {
        return Some(until(start, '/'));
    }
    if let Some(start) = behind("/v1beta/models/") {
        return Some(until(start, ':'));
    }
    if let Some(start) = behind("/v1/models/") {
        // Ids may hold `/` and `:`; only the methods of Gemini's API are none of it.
        let rest = &path[start..];
        let method = GEMINI_METHODS.iter().find(|method| rest.ends_with(*method)).map_or(0, |method| method.len());
        return Some(start..path.len() - method);
    }
    let last = path.rfind('/').map_or(0, |at| at + 1);
    if let Some(method) = GEMINI_METHODS.iter().find(|method| path[last..].ends_with(*method)) {
        return Some(last..path.len() - method.len());
    }
    if !is_realtime(path) {
        return None;
    }
    let mut start = path.len() + 1;
    for pair in uri.query()?.split('&') {
        if let Some(name) = REALTIME.iter().find(|name| pair.starts_with(*name)) {
            return Some(start + name.len()..start + pair.len());
        }
        start += pair.len() + 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::super::exchange::testing::exchange;
    use super::*;

    fn ask(path: &str, content_type: &str, body: &'static str) -> ModelOf {
        let mut ex = exchange("POST", path, &[("content-type", content_type)]);
        ex.body = Body::from(body);
        ex.requested_model(1 << 20)
    }

    fn named(found: ModelOf) -> Option<String> {
        match found {
            ModelOf::Named(name) => Some(name.to_string()),
            ModelOf::NotTold => None,
            other => panic!("{other:?}"),
        }
    }

    const JSON: &str = "application/json; charset=utf-8";

    #[test]
    fn the_body_names_it() {
        assert_eq!(named(ask("/v1/chat/completions", JSON, r#"{"messages":[],"model":"a\/b"}"#)), Some("a/b".into()));
        assert_eq!(named(ask("/x", "application/x-www-form-urlencoded", r#"{"model":"m"}"#)), Some("m".into()));
        assert_eq!(named(ask("/x", "text/plain", "a=b")), None);
        assert_eq!(named(ask("/x", JSON, "[1]")), None);
        assert_eq!(named(ask("/x", JSON, r#"{"model":null}"#)), None);
        assert_eq!(named(ask("/x", "audio/wav", r#"{"model":"m"}"#)), None);
        assert_eq!(named(ask("/api/show", JSON, r#"{"name":"n"}"#)), Some("n".into()));
        assert_eq!(named(ask("/api/show", JSON, r#"{"name":"n","model":"m"}"#)), Some("m".into()));
        assert_eq!(named(ask("/v1/chat/completions", JSON, r#"{"name":"n"}"#)), None);
        let form = "--B\r\ncontent-disposition: form-data; name=\"model\"\r\n\r\nwhisper-1\r\n--B--\r\n";
        let kind = "multipart/form-data; boundary=B";
        assert_eq!(named(ask("/v1/audio/transcriptions", kind, form)), Some("whisper-1".into()));
    }

    #[test]
    fn paths_and_queries_name_it() {
        for (uri, name) in [
            ("/v1/models/meta%2Fllama:8b", Some("meta/llama:8b")),
            ("/p/v1/models/meta/llama", Some("meta/llama")),
            ("/v1/models/gemini-2.5-pro:streamGenerateContent", Some("gemini-2.5-pro")),
            ("/v1/models", None),
            ("/v1/models/", None),
            ("/openai/deployments/d1/chat/completions?api-version=1", Some("d1")),
            ("/v1beta/models/gemini-2.5-pro:streamGenerateContent?alt=sse", Some("gemini-2.5-pro")),
            ("/v1/realtime?x=1&model=gpt-realtime", Some("gpt-realtime")),
            ("/v1/realtime", None),
            ("/v1/realtime/?model=gpt-realtime", Some("gpt-realtime")),
            ("/openai/realtime?api-version=1&deployment=d1", Some("d1")),
            ("/v1alpha/models/g:generateContent", Some("g")),
            ("/v1/projects/p/publishers/google/models/g:streamGenerateContent", Some("g")),
            ("/v1/chat/completions?model=x", None),
        ] {
            let mut ex = exchange("GET", uri, &[]);
            assert_eq!(named(ex.requested_model(1)).as_deref(), name, "{uri}");
        }
    }

    #[test]
    fn what_two_could_read_differently_is_refused() {
        for body in [r#"{"model":"a","Model":"b"}"#, r#"{"model":5}"#, r#"{"model":"a""#, "{\"model\":\"\\ud800\"}"] {
            let ModelOf::Bad(error) = ask("/v1/chat/completions", JSON, body) else { panic!("{body} passed") };
            assert_eq!(error.status, 400, "{body}");
        }
    }

    #[test]
    fn paths_that_an_upstream_may_resolve_to_others_are_refused() {
        for path in [
            "/v1/models/gpt-4o/../../chat/completions",
            "/v1/models/gpt-4o/%2e%2E/x",
            "/v1/models/gpt-4o%2f..%2fx",
            "/v1beta/models/x\\..\\y:generateContent",
            "/openai/deployments/a/./b",
            "/v1/chat/../chat/completions",
        ] {
            let asked = ask(path, JSON, r#"{"model":"a"}"#);
            assert!(matches!(asked, ModelOf::Bad(error) if error.status == 400), "{path}");
        }
        for path in ["/v1/models/..a", "/v1/models/a..b/c", "/static/../x", "/v1/models/%2ea"] {
            assert!(!matches!(ask(path, JSON, "{}"), ModelOf::Bad(_)), "{path}");
        }
    }

    #[test]
    fn paths_and_queries_that_name_another_model_to_an_upstream_are_refused() {
        for target in [
            "/openai/%64eployments/other/chat/completions",
            "/OpenAI/deployments/other/chat/completions",
            "/openai//deployments/other/chat/completions",
            "/v1beta/%6Dodels/other:generateContent",
            "/v1alpha/models/other%3AgenerateContent",
            "/v1/%72ealtime?model=other",
            "/v1/realtime?model=a&model=other",
            "/v1/realtime?model=a&%6dodel=other",
            "/v1/realtime?%6dodel=other",
            "/v1/realtime?Model=other",
            "/openai/realtime?model=a&deployment=other",
        ] {
            let asked = ask(target, JSON, r#"{"model":"a"}"#);
            assert!(matches!(asked, ModelOf::Bad(error) if error.status == 400), "{target}");
        }
        for target in ["/v1/chat/completions", "/Team//v1/chat/completions/", "/a%20b/v1/chat/completions"] {
            assert_eq!(named(ask(target, JSON, r#"{"model":"a"}"#)), Some("a".into()), "{target}");
        }
        assert_eq!(named(ask("/v1/models/Org%2FLlama", JSON, "")), Some("Org/Llama".into()));
    }

    #[test]
    fn models_to_fall_back_on_are_told() {
        let told = |body: &'static str| {
            let mut ex = exchange("POST", "/v1/chat/completions", &[("content-type", JSON)]);
            ex.body = Body::from(body);
            ex.fallback_models().map_err(|error| error.status)
        };
        assert_eq!(
            told(r#"{"model":"a","models":["b","c"],"fallbacks":["d"]}"#),
            Ok(vec!["b".into(), "c".into(), "d".into()])
        );
        assert_eq!(told(r#"{"model":"a","x":{"models":["b"]},"models":null}"#), Ok(vec![]));
        for body in [r#"{"Models":["b"],"models":[]}"#, r#"{"models":"b"}"#, r#"{"fallbacks":[{"model":"b"}]}"#] {
            assert_eq!(told(body), Err(400), "{body}");
        }
    }

    #[test]
    fn a_model_may_hide_where_nobody_looked() {
        let hides = |method: &str, headers: &[(&str, &str)], body: &'static str| {
            let mut ex = exchange(method, "/v1/chat/completions", headers);
            ex.body = Body::from(body);
            ex.may_hide_model()
        };
        let (json, gzip, png) = (("content-type", JSON), ("content-encoding", "gzip"), ("content-type", "image/png"));
        assert!(hides("POST", &[json, gzip], "x") && hides("POST", &[png], "x"));
        // Some parsers stop behind the object.
        assert!(hides("POST", &[], r#"{"model":"a"} x"#));
        assert!(!hides("POST", &[], "{}") && !hides("POST", &[json], "{}") && !hides("POST", &[png], ""));
        assert!(!hides("GET", &[png], "x") && !hides("POST", &[], "[1]"));
    }

    #[test]
    fn a_body_that_is_not_held_is_asked_for_and_a_new_one_is_read_anew() {
        let mut ex = exchange("POST", "/v1/chat/completions", &[("content-type", JSON)]);
        ex.body = Body::stream(http_body_util::Full::new(Bytes::from("{}")).map_err(|never| match never {}));
        assert!(matches!(ex.requested_model(7), ModelOf::NeedBody(7)));
        ex.replace_body(Bytes::from_static(br#"{"model":"a"}"#));
        assert_eq!(ex.headers["content-length"], "13");
        assert_eq!(named(ex.requested_model(7)), Some("a".into()));
        assert_eq!(ex.model_place(), Some(Place::Json(9..12)));
        ex.body = Body::from(r#"{"model":"b"}"#);
        assert_eq!(named(ex.requested_model(7)), Some("b".into()));
    }

    use http_body_util::BodyExt;
}

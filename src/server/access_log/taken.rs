//! What an entry shows of a request's and a response's head, without credentials: the headers as they were before
//! handlers changed them, the rest when handlers are done.
//!
//! It goes into one flat buffer, so that no header map is cloned and the connection's own buffer is not kept alive by a
//! long stream. Where every log is plain JSON that buffer holds the entry's objects as they will stand in its line.
//! Where a log filters fields or shows them in its own way, it holds the parts they are made of.

use std::borrow::Cow;
use std::net::IpAddr;
use std::rc::Rc;

use http::{HeaderMap, HeaderName, Method, Uri, Version, header};
use smallvec::SmallVec;

use super::request_line::RequestLine;
use crate::base::spare::Spare;
use crate::http::exchange::{Conn, Exchange, split_host_port};
use crate::telemetry::credentials::without_credentials;
use crate::telemetry::line::{Line, Value, key, write_field_name};
use crate::telemetry::query::REDACTED;

/// Most bytes of the headers of one side that an entry shows; the lines beyond are left out.
const MAX_HEADERS: usize = 32 << 10;
/// What a header takes beside its name and value.
const BETWEEN: usize = 6;
/// Buffers kept for requests to come, and the most that one of them may hold.
const MOST_SPARE: usize = 64;
const LARGEST_SPARE: usize = 4 << 10;

thread_local! {
    /// Buffers of ended requests, for those to come.
    static SPARE: Spare<Vec<u8>> = const { Spare::new(MOST_SPARE) };
}

pub struct Taken {
    /// The host, then the request's part, then the response's.
    bytes: Vec<u8>,
    host: usize,
    response: usize,
    chunked: bool,
    /// `None` when the parts are written out as they will stand in the line.
    parts: Option<Box<Parts>>,
}

/// What is needed to write the request's object later. The headers are in the buffer: `name length, value length, name,
/// value` one after the other, names in Go's form.
#[derive(Default)]
struct Parts {
    conn: Option<Rc<Conn>>,
    client_ip: Option<IpAddr>,
    version: Version,
    method: Method,
    uri: Uri,
    credentials: bool,
    /// Headers that a handler found to hold credentials.
    hidden: Vec<HeaderName>,
}

impl Taken {
    /// Host and headers. `plain`: every log that may take the entry is plain JSON.
    pub fn of(ex: &Exchange, plain: bool) -> Self {
        let mut bytes = spare();
        let host = ex.headers.get(header::HOST).map_or(&b""[..], |h| h.as_bytes());
        bytes.extend_from_slice(host);
        // Worked out now: handlers may change the headers that say it.
        ex.client_ip();
        let credentials = ex.server.log_credentials;
        if plain {
            write_shown(&mut Line::plain(&mut bytes), &ex.headers, credentials, Some(&header::HOST));
        } else {
            copy(&ex.headers, credentials, Some(&header::HOST), &mut bytes);
        }
        Self {
            host: host.len(),
            response: bytes.len(),
            bytes,
            chunked: ex.headers.contains_key(header::TRANSFER_ENCODING),
            parts: (!plain).then(Box::default),
        }
    }

    /// Adds the rest of the request, once, when handlers are done with it: they take out what they found to be a
    /// credential, of the target and of the headers.
    pub fn settle(&mut self, ex: &Exchange) {
        let request = RequestLine::of(ex);
        let hidden: &[HeaderName] = if request.credentials { &[] } else { &ex.log.secret_headers };
        if let Some(parts) = &mut self.parts {
            **parts = Parts {
                conn: Some(Rc::clone(&ex.conn)),
                client_ip: request.client_ip,
                version: request.version,
                method: request.method.clone(),
                uri: request.uri.clone(),
                credentials: request.credentials,
                hidden: hidden.to_vec(),
            };
            return;
        }
        for name in hidden {
            self.hide(name);
        }
        let mut bytes = spare();
        bytes.extend_from_slice(self.host());
        bytes.push(b'{');
        let mut line = Line::plain(&mut bytes);
        request.write(&mut line, self.host(), self.chunked, |line| line.written(self.request()));
        bytes.push(b'}');
        self.response = bytes.len();
        keep(std::mem::replace(&mut self.bytes, bytes));
    }

    /// Takes a header's values out of the list that is written.
    fn hide(&mut self, name: &HeaderName) {
        // A quote within a text has a backslash before it, so that this is found as a key alone.
        let mut opening = vec![b'"'];
        write_field_name(name.as_str(), &mut opening);
        opening.extend_from_slice(b"\":[");
        let Some(at) = memchr::memmem::find(self.request(), &opening) else { return };
        let from = self.host + at + opening.len();
        let values = self.bytes.get(from..self.response).unwrap_or(b"");
        let end = from + list_length(values);
        self.bytes.splice(from..end, format!("\"{REDACTED}\"").into_bytes());
        self.response = self.bytes.len();
    }

    pub fn add_response(&mut self, headers: &HeaderMap, credentials: bool) {
        if self.parts.is_some() {
            copy(headers, credentials, None, &mut self.bytes);
        } else {
            self.bytes.push(b'{');
            write_shown(&mut Line::plain(&mut self.bytes), headers, credentials, None);
            self.bytes.push(b'}');
        }
    }

    /// Without port.
    pub fn host_name(&self) -> &str {
        split_host_port(std::str::from_utf8(self.host()).unwrap_or("")).0
    }

    pub fn write_request(&self, line: &mut Line<'_>) {
        let Some(parts) = self.parts.as_deref() else {
            return line.field(key!("request"), Value::Json(self.request()));
        };
        let Some(conn) = &parts.conn else { return };
        let request = RequestLine {
            conn,
            client_ip: parts.client_ip,
            version: parts.version,
            method: &parts.method,
            uri: &parts.uri,
            credentials: parts.credentials,
        };
        line.object(key!("request"), |line| {
            request.write(line, self.host(), self.chunked, |line| write_copied(line, self.request(), &parts.hidden));
        });
    }

    pub fn write_response_headers(&self, line: &mut Line<'_>) {
        let headers = self.bytes.get(self.response..).unwrap_or(b"");
        match &self.parts {
            Some(_) => line.object(key!("resp_headers"), |line| write_copied(line, headers, &[])),
            None if headers.is_empty() => line.field(key!("resp_headers"), Value::Json(b"{}")),
            None => line.field(key!("resp_headers"), Value::Json(headers)),
        }
    }

    fn host(&self) -> &[u8] {
        self.bytes.get(..self.host).unwrap_or(b"")
    }

    fn request(&self) -> &[u8] {
        self.bytes.get(self.host..self.response).unwrap_or(b"")
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        keep(std::mem::take(&mut self.bytes));
    }
}

fn spare() -> Vec<u8> {
    let mut bytes = SPARE.with(Spare::take).unwrap_or_default();
    bytes.clear();
    bytes
}

fn keep(bytes: Vec<u8>) {
    if (1..=LARGEST_SPARE).contains(&bytes.capacity()) {
        let _ = SPARE.try_with(|spare| spare.keep(bytes));
    }
}

/// Gives the headers that an entry shows, in their order, but that of the name left out.
fn each_shown<'h>(
    headers: &'h HeaderMap,
    credentials: bool,
    left_out: Option<&HeaderName>,
    mut give: impl FnMut(&'h str, &[u8]),
) {
    let mut sum = 0;
    for (name, value) in headers {
        if *name == header::TRANSFER_ENCODING || Some(name) == left_out {
            continue;
        }
        let value = if credentials { Cow::Borrowed(value.as_bytes()) } else { without_credentials(name, value) };
        let name = name.as_str();
        if sum + name.len() + value.len() > MAX_HEADERS {
            return;
        }
        sum += BETWEEN + name.len() + value.len();
        give(name, &value);
    }
}

fn write_shown(line: &mut Line<'_>, headers: &HeaderMap, credentials: bool, left_out: Option<&HeaderName>) {
    let mut fields = line.head_fields();
    each_shown(headers, credentials, left_out, |name, value| fields.add(name, value, REDACTED));
    fields.end();
}

fn copy(headers: &HeaderMap, credentials: bool, left_out: Option<&HeaderName>, out: &mut Vec<u8>) {
    each_shown(headers, credentials, left_out, |name, value| {
        if let (Ok(name_length), Ok(value_length)) = (u16::try_from(name.len()), u32::try_from(value.len())) {
            out.extend_from_slice(&name_length.to_ne_bytes());
            out.extend_from_slice(&value_length.to_ne_bytes());
            write_field_name(name, out);
            out.extend_from_slice(value);
        }
    });
}

/// `hidden`: headers whose values are not shown.
fn write_copied(line: &mut Line<'_>, headers: &[u8], hidden: &[HeaderName]) {
    let is_hidden = |name| hidden.iter().any(|h| h.as_str().as_bytes().eq_ignore_ascii_case(name));
    let shown = |(name, value)| (name, if is_hidden(name) { REDACTED.as_bytes() } else { value });
    let mut lines = Copied(headers).map(shown).peekable();
    while let Some((name, value)) = lines.next() {
        let mut values = SmallVec::<[&[u8]; 8]>::from_elem(value, 1);
        while let Some((_, value)) = lines.next_if(|(next, _)| *next == name) {
            // Of a credential in several lines one mark is enough, as in Caddy.
            if value != REDACTED.as_bytes() {
                values.push(value);
            }
        }
        line.field(std::str::from_utf8(name).unwrap_or(""), Value::List(&values));
    }
}

/// Headers as [`copy`] wrote them.
struct Copied<'b>(&'b [u8]);

impl<'b> Iterator for Copied<'b> {
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

/// Bytes before the bracket that closes a list of texts; all when none does.
fn list_length(list: &[u8]) -> usize {
    let (mut quoted, mut escaped) = (false, false);
    let closes = |byte: &u8| {
        if escaped {
            escaped = false;
            return false;
        }
        match byte {
            b'\\' => escaped = true,
            b'"' => quoted = !quoted,
            b']' => return !quoted,
            _ => {}
        }
        false
    };
    list.iter().position(closes).unwrap_or(list.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::exchange::testing::exchange;
    use crate::telemetry::encoder::{Encoder, Entry};
    use crate::telemetry::level::Level;
    use http::HeaderValue;

    fn line(taken: &Taken) -> String {
        let mut out = Vec::new();
        let entry = Entry { level: Level::Info, unix_nanos: 0, logger: "", message: "" };
        let write = |line: &mut Line<'_>| {
            taken.write_request(line);
            taken.write_response_headers(line);
        };
        let encoder = Encoder::default();
        encoder.encode(&encoder.keys(), &entry, write, &mut out);
        String::from_utf8(out).unwrap()
    }

    /// What the entry shows, which is the same whether it was written at once or later.
    fn entry(ex: &mut Exchange, hidden: &[HeaderName], response: &HeaderMap) -> serde_json::Value {
        let mut taken = [true, false].map(|plain| Taken::of(ex, plain));
        // As handlers do that found credentials.
        ex.headers.clear();
        ex.log.secret_headers = hidden.to_vec();
        let masked = ex.original.uri.to_string().replace("/secret", "/masked");
        ex.original.uri = masked.parse().unwrap();
        for taken in &mut taken {
            taken.settle(ex);
            taken.add_response(response, ex.server.log_credentials);
            assert!(ex.host().is_empty());
        }
        assert_eq!(line(&taken[0]), line(&taken[1]));
        assert_eq!(taken[0].host_name(), taken[1].host_name());
        serde_json::from_str(&line(&taken[0])).unwrap()
    }

    #[test]
    fn heads_are_shown_in_gos_form_without_credentials() {
        let mut ex = exchange(
            "POST",
            "/secret/v1?a=1&key=s",
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
        let response = HeaderMap::from_iter([(header::SET_COOKIE, HeaderValue::from_static("a=1"))]);
        let redacted = serde_json::json!(["REDACTED"]);
        let shown = entry(&mut ex, &[], &response);
        assert_eq!(
            shown["request"],
            serde_json::json!({
                "remote_ip": "192.0.2.7", "remote_port": "5000", "client_ip": "192.0.2.7", "proto": "HTTP/1.1",
                "method": "POST", "host": "a.test:80", "uri": "/masked/v1?a=1&key=REDACTED",
                "headers": {
                    "X-Many": ["1", "2"], "Authorization": redacted, "Cookie": redacted, "X-Api-Key": redacted,
                    "X-Goog-Api-Key": redacted, "Referer": ["https://x/?a=1&key=REDACTED"],
                    "Sec-Websocket-Protocol": redacted,
                },
                "transfer_encoding": ["chunked"],
            })
        );
        assert_eq!(shown["resp_headers"], serde_json::json!({"Set-Cookie": redacted}));
    }

    #[test]
    fn a_header_found_to_hold_a_credential_is_hidden_whatever_it_holds() {
        for value in ["s", "", "]", "\"]", "\\", "\\\"],\"X-Key\":[\"s", "x\"X-Key\":[\"s"] {
            let headers = [("x-key", value), ("x-key", "s"), ("x-keys", "shown"), ("y", value), ("x", "\"X-Key\":[\"")];
            let names = ["x-key", "x-none"].map(HeaderName::from_static);
            let shown = entry(&mut exchange("GET", "/", &headers), &names, &HeaderMap::new());
            let expected = serde_json::json!({
                "X-Key": ["REDACTED"], "X-Keys": ["shown"], "Y": [value], "X": ["\"X-Key\":[\""]
            });
            assert_eq!(shown["request"]["headers"], expected, "{value}");
        }
    }

    #[test]
    fn what_is_taken_is_bounded() {
        let large = "x".repeat(20_000);
        let mut ex = exchange("GET", "/", &[("a", &large), ("b", &large), ("c", "1")]);
        assert!(Taken::of(&ex, true).bytes.len() <= MAX_HEADERS + 400);
        let shown = entry(&mut ex, &[], &HeaderMap::new());
        assert_eq!(shown["request"]["headers"].as_object().map(serde_json::Map::len), Some(1));
    }

    #[test]
    fn log_credentials_shows_them() {
        let mut ex = exchange("GET", "/", &[("authorization", "Bearer s")]);
        let facts = crate::http::exchange::ServerFacts { log_credentials: true, ..Default::default() };
        ex.server = Rc::new(facts);
        let shown = entry(&mut ex, &[], &HeaderMap::new());
        assert_eq!(shown["request"]["headers"]["Authorization"][0], "Bearer s");
    }
}

//! What becomes of one response: whether it is compressed, what its head then says, and its body.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use http_body::Body as _;

use super::Rules;
use super::coding::{Coding, Encoder};
use crate::base::body::Body;
use crate::base::error::{Kind, ProxyError, Retry};
use crate::base::field_list;
use crate::http::body_filter::{self, Out, Transform};
use crate::http::error::HandlerError;
use crate::http::exchange::{Exchange, Response};
use crate::http::handler::LocalFuture;
use crate::http::read_ahead::read_ahead;
use crate::http::stage::AsyncStage;

/// A response that its client takes in this coding.
pub struct Compression {
    pub rules: Arc<Rules>,
    pub coding: Coding,
    /// As `Content-Encoding` names it.
    pub name: HeaderValue,
}

impl AsyncStage for Compression {
    fn apply(
        self: Box<Self>,
        ex: &mut Exchange,
        mut response: Response,
    ) -> LocalFuture<'_, Result<Response, HandlerError>> {
        let head_only = ex.method == Method::HEAD;
        Box::pin(async move {
            // It says what the answer with a body would (RFC 9110 section 15.4.5).
            if response.status() == StatusCode::NOT_MODIFIED {
                vary(response.headers_mut());
                return Ok(response);
            }
            if self.may_be(&response) && self.is_worth_it(&mut response, head_only).await? {
                self.compress(&mut response).map_err(|error| HandlerError::internal("encode", error.to_string()))?;
            }
            Ok(response)
        })
    }
}

impl Compression {
    fn may_be(&self, response: &Response) -> bool {
        let headers = response.headers();
        // Ranges are of the bytes that the client's validator stands for.
        response.status() != StatusCode::PARTIAL_CONTENT
            && !headers.contains_key(header::CONTENT_ENCODING)
            && !forbidden(headers)
            && self.rules.only.matches(response.status().as_u16(), headers)
    }

    /// Whether it is long enough: by its length, or by its first piece where that is not told. Events are always.
    async fn is_worth_it(&self, response: &mut Response, head_only: bool) -> Result<bool, HandlerError> {
        let body = response.body();
        let stated = response.headers().get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse().ok());
        let length = if head_only { stated } else { body.size_hint().exact().or(stated) };
        if let Some(length) = length {
            return Ok(length > self.rules.minimum && (head_only || !body.is_empty()));
        }
        if head_only || body.is_empty() {
            return Ok(false);
        }
        if is_event_stream(response.headers()) {
            return Ok(true);
        }
        let body = read_ahead(response.body_mut().take(), Some(1)).await;
        let body = body.map_err(|error| HandlerError::from_proxy("encode", error))?;
        let first = body.size_hint().lower();
        *response.body_mut() = body;
        Ok(first > self.rules.minimum)
    }

    fn compress(&self, response: &mut Response) -> io::Result<()> {
        // A body whose end is far off must not wait in the encoder for more to come.
        let is_bounded = response.headers().contains_key(header::CONTENT_LENGTH);
        self.tell(response.headers_mut());
        let compressed = match response.body_mut().take() {
            Body::Empty => Body::Empty,
            Body::Full(bytes) => {
                let small = self.coding.whole(&bytes)?;
                response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(small.len()));
                Body::from(Bytes::from(small))
            }
            stream @ Body::Stream(_) => {
                let transform = Compress { encoder: Some(self.coding.encoder()?), flush: !is_bounded };
                body_filter::filter(stream, transform)
            }
        };
        *response.body_mut() = compressed;
        Ok(())
    }

    fn tell(&self, headers: &mut HeaderMap) {
        let etag = headers.get(header::ETAG).and_then(|etag| self.of_this_coding(etag));
        let kept = headers.get(header::ETAG).cloned();
        body_filter::forget_body(headers);
        if let Some(etag) = etag.or(kept) {
            headers.insert(header::ETAG, etag);
        }
        headers.insert(header::CONTENT_ENCODING, self.name.clone());
        vary(headers);
    }

    /// A strong validator stands for bytes, so that of the compressed ones is another: `"x"` becomes `"x-gzip"`, as in
    /// Caddy. Weak ones stay.
    fn of_this_coding(&self, etag: &HeaderValue) -> Option<HeaderValue> {
        let inner = etag.to_str().ok()?.strip_suffix('"').filter(|e| !e.starts_with("W/"))?;
        HeaderValue::from_str(&format!("{inner}-{}\"", self.name.to_str().ok()?)).ok()
    }
}

/// `Cache-Control: no-transform`, of a request or a response.
pub fn forbidden(headers: &HeaderMap) -> bool {
    field_list::says(headers, &header::CACHE_CONTROL, "no-transform")
}

/// Takes our ending off the validator that the client sends back: whoever made it does not know of it.
pub fn forget_ending(headers: &mut HeaderMap, coding: &str) {
    let Some(sent) = headers.get(header::IF_NONE_MATCH).and_then(|v| v.to_str().ok()) else { return };
    let ending = format!("-{coding}\"");
    if let Some(inner) = sent.strip_suffix(&ending).filter(|_| !sent.starts_with("W/"))
        && let Ok(value) = HeaderValue::from_str(&format!("{inner}\""))
    {
        headers.insert(header::IF_NONE_MATCH, value);
    }
}

fn vary(headers: &mut HeaderMap) {
    const ACCEPT_ENCODING: HeaderName = header::ACCEPT_ENCODING;
    if !field_list::says(headers, &header::VARY, ACCEPT_ENCODING.as_str()) {
        headers.append(header::VARY, HeaderValue::from_static("Accept-Encoding"));
    }
}

fn is_event_stream(headers: &HeaderMap) -> bool {
    let media_type = headers.get(header::CONTENT_TYPE).map_or(&b""[..], |value| value.as_bytes());
    let media_type = media_type.split(|b| *b == b';').next().unwrap_or_default();
    media_type.trim_ascii().eq_ignore_ascii_case(b"text/event-stream")
}

struct Compress {
    /// `None` once it has ended.
    encoder: Option<Encoder>,
    /// After each piece, so that it can be read before the next one comes.
    flush: bool,
}

impl Transform for Compress {
    fn data(&mut self, chunk: Bytes, out: &mut Out) -> Result<(), ProxyError> {
        let Some(encoder) = &mut self.encoder else { return Ok(()) };
        encoder.write(&chunk).map_err(failed)?;
        if self.flush {
            encoder.flush().map_err(failed)?;
        }
        out.push(encoder.take());
        Ok(())
    }

    fn end(&mut self, how: Result<(), ProxyError>, out: &mut Out) -> Result<(), ProxyError> {
        // One that was cut must not look whole.
        how?;
        if let Some(encoder) = self.encoder.take() {
            out.push(encoder.finish().map_err(failed)?);
        }
        Ok(())
    }
}

fn failed(error: io::Error) -> ProxyError {
    ProxyError::new(Kind::Internal, Retry::No, format!("compressing failed: {error}"))
}

#[cfg(test)]
mod tests {
    use super::super::coding::testing::decoded;
    use super::*;
    use crate::http::body_filter::testing::{broken, byte_chunks, read};
    use crate::http::exchange::testing::exchange;

    fn answer(status: u16, headers: &[(&'static str, &'static str)], body: Body) -> Response {
        let mut response = Response::new(body);
        *response.status_mut() = StatusCode::from_u16(status).unwrap();
        for (name, value) in headers {
            response.headers_mut().append(*name, HeaderValue::from_static(value));
        }
        response
    }

    fn run(method: &str, response: Response) -> Result<Response, HandlerError> {
        let stage = Compression {
            rules: Arc::new(Rules::with_defaults()),
            coding: Coding::Gzip(5),
            name: HeaderValue::from_static("gzip"),
        };
        let mut ex = exchange(method, "/", &[]);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(Box::new(stage).apply(&mut ex, response))
    }

    fn pieces(parts: &[&str]) -> Vec<Bytes> {
        parts.iter().map(|part| Bytes::from((*part).to_owned())).collect()
    }

    fn header<'r>(response: &'r Response, name: &str) -> &'r str {
        response.headers().get(name).map_or("", |v| v.to_str().unwrap())
    }

    const TEXT: (&str, &str) = ("content-type", "text/plain");

    #[test]
    fn a_whole_body_keeps_a_length_and_gets_a_validator_of_its_own() {
        let headers =
            [TEXT, ("content-length", "600"), ("etag", "\"abc\""), ("accept-ranges", "bytes"), ("digest", "x")];
        let response = run("GET", answer(200, &headers, Body::from("a".repeat(600)))).unwrap();
        assert_eq!(header(&response, "content-encoding"), "gzip");
        assert_eq!(header(&response, "etag"), "\"abc-gzip\"");
        assert_eq!(header(&response, "vary"), "Accept-Encoding");
        assert!(!response.headers().contains_key("accept-ranges") && !response.headers().contains_key("digest"));
        let length: usize = header(&response, "content-length").parse().unwrap();
        let (bytes, whole) = read(response.into_body());
        assert!(whole && bytes.len() == length && decoded("gzip", &bytes) == "a".repeat(600).as_bytes());
    }

    #[test]
    fn what_must_not_or_need_not_be_compressed_passes() {
        let long = || Body::from("a".repeat(600));
        for response in [
            answer(200, &[TEXT], Body::from("a".repeat(512))),
            answer(200, &[("content-type", "image/png")], long()),
            answer(200, &[], long()),
            answer(200, &[TEXT, ("content-encoding", "br")], long()),
            answer(200, &[TEXT, ("cache-control", "private, no-transform")], long()),
            answer(206, &[TEXT], long()),
            answer(200, &[TEXT], Body::Empty),
            answer(200, &[TEXT], byte_chunks(pieces(&["short", &"a".repeat(600)]))),
        ] {
            let before = format!("{:?}", response.headers());
            let response = run("GET", response).unwrap();
            assert_eq!(format!("{:?}", response.headers()), before);
            assert!(read(response.into_body()).1);
        }
        let response = run("GET", answer(304, &[("vary", "Origin")], Body::Empty)).unwrap();
        assert_eq!(response.headers().get_all("vary").iter().count(), 2);
    }

    #[test]
    fn weak_validators_and_varies_stay() {
        let headers = [TEXT, ("etag", "W/\"abc\""), ("vary", "Origin, accept-encoding")];
        let response = run("GET", answer(500, &headers, Body::from("a".repeat(600)))).unwrap();
        assert_eq!(header(&response, "content-encoding"), "gzip");
        assert_eq!(header(&response, "etag"), "W/\"abc\"");
        assert_eq!(response.headers().get_all("vary").iter().count(), 1);
    }

    #[test]
    fn each_event_of_a_stream_leaves_at_once() {
        let events = ["data: 1\n\n", "data: 2\n\n"];
        let stream = answer(200, &[("content-type", "text/event-stream; charset=utf-8")], byte_chunks(pieces(&events)));
        let mut body = run("GET", stream).unwrap().into_body();
        let mut got = Vec::new();
        for said in ["data: 1\n\n", "data: 1\n\ndata: 2\n\n"] {
            let frame = body_filter::testing::next(&mut body).unwrap().unwrap();
            got.extend_from_slice(frame.data_ref().unwrap());
            assert_eq!(decoded("gzip", &got), said.as_bytes());
        }
    }

    #[test]
    fn a_long_first_piece_decides_for_a_body_of_unknown_length() {
        let stream = byte_chunks(pieces(&[&"a".repeat(600), "b"]));
        let response = run("GET", answer(200, &[TEXT], stream)).unwrap();
        assert_eq!(header(&response, "content-encoding"), "gzip");
        let (bytes, whole) = read(response.into_body());
        assert!(whole && decoded("gzip", &bytes).ends_with(b"ab"));
    }

    #[test]
    fn a_body_that_is_cut_does_not_look_whole() {
        let headers = [TEXT, ("content-length", "9999")];
        let response = run("GET", answer(200, &headers, broken(pieces(&["a"])))).unwrap();
        assert_eq!(header(&response, "content-encoding"), "gzip");
        assert!(!read(response.into_body()).1);
        assert_eq!(run("GET", answer(200, &[TEXT], broken(Vec::new()))).unwrap_err().status, 502);
    }

    #[test]
    fn an_answer_to_head_says_what_one_to_get_would() {
        let response = run("HEAD", answer(200, &[TEXT, ("content-length", "600")], Body::Empty)).unwrap();
        assert_eq!(header(&response, "content-encoding"), "gzip");
        assert!(!response.headers().contains_key("content-length"));
    }

    #[test]
    fn the_ending_of_a_validator_is_taken_off_again() {
        for (sent, seen) in
            [("\"abc-gzip\"", "\"abc\""), ("\"abc-zstd\"", "\"abc-zstd\""), ("W/\"abc-gzip\"", "W/\"abc-gzip\"")]
        {
            let mut headers = HeaderMap::from_iter([(header::IF_NONE_MATCH, HeaderValue::from_static(sent))]);
            forget_ending(&mut headers, "gzip");
            assert_eq!(headers[header::IF_NONE_MATCH], seen);
        }
    }
}

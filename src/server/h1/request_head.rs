//! A request's head over HTTP/1, read strictly (RFC 9112): what two parsers could read in two ways is refused, so that
//! nothing behind us finds a second request in it.

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderName, HeaderValue, Method, Request, StatusCode, Uri, Version, header};

use crate::base::spare_headers;
use crate::client::h1::head::Receiving;
use crate::client::h1::names;
use crate::server::connection::MAX_HEADERS;

/// Longest target (what `http::Uri` takes).
const MAX_TARGET: usize = u16::MAX as usize - 1;

/// A head and how the body behind it is told.
#[derive(Debug)]
pub struct RequestHead {
    pub parts: Parts,
    pub body: Receiving,
    /// The client waits for `100 Continue` before it sends the body (RFC 9110 section 10.1.1).
    pub expects: bool,
    /// What the client said about the connection after this request; the version's own when nothing.
    pub keep_alive: bool,
}

/// Reads a whole head, its final empty line included. The values share its bytes. The error is what to answer.
pub fn parse(bytes: &Bytes) -> Result<RequestHead, StatusCode> {
    const BAD: StatusCode = StatusCode::BAD_REQUEST;
    let mut lines = Lines(bytes);
    let line = lines.next().ok_or(BAD)??;
    let (method, target, version) = request_line(line)?;
    let mut parts = Request::new(()).into_parts().0;
    parts.method = method;
    parts.uri = Uri::from_maybe_shared(bytes.slice_ref(target)).map_err(|_| BAD)?;
    parts.version = version;
    parts.headers = spare_headers::take(12);
    let mut facts = Facts { length: None, chunked: false, close: false, keep_alive: false, expects: false };
    let mut count = 0;
    for line in lines {
        let line = line?;
        if line.is_empty() {
            break;
        }
        count += 1;
        if count > MAX_HEADERS {
            return Err(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
        }
        let colon = memchr::memchr(b':', line).ok_or(BAD)?;
        // Space before the colon, or a line that goes on from the one before (section 5): no name has spaces.
        let name = names::read(line.get(..colon).unwrap_or(b"")).ok_or(BAD)?;
        let value = trim(line.get(colon + 1..).unwrap_or(b""));
        facts.note(&name, value)?;
        // Refuses control characters, a bare CR among them.
        let value = HeaderValue::from_maybe_shared(bytes.slice_ref(value)).map_err(|_| BAD)?;
        parts.headers.append(name, value);
    }
    let body = match (facts.length, facts.chunked) {
        // A coding that HTTP/1.0 does not have (section 6.1), or two framings at once (section 6.3, point 3).
        (Some(_), true) => return Err(BAD),
        (None, true) if version == Version::HTTP_10 => return Err(BAD),
        (None, true) => Receiving::Chunked,
        (Some(length), false) if length > 0 => Receiving::Length(length),
        _ => Receiving::Nothing,
    };
    Ok(RequestHead {
        body,
        expects: facts.expects && version == Version::HTTP_11 && body != Receiving::Nothing,
        keep_alive: !facts.close && (version == Version::HTTP_11 || facts.keep_alive),
        parts,
    })
}

/// Whether these first bytes of a connection cannot become a request line: TLS, for one.
pub fn is_hopeless(bytes: &[u8]) -> bool {
    let first = bytes.iter().find(|b| !matches!(b, b'\r' | b'\n'));
    first.is_some_and(|b| !is_token(*b))
}

fn request_line(line: &[u8]) -> Result<(Method, &[u8], Version), StatusCode> {
    const BAD: StatusCode = StatusCode::BAD_REQUEST;
    let space = memchr::memchr(b' ', line).ok_or(BAD)?;
    let (method, rest) = line.split_at(space);
    let rest = rest.get(1..).unwrap_or(b"");
    let space = memchr::memchr(b' ', rest).ok_or(BAD)?;
    let (target, version) = rest.split_at(space);
    if target.len() > MAX_TARGET {
        return Err(StatusCode::URI_TOO_LONG);
    }
    if target.iter().any(|b| *b <= b' ' || *b == 0x7f) {
        return Err(BAD);
    }
    let version = match version {
        b" HTTP/1.1" => Version::HTTP_11,
        b" HTTP/1.0" => Version::HTTP_10,
        [b' ', b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
            if major.is_ascii_digit() && minor.is_ascii_digit() =>
        {
            return Err(StatusCode::HTTP_VERSION_NOT_SUPPORTED);
        }
        _ => return Err(BAD),
    };
    Ok((Method::from_bytes(method).map_err(|_| BAD)?, target, version))
}

/// What the fields say about body and connection.
struct Facts {
    length: Option<u64>,
    chunked: bool,
    close: bool,
    keep_alive: bool,
    expects: bool,
}

impl Facts {
    fn note(&mut self, name: &HeaderName, value: &[u8]) -> Result<(), StatusCode> {
        const BAD: StatusCode = StatusCode::BAD_REQUEST;
        match *name {
            header::CONTENT_LENGTH => {
                if self.length.is_some() || value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
                    return Err(BAD);
                }
                self.length = Some(std::str::from_utf8(value).ok().and_then(|v| v.parse().ok()).ok_or(BAD)?);
            }
            header::TRANSFER_ENCODING => {
                if self.chunked || !value.eq_ignore_ascii_case(b"chunked") {
                    return Err(BAD);
                }
                self.chunked = true;
            }
            header::CONNECTION => {
                for word in value.split(|b| *b == b',').map(<[u8]>::trim_ascii) {
                    self.close |= word.eq_ignore_ascii_case(b"close");
                    self.keep_alive |= word.eq_ignore_ascii_case(b"keep-alive");
                }
            }
            header::EXPECT => self.expects |= value.eq_ignore_ascii_case(b"100-continue"),
            _ => {}
        }
        Ok(())
    }
}

/// Lines without their CR LF; a line that ends otherwise is an error: for some readers it ends there, for others not.
struct Lines<'b>(&'b [u8]);

impl<'b> Iterator for Lines<'b> {
    type Item = Result<&'b [u8], StatusCode>;

    fn next(&mut self) -> Option<Self::Item> {
        let at = memchr::memchr(b'\n', self.0)?;
        let (line, rest) = self.0.split_at(at);
        self.0 = rest.get(1..).unwrap_or(b"");
        Some(line.strip_suffix(b"\r").ok_or(StatusCode::BAD_REQUEST))
    }
}

/// White space around a value is not part of it (section 5.1): blanks and tabs, nothing else.
fn trim(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = value {
        value = rest;
    }
    while let [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

fn is_token(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(head: &str) -> Result<RequestHead, u16> {
        parse(&Bytes::copy_from_slice(head.as_bytes())).map_err(|s| s.as_u16())
    }

    fn with(fields: &str) -> Result<RequestHead, u16> {
        read(&format!("POST /x?y HTTP/1.1\r\nHost: a\r\n{fields}\r\n"))
    }

    #[test]
    fn an_ordinary_head() {
        let head = with("X-A:  b \t\r\nx-a:\r\nContent-Length: 12\r\nConnection: Foo, Close\r\n").unwrap();
        assert_eq!((head.parts.method.as_str(), head.parts.uri.to_string().as_str()), ("POST", "/x?y"));
        let values: Vec<_> = head.parts.headers.get_all("x-a").iter().map(|v| v.to_str().unwrap()).collect();
        assert_eq!((values.as_slice(), head.body, head.keep_alive), (&["b", ""][..], Receiving::Length(12), false));
    }

    #[test]
    fn how_long_the_connection_is_kept() {
        assert!(with("").unwrap().keep_alive);
        let old = |fields| read(&format!("GET / HTTP/1.0\r\n{fields}\r\n")).unwrap().keep_alive;
        assert_eq!((old(""), old("Connection: keep-alive\r\n")), (false, true));
    }

    #[test]
    fn only_a_body_is_waited_for() {
        assert!(with("Expect: 100-Continue\r\nContent-Length: 1\r\n").unwrap().expects);
        assert!(!with("Expect: 100-continue\r\n").unwrap().expects);
    }

    #[test]
    fn framing_that_can_be_read_in_two_ways_is_refused() {
        for fields in [
            "Transfer-Encoding: chunked\r\nContent-Length: 3\r\n",
            "Content-Length: 3\r\nContent-Length: 3\r\n",
            "Content-Length: 3, 3\r\n",
            "Content-Length: +3\r\n",
            "Content-Length:\r\n",
            "Content-Length: 99999999999999999999\r\n",
            "Transfer-Encoding: gzip, chunked\r\n",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: \x0bchunked\r\n",
            "X: a\r\n folded\r\n",
            "X: a\nContent-Length: 3\r\n",
            "X: a\rY: b\r\n",
            "X : a\r\n",
            ": a\r\n",
            "no colon\r\n",
            "X: a\n",
            "X: \0\r\n",
        ] {
            assert_eq!(with(fields).err(), Some(400), "{fields:?}");
        }
        assert_eq!(read("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n").err(), Some(400));
    }

    #[test]
    fn request_lines_have_three_parts() {
        for line in
            ["GET /", "GET  / HTTP/1.1", "GET / HTTP/1.1 ", "GET /\tx HTTP/1.1", " / HTTP/1.1", "G(T / HTTP/1.1"]
        {
            assert_eq!(read(&format!("{line}\r\nHost: a\r\n\r\n")).err(), Some(400), "{line}");
        }
        assert_eq!(read("GET / HTTP/2.0\r\n\r\n").err(), Some(505));
        assert_eq!(read(&format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(MAX_TARGET))).err(), Some(414));
        let many = "x: 1\r\n".repeat(MAX_HEADERS);
        assert_eq!(with(&many).err(), Some(431));
    }

    proptest::proptest! {
        /// Whatever comes: no panic, and what is taken says its framing once.
        #[test]
        fn what_is_taken_is_plain(parts in proptest::collection::vec(proptest::sample::select(&[
            "GET / HTTP/1.1\r\n", "POST /x HTTP/1.1\r\n", "Host: a\r\n", "Content-Length: 5\r\n", "content-length: 0\r\n",
            "Transfer-Encoding: chunked\r\n", "Upgrade: websocket\r\n", "\r\n", "\n", "\r", " folded\r\n", "\0", ":",
        ][..]), 0..12)) {
            let text = parts.concat();
            if let Ok(head) = parse(&Bytes::copy_from_slice(text.as_bytes())) {
                let count = |name| head.parts.headers.get_all(name).iter().count();
                proptest::prop_assert!(count("content-length") + count("transfer-encoding") <= 1);
            }
        }
    }
}

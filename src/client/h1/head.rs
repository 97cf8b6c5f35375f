//! Heads of HTTP/1.1: a request's written, a response's read, and how long the bodies behind them are (RFC 9112).

use std::io::Write as _;
use std::mem::MaybeUninit;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Version, header};
use http_body::Body as _;
use hyper::ext::ReasonPhrase;

use super::names;
use crate::base::body::Body;
use crate::base::field_list;
use crate::base::spare_headers;

/// Most header fields of a response. They are parsed on the stack.
const MAX_FIELDS: usize = 100;

/// How the end of a body that we send is told.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Sending {
    Nothing,
    Length(u64),
    Chunked,
    /// Responses to HTTP/1.0 alone.
    UntilClose,
}

impl Sending {
    /// A body of known length has that; for a stream that does not know it, the length stated in the head counts.
    pub fn of(headers: &HeaderMap, body: &Body) -> Self {
        if body.is_end_stream() {
            return Self::Nothing;
        }
        let stated = || Length::of(headers).ok().and_then(|length| length.0);
        match body.size_hint().exact().or_else(stated) {
            Some(length) => Self::Length(length),
            None => Self::Chunked,
        }
    }
}

/// Appends the head of a request. Framing is ours alone: its body may have been taken out.
pub fn write(request: &Request<Body>, sending: Sending, out: &mut Vec<u8>) {
    let (method, uri) = (request.method(), request.uri());
    out.extend_from_slice(method.as_str().as_bytes());
    out.push(b' ');
    match (uri.authority(), uri.path_and_query()) {
        (None, Some(path)) if !path.as_str().is_empty() => out.extend_from_slice(path.as_str().as_bytes()),
        (None, _) => out.push(b'/'),
        // Absolute form for a proxy, authority form for CONNECT.
        (Some(_), _) => {
            let _ = write!(out, "{uri}");
        }
    }
    out.extend_from_slice(b" HTTP/1.1\r\n");
    for (name, value) in request.headers() {
        if *name == header::CONTENT_LENGTH || *name == header::TRANSFER_ENCODING {
            continue;
        }
        write_field(name, value, out);
    }
    match sending {
        Sending::Chunked => out.extend_from_slice(b"transfer-encoding: chunked\r\n"),
        Sending::Length(length) => write_length(length, out),
        // A method that may have a body says that it has none (RFC 9110 section 8.6).
        Sending::Nothing if matches!(*method, Method::POST | Method::PUT | Method::PATCH) => write_length(0, out),
        Sending::Nothing | Sending::UntilClose => {}
    }
    out.extend_from_slice(b"\r\n");
}

pub fn write_length(length: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(b"content-length: ");
    out.extend_from_slice(itoa::Buffer::new().format(length).as_bytes());
    out.extend_from_slice(b"\r\n");
}

pub fn write_field(name: &HeaderName, value: &HeaderValue, out: &mut Vec<u8>) {
    out.extend_from_slice(name.as_str().as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value.as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// A response's head.
#[derive(Debug)]
pub struct Head {
    pub version: Version,
    pub status: StatusCode,
    pub headers: HeaderMap,
    /// When it is not the usual one of the status.
    pub reason: Option<ReasonPhrase>,
    said: Said,
}

/// Which of the fields about body and connection there are; nobody has to look for those that are not.
#[derive(Debug, Default)]
struct Said {
    length: bool,
    coding: bool,
    connection: bool,
}

/// Where a head ends; `None` when it goes on. `from`: how many bytes were looked at before.
pub fn end(bytes: &[u8], from: usize) -> Option<usize> {
    let start = from.saturating_sub(3);
    let rest = bytes.get(start..)?;
    // Lines may end in a bare line feed (RFC 9112 section 2.2).
    memchr::memchr_iter(b'\n', rest).find_map(|at| match rest.get(at + 1..)? {
        [b'\n', ..] => Some(start + at + 2),
        [b'\r', b'\n', ..] => Some(start + at + 3),
        _ => None,
    })
}

/// Reads a whole head. The values share its bytes.
pub fn parse(bytes: &Bytes) -> Result<Head, &'static str> {
    let mut fields = [const { MaybeUninit::uninit() }; MAX_FIELDS];
    let mut response = httparse::Response::new(&mut []);
    let parsed =
        httparse::ParserConfig::default().parse_response_with_uninit_headers(&mut response, bytes, &mut fields);
    match parsed {
        Ok(httparse::Status::Complete(read)) if read == bytes.len() => {}
        Ok(httparse::Status::Complete(_)) => return Err("the head ends in two places"),
        Ok(httparse::Status::Partial) => return Err("the head is not whole"),
        Err(httparse::Error::TooManyHeaders) => return Err("more than 100 header fields"),
        Err(httparse::Error::Version) => return Err("not HTTP/1"),
        Err(_) => return Err("the head is not HTTP"),
    }
    let status = response.code.and_then(|code| StatusCode::from_u16(code).ok()).ok_or("no such status")?;
    let version = if response.version == Some(0) { Version::HTTP_10 } else { Version::HTTP_11 };
    let reason = response.reason.filter(|reason| !reason.is_empty() && status.canonical_reason() != Some(*reason));
    let reason = reason.and_then(|reason| ReasonPhrase::try_from(reason.as_bytes()).ok());
    let mut headers = spare_headers::take(response.headers.len() + 2);
    let mut said = Said::default();
    for field in response.headers.iter() {
        let name = names::read(field.name.as_bytes()).ok_or("a header name is not valid")?;
        said.length |= name == header::CONTENT_LENGTH;
        said.coding |= name == header::TRANSFER_ENCODING;
        said.connection |= name == header::CONNECTION;
        let value = HeaderValue::from_maybe_shared(bytes.slice_ref(field.value));
        headers.append(name, value.map_err(|_| "a header value is not valid")?);
    }
    Ok(Head { version, status, headers, reason, said })
}

/// How the end of a response's body is told (RFC 9112 section 6.3).
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Receiving {
    Nothing,
    Length(u64),
    Chunked,
    UntilClose,
}

impl Receiving {
    /// Removes a `content-length` that does not count. The second value: whether the connection may serve again.
    pub fn of(head: &mut Head, method: &Method) -> Result<(Self, bool), &'static str> {
        let mut again = may_serve_again(head);
        if head.status == StatusCode::NO_CONTENT {
            // It must not speak of a body (RFC 9110 section 8.6): one that does may send it, too.
            let length = head.headers.remove(header::CONTENT_LENGTH);
            again &= length.is_none_or(|length| length == "0");
            again &= !head.headers.contains_key(header::TRANSFER_ENCODING);
            return Ok((Self::Nothing, again));
        }
        if *method == Method::HEAD || head.status == StatusCode::NOT_MODIFIED {
            return Ok((Self::Nothing, again));
        }
        if head.said.coding {
            let mut codings = head.headers.get_all(header::TRANSFER_ENCODING).iter();
            let coding = codings.next().ok_or("no transfer coding")?;
            if codings.next().is_some() || !coding.as_bytes().eq_ignore_ascii_case(b"chunked") {
                return Err("a transfer coding other than chunked");
            }
            if head.version == Version::HTTP_10 {
                return Err("a transfer coding in HTTP/1.0");
            }
            // Two framings: the coding counts, and what is behind the body is not trusted (section 6.3, point 3).
            again &= head.headers.remove(header::CONTENT_LENGTH).is_none();
            return Ok((Self::Chunked, again));
        }
        if !head.said.length {
            return Ok((Self::UntilClose, false));
        }
        let length = Length::of(&head.headers)?.0;
        say_once(length, &mut head.headers);
        match length {
            Some(0) => Ok((Self::Nothing, again)),
            Some(length) => Ok((Self::Length(length), again)),
            None => Ok((Self::UntilClose, false)),
        }
    }
}

/// A length said more than once goes on as one (RFC 9110 section 8.6).
fn say_once(length: Option<u64>, headers: &mut HeaderMap) {
    let mut values = headers.get_all(header::CONTENT_LENGTH).iter();
    let repeated = values.next().is_some_and(|value| value.as_bytes().contains(&b',')) || values.next().is_some();
    if let Some(length) = length.filter(|_| repeated) {
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    }
}

fn may_serve_again(head: &Head) -> bool {
    if !head.said.connection {
        return head.version != Version::HTTP_10;
    }
    let says = |word: &str| field_list::says(&head.headers, &header::CONNECTION, word);
    !says("close") && (head.version != Version::HTTP_10 || says("keep-alive"))
}

/// `content-length`: one value, however often it is said.
struct Length(Option<u64>);

impl Length {
    fn of(headers: &HeaderMap) -> Result<Self, &'static str> {
        const WRONG: &str = "content-length is not a length";
        let mut found = None;
        for value in headers.get_all(header::CONTENT_LENGTH) {
            for word in value.as_bytes().split(|b| *b == b',') {
                let word = word.trim_ascii();
                if word.is_empty() || !word.iter().all(u8::is_ascii_digit) {
                    return Err(WRONG);
                }
                let length = std::str::from_utf8(word).ok().and_then(|w| w.parse::<u64>().ok()).ok_or(WRONG)?;
                if found.is_some_and(|before| before != length) {
                    return Err("content-length has two values");
                }
                found = Some(length);
            }
        }
        Ok(Self(found))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::body::Body;

    fn receiving(text: &'static str, method: &Method) -> Result<(Receiving, bool), &'static str> {
        Receiving::of(&mut parse(&Bytes::from_static(text.as_bytes()))?, method)
    }

    #[test]
    fn the_end_of_a_head_is_found_however_it_comes() {
        let head = b"HTTP/1.1 200 OK\r\na: b\r\n\r\nrest";
        let whole = end(head, 0).unwrap();
        assert_eq!(&head[whole..], b"rest");
        for cut in 0..head.len() {
            match end(&head[..cut], 0) {
                Some(at) => assert_eq!(at, whole),
                None => assert_eq!(end(head, cut), Some(whole), "{cut}"),
            }
        }
        assert_eq!(end(b"HTTP/1.1 200 OK\na: b\n\nrest", 0), Some(22));
    }

    #[test]
    fn how_long_a_body_is() {
        use Receiving::*;
        let get = |text| receiving(text, &Method::GET);
        assert_eq!(get("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n"), Ok((Length(5), true)));
        assert_eq!(get("HTTP/1.1 200 OK\r\ncontent-length: 5\r\nContent-Length: 5, 5\r\n\r\n"), Ok((Length(5), true)));
        assert_eq!(get("HTTP/1.1 200 OK\r\ntransfer-encoding: Chunked\r\n\r\n"), Ok((Chunked, true)));
        assert_eq!(
            get("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n"),
            Ok((Chunked, false))
        );
        assert_eq!(get("HTTP/1.1 200 OK\r\n\r\n"), Ok((UntilClose, false)));
        assert_eq!(get("HTTP/1.1 204 No\r\n\r\n"), Ok((Nothing, true)));
        assert_eq!(get("HTTP/1.1 204 No\r\ncontent-length: 0\r\n\r\n"), Ok((Nothing, true)));
        assert_eq!(get("HTTP/1.1 204 No\r\ncontent-length: 5\r\n\r\n"), Ok((Nothing, false)));
        assert_eq!(get("HTTP/1.1 204 No\r\ntransfer-encoding: chunked\r\n\r\n"), Ok((Nothing, false)));
        assert_eq!(get("HTTP/1.1 304 Not\r\ncontent-length: 5\r\n\r\n"), Ok((Nothing, true)));
        assert_eq!(
            get("HTTP/1.0 200 OK\r\nconnection: keep-alive, close\r\ncontent-length: 1\r\n\r\n"),
            Ok((Length(1), false))
        );
        assert_eq!(get("HTTP/1.1 200 OK\r\nconnection: x, Close\r\ncontent-length: 0\r\n\r\n"), Ok((Nothing, false)));
        assert_eq!(get("HTTP/1.0 200 OK\r\ncontent-length: 1\r\n\r\n"), Ok((Length(1), false)));
        assert_eq!(
            get("HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ncontent-length: 1\r\n\r\n"),
            Ok((Length(1), true))
        );
        assert_eq!(receiving("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n", &Method::HEAD), Ok((Nothing, true)));
        for wrong in [
            "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: +5\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 99999999999999999999\r\n\r\n",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n",
            "HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
        ] {
            assert!(get(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_length_said_twice_goes_on_as_one() {
        for text in [
            "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 5\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 5, 5\r\n\r\n",
        ] {
            let mut head = parse(&Bytes::from_static(text.as_bytes())).unwrap();
            assert_eq!(Receiving::of(&mut head, &Method::GET), Ok((Receiving::Length(5), true)));
            let values: Vec<_> = head.headers.get_all("content-length").iter().collect();
            assert_eq!(values, ["5"], "{text:?}");
        }
    }

    /// Were there two opinions of where a head ends, an upstream could hide a second answer between them.
    #[test]
    fn parser_and_search_agree_where_a_head_ends() {
        let mut rng = fastrand::Rng::with_seed(5);
        for _ in 0..50_000 {
            let mut bytes = b"HTTP/1.1 200 OK".to_vec();
            for _ in 0..rng.usize(2..8) {
                bytes.extend_from_slice(rng.choice([&b"\r\n"[..], b"\n", b"\r", b" ", b"a: b", b"c:", b"\t"]).unwrap());
            }
            let mut fields = [httparse::EMPTY_HEADER; 16];
            let mut response = httparse::Response::new(&mut fields);
            if let Ok(httparse::Status::Complete(read)) = response.parse(&bytes) {
                assert_eq!(end(&bytes, 0), Some(read), "{:?}", String::from_utf8_lossy(&bytes));
            }
        }
    }

    #[test]
    fn a_request_says_its_length_once() {
        let written = |request: Request<Body>| {
            let mut out = Vec::new();
            write(&request, Sending::of(request.headers(), request.body()), &mut out);
            String::from_utf8(out).unwrap()
        };
        let post = || Request::post("/p?q").header("content-length", "7").header("transfer-encoding", "chunked");
        assert_eq!(written(post().body(Body::from("abc")).unwrap()), "POST /p?q HTTP/1.1\r\ncontent-length: 3\r\n\r\n");
        assert_eq!(written(post().body(Body::Empty).unwrap()), "POST /p?q HTTP/1.1\r\ncontent-length: 0\r\n\r\n");
        assert_eq!(written(Request::get("http://a/b").body(Body::Empty).unwrap()), "GET http://a/b HTTP/1.1\r\n\r\n");
        assert_eq!(written(Request::options("*").body(Body::Empty).unwrap()), "OPTIONS * HTTP/1.1\r\n\r\n");
    }

    #[test]
    fn an_unusual_reason_is_kept() {
        let head = parse(&Bytes::from_static(b"HTTP/1.1 200 Fine\r\n\r\n")).unwrap();
        assert_eq!(head.reason.unwrap().as_bytes(), b"Fine");
        assert!(parse(&Bytes::from_static(b"HTTP/1.1 200 OK\r\n\r\n")).unwrap().reason.is_none());
    }

    #[test]
    fn arbitrary_bytes_never_panic() {
        let mut rng = fastrand::Rng::with_seed(3);
        for _ in 0..20_000 {
            let mut bytes = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\na: b\r\n\r\n".to_vec();
            for _ in 0..rng.usize(1..4) {
                let at = rng.usize(..bytes.len());
                bytes[at] = rng.u8(..);
            }
            if let Ok(mut head) = parse(&Bytes::from(bytes)) {
                let _ = Receiving::of(&mut head, &Method::GET);
            }
        }
    }
}

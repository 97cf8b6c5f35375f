//! Plain HTTP that comes to a TLS port: answered with a redirect to the same address over HTTPS.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Longest that the client's side is listened to after the answer, so that closing does not destroy it on its way.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES: usize = 64 << 10;
const MAX_HEADERS: usize = 256;

/// What became of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Not HTTP in clear: to be served.
    Passed,
    /// Answered, or gone.
    Done,
}

/// Answers a connection that begins with an HTTP request in clear. `seen` holds what was read so far, before and after.
/// `max_head` bounds what is read of the request, in bytes.
pub async fn answer<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S, seen: &mut Vec<u8>, max_head: usize) -> Outcome {
    while seen.len() < 5 {
        match stream.read_buf(seen).await {
            Ok(0) | Err(_) => return Outcome::Done,
            Ok(_) => {}
        }
    }
    if !looks_like_http(seen) {
        return Outcome::Passed;
    }
    let mut searched = 0;
    while !has_end(seen, &mut searched) {
        if seen.len() >= max_head {
            return Outcome::Done;
        }
        match stream.read_buf(seen).await {
            Ok(0) | Err(_) => return Outcome::Done,
            Ok(_) => {}
        }
    }
    let response = response(seen);
    if stream.write_all(response.as_bytes()).await.is_ok() && stream.shutdown().await.is_ok() {
        let _ = tokio::time::timeout(LINGER, drain(stream)).await;
    }
    Outcome::Done
}

/// Whether the first five bytes of what should be TLS are those of an HTTP request (Go's test, and so Caddy's).
#[must_use]
pub fn looks_like_http(first: &[u8]) -> bool {
    [b"GET /", b"HEAD ", b"POST ", b"PUT /", b"OPTIO"].iter().any(|known| first.starts_with(*known))
}

fn has_end(seen: &[u8], searched: &mut usize) -> bool {
    // An end may straddle what was looked at before.
    let from = searched.saturating_sub(3);
    *searched = seen.len();
    memchr::memmem::find(&seen[from..], b"\r\n\r\n").is_some()
}

fn response(head: &[u8]) -> String {
    match location(head) {
        Some(location) => {
            format!("HTTP/1.0 308 Permanent Redirect\r\nConnection: close\r\nLocation: {location}\r\n\r\n")
        }
        None => "HTTP/1.0 400 Bad Request\r\nConnection: close\r\n\r\n".to_owned(),
    }
}

/// The same host and target, over HTTPS.
fn location(head: &[u8]) -> Option<String> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    if !request.parse(head).ok()?.is_complete() {
        return None;
    }
    let target = request.path.filter(|target| target.starts_with('/'))?;
    let mut hosts = request.headers.iter().filter(|header| header.name.eq_ignore_ascii_case("host"));
    let (host, None) = (hosts.next()?.value, hosts.next()) else { return None };
    let host = std::str::from_utf8(host).ok()?.parse::<http::uri::Authority>().ok()?;
    // A user part would make the address lead somewhere else than it says.
    (!host.as_str().contains('@')).then(|| format!("https://{host}{target}"))
}

async fn drain<S: AsyncRead + Unpin>(stream: &mut S) {
    let mut buffer = [0; 1024];
    let mut left = LINGER_BYTES;
    while left > 0 {
        match stream.read(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(n) => left = left.saturating_sub(n),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_is_kept_and_nothing_else_is_let_into_it() {
        let at = |head: &str| location(head.as_bytes());
        assert_eq!(at("GET /a?b=c HTTP/1.1\r\nHost: a.test:8443\r\n\r\n").unwrap(), "https://a.test:8443/a?b=c");
        assert_eq!(at("POST / HTTP/1.0\r\nhost: [::1]:1\r\n\r\n").unwrap(), "https://[::1]:1/");
        for head in [
            "GET / HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a.test@evil.test\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: evil.test/x\r\n\r\n",
            "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
            "HEAD http://b/ HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /\u{1} HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET / garbage\r\n\r\n",
        ] {
            assert_eq!(at(head), None, "{head:?}");
        }
    }

    fn answered(sent: &[u8], max_head: usize) -> (Outcome, String, Vec<u8>) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let (mut near, mut far) = tokio::io::duplex(1 << 16);
            far.write_all(sent).await.unwrap();
            far.shutdown().await.unwrap();
            let mut seen = Vec::new();
            let outcome = answer(&mut near, &mut seen, max_head).await;
            drop(near);
            let mut got = String::new();
            far.read_to_string(&mut got).await.unwrap();
            (outcome, got, seen)
        })
    }

    #[test]
    fn tls_passes_with_every_byte() {
        let hello = b"\x16\x03\x01\x02\x00\x01\x00";
        assert_eq!(answered(hello, 100), (Outcome::Passed, String::new(), hello.to_vec()));
        assert_eq!(answered(b"GET", 100).0, Outcome::Done);
    }

    #[test]
    fn a_request_is_answered_and_a_huge_one_is_not_read() {
        let (outcome, got, _) = answered(b"GET /x HTTP/1.1\r\nHost: a.test\r\n\r\n", 1000);
        assert_eq!(outcome, Outcome::Done);
        assert!(got.starts_with("HTTP/1.0 308 ") && got.contains("\r\nLocation: https://a.test/x\r\n"), "{got}");
        let huge = [b"GET / HTTP/1.1\r\nHost: ".as_slice(), &[b'a'; 5000]].concat();
        let (outcome, got, seen) = answered(&huge, 1000);
        assert_eq!((outcome, got.as_str()), (Outcome::Done, ""));
        assert!(seen.len() < 3000, "{}", seen.len());
    }
}

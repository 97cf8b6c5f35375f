//! The writing side of a connection: a head and a body, small pieces joined into one write.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use http::{HeaderMap, HeaderName, HeaderValue, Request, header};
use http_body::{Body as _, Frame};
use tokio::io::AsyncWrite;

use super::head::{self, Sending};
use crate::base::body::Body;
use crate::base::error::{Kind, ProxyError, Retry};

/// Pieces up to this size are copied behind the head rather than written from where they lie.
const SMALL: usize = 8 << 10;
/// No further piece is asked for while this much waits to be written.
const WAITING: usize = 16 << 10;

/// Why a message could not be written.
#[derive(Debug)]
pub enum Fault {
    /// The body itself failed.
    Body(ProxyError),
    Io(io::Error),
}

/// A message on its way out.
pub struct Transmit {
    /// Head, framing and small pieces.
    buffer: Vec<u8>,
    at: usize,
    /// A large piece behind the buffer.
    large: Bytes,
    /// The line end behind the large piece.
    behind: &'static [u8],
    body: Option<Body>,
    sending: Sending,
    /// Fields that the head announced as trailers.
    announced: Vec<HeaderName>,
    /// Bytes of the body taken so far.
    pub content: u64,
    /// Bytes written so far.
    pub written: u64,
    /// The last write or flush found the socket full.
    pub blocked: bool,
}

impl Transmit {
    /// A request. `body` was taken out of it; `buffer` is the connection's, for its capacity.
    pub fn new(request: &Request<Body>, body: Body, mut buffer: Vec<u8>) -> Self {
        let sending = Sending::of(request.headers(), &body);
        buffer.clear();
        head::write(request, sending, &mut buffer);
        let announced = if sending == Sending::Chunked { announced(request.headers()) } else { Vec::new() };
        Self::behind_head(buffer, sending, body, announced)
    }

    /// A message whose head is in `buffer`. Only trailers that were `announced` are sent.
    pub fn behind_head(buffer: Vec<u8>, sending: Sending, body: Body, announced: Vec<HeaderName>) -> Self {
        Self {
            buffer,
            at: 0,
            large: Bytes::new(),
            behind: b"",
            body: (sending != Sending::Nothing).then_some(body),
            sending,
            announced,
            content: 0,
            written: 0,
            blocked: false,
        }
    }

    /// The buffer, once all of it is written.
    pub fn take_buffer(&mut self) -> Vec<u8> {
        self.buffer.clear();
        std::mem::take(&mut self.buffer)
    }

    /// Ready once all of it is written and flushed.
    pub fn poll<S: AsyncWrite + Unpin>(&mut self, stream: &mut S, cx: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        loop {
            let asked = self.fill(cx);
            if let Poll::Ready(Err(error)) = asked {
                return Poll::Ready(Err(Fault::Body(error)));
            }
            while self.at < self.buffer.len() || !self.large.is_empty() || !self.behind.is_empty() {
                let polled = self.write(stream, cx);
                self.blocked = polled.is_pending();
                if let Err(error) = ready!(polled) {
                    return Poll::Ready(Err(Fault::Io(error)));
                }
            }
            self.buffer.clear();
            self.at = 0;
            if self.body.is_none() || asked.is_pending() {
                // Over TLS what was written may wait in the stream's own buffer.
                let flushed = Pin::new(&mut *stream).poll_flush(cx);
                self.blocked = flushed.is_pending();
                if let Err(error) = ready!(flushed) {
                    return Poll::Ready(Err(Fault::Io(error)));
                }
                return if self.body.is_none() { Poll::Ready(Ok(())) } else { Poll::Pending };
            }
        }
    }

    /// Writes what is here already and asks the body for nothing more: for one that failed.
    pub fn poll_buffered<S: AsyncWrite + Unpin>(
        &mut self,
        stream: &mut S,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Fault>> {
        self.body = None;
        self.poll(stream, cx)
    }

    /// Asks the body for pieces until enough waits. Pending: the body has none at the moment.
    fn fill(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ProxyError>> {
        while self.large.is_empty() && self.behind.is_empty() && self.buffer.len() - self.at < WAITING {
            let Some(body) = &mut self.body else { break };
            match ready!(Pin::new(body).poll_frame(cx)) {
                Some(frame) => self.append(frame?)?,
                None => self.end(None)?,
            }
        }
        Poll::Ready(Ok(()))
    }

    fn append(&mut self, frame: Frame<Bytes>) -> Result<(), ProxyError> {
        let data = match frame.into_data() {
            Ok(data) => data,
            Err(frame) => return self.end(frame.into_trailers().ok()),
        };
        if data.is_empty() {
            return Ok(());
        }
        self.content += data.len() as u64;
        match &mut self.sending {
            Sending::Nothing => return Err(wrong_length()),
            Sending::UntilClose => {}
            Sending::Length(left) => *left = left.checked_sub(data.len() as u64).ok_or_else(wrong_length)?,
            Sending::Chunked => {
                let mut size = [0_u8; 18];
                self.buffer.extend_from_slice(hexadecimal(data.len(), &mut size));
                self.behind = b"\r\n";
            }
        }
        if data.len() <= SMALL {
            self.buffer.extend_from_slice(&data);
            self.buffer.extend_from_slice(std::mem::take(&mut self.behind));
        } else {
            self.large = data;
        }
        if self.sending == Sending::Length(0) {
            self.body = None;
        }
        Ok(())
    }

    fn end(&mut self, trailers: Option<HeaderMap>) -> Result<(), ProxyError> {
        match self.sending {
            Sending::Nothing | Sending::Length(0) | Sending::UntilClose => {}
            Sending::Length(_) => return Err(wrong_length()),
            Sending::Chunked => {
                self.buffer.extend_from_slice(b"0\r\n");
                for (name, value) in trailers.iter().flatten().filter(|(name, _)| self.announced.contains(name)) {
                    head::write_field(name, value, &mut self.buffer);
                }
                self.buffer.extend_from_slice(b"\r\n");
            }
        }
        self.body = None;
        Ok(())
    }

    fn write<S: AsyncWrite + Unpin>(&mut self, stream: &mut S, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let stream = Pin::new(stream);
        let head = self.buffer.get(self.at..).unwrap_or(b"");
        let mut n = if self.large.is_empty() && self.behind.is_empty() {
            ready!(stream.poll_write(cx, head))?
        } else {
            let parts = [IoSlice::new(head), IoSlice::new(&self.large), IoSlice::new(self.behind)];
            ready!(stream.poll_write_vectored(cx, &parts))?
        };
        if n == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        self.written += n as u64;
        let of_head = n.min(head.len());
        self.at += of_head;
        n -= of_head;
        let of_large = n.min(self.large.len());
        self.large.advance(of_large);
        n -= of_large;
        self.behind = self.behind.get(n..).unwrap_or(b"");
        Poll::Ready(Ok(()))
    }
}

fn wrong_length() -> ProxyError {
    ProxyError::new(Kind::ClientBody, Retry::No, "the body is not as long as its content-length says")
}

/// A chunk's size line.
fn hexadecimal(mut n: usize, out: &mut [u8; 18]) -> &[u8] {
    let [digits @ .., cr, lf] = &mut *out;
    (*cr, *lf) = (b'\r', b'\n');
    let mut first = digits.len();
    for digit in digits.iter_mut().rev() {
        *digit = *b"0123456789abcdef".get(n & 15).unwrap_or(&b'0');
        first -= 1;
        n >>= 4;
        if n == 0 {
            break;
        }
    }
    out.get(first..).unwrap_or(b"")
}

/// Names in `trailer`, but those that mean something else there (RFC 9110 section 6.5.1).
pub fn announced(headers: &HeaderMap) -> Vec<HeaderName> {
    let words = headers.get_all(header::TRAILER).iter().flat_map(|v: &HeaderValue| v.as_bytes().split(|b| *b == b','));
    let names = words.filter_map(|word| HeaderName::from_bytes(word.trim_ascii()).ok());
    let forbidden = [
        header::TRANSFER_ENCODING,
        header::CONTENT_LENGTH,
        header::HOST,
        header::TRAILER,
        header::AUTHORIZATION,
        header::SET_COOKIE,
        header::CONTENT_TYPE,
        header::CONTENT_ENCODING,
        header::CONTENT_RANGE,
        header::CACHE_CONTROL,
        header::TE,
        header::CONNECTION,
        header::UPGRADE,
        header::EXPECT,
        header::COOKIE,
        header::PROXY_AUTHORIZATION,
        header::MAX_FORWARDS,
    ];
    names.filter(|name| !forbidden.contains(name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_hexadecimal() {
        for n in [1, 15, 16, 255, 4096, usize::MAX] {
            assert_eq!(hexadecimal(n, &mut [0; 18]), format!("{n:x}\r\n").as_bytes());
        }
    }
}
